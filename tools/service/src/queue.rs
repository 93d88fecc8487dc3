//! Work that waits for a thread, without threads: bounded, and in order where it has a key.
//!
//! Jobs with the same key are taken one at a time, in the order in which they came: the next one once the one before was
//! given back with [`OrderedQueue::done`]. Jobs without a key, and with different ones, do not wait for each other.

use std::collections::{HashMap, VecDeque};

/// Bounds of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueLimits {
    /// Jobs that wait.
    pub(crate) jobs_max: usize,
    /// Bytes of the jobs that wait.
    pub(crate) bytes_max: usize,
}

/// A job's turn: while it is out, no other job with its key is.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what is not given back blocks its key"]
pub(crate) struct Turn(Option<Box<[u8]>>);

#[derive(Debug)]
struct Waiting<J> {
    job: J,
    bytes: usize,
    turn: Turn,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct OrderedQueue<J> {
    limits: QueueLimits,
    ready: VecDeque<Waiting<J>>,
    /// What waits behind a job with its key that is ready or out. A key without such a job is not in it.
    behind: HashMap<Box<[u8]>, VecDeque<Waiting<J>>>,
    jobs: usize,
    bytes: usize,
}

impl<J> OrderedQueue<J> {
    /// An empty one.
    pub(crate) fn new(limits: QueueLimits) -> OrderedQueue<J> {
        OrderedQueue { limits, ready: VecDeque::new(), behind: HashMap::new(), jobs: 0, bytes: 0 }
    }

    /// Adds a job of so many bytes; an empty key is none.
    ///
    /// # Errors
    /// The job, when there is no room for it.
    pub(crate) fn push(&mut self, key: &[u8], bytes: usize, job: J) -> Result<(), J> {
        let bytes_then = self.bytes.saturating_add(bytes);
        if self.jobs >= self.limits.jobs_max || bytes_then > self.limits.bytes_max {
            return Err(job);
        }
        self.jobs += 1;
        self.bytes = bytes_then;
        let turn = Turn((!key.is_empty()).then(|| key.into()));
        let line = match &turn.0 {
            Some(key) if self.behind.contains_key(key) => self.behind.get_mut(key),
            Some(key) => {
                self.behind.insert(key.clone(), VecDeque::new());
                None
            }
            None => None,
        };
        line.unwrap_or(&mut self.ready).push_back(Waiting { job, bytes, turn });
        Ok(())
    }

    /// The next job that may run, which is to be given back.
    pub(crate) fn take(&mut self) -> Option<(J, Turn)> {
        let Waiting { job, bytes, turn } = self.ready.pop_front()?;
        self.jobs -= 1;
        self.bytes -= bytes;
        Some((job, turn))
    }

    /// A job has run; whether another one may run because of that.
    pub(crate) fn done(&mut self, turn: Turn) -> bool {
        let Some(key) = turn.0 else { return false };
        match self.behind.get_mut(&key).and_then(VecDeque::pop_front) {
            Some(next) => {
                self.ready.push_back(next);
                true
            }
            None => {
                self.behind.remove(&key);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: QueueLimits = QueueLimits { jobs_max: 5, bytes_max: 100 };

    // spec: L-28
    #[test]
    fn a_key_runs_one_at_a_time_and_others_do_not_wait() {
        let mut queue = OrderedQueue::new(LIMITS);
        for (key, job) in [("a", 1), ("a", 2), ("b", 3), ("", 4), ("", 5)] {
            queue.push(key.as_bytes(), 1, job).unwrap();
        }
        let mut turns = Vec::new();
        let mut taken = Vec::new();
        while let Some((job, turn)) = queue.take() {
            taken.push(job);
            turns.push(turn);
        }
        assert_eq!(taken, [1, 3, 4, 5]);
        assert_eq!(queue.jobs, 1);
        assert!(queue.done(turns.remove(0)));
        let (job, turn) = queue.take().unwrap();
        assert_eq!(job, 2);
        assert!(!queue.done(turn));
        turns.into_iter().for_each(|turn| assert!(!queue.done(turn)));
        assert!(queue.jobs == 0 && queue.behind.is_empty(), "no key is kept");
    }

    #[test]
    fn jobs_and_bytes_are_bounded_whether_ready_or_behind() {
        let mut queue = OrderedQueue::new(LIMITS);
        assert_eq!(queue.push(b"a", 101, 0), Err(0));
        assert!(queue.behind.is_empty());
        for job in 0..5 {
            queue.push(b"a", 20, job).unwrap();
        }
        assert_eq!(queue.push(b"", 0, 9), Err(9), "too many");
        let (_, turn) = queue.take().unwrap();
        assert_eq!(queue.push(b"", 21, 9), Err(9), "too large");
        queue.push(b"", 20, 9).unwrap();
        let _ = queue.done(turn);
    }

    proptest! {
        #[test]
        fn each_key_keeps_its_order_whatever_finishes_first(
            keys in proptest::collection::vec(0u8..4, 1..60),
            choices in proptest::collection::vec(any::<(bool, prop::sample::Index)>(), 1..200),
        ) {
            let mut queue = OrderedQueue::new(QueueLimits { jobs_max: 60, bytes_max: 60 });
            let key_of = |job: usize| if keys[job] == 0 { vec![] } else { vec![keys[job]] };
            for job in 0..keys.len() {
                queue.push(&key_of(job), 1, job).unwrap();
            }
            let mut out: Vec<(usize, Turn)> = Vec::new();
            let mut ran = Vec::new();
            let mut choices = choices.iter().cycle();
            while ran.len() < keys.len() || !out.is_empty() {
                let (take, index) = choices.next().unwrap();
                let next = if *take || out.is_empty() { queue.take() } else { None };
                if let Some((job, turn)) = next {
                    let same_key = |(other, _): &(usize, Turn)| keys[*other] == keys[job];
                    prop_assert!(keys[job] == 0 || !out.iter().any(same_key));
                    ran.push(job);
                    out.push((job, turn));
                } else if !out.is_empty() {
                    let (_, turn) = out.swap_remove(index.index(out.len()));
                    let _ = queue.done(turn);
                }
            }
            for key in 1..4 {
                let of_key: Vec<_> = ran.iter().filter(|job| keys[**job] == key).collect();
                prop_assert!(of_key.is_sorted());
            }
            prop_assert!(queue.jobs == 0 && queue.behind.is_empty());
        }
    }
}
