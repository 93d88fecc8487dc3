//! The gateway's cores, driven as the reactor drives them: turns, mailboxes with little room, short writes.

use crate::dice::Dice;
use crate::network::{ConnId, NetEvent, Side};
use crate::plant::Plant;
use crate::reached::Path;
use crate::scenario::Scenario;
use crate::world::{Event, Owner, Phase, World};
use moorgate::base::counters::{Cells, Count, Totals};
use moorgate::base::ids::{ConnectionKey, LinkKey, ShardId, WorkerId};
use moorgate::directory::RecentPushes;
use moorgate::forward::{self, Forwarder, LinkCommand, Readiness};
use moorgate::relay::{DeliveryBatch, ForwardBatch, Receipt};
use moorgate::routing::Pools;
use moorgate::shard::{self, End, HandOver, Shard};
use moorgate_proto::status::Code;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What may wait on a link above its bound: answers to its service, and the call that went above it.
const ABOVE_MAX: usize = 1024 * 1024 + 64 * 1024;

pub struct ShardHost {
    pub shard: Shard,
    pub cells: Arc<Cells>,
    pub sockets: BTreeMap<usize, (ConnectionKey, ConnId)>,
    pub inbox: VecDeque<DeliveryBatch>,
    held: Option<ForwardBatch>,
    /// Connections from other shards, with their Hellos; and one that goes to another.
    handed: VecDeque<(ConnId, HandOver)>,
    held_connection: Option<(ConnId, HandOver)>,
}

impl ShardHost {
    pub fn new(id: u16, scenario: &Scenario, dice: &mut Dice) -> ShardHost {
        let cells = Arc::new(Cells::default());
        let shard = Shard::new(shard::Parts {
            id: ShardId(id),
            settings: scenario.shard.clone(),
            session: scenario.session.clone(),
            routes: scenario.routes.clone(),
            authority: scenario.authority.clone(),
            resume_tokens: scenario.resume_tokens.clone(),
            directory: scenario.directory.clone(),
            pushes: scenario.pushes.clone(),
            limits: scenario.limits.clone(),
            cells: cells.clone(),
            seed: dice.next(),
            access_log: false,
        });
        ShardHost {
            shard,
            cells,
            sockets: BTreeMap::new(),
            inbox: VecDeque::new(),
            held: None,
            handed: VecDeque::new(),
            held_connection: None,
        }
    }

    /// What should not be there once all has ended.
    pub fn left(&self) -> Option<String> {
        let shard = &self.shard;
        let left = [
            (shard.connections(), "connections"),
            (shard.sessions(), "sessions"),
            (shard.detached(), "sessions without a connection"),
            (self.handed.len() + usize::from(self.held_connection.is_some()), "connections under way"),
            (shard.outstanding(), "outstanding calls"),
            (shard.partial_bytes(), "bytes of unfinished frames"),
            (shard.owed_bytes(), "bytes of Responses"),
            (shard.groups().0, "groups"),
            (shard.groups().1, "memberships"),
            (usize::from(shard.is_fanning_out()), "pushes to hand out"),
            (usize::from(shard.has_deadlines()), "timers"),
            (self.sockets.len(), "open sockets"),
        ];
        left.iter().find(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"))
    }
}

pub struct WorkerHost {
    pub forwarder: Forwarder,
    pub cells: Arc<Cells>,
    pub sockets: BTreeMap<usize, (LinkKey, ConnId)>,
    pub dialling: Vec<LinkKey>,
    inbox: VecDeque<ForwardBatch>,
    receipts: Vec<Receipt>,
    held: Vec<Option<DeliveryBatch>>,
}

impl WorkerHost {
    pub fn new(scenario: &Scenario, dice: &mut Dice) -> WorkerHost {
        let cells = Arc::new(Cells::default());
        let forwarder = Forwarder::new(forward::Parts {
            id: WorkerId(0),
            settings: scenario.forward.clone(),
            boot_id: dice.next(),
            pools: Arc::new(Pools::of(&scenario.services)),
            services: scenario.services.clone(),
            routes: scenario.routes.clone(),
            shards: scenario.shards,
            authority: scenario.authority.clone(),
            directory: scenario.directory.clone(),
            recent: Arc::new(scenario.services.iter().map(|_| RecentPushes::default()).collect()),
            pushes: scenario.pushes.clone(),
            check_service: scenario.check_service,
            cells: cells.clone(),
            readiness: Arc::new(Readiness::new(scenario.services.len())),
            seed: dice.next(),
        });
        WorkerHost {
            forwarder,
            cells,
            sockets: BTreeMap::new(),
            dialling: Vec::new(),
            inbox: VecDeque::new(),
            receipts: Vec::new(),
            held: (0..scenario.shards).map(|_| None).collect(),
        }
    }
}

/// Counters that must agree once all has ended; `accepted` is what the network saw.
pub fn unbalanced(totals: &Totals, accepted: u64) -> Option<String> {
    let value = |count| totals.value(count);
    let outcomes: u64 = Code::ALL.iter().map(|code| totals.outcomes(*code)).sum();
    let forwarded = value(Count::RequestsForwarded);
    let shed = value(Count::CallsShedLow) + value(Count::CallsShedNormal) + value(Count::CallsShedHigh);
    // Each of these lets a call be handled once more.
    let again = value(Count::CallsMoved) + value(Count::RetriesTried) + value(Count::HedgesSent);
    let handled =
        value(Count::CallsSent) + value(Count::CallsUnavailable) + shed + value(Count::CallsExpiredUnsent);
    let pairs = [
        ("connections accepted by the network and counted", accepted, value(Count::ConnectionsAccepted)),
        (
            "connections accepted and closed",
            value(Count::ConnectionsAccepted),
            value(Count::ConnectionsClosed),
        ),
        ("sessions opened and ended", value(Count::SessionsOpened), value(Count::SessionsEnded)),
        ("requests admitted and outcomes", value(Count::RequestsAdmitted), outcomes),
        ("groups joined and left", value(Count::GroupsJoined), value(Count::GroupsLeft)),
        ("links opened and lost", value(Count::LinksOpened), value(Count::LinksLost)),
    ];
    if handled > forwarded + again {
        return Some(format!("{handled} calls were handled, {forwarded} were forwarded"));
    }
    pairs.iter().find(|(_, one, two)| one != two).map(|(what, one, two)| format!("{what}: {one} and {two}"))
}

impl World {
    fn peer_of(&self, conn: ConnId) -> SocketAddr {
        let host = conn % self.scenario.origins + 1;
        format!("10.1.0.{host}:{}", 1024 + conn % 60_000).parse().unwrap()
    }

    pub fn accept(&mut self, conn: ConnId, shard: usize) {
        let (now, peer) = (self.clock(), self.peer_of(conn));
        self.leak_a_place();
        self.shard_ends(shard);
        let taken = self.shards[shard].shard.accepted(now, peer);
        if taken.is_ok() {
            self.accepted += 1;
            self.note_accepted(conn);
            if self.plant == Some(Plant::CountedTwice) && self.dice.chance(5) {
                self.shards[shard].cells.count(Count::ConnectionsAccepted);
            }
        }
        self.adopt(conn, shard, taken);
    }

    /// A shard has a connection, or has not taken it.
    fn adopt(&mut self, conn: ConnId, shard: usize, taken: Result<ConnectionKey, Vec<u8>>) {
        match taken {
            Ok(key) => {
                self.owners[conn][Side::Accepter as usize] = Owner::Shard(shard, key);
                self.shards[shard].sockets.insert(key.index(), (key, conn));
                if self.net.is_over(conn) {
                    // It was lost while nobody listened.
                    self.schedule(Duration::ZERO, Event::Net(NetEvent::Broken(conn, Side::Accepter)));
                }
                self.wake_shard(shard);
            }
            Err(farewell) => {
                self.owners[conn][Side::Accepter as usize] = Owner::Nobody;
                self.net.write(conn, Side::Accepter, &farewell, usize::MAX);
                self.net.shutdown(conn, Side::Accepter);
                self.net.close(conn, Side::Accepter);
            }
        }
    }

    /// Connections whose sessions are on this shard.
    fn take_handed(&mut self, at: usize) {
        while let Some((conn, handed)) = self.shards[at].handed.pop_front() {
            let (now, peer) = (self.clock(), self.peer_of(conn));
            self.shard_ends(at);
            let taken = self.shards[at].shard.taken_over(now, peer, handed.deadline);
            let key = taken.as_ref().ok().copied();
            self.adopt(conn, at, taken);
            if let Some(key) = key {
                self.shards[at].shard.received(now, key, &handed.hello);
            }
        }
    }

    /// Connections whose sessions are on other shards.
    fn hand_connections_over(&mut self, at: usize) {
        while let Some((conn, handed)) =
            self.shards[at].held_connection.take().or_else(|| self.next_to_hand_over(at))
        {
            let to = handed.to.index();
            if self.shards[to].handed.len() >= self.scenario.mailbox {
                self.shards[at].held_connection = Some((conn, handed));
                self.schedule(Duration::from_millis(1), Event::ShardTurn(at));
                return;
            }
            self.reach(Path::HandedOver);
            self.trace.note(self.now, "hand", (conn as u64, to as u64), || {
                format!("connection {conn} goes from shard {at} to {to}")
            });
            self.shards[to].handed.push_back((conn, handed));
            self.wake_shard(to);
        }
    }

    fn next_to_hand_over(&mut self, at: usize) -> Option<(ConnId, HandOver)> {
        let handed = self.shards[at].shard.next_hand_over()?;
        let (key, conn) = self.shards[at].sockets.remove(&handed.connection.index())?;
        assert_eq!(key, handed.connection, "a place is free before it is taken again");
        self.owners[conn][Side::Accepter as usize] = Owner::Backlog;
        Some((conn, handed))
    }

    pub fn shard_turn(&mut self, at: usize) {
        let now = self.clock();
        self.shards[at].shard.compare_clocks(now);
        self.shards[at].shard.share_room(now);
        self.shards[at].shard.orders(now);
        while let Some(mut batch) = self.shards[at].inbox.pop_front() {
            self.spoil(&mut batch);
            self.shards[at].shard.delivered(now, batch);
        }
        self.shards[at].shard.fan_out(now);
        self.take_handed(at);
        if self.shards[at].shard.is_fanning_out() {
            self.wake_shard(at);
        }
        if let Some(receipts) = self.shards[at].shard.take_receipts(0) {
            self.worker.receipts.extend(receipts);
            self.wake_worker();
        }
        if self.plant != Some(Plant::NoTimers) || self.phase != Phase::Draining {
            self.shards[at].shard.timers(now);
        }
        while let Some(mut batch) = self.shards[at].held.take().or_else(|| self.shards[at].shard.forwards()) {
            if self.worker.inbox.len() >= self.scenario.mailbox {
                self.shards[at].held = Some(batch);
                self.schedule(Duration::from_millis(1), Event::ShardTurn(at));
                break;
            }
            self.spoil_calls(&mut batch);
            self.worker.inbox.push_back(batch);
            self.wake_worker();
        }
        self.hand_connections_over(at);
        while let Some(key) = self.shards[at].shard.next_flush() {
            let Some((held, conn)) = self.shards[at].sockets.get(&key.index()).copied() else { continue };
            if held != key {
                continue;
            }
            let bytes = self.shards[at].shard.unsent(key).to_vec();
            match self.write_out(conn, &bytes) {
                Some(count) => self.shards[at].shard.sent(now, key, count),
                None => self.shards[at].shard.peer_closed(now, key),
            }
        }
        self.shard_ends(at);
        self.wake_ordered();
        let of_shard = |host: &ShardHost| {
            host.shard.connections() + host.handed.len() + usize::from(host.held_connection.is_some())
        };
        let there: usize = self.shards.iter().map(of_shard).sum();
        let used = self.scenario.limits.room.used();
        if used != there {
            self.oracle.violated(format!("of {there} connections the room counts {used}"));
        }
    }

    fn shard_ends(&mut self, at: usize) {
        while let Some((key, end)) = self.shards[at].shard.next_ended() {
            let Some((_, conn)) =
                self.shards[at].sockets.get(&key.index()).copied().filter(|held| held.0 == key)
            else {
                self.oracle.violated(format!("{key:?} ended without a socket"));
                return;
            };
            match end {
                End::ShutdownWrite => self.net.shutdown(conn, Side::Accepter),
                End::Close(_) if self.plant == Some(Plant::LeakedSocket) && self.dice.chance(5) => {
                    // Kept under a place that no connection gets.
                    self.shards[at].sockets.insert(1_000_000 + conn, (key, conn));
                    self.shards[at].sockets.remove(&key.index());
                }
                End::Close(_) => {
                    self.net.close(conn, Side::Accepter);
                    self.shards[at].sockets.remove(&key.index());
                }
            }
        }
    }

    pub fn worker_turn(&mut self) {
        let now = self.clock().mono;
        if self.worker.forwarder.has_news() {
            self.worker.forwarder.refresh(now);
        }
        while let Some(batch) = self.worker.inbox.pop_front() {
            self.worker.forwarder.forward(now, &batch);
        }
        let receipts = std::mem::take(&mut self.worker.receipts);
        self.worker.forwarder.receipts(receipts);
        self.worker.forwarder.timers(now);
        self.worker.forwarder.tell_presence();
        self.hand_over();
        while let Some(key) = self.worker.forwarder.next_flush() {
            let Some((_, conn)) = self.worker.sockets.get(&key.index()).copied().filter(|held| held.0 == key)
            else {
                continue;
            };
            let bytes = self.worker.forwarder.unsent(key).to_vec();
            if bytes.len() > self.scenario.forward.output_bytes_max + ABOVE_MAX {
                self.oracle.violated(format!("{} bytes wait on a link", bytes.len()));
            }
            let most = self.appetite();
            match self.net.write(conn, Side::Dialler, &bytes, most) {
                Some(count) => {
                    self.tap_link(conn, &bytes[..count]);
                    self.worker.forwarder.sent(now, key, count);
                }
                None => self.worker.forwarder.link_lost(now, key, &"the service closed it"),
            }
        }
        while let Some(command) = self.worker.forwarder.next_command() {
            match command {
                LinkCommand::Dial(key, address) => self.dial(key, address),
                LinkCommand::EndStream(key) => {
                    if let Some((_, conn)) = self.worker.sockets.get(&key.index()).copied() {
                        self.give_up(conn);
                        self.net.shutdown(conn, Side::Dialler);
                    }
                }
                LinkCommand::Close(key) => {
                    self.worker.dialling.retain(|dialling| *dialling != key);
                    if let Some((_, conn)) = self.worker.sockets.remove(&key.index()) {
                        self.judge_link_close(conn);
                        self.give_up(conn);
                        self.net.close(conn, Side::Dialler);
                    }
                }
            }
        }
        self.hand_over();
        self.wake_ordered();
    }

    fn hand_over(&mut self) {
        for at in 0..self.shards.len() {
            let shard = ShardId(at as u16);
            while let Some(batch) =
                self.worker.held[at].take().or_else(|| self.worker.forwarder.deliveries(shard))
            {
                if self.shards[at].inbox.len() >= self.scenario.mailbox {
                    self.worker.held[at] = Some(batch);
                    self.schedule(Duration::from_millis(1), Event::WorkerTurn);
                    break;
                }
                self.shards[at].inbox.push_back(batch);
                self.wake_shard(at);
            }
        }
    }

    fn give_up(&mut self, conn: ConnId) {
        self.given_up.insert(conn);
        self.oracle.given_up(conn);
    }

    fn dial(&mut self, key: LinkKey, address: std::net::SocketAddr) {
        self.worker.dialling.push(key);
        let lost = self.phase == Phase::Faults && self.dice.chance(5);
        let endpoint = self.scenario.addresses.iter().position(|known| *known == address);
        if !lost {
            let delay = self.dice.millis(0, self.scenario.latency_ms);
            self.schedule(delay, Event::Dialled(self.boot, key, endpoint.unwrap_or(usize::MAX)));
        }
    }

    pub fn dialled(&mut self, key: LinkKey, at: usize) {
        let before = self.worker.dialling.len();
        self.worker.dialling.retain(|dialling| *dialling != key);
        if self.worker.dialling.len() == before {
            return;
        }
        if self.endpoints.get(at).is_none_or(|endpoint| !endpoint.up) {
            self.worker.forwarder.link_lost(self.clock().mono, key, &"connection refused");
            return self.wake_worker();
        }
        let link = self.endpoints[at].links.len();
        let conn = self.connect(Owner::Link(key), Owner::Service(at, link));
        let nonce = std::array::from_fn(|_| self.dice.below(256) as u8);
        self.service_accepts(at, conn, nonce);
        self.worker.sockets.insert(key.index(), (key, conn));
        let nonce = std::array::from_fn(|_| self.dice.below(256) as u8);
        self.worker.forwarder.connected(self.clock().mono, key, nonce);
        self.wake_worker();
    }
}
