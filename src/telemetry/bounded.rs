//! Operations that the system may block for ever, with a bound.

use crossbeam_channel::{RecvTimeoutError, bounded};
use std::io;
use std::time::Duration;

/// Runs an operation on a thread of its own and waits for its result, at most this long. A full pipe without a reader or
/// a disk that does not answer blocks only that thread, which is then left behind.
///
/// # Errors
/// `TimedOut` when there is no result in time; when the system has no thread left, or the operation has panicked.
pub fn within<T: Send + 'static>(time: Duration, run: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (sender, result) = bounded(1);
    let thread = std::thread::Builder::new().name("bounded".to_owned());
    thread.spawn(move || drop(sender.send(run())))?;
    result.recv_timeout(time).map_err(|error| match error {
        RecvTimeoutError::Timeout => {
            let time = humantime::format_duration(time);
            io::Error::new(io::ErrorKind::TimedOut, format!("not done within {time}"))
        }
        RecvTimeoutError::Disconnected => io::Error::other("the operation has panicked"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_that_blocks_is_left_behind() {
        assert_eq!(within(Duration::from_secs(60), || 7).unwrap(), 7);
        let (open, gate) = bounded::<()>(0);
        let error = within(Duration::from_millis(1), move || gate.recv().is_ok()).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (io::ErrorKind::TimedOut, "not done within 1ms")
        );
        drop(open);
    }
}
