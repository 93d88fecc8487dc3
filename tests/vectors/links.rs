//! A worker, against the frames of a service.

use super::vector_file::read;
use super::{NOW, bytes, route, vector};
use moorgate::base::ids::{RouteId, SessionId, SessionKey, ShardId, Ticket};
use moorgate::forward::{self, Forwarder, LinkCommand};
use moorgate::relay::{Forward, ForwardBatch, Outcome};
use moorgate::routing::{RouteTable, ServiceSettings};
use moorgate_proto::codec::{Assembler, put_frame};
use moorgate_proto::envelope::{Numbers, member};
use moorgate_proto::proof::LinkKey;
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Execution, Reason, Source, to_service};
use prost::Message;
use std::time::Duration;

/// A worker of the gateway `gw-1` with one link to a service, connected.
fn dialled(service: &str, key: Option<LinkKey>) -> (Forwarder, moorgate::base::ids::LinkKey) {
    let service =
        ServiceSettings { key, ..ServiceSettings::new(service, ["192.0.2.2:7100".parse().unwrap()]) };
    let mut forwarder = Forwarder::new(forward::Parts {
        settings: forward::Settings { gateway_id: "gw-1".to_owned(), ..forward::Settings::default() },
        boot_id: 7,
        ..forward::Parts::alone(vec![service], RouteTable::build(&[route()]).unwrap())
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

// spec: F-6, L-1, L-5, L-7, L-10, L-12, L-18, L-42, L-49
#[test]
fn a_link_is_opened_as_the_vectors_have_it() {
    let key = LinkKey::new(&vector("link-hello-ack").bytes("key")).unwrap();
    let (mut forwarder, link) = dialled("chat", Some(key));
    assert_eq!(told(&mut forwarder), bytes("link-hello"));
    forwarder.received(NOW, link, &bytes("link-hello-ack"));
    assert_eq!(told(&mut forwarder), bytes("link-auth"));
    for (asked, answered) in
        [("link-ping-service", "link-pong-gateway"), ("service-push-users", "push-result-not-granted")]
    {
        forwarder.received(NOW, link, &bytes(asked));
        assert_eq!(told(&mut forwarder), bytes(answered), "{asked}");
    }
    for ignored in ["link-empty", "link-unknown-member", "session-verdict"] {
        forwarder.received(NOW, link, &bytes(ignored));
        assert!(told(&mut forwarder).is_empty(), "{ignored}");
        assert_eq!(forwarder.next_command(), None, "{ignored}");
    }
    forwarder.received(NOW, link, &bytes("presence-subscribe"));
    let [to_service::Member::Notice(notice)] = &members(&told(&mut forwarder))[..] else {
        panic!("no notice")
    };
    assert_eq!(notice.kind(), v1::link_notice::Kind::PresenceRefused);
    forwarder.received(NOW, link, &bytes("link-error-service"));
    assert!(!ends(&mut forwarder, link), "an Error is not answered with one");
}

// spec: L-45
#[test]
fn a_drained_link_without_calls_is_closed() {
    let (mut forwarder, link) =
        dialled("chat", Some(LinkKey::new(&vector("link-hello-ack").bytes("key")).unwrap()));
    forwarder.received(NOW, link, &bytes("link-hello-ack"));
    told(&mut forwarder);
    forwarder.received(NOW, link, &bytes("link-drain-service"));
    let [to_service::Member::Ping(ping)] = &members(&told(&mut forwarder))[..] else {
        panic!("no last ping")
    };
    let mut pong = Vec::new();
    let body = v1::LinkPong { nonce: ping.nonce, view: None };
    put_frame(&mut pong, Numbers::NONE, member::to_gateway::PONG, &body);
    forwarder.received(NOW, link, &pong);
    assert!(!ends(&mut forwarder, link), "a drain is no fault");
}

/// Ends its stream; whether it has said why.
fn ends(forwarder: &mut Forwarder, link: moorgate::base::ids::LinkKey) -> bool {
    let last = members(&told(forwarder)).pop();
    assert_eq!(forwarder.next_command(), Some(LinkCommand::EndStream(link)));
    matches!(last, Some(to_service::Member::Error(_)))
}

fn members(mut bytes: &[u8]) -> Vec<to_service::Member> {
    let mut assembler = Assembler::default();
    let mut found = Vec::new();
    while let Some(frame) = assembler.next(&mut bytes, 1 << 24).unwrap() {
        found.extend(v1::ToService::decode(frame).unwrap().member);
    }
    found
}

/// One anonymous request that has a second.
fn forwards(call: &v1::Call) -> ForwardBatch {
    let mut batch = ForwardBatch::default();
    let call = batch.arena.encode(call);
    batch.forwards.push(Forward {
        ticket: Ticket::new(0, 0),
        session: SessionKey::new(0, 0),
        session_id: SessionId::default(),
        route: RouteId(0),
        caller: 0,
        deadline: NOW.mono + Duration::from_secs(1),
        call,
    });
    batch
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
        forwarder.received(NOW, link, &hello_ack);
        told(&mut forwarder);
        let trace = v1::Trace { parent: String::new(), state: "s".repeat(state_bytes) };
        let call = v1::Call { command: 1, trace: Some(trace), ..v1::Call::default() };
        forwarder.forward(NOW.mono, &forwards(&call));
        assert_eq!(told(&mut forwarder).is_empty(), !fits, "{state_bytes} bytes beside the payload");
        let refused =
            forwarder.deliveries(ShardId(0)).and_then(|batch| batch.settled().next().map(|it| it.outcome));
        let too_large = Outcome::refused(Code::InvalidArgument, Reason::PayloadTooLarge);
        assert_eq!(refused, (!fits).then_some(too_large));
    }
}

// spec: E-18, L-23, L-25, L-26, L-30, S-2, S-8
#[test]
fn a_reply_of_a_newer_service_is_passed_on_as_far_as_it_is_understood() {
    let (mut forwarder, link) = dialled("echo", None);
    forwarder.received(NOW, link, &bytes("link-hello-ack-without-key"));
    told(&mut forwarder);
    forwarder.forward(NOW.mono, &forwards(&v1::Call { command: 1, version: 1, ..v1::Call::default() }));
    let sent = told(&mut forwarder);
    let Some(to_service::Member::Call(call)) = v1::ToService::decode(&sent[4..]).unwrap().member else {
        panic!("no call");
    };
    assert_eq!((call.version, call.attempt, call.remaining_ms), (1, 1, 1001));
    let mut say = |reply: &v1::Reply| {
        let mut frame = Vec::new();
        put_frame(&mut frame, Numbers::NONE, member::to_gateway::REPLY, reply);
        forwarder.received(NOW, link, &frame);
        let settled = forwarder.deliveries(ShardId(0));
        settled.map(|batch| batch.settled().map(|settled| settled.outcome).collect::<Vec<_>>())
    };
    let reply = v1::Reply {
        call_id: call.call_id,
        status: 99,
        reason: 9999,
        execution: 7,
        retry_after_ms: 5,
        ..v1::Reply::default()
    };
    assert_eq!(say(&v1::Reply { call_id: call.call_id + 1, ..reply.clone() }), None);
    let outcome = Outcome {
        code: Code::Unknown,
        reason: Reason::Unspecified,
        source: Source::Service,
        execution: Execution::Executed,
        retry_after_ms: 5,
    };
    assert_eq!(say(&reply), Some(vec![outcome]));
    assert_eq!(say(&reply), None, "it has its outcome");
}

// spec: L-4, L-5, L-16, L-19
#[test]
fn a_service_that_breaks_the_contract_loses_its_link() {
    let mut seen = 0;
    for vector in read("malformed.txt").iter().filter(|vector| vector.frame() == "ToGateway") {
        let (mut forwarder, link) = dialled("echo", None);
        if vector.text("state") == "ready" {
            forwarder.received(NOW, link, &bytes("link-hello-ack-without-key"));
        }
        forwarder.received(NOW, link, &vector.bytes("hex"));
        assert!(ends(&mut forwarder, link), "{}", vector.name());
        seen += 1;
    }
    assert!(seen >= 3);
    let key = LinkKey::new(b"another key, of 16 bytes").unwrap();
    for (service, key) in [("chat", Some(key)), ("mail", None)] {
        let (mut forwarder, link) = dialled(service, key);
        forwarder.received(NOW, link, &bytes("link-hello-ack"));
        assert!(ends(&mut forwarder, link), "{service}");
    }
}
