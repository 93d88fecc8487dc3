//! A hierarchical timer wheel for lazy deadlines.
//!
//! Nothing is ever taken out of the wheel. Each slot of an owner's slab has one [`Alarm`], which knows the
//! earliest entry that the wheel holds for it. Moving a deadline back costs nothing: the old entry comes out at its
//! time, and the owner looks at the true deadline and arms the alarm again. Moving it forward adds an entry.
//! So a busy connection, or a call that is answered long before its deadline, hardly touches the wheel.
//!
//! ```text
//! owner: arm(alarm, key, due)          owner, for each entry that comes out:
//!   alarm already due by then: nothing   alarm.rings(due)? no: stale, forget it
//!   else: one entry (key, due)           true deadline passed? act. else: arm again
//! ```
//!
//! Source: Varghese and Lauck 1987, scheme 7; six levels of 64 slots, found by the highest bit in which the
//! deadline differs from now.

use moorgate_proto::time::Mono;

/// 2^23 ns, about 8.4 ms: how late a deadline may be noticed.
const TICK_SHIFT: u32 = 23;
const LEVELS: usize = 6;
const SLOTS: usize = 64;
const TICK_MAX: u64 = (1 << (6 * LEVELS)) - 1;

/// The earliest entry that a wheel holds for one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alarm(Mono);

impl Default for Alarm {
    fn default() -> Self {
        Alarm(Mono::NEVER)
    }
}

impl Alarm {
    /// Whether the entry that came out is this alarm's; then the alarm is off.
    pub fn rings(&mut self, due: Mono) -> bool {
        let mine = self.0 == due;
        if mine {
            self.0 = Mono::NEVER;
        }
        mine
    }
}

/// Entries of `K`, each with its time.
#[derive(Debug)]
pub struct Wheel<K> {
    levels: [Level<K>; LEVELS],
    /// The tick up to which everything has come out.
    current: u64,
    len: usize,
}

#[derive(Debug)]
struct Level<K> {
    /// Bit n: slot n has entries.
    occupied: u64,
    slots: [Vec<(K, Mono)>; SLOTS],
}

impl<K: Copy> Default for Wheel<K> {
    fn default() -> Self {
        let level = || Level { occupied: 0, slots: [const { Vec::new() }; SLOTS] };
        Wheel { levels: std::array::from_fn(|_| level()), current: 0, len: 0 }
    }
}

impl<K: Copy> Wheel<K> {
    /// Makes sure that an entry for `key` comes out at `due`, or earlier if `alarm` was armed for that.
    pub fn arm(&mut self, alarm: &mut Alarm, key: K, due: Mono) {
        if due < alarm.0 {
            alarm.0 = due;
            self.insert(key, due);
            self.len = self.len.saturating_add(1);
        }
    }

    #[expect(clippy::indexing_slicing, reason = "level and slot are masked to their arrays")]
    fn insert(&mut self, key: K, due: Mono) {
        let (level, slot) = self.place(due);
        self.levels[level].occupied |= 1 << slot;
        self.levels[level].slots[slot].push((key, due));
    }

    #[expect(clippy::cast_possible_truncation, reason = "masked to 6 bits")]
    fn place(&self, due: Mono) -> (usize, usize) {
        let rounded_up = due.as_nanos().saturating_add((1 << TICK_SHIFT) - 1) >> TICK_SHIFT;
        let tick = rounded_up.clamp(self.current, TICK_MAX);
        let differing = (tick ^ self.current) | (SLOTS as u64 - 1);
        let level = ((63 - differing.leading_zeros()) / 6) as usize;
        let slot = (tick >> (6 * level)) & (SLOTS as u64 - 1);
        (level.min(LEVELS - 1), slot as usize)
    }

    /// Level, slot and first tick of the entries that come next.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        for (level, Level { occupied, .. }) in self.levels.iter().enumerate() {
            if *occupied != 0 {
                // Entries lie ahead of `current` within the same turn of their level: no slot wraps around.
                let slot = occupied.trailing_zeros();
                let shift = u32::try_from(6 * level).unwrap_or(0);
                let turn = self.current >> (shift + 6) << (shift + 6);
                let start = turn | u64::from(slot) << shift;
                return Some((level, slot as usize, start.max(self.current)));
            }
        }
        None
    }

    /// Takes one entry out whose time has come, with that time.
    #[expect(clippy::indexing_slicing, reason = "next_slot names slots that exist")]
    pub fn expire(&mut self, now: Mono) -> Option<(K, Mono)> {
        let now_tick = (now.as_nanos() >> TICK_SHIFT).min(TICK_MAX);
        loop {
            let Some((level, slot, start)) = self.next_slot() else {
                self.current = self.current.max(now_tick);
                return None;
            };
            if start > now_tick {
                self.current = self.current.max(now_tick);
                return None;
            }
            self.current = start;
            if level == 0 {
                let entries = &mut self.levels[0].slots[slot];
                let entry = entries.pop();
                if entries.is_empty() {
                    self.levels[0].occupied &= !(1 << slot);
                    *entries = Vec::new();
                }
                self.len = self.len.saturating_sub(1);
                return entry;
            }
            self.levels[level].occupied &= !(1 << slot);
            for (key, due) in std::mem::take(&mut self.levels[level].slots[slot]) {
                self.insert(key, due);
            }
        }
    }

    /// When [`Wheel::expire`] should be called next; it may then find that nothing is due yet.
    pub fn next_due(&self) -> Option<Mono> {
        self.next_slot().map(|(_, _, start)| Mono::from_nanos(start << TICK_SHIFT))
    }

    /// Entries held, stale ones included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn drain(wheel: &mut Wheel<u32>, now: Mono) -> Vec<(u32, Mono)> {
        std::iter::from_fn(|| wheel.expire(now)).collect()
    }

    #[test]
    fn moving_a_deadline_back_adds_nothing() {
        let mut wheel = Wheel::default();
        let mut alarm = Alarm::default();
        let at = |ms| Mono::ZERO + Duration::from_millis(ms);
        wheel.arm(&mut alarm, 7u32, at(100));
        wheel.arm(&mut alarm, 7, at(500));
        assert_eq!(wheel.len(), 1);
        wheel.arm(&mut alarm, 7, at(50));
        assert_eq!(wheel.len(), 2, "an earlier deadline needs an entry of its own");
        let rung: Vec<bool> = drain(&mut wheel, at(600)).iter().map(|(_, due)| alarm.rings(*due)).collect();
        assert_eq!(rung, [true, false], "the later entry is stale");
        assert!(wheel.is_empty());
        assert_eq!(wheel.next_due(), None);
    }

    #[test]
    fn an_entry_of_the_past_comes_out_at_once() {
        let mut wheel = Wheel::default();
        let now = Mono::from_nanos(1 << 40);
        assert_eq!(wheel.expire(now), None);
        wheel.arm(&mut Alarm::default(), 1u32, Mono::from_nanos(5));
        assert_eq!(wheel.expire(now), Some((1, Mono::from_nanos(5))));
    }

    proptest! {
        #[test]
        fn everything_comes_out_in_time_and_never_early(
            mut dues in proptest::collection::vec(0u64..1 << 45, 1..60),
            steps in proptest::collection::vec(1u64..1 << 42, 1..60),
        ) {
            let mut wheel = Wheel::default();
            for (index, due) in dues.iter().enumerate() {
                wheel.arm(&mut Alarm::default(), u32::try_from(index).unwrap(), Mono::from_nanos(*due));
            }
            let mut now = 0;
            for step in steps.iter().chain([&(1 << 46)]) {
                now += step;
                let next = wheel.next_due();
                let out = drain(&mut wheel, Mono::from_nanos(now));
                if let (Some(next), false) = (next, out.is_empty()) {
                    prop_assert!(next.as_nanos() <= now);
                }
                for (_, due) in out {
                    prop_assert!(due.as_nanos() <= now);
                    let at = dues.iter().position(|d| *d == due.as_nanos());
                    dues.swap_remove(at.unwrap());
                }
                let late = now.saturating_sub(1 << TICK_SHIFT);
                prop_assert!(dues.iter().all(|due| *due > late), "late: {dues:?} at {now}");
            }
            prop_assert!(dues.is_empty() && wheel.is_empty());
        }
    }
}
