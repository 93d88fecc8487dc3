//! Moves bytes between sockets and the cores, and nothing else: one mio event loop per thread.
//!
//! A turn of a loop reads everything that is ready, within a budget; lets the core decide; hands one batch to each
//! peer; and flushes each socket once. Sockets are edge-triggered: a short read or write means drained, unless the
//! event said that the peer has closed, when it is read to the end.

mod descriptors;
mod listener;
mod settings;
mod shard_loop;
mod socket;
mod worker_loop;

pub use descriptors::descriptors;
pub use listener::{BindError, Listener, adopt, bind};
pub use settings::{AcceptMode, ListenAt, ListenerSettings, Settings};
pub use shard_loop::{Handed, ShardCommand, ShardLoop, ShardParts};
pub use socket::SocketOptions;
pub use worker_loop::{WorkerCommand, WorkerLoop, WorkerParts};

use crate::base::bell::{Bell, Wake};
use crate::base::clock::Now;
use moorgate_proto::time::Mono;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Wakes a loop out of its poll.
#[derive(Debug)]
pub struct MioWaker(mio::Waker);

impl Wake for MioWaker {
    fn wake(&self) {
        // It fails only when the loop's poll is gone, and then there is nobody to wake.
        let _ = self.0.wake();
    }
}

/// A loop's bell.
pub type LoopBell = Arc<Bell<MioWaker>>;
/// A mailbox to a loop.
pub type Outbox<T> = crate::base::mailbox::Outbox<T, MioWaker>;
/// A loop's end of a mailbox.
pub type Inbox<T> = crate::base::mailbox::Inbox<T>;

/// The token of a loop's waker.
const WAKER: mio::Token = mio::Token(usize::MAX);
/// A loop that could not hand a batch over tries again after this time at the latest.
const RETRY: Duration = Duration::from_millis(1);
/// A loop with nothing to do turns after this time all the same, to show that it can.
const BEAT: Duration = Duration::from_secs(1);
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// Reads of one socket in one turn; what is left is read in the next.
const READS_PER_TURN: usize = 4;
/// Events taken from one poll.
const EVENTS_PER_TURN: usize = 1024;

/// A poll with its bell.
///
/// # Errors
/// When the system has no descriptors left.
pub fn poll_with_bell() -> io::Result<(mio::Poll, LoopBell)> {
    let poll = mio::Poll::new()?;
    let waker = mio::Waker::new(poll.registry(), WAKER)?;
    Ok((poll, Arc::new(Bell::new(MioWaker(waker)))))
}

/// How long a loop may sleep.
fn sleep_time(now: Now, deadline: Option<Mono>, is_busy: bool, is_held: bool) -> Duration {
    if is_busy {
        return Duration::ZERO;
    }
    let until = deadline.map_or(BEAT, |deadline| deadline.since(now.mono));
    until.min(if is_held { RETRY } else { BEAT })
}

/// Waits for events; an interrupted wait is one without events.
fn wait(poll: &mut mio::Poll, events: &mut mio::Events, timeout: Duration) {
    if let Err(error) = poll.poll(events, Some(timeout))
        && error.kind() != io::ErrorKind::Interrupted
    {
        log::error!("poll failed: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_sleeps_until_its_deadline_unless_there_is_work() {
        let now = Now { mono: Mono::ZERO + Duration::from_secs(5), unix_ms: 0 };
        let due = Some(Mono::ZERO + Duration::from_millis(5_700));
        assert_eq!(sleep_time(now, None, false, false), BEAT);
        assert_eq!(sleep_time(now, due, false, false), Duration::from_millis(700));
        assert_eq!(sleep_time(now, Some(Mono::ZERO), false, false), Duration::ZERO);
        assert_eq!(sleep_time(now, due, true, false), Duration::ZERO);
        assert_eq!(sleep_time(now, due, false, true), RETRY);
    }
}
