//! Peak-EWMA: a latency that jumps up with a slow answer and comes down slowly (Finagle, linkerd).

use moorgate_proto::time::Mono;
use std::time::Duration;

/// In this time an old latency falls to 1/e of what it was.
const DECAY: Duration = Duration::from_secs(10);
/// And with so many answers, whatever the time: by time alone, one hiccup of a busy endpoint would make it look as slow as
/// one that always is, for seconds.
const DECAY_ANSWERS: f64 = 32.0;
/// What an endpoint is taken to need before anybody knows better.
const SEED: Duration = Duration::from_millis(30);
/// What a failure adds at first: failing fast must not attract load. It goes down with the time, to nothing after as
/// long: were it taken for a latency and smoothed like one, an endpoint that failed once would be left alone for a
/// minute where there is little to do.
const PENALTY: Duration = Duration::from_secs(5);
/// The longest time that a peer can ask to be spared for: no longer than one that fails.
pub(super) const PENALTY_MAX: Duration = PENALTY;
/// What is not asked for long is taken to need this part of what is usual, unless it was known to need even less. Nothing
/// at all would draw every call of a burst there, and if it hangs, all that follow. At a quarter it is tried soon after
/// it was slow, and has at most about four times as much outstanding as another one.
const FLOOR: f64 = 0.25;

/// One endpoint's smoothed latency.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ewma {
    nanos: f64,
    at: Mono,
    sampled: bool,
    /// Until then it is spared.
    spared: Mono,
    /// When it last gave cause for that.
    penalised: Mono,
}

impl Ewma {
    /// Takes a latency in.
    pub(super) fn record(&mut self, now: Mono, latency: Duration) {
        if now - latency >= self.penalised && self.spared > now {
            // It was asked since, and answers.
            self.spared = now + self.spared.since(now) / 2;
        }
        let sample = nanos_of(latency);
        if !self.sampled || sample > self.nanos {
            (self.nanos, self.at, self.sampled) = (sample, self.at.max(now), true);
            return;
        }
        let kept = self.kept(now).min(1.0 - 1.0 / DECAY_ANSWERS);
        self.nanos = self.nanos * kept + sample * (1.0 - kept);
        self.at = self.at.max(now);
    }

    /// Takes a failure in: `spare` is how long the peer asked to be spared for, if it did.
    pub(super) fn penalise(&mut self, now: Mono, spare: Option<Duration>) {
        self.spared = self.spared.max(now + spare.map_or(PENALTY, |spare| spare.min(PENALTY_MAX)));
        self.penalised = self.penalised.max(now);
    }

    /// The latency to reckon with, in nanoseconds: what is not asked for long is forgotten. `typical` stands for an
    /// endpoint of which nothing is known.
    pub(super) fn nanos(&self, now: Mono, typical: f64) -> f64 {
        let nanos = if self.sampled {
            (self.nanos * self.kept(now)).max(self.nanos.min(typical * FLOOR))
        } else {
            typical
        };
        nanos + self.spared.as_nanos().saturating_sub(now.as_nanos()) as f64
    }

    /// Whether any answer has shown how fast it is.
    pub(super) fn is_known(&self) -> bool {
        self.sampled
    }

    /// How much of the old is left.
    fn kept(&self, now: Mono) -> f64 {
        let since = now.as_nanos().saturating_sub(self.at.as_nanos());
        if since == 0 { 1.0 } else { (-(since as f64) / (DECAY.as_secs() as f64 * 1e9)).exp() }
    }
}

/// What an endpoint of which nothing is known is taken to need: what the others need, and at most the seed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Typical(f64);

impl Typical {
    /// One good answer of any endpoint of the pool; the last few hundred count.
    pub(super) fn record(&mut self, latency: Duration) {
        let sample = nanos_of(latency);
        self.0 = if self.0 == 0.0 { sample } else { self.0 + (sample - self.0) / 128.0 };
    }

    pub(super) fn nanos(self) -> f64 {
        let seed = nanos_of(SEED);
        if self.0 == 0.0 { seed } else { self.0.min(seed) }
    }
}

/// A latency in nanoseconds: exact for all that a call can take.
fn nanos_of(latency: Duration) -> f64 {
    latency.as_secs() as f64 * 1e9 + f64::from(latency.subsec_nanos())
}

/// Nanoseconds as whole microseconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
pub(super) fn micros(nanos: f64) -> u32 {
    (nanos / 1e3).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn a_peak_is_seen_at_once_and_forgotten_slowly() {
        let mut ewma = Ewma::default();
        assert!((ewma.nanos(at(0), 30e6) - 30e6).abs() < 1.0, "nothing is known");
        ewma.record(at(0), Duration::from_millis(1));
        ewma.record(at(1), Duration::from_millis(100));
        assert_eq!(micros(ewma.nanos(at(1), 0.0)), 100_000);
        ewma.record(at(10_001), Duration::from_millis(1));
        let fallen = micros(ewma.nanos(at(10_001), 0.0));
        assert!((37_000..38_000).contains(&fallen), "1/e of it after the decay: {fallen}");
        ewma.record(at(10_002), Duration::from_millis(100));
        (0..64).for_each(|_| ewma.record(at(10_003), Duration::from_millis(1)));
        let fallen = micros(ewma.nanos(at(10_003), 0.0));
        assert!((13_000..15_000).contains(&fallen), "or after some answers: {fallen}");
        let left = micros(ewma.nanos(at(70_001), 0.0));
        assert!(left < 200, "and next to nothing when it was not asked: {left}");
        assert_eq!(micros(ewma.nanos(at(600_000), 4e6)), 1_000, "a quarter of the usual");
        let mut fast = Ewma::default();
        fast.record(at(0), Duration::from_micros(10));
        assert_eq!(micros(fast.nanos(at(600_000), 4e6)), 10, "or what it was known to need");
    }

    #[test]
    fn a_fast_failure_is_dear() {
        let mut ewma = Ewma::default();
        ewma.record(at(0), Duration::from_millis(1));
        ewma.penalise(at(0), None);
        assert_eq!(micros(ewma.nanos(at(0), 0.0)), 5_001_000);
        let later = micros(ewma.nanos(at(4_000), 0.0));
        assert!((1_000_000..1_001_000).contains(&later), "it goes down with the time: {later}");
        assert!(micros(ewma.nanos(at(5_000), 0.0)) < 1_000, "and is over");
        let mut spared = Ewma::default();
        spared.penalise(at(0), Some(Duration::from_millis(200)));
        assert_eq!(micros(spared.nanos(at(0), 0.0)), 200_000);
        spared.penalise(at(0), Some(Duration::from_secs(86_400)));
        assert_eq!(micros(spared.nanos(at(0), 0.0)), 5_000_000, "no peer is spared for a day");
        spared.penalise(at(500), Some(Duration::from_secs(86_400)));
        spared.record(at(1000), Duration::from_millis(501));
        assert!(micros(spared.nanos(at(1000), 0.0)) > 4_000_000, "it was asked before");
        spared.record(at(1000), Duration::from_millis(1));
        assert!(micros(spared.nanos(at(1000), 0.0)) < 3_000_000, "an answer halves it");
    }

    #[test]
    fn the_typical_latency_is_at_most_the_seed() {
        let mut typical = Typical::default();
        assert_eq!(micros(typical.nanos()), 30_000);
        typical.record(Duration::from_millis(2));
        assert_eq!(micros(typical.nanos()), 2_000);
        (0..1000).for_each(|_| typical.record(Duration::from_secs(1)));
        assert_eq!(micros(typical.nanos()), 30_000);
    }
}
