//! A shard as its reactor drives it, with clients and a worker made of messages of the contract.

mod closing;
mod limits;
mod offences;
mod opening;
mod output;
mod requests;
mod resume;
mod shed;
mod sizes;
mod timers;

use super::{End, Parts, Settings, Shard};
use crate::auth::{Authority, KeyRing, SigningKey, mint};
use crate::base::clock::Now;
use crate::base::counters::{Cells, Count};
use crate::base::ids::{ConnectionKey, ServiceId, Ticket};
use crate::relay::{Delivery, DeliveryBatch, Forward, ForwardBatch, Outcome, Settled};
use crate::routing::{RouteSettings, RouteTable, Span};
use crate::session;
use moorgate_proto::codec::Assembler;
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{self, Execution, Reason, Source, client_frame, gateway_frame};
use moorgate_proto::view::ReplyView;
use prost::Message;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const BEGIN_UNIX_MS: u64 = 1_800_000_000_000;
/// Commands: one for users, one for everybody, one with a small payload only.
const CHAT: u32 = 1;
const OPEN: u32 = 2;
const SMALL: u32 = 3;
/// Where all clients are.
const PEER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 999));
/// How late a deadline may be noticed.
const TICK: Duration = Duration::from_millis(9);
const SECOND: Duration = Duration::from_secs(1);

/// A shard, its time, and what its clients have got.
struct World {
    shard: Shard,
    now: Now,
    cells: Arc<Cells>,
    /// What was written to each connection and not looked at.
    written: HashMap<ConnectionKey, Vec<u8>>,
    /// Connections whose sockets take nothing.
    stuck: Vec<ConnectionKey>,
}

impl World {
    fn new() -> World {
        World::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut Parts)) -> World {
        let cells = Arc::new(Cells::default());
        let route = |command| RouteSettings::new(Span { first: command, last: command }, ServiceId(0));
        let routes = [
            route(CHAT),
            RouteSettings { anonymous: true, ..route(OPEN) },
            RouteSettings { payload_bytes_max: 4, ..route(SMALL) },
        ];
        let key = SigningKey::new("k", SECRET).unwrap();
        let authority = Authority::of_keys(KeyRing::new(vec![key], None, None, 0).unwrap());
        let parts = Parts::alone(RouteTable::build(&routes).unwrap(), authority);
        let mut parts = Parts { cells: cells.clone(), access_log: true, ..parts };
        change(&mut parts);
        let now = Now { mono: Mono::ZERO + SECOND, unix_ms: BEGIN_UNIX_MS };
        World { shard: Shard::new(parts), now, cells, written: HashMap::new(), stuck: Vec::new() }
    }

    /// A world with one client, logged in.
    fn joined() -> (World, ConnectionKey) {
        World::joined_with(|_| ())
    }

    fn joined_with(change: impl FnOnce(&mut Parts)) -> (World, ConnectionKey) {
        let mut world = World::with(change);
        let client = world.join();
        (world, client)
    }

    fn accept(&mut self) -> ConnectionKey {
        while self.shard.next_ended().is_some() {}
        self.shard.accepted(self.now, PEER).unwrap()
    }

    /// A client that has its session.
    fn join(&mut self) -> ConnectionKey {
        let client = self.accept();
        self.say(client, 0, client_frame::Member::Hello(hello()));
        assert!(matches!(self.member(client), gateway_frame::Member::Welcome(_)));
        client
    }

    /// The client sends a frame without an acknowledgement.
    fn say(&mut self, client: ConnectionKey, up_seq: u64, member: client_frame::Member) {
        self.send(client, v1::ClientFrame { up_seq, ack: 0, member: Some(member) });
    }

    fn send(&mut self, client: ConnectionKey, frame: v1::ClientFrame) {
        self.shard.received(self.now, client, &bytes(&frame));
    }

    fn ack(&mut self, client: ConnectionKey, ack: u64) {
        self.send(client, v1::ClientFrame { up_seq: 0, ack, member: None });
    }

    fn request(&mut self, client: ConnectionKey, up_seq: u64) {
        self.say(client, up_seq, request(CHAT, b"hi"));
    }

    /// Writes what there is, as far as the sockets take it.
    fn flush(&mut self) {
        while let Some(client) = self.shard.next_flush() {
            let bytes = self.shard.unsent(client).to_vec();
            if self.stuck.contains(&client) {
                self.shard.sent(self.now, client, 0);
            } else {
                self.written.entry(client).or_default().extend(&bytes);
                self.shard.sent(self.now, client, bytes.len());
            }
        }
    }

    /// The socket of a client takes bytes again.
    fn unstick(&mut self, client: ConnectionKey) {
        self.stuck.retain(|stuck| *stuck != client);
        self.shard.writable(client);
    }

    /// What a client has got since the last look.
    fn got(&mut self, client: ConnectionKey) -> Vec<v1::GatewayFrame> {
        self.flush();
        frames(&self.written.remove(&client).unwrap_or_default())
    }

    /// The one member that a client has got.
    fn member(&mut self, client: ConnectionKey) -> gateway_frame::Member {
        let mut got = self.got(client);
        assert_eq!(got.len(), 1, "{got:?}");
        got.remove(0).member.unwrap()
    }

    fn response(&mut self, client: ConnectionKey) -> v1::Response {
        match self.member(client) {
            gateway_frame::Member::Response(response) => response,
            other => panic!("a Response, not {other:?}"),
        }
    }

    /// The last frame of a connection that ends: its reason, and whether the client may come back.
    fn error(&mut self, client: ConnectionKey) -> (Reason, bool) {
        match self.member(client) {
            gateway_frame::Member::Error(error) => (error.reason(), error.reconnect.unwrap().allowed),
            other => panic!("an Error, not {other:?}"),
        }
    }

    /// What the worker gets.
    fn forwards(&mut self) -> ForwardBatch {
        self.shard.forwards().unwrap_or_default()
    }

    /// The tickets of the requests that the worker gets.
    fn tickets(&mut self) -> Vec<Ticket> {
        self.forwards().forwards.iter().map(|forward| forward.ticket).collect()
    }

    /// The worker settles a call with a reply of its service.
    fn settle(&mut self, ticket: Ticket, payload: &[u8]) {
        let reply = ReplyView { payload, ..ReplyView::default() };
        let mut batch = DeliveryBatch::default();
        let outcome = Outcome { source: Source::Service, execution: Execution::Executed, ..ok() };
        let settled = Settled { endpoint: 1, ..Settled::bare(ticket, outcome) };
        let settled = settled.with_reply(&reply, &mut batch.arena);
        batch.deliveries.push(Delivery::Settled(settled));
        self.shard.delivered(self.now, batch);
    }

    /// Time passes, and every deadline in it is looked at when it comes.
    fn pass(&mut self, length: Duration) {
        let end = self.now.mono + length;
        let mut turns = 0;
        while let Some(due) = self.shard.next_deadline().filter(|due| *due < end) {
            self.at(self.now.mono.max(due));
            turns += 1;
            assert!(turns < 100_000, "a deadline that never passes");
        }
        self.at(end);
    }

    /// The process does not run for so long: the time of deadlines stands still, civil time does not.
    fn pause(&mut self, length: Duration) {
        self.now.unix_ms += u64::try_from(length.as_millis()).unwrap();
        self.shard.compare_clocks(self.now);
    }

    fn at(&mut self, mono: Mono) {
        let ms = |at: Mono| at.as_nanos() / 1_000_000;
        self.now = Now { mono, unix_ms: self.now.unix_ms + ms(mono) - ms(self.now.mono) };
        self.shard.compare_clocks(self.now);
        self.shard.timers(self.now);
    }

    fn count(&self, count: Count) -> u64 {
        self.cells.value(count)
    }
}

fn token(life: Duration) -> String {
    let expires = BEGIN_UNIX_MS / 1000 + life.as_secs();
    let claims = serde_json::json!({"sub": "alice", "exp": expires});
    mint(&SigningKey::new("k", SECRET).unwrap(), &claims)
}

fn hello() -> v1::Hello {
    v1::Hello {
        version_min: 1,
        version_max: 1,
        access_token: token(Duration::from_secs(86_400)),
        heartbeat_ms: u32::try_from(session::Settings::default().heartbeat.as_millis()).unwrap(),
        ..v1::Hello::default()
    }
}

fn request(command: u32, payload: &'static [u8]) -> client_frame::Member {
    client_frame::Member::Request(v1::Request { command, payload: payload.into(), ..v1::Request::default() })
}

fn ping(next_ms: u32) -> client_frame::Member {
    client_frame::Member::Ping(v1::Ping { nonce: 5, next_ms })
}

fn cancel(up_seq: u64) -> client_frame::Member {
    client_frame::Member::Cancel(v1::Cancel { up_seq })
}

fn ok() -> Outcome {
    Outcome::refused(Code::Ok, Reason::Unspecified)
}

fn bytes(frame: &v1::ClientFrame) -> Vec<u8> {
    let body = frame.encode_to_vec();
    let mut bytes = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(body);
    bytes
}

fn frames(mut bytes: &[u8]) -> Vec<v1::GatewayFrame> {
    let mut assembler = Assembler::default();
    let mut found = Vec::new();
    while let Some(frame) = assembler.next(&mut bytes, 1 << 24).unwrap() {
        found.push(v1::GatewayFrame::decode(frame).unwrap());
    }
    assert_eq!(assembler.held_bytes(), 0, "whole frames");
    found
}
