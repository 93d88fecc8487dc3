//! One thread's event loop over clients whose connections are cut, and who come back.
//!
//! What happens at a time (a cut, a connect, a request) waits in one queue of [`Due`]s; sockets are edge-triggered.

use crate::audience::user_name;
use crate::books::{Books, Read as Came};
use crate::cutting::{Abandoned, Cut, Cutting, HALF_OPEN, cut_moments};
use crate::dice::Dice;
use crate::pattern::Pattern;
use crate::plan::{Found, Phase, Plan};
use crate::roamer::{Heard, Link, Roamer, Voice};
use crate::roaming::{Account, Roaming};
use crate::schedule::Schedule;
use crate::streams::Streams;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use moorgate_client::core::ClientCore;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::ResumeResult;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const READ_BYTES: usize = 64 * 1024;
/// A loop looks at its orders at least this often.
const LOOK: Duration = Duration::from_millis(20);
/// The deadlines of the clients' sessions are looked at this often.
const TIMERS: Duration = Duration::from_millis(100);
/// Clients that a thread brings in at the same time, in the ramp.
const OPENING_MAX: usize = 256;
/// Until a client tries again: to connect, to join, to be cut.
const AGAIN: Duration = Duration::from_millis(50);

/// What the clients do.
#[derive(Debug, Clone)]
pub(crate) struct Orders {
    pub(crate) streams: Arc<Streams>,
    /// Sessions outlive their connections.
    pub(crate) resumes: bool,
    /// Clients join a group at first, which shows that the service is there.
    pub(crate) joins: bool,
    /// Requests a second of each client; 0: none.
    pub(crate) rate: f64,
    /// Requests of one client without an answer; with so many those of the schedule wait.
    pub(crate) in_flight: usize,
    pub(crate) cutting: Cutting,
    /// From a cut to the next connect, at the most.
    pub(crate) delay_max: Duration,
    pub(crate) seed: u64,
}

/// What happens at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Connect,
    Join,
    Ask,
    Cut,
}

pub(crate) struct Fleet {
    plan: Plan,
    orders: Orders,
    poll: Poll,
    clients: Vec<Roamer>,
    /// Clients that the ramp has begun with, and of these the ones that are not ready.
    opened: usize,
    opening: usize,
    dues: BinaryHeap<Reverse<(Mono, Due, usize)>>,
    abandoned: Abandoned,
    /// Payloads of requests, and of pushes.
    patterns: (Pattern, Pattern),
    buffer: Box<[u8]>,
    heard: Vec<Heard>,
    came: Vec<Came>,
    found: Found,
    roaming: Roaming,
    phase: Phase,
    last_timers: Mono,
}

impl Fleet {
    pub(crate) fn new(plan: Plan, orders: Orders) -> io::Result<Fleet> {
        let client = |index| {
            let number = plan.first.saturating_add(index);
            let voice = match orders.resumes {
                _ if plan.raw => Voice::Raw { output: Vec::new(), is_open: false, asked: 0 },
                true => Voice::Protocol(Box::new(ClientCore::resuming(plan.options.clone()))),
                false => Voice::Protocol(Box::new(ClientCore::new(plan.options.clone()))),
            };
            let dice = Dice::new(orders.seed, u64::from(number));
            Roamer::new(voice, Books::new(number, orders.streams.clone()), dice)
        };
        let connections = u32::try_from(plan.connections).unwrap_or(u32::MAX);
        Ok(Fleet {
            poll: Poll::new()?,
            clients: (0..connections).map(client).collect(),
            opened: 0,
            opening: 0,
            dues: BinaryHeap::new(),
            abandoned: Abandoned::new(HALF_OPEN),
            patterns: (Pattern::new(plan.payload), orders.streams.pattern()),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            heard: Vec::new(),
            came: Vec::new(),
            found: Found::new()?,
            roaming: Roaming::new()?,
            phase: Phase::Ramp,
            last_timers: Mono::ZERO,
            plan,
            orders,
        })
    }

    pub(crate) fn run(mut self) -> Found {
        let mut events = Events::with_capacity(1024);
        while self.phase != Phase::Stop {
            let now = self.plan.clock.now();
            self.open_more(now);
            let next = self.dues.peek().map_or(LOOK, |Reverse((at, ..))| at.since(now).min(LOOK));
            if let Err(error) = self.poll.poll(&mut events, Some(next))
                && error.kind() != io::ErrorKind::Interrupted
            {
                self.fail(format!("poll: {error}"));
                break;
            }
            self.look_at_orders();
            for event in &events {
                let now = self.plan.clock.now();
                self.event(now, event);
            }
            self.dues();
            self.timers();
            self.abandoned.close(self.plan.clock.now());
            self.publish();
        }
        self.close_books()
    }

    fn look_at_orders(&mut self) {
        let now = self.plan.clock.now();
        let before = std::mem::replace(&mut self.phase, self.plan.shared.phase());
        if before == Phase::Ramp
            && matches!(self.phase, Phase::Warm | Phase::Window)
            && self.orders.rate > 0.0
        {
            let step = Duration::from_secs_f64(1.0 / self.orders.rate);
            for (index, client) in self.clients.iter_mut().enumerate() {
                let at = now + client.dice.within(step);
                client.schedule = Some(Schedule::new(at, self.orders.rate));
                self.dues.push(Reverse((at, Due::Ask, index)));
            }
        }
        if before == self.phase || self.phase != Phase::Window {
            return;
        }
        match self.orders.cutting {
            Cutting::Never => {}
            Cutting::Scattered { cuts, within } => {
                for (index, client) in self.clients.iter_mut().enumerate() {
                    let moments = cut_moments(&mut client.dice, now, cuts, within);
                    self.dues.extend(moments.map(|at| Reverse((at, Due::Cut, index))));
                }
            }
            Cutting::AtOnce => {
                self.roaming.cut_at = now;
                (0..self.clients.len()).for_each(|index| self.cut(now, index, Cut::Close));
                (0..self.clients.len()).for_each(|index| self.open(self.plan.clock.now(), index));
            }
        }
    }

    fn open_more(&mut self, now: Mono) {
        while self.opening < OPENING_MAX && self.opened < self.clients.len() {
            let index = self.opened;
            self.opened = self.opened.saturating_add(1);
            self.opening = self.opening.saturating_add(1);
            self.open(now, index);
        }
    }

    fn open(&mut self, now: Mono, index: usize) {
        let Some(client) = self.clients.get_mut(index) else { return };
        if !matches!(client.link, Link::Down) {
            return;
        }
        let at = client.books.number() as usize % self.plan.targets.len().max(1);
        let Some(target) = self.plan.targets.get(at) else { return };
        let opened = TcpStream::connect(*target).and_then(|mut stream| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(index), interest)?;
            Ok(stream)
        });
        match opened {
            Ok(stream) => (client.link, client.began) = (Link::Connecting(stream), now),
            Err(error) => {
                self.fail(format!("connect: {error}"));
                self.dues.push(Reverse((now + AGAIN, Due::Connect, index)));
            }
        }
    }

    fn fail(&mut self, what: String) {
        self.plan.shared.note_trouble(&what);
        *self.found.errors.entry(what).or_default() += 1;
    }

    fn event(&mut self, now: Mono, event: &mio::event::Event) {
        let index = event.token().0;
        let Some(client) = self.clients.get_mut(index) else { return };
        if let Link::Connecting(stream) = &mut client.link {
            match stream.take_error().and_then(|error| error.map_or(Ok(()), Err)) {
                Ok(()) if stream.peer_addr().is_ok() => self.connected(now, index),
                Ok(()) => return,
                Err(error) => return self.lost(now, index, format!("connect: {error}")),
            }
        }
        self.read(now, index, event.is_read_closed() || event.is_error());
        self.write(now, index);
    }

    fn connected(&mut self, now: Mono, index: usize) {
        let Some(client) = self.clients.get_mut(index) else { return };
        if let Link::Connecting(stream) = &client.link {
            let _ = stream.set_nodelay(true);
        }
        let user = user_name(client.books.number());
        let token = self.plan.mint.as_ref().map(|mint| mint.token(&user, self.plan.expires_unix_s));
        client.connected(now, token.as_deref().unwrap_or_default());
        self.roaming.resumes = self.roaming.resumes.saturating_add(u64::from(client.asks_resume));
    }

    fn read(&mut self, now: Mono, index: usize, is_closing: bool) {
        loop {
            let Some(client) = self.clients.get_mut(index) else { return };
            let Link::Up(stream) = &mut client.link else { return };
            let count = match stream.read(&mut self.buffer) {
                Ok(0) => return self.lost(now, index, "closed by the gateway".to_owned()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return self.lost(now, index, error.to_string()),
            };
            let bytes = self.buffer.get(..count).unwrap_or_default();
            let patterns = (&self.patterns.0, &self.patterns.1);
            let came = &mut self.came;
            client.received((now, bytes), patterns, &mut self.heard, &mut |read| came.push(read));
            self.digest(now, index);
            if count < self.buffer.len() && !is_closing {
                return;
            }
        }
    }

    /// What the session has told, then what the books have found.
    fn digest(&mut self, now: Mono, index: usize) {
        let mut heard = std::mem::take(&mut self.heard);
        heard.drain(..).for_each(|heard| self.heard(now, index, heard));
        self.heard = heard;
        let mut came = std::mem::take(&mut self.came);
        came.drain(..).for_each(|came| self.came(now, index, came));
        self.came = came;
    }

    fn heard(&mut self, now: Mono, index: usize, heard: Heard) {
        let Some(client) = self.clients.get_mut(index) else { return };
        match heard {
            Heard::Unanswered(id) => drop(client.books.unanswered(id)),
            Heard::Over(why) => {
                self.fail(why);
                self.came_down(now, index);
            }
            Heard::Resumed => {
                self.roaming.resumed = self.roaming.resumed.saturating_add(1);
                self.is_back(now, index);
            }
            Heard::Fresh(result) => {
                client.books.begin_anew();
                // A session that could not even be asked for is as gone as one that was not found.
                if client.asks_resume || (client.is_ready && self.orders.resumes) {
                    *self.roaming.fresh.entry(result_name(result)).or_default() += 1;
                }
                self.is_back(now, index);
                match self.orders.joins {
                    true => self.join(now, index),
                    false => self.ready(index),
                }
            }
        }
    }

    /// A client that was ready once has its session.
    fn is_back(&mut self, now: Mono, index: usize) {
        let Some(client) = self.clients.get(index).filter(|client| client.is_ready) else { return };
        let us = u64::try_from(now.since(client.began).as_micros()).unwrap_or(u64::MAX);
        self.roaming.back_us.saturating_record(us.max(1));
        self.roaming.back_at = self.roaming.back_at.max(now);
        self.plan.shared.reached.fetch_add(1, Ordering::AcqRel);
        self.ask_due(now, index);
    }

    fn join(&mut self, now: Mono, index: usize) {
        if let Some(client) = self.clients.get_mut(index)
            && !client.join(now)
        {
            self.dues.push(Reverse((now + AGAIN, Due::Join, index)));
        }
    }

    fn ready(&mut self, index: usize) {
        if let Some(client) = self.clients.get_mut(index)
            && !std::mem::replace(&mut client.is_ready, true)
        {
            self.opening = self.opening.saturating_sub(1);
            self.plan.shared.ready.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn came(&mut self, now: Mono, index: usize, came: Came) {
        let roaming = &mut self.roaming;
        match came {
            Came::Echo(since) => {
                let us = u64::try_from(now.since(since).as_micros()).unwrap_or(u64::MAX).max(1);
                match self.phase {
                    Phase::Warm => roaming.calm_us.saturating_record(us),
                    _ => self.found.latency.saturating_record(us),
                }
                roaming.echoes = roaming.echoes.saturating_add(1);
                self.plan.shared.completed.fetch_add(1, Ordering::Relaxed);
            }
            Came::Joined => self.ready(index),
            Came::NotJoined(why) => {
                self.plan.shared.note_trouble(&why);
                self.dues.push(Reverse((now + AGAIN, Due::Join, index)));
            }
            Came::JoinRefused(why) => {
                roaming.refused = roaming.refused.saturating_add(1);
                // Nobody asks again: the ramp has failed.
                self.plan.shared.lost.fetch_add(1, Ordering::AcqRel);
                self.fail(why);
            }
            Came::AnsweredTwice => roaming.answered_twice = roaming.answered_twice.saturating_add(1),
            Came::Refused(why) => {
                roaming.refused = roaming.refused.saturating_add(1);
                self.fail(why);
            }
            Came::Wrong(what) => {
                self.found.wrong = self.found.wrong.saturating_add(1);
                self.fail(what.to_owned());
            }
        }
    }

    fn write(&mut self, now: Mono, index: usize) {
        if let Some(client) = self.clients.get_mut(index)
            && let Err(error) = client.write()
        {
            self.lost(now, index, error.to_string());
        }
    }

    /// The other side has ended the connection.
    fn lost(&mut self, now: Mono, index: usize, why: String) {
        self.fail(why);
        self.came_down(now, index);
    }

    /// The connection is over: what the session tells of it is no news, and another connection comes.
    fn came_down(&mut self, now: Mono, index: usize) -> Option<TcpStream> {
        let client = self.clients.get_mut(index)?;
        let mut heard = Vec::new();
        let socket = client.disconnected(&mut heard);
        for heard in heard {
            if let Heard::Unanswered(id) = heard {
                client.books.unanswered(id);
            }
        }
        let at = now + client.dice.within(self.orders.delay_max);
        self.dues.push(Reverse((at, Due::Connect, index)));
        socket
    }

    fn cut(&mut self, now: Mono, index: usize, cut: Cut) {
        let Some(client) = self.clients.get_mut(index) else { return };
        if client.is_up() && self.orders.rate > 0.0 && client.dice.one_in(2) {
            // Requests that are on their way when it happens, whole or torn.
            for _ in 0..=client.dice.below(3) {
                client.ask(now, now, &mut self.patterns.0);
            }
            let len = client.output().len();
            let part = if client.dice.one_in(2) { len } else { client.dice.index(len) };
            let _ = client.write_part(part);
        }
        let Some(socket) = self.came_down(now, index) else { return };
        self.roaming.cuts = self.roaming.cuts.saturating_add(1);
        match cut {
            Cut::Close => {}
            Cut::Reset => self.roaming.resets = self.roaming.resets.saturating_add(1),
            Cut::HalfOpen => self.roaming.half_open = self.roaming.half_open.saturating_add(1),
        }
        if let Err(error) = self.abandoned.cut(now, socket, cut, self.poll.registry()) {
            self.fail(format!("a cut: {error}"));
        }
    }

    /// Does what is due.
    fn dues(&mut self) {
        let now = self.plan.clock.now();
        while let Some(&Reverse((at, due, index))) = self.dues.peek()
            && at <= now
        {
            self.dues.pop();
            match due {
                Due::Connect => self.open(self.plan.clock.now(), index),
                Due::Join => self.join(now, index),
                Due::Ask => self.ask(now, index),
                Due::Cut if self.phase != Phase::Window => {}
                Due::Cut => match self.clients.get_mut(index) {
                    Some(client) if !matches!(client.link, Link::Down) => {
                        let cut = Cut::by(&mut client.dice);
                        self.cut(now, index, cut);
                    }
                    _ => self.dues.push(Reverse((now + AGAIN, Due::Cut, index))),
                },
            }
            self.write(now, index);
        }
    }

    /// Requests of the schedule, and when it is looked at next.
    fn ask(&mut self, now: Mono, index: usize) {
        // Until its connection or an answer is there.
        let again = now + AGAIN;
        let is_done = self.ask_due(now, index);
        let Some(schedule) = self.clients.get(index).and_then(|client| client.schedule) else { return };
        if schedule.due() < self.plan.shared.load_end() {
            let next = if is_done { schedule.due() } else { again };
            self.dues.push(Reverse((next, Due::Ask, index)));
        }
    }

    /// Makes the requests of a client that are due; whether all of them could be made.
    fn ask_due(&mut self, now: Mono, index: usize) -> bool {
        let until = now.min(self.plan.shared.load_end());
        let Some(client) = self.clients.get_mut(index) else { return true };
        client.ask_due(now, (until, self.orders.in_flight), &mut self.patterns.0)
    }

    fn timers(&mut self) {
        let now = self.plan.clock.now();
        if now.since(self.last_timers) < TIMERS {
            return;
        }
        self.last_timers = now;
        for index in 0..self.clients.len() {
            let Some(client) = self.clients.get_mut(index) else { continue };
            if client.next_deadline() <= now {
                client.timers(now, &mut self.heard);
                self.digest(now, index);
                self.write(now, index);
            }
        }
    }

    /// Requests of a client's schedule that were due before the end of the load and are not sent.
    fn left(&self, client: &Roamer) -> u64 {
        let end = self.plan.shared.load_end();
        client.schedule.filter(|_| end != Mono::NEVER).map_or(0, |schedule| schedule.left(end))
    }

    /// At the end: what is still open, connections that are not back included.
    fn publish(&self) {
        if self.plan.shared.phase() != Phase::Finish {
            return;
        }
        let open = |client: &Roamer| client.books.open().saturating_add(usize::from(!client.is_open()));
        let outstanding: u64 =
            self.clients.iter().map(|client| (open(client) as u64).saturating_add(self.left(client))).sum();
        self.plan.shared.outstanding.fetch_add(outstanding, Ordering::AcqRel);
        self.plan.shared.ended.fetch_add(1, Ordering::AcqRel);
    }

    fn close_books(mut self) -> Found {
        for client in std::mem::take(&mut self.clients) {
            self.found.not_sent = self.found.not_sent.saturating_add(self.left(&client));
            let Roamer { mut books, .. } = client;
            self.roaming.accounts.push(Account {
                number: books.number(),
                asked: books.asked(),
                ledgers: std::mem::take(&mut books.ledgers),
                gaps: books.gaps,
            });
        }
        self.found.roaming = Some(self.roaming);
        self.found
    }
}

/// As the specification writes it.
fn result_name(result: ResumeResult) -> &'static str {
    let name = result.as_str_name();
    name.strip_prefix("RESUME_RESULT_").unwrap_or(name)
}
