//! What all shards share of the limits: one leaky bucket and one count of outstanding requests for each owner.
//!
//! An owner is a user, a client address or an application. It has an [`Account`] while somebody holds it, while its
//! bucket is not full, or while a request of it is outstanding; then it is forgotten, as a new one would be the same.
//! Charging an account takes no lock; only finding it does.

use super::Rate;
use super::gcra::{AtomicGcra, Word, update};
use super::roster::{Hasher, Roster};
use moorgate_proto::time::Mono;
use parking_lot::Mutex;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Parts of a table with a lock of their own.
const STRIPES: usize = 64;

/// How many requests of an owner are unanswered.
#[derive(Debug, Default)]
pub struct Outstanding<W = AtomicU64> {
    count: W,
}

impl<W: Word> Outstanding<W> {
    /// Takes at most `wanted` places of `max`, as many as are free; how many.
    pub fn take(&self, max: u32, wanted: u32) -> u32 {
        let taken = update(&self.count, |count| {
            let free = u64::from(max).saturating_sub(count).min(u64::from(wanted));
            let taken = u32::try_from(free).ok().filter(|taken| *taken > 0).ok_or(())?;
            Ok::<_, ()>((count.saturating_add(free), taken))
        });
        taken.unwrap_or(0)
    }

    /// Gives places back.
    pub fn give_back(&self, places: u32) {
        let left: Result<u64, ()> = update(&self.count, |count| {
            debug_assert!(count >= u64::from(places), "more is given back than was taken");
            Ok((count.saturating_sub(u64::from(places)), count))
        });
        debug_assert!(left.is_ok());
    }

    /// Places taken.
    pub fn taken(&self) -> u64 {
        self.count.load()
    }
}

/// What is counted of one owner.
#[derive(Debug, Default)]
pub struct Account {
    bucket: AtomicGcra,
    outstanding: Outstanding,
}

impl Account {
    /// As [`AtomicGcra::take`].
    ///
    /// # Errors
    /// As there.
    pub fn charge(&self, now: Mono, rate: Rate, wanted: u32) -> Result<u32, Duration> {
        self.bucket.take(now, rate, wanted)
    }

    /// As [`AtomicGcra::give_back`].
    pub fn refund(&self, rate: Rate, count: u32) {
        self.bucket.give_back(rate, count);
    }

    /// How many of its requests are unanswered.
    pub fn outstanding(&self) -> &Outstanding {
        &self.outstanding
    }

    fn is_idle(&self, now: Mono) -> bool {
        self.bucket.is_full(now) && self.outstanding.taken() == 0
    }
}

type Stripe<K> = Mutex<Roster<K, Arc<Account>>>;

/// The accounts of one kind of owner.
#[derive(Debug)]
pub struct Keyed<K> {
    stripes: Box<[Stripe<K>]>,
    hasher: Hasher,
    /// Owners that were not given an account since the table was full.
    turned_away: AtomicU64,
}

impl<K: Clone + Eq + Hash> Keyed<K> {
    /// A table of at most `accounts_max` accounts, rounded up to as many for each stripe, spread by `seed`, which is
    /// random.
    pub fn new(accounts_max: usize, seed: u64) -> Keyed<K> {
        let hasher = Hasher::with_seed(seed);
        let each = accounts_max.div_ceil(STRIPES);
        let stripe = || Mutex::new(Roster::new(each, hasher.clone()));
        Keyed { stripes: (0..STRIPES).map(|_| stripe()).collect(), hasher, turned_away: AtomicU64::new(0) }
    }

    /// The account of an owner, to be held for a while and let go with [`Keyed::let_go`].
    ///
    /// `None`: there are as many accounts as there may be, all in use as far as was looked, and this owner has none.
    /// It goes without limits then, and is counted: a full table must not shut anybody out.
    pub fn hold(&self, now: Mono, key: &K) -> Option<Arc<Account>> {
        let is_over = |account: &Arc<Account>| is_over(account, now);
        let account = self.stripe(key)?.lock().find_or_insert(key, is_over, Arc::default).cloned();
        if account.is_none() {
            self.turned_away.fetch_add(1, Ordering::Relaxed);
        }
        account
    }

    /// Ends the holding. The account lives on while its bucket is not full.
    pub fn let_go(&self, now: Mono, key: &K, account: Arc<Account>) {
        let Some(mut stripe) = self.stripe(key).map(Mutex::lock) else { return };
        drop(account);
        stripe.forget_some(|account| is_over(account, now));
    }

    /// Never `None`: a remainder is below its divisor.
    fn stripe(&self, key: &K) -> Option<&Stripe<K>> {
        // Other bits than those by which the stripe's own table goes.
        self.stripes.get((self.hasher.hash_one(key) >> 40) as usize % STRIPES)
    }

    /// Accounts at the moment.
    pub fn len(&self) -> usize {
        self.stripes.iter().map(|stripe| stripe.lock().len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Requests that are unanswered, of all owners.
    pub fn outstanding(&self) -> u64 {
        let of_stripe = |stripe: &Stripe<K>| -> u64 {
            stripe.lock().iter().map(|(_, account)| account.outstanding.taken()).sum()
        };
        self.stripes.iter().map(of_stripe).sum()
    }

    /// How often an owner was given no account since the table was full.
    pub fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }
}

/// Nobody holds it but the table, and a new one would be the same. Holders are made under the lock of the stripe only.
fn is_over(account: &Arc<Account>, now: Mono) -> bool {
    Arc::strong_count(account) == 1 && account.is_idle(now)
}
