//! The gateway's cores do with the frames of `proto/vectors/` what `protocol-spec.md` says.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

#[path = "../proto/tests/contract/vector_file.rs"]
mod vector_file;

use moorgate::auth::{KeyRing, SigningKey};
use moorgate::base::clock::Now;
use moorgate::base::ids::{ConnectionKey, RouteId, ServiceId, SessionId, SessionKey, ShardId, Ticket};
use moorgate::forward::{self, Forwarder, LinkCommand, Readiness};
use moorgate::relay::{Arena, Forward, ForwardBatch, Outcome, Settled, SettledBatch};
use moorgate::routing::{Balance, RouteSettings, RouteTable, ServiceSettings, Span};
use moorgate::shard::{End, Parts, Settings, Shard};
use moorgate_proto::codec::{Assembler, put_frame};
use moorgate_proto::envelope::{Numbers, member};
use moorgate_proto::proof::LinkKey;
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{self, Execution, Reason, Source, client_frame, gateway_frame};
use prost::Message;
use std::sync::Arc;
use std::time::Duration;
use vector_file::{Vector, read, read_all};

const NOW: Now = Now { mono: Mono::from_nanos(1_000_000_000), unix_ms: 1_800_000_000_000 };

fn vector(name: &str) -> Vector {
    read_all().into_iter().find(|vector| vector.name() == name).unwrap_or_else(|| panic!("no vector {name}"))
}

fn bytes(name: &str) -> Vec<u8> {
    vector(name).bytes("hex")
}

/// Of command 1, for everybody.
fn route() -> RouteSettings {
    let commands = Span { first: 1, last: 1 };
    RouteSettings { anonymous: true, ..RouteSettings::new(commands, ServiceId(0)) }
}

/// A shard with one connection, as its reactor drives it.
struct Site {
    shard: Shard,
    key: ConnectionKey,
}

impl Site {
    /// Before Hello.
    fn opening() -> Site {
        let key = SigningKey::new("vector", b"a secret of at least 32 bytes ok").unwrap();
        let mut shard = Shard::new(Parts {
            id: ShardId(0),
            settings: Settings::default(),
            session: moorgate::session::Settings::default(),
            routes: Arc::new(RouteTable::build(&[route()]).unwrap()),
            keys: Arc::new(KeyRing::new(vec![key], None, None, 30).unwrap()),
            cells: Arc::default(),
            seed: 1,
            access_log: false,
        });
        let key = shard.accepted(NOW, "192.0.2.1:40000".parse().unwrap()).unwrap();
        Site { shard, key }
    }

    /// With an anonymous session.
    fn open() -> Site {
        let mut site = Site::opening();
        let welcome = site.say(&bytes("hello-anonymous"));
        assert!(matches!(welcome[0].member, Some(gateway_frame::Member::Welcome(_))));
        site
    }

    /// What the gateway answers, as bytes.
    fn said(&mut self) -> Vec<u8> {
        let mut said = Vec::new();
        while let Some(key) = self.shard.next_flush() {
            let unsent = self.shard.unsent(key).to_vec();
            self.shard.sent(NOW, key, unsent.len());
            said.extend(unsent);
        }
        said
    }

    /// Sends these bytes; what the gateway answers, as frames.
    fn say(&mut self, bytes: &[u8]) -> Vec<v1::GatewayFrame> {
        self.shard.received(NOW, self.key, bytes);
        frames(&self.said())
    }

    /// Sends these bytes; the one frame that the gateway answers, as bytes.
    fn answer(&mut self, name: &str) -> Vec<u8> {
        self.shard.received(NOW, self.key, &bytes(name));
        self.said()
    }
}

fn frames(mut bytes: &[u8]) -> Vec<v1::GatewayFrame> {
    let mut assembler = Assembler::default();
    let mut frames = Vec::new();
    while let Some(frame) = assembler.next(&mut bytes, usize::MAX).unwrap() {
        frames.push(v1::GatewayFrame::decode(frame).unwrap());
    }
    frames
}

fn code(name: &str) -> i32 {
    Code::ALL.iter().find(|code| code.name() == name).unwrap().to_wire()
}

// spec
#[test]
fn what_breaks_the_contract_ends_the_connection_with_its_reason() {
    let mut seen = 0;
    for vector in read("malformed.txt").iter().filter(|vector| vector.frame() == "ClientFrame") {
        let mut site = if vector.text("state") == "opening" { Site::opening() } else { Site::open() };
        let said = site.say(&vector.bytes("hex"));
        let Some(gateway_frame::Member::Error(error)) = said.last().and_then(|frame| frame.member.clone())
        else {
            panic!("{}: {said:?}", vector.name());
        };
        assert_eq!(said.len(), 1, "{}", vector.name());
        let fault = format!("REASON_{}", vector.text("fault"));
        assert_eq!(error.reason().as_str_name(), fault, "{}", vector.name());
        assert_eq!(error.status, code(vector.text("status")), "{}", vector.name());
        assert_eq!(error.admitted, 0, "{}", vector.name());
        assert_eq!(site.shard.next_ended(), Some((site.key, End::ShutdownWrite)), "{}", vector.name());
        assert!(site.say(&bytes("ping")).is_empty(), "{}: nothing comes after it", vector.name());
        seen += 1;
    }
    assert!(seen > 30);
}

/// The Welcome to a Hello, with the session id of the vectors.
fn welcomed(hello: &str) -> Vec<u8> {
    let mut said = Site::opening().say(&bytes(hello));
    let Some(gateway_frame::Member::Welcome(welcome)) = &mut said[0].member else {
        panic!("{hello}: {said:?}");
    };
    assert_eq!(welcome.session_id.len(), 16);
    welcome.session_id = (0x10..0x20).collect::<Vec<u8>>().into();
    let body = said[0].encode_to_vec();
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()
}

#[test]
fn hellos_are_welcomed() {
    assert_eq!(welcomed("hello-anonymous"), bytes("welcome-anonymous"));
    assert_eq!(welcomed("hello-application-proof"), bytes("welcome-anonymous"), "the proof is ignored");
    let mut user = frames(&bytes("welcome-user"));
    if let Some(gateway_frame::Member::Welcome(welcome)) = &mut user[0].member {
        assert_eq!(welcome.resume_result(), v1::ResumeResult::NotSupported);
        welcome.resume_result = v1::ResumeResult::None.into();
    }
    assert_eq!(frames(&welcomed("hello-token")), user);
    let Some(gateway_frame::Member::Welcome(welcome)) = frames(&welcomed("hello-resume"))[0].member.clone()
    else {
        panic!("no Welcome");
    };
    assert_eq!(welcome.resume_result(), v1::ResumeResult::NotSupported);
    assert_eq!((welcome.resume_token.len(), welcome.detached_ttl_ms, welcome.admitted), (0, 0, 0));
}

/// A frame of a session that has admitted nothing, with the `ack` that the vector has.
fn acknowledging(frame: &[u8], ack: u64) -> Vec<v1::GatewayFrame> {
    frames(frame).into_iter().map(|frame| v1::GatewayFrame { ack, ..frame }).collect()
}

#[test]
fn unnumbered_frames_get_their_answers() {
    for (asked, answered) in [
        ("ping", "gateway-pong"),
        ("authenticate", "authenticated-not-supported"),
        ("unknown-member-unnumbered", "notice-unsupported-frame"),
    ] {
        let answer = Site::open().answer(asked);
        assert_eq!(acknowledging(&answer, 3), frames(&bytes(answered)), "{asked}");
    }
    let said = Site::open().say(&bytes("client-state"));
    let Some(gateway_frame::Member::Notice(notice)) = &said[0].member else { panic!("{said:?}") };
    assert_eq!((notice.reason(), notice.member), (Reason::FeatureNotNegotiated, 15));
    assert!(Site::open().answer("pong").is_empty());
}

// spec
#[test]
fn bye_is_acknowledged_and_the_last() {
    let mut site = Site::open();
    assert_eq!(site.answer("bye-keep"), bytes("bye-ack"));
    assert_eq!(site.shard.next_ended(), Some((site.key, End::ShutdownWrite)));
    assert!(site.answer("request").is_empty() && site.shard.forwards().is_none());
}

// spec: U-2, U-3, U-5, U-7, D-1
#[test]
fn a_request_is_forwarded_and_answered_once() {
    let mut site = Site::open();
    assert!(site.answer("request").is_empty());
    let batch = site.shard.forwards().unwrap();
    let request = v1::Request::decode(batch.arena.read(&batch.forwards[0].request)).unwrap();
    assert_eq!((request.command, &request.payload[..]), (1, &b"hello"[..]));
    assert!(site.answer("request").is_empty(), "admitted before: ignored");
    assert!(site.shard.forwards().is_none());
    let mut arena = Arena::default();
    let reply = v1::Reply { payload: request.payload, ..v1::Reply::default() };
    let outcome = Outcome {
        code: Code::Ok,
        reason: Reason::Unspecified,
        source: Source::Service,
        execution: Execution::Executed,
        retry_after_ms: 0,
    };
    let reply = arena.put(&reply.encode_to_vec());
    let settled = vec![Settled { ticket: batch.forwards[0].ticket, outcome, reply, endpoint: 1 }];
    site.shard.settled(NOW, &SettledBatch { arena, settled });
    assert_eq!(site.said(), bytes("response-ok"));
    assert_eq!(site.answer("unknown-member-numbered"), bytes("response-unsupported-frame"));
}

// spec: C-1, C-2, U-20
#[test]
fn a_cancel_of_the_next_number_consumes_it() {
    let mut site = Site::open();
    let cancel = |up_seq| {
        let member = Some(client_frame::Member::Cancel(v1::Cancel { up_seq }));
        let body = v1::ClientFrame { member, ..v1::ClientFrame::default() }.encode_to_vec();
        [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()
    };
    assert_eq!(site.say(&cancel(1)).len(), 1);
    site.shard.received(NOW, site.key, &cancel(2));
    assert_eq!(site.said(), bytes("response-cancelled"));
    assert!(site.say(&cancel(1)).is_empty(), "it has its Response");
    assert!(site.shard.forwards().is_none(), "none of them is run");
}

/// A worker of the gateway `gw-1` with one link to a service, connected.
fn dialled(service: &str, key: Option<LinkKey>) -> (Forwarder, moorgate::base::ids::LinkKey) {
    let mut forwarder = Forwarder::new(forward::Parts {
        settings: forward::Settings { gateway_id: "gw-1".to_owned(), ..forward::Settings::default() },
        boot_id: 7,
        services: vec![ServiceSettings {
            name: service.to_owned(),
            endpoints: vec!["192.0.2.2:7100".parse().unwrap()],
            balance: Balance::RoundRobin,
            key,
        }],
        routes: Arc::new(RouteTable::build(&[route()]).unwrap()),
        shards: 1,
        cells: Arc::default(),
        readiness: Arc::new(Readiness::new(1)),
        seed: 1,
    });
    forwarder.start(NOW.mono);
    let Some(LinkCommand::Dial(link, _)) = forwarder.next_command() else { panic!("no link to dial") };
    forwarder.connected(NOW.mono, link, [1; 32]);
    (forwarder, link)
}

fn told(forwarder: &mut Forwarder) -> Vec<u8> {
    let mut told = Vec::new();
    while let Some(link) = forwarder.next_flush() {
        let unsent = forwarder.unsent(link).to_vec();
        forwarder.sent(NOW.mono, link, unsent.len());
        told.extend(unsent);
    }
    told
}

// spec: L-1, L-5, L-7, L-10, L-12, L-42, L-49
#[test]
fn a_link_is_opened_as_the_vectors_have_it() {
    let key = LinkKey::new(&vector("link-hello-ack").bytes("key")).unwrap();
    let (mut forwarder, link) = dialled("chat", Some(key));
    assert_eq!(told(&mut forwarder), bytes("link-hello"));
    forwarder.received(NOW.mono, link, &bytes("link-hello-ack"));
    assert_eq!(told(&mut forwarder), bytes("link-auth"));
    for (asked, answered) in
        [("link-ping-service", "link-pong-gateway"), ("service-push-users", "push-result-unimplemented")]
    {
        forwarder.received(NOW.mono, link, &bytes(asked));
        assert_eq!(told(&mut forwarder), bytes(answered), "{asked}");
    }
    for ignored in ["link-unknown-member", "session-verdict", "presence-subscribe", "link-drain-service"] {
        forwarder.received(NOW.mono, link, &bytes(ignored));
        assert!(told(&mut forwarder).is_empty(), "{ignored}");
        assert_eq!(forwarder.next_command(), None, "{ignored}");
    }
    forwarder.received(NOW.mono, link, &bytes("link-error-service"));
    assert_eq!(forwarder.next_command(), Some(LinkCommand::Close(link)));
}

// spec: S-13
#[test]
fn a_call_fits_into_the_services_frames_or_is_refused() {
    for (state_bytes, fits) in [(3000, true), (5000, false)] {
        let (mut forwarder, link) = dialled("echo", None);
        let ack = v1::LinkHelloAck {
            version: 1,
            service: "echo".to_owned(),
            frame_bytes_max: 4096,
            ..v1::LinkHelloAck::default()
        };
        let mut hello_ack = Vec::new();
        put_frame(&mut hello_ack, Numbers::NONE, member::to_gateway::HELLO_ACK, &ack);
        forwarder.received(NOW.mono, link, &hello_ack);
        told(&mut forwarder);
        let trace = v1::Trace { parent: String::new(), state: "s".repeat(state_bytes) };
        let request = v1::Request { command: 1, trace: Some(trace), ..v1::Request::default() };
        let mut batch = ForwardBatch::default();
        let caller = batch.arena.put(&v1::Caller::default().encode_to_vec());
        let request = batch.arena.put(&request.encode_to_vec());
        batch.forwards.push(Forward {
            ticket: Ticket::new(0, 0),
            session: SessionKey::new(0, 0),
            session_id: SessionId::default(),
            route: RouteId(0),
            deadline: NOW.mono + Duration::from_secs(1),
            caller,
            request,
        });
        forwarder.forward(NOW.mono, &batch);
        assert_eq!(told(&mut forwarder).is_empty(), !fits, "{state_bytes} bytes beside the payload");
        let refused = forwarder.settled(ShardId(0)).map(|batch| batch.settled[0].outcome);
        let too_large = Outcome::refused(Code::InvalidArgument, Reason::PayloadTooLarge);
        assert_eq!(refused, (!fits).then_some(too_large));
    }
}

// spec: L-4, L-5, L-16, L-19
#[test]
fn a_service_that_breaks_the_contract_loses_its_link() {
    let mut seen = 0;
    for vector in read("malformed.txt").iter().filter(|vector| vector.frame() == "ToGateway") {
        let (mut forwarder, link) = dialled("echo", None);
        if vector.text("state") == "ready" {
            forwarder.received(NOW.mono, link, &bytes("link-hello-ack-without-key"));
        }
        forwarder.received(NOW.mono, link, &vector.bytes("hex"));
        assert_eq!(forwarder.next_command(), Some(LinkCommand::Close(link)), "{}", vector.name());
        seen += 1;
    }
    assert!(seen >= 4);
    let key = LinkKey::new(b"another key, of 16 bytes").unwrap();
    for (service, key) in [("chat", Some(key)), ("mail", None)] {
        let (mut forwarder, link) = dialled(service, key);
        forwarder.received(NOW.mono, link, &bytes("link-hello-ack"));
        assert_eq!(forwarder.next_command(), Some(LinkCommand::Close(link)), "{service}");
    }
}
