//! One thread's event loop over its connections.
//!
//! Sockets are edge-triggered; each ready connection is read and written once a turn. What to do is set by the run
//! through [`Shared`]: connect, load, finish what is open, end.

use crate::clock::Clock;
use crate::connection::{Outcome, Speech, Talk};
use crate::pattern::Pattern;
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use moorgate_client::Options;
use moorgate_client::core::ClientCore;
use moorgate_demo::token::Mint;
use moorgate_proto::codec::Assembler;
use moorgate_proto::time::Mono;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

const TIMER: Token = Token(usize::MAX);
const READ_BYTES: usize = 64 * 1024;
/// Connections that a thread opens at the same time.
const OPENING_MAX: usize = 256;
/// A loop looks at its orders at least this often.
const LOOK: Duration = Duration::from_millis(20);
/// The schedule of an open loop is looked at this often at the most.
const SCHEDULE_MIN: Duration = Duration::from_micros(50);

/// What the threads are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Connect; one request on each connection.
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
    /// Connections that have had their first reply (or Welcome, when idle).
    pub(crate) ready: AtomicU64,
    /// Connections that ended before.
    pub(crate) lost: AtomicU64,
    pub(crate) completed: AtomicU64,
    pub(crate) outstanding: AtomicU64,
    pub(crate) ended: AtomicU64,
}

impl Shared {
    pub(crate) fn set(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    fn phase(&self) -> Phase {
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
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Load {
    /// Each reply starts the next request; so many in flight on each connection.
    Closed(usize),
    /// So many requests a second by this thread, on a schedule.
    Open(f64),
    /// None.
    Idle,
    /// Each connection is closed once it is open, and replaced.
    Churn,
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
    /// Microseconds of the replies in the window.
    pub(crate) latency: Histogram<u64>,
    pub(crate) completed: u64,
    pub(crate) wrong: u64,
    pub(crate) missing: u64,
    /// Failures by what was said.
    pub(crate) errors: BTreeMap<String, u64>,
}

struct Peer {
    stream: TcpStream,
    talk: Talk,
    connected: bool,
    closing: bool,
    ready: bool,
    began: Mono,
}

pub(crate) struct Engine {
    plan: Plan,
    poll: Poll,
    peers: Vec<Option<Peer>>,
    opened: usize,
    opening: usize,
    pattern: Pattern,
    buffer: Box<[u8]>,
    outcomes: Vec<Outcome>,
    found: Found,
    timer: Option<OwnedFd>,
    next_due: Mono,
    next_peer: usize,
    next_number: u32,
    last_timers: Mono,
}

impl Engine {
    pub(crate) fn new(plan: Plan) -> io::Result<Engine> {
        let poll = Poll::new()?;
        let timer = match plan.load {
            Load::Open(rate) => Some(timer(&poll, rate)?),
            Load::Closed(_) | Load::Idle | Load::Churn => None,
        };
        let latency = Histogram::new_with_bounds(1, 600_000_000, 3).map_err(io::Error::other)?;
        Ok(Engine {
            poll,
            peers: (0..plan.connections).map(|_| None).collect(),
            opened: 0,
            opening: 0,
            pattern: Pattern::new(plan.payload),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            outcomes: Vec::new(),
            found: Found { latency, completed: 0, wrong: 0, missing: 0, errors: BTreeMap::new() },
            timer,
            next_due: Mono::NEVER,
            next_peer: 0,
            next_number: plan.first,
            last_timers: Mono::ZERO,
            plan,
        })
    }

    pub(crate) fn run(mut self) -> Found {
        let mut events = Events::with_capacity(1024);
        let mut phase = Phase::Ramp;
        while phase != Phase::Stop {
            let now = self.plan.clock.now();
            self.open_more(now);
            if let Err(error) = self.poll.poll(&mut events, Some(LOOK))
                && error.kind() != io::ErrorKind::Interrupted
            {
                self.fail(format!("poll: {error}"));
                break;
            }
            let now = self.plan.clock.now();
            let before = std::mem::replace(&mut phase, self.plan.shared.phase());
            if before != phase {
                self.enter(now, phase);
            }
            for event in &events {
                self.event(now, phase, event);
            }
            if matches!(self.plan.load, Load::Open(_)) && matches!(phase, Phase::Warm | Phase::Window) {
                self.schedule(now);
            }
            self.timers(now, phase);
            self.publish();
        }
        let left: usize = self.peers.iter().flatten().map(|peer| peer.talk.outstanding()).sum();
        self.found.missing = self.found.missing.saturating_add(left as u64);
        self.found
    }

    fn publish(&self) {
        let outstanding: usize = match self.plan.shared.phase() {
            Phase::Finish => self.peers.iter().flatten().map(|peer| peer.talk.outstanding()).sum(),
            _ => return,
        };
        self.plan.shared.outstanding.fetch_add(outstanding as u64, Ordering::AcqRel);
        self.plan.shared.ended.fetch_add(1, Ordering::AcqRel);
    }

    fn enter(&mut self, now: Mono, phase: Phase) {
        match (phase, self.plan.load) {
            (Phase::Warm, Load::Closed(in_flight)) => {
                for index in 0..self.peers.len() {
                    for _ in 0..in_flight {
                        self.ask(now, now, index);
                    }
                    self.write(index);
                }
            }
            (Phase::Warm, Load::Open(_)) => self.next_due = now,
            (Phase::Window, _) => {
                self.found.latency.reset();
                self.found.completed = 0;
            }
            _ => {}
        }
    }

    fn open_more(&mut self, now: Mono) {
        while self.opening < OPENING_MAX && self.opened < self.peers.len() {
            let index = self.opened;
            self.opened = self.opened.saturating_add(1);
            self.open(now, index);
        }
    }

    fn open(&mut self, now: Mono, index: usize) {
        let number = self.next_number;
        self.next_number = self.next_number.wrapping_add(1);
        let at = number as usize % self.plan.targets.len().max(1);
        let Some(target) = self.plan.targets.get(at) else { return };
        let opened = TcpStream::connect(*target).and_then(|mut stream| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(index), interest)?;
            Ok(stream)
        });
        match opened {
            Ok(stream) => {
                let speech = if self.plan.raw {
                    Speech::Raw { assembler: Assembler::default(), output: Vec::new() }
                } else {
                    Speech::Protocol(Box::new(ClientCore::new(self.plan.options.clone())))
                };
                let talk = Talk::new(speech, number);
                self.opening = self.opening.saturating_add(1);
                if let Some(peer) = self.peers.get_mut(index) {
                    *peer = Some(Peer {
                        stream,
                        talk,
                        connected: false,
                        closing: false,
                        ready: false,
                        began: now,
                    });
                }
            }
            Err(error) => {
                self.plan.shared.lost.fetch_add(1, Ordering::AcqRel);
                self.fail(format!("connect: {error}"));
            }
        }
    }

    fn fail(&mut self, what: String) {
        *self.found.errors.entry(what).or_default() += 1;
    }

    fn event(&mut self, now: Mono, phase: Phase, event: &mio::event::Event) {
        let index = event.token().0;
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else { return };
        peer.closing |= event.is_read_closed() || event.is_error();
        if !peer.connected {
            match peer.stream.take_error().and_then(|error| error.map_or(Ok(()), Err)) {
                Ok(()) if peer.stream.peer_addr().is_ok() => self.connected(now, index),
                Ok(()) => return,
                Err(error) => return self.lost(index, &format!("connect: {error}")),
            }
        }
        self.read(now, phase, index);
        self.write(index);
    }

    fn connected(&mut self, now: Mono, index: usize) {
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else { return };
        peer.connected = true;
        let _ = peer.stream.set_nodelay(true);
        let user = format!("user-{index:011}");
        let token = self.plan.mint.as_ref().map(|mint| mint.token(&user, self.plan.expires_unix_s));
        peer.talk.connected(now, token.as_deref().unwrap_or_default());
        if peer.talk.is_open() {
            self.opened_one(now, index);
        }
    }

    /// A session is open: it makes its first request, if the load has any.
    fn opened_one(&mut self, now: Mono, index: usize) {
        match self.plan.load {
            Load::Idle => self.ready(now, index),
            Load::Churn if !self.plan.raw => self.churned(now, index),
            Load::Closed(_) | Load::Open(_) | Load::Churn => self.ask(now, now, index),
        }
    }

    fn ready(&mut self, _now: Mono, index: usize) {
        if let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut)
            && !std::mem::replace(&mut peer.ready, true)
        {
            self.opening = self.opening.saturating_sub(1);
            self.plan.shared.ready.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Closes a connection that has done all it was for, and opens another.
    fn churned(&mut self, now: Mono, index: usize) {
        self.ready(now, index);
        let Some(peer) = self.peers.get_mut(index).and_then(Option::take) else { return };
        self.completed(now, peer.began);
        if self.plan.shared.phase() != Phase::Finish {
            self.open(now, index);
        }
    }

    fn completed(&mut self, now: Mono, since: Mono) {
        let us = u64::try_from(now.since(since).as_micros()).unwrap_or(u64::MAX);
        self.found.latency.saturating_record(us.max(1));
        self.found.completed = self.found.completed.saturating_add(1);
        self.plan.shared.completed.fetch_add(1, Ordering::Relaxed);
    }

    fn ask(&mut self, now: Mono, at: Mono, index: usize) {
        if let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut)
            && peer.talk.is_open()
            && !peer.talk.ask(now, at, &mut self.pattern)
        {
            self.fail("a request was not taken".to_owned());
        }
    }

    fn read(&mut self, now: Mono, phase: Phase, index: usize) {
        loop {
            let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else { return };
            let count = match peer.stream.read(&mut self.buffer) {
                Ok(0) => return self.lost(index, "closed by the other side"),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return self.lost(index, &error.to_string()),
            };
            let more = count == self.buffer.len() || peer.closing;
            let bytes = self.buffer.get(..count).unwrap_or_default();
            let mut outcomes = std::mem::take(&mut self.outcomes);
            peer.talk.received(now, bytes, &self.pattern, &mut outcomes);
            self.digest(now, phase, index, &mut outcomes);
            self.outcomes = outcomes;
            if !more {
                return;
            }
        }
    }

    fn digest(&mut self, now: Mono, phase: Phase, index: usize, outcomes: &mut Vec<Outcome>) {
        for outcome in outcomes.drain(..) {
            match outcome {
                Outcome::Opened => self.opened_one(now, index),
                Outcome::Reply(_) if self.plan.load == Load::Churn => self.churned(now, index),
                Outcome::Reply(at) => {
                    self.completed(now, at);
                    self.ready(now, index);
                    if matches!(self.plan.load, Load::Closed(_))
                        && matches!(phase, Phase::Warm | Phase::Window)
                    {
                        self.ask(now, now, index);
                    }
                }
                Outcome::Wrong => self.found.wrong = self.found.wrong.saturating_add(1),
                Outcome::Failed(why) => self.fail(why),
                Outcome::Ended(why, missing) => {
                    self.found.missing = self.found.missing.saturating_add(missing as u64);
                    self.fail(why);
                }
            }
        }
    }

    fn write(&mut self, index: usize) {
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else { return };
        if !peer.connected || peer.talk.output().is_empty() {
            return;
        }
        match peer.stream.write(peer.talk.output()) {
            Ok(count) => {
                peer.talk.output().drain(..count);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => self.lost(index, &error.to_string()),
        }
    }

    fn lost(&mut self, index: usize, why: &str) {
        let Some(peer) = self.peers.get_mut(index).and_then(Option::take) else { return };
        self.found.missing = self.found.missing.saturating_add(peer.talk.outstanding() as u64);
        if !peer.ready {
            self.opening = self.opening.saturating_sub(1);
            self.plan.shared.lost.fetch_add(1, Ordering::AcqRel);
        }
        self.fail(why.to_owned());
    }

    /// Makes the requests that are due, on the connections in turn.
    fn schedule(&mut self, now: Mono) {
        let Load::Open(rate) = self.plan.load else { return };
        let step = Duration::from_secs_f64(1.0 / rate.max(0.001));
        if let Some(timer) = &self.timer {
            let mut ticks = [0; 8];
            // Read to re-arm the edge; that it has nothing to read is as good.
            let _ = rustix::io::read(timer, &mut ticks);
        }
        while self.next_due <= now {
            let (at, index) = (self.next_due, self.next_peer);
            self.next_due = self.next_due + step;
            self.next_peer = self.next_peer.saturating_add(1) % self.peers.len().max(1);
            self.ask(now, at, index);
            self.write(index);
        }
    }

    fn timers(&mut self, now: Mono, phase: Phase) {
        if now.since(self.last_timers) < Duration::from_millis(200) {
            return;
        }
        self.last_timers = now;
        for index in 0..self.peers.len() {
            let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else { continue };
            if peer.talk.next_deadline() <= now {
                let mut outcomes = std::mem::take(&mut self.outcomes);
                peer.talk.timers(now, &self.pattern, &mut outcomes);
                self.digest(now, phase, index, &mut outcomes);
                self.outcomes = outcomes;
                self.write(index);
            }
        }
    }
}

/// A timer whose ticks wake the poll: its own timeout is too coarse for a schedule.
fn timer(poll: &Poll, rate: f64) -> io::Result<OwnedFd> {
    let timer = rustix::time::timerfd_create(
        TimerfdClockId::Monotonic,
        TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
    )?;
    let step = Duration::from_secs_f64(1.0 / rate.max(1.0)).max(SCHEDULE_MIN);
    let spec = Timespec { tv_sec: 0, tv_nsec: i64::from(step.subsec_nanos().max(1)) };
    let spec = if step >= Duration::from_secs(1) { Timespec { tv_sec: 1, tv_nsec: 0 } } else { spec };
    rustix::time::timerfd_settime(
        &timer,
        TimerfdTimerFlags::empty(),
        &Itimerspec { it_interval: spec, it_value: spec },
    )?;
    poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
    Ok(timer)
}
