//! How long to wait before another try: exponential with equal jitter, so that clients which have lost a gateway
//! together do not connect again together, and none of them at once.
//!
//! Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

use fastrand::Rng;
use std::time::Duration;

/// Half of each wait is a bound that doubles with each failure, the other half is drawn at random below that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The longest wait after the first failure.
    pub base: Duration,
    /// The longest wait after any.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { base: Duration::from_millis(200), max: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// The wait after so many failures in a row, the last included.
    pub fn wait(&self, failures: u32, random: &mut Rng) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let bound = self.base.saturating_mul(1 << doublings).min(self.max);
        let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(random.u64(nanos / 2..=nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: X-6
    #[test]
    fn waits_double_up_to_their_bound_and_are_half_random() {
        let backoff = Backoff { base: Duration::from_millis(100), max: Duration::from_millis(1_000) };
        let mut random = Rng::with_seed(7);
        for (failures, bound) in [(0, 100), (1, 100), (2, 200), (4, 800), (5, 1_000), (u32::MAX, 1_000)] {
            let waits: Vec<_> = (0..200).map(|_| backoff.wait(failures, &mut random)).collect();
            let bound = Duration::from_millis(bound);
            assert!(waits.iter().all(|wait| (bound / 2..=bound).contains(wait)), "{failures}");
            assert!(waits.iter().any(|wait| *wait < bound * 5 / 8), "{failures}: it reaches down");
            assert!(waits.iter().any(|wait| *wait > bound * 7 / 8), "{failures}: and up");
        }
        let Backoff { base, max } = Backoff::default();
        assert_eq!((base, max), (Duration::from_millis(200), Duration::from_secs(30)));
    }
}
