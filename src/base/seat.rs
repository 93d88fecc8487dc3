//! The seat of a core. Its own thread runs it whenever it wakes; while that thread sleeps, another one that has something
//! small for the core may visit: it runs the core in the owner's place, which costs less than to wake the owner.
//!
//! ```text
//! owner                                       visitor, after its push into a mailbox
//!   lock                                        bell not armed? then the owner looks by itself: done
//!   run, note when to wake                      locked by somebody else, or nobody sits there: ring
//!   unless it goes on at once: arm the          run
//!     bell, look into the mailboxes             something is left, or due before the owner wakes: ring
//!   unlock
//!   poll
//!   disarm
//! ```
//!
//! Guarantees: what was pushed is seen by the owner, by its visitor, or by an owner who is rung. Nobody waits in a circle:
//! only an owner waits for the lock, of its own seat and with no other one held. A core whose run has panicked is gone:
//! nobody goes on with what is half done, and its owner leaves; a visitor's own core goes with it. A test runs the
//! interleavings with loom.

use crate::base::bell::{Bell, Flag, Wake};
use crate::base::sync::Lock;
use moorgate_proto::time::Mono;
use std::marker::PhantomData;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

/// What sits in a seat.
pub trait Core: Send {
    /// When it has to be run again though nothing comes; `None`: never, it is over.
    fn wakes_at(&self, now: Mono) -> Option<Mono>;
    /// Whether nothing waits in its mailboxes.
    fn is_idle(&self) -> bool;
}

/// What the lock of a seat guards.
#[derive(Debug)]
pub struct Place<C> {
    /// `None`: not there yet, not there any more, being run, or broken by a panic.
    core: Option<Box<C>>,
    /// When the owner wakes by itself.
    wakes_at: Mono,
}

/// Where a core sits. See the module's page.
///
/// The lock is that of the standard library, which soon waits in the kernel: one that yields instead gives a busy
/// machine's processor away, and the visitor who is waited for may be next in line for it.
pub struct Seat<C, W, F = AtomicBool, M = Mutex<Place<C>>> {
    bell: Arc<Bell<W, F>>,
    place: M,
    core: PhantomData<fn() -> C>,
}

/// How long an owner may poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    /// What time it is.
    pub now: Mono,
    /// When it has to be back; `now`: at once.
    pub until: Mono,
}

impl<C, W, F, M> std::fmt::Debug for Seat<C, W, F, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seat").finish_non_exhaustive()
    }
}

impl<C: Core, W: Wake, F: Flag, M: Lock<Place<C>>> Seat<C, W, F, M> {
    /// An empty seat of the thread that sleeps by `bell`.
    pub fn new(bell: Arc<Bell<W, F>>) -> Self {
        Seat { bell, place: M::new(Place { core: None, wakes_at: Mono::ZERO }), core: PhantomData }
    }

    /// For the owner: takes the seat.
    pub fn sit(&self, core: C) {
        self.place.with(|place| place.core = Some(Box::new(core)));
    }

    /// For the owner: runs the core, which says what time it was, and gets ready to poll; [`Seat::wake`] comes after that.
    /// `None`: the core is over or gone, and it is time for [`Seat::leave`].
    pub fn run(&self, run: impl FnOnce(&mut C) -> Mono) -> Option<Rest> {
        self.place.with(|place| {
            let mut core = place.core.take()?;
            let now = run(&mut core);
            let core = place.core.insert(core);
            place.wakes_at = core.wakes_at(now)?;
            // One that goes on at once is no sleeper: it is not visited, and looks into its mailboxes by itself.
            let may_wait = place.wakes_at > now && self.bell.arm(|| core.is_idle());
            Some(Rest { now, until: if may_wait { place.wakes_at } else { now } })
        })
    }

    /// For the owner: it has polled.
    pub fn wake(&self) {
        self.bell.disarm();
    }

    /// For the owner: gives up the seat. `None`: a visitor has panicked with what sat there.
    pub fn leave(&self) -> Option<Box<C>> {
        self.place.with(|place| place.core.take())
    }

    /// For a visitor, after its push: runs the core if its owner sleeps, and rings if that is not possible or not enough.
    pub fn visit(&self, run: impl FnOnce(&mut C) -> Mono) {
        if !self.bell.is_armed() {
            return;
        }
        let is_done = self.place.try_with(|place| {
            let Some(mut core) = place.core.take() else { return false };
            let now = run(&mut core);
            let core = place.core.insert(core);
            core.is_idle() && core.wakes_at(now).is_some_and(|until| until >= place.wakes_at && until > now)
        });
        if is_done != Some(true) {
            self.bell.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::bell::modelled::{EventFd, LoomFlag};
    use loom::sync::atomic as la;
    use std::sync::atomic::Ordering;

    const MESSAGES: usize = 2;

    /// Takes messages, wants to be run again by its owner after the first of them, and is over after the last.
    struct Counter {
        pushed: Arc<la::AtomicUsize>,
        taken: usize,
        is_due: bool,
        /// Says when it is due: what a core must do.
        tells: bool,
    }

    impl Counter {
        fn take(&mut self, owner: bool) -> Mono {
            let taken = self.pushed.load(Ordering::Relaxed);
            self.is_due = !owner && (self.is_due || taken > self.taken);
            self.taken = taken;
            Mono::ZERO
        }
    }

    impl Core for Counter {
        fn wakes_at(&self, _: Mono) -> Option<Mono> {
            let is_over = self.taken == MESSAGES && !self.is_due;
            (!is_over).then_some(if self.is_due && self.tells { Mono::ZERO } else { Mono::NEVER })
        }
        fn is_idle(&self) -> bool {
            self.pushed.load(Ordering::Relaxed) == self.taken
        }
    }

    type LoomSeat = Seat<Counter, EventFd, LoomFlag, loom::sync::Mutex<Place<Counter>>>;

    /// Two visitors push a message each, relaxed; the owner waits until it has had all, and what became due.
    fn model(tells: bool) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(2);
        builder.check(move || {
            let event = EventFd::default();
            let seat = Arc::new(LoomSeat::new(Arc::new(Bell::new(event.clone()))));
            let pushed = Arc::new(la::AtomicUsize::new(0));
            let threads: Vec<_> = (0..MESSAGES)
                .map(|_| {
                    let (seat, pushed) = (seat.clone(), pushed.clone());
                    loom::thread::spawn(move || {
                        pushed.fetch_add(1, Ordering::Relaxed);
                        seat.visit(|core| core.take(false));
                    })
                })
                .collect();
            seat.sit(Counter { pushed, taken: 0, is_due: false, tells });
            while let Some(rest) = seat.run(|core| core.take(true)) {
                if rest.until > rest.now {
                    event.wait();
                }
                seat.wake();
            }
            assert_eq!(seat.leave().unwrap().taken, MESSAGES);
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }

    #[test]
    fn whatever_is_pushed_or_due_is_seen() {
        model(true);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn a_core_that_hides_what_is_due_is_not_run_again() {
        model(false);
    }

    struct Silent;

    impl Wake for Silent {
        fn wake(&self) {}
    }

    /// Never has anything to do.
    struct Quiet;

    impl Core for Quiet {
        fn wakes_at(&self, _: Mono) -> Option<Mono> {
            Some(Mono::NEVER)
        }
        fn is_idle(&self) -> bool {
            true
        }
    }

    #[test]
    fn a_core_is_gone_after_a_panic_whoever_ran_it() {
        let seat: Seat<Quiet, Silent> = Seat::new(Arc::new(Bell::new(Silent)));
        seat.sit(Quiet);
        seat.visit(|_| panic!("its owner is awake: nobody visits"));
        assert_eq!(seat.run(|_| Mono::ZERO), Some(Rest { now: Mono::ZERO, until: Mono::NEVER }));
        let visit = std::panic::AssertUnwindSafe(|| seat.visit(|_| panic!("a bug of the core")));
        assert!(std::panic::catch_unwind(visit).is_err());
        assert_eq!(seat.run(|_| panic!("nobody sits there")), None);
        assert!(seat.leave().is_none());
    }
}
