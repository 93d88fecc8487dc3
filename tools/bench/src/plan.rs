//! What the threads of a run are told, and what they tell.

use crate::clock::Clock;
use crate::connection::Task;
use crate::echo::{ECHO, Echo};
use crate::ledger::Ledger;
use crate::login::{Accounts, LogIn};
use crate::receiver::{Receiver, Reception};
use crate::roaming::Roaming;
use hdrhistogram::Histogram;
use moorgate_client::Options;
use moorgate_demo::token::Mint;
use moorgate_proto::time::Mono;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Connections that a thread opens at the same time.
const OPENING_MAX: usize = 256;
/// The same while users register: the accounts service lets only so many wait for their hash.
const REGISTERING_MAX: usize = 16;
/// The longest latency that is told apart, in microseconds.
const LATENCY_US_MAX: u64 = 600_000_000;

/// What the threads are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Connect, and get every connection served once.
    Ramp,
    /// Load, and forget the figures.
    Warm,
    /// Load, and keep the figures.
    Window,
    /// No new requests.
    Finish,
    /// End.
    Stop,
}

/// Between the run and its threads.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    phase: AtomicU8,
    /// Connections that have had their first reply (or Welcome, when that is all they wait for).
    pub(crate) ready: AtomicU64,
    /// Pushes that were made.
    pub(crate) pushed: AtomicU64,
    /// Connections that have had their first push.
    pub(crate) reached: AtomicU64,
    /// Connections that ended before.
    pub(crate) lost: AtomicU64,
    pub(crate) completed: AtomicU64,
    pub(crate) outstanding: AtomicU64,
    pub(crate) ended: AtomicU64,
    /// When the load ends, in nanoseconds of [`Mono`]; 0: it goes on.
    load_end: AtomicU64,
    /// The last failure, for who waits.
    trouble: Mutex<Option<String>>,
}

impl Shared {
    /// Notes a failure that may pass.
    pub(crate) fn note_trouble(&self, why: &str) {
        *self.trouble.lock() = Some(why.to_owned());
    }

    /// The last failure.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    pub(crate) fn set(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// Ends the load: what was due before still goes out.
    pub(crate) fn end_load(&self, now: Mono) {
        // The first end counts.
        let _ = self.load_end.compare_exchange(0, now.as_nanos().max(1), Ordering::AcqRel, Ordering::Acquire);
        self.set(Phase::Finish);
    }

    /// When the load ends; [`Mono::NEVER`]: it goes on.
    pub(crate) fn load_end(&self) -> Mono {
        match self.load_end.load(Ordering::Acquire) {
            0 => Mono::NEVER,
            nanos => Mono::from_nanos(nanos),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Ramp,
            1 => Phase::Warm,
            2 => Phase::Window,
            3 => Phase::Finish,
            _ => Phase::Stop,
        }
    }
}

/// What kind of load.
#[derive(Debug, Clone)]
pub(crate) enum Load {
    /// Each reply starts the next request of this command; so many in flight on each connection.
    Closed(u32, usize),
    /// So many requests of this command a second by this thread, on a schedule.
    Open(u32, f64),
    /// None.
    Idle,
    /// Each connection is closed once it is open, and replaced.
    Churn,
    /// None by itself: pushes come.
    Receive(Arc<Reception>),
    /// Each connection logs in, is closed, and replaced.
    LogIn(Arc<Accounts>),
}

impl Load {
    /// What the connection of this number is for.
    pub(crate) fn task(&self, number: u32) -> Box<dyn Task> {
        match self {
            Load::Receive(reception) => Box::new(Receiver::new(reception.clone(), number)),
            Load::LogIn(accounts) => Box::new(LogIn::new(accounts.clone(), number)),
            Load::Closed(command, _) | Load::Open(command, _) => Box::new(Echo::new(number, *command)),
            Load::Idle | Load::Churn => Box::new(Echo::new(number, ECHO)),
        }
    }

    /// Connections that a thread opens at the same time.
    pub(crate) fn opening_max(&self) -> usize {
        if matches!(self, Load::LogIn(_)) { REGISTERING_MAX } else { OPENING_MAX }
    }

    /// The share of one of so many threads.
    pub(crate) fn share(&self, threads: usize) -> Load {
        match self {
            Load::Open(command, rate) => Load::Open(*command, rate / threads as f64),
            other => other.clone(),
        }
    }
}

/// What a thread is started with.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) clock: Clock,
    pub(crate) targets: Vec<SocketAddr>,
    pub(crate) connections: usize,
    /// The number of the first connection.
    pub(crate) first: u32,
    pub(crate) payload: usize,
    pub(crate) load: Load,
    pub(crate) raw: bool,
    /// `None`: anonymous.
    pub(crate) mint: Option<Mint>,
    pub(crate) expires_unix_s: u64,
    pub(crate) options: Arc<Options>,
    pub(crate) shared: Arc<Shared>,
}

/// What a thread has found.
#[derive(Debug)]
pub(crate) struct Found {
    /// Microseconds of the replies or deliveries in the window.
    pub(crate) latency: Histogram<u64>,
    pub(crate) completed: u64,
    pub(crate) wrong: u64,
    pub(crate) missing: u64,
    /// Requests of a schedule that were due and not sent, because their connection was not there or did not take them.
    pub(crate) not_sent: u64,
    /// Access tokens of logins that have opened a session.
    pub(crate) tokens_checked: u64,
    /// Failures by what was said.
    pub(crate) errors: BTreeMap<String, u64>,
    /// What each connection has got of the pushes for it, with its number.
    pub(crate) ledgers: Vec<(u32, Ledger)>,
    /// Of clients whose connections are cut.
    pub(crate) roaming: Option<Roaming>,
}

impl Found {
    pub(crate) fn new() -> io::Result<Found> {
        Ok(Found {
            latency: Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).map_err(io::Error::other)?,
            completed: 0,
            wrong: 0,
            missing: 0,
            not_sent: 0,
            tokens_checked: 0,
            errors: BTreeMap::new(),
            ledgers: Vec::new(),
            roaming: None,
        })
    }
}
