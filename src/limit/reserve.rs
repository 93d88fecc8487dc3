//! Who still gets in when room runs out: clients that show who they are come before those that do not.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Connections that are served, and that there can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Connections with a session.
    pub served: usize,
    /// The most.
    pub max: usize,
}

/// The connections of all shards together, and those on their way from one shard to another: the process can hold only so
/// many.
#[derive(Debug)]
pub struct SharedRoom {
    used: AtomicUsize,
    /// Of them, those with a session.
    served: AtomicUsize,
    /// Connections that were refused.
    refused: AtomicUsize,
    max: AtomicUsize,
}

impl SharedRoom {
    /// Room for so many.
    pub fn new(max: usize) -> SharedRoom {
        SharedRoom {
            used: AtomicUsize::new(0),
            served: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
        }
    }

    /// Room for so many from now on. When there are more, none comes in until enough have left.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// One more, if there is room.
    pub fn enter(&self) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        let has_room = |used: usize| (used < max).then_some(used.saturating_add(1));
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, has_room).is_ok()
    }

    /// One less.
    pub fn leave(&self) {
        let before = self.used.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "who leaves has entered");
    }

    /// Whether there is no room for another one.
    pub fn is_full(&self) -> bool {
        self.used() >= self.max.load(Ordering::Relaxed)
    }

    /// One was refused since there is no room: the silent ones of every shard are to make some.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were refused.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// A shard serves so many, after so many before.
    pub fn serve(&self, before: usize, now: usize) {
        self.served.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
    }

    /// Connections now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// As it is now.
    pub fn room(&self) -> Room {
        Room { served: self.served.load(Ordering::Relaxed), max: self.max.load(Ordering::Relaxed) }
    }
}

/// The part of the room that is kept for clients with an access token, or with a session to resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserve {
    /// Of each hundred connections that there can be, so many.
    pub percent: u8,
}

impl Default for Reserve {
    fn default() -> Self {
        Reserve { percent: 5 }
    }
}

impl Reserve {
    /// Whether one more without a token gets a session, by each of these bounds. Who has one always does, as long as there
    /// is room for its connection. Connections without a session do not count: they get one, or end soon.
    pub fn admits_anonymous(self, rooms: &[Room]) -> bool {
        let admits = |room: &Room| room.served < room.max.saturating_sub(self.kept(room.max));
        self.percent == 0 || rooms.iter().all(admits)
    }

    /// The connections that are kept: at least one, but of a very small room at most half.
    fn kept(self, max: usize) -> usize {
        max.saturating_mul(usize::from(self.percent)).div_ceil(100).min(max / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_places_are_for_those_who_show_who_they_are() {
        let reserve = Reserve { percent: 10 };
        let admits = |served, max| reserve.admits_anonymous(&[Room { served, max }]);
        assert!(admits(0, 100) && admits(89, 100));
        assert!(!admits(90, 100) && !admits(99, 100));
        assert!(admits(8, 10) && !admits(9, 10));
        assert!(admits(7, 9) && !admits(8, 9) && admits(0, 2) && !admits(1, 2), "of a small room one");
        assert!(admits(0, 1), "half of one is none");
        assert!(!admits(0, 0));
    }

    #[test]
    fn a_shared_room_counts_who_is_in_it() {
        let room = SharedRoom::new(7);
        assert!(room.enter() && room.enter());
        room.leave();
        assert!(!room.is_full());
        assert!((0..6).all(|_| room.enter()) && room.is_full() && !room.enter());
        for (before, now) in [(0, 3), (0, 2), (3, 1)] {
            room.serve(before, now);
        }
        assert_eq!(room.room(), Room { served: 3, max: 7 });
        room.set_max(6);
        room.leave();
        assert!(room.is_full() && !room.enter(), "six are there");
        room.set_max(7);
        assert!(room.enter() && !room.enter());
    }

    #[test]
    fn every_bound_counts() {
        let reserve = Reserve { percent: 10 };
        let (wide, tight) = (Room { served: 1, max: 100 }, Room { served: 95, max: 100 });
        assert!(reserve.admits_anonymous(&[wide, wide]) && reserve.admits_anonymous(&[]));
        assert!(!reserve.admits_anonymous(&[wide, tight]) && !reserve.admits_anonymous(&[tight, wide]));
    }

    #[test]
    fn without_a_reserve_the_last_place_is_anybodys() {
        let reserve = Reserve { percent: 0 };
        assert!(reserve.admits_anonymous(&[Room { served: 99, max: 100 }]));
        // How many there can be at all is for others to say.
        assert!(reserve.admits_anonymous(&[Room { served: 100, max: 100 }]));
    }
}
