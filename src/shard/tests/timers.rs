//! What happens when nothing happens.

use super::*;

fn heartbeat() -> Duration {
    session::Settings::default().heartbeat
}

// spec: F-10
#[test]
fn a_frame_once_begun_must_be_finished_in_time() {
    let (mut world, client) = World::joined();
    world.shard.received(world.now, client, &[0, 0]);
    assert_eq!(world.shard.partial_bytes(), 2);
    world.pass(Settings::default().frame_timeout - TICK);
    // More of the same frame is no new beginning.
    world.shard.received(world.now, client, &[0]);
    assert!(world.got(client).is_empty());
    world.pass(2 * TICK);
    assert_eq!(world.error(client), (Reason::FrameTimeout, true));
    assert_eq!(world.shard.partial_bytes(), 0);
}

// spec: F-10
#[test]
fn a_finished_frame_stops_the_clock() {
    let (mut world, client) = World::joined();
    let frame = bytes(&v1::ClientFrame { member: Some(ping(0)), ..v1::ClientFrame::default() });
    let (head, tail) = frame.split_at(3);
    world.shard.received(world.now, client, head);
    world.pass(5 * SECOND);
    world.shard.received(world.now, client, tail);
    assert!(matches!(world.member(client), gateway_frame::Member::Pong(pong) if pong.nonce == 5));
    world.pass(20 * SECOND);
    assert!(world.got(client).is_empty());
    assert_eq!(world.shard.connections(), 1);
}

// spec: P-2, P-3
#[test]
fn silence_for_twice_the_interval_is_too_long() {
    let (mut world, client) = World::joined();
    world.pass(heartbeat());
    world.say(client, 0, ping(0));
    world.got(client);
    world.pass(2 * heartbeat() - TICK);
    assert!(world.got(client).is_empty(), "every frame is life");
    world.pass(2 * TICK);
    assert_eq!(world.error(client), (Reason::HeartbeatTimeout, true));
    assert_eq!((world.shard.detached(), world.count(Count::CloseHeartbeat)), (1, 1));
}

// spec: P-4
#[test]
fn a_ping_may_announce_a_longer_silence() {
    let (mut world, client) = World::joined();
    world.say(client, 0, ping(120_000));
    world.got(client);
    world.pass(120 * SECOND + heartbeat() - TICK);
    assert!(world.got(client).is_empty());
    world.pass(2 * TICK);
    assert_eq!(world.error(client).0, Reason::HeartbeatTimeout);
}

// spec: P-4
#[test]
fn an_announcement_is_bounded_and_ends_with_the_next_frame() {
    let longest = session::Settings::default().heartbeat_max;
    let (mut world, client) = World::joined();
    world.say(client, 0, ping(u32::MAX));
    world.got(client);
    world.pass(longest + heartbeat() + TICK);
    assert_eq!(world.error(client).0, Reason::HeartbeatTimeout);
    let other = world.join();
    world.say(other, 0, ping(600_000));
    world.say(other, 0, ping(0));
    world.got(other);
    world.pass(2 * heartbeat() + TICK);
    assert_eq!(world.error(other).0, Reason::HeartbeatTimeout);
}

// spec: O-15
#[test]
fn a_wished_interval_counts_within_its_bounds() {
    let mut world = World::new();
    let client = world.accept();
    world.say(client, 0, client_frame::Member::Hello(v1::Hello { heartbeat_ms: 1, ..hello() }));
    let gateway_frame::Member::Welcome(welcome) = world.member(client) else { panic!("a Welcome") };
    assert_eq!(welcome.heartbeat_ms, 5000);
    world.pass(10 * SECOND + TICK);
    assert_eq!(world.error(client).0, Reason::HeartbeatTimeout);
}

// spec: D-8
#[test]
fn a_client_that_does_not_read_is_given_up_without_a_word() {
    let (mut world, client) = World::joined();
    world.stuck.push(client);
    world.say(client, 0, ping(600_000));
    world.flush();
    world.pass(Settings::default().write_timeout - TICK);
    assert_eq!(world.shard.connections(), 1);
    world.pass(2 * TICK);
    assert_eq!(world.shard.next_ended(), Some((client, End::Close(PEER))), "an Error would not get through");
    assert_eq!((world.shard.connections(), world.shard.detached()), (0, 1));
    assert_eq!(world.count(Count::CloseWriteStalled), 1);
}

#[test]
fn a_client_that_reads_slowly_is_left_alone() {
    let (mut world, client) = World::joined();
    world.say(client, 0, ping(600_000));
    let key = world.shard.next_flush().unwrap();
    for _ in 0..5 {
        world.shard.sent(world.now, key, 1);
        world.pass(15 * SECOND);
    }
    assert_eq!(world.shard.connections(), 1, "there is progress");
}

// spec, U-13
#[test]
fn an_expired_token_is_warned_of_and_then_ends_the_session() {
    let mut world = World::new();
    let client = world.accept();
    let access_token = token(10 * SECOND);
    world.say(client, 0, client_frame::Member::Hello(v1::Hello { access_token, ..hello() }));
    world.got(client);
    world.pass(10 * SECOND + TICK);
    let gateway_frame::Member::Notice(notice) = world.member(client) else { panic!("a Notice") };
    assert_eq!((notice.reason(), notice.member), (Reason::TokenExpired, 0));
    world.request(client, 1);
    let response = world.response(client);
    assert_eq!((response.status, response.reason()), (Code::Unauthenticated.to_wire(), Reason::TokenExpired));
    world.pass(30 * SECOND);
    world.say(client, 0, ping(0));
    world.got(client);
    world.pass(30 * SECOND + TICK);
    assert_eq!(world.error(client), (Reason::TokenExpired, false));
    assert_eq!(world.count(Count::CloseTokenExpired), 1);
}

/// A client with a token that is good for a minute, whose next alarm is that of its heartbeat.
fn with_a_minute() -> (World, ConnectionKey) {
    let mut world = World::new();
    let client = world.accept();
    let hello = v1::Hello { access_token: token(60 * SECOND), ..hello() };
    world.say(client, 0, client_frame::Member::Hello(hello));
    assert!(matches!(world.member(client), gateway_frame::Member::Welcome(_)));
    (world, client)
}

// spec: A-17, P-8
#[test]
fn pauses_of_the_process_extend_no_token() {
    let (mut world, client) = with_a_minute();
    world.pause(59 * SECOND);
    world.pass(SECOND - TICK);
    assert!(world.got(client).is_empty());
    world.pause(TICK);
    world.request(client, 1);
    let response = world.response(client);
    assert_eq!((response.status, response.reason()), (Code::Unauthenticated.to_wire(), Reason::TokenExpired));
    world.pass(2 * TICK);
    let gateway_frame::Member::Notice(notice) = world.member(client) else { panic!("a Notice") };
    assert_eq!(notice.reason(), Reason::TokenExpired);
}

// spec: A-18, P-8
#[test]
fn the_grace_of_an_expired_token_is_a_deadline() {
    let (mut world, client) = with_a_minute();
    world.say(client, 0, ping(600_000));
    world.got(client);
    world.pause(59 * SECOND);
    world.pass(SECOND + TICK);
    assert!(matches!(world.member(client), gateway_frame::Member::Notice(_)));
    world.pause(60 * SECOND);
    world.pass(Settings::default().expiry_grace - 2 * TICK);
    assert!(world.got(client).is_empty(), "a pause counts against no deadline");
    world.pass(3 * TICK);
    assert_eq!(world.error(client), (Reason::TokenExpired, false));
}

// spec: F-11
#[test]
fn unfinished_frames_over_their_budget_end_who_holds_most() {
    let (mut world, one) = World::joined_with(|parts| parts.settings.partial_bytes_max = 10);
    let two = world.join();
    world.shard.received(world.now, one, &[0, 0, 1, 0, 1, 2]);
    world.pass(SECOND);
    world.shard.received(world.now, two, &[0, 0, 1, 0]);
    assert_eq!(world.shard.partial_bytes(), 10);
    world.shard.received(world.now, two, &[1]);
    assert_eq!(world.error(one), (Reason::GatewayOverloaded, true));
    assert!(world.got(two).is_empty(), "the one that comes next stays");
    assert_eq!((world.shard.partial_bytes(), world.count(Count::PartialBudgetExceeded)), (5, 1));
    world.shard.peer_closed(world.now, two);
    assert_eq!(world.shard.partial_bytes(), 0);
}
