//! What one shard holds of the shared limits, so that most requests touch nothing that is shared.
//!
//! A shard takes charges and places out of a shared account in small batches and spends them by itself. What that
//! costs in exactness is bounded. The charges that all shards hold and have not spent are at most an eighth of the
//! burst: so much less passes when the others ask, and so much more at once when these are spent later; in the long run
//! the rate is exact. Of the places of a concurrency bound at most an eighth lies idle at shards; never more are taken
//! than there are. Where a shard's part of the eighth is less than two, it takes one at a time, exactly.

use super::Rate;
use super::gcra::AtomicGcra;
use super::keyed::Account;
use super::settings::OwnerSettings;
use moorgate_proto::time::Mono;
use std::sync::Arc;
use std::time::Duration;

/// The part of a burst, or of a bound, that all shards together may hold and not use.
const HELD_PART: u32 = 8;
/// Charges taken at once, at the most: more saves nothing.
const BATCH_MAX: u32 = 64;
/// What a shard has of something that is not limited.
const ENDLESS: u32 = u32::MAX;
/// When to try again, where nobody can say when an answer will come.
const OUTSTANDING_RETRY: Duration = Duration::from_millis(200);

/// Why there is nothing to spend, and when to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shortage {
    Rate(Duration),
    Outstanding(Duration),
}

/// How many charges are taken at once.
fn batch(rate: Rate, shards: u16) -> u32 {
    (rate.burst() / HELD_PART / u32::from(shards.max(1))).clamp(1, BATCH_MAX)
}

/// The limits of one kind of owner, as a shard applies them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    rate: Option<Rate>,
    batch: u32,
    outstanding_max: Option<u32>,
    /// Places that a shard keeps of one owner while it does not use them; 0: none.
    places_kept: u32,
}

impl Terms {
    pub(super) fn new(settings: OwnerSettings, shards: u16) -> Terms {
        // A shard holds up to twice as many before it gives some back.
        let part = HELD_PART.saturating_mul(2).saturating_mul(u32::from(shards.max(1)));
        Terms {
            rate: settings.rate,
            batch: settings.rate.map_or(1, |rate| batch(rate, shards)),
            outstanding_max: settings.outstanding_max,
            places_kept: settings.outstanding_max.map_or(ENDLESS, |max| max / part),
        }
    }

    pub(super) fn is_off(&self) -> bool {
        self.rate.is_none() && self.outstanding_max.is_none()
    }
}

/// What every request of an owner changes. Small, and apart from the rest: four lie in a cache line.
#[derive(Debug, Default)]
pub(super) struct Purse {
    /// Charges taken of the account and not spent.
    prepaid: u32,
    /// Places taken of the account and not used.
    free: u32,
    /// Requests of this shard that are unanswered.
    used: u32,
    /// Sessions that are counted here.
    pub(super) sessions: u32,
}

impl Purse {
    /// Whether there is a charge and a place for one request.
    #[inline]
    pub(super) fn has_one(&self) -> bool {
        self.prepaid > 0 && self.free > 0
    }

    /// Spends the charge and takes the place that there are.
    #[inline]
    pub(super) fn spend(&mut self) {
        debug_assert!(self.has_one(), "it was ensured");
        self.prepaid = self.prepaid.saturating_sub(1);
        self.free = self.free.saturating_sub(1);
        self.used = self.used.saturating_add(1);
    }

    /// The service is done with a request; whether there is something to be done about that.
    #[inline]
    pub(super) fn settled(&mut self, terms: &Terms) -> bool {
        debug_assert!(self.used > 0, "a request is settled once");
        self.used = self.used.saturating_sub(1);
        self.free = self.free.saturating_add(1);
        self.has_too_many(terms) || self.is_over()
    }

    fn has_too_many(&self, terms: &Terms) -> bool {
        self.free > terms.places_kept.saturating_mul(2)
    }

    /// Whether nobody needs it any more.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.sessions == 0 && self.used == 0
    }
}

/// What a shard knows of one owner beside its [`Purse`].
#[derive(Debug)]
pub(super) struct Share<K> {
    pub(super) key: K,
    /// `None`: the table was full, and the owner goes without limits.
    account: Option<Arc<Account>>,
    /// When the charges that are left were taken.
    renewed: Mono,
}

impl<K> Share<K> {
    pub(super) fn new(key: K, account: Option<Arc<Account>>) -> Share<K> {
        Share { key, account, renewed: Mono::ZERO }
    }

    /// Sees that there is a charge and a place for one request.
    #[cold]
    pub(super) fn renew(&mut self, now: Mono, purse: &mut Purse, terms: &Terms) -> Result<(), Shortage> {
        let account = self.account.as_deref();
        if purse.prepaid == 0 {
            purse.prepaid = match (account, terms.rate) {
                (Some(account), Some(rate)) => {
                    account.charge(now, rate, terms.batch).map_err(Shortage::Rate)?
                }
                _ => ENDLESS,
            };
            self.renewed = now;
        }
        if purse.free == 0 {
            purse.free = match (account, terms.outstanding_max) {
                (Some(account), Some(max)) => account.outstanding().take(max, terms.places_kept.max(1)),
                _ => ENDLESS,
            };
        }
        if purse.free == 0 { Err(Shortage::Outstanding(OUTSTANDING_RETRY)) } else { Ok(()) }
    }

    /// The request was refused elsewhere: gives back what was taken for it where nothing is held.
    pub(super) fn not_spent(&mut self, purse: &mut Purse, terms: &Terms) {
        if let (Some(account), Some(rate), 1) = (&self.account, terms.rate, terms.batch) {
            account.refund(rate, std::mem::take(&mut purse.prepaid));
        }
        self.trim(purse, terms);
    }

    /// Gives back the places that are too many to be kept.
    pub(super) fn trim(&mut self, purse: &mut Purse, terms: &Terms) {
        if purse.has_too_many(terms) {
            self.keep(purse, terms.places_kept);
        }
    }

    fn keep(&self, purse: &mut Purse, places: u32) {
        let spare = purse.free.saturating_sub(places);
        if let Some(account) = &self.account {
            account.outstanding().give_back(spare);
        }
        purse.free = purse.free.saturating_sub(spare);
    }

    /// Gives back everything that was not used; the account is still to be let go.
    pub(super) fn dissolve(self, now: Mono, mut purse: Purse, terms: &Terms) -> (K, Option<Arc<Account>>) {
        debug_assert!(purse.is_over());
        if terms.outstanding_max.is_some() {
            self.keep(&mut purse, 0);
        }
        if let (Some(account), Some(rate)) = (&self.account, terms.rate) {
            // What is left is given back unless time may have done so already.
            let returns = self.renewed + rate.interval().saturating_mul(purse.prepaid);
            account.refund(rate, if now < returns { purse.prepaid } else { 0 });
        }
        (self.key, self.account)
    }
}

/// What a shard holds of one route.
#[derive(Debug)]
pub(super) struct RouteShare {
    rate: Option<Rate>,
    batch: u32,
    prepaid: u32,
}

impl RouteShare {
    pub(super) fn new(rate: Option<Rate>, shards: u16) -> RouteShare {
        RouteShare { rate, batch: rate.map_or(1, |rate| batch(rate, shards)), prepaid: 0 }
    }

    /// Sees that there is a charge to spend, of the route's bucket if need be.
    #[inline]
    pub(super) fn ensure(&mut self, now: Mono, bucket: Option<&AtomicGcra>) -> Result<(), Duration> {
        if self.prepaid == 0 {
            self.prepaid = match (self.rate, bucket) {
                (Some(rate), Some(bucket)) => bucket.take(now, rate, self.batch)?,
                _ => ENDLESS,
            };
        }
        Ok(())
    }

    #[inline]
    pub(super) fn spend(&mut self) {
        self.prepaid = self.prepaid.saturating_sub(1);
    }
}
