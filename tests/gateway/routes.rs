//! Requests that the gateway refuses by itself, and the session that goes on.

use crate::link::site_and_link;
use crate::site::{Site, command};
use crate::token::token;
use crate::wire::{PATIENCE, frame, request};
use moorgate_client::{Answer, Connection, Options};
use moorgate_proto::envelope::member::client;
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Execution, Reason, Source};

fn ask(client: &mut Connection, command: u32, payload: &[u8]) -> Answer {
    client.request(command, payload, PATIENCE).unwrap()
}

/// The gateway's own word, and the service never saw it.
fn assert_refused(answer: &Answer, code: Code, reason: Reason) {
    assert_eq!((answer.code, answer.reason), (code, reason));
    assert_eq!((answer.source, answer.execution), (Source::Gateway, Execution::NotExecuted));
}

// spec: U-14
#[test]
fn no_route() {
    let site = Site::start("");
    let mut client = site.client();
    assert_refused(&ask(&mut client, command::NOWHERE, b""), Code::Unimplemented, Reason::NoRoute);
    assert_refused(&ask(&mut client, 0, b""), Code::Unimplemented, Reason::NoRoute);
    assert_refused(&ask(&mut client, u32::MAX, b""), Code::Unimplemented, Reason::NoRoute);
    assert_eq!(ask(&mut client, command::OPEN, b"").code, Code::Ok);
    client.bye().unwrap();
    site.end();
}

// spec: U-9, U-15
#[test]
fn a_version_that_no_route_takes() {
    let site = Site::start("");
    let mut client = site.client();
    assert_refused(&ask(&mut client, command::SECOND, b""), Code::Unimplemented, Reason::VersionTooLow);
    let mut raw = site.open();
    let body = v1::Request { command: command::SECOND, version: 2, ..v1::Request::default() };
    raw.send(&frame(1, 0, client::REQUEST, &body));
    assert_eq!(raw.response().status, Code::Ok.to_wire());
    client.bye().unwrap();
    drop(raw);
    site.end();
}

// spec: U-17
#[test]
fn a_login_is_required() {
    let site = Site::start("");
    let mut anonymous = site.client();
    for command in [command::USER, command::ADMIN] {
        assert_refused(&ask(&mut anonymous, command, b""), Code::Unauthenticated, Reason::LoginRequired);
    }
    let mut user = site.client_with(Options::default(), &token("alice", &[]));
    assert_eq!(ask(&mut user, command::USER, b"").code, Code::Ok);
    assert_eq!(ask(&mut user, command::OPEN, b"").code, Code::Ok);
    anonymous.bye().unwrap();
    user.bye().unwrap();
    site.end();
}

// spec: U-18
#[test]
fn a_role_is_missing() {
    let site = Site::start("");
    let mut user = site.client_with(Options::default(), &token("alice", &["reader"]));
    assert_refused(&ask(&mut user, command::ADMIN, b""), Code::PermissionDenied, Reason::RoleRequired);
    let mut admin = site.client_with(Options::default(), &token("root", &["reader", "admin"]));
    assert_eq!(ask(&mut admin, command::ADMIN, b"").code, Code::Ok);
    user.bye().unwrap();
    admin.bye().unwrap();
    site.end();
}

// spec: U-19
#[test]
fn a_payload_too_large_for_its_route() {
    let site = Site::start("");
    let mut client = site.client();
    assert_eq!(ask(&mut client, command::SMALL, &[0; 1024]).code, Code::Ok);
    let answer = ask(&mut client, command::SMALL, &[0; 1025]);
    assert_refused(&answer, Code::InvalidArgument, Reason::PayloadTooLarge);
    assert_eq!(ask(&mut client, command::OPEN, &[0; 1025]).code, Code::Ok);
    client.bye().unwrap();
    site.end();
}

// spec: S-13
#[test]
fn a_payload_too_large_for_the_services_frame() {
    let listener = crate::link::listener();
    let site = Site::beside(&listener, "");
    let mut link = crate::link::RawLink::open_with(&listener, |ack| ack.frame_bytes_max = 4096);
    site.ready();
    let mut client = site.open();
    let response = client.ask(1, command::OPEN, &[0; 4096]);
    assert_eq!(
        (response.status, response.reason()),
        (Code::InvalidArgument.to_wire(), Reason::PayloadTooLarge)
    );
    assert_eq!(response.execution(), Execution::NotExecuted);
    link.nothing_else();
    drop(client);
    site.end();
}

// spec: U-10, U-20
#[test]
fn an_idempotency_key_has_its_bound_and_fragments_are_not_negotiated() {
    let (site, mut link) = site_and_link("");
    let mut client = site.open();
    let good =
        v1::Request { command: command::OPEN, idempotency_key: vec![1; 64].into(), ..Default::default() };
    let long = v1::Request { idempotency_key: vec![1; 65].into(), ..good.clone() };
    let part = v1::Request { fragment: Some(v1::Fragment { id: 1, index: 0, more: true }), ..good.clone() };
    client.send(&frame(1, 0, client::REQUEST, &long));
    assert_eq!(client.response().reason(), Reason::ProtocolViolation);
    let empty = v1::Request { fragment: Some(v1::Fragment::default()), ..good.clone() };
    for (up_seq, part) in [(2, part), (3, empty)] {
        client.send(&frame(up_seq, 0, client::REQUEST, &part));
        assert_eq!(client.response().reason(), Reason::FeatureNotNegotiated);
    }
    client.send(&frame(4, 0, client::REQUEST, &good));
    let call = link.call();
    assert_eq!(call.idempotency_key.len(), 64);
    link.reply(call.call_id, b"");
    assert_eq!(client.response().status, Code::Ok.to_wire());
    drop(client);
    site.end();
}

// spec: L-24, L-25, L-26, U-11
#[test]
fn a_call_says_who_asks_and_what_is_left_of_its_time() {
    let (site, mut link) = site_and_link("");
    let mut client = site.connect();
    let hello = v1::Hello {
        access_token: token("alice", &["admin"]),
        application: "chat".to_owned(),
        device_id: "phone".to_owned(),
        platform: "linux".to_owned(),
        app_version: "7".to_owned(),
        ..crate::wire::hello()
    };
    client.send(&crate::wire::hello_frame(&hello));
    let welcome = client.welcome();
    client.send(&request(1, command::USER, b"content"));
    let call = link.call();
    assert_eq!((call.command, call.version, call.attempt), (command::USER, 1, 1));
    assert!((1..=60_001).contains(&call.remaining_ms), "{}", call.remaining_ms);
    assert!(call.ordering_key.is_empty());
    let caller = call.caller.unwrap();
    assert_eq!((caller.user_id.as_str(), &caller.session_id), ("alice", &welcome.session_id));
    assert_eq!((caller.application.as_str(), caller.device_id.as_str()), ("chat", "phone"));
    assert_eq!((caller.platform.as_str(), caller.app_version.as_str()), ("linux", "7"));
    assert_eq!((caller.roles, caller.protocol_version), (vec!["admin".to_owned()], 1));
    assert_eq!(caller.client_address, client.stream.local_addr().unwrap().to_string());
    link.reply(call.call_id, b"");
    client.response();
    drop(client);
    site.end();
}
