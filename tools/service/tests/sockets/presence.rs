//! A service that wants to know who is online, and gateways that say so.

use crate::gateway::{Gateway, PATIENCE, auth, frame, hello_of};
use moorgate_proto::envelope::member::to_service;
use moorgate_proto::v1::{self, to_gateway::Member};
use moorgate_service::{Handle, Service};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};

/// A service, and whom it was told of.
fn start(name: &str) -> (Handle, Receiver<(String, bool)>) {
    let (sender, told) = channel();
    let service = Service::named(name)
        .presence(move |change| sender.send((change.user_id.to_string(), change.online)).unwrap());
    (service.listen("127.0.0.1:0".parse().unwrap()).unwrap().spawn().unwrap(), told)
}

/// A link of a start of a gateway, on which the service has asked for presence.
fn link(gateway_id: &str, boot_id: u64, address: SocketAddr, service: &str) -> Gateway {
    let mut gateway = Gateway::connect(address);
    gateway.send(&frame(to_service::HELLO, &v1::LinkHello { boot_id, ..hello_of(gateway_id, 0, service) }));
    assert!(matches!(gateway.next(), Some(Member::HelloAck(_))));
    gateway.send(&auth());
    gateway.round_trip();
    assert_eq!(gateway.subscriptions, 1);
    gateway
}

fn bracket(end: bool, version: u64) -> Vec<u8> {
    frame(to_service::PRESENCE_SNAPSHOT, &v1::PresenceSnapshot { end, version })
}

fn event(user: &str, sessions: u32, version: u64, lease_ms: u32) -> Vec<u8> {
    let event = v1::PresenceEvent {
        user_id: user.to_owned(),
        online: sessions > 0,
        sessions,
        version,
        lease_ms,
        ..v1::PresenceEvent::default()
    };
    frame(to_service::PRESENCE_EVENT, &event)
}

fn next(told: &Receiver<(String, bool)>) -> (String, bool) {
    told.recv_timeout(PATIENCE).unwrap()
}

fn comes(user: &str) -> (String, bool) {
    (user.to_owned(), true)
}

fn goes(user: &str) -> (String, bool) {
    (user.to_owned(), false)
}

// spec: L-60, L-68
#[test]
fn each_link_is_asked_and_whoever_is_told_comes_from_any_of_them() {
    let (service, told) = start("watched");
    let mut one = link("gate-1", 5, service.address(), "watched");
    let mut other = link("gate-1", 5, service.address(), "watched");
    let mut elsewhere = link("gate-2", 6, service.address(), "watched");
    one.send(&[bracket(false, 1), event("alice", 1, 2, 0), bracket(true, 3)].concat());
    assert_eq!(next(&told), comes("alice"));
    elsewhere.send(&[bracket(false, 1), event("alice", 1, 2, 0), event("bob", 2, 3, 0)].concat());
    assert_eq!(next(&told), comes("bob"));
    // The link is lost; what it has still said comes late.
    other.send(&[bracket(false, 6), event("carol", 1, 7, 0), bracket(true, 8)].concat());
    assert_eq!(next(&told), comes("carol"));
    one.send(&[event("dave", 1, 4, 0), event("carol", 0, 5, 0)].concat());
    one.round_trip();
    drop(one);
    other.send(&event("erin", 1, 9, 0));
    assert_eq!(next(&told), comes("erin"));
    elsewhere.send(&event("alice", 0, 4, 0));
    assert_eq!(next(&told), goes("alice"), "at neither of them");
}

// spec: L-62, L-70
#[test]
fn the_users_of_a_gateway_that_is_gone_go_with_the_next_one_or_their_lease() {
    let (service, told) = start("leased");
    let mut old = link("gate-1", 1, service.address(), "leased");
    let users = [event("alice", 1, 2, 300_000), event("bob", 1, 3, 300_000)].concat();
    old.send(&[bracket(false, 1), users, bracket(true, 4)].concat());
    assert_eq!((next(&told), next(&told)), (comes("alice"), comes("bob")));
    drop(old);
    let mut new = link("gate-1", 2, service.address(), "leased");
    new.send(&[bracket(false, 1), event("bob", 1, 2, 200), bracket(true, 3)].concat());
    assert_eq!(next(&told), goes("alice"));
    // Nothing more comes: it is asked anew, in case it can still be heard.
    assert_eq!(next(&told), goes("bob"));
    new.round_trip();
    assert_eq!(new.subscriptions, 2);
    new.send(&[bracket(false, 4), event("bob", 1, 5, 300_000), bracket(true, 6)].concat());
    assert_eq!(next(&told), comes("bob"));
}
