//! The bell: wakes a loop that sleeps in its poll, and costs nothing when the loop is awake.
//!
//! ```text
//! sleeper                                    ringer
//!   asleep = true                              push into a mailbox
//!   fence                                      fence
//!   look into the mailboxes again              asleep? swap it to false, and if it was true: wake
//!   nothing there: poll, else poll without waiting
//!   asleep = false
//! ```
//!
//! With both fences sequentially consistent, either the sleeper sees what was pushed, or the ringer sees
//! `asleep`. A test runs every interleaving of both with loom.

use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Makes a blocked poll return; called at most once per sleep.
pub trait Wake: Send + Sync {
    /// Wakes the sleeper; must not block.
    fn wake(&self);
}

/// The flag and fence that the protocol is built from; exchanged for loom's in the test.
pub trait Flag: Default {
    /// Sets the flag, as a read-modify-write: its place among the ringers' [`Flag::take`]s is certain.
    fn raise(&self);
    /// Clears the flag, likewise.
    fn clear(&self);
    /// Relaxed load.
    fn is_set(&self) -> bool;
    /// Clears the flag; whether it was set.
    fn take(&self) -> bool;
    /// A sequentially consistent fence.
    fn fence();
}

impl Flag for AtomicBool {
    fn raise(&self) {
        self.swap(true, Ordering::AcqRel);
    }
    fn clear(&self) {
        self.swap(false, Ordering::AcqRel);
    }
    fn is_set(&self) -> bool {
        self.load(Ordering::Relaxed)
    }
    fn take(&self) -> bool {
        self.swap(false, Ordering::AcqRel)
    }
    fn fence() {
        fence(Ordering::SeqCst);
    }
}

/// Whoever sleeps by a bell, whatever wakes them.
pub trait Ring: Send + Sync {
    /// After a push: wakes the sleeper if it may not see the push by itself.
    fn ring(&self);
}

/// Nobody sleeps: a thread that does everything itself.
impl Ring for () {
    fn ring(&self) {}
}

impl<W: Wake, F: Flag + Send + Sync> Ring for Bell<W, F> {
    fn ring(&self) {
        Bell::ring(self);
    }
}

/// One per sleeping thread, shared with all who send to it.
#[derive(Debug)]
pub struct Bell<W, F = AtomicBool> {
    asleep: F,
    waker: W,
}

impl<W: Wake, F: Flag> Bell<W, F> {
    /// A bell whose sleeper is awake.
    pub fn new(waker: W) -> Bell<W, F> {
        Bell { asleep: F::default(), waker }
    }

    /// For the ringer, after its push: wakes the sleeper if it may not see the push by itself.
    pub fn ring(&self) {
        F::fence();
        if self.asleep.is_set() && self.asleep.take() {
            self.waker.wake();
        }
    }

    /// For the ringer, after its push: whether the sleeper may not see the push by itself.
    pub fn is_armed(&self) -> bool {
        F::fence();
        self.asleep.is_set()
    }

    /// For the sleeper, before it polls: whether it may wait, as `idle` says after the bell is armed that nothing is
    /// there.
    pub fn arm(&self, idle: impl FnOnce() -> bool) -> bool {
        self.asleep.raise();
        F::fence();
        let may_wait = idle();
        if !may_wait {
            self.asleep.clear();
        }
        may_wait
    }

    /// For the sleeper, once it has polled.
    pub fn disarm(&self) {
        self.asleep.clear();
    }
}

/// What a bell is built from in a model.
#[cfg(test)]
pub(crate) mod modelled {
    use super::{Flag, Ordering, Wake};
    use loom::sync::atomic as la;
    use loom::sync::{Arc, Condvar, Mutex};

    #[derive(Debug)]
    pub(crate) struct LoomFlag(la::AtomicBool);

    impl Default for LoomFlag {
        fn default() -> Self {
            LoomFlag(la::AtomicBool::new(false))
        }
    }

    impl Flag for LoomFlag {
        fn raise(&self) {
            self.0.swap(true, Ordering::AcqRel);
        }
        fn clear(&self) {
            self.0.swap(false, Ordering::AcqRel);
        }
        fn is_set(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
        fn take(&self) -> bool {
            self.0.swap(false, Ordering::AcqRel)
        }
        fn fence() {
            la::fence(Ordering::SeqCst);
        }
    }

    /// Like an eventfd: a wake before the wait is not lost.
    #[derive(Clone)]
    pub(crate) struct EventFd(Arc<(Mutex<bool>, Condvar)>);

    impl Default for EventFd {
        fn default() -> Self {
            EventFd(Arc::new((Mutex::new(false), Condvar::new())))
        }
    }

    impl Wake for EventFd {
        fn wake(&self) {
            *self.0.0.lock().unwrap() = true;
            self.0.1.notify_one();
        }
    }

    impl EventFd {
        pub(crate) fn wait(&self) {
            let mut set = self.0.0.lock().unwrap();
            while !*set {
                set = self.0.1.wait(set).unwrap();
            }
            *set = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::modelled::{EventFd, LoomFlag};
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic as la;

    /// The same without its fences: what the test must catch.
    #[derive(Debug, Default)]
    struct NoFence(LoomFlag);

    impl Flag for NoFence {
        fn raise(&self) {
            self.0.raise();
        }
        fn clear(&self) {
            self.0.clear();
        }
        fn is_set(&self) -> bool {
            self.0.is_set()
        }
        fn take(&self) -> bool {
            self.0.take()
        }
        fn fence() {}
    }

    /// A mailbox as weak as it can be: relaxed counters. Two ringers push `each` messages; the sleeper waits
    /// for all. A lost wake-up is a deadlock, which loom reports.
    fn model<F: Flag + Send + Sync + 'static>(ringers: usize, each: usize) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(2);
        builder.check(move || {
            let event = EventFd::default();
            let bell = Arc::new(Bell::<EventFd, F>::new(event.clone()));
            let pushed = Arc::new(la::AtomicUsize::new(0));
            let threads: Vec<_> = (0..ringers)
                .map(|_| {
                    let (bell, pushed) = (bell.clone(), pushed.clone());
                    loom::thread::spawn(move || {
                        for _ in 0..each {
                            pushed.fetch_add(1, Ordering::Relaxed);
                            bell.ring();
                        }
                    })
                })
                .collect();
            let mut taken = 0;
            while taken < ringers * each {
                let idle = || pushed.load(Ordering::Relaxed) == taken;
                if bell.arm(idle) {
                    event.wait();
                }
                bell.disarm();
                taken = pushed.load(Ordering::Relaxed);
            }
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }

    #[test]
    fn no_wake_up_is_lost() {
        model::<LoomFlag>(1, 2);
        model::<LoomFlag>(2, 1);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn without_the_fences_one_is_lost() {
        model::<NoFence>(1, 2);
    }
}
