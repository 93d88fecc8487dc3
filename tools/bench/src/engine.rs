//! One thread's event loop over its connections.
//!
//! Sockets are edge-triggered; each ready connection is read and written once a turn. What to do is set by the run
//! through its [`Plan`]: connect, load, finish what is open, end.

use crate::audience::user_name;
use crate::connection::{Outcome, Speech, Talk, Task};
use crate::pattern::Pattern;
use crate::plan::{Found, Load, Phase, Plan};
use crate::schedule::Schedule;
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use moorgate_client::core::ClientCore;
use moorgate_proto::codec::Assembler;
use moorgate_proto::time::Mono;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

const TIMER: Token = Token(usize::MAX);
const READ_BYTES: usize = 64 * 1024;
/// A loop looks at its orders at least this often.
const LOOK: Duration = Duration::from_millis(20);
/// The schedule of an open loop is looked at this often at the most.
const SCHEDULE_MIN: Duration = Duration::from_micros(50);

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
    /// Pushes of this turn that have come, or will not.
    arrived: u64,
    timer: Option<OwnedFd>,
    schedule: Option<Schedule>,
    next_peer: usize,
    next_number: u32,
    last_timers: Mono,
}

impl Engine {
    pub(crate) fn new(plan: Plan) -> io::Result<Engine> {
        let poll = Poll::new()?;
        let timer = match plan.load {
            Load::Open(_, rate) => Some(timer(&poll, rate)?),
            Load::Closed(..) | Load::Idle | Load::Churn | Load::Receive(_) | Load::LogIn(_) => None,
        };
        Ok(Engine {
            poll,
            peers: (0..plan.connections).map(|_| None).collect(),
            opened: 0,
            opening: 0,
            pattern: Pattern::new(plan.payload),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            outcomes: Vec::new(),
            found: Found::new()?,
            arrived: 0,
            timer,
            schedule: None,
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
            // A short warm-up may be over before this thread has looked.
            if before == Phase::Ramp && matches!(phase, Phase::Warm | Phase::Window) {
                self.begin(now);
            }
            if before != phase && phase == Phase::Window {
                self.found.latency.reset();
                self.found.completed = 0;
            }
            for event in &events {
                // A turn over thousands of connections takes milliseconds: each is served at a time of its own.
                let now = self.plan.clock.now();
                self.event(now, phase, event);
            }
            self.tell_arrivals();
            if matches!(phase, Phase::Warm | Phase::Window | Phase::Finish) {
                self.schedule(now);
            }
            self.timers(now, phase);
            self.publish();
        }
        let end = self.plan.shared.load_end();
        if let Some(schedule) = self.schedule.filter(|_| end != Mono::NEVER) {
            self.found.not_sent = self.found.not_sent.saturating_add(schedule.left(end));
        }
        let peers = std::mem::take(&mut self.peers);
        peers.into_iter().flatten().for_each(|peer| self.close_books(peer));
        self.found
    }

    /// A connection is over: what it leaves.
    fn close_books(&mut self, peer: Peer) {
        self.found.missing = self.found.missing.saturating_add(peer.talk.outstanding() as u64);
        self.found.ledgers.extend(peer.talk.into_task().ledger());
    }

    fn tell_arrivals(&mut self) {
        if let Load::Receive(reception) = &self.plan.load
            && self.arrived > 0
        {
            reception.arrivals.add(std::mem::take(&mut self.arrived));
        }
    }

    fn publish(&self) {
        let outstanding: usize = match self.plan.shared.phase() {
            Phase::Finish => self.peers.iter().flatten().map(|peer| peer.talk.outstanding()).sum(),
            _ => return,
        };
        self.plan.shared.outstanding.fetch_add(outstanding as u64, Ordering::AcqRel);
        self.plan.shared.ended.fetch_add(1, Ordering::AcqRel);
    }

    /// Begins the load.
    fn begin(&mut self, now: Mono) {
        match self.plan.load {
            Load::Closed(_, in_flight) => {
                for index in 0..self.peers.len() {
                    for _ in 0..in_flight {
                        let _ = self.ask(now, now, index);
                    }
                    self.write(index);
                }
            }
            Load::Open(_, rate) => self.schedule = Some(Schedule::new(now, rate)),
            // Until now they had the session in which they have registered.
            Load::LogIn(_) => (0..self.peers.len()).for_each(|index| self.again(now, index)),
            Load::Idle | Load::Churn | Load::Receive(_) => {}
        }
    }

    fn open_more(&mut self, now: Mono) {
        while self.opening < self.plan.load.opening_max() && self.opened < self.peers.len() {
            let index = self.opened;
            self.opened = self.opened.saturating_add(1);
            self.open(now, index, None);
        }
    }

    /// Opens a connection that goes on with a task, or begins one.
    fn open(&mut self, now: Mono, index: usize, task: Option<Box<dyn Task>>) {
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
                let talk = Talk::new(speech, task.unwrap_or_else(|| self.plan.load.task(number)));
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
        self.plan.shared.note_trouble(&what);
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
        let user = user_name(self.plan.first.saturating_add(u32::try_from(index).unwrap_or(u32::MAX)));
        let token = self.plan.mint.as_ref().map(|mint| mint.token(&user, self.plan.expires_unix_s));
        peer.talk.connected(now, token.as_deref().unwrap_or_default());
        if peer.talk.is_open() {
            self.opened_one(now, index);
        }
    }

    /// A session is open: it makes its first request, if the load has any.
    fn opened_one(&mut self, now: Mono, index: usize) {
        match self.plan.load {
            Load::Idle => self.ready(index),
            Load::Churn if !self.plan.raw => self.churned(now, index),
            Load::Closed(..) | Load::Open(..) | Load::Churn | Load::Receive(_) | Load::LogIn(_) => {
                let _ = self.ask(now, now, index);
            }
        }
    }

    fn ready(&mut self, index: usize) {
        if let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut)
            && !std::mem::replace(&mut peer.ready, true)
        {
            self.opening = self.opening.saturating_sub(1);
            self.plan.shared.ready.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Closes a connection that has done all it was for, and opens another.
    fn churned(&mut self, now: Mono, index: usize) {
        self.ready(index);
        let Some(peer) = self.peers.get_mut(index).and_then(Option::take) else { return };
        self.completed(now, peer.began);
        if self.plan.shared.phase() != Phase::Finish {
            self.open(now, index, None);
        }
    }

    /// Closes a connection, and goes on with its task on another.
    fn again(&mut self, now: Mono, index: usize) {
        self.ready(index);
        let Some(peer) = self.peers.get_mut(index).and_then(Option::take) else { return };
        if self.plan.shared.phase() != Phase::Finish {
            self.open(now, index, Some(peer.talk.into_task()));
        }
    }

    fn completed(&mut self, now: Mono, since: Mono) {
        let us = u64::try_from(now.since(since).as_micros()).unwrap_or(u64::MAX);
        self.found.latency.saturating_record(us.max(1));
        self.found.completed = self.found.completed.saturating_add(1);
        self.plan.shared.completed.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes a request; whether its connection has taken it.
    fn ask(&mut self, now: Mono, at: Mono, index: usize) -> bool {
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else { return false };
        if !peer.talk.is_open() {
            return false;
        }
        let is_taken = peer.talk.ask(now, at, &mut self.pattern);
        if !is_taken {
            self.fail("a request was not taken".to_owned());
        }
        is_taken
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
                // At the end what is open finishes, and nothing is begun.
                Outcome::Ask if phase == Phase::Finish => {}
                Outcome::Ask => {
                    let _ = self.ask(now, now, index);
                }
                Outcome::Ready => self.ready(index),
                Outcome::Reply(_) if matches!(self.plan.load, Load::Churn) => self.churned(now, index),
                Outcome::Reply(at) => self.replied(now, phase, index, at),
                Outcome::TokenGood => {
                    self.found.tokens_checked = self.found.tokens_checked.saturating_add(1);
                    self.again(now, index);
                }
                Outcome::Delivered(at) => {
                    self.completed(now, at);
                    self.arrived = self.arrived.saturating_add(1);
                }
                Outcome::Reached => {
                    self.plan.shared.reached.fetch_add(1, Ordering::AcqRel);
                }
                Outcome::GivenUp(count) => self.arrived = self.arrived.saturating_add(count),
                Outcome::Wrong => self.found.wrong = self.found.wrong.saturating_add(1),
                Outcome::Failed(why) => self.failed(now, index, why),
                Outcome::Delayed(why) => self.plan.shared.note_trouble(&why),
                Outcome::Ended(why, missing) => {
                    self.found.missing = self.found.missing.saturating_add(missing as u64);
                    self.lost(index, &why);
                }
            }
        }
    }

    fn replied(&mut self, now: Mono, phase: Phase, index: usize, at: Mono) {
        self.completed(now, at);
        self.ready(index);
        match self.plan.load {
            Load::LogIn(_) => self.again(now, index),
            Load::Closed(..) if matches!(phase, Phase::Warm | Phase::Window) => {
                let _ = self.ask(now, now, index);
            }
            _ => {}
        }
    }

    /// A request is refused. In the ramp its connection will not be served; a login is made again.
    fn failed(&mut self, now: Mono, index: usize, why: String) {
        self.fail(why);
        match self.plan.shared.phase() {
            Phase::Ramp => {
                self.plan.shared.lost.fetch_add(1, Ordering::AcqRel);
            }
            _ if matches!(self.plan.load, Load::LogIn(_)) => self.again(now, index),
            _ => {}
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
        if !peer.ready {
            self.opening = self.opening.saturating_sub(1);
            self.plan.shared.lost.fetch_add(1, Ordering::AcqRel);
        }
        self.close_books(peer);
        self.fail(why.to_owned());
    }

    /// Makes the requests that are due, on the connections in turn; one whose connection is lost is not sent.
    fn schedule(&mut self, now: Mono) {
        let Some(mut schedule) = self.schedule else { return };
        if let Some(timer) = &self.timer {
            let mut ticks = [0; 8];
            // Read to re-arm the edge; that it has nothing to read is as good.
            let _ = rustix::io::read(timer, &mut ticks);
        }
        let until = now.min(self.plan.shared.load_end());
        while let Some(at) = schedule.take(until) {
            let index = self.next_peer;
            self.next_peer = self.next_peer.saturating_add(1) % self.peers.len().max(1);
            if !self.ask(now, at, index) {
                self.found.not_sent = self.found.not_sent.saturating_add(1);
            }
            self.write(index);
        }
        self.schedule = Some(schedule);
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
