//! Leaky bucket and token bucket against a list of everything that was charged, and against each other.

use super::{SECOND, noon, per_second};
use crate::limit::gcra::{AtomicGcra, Gcra, Word};
use crate::limit::{Rate, TokenBucket};
use loom::sync::Arc;
use loom::sync::atomic as la;
use moorgate_proto::time::Mono;
use proptest::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The definition: a level that grows with time up to a burst, and from which each charge takes an interval.
pub(super) struct Naive {
    level: u128,
    at: u128,
    interval: u128,
    window: u128,
}

impl Naive {
    pub(super) fn new(rate: Rate) -> Naive {
        let interval = rate.interval().as_nanos();
        let window = interval * u128::from(rate.burst());
        Naive { level: window, at: 0, interval, window }
    }

    /// Why one more does not pass now.
    pub(super) fn shortage(&mut self, now: Mono) -> Option<Duration> {
        let (level, at) = (self.level, self.at);
        let result = self.charge(now, 1);
        (self.level, self.at) = (level, at);
        result.err()
    }

    pub(super) fn charge(&mut self, now: Mono, count: u32) -> Result<(), Duration> {
        let now = u128::from(now.as_nanos());
        self.level = (self.level + (now - self.at)).min(self.window);
        self.at = now;
        let charge = self.interval * u128::from(count);
        match self.level.checked_sub(charge) {
            Some(level) => self.level = level,
            None => return Err(Duration::from_nanos(u64::try_from(charge - self.level).unwrap())),
        }
        Ok(())
    }
}

fn rates() -> impl Strategy<Value = Rate> {
    let period =
        prop_oneof![Just(SECOND), Just(60 * SECOND), (1u64..1_000_000).prop_map(Duration::from_nanos)];
    (1u32..2_000, period, 1u32..50)
        .prop_filter_map("a rate", |(count, period, burst)| Rate::new(count, period, burst))
}

/// Pauses between charges, in thousandths of an interval, and how many are charged.
fn charges() -> impl Strategy<Value = Vec<(u64, u32)>> {
    let pause = prop_oneof![4 => Just(0u64), 4 => 0u64..2_000, 1 => 0u64..100_000];
    proptest::collection::vec((pause, 1u32..4), 1..200)
}

/// So many thousandths of the time that one charge takes.
fn thousandths(rate: Rate, count: u64) -> Duration {
    Duration::from_nanos(rate.interval_ns() * count / 1_000)
}

proptest! {
    #[test]
    fn buckets_are_the_definition(rate in rates(), charges in charges()) {
        let mut naive = Naive::new(rate);
        let (mut leaky, shared) = (Gcra::default(), AtomicGcra::<AtomicU64>::default());
        let mut tokens = TokenBucket::new(rate);
        let mut now = noon();
        for (pause, _) in charges {
            now = now + thousandths(rate, pause);
            let expected = naive.charge(now, 1);
            prop_assert_eq!(tokens.wait(now), expected.err());
            prop_assert_eq!(leaky.after_charge(now, rate).err(), expected.err());
            prop_assert_eq!(leaky.charge(now, rate), expected);
            prop_assert_eq!(shared.take(now, rate, 1), expected.map(|()| 1));
            prop_assert_eq!(tokens.take(now), expected.is_ok());
            prop_assert_eq!(leaky.is_full(now), naive.level == naive.window);
            prop_assert_eq!(shared.is_full(now), naive.level == naive.window);
            if let Err(after) = expected {
                // The hint is exact: a nanosecond earlier is too early.
                let just = now + after;
                prop_assert!(leaky.after_charge(just, rate).is_ok());
                prop_assert!(leaky.after_charge(just - Duration::from_nanos(1), rate).is_err());
            }
        }
    }

    #[test]
    fn several_at_once_are_all_or_nothing_or_as_many_as_there_are(rate in rates(), charges in charges()) {
        let (mut all, mut some) = (Naive::new(rate), Naive::new(rate));
        let (mut leaky, shared) = (Gcra::default(), AtomicGcra::<AtomicU64>::default());
        let mut now = noon();
        for (pause, count) in charges {
            now = now + thousandths(rate, pause);
            prop_assert_eq!(leaky.charge_many(now, rate, count), all.charge(now, count));
            let passed = (0..count).take_while(|_| some.charge(now, 1).is_ok()).count();
            prop_assert_eq!(shared.take(now, rate, count).unwrap_or(0) as usize, passed);
        }
    }

    #[test]
    fn what_is_given_back_at_once_was_never_charged(rate in rates(), charges in charges()) {
        let (shared, untouched) = (AtomicGcra::<AtomicU64>::default(), AtomicGcra::<AtomicU64>::default());
        let mut now = noon();
        for (pause, count) in charges {
            now = now + thousandths(rate, pause);
            if let Ok(taken) = shared.take(now, rate, count) {
                shared.give_back(rate, taken);
            }
            prop_assert_eq!(shared.take(now, rate, 1), untouched.take(now, rate, 1));
        }
    }
}

#[test]
fn a_bucket_at_the_end_of_time_overflows_nowhere() {
    let rate = Rate::new(1, Duration::from_secs(86_400), 1_000).unwrap();
    let mut leaky = Gcra::default();
    assert!(leaky.charge_many(Mono::NEVER, rate, u32::MAX).is_ok(), "what comes then harms nobody");
    let mut tokens = TokenBucket::new(rate);
    assert_eq!(tokens.wait(Mono::NEVER), None);
    assert!((0..1_000).all(|_| tokens.take(Mono::ZERO)), "time that goes backwards takes nothing away");
}

#[derive(Debug)]
pub(super) struct LoomWord(la::AtomicU64);

impl Default for LoomWord {
    fn default() -> Self {
        LoomWord(la::AtomicU64::new(0))
    }
}

impl Word for LoomWord {
    fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
    fn exchange(&self, old: u64, new: u64) -> Result<u64, u64> {
        self.0.compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed)
    }
}

/// Stores what it wants without looking whether another was faster: what the test must catch.
#[derive(Debug, Default)]
pub(super) struct Careless(LoomWord);

impl Word for Careless {
    fn load(&self) -> u64 {
        self.0.load()
    }
    fn exchange(&self, old: u64, new: u64) -> Result<u64, u64> {
        self.0.0.store(new, Ordering::Relaxed);
        Ok(old)
    }
}

/// Two threads ask for two charges each, of a bucket that has three.
fn three_for_two<W: Word + Send + Sync + 'static>() {
    loom::model(|| {
        let rate = per_second(10, 3);
        let bucket = Arc::new(AtomicGcra::<W>::default());
        let take = move |bucket: &AtomicGcra<W>| bucket.take(noon(), rate, 2).unwrap_or(0);
        let other = {
            let bucket = bucket.clone();
            loom::thread::spawn(move || take(&bucket))
        };
        let mine = take(&bucket);
        assert_eq!(mine + other.join().unwrap(), 3);
    });
}

#[test]
fn two_threads_never_charge_the_same() {
    three_for_two::<LoomWord>();
}

#[test]
#[should_panic(expected = "assertion")]
fn without_a_compare_they_would() {
    three_for_two::<Careless>();
}
