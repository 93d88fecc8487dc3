//! The gateway's cores and both kits' cores under seeded faults. See README.md beside this file.
//!
//!     SIM_SEEDS=20000 cargo test --profile ci --test simulation
//!     SIM_SEED=17 cargo test --profile ci --test simulation -- --nocapture one_seed

#![allow(clippy::cast_possible_truncation, reason = "small numbers, in a simulation")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]
#![allow(unreachable_pub, reason = "its modules are its own")]

mod arrivals;
mod client;
mod dice;
mod faults;
mod gateway;
mod governance;
mod hearing;
mod limits;
mod lives;
mod network;
mod oracle;
mod phases;
mod plant;
mod presence;
mod pushes;
mod raw;
mod reached;
mod rewrite;
mod scenario;
mod service;
mod sessions;
mod tap;
mod trace;
mod world;

use moorgate::base::clock::Clock;
use moorgate::base::counters::Count;
use plant::Plant;
use reached::Path;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use world::{Report, World};

const SEEDS_BY_DEFAULT: u64 = 400;
/// Every so many seeds one is run twice: the second run must be the same.
const REPEAT_EVERY: u64 = 16;
/// A sweep that has found so many gives up.
const FAILURES_MAX: usize = 10;
/// Sweeps at least this long must have reached every rare path.
const SEEDS_FOR_ALL_PATHS: u64 = 400;

/// Paths that a sweep must have taken.
const PATHS: &[Count] = &[
    Count::RefusedLimit,
    Count::CloseProtocol,
    Count::CloseHandshakeTimeout,
    Count::CloseFrameTimeout,
    Count::CloseHeartbeat,
    Count::CloseWriteStalled,
    Count::CloseTokenExpired,
    Count::ClosePeer,
    Count::CloseBye,
    Count::CloseDrain,
    Count::CloseOverload,
    Count::RefusedHandshakes,
    Count::RefusedReserve,
    Count::RefusedBanned,
    Count::CloseLimited,
    Count::CloseBanned,
    Count::LimitedConnection,
    Count::LimitedUser,
    Count::LimitedAddress,
    Count::LimitedApplication,
    Count::LimitedRoute,
    Count::LimitedOutstandingUser,
    Count::LimitedOutstandingAddress,
    Count::LimitedOutstandingApplication,
    Count::LimitedFrames,
    Count::OffencesViolation,
    Count::OffencesRate,
    Count::RequestsCancelled,
    Count::RepliesOrphaned,
    Count::PayloadsDropped,
    Count::ForwardsRefused,
    Count::PartialBudgetExceeded,
    Count::CallsExpired,
    Count::CallsExpiredUnsent,
    Count::CallsCancelled,
    Count::CallsLost,
    Count::CallsUnavailable,
    Count::CallsShedNormal,
    Count::RepliesLate,
    Count::RepliesUnknown,
    Count::LinksFailed,
    Count::LinkGarbage,
    Count::PushesTaken,
    Count::PushesRepeated,
    Count::PushesRefused,
    Count::PushesShed,
    Count::PushesSent,
    Count::PushesWaiting,
    Count::PushesOverflowed,
    Count::PushesExpired,
    Count::PushesCollapsed,
    Count::PushesNobody,
    Count::ReceiptsSent,
    Count::ReceiptsDropped,
    Count::GroupsJoined,
    Count::GroupsLeft,
    Count::LoginsDone,
    Count::LoginsRefused,
    Count::DirectivesStale,
    Count::CloseSuperseded,
    Count::CloseKicked,
    Count::CloseLoggedOut,
    Count::CloseTokenRevoked,
    Count::PresenceEvents,
    Count::PresenceSnapshots,
    Count::PresenceCoalesced,
    Count::PresenceOverflowed,
    Count::CloseConflict,
    Count::OpeningsShed,
    Count::RefreshesDone,
    Count::RefreshesRefused,
    Count::SessionsDetached,
    Count::SessionsResumed,
    Count::ResumesUnknown,
    Count::ResumesStale,
    Count::ResumesInvalid,
    Count::ResumesEnded,
    Count::TakeOvers,
    Count::DetachedExpired,
    Count::DetachedEvicted,
    Count::DetachedEnded,
    Count::ConnectionsHandedOver,
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|value| value.parse().unwrap_or_else(|_| panic!("{name}: no number: {value}")))
}

/// What a run reports, or why it is wrong: a panic is too.
fn caught<R>(run: impl FnOnce() -> Result<R, String>) -> Result<R, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(format!("panicked: {}", text.unwrap_or_default()))
        }
    }
}

fn run(seed: u64, plant: Option<Plant>, traced: bool) -> Result<Report, String> {
    caught(|| World::new(seed, plant, traced).run())
}

/// What a sweep has done, over all its threads.
#[derive(Default)]
struct Sweep {
    next: AtomicU64,
    failures: Mutex<Vec<String>>,
    answered: AtomicU64,
    unanswered: AtomicU64,
    pushes: AtomicU64,
    gaps: AtomicU64,
    simulated_ms: AtomicU64,
    /// One for each of [`PATHS`].
    paths: Vec<AtomicU64>,
    /// One for each [`Path`].
    reached: Vec<AtomicU64>,
}

impl Sweep {
    fn failed(&self, seed: u64, error: &str) {
        let replay =
            format!("SIM_SEED={seed} cargo test --profile ci --test simulation -- --nocapture one_seed");
        self.failures.lock().unwrap().push(format!("seed {seed}: {error}\n  {replay}"));
    }

    fn work(&self, seeds: u64) {
        loop {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds || self.failures.lock().unwrap().len() >= FAILURES_MAX {
                return;
            }
            let report = match run(seed, None, false) {
                Ok(report) => report,
                Err(error) => {
                    self.failed(seed, &error);
                    continue;
                }
            };
            if seed.is_multiple_of(REPEAT_EVERY)
                && run(seed, None, false).map(|report| report.hash) != Ok(report.hash)
            {
                self.failed(seed, "it does not repeat itself");
            }
            self.answered.fetch_add(report.answered, Ordering::Relaxed);
            self.unanswered.fetch_add(report.unanswered, Ordering::Relaxed);
            self.pushes.fetch_add(report.pushes, Ordering::Relaxed);
            self.gaps.fetch_add(report.gaps, Ordering::Relaxed);
            let simulated = report.simulated.as_millis() as u64;
            self.simulated_ms.fetch_add(simulated, Ordering::Relaxed);
            for (path, sum) in PATHS.iter().zip(&self.paths) {
                sum.fetch_add(report.totals.value(*path), Ordering::Relaxed);
            }
            for (path, sum) in Path::ALL.iter().zip(&self.reached) {
                sum.fetch_add(report.reached.count(*path), Ordering::Relaxed);
            }
        }
    }
}

#[test]
fn every_seed_is_clean() {
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS_BY_DEFAULT);
    let cells = |len: usize| (0..len).map(|_| AtomicU64::new(0)).collect();
    let sweep = Sweep { paths: cells(PATHS.len()), reached: cells(Path::ALL.len()), ..Sweep::default() };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let clock = Clock::start();
    let begun = clock.read().mono;
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| sweep.work(seeds));
        }
    });
    let failures = sweep.failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let seconds = clock.read().mono.since(begun).as_secs_f64().max(0.001);
    let hours = Duration::from_millis(sweep.simulated_ms.into_inner()).as_secs_f64() / 3600.0;
    println!(
        "{seeds} seeds in {seconds:.1} s, {:.0} a second; {hours:.1} simulated hours, {:.2} a second",
        seeds as f64 / seconds,
        hours / seconds
    );
    println!(
        "{} requests answered, {} ended with their session, {} pushes taken, {} given up",
        sweep.answered.into_inner(),
        sweep.unanswered.into_inner(),
        sweep.pushes.into_inner(),
        sweep.gaps.into_inner()
    );
    let counters = PATHS.iter().zip(sweep.paths);
    let counters = counters.map(|(path, sum)| (format!("{} {}", path.name().metric, path.name().label), sum));
    let seen = Path::ALL.iter().zip(sweep.reached).map(|(path, sum)| (path.text().to_owned(), sum));
    let sums: Vec<(String, u64)> = counters.chain(seen).map(|(text, sum)| (text, sum.into_inner())).collect();
    sums.iter().for_each(|(text, sum)| println!("{sum:>10} {text}"));
    let missed: Vec<&str> = sums.iter().filter(|(_, sum)| *sum == 0).map(|(text, _)| text.as_str()).collect();
    assert!(missed.is_empty() || seeds < SEEDS_FOR_ALL_PATHS, "no seed has reached: {missed:#?}");
}

/// Replays the seed of `SIM_SEED` with a trace.
#[test]
fn one_seed() {
    if let Some(seed) = number("SIM_SEED") {
        run(seed, None, true).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

/// The seeds that a planted bug has to be found in.
const PLANT_SEEDS: u64 = 80;

fn found(plant: Plant, words: &str) {
    let errors: Vec<String> =
        (0..PLANT_SEEDS).filter_map(|seed| run(seed, Some(plant), false).err()).collect();
    assert!(errors.iter().any(|error| error.contains(words)), "{plant:?} was not found: {errors:?}");
}

#[test]
fn a_lost_settlement_is_found() {
    found(Plant::LostSettlement, "was never answered");
}

#[test]
fn a_false_word_is_found() {
    found(Plant::FalseWord, "ran; its client heard");
}

#[test]
fn a_leaked_socket_is_found() {
    found(Plant::LeakedSocket, "open sockets");
}

#[test]
fn a_connection_counted_twice_is_found() {
    found(Plant::CountedTwice, "counted");
}

#[test]
fn a_lost_push_is_found() {
    found(Plant::LostPush, "and was told of");
}

#[test]
fn a_push_that_comes_twice_is_found() {
    found(Plant::PushTwice, "came twice");
}

#[test]
fn a_push_for_somebody_else_is_found() {
    found(Plant::PushAstray, "came to");
}

#[test]
fn a_rate_that_is_not_kept_is_found() {
    found(Plant::NoRate, "ran within");
}

#[test]
fn a_place_that_is_never_given_back_is_found() {
    found(Plant::LeakedPlace, "places of outstanding requests");
}

#[test]
fn an_order_that_is_not_kept_is_found() {
    found(Plant::NoOrder, "had no reply");
}

#[test]
fn a_call_that_runs_twice_is_found() {
    found(Plant::CallTwice, "was run 2 times");
}

#[test]
fn timers_that_nobody_looks_at_are_found() {
    found(Plant::NoTimers, "is left with");
}

#[test]
fn presence_that_is_not_told_is_found() {
    found(Plant::PresenceLost, "knows of");
}

#[test]
fn an_old_token_that_lets_in_is_found() {
    found(Plant::OldTokenIn, "by a token older than the proven one");
}

#[test]
fn a_forged_token_that_lets_in_is_found() {
    found(Plant::ForgedTokenIn, "by a token that was never given out");
}

#[test]
fn another_device_that_is_let_in_is_found() {
    found(Plant::DeviceIn, "on another device");
}

#[test]
fn a_token_of_an_earlier_start_that_lets_in_is_found() {
    found(Plant::EarlierTokenIn, "by a token of an earlier start");
}

#[test]
fn sessions_that_are_given_up_too_early_are_found() {
    found(Plant::Forgetful, "was not resumed");
}

#[test]
fn whoever_is_locked_out_is_found() {
    found(Plant::LockedOut, "no session");
}

#[test]
fn a_frame_that_a_replay_lacks_is_found() {
    found(Plant::ReplayLost, "broke the contract: SequenceGap");
}

#[test]
fn a_replay_of_something_else_is_found() {
    found(Plant::ReplayOther, " and is Push");
}

#[test]
fn a_gap_in_the_place_of_a_response_is_found() {
    found(Plant::ReplayGap, ": a Gap from");
}

#[test]
fn what_was_admitted_and_is_forgotten_is_found() {
    found(Plant::AdmittedForgotten, "has forgotten what it had admitted");
}

#[test]
fn limits_that_shrink_are_found() {
    found(Plant::LimitsShrunk, "with smaller limits");
}
