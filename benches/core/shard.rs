//! Sessions and their shard.

use crate::{PAYLOAD, SECRET, UNIX_S, now};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use moorgate::auth::{Authority, KeyRing, SigningKey, mint};
use moorgate::base::clock::Now;
use moorgate::base::ids::{ConnectionKey, ServiceId};
use moorgate::limit::{self, Limits, OwnerSettings, Rate, Shared};
use moorgate::relay::{Delivery, DeliveryBatch, ForwardBatch, Outcome, Settled};
use moorgate::routing::{RouteSettings, RouteTable, Span};
use moorgate::shard::{Parts, Shard};
use moorgate_proto::codec::put_frame;
use moorgate_proto::envelope::Numbers;
use moorgate_proto::envelope::member::client;
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Reason};
use moorgate_proto::view::{ReplyView, RequestView};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Sessions at once, and requests within a turn.
const LOADS: [(usize, usize); 4] = [(64, 1), (64, 32), (15_000, 32), (15_000, 256)];

/// Between two requests: longer than the rates of the limits, so that nothing is refused.
const STEP: Duration = Duration::from_micros(2);

/// A shard full of clients, who take turns.
pub(crate) struct House {
    pub(crate) shard: Shard,
    clients: Vec<ConnectionKey>,
    /// Requests so far: the client of the next one, and its number, follow from it.
    requests: usize,
    frame: Vec<u8>,
    now: Now,
}

pub(crate) fn routes() -> RouteTable {
    let route = RouteSettings::new(Span { first: 1, last: 99 }, ServiceId(0));
    RouteTable::build(&[route]).unwrap()
}

fn empty() -> Shard {
    empty_with(Shared::unlimited())
}

fn empty_with(limits: Shared) -> Shard {
    let key = SigningKey::new("k", SECRET).unwrap();
    let authority = Authority::of_keys(KeyRing::new(vec![key], None, None, 0).unwrap());
    Shard::new(Parts { limits, ..Parts::alone(routes(), authority) })
}

fn hello() -> Vec<u8> {
    hello_of("0123456789abcdef")
}

fn hello_of(user_id: &str) -> Vec<u8> {
    let claims = serde_json::json!({"sub": user_id, "exp": UNIX_S + 86_400});
    let hello = v1::Hello {
        version_min: 1,
        version_max: 1,
        access_token: mint(&SigningKey::new("k", SECRET).unwrap(), &claims),
        device_id: "0123456789abcdef".to_owned(),
        ..v1::Hello::default()
    };
    let mut frame = Vec::new();
    put_frame(&mut frame, Numbers::NONE, client::HELLO, &hello);
    frame
}

fn join(shard: &mut Shard, hello: &[u8]) -> ConnectionKey {
    join_from(shard, hello, Ipv4Addr::new(192, 0, 2, 1))
}

fn join_from(shard: &mut Shard, hello: &[u8], address: Ipv4Addr) -> ConnectionKey {
    let client = shard.accepted(now(), SocketAddr::from((address, 999))).unwrap();
    shard.received(now(), client, hello);
    client
}

/// The sockets take everything.
pub(crate) fn flush(shard: &mut Shard) -> usize {
    let mut bytes = 0;
    while let Some(client) = shard.next_flush() {
        let count = black_box(shard.unsent(client)).len();
        shard.sent(now(), client, count);
        bytes += count;
    }
    bytes
}

impl House {
    pub(crate) fn new(sessions: usize) -> House {
        House::with(sessions, Shared::unlimited())
    }

    /// Every limit is on.
    fn limited(sessions: usize, burst: u32) -> House {
        let rate = Rate::new(1_000_000, Duration::from_secs(1), burst);
        let owner = OwnerSettings { rate, outstanding_max: Some(burst) };
        let settings = limit::Settings {
            connection: rate,
            frames: rate,
            user: owner,
            address: owner,
            application: owner,
            routes: vec![rate],
            ..limit::Settings::unlimited()
        };
        let requests = Arc::new(Limits::new(settings, 1, 1));
        House::with(sessions, Shared { requests, ..Shared::unlimited() })
    }

    /// Each client is another user from another address.
    fn with(sessions: usize, limits: Shared) -> House {
        let mut shard = empty_with(limits);
        let join = |number: usize| {
            let address = Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(number).unwrap());
            join_from(&mut shard, &hello_of(&format!("{number:016}")), address)
        };
        let clients = (0..sessions).map(join).collect();
        flush(&mut shard);
        assert_eq!(shard.sessions(), sessions);
        let mut house = House { shard, clients, requests: 0, frame: Vec::new(), now: now() };
        // Every session has made its queues, and the tables have grown: what follows is the steady path.
        (0..2 * sessions).for_each(|_| house.turn(1, &ReplyView::default()));
        house
    }

    /// This many requests, and their answers.
    fn turn(&mut self, requests: usize, reply: &ReplyView<'_>) {
        (0..requests).for_each(|_| self.request());
        let batch = self.shard.forwards().unwrap();
        assert_eq!(batch.forwards.len(), requests);
        self.shard.delivered(self.now, settled(&batch, reply));
        flush(&mut self.shard);
    }

    /// The next client asks, and acknowledges its last answer.
    pub(crate) fn request(&mut self) {
        let client = self.clients[self.requests % self.clients.len()];
        let earlier = (self.requests / self.clients.len()) as u64;
        self.requests += 1;
        self.now.mono = self.now.mono + STEP;
        self.frame.clear();
        let request = RequestView { command: 2, payload: &PAYLOAD, ..RequestView::default() };
        put_frame(&mut self.frame, Numbers { seq: earlier + 1, ack: earlier }, client::REQUEST, &request);
        self.shard.received(self.now, client, &self.frame);
    }
}

/// A worker's answers, without a worker.
fn settled(batch: &ForwardBatch, reply: &ReplyView<'_>) -> DeliveryBatch {
    let mut settled = DeliveryBatch::default();
    for forward in &batch.forwards {
        let outcome = Outcome::refused(Code::Ok, Reason::Unspecified);
        let one = Settled { endpoint: 1, ..Settled::bare(forward.ticket, outcome) };
        let one = one.with_reply(reply, &mut settled.arena);
        settled.deliveries.push(Delivery::Settled(one));
    }
    settled
}

/// Decoded, admitted, routed, handed to the worker; settled, numbered, written, kept, acknowledged.
#[divan::bench(args = LOADS)]
fn request(bencher: Bencher<'_, '_>, (sessions, turn): (usize, usize)) {
    let mut house = House::new(sessions);
    let reply = ReplyView { payload: &PAYLOAD, ..ReplyView::default() };
    bencher.counter(ItemsCount::new(turn)).bench_local(|| house.turn(turn, &reply));
}

/// The same, with a limit on everything: connection, frames, user, address, application, route, and what is outstanding.
#[divan::bench(args = LOADS)]
fn request_limited(bencher: Bencher<'_, '_>, load: (usize, usize)) {
    limited(bencher, load, 10_000);
}

/// The same, with bounds so small that every request is charged to the shared accounts by itself.
#[divan::bench(args = [(64, 1), (15_000, 1)])]
fn request_limited_exactly(bencher: Bencher<'_, '_>, load: (usize, usize)) {
    limited(bencher, load, 7);
}

fn limited(bencher: Bencher<'_, '_>, (sessions, turn): (usize, usize), burst: u32) {
    let mut house = House::limited(sessions, burst);
    let reply = ReplyView { payload: &PAYLOAD, ..ReplyView::default() };
    bencher.counter(ItemsCount::new(turn)).bench_local(|| house.turn(turn, &reply));
}

/// A Ping in, a Pong out.
#[divan::bench(args = [64, 15_000])]
fn heartbeat(bencher: Bencher<'_, '_>, sessions: usize) {
    let mut house = House::new(sessions);
    let mut ping = Vec::new();
    put_frame(&mut ping, Numbers::NONE, client::PING, &v1::Ping { nonce: 1, next_ms: 0 });
    let mut at = 0;
    bencher.bench_local(|| {
        at = (at + 1) % house.clients.len();
        house.shard.received(now(), house.clients[at], black_box(&ping));
        flush(&mut house.shard)
    });
}

/// From accept to Welcome, its access token checked; and gone again.
#[divan::bench]
fn open_and_close(bencher: Bencher<'_, '_>) {
    let (mut shard, hello) = (empty(), hello());
    bencher.bench_local(|| {
        let client = join(&mut shard, black_box(&hello));
        let bytes = flush(&mut shard);
        shard.peer_closed(now(), client);
        (bytes, shard.next_ended())
    });
}

/// Opens this many sessions: what one of them keeps is what is allocated and not freed, divided by their number.
#[divan::bench(args = [100_000], sample_count = 3, sample_size = 1)]
fn open_many(bencher: Bencher<'_, '_>, sessions: usize) {
    let hello = hello();
    bencher.counter(ItemsCount::new(sessions)).with_inputs(empty).bench_local_values(|mut shard| {
        for _ in 0..sessions {
            join(&mut shard, &hello);
            flush(&mut shard);
        }
        shard
    });
}
