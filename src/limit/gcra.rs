//! The leaky bucket, as the generic cell rate algorithm (GCRA) keeps it: one number, the theoretical arrival time.
//!
//! The number is the moment at which the bucket will be full again, every charge so far given back by time. A charge
//! moves it one interval on, and is refused when that would take it more than a whole burst ahead of now. Nothing has
//! to be done as time passes, so a bucket that nobody charges costs nothing but its eight bytes.
//!
//! Source: ITU-T I.371, annex A, the virtual scheduling algorithm.

use super::Rate;
use moorgate_proto::time::Mono;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A leaky bucket of one thread. Begins full: a whole burst may be charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gcra {
    full_at: u64,
}

impl Gcra {
    /// The bucket as it would be after a charge; nothing is charged yet.
    ///
    /// # Errors
    /// How long until a charge is possible, when it is not.
    #[inline]
    pub fn after_charge(self, now: Mono, rate: Rate) -> Result<Gcra, Duration> {
        let full_at = charged(self.full_at, now, rate, 1)?;
        Ok(Gcra { full_at })
    }

    /// Charges one.
    ///
    /// # Errors
    /// How long until that is possible, when it is not: at that moment a charge passes, unless another was faster.
    #[inline]
    pub fn charge(&mut self, now: Mono, rate: Rate) -> Result<(), Duration> {
        self.charge_many(now, rate, 1)
    }

    /// Charges several, or none of them.
    ///
    /// # Errors
    /// As [`Gcra::charge`].
    #[inline]
    pub fn charge_many(&mut self, now: Mono, rate: Rate, count: u32) -> Result<(), Duration> {
        self.full_at = charged(self.full_at, now, rate, count)?;
        Ok(())
    }

    /// Gives one charge back that was not used.
    pub fn give_back(&mut self, rate: Rate) {
        self.full_at = self.full_at.saturating_sub(rate.interval_ns());
    }

    /// When everything will have been given back: later for the one that was charged more.
    pub fn full_at(self) -> Mono {
        Mono::from_nanos(self.full_at)
    }

    /// Whether everything was given back: a full bucket need not be kept.
    pub fn is_full(self, now: Mono) -> bool {
        self.full_at <= now.as_nanos()
    }
}

#[inline]
fn charged(full_at: u64, now: Mono, rate: Rate, count: u32) -> Result<u64, Duration> {
    let now = now.as_nanos();
    let charge = rate.interval_ns().saturating_mul(u64::from(count));
    let after = full_at.max(now).saturating_add(charge);
    let bound = now.saturating_add(rate.window_ns());
    if after <= bound { Ok(after) } else { Err(Duration::from_nanos(after.saturating_sub(bound))) }
}

/// The atomic that shared limits are built from; exchanged for loom's in the test.
pub trait Word: Default {
    /// Relaxed load.
    fn load(&self) -> u64;
    /// Stores `new` if the value is still `old`, else tells what it is.
    ///
    /// # Errors
    /// The value.
    fn exchange(&self, old: u64, new: u64) -> Result<u64, u64>;
}

impl Word for AtomicU64 {
    fn load(&self) -> u64 {
        AtomicU64::load(self, Ordering::Relaxed)
    }
    fn exchange(&self, old: u64, new: u64) -> Result<u64, u64> {
        // Relaxed: the number is all there is, nothing else is published by it.
        self.compare_exchange_weak(old, new, Ordering::Relaxed, Ordering::Relaxed)
    }
}

/// Replaces the value by what `change` makes of it, for as long as others get in between. `change` may decline.
pub(super) fn update<W: Word, T, E>(
    word: &W,
    mut change: impl FnMut(u64) -> Result<(u64, T), E>,
) -> Result<T, E> {
    let mut old = word.load();
    loop {
        let (new, result) = change(old)?;
        match word.exchange(old, new) {
            Ok(_) => return Ok(result),
            Err(value) => old = value,
        }
    }
}

/// A leaky bucket that several threads charge, without a lock. Begins full.
#[derive(Debug, Default)]
pub struct AtomicGcra<W = AtomicU64> {
    full_at: W,
}

impl<W: Word> AtomicGcra<W> {
    /// Charges at least one and at most `wanted`, as many as there are; how many.
    ///
    /// # Errors
    /// How long until one can be charged, when none can.
    pub fn take(&self, now: Mono, rate: Rate, wanted: u32) -> Result<u32, Duration> {
        update(&self.full_at, |full_at| {
            let one = charged(full_at, now, rate, 1)?;
            let bound = now.as_nanos().saturating_add(rate.window_ns());
            let more = rate.fits(bound.saturating_sub(one)).min(wanted.saturating_sub(1));
            let after = one.saturating_add(rate.interval_ns().saturating_mul(u64::from(more)));
            Ok((after, more.saturating_add(1)))
        })
    }

    /// Gives charges back that were not used, within the time that they took: what is given back later may have been
    /// given back by time already, and would be so twice.
    pub fn give_back(&self, rate: Rate, count: u32) {
        let charge = rate.interval_ns().saturating_mul(u64::from(count));
        let given: Result<(), ()> = update(&self.full_at, |full_at| Ok((full_at.saturating_sub(charge), ())));
        debug_assert!(given.is_ok());
    }

    /// Whether everything was given back.
    pub fn is_full(&self, now: Mono) -> bool {
        self.full_at.load() <= now.as_nanos()
    }
}
