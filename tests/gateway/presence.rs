//! Presence: a service learns who is online, everybody first and then each change, on one of its links.

use crate::link::{QUICK_LINKS, RawLink, granted_site, listener, site_and_granted_link, site_and_link};
use crate::site::{Site, link_key, own_address, settings};
use crate::token::token;
use crate::wire::{PATIENCE, RawClient};
use moorgate::routing::{Grants, Right};
use moorgate_proto::envelope::member::to_gateway;
use moorgate_proto::v1::link_notice::Kind;
use moorgate_proto::v1::{self, to_service::Member};
use moorgate_service::Service;
use std::sync::mpsc::channel;

fn enters(site: &Site, user: &str, device: &str) -> RawClient {
    RawClient::log_in(site.address(), token(user, &[]), device)
}

fn subscribe(link: &mut RawLink) {
    link.send(to_gateway::PRESENCE_SUBSCRIBE, &v1::PresenceSubscribe {});
}

fn event(link: &mut RawLink) -> v1::PresenceEvent {
    match link.member() {
        Member::PresenceEvent(event) => event,
        other => panic!("no PresenceEvent: {other:?}"),
    }
}

/// The next event is this one.
fn tells(link: &mut RawLink, user: &str, sessions: u32) -> v1::PresenceEvent {
    let event = event(link);
    assert_eq!((event.user_id.as_str(), event.sessions, event.online), (user, sessions, sessions > 0));
    event
}

/// A snapshot comes, and has these users, in any order.
fn everybody(link: &mut RawLink) -> Vec<(String, u32)> {
    assert!(matches!(link.member(), Member::PresenceSnapshot(bracket) if !bracket.end));
    let mut users = Vec::new();
    loop {
        match link.member() {
            Member::PresenceEvent(event) => users.push((event.user_id, event.sessions)),
            Member::PresenceSnapshot(bracket) if bracket.end => break,
            other => panic!("no snapshot: {other:?}"),
        }
    }
    users.sort();
    users
}

// spec: L-60, L-61
#[test]
fn a_service_that_subscribes_gets_everybody_and_then_each_change() {
    let (site, mut link) = site_and_granted_link("[presence]\nlease = \"1m\"\n");
    let phone = enters(&site, "alice", "phone");
    let laptop = enters(&site, "alice", "laptop");
    let bob = enters(&site, "bob", "");
    let anonymous = site.open();
    site.metric_becomes("moorgate_sessions", 4);
    subscribe(&mut link);
    assert_eq!(everybody(&mut link), [("alice".to_owned(), 2), ("bob".to_owned(), 1)]);
    drop(bob);
    let last = tells(&mut link, "bob", 0);
    assert_eq!((last.gateway_id.as_str(), last.lease_ms), ("gateway-test", 60_000));
    let carol = enters(&site, "carol", "");
    let next = tells(&mut link, "carol", 1);
    assert!(next.version > last.version && next.boot_id == last.boot_id);
    drop(laptop);
    tells(&mut link, "alice", 1);
    // In the place of another session: nothing has changed.
    let again = enters(&site, "alice", "phone");
    drop(carol);
    tells(&mut link, "carol", 0);
    link.nothing_else();
    assert_eq!(site.metric("moorgate_presence_snapshots_total"), 1);
    assert_eq!(site.metric("moorgate_presence_events_total"), 6);
    drop((phone, again, anonymous));
    tells(&mut link, "alice", 0);
    site.end();
}

// spec: L-60, L-68
#[test]
fn another_link_is_told_when_the_first_is_lost() {
    let listener = listener();
    let tables = format!("{QUICK_LINKS}per_endpoint = 2\n");
    let site = granted_site(&listener, &tables);
    let mut links = [RawLink::open(&listener), RawLink::open(&listener)];
    site.ready();
    let alice = enters(&site, "alice", "");
    links.iter_mut().for_each(subscribe);
    // Which of them was heard first is the gateway's business: the other has nothing else to hear.
    let [mut one, mut other] = links;
    site.metric_becomes("moorgate_presence_snapshots_total", 1);
    one.send(to_gateway::PING, &v1::LinkPing { nonce: 5, view: None });
    let (mut told, mut quiet) = match one.member() {
        Member::Pong(_) => (other, one),
        Member::PresenceSnapshot(_) => {
            tells(&mut one, "alice", 1);
            assert!(matches!(one.member(), Member::PresenceSnapshot(_)));
            assert!(matches!(one.member(), Member::Pong(_)));
            other.nothing_else();
            (one, other)
        }
        other => panic!("{other:?}"),
    };
    let bob = enters(&site, "bob", "");
    while !matches!(told.member(), Member::PresenceEvent(event) if event.user_id == "bob") {}
    quiet.nothing_else();
    drop(told);
    assert_eq!(everybody(&mut quiet), [("alice".to_owned(), 1), ("bob".to_owned(), 1)]);
    drop(quiet);
    // The service was gone for a while: a new link begins anew.
    drop(bob);
    let mut new = RawLink::open(&listener);
    subscribe(&mut new);
    if everybody(&mut new).len() == 2 {
        // Bob had not gone yet.
        tells(&mut new, "bob", 0);
    }
    drop(alice);
    tells(&mut new, "alice", 0);
    site.end();
}

// spec: L-64
#[test]
fn a_service_without_the_right_is_told_nothing() {
    let (site, mut link) = site_and_link("");
    subscribe(&mut link);
    assert_eq!(link.notice().kind(), Kind::PresenceRefused);
    let alice = enters(&site, "alice", "");
    link.nothing_else();
    site.metric_becomes("moorgate_presence_refused_total", 1);
    drop(alice);
    site.end();
}

// spec: L-60, L-62
#[test]
fn the_kit_tells_who_comes_and_goes() {
    let (sender, told) = channel();
    let service = Service::named("echo").key(link_key()).presence(move |change| {
        sender.send((change.user_id.to_string(), change.online)).unwrap();
    });
    let service = service.listen(own_address()).unwrap().spawn().unwrap();
    let mut settings = settings(service.address(), "[links]\nheartbeat = \"500ms\"\nper_endpoint = 3\n");
    settings.services[0].grants = Grants::NONE.with(Right::Presence);
    settings.forward.presence_lease = std::time::Duration::from_secs(4);
    (settings.reactor.shards, settings.reactor.workers) = (2, 2);
    let site = Site::of(settings);
    site.ready();
    let next = || told.recv_timeout(PATIENCE).unwrap();
    let phone = enters(&site, "alice", "phone");
    assert_eq!(next(), ("alice".to_owned(), true));
    let laptop = enters(&site, "alice", "laptop");
    let bob = enters(&site, "bob", "");
    assert_eq!(next(), ("bob".to_owned(), true));
    drop(phone);
    drop(bob);
    assert_eq!(next(), ("bob".to_owned(), false));
    let carol = enters(&site, "carol", "");
    assert_eq!(next(), ("carol".to_owned(), true));
    // The gateway ends, and may or may not say so of its users: they go at once, or with their lease.
    site.gateway().stop();
    site.join();
    let mut gone = [next(), next()];
    gone.sort();
    assert_eq!(gone, [("alice".to_owned(), false), ("carol".to_owned(), false)]);
    drop((laptop, carol));
    service.stop();
    assert!(service.join());
}
