//! Who has a share at a shard: the owners of its sessions, and of its requests under way.

use super::keyed::Keyed;
use super::roster::Hasher;
use super::share::{Share, Shortage, Terms};
use moorgate_proto::time::Mono;
use std::collections::HashMap;
use std::hash::Hash;

/// Nobody has looked yet.
pub(super) const UNKNOWN: u32 = u32::MAX;
/// There is no such limit, or no such owner.
pub(super) const NOWHERE: u32 = u32::MAX - 1;

/// The shares of one kind of owner.
#[derive(Debug)]
pub(super) struct Shares<K> {
    terms: Terms,
    places: HashMap<K, u32, Hasher>,
    slab: slab::Slab<Share<K>>,
}

impl<K: Clone + Eq + Hash> Shares<K> {
    pub(super) fn new(terms: Terms, hasher: &Hasher) -> Shares<K> {
        Shares { terms, places: HashMap::with_hasher(hasher.clone()), slab: slab::Slab::new() }
    }

    /// A session joins its owner's share.
    pub(super) fn enter(&mut self, now: Mono, key: K, accounts: &Keyed<K>) -> u32 {
        if self.terms.is_off() {
            return NOWHERE;
        }
        let slab = &mut self.slab;
        let place = *self.places.entry(key).or_insert_with_key(|key| {
            let share = Share::new(key.clone(), accounts.hold(now, key));
            u32::try_from(slab.insert(share)).unwrap_or(NOWHERE)
        });
        if let Some(share) = self.at(place) {
            share.sessions = share.sessions.saturating_add(1);
        }
        place
    }

    #[inline]
    fn at(&mut self, place: u32) -> Option<&mut Share<K>> {
        self.slab.get_mut(place as usize)
    }

    /// Nothing to see to where there is no limit.
    #[inline]
    pub(super) fn ensure(&mut self, now: Mono, place: u32) -> Result<(), Shortage> {
        match self.slab.get_mut(place as usize) {
            Some(share) => share.ensure(now, &self.terms),
            None => Ok(()),
        }
    }

    #[inline]
    pub(super) fn spend(&mut self, place: u32) {
        if let Some(share) = self.at(place) {
            share.spend();
        }
    }

    pub(super) fn not_spent(&mut self, place: u32) {
        if let Some(share) = self.slab.get_mut(place as usize) {
            share.not_spent(&self.terms);
        }
    }

    #[inline]
    pub(super) fn settled(&mut self, now: Mono, place: u32, accounts: &Keyed<K>) {
        if let Some(share) = self.slab.get_mut(place as usize) {
            share.settled(&self.terms);
            if share.is_over() {
                self.remove(now, place, accounts);
            }
        }
    }

    pub(super) fn leave(&mut self, now: Mono, place: u32, accounts: &Keyed<K>) {
        if let Some(share) = self.at(place) {
            share.sessions = share.sessions.saturating_sub(1);
            if share.is_over() {
                self.remove(now, place, accounts);
            }
        }
    }

    #[cold]
    fn remove(&mut self, now: Mono, place: u32, accounts: &Keyed<K>) {
        let Some(share) = self.slab.try_remove(place as usize) else { return };
        self.places.remove(&share.key);
        let key = share.key.clone();
        if let Some(account) = share.dissolve(now, &self.terms) {
            accounts.let_go(now, &key, account);
        }
        if self.slab.is_empty() {
            // After a rush nothing of it is left.
            self.slab.shrink_to_fit();
            self.places.shrink_to_fit();
        }
    }

    /// Owners of whom the shard holds something.
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn is_off(&self) -> bool {
        self.terms.is_off()
    }
}
