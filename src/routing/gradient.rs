//! A bound of outstanding calls that follows the latency: it falls when answers get slower than they were for long, and
//! grows while it is used (Gradient2 of Netflix's concurrency-limits). It never throttles to learn how fast an idle
//! endpoint would be.

use super::AdaptiveSettings;
use std::time::Duration;

/// Samples over which the long average is taken.
const LONG: f64 = 600.0;
/// The first samples: their plain average begins the long one.
const WARMUP: u32 = 10;
/// How far the bound moves towards what one sample says.
const SMOOTHING: f64 = 0.2;
/// A latency up to so many times the long average is no reason to come down.
const TOLERANCE: f64 = 1.5;
/// One sample asks for half of the bound at the least.
const GRADIENT_MIN: f64 = 0.5;
/// Calls that may wait at the endpoint: what the bound grows by.
const QUEUE: f64 = 4.0;

/// The bound of one endpoint.
#[derive(Debug, Clone)]
pub(super) struct Gradient {
    settings: AdaptiveSettings,
    bound: f64,
    /// The long average, in nanoseconds.
    long: f64,
    samples: u32,
}

impl Gradient {
    /// At its beginning.
    pub(super) fn new(settings: AdaptiveSettings) -> Gradient {
        Gradient { settings, bound: f64::from(settings.outstanding_min.max(1)), long: 0.0, samples: 0 }
    }

    /// Calls that may be outstanding.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is clamped to u32s")]
    pub(super) fn bound(&self) -> u32 {
        self.bound as u32
    }

    /// A call was answered in this time, while so many were outstanding, itself counted.
    pub(super) fn record(&mut self, latency: Duration, outstanding: u32) {
        let sample = (latency.as_secs_f64() * 1e9).max(1.0);
        self.samples = self.samples.saturating_add(1);
        let weight = if self.samples <= WARMUP { 1.0 / f64::from(self.samples) } else { 2.0 / (LONG + 1.0) };
        self.long += (sample - self.long) * weight;
        if self.long / sample > 2.0 {
            // It was slow for long and is not any more: the old average must not let everything pass.
            self.long *= 0.95;
        }
        if f64::from(outstanding) < self.bound / 2.0 {
            return;
        }
        let gradient = (TOLERANCE * self.long / sample).clamp(GRADIENT_MIN, 1.0);
        let wanted = self.bound * gradient + QUEUE;
        let lowest = f64::from(self.settings.outstanding_min.max(1));
        let highest = f64::from(self.settings.outstanding_max).max(lowest);
        self.bound = (self.bound + (wanted - self.bound) * SMOOTHING).clamp(lowest, highest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn it_grows_only_while_it_is_used() {
        let mut gradient = Gradient::new(AdaptiveSettings::default());
        assert_eq!(gradient.bound(), 20);
        (0..1000).for_each(|_| gradient.record(MS, 9));
        assert_eq!(gradient.bound(), 20, "less than half of it is used");
        (0..1000).for_each(|_| gradient.record(MS, gradient.bound()));
        assert_eq!(gradient.bound(), 200);
    }

    #[test]
    fn it_falls_when_answers_get_slow_and_rises_again() {
        let mut gradient = Gradient::new(AdaptiveSettings::default());
        (0..1000).for_each(|_| gradient.record(MS, gradient.bound()));
        (0..60).for_each(|_| gradient.record(10 * MS, gradient.bound()));
        assert!(gradient.bound() < 40, "{}", gradient.bound());
        (0..2000).for_each(|_| gradient.record(MS, gradient.bound()));
        assert_eq!(gradient.bound(), 200);
    }

    proptest! {
        #[test]
        fn it_stays_within(
            min in 0u32..50,
            max in 0u32..500,
            samples in proptest::collection::vec((0u64..10_000_000_000, 0u32..1000), 0..300),
        ) {
            let mut gradient = Gradient::new(AdaptiveSettings { outstanding_min: min, outstanding_max: max });
            for (nanos, outstanding) in samples {
                gradient.record(Duration::from_nanos(nanos), outstanding);
                prop_assert!(gradient.bound() >= min.max(1));
                prop_assert!(gradient.bound() <= max.max(min.max(1)));
            }
        }
    }
}
