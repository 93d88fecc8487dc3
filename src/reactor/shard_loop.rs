//! The loop of one shard: its sockets, its listeners ([`accept`]), its mailboxes.

mod accept;

use self::accept::spare_descriptor;
use super::read_until::{Backlog, ReadUntil, Unread};
use super::socket::{self, Got, ReadBudget, SocketOptions};
use super::{Inbox, Listener, Outbox, READ_BYTES, WAKER};
use super::{LoopSeat, Turn, VISITS_LEN_MAX, Visit, run, wakes_at};
use crate::base::clock::{Clock, Now};
use crate::base::counters::{Cells, Count};
use crate::base::ids::{ConnectionKey, ListenerId, ShardId};
use crate::base::pulse::Pulse;
use crate::base::seat::Core;
use crate::limit::{AddressTable, Rate, TokenBucket};
use crate::relay::{AccessRecord, DeliveryBatch, ForwardBatch, Receipt};
use crate::session::Fault;
use crate::shard::{End, HandOver, Shard, farewell};
use mio::Interest;
use mio::net::TcpStream;
use moorgate_proto::codec::LENGTH_BYTES;
use moorgate_proto::limits::FRAME_BYTES_OPENING;
use moorgate_proto::time::Mono;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Connections without a session that are read in one turn: a storm of them delays those that have one only so much.
const OPENINGS_PER_TURN: u32 = 128;
/// Connections that wait for room in the mailbox of one shard; more are told to come back.
const HELD_MAX: usize = 1024;
/// Listeners have the tokens just below the waker's.
const FIRST_LISTENER: usize = usize::MAX - 1;

/// What the gateway tells a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardCommand {
    /// Accept no more, tell the clients, and end when all is done or the time is over.
    Drain(Duration),
    /// End now.
    Stop,
}

/// A connection that another shard has accepted.
#[derive(Debug)]
pub struct Handed {
    stream: TcpStream,
    peer: SocketAddr,
    /// Counts among its address's connections.
    charged: bool,
    /// Counted in the room of all shards.
    in_room: bool,
    /// Where it came in.
    listener: ListenerId,
    /// Set when it resumes a session of this shard.
    resume: Option<Resume>,
}

/// What is handed over with a connection that resumes a session.
#[derive(Debug)]
struct Resume {
    /// Until when it has to have its session.
    deadline: Mono,
    /// What the client has said.
    hello: Vec<u8>,
}

/// What a shard's loop is built from.
#[derive(Debug)]
pub struct ShardParts {
    /// What it serves.
    pub shard: Shard,
    /// Of its poll.
    pub registry: mio::Registry,
    /// Shared by all threads.
    pub clock: Clock,
    /// Its listeners.
    pub listeners: Vec<Listener>,
    /// Connections accepted from one listener in one turn.
    pub accepts_per_turn: u16,
    /// Connections accepted from one listener; `None`: as many as come.
    pub accepts: Option<Rate>,
    /// Of its sockets.
    pub options: SocketOptions,
    /// To its worker.
    pub forwards: Outbox<ForwardBatch>,
    /// Where that sits.
    pub worker: Arc<dyn Visit>,
    /// From all workers.
    pub deliveries: Inbox<DeliveryBatch>,
    /// To all workers, by their ids: what became of their pushes.
    pub receipts: Vec<Outbox<Vec<Receipt>>>,
    /// From the gateway.
    pub commands: Inbox<ShardCommand>,
    /// Connections for every shard, in their order: of shared listeners.
    pub hand_out: Vec<Outbox<Handed>>,
    /// Connections for this shard.
    pub handed: Inbox<Handed>,
    /// Connections by address; `None`: without a limit.
    pub addresses: Option<Arc<AddressTable>>,
    /// To the access log.
    pub access: Option<crossbeam_channel::Sender<Vec<AccessRecord>>>,
    /// Where it counts.
    pub cells: Arc<Cells>,
    /// Tells that it turns.
    pub pulse: Arc<Pulse>,
}

struct Socket {
    key: ConnectionKey,
    stream: TcpStream,
    /// Counts among its address's connections.
    charged: bool,
    /// In the list of sockets to be read again.
    queued: bool,
    /// The peer has closed: read to the end.
    closing: bool,
}

/// The loop of one shard.
pub struct ShardLoop {
    parts: ShardParts,
    /// By the index of their connections.
    sockets: Vec<Option<Socket>>,
    /// Sockets with more to read than one turn's budget.
    backlog: Backlog<ConnectionKey>,
    read_until: ReadUntil,
    /// The time by which this turn judges deadlines.
    until: Mono,
    buffer: Box<[u8]>,
    /// A batch that did not fit into the worker's mailbox.
    held: Option<ForwardBatch>,
    /// Receipts likewise, by worker.
    held_receipts: Vec<Option<Vec<Receipt>>>,
    /// Connections that did not fit into the mailbox of the shard that is to have them, by shard.
    held_connections: Vec<VecDeque<Handed>>,
    /// Openings that this turn may still read.
    openings: u32,
    /// Given up for a moment when there are no others, to refuse a client politely.
    spare: Option<File>,
    next_shard: usize,
    stopped: bool,
}

impl ShardLoop {
    /// A loop that is ready to run.
    ///
    /// # Errors
    /// When a listener cannot be registered.
    pub fn new(mut parts: ShardParts) -> io::Result<ShardLoop> {
        for (at, listener) in parts.listeners.iter_mut().enumerate() {
            let token = mio::Token(FIRST_LISTENER.saturating_sub(at));
            parts.registry.register(&mut listener.socket, token, Interest::READABLE)?;
            listener.tokens = parts.accepts.map(TokenBucket::new);
        }
        Ok(ShardLoop {
            held_receipts: parts.receipts.iter().map(|_| None).collect(),
            held_connections: parts.hand_out.iter().map(|_| VecDeque::new()).collect(),
            parts,
            sockets: Vec::new(),
            backlog: Backlog::default(),
            read_until: ReadUntil::default(),
            until: Mono::ZERO,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            held: None,
            openings: OPENINGS_PER_TURN,
            spare: spare_descriptor(),
            next_shard: 0,
            stopped: false,
        })
    }

    /// Runs until it is drained or stopped.
    pub fn run(self, seat: &LoopSeat<ShardLoop>, poll: mio::Poll) {
        let clock = self.parts.clock;
        seat.sit(self);
        if let Some(mut core) = run(seat, poll, clock) {
            core.strand();
            core.parts.pulse.end();
        }
    }

    /// What the shard's own thread does in a turn.
    fn wake(&mut self, now: Now, events: &mio::Events) {
        self.parts.cells.count(Count::Wakeups);
        self.parts.pulse.beat(now.mono);
        self.parts.shard.compare_clocks(now);
        self.openings = OPENINGS_PER_TURN;
        let unread = Unread::since(self.read_until.until());
        self.read_until.turn(now.mono, events.iter().count(), self.sockets.len());
        // What the last turn left over goes first, so that the busy ones starve nobody.
        for _ in 0..self.backlog.len() {
            if let Some((key, unread)) = self.backlog.pop() {
                if let Some(socket) = self.socket(key) {
                    socket.queued = false;
                }
                self.read(now, key, unread);
            }
        }
        for event in events {
            self.event(now, event, unread);
        }
        self.until = self.read_until.until().min(self.backlog.unread_since());
        self.parts.shard.set_read_until(self.until);
        self.parts.shard.share_room(now);
        self.accept_all(now);
        self.mail(now);
    }

    /// Judges the deadlines, once all input that counts against them is read and all output is tried; whether any
    /// had come.
    fn timers(&mut self, now: Now) -> bool {
        let is_due = self.parts.shard.next_deadline().is_some_and(|due| due <= self.until);
        if is_due {
            self.parts.shard.timers(now.back_to(self.until));
        }
        is_due
    }

    fn deliver(&mut self, now: Now) {
        for batch in self.parts.deliveries.waiting() {
            self.parts.shard.delivered(now, batch);
        }
        self.parts.shard.fan_out(now);
    }

    fn event(&mut self, now: Now, event: &mio::event::Event, unread: Unread) {
        let token = event.token();
        if token == WAKER {
            return;
        }
        let listener = FIRST_LISTENER.checked_sub(token.0).and_then(|at| self.parts.listeners.get_mut(at));
        if let Some(listener) = listener {
            listener.is_ready = true;
            return;
        }
        let Some(key) = self.parts.shard.connection_at(token.0) else { return };
        if event.is_writable() {
            self.parts.shard.writable(key);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            let closing = event.is_read_closed() || event.is_error();
            if let Some(socket) = self.socket(key) {
                socket.closing |= closing;
            }
            self.read(now, key, unread);
        }
    }

    /// The socket of this connection, not of one that has its place now.
    fn socket(&mut self, key: ConnectionKey) -> Option<&mut Socket> {
        self.sockets.get_mut(key.index())?.as_mut().filter(|socket| socket.key == key)
    }

    /// Reads a socket until it is drained, or this turn's budget is.
    fn read(&mut self, now: Now, key: ConnectionKey, unread: Unread) {
        if self.parts.shard.is_opening(key) {
            if self.openings == 0 {
                return self.queue(key, unread);
            }
            self.openings = self.openings.saturating_sub(1);
        }
        let mut budget = ReadBudget::default();
        while !budget.is_spent() {
            let Some(Some(socket)) = self.sockets.get_mut(key.index()) else { return };
            if socket.key != key {
                return;
            }
            match socket::read(&mut socket.stream, &mut self.buffer, socket.closing) {
                Got::Bytes(count, more) => {
                    let bytes = self.buffer.get(..count).unwrap_or_default();
                    let frames = self.parts.shard.received(now, key, bytes);
                    if !more {
                        return;
                    }
                    budget.spend(count, frames);
                }
                Got::Nothing => return,
                Got::End => return self.parts.shard.peer_closed(now, key),
            }
        }
        self.queue(key, unread.read(now.mono, budget.bytes_read()));
    }

    /// Reads on in the next turn.
    fn queue(&mut self, key: ConnectionKey, unread: Unread) {
        if let Some(socket) = self.socket(key)
            && !std::mem::replace(&mut socket.queued, true)
        {
            self.backlog.push(key, unread);
        }
    }

    fn mail(&mut self, now: Now) {
        self.parts.shard.orders(now);
        self.deliver(now);
        // Clients that come back are openings too.
        while self.openings > 0
            && let Some(handed) = self.parts.handed.take()
        {
            self.openings = self.openings.saturating_sub(1);
            self.adopt(now, handed);
        }
        while let Some(command) = self.parts.commands.take() {
            match command {
                ShardCommand::Stop => self.stopped = true,
                ShardCommand::Drain(timeout) => {
                    self.parts.shard.drain(now, timeout);
                    self.close_listeners(now);
                }
            }
        }
    }

    fn hand_over(&mut self, may_visit: bool) {
        while let Some(batch) = self.held.take().or_else(|| self.parts.shard.forwards()) {
            let len = batch.len();
            if let Err(batch) = self.parts.forwards.post(batch) {
                self.held = Some(batch);
                return;
            }
            match may_visit && len <= VISITS_LEN_MAX {
                true => self.parts.worker.visit(self.parts.clock),
                false => self.parts.forwards.ring(),
            }
        }
    }

    fn hand_receipts_over(&mut self) {
        let outboxes = self.parts.receipts.iter().zip(&mut self.held_receipts);
        for (worker, (outbox, held)) in outboxes.enumerate() {
            if let Some(receipts) = held.take().or_else(|| self.parts.shard.take_receipts(worker)) {
                match outbox.post(receipts) {
                    Ok(()) => outbox.ring(),
                    Err(receipts) => *held = Some(receipts),
                }
            }
        }
    }

    /// Clients that come back to sessions of other shards.
    fn hand_connections_over(&mut self) {
        while let Some((to, handed)) = self.next_to_hand_over() {
            match self.held_connections.get_mut(to.index()) {
                Some(held) if held.len() < HELD_MAX => held.push_back(handed),
                _ => {
                    let farewell = self.parts.shard.not_taken_over(&Fault::Overloaded);
                    self.turn_back(handed, &farewell);
                }
            }
        }
        for (outbox, held) in self.parts.hand_out.iter().zip(&mut self.held_connections) {
            while let Some(handed) = held.pop_front() {
                match outbox.post(handed) {
                    Ok(()) => outbox.ring(),
                    Err(handed) => {
                        held.push_front(handed);
                        break;
                    }
                }
            }
        }
    }

    /// The end: whoever was on the way from one shard to another is told.
    fn strand(&mut self) {
        let held = self.held_connections.iter_mut().flat_map(std::mem::take);
        let handed: Vec<Handed> = held.chain(std::iter::from_fn(|| self.parts.handed.take())).collect();
        for handed in handed {
            // Who has not said anything yet was not counted.
            let farewell = match handed.resume {
                Some(_) => self.parts.shard.not_taken_over(&Fault::Shutdown),
                None => {
                    self.parts.shard.leave_room();
                    farewell(&Fault::Shutdown)
                }
            };
            self.turn_back(handed, &farewell);
        }
    }

    /// Ends a connection that no shard takes.
    fn turn_back(&self, handed: Handed, farewell: &[u8]) {
        if handed.charged {
            self.release(handed.peer);
        }
        refuse(handed.stream, farewell);
    }

    fn next_to_hand_over(&mut self) -> Option<(ShardId, Handed)> {
        loop {
            let HandOver { connection, peer, to, listener, deadline, hello } =
                self.parts.shard.next_hand_over()?;
            let Some(mut socket) = self.sockets.get_mut(connection.index()).and_then(Option::take) else {
                continue;
            };
            debug_assert_eq!(socket.key, connection, "a place is free before it is taken again");
            if let Err(error) = self.parts.registry.deregister(&mut socket.stream) {
                log::debug!("{peer}: {error}");
            }
            let Socket { stream, charged, .. } = socket;
            let resume = Some(Resume { deadline, hello });
            return Some((to, Handed { stream, peer, charged, in_room: true, listener, resume }));
        }
    }

    fn flush(&mut self, now: Now) {
        while let Some(key) = self.parts.shard.next_flush() {
            let Some(Some(socket)) = self.sockets.get_mut(key.index()) else { continue };
            match socket::write(&mut socket.stream, self.parts.shard.unsent(key)) {
                Some(count) => self.parts.shard.sent(now, key, count),
                None => self.parts.shard.peer_closed(now, key),
            }
        }
    }

    fn end(&mut self) {
        while let Some((key, end)) = self.parts.shard.next_ended() {
            match end {
                End::ShutdownWrite => {
                    if let Some(socket) = self.socket(key) {
                        // It fails when the peer is gone, which the next read finds.
                        let _ = socket.stream.shutdown(std::net::Shutdown::Write);
                    }
                }
                End::Close(peer) => {
                    if let Some(socket) = self.sockets.get_mut(key.index()).and_then(Option::take) {
                        debug_assert_eq!(socket.key, key, "a place is free before it is taken again");
                        if socket.charged {
                            self.release(peer);
                        }
                    }
                }
            }
        }
    }

    fn release(&self, peer: SocketAddr) {
        if let Some(addresses) = &self.parts.addresses {
            addresses.release(peer.ip());
        }
    }

    fn adopt(&mut self, now: Now, handed: Handed) {
        let Handed { stream, peer, charged, in_room, listener, resume } = handed;
        // The core may give the new connection the place of one that has ended in this very turn: that one's
        // socket goes first.
        self.end();
        let taken = match &resume {
            None if in_room => self.parts.shard.dealt(now, peer),
            None => self.parts.shard.accepted(now, peer),
            Some(resume) => self.parts.shard.taken_over(now, peer, resume.deadline),
        };
        let key = taken.as_ref().ok().copied();
        if key.is_none() && charged {
            self.release(peer);
        }
        self.watch(now, taken, stream, (peer, charged));
        if let Some(key) = key {
            self.parts.shard.came_by(key, listener);
            if let Some(Resume { hello, .. }) = resume {
                self.parts.shard.received(now, key, &hello);
            }
        }
    }

    /// Registers the socket of a connection that the core has taken.
    fn watch(
        &mut self,
        now: Now,
        taken: Result<ConnectionKey, Vec<u8>>,
        mut stream: TcpStream,
        (peer, charged): (SocketAddr, bool),
    ) {
        let key = match taken {
            Ok(key) => key,
            Err(farewell) => return refuse(stream, &farewell),
        };
        self.parts.options.apply(&stream);
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = self.parts.registry.register(&mut stream, mio::Token(key.index()), interest);
        if self.sockets.len() <= key.index() {
            self.sockets.resize_with(key.index().saturating_add(1), || None);
        }
        if let Some(entry) = self.sockets.get_mut(key.index()) {
            *entry = Some(Socket { key, stream, charged, queued: false, closing: false });
        }
        if let Err(error) = registered {
            log::error!("{peer}: cannot be watched: {error}");
            self.parts.shard.peer_closed(now, key);
        }
    }
}

impl Core for ShardLoop {
    fn wakes_at(&self, now: Mono) -> Option<Mono> {
        if self.stopped || self.parts.shard.is_drained() {
            return None;
        }
        let accepting =
            self.parts.listeners.iter().any(|listener| listener.is_ready && listener.paused_until.is_none());
        let paused = self.parts.listeners.iter().filter_map(|listener| listener.paused_until);
        let deadline = self.parts.shard.next_deadline().into_iter().chain(paused).min();
        let is_busy = !self.backlog.is_empty() || accepting || self.parts.shard.is_fanning_out();
        let is_held = self.held.is_some()
            || self.held_connections.iter().any(|held| !held.is_empty())
            || self.held_receipts.iter().any(Option::is_some);
        Some(wakes_at(now, deadline, is_busy, is_held))
    }

    fn is_idle(&self) -> bool {
        let ShardParts { shard, deliveries, commands, handed, .. } = &self.parts;
        deliveries.is_empty() && commands.is_empty() && handed.is_empty() && !shard.has_orders()
    }
}

impl Turn for ShardLoop {
    fn turn(&mut self, now: Now, events: Option<&mio::Events>) {
        match events {
            Some(events) => self.wake(now, events),
            None => {
                self.parts.cells.count(Count::Visits);
                self.deliver(now);
            }
        }
        self.output(now, events.is_some());
        if events.is_some() && self.timers(now) {
            self.output(now, true);
        }
        if let (Some(sender), Some(records)) = (&self.parts.access, self.parts.shard.take_access()) {
            let lines = records.len() as u64;
            if sender.try_send(records).is_err() {
                self.parts.cells.add(Count::AccessLogDropped, lines);
            }
        }
    }
}

impl ShardLoop {
    /// Everything that leaves this turn.
    fn output(&mut self, now: Now, may_visit: bool) {
        self.hand_over(may_visit);
        self.hand_receipts_over();
        self.hand_connections_over();
        self.flush(now);
        self.end();
    }
}

/// Says why, as far as the socket takes it at once, and closes. What has come is read: closing with it unread would
/// be a reset, which may overtake the farewell.
fn refuse(mut stream: TcpStream, farewell: &[u8]) {
    let mut hello = [0; FRAME_BYTES_OPENING + LENGTH_BYTES];
    let _ = stream.read(&mut hello);
    let _ = stream.write(farewell);
    let _ = stream.shutdown(std::net::Shutdown::Write);
}
