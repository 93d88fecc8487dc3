//! One run: everything that happens, in the order of simulated time.

use crate::client::ClientHost;
use crate::dice::Dice;
use crate::gateway::{ShardHost, WorkerHost};
use crate::limits::RateOracle;
use crate::network::{Arrived, ConnId, NetEvent, Network, Side};
use crate::oracle::{Asked, Oracle};
use crate::pushes::{Joining, PushOracle};
use crate::scenario::Scenario;
use crate::service::{EndpointHost, Script};
use crate::trace::Trace;
use moorgate::base::clock::Now;
use moorgate::base::counters::Totals;
use moorgate::base::ids::{ConnectionKey, LinkKey};
use moorgate_proto::time::Mono;
use std::collections::BTreeMap;
use std::time::Duration;

/// A bug that is put in on purpose, to see that an oracle finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// A settlement is lost between worker and shard.
    LostSettlement,
    /// A settlement says NOT_EXECUTED where nothing is known.
    FalseWord,
    /// A socket is not closed when its connection has ended.
    LeakedSocket,
    /// A connection is counted twice.
    CountedTwice,
    /// An ordered route is served like any other.
    NoOrder,
    /// Connections have no rate.
    NoRate,
    /// A request keeps its place among the outstanding ones for ever.
    LeakedPlace,
    /// A push is lost between worker and shard.
    LostPush,
    /// A push is handed to a shard twice.
    PushTwice,
    /// A push goes to everyone on a shard.
    PushAstray,
    /// Nobody is told that a user has come or gone.
    LostPresence,
}

/// Who holds one end of a connection.
#[derive(Debug, Clone, Copy)]
pub enum Owner {
    Client(usize),
    /// Says what no client says; hears nothing.
    Stranger,
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
    Dialled(LinkKey, usize),
    ClientConnects(usize),
    ClientActs(usize),
    Probe(usize),
    Reply { endpoint: usize, link: usize, call_id: u64, script: Script },
    EndpointUp(usize),
    Cut(ConnId),
    Stranger,
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
    pub accepted: u64,
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
    pub answered: u64,
    pub unanswered: u64,
    pub pushes: u64,
    pub gaps: u64,
    pub simulated: Duration,
}

const FAULTS: Duration = Duration::from_secs(25);
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
        World {
            rates: RateOracle::new(scenario.limit_settings.connection),
            scenario,
            now: Mono::ZERO + Duration::from_secs(1),
            dice,
            net: Network::default(),
            owners: Vec::new(),
            deaf: Vec::new(),
            was_deaf: Vec::new(),
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
        let end = self.now + FAULTS + CALM + DRAIN;
        while self.oracle.violation.is_none() {
            let event = self.queue.first_key_value().map_or(Mono::NEVER, |((at, _), _)| *at);
            let timer = self.next_timer();
            if event.min(timer) >= end {
                break;
            }
            if timer < event {
                self.timers(timer);
            } else if let Some(((at, _), event)) = self.queue.pop_first() {
                self.now = self.now.max(at);
                self.handle(event);
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
                answered: self.oracle.answered,
                unanswered: self.oracle.unanswered,
                pushes: self.pushes.delivered,
                gaps: self.pushes.gaps,
                simulated: self.now.since(begun),
            }),
        }
    }

    fn start(&mut self) {
        self.worker.forwarder.start(self.now);
        self.schedule(Duration::ZERO, Event::WorkerTurn);
        for client in 0..self.clients.len() {
            let delay = self.dice.millis(0, 500);
            self.schedule(delay, Event::ClientConnects(client));
            self.schedule(delay, Event::ClientActs(client));
            let turn = Duration::from_secs(client as u64);
            self.schedule(FAULTS + PROBE_AFTER + turn, Event::Probe(client));
        }
        self.schedule(Duration::from_millis(300), Event::Fault);
        self.schedule(Duration::from_millis(700), Event::Stranger);
        self.schedule(Duration::from_millis(500), Event::Pushes);
        self.schedule(FAULTS, Event::Calm);
        // After all probes: a large push holds up the answers behind it, on a pipe with little room.
        self.schedule(FAULTS + PROBE_AFTER + LAST_PUSH_AFTER, Event::LastPush);
        self.schedule(FAULTS + CALM, Event::Drain);
    }

    pub fn clock(&self) -> Now {
        let since = u64::try_from(self.now.since(Mono::ZERO).as_millis()).unwrap();
        Now { mono: self.now, unix_ms: 1_800_000_000_000 + since }
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
        let id = self.net.connect(self.scenario.room);
        self.owners.push([dialler, accepter]);
        self.deaf.push([Mono::ZERO; 2]);
        self.was_deaf.push(false);
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
        let shards = self.shards.iter().filter_map(|host| host.shard.next_deadline());
        let clients = self.clients.iter().map(ClientHost::next_deadline);
        let links = self.endpoints.iter().flat_map(EndpointHost::next_deadlines);
        let worker = self.worker.forwarder.next_deadline();
        shards.chain(worker).chain(clients).chain(links).min().unwrap_or(Mono::NEVER)
    }

    fn timers(&mut self, due: Mono) {
        // The wheel may ask early; time goes on all the same.
        self.now = if due > self.now { due } else { self.now + Duration::from_micros(500) };
        let now = self.now;
        for shard in 0..self.shards.len() {
            if self.shards[shard].shard.next_deadline().is_some_and(|due| due <= now) {
                self.shard_turn(shard);
            }
        }
        if self.worker.forwarder.next_deadline().is_some_and(|due| due <= now) {
            self.worker_turn();
        }
        for client in 0..self.clients.len() {
            if self.clients[client].next_deadline() <= now {
                self.client_timers(client);
            }
        }
        for endpoint in 0..self.endpoints.len() {
            self.endpoint_timers(endpoint);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Net(event) => self.network(event),
            Event::ShardTurn(shard) => self.shard_turn(shard),
            Event::WorkerTurn => self.worker_turn(),
            Event::Accept(conn, shard) => self.accept(conn, shard),
            Event::Dialled(key, endpoint) => self.dialled(key, endpoint),
            Event::ClientConnects(client) => self.client_connects(client),
            Event::ClientActs(client) => self.client_acts(client),
            Event::Probe(client) => self.probe(client),
            Event::Reply { endpoint, link, call_id, script } => self.reply(endpoint, link, call_id, script),
            Event::EndpointUp(endpoint) => self.endpoints[endpoint].up = true,
            Event::Cut(conn) => self.net.cut(conn),
            Event::Stranger => self.stranger(),
            Event::Fault => self.fault(),
            Event::Calm => self.calm(),
            Event::Pushes => self.some_pushes(),
            Event::LastPush => self.last_push(),
            Event::Drain => self.drain(),
        }
    }

    fn network(&mut self, event: NetEvent) {
        let (conn, side) = match event {
            NetEvent::Arrive(conn, side) | NetEvent::Writable(conn, side) | NetEvent::Broken(conn, side) => {
                (conn, side)
            }
        };
        let owner = self.owners[conn][side as usize];
        self.trace.note(self.now, "net", (conn as u64, side as u64), || format!("{event:?} for {owner:?}"));
        match event {
            NetEvent::Arrive(..) => self.arrive(conn, side, owner),
            NetEvent::Writable(..) => match owner {
                Owner::Client(client) => self.client_writable(client, conn),
                Owner::Shard(shard, key) => {
                    self.shards[shard].shard.writable(key);
                    self.schedule(Duration::ZERO, Event::ShardTurn(shard));
                }
                Owner::Link(key) => {
                    self.worker.forwarder.writable(key);
                    self.schedule(Duration::ZERO, Event::WorkerTurn);
                }
                Owner::Service(endpoint, link) => self.service_writable(endpoint, link),
                Owner::Stranger | Owner::Backlog => {}
            },
            NetEvent::Broken(..) => self.ended(owner),
        }
    }

    fn arrive(&mut self, conn: ConnId, side: Side, owner: Owner) {
        let deaf = self.deaf[conn][side as usize];
        if deaf > self.now || matches!(owner, Owner::Backlog) {
            let delay = deaf.since(self.now).max(Duration::from_millis(2));
            if !self.net.is_over(conn) {
                self.schedule(delay, Event::Net(NetEvent::Arrive(conn, side)));
            }
            return;
        }
        let most = if self.dice.chance(30) { self.dice.between(1, 30) as usize } else { 64 * 1024 };
        match self.net.read(conn, side, most) {
            Arrived::Nothing => {}
            Arrived::End => self.ended(owner),
            Arrived::Bytes(bytes) => {
                self.trace.note(self.now, "bytes", (conn as u64, bytes.len() as u64), || {
                    format!("{} bytes for {owner:?}", bytes.len())
                });
                self.received(owner, &bytes);
            }
        }
    }

    fn received(&mut self, owner: Owner, bytes: &[u8]) {
        let now = self.clock();
        match owner {
            Owner::Client(client) => self.client_received(client, bytes),
            Owner::Shard(shard, key) => {
                self.shards[shard].shard.received(now, key, bytes);
                self.wake_shard(shard);
            }
            Owner::Link(key) => {
                self.worker.forwarder.received(now, key, bytes);
                self.wake_worker();
            }
            Owner::Service(endpoint, link) => self.service_received(endpoint, link, bytes),
            Owner::Stranger | Owner::Backlog => {}
        }
    }

    /// The other side's end has come, or the connection is dead.
    fn ended(&mut self, owner: Owner) {
        let now = self.clock();
        match owner {
            Owner::Client(client) => self.client_lost(client),
            Owner::Shard(shard, key) => {
                self.shards[shard].shard.peer_closed(now, key);
                self.wake_shard(shard);
            }
            Owner::Link(key) => {
                self.worker.forwarder.link_lost(now.mono, key, &"the service closed it");
                self.wake_worker();
            }
            Owner::Service(endpoint, link) => self.service_lost(endpoint, link),
            Owner::Stranger | Owner::Backlog => {}
        }
    }

    /// Whoever was given orders by another thread is woken.
    pub fn wake_ordered(&mut self) {
        for shard in 0..self.shards.len() {
            if self.shards[shard].shard.has_orders() {
                self.wake_shard(shard);
            }
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

    fn living(&mut self) -> Option<ConnId> {
        let living: Vec<ConnId> = (0..self.net.len()).filter(|conn| !self.net.is_over(*conn)).collect();
        (!living.is_empty()).then(|| living[self.dice.index(living.len())])
    }

    fn fault(&mut self) {
        if self.phase != Phase::Faults {
            return;
        }
        let again = self.dice.millis(100, 1500);
        self.schedule(again, Event::Fault);
        let Some(conn) = self.living() else { return };
        let side = if self.dice.chance(50) { Side::Dialler } else { Side::Accepter };
        let kind = self.dice.below(12);
        self.trace
            .note(self.now, "fault", (conn as u64, kind), || format!("fault {kind} on connection {conn}"));
        match kind {
            0..=2 => self.net.cut(conn),
            3 | 4 => {
                self.net.silence(conn);
                let delay = self.dice.millis(5_000, 20_000);
                self.schedule(delay, Event::Cut(conn));
            }
            5 | 6 => {
                let until = self.now + self.dice.millis(500, 12_000);
                self.deaf[conn][side as usize] = until;
                self.was_deaf[conn] = true;
                self.schedule(until.since(self.now), Event::Net(NetEvent::Arrive(conn, side)));
            }
            7 => {
                let endpoint = self.dice.index(self.endpoints.len());
                self.endpoint_down(endpoint);
                let delay = self.dice.millis(100, 4_000);
                self.schedule(delay, Event::EndpointUp(endpoint));
            }
            8 => {
                let endpoint = self.dice.index(self.endpoints.len());
                self.endpoint_drains(endpoint);
            }
            9 | 10 => {
                let endpoint = self.dice.index(self.endpoints.len());
                self.endpoint_speaks_of_itself(endpoint);
            }
            _ => {
                let endpoint = self.dice.index(self.endpoints.len());
                self.endpoint_talks_garbage(endpoint);
            }
        }
    }

    fn stranger(&mut self) {
        if self.phase != Phase::Faults {
            return;
        }
        let again = self.dice.millis(1_000, 6_000);
        self.schedule(again, Event::Stranger);
        let shard = self.dice.index(self.shards.len());
        let conn = self.connect(Owner::Stranger, Owner::Backlog);
        let words: &[u8] = match self.dice.below(6) {
            0 => b"",
            1 => &[0, 0],
            2 => &[0, 0, 0, 0],
            3 => b"GET / HTTP/1.1\r\n\r\n",
            4 => &[0, 0, 0, 40, 0x42, 2],
            _ => &[0, 0, 0, 2, 0x4a, 0],
        };
        self.net.write(conn, Side::Dialler, words, usize::MAX);
        let (accept, leave) = (self.dice.millis(0, 20), self.dice.millis(3_000, 15_000));
        self.schedule(accept, Event::Accept(conn, shard));
        self.schedule(leave, Event::Cut(conn));
    }

    fn calm(&mut self) {
        self.phase = Phase::Calm;
        self.trace.note(self.now, "calm", (0, 0), || "calm".to_owned());
        self.endpoints_are_well();
        for (endpoint, link, call_id, script) in std::mem::take(&mut self.forgotten) {
            self.reply(endpoint, link, call_id, script);
        }
        for conn in 0..self.net.len() {
            self.deaf[conn] = [Mono::ZERO; 2];
            for side in [Side::Dialler, Side::Accepter] {
                self.schedule(Duration::ZERO, Event::Net(NetEvent::Arrive(conn, side)));
            }
        }
    }

    fn drain(&mut self) {
        self.oracle.all_heard();
        if let Some(problem) = self.pushes.complete() {
            self.oracle.violated(problem);
        }
        self.judge_presence();
        for at in 0..self.clients.len() {
            if let Some(problem) = self.clients[at].problem() {
                self.oracle.violated(format!("client {at}: {problem}"));
            }
        }
        self.phase = Phase::Draining;
        self.trace.note(self.now, "drain", (0, 0), || "drain".to_owned());
        let now = self.clock();
        for shard in 0..self.shards.len() {
            self.shards[shard].shard.drain(now, Duration::from_secs(3));
            self.wake_shard(shard);
        }
    }

    /// What is left at the end.
    fn judge(&mut self) {
        self.oracle.all_heard();
        self.oracle.executions_were_true();
        for at in 0..self.shards.len() {
            if let Some(left) = self.shards[at].left() {
                self.oracle.violated(format!("shard {at} is left with {left}"));
            }
        }
        if self.worker.forwarder.calls() > 0 {
            self.oracle.violated(format!("the worker is left with {} calls", self.worker.forwarder.calls()));
        }
        let checks = self.worker.forwarder.checks();
        let directory = &self.scenario.directory;
        let reserved: usize = directory.shards().map(|shard| directory.reserved(shard)).sum();
        let left = [
            (directory.users(), "users in the directory"),
            (directory.groups(), "groups in the directory"),
            (reserved, "deliveries for which room is taken"),
            (self.scenario.pushes.value(), "bytes of pushes"),
            (checks, "questions about sessions"),
        ];
        if let Some((count, what)) = left.iter().find(|(count, _)| *count > 0) {
            self.oracle.violated(format!("at the end there are {count} {what}"));
        }
        if let Some(left) = self.left_of_limits() {
            self.oracle.violated(left);
        }
        self.worker.forwarder.stop(self.now);
        self.worker_turn();
        if self.worker.forwarder.links() > 0 || !self.worker.sockets.is_empty() {
            self.oracle.violated("the worker is left with links".to_owned());
        }
        let (totals, accepted) = (self.totals(), self.accepted);
        if let Some(problem) = crate::gateway::unbalanced(&totals, accepted) {
            self.oracle.violated(problem);
        }
    }

    fn totals(&self) -> Totals {
        let shards = self.shards.iter().map(|host| host.cells.as_ref());
        Totals::of(shards.chain([self.worker.cells.as_ref()]))
    }
}
