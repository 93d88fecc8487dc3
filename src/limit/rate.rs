//! How often something may happen.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

/// So many in each second, minute or whatever, and so many of them at once.
///
/// Kept in whole nanoseconds for each one, rounded down: of the rates that a configuration may say, one of 700,000 a
/// second is off by 0.1 %, the others by less.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    interval: NonZeroU64,
    /// All that may happen at once, in intervals.
    window: u64,
}

impl Rate {
    /// `count` in each `period`, of which `burst` may come at once. `None` for a rate that nothing could pass, or that
    /// does not fit: more than one a nanosecond, a burst that takes more than 500 years to come back.
    pub fn new(count: u32, period: Duration, burst: u32) -> Option<Rate> {
        let interval = period.as_nanos().checked_div(u128::from(count))?;
        let interval = NonZeroU64::new(u64::try_from(interval).ok()?)?;
        let window = interval.get().checked_mul(u64::from(burst)).filter(|window| *window > 0)?;
        Some(Rate { interval, window })
    }

    /// The time in which one more may happen.
    pub fn interval(self) -> Duration {
        Duration::from_nanos(self.interval.get())
    }

    /// How many may happen at once.
    pub fn burst(self) -> u32 {
        u32::try_from(self.window / self.interval).unwrap_or(u32::MAX)
    }

    pub(super) fn interval_ns(self) -> u64 {
        self.interval.get()
    }

    /// The time in which a whole burst comes back.
    pub(super) fn window_ns(self) -> u64 {
        self.window
    }

    /// How many whole intervals there are in this time.
    pub(super) fn fits(self, nanos: u64) -> u32 {
        u32::try_from(nanos / self.interval).unwrap_or(u32::MAX)
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "one in {:?}, {} at once", self.interval(), self.burst())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_was_asked_for_or_none() {
        let second = Duration::from_secs(1);
        let rate = Rate::new(100, second, 250).unwrap();
        assert_eq!((rate.interval(), rate.burst()), (Duration::from_millis(10), 250));
        assert_eq!(Rate::new(600, 60 * second, 1).unwrap().interval(), Duration::from_millis(100));
        assert_eq!(Rate::new(3, second, 7).unwrap().burst(), 7);
        assert_eq!(Rate::new(u32::MAX, 5 * second, u32::MAX).unwrap().burst(), u32::MAX);
        assert_eq!(Rate::new(0, second, 1), None);
        assert_eq!(Rate::new(1, second, 0), None);
        assert_eq!(Rate::new(1, Duration::ZERO, 1), None);
        assert_eq!(Rate::new(u32::MAX, second, 1), None);
        assert_eq!(Rate::new(1, Duration::from_secs(86_400), u32::MAX), None);
        assert_eq!(Rate::new(1, Duration::MAX, 1), None);
    }
}
