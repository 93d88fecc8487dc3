//! The planned end: clients are told, requests finish, nothing new begins.

use crate::child::http;
use crate::link::{RawLink, listener, site_and_link};
use crate::site::{Site, command, settings, until};
use crate::wire::{RawClient, frame, hello, hello_frame, request};
use moorgate_client::{ConnectionError, RequestOptions};
use moorgate_proto::envelope::member::client;
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Reason, gateway_frame::Member};
use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

/// The next frame must be a GoAway.
fn go_away(client: &mut RawClient) -> v1::GoAway {
    match client.member() {
        Member::GoAway(go_away) => go_away,
        other => panic!("no GoAway: {other:?}"),
    }
}

// spec: X-9
#[test]
fn a_drain_lets_a_request_in_flight_finish() {
    let (site, mut link) = site_and_link("");
    let (address, admin) = (site.address(), site.gateway().admin_address().unwrap());
    let mut client = site.open();
    client.send(&request(1, command::OPEN, b"x"));
    let call = link.call();
    assert_eq!(http::get(admin, "/readyz").0, 200);
    site.gateway().drain();
    let told = go_away(&mut client);
    assert_eq!((told.reason(), told.deadline_ms, told.resumable), (Reason::Shutdown, 20_000, false));
    // New connections are refused, and the operator's balancer is told.
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let (status, page) = http::get(admin, "/readyz");
    assert_eq!((status, page.as_str()), (503, "not ready: draining\n"));
    assert_eq!(http::get(admin, "/livez").0, 200);
    // Requests are still admitted, and all are answered.
    client.send(&request(2, command::OPEN, b"y"));
    let second = link.call();
    link.reply(second.call_id, b"second");
    link.reply(call.call_id, b"first");
    assert_eq!(&client.response().payload[..], b"second");
    assert_eq!(&client.response().payload[..], b"first");
    assert!(!site.gateway().has_ended());
    client.send(&frame(0, 2, client::BYE, &v1::Bye::default()));
    assert!(matches!(client.member(), Member::ByeAck(_)));
    client.closed();
    drop(client);
    let summary = site.join();
    assert!(summary.is_clean);
    assert_eq!((summary.connections, summary.sessions, summary.requests, summary.ok), (1, 1, 2, 2));
    assert_eq!(summary.to_string(), "drained: 1 connections, 1 sessions, 2 requests, 2 of them OK");
    assert!(link.next().is_none(), "the link ends with the gateway");
}

// spec: X-12
#[test]
fn a_drain_ends_those_who_stay_at_its_deadline() {
    let listener = listener();
    let mut settings = settings(listener.local_addr().unwrap(), "");
    settings.reactor.drain_timeout = Duration::from_secs(3);
    let site = Site::of(settings);
    let _link = RawLink::open(&listener);
    site.ready();
    let mut client = site.open();
    site.gateway().drain();
    assert_eq!(go_away(&mut client).deadline_ms, 3000);
    // It is over before the drain is.
    client.send(&request(1, command::HASTY, b"x"));
    assert_eq!(client.response().reason(), Reason::Timeout);
    let error = client.error();
    assert_eq!((Code::from_wire(error.status), error.reason()), (Code::Unavailable, Reason::Shutdown));
    assert_eq!(error.admitted, 1);
    assert!(error.reconnect.unwrap().allowed);
    drop(client);
    site.join();
}

// spec: O-23
#[test]
fn a_hello_during_the_drain_is_refused() {
    let site = Site::start("");
    let mut client = site.connect();
    let mut witness = site.open();
    site.gateway().drain();
    go_away(&mut witness);
    client.send(&hello_frame(&hello()));
    let error = client.error();
    assert_eq!(error.reason(), Reason::Shutdown);
    assert!(error.reconnect.unwrap().allowed);
    drop((client, witness));
    assert!(site.join().is_clean);
}

#[test]
fn an_idle_gateway_drains_at_once() {
    let site = Site::start_with("", |settings| {
        settings.reactor.shards = 4;
        settings.reactor.workers = 2;
    });
    site.serves();
    site.is_empty_again();
    site.gateway().drain();
    until("it has ended", || site.gateway().has_ended());
    let summary = site.join();
    assert!(summary.is_clean);
    assert_eq!((summary.connections, summary.requests), (1, 1));
}

// spec: X-19
#[test]
fn a_drain_waits_for_the_outcome_of_a_call_whose_client_is_gone() {
    let (site, mut link) = site_and_link("");
    let mut client = site.open();
    client.send(&request(1, command::OPEN, b"x"));
    let call = link.call();
    drop(client);
    site.metric_becomes("moorgate_connections", 0);
    site.gateway().drain();
    link.nothing_else();
    assert!(!site.gateway().has_ended());
    link.reply(call.call_id, b"");
    let summary = site.join();
    assert_eq!((summary.requests, summary.ok, summary.is_clean), (1, 1, true));
}

// spec: X-11
#[test]
fn the_client_kit_takes_its_answer_and_no_new_request() {
    let (site, mut link) = site_and_link("");
    let mut client = site.client();
    let id = client.start(&RequestOptions::command(command::OPEN), b"x").unwrap();
    let call = link.call();
    let mut witness = site.open();
    site.gateway().drain();
    go_away(&mut witness);
    link.reply(call.call_id, b"last");
    assert_eq!(client.answer(id, crate::wire::PATIENCE).unwrap().payload, b"last");
    let refused = client.start(&RequestOptions::command(command::OPEN), b"y");
    assert!(matches!(refused, Err(ConnectionError::NotTaken(_))), "{refused:?}");
    client.bye().unwrap();
    drop(witness);
    assert!(site.join().is_clean);
}
