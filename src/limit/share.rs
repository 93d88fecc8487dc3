//! What one shard holds of the shared limits, so that most requests touch nothing that is shared.
//!
//! A shard takes charges and places out of a shared account in small batches and spends them by itself. What that
//! costs in exactness is bounded: a shard holds at most [`batch_max`](Terms) charges that it has not spent, an eighth
//! of the burst over all shards together; and at most an eighth of the places of a concurrency bound may lie idle
//! at shards, never more are taken than there are. Where the eighth of a shard is less than one, nothing is held.
//! Whoever asks seldom gets no batch: one charge at a time, exactly.

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
/// Whoever has used up a batch within this time gets a larger one.
const QUICK: Duration = Duration::from_millis(20);
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

/// How large a batch may become.
fn batch_max(rate: Rate, shards: u16) -> u32 {
    (rate.burst() / HELD_PART / u32::from(shards.max(1))).clamp(1, BATCH_MAX)
}

/// Charges taken and not spent.
#[derive(Debug, Default)]
struct Prepaid {
    left: u32,
    batch: u32,
    renewed: Mono,
}

impl Prepaid {
    /// Sees that there is a charge to spend. `take` gets charges of the shared bucket, as many as it is asked for or
    /// fewer.
    #[inline]
    fn ensure(
        &mut self,
        now: Mono,
        batch_max: u32,
        take: impl FnOnce(u32) -> Result<u32, Duration>,
    ) -> Result<(), Duration> {
        if self.left > 0 {
            return Ok(());
        }
        let is_quick = now.since(self.renewed) < QUICK;
        let batch = if is_quick { self.batch.saturating_mul(2) } else { self.batch / 2 };
        self.batch = batch.clamp(1, batch_max);
        self.left = take(self.batch)?;
        self.renewed = now;
        Ok(())
    }

    #[inline]
    fn spend(&mut self) {
        self.left = self.left.saturating_sub(1);
    }

    /// What is left and can be given back: later, time may have given it back already.
    fn unexpired(&self, now: Mono, rate: Rate) -> u32 {
        let returns = self.renewed + rate.interval().saturating_mul(self.left);
        if now < returns { self.left } else { 0 }
    }
}

/// The limits of one kind of owner, as a shard applies them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    rate: Option<Rate>,
    batch_max: u32,
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
            batch_max: settings.rate.map_or(1, |rate| batch_max(rate, shards)),
            outstanding_max: settings.outstanding_max,
            places_kept: settings.outstanding_max.map_or(ENDLESS, |max| max / part),
        }
    }

    pub(super) fn is_off(&self) -> bool {
        self.rate.is_none() && self.outstanding_max.is_none()
    }
}

/// What a shard holds of one owner.
#[derive(Debug)]
pub(super) struct Share<K> {
    pub(super) key: K,
    /// `None`: the table was full, and the owner goes without limits.
    account: Option<Arc<Account>>,
    prepaid: Prepaid,
    /// Places taken of the account and not used.
    free: u32,
    /// Requests of this shard that are unanswered.
    used: u32,
    /// Sessions that are counted here.
    pub(super) sessions: u32,
}

impl<K> Share<K> {
    pub(super) fn new(key: K, account: Option<Arc<Account>>) -> Share<K> {
        Share { key, account, prepaid: Prepaid::default(), free: 0, used: 0, sessions: 0 }
    }

    /// Sees that there is a charge and a place for one request.
    #[inline]
    pub(super) fn ensure(&mut self, now: Mono, terms: &Terms) -> Result<(), Shortage> {
        if self.prepaid.left > 0 && self.free > 0 { Ok(()) } else { self.renew(now, terms) }
    }

    #[cold]
    fn renew(&mut self, now: Mono, terms: &Terms) -> Result<(), Shortage> {
        let account = self.account.as_deref();
        let take = |batch| match (account, terms.rate) {
            (Some(account), Some(rate)) => account.charge(now, rate, batch),
            _ => Ok(ENDLESS),
        };
        self.prepaid.ensure(now, terms.batch_max, take).map_err(Shortage::Rate)?;
        if self.free == 0 {
            self.free = match (account, terms.outstanding_max) {
                (Some(account), Some(max)) => account.outstanding().take(max, terms.places_kept.max(1)),
                _ => ENDLESS,
            };
        }
        if self.free == 0 { Err(Shortage::Outstanding(OUTSTANDING_RETRY)) } else { Ok(()) }
    }

    /// Spends the charge and takes the place that [`Share::ensure`] has found.
    #[inline]
    pub(super) fn spend(&mut self) {
        debug_assert!(self.prepaid.left > 0 && self.free > 0, "it was ensured");
        self.prepaid.spend();
        self.free = self.free.saturating_sub(1);
        self.used = self.used.saturating_add(1);
    }

    /// The service is done with a request.
    #[inline]
    pub(super) fn settled(&mut self, terms: &Terms) {
        debug_assert!(self.used > 0, "a request is settled once");
        self.used = self.used.saturating_sub(1);
        self.free = self.free.saturating_add(1);
        self.trim(terms);
    }

    /// The request was refused elsewhere: gives back what [`Share::ensure`] has taken for it and nothing is held of.
    pub(super) fn not_spent(&mut self, terms: &Terms) {
        if let (Some(account), Some(rate), 1) = (&self.account, terms.rate, terms.batch_max) {
            account.refund(rate, std::mem::take(&mut self.prepaid.left));
        }
        self.trim(terms);
    }

    /// Gives back the places that are too many to be kept.
    #[inline]
    fn trim(&mut self, terms: &Terms) {
        if self.free > terms.places_kept.saturating_mul(2) {
            self.keep(terms.places_kept);
        }
    }

    fn keep(&mut self, places: u32) {
        let spare = self.free.saturating_sub(places);
        if let Some(account) = &self.account {
            account.outstanding().give_back(spare);
        }
        self.free = self.free.saturating_sub(spare);
    }

    /// Whether nobody needs it any more.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.sessions == 0 && self.used == 0
    }

    /// Gives back everything that was not used; the account is still to be let go.
    pub(super) fn dissolve(mut self, now: Mono, terms: &Terms) -> Option<Arc<Account>> {
        debug_assert!(self.is_over());
        if terms.outstanding_max.is_some() {
            self.keep(0);
        }
        let account = self.account?;
        if let Some(rate) = terms.rate {
            account.refund(rate, self.prepaid.unexpired(now, rate));
        }
        Some(account)
    }
}

/// What a shard holds of one route.
#[derive(Debug)]
pub(super) struct RouteShare {
    rate: Option<Rate>,
    batch_max: u32,
    prepaid: Prepaid,
}

impl RouteShare {
    pub(super) fn new(rate: Option<Rate>, shards: u16) -> RouteShare {
        let batch_max = rate.map_or(1, |rate| batch_max(rate, shards));
        RouteShare { rate, batch_max, prepaid: Prepaid::default() }
    }

    #[inline]
    pub(super) fn ensure(&mut self, now: Mono, bucket: Option<&AtomicGcra>) -> Result<(), Duration> {
        let take = |batch| match (self.rate, bucket) {
            (Some(rate), Some(bucket)) => bucket.take(now, rate, batch),
            _ => Ok(ENDLESS),
        };
        self.prepaid.ensure(now, self.batch_max, take)
    }

    #[inline]
    pub(super) fn spend(&mut self) {
        self.prepaid.spend();
    }
}
