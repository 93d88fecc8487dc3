//! Links that open, do not open, are lost, and are said to be down.

use crate::link::{QUICK_LINKS, RawLink, acknowledgement, listener, site_and_granted_link, site_and_link};
use crate::site::{LINK_SECRET, Site, command, echo_service_at, nobody, settings, until};
use crate::wire::{Raw, ask_many, assert_gateway_says, request, request_within};
use moorgate_proto::envelope::member::to_gateway;
use moorgate_proto::status::Code;
use moorgate_proto::v1::link_notice::Kind;
use moorgate_proto::v1::{self, Execution, Reason, service_view, to_service::Member};

// spec: L-4, L-5, L-20
#[test]
fn a_service_that_proves_nothing_or_is_another_never_gets_a_call() {
    let listener = listener();
    let site = Site::beside(&listener, QUICK_LINKS);
    type Change = fn(&v1::LinkHello, &mut v1::LinkHelloAck);
    let (proof, name) = (Reason::ProofInvalid, Reason::IdentityMismatch);
    let changes: [(&str, Reason, Change); 8] = [
        ("no proof", proof, |_, ack| ack.proof = Vec::new().into()),
        ("another key", proof, |hello, ack| {
            ack.proof = acknowledgement(hello, "not the shared secret").proof
        }),
        ("half a proof", proof, |_, ack| ack.proof.truncate(16)),
        ("another nonce than the proof's", proof, |_, ack| ack.nonce = vec![1; 32].into()),
        ("a short nonce", proof, |_, ack| ack.nonce = vec![9; 31].into()),
        ("another instance than the proof's", proof, |_, ack| ack.instance_id = "other".to_owned()),
        ("another service", name, |_, ack| ack.service = "accounts".to_owned()),
        ("another version", Reason::VersionUnsupported, |_, ack| ack.version = 2),
    ];
    let mut client = site.open();
    for (up_seq, (name, reason, change)) in (1..).zip(changes) {
        let mut link = RawLink::accept(&listener);
        let hello = link.hello();
        let mut ack = acknowledgement(&hello, LINK_SECRET);
        change(&hello, &mut ack);
        link.send(to_gateway::HELLO_ACK, &ack);
        assert_eq!(link.ends(), Some(reason), "{name}: neither Auth nor a call");
        client.send(&request_within(up_seq, command::OPEN, 1));
        let response = client.response();
        assert_gateway_says(&response, Code::DeadlineExceeded, Reason::Timeout, Execution::NotExecuted);
        assert!(site.gateway().readiness().is_err(), "{name}");
    }
    assert_eq!(site.metric("moorgate_link_proofs_refused_total"), 8);
    // A good one is taken all the same.
    let mut link = RawLink::open(&listener);
    site.ready();
    client.send(&request(9, command::OPEN, b"x"));
    let call = link.call();
    link.reply(call.call_id, b"");
    assert_eq!(client.response().status, Code::Ok.to_wire());
    drop(client);
    site.end();
}

#[test]
fn a_service_that_speaks_before_its_hello_never_gets_a_call() {
    let listener = listener();
    let site = Site::beside(&listener, QUICK_LINKS);
    for member in [to_gateway::REPLY, to_gateway::PING, to_gateway::PUSH, to_gateway::DRAIN] {
        let mut link = RawLink::accept(&listener);
        link.hello();
        link.send(member, &Raw(&[]));
        assert_eq!(link.ends(), Some(Reason::ProtocolViolation));
    }
    site.metric_becomes("moorgate_link_protocol_errors_total", 4);
    assert!(site.gateway().readiness().is_err());
    site.end();
}

#[test]
fn a_service_that_never_says_hello_is_given_up_and_dialled_again() {
    let listener = listener();
    let site = Site::beside(&listener, &format!("{QUICK_LINKS}connect_timeout = \"1s\"\n"));
    let mut link = RawLink::accept(&listener);
    link.hello();
    assert_eq!(link.ends(), Some(Reason::HandshakeTimeout));
    // On a busy machine it may have given up the next one too, before that was looked at.
    let _again = std::iter::from_fn(|| Some(RawLink::try_open(&listener))).flatten().next();
    site.ready();
    site.end();
}

#[test]
fn a_link_that_closes_settles_its_calls_at_once() {
    let (site, mut link) = site_and_link("");
    let mut client = site.open();
    ask_many(&mut client, command::OPEN, 3);
    for _ in 0..3 {
        link.call();
    }
    drop(link);
    for up_seq in 1..=3 {
        let response = client.response();
        assert_eq!(response.up_seq, up_seq);
        assert_gateway_says(&response, Code::Aborted, Reason::EndpointLost, Execution::Unknown);
    }
    assert_eq!(site.metric("moorgate_calls_lost_total"), 3);
    drop(client);
    site.end();
}

#[test]
fn a_silent_service_loses_its_link() {
    let (site, mut link) = site_and_link("[links]\nheartbeat = \"1s\"\n");
    let mut client = site.open();
    client.send(&request(1, command::OPEN, b"x"));
    link.call();
    // Pings are not answered while the answer is awaited.
    let response = client.response();
    assert_gateway_says(&response, Code::Aborted, Reason::EndpointLost, Execution::Unknown);
    drop(client);
    site.end();
}

// spec: S-11
#[test]
fn a_service_that_is_down_at_start_is_found_when_it_comes() {
    let address = nobody();
    let site = Site::of(settings(address, QUICK_LINKS));
    assert!(site.gateway().readiness().unwrap_err().contains("echo"));
    let mut client = site.open();
    client.send(&request(1, command::OPEN, b"early"));
    client.send(&request_within(2, command::OPEN, 1));
    let response = client.response();
    assert_eq!(response.up_seq, 2, "the other one waits on");
    assert_gateway_says(&response, Code::DeadlineExceeded, Reason::Timeout, Execution::NotExecuted);
    until("dialling has failed", || site.metric("moorgate_links_failed_total") > 2);
    let service = echo_service_at(address);
    let response = client.response();
    assert_eq!((response.up_seq, response.status, &response.payload[..]), (1, 0, &b"early"[..]));
    assert_eq!(client.ask(3, command::OPEN, b"x").status, Code::Ok.to_wire());
    drop(client);
    site.end();
    service.stop();
    assert!(service.join());
}

#[test]
fn a_service_that_says_it_is_down_gets_no_calls_until_it_is_up() {
    let (site, mut link) = site_and_link("");
    let mut client = site.open();
    let say = |link: &mut RawLink, state: service_view::State| {
        let view = v1::ServiceView { state: state.into(), ..v1::ServiceView::default() };
        link.send(to_gateway::PING, &v1::LinkPing { nonce: 1, view: Some(view) });
        assert!(matches!(link.member(), Member::Pong(_)));
    };
    let mut up_seq = 0;
    for state in [service_view::State::Down, service_view::State::Draining] {
        say(&mut link, state);
        up_seq += 1;
        let response = client.ask(up_seq, command::OPEN, b"x");
        assert_gateway_says(&response, Code::Unavailable, Reason::NoEndpoint, Execution::NotExecuted);
        assert!(site.gateway().readiness().is_err());
    }
    for state in [service_view::State::Degraded, service_view::State::Up] {
        say(&mut link, state);
        up_seq += 1;
        client.send(&request(up_seq, command::OPEN, b"x"));
        let call = link.call();
        link.reply(call.call_id, b"");
        assert_eq!(client.response().status, Code::Ok.to_wire());
    }
    drop(client);
    site.end();
}

// spec: L-12, L-16, L-78, L-82
#[test]
fn the_gateway_says_which_frames_it_takes_and_passes_over_larger_ones() {
    let listener = listener();
    let site = Site::beside(&listener, "[links]\nreconnect_min = \"10ms\"\nframe = \"8 KiB\"\n");
    let mut link = RawLink::accept(&listener);
    let hello = link.hello();
    assert_eq!((hello.frame_bytes_max, hello.pushes_max), (8192, 0));
    assert_eq!((hello.gateway_id.as_str(), hello.service.as_str()), ("gateway-test", "echo"));
    link.send(to_gateway::HELLO_ACK, &acknowledgement(&hello, LINK_SECRET));
    assert!(matches!(link.member(), Member::Auth(_)));
    site.ready();
    let mut client = site.open();
    ask_many(&mut client, command::OPEN, 10);
    let calls: Vec<v1::Call> = (0..10).map(|_| link.call()).collect();
    link.reply(calls[0].call_id, &[1; 8000]);
    assert_eq!(client.response().payload.len(), 8000);
    // One above the bound, as large as any frame may be: its own call fails, and no other.
    link.reply(calls[1].call_id, &vec![1; 16 * 1024 * 1024 - 1024]);
    let response = client.response();
    assert_eq!(response.up_seq, 2);
    assert_gateway_says(&response, Code::ResourceExhausted, Reason::ReplyTooLarge, Execution::Executed);
    for (call, up_seq) in calls[2..].iter().zip(3..) {
        link.reply(call.call_id, b"small");
        let response = client.response();
        assert_eq!((response.up_seq, &response.payload[..]), (up_seq, &b"small"[..]));
    }
    let notice = link.notice();
    assert_eq!((notice.kind(), notice.call_id), (Kind::ReplyTooLarge, calls[1].call_id));
    link.nothing_else();
    link.send_bytes(&(16 * 1024 * 1024 + 1u32).to_be_bytes());
    assert_eq!(link.ends(), Some(Reason::FrameTooLarge));
    drop(client);
    site.end();
}

#[test]
fn a_gateway_is_ready_when_every_worker_has_its_link() {
    let listener = listener();
    let mut settings = settings(listener.local_addr().unwrap(), "");
    (settings.reactor.shards, settings.reactor.workers) = (2, 2);
    let site = Site::of(settings);
    let _first = RawLink::open(&listener);
    site.metric_becomes("moorgate_service_links{service=\"echo\"}", 1);
    let why = site.gateway().readiness().unwrap_err();
    assert_eq!(why, "service echo has a ready link at 1 of 2 workers");
    let _second = RawLink::open(&listener);
    site.ready();
    site.end();
}

// spec: L-49, L-79
#[test]
fn a_service_that_ends_its_stream_has_the_results_of_its_pushes() {
    let (site, mut link) = site_and_granted_link("");
    let push = v1::ServicePush {
        push_id: vec![1].into(),
        target: Some(v1::service_push::Target::Everyone(v1::Everyone {})),
        ..v1::ServicePush::default()
    };
    for _ in 0..100 {
        link.send(to_gateway::PUSH, &push);
    }
    link.finish();
    for _ in 0..100 {
        assert_eq!(link.push_result().status, 0);
    }
    assert_eq!(link.ends(), None);
    site.end();
}

#[test]
fn a_flood_of_small_frames_is_read_over_many_turns() {
    let (site, mut link) = site_and_link("");
    let turns = || site.metric("moorgate_loop_turns_total");
    let before = turns();
    // A frame without a member has no effect; these are 200,000 of five bytes.
    link.send_bytes(&[0, 0, 0, 2, 0x18, 1].repeat(200_000));
    link.nothing_else();
    // 16 KiB are 2,730 such frames, and with 1,024 a turn ends.
    assert!(turns() - before >= 200_000 / (2_731 + 1_024), "{} turns", turns() - before);
    site.end();
}
