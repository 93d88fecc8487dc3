//! From a connection to a session.

use super::*;

fn refused(hello: v1::Hello) -> (Reason, bool) {
    let mut world = World::new();
    let client = world.accept();
    world.say(client, 0, client_frame::Member::Hello(hello));
    assert_eq!(world.shard.sessions(), 0);
    world.error(client)
}

// spec: O-12
#[test]
fn a_good_hello_gets_a_welcome() {
    let mut world = World::new();
    let client = world.accept();
    world.say(client, 0, client_frame::Member::Hello(hello()));
    let gateway_frame::Member::Welcome(welcome) = world.member(client) else { panic!("a Welcome") };
    assert_eq!((welcome.user_id.as_str(), welcome.session_id.len(), welcome.admitted), ("alice", 16, 0));
    assert_eq!(welcome.access_expires_ms, BEGIN_UNIX_MS + 86_400_000);
    assert_eq!(world.shard.sessions(), 1);
    let other = world.accept();
    world.say(other, 0, client_frame::Member::Hello(hello()));
    let gateway_frame::Member::Welcome(second) = world.member(other) else { panic!("a Welcome") };
    assert_ne!(welcome.session_id, second.session_id);
}

// spec: O-11
#[test]
fn a_bad_hello_gets_an_error() {
    assert_eq!(
        refused(v1::Hello { version_min: 2, version_max: 3, ..hello() }).0,
        Reason::VersionUnsupported
    );
    let forged = token(SECOND).replace('.', ".A");
    assert_eq!(refused(v1::Hello { access_token: forged, ..hello() }), (Reason::TokenInvalid, false));
    let expired = token(Duration::ZERO);
    assert_eq!(refused(v1::Hello { access_token: expired, ..hello() }), (Reason::TokenExpired, false));
    assert_eq!(refused(v1::Hello { device_id: "d".repeat(65), ..hello() }).0, Reason::ProtocolViolation);
    assert_eq!(refused(v1::Hello { frame_bytes_max: 4095, ..hello() }).0, Reason::ProtocolViolation);
}

// spec: E-13, O-3
#[test]
fn nothing_comes_before_the_hello_and_no_second_one_after_it() {
    for member in [request(CHAT, b""), ping(0)] {
        let mut world = World::new();
        let client = world.accept();
        world.say(client, 0, member);
        assert_eq!(world.error(client).0, Reason::ProtocolViolation);
    }
    let (mut world, client) = World::joined();
    world.say(client, 0, client_frame::Member::Hello(hello()));
    assert_eq!(world.error(client).0, Reason::ProtocolViolation);
}

// spec: O-3, O-4
#[test]
fn a_hello_is_not_numbered_and_acknowledges_nothing() {
    for (up_seq, ack, reason) in [(1, 0, Reason::ProtocolViolation), (0, 1, Reason::AckBeyondSent)] {
        let mut world = World::new();
        let client = world.accept();
        world.send(
            client,
            v1::ClientFrame { up_seq, ack, member: Some(client_frame::Member::Hello(hello())) },
        );
        assert_eq!(world.error(client).0, reason);
    }
}

// spec: O-5
#[test]
fn a_handshake_takes_its_time_at_most() {
    let mut world = World::new();
    let (slow, quick) = (world.accept(), world.join());
    world.pass(Settings::default().handshake_timeout - TICK);
    assert_eq!(world.shard.connections(), 2);
    world.pass(2 * TICK);
    assert_eq!(world.error(slow), (Reason::HandshakeTimeout, true));
    assert!(world.got(quick).is_empty());
    assert_eq!(world.count(Count::CloseHandshakeTimeout), 1);
}

// spec: F-3, F-7
#[test]
fn opening_frames_are_small() {
    let mut world = World::new();
    let client = world.accept();
    world.shard.received(world.now, client, &4097u32.to_be_bytes());
    assert_eq!(world.error(client).0, Reason::FrameTooLarge);
    let (mut world, client) = World::joined();
    world.shard.received(world.now, client, &4097u32.to_be_bytes());
    assert!(world.got(client).is_empty(), "after Welcome there is more room");
}

// spec: O-22
#[test]
fn one_connection_above_the_limit_is_told_so() {
    let mut world = World::with(|parts| parts.settings.connections_max = 1);
    let first = world.accept();
    let peer = SocketAddr::from(([192, 0, 2, 1], 999));
    let second = world.shard.accepted(world.now, peer).unwrap();
    let gateway_frame::Member::Error(error) = world.member(second) else { panic!("an Error") };
    assert_eq!(error.reason(), Reason::ConnectionLimit);
    assert!(error.reconnect.as_ref().is_some_and(|reconnect| reconnect.after_ms > 0));
    assert_eq!(world.count(Count::RefusedLimit), 1);
    world.shard.peer_closed(world.now, first);
    world.accept();
    assert_eq!(world.count(Count::RefusedLimit), 1, "who is turned away takes nobody's place");
}

#[test]
fn so_many_are_turned_away_at_once_and_then_the_next() {
    let mut world = World::with(|parts| parts.settings.connections_max = 1);
    world.accept();
    let peer = SocketAddr::from(([192, 0, 2, 1], 999));
    let turned_away: Vec<_> = (0..64).map(|_| world.shard.accepted(world.now, peer).unwrap()).collect();
    let farewell = world.shard.accepted(world.now, peer).unwrap_err();
    let [frame] = &frames(&farewell)[..] else { panic!("one frame") };
    assert!(matches!(frame.member, Some(gateway_frame::Member::Error(_))));
    world.shard.peer_closed(world.now, turned_away[7]);
    while world.shard.next_ended().is_some() {}
    assert!(world.shard.accepted(world.now, peer).is_ok());
    world.pass(Settings::default().linger + TICK);
    assert_eq!(world.shard.connections(), 1, "none of them stays beyond the linger");
}

// spec: R-13
#[test]
fn a_hello_that_comes_late_leaves_the_session_alone() {
    let mut world = World::new();
    let first = world.accept();
    world.say(first, 0, client_frame::Member::Hello(hello()));
    let gateway_frame::Member::Welcome(welcome) = world.member(first) else { panic!("a Welcome") };
    let resume = |attempt| {
        let resume_token = welcome.resume_token.clone();
        let resume = Some(v1::Resume { resume_token, attempt, down_seq: 0 });
        client_frame::Member::Hello(v1::Hello { resume, ..hello() })
    };
    let newer = world.accept();
    world.say(newer, 0, resume(2));
    let gateway_frame::Member::Welcome(welcome) = world.member(newer) else { panic!("a Welcome") };
    assert_eq!(welcome.resume_result(), v1::ResumeResult::Resumed);
    for attempt in [1, 2] {
        let late = world.accept();
        world.say(late, 0, resume(attempt));
        assert_eq!(world.error(late), (Reason::ResumeStale, true), "no fresh session in its place");
    }
    world.request(newer, 1);
    assert_eq!((world.shard.sessions(), world.cells.value(Count::ResumesStale)), (1, 2));
}
