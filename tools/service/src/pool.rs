//! Threads for handlers that block, so that the loop never does.

use crate::queue::{OrderedQueue, QueueLimits};
use parking_lot::{Condvar, Mutex};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Bytes of the calls that wait for a thread, at the most.
const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a thread runs.
pub(crate) trait Job: Send {
    /// Runs it.
    fn run(self: Box<Self>);
    /// There is no room for it.
    fn refuse(self: Box<Self>);
}

struct State {
    queue: OrderedQueue<Box<dyn Job>>,
    open: bool,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

/// Some threads and the queue before them. Dropped, it drops what waits; the threads end once they have run what they
/// have, and are not waited for.
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

impl Pool {
    /// As many threads, named after the service, and at most `waiting_max` jobs before them.
    pub(crate) fn start(service: &str, threads: usize, waiting_max: usize) -> io::Result<Pool> {
        let limits = QueueLimits { jobs_max: waiting_max, bytes_max: QUEUE_BYTES_MAX };
        let state = State { queue: OrderedQueue::new(limits), open: true };
        let pool = Pool { shared: Arc::new(Shared { state: Mutex::new(state), work: Condvar::new() }) };
        for number in 1..=threads.max(1) {
            let shared = pool.shared.clone();
            std::thread::Builder::new().name(format!("{service}-{number}")).spawn(move || shared.run())?;
        }
        Ok(pool)
    }

    /// Hands in a job of so many bytes; those with the same key run one after the other. It is refused when too many wait.
    pub(crate) fn run(&self, key: &[u8], bytes: usize, job: Box<dyn Job>) {
        let pushed = self.shared.state.lock().queue.push(key, bytes, job);
        match pushed {
            Ok(()) => {
                self.shared.work.notify_one();
            }
            Err(job) => job.refuse(),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let rest = {
            let mut state = self.shared.state.lock();
            state.open = false;
            let limits = QueueLimits { jobs_max: 0, bytes_max: 0 };
            std::mem::replace(&mut state.queue, OrderedQueue::new(limits))
        };
        drop(rest);
        self.shared.work.notify_all();
    }
}

impl Shared {
    fn run(&self) {
        let mut state = self.state.lock();
        while state.open {
            let Some((job, turn)) = state.queue.take() else {
                self.work.wait(&mut state);
                continue;
            };
            drop(state);
            if catch_unwind(AssertUnwindSafe(|| job.run())).is_err() {
                log::error!("a handler has panicked");
            }
            state = self.state.lock();
            // This thread takes another job itself; what else is ready has woken its own.
            let _ = state.queue.done(turn);
        }
    }
}
