//! An end that can be waited for.

use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::time::Duration;

/// Tells everybody who has a clone that it is over; it does not come back.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// One that is not set.
    pub fn new() -> Stop {
        Stop::default()
    }

    /// Ends it.
    pub fn set(&self) {
        *self.0.set.lock() = true;
        self.0.changed.notify_all();
    }

    /// Whether it is over.
    pub fn is_set(&self) -> bool {
        *self.0.set.lock()
    }

    /// Waits for the end, at most this long; whether it is over.
    pub fn wait(&self, timeout: Duration) -> bool {
        let mut set = self.0.set.lock();
        self.0.changed.wait_while_for(&mut set, |set| !*set, timeout);
        *set
    }

    /// Whether both are clones of one.
    pub(crate) fn is(&self, other: &Stop) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_when_a_clone_is_set() {
        let stop = Stop::new();
        assert!(!stop.wait(Duration::ZERO));
        let other = stop.clone();
        let thread = std::thread::spawn(move || other.set());
        assert!(stop.wait(Duration::from_secs(60)) && stop.is_set() && stop.is(&stop.clone()));
        thread.join().unwrap();
    }
}
