//! One run: everything that happens, in the order of simulated time.

use crate::client::ClientHost;
use crate::dice::Dice;
use crate::gateway::{ShardHost, WorkerHost};
use crate::limits::RateOracle;
use crate::network::{ConnId, NetEvent, Network};
use crate::oracle::{Asked, Oracle};
use crate::pauses::{PauseJudge, Process};
use crate::plant::Plant;
use crate::presence::PresenceOracle;
use crate::pushes::{Joining, PushOracle};
use crate::raw::RawHost;
use crate::reached::{Path, Reached};
use crate::scenario::Scenario;
use crate::service::{EndpointHost, Script};
use crate::sessions::SessionOracle;
use crate::tap::Tap;
use crate::trace::Trace;
use moorgate::base::clock::Now;
use moorgate::base::counters::{Cells, Count, Totals};
use moorgate::base::ids::{ConnectionKey, LinkKey};
use moorgate_proto::codec::Assembler;
use moorgate_proto::time::Mono;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Who holds one end of a connection.
#[derive(Debug, Clone, Copy)]
pub enum Owner {
    Client(usize),
    /// A client that speaks by hand.
    Raw(usize),
    /// Says what no client says, or is gone; hears nothing.
    Nobody,
    /// Waits to be accepted.
    Backlog,
    Shard(usize, ConnectionKey),
    Link(LinkKey),
    Service(usize, usize),
}

#[derive(Debug)]
pub enum Event {
    Net(NetEvent),
    ShardTurn(usize),
    WorkerTurn,
    Accept(ConnId, usize),
    /// In which start of the gateway, which link, which endpoint.
    Dialled(u32, LinkKey, usize),
    ClientConnects(usize),
    ClientActs(usize),
    Impatient(usize, ConnId),
    Probe(usize),
    Reply {
        endpoint: usize,
        link: usize,
        call_id: u64,
        script: Script,
    },
    EndpointUp(usize),
    Cut(ConnId),
    Stranger,
    Raw,
    RawSpeaks(usize),
    Jump,
    Restart,
    Pause,
    Leave,
    Fault,
    Calm,
    Pushes,
    LastPush,
    Drain,
}

/// Part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Everything goes wrong.
    Faults,
    /// Nothing does; what is left must mend.
    Calm,
    /// The gateway goes.
    Draining,
}

pub struct World {
    pub scenario: Scenario,
    pub now: Mono,
    pub dice: Dice,
    pub net: Network,
    pub owners: Vec<[Owner; 2]>,
    /// Sides that do not read before then.
    pub deaf: Vec<[Mono; 2]>,
    /// Connections with a side that was deaf once: what was under way on them may be old.
    pub was_deaf: Vec<bool>,
    /// Connections to services that the gateway has ended.
    pub given_up: BTreeSet<ConnId>,
    pub shards: Vec<ShardHost>,
    pub worker: WorkerHost,
    pub clients: Vec<ClientHost>,
    pub endpoints: Vec<EndpointHost>,
    pub oracle: Oracle,
    pub pushes: PushOracle,
    pub rates: RateOracle,
    pub push_serial: u64,
    /// Requests whose answers put their sessions into a group.
    pub joining: BTreeMap<(u32, u64), Joining>,
    pub trace: Trace,
    pub phase: Phase,
    pub plant: Option<Plant>,
    pub incarnations: u32,
    /// By this start of the gateway.
    pub accepted: u64,
    /// Starts of the gateway so far.
    pub boot: u32,
    /// What earlier starts have counted.
    pub past: Vec<Arc<Cells>>,
    /// How far the gateway's clock is ahead, and how far it has ever been.
    pub ahead_ms: u64,
    pub ahead_max_ms: u64,
    pub reached: Reached,
    /// By connection.
    pub taps: Vec<Tap>,
    pub sessions: SessionOracle,
    pub raws: Vec<RawHost>,
    pub presence: PresenceOracle,
    pub pauses: PauseJudge,
    /// When the faults end.
    pub calm_at: Mono,
    /// What a planted bug has read of what the gateway writes.
    pub rewriters: BTreeMap<ConnId, Assembler>,
    /// What the next thief says that it has, where a planted bug lets it in.
    pub claimed: Option<Vec<u8>>,
    /// Calls that a service has not answered, and will not before the calm.
    pub forgotten: Vec<(usize, usize, u64, Script)>,
    /// Calls of ordered routes without a reply: at which endpoint, on which link.
    pub running: BTreeMap<(usize, usize, u64), Asked>,
    queue: BTreeMap<(Mono, u64), Event>,
    serial: u64,
}

/// What a good run leaves behind.
pub struct Report {
    pub hash: u64,
    pub totals: Totals,
    pub reached: Reached,
    pub answered: u64,
    pub unanswered: u64,
    pub pushes: u64,
    pub gaps: u64,
    pub simulated: Duration,
}

const FAULTS: Duration = Duration::from_secs(25);
const LONG_FAULTS: Duration = Duration::from_secs(90);
const CALM: Duration = Duration::from_secs(45);
const PROBE_AFTER: Duration = Duration::from_secs(30);
/// From the first probe.
const LAST_PUSH_AFTER: Duration = Duration::from_secs(7);
const DRAIN: Duration = Duration::from_secs(20);

impl World {
    pub fn new(seed: u64, plant: Option<Plant>, traced: bool) -> World {
        let mut dice = Dice::new(seed);
        let scenario = Scenario::draw(&mut dice, plant);
        let shards = (0..scenario.shards).map(|id| ShardHost::new(id, &scenario, &mut dice)).collect();
        let worker = WorkerHost::new(&scenario, &mut dice);
        let clients = (0..scenario.clients).map(|_| ClientHost::new(&mut dice)).collect();
        let endpoints = (0..scenario.addresses.len()).map(|at| EndpointHost::new(at, &scenario)).collect();
        let now = Mono::ZERO + Duration::from_secs(1);
        // In a few there is room for the longest pauses.
        let faults = if dice.chance(4) { LONG_FAULTS } else { FAULTS };
        World {
            rates: RateOracle::new(scenario.limit_settings.connection),
            sessions: SessionOracle::new(&scenario),
            scenario,
            now,
            dice,
            net: Network::default(),
            owners: Vec::new(),
            deaf: Vec::new(),
            was_deaf: Vec::new(),
            given_up: BTreeSet::new(),
            shards,
            worker,
            clients,
            endpoints,
            oracle: Oracle::default(),
            pushes: PushOracle::default(),
            push_serial: 0,
            joining: BTreeMap::new(),
            trace: Trace::new(traced),
            phase: Phase::Faults,
            plant,
            incarnations: 0,
            accepted: 0,
            boot: 1,
            past: Vec::new(),
            ahead_ms: 0,
            ahead_max_ms: 0,
            reached: Reached::default(),
            taps: Vec::new(),
            raws: Vec::new(),
            presence: PresenceOracle::default(),
            pauses: PauseJudge::new(now),
            calm_at: now + faults,
            rewriters: BTreeMap::new(),
            claimed: None,
            forgotten: Vec::new(),
            running: BTreeMap::new(),
            queue: BTreeMap::new(),
            serial: 0,
        }
    }

    /// Runs to the end. The error is what the oracles object to.
    pub fn run(mut self) -> Result<Report, String> {
        let begun = self.now;
        self.start();
        let end = self.calm_at + CALM + DRAIN;
        while self.oracle.violation.is_none() {
            let event = self.queue.first_key_value().map_or(Mono::NEVER, |((at, _), _)| *at);
            let timer = self.next_timer();
            let next = self.pauses.next_continue();
            let go_on = next.map_or(Mono::NEVER, |(at, _)| at);
            if event.min(timer).min(go_on) >= end {
                break;
            }
            if let Some((at, process)) = next.filter(|_| go_on <= event.min(timer)) {
                self.now = self.now.max(at);
                self.continues(process);
            } else if timer < event {
                self.timers(timer);
            } else if let Some(((at, _), event)) = self.queue.pop_first() {
                self.now = self.now.max(at);
                self.beat();
                self.handle_unless_stopped(event);
            }
            self.wishes();
        }
        if self.oracle.violation.is_none() {
            self.now = end;
            self.judge();
        }
        match self.oracle.violation.take() {
            Some(violation) => Err(format!("at {:?}: {violation}", self.now.since(begun))),
            None => Ok(Report {
                hash: self.trace.hash(),
                totals: self.totals(),
                reached: self.reached_all(),
                answered: self.oracle.answered,
                unanswered: self.oracle.unanswered,
                pushes: self.pushes.delivered,
                gaps: self.pushes.gaps,
                simulated: self.now.since(begun),
            }),
        }
    }

    fn start(&mut self) {
        self.worker.forwarder.start(self.clock().mono);
        self.schedule(Duration::ZERO, Event::WorkerTurn);
        let faults = self.calm_at.since(self.now);
        for client in 0..self.clients.len() {
            let delay = self.dice.millis(0, 500);
            self.schedule(delay, Event::ClientConnects(client));
            self.schedule(delay, Event::ClientActs(client));
            let turn = Duration::from_secs(client as u64);
            self.schedule(faults + PROBE_AFTER + turn, Event::Probe(client));
        }
        self.schedule(Duration::from_millis(300), Event::Fault);
        self.schedule(Duration::from_millis(700), Event::Stranger);
        self.schedule(Duration::from_millis(500), Event::Pushes);
        self.schedule(Duration::from_millis(900), Event::Raw);
        if self.scenario.jumps {
            let delay = self.dice.millis(500, 20_000);
            self.schedule(delay, Event::Jump);
        }
        if self.scenario.restarts {
            let delay = self.dice.millis(3_000, 24_000);
            self.schedule(delay, Event::Restart);
        }
        if self.scenario.pauses {
            let delay = self.dice.millis(500, 6_000);
            self.schedule(delay, Event::Pause);
        }
        self.schedule(faults, Event::Calm);
        // After all probes: a large push holds up the answers behind it, on a pipe with little room.
        self.schedule(faults + PROBE_AFTER + LAST_PUSH_AFTER, Event::LastPush);
        if self.scenario.leave {
            self.schedule(faults + CALM, Event::Leave);
        } else {
            self.schedule(faults + CALM, Event::Drain);
        }
    }

    pub fn clock(&self) -> Now {
        let since = u64::try_from(self.now.since(Mono::ZERO).as_millis()).unwrap();
        Now { mono: self.pauses.reading(self.now), unix_ms: 1_800_000_000_000 + since + self.ahead_ms }
    }

    pub fn schedule(&mut self, delay: Duration, event: Event) {
        self.serial += 1;
        self.queue.insert((self.now + delay, self.serial), event);
    }

    /// Gives the network's wishes their time.
    pub fn wishes(&mut self) {
        for wish in std::mem::take(&mut self.net.wishes) {
            let delay = match wish {
                NetEvent::Arrive(..) => self.dice.millis(0, self.scenario.latency_ms),
                NetEvent::Writable(..) => self.dice.millis(0, 3),
                NetEvent::Broken(..) => self.dice.millis(0, 300),
            };
            self.schedule(delay, Event::Net(wish));
        }
    }

    /// A new connection, with its owners: who dialled, who accepts.
    pub fn connect(&mut self, dialler: Owner, accepter: Owner) -> ConnId {
        let room = if self.rewrites() { usize::MAX } else { self.scenario.room };
        let id = self.net.connect(room);
        self.owners.push([dialler, accepter]);
        self.deaf.push([Mono::ZERO; 2]);
        self.was_deaf.push(false);
        self.taps.push(Tap::default());
        id
    }

    /// How much of a write the socket takes: mostly all, at times a few bytes.
    pub fn appetite(&mut self) -> usize {
        if self.phase == Phase::Faults && self.dice.chance(20) {
            self.dice.between(1, 40) as usize
        } else {
            usize::MAX
        }
    }

    fn next_timer(&mut self) -> Mono {
        let is_late = self.plant == Some(Plant::NoTimers) && self.phase == Phase::Draining;
        let shards = self.shards.iter().filter(|_| !is_late).filter_map(|host| host.shard.next_deadline());
        let worker = self.worker.forwarder.next_deadline();
        // Of the gateway's clock.
        let gateway = shards.chain(worker).min().filter(|_| !self.pauses.is_stopped(Process::Gateway));
        let gateway = gateway.map(|due| self.now + due.since(self.clock().mono));
        let runs = |process| !self.pauses.is_stopped(process);
        let clients = self.clients.iter().enumerate().filter(|(at, _)| runs(Process::Client(*at)));
        let clients = clients.map(|(_, client)| client.next_deadline());
        let services = self.endpoints.iter().enumerate().filter(|(at, _)| runs(Process::Service(*at)));
        let links = services.flat_map(|(_, service)| service.next_deadlines());
        gateway.into_iter().chain(clients).chain(links).min().unwrap_or(Mono::NEVER)
    }

    fn timers(&mut self, due: Mono) {
        // The wheel may ask early; time goes on all the same.
        self.now = if due > self.now { due } else { self.now + Duration::from_micros(500) };
        self.beat();
        if !self.pauses.is_stopped(Process::Gateway) {
            self.gateway_timers();
        }
        for client in 0..self.clients.len() {
            let is_due = self.clients[client].next_deadline() <= self.now;
            if is_due && !self.pauses.is_stopped(Process::Client(client)) {
                self.client_timers(client);
            }
        }
        for endpoint in 0..self.endpoints.len() {
            if !self.pauses.is_stopped(Process::Service(endpoint)) {
                self.endpoint_timers(endpoint);
            }
        }
    }

    fn gateway_timers(&mut self) {
        let now = self.clock().mono;
        for shard in 0..self.shards.len() {
            let due = self.shards[shard].shard.next_deadline();
            if due.is_some_and(|due| due <= now) {
                self.shard_turn(shard);
            }
        }
        if self.worker.forwarder.next_deadline().is_some_and(|due| due <= now) {
            self.worker_turn();
        }
    }

    pub fn handle(&mut self, event: Event) {
        match event {
            Event::Net(event) => self.network(event),
            Event::ShardTurn(shard) => self.shard_turn(shard),
            Event::WorkerTurn => self.worker_turn(),
            Event::Accept(conn, shard) => self.accept(conn, shard),
            Event::Dialled(boot, key, endpoint) if boot == self.boot => self.dialled(key, endpoint),
            Event::Dialled(..) => {}
            Event::ClientConnects(client) => self.client_connects(client),
            Event::ClientActs(client) => self.client_acts(client),
            Event::Impatient(client, conn) => self.impatient(client, conn),
            Event::Probe(client) => self.probe(client),
            Event::Reply { endpoint, link, call_id, script } => self.reply(endpoint, link, call_id, script),
            Event::EndpointUp(endpoint) => self.endpoint_up(endpoint),
            Event::Cut(conn) => self.net.cut(conn),
            Event::Stranger => self.stranger(),
            Event::Raw => self.raw(),
            Event::RawSpeaks(raw) => self.raw_speaks(raw),
            Event::Jump => self.jump(),
            Event::Restart => self.restart(),
            Event::Pause => self.some_pause(),
            Event::Leave => self.leave(),
            Event::Fault => self.fault(),
            Event::Calm => self.calm(),
            Event::Pushes => self.some_pushes(),
            Event::LastPush => self.last_push(),
            Event::Drain => self.drain(),
        }
    }

    /// Whoever was given orders by another thread is woken.
    pub fn wake_ordered(&mut self) {
        for shard in 0..self.shards.len() {
            if self.shards[shard].shard.has_orders() {
                self.wake_shard(shard);
            }
        }
        if self.worker.forwarder.has_presence() {
            self.wake_worker();
        }
    }

    /// A turn comes soon; what arrives before it belongs to it.
    pub fn wake_shard(&mut self, shard: usize) {
        let delay = self.dice.millis(0, 2);
        self.schedule(delay, Event::ShardTurn(shard));
    }

    pub fn wake_worker(&mut self) {
        let delay = self.dice.millis(0, 2);
        self.schedule(delay, Event::WorkerTurn);
    }

    fn cells(&self) -> impl Iterator<Item = &Cells> {
        let shards = self.shards.iter().map(|host| host.cells.as_ref());
        shards.chain([self.worker.cells.as_ref()])
    }

    /// Of this start of the gateway.
    pub fn totals_now(&self) -> Totals {
        Totals::of(self.cells())
    }

    /// With what the gateway's own counters say.
    fn reached_all(&self) -> Reached {
        let mut reached = self.reached.clone();
        if self.totals().value(Count::DetachedEvicted) > 0 {
            self.scenario.cap.path().into_iter().for_each(|path| reached.note(path));
        }
        reached
    }

    pub fn reach(&mut self, path: Path) {
        self.reached.note(path);
    }

    fn totals(&self) -> Totals {
        let past = self.past.iter().map(Arc::as_ref);
        Totals::of(past.chain(self.cells()))
    }
}
