//! A number that many threads move, and all look at.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How much there is of something, over all threads.
#[derive(Debug, Default)]
pub struct Gauge(AtomicUsize);

impl Gauge {
    /// There is more.
    pub fn add(&self, amount: usize) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// There is less, by what was added before.
    pub fn subtract(&self, amount: usize) {
        self.0.fetch_sub(amount, Ordering::Relaxed);
    }

    /// How much there is.
    pub fn value(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
