//! Groups, and on which shards they have members. Who the members are, each shard knows of its own.

use crate::base::ids::ShardId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::BuildHasher;

/// Locks; each guards the groups that hash to it.
const STRIPES: usize = 64;

/// For each shard, how many members it has.
type Stripe = HashMap<Box<str>, Box<[u32]>, foldhash::fast::RandomState>;

pub(super) struct Groups {
    shards: usize,
    stripes: Vec<Mutex<Stripe>>,
    hash: foldhash::fast::RandomState,
}

impl Groups {
    pub(super) fn new(shards: usize) -> Groups {
        let stripes = (0..STRIPES).map(|_| Mutex::default()).collect();
        Groups { shards, stripes, hash: foldhash::fast::RandomState::default() }
    }

    fn stripe(&self, group: &str) -> Option<&Mutex<Stripe>> {
        let hash = self.hash.hash_one(group);
        self.stripes.get(usize::try_from(hash % STRIPES as u64).unwrap_or_default())
    }

    pub(super) fn join(&self, group: &str, shard: ShardId) {
        let Some(stripe) = self.stripe(group) else { return };
        let mut stripe = stripe.lock();
        if !stripe.contains_key(group) {
            stripe.insert(group.into(), vec![0; self.shards].into_boxed_slice());
        }
        if let Some(count) = stripe.get_mut(group).and_then(|counts| counts.get_mut(shard.index())) {
            *count = count.saturating_add(1);
        }
    }

    pub(super) fn leave(&self, group: &str, shard: ShardId) {
        let Some(stripe) = self.stripe(group) else { return };
        let mut stripe = stripe.lock();
        let Some(counts) = stripe.get_mut(group) else { return };
        if let Some(count) = counts.get_mut(shard.index()) {
            debug_assert!(*count > 0, "whoever leaves has joined");
            *count = count.saturating_sub(1);
        }
        if counts.iter().all(|count| *count == 0) {
            stripe.remove(group);
        }
    }

    pub(super) fn shards_of(&self, group: &str, mut with: impl FnMut(ShardId, u32)) {
        let Some(stripe) = self.stripe(group) else { return };
        let stripe = stripe.lock();
        let counts = stripe.get(group).map(AsRef::as_ref).unwrap_or_default();
        for (shard, count) in (0u16..).map(ShardId).zip(counts).filter(|(_, count)| **count > 0) {
            with(shard, *count);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.stripes.iter().map(|stripe| stripe.lock().len()).sum()
    }
}
