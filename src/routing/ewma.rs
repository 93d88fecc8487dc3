//! Peak-EWMA: a latency that rises at once with slow answers and falls slowly with the answers that follow (Finagle,
//! linkerd). One slow answer raises it half of the way, in ratio: at light load a single peak would otherwise put an endpoint
//! out of use. Without answers it falls to the latency of the pool.

use moorgate_proto::time::Mono;
use std::time::Duration;

/// In this time without an answer a high latency falls to that of the pool: a hiccup keeps an endpoint out of use for no
/// longer. An endpoint that is slow again when it is tried again gets twice as long each time.
const STALE: Duration = Duration::from_millis(1500);
/// The longest such time is this power of two of the shortest: 24 s.
const BACKOFF_MAX: u8 = 4;
/// So many answers replace a latency, whatever the time.
const DECAY_ANSWERS: f64 = 32.0;
/// Latencies within this factor of each other are near-equal: the difference says nothing.
const NEAR: f64 = 2.0;
/// What an endpoint is taken to need before anybody knows better.
const SEED: Duration = Duration::from_millis(30);
/// What a failure adds at first: failing fast must not attract load. It goes down with the time, to nothing after as
/// long: were it taken for a latency and smoothed like one, an endpoint that failed once would be left alone for a
/// minute where there is little to do.
const PENALTY: Duration = Duration::from_secs(5);
/// The longest time that a peer can ask to be spared for: no longer than one that fails.
pub(super) const PENALTY_MAX: Duration = PENALTY;

/// One endpoint's smoothed latency.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ewma {
    nanos: f64,
    at: Mono,
    sampled: bool,
    /// How often it was slow again after it was left alone.
    backoff: u8,
    /// Until then it is spared.
    spared: Mono,
    /// When it last gave cause for that.
    penalised: Mono,
}

impl Ewma {
    /// Takes a latency in; `typical` is that of the pool.
    pub(super) fn record(&mut self, now: Mono, latency: Duration, typical: f64) {
        if self.spared > now && now - latency >= self.penalised {
            // It was asked since, and answers.
            self.spared = now + self.spared.since(now) / 2;
        }
        let sample = nanos_of(latency);
        if sample <= typical * NEAR {
            self.backoff = 0;
        } else if self.sampled && self.kept(now) < 0.5 && sample * NEAR >= self.nanos {
            self.backoff = self.backoff.saturating_add(1).min(BACKOFF_MAX);
        }
        let kept = self.kept(now);
        let current = self.smoothed(typical, kept);
        self.nanos = if !self.sampled {
            sample
        } else if sample > current {
            (current * sample).sqrt()
        } else {
            let kept = kept.min(1.0 - 1.0 / DECAY_ANSWERS);
            self.nanos * kept + sample * (1.0 - kept)
        };
        (self.at, self.sampled) = (self.at.max(now), true);
    }

    /// Takes a failure in: `spare` is how long the peer asked to be spared for, if it did.
    pub(super) fn penalise(&mut self, now: Mono, spare: Option<Duration>) {
        self.spared = self.spared.max(now + spare.map_or(PENALTY, |spare| spare.min(PENALTY_MAX)));
        self.penalised = self.penalised.max(now);
    }

    /// The expected latency, in nanoseconds; `typical` is that of the pool, to which a higher one falls without answers. An
    /// endpoint without any answer has it too, up to the seed.
    pub(super) fn nanos(&self, now: Mono, typical: f64) -> f64 {
        self.smoothed(typical, self.kept(now)) + self.spared.as_nanos().saturating_sub(now.as_nanos()) as f64
    }

    /// The same without what failures add, of which this part still counts.
    fn smoothed(&self, typical: f64, kept: f64) -> f64 {
        match self.sampled {
            false => typical.min(nanos_of(SEED)),
            true if self.nanos > typical => typical + (self.nanos - typical) * kept,
            true => self.nanos,
        }
    }

    /// Whether any answer has shown how fast it is.
    pub(super) fn is_known(&self) -> bool {
        self.sampled
    }

    /// The part of an old latency that still counts.
    fn kept(&self, now: Mono) -> f64 {
        let since = now.as_nanos().saturating_sub(self.at.as_nanos()) as f64;
        let stale = nanos_of(STALE) * f64::from(1u32 << self.backoff.min(BACKOFF_MAX));
        (1.0 - since / stale).max(0.0)
    }
}

/// The latency of the pool: the mean of its last answers, or the seed before there is any.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Typical(f64);

impl Typical {
    /// One good answer of any endpoint of the pool; the last few hundred count.
    pub(super) fn record(&mut self, latency: Duration) {
        let sample = nanos_of(latency);
        self.0 = if self.0 == 0.0 { sample } else { self.0 + (sample - self.0) / 128.0 };
    }

    pub(super) fn nanos(self) -> f64 {
        if self.0 == 0.0 { nanos_of(SEED) } else { self.0 }
    }
}

/// A latency in nanoseconds: exact for all that a call can take.
fn nanos_of(latency: Duration) -> f64 {
    latency.as_secs() as f64 * 1e9 + f64::from(latency.subsec_nanos())
}

/// Whether the difference of two latencies says nothing.
pub(super) fn are_near(one: f64, other: f64) -> bool {
    one.max(other) <= one.min(other) * NEAR
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

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn peak_is_seen_at_once_and_falls_with_answers_or_time() {
        let mut ewma = Ewma::default();
        assert_eq!(micros(ewma.nanos(at(0), 20e6)), 20_000, "as the pool");
        assert_eq!(micros(ewma.nanos(at(0), 90e6)), 30_000, "but at most the seed");
        ewma.record(at(0), MS, 1e6);
        ewma.record(at(1), 100 * MS, 1e6);
        assert_eq!(micros(ewma.nanos(at(1), 1e6)), 10_000, "half of the way, in ratio");
        (0..8).for_each(|_| ewma.record(at(1), 100 * MS, 1e6));
        let risen = micros(ewma.nanos(at(1), 1e6));
        assert!((97_000..=100_000).contains(&risen), "after a few answers all of it: {risen}");
        assert_eq!(micros(ewma.nanos(at(751), 1e6)), 500 + risen / 2, "falls halfway to the pool's");
        assert_eq!(micros(ewma.nanos(at(1501), 1e6)), 1_000, "and all of the way");
        assert_eq!(micros(ewma.nanos(at(1501), 4e6)), 4_000);
        (0..64).for_each(|_| ewma.record(at(2), MS, 1e6));
        let fallen = micros(ewma.nanos(at(2), 1e6));
        assert!((13_000..15_000).contains(&fallen), "or after some answers: {fallen}");
        let mut fast = Ewma::default();
        fast.record(at(0), Duration::from_micros(10), 4e6);
        assert_eq!(micros(fast.nanos(at(600_000), 4e6)), 10, "a low one stays");
    }

    #[test]
    fn slow_endpoint_is_tried_ever_more_seldom_until_it_is_fast() {
        let mut ewma = Ewma::default();
        let mut now = 0;
        ewma.record(at(now), 20 * MS, 2e6);
        for doubling in [0, 1, 2, 3, 4, 4, 4] {
            let stale = 1500 << doubling;
            assert!(micros(ewma.nanos(at(now + stale / 2), 2e6)) > 4_000, "{doubling}");
            now += stale;
            assert_eq!(micros(ewma.nanos(at(now), 2e6)), 2_000, "{doubling}");
            ewma.record(at(now), 20 * MS, 2e6);
        }
        ewma.record(at(now), 3 * MS, 2e6);
        ewma.record(at(now), 20 * MS, 2e6);
        assert_eq!(micros(ewma.nanos(at(now + 1500), 2e6)), 2_000, "near-equal latencies begin it anew");
    }

    #[test]
    fn a_fast_failure_is_dear() {
        let mut ewma = Ewma::default();
        ewma.record(at(0), MS, 1e6);
        ewma.penalise(at(0), None);
        assert_eq!(micros(ewma.nanos(at(0), 1e6)), 5_001_000);
        let later = micros(ewma.nanos(at(4_000), 1e6));
        assert!((1_000_000..=1_001_000).contains(&later), "it goes down with the time: {later}");
        assert!(micros(ewma.nanos(at(5_000), 1e6)) <= 1_000, "and is over");
        let mut spared = Ewma::default();
        spared.penalise(at(0), Some(Duration::from_millis(200)));
        assert_eq!(micros(spared.nanos(at(0), 0.0)), 200_000);
        spared.penalise(at(0), Some(Duration::from_secs(86_400)));
        assert_eq!(micros(spared.nanos(at(0), 0.0)), 5_000_000, "no peer is spared for a day");
        spared.penalise(at(500), Some(Duration::from_secs(86_400)));
        spared.record(at(1000), 501 * MS, 1e6);
        assert!(micros(spared.nanos(at(1000), 0.0)) > 4_000_000, "it was asked before");
        spared.record(at(1000), MS, 1e6);
        assert!(micros(spared.nanos(at(1000), 0.0)) < 3_000_000, "an answer halves it");
    }

    #[test]
    fn typical_latency_is_the_mean_of_the_last_answers() {
        let mut typical = Typical::default();
        assert_eq!(micros(typical.nanos()), 30_000);
        typical.record(Duration::from_millis(2));
        assert_eq!(micros(typical.nanos()), 2_000);
        (0..1000).for_each(|_| typical.record(Duration::from_secs(1)));
        assert!((990_000..=1_000_000).contains(&micros(typical.nanos())));
    }
}
