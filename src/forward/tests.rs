//! A worker as its reactor drives it, with services made of messages of the contract.

mod blame;
mod bulk;
mod calls;
mod ending;
mod explain;
mod hedge;
mod links;
mod members;
mod moved;
mod opening;
mod order;
mod presence;
mod pushes;
mod retry;
mod shed;
mod sizes;

use super::{Forwarder, LinkCommand, Parts, Readiness, Settings};
use crate::base::clock::Now;
use crate::base::counters::{Cells, Count};
use crate::base::ids::{LinkKey, RouteId, ServiceId, SessionId, SessionKey, ShardId, Ticket};
use crate::relay::{Forward, ForwardBatch, Outcome};
use crate::routing::{Balance, Decision, Grants, Order, RouteSettings, RouteTable, ServiceSettings, Span};
use moorgate_proto::codec::Assembler;
use moorgate_proto::proof::NONCE_BYTES;
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::service_view::State as View;
use moorgate_proto::v1::{self, Execution, Reason, Source, to_gateway, to_service};
use prost::Message;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A command of a route without order, and of one with `order = session`.
const PLAIN: u32 = 1;
const ORDERED: u32 = 2;
const NONCE: [u8; NONCE_BYTES] = [7; NONCE_BYTES];
const SHARD: ShardId = ShardId(0);
const UNIX_MS: u64 = 1_800_000_000_000;

/// The two routes, both changed.
fn routes_with(change: impl Fn(&mut RouteSettings)) -> Arc<RouteTable> {
    let route = |command, order| {
        let commands = Span { first: command, last: command };
        let mut route = RouteSettings { order, ..RouteSettings::new(commands, ServiceId(0)) };
        change(&mut route);
        route
    };
    Arc::new(RouteTable::build(&[route(PLAIN, Order::None), route(ORDERED, Order::Session)]).unwrap())
}

/// Routes whose calls may run twice.
fn idempotent(parts: &mut Parts) {
    parts.routes = routes_with(|route| route.idempotent = true);
}

/// A worker, its time, and what was heard on its links.
struct World {
    forwarder: Forwarder,
    now: Mono,
    cells: Arc<Cells>,
    readiness: Arc<Readiness>,
    tickets: u32,
    heard: HashMap<LinkKey, Vec<to_service::Member>>,
    /// Links whose sockets take nothing.
    stuck: Vec<LinkKey>,
}

impl World {
    /// One service with this many endpoints, dialled.
    fn new(endpoints: u8) -> World {
        World::with(endpoints, |_| ())
    }

    fn with(endpoints: u8, change: impl FnOnce(&mut Parts)) -> World {
        let (cells, readiness) = (Arc::new(Cells::default()), Arc::new(Readiness::new(1)));
        let addresses = (1..=endpoints).map(|at| SocketAddr::from(([192, 0, 2, at], 7100)));
        let mut service = ServiceSettings::new("chat", addresses);
        // Calls of which nothing else is said go where one can tell.
        service.pool.balance = Balance::LeastOutstanding;
        service.pool.slow_start.time = Duration::ZERO;
        let parts = Parts::alone(vec![service], RouteTable::default());
        let (routes, own) = (routes_with(|_| ()), (cells.clone(), readiness.clone()));
        let mut parts = Parts { boot_id: 9, routes, cells: own.0, readiness: own.1, ..parts };
        change(&mut parts);
        let mut world = World {
            forwarder: Forwarder::new(parts),
            now: Mono::ZERO + Duration::from_secs(1),
            cells,
            readiness,
            tickets: 0,
            heard: HashMap::new(),
            stuck: Vec::new(),
        };
        world.forwarder.start(world.now);
        world
    }

    /// One service with one endpoint, whose link is ready and takes `outstanding_max` calls.
    fn ready(outstanding_max: u32) -> (World, LinkKey) {
        let mut world = World::new(1);
        let link = world.dialled();
        world.open(link, outstanding_max);
        (world, link)
    }

    /// Two endpoints, each with a ready link.
    fn two(outstanding_max: u32) -> (World, [LinkKey; 2]) {
        World::several(outstanding_max, |_| ())
    }

    /// As many endpoints as links are wanted, each with a ready link.
    fn several<const N: usize>(
        outstanding_max: u32,
        change: impl FnOnce(&mut Parts),
    ) -> (World, [LinkKey; N]) {
        let mut world = World::with(u8::try_from(N).unwrap(), change);
        let links = [(); N].map(|()| world.dialled());
        links.iter().for_each(|link| world.open(*link, outstanding_max));
        (world, links)
    }

    /// The next link to dial.
    fn dialled(&mut self) -> LinkKey {
        match self.forwarder.next_command() {
            Some(LinkCommand::Dial(key, _)) => key,
            other => panic!("a link to dial, not {other:?}"),
        }
    }

    /// Whether the next command closes this link; or ends its stream, which its service does too then.
    fn closes(&mut self, link: LinkKey) -> bool {
        self.flush();
        let mut command = self.forwarder.next_command();
        if command == Some(LinkCommand::EndStream(link)) {
            self.forwarder.link_over(self.now, link);
            command = self.forwarder.next_command();
        }
        command == Some(LinkCommand::Close(link))
    }

    /// A link that its service drains, or whose endpoint leaves, is closed behind an answer to a last ping.
    fn closes_behind_a_ping(&mut self, link: LinkKey) -> bool {
        let pings = self.heard(link).into_iter().filter_map(|member| match member {
            to_service::Member::Ping(ping) => Some(ping.nonce),
            _ => None,
        });
        for nonce in pings.collect::<Vec<_>>() {
            assert_eq!(self.forwarder.next_command(), None, "not before the answer");
            self.say(link, to_gateway::Member::Pong(v1::LinkPong { nonce, view: None }));
        }
        self.closes(link)
    }

    /// Takes a link from its connection to ready.
    fn open(&mut self, link: LinkKey, outstanding_max: u32) {
        self.forwarder.connected(self.now, link, NONCE);
        assert!(matches!(self.heard(link)[..], [to_service::Member::Hello(_)]));
        let view = v1::ServiceView { outstanding_max, ..v1::ServiceView::default() };
        self.say(link, to_gateway::Member::HelloAck(v1::LinkHelloAck { view: Some(view), ..hello_ack() }));
        assert!(matches!(self.heard(link)[..], [to_service::Member::Auth(_)]));
    }

    /// The service sends a frame.
    fn say(&mut self, link: LinkKey, member: to_gateway::Member) {
        self.hear(link, &frame(member));
    }

    fn hear(&mut self, link: LinkKey, bytes: &[u8]) {
        let now = Now { mono: self.now, unix_ms: UNIX_MS };
        self.forwarder.received(now, link, bytes);
    }

    fn reply(&mut self, link: LinkKey, call: &v1::Call, payload: &'static [u8]) {
        let reply = v1::Reply { call_id: call.call_id, payload: payload.into(), ..v1::Reply::default() };
        self.say(link, to_gateway::Member::Reply(reply));
    }

    fn view(&mut self, link: LinkKey, state: View, outstanding_max: u32) {
        let view = v1::ServiceView { state: state.into(), outstanding_max, load: 0 };
        self.say(link, to_gateway::Member::Ping(v1::LinkPing { nonce: 3, view: Some(view) }));
        let heard = self.heard(link);
        assert!(
            heard.iter().any(|member| matches!(member, to_service::Member::Pong(pong) if pong.nonce == 3))
        );
    }

    /// A service answers a call with this, and whether it was executed.
    fn fail(&mut self, link: LinkKey, call: &v1::Call, (code, reason): (Code, Reason), execution: Execution) {
        let reply = v1::Reply {
            call_id: call.call_id,
            status: code.to_wire(),
            reason: reason.into(),
            execution: execution.into(),
            ..v1::Reply::default()
        };
        self.say(link, to_gateway::Member::Reply(reply));
    }

    /// Writes what the links have to say, as far as their sockets take it.
    fn flush(&mut self) {
        while let Some(link) = self.forwarder.next_flush() {
            let bytes = self.forwarder.unsent(link).to_vec();
            if self.stuck.contains(&link) {
                self.forwarder.sent(self.now, link, 0);
            } else {
                self.heard.entry(link).or_default().extend(members(&bytes));
                self.forwarder.sent(self.now, link, bytes.len());
            }
        }
    }

    /// What the service has heard on a link since the last look.
    fn heard(&mut self, link: LinkKey) -> Vec<to_service::Member> {
        self.flush();
        self.heard.remove(&link).unwrap_or_default()
    }

    /// The socket of a link takes bytes again.
    fn unstick(&mut self, link: LinkKey) {
        self.stuck.retain(|stuck| *stuck != link);
        self.forwarder.writable(link);
    }

    /// The calls among what is heard.
    fn calls(&mut self, link: LinkKey) -> Vec<v1::Call> {
        let heard = self.heard(link).into_iter();
        heard
            .filter_map(|member| match member {
                to_service::Member::Call(call) => Some(call),
                _ => None,
            })
            .collect()
    }

    /// The one call that is heard.
    fn call(&mut self, link: LinkKey) -> v1::Call {
        let calls = self.calls(link);
        assert_eq!(calls.len(), 1, "{calls:?}");
        calls.into_iter().next().unwrap()
    }

    /// A request of a session of its own, for 5 seconds.
    fn ask(&mut self, payload: &'static [u8]) -> Ticket {
        let session = 1000 + self.tickets;
        self.ask_as(session, PLAIN, payload)
    }

    fn ask_as(&mut self, session: u32, command: u32, payload: &'static [u8]) -> Ticket {
        self.ask_until(session, command, payload, self.now + Duration::from_secs(5))
    }

    fn ask_until(&mut self, session: u32, command: u32, payload: &'static [u8], deadline: Mono) -> Ticket {
        let ticket = Ticket::new(self.tickets, 0);
        self.tickets += 1;
        let mut batch = ForwardBatch { shard: SHARD, ..ForwardBatch::default() };
        let caller = v1::Caller { user_id: "alice".to_owned(), ..v1::Caller::default() };
        batch.forwards.push(Forward {
            ticket,
            session: SessionKey::new(session, 0),
            session_id: SessionId([session.to_le_bytes()[0]; 16]),
            route: RouteId(if command == PLAIN { 0 } else { 1 }),
            caller: 0,
            deadline,
            call: batch.arena.encode(&v1::Call {
                command,
                version: 1,
                caller: Some(caller),
                payload: payload.into(),
                ..v1::Call::default()
            }),
        });
        self.forwarder.forward(self.now, &batch);
        ticket
    }

    fn cancel(&mut self, ticket: Ticket) {
        let batch = ForwardBatch { shard: SHARD, cancels: vec![ticket], ..ForwardBatch::default() };
        self.forwarder.forward(self.now, &batch);
    }

    /// A call that one of these links has got, and which of them.
    fn call_on_any(&mut self, links: &[LinkKey]) -> (usize, v1::Call) {
        let mut found: Vec<(usize, v1::Call)> = Vec::new();
        for (at, link) in links.iter().enumerate() {
            found.extend(self.calls(*link).into_iter().map(|call| (at, call)));
        }
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    /// What was settled since the last look, with who had it and why.
    fn decided(&mut self) -> Vec<(Ticket, u32, Decision)> {
        let batch = self.forwarder.deliveries(SHARD).unwrap_or_default();
        batch.settled().map(|settled| (settled.ticket, settled.endpoint, settled.decision)).collect()
    }

    /// What was settled since the last look.
    fn settled(&mut self) -> Vec<(Ticket, Outcome)> {
        let batch = self.forwarder.deliveries(SHARD).unwrap_or_default();
        batch.settled().map(|settled| (settled.ticket, settled.outcome)).collect()
    }

    /// Time passes, and every deadline in it is looked at when it comes.
    fn pass(&mut self, length: Duration) {
        let end = self.now + length;
        let mut turns = 0;
        while let Some(due) = self.forwarder.next_deadline().filter(|due| *due < end) {
            self.now = self.now.max(due);
            self.forwarder.timers(self.now);
            turns += 1;
            assert!(turns < 100_000, "a deadline that never passes");
        }
        self.now = end;
        self.forwarder.timers(self.now);
    }

    fn count(&self, count: Count) -> u64 {
        self.cells.value(count)
    }
}

fn hello_ack() -> v1::LinkHelloAck {
    v1::LinkHelloAck {
        version: 1,
        service: "chat".to_owned(),
        instance_id: "chat-a".to_owned(),
        ..v1::LinkHelloAck::default()
    }
}

fn frame(member: to_gateway::Member) -> Vec<u8> {
    let body = v1::ToGateway { member: Some(member) }.encode_to_vec();
    let mut bytes = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(body);
    bytes
}

fn members(mut bytes: &[u8]) -> Vec<to_service::Member> {
    let mut assembler = Assembler::default();
    let mut found = Vec::new();
    while let Some(frame) = assembler.next(&mut bytes, 1 << 24).unwrap() {
        found.push(v1::ToService::decode(frame).unwrap().member.unwrap());
    }
    assert_eq!(assembler.held_bytes(), 0, "whole frames");
    found
}

/// A service's answer.
fn done() -> Outcome {
    Outcome {
        code: Code::Ok,
        reason: Reason::Unspecified,
        source: Source::Service,
        execution: Execution::Executed,
        retry_after_ms: 0,
    }
}

fn no_endpoint() -> Outcome {
    Outcome::refused(Code::Unavailable, Reason::NoEndpoint)
}
