//! Processes that are stopped and continued: the gateway, clients, services; and the judge of what the gateway does then.
//!
//! A stopped process reads nothing, and what happens to it meanwhile is held. The gateway's clock is the real one of its
//! loops, over simulated time. The judge counts by itself for how long the gateway ran, and when which input arrived.

use crate::network::{Arrived, ConnId, NetEvent, Side};
use crate::oracle::Asked;
use crate::plant::Plant;
use crate::reached::Path;
use crate::world::{Event, Owner, Phase, World};
use moorgate::base::clock::{PAUSE_MAX, PAUSE_MIN, Pauses};
use moorgate_proto::codec::Assembler;
use moorgate_proto::envelope::Envelope;
use moorgate_proto::envelope::member::to_service;
use moorgate_proto::limits::FRAME_BYTES_CEILING;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{self, Reason};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Idle loops read their clock at least this often.
const BEAT: Duration = Duration::from_secs(1);
/// What the gateway's clock may be ahead of the time that it ran.
const SLACK: Duration = Duration::from_millis(20);

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Process {
    Gateway,
    Client(usize),
    Service(usize),
}

/// The gateway's side of a link.
#[derive(Debug, Default)]
struct LinkTap {
    output: Assembler,
    /// The first ping that was written since the last input.
    unanswered_ping: Option<Mono>,
    /// Its service has broken the contract, or has said that it goes.
    is_excused: bool,
}

/// What the gateway may not take longer or shorter for.
#[derive(Debug)]
struct Deadline {
    conn: ConnId,
    at: Mono,
    timeout: Duration,
}

/// See the module's page. All times of the judge are of [`PauseJudge::ran`].
pub struct PauseJudge {
    stopped: BTreeMap<Process, Mono>,
    held: Vec<(Process, Event)>,
    clock: Pauses,
    last_reading: Mono,
    /// When the gateway was stopped, and for how long without counting it, while it is.
    stop: Option<(Mono, Duration)>,
    /// All that was not counted.
    skipped: Duration,
    accepted: BTreeMap<ConnId, Mono>,
    /// Connections whose input arrived while the gateway was stopped.
    unread: BTreeSet<ConnId>,
    inputs: BTreeMap<ConnId, Assembler>,
    /// When the last frame was whole.
    arrived: BTreeMap<ConnId, Mono>,
    heartbeats: BTreeMap<ConnId, Duration>,
    links: BTreeMap<ConnId, LinkTap>,
    /// The main links of bulk links.
    mains: BTreeMap<ConnId, ConnId>,
    requests: BTreeMap<Asked, Deadline>,
    /// Replies that were sent while the gateway was stopped.
    replied: Vec<(Asked, ConnId)>,
    /// Requests whose Replies had arrived before the gateway went on.
    answered: BTreeSet<Asked>,
}

impl PauseJudge {
    pub fn new(now: Mono) -> PauseJudge {
        PauseJudge {
            stopped: BTreeMap::new(),
            held: Vec::new(),
            clock: Pauses::new(now),
            last_reading: now,
            stop: None,
            skipped: Duration::ZERO,
            accepted: BTreeMap::new(),
            unread: BTreeSet::new(),
            inputs: BTreeMap::new(),
            arrived: BTreeMap::new(),
            heartbeats: BTreeMap::new(),
            links: BTreeMap::new(),
            mains: BTreeMap::new(),
            requests: BTreeMap::new(),
            replied: Vec::new(),
            answered: BTreeSet::new(),
        }
    }

    pub fn is_stopped(&self, process: Process) -> bool {
        self.stopped.contains_key(&process)
    }

    /// The next process that goes on.
    pub fn next_continue(&self) -> Option<(Mono, Process)> {
        self.stopped.iter().map(|(process, until)| (*until, *process)).min()
    }

    /// The gateway's clock, which it does not read while it is stopped.
    pub fn reading(&self, now: Mono) -> Mono {
        let now = if self.is_stopped(Process::Gateway) { self.last_reading } else { now };
        self.clock.read(|| now).0
    }

    /// The time without what counts against no deadline.
    fn ran(&self, now: Mono) -> Mono {
        let now = match self.stop {
            Some((begun, skipped)) => begun + now.since(begun).saturating_sub(skipped),
            None => now,
        };
        now - self.skipped
    }

    fn excuse(&mut self, conn: ConnId) {
        self.links.entry(conn).or_default().is_excused = true;
    }

    /// Whether a service has broken the contract on a link, or has said that it goes.
    pub fn is_excused(&self, conn: ConnId) -> bool {
        self.links.get(&conn).is_some_and(|link| link.is_excused)
    }
}

impl World {
    /// The loops' clock is read while nothing else happens.
    pub fn beat(&mut self) {
        if self.pauses.is_stopped(Process::Gateway) {
            return;
        }
        while self.pauses.last_reading < self.now {
            self.pauses.last_reading = self.now.min(self.pauses.last_reading + BEAT);
            self.pauses.reading(self.pauses.last_reading);
        }
    }

    /// Whose event it is.
    fn process_of(&self, event: &Event) -> Option<Process> {
        match event {
            Event::Net(
                NetEvent::Arrive(conn, side) | NetEvent::Writable(conn, side) | NetEvent::Broken(conn, side),
            ) => match self.owners[*conn][*side as usize] {
                Owner::Client(at) => Some(Process::Client(at)),
                Owner::Service(at, _) => Some(Process::Service(at)),
                Owner::Backlog | Owner::Shard(..) | Owner::Link(_) => Some(Process::Gateway),
                Owner::Raw(_) | Owner::Nobody => None,
            },
            Event::ShardTurn(_) | Event::WorkerTurn | Event::Accept(..) | Event::Dialled(..) => {
                Some(Process::Gateway)
            }
            Event::ClientConnects(at)
            | Event::ClientActs(at)
            | Event::Impatient(at, _)
            | Event::Probe(at) => Some(Process::Client(*at)),
            Event::Reply { endpoint, .. } => Some(Process::Service(*endpoint)),
            _ => None,
        }
    }

    /// Handles an event, or holds it as long as its process is stopped.
    pub fn handle_unless_stopped(&mut self, event: Event) {
        let Some(process) = self.process_of(&event).filter(|process| self.pauses.is_stopped(*process)) else {
            return self.handle(event);
        };
        if let (Process::Gateway, Event::Net(NetEvent::Arrive(conn, side))) = (process, &event)
            && self.deaf[*conn][*side as usize] <= self.now
            && self.net.is_readable(*conn, *side)
        {
            self.pauses.unread.insert(*conn);
        }
        self.pauses.held.push((process, event));
    }

    /// The gateway has read this.
    pub fn note_read(&mut self, conn: ConnId, mut bytes: &[u8]) {
        let ran = self.pauses.ran(self.now);
        self.pauses.unread.remove(&conn);
        let input = self.pauses.inputs.entry(conn).or_default();
        if let Ok(None) = input.next(&mut bytes, FRAME_BYTES_CEILING) {
            return;
        }
        while let Ok(Some(_)) = input.next(&mut bytes, FRAME_BYTES_CEILING) {}
        self.pauses.arrived.insert(conn, ran);
        if let Some(link) = self.pauses.links.get_mut(&conn) {
            link.unanswered_ping = None;
        }
    }

    /// A process is stopped now and then.
    pub fn some_pause(&mut self) {
        if self.phase != Phase::Faults {
            return;
        }
        let again = self.dice.millis(500, 6_000);
        self.schedule(again, Event::Pause);
        let process = match self.dice.below(4) {
            0 | 1 => Process::Gateway,
            2 => Process::Client(self.dice.index(self.clients.len())),
            _ => Process::Service(self.dice.index(self.endpoints.len())),
        };
        if self.pauses.is_stopped(process) || self.scenario.is_gentle && process != Process::Gateway {
            return;
        }
        // Calls and answers on them may be under way for long.
        for conn in (0..self.net.len()).filter(|conn| !self.net.is_over(*conn)) {
            let is_of = |owner: Owner| match owner {
                Owner::Client(at) => process == Process::Client(at),
                Owner::Service(at, _) => process == Process::Service(at),
                _ => false,
            };
            self.was_deaf[conn] |= self.owners[conn].into_iter().any(is_of);
        }
        let length = match self.dice.below(10) {
            0..=5 => self.dice.millis(20, 1_400),
            6..=8 => self.dice.millis(1_600, 8_000),
            _ => self.dice.millis(8_000, 60_000),
        };
        let until = (self.now + length).min(self.calm_at - Duration::from_millis(1));
        self.trace.note(self.now, "stop", (until.since(self.now).as_micros() as u64, 0), || {
            format!("{process:?} is stopped for {:?}", until.since(self.now))
        });
        self.note_stopped(process, until);
        self.pauses.stopped.insert(process, until);
    }

    fn note_stopped(&mut self, process: Process, until: Mono) {
        match process {
            Process::Client(_) => return self.reach(Path::PausedClient),
            Process::Service(_) => return self.reach(Path::PausedService),
            Process::Gateway => self.beat(),
        }
        let length = until.since(self.now);
        let skipped = if length > PAUSE_MIN { length.min(PAUSE_MAX) } else { Duration::ZERO };
        self.pauses.stop = Some((self.now, skipped));
        self.reach(if skipped.is_zero() { Path::PausedBriefly } else { Path::PausedLong });
        let backlog = |owners: &[Owner; 2]| matches!(owners[Side::Accepter as usize], Owner::Backlog);
        let shards = || self.shards.iter().map(|host| &host.shard);
        let forwarder = &self.worker.forwarder;
        let states = [
            (Path::PausedBacklog, self.owners.iter().any(backlog)),
            (Path::PausedOpening, shards().any(|it| it.connections() + it.detached() > it.sessions())),
            (Path::PausedSession, shards().any(|shard| shard.sessions() > shard.detached())),
            (Path::PausedDetached, shards().any(|shard| shard.detached() > 0)),
            (Path::PausedPartial, shards().any(|shard| shard.partial_bytes() > 0)),
            (Path::PausedOwed, shards().any(|shard| shard.owed_bytes() > 0)),
            (Path::PausedCalls, forwarder.calls() > 0),
            (Path::PausedDialling, !self.worker.dialling.is_empty()),
            (Path::PausedLinked, forwarder.links() > self.worker.dialling.len()),
        ];
        for (path, _) in states.into_iter().filter(|(_, is_so)| *is_so) {
            self.reach(path);
        }
    }

    /// All processes go on.
    pub fn continue_all(&mut self) {
        while let Some((_, process)) = self.pauses.next_continue() {
            self.continues(process);
        }
    }

    /// A stopped process goes on.
    pub fn continues(&mut self, process: Process) {
        self.pauses.stopped.remove(&process);
        self.trace.note(self.now, "continue", (0, 0), || format!("{process:?} goes on"));
        let (mine, others) =
            std::mem::take(&mut self.pauses.held).into_iter().partition(|(held, _)| *held == process);
        self.pauses.held = others;
        let mine: Vec<(Process, Event)> = mine;
        if process != Process::Gateway {
            return mine.into_iter().for_each(|(_, event)| self.handle_unless_stopped(event));
        }
        let stop = self.pauses.stop.take();
        let begun = stop.map_or(self.now, |(begun, _)| begun);
        self.note_answered(&mine, begun);
        let length = self.now.since(begun);
        if length > PAUSE_MIN {
            self.pauses.skipped += length.min(PAUSE_MAX);
            self.worker.forwarder.renew_presence();
        }
        if matches!(self.plant, Some(Plant::PauseCounted | Plant::DeadlinesFirst)) {
            self.beat();
        }
        self.pauses.last_reading = self.now;
        self.clock();
        if self.plant == Some(Plant::DeadlinesFirst) {
            self.gateway_turns();
        }
        if self.plant == Some(Plant::LinkUnasked) {
            self.links_are_given_up(length);
        }
        // A loop reads all that has arrived before it judges deadlines.
        let (net, rest): (Vec<_>, Vec<_>) =
            mine.into_iter().partition(|(_, event)| matches!(event, Event::Net(_)));
        for (_, event) in net {
            match event {
                Event::Net(NetEvent::Arrive(conn, side)) => self.read_all(conn, side),
                event => self.handle(event),
            }
        }
        rest.into_iter().for_each(|(_, event)| self.handle(event));
        self.gateway_turns();
        self.pauses.unread.clear();
    }

    fn gateway_turns(&mut self) {
        (0..self.shards.len()).for_each(|shard| self.shard_turn(shard));
        self.worker_turn();
    }

    fn read_all(&mut self, conn: ConnId, side: Side) {
        while !matches!(self.owners[conn][side as usize], Owner::Backlog)
            && self.deaf[conn][side as usize] <= self.now
        {
            let owner = self.owners[conn][side as usize];
            match self.net.read(conn, side, usize::MAX) {
                Arrived::Nothing => return,
                Arrived::End => return self.ended(owner, false),
                Arrived::Bytes(bytes) => self.received(conn, owner, &bytes),
            }
        }
        self.schedule(Duration::ZERO, Event::Net(NetEvent::Arrive(conn, side)));
    }

    /// The planted bug: links that were silent while the gateway was stopped are given up without a ping.
    fn links_are_given_up(&mut self, length: Duration) {
        if length < self.scenario.forward.heartbeat * 2 {
            return;
        }
        let links: Vec<_> = self.worker.sockets.values().copied().collect();
        for (key, _) in links {
            let now = self.clock().mono;
            self.worker.forwarder.link_lost(now, key, &"silence");
        }
    }

    /// A connection of a client is the gateway's.
    pub fn note_accepted(&mut self, conn: ConnId) {
        let ran = self.pauses.ran(self.now);
        self.pauses.accepted.insert(conn, ran);
    }

    pub fn note_heartbeat(&mut self, conn: ConnId, welcome: &v1::Welcome) {
        let interval = Duration::from_millis(u64::from(welcome.heartbeat_ms));
        self.pauses.heartbeats.insert(conn, interval);
    }

    /// The gateway has ended a connection with this Error.
    pub fn judge_error(&mut self, conn: ConnId, error: &v1::Error) {
        if self.was_deaf[conn] {
            // It may have been decided long ago, and could not be written.
            return;
        }
        let (pauses, settings) = (&self.pauses, &self.scenario.shard);
        let accepted = pauses.accepted.get(&conn).copied().unwrap_or(Mono::ZERO);
        let (since, limit) = match error.reason() {
            Reason::HeartbeatTimeout => {
                let arrived = pauses.arrived.get(&conn).copied().unwrap_or(accepted);
                (arrived, pauses.heartbeats.get(&conn).copied().unwrap_or_default() * 2)
            }
            Reason::HandshakeTimeout => (accepted, settings.handshake_timeout),
            Reason::FrameTimeout => (accepted, settings.frame_timeout),
            _ => return,
        };
        if pauses.unread.contains(&conn) && !self.net.is_silent(conn) {
            let reason = error.reason();
            self.oracle.violated(format!("connection {conn}: {reason:?}, and its input had arrived"));
        }
        let pauses = &self.pauses;
        let ran = pauses.ran(self.now).since(since) + SLACK;
        if ran < limit {
            let reason = error.reason();
            self.oracle.violated(format!("connection {conn}: {reason:?} after {ran:?} of {limit:?}"));
        }
    }

    /// What the gateway has written to a service.
    pub fn tap_link(&mut self, conn: ConnId, mut bytes: &[u8]) {
        let ran = self.pauses.ran(self.now);
        let link = self.pauses.links.entry(conn).or_default();
        while let Ok(Some(frame)) = link.output.next(&mut bytes, FRAME_BYTES_CEILING) {
            let member = Envelope::decode(frame).ok().and_then(|envelope| envelope.member);
            if member.is_some_and(|(member, _)| member == to_service::PING) {
                link.unanswered_ping.get_or_insert(ran);
            }
        }
    }

    /// A service is about to end its link, or to break the contract.
    pub fn excuse_link(&mut self, conn: ConnId) {
        self.pauses.excuse(conn);
    }

    /// A service has paired a bulk link with its main link.
    pub fn note_pair(&mut self, bulk: ConnId, main: ConnId) {
        self.pauses.mains.insert(bulk, main);
    }

    /// Whether the gateway has ended a link, or its connection.
    fn is_ended(&self, conn: ConnId) -> bool {
        self.given_up.contains(&conn) || !self.worker.sockets.values().any(|(_, held)| *held == conn)
    }

    /// The gateway closes a link.
    pub fn judge_link_close(&mut self, conn: ConnId) {
        let Owner::Service(at, link) = self.owners[conn][Side::Accepter as usize] else { return };
        // One that does not read cannot be asked.
        let reads =
            !self.was_deaf[conn] && !self.net.is_silent(conn) && !self.net.is_readable(conn, Side::Accepter);
        let is_good = self.endpoints[at].is_ready(link) && !self.net.is_over(conn) && reads;
        let Some(tap) = self.pauses.links.get(&conn).filter(|_| is_good && !self.pauses.is_excused(conn))
        else {
            return;
        };
        // A bulk link ends with its main link.
        let has_no_main = self.pauses.mains.get(&conn).is_some_and(|main| self.is_ended(*main));
        if has_no_main || self.phase == Phase::Draining {
            return;
        }
        let heartbeat = self.scenario.forward.heartbeat;
        let ran = self.pauses.ran(self.now) + SLACK;
        let silent = self.pauses.arrived.get(&conn).map_or(Duration::ZERO, |arrived| ran.since(*arrived));
        let asked = tap.unanswered_ping.map_or(Duration::ZERO, |ping| ran.since(ping));
        if silent < heartbeat * 2 || asked < heartbeat / 2 {
            self.oracle.violated(format!(
                "link {conn} was closed after {silent:?} of silence and {asked:?} after a ping, of {heartbeat:?}"
            ));
        }
    }

    /// A client asks for this on its connection.
    pub fn note_asked(&mut self, asked: Asked, conn: ConnId, command: u32, timeout: Duration) {
        let Ok(route) = self.scenario.routes.find(command, 1) else { return };
        let timeout = if timeout.is_zero() { route.timeout } else { timeout.min(route.timeout) };
        let deadline = Deadline { conn, at: self.pauses.ran(self.now), timeout };
        self.pauses.requests.insert(asked, deadline);
    }

    /// A service has sent a good Reply on a link.
    pub fn note_replied(&mut self, asked: Asked, conn: ConnId) {
        if self.pauses.is_stopped(Process::Gateway) {
            self.pauses.replied.push((asked, conn));
        }
    }

    fn note_answered(&mut self, held: &[(Process, Event)], begun: Mono) {
        let has_arrived = |conn: ConnId| {
            let is_of = |event: &Event| matches!(event, Event::Net(NetEvent::Arrive(of, _)) if *of == conn);
            held.iter().any(|(_, event)| is_of(event))
        };
        let replied = std::mem::take(&mut self.pauses.replied);
        let begun = self.pauses.ran(begun);
        for (asked, conn) in replied {
            let deadline = self.pauses.requests.get(&asked);
            // Its time may have been over before.
            let was_open = deadline.is_some_and(|it| it.at + it.timeout > begun + SLACK);
            let reads = !self.net.is_over(conn) && !self.net.is_silent(conn) && !self.was_deaf[conn];
            if was_open && reads && has_arrived(conn) {
                self.reach(Path::PausedReply);
                self.pauses.answered.insert(asked);
            }
        }
    }

    /// The gateway says of a request that its time is over.
    pub fn judge_timeout(&mut self, at: usize, asked: Asked) {
        let Some(deadline) = self.pauses.requests.get(&asked) else { return };
        // A request that was sent again has what its client has left it.
        if self.clients[at].conn != Some(deadline.conn) {
            return;
        }
        let ran = self.pauses.ran(self.now).since(deadline.at) + SLACK;
        if ran < deadline.timeout {
            let timeout = deadline.timeout;
            self.oracle.violated(format!("{asked:?} was given up after {ran:?} of {timeout:?}"));
        }
        if self.pauses.answered.contains(&asked) {
            self.oracle.violated(format!("{asked:?} was given up, and its Reply had arrived"));
        }
    }
}
