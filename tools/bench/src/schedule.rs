//! The schedule of an open loop: what is due, and what was due and was not sent.

use moorgate_proto::time::Mono;
use std::time::Duration;

/// At least this many a second, so that a step stays finite.
const RATE_MIN: f64 = 0.001;

/// Times at equal distances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Schedule {
    due: Mono,
    step: Duration,
}

impl Schedule {
    /// The first at this time, then so many a second.
    pub(crate) fn new(first: Mono, rate: f64) -> Schedule {
        let step = Duration::from_secs_f64(1.0 / rate.max(RATE_MIN)).max(Duration::from_nanos(1));
        Schedule { due: first, step }
    }

    /// The next time.
    pub(crate) fn due(&self) -> Mono {
        self.due
    }

    /// The next time if it is not later than `until`; it counts as sent from then on.
    pub(crate) fn take(&mut self, until: Mono) -> Option<Mono> {
        let at = self.due;
        if at > until {
            return None;
        }
        self.due = at + self.step;
        Some(at)
    }

    /// Times before `end` that were not taken.
    pub(crate) fn left(&self, end: Mono) -> u64 {
        let time = end.since(self.due).as_nanos();
        u64::try_from(time.div_ceil(self.step.as_nanos().max(1))).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn taken_and_left_times_are_all_times() {
        for rate in [0.5, 1.0, 3.0, 1000.0] {
            for end in [0, 1, 999, 1000, 1001, 5500] {
                let whole = Schedule::new(at(0), rate).left(at(end));
                for stop in [0, 1, 500, 1000, 4000] {
                    let (mut schedule, mut taken) = (Schedule::new(at(0), rate), 0);
                    while schedule.take(at(stop).min(at(end) - Duration::from_nanos(1))).is_some() {
                        taken += u64::from(end > 0);
                    }
                    assert_eq!(taken + schedule.left(at(end)), whole, "{rate}/s, {stop} of {end} ms");
                }
            }
        }
    }

    #[test]
    fn a_schedule_that_was_followed_leaves_nothing() {
        let mut schedule = Schedule::new(at(10), 100.0);
        assert_eq!(schedule.take(at(9)), None);
        let taken: Vec<Mono> = std::iter::from_fn(|| schedule.take(at(30))).collect();
        assert_eq!(taken, [at(10), at(20), at(30)]);
        assert_eq!((schedule.due(), schedule.left(at(40)), schedule.left(at(41))), (at(40), 0, 1));
    }
}
