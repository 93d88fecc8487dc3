//! Bounds that all clients share, an attacker that fills them, and clients that have nothing to do with it.

use super::limits::{hello_of, nobody, of_proved_applications, proved};
use super::*;
use crate::limit::SharedRoom;
use crate::relay::{Checked, Verdict};
use crate::shard::{CheckSettings, DetachedCaps};
use moorgate_proto::proof::ApplicationKey;

const KIB: usize = 1024;

/// The head of a frame of 60,000 bytes, and as many bytes of it.
fn begun(bytes: usize) -> Vec<u8> {
    let mut begun = 60_000u32.to_be_bytes().to_vec();
    begun.extend(vec![0; bytes]);
    begun
}

fn is_open(world: &World, client: ConnectionKey) -> bool {
    world.shard.session_of(client).is_some()
}

// spec: F-11
#[test]
fn unfinished_frames_of_an_attacker_end_its_own_connections() {
    let mut world = World::with(|parts| parts.settings.partial_bytes_max = 256 * KIB);
    let users: Vec<_> = (0..20).map(|number| world.join_as(1, hello_of(&format!("user-{number}")))).collect();
    // From one address, anonymous; from another one with tokens of one user.
    let mut attackers: Vec<_> = (0..8).map(|_| world.join_as(7, nobody())).collect();
    attackers.extend((0..8).map(|_| world.join_as(8, hello_of("mallory"))));
    for round in 0..5 {
        for attacker in &attackers {
            world.shard.received(world.now, *attacker, &begun(50_000));
        }
        world.pass(SECOND);
        for (number, user) in users.iter().enumerate() {
            // Its frame comes in two segments.
            let frame =
                bytes(&v1::ClientFrame { up_seq: round + 1, ack: round, member: Some(request(CHAT, b"hi")) });
            let (head, tail) = frame.split_at(5 + number % 3);
            world.shard.received(world.now, *user, head);
            world.pass(Duration::from_millis(50));
            world.shard.received(world.now, *user, tail);
            let ticket = world.tickets()[0];
            world.settle(ticket, b"");
            assert_eq!(world.response(*user).up_seq, round + 1);
        }
    }
    assert!(users.iter().all(|user| is_open(&world, *user)), "a user was ended");
    let left = attackers.iter().filter(|attacker| is_open(&world, **attacker)).count();
    assert!(left <= 5 && world.shard.partial_bytes() <= 256 * KIB, "{left} of 16 attackers");
}

// spec: F-11, O-32
#[test]
fn early_requests_of_an_attacker_end_its_own_connections() {
    let mut world = World::with(|parts| {
        parts.settings.partial_bytes_max = 64 * KIB;
        parts.settings.check = Some(CheckSettings { timeout: 60 * SECOND, ..CheckSettings::default() });
    });
    let mut early = |address, user: &str, payload: &'static [u8]| {
        let client = world.accept_from(address);
        world.say(client, 0, client_frame::Member::Hello(hello_of(user)));
        world.say(client, 1, request(CHAT, payload));
        client
    };
    let user = early(1, "alice", b"early");
    let attackers: Vec<_> = (0..40).map(|_| early(8, "mallory", &[7; 4000])).collect();
    assert!(world.shard.partial_bytes() <= 64 * KIB);
    let is_waiting = |world: &World, client| world.shard.is_opening(client);
    assert!(attackers.iter().filter(|attacker| is_waiting(&world, **attacker)).count() <= 16);
    for client in attackers.into_iter().filter(|attacker| is_waiting(&world, *attacker)).collect::<Vec<_>>() {
        world.shard.peer_closed(world.now, client);
    }
    let mut batch = DeliveryBatch::default();
    let verdict = Verdict::Admitted(Duration::ZERO);
    batch.deliveries.push(Delivery::Checked(Checked { connection: user, verdict }));
    world.shard.delivered(world.now, batch);
    assert!(matches!(world.member(user), gateway_frame::Member::Welcome(_)));
    assert_eq!((world.tickets().len(), world.shard.partial_bytes()), (1, 0));
}

/// Connections that say nothing fill their bound; clients that say Hello get in all the same.
// spec: O-22
#[test]
fn silent_connections_make_room_for_those_that_say_hello() {
    let mut world = World::with(|parts| parts.settings.handshakes_max = 64);
    let silent: Vec<_> = (0..64).map(|_| world.accept_from(7)).collect();
    // They may still be about to send Hello.
    let late = world.accept_from(8);
    assert_eq!(world.error(late), (Reason::ConnectionLimit, true));
    assert_eq!(world.count(Count::RefusedHandshakes), 1);
    world.pass(2 * SECOND);
    for number in 0..500 {
        world.join_as(1, hello_of(&format!("user-{number}")));
        world.accept_from(7);
        world.pass(Duration::from_millis(20));
    }
    assert_eq!(world.error(silent[0]), (Reason::ConnectionLimit, true), "the oldest of them");
    assert_eq!((world.count(Count::RefusedHandshakes), world.count(Count::SessionsOpened)), (1, 500));
    assert!(world.count(Count::OpeningsOusted) > 100);
}

/// The same when it is descriptors that run out. A slow client of another address is the last to go.
// spec: O-22
#[test]
fn silent_connections_hold_no_descriptors_that_others_need() {
    let mut world = World::with(|parts| parts.limits.room = Arc::new(SharedRoom::new(40)));
    let slow = world.accept_from(9);
    for _ in 0..39 {
        world.accept_from(7);
    }
    world.pass(2 * SECOND);
    let peer = SocketAddr::from(([192, 0, 2, 1], 999));
    assert!(world.shard.accepted(world.now, peer).is_err(), "this one is too late");
    for _ in 0..5 {
        while world.shard.next_ended().is_some() {}
        world.join_as(1, hello());
    }
    world.say(slow, 0, client_frame::Member::Hello(hello()));
    assert!(matches!(world.member(slow), gateway_frame::Member::Welcome(_)));
    assert_eq!((world.count(Count::RefusedDescriptors), world.count(Count::OpeningsOusted)), (1, 5));
}

// spec: O-22, P-8
#[test]
fn connections_whose_hello_may_be_unread_are_not_silent() {
    let mut world = World::with(|parts| parts.settings.handshakes_max = 4);
    let waiting: Vec<_> = (0..4).map(|_| world.accept_from(7)).collect();
    world.shard.set_read_until(world.now.mono);
    world.pass(5 * SECOND);
    let late = world.accept_from(8);
    assert_eq!(world.error(late), (Reason::ConnectionLimit, true), "none is evicted for it");
    world.shard.shed_openings_of(world.now, [192, 0, 2, 7].into());
    assert_eq!(world.count(Count::OpeningsOusted), 0);
    for client in &waiting[..3] {
        world.say(*client, 0, client_frame::Member::Hello(hello()));
        assert!(matches!(world.member(*client), gateway_frame::Member::Welcome(_)));
    }
    world.shard.set_read_until(world.now.mono);
    world.pass(SECOND);
    world.shard.shed_openings_of(world.now, [192, 0, 2, 7].into());
    assert_eq!(world.count(Count::OpeningsOusted), 1, "one was silent");
}

/// An address that is above its own bound buys no pass over all, and not many over its own.
// spec: O-22
#[test]
fn passes_for_one_address_are_rare_and_delay_no_others() {
    let mut world = World::with(|parts| parts.settings.handshakes_max = 14);
    let come = |world: &mut World, count| (0..count).for_each(|_| _ = world.accept_from(7));
    come(&mut world, 14);
    let own = [192, 0, 2, 7].into();
    world.pass(2 * SECOND);
    (0..10).for_each(|_| world.shard.shed_openings_of(world.now, own));
    assert_eq!(world.count(Count::OpeningsOusted), 2, "an eighth of them, once");
    come(&mut world, 2);
    world.accept_from(8);
    assert_eq!(world.count(Count::OpeningsOusted), 4, "a pass over all at the same time");
    world.pass(TICK);
    world.shard.shed_openings_of(world.now, own);
    assert_eq!(world.count(Count::OpeningsOusted), 6);
}

/// Users of two applications are two owners where applications prove themselves, else one.
// spec: F-11, R-25
#[test]
fn user_of_another_proved_application_is_another_owner() {
    let key = ApplicationKey::new(&[5; 16]).unwrap();
    for are_proved in [true, false] {
        let mut world = World::with(|parts| {
            parts.settings.partial_bytes_max = 64 * KIB;
            parts.settings.detached = DetachedCaps { user: 1, ..DetachedCaps::default() };
            if are_proved {
                parts.authority = of_proved_applications(&key);
            }
        });
        let of = |application: &str, hello| match are_proved {
            true => proved(application, &key, hello),
            false => v1::Hello { application: application.to_owned(), ..hello },
        };
        let user = world.join_as(1, of("im", hello_of("alice")));
        let other = world.join_as(1, of("im", hello_of("bob")));
        let attacker = world.join_as(7, of("games", hello_of("alice")));
        world.shard.received(world.now, user, &begun(5_000));
        world.shard.received(world.now, attacker, &begun(25_000));
        world.shard.received(world.now, other, &begun(27_000));
        world.pass(SECOND);
        // Above the bound: bob holds more than each of the two, and less than both.
        let more = world.join_as(7, of("games", hello_of("carol")));
        world.shard.received(world.now, more, &begun(10_000));
        assert_eq!(is_open(&world, other), !are_proved, "proved: {are_proved}");
        assert_eq!(is_open(&world, attacker), are_proved);
        world.shard.peer_closed(world.now, user);
        world.shard.peer_closed(world.now, attacker);
        assert_eq!(world.shard.detached(), if are_proved { 3 } else { 1 });
    }
}

// spec: D-6
#[test]
fn responses_that_an_attacker_does_not_take_cost_its_own_payloads() {
    const PAYLOAD: usize = 32 * KIB;
    let mut world = World::with(|parts| {
        parts.settings.owed_bytes_max = 2 * 1024 * KIB;
        parts.session.detached_ttl = 60 * SECOND;
    });
    let attackers: Vec<_> = (0..6).map(|_| world.join_as(7, nobody())).collect();
    let (user, member) = world.greeted(1, hello_of("alice"));
    let gateway_frame::Member::Welcome(welcome) = member else { panic!("a Welcome") };
    let payload = vec![7; PAYLOAD];
    for round in 1..=30 {
        for attacker in &attackers {
            world.say(*attacker, round, request(OPEN, b"x"));
            let ticket = world.tickets()[0];
            world.settle(ticket, &payload);
            world.got(*attacker);
        }
        if round % 10 == 0 {
            world.say(user, round / 10, request(CHAT, b"x"));
            let ticket = world.tickets()[0];
            world.settle(ticket, &payload);
            world.got(user);
        }
    }
    assert!(world.shard.owed_bytes() <= 2 * 1024 * KIB);
    assert!(world.count(Count::OwedShed) > 0);
    // The user that held little gets everything again.
    world.shard.peer_closed(world.now, user);
    let resume = v1::Resume { resume_token: welcome.resume_token, down_seq: 0, attempt: 1 };
    let client = world.accept_from(1);
    world.say(
        client,
        0,
        client_frame::Member::Hello(v1::Hello { resume: Some(resume), ..hello_of("alice") }),
    );
    let responses: Vec<_> = world
        .got(client)
        .into_iter()
        .filter_map(|frame| match frame.member {
            Some(gateway_frame::Member::Response(response)) => Some(response),
            _ => None,
        })
        .collect();
    assert_eq!(responses.len(), 3);
    assert!(responses.iter().all(|response| response.payload.len() == PAYLOAD && !response.payload_dropped));
}

#[test]
fn spare_buffers_are_given_back_within_a_minute() {
    let mut world = World::new();
    let clients: Vec<_> = (0..100).map(|_| world.join_as(1, nobody())).collect();
    for client in &clients {
        world.shard.buffer(*client).unwrap().reserve(60_000);
        world.say(*client, 0, ping(1));
    }
    world.flush();
    clients.iter().for_each(|client| world.shard.peer_closed(world.now, *client));
    assert!(world.shard.spare_buffers.bytes() > 5_000_000);
    world.pass(60 * SECOND);
    assert_eq!(world.shard.spare_buffers.bytes(), 0);
    assert_eq!(world.shard.spare_buffers.next_due(), None, "no timer is left");
}
