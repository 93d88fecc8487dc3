//! Who is ejected, for all workers at once: by compare-and-swap, without a lock.
//!
//! ```text
//!              eject: takes a place first                      its time is over
//!   in  -------------------------------------->  ejected  ------------------------>  half open
//!    ^                                              ^                                 | claim: one worker's
//!    |                                              | prolong, then release           v
//!    '----------------- readmit, then release ------'-------------------------------  probed
//! ```
//!
//! Guarantees: never more are ejected than there are places; one worker at a time has the probe of an endpoint; and when
//! it ends, nobody gets another one before what came of it is known. A test runs every interleaving with loom.

use moorgate_proto::time::Mono;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};

/// The number that all of it is built from; exchanged for loom's in the test.
pub trait Number: Debug {
    /// Begins at 0.
    fn new() -> Self;
    /// Whoever sees what was written last sees what was written before.
    fn load(&self) -> u64;
    /// Writes it.
    fn store(&self, value: u64);
    /// Exchanges it for this if it is `from`; whether it was.
    fn exchange(&self, from: u64, to: u64) -> bool;
    /// Exchanges it for this; what it was.
    fn swap(&self, to: u64) -> u64;
    /// Exchanges it for what comes of it, until nobody has come between; whether something came of it.
    fn update(&self, mut change: impl FnMut(u64) -> Option<u64>) -> bool {
        loop {
            let from = self.load();
            match change(from) {
                Some(to) if self.exchange(from, to) => return true,
                Some(_) => {}
                None => return false,
            }
        }
    }
}

/// The same code for the standard library's atomic and for loom's.
macro_rules! number {
    ($atomic:ty) => {
        impl Number for $atomic {
            fn new() -> Self {
                <$atomic>::new(0)
            }
            #[inline]
            fn load(&self) -> u64 {
                self.load(Ordering::Acquire)
            }
            fn store(&self, value: u64) {
                self.store(value, Ordering::Release);
            }
            fn exchange(&self, from: u64, to: u64) -> bool {
                self.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
            }
            fn swap(&self, to: u64) -> u64 {
                self.swap(to, Ordering::AcqRel)
            }
        }
    };
}

number!(AtomicU64);

/// The ejection of one endpoint.
#[derive(Debug)]
pub struct Ejection<N = AtomicU64> {
    /// Until then, in nanoseconds of [`Mono`]; 0: it is not ejected.
    until: N,
    /// 1: a worker has the one call that is to show whether it is back.
    probed: N,
}

impl<N: Number> Default for Ejection<N> {
    fn default() -> Ejection<N> {
        Ejection { until: N::new(), probed: N::new() }
    }
}

impl<N: Number> Ejection<N> {
    /// Until when it is ejected; `None`: it is not.
    #[inline]
    pub fn until(&self) -> Option<Mono> {
        let until = self.until.load();
        (until != 0).then(|| Mono::from_nanos(until))
    }

    /// Whether a worker has its probe.
    #[inline]
    pub fn is_probed(&self) -> bool {
        self.probed.load() != 0
    }

    /// Takes the probe of an endpoint that is half open now; whether it is the caller's, who has to
    /// [`Ejection::release`] it.
    pub(super) fn claim(&self, now: Mono) -> bool {
        if !self.probed.exchange(0, 1) {
            return false;
        }
        let is_half_open = self.until().is_some_and(|until| until <= now);
        if !is_half_open {
            // Another worker's probe has just ended.
            self.release();
        }
        is_half_open
    }

    /// Gives the probe back. What came of it is told before: who claims the next one must find it.
    pub(super) fn release(&self) {
        self.probed.store(0);
    }

    #[cfg(test)]
    pub(crate) fn set(&self, until: Mono) {
        self.until.store(until.as_nanos());
    }
}

/// The places of one service for endpoints that are ejected.
#[derive(Debug)]
pub(super) struct Places<N = AtomicU64> {
    taken: N,
    /// Rises with every change of an ejection: workers look at their lists again.
    changes: N,
}

impl<N: Number> Default for Places<N> {
    fn default() -> Places<N> {
        Places { taken: N::new(), changes: N::new() }
    }
}

/// Why an endpoint was not ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotEjected {
    /// There is no place.
    Full,
    /// It was before.
    Already,
}

impl<N: Number> Places<N> {
    /// Endpoints that are ejected at the moment; for a moment also one that turns out to have been before.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load()
    }

    #[inline]
    pub(super) fn changes(&self) -> u64 {
        self.changes.load()
    }

    /// Ejects an endpoint, if fewer than `most` are. It holds a place until [`Places::readmit`].
    pub(super) fn eject(&self, one: &Ejection<N>, until: Mono, most: u64) -> Result<(), NotEjected> {
        if !self.taken.update(|taken| (taken < most).then(|| taken.saturating_add(1))) {
            return Err(NotEjected::Full);
        }
        if !one.until.exchange(0, until.as_nanos().max(1)) {
            self.give_back();
            return Err(NotEjected::Already);
        }
        self.changed();
        Ok(())
    }

    /// Ejects an endpoint that is ejected for longer; whether nobody else has changed that meanwhile.
    pub(super) fn prolong(&self, one: &Ejection<N>, from: Mono, until: Mono) -> bool {
        let is_done = one.until.exchange(from.as_nanos(), until.as_nanos().max(1));
        if is_done {
            self.changed();
        }
        is_done
    }

    /// Takes an endpoint back; whether it was ejected. Its place is free again.
    pub(super) fn readmit(&self, one: &Ejection<N>) -> bool {
        let was = one.until.swap(0) != 0;
        if was {
            self.give_back();
            self.changed();
        }
        was
    }

    fn changed(&self) {
        self.changes.update(|changes| Some(changes.wrapping_add(1)));
    }

    fn give_back(&self) {
        self.taken.update(|taken| Some(taken.saturating_sub(1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic as la;

    number!(la::AtomicU64);

    /// The same with a look and a store in the place of a compare-and-swap: what the tests must catch.
    #[derive(Debug)]
    struct Torn(la::AtomicU64);

    impl Number for Torn {
        fn new() -> Self {
            Torn(la::AtomicU64::new(0))
        }
        fn load(&self) -> u64 {
            Number::load(&self.0)
        }
        fn store(&self, value: u64) {
            Number::store(&self.0, value);
        }
        fn exchange(&self, from: u64, to: u64) -> bool {
            let was = Number::load(&self.0) == from;
            if was {
                Number::store(&self.0, to);
            }
            was
        }
        fn swap(&self, to: u64) -> u64 {
            Number::swap(&self.0, to)
        }
    }

    /// A service, and its endpoints, shared by two workers.
    #[derive(Debug)]
    struct Scene<N: Number> {
        places: Places<N>,
        endpoints: [Ejection<N>; 2],
    }

    impl<N: Number + Send + Sync + 'static> Scene<N> {
        /// Does both at once, in every order; both results, and how it stands then.
        fn check(
            begin: impl Fn(&Scene<N>) + Send + Sync + 'static,
            acts: [fn(&Scene<N>) -> bool; 2],
            then: impl Fn(&Scene<N>, [bool; 2]) + Send + Sync + 'static,
        ) {
            loom::model(move || {
                let endpoints = [Ejection::default(), Ejection::default()];
                let scene = Arc::new(Scene::<N> { places: Places::default(), endpoints });
                begin(&scene);
                let other = scene.clone();
                let thread = loom::thread::spawn(move || acts[1](&other));
                let first = acts[0](&scene);
                let second = thread.join().unwrap();
                then(&scene, [first, second]);
                assert_eq!(scene.places.taken(), scene.ejected(), "a place for each that is ejected");
            });
        }

        fn ejected(&self) -> u64 {
            self.endpoints.iter().filter(|one| one.until().is_some()).count() as u64
        }

        /// Ejects one, if none is.
        fn eject(&self, at: usize) -> bool {
            self.places.eject(&self.endpoints[at], LATER, 1).is_ok()
        }

        /// Takes a probe that fails.
        fn probe(&self) -> bool {
            let one = &self.endpoints[0];
            let is_ours = one.claim(NOW);
            if is_ours {
                assert!(self.places.prolong(one, NOW, LATER), "nobody else may change it");
                one.release();
            }
            is_ours
        }
    }

    const NOW: Mono = Mono::from_nanos(5);
    const LATER: Mono = Mono::from_nanos(9);

    /// The first endpoint is half open at [`NOW`].
    fn half_open<N: Number + Send + Sync + 'static>(scene: &Scene<N>) {
        scene.places.eject(&scene.endpoints[0], NOW, 1).unwrap();
    }

    fn one_place<N: Number + Send + Sync + 'static>() {
        Scene::<N>::check(
            |_| {},
            [|scene| scene.eject(0), |scene| scene.eject(1)],
            |scene, done| {
                assert_eq!(done.iter().filter(|done| **done).count(), 1, "one place, one ejection");
                assert_eq!(scene.ejected(), 1);
            },
        );
    }

    #[test]
    fn two_workers_never_eject_more_than_there_are_places() {
        one_place::<la::AtomicU64>();
        // The same endpoint, with room for both: it takes one place.
        let both: [fn(&Scene<la::AtomicU64>) -> bool; 2] =
            [|scene| scene.places.eject(&scene.endpoints[0], LATER, 2).is_ok(); 2];
        Scene::check(
            |_| {},
            both,
            |scene, done| {
                assert!(done[0] != done[1] && scene.ejected() == 1);
            },
        );
        // One comes back while another one is to go.
        let swap: [fn(&Scene<la::AtomicU64>) -> bool; 2] =
            [|scene| scene.places.readmit(&scene.endpoints[0]), |scene| scene.eject(1)];
        Scene::check(half_open, swap, |scene, done| {
            assert!(done[0] && scene.ejected() == u64::from(done[1]));
        });
    }

    #[test]
    #[should_panic(expected = "one place, one ejection")]
    fn without_compare_and_swap_the_cap_is_exceeded() {
        one_place::<Torn>();
    }

    fn one_probe<N: Number + Send + Sync + 'static>() {
        Scene::<N>::check(half_open, [Scene::probe, Scene::probe], |scene, done| {
            assert_eq!(done.iter().filter(|done| **done).count(), 1, "one probe");
            assert!(!scene.endpoints[0].is_probed() && scene.endpoints[0].until() == Some(LATER));
        });
    }

    #[test]
    fn one_worker_has_the_probe_and_the_next_one_finds_what_came_of_it() {
        one_probe::<la::AtomicU64>();
        let back: [fn(&Scene<la::AtomicU64>) -> bool; 2] = [
            |scene| {
                let is_ours = scene.endpoints[0].claim(NOW);
                if is_ours {
                    scene.places.readmit(&scene.endpoints[0]);
                    scene.endpoints[0].release();
                }
                is_ours
            },
            Scene::probe,
        ];
        Scene::check(half_open, back, |scene, done| {
            assert!(done[0] != done[1] && !scene.endpoints[0].is_probed());
        });
    }

    #[test]
    #[should_panic]
    fn without_compare_and_swap_two_have_the_probe() {
        one_probe::<Torn>();
    }

    #[test]
    #[should_panic(expected = "one probe")]
    fn a_probe_that_is_given_back_too_early_is_claimed_twice() {
        let early: [fn(&Scene<la::AtomicU64>) -> bool; 2] = [|scene| {
            let one = &scene.endpoints[0];
            let is_ours = one.claim(NOW);
            if is_ours {
                one.release();
                scene.places.prolong(one, NOW, LATER);
            }
            is_ours
        }; 2];
        Scene::check(half_open, early, |_, done| {
            assert_eq!(done.iter().filter(|done| **done).count(), 1, "one probe");
        });
    }
}
