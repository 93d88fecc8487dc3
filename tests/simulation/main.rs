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
mod pauses;
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
mod sweep;
mod tap;
mod trace;
mod world;

use moorgate::base::counters::Count;
use plant::Plant;
use reached::Path;
use std::time::Duration;
use sweep::{Sweep, caught, number, paths};
use world::{Report, World};

const SEEDS_BY_DEFAULT: u64 = 400;
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
    Count::OpeningsOusted,
    Count::OwedShed,
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

fn run(seed: u64, plant: Option<Plant>, traced: bool) -> Result<Report, String> {
    caught(|| World::new(seed, plant, traced).run())
}

/// What a sweep has seen.
#[derive(Default)]
struct Sums {
    answered: u64,
    unanswered: u64,
    pushes: u64,
    gaps: u64,
    simulated: Duration,
    /// One for each of [`PATHS`].
    paths: Vec<u64>,
    /// One for each [`Path`].
    reached: Vec<u64>,
}

impl Sums {
    fn add(&mut self, report: Report) {
        self.answered += report.answered;
        self.unanswered += report.unanswered;
        self.pushes += report.pushes;
        self.gaps += report.gaps;
        self.simulated += report.simulated;
        self.paths.resize(PATHS.len(), 0);
        for (path, sum) in PATHS.iter().zip(&mut self.paths) {
            *sum += report.totals.value(*path);
        }
        self.reached.resize(Path::ALL.len(), 0);
        for (path, sum) in Path::ALL.iter().zip(&mut self.reached) {
            *sum += report.reached.count(*path);
        }
    }
}

#[test]
fn every_seed_is_clean() {
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS_BY_DEFAULT);
    let sweep = Sweep {
        run: |seed| run(seed, None, false),
        hash: |report| report.hash,
        add: Sums::add,
        replay: ["SIM_SEED", "one_seed"],
    };
    let (sums, seconds) = sweep.all(seeds);
    let hours = sums.simulated.as_secs_f64() / 3600.0;
    println!(
        "{seeds} seeds in {seconds:.1} s, {:.0} a second; {hours:.1} simulated hours, {:.2} a second",
        seeds as f64 / seconds,
        hours / seconds
    );
    println!(
        "{} requests answered, {} ended with their session, {} pushes taken, {} given up",
        sums.answered, sums.unanswered, sums.pushes, sums.gaps
    );
    let name = |path: &Count| format!("{} {}", path.name().metric, path.name().label);
    let counters = PATHS.iter().map(name).zip(sums.paths);
    let seen = Path::ALL.iter().map(|path| path.text().to_owned()).zip(sums.reached);
    paths(&counters.chain(seen).collect::<Vec<_>>(), seeds >= SEEDS_FOR_ALL_PATHS);
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
    sweep::found(PLANT_SEEDS, |seed| run(seed, Some(plant), false), &plant, words);
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
fn order_that_is_not_kept_over_a_pair_is_found() {
    found(Plant::NoOrderOnBulk, "had no reply");
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
fn deadlines_judged_before_arrived_input_is_read_are_found() {
    found(Plant::DeadlinesFirst, "had arrived");
}

#[test]
fn pauses_that_the_clock_counts_are_found() {
    found(Plant::PauseCounted, "was given up after");
}

#[test]
fn links_closed_without_a_ping_after_a_pause_are_found() {
    found(Plant::LinkUnasked, "of silence and");
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
