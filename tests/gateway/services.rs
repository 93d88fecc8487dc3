//! Services that answer wrongly, twice, late, never, or too much; and what their clients are told.

use crate::link::{QUICK_LINKS, RawLink, listener, site_and_link};
use crate::site::{Site, command, until};
use crate::wire::{Raw, ask_many, assert_gateway_says, frame, framed, hello, hello_frame, request};
use moorgate_proto::envelope::member::{client, to_gateway};
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Execution, Reason, Source, to_service::Member};
use prost::Message;

// spec: M-2, S-8
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

// spec: L-14, L-16, L-20, S-9
#[test]
fn garbage_ends_the_link_its_calls_are_settled_and_it_is_dialled_again() {
    let listener = listener();
    let site = Site::beside(&listener, QUICK_LINKS);
    let member = |member: u32, body: &[u8]| frame(0, 0, member, &Raw(body));
    let garbages = [
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
        assert!(link.ends().is_some(), "{garbage:x?}");
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

// spec: L-18
#[test]
fn an_unknown_member_of_a_newer_service_does_no_harm() {
    let (site, mut link) = site_and_link("");
    link.send(40, &Raw(b"\x0a\x01x"));
    link.nothing_else();
    site.end();
}

// spec: L-23
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

// spec: L-34
#[test]
fn a_reply_after_the_deadline_is_counted_and_the_link_lives() {
    let (site, mut link) = site_and_link("");
    let mut client = site.open();
    client.send(&request(1, command::HASTY, b"x"));
    let call = link.call();
    assert!(call.remaining_ms <= 1001);
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

// spec: S-10, U-8
#[test]
fn a_clients_own_timeout_counts_when_it_is_shorter() {
    let (site, mut link) = site_and_link("");
    let mut client = site.open();
    let body = v1::Request { command: command::OPEN, timeout_ms: 1000, ..v1::Request::default() };
    client.send(&frame(1, 0, client::REQUEST, &body));
    assert!(link.call().remaining_ms <= 1001);
    let response = client.response();
    assert_gateway_says(&response, Code::DeadlineExceeded, Reason::Timeout, Execution::Unknown);
    drop(client);
    site.end();
}

// spec: L-23
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

// spec: D-5
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

// spec: L-36
#[test]
fn directives_without_a_grant_are_refused_and_counted_and_the_reply_is_delivered() {
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
    assert_eq!(site.metric("moorgate_directives_total{result=\"refused\"}"), 2);
    let response = client.ask(2, command::ADMIN, b"x");
    assert_eq!(response.reason(), Reason::LoginRequired, "nobody was logged in");
    drop(client);
    site.end();
}

// spec: L-49, L-59
#[test]
fn a_push_without_a_grant_is_refused() {
    let (site, mut link) = site_and_link("");
    let target = Some(v1::service_push::Target::Everyone(v1::Everyone {}));
    let push = v1::ServicePush { push_id: vec![7; 8].into(), target, ..v1::ServicePush::default() };
    link.send(to_gateway::PUSH, &push);
    match link.member() {
        Member::PushResult(result) => {
            assert_eq!((&result.push_id, result.reason()), (&push.push_id, Reason::GrantMissing));
            assert_eq!(result.status, Code::PermissionDenied.to_wire());
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(site.metric("moorgate_pushes_total{result=\"refused\"}"), 1);
    site.end();
}
