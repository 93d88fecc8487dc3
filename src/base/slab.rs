//! A slab whose keys carry a generation: a key of a removed entry never finds its successor.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

/// Index and generation of an entry; `Tag` tells keys of different slabs apart.
pub struct Key<Tag> {
    index: u32,
    generation: u32,
    tag: PhantomData<fn() -> Tag>,
}

impl<Tag> Key<Tag> {
    /// The key with this index and generation, e.g. from the number that [`Key::to_u64`] gave.
    pub const fn new(index: u32, generation: u32) -> Key<Tag> {
        Key { index, generation, tag: PhantomData }
    }

    /// Where the entry lies; free for another once the entry is removed.
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// Generation in the upper, index in the lower half.
    pub fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The key that [`Key::to_u64`] made this number of.
    #[expect(clippy::cast_possible_truncation, reason = "the two halves are taken apart")]
    pub fn from_u64(number: u64) -> Key<Tag> {
        Key::new(number as u32, (number >> 32) as u32)
    }
}

// Derives would ask the same of `Tag`, which is never more than a name.
impl<Tag> Clone for Key<Tag> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<Tag> Copy for Key<Tag> {}
impl<Tag> PartialEq for Key<Tag> {
    fn eq(&self, other: &Self) -> bool {
        (self.index, self.generation) == (other.index, other.generation)
    }
}
impl<Tag> Eq for Key<Tag> {}
impl<Tag> Hash for Key<Tag> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.to_u64().hash(state);
    }
}
impl<Tag> fmt::Debug for Key<Tag> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

/// Entries of `T` behind [`Key`]s; built on the `slab` crate.
#[derive(Debug)]
pub struct GenSlab<Tag, T> {
    entries: slab::Slab<T>,
    /// One per slot ever used; moves on when its entry is removed. Never 0: the number 0, which a peer sends by leaving
    /// a key out, names no entry.
    generations: Vec<u32>,
    tag: PhantomData<fn() -> Tag>,
}

impl<Tag, T> Default for GenSlab<Tag, T> {
    fn default() -> Self {
        GenSlab { entries: slab::Slab::new(), generations: Vec::new(), tag: PhantomData }
    }
}

impl<Tag, T> GenSlab<Tag, T> {
    /// Adds an entry. More than `u32::MAX` entries cannot be told apart: callers bound them long before.
    #[expect(clippy::cast_possible_truncation, reason = "callers bound the number of entries")]
    pub fn insert(&mut self, value: T) -> Key<Tag> {
        let index = self.entries.insert(value);
        if index >= self.generations.len() {
            self.generations.resize(index.saturating_add(1), 1);
        }
        let generation = self.generations.get(index).copied().unwrap_or_default();
        Key::new(index as u32, generation)
    }

    /// The key that the next [`GenSlab::insert`] will give.
    #[expect(clippy::cast_possible_truncation, reason = "callers bound the number of entries")]
    pub fn next_key(&self) -> Key<Tag> {
        let index = self.entries.vacant_key();
        Key::new(index as u32, self.generations.get(index).copied().unwrap_or(1))
    }

    fn is_current(&self, key: Key<Tag>) -> bool {
        self.generations.get(key.index()) == Some(&key.generation)
    }

    /// The entry, unless it was removed.
    pub fn get(&self, key: Key<Tag>) -> Option<&T> {
        if self.is_current(key) { self.entries.get(key.index()) } else { None }
    }

    /// The entry, unless it was removed.
    pub fn get_mut(&mut self, key: Key<Tag>) -> Option<&mut T> {
        if self.is_current(key) { self.entries.get_mut(key.index()) } else { None }
    }

    /// Takes the entry out, unless that has happened before.
    pub fn remove(&mut self, key: Key<Tag>) -> Option<T> {
        if !self.is_current(key) {
            return None;
        }
        let value = self.entries.try_remove(key.index())?;
        if let Some(generation) = self.generations.get_mut(key.index()) {
            *generation = generation.wrapping_add(1).max(1);
        }
        Some(value)
    }

    /// The key of the entry that lies at `index` now.
    #[expect(clippy::cast_possible_truncation, reason = "an index of an entry fits, see insert")]
    pub fn key_at(&self, index: usize) -> Option<Key<Tag>> {
        self.entries.get(index)?;
        Some(Key::new(index as u32, *self.generations.get(index)?))
    }

    /// The keys of all entries, in the order of their indices.
    pub fn keys(&self) -> impl Iterator<Item = Key<Tag>> + '_ {
        self.entries.iter().filter_map(|(index, _)| self.key_at(index))
    }

    /// The entries, in the order of their indices.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|(_, value)| value)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    enum Tag {}

    #[test]
    fn an_old_key_never_finds_the_successor() {
        let mut slab = GenSlab::<Tag, &str>::default();
        let old = slab.insert("old");
        assert_eq!(slab.get(Key::from_u64(0)), None, "0 is no key");
        assert_eq!(slab.remove(old), Some("old"));
        let next = slab.next_key();
        let new = slab.insert("new");
        assert_eq!(next, new);
        assert_eq!(old.index(), new.index());
        assert_eq!(slab.get(old), None);
        assert_eq!(slab.remove(old), None);
        assert_eq!(slab.get(new), Some(&"new"));
        assert_eq!(slab.key_at(new.index()), Some(new));
        assert_eq!(Key::<Tag>::from_u64(new.to_u64()), new);
    }

    #[test]
    fn a_place_that_was_used_up_to_the_last_generation_begins_again_with_the_first() {
        let mut slab = GenSlab::<Tag, u8>::default();
        let first = slab.insert(1);
        slab.generations[0] = u32::MAX;
        assert_eq!(slab.remove(Key::new(0, u32::MAX)), Some(1));
        assert_eq!(slab.insert(2), first);
        assert_eq!(slab.get(Key::from_u64(0)), None, "0 is no key");
    }

    #[test]
    fn keys_and_values_go_by_index() {
        let mut slab = GenSlab::<Tag, u8>::default();
        let keys = [slab.insert(1), slab.insert(2), slab.insert(3)];
        slab.remove(keys[1]);
        assert_eq!(slab.keys().collect::<Vec<_>>(), [keys[0], keys[2]]);
        assert_eq!(slab.values().copied().collect::<Vec<_>>(), [1, 3]);
        assert_eq!(slab.len(), 2);
    }
}
