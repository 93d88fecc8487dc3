//! What one worker has seen of an endpoint lately, and when that is enough to leave it alone.
//!
//! ```text
//!            failures in a row, or too few successes
//! closed ────────────────────────────────────────────► open ── its term is over ──► half-open ─┐
//!   ▲  slow start                                        ▲                             │        │ one probe
//!   ├──────────────────────────────────────────────────── │ ◄── it failed: twice as long ───────┤
//!   └──────────────────────────────────────────────────── it succeeded ◄───────────────────────┘
//! ```
//!
//! The record is a worker's own; that an endpoint is open, until when, and who has the probe, stands in
//! [`Vitals`](super::Vitals) and is the same for all.

use super::EjectionSettings;
use crate::base::rng::Rng;
use moorgate_proto::time::Mono;
use std::time::Duration;

const BUCKETS: u8 = 10;

/// Successes and failures of the last while, forgotten a tenth of the window at a time.
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    /// The last ones that failed without a success between them.
    in_a_row: u32,
    buckets: [Bucket; BUCKETS as usize],
    /// Which tenth of which window is the newest.
    newest: u64,
    /// When that tenth is over, in nanoseconds: until then there is nothing to be forgotten.
    newest_ends: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    good: u32,
    failed: u32,
}

impl Record {
    /// Notes a call.
    pub(super) fn note(&mut self, now: Mono, settings: &EjectionSettings, good: bool) {
        if now.as_nanos() >= self.newest_ends {
            self.advance(now, settings.window);
        }
        self.in_a_row = if good { 0 } else { self.in_a_row.saturating_add(1) };
        let at = usize::try_from(self.newest % u64::from(BUCKETS)).unwrap_or_default();
        if let Some(bucket) = self.buckets.get_mut(at) {
            let count = if good { &mut bucket.good } else { &mut bucket.failed };
            *count = count.saturating_add(1);
        }
    }

    /// Whether that is enough.
    pub(super) fn is_bad(&self, settings: &EjectionSettings) -> bool {
        if settings.failures_max > 0 && self.in_a_row >= settings.failures_max {
            return true;
        }
        let sum =
            |of: fn(&Bucket) -> u32| self.buckets.iter().map(|bucket| u64::from(of(bucket))).sum::<u64>();
        let (good, failed) = (sum(|bucket| bucket.good), sum(|bucket| bucket.failed));
        let calls = good.saturating_add(failed);
        calls >= u64::from(settings.calls_min.max(1))
            && good.saturating_mul(100) < calls.saturating_mul(u64::from(settings.success_percent_min))
    }

    /// Failures in a row.
    pub(super) fn in_a_row(&self) -> u32 {
        self.in_a_row
    }

    fn advance(&mut self, now: Mono, window: Duration) {
        let tenth = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX) / u64::from(BUCKETS);
        let newest = now.as_nanos().checked_div(tenth).unwrap_or(now.as_nanos());
        let passed = newest.saturating_sub(self.newest).min(u64::from(BUCKETS));
        for step in 0..passed {
            let at = usize::try_from(newest.wrapping_sub(step) % u64::from(BUCKETS)).unwrap_or_default();
            if let Some(bucket) = self.buckets.get_mut(at) {
                *bucket = Bucket::default();
            }
        }
        self.newest = self.newest.max(newest);
        self.newest_ends = self.newest.saturating_add(1).saturating_mul(tenth);
    }
}

/// How long it is left alone after it was so many times in a row: twice as long each time, give or take a half, so that
/// neither endpoints nor workers come in step.
pub(super) fn term(settings: &EjectionSettings, strikes: u32, rng: &mut Rng) -> Duration {
    let doubled = settings.term_min.saturating_mul(1u32.checked_shl(strikes).unwrap_or(u32::MAX));
    let base = doubled.min(settings.term_max);
    let longest = base.saturating_add(base / 2).min(settings.term_max.max(settings.term_min));
    let shortest = base / 2;
    shortest.saturating_add(rng.up_to(longest.saturating_sub(shortest)))
}

/// Most endpoints of so many that may be ejected: one at the least, if there are two, and it is wanted at all.
pub(super) fn ejected_max(settings: &EjectionSettings, endpoints: usize) -> u32 {
    let percent = u64::from(settings.ejected_percent_max.min(100));
    if endpoints < 2 || percent == 0 {
        return 0;
    }
    let share = u64::try_from(endpoints).unwrap_or(u64::MAX).saturating_mul(percent) / 100;
    u32::try_from(share.max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn at(ms: u64) -> Mono {
        Mono::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn failures_in_a_row_are_enough() {
        let settings = EjectionSettings::default();
        let mut record = Record::default();
        for good in [false, false, false, false, true, false, false, false, false] {
            record.note(at(1), &settings, good);
            assert!(!record.is_bad(&settings));
        }
        record.note(at(1), &settings, false);
        assert!(record.is_bad(&settings));
        assert_eq!(record.in_a_row(), 5);
        assert!(
            !record.is_bad(&EjectionSettings { failures_max: 0, ..settings }),
            "too few calls for a rate"
        );
    }

    #[test]
    fn a_burst_is_not_forgotten_at_once() {
        let settings = EjectionSettings { failures_max: 0, ..EjectionSettings::default() };
        let mut record = Record::default();
        for call in 0..19 {
            record.note(at(999 + call), &settings, call % 3 == 0);
            assert!(!record.is_bad(&settings), "a rate of too few calls says nothing");
        }
        record.note(at(9000), &settings, false);
        assert!(record.is_bad(&settings));
        record.note(at(11_100), &settings, false);
        assert!(!record.is_bad(&settings), "the burst is over ten seconds old");
    }

    proptest! {
        #[test]
        fn the_rate_is_that_of_the_window(
            seed in any::<u64>(),
            calls_min in 1u32..30,
            percent in 0u8..=100,
        ) {
            let settings = EjectionSettings {
                failures_max: 0,
                calls_min,
                success_percent_min: percent,
                window: Duration::from_secs(1),
                ..EjectionSettings::default()
            };
            let mut rng = Rng::new(seed);
            let mut record = Record::default();
            let mut calls: VecDeque<(u64, bool)> = VecDeque::new();
            let mut now = 0;
            for _ in 0..200 {
                now += rng.below(60);
                let good = rng.below(3) > 0;
                record.note(at(now), &settings, good);
                calls.push_back((now / 100, good));
                while calls.front().is_some_and(|(then, _)| then + 10 <= now / 100) {
                    calls.pop_front();
                }
                let successes = calls.iter().filter(|(_, good)| *good).count();
                let bad = calls.len() >= calls_min as usize && successes * 100 < calls.len() * usize::from(percent);
                prop_assert_eq!(record.is_bad(&settings), bad);
            }
        }

        #[test]
        fn terms_grow_and_differ(seed in any::<u64>(), strikes in 0u32..100) {
            let settings = EjectionSettings::default();
            let term = term(&settings, strikes, &mut Rng::new(seed));
            let base = f64::from(1 << strikes.min(6)).min(60.0);
            prop_assert!(term.as_secs_f64() >= base * 0.5 && term.as_secs_f64() <= (base * 1.5).min(60.0));
        }
    }

    #[test]
    fn a_part_is_always_left() {
        let settings = EjectionSettings::default();
        let max = |endpoints| ejected_max(&settings, endpoints);
        assert_eq!([max(0), max(1), max(2), max(3), max(4), max(5), max(100)], [0, 0, 1, 1, 2, 2, 50]);
        let none = EjectionSettings { ejected_percent_max: 0, ..settings };
        assert_eq!(ejected_max(&none, 10), 0);
    }
}
