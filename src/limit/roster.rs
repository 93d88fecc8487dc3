//! A table that forgets: entries that are over are removed a few at a time, whenever somebody comes for one.
//!
//! There is no sweep over everything, so no call takes long, and no thread that would have to do it. Whoever comes
//! looks at [`STEPS`] entries, round and round; as each looks at more than it adds, what is over does not pile up.

use std::collections::HashMap;
use std::hash::Hash;

/// Entries that a call looks at.
const STEPS: usize = 4;
/// Entries that a call looks at when the table is full.
const STEPS_WHEN_FULL: usize = 64;
/// Tables of this size are not worth shrinking.
const ROOM_KEPT: usize = 64;

pub(super) type Hasher = foldhash::fast::FixedState;

/// Keys and values, at most `max` of them.
#[derive(Debug)]
pub(super) struct Roster<K, V> {
    /// Where in `entries`.
    places: HashMap<K, u32, Hasher>,
    entries: Vec<(K, V)>,
    /// The next entry to look at.
    cursor: usize,
    max: usize,
}

impl<K: Clone + Eq + Hash, V> Roster<K, V> {
    /// `hasher` is seeded at random, so that nobody finds keys that collide.
    pub(super) fn new(max: usize, hasher: Hasher) -> Roster<K, V> {
        Roster { places: HashMap::with_hasher(hasher), entries: Vec::new(), cursor: 0, max }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.entries.iter()
    }

    pub(super) fn find(&mut self, key: &K) -> Option<&mut V> {
        let place = *self.places.get(key)?;
        self.entries.get_mut(place as usize).map(|(_, value)| value)
    }

    /// The entry of the key, made if there is none. `None`: the table is full of what is not over, as far as was
    /// looked.
    pub(super) fn find_or_insert(
        &mut self,
        key: &K,
        is_over: impl Fn(&V) -> bool,
        make: impl FnOnce() -> V,
    ) -> Option<&mut V> {
        if !self.places.contains_key(key) {
            let full = self.entries.len() >= self.max;
            self.sweep(if full { STEPS_WHEN_FULL } else { STEPS }, is_over);
            if self.entries.len() >= self.max {
                return None;
            }
            self.places.insert(key.clone(), u32::try_from(self.entries.len()).ok()?);
            self.entries.push((key.clone(), make()));
        }
        self.find(key)
    }

    /// The same, but a full table gives up an entry that is not over for the new one: of the next few the least, by
    /// `rank`. Whether it did; `None`: there is no room for any.
    pub(super) fn find_or_replace<R: Ord>(
        &mut self,
        key: &K,
        is_over: impl Fn(&V) -> bool,
        rank: impl Fn(&V) -> R,
        make: impl FnOnce() -> V,
    ) -> Option<(&mut V, bool)> {
        let mut replaced = false;
        if !self.places.contains_key(key) && self.entries.len() >= self.max {
            self.sweep(STEPS_WHEN_FULL, &is_over);
            if self.entries.len() >= self.max {
                let next = (0..STEPS_WHEN_FULL.min(self.entries.len())).map(|step| {
                    self.cursor.saturating_add(step).checked_rem(self.entries.len()).unwrap_or(0)
                });
                let least = next.min_by_key(|at| self.entries.get(*at).map(|(_, value)| rank(value)))?;
                self.remove_at(least);
                self.cursor = self.cursor.saturating_add(STEPS_WHEN_FULL);
                replaced = true;
            }
        }
        Some((self.find_or_insert(key, is_over, make)?, replaced))
    }

    /// Forgets those that are over among the next few.
    pub(super) fn forget_some(&mut self, is_over: impl Fn(&V) -> bool) {
        self.sweep(STEPS, is_over);
    }

    fn sweep(&mut self, steps: usize, is_over: impl Fn(&V) -> bool) {
        for _ in 0..steps.min(self.entries.len()) {
            if self.cursor >= self.entries.len() {
                self.cursor = 0;
            }
            match self.entries.get(self.cursor) {
                Some((_, value)) if is_over(value) => self.remove_at(self.cursor),
                _ => self.cursor = self.cursor.saturating_add(1),
            }
        }
    }

    /// Removes an entry, whatever it says.
    pub(super) fn remove(&mut self, key: &K) -> bool {
        let place = self.places.get(key).copied();
        if let Some(place) = place {
            self.remove_at(place as usize);
        }
        place.is_some()
    }

    fn remove_at(&mut self, place: usize) {
        let (key, _) = self.entries.swap_remove(place);
        self.places.remove(&key);
        if let Some((moved, _)) = self.entries.get(place)
            && let (Some(at), Ok(place)) = (self.places.get_mut(moved), u32::try_from(place))
        {
            *at = place;
        }
        // The rush is over: its memory is given back, at a cost that its removals have paid for.
        let room = self.entries.len().saturating_mul(2).max(ROOM_KEPT);
        if self.entries.capacity() / 4 > room {
            self.entries.shrink_to(room);
            self.places.shrink_to(room);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn roster(max: usize) -> Roster<u32, u32> {
        Roster::new(max, Hasher::with_seed(7))
    }

    proptest! {
        /// Values say until when they count; time goes on with each step.
        #[test]
        fn it_is_a_map_of_what_is_not_over(steps in proptest::collection::vec((0u32..40, 0u32..60), 1..300)) {
            let mut roster = roster(16);
            let mut model = BTreeMap::new();
            for (now, (key, life)) in (0u32..).zip(steps) {
                let is_over = |until: &u32| *until <= now;
                match life {
                    0 => {
                        let was_there = roster.remove(&key);
                        let expected = model.remove(&key).is_some_and(|until| until > now);
                        prop_assert!(was_there || !expected);
                    }
                    _ => match roster.find_or_insert(&key, is_over, || now) {
                        Some(until) => {
                            *until = now + life;
                            model.insert(key, now + life);
                        }
                        // As it looks at 64 of 16, it is full of what is not over.
                        None => prop_assert!(model.values().filter(|until| **until > now).count() >= 16),
                    },
                }
                prop_assert!(roster.len() <= 16 && roster.places.len() == roster.len());
                for (key, until) in &model {
                    prop_assert!(*until <= now || roster.find(key) == Some(&mut until.clone()));
                }
            }
        }
    }

    #[test]
    fn what_is_over_does_not_pile_up() {
        let mut roster = roster(1 << 20);
        for now in 0..100_000u32 {
            // Each lives for a hundred steps.
            roster.find_or_insert(&now, |until| *until <= now, || now + 100);
            assert!(roster.len() < 200, "{} at {now}", roster.len());
        }
    }

    #[test]
    fn a_full_table_gives_up_the_least_of_the_next_few() {
        let mut roster = roster(10);
        let never = |_: &u32| false;
        for value in 0..10 {
            let (_, replaced) = roster.find_or_replace(&value, never, |value| *value, || value).unwrap();
            assert!(!replaced);
        }
        for key in 100..105 {
            let (_, replaced) = roster.find_or_replace(&key, never, |value| *value, || key).unwrap();
            assert!(replaced && roster.find(&(key - 100)).is_none() && roster.len() == 10, "{key}");
        }
        let mut none = Roster::<u32, u32>::new(0, Hasher::with_seed(7));
        assert!(none.find_or_replace(&1, never, |value| *value, || 1).is_none());
    }

    #[test]
    fn a_rush_leaves_no_memory_behind() {
        let mut roster = roster(1 << 20);
        for key in 0..100_000 {
            roster.find_or_insert(&key, |_| false, || 0);
        }
        for _ in 0..100_000 / STEPS {
            roster.forget_some(|_| true);
        }
        assert_eq!(roster.len(), 0);
        assert!(roster.entries.capacity() <= 4 * ROOM_KEPT && roster.places.capacity() <= 8 * ROOM_KEPT);
    }
}
