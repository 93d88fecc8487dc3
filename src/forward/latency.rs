//! How long the calls of a service take, lately: enough to know when one is slow.

use moorgate_proto::time::Mono;
use std::time::Duration;

/// Four buckets for each doubling, from 64 us on; the last one takes all above.
const BUCKETS: usize = 88;
const FIRST_BITS: u32 = 6;
/// Half of what is remembered goes after this time.
const HALF: Duration = Duration::from_secs(10);
/// Of fewer calls nothing can be said.
const CALLS_MIN: u32 = 20;
/// After so many calls more the percentile is looked up anew.
const CALLS_STEP: u32 = 32;

/// Latencies of the last ten to twenty seconds.
#[derive(Debug)]
pub(super) struct Latencies {
    current: [u32; BUCKETS],
    before: [u32; BUCKETS],
    turns: Mono,
    /// Calls until the percentile is looked up anew.
    left: u32,
    p95: Option<Duration>,
}

impl Default for Latencies {
    fn default() -> Self {
        Latencies {
            current: [0; BUCKETS],
            before: [0; BUCKETS],
            turns: Mono::ZERO,
            left: CALLS_MIN,
            p95: None,
        }
    }
}

impl Latencies {
    /// A call has taken so long.
    pub(super) fn record(&mut self, now: Mono, latency: Duration) {
        if now >= self.turns {
            self.turn(now);
        }
        if let Some(bucket) = self.current.get_mut(bucket_of(latency)) {
            *bucket = bucket.saturating_add(1);
        }
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.left = CALLS_STEP;
            self.p95 = self.percentile(95);
        }
    }

    /// Nineteen of twenty calls take no longer; `None` while too few were seen. At most a fifth above the truth.
    pub(super) fn p95(&self) -> Option<Duration> {
        self.p95
    }

    fn turn(&mut self, now: Mono) {
        let is_old = now >= self.turns + HALF;
        self.before = if is_old { [0; BUCKETS] } else { self.current };
        self.current = [0; BUCKETS];
        self.turns = now + HALF;
    }

    fn percentile(&self, percent: u64) -> Option<Duration> {
        let buckets =
            || self.current.iter().zip(&self.before).map(|(one, two)| u64::from(*one) + u64::from(*two));
        let total: u64 = buckets().sum();
        if total < u64::from(CALLS_MIN) {
            return None;
        }
        let mut left = total.saturating_mul(percent).div_ceil(100);
        for (at, count) in buckets().enumerate() {
            left = left.saturating_sub(count);
            if left == 0 {
                return Some(upper(at));
            }
        }
        None
    }
}

/// The bucket: the doubling, and which quarter of it.
fn bucket_of(latency: Duration) -> usize {
    let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1 << FIRST_BITS);
    let bits = us.ilog2();
    let quarter = (us >> bits.saturating_sub(2)) & 3;
    let at = u64::from(bits.saturating_sub(FIRST_BITS)).saturating_mul(4).saturating_add(quarter);
    usize::try_from(at).unwrap_or(usize::MAX).min(BUCKETS - 1)
}

/// The longest latency of a bucket.
fn upper(at: usize) -> Duration {
    let (doubling, quarter) = (at / 4, at % 4);
    let start = 1u64 << FIRST_BITS.saturating_add(u32::try_from(doubling).unwrap_or_default());
    let quarters = u64::try_from(quarter).unwrap_or_default().saturating_add(5);
    Duration::from_micros(start.saturating_mul(quarters) / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_bucket_holds_what_its_bound_says() {
        for us in [0, 1, 64, 79, 80, 100, 127, 128, 1000, 99_999, 1 << 27] {
            let latency = Duration::from_micros(us);
            let upper = upper(bucket_of(latency));
            assert!(
                latency <= upper && upper <= (latency * 5 / 4).max(Duration::from_micros(80)),
                "{us}: {upper:?}"
            );
        }
        assert_eq!(bucket_of(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn the_percentile_is_known_after_a_few_calls_and_follows() {
        let mut latencies = Latencies::default();
        let mut now = Mono::ZERO + Duration::from_secs(1);
        for at in 0..CALLS_MIN {
            assert_eq!(latencies.p95(), None, "after {at}");
            latencies.record(now, if at == 0 { 500 * MS } else { 10 * MS });
        }
        let p95 = latencies.p95().unwrap();
        assert!(p95 >= 10 * MS && p95 <= 13 * MS, "{p95:?}");
        now = now + 2 * HALF;
        for _ in 0..CALLS_STEP {
            latencies.record(now, 40 * MS);
        }
        let p95 = latencies.p95().unwrap();
        assert!(p95 >= 40 * MS && p95 <= 50 * MS, "{p95:?}: the old ones are forgotten");
    }

    #[test]
    fn what_was_before_the_last_turn_still_counts() {
        let mut latencies = Latencies::default();
        let begun = Mono::ZERO + Duration::from_secs(1);
        for _ in 0..100 {
            latencies.record(begun, 10 * MS);
        }
        for _ in 0..CALLS_STEP {
            latencies.record(begun + HALF, 100 * MS);
        }
        assert!(latencies.p95().unwrap() >= 100 * MS, "a quarter of all");
        assert_eq!(latencies.before.iter().sum::<u32>(), 100);
    }
}
