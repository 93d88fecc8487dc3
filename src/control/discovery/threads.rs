//! The threads of the discovery. One that ends before its time is told, and remembered.

use crate::base::clock::Clock;
use moorgate_registry::Stop;
use parking_lot::Mutex;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two looks whether all have ended.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The names of those that have ended before their time.
type Failed = Arc<Mutex<Vec<String>>>;

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct Running {
    failed: Failed,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    /// Runs until it returns, which it is to do when `stop` is set and not before.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(super) fn add(
        &mut self,
        name: &str,
        stop: &Stop,
        run: impl FnOnce(&Stop) + Send + 'static,
    ) -> io::Result<()> {
        let (stop, failed, told) = (stop.clone(), self.failed.clone(), name.to_owned());
        let thread = std::thread::Builder::new().name(name.to_owned());
        self.threads.push(thread.spawn(move || watch(&told, &stop, &failed, || run(&stop)))?);
        Ok(())
    }

    pub(super) fn failed(&self) -> Vec<String> {
        self.failed.lock().clone()
    }

    /// Waits for all of them, at most this long; the names of those that had failed.
    pub(super) fn join(self, within: Duration) -> Vec<String> {
        let clock = Clock::start();
        let until = clock.read().mono + within;
        // A thread cannot be joined with a timeout.
        while self.threads.iter().any(|thread| !thread.is_finished()) && clock.read().mono < until {
            std::thread::park_timeout(LOOK_EVERY);
        }
        for thread in self.threads {
            if !thread.is_finished() {
                let name = thread.thread().name().unwrap_or_default();
                log::error!("the thread `{name}` of the discovery does not end, and is left behind");
                continue;
            }
            // What it failed of was told when it did.
            let _ = thread.join();
        }
        self.failed.lock().clone()
    }
}

fn watch(name: &str, stop: &Stop, failed: &Failed, run: impl FnOnce()) {
    let panicked = catch_unwind(AssertUnwindSafe(run)).is_err();
    if panicked || !stop.is_set() {
        log::error!(
            "the thread `{name}` of the discovery has failed, and what it did is not done any more; restart the gateway"
        );
        failed.lock().push(name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn a_thread_that_does_not_end_is_left_behind() {
        let (mut running, stop) = (Running::default(), Stop::new());
        let (open, gate) = crossbeam_channel::bounded::<()>(0);
        running.add("blocked", &stop, move |_| assert!(gate.recv().is_err())).unwrap();
        stop.set();
        assert_eq!(running.join(Duration::from_millis(1)), [""; 0]);
        drop(open);
    }

    #[test]
    fn a_thread_that_ends_before_its_time_is_told() {
        let (mut running, stop) = (Running::default(), Stop::new());
        let forever = std::time::Duration::from_secs(3600);
        running.add("good", &stop, move |stop| while !stop.wait(forever) {}).unwrap();
        running.add("early", &stop, |_| {}).unwrap();
        running.add("panics", &stop, |_| panic!("on purpose")).unwrap();
        let good = running.threads.remove(0);
        let failed = running.failed.clone();
        let mut names = running.join(PATIENCE);
        names.sort_unstable();
        assert_eq!(names, ["early", "panics"]);
        stop.set();
        good.join().unwrap();
        assert_eq!(failed.lock().len(), 2, "one that is stopped has not failed");
    }
}
