//! The gateway's cores and both kits' cores under seeded faults. See README.md beside this file.
//!
//!     SIM_SEEDS=20000 cargo test --profile ci --test simulation
//!     SIM_SEED=17 cargo test --profile ci --test simulation -- --nocapture one_seed

#![allow(clippy::cast_possible_truncation, reason = "small numbers, in a simulation")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]
#![allow(unreachable_pub, reason = "its modules are its own")]

mod client;
mod dice;
mod gateway;
mod limits;
mod network;
mod oracle;
mod presence;
mod pushes;
mod scenario;
mod service;
mod trace;
mod world;

use moorgate::base::counters::Count;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use world::{Plant, Report, World};

const SEEDS_BY_DEFAULT: u64 = 400;
/// Every so many seeds one is run twice: the second run must be the same.
const REPEAT_EVERY: u64 = 16;
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
    Count::CallsShed,
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
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|value| value.parse().unwrap_or_else(|_| panic!("{name}: no number: {value}")))
}

fn run(seed: u64, plant: Option<Plant>, traced: bool) -> Result<Report, String> {
    match catch_unwind(AssertUnwindSafe(|| World::new(seed, plant, traced).run())) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(format!("panicked: {}", text.unwrap_or_default()))
        }
    }
}

/// What a sweep has done, over all its threads.
#[derive(Default)]
struct Sweep {
    next: AtomicU64,
    answered: AtomicU64,
    unanswered: AtomicU64,
    pushes: AtomicU64,
    gaps: AtomicU64,
    simulated_ms: AtomicU64,
    /// One for each of [`PATHS`].
    paths: Vec<AtomicU64>,
}

impl Sweep {
    fn work(&self, seeds: u64) {
        loop {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            let replay =
                format!("SIM_SEED={seed} cargo test --profile ci --test simulation -- --nocapture one_seed");
            let report =
                run(seed, None, false).unwrap_or_else(|error| panic!("seed {seed}: {error}\n  {replay}"));
            if seed.is_multiple_of(REPEAT_EVERY) {
                let again = run(seed, None, false).map(|report| report.hash);
                assert_eq!(again, Ok(report.hash), "seed {seed} does not repeat itself\n  {replay}");
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
        }
    }
}

#[test]
fn every_seed_is_clean() {
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS_BY_DEFAULT);
    let paths = PATHS.iter().map(|_| AtomicU64::new(0)).collect();
    let sweep = Sweep { paths, ..Sweep::default() };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| sweep.work(seeds));
        }
    });
    let simulated = Duration::from_millis(sweep.simulated_ms.into_inner());
    println!(
        "{seeds} seeds, {:.1} simulated hours, {} requests answered, {} ended with their session, {} pushes taken, {} \
         given up",
        simulated.as_secs_f64() / 3600.0,
        sweep.answered.into_inner(),
        sweep.unanswered.into_inner(),
        sweep.pushes.into_inner(),
        sweep.gaps.into_inner()
    );
    for (path, sum) in PATHS.iter().zip(sweep.paths) {
        let sum = sum.into_inner();
        println!("{sum:>10} {} {}", path.name().metric, path.name().label);
        assert!(sum > 0 || seeds < SEEDS_FOR_ALL_PATHS, "no seed has reached {path:?}");
    }
}

/// Replays the seed of `SIM_SEED` with a trace.
#[test]
fn one_seed() {
    if let Some(seed) = number("SIM_SEED") {
        run(seed, None, true).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

/// The seeds that a planted bug has to be found in.
const PLANT_SEEDS: u64 = 30;

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
fn a_lost_change_of_presence_is_found() {
    found(Plant::LostPresence, "are online, and instance");
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
