//! The thread that looks at the gateway, asks the [`Reporter`] what to tell, and sends it.
//!
//! There is none when no service manager asks for it, with `NOTIFY_SOCKET`. A service manager that cannot be told is
//! a line in the log, once, and never the end of the gateway.

use super::Environment;
use super::notify::{Notice, Notifier};
use super::reporter::{Observed, Reporter};
use crate::base::clock::Clock;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Drains that wait to be told: there is one.
const EVENTS_MAX: usize = 4;

/// What is looked at.
pub trait Vitals: Send + Sync {
    /// How the gateway is, now.
    fn observe(&self) -> Observed;
}

/// The gateway drains, for this long at the most.
struct Drain(Duration);

/// Tells the service manager how the gateway is, for as long as this lives.
#[derive(Debug, Default)]
pub struct Reports {
    /// `None`: nobody wants to know.
    thread: Option<(Sender<Drain>, JoinHandle<()>)>,
}

impl Reports {
    /// Says that the gateway is ready, and goes on from there.
    ///
    /// # Errors
    /// When the environment names a socket that is none, or there is no thread left.
    pub fn start(environment: Environment<'_>, vitals: Arc<dyn Vitals>) -> io::Result<Reports> {
        let Some(name) = environment("NOTIFY_SOCKET") else { return Ok(Reports::default()) };
        let notifier = Notifier::new(&name).map_err(|error| {
            io::Error::new(error.kind(), format!("NOTIFY_SOCKET is `{}`: {error}", name.escape_debug()))
        })?;
        let reporter = Reporter::new(environment, std::process::id());
        let (sender, receiver) = bounded(EVENTS_MAX);
        let thread = std::thread::Builder::new().name("reports".to_owned());
        let thread = thread.spawn(move || {
            Loop { notifier, reporter, vitals, clock: Clock::start(), has_failed: false }.run(&receiver);
        })?;
        Ok(Reports { thread: Some((sender, thread)) })
    }

    /// Says that the gateway has begun to drain, for `timeout` at the most.
    pub fn drain(&self, timeout: Duration) {
        if let Some((sender, _)) = &self.thread {
            // It is full only when the end was told several times before.
            let _ = sender.try_send(Drain(timeout));
        }
    }

    /// Ends: what was asked for is sent first.
    pub fn end(self) {
        if let Some((sender, thread)) = self.thread {
            drop(sender);
            if thread.join().is_err() {
                log::error!("the thread that tells the service manager has failed");
            }
        }
    }
}

struct Loop {
    notifier: Notifier,
    reporter: Reporter,
    vitals: Arc<dyn Vitals>,
    clock: Clock,
    has_failed: bool,
}

impl Loop {
    fn run(mut self, events: &Receiver<Drain>) {
        let notices = self.reporter.ready(self.clock.read().mono, &self.vitals.observe());
        self.send(&notices);
        loop {
            let event = events.recv_timeout(self.reporter.pause());
            let (now, observed) = (self.clock.read().mono, self.vitals.observe());
            let notices = match event {
                Ok(Drain(timeout)) => self.reporter.drain(now, timeout, &observed),
                Err(RecvTimeoutError::Timeout) => self.reporter.look(now, &observed),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            self.send(&notices);
        }
    }

    fn send(&mut self, notices: &[Notice]) {
        match self.notifier.send(notices) {
            Ok(()) => self.has_failed = false,
            Err(error) if !std::mem::replace(&mut self.has_failed, true) => {
                log::error!("the service manager cannot be told how the gateway is: {error}");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Somebody else's loops, live until they are not.
    struct Loops(AtomicBool);

    impl Vitals for Loops {
        fn observe(&self) -> Observed {
            Observed { is_live: self.0.load(Ordering::Relaxed), connections: 0, readiness: Ok(()) }
        }
    }

    struct Listening(UnixDatagram, PathBuf);

    impl Listening {
        fn new(test: &str) -> Listening {
            let path = std::env::temp_dir().join(format!("moorgate-reports-{test}-{}", std::process::id()));
            // One that was killed may have had the same number, and have left its own.
            let _ = std::fs::remove_file(&path);
            let socket = UnixDatagram::bind(&path).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            Listening(socket, path)
        }

        /// The next datagram.
        fn next(&self) -> String {
            let mut buffer = [0; 4096];
            let count = loop {
                match self.0.recv(&mut buffer) {
                    // With a timeout it is not taken up again after a signal.
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    count => break count.unwrap(),
                }
            };
            String::from_utf8(buffer[..count].to_vec()).unwrap()
        }

        fn until(&self, part: &str) -> Vec<String> {
            let mut all = Vec::new();
            while !all.last().is_some_and(|last: &String| last.contains(part)) {
                all.push(self.next());
            }
            all
        }
    }

    impl Drop for Listening {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.1);
        }
    }

    #[test]
    fn a_loop_that_hangs_stops_the_feeding() {
        let listening = Listening::new("hang");
        let environment = |name: &str| match name {
            "NOTIFY_SOCKET" => listening.1.to_str().map(str::to_owned),
            "WATCHDOG_USEC" => Some("20000".to_owned()),
            _ => None,
        };
        let loops = Arc::new(Loops(AtomicBool::new(true)));
        let reports = Reports::start(&environment, loops.clone()).unwrap();
        assert_eq!(listening.next(), "READY=1\nWATCHDOG=1\nSTATUS=ready; 0 connections\n");
        for _ in 0..3 {
            assert_eq!(listening.next(), "WATCHDOG=1\n");
        }
        loops.0.store(false, Ordering::Relaxed);
        let told = listening.until("STATUS=a loop makes no progress");
        assert!(!told.last().unwrap().contains("WATCHDOG=1"), "{told:?}");
        reports.drain(Duration::from_secs(1));
        // Nothing is fed from there to the end, which is the next that is told.
        assert_eq!(listening.next(), "STOPPING=1\n");
        loops.0.store(true, Ordering::Relaxed);
        let extended = "WATCHDOG=1\nEXTEND_TIMEOUT_USEC=10000000\n";
        assert_eq!(listening.next(), format!("{extended}STATUS=draining; 0 connections\n"));
        assert_eq!(listening.next(), extended);
        reports.end();
    }

    #[test]
    fn without_a_service_manager_nobody_is_told_and_a_wrong_name_is() {
        let nobody = Arc::new(Loops(AtomicBool::new(true)));
        let reports = Reports::start(&|_| None, nobody.clone()).unwrap();
        assert!(reports.thread.is_none());
        reports.drain(Duration::ZERO);
        reports.end();
        let wrong = |name: &str| (name == "NOTIFY_SOCKET").then(|| "run/notify".to_owned());
        let error = Reports::start(&wrong, nobody).unwrap_err().to_string();
        assert_eq!(error, "NOTIFY_SOCKET is `run/notify`: neither a path nor @NAME");
    }
}
