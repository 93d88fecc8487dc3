//! How fast a registry is asked: a token bucket for a loop that should wait by itself, delays after failures.

use std::time::{Duration, Instant};

/// A token bucket: `burst` at once, then one each `every`.
#[derive(Debug)]
pub(crate) struct Pace {
    every: Duration,
    burst: u32,
    /// When the bucket is full again.
    full_at: Option<Instant>,
}

impl Pace {
    pub(crate) fn new(every: Duration, burst: u32) -> Pace {
        Pace { every, burst, full_at: None }
    }

    /// Takes a token, and says how long to wait before it counts.
    pub(crate) fn take(&mut self, now: Instant) -> Duration {
        let full_at = self.full_at.unwrap_or(now).max(now);
        self.full_at = Some(full_at + self.every);
        let slack = self.every * self.burst.saturating_sub(1);
        full_at.saturating_duration_since(now).saturating_sub(slack)
    }
}

/// Delays that double with each failure, and are in part random.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff { first, longest, failures: 0 }
    }

    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// The next delay: between half of what is due and all of it.
    pub(crate) fn failed(&mut self, random: u64) -> Duration {
        let due = self.first.saturating_mul(1 << self.failures.min(16)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        share(due, 50, 100, random)
    }
}

/// Between `from` and `to` percent of a time, evenly.
pub(crate) fn share(time: Duration, from: u32, to: u32, random: u64) -> Duration {
    let parts = u64::from(to.saturating_sub(from)) * 100;
    let drawn = u32::try_from(random % (parts + 1)).unwrap_or(0);
    time.saturating_mul(from * 100 + drawn) / 10_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient::{now, random_u64};

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn two_at_once_and_then_one_a_second() {
        let (mut pace, now) = (Pace::new(S, 2), now());
        assert_eq!([(); 4].map(|()| pace.take(now)), [Duration::ZERO, Duration::ZERO, S, 2 * S]);
        assert_eq!(pace.take(now + 10 * S), Duration::ZERO, "what was not used is not saved up");
        assert_eq!(pace.take(now + 10 * S), Duration::ZERO);
        assert_eq!(pace.take(now + 10 * S + S / 2), S / 2);
    }

    #[test]
    fn delays_double_up_to_a_bound_and_begin_anew() {
        let mut backoff = Backoff::new(S, 30 * S);
        let longest: Vec<u64> = (0..7).map(|_| backoff.failed(5000).as_secs()).collect();
        assert_eq!(longest, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(backoff.failed(0), 15 * S);
        (0..100).for_each(|_| assert!(backoff.failed(random_u64()) <= 30 * S));
        backoff.succeeded();
        assert_eq!(backoff.failed(0), S / 2);
    }

    #[test]
    fn a_share_is_within_its_bounds() {
        for random in (0..20_000).chain([u64::MAX]) {
            let drawn = share(10 * S, 90, 110, random);
            assert!((9 * S..=11 * S).contains(&drawn), "{drawn:?}");
        }
    }
}
