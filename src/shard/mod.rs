//! All connections and sessions of one thread, pure.
//!
//! The reactor feeds it what sockets and mailboxes deliver, once per turn, and then carries out what it has
//! decided:
//!
//! | in | out |
//! | --- | --- |
//! | [`Shard::accepted`], [`Shard::received`], [`Shard::peer_closed`] | [`Shard::next_flush`], [`Shard::unsent`]: what to write |
//! | [`Shard::sent`], [`Shard::writable`] | [`Shard::next_ended`]: what to shut down or close |
//! | [`Shard::delivered`]: answers and pushes from workers | [`Shard::forwards`]: requests for the worker |
//! | [`Shard::orders`]: kicks; [`Shard::fan_out`]: pushes | [`Shard::take_receipts`]: what became of pushes |
//! | [`Shard::taken_over`]: from another shard | [`Shard::next_hand_over`]: to another shard |
//! | [`Shard::compare_clocks`], [`Shard::timers`], [`Shard::drain`] | [`Shard::next_deadline`], [`Shard::take_access`] |
//!
//! Guarantees: every admitted request is answered once, or its session is gone; a connection is closed at one
//! place, for one [`CloseReason`]; every table, buffer and list is bounded by [`Settings`] or a constant.

mod admission;
mod asked;
mod closing;
mod confirm;
mod connection;
mod credit;
mod detached;
mod frames;
mod greeting;
mod groups;
mod identity;
mod limits;
mod membership;
mod opening;
mod output;
mod pushes;
mod resume;
mod settings;
mod settle;
mod shed;
#[cfg(test)]
mod tests;
mod timers;

pub use closing::{CloseReason, End};
pub use detached::DetachedCaps;
pub use resume::HandOver;
pub use settings::{CheckSettings, Settings};

use crate::auth::{Authority, ResumeTokens};
use crate::base::clock::Now;
use crate::base::counters::{Cells, Count};
use crate::base::ids::{
    ConnectionKey, ConnectionTag, ListenerId, RouteId, ServiceId, SessionKey, SessionTag, ShardId, TicketTag,
};
use crate::base::rng::Rng;
use crate::base::slab::GenSlab;
use crate::base::wheel::Wheel;
use crate::directory::Directory;
use crate::limit::{self, Bans, Charge, LogLines, Logins, ShardLimits, SharedRoom, TokenBucket};
use crate::relay::{AccessRecord, Caller, ForwardBatch, PushGauge, Receipt};
use crate::routing::RouteTable;
use crate::session::{self, Fault, Session};
use confirm::Confirmations;
use connection::{Connection, State};
use detached::DetachedTable;
use groups::GroupTable;
use moorgate_proto::codec::put_frame;
use moorgate_proto::envelope::{Numbers, member::gateway::ERROR};
use moorgate_proto::time::Mono;
use pushes::Fanout;
use resume::Tombstones;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

/// What a shard is built from.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Which shard.
    pub id: ShardId,
    /// Its limits and times.
    pub settings: Settings,
    /// Those of its sessions.
    pub session: session::Settings,
    /// Which service owns a command.
    pub routes: Arc<RouteTable>,
    /// Who is let in.
    pub authority: Arc<Authority>,
    /// With which clients come back; the same for all shards.
    pub resume_tokens: Arc<ResumeTokens>,
    /// Who is here, on all shards.
    pub directory: Arc<Directory>,
    /// Bytes of all pushes that live.
    pub pushes: PushGauge,
    /// Limits that all shards share.
    pub limits: limit::Shared,
    /// Where it counts.
    pub cells: Arc<Cells>,
    /// For jitter and names.
    pub seed: u64,
    /// Whether answered requests leave an [`AccessRecord`].
    pub access_log: bool,
}

impl Parts {
    /// A shard by itself, with the defaults: for tests, benchmarks and simulations.
    pub fn alone(routes: RouteTable, authority: Authority) -> Parts {
        Parts {
            id: ShardId(0),
            settings: Settings::default(),
            session: session::Settings::default(),
            routes: Arc::new(routes),
            authority: Arc::new(authority),
            resume_tokens: Arc::new(ResumeTokens::new(1, &[0; 32])),
            directory: Arc::new(Directory::unrung(1, 1)),
            pushes: PushGauge::default(),
            limits: limit::Shared::unlimited(),
            cells: Arc::default(),
            seed: 1,
            access_log: false,
        }
    }
}

/// A call that the worker has: what is needed when its settlement comes.
#[derive(Debug)]
struct Outstanding {
    session: SessionKey,
    up_seq: u64,
    command: u32,
    route: RouteId,
    service: ServiceId,
    received: Mono,
    request_bytes: u32,
    cancelled: bool,
    caller: Arc<Caller>,
    charge: Charge,
}

/// Connections that are turned away at once, each until it has taken its Error or the linger is over.
const TURNED_AWAY_MAX: usize = 64;

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drain {
    No,
    /// Requests are served until then.
    Until(Mono),
    /// Everything was closed.
    Over,
}

/// One thread's connections and sessions. See the module's page.
#[derive(Debug)]
pub struct Shard {
    settings: Settings,
    session_settings: session::Settings,
    routes: Arc<RouteTable>,
    authority: Arc<Authority>,
    resume_tokens: Arc<ResumeTokens>,
    directory: Arc<Directory>,
    pushes: PushGauge,
    cells: Arc<Cells>,
    rng: Rng,
    connections: GenSlab<ConnectionTag, Connection>,
    sessions: GenSlab<SessionTag, Session>,
    outstanding: GenSlab<TicketTag, Outstanding>,
    credit: credit::Credit,
    limits: ShardLimits,
    bans: Arc<Bans>,
    logins: Arc<Logins>,
    /// Connections of all shards.
    room: Arc<SharedRoom>,
    /// What it has published there of its own, and what it has seen of others.
    served: usize,
    refusals_seen: usize,
    /// Connections that have no session yet.
    handshakes: usize,
    wheel: Wheel<ConnectionKey>,
    batch: ForwardBatch,
    flushes: Vec<ConnectionKey>,
    ended: Vec<(ConnectionKey, End)>,
    access_log: bool,
    access: Vec<AccessRecord>,
    spare_buffers: output::SpareBuffers,
    partial_bytes: usize,
    /// Bytes of Responses that sessions hold: unacknowledged, or waiting for room in an output.
    owed_bytes: usize,
    /// The next pass over what could be given up of them is not before that.
    owed_shed_from: Mono,
    /// What had arrived by then has been read, as far as is known.
    read_until: Mono,
    /// The next pass over silent connections is not before that.
    openings_shed_from: Mono,
    /// The same for the silent connections of one address.
    own_openings_shed_from: Mono,
    log_lines: LogLines,
    groups: GroupTable,
    fanouts: VecDeque<Fanout>,
    /// By worker.
    receipts: Vec<Vec<Receipt>>,
    confirmations: Confirmations,
    /// Sessions without a connection.
    detached: DetachedTable,
    tombstones: Tombstones,
    /// What may still be opened afresh; `None`: as much as comes.
    openings: Option<TokenBucket>,
    /// Connections for other shards. Bounded: each is one of those that have no session yet.
    hand_overs: VecDeque<HandOver>,
    drain: Drain,
    /// Civil time minus the time of deadlines, by which alarms of access tokens are set.
    clocks_apart_ms: u64,
    /// Connections that were turned away and may still be there.
    turned_away: Vec<ConnectionKey>,
}

impl Shard {
    /// An empty shard.
    pub fn new(parts: Parts) -> Shard {
        let openings = parts.settings.openings.map(TokenBucket::new);
        let credit = credit::Credit::new(parts.settings.outstanding_max, &parts.routes);
        Shard {
            rng: Rng::new(parts.seed),
            settings: parts.settings,
            session_settings: parts.session,
            routes: parts.routes,
            authority: parts.authority,
            resume_tokens: parts.resume_tokens,
            directory: parts.directory,
            pushes: parts.pushes,
            cells: parts.cells,
            connections: GenSlab::default(),
            sessions: GenSlab::default(),
            outstanding: GenSlab::default(),
            credit,
            limits: ShardLimits::new(parts.limits.requests),
            bans: parts.limits.bans,
            logins: parts.limits.logins,
            room: parts.limits.room,
            served: 0,
            refusals_seen: 0,
            handshakes: 0,
            wheel: Wheel::default(),
            batch: ForwardBatch { shard: parts.id, ..ForwardBatch::default() },
            flushes: Vec::new(),
            ended: Vec::new(),
            access_log: parts.access_log,
            access: Vec::new(),
            spare_buffers: output::SpareBuffers::default(),
            partial_bytes: 0,
            owed_bytes: 0,
            owed_shed_from: Mono::ZERO,
            read_until: Mono::NEVER,
            openings_shed_from: Mono::ZERO,
            own_openings_shed_from: Mono::ZERO,
            log_lines: LogLines::new(parts.seed),
            groups: GroupTable::default(),
            fanouts: VecDeque::new(),
            receipts: Vec::new(),
            confirmations: Confirmations::default(),
            detached: DetachedTable::default(),
            tombstones: Tombstones::default(),
            openings,
            hand_overs: VecDeque::new(),
            drain: Drain::No,
            clocks_apart_ms: 0,
            turned_away: Vec::new(),
        }
    }

    /// Takes a new connection, or turns it away. It may get the place of one that has ended:
    /// [`Shard::next_ended`] comes first.
    ///
    /// # Errors
    /// As [`Shard::turned_away`].
    pub fn accepted(&mut self, now: Now, peer: SocketAddr) -> Result<ConnectionKey, Vec<u8>> {
        self.admit(now, peer, false)
    }

    /// The same for one that another shard has accepted, and which is counted in the room of all shards.
    ///
    /// # Errors
    /// As [`Shard::turned_away`]; its place in the room is free then.
    pub fn dealt(&mut self, now: Now, peer: SocketAddr) -> Result<ConnectionKey, Vec<u8>> {
        self.admit(now, peer, true)
    }

    fn admit(&mut self, now: Now, peer: SocketAddr, in_room: bool) -> Result<ConnectionKey, Vec<u8>> {
        let refusal = match self.drain {
            Drain::No => self.refusal(now, peer, in_room),
            _ => Some(Fault::Shutdown),
        };
        if let Some(fault) = refusal {
            if in_room {
                self.room.leave();
            }
            return self.turned_away(now, peer, fault);
        }
        self.cells.count(Count::ConnectionsAccepted);
        let deadline = now.mono + self.settings.handshake_timeout;
        let key = self.insert(now, peer, deadline);
        self.arm(key, deadline);
        Ok(key)
    }

    /// Counts a connection in the room of all shards until [`Shard::leave_room`], on its way to the shard that takes it.
    /// `false`: there is no room.
    pub fn enter_room(&self) -> bool {
        self.room.enter()
    }

    /// See [`Shard::enter_room`].
    pub fn leave_room(&self) {
        self.room.leave();
    }

    /// Says where a connection has come in: listeners may wish another heartbeat than the deployment.
    pub fn came_by(&mut self, key: ConnectionKey, listener: ListenerId) {
        if let Some(connection) = self.connections.get_mut(key)
            && let State::Opening(deadline, _) = connection.state
        {
            connection.state = State::Opening(deadline, listener);
        }
    }

    /// Takes a new connection to say why it is not served: its Error must not be lost to a reset, which a close
    /// with unread bytes would be.
    ///
    /// # Errors
    /// The bytes to send before closing it, when too many are turned away at once.
    pub fn turned_away(
        &mut self,
        now: Now,
        peer: SocketAddr,
        fault: Fault,
    ) -> Result<ConnectionKey, Vec<u8>> {
        if self.turned_away.len() >= TURNED_AWAY_MAX {
            self.forget_turned_away();
        }
        // Without descriptors none is kept for the sake of politeness; and the socket of one that was ousted for this one
        // is not closed yet.
        if self.turned_away.len() >= TURNED_AWAY_MAX || !self.ended.is_empty() || !self.room.enter() {
            return Err(farewell(&fault));
        }
        self.cells.count(Count::ConnectionsAccepted);
        let key = self.insert(now, peer, now.mono + self.settings.handshake_timeout);
        self.turned_away.push(key);
        self.close(now, key, CloseReason::Fault(fault));
        Ok(key)
    }

    /// Whether there is no room for another; those that are turned away take none.
    fn is_full(&mut self) -> bool {
        if self.connections.len() < self.settings.connections_max {
            return false;
        }
        self.forget_turned_away();
        self.connections.len().saturating_sub(self.turned_away.len()) >= self.settings.connections_max
    }

    fn forget_turned_away(&mut self) {
        let connections = &self.connections;
        self.turned_away.retain(|key| connections.get(*key).is_some());
    }

    /// It is counted in the room of all shards already.
    fn insert(&mut self, now: Now, peer: SocketAddr, deadline: Mono) -> ConnectionKey {
        self.handshakes = self.handshakes.saturating_add(1);
        let key = self.connections.insert(Connection::new(now.mono, peer, deadline));
        let taken = |(ended, _): &(ConnectionKey, End)| ended.index() == key.index();
        debug_assert!(
            !self.ended.iter().any(taken),
            "a socket that has ended is closed before another comes"
        );
        key
    }

    /// The connection that lies at this index of the slab now.
    pub fn connection_at(&self, index: usize) -> Option<ConnectionKey> {
        self.connections.key_at(index)
    }

    /// Whether a connection has no session yet.
    pub fn is_opening(&self, key: ConnectionKey) -> bool {
        self.connections.get(key).is_some_and(|connection| connection.state.is_opening())
    }

    /// Connections at the moment.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Sessions at the moment.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Calls that the worker has.
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// Bytes of unfinished frames.
    pub fn partial_bytes(&self) -> usize {
        self.partial_bytes
    }

    /// Bytes of Responses that sessions hold.
    pub fn owed_bytes(&self) -> usize {
        self.owed_bytes
    }

    /// Users, addresses and applications of whose limits this shard holds something.
    pub fn limit_shares(&self) -> usize {
        self.limits.shares()
    }

    /// Groups with members here, and memberships.
    pub fn groups(&self) -> (usize, usize) {
        (self.groups.len(), self.groups.members())
    }

    /// What the worker is to be told; the reactor takes it when there is room in the mailbox.
    pub fn forwards(&mut self) -> Option<ForwardBatch> {
        if self.batch.is_empty() {
            return None;
        }
        Some(self.batch.take())
    }

    /// Takes the access records since the last call.
    pub fn take_access(&mut self) -> Option<Vec<AccessRecord>> {
        (!self.access.is_empty()).then(|| std::mem::take(&mut self.access))
    }

    /// Whether everything has ended after [`Shard::drain`]; past its deadline no call is waited for.
    pub fn is_drained(&self) -> bool {
        match self.drain {
            Drain::No => false,
            Drain::Until(_) => self.connections.is_empty() && self.outstanding.is_empty(),
            Drain::Over => self.connections.is_empty(),
        }
    }

    fn arm(&mut self, key: ConnectionKey, due: Mono) {
        if let Some(connection) = self.connections.get_mut(key) {
            self.wheel.arm(&mut connection.alarm, key, due);
        }
    }

    fn session_of(&self, key: ConnectionKey) -> Option<SessionKey> {
        match self.connections.get(key)?.state {
            State::Open(session) => Some(session),
            State::Opening(..)
            | State::Confirming(_)
            | State::Moving(_)
            | State::Closing(_)
            | State::HalfClosed(_) => None,
        }
    }

    /// Panics in tests and checked builds when the tables contradict each other.
    pub fn check_invariants(&self) {
        if cfg!(debug_assertions) && self.connections.len() < 64 {
            for key in self.connections.keys() {
                if let Some(session) = self.session_of(key) {
                    let attached = self.sessions.get(session).and_then(Session::connection);
                    debug_assert_eq!(attached, Some(key), "session and connection belong together");
                }
            }
            let away = self.sessions.values().filter(|session| session.connection().is_none()).count();
            debug_assert_eq!(away, self.detached.len(), "who has no connection is on the list of those");
            let held: usize = self.connections.values().map(|c| c.assembler.held_bytes()).sum();
            let early = self.confirmations.early_bytes();
            debug_assert_eq!(held + early, self.partial_bytes, "the budget counts what is held");
            let owed: usize = self.sessions.values().map(|session| session.down.kept_bytes()).sum();
            debug_assert_eq!(owed, self.owed_bytes, "and so does that of Responses");
            let opening = self.connections.values().filter(|it| it.state.is_opening()).count();
            debug_assert_eq!(opening, self.handshakes, "who has no session yet is counted");
            let groups =
                self.sessions.values().map(|session| session.groups.as_ref().map_or(0, |it| it.0.len()));
            debug_assert_eq!(groups.sum::<usize>(), self.groups.members(), "members know their groups");
            let confirming =
                |key| matches!(self.connections.get(key).map(|c| c.state), Some(State::Confirming(_)));
            let waiting = self.connections.keys().filter(|key| confirming(*key)).count();
            debug_assert_eq!(waiting, self.confirmations.waiting(), "whoever is to be confirmed waits");
        }
        debug_assert!(self.outstanding.len() <= self.settings.outstanding_max);
        debug_assert_eq!(self.credit.used(), self.outstanding.len(), "the credit is what is out");
    }
}

/// An Error frame for a connection that gets nothing else.
pub fn farewell(fault: &Fault) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_frame(&mut bytes, Numbers::NONE, ERROR, &fault.error(0, false));
    bytes
}
