//! The loop of one worker: its links to the services, its mailboxes.

use super::read_until::{Backlog, ReadUntil, Unread};
use super::socket::{self, Got, ReadBudget, SocketOptions};
use super::{Inbox, LoopSeat, Outbox, READ_BYTES, Turn, VISITS_LEN_MAX, Visit, WAKER, run, wakes_at};
use crate::base::clock::{Clock, Now};
use crate::base::counters::{Cells, Count};
use crate::base::ids::{LinkKey, ShardId};
use crate::base::pulse::Pulse;
use crate::base::seat::Core;
use crate::forward::{ExplainAnswer, ExplainAsk, Forwarder, LinkCommand};
use crate::relay::{DeliveryBatch, ForwardBatch, Receipt};
use crossbeam_channel::Sender;
use mio::Interest;
use mio::net::TcpStream;
use moorgate_proto::proof::NONCE_BYTES;
use moorgate_proto::time::Mono;
use ring::rand::{SecureRandom, SystemRandom};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;

/// What the gateway tells a worker.
#[derive(Debug)]
pub enum WorkerCommand {
    /// End now: the shards have ended.
    Stop,
    /// Say what would be done with a call, to whoever waits at the other end; nothing when there is no such service.
    Explain(Box<ExplainAsk>, Sender<ExplainAnswer>),
}

/// What a worker's loop is built from.
#[derive(Debug)]
pub struct WorkerParts {
    /// What it serves.
    pub forwarder: Forwarder,
    /// Of its poll.
    pub registry: mio::Registry,
    /// Shared by all threads.
    pub clock: Clock,
    /// Of its sockets.
    pub options: SocketOptions,
    /// From its shards.
    pub forwards: Inbox<ForwardBatch>,
    /// To all shards.
    pub deliveries: Vec<(ShardId, Outbox<DeliveryBatch>)>,
    /// Where they sit.
    pub shards: Vec<Arc<dyn Visit>>,
    /// From all shards: what became of pushes that were heard here.
    pub receipts: Inbox<Vec<Receipt>>,
    /// From the gateway.
    pub commands: Inbox<WorkerCommand>,
    /// Where it counts.
    pub cells: Arc<Cells>,
    /// Tells that it turns.
    pub pulse: Arc<Pulse>,
}

struct Socket {
    key: LinkKey,
    stream: TcpStream,
    is_connected: bool,
    queued: bool,
    closing: bool,
}

/// The loop of one worker.
pub struct WorkerLoop {
    parts: WorkerParts,
    /// By the index of their links.
    sockets: Vec<Option<Socket>>,
    backlog: Backlog<LinkKey>,
    read_until: ReadUntil,
    /// Pauses of the process that were acted upon.
    pauses: u64,
    buffer: Box<[u8]>,
    /// Batches that did not fit into their shards' mailboxes, in the order of `deliveries`.
    held: Vec<Option<DeliveryBatch>>,
    random: SystemRandom,
    stopped: bool,
}

impl WorkerLoop {
    /// A loop that is ready to run.
    pub fn new(parts: WorkerParts) -> WorkerLoop {
        WorkerLoop {
            held: parts.deliveries.iter().map(|_| None).collect(),
            parts,
            sockets: Vec::new(),
            backlog: Backlog::default(),
            read_until: ReadUntil::default(),
            pauses: 0,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            random: SystemRandom::new(),
            stopped: false,
        }
    }

    /// Runs until it is stopped.
    pub fn run(mut self, seat: &LoopSeat<WorkerLoop>, poll: mio::Poll) {
        let clock = self.parts.clock;
        let now = clock.read();
        self.parts.forwarder.start(now.mono);
        self.commands(now);
        seat.sit(self);
        if let Some(mut core) = run(seat, poll, clock) {
            core.parts.forwarder.stop(clock.read().mono);
            core.hand_over(false);
            core.parts.pulse.end();
        }
    }

    /// What the worker's own thread does in a turn.
    fn wake(&mut self, now: Now, events: &mio::Events) {
        self.parts.cells.count(Count::Wakeups);
        self.parts.pulse.beat(now.mono);
        let unread = Unread::since(self.read_until.until());
        self.read_until.turn(now.mono, events.iter().count(), self.sockets.len());
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
        if self.parts.forwarder.has_news() {
            self.parts.forwarder.refresh(now.mono);
        }
        self.forward(now);
        while let Some(receipts) = self.parts.receipts.take() {
            self.parts.forwarder.receipts(receipts);
        }
        self.orders(now);
        let (pauses, _) = self.parts.clock.paused();
        if std::mem::replace(&mut self.pauses, pauses) != pauses {
            self.parts.forwarder.renew_presence();
        }
        self.parts.forwarder.tell_presence();
    }

    /// Judges the deadlines, once all input that counts against them is read and all output is tried; whether any
    /// had come.
    fn timers(&mut self) -> bool {
        let until = self.read_until.until().min(self.backlog.unread_since());
        let is_due = self.parts.forwarder.next_deadline().is_some_and(|due| due <= until);
        if is_due {
            self.parts.forwarder.timers(until);
        }
        is_due
    }

    fn forward(&mut self, now: Now) {
        for batch in self.parts.forwards.waiting() {
            self.parts.forwarder.forward(now.mono, &batch);
        }
    }

    fn orders(&mut self, now: Now) {
        while let Some(command) = self.parts.commands.take() {
            match command {
                WorkerCommand::Stop => self.stopped = true,
                WorkerCommand::Explain(ask, answer) => {
                    if let Some(said) = self.parts.forwarder.explain(now.mono, &ask) {
                        // Whoever has asked may wait no more, and the answer has no other reader.
                        let _ = answer.try_send(said);
                    }
                }
            }
        }
    }

    fn event(&mut self, now: Now, event: &mio::event::Event, unread: Unread) {
        let token = event.token();
        if token == WAKER {
            return;
        }
        let Some(Some(socket)) = self.sockets.get_mut(token.0) else { return };
        let key = socket.key;
        if !socket.is_connected {
            if !(event.is_writable() || event.is_error() || event.is_write_closed()) {
                return;
            }
            match socket.stream.take_error().and_then(|error| error.map_or(Ok(()), Err)) {
                Ok(()) if socket.stream.peer_addr().is_ok() => socket.is_connected = true,
                Ok(()) => return,
                Err(error) => return self.parts.forwarder.link_lost(now.mono, key, &error),
            }
            self.connected(now, key);
        }
        if event.is_writable() {
            self.parts.forwarder.writable(key);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            let closing = event.is_read_closed() || event.is_error();
            if let Some(socket) = self.socket(key) {
                socket.closing |= closing;
            }
            self.read(now, key, unread);
        }
    }

    fn connected(&mut self, now: Now, key: LinkKey) {
        let mut nonce = [0; NONCE_BYTES];
        match self.random.fill(&mut nonce) {
            Ok(()) => self.parts.forwarder.connected(now.mono, key, nonce),
            Err(_) => self.parts.forwarder.link_lost(now.mono, key, &"the system has no random numbers"),
        }
    }

    fn socket(&mut self, key: LinkKey) -> Option<&mut Socket> {
        self.sockets.get_mut(key.index())?.as_mut().filter(|socket| socket.key == key)
    }

    fn read(&mut self, now: Now, key: LinkKey, unread: Unread) {
        let mut budget = ReadBudget::default();
        while !budget.is_spent() {
            let Some(Some(socket)) = self.sockets.get_mut(key.index()) else { return };
            if socket.key != key {
                return;
            }
            match socket::read(&mut socket.stream, &mut self.buffer, socket.closing) {
                Got::Bytes(count, more) => {
                    let bytes = self.buffer.get(..count).unwrap_or_default();
                    let frames = self.parts.forwarder.received(now, key, bytes);
                    if !more {
                        return;
                    }
                    budget.spend(count, frames);
                }
                Got::Nothing => return,
                Got::End => return self.parts.forwarder.link_over(now.mono, key),
            }
        }
        if let Some(socket) = self.socket(key)
            && !std::mem::replace(&mut socket.queued, true)
        {
            self.backlog.push(key, unread.read(now.mono, budget.bytes_read()));
        }
    }

    fn hand_over(&mut self, may_visit: bool) {
        let mut room = if may_visit { VISITS_LEN_MAX } else { 0 };
        let shards = self.parts.deliveries.iter().zip(&self.parts.shards).zip(&mut self.held);
        for (((shard, outbox), seat), held) in shards {
            while let Some(batch) = held.take().or_else(|| self.parts.forwarder.deliveries(*shard)) {
                let len = batch.len();
                if let Err(batch) = outbox.post(batch) {
                    *held = Some(batch);
                    break;
                }
                match room.checked_sub(len) {
                    Some(rest) => {
                        room = rest;
                        seat.visit(self.parts.clock);
                    }
                    None => outbox.ring(),
                }
            }
        }
    }

    fn flush(&mut self, now: Now) {
        while let Some(key) = self.parts.forwarder.next_flush() {
            let Some(Some(socket)) = self.sockets.get_mut(key.index()) else { continue };
            match socket::write(&mut socket.stream, self.parts.forwarder.unsent(key)) {
                Some(count) => self.parts.forwarder.sent(now.mono, key, count),
                None => self.parts.forwarder.link_lost(now.mono, key, &"the service has reset it"),
            }
        }
    }

    fn commands(&mut self, now: Now) {
        while let Some(command) = self.parts.forwarder.next_command() {
            match command {
                LinkCommand::Close(key) => {
                    if self.socket(key).is_some()
                        && let Some(entry) = self.sockets.get_mut(key.index())
                    {
                        *entry = None;
                    }
                }
                LinkCommand::EndStream(key) => {
                    // A socket that is dead already has an end to be read.
                    if let Some(socket) = self.socket(key) {
                        let _ = socket.stream.shutdown(Shutdown::Write);
                    }
                }
                LinkCommand::Dial(key, address) => self.dial(now, key, address),
            }
        }
    }

    fn dial(&mut self, now: Now, key: LinkKey, address: SocketAddr) {
        let interest = Interest::READABLE | Interest::WRITABLE;
        let opened = TcpStream::connect(address).and_then(|mut stream| {
            self.parts.registry.register(&mut stream, mio::Token(key.index()), interest)?;
            Ok(stream)
        });
        match opened {
            Ok(stream) => {
                self.parts.options.apply(&stream);
                if self.sockets.len() <= key.index() {
                    self.sockets.resize_with(key.index().saturating_add(1), || None);
                }
                if let Some(entry) = self.sockets.get_mut(key.index()) {
                    *entry = Some(Socket { key, stream, is_connected: false, queued: false, closing: false });
                }
            }
            Err(error) => self.parts.forwarder.link_lost(now.mono, key, &error),
        }
    }
}

impl Core for WorkerLoop {
    fn wakes_at(&self, now: Mono) -> Option<Mono> {
        if self.stopped {
            return None;
        }
        let deadline = self.parts.forwarder.next_deadline();
        let is_held = self.held.iter().any(Option::is_some);
        Some(wakes_at(now, deadline, !self.backlog.is_empty(), is_held))
    }

    fn is_idle(&self) -> bool {
        let WorkerParts { forwards, receipts, commands, forwarder, .. } = &self.parts;
        forwards.is_empty()
            && receipts.is_empty()
            && commands.is_empty()
            && !forwarder.has_presence()
            && !forwarder.has_news()
    }
}

impl Turn for WorkerLoop {
    fn turn(&mut self, now: Now, events: Option<&mio::Events>) {
        match events {
            Some(events) => self.wake(now, events),
            None => {
                self.parts.cells.count(Count::Visits);
                self.forward(now);
            }
        }
        self.hand_over(events.is_some());
        self.flush(now);
        if events.is_some() && self.timers() {
            self.flush(now);
        }
        self.commands(now);
        // Links that failed in this turn have settled their calls: those must not wait for the next one.
        self.hand_over(events.is_some());
    }
}
