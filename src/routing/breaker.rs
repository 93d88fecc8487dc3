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

use super::{EjectionSettings, Origin};
use crate::base::rng::Rng;
use moorgate_proto::time::Mono;
use std::time::Duration;

const BUCKETS: u8 = 10;
/// With fewer failures of others, those of one caller or route are taken for its own.
const OTHERS_FAILED_MIN: u32 = 3;

/// Successes and failures of the last while, forgotten a tenth of the window at a time.
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    /// The last ones that failed without a success between them.
    in_a_row: u32,
    buckets: Buckets,
    /// The caller and the route that fail most.
    caller: Suspect,
    route: Suspect,
    /// Which tenth of which window is the newest.
    newest: u64,
    /// When that tenth is over, in nanoseconds: until then there is nothing to be forgotten.
    newest_ends: u64,
}

type Buckets = [Bucket; BUCKETS as usize];

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    good: u32,
    failed: u32,
}

/// The caller, or the route, to which most of the failures belong (majority vote: Boyer, Moore 1981), and the calls of it
/// and of others from then on.
#[derive(Debug, Clone, Default)]
struct Suspect {
    /// `None`: no call failed within the window, and only who is answered is noted.
    key: Option<u16>,
    /// Its failures less those of others.
    votes: u32,
    in_a_row: u32,
    own: Buckets,
    others: Buckets,
    /// The last two that were answered well, and in which tenth of which window.
    answered: [Option<(u16, u64)>; 2],
}

/// Calls of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sum {
    good: u64,
    failed: u64,
}

impl Sum {
    fn of(buckets: &Buckets) -> Sum {
        let sum = |of: fn(&Bucket) -> u32| buckets.iter().map(|bucket| u64::from(of(bucket))).sum();
        Sum { good: sum(|bucket| bucket.good), failed: sum(|bucket| bucket.failed) }
    }

    fn calls(self) -> u64 {
        self.good.saturating_add(self.failed)
    }

    /// Whether too few succeed.
    fn is_below(self, settings: &EjectionSettings) -> bool {
        let wanted = self.calls().saturating_mul(u64::from(settings.success_percent_min));
        self.good.saturating_mul(100) < wanted
    }
}

fn count(buckets: &mut Buckets, newest: u64, good: bool) {
    let at = usize::try_from(newest % u64::from(BUCKETS)).unwrap_or_default();
    if let Some(bucket) = buckets.get_mut(at) {
        let count = if good { &mut bucket.good } else { &mut bucket.failed };
        *count = count.saturating_add(1);
    }
}

impl Suspect {
    /// Notes a call in this tenth of a window; `None`: its caller or route is unknown. `before` are all calls before it.
    fn note(&mut self, key: Option<u16>, (newest, before): (u64, &Buckets), good: bool) {
        if good && let Some(key) = key {
            self.answered(key, newest);
        }
        if !good && self.votes == 0 && key.is_some() && key != self.key {
            // Who was suspect before is one of the others from now on.
            self.others.clone_from(before);
            (self.key, self.in_a_row, self.own) = (key, 0, Buckets::default());
        }
        if self.key.is_none() {
            return;
        }
        let is_own = key == self.key;
        (self.in_a_row, self.votes) = match (good, is_own) {
            (true, _) => (0, self.votes),
            (false, true) => (self.in_a_row.saturating_add(1), self.votes.saturating_add(1)),
            (false, false) => (self.in_a_row, self.votes.saturating_sub(1)),
        };
        count(if is_own { &mut self.own } else { &mut self.others }, newest, good);
    }

    fn answered(&mut self, key: u16, newest: u64) {
        let [first, second] = &mut self.answered;
        if first.is_none_or(|(known, _)| known != key) {
            *second = *first;
        }
        *first = Some((key, newest));
    }

    /// Whether the failures may be its own fault: others are answered, and well.
    fn is_alone(&self, newest: u64, settings: &EjectionSettings) -> bool {
        let others = Sum::of(&self.others);
        let is_other =
            |(key, at): (u16, u64)| Some(key) != self.key && newest.saturating_sub(at) < u64::from(BUCKETS);
        // `others` may have earlier calls of the same key.
        let is_answered = self.answered.into_iter().flatten().any(is_other);
        // A few failures of others say nothing.
        let are_few = others.failed < u64::from(settings.failures_max.max(OTHERS_FAILED_MIN));
        self.key.is_some() && is_answered && (are_few || !others.is_below(settings))
    }
}

impl Record {
    /// Notes a call.
    pub(super) fn note(
        &mut self,
        now: Mono,
        settings: &EjectionSettings,
        origin: Option<Origin>,
        good: bool,
    ) {
        if now.as_nanos() >= self.newest_ends {
            self.advance(now, settings.window);
        }
        self.in_a_row = if good { 0 } else { self.in_a_row.saturating_add(1) };
        let before = (self.newest, &self.buckets);
        self.caller.note(origin.map(|origin| u16::from(origin.caller)), before, good);
        self.route.note(origin.map(|origin| origin.route.0), before, good);
        count(&mut self.buckets, self.newest, good);
    }

    /// Whether that is enough. Failures of one caller, or of one route, are not as long as the others are answered well:
    /// then they count as one in a row, and not in the rate.
    pub(super) fn is_bad(&self, settings: &EjectionSettings) -> bool {
        let most = settings.failures_max;
        let is_row = most > 0 && self.in_a_row >= most;
        let all = Sum::of(&self.buckets);
        let is_rate = all.calls() >= u64::from(settings.calls_min.max(1)) && all.is_below(settings);
        if !is_row && !is_rate {
            return false;
        }
        let alone = [&self.caller, &self.route]
            .map(|one| one.is_alone(self.newest, settings).then_some(one.in_a_row));
        let is_excused =
            |own: u32| self.in_a_row.saturating_sub(own).saturating_add(u32::from(own > 0)) < most;
        let is_row = is_row && !alone.into_iter().flatten().any(is_excused);
        is_row || (is_rate && alone.into_iter().flatten().next().is_none())
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
            let Record { buckets, caller, route, .. } = self;
            let of_suspects = [&mut caller.own, &mut caller.others, &mut route.own, &mut route.others];
            for buckets in of_suspects.into_iter().chain([buckets]) {
                if let Some(bucket) = buckets.get_mut(at) {
                    *bucket = Bucket::default();
                }
            }
        }
        for suspect in [&mut self.caller, &mut self.route] {
            // What made them suspect ends with the window.
            let failed = Sum::of(&suspect.own).failed;
            suspect.votes = suspect.votes.min(u32::try_from(failed).unwrap_or(u32::MAX));
            if failed == 0 && suspect.in_a_row == 0 {
                suspect.key = None;
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
    use crate::base::ids::RouteId;
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
            record.note(at(1), &settings, None, good);
            assert!(!record.is_bad(&settings));
        }
        record.note(at(1), &settings, None, false);
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
            record.note(at(999 + call), &settings, None, call % 3 == 0);
            assert!(!record.is_bad(&settings), "a rate of too few calls says nothing");
        }
        record.note(at(9000), &settings, None, false);
        assert!(record.is_bad(&settings));
        record.note(at(11_100), &settings, None, false);
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
                record.note(at(now), &settings, None, good);
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

    /// Whether an endpoint is found bad within ten seconds in which these callers call, each of them so often in a second,
    /// on this route, and with this share of failures in percent, after five seconds without failures.
    fn is_found_bad(callers: &[(u8, u64, u16, u64)], seed: u64) -> bool {
        let (settings, mut rng, mut record) =
            (EjectionSettings::default(), Rng::new(seed), Record::default());
        (0..15_000).any(|now| {
            callers.iter().any(|(caller, per_s, route, percent)| {
                let is_only_bad = *percent == 100 && callers.len() > 2;
                if rng.below(1000) >= *per_s || (is_only_bad && now < 5000) {
                    return false;
                }
                let good = now < 5000 || rng.below(100) >= *percent;
                let origin = Origin { caller: *caller, route: RouteId(*route) };
                record.note(at(now), &settings, Some(origin), good);
                !good && record.is_bad(&settings)
            })
        })
    }

    #[test]
    fn failures_of_one_caller_or_route_do_not_count_beside_good_answers() {
        for seed in 0..200 {
            // An attacker at 24 a second beside other callers, and a broken route of two callers.
            for others in [2, 24, 100] {
                let callers = [(1, 24, 7, 100), (2, others, 7, 1), (3, others, 7, 1)];
                assert!(!is_found_bad(&callers[..], seed), "{others}/s beside one caller, seed {seed}");
                let callers = [(1, 12, 7, 100), (2, 12, 7, 100), (3, others, 8, 1), (1, others, 9, 1)];
                assert!(!is_found_bad(&callers[..], seed), "{others}/s beside one route, seed {seed}");
            }
            // Broken for all, for one who is alone, and for most of several callers and routes.
            assert!(is_found_bad(&[(1, 24, 7, 100), (2, 24, 8, 100)], seed), "broken for all, seed {seed}");
            assert!(is_found_bad(&[(1, 24, 7, 100)], seed), "broken for the only one, seed {seed}");
            let most = [(1, 24, 7, 90), (2, 24, 8, 90), (3, 24, 9, 90), (4, 24, 10, 10)];
            assert!(is_found_bad(&most, seed), "broken for most, seed {seed}");
        }
    }

    #[test]
    fn rate_of_failures_of_many_callers_is_found() {
        // By the rate alone: in a row there are never enough.
        for (percent, failures_max) in [(60, 0), (70, 0), (90, 0), (60, 20)] {
            let settings = EjectionSettings { failures_max, ..EjectionSettings::default() };
            for seed in 0..20 {
                let (mut rng, mut record) = (Rng::new(seed), Record::default());
                let is_found = (0..40_000).step_by(10).any(|now| {
                    let good = now < 5000 || rng.below(100) >= percent;
                    let caller = u8::try_from(rng.below(200)).unwrap();
                    let origin = Origin { caller, route: RouteId(7) };
                    record.note(at(now), &settings, Some(origin), good);
                    record.is_bad(&settings)
                });
                assert!(is_found, "{percent} % of all calls, {failures_max} in a row, seed {seed}");
            }
        }
    }

    #[test]
    fn failures_of_an_earlier_caller_are_forgotten_with_the_window() {
        let (settings, mut rng, mut record) = (EjectionSettings::default(), Rng::new(1), Record::default());
        for now in (0..180_000).step_by(20) {
            // One caller fails for two minutes, another one a window later; a third one gets good answers all the time.
            let failing = if now < 120_000 { 1 } else { 2 };
            let is_failing = rng.below(2) == 0 && !(120_000..131_000).contains(&now);
            let caller = if is_failing { failing } else { 3 };
            let origin = Origin { caller, route: RouteId(u16::from(caller)) };
            record.note(at(now), &settings, Some(origin), !is_failing);
            assert!(now < 1000 || !record.is_bad(&settings), "at {now} ms");
        }
    }

    #[test]
    fn failures_without_an_origin_count_in_full() {
        let (settings, mut record) = (EjectionSettings::default(), Record::default());
        record.note(at(1), &settings, Some(Origin { caller: 1, route: RouteId(1) }), true);
        for _ in 0..5 {
            assert!(!record.is_bad(&settings));
            record.note(at(2), &settings, None, false);
        }
        assert!(record.is_bad(&settings), "five lost links");
    }
}
