//! Who has a share at a shard: the owners of its sessions, and of its requests under way.

use super::keyed::Keyed;
use super::roster::Hasher;
use super::share::{Purse, Share, Shortage, Terms};
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
    /// Of each share, by its place.
    purses: Vec<Purse>,
}

impl<K: Clone + Eq + Hash> Shares<K> {
    pub(super) fn new(terms: Terms, hasher: &Hasher) -> Shares<K> {
        let places = HashMap::with_hasher(hasher.clone());
        Shares { terms, places, slab: slab::Slab::new(), purses: Vec::new() }
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
        let at = place as usize;
        if at >= self.purses.len() && self.slab.contains(at) {
            self.purses.resize_with(at.saturating_add(1), Purse::default);
        }
        if let Some(purse) = self.purses.get_mut(at) {
            purse.sessions = purse.sessions.saturating_add(1);
        }
        place
    }

    /// Sees that there is room for one request; there always is where there is no limit.
    #[inline]
    pub(super) fn ensure(&mut self, now: Mono, place: u32) -> Result<(), Shortage> {
        match self.purses.get(place as usize) {
            Some(purse) if !purse.has_one() => self.renew(now, place),
            _ => Ok(()),
        }
    }

    #[cold]
    fn renew(&mut self, now: Mono, place: u32) -> Result<(), Shortage> {
        match self.both(place) {
            Some((share, purse, terms)) => share.renew(now, purse, terms),
            None => Ok(()),
        }
    }

    fn both(&mut self, place: u32) -> Option<(&mut Share<K>, &mut Purse, &Terms)> {
        let at = place as usize;
        Some((self.slab.get_mut(at)?, self.purses.get_mut(at)?, &self.terms))
    }

    #[inline]
    pub(super) fn spend(&mut self, place: u32) {
        if let Some(purse) = self.purses.get_mut(place as usize) {
            purse.spend();
        }
    }

    /// What was ensured and is not spent.
    pub(super) fn not_spent(&mut self, place: u32) {
        if let Some((share, purse, terms)) = self.both(place) {
            share.not_spent(purse, terms);
        }
    }

    #[inline]
    pub(super) fn settled(&mut self, now: Mono, place: u32, accounts: &Keyed<K>) {
        if let Some(purse) = self.purses.get_mut(place as usize)
            && purse.settled(&self.terms)
        {
            self.tidy(now, place, accounts);
        }
    }

    pub(super) fn leave(&mut self, now: Mono, place: u32, accounts: &Keyed<K>) {
        if let Some(purse) = self.purses.get_mut(place as usize) {
            purse.sessions = purse.sessions.saturating_sub(1);
            self.tidy(now, place, accounts);
        }
    }

    /// Gives back what is too much, or everything when nobody needs it any more.
    fn tidy(&mut self, now: Mono, place: u32, accounts: &Keyed<K>) {
        let Some((share, purse, terms)) = self.both(place) else { return };
        if !purse.is_over() {
            return share.trim(purse, terms);
        }
        let purse = std::mem::take(purse);
        let Some(share) = self.slab.try_remove(place as usize) else { return };
        self.places.remove(&share.key);
        if let (key, Some(account)) = share.dissolve(now, purse, &self.terms) {
            accounts.let_go(now, &key, account);
        }
        if self.slab.is_empty() {
            // After a rush nothing of it is left.
            self.slab.shrink_to_fit();
            self.places.shrink_to_fit();
            self.purses = Vec::new();
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
