//! The lock and the flag that tables shared by threads are built from, so that a test can exchange them for loom's and
//! run every interleaving.

use parking_lot::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

/// A value behind a lock.
pub trait Lock<T> {
    /// Unlocked.
    fn new(value: T) -> Self;
    /// Locks it for as long as `act` runs.
    fn with<R>(&self, act: impl FnOnce(&mut T) -> R) -> R;
    /// The same, unless somebody else has it locked.
    fn try_with<R>(&self, act: impl FnOnce(&mut T) -> R) -> Option<R>;
}

/// A flag: who sees it raised also sees what was done before.
pub trait Signal {
    /// Not raised.
    fn new() -> Self;
    /// Raises or lowers it.
    fn set(&self, raised: bool);
    /// Whether it is raised.
    fn is_set(&self) -> bool;
}

/// Which locks and flags.
pub trait Primitives: 'static {
    /// A lock.
    type Mutex<T: Send>: Lock<T>;
    /// A flag.
    type Flag: Signal;
}

/// Those of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Native {}

impl Primitives for Native {
    type Mutex<T: Send> = Mutex<T>;
    type Flag = AtomicBool;
}

impl<T> Lock<T> for Mutex<T> {
    fn new(value: T) -> Self {
        Mutex::new(value)
    }
    fn with<R>(&self, act: impl FnOnce(&mut T) -> R) -> R {
        act(&mut self.lock())
    }
    fn try_with<R>(&self, act: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.try_lock().map(|mut value| act(&mut value))
    }
}

/// A panic does not lock it for ever: whoever uses it sees to what it guards.
impl<T> Lock<T> for std::sync::Mutex<T> {
    fn new(value: T) -> Self {
        std::sync::Mutex::new(value)
    }
    fn with<R>(&self, act: impl FnOnce(&mut T) -> R) -> R {
        act(&mut self.lock().unwrap_or_else(PoisonError::into_inner))
    }
    fn try_with<R>(&self, act: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.try_lock().ok().map(|mut value| act(&mut value))
    }
}

impl Signal for AtomicBool {
    fn new() -> Self {
        AtomicBool::new(false)
    }
    fn set(&self, raised: bool) {
        self.store(raised, Ordering::Release);
    }
    fn is_set(&self) -> bool {
        self.load(Ordering::Acquire)
    }
}

/// Those of loom.
#[cfg(test)]
pub(crate) mod modelled {
    use super::{Lock, Ordering, Primitives, Signal};
    use loom::sync::Mutex;
    use loom::sync::atomic::AtomicBool;

    pub(crate) enum Loom {}

    impl Primitives for Loom {
        type Mutex<T: Send> = Mutex<T>;
        type Flag = AtomicBool;
    }

    impl<T> Lock<T> for Mutex<T> {
        fn new(value: T) -> Self {
            Mutex::new(value)
        }
        fn with<R>(&self, act: impl FnOnce(&mut T) -> R) -> R {
            act(&mut self.lock().unwrap())
        }
        fn try_with<R>(&self, act: impl FnOnce(&mut T) -> R) -> Option<R> {
            self.try_lock().ok().map(|mut value| act(&mut value))
        }
    }

    impl Signal for AtomicBool {
        fn new() -> Self {
            AtomicBool::new(false)
        }
        fn set(&self, raised: bool) {
            self.store(raised, Ordering::Release);
        }
        fn is_set(&self) -> bool {
            self.load(Ordering::Acquire)
        }
    }
}
