//! How connections end, and the drain.

use super::*;

// spec
#[test]
fn a_bye_is_acknowledged_before_the_connection_closes() {
    let (mut world, client) = World::joined();
    world.say(client, 0, client_frame::Member::Bye(v1::Bye::default()));
    assert!(matches!(world.member(client), gateway_frame::Member::ByeAck(_)));
    assert_eq!((world.shard.sessions(), world.count(Count::CloseBye)), (0, 1));
    assert_eq!(world.shard.next_ended(), Some((client, End::ShutdownWrite)));
    world.shard.peer_closed(world.now, client);
    assert_eq!(world.shard.next_ended(), Some((client, End::Close(PEER))));
    assert_eq!((world.shard.connections(), world.count(Count::ClosePeer)), (0, 0), "one reason each");
}

// spec: X-2
#[test]
fn a_peer_that_stays_is_closed_when_the_linger_is_over() {
    let (mut world, client) = World::joined();
    world.request(client, 7);
    world.got(client);
    assert_eq!(world.shard.next_ended(), Some((client, End::ShutdownWrite)));
    world.pass(Settings::default().linger - TICK);
    assert_eq!(world.shard.next_ended(), None);
    world.pass(2 * TICK);
    assert_eq!(world.shard.next_ended(), Some((client, End::Close(PEER))));
}

#[test]
fn a_last_frame_that_does_not_leave_is_given_up_with_the_linger() {
    let (mut world, client) = World::joined();
    world.stuck.push(client);
    world.request(client, 7);
    world.flush();
    assert_eq!(world.shard.next_ended(), None, "the Error is still in the output");
    world.pass(Settings::default().linger + TICK);
    assert_eq!(world.shard.next_ended(), Some((client, End::Close(PEER))));
}

// spec
#[test]
fn what_comes_after_the_end_is_ignored() {
    let (mut world, client) = World::joined();
    let frame = |up_seq| v1::ClientFrame { up_seq, ack: 0, member: Some(request(CHAT, b"")) };
    let mut together = bytes(&frame(7));
    together.extend(bytes(&frame(1)));
    world.shard.received(world.now, client, &together);
    world.request(client, 1);
    world.shard.received(world.now, client, &[0, 0]);
    assert_eq!(world.error(client).0, Reason::SequenceGap);
    assert!(world.tickets().is_empty());
    assert_eq!(world.shard.partial_bytes(), 0, "nothing is kept of it");
}

// spec: X-4
#[test]
fn an_error_says_what_was_admitted() {
    let (mut world, client) = World::joined();
    world.request(client, 1);
    world.request(client, 2);
    world.request(client, 9);
    let gateway_frame::Member::Error(error) = world.member(client) else { panic!("an Error") };
    assert_eq!(error.admitted, 2);
}

#[test]
fn a_peer_that_closes_takes_its_session_with_it_where_none_is_kept() {
    let (mut world, client) = World::joined_with(|parts| parts.session.detached_ttl = Duration::ZERO);
    world.shard.received(world.now, client, &[0, 0]);
    world.shard.peer_closed(world.now, client);
    assert_eq!(world.shard.next_ended(), Some((client, End::Close(PEER))));
    assert_eq!((world.shard.connections(), world.shard.sessions(), world.shard.partial_bytes()), (0, 0, 0));
    assert_eq!((world.count(Count::ClosePeer), world.count(Count::ConnectionsClosed)), (1, 1));
    // The key is dead: late news of its socket changes nothing.
    world.shard.peer_closed(world.now, client);
    world.shard.writable(client);
    world.shard.sent(world.now, client, 5);
    world.request(client, 1);
    assert_eq!((world.shard.next_ended(), world.tickets()), (None, Vec::new()));
}

// spec: F-7, F-8
#[test]
fn frames_that_cannot_be_read_end_the_connection() {
    let garbage: [(&[u8], Reason); 4] = [
        (b"GET / HTTP/1.1\r\n", Reason::FrameTooLarge),
        (&[0, 0, 0, 1, 0xff], Reason::FrameMalformed),
        (&[0, 0, 0, 4, 0x5a, 0, 0x62, 0], Reason::FrameMalformed),
        (&[0, 0, 0, 3, 0x5a, 1, 0xff], Reason::FrameMalformed),
    ];
    for (bytes, reason) in garbage {
        let (mut world, client) = World::joined();
        world.shard.received(world.now, client, bytes);
        assert_eq!(world.error(client), (reason, false));
        assert_eq!(world.count(Count::CloseProtocol), 1);
    }
}

// spec: O-23, X-9, X-12
#[test]
fn a_drain_tells_everybody_serves_on_and_then_closes() {
    let (mut world, client) = World::joined();
    let (other, opening) = (world.join(), world.accept());
    world.request(client, 1);
    let ticket = world.tickets()[0];
    world.shard.drain(world.now, 20 * SECOND);
    for client in [client, other] {
        let gateway_frame::Member::GoAway(away) = world.member(client) else { panic!("a GoAway") };
        assert_eq!((away.reason(), away.deadline_ms, away.resumable), (Reason::Shutdown, 20_000, false));
    }
    world.say(opening, 0, client_frame::Member::Hello(hello()));
    assert_eq!(world.error(opening), (Reason::Shutdown, true));
    // As before every accept: the sockets of those that have ended go first.
    while world.shard.next_ended().is_some() {}
    let late = world.shard.accepted(world.now, SocketAddr::from(([192, 0, 2, 1], 999))).unwrap();
    assert_eq!(world.error(late), (Reason::Shutdown, true));
    world.request(client, 2);
    assert_eq!(world.tickets().len(), 1, "requests are served until the deadline");
    world.settle(ticket, b"");
    assert_eq!(world.response(client).up_seq, 1);
    world.pass(20 * SECOND + TICK);
    let gateway_frame::Member::Error(error) = world.member(client) else { panic!("an Error") };
    assert_eq!((error.reason(), error.admitted), (Reason::Shutdown, 2));
    assert!(!world.shard.is_drained(), "they linger");
}

#[test]
fn a_shard_is_drained_when_nobody_and_nothing_is_left() {
    let (mut world, client) = World::joined();
    world.request(client, 1);
    let ticket = world.tickets()[0];
    world.shard.drain(world.now, SECOND);
    world.pass(SECOND + TICK);
    world.got(client);
    world.pass(Settings::default().linger + TICK);
    assert_eq!(world.shard.connections(), 0);
    assert!(world.shard.is_drained(), "past the deadline no call is waited for");
    world.settle(ticket, b"");
    assert_eq!(world.shard.outstanding(), 0);
}
