//! How many calls may be tried again, so that retries never multiply an outage.
//!
//! In any ten seconds there are at most the settings' part of the first attempts of those seconds and the one before,
//! and ten seconds' worth of what is always allowed. What was not used longer ago than that is lost.

use super::RetrySettings;
use moorgate_proto::time::Mono;

/// What is remembered, in seconds.
const MEMORY_S: usize = 10;
/// What was spent is remembered for a second longer: the newest one is not over, and no ten seconds may have more.
const SPENT_S: usize = MEMORY_S + 1;

/// The budget of one service at one worker.
#[derive(Debug)]
pub struct RetryBudget {
    settings: RetrySettings,
    seconds: [Second; SPENT_S],
    /// Which second is the newest.
    newest: u64,
}

/// What was done in one second.
#[derive(Debug, Clone, Copy, Default)]
struct Second {
    firsts: u32,
    retries: u32,
    hedges: u32,
}

impl RetryBudget {
    /// A budget of which nothing is spent.
    pub fn new(settings: RetrySettings) -> RetryBudget {
        RetryBudget { settings, seconds: [Second::default(); SPENT_S], newest: 0 }
    }

    /// A call is sent for the first time.
    pub fn first_attempt(&mut self, now: Mono) {
        if let Some(second) = self.second(now) {
            second.firsts = second.firsts.saturating_add(1);
        }
    }

    /// Whether there is a retry to be taken.
    pub fn has_retry(&mut self, now: Mono) -> bool {
        self.second(now);
        self.left() > 0
    }

    /// Takes one retry out of the budget; whether there was one.
    pub fn take_retry(&mut self, now: Mono) -> bool {
        self.second(now);
        let is_left = self.left() > 0;
        let second = self.second(now).filter(|_| is_left);
        second.map(|second| second.retries = second.retries.saturating_add(1)).is_some()
    }

    /// Takes one hedge out of the budget; whether there was one. Hedges are retries, and fewer.
    pub fn take_hedge(&mut self, now: Mono) -> bool {
        self.second(now);
        let hedges_max = percent(self.firsts(), self.settings.hedge_percent_max);
        let is_left = self.left() > 0 && self.sum(|second| second.hedges) < hedges_max;
        let second = self.second(now).filter(|_| is_left);
        second.map(|second| second.hedges = second.hedges.saturating_add(1)).is_some()
    }

    /// Retries and hedges that are left as of the last call to this budget.
    pub fn left(&self) -> u64 {
        let always = u64::from(self.settings.budget_per_s).saturating_mul(MEMORY_S as u64);
        let allowed = percent(self.firsts(), self.settings.budget_percent).saturating_add(always);
        let spent = self.sum(|second| second.retries).saturating_add(self.sum(|second| second.hedges));
        allowed.saturating_sub(spent)
    }

    /// First attempts of the time that is remembered.
    fn firsts(&self) -> u64 {
        let oldest = self.newest.wrapping_add(1);
        let oldest = self.seconds.get(place(oldest)).map_or(0, |second| u64::from(second.firsts));
        self.sum(|second| second.firsts).saturating_sub(oldest)
    }

    fn sum(&self, of: impl Fn(&Second) -> u32) -> u64 {
        self.seconds.iter().map(|second| u64::from(of(second))).sum()
    }

    /// The second that `now` is in; those that are too long ago are forgotten.
    fn second(&mut self, now: Mono) -> Option<&mut Second> {
        let newest = (now.as_nanos() / 1_000_000_000).max(self.newest);
        let passed = newest.saturating_sub(self.newest).min(SPENT_S as u64);
        for step in 0..passed {
            if let Some(second) = self.seconds.get_mut(place(newest.saturating_sub(step))) {
                *second = Second::default();
            }
        }
        self.newest = newest;
        self.seconds.get_mut(place(newest))
    }
}

fn place(second: u64) -> usize {
    usize::try_from(second % SPENT_S as u64).unwrap_or_default()
}

fn percent(of: u64, percent: u8) -> u64 {
    of.saturating_mul(percent.into()) / 100
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use proptest::prelude::*;
    use std::time::Duration;

    fn at(ms: u64) -> Mono {
        Mono::ZERO + Duration::from_millis(ms)
    }

    fn taken(budget: &mut RetryBudget, now: Mono) -> usize {
        (0..10_000).take_while(|_| budget.take_retry(now)).count()
    }

    #[test]
    fn a_fifth_and_ten_a_second() {
        let mut budget = RetryBudget::new(RetrySettings::default());
        assert_eq!(taken(&mut budget, at(0)), 100, "ten seconds' worth at once, and no more");
        (0..1000).for_each(|_| budget.first_attempt(at(500)));
        assert_eq!(taken(&mut budget, at(900)), 200);
        assert_eq!(taken(&mut budget, at(10_900)), 0, "within ten seconds of the others");
        assert_eq!(taken(&mut budget, at(11_000)), 100, "what was not used is lost");
        let mut none = RetryBudget::new(RetrySettings { budget_per_s: 0, ..RetrySettings::default() });
        assert!(!none.take_retry(at(0)) && !none.take_hedge(at(0)));
    }

    #[test]
    fn hedges_are_fewer_and_from_the_same_budget() {
        let mut budget = RetryBudget::new(RetrySettings { budget_per_s: 0, ..RetrySettings::default() });
        (0..1000).for_each(|_| budget.first_attempt(at(0)));
        let hedges = (0..1000).take_while(|_| budget.take_hedge(at(1))).count();
        assert_eq!((hedges, taken(&mut budget, at(2))), (50, 150));
        (0..1000).for_each(|_| budget.first_attempt(at(3)));
        assert_eq!(taken(&mut budget, at(4)), 200);
        assert!(!budget.take_hedge(at(5)), "the retries have spent it");
    }

    proptest! {
        #[test]
        fn no_window_has_more_than_the_budget(
            seed in any::<u64>(),
            share in 0u8..=100,
            budget_per_s in 0u32..5,
            hedge in 0u8..20,
            pace_ms in 1u64..400,
        ) {
            let settings = RetrySettings {
                budget_percent: share,
                budget_per_s,
                hedge_percent_max: hedge,
                ..RetrySettings::default()
            };
            let mut budget = RetryBudget::new(settings);
            let mut rng = Rng::new(seed);
            let (mut firsts, mut spent, mut hedged): (Vec<u64>, Vec<u64>, Vec<u64>) = Default::default();
            let mut now = rng.below(100_000);
            for _ in 0..600 {
                now += rng.below(pace_ms);
                match rng.below(4) {
                    0 | 1 => {
                        budget.first_attempt(at(now));
                        firsts.push(now);
                    }
                    2 if budget.take_hedge(at(now)) => {
                        spent.push(now);
                        hedged.push(now);
                    }
                    3 if budget.take_retry(at(now)) => spent.push(now),
                    _ => {}
                }
                let since = |times: &[u64], ms: u64| {
                    times.iter().filter(|then| **then + ms > now).count() as u64
                };
                let calls = since(&firsts, 10_000);
                // A whole window has what was spent in it at most out of its own first attempts and those of the ten
                // seconds before each: twice the window bounds them.
                let wide = since(&firsts, 20_000);
                let always = u64::from(budget_per_s) * 10;
                prop_assert!(since(&spent, 10_000) <= wide * u64::from(share) / 100 + always);
                prop_assert!(since(&hedged, 10_000) <= wide * u64::from(hedge) / 100);
                prop_assert!(budget.left() <= calls * u64::from(share) / 100 + always);
            }
        }
    }
}
