//! One run: workers of a gateway, instances of services, a registry, and time.

use crate::dice::Dice;
use crate::governance::backend::{Backend, Script, State};
use crate::governance::blame::Failing;
use crate::governance::judge::{CallId, Judge};
use crate::governance::plant::Plant;
use crate::governance::registry::{Mood, Registry};
use crate::governance::scenario::{BYSTANDER_AT, CHAT, Scenario, address};
use crate::governance::sides::Split;
use crate::trace::Trace;
use moorgate::base::clock::Now;
use moorgate::base::counters::{Cells, Totals};
use moorgate::base::ids::{LinkKey, ShardId, WorkerId};
use moorgate::forward::{Forwarder, LinkCommand, Parts};
use moorgate::relay::{Delivery, ForwardBatch};
use moorgate::routing::{Decided, Marks, Pools};
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1;
use moorgate_service::core::LinkCore;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub type ConnId = usize;

/// Bytes on their way on one connection before its writer has to wait.
const ROOM: usize = 16 * 1024;
const SHARD: ShardId = ShardId(0);

#[derive(Debug, Clone)]
pub enum Event {
    /// A worker has something to do, or a timer.
    Turn(usize),
    /// Somebody asks for something.
    Load,
    /// Bytes for an instance are there.
    ToBackend(ConnId, Vec<u8>),
    ToWorker(ConnId, Vec<u8>),
    /// The dialled connection stands, or not.
    Dialled(ConnId),
    /// A worker learns that a connection is dead.
    Broken(ConnId),
    Answer(ConnId, u64, Script),
    Fault,
    Poll,
    /// The canary gets another share.
    Shift,
}

pub struct Conn {
    pub worker: usize,
    pub backend: usize,
    pub key: LinkKey,
    pub core: Option<LinkCore>,
    /// Bytes that the instance has not read.
    pub to_backend: Vec<u8>,
    /// Bytes that are under way there, or not read.
    pub unread: usize,
    /// The worker waits for room.
    waiting: bool,
    pub alive: bool,
    /// Answers of a process that stands still.
    pub late: Vec<(u64, Script)>,
    /// Calls that the instance has and has not answered.
    pub open: BTreeMap<u64, CallId>,
}

pub struct Worker {
    pub forwarder: Forwarder,
    cells: Arc<Cells>,
    conns: BTreeMap<usize, ConnId>,
    pub inbox: ForwardBatch,
    version: u64,
    wake: Mono,
    /// By the index of their tickets.
    pub calls: Vec<Option<CallId>>,
    pub generation: u32,
}

pub struct World {
    pub now: Mono,
    pub dice: Dice,
    pub scenario: Scenario,
    pub plant: Option<Plant>,
    pub trace: Trace,
    pub judge: Judge,
    pub pools: Arc<Pools>,
    pub workers: Vec<Worker>,
    pub backends: Vec<Backend>,
    pub conns: Vec<Conn>,
    pub registry: Registry,
    queue: BTreeMap<(Mono, u64), Event>,
    scheduled: u64,
    pub next_call: u64,
    pub loading: bool,
    /// What fails on every instance.
    pub failing: Option<Failing>,
}

/// What a run has seen.
pub struct Report {
    pub hash: u64,
    pub simulated: Duration,
    pub settled: u64,
    pub ok: u64,
    pub retried: u64,
    /// Calls that found all at their bounds, where these follow the latency.
    pub bounded: u64,
    pub totals: Totals,
}

impl World {
    pub fn new(seed: u64, plant: Option<Plant>, traced: bool) -> World {
        let mut dice = Dice::new(seed ^ 0x676f_7665_726e);
        let scenario = Scenario::draw(&mut dice, plant);
        let pools = Arc::new(Pools::of(&scenario.services));
        let workers = (0..scenario.workers).map(|at| worker(at, &scenario, &pools, &mut dice)).collect();
        let mut backends: Vec<Backend> =
            (0..scenario.backends).map(|at| Backend::new("chat", at, address(at))).collect();
        backends.push(Backend::new("bystander", BYSTANDER_AT, address(BYSTANDER_AT)));
        World {
            now: Mono::ZERO + Duration::from_secs(1),
            registry: Registry::new((0..scenario.backends).collect()),
            judge: Judge::new(&scenario),
            trace: Trace::new(traced),
            dice,
            plant,
            pools,
            workers,
            backends,
            conns: Vec::new(),
            queue: BTreeMap::new(),
            scheduled: 0,
            next_call: 0,
            loading: true,
            failing: None,
            scenario,
        }
    }

    pub fn schedule(&mut self, after: Duration, event: Event) {
        self.scheduled += 1;
        self.queue.insert((self.now + after, self.scheduled), event);
    }

    pub fn run(mut self) -> Result<Report, String> {
        let began = self.now;
        for at in 0..self.workers.len() {
            self.workers[at].forwarder.start(self.now);
            self.schedule(Duration::ZERO, Event::Turn(at));
        }
        self.schedule(Duration::ZERO, Event::Poll);
        // Links have to stand before the bystander can be held to anything.
        self.go_on(Duration::from_secs(1))?;
        self.schedule(Duration::ZERO, Event::Load);
        if !self.scenario.hashes() && (self.plant == Some(Plant::CallerUnknown) || self.dice.chance(30)) {
            self.some_calls_fail()?;
        }
        if self.scenario.backends > 3 && self.dice.chance(50) {
            self.one_fails()?;
        }
        if let Split::Canary(_) = self.scenario.split {
            self.schedule(Duration::ZERO, Event::Shift);
        }
        if self.dice.chance(50) {
            self.one_side_fails()?;
        }
        self.schedule(Duration::ZERO, Event::Fault);
        let faults = self.scenario.faults;
        self.go_on(faults)?;
        self.heal();
        let recovery = self.scenario.recovery_max() + Duration::from_secs(5);
        self.go_on(recovery)?;
        self.judge.calm();
        self.go_on(Duration::from_secs(6))?;
        self.all_are_fed();
        self.loading = false;
        let rest = self.scenario.timeout + self.scenario.forward.late_reply_grace + Duration::from_secs(1);
        self.go_on(rest)?;
        self.end(began)
    }

    /// One instance answers each call with a failure for a while, all others being well.
    fn one_fails(&mut self) -> Result<(), String> {
        self.go_on(Duration::from_secs(2))?;
        let (at, time) = (self.dice.index(self.scenario.backends), Duration::from_secs(4));
        self.become_(at, State::FailsFast);
        self.go_on(time)?;
        self.judge.suffered(at, time, &self.scenario);
        self.become_(at, State::Up);
        Ok(())
    }

    pub fn go_on(&mut self, time: Duration) -> Result<(), String> {
        let until = self.now + time;
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= until) {
            self.now = entry.key().0;
            let event = entry.remove();
            self.happen(event);
            if let Some(first) = self.judge.violations.first() {
                return Err(first.clone());
            }
        }
        self.now = until;
        Ok(())
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Turn(at) => self.turn(at),
            Event::Load => self.load(),
            Event::ToBackend(id, bytes) => {
                self.conns[id].to_backend.extend(bytes);
                self.backend_received(id);
            }
            Event::ToWorker(id, bytes) => {
                if self.conns[id].alive {
                    let (worker, key) = (self.conns[id].worker, self.conns[id].key);
                    let now = self.clock();
                    self.workers[worker].forwarder.received(now, key, &bytes);
                    self.schedule(Duration::ZERO, Event::Turn(worker));
                }
            }
            Event::Dialled(id) => self.dialled(id),
            Event::Broken(id) => {
                let (worker, key) = (self.conns[id].worker, self.conns[id].key);
                if self.workers[worker].conns.remove(&key.index()).is_some() {
                    self.workers[worker].forwarder.link_lost(self.now, key, &"reset");
                    self.schedule(Duration::ZERO, Event::Turn(worker));
                }
            }
            Event::Answer(id, call_id, script) => self.answer(id, call_id, script),
            Event::Fault => self.fault(),
            Event::Shift => self.shift(),
            Event::Poll => {
                self.poll();
                self.schedule(self.scenario.poll, Event::Poll);
            }
        }
    }

    fn clock(&self) -> Now {
        Now { mono: self.now, unix_ms: 1_800_000_000_000 + self.now.as_nanos() / 1_000_000 }
    }

    /// Something goes wrong, or right again.
    fn fault(&mut self) {
        if self.judge.is_healed() {
            return;
        }
        let at = self.dice.index(self.scenario.backends);
        let states = [
            State::Slow,
            State::FailsFast,
            State::Busy,
            State::Stalled,
            State::Vanished,
            State::Crashed,
            State::Draining,
        ];
        if self.dice.chance(30) {
            let mood = Mood::ALL[self.dice.index(Mood::ALL.len())];
            self.registry.turns(mood);
        } else if self.backends[at].state == State::Up {
            let state = states[self.dice.index(states.len())];
            self.become_(at, state);
            match state {
                State::Draining => drop(self.registry.truth.remove(&at)),
                // Its entry is deleted when its checks have failed for long enough, or never.
                State::Crashed | State::Vanished if self.dice.chance(50) => {
                    self.registry.truth.remove(&at);
                }
                _ => {}
            }
        } else {
            self.becomes_well(at);
        }
        let pause = self.dice.millis(200, 4_000);
        self.schedule(pause, Event::Fault);
    }

    fn becomes_well(&mut self, at: usize) {
        self.become_(at, State::Up);
        self.registry.truth.insert(at);
    }

    fn heal(&mut self) {
        for at in 0..self.scenario.backends {
            if self.backends[at].state != State::Up {
                self.becomes_well(at);
            }
        }
        self.registry.turns(Mood::Honest);
        self.judge.heal();
    }

    /// Everybody who is well and listed gets load again.
    fn all_are_fed(&mut self) {
        for at in 0..self.scenario.backends {
            if self.scenario.split.gets_load(at) && !self.judge.fed.contains(&at) {
                self.judge.violated(format!("instance {at} is well, and gets no load"));
            }
        }
        let addresses = |list: &[moorgate::routing::Instance]| {
            let mut all: Vec<SocketAddr> = list.iter().map(|instance| instance.address).collect();
            all.sort();
            all
        };
        let (is, should) = (addresses(&self.registry.published), (0..self.scenario.backends).map(address));
        if is != should.collect::<Vec<_>>() {
            self.judge.violated(format!("published is {is:?}, after the registry has been right for long"));
        }
    }

    fn turn(&mut self, at: usize) {
        let now = self.now;
        let worker = &mut self.workers[at];
        let version = self.pools.version();
        if std::mem::replace(&mut worker.version, version) != version {
            worker.forwarder.refresh(now);
        }
        let batch = worker.inbox.take();
        worker.forwarder.forward(now, &batch);
        worker.forwarder.timers(now);
        self.deliver(at);
        self.flush(at);
        self.commands(at);
        self.deliver(at);
        let worker = &mut self.workers[at];
        if let Some(due) = worker.forwarder.next_deadline()
            && (worker.wake <= now || due < worker.wake)
        {
            worker.wake = due.max(now + Duration::from_micros(1));
            let after = worker.wake.since(now);
            self.schedule(after, Event::Turn(at));
        }
    }

    fn deliver(&mut self, at: usize) {
        while let Some(batch) = self.workers[at].forwarder.deliveries(SHARD) {
            for delivery in &batch.deliveries {
                let Delivery::Settled(settled) = delivery else { continue };
                let Some(id) = self.workers[at].calls[settled.ticket.index()].take() else {
                    self.judge.violated(format!("{:?} was settled twice", settled.ticket));
                    continue;
                };
                let mut outcome = settled.outcome;
                match self.plant {
                    Some(Plant::NoFallback) if settled.decision.marks.has(Marks::FALLBACK) => {
                        outcome.code = Code::Unavailable;
                    }
                    Some(Plant::LostSettlement) if self.dice.below(100) == 0 => continue,
                    Some(Plant::FalseWord) if self.dice.below(100) == 0 => {
                        outcome.execution = v1::Execution::NotExecuted;
                    }
                    _ => {}
                }
                self.trace.note(self.now, "settled", (id.0, outcome.code as u64), || {
                    format!("{id:?}: {outcome:?}, {:?}", settled.decision)
                });
                self.judge.settled(self.now, id, outcome);
            }
        }
    }

    fn flush(&mut self, at: usize) {
        while let Some(key) = self.workers[at].forwarder.next_flush() {
            let Some(id) = self.workers[at].conns.get(&key.index()).copied() else { continue };
            let room = ROOM.saturating_sub(self.conns[id].unread);
            let unsent = self.workers[at].forwarder.unsent(key);
            let whole = unsent.len();
            let most = if self.dice.chance(5) { self.dice.index(64) } else { whole };
            let count = whole.min(room).min(most);
            let bytes = unsent[..count].to_vec();
            self.workers[at].forwarder.sent(self.now, key, count);
            self.conns[id].unread += count;
            if count < whole {
                self.conns[id].waiting = true;
                if count < room.min(whole) {
                    self.writable_again(id);
                }
            }
            if count > 0 {
                self.schedule(self.scenario.latency, Event::ToBackend(id, bytes));
            }
        }
    }

    /// The instance has read: there is room again.
    pub fn writable_again(&mut self, id: ConnId) {
        let conn = &mut self.conns[id];
        if std::mem::take(&mut conn.waiting) && conn.alive {
            let (worker, key) = (conn.worker, conn.key);
            self.workers[worker].forwarder.writable(key);
            self.schedule(Duration::from_micros(50), Event::Turn(worker));
        }
    }

    fn commands(&mut self, at: usize) {
        while let Some(command) = self.workers[at].forwarder.next_command() {
            match command {
                LinkCommand::Close(key) => {
                    if let Some(id) = self.workers[at].conns.remove(&key.index()) {
                        self.conns[id].alive = false;
                    }
                }
                LinkCommand::EndStream(key) => {
                    // Who reads the end closes.
                    if let Some(id) = self.workers[at].conns.get(&key.index()) {
                        self.schedule(self.scenario.latency * 2, Event::Broken(*id));
                    }
                }
                LinkCommand::Dial(key, to) => {
                    // A place where nobody is answers as a host that is gone does.
                    let backend = self.at(to).unwrap_or(usize::MAX);
                    let id = self.conns.len();
                    self.conns.push(Conn {
                        worker: at,
                        backend,
                        key,
                        core: None,
                        to_backend: Vec::new(),
                        unread: 0,
                        waiting: false,
                        alive: true,
                        late: Vec::new(),
                        open: BTreeMap::new(),
                    });
                    self.workers[at].conns.insert(key.index(), id);
                    self.schedule(self.scenario.latency, Event::Dialled(id));
                }
            }
        }
    }

    fn dialled(&mut self, id: ConnId) {
        let Conn { worker, backend, key, alive, .. } = self.conns[id];
        let Some(state) = self.backends.get(backend).map(|backend| backend.state).filter(|_| alive) else {
            return;
        };
        match state {
            State::Vanished => {}
            State::Crashed => self.happen(Event::Broken(id)),
            _ => {
                self.accept(id);
                let nonce = [self.dice.next() as u8; 32];
                self.workers[worker].forwarder.connected(self.now, key, nonce);
                self.schedule(Duration::ZERO, Event::Turn(worker));
            }
        }
    }

    /// A connection is dead; its worker hears of it a little later.
    pub fn cut(&mut self, id: ConnId) {
        self.conns[id].alive = false;
        self.conns[id].core = None;
        self.schedule(self.scenario.latency, Event::Broken(id));
    }

    fn end(mut self, began: Mono) -> Result<Report, String> {
        let time = self.now.since(began);
        self.judge.end(&self.scenario, time);
        for (at, worker) in self.workers.iter_mut().enumerate() {
            let left = (worker.forwarder.calls(), worker.forwarder.links());
            let links = usize::from(self.scenario.forward.links_per_endpoint) * self.backends.len();
            if left != (0, links) {
                self.judge.violated(format!(
                    "worker {at} is left with {left:?} calls and links, not 0 and {links}"
                ));
            }
            worker.forwarder.check_invariants();
            worker.forwarder.stop(self.now);
        }
        let totals = Totals::of(self.workers.iter().map(|worker| worker.cells.as_ref()));
        match self.judge.violations.first() {
            Some(first) => Err(first.clone()),
            None => Ok(Report {
                hash: self.trace.hash(),
                simulated: time,
                settled: self.judge.settled,
                ok: self.judge.ok,
                retried: self.judge.retried,
                bounded: self.pools.decided(CHAT, Decided::Bounded),
                totals,
            }),
        }
    }
}

fn worker(at: usize, scenario: &Scenario, pools: &Arc<Pools>, dice: &mut Dice) -> Worker {
    let cells = Arc::new(Cells::default());
    let alone = Parts::alone(scenario.services.clone(), moorgate::routing::RouteTable::default());
    let forwarder = Forwarder::new(Parts {
        id: WorkerId(at as u16),
        settings: scenario.forward.clone(),
        boot_id: 1,
        pools: pools.clone(),
        routes: scenario.routes.clone(),
        cells: cells.clone(),
        seed: dice.next(),
        ..alone
    });
    Worker {
        forwarder,
        cells,
        conns: BTreeMap::new(),
        inbox: ForwardBatch { shard: SHARD, ..ForwardBatch::default() },
        version: pools.version(),
        wake: Mono::ZERO,
        calls: Vec::new(),
        generation: 0,
    }
}
