//! Services that answer wrongly, twice, late, never, or too much; and what their clients are told.

use crate::link::{QUICK_LINKS, RawLink, acknowledgement, listener, site_and_link};
use crate::site::{LINK_SECRET, Site, command, until};
use crate::wire::{RawClient, framed, hello, hello_frame, request};
use moorgate_proto::envelope::member::to_gateway;
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Execution, Reason, Source, service_view, to_service::Member};
use prost::Message;

/// The gateway's own word about a call, and what it knows of its execution.
fn assert_gateway_says(response: &v1::Response, code: Code, reason: Reason, execution: Execution) {
    assert_eq!((Code::from_wire(response.status), response.reason()), (code, reason));
    assert_eq!((response.source(), response.execution()), (Source::Gateway, execution));
    assert!(response.payload.is_empty());
}

/// Requests 1 to `last` in one segment, so that the gateway sees them in one turn.
fn ask_many(client: &mut RawClient, command: u32, last: u64) {
    let requests: Vec<Vec<u8>> = (1..=last).map(|up_seq| request(up_seq, command, b"x")).collect();
    client.send(&requests.concat());
}

#[test]
fn a_reply_is_passed_on_as_it_is_and_its_message_is_cut() {
    let (site, mut link) = site_and_link("");
    let mut client = site.open();
    client.send(&request(1, command::OPEN, b"x"));
    let reply = v1::Reply {
        call_id: link.call().call_id,
        status: Code::NotFound.to_wire(),
        reason: Reason::Banned.into(),
        execution: Execution::NotExecuted.into(),
        retry_after_ms: 1234,
        message: "é".repeat(200),
        content_encoding: "zstd".to_owned(),
        payload: b"why".to_vec().into(),
        ..v1::Reply::default()
    };
    link.send(to_gateway::REPLY, &reply);
    let response = client.response();
    assert_eq!((response.up_seq, Code::from_wire(response.status)), (1, Code::NotFound));
    assert_eq!((response.reason(), response.source()), (Reason::Banned, Source::Service));
    assert_eq!((response.execution(), response.retry_after_ms), (Execution::NotExecuted, 1234));
    assert_eq!((response.content_encoding.as_str(), &response.payload[..]), ("zstd", &b"why"[..]));
    assert_eq!(response.message, "é".repeat(128));
    drop(client);
    site.end();
}

#[test]
fn garbage_ends_the_link_its_calls_are_settled_and_it_is_dialled_again() {
    let listener = listener();
    let site = Site::beside(&listener, QUICK_LINKS);
    let member = |member: u32, body: &[u8]| crate::wire::frame(0, 0, member, &crate::wire::Raw(body));
    let garbages = [
        vec![0, 0, 0, 0],
        u32::MAX.to_be_bytes().to_vec(),
        framed(&[0xff; 7]),
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        member(to_gateway::REPLY, &[0x0d, 1, 2, 3, 4]),
        member(to_gateway::HELLO_ACK, &[]),
        framed(&[0x4a, 0, 0x4a, 0]),
    ];
    let mut client = site.open();
    let mut link = RawLink::open(&listener);
    for (up_seq, garbage) in (1..).zip(&garbages) {
        site.ready();
        client.send(&request(up_seq, command::OPEN, b"x"));
        link.call();
        link.send_bytes(garbage);
        let response = client.response();
        assert_eq!(response.up_seq, up_seq, "{garbage:x?}");
        assert_gateway_says(&response, Code::Aborted, Reason::EndpointLost, Execution::Unknown);
        assert!(link.next().is_none(), "{garbage:x?}");
        link = RawLink::open(&listener);
    }
    assert_eq!(site.metric("moorgate_link_protocol_errors_total"), garbages.len() as u64);
    site.ready();
    client.send(&request(garbages.len() as u64 + 1, command::OPEN, b"x"));
    let call = link.call();
    link.reply(call.call_id, b"well again");
    assert_eq!(&client.response().payload[..], b"well again");
    drop(client);
    site.end();
}

#[test]
fn an_unknown_member_of_a_newer_service_does_no_harm() {
    let (site, mut link) = site_and_link("");
    link.send(40, &crate::wire::Raw(b"\x0a\x01x"));
    link.send(to_gateway::PRESENCE_SUBSCRIBE, &v1::PresenceSubscribe::default());
    link.nothing_else();
    site.end();
}

#[test]
fn a_second_reply_is_counted_and_nobody_sees_it() {
    let (site, mut link) = site_and_link("");
    let mut client = site.open();
    client.send(&request(1, command::OPEN, b"x"));
    let call = link.call();
    link.reply(call.call_id, b"first");
    link.reply(call.call_id, b"second");
    link.nothing_else();
    assert_eq!(&client.response().payload[..], b"first");
    client.nothing_else();
    assert_eq!(site.metric("moorgate_replies_unknown_total"), 1);
    drop(client);
    site.end();
}

#[test]
fn a_reply_after_the_deadline_is_counted_and_the_link_lives() {
    let (site, mut link) = site_and_link("");
    let mut client = site.open();
    client.send(&request(1, command::HASTY, b"x"));
    let call = link.call();
    assert!(call.remaining_ms <= 101);
    let response = client.response();
    assert_gateway_says(&response, Code::DeadlineExceeded, Reason::Timeout, Execution::Unknown);
    assert_eq!(link.cancel().call_id, call.call_id);
    link.reply(call.call_id, b"late");
    link.nothing_else();
    assert_eq!(site.metric("moorgate_replies_late_total"), 1);
    client.nothing_else();
    client.send(&request(2, command::OPEN, b"x"));
    let call = link.call();
    link.reply(call.call_id, b"in time");
    assert_eq!(&client.response().payload[..], b"in time");
    drop(client);
    site.end();
}

#[test]
fn a_clients_own_timeout_counts_when_it_is_shorter() {
    let (site, mut link) = site_and_link("");
    let mut client = site.open();
    let body = v1::Request { command: command::OPEN, timeout_ms: 50, ..v1::Request::default() };
    client.send(&crate::wire::frame(1, 0, moorgate_proto::envelope::member::client::REQUEST, &body));
    assert!(link.call().remaining_ms <= 51);
    let response = client.response();
    assert_gateway_says(&response, Code::DeadlineExceeded, Reason::Timeout, Execution::Unknown);
    drop(client);
    site.end();
}

#[test]
fn a_call_that_is_never_answered_gives_its_slot_back_after_the_grace() {
    let listener = listener();
    let site = Site::beside(&listener, "[links]\nlate_reply_grace = \"100ms\"\n");
    let view = v1::ServiceView { outstanding_max: 1, ..v1::ServiceView::default() };
    let mut link = RawLink::open_with(&listener, |ack| ack.view = Some(view));
    site.ready();
    let mut client = site.open();
    client.send(&request(1, command::HASTY, b"x"));
    let never = link.call();
    assert_eq!(client.response().reason(), Reason::Timeout);
    client.send(&request(2, command::OPEN, b"next"));
    assert_eq!(link.cancel().call_id, never.call_id);
    let next = link.call();
    link.reply(next.call_id, b"");
    assert_eq!(client.response().up_seq, 2);
    // Now it is a reply to nothing.
    link.reply(never.call_id, b"");
    link.nothing_else();
    assert_eq!(site.metric("moorgate_replies_late_total"), 0);
    assert_eq!(site.metric("moorgate_replies_unknown_total"), 1);
    drop(client);
    site.end();
}

#[test]
fn a_reply_to_a_call_that_was_not_given_is_counted_and_does_nothing() {
    let listener = listener();
    let site = Site::beside(&listener, "[links]\nper_endpoint = 2\n");
    let mut links = [RawLink::open(&listener), RawLink::open(&listener)];
    until("both links are ready", || site.metric("moorgate_service_links{service=\"echo\"}") == 2);
    let mut client = site.open();
    ask_many(&mut client, command::OPEN, 2);
    let calls = [links[0].call(), links[1].call()];
    assert_ne!(calls[0].call_id, calls[1].call_id);
    // A call of the other link, one that never was, and none.
    for call_id in [calls[1].call_id, u64::MAX, 0] {
        links[0].reply(call_id, b"forged");
    }
    links[0].nothing_else();
    assert_eq!(site.metric("moorgate_replies_unknown_total"), 3);
    for (link, call) in links.iter_mut().zip(&calls) {
        link.reply(call.call_id, b"true");
        assert_eq!(&client.response().payload[..], b"true");
    }
    drop(client);
    site.end();
}

#[test]
fn a_service_that_proves_nothing_or_is_another_never_gets_a_call() {
    let listener = listener();
    let site = Site::beside(&listener, QUICK_LINKS);
    type Change = fn(&v1::LinkHello, &mut v1::LinkHelloAck);
    let changes: [(&str, Change); 8] = [
        ("no proof", |_, ack| ack.proof = Vec::new().into()),
        ("another key", |hello, ack| ack.proof = acknowledgement(hello, "not the shared secret").proof),
        ("half a proof", |_, ack| ack.proof.truncate(16)),
        ("another nonce than the proof's", |_, ack| ack.nonce = vec![1; 32].into()),
        ("a short nonce", |_, ack| ack.nonce = vec![9; 31].into()),
        ("another instance than the proof's", |_, ack| ack.instance_id = "other".to_owned()),
        ("another service", |_, ack| ack.service = "accounts".to_owned()),
        ("another version", |_, ack| ack.version = 2),
    ];
    let mut client = site.open();
    for (up_seq, (name, change)) in (1..).zip(changes) {
        let mut link = RawLink::accept(&listener);
        let hello = link.hello();
        let mut ack = acknowledgement(&hello, LINK_SECRET);
        change(&hello, &mut ack);
        link.send(to_gateway::HELLO_ACK, &ack);
        assert!(link.next().is_none(), "{name}: neither Auth nor a call");
        let response = client.ask(up_seq, command::OPEN, b"secret");
        assert_gateway_says(&response, Code::Unavailable, Reason::NoEndpoint, Execution::NotExecuted);
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
        link.send(member, &crate::wire::Raw(&[]));
        assert!(link.next().is_none());
    }
    site.metric_becomes("moorgate_link_protocol_errors_total", 4);
    assert!(site.gateway().readiness().is_err());
    site.end();
}

#[test]
fn a_service_that_never_says_hello_is_given_up_and_dialled_again() {
    let listener = listener();
    let site = Site::beside(&listener, &format!("{QUICK_LINKS}connect_timeout = \"100ms\"\n"));
    let mut link = RawLink::accept(&listener);
    link.hello();
    assert!(link.next().is_none());
    let _again = RawLink::open(&listener);
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
    let (site, mut link) = site_and_link("[links]\nheartbeat = \"100ms\"\n");
    let mut client = site.open();
    client.send(&request(1, command::OPEN, b"x"));
    link.call();
    // Pings are not answered while the answer is awaited.
    let response = client.response();
    assert_gateway_says(&response, Code::Aborted, Reason::EndpointLost, Execution::Unknown);
    drop(client);
    site.end();
}

#[test]
fn a_service_that_is_down_at_start_is_found_when_it_comes() {
    // An address of its own, so that nothing else takes the port meanwhile.
    let held = std::net::TcpListener::bind("127.0.0.41:0").unwrap();
    let address = held.local_addr().unwrap();
    drop(held);
    let site = Site::of(crate::site::settings(address, QUICK_LINKS));
    assert!(site.gateway().readiness().unwrap_err().contains("echo"));
    let mut client = site.open();
    let response = client.ask(1, command::OPEN, b"x");
    assert_gateway_says(&response, Code::Unavailable, Reason::NoEndpoint, Execution::NotExecuted);
    until("dialling has failed", || site.metric("moorgate_links_failed_total") > 2);
    let service = crate::site::echo_service_at(address);
    site.ready();
    assert_eq!(client.ask(2, command::OPEN, b"x").status, Code::Ok.to_wire());
    drop(client);
    site.end();
    service.stop();
    assert!(service.join());
}

#[test]
fn a_service_at_its_bound_gets_the_next_call_when_it_has_answered() {
    let listener = listener();
    let site = Site::beside(&listener, "");
    let view = v1::ServiceView { outstanding_max: 2, ..v1::ServiceView::default() };
    let mut link = RawLink::open_with(&listener, |ack| ack.view = Some(view));
    site.ready();
    let mut client = site.open();
    ask_many(&mut client, command::OPEN, 4);
    let (first, second) = (link.call(), link.call());
    link.nothing_else();
    link.reply(second.call_id, b"");
    assert_eq!(client.response().up_seq, 2);
    let third = link.call();
    link.nothing_else();
    for call in [first, third] {
        link.reply(call.call_id, b"");
        client.response();
    }
    let fourth = link.call();
    link.reply(fourth.call_id, b"");
    assert_eq!(client.response().up_seq, 4);
    drop(client);
    site.end();
}

#[test]
fn calls_that_wait_are_bounded_and_the_rest_is_refused() {
    let listener = listener();
    let site = Site::beside(&listener, "[links]\nwaiting = 1\n");
    let view = v1::ServiceView { outstanding_max: 1, ..v1::ServiceView::default() };
    let mut link = RawLink::open_with(&listener, |ack| ack.view = Some(view));
    site.ready();
    let mut client = site.open();
    ask_many(&mut client, command::OPEN, 3);
    let refused = client.response();
    assert_eq!(refused.up_seq, 3);
    let reason = Reason::ServiceOverloaded;
    assert_gateway_says(&refused, Code::ResourceExhausted, reason, Execution::NotExecuted);
    for up_seq in 1..=2 {
        let call = link.call();
        link.reply(call.call_id, b"");
        assert_eq!(client.response().up_seq, up_seq);
    }
    drop(client);
    site.end();
}

#[test]
fn a_cancelled_call_that_waits_is_never_sent() {
    let listener = listener();
    let site = Site::beside(&listener, "");
    let view = v1::ServiceView { outstanding_max: 1, ..v1::ServiceView::default() };
    let mut link = RawLink::open_with(&listener, |ack| ack.view = Some(view));
    site.ready();
    let mut client = site.open();
    ask_many(&mut client, command::OPEN, 3);
    let first = link.call();
    client.send(&crate::wire::cancel(2));
    let response = client.response();
    assert_eq!(response.up_seq, 2);
    assert_gateway_says(&response, Code::Cancelled, Reason::Cancelled, Execution::NotExecuted);
    link.reply(first.call_id, b"");
    assert_eq!(client.response().up_seq, 1);
    let third = link.call();
    link.reply(third.call_id, b"");
    assert_eq!(client.response().up_seq, 3);
    drop(client);
    site.end();
}

#[test]
fn a_call_that_waits_past_its_deadline_is_never_sent() {
    let listener = listener();
    let site = Site::beside(&listener, "");
    let view = v1::ServiceView { outstanding_max: 1, ..v1::ServiceView::default() };
    let mut link = RawLink::open_with(&listener, |ack| ack.view = Some(view));
    site.ready();
    let mut client = site.open();
    client.send(&[request(1, command::OPEN, b"x"), request(2, command::HASTY, b"x")].concat());
    let first = link.call();
    let response = client.response();
    assert_eq!(response.up_seq, 2);
    assert_gateway_says(&response, Code::DeadlineExceeded, Reason::Timeout, Execution::NotExecuted);
    link.reply(first.call_id, b"");
    assert_eq!(client.response().up_seq, 1);
    link.nothing_else();
    drop(client);
    site.end();
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

#[test]
fn a_reply_above_the_clients_frame_comes_without_its_payload() {
    let (site, mut link) = site_and_link("");
    let mut client = site.connect();
    client.send(&hello_frame(&v1::Hello { frame_bytes_max: 4096, ..hello() }));
    client.welcome();
    client.send(&request(1, command::OPEN, b"x"));
    let call = link.call();
    link.reply(call.call_id, &[5; 5000]);
    let response = client.response();
    assert!(response.payload_dropped && response.payload.is_empty());
    assert_eq!((Code::from_wire(response.status), response.reason()), (Code::Ok, Reason::ReplyTooLarge));
    assert_eq!((response.source(), response.execution()), (Source::Service, Execution::Executed));
    assert_eq!(site.metric("moorgate_payloads_dropped_total"), 1);
    client.send(&request(2, command::OPEN, b"x"));
    let call = link.call();
    link.reply(call.call_id, &[5; 3000]);
    let response = client.response();
    assert!(!response.payload_dropped && response.encoded_len() <= 4096);
    drop(client);
    site.end();
}

#[test]
fn directives_are_refused_and_counted_and_the_reply_is_delivered() {
    let (site, mut link) = site_and_link("");
    let mut client = site.open();
    client.send(&request(1, command::OPEN, b"x"));
    use v1::directive::Action;
    let login = v1::Login { user_id: "root".to_owned(), roles: vec!["admin".to_owned()], access_ttl_ms: 0 };
    let actions = [Action::Login(login), Action::Logout(v1::Logout {})];
    let directives = actions.map(|action| v1::Directive { action: Some(action) }).to_vec();
    let payload = b"delivered".to_vec().into();
    let reply = v1::Reply { call_id: link.call().call_id, directives, payload, ..v1::Reply::default() };
    link.send(to_gateway::REPLY, &reply);
    let response = client.response();
    assert_eq!((&response.payload[..], response.login), (&b"delivered"[..], None));
    assert_eq!(site.metric("moorgate_directives_refused_total"), 2);
    let response = client.ask(2, command::ADMIN, b"x");
    assert_eq!(response.reason(), Reason::LoginRequired, "nobody was logged in");
    drop(client);
    site.end();
}

#[test]
fn a_push_is_answered_that_it_is_not_carried() {
    let (site, mut link) = site_and_link("");
    let push = v1::ServicePush { push_id: vec![7; 8].into(), ..v1::ServicePush::default() };
    link.send(to_gateway::PUSH, &push);
    match link.member() {
        Member::PushResult(result) => {
            assert_eq!((&result.push_id, result.reason()), (&push.push_id, Reason::NotSupported));
            assert_eq!(result.status, Code::Unimplemented.to_wire());
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(site.metric("moorgate_pushes_refused_total"), 1);
    site.end();
}

#[test]
fn a_session_ordered_route_sends_one_call_at_a_time_in_order() {
    let (site, mut link) = site_and_link("");
    let mut client = site.connect();
    client.send(&hello_frame(&hello()));
    let session_id = client.welcome().session_id;
    let mut other = site.open();
    ask_many(&mut client, command::ORDERED, 4);
    for up_seq in 1..=4 {
        let call = link.call();
        assert_eq!(call.ordering_key, session_id);
        link.nothing_else();
        if up_seq == 2 {
            // Another session does not wait behind this one.
            other.send(&request(1, command::ORDERED, b"other"));
            let call = link.call();
            assert_eq!(&call.payload[..], b"other");
            link.reply(call.call_id, b"");
            other.response();
        }
        link.reply(call.call_id, b"");
        assert_eq!(client.response().up_seq, up_seq);
    }
    drop((client, other));
    site.end();
}

#[test]
fn a_session_ordered_route_goes_on_after_a_cancel_and_after_a_deadline() {
    let (site, mut link) = site_and_link("");
    let mut client = site.open();
    let short = v1::Request { command: command::ORDERED, timeout_ms: 100, ..v1::Request::default() };
    let member = moorgate_proto::envelope::member::client::REQUEST;
    client.send(
        &[
            crate::wire::frame(1, 0, member, &short),
            request(2, command::ORDERED, b"cancelled"),
            request(3, command::ORDERED, b"last"),
        ]
        .concat(),
    );
    let first = link.call();
    client.send(&crate::wire::cancel(2));
    let cancelled = client.response();
    assert_eq!((cancelled.up_seq, cancelled.execution()), (2, Execution::NotExecuted));
    assert_eq!(client.response().reason(), Reason::Timeout);
    assert_eq!(link.cancel().call_id, first.call_id);
    // The next one goes when the service has answered the one that was given up.
    link.nothing_else();
    link.reply(first.call_id, b"late");
    let last = link.call();
    assert_eq!(&last.payload[..], b"last");
    link.reply(last.call_id, b"");
    assert_eq!(client.response().up_seq, 3);
    drop(client);
    site.end();
}
