//! Discovery, balance and failover under seeded faults: workers, pools and catalog as they are; instances that crash,
//! stall, slow down, fail and leave; a registry that is empty, stale, gone, reset or lies.
//!
//!     SIM_SEEDS=20000 cargo test --profile ci --test simulation governance
//!     GOVERNANCE_SEED=17 cargo test --profile ci --test simulation -- --nocapture governance::one_seed

mod backend;
mod blame;
mod caller;
mod judge;
mod plant;
mod registry;
mod scenario;
mod sides;
mod world;

use crate::sweep::{self, Sweep, caught, number, paths};
use moorgate::base::counters::Count;
use plant::Plant;
use std::time::Duration;
use world::{Report, World};

/// Paths that a sweep must have taken.
const PATHS: &[Count] = &[
    Count::CallsExpired,
    Count::CallsExpiredUnsent,
    Count::CallsLost,
    Count::CallsUnavailable,
    Count::CallsShedLow,
    Count::CallsShedNormal,
    Count::CallsShedHigh,
    Count::CallsMoved,
    Count::CallsNotKept,
    Count::RetriesTried,
    Count::RetriesAnswered,
    Count::RetriesNoBudget,
    Count::RetriesNotKept,
    Count::HedgesSent,
    Count::HedgesWon,
    Count::HedgesRefused,
    Count::ChoicesCanary,
    Count::ChoicesFallback,
    Count::ChoicesSpilled,
    Count::ChoicesPanic,
    Count::ChoicesFull,
    Count::EndpointsJoined,
    Count::EndpointsLeft,
    Count::RepliesLate,
    Count::LinksFailed,
    Count::LinksLost,
];

const SEEDS_BY_DEFAULT: u64 = 200;
/// Of the seeds that the environment asks for, one in so many is run here.
const SEEDS_PART: u64 = 10;
const SEEDS_FOR_ALL_PATHS: u64 = 200;

fn run(seed: u64, plant: Option<Plant>, traced: bool) -> Result<Report, String> {
    caught(|| World::new(seed, plant, traced).run())
}

/// What a sweep has seen.
#[derive(Default)]
struct Sums {
    settled: u64,
    ok: u64,
    retried: u64,
    bounded: u64,
    simulated: Duration,
    /// One for each of [`PATHS`].
    paths: Vec<u64>,
}

impl Sums {
    fn add(&mut self, report: Report) {
        self.settled += report.settled;
        self.ok += report.ok;
        self.retried += report.retried;
        self.bounded += report.bounded;
        self.simulated += report.simulated;
        self.paths.resize(PATHS.len(), 0);
        for (path, sum) in PATHS.iter().zip(&mut self.paths) {
            *sum += report.totals.value(*path);
        }
    }
}

#[test]
fn every_seed_is_clean() {
    let seeds = number("SIM_SEEDS").map_or(SEEDS_BY_DEFAULT, |seeds| seeds / SEEDS_PART);
    let sweep = Sweep {
        run: |seed| run(seed, None, false),
        hash: |report| report.hash,
        add: Sums::add,
        replay: ["GOVERNANCE_SEED", "governance::one_seed"],
    };
    let (sums, seconds) = sweep.all(seeds);
    let hours = sums.simulated.as_secs_f64() / 3600.0;
    println!("{seeds} seeds in {seconds:.1} s; {hours:.1} simulated hours, {:.2} a second", hours / seconds);
    let Sums { settled, ok, retried, .. } = sums;
    println!("{settled} calls settled, {ok} of them OK; {retried} attempts that were not the first");
    let name = |path: &Count| format!("{} {}", path.name().metric, path.name().label);
    let counters = PATHS.iter().map(name).zip(sums.paths);
    let bounded = ("calls that found all at bounds that follow the latency".to_owned(), sums.bounded);
    paths(&counters.chain([bounded]).collect::<Vec<_>>(), seeds >= SEEDS_FOR_ALL_PATHS);
}

/// Replays the seed of `GOVERNANCE_SEED` with a trace.
#[test]
fn one_seed() {
    if let Some(seed) = number("GOVERNANCE_SEED") {
        run(seed, None, true).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

/// The seeds that a planted bug has to be found in.
const PLANT_SEEDS: u64 = 60;

fn found(plant: Plant, words: &str) {
    sweep::found(PLANT_SEEDS, |seed| run(seed, Some(plant), false), &plant, words);
}

#[test]
fn retries_without_a_budget_are_found() {
    found(Plant::RetryStorm, "are right");
}

#[test]
fn endpoints_that_fail_and_stay_are_found() {
    found(Plant::NeverEjected, "which failed each");
}

#[test]
fn endpoints_that_never_come_back_are_found() {
    found(Plant::NeverBack, "gets no load");
}

#[test]
fn a_registry_that_empties_a_pool_is_found() {
    found(Plant::RegistryBelieved, "has emptied the pool");
}

#[test]
fn a_lost_settlement_is_found() {
    found(Plant::LostSettlement, "was never settled");
}

#[test]
fn a_false_word_is_found() {
    found(Plant::FalseWord, "and its caller heard");
}

#[test]
fn calls_to_who_has_left_are_found() {
    found(Plant::Undying, "is left with");
}

#[test]
fn users_that_move_without_need_are_found() {
    found(Plant::UsersMove, "and that was otherwise");
}

#[test]
fn a_side_that_is_not_fallen_back_to_is_found() {
    found(Plant::NoFallback, "could have been served by the other side");
}

#[test]
fn a_zone_that_is_not_kept_to_is_found() {
    found(Plant::ZoneForgotten, "left their zone");
}

#[test]
fn instances_that_are_ejected_for_one_caller_are_found() {
    found(Plant::CallerUnknown, "was ejected");
}

#[test]
fn instances_without_a_bound_are_found() {
    found(Plant::Unbounded, "and may have");
}
