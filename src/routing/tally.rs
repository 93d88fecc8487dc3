//! What was sent to an endpoint, and how often it failed: for the operator; nothing is decided by it.
//!
//! Each worker counts in a [`Tally`] of its own, so that counting is a plain load and store. A worker that comes goes on
//! with one that nobody writes any more: there are no more of them than workers, and no count ever falls.

use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a call failed at its endpoint. What is wrong with a request, and what a client gives up, is none of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It answered that it cannot.
    Failure,
    /// It answered that it has too much to do, or that it leaves.
    Busy,
    /// It did not answer in time.
    Timeout,
    /// The link broke before it answered.
    Lost,
}

impl Fault {
    /// All of them, with their names among the metrics.
    pub const ALL: [(Fault, &'static str); 4] = [
        (Fault::Failure, "failure"),
        (Fault::Busy, "busy"),
        (Fault::Timeout, "timeout"),
        (Fault::Lost, "lost"),
    ];
}

/// What one worker has counted of one endpoint; only that worker writes it.
#[derive(Debug, Default)]
pub(super) struct Tally {
    sent: AtomicU64,
    /// In the order of [`Fault::ALL`].
    failed: [AtomicU64; Fault::ALL.len()],
}

impl Tally {
    #[inline]
    pub(super) fn sent(&self) {
        raise(&self.sent);
    }

    pub(super) fn failed(&self, fault: Fault) {
        let [failure, busy, timeout, lost] = &self.failed;
        raise(match fault {
            Fault::Failure => failure,
            Fault::Busy => busy,
            Fault::Timeout => timeout,
            Fault::Lost => lost,
        });
    }
}

/// There is one writer.
#[inline]
fn raise(cell: &AtomicU64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// The calls of an endpoint, over all workers; or a difference of two such counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Calls {
    /// Calls that were given to a link to it: each attempt, and those that were taken back because their link broke before
    /// they were sent.
    pub sent: u64,
    /// Those that failed, in the order of [`Fault::ALL`].
    pub failed: [u64; Fault::ALL.len()],
}

impl Calls {
    /// Adds others to them.
    pub fn add(&mut self, other: Calls) {
        self.sent = self.sent.wrapping_add(other.sent);
        for (sum, other) in self.failed.iter_mut().zip(other.failed) {
            *sum = sum.wrapping_add(other);
        }
    }
}

/// All workers' tallies of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    workers: Mutex<Vec<Arc<Tally>>>,
    /// What [`Tallies::news`] has told.
    told: Mutex<Calls>,
}

impl Tallies {
    /// For one worker.
    pub(super) fn join(&self) -> Arc<Tally> {
        let mut workers = self.workers.lock();
        // Unique: the worker that wrote it is done with it, and all that it wrote is seen.
        let free = workers.iter_mut().find_map(|tally| Arc::get_mut(tally).is_some().then(|| tally.clone()));
        free.unwrap_or_else(|| {
            let tally = Arc::new(Tally::default());
            workers.push(tally.clone());
            tally
        })
    }

    pub(super) fn calls(&self) -> Calls {
        let mut sum = Calls::default();
        for tally in self.workers.lock().iter() {
            let failed = tally.failed.each_ref().map(|failed| failed.load(Ordering::Relaxed));
            sum.add(Calls { sent: tally.sent.load(Ordering::Relaxed), failed });
        }
        sum
    }

    /// What has come since this was asked last.
    pub(super) fn news(&self) -> Calls {
        let mut told = self.told.lock();
        let calls = self.calls();
        let before = std::mem::replace(&mut *told, calls);
        let mut news = calls;
        news.sent = news.sent.wrapping_sub(before.sent);
        for (news, before) in news.failed.iter_mut().zip(before.failed) {
            *news = news.wrapping_sub(before);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_was_counted_is_forgotten_when_workers_come_and_go() {
        let tallies = Tallies::default();
        let (first, second) = (tallies.join(), tallies.join());
        first.sent();
        second.sent();
        second.failed(Fault::Timeout);
        drop(first);
        let third = tallies.join();
        third.sent();
        Fault::ALL.iter().for_each(|(fault, _)| third.failed(*fault));
        assert_eq!(tallies.workers.lock().len(), 2, "the third goes on where the first has ended");
        assert_eq!(tallies.calls(), Calls { sent: 3, failed: [1, 1, 2, 1] });
        assert_eq!(tallies.news(), tallies.calls());
        second.failed(Fault::Lost);
        assert_eq!(tallies.news(), Calls { sent: 0, failed: [0, 0, 0, 1] });
        assert_eq!(tallies.news(), Calls::default());
    }
}
