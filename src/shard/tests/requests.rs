//! Requests from their admission to their answer.

use super::*;

// spec: U-2, U-5
#[test]
fn there_and_back() {
    let (mut world, client) = World::joined();
    world.request(client, 1);
    let batch = world.forwards();
    let [Forward { ticket, call, deadline, .. }] = &batch.forwards[..] else { panic!("one") };
    let call = v1::Call::decode(batch.arena.read(call)).unwrap();
    assert_eq!((call.command, call.version, &call.payload[..]), (CHAT, 1, &b"hi"[..]));
    assert_eq!(call.caller.unwrap().user_id, "alice");
    assert_eq!(*deadline, world.now.mono + 5 * SECOND);
    world.settle(*ticket, b"there");
    let got = world.got(client);
    assert_eq!((got.len(), got[0].down_seq, got[0].ack), (1, 1, 1));
    let Some(gateway_frame::Member::Response(response)) = &got[0].member else { panic!("a Response") };
    assert_eq!((response.up_seq, response.status, &response.payload[..]), (1, 0, &b"there"[..]));
    assert_eq!((response.source(), response.execution()), (Source::Service, Execution::Executed));
    assert_eq!(world.shard.outstanding(), 0);
    assert_eq!(world.shard.take_access().unwrap().len(), 1);
}

// spec: U-8
#[test]
fn a_client_may_ask_for_less_time_never_for_more() {
    let (mut world, client) = World::joined();
    for (up_seq, timeout_ms, expected) in [(1, 100, Duration::from_millis(100)), (2, 60_000, 5 * SECOND)] {
        let request = v1::Request { command: CHAT, timeout_ms, ..v1::Request::default() };
        world.say(client, up_seq, client_frame::Member::Request(request));
        assert_eq!(world.forwards().forwards[0].deadline, world.now.mono + expected);
    }
}

// spec: U-5, U-14, U-19
#[test]
fn every_refusal_takes_its_number_and_gets_its_response() {
    let (mut world, client) = World::joined();
    let refusals = [
        (request(99, b""), Code::Unimplemented, Reason::NoRoute),
        (request(SMALL, b"large"), Code::InvalidArgument, Reason::PayloadTooLarge),
    ];
    for (up_seq, (request, code, reason)) in (1..).zip(refusals) {
        world.say(client, up_seq, request);
        let response = world.response(client);
        assert_eq!((response.up_seq, response.status, response.reason()), (up_seq, code.to_wire(), reason));
        assert_eq!((response.execution(), response.source()), (Execution::NotExecuted, Source::Gateway));
    }
    world.request(client, 3);
    assert_eq!(world.tickets().len(), 1);
}

// spec: U-17
#[test]
fn somebody_who_has_not_logged_in_may_do_little() {
    let mut world = World::new();
    let client = world.accept();
    let anonymous = v1::Hello { access_token: String::new(), ..hello() };
    world.say(client, 0, client_frame::Member::Hello(anonymous));
    world.got(client);
    world.request(client, 1);
    assert_eq!(world.response(client).reason(), Reason::LoginRequired);
    world.say(client, 2, request(OPEN, b""));
    assert_eq!(world.tickets().len(), 1);
}

// spec: U-3
#[test]
fn a_request_that_comes_again_is_ignored() {
    let (mut world, client) = World::joined();
    world.request(client, 1);
    world.request(client, 1);
    assert_eq!(world.tickets().len(), 1);
    assert_eq!(world.count(Count::RequestsRepeated), 1);
    world.request(client, 3);
    assert_eq!(world.error(client), (Reason::SequenceGap, true));
}

// spec: E-9, E-10, E-11
#[test]
fn a_frame_and_its_number_belong_together() {
    let broken = [(0, request(CHAT, b"")), (1, ping(0)), (1, cancel(1))];
    for (up_seq, member) in broken {
        let (mut world, client) = World::joined();
        world.say(client, up_seq, member);
        assert_eq!(world.error(client), (Reason::ProtocolViolation, false));
    }
    let (mut world, client) = World::joined();
    world.send(client, v1::ClientFrame { up_seq: 1, ack: 0, member: None });
    assert_eq!(world.error(client).0, Reason::ProtocolViolation);
}

// spec: E-14, E-15
#[test]
fn frames_of_a_newer_contract_are_answered() {
    let (mut world, client) = World::joined();
    // Member 60, an empty message: without a number, then as number 1.
    world.shard.received(world.now, client, &[0, 0, 0, 3, 0xe2, 3, 0]);
    let gateway_frame::Member::Notice(notice) = world.member(client) else { panic!("a Notice") };
    assert_eq!((notice.status, notice.member), (Code::Unimplemented.to_wire(), 60));
    world.shard.received(world.now, client, &[0, 0, 0, 5, 8, 1, 0xe2, 3, 0]);
    let response = world.response(client);
    assert_eq!((response.up_seq, response.reason()), (1, Reason::UnsupportedFrame));
    world.request(client, 2);
    assert_eq!(world.tickets().len(), 1);
}

// spec: K-3
#[test]
fn what_is_not_served_yet_says_so() {
    let (mut world, client) = World::joined_with(|parts| parts.session.detached_ttl = Duration::ZERO);
    world.say(client, 0, client_frame::Member::ClientState(v1::ClientState::default()));
    assert!(matches!(world.member(client), gateway_frame::Member::Notice(_)));
    let other = world.accept();
    let resume = Some(v1::Resume { resume_token: vec![1].into(), attempt: 1, down_seq: 0 });
    world.say(other, 0, client_frame::Member::Hello(v1::Hello { resume, ..hello() }));
    let gateway_frame::Member::Welcome(welcome) = world.member(other) else { panic!("a Welcome") };
    assert_eq!(welcome.resume_result(), v1::ResumeResult::NotSupported);
    assert!(welcome.resume_token.is_empty() && welcome.detached_ttl_ms == 0);
}

// spec: W-2, W-3
#[test]
fn the_in_flight_limit_counts_what_is_unanswered_and_unacknowledged() {
    let (mut world, client) = World::joined_with(|parts| parts.session.in_flight_max = 2);
    world.request(client, 1);
    world.request(client, 2);
    let tickets = world.tickets();
    world.settle(tickets[0], b"");
    assert_eq!(world.response(client).up_seq, 1);
    // The acknowledgement comes with the request that needs the slot.
    world.send(client, v1::ClientFrame { up_seq: 3, ack: 1, member: Some(request(CHAT, b"")) });
    assert_eq!(world.tickets().len(), 1);
    world.request(client, 4);
    assert_eq!(world.error(client), (Reason::InFlightExceeded, true));
}

// spec: W-6
#[test]
fn an_acknowledgement_of_what_was_not_sent() {
    let (mut world, client) = World::joined();
    world.request(client, 1);
    world.request(client, 2);
    for ticket in world.tickets() {
        world.settle(ticket, b"");
    }
    world.got(client);
    world.ack(client, 2);
    world.ack(client, 1);
    assert!(world.got(client).is_empty(), "lower ones change nothing");
    world.ack(client, 3);
    assert_eq!(world.error(client).0, Reason::AckBeyondSent);
}

// spec: U-21
#[test]
fn a_shard_has_no_more_calls_out_than_its_credit() {
    let (mut world, client) = World::joined_with(|parts| parts.settings.outstanding_max = 1);
    world.request(client, 1);
    let ticket = world.tickets()[0];
    world.request(client, 2);
    let response = world.response(client);
    assert_eq!((response.up_seq, response.reason()), (2, Reason::GatewayOverloaded));
    assert_eq!((response.execution(), world.count(Count::ForwardsRefused)), (Execution::NotExecuted, 1));
    world.settle(ticket, b"");
    world.request(client, 3);
    assert_eq!(world.tickets().len(), 1);
}

// spec: C-1
#[test]
fn a_cancel_of_the_next_number_consumes_it() {
    let (mut world, client) = World::joined();
    world.say(client, 0, cancel(1));
    let response = world.response(client);
    assert_eq!((response.up_seq, response.status), (1, Code::Cancelled.to_wire()));
    assert_eq!(response.execution(), Execution::NotExecuted);
    world.request(client, 1);
    assert!(world.tickets().is_empty(), "it never runs");
    world.request(client, 2);
    assert_eq!(world.tickets().len(), 1);
}

// spec: C-2
#[test]
fn a_cancel_of_an_answered_number_does_nothing() {
    let (mut world, client) = World::joined();
    world.request(client, 1);
    let ticket = world.tickets()[0];
    world.settle(ticket, b"");
    world.got(client);
    world.say(client, 0, cancel(1));
    assert!(world.got(client).is_empty() && world.forwards().is_empty());
}

// spec: C-3, C-4
#[test]
fn a_cancel_of_an_unanswered_number_goes_to_the_worker_once() {
    let (mut world, client) = World::joined();
    world.request(client, 1);
    let ticket = world.tickets()[0];
    world.say(client, 0, cancel(1));
    world.say(client, 0, cancel(1));
    assert_eq!(world.forwards().cancels, [ticket]);
    assert!(world.got(client).is_empty(), "the service answers");
    assert_eq!(world.count(Count::RequestsCancelled), 1);
    world.settle(ticket, b"");
    assert_eq!(world.response(client).up_seq, 1);
}

// spec: C-5
#[test]
fn a_cancel_of_a_number_after_the_next_is_a_gap() {
    let (mut world, client) = World::joined();
    world.say(client, 0, cancel(2));
    assert_eq!(world.error(client).0, Reason::SequenceGap);
}

// spec: D-5
#[test]
fn a_reply_too_large_for_the_client_loses_its_payload_only() {
    let mut world = World::new();
    let client = world.accept();
    world.say(client, 0, client_frame::Member::Hello(v1::Hello { frame_bytes_max: 4096, ..hello() }));
    world.got(client);
    world.request(client, 1);
    let ticket = world.tickets()[0];
    world.settle(ticket, &[1; 4096]);
    let response = world.response(client);
    assert!(response.payload.is_empty() && response.payload_dropped);
    assert_eq!((response.status, response.reason()), (0, Reason::ReplyTooLarge));
    assert_eq!((response.execution(), world.count(Count::PayloadsDropped)), (Execution::Executed, 1));
}

// spec: X-19
#[test]
fn a_settlement_for_a_session_that_is_gone_finds_nobody() {
    let (mut world, client) = World::joined_with(|parts| parts.session.detached_ttl = Duration::ZERO);
    world.request(client, 1);
    let ticket = world.tickets()[0];
    world.shard.peer_closed(world.now, client);
    // The same place of the slab, another client.
    let other = world.join();
    world.settle(ticket, b"secret");
    assert!(world.got(other).is_empty());
    assert_eq!((world.count(Count::RepliesOrphaned), world.shard.outstanding()), (1, 0));
    assert_eq!(world.shard.take_access().unwrap().len(), 1, "the outcome is in the access log");
}
