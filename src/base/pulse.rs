//! Whether a loop still turns: it beats once a turn, and somebody else looks at how long ago that was.

use moorgate_proto::time::Mono;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The last turn of one loop.
#[derive(Debug, Default)]
pub struct Pulse {
    nanos: AtomicU64,
}

impl Pulse {
    /// The loop turns.
    #[inline]
    pub fn beat(&self, now: Mono) {
        self.nanos.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// The loop has ended, and is not expected to turn any more.
    pub fn end(&self) {
        self.nanos.store(u64::MAX, Ordering::Relaxed);
    }

    /// How long ago the last turn was; zero for a loop that has not begun, or has ended.
    pub fn age(&self, now: Mono) -> Duration {
        match self.nanos.load(Ordering::Relaxed) {
            0 | u64::MAX => Duration::ZERO,
            nanos => now.since(Mono::from_nanos(nanos)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pulse_ages_until_the_loop_ends() {
        let (pulse, second) = (Pulse::default(), Duration::from_secs(1));
        let now = Mono::ZERO + 9 * second;
        assert_eq!(pulse.age(now), Duration::ZERO, "not begun");
        pulse.beat(now);
        assert_eq!(pulse.age(now + 3 * second), 3 * second);
        pulse.end();
        assert_eq!(pulse.age(now + 9 * second), Duration::ZERO);
    }
}
