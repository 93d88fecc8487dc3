//! Calls: sent, answered, late, cancelled, waiting.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn timeout_unsent() -> Outcome {
    Outcome::refused(Code::DeadlineExceeded, Reason::Timeout)
}

fn timeout_unknown() -> Outcome {
    Outcome::unknown(Code::DeadlineExceeded, Reason::Timeout)
}

// spec: L-21, L-25, L-26
#[test]
fn there_and_back() {
    let (mut world, link) = World::ready(0);
    let ticket = world.ask(b"ping");
    let call = world.call(link);
    assert_eq!((call.command, call.version, call.attempt, &call.payload[..]), (PLAIN, 1, 1, &b"ping"[..]));
    assert_eq!(call.remaining_ms, 5001, "rounded up: what was sent has time left");
    assert_eq!(call.caller.as_ref().map(|caller| caller.user_id.as_str()), Some("alice"));
    assert!(call.ordering_key.is_empty());
    world.reply(link, &call, b"pong");
    let batch = world.forwarder.deliveries(SHARD).unwrap();
    let settled = batch.settled().next().unwrap();
    assert_eq!((settled.ticket, settled.outcome, settled.endpoint), (ticket, done(), 1));
    let reply = settled.reply(&batch.arena);
    assert_eq!(reply.payload, b"pong");
    assert_eq!(world.forwarder.calls(), 0);
    assert_eq!(world.count(Count::RepliesReceived), 1);
}

// spec: S-3, S-8
#[test]
fn a_service_s_own_outcome_is_passed_on() {
    let (mut world, link) = World::ready(0);
    let ticket = world.ask(b"");
    let logout = v1::Directive { action: Some(v1::directive::Action::Logout(v1::Logout {})) };
    let reply = v1::Reply {
        call_id: world.call(link).call_id,
        status: Code::NotFound.to_wire(),
        execution: Execution::NotExecuted.into(),
        retry_after_ms: 70,
        directives: vec![v1::Directive::default(), logout.clone(), logout],
        ..v1::Reply::default()
    };
    world.say(link, to_gateway::Member::Reply(reply));
    let expected =
        Outcome { code: Code::NotFound, execution: Execution::NotExecuted, retry_after_ms: 70, ..done() };
    assert_eq!(world.settled(), [(ticket, expected)]);
    assert_eq!(world.count(Count::DirectivesRefused), 2, "the outcome is delivered all the same");
    assert_eq!(world.count(Count::DirectivesInvalid), 1);
}

// spec: L-27, S-10
#[test]
fn a_deadline_that_has_passed_on_arrival() {
    let (mut world, link) = World::ready(0);
    let ticket = world.ask_until(1, PLAIN, b"", world.now);
    assert_eq!(world.settled(), [(ticket, timeout_unsent())]);
    assert!(world.heard(link).is_empty());
    assert_eq!(world.forwarder.calls(), 0);
}

// spec: L-27, S-10
#[test]
fn a_deadline_before_the_call_is_sent() {
    let (mut world, link) = World::ready(1);
    let first = world.ask_until(1, PLAIN, b"1", world.now + 60 * SECOND);
    let second = world.ask_until(2, PLAIN, b"2", world.now + SECOND);
    let call = world.call(link);
    world.pass(2 * SECOND);
    assert_eq!(world.settled(), [(second, timeout_unsent())]);
    world.reply(link, &call, b"");
    assert_eq!(world.settled(), [(first, done())]);
    assert!(world.calls(link).is_empty(), "an expired call is never sent");
    assert_eq!(world.count(Count::CallsExpiredUnsent), 1);
}

// spec: L-32, S-10
#[test]
fn a_deadline_after_the_call_was_sent() {
    let (mut world, link) = World::ready(0);
    let ticket = world.ask_until(1, PLAIN, b"", world.now + SECOND);
    let call = world.call(link);
    world.pass(2 * SECOND);
    assert_eq!(world.settled(), [(ticket, timeout_unknown())]);
    let cancel = to_service::Member::Cancel(v1::CancelCall { call_id: call.call_id });
    assert_eq!(world.heard(link), [cancel], "nobody waits for it any more");
    world.reply(link, &call, b"late");
    assert!(world.settled().is_empty(), "settled once");
    assert_eq!((world.count(Count::RepliesLate), world.count(Count::RepliesUnknown)), (1, 0));
    assert_eq!(world.forwarder.calls(), 0);
}

// spec: L-34
#[test]
fn a_call_keeps_its_slot_until_the_late_reply() {
    let (mut world, link) = World::ready(1);
    let first = world.ask_until(1, PLAIN, b"1", world.now + SECOND);
    let call = world.call(link);
    world.pass(2 * SECOND);
    let second = world.ask(b"2");
    assert_eq!(world.settled(), [(first, timeout_unknown())]);
    assert!(world.calls(link).is_empty(), "the service is still at work on the first");
    world.reply(link, &call, b"late");
    let call = world.call(link);
    world.reply(link, &call, b"");
    assert_eq!(world.settled(), [(second, done())]);
}

// spec: L-23, L-34
#[test]
fn a_reply_after_the_grace_is_unknown() {
    let (mut world, link) = World::ready(0);
    world.ask_until(1, PLAIN, b"", world.now + SECOND);
    let call = world.call(link);
    world.pass(2 * SECOND);
    assert_eq!(world.forwarder.calls(), 1);
    // The service lives: it answers pings, but not the call.
    for _ in 0..5 {
        world.view(link, View::Up, 0);
        world.pass(SECOND);
    }
    assert_eq!(world.forwarder.calls(), 0, "the grace is over");
    world.reply(link, &call, b"");
    assert_eq!((world.count(Count::RepliesLate), world.count(Count::RepliesUnknown)), (0, 1));
}

// spec: C-3
#[test]
fn a_cancel_of_a_call_that_waits() {
    let (mut world, link) = World::ready(1);
    world.ask(b"1");
    let second = world.ask(b"2");
    let call = world.call(link);
    world.cancel(second);
    assert_eq!(world.settled(), [(second, Outcome::refused(Code::Cancelled, Reason::Cancelled))]);
    world.reply(link, &call, b"");
    assert!(world.calls(link).is_empty(), "a cancelled call is never sent");
}

// spec: C-3, L-32
#[test]
fn a_cancel_of_a_call_that_was_sent() {
    let (mut world, link) = World::ready(0);
    let ticket = world.ask(b"");
    let call = world.call(link);
    world.cancel(ticket);
    assert_eq!(world.heard(link), [to_service::Member::Cancel(v1::CancelCall { call_id: call.call_id })]);
    assert!(world.settled().is_empty(), "the service answers cancelled calls too");
    world.reply(link, &call, b"");
    assert_eq!(world.settled(), [(ticket, done())]);
    world.cancel(ticket);
    assert!(world.heard(link).is_empty() && world.settled().is_empty(), "too late");
}

// spec: S-11
#[test]
fn without_a_link_there_is_no_endpoint() {
    let (mut world, link) = World::ready(0);
    world.forwarder.link_lost(world.now, link, &"gone");
    let ticket = world.ask(b"");
    assert_eq!(world.settled(), [(ticket, no_endpoint())]);
    assert_eq!(world.count(Count::CallsUnavailable), 1);
}

// spec: S-11
#[test]
fn calls_wait_for_the_first_link_of_their_service() {
    // None is known, or they are dialled, or dialling has failed: there is no first link yet.
    for endpoints in [0, 1, 2] {
        let mut pools = None;
        let mut world = World::with(endpoints, |parts| {
            pools = Some(parts.pools.clone());
            parts.services[0].pool.bounds.queue_max = 3;
        });
        let tickets = [world.ask(b"1"), world.ask_as(1, ORDERED, b"2"), world.ask_as(1, ORDERED, b"3")];
        for link in (0..endpoints).map(|_| world.dialled()).collect::<Vec<_>>() {
            world.forwarder.link_lost(world.now, link, &"refused");
            assert!(world.closes(link));
        }
        assert_eq!(world.settled(), [], "{endpoints} endpoints");
        // The queue bounds them, and their deadlines.
        let shed = world.ask(b"one too many");
        let full = Outcome::refused(Code::ResourceExhausted, Reason::ServiceOverloaded);
        assert_eq!(world.settled(), [(shed, full)]);
        world.cancel(tickets[0]);
        assert_eq!(world.settled(), [(tickets[0], Outcome::refused(Code::Cancelled, Reason::Cancelled))]);
        let late = world.ask_until(7, PLAIN, b"late", world.now + Duration::from_millis(50));
        world.pass(Duration::from_millis(100));
        let expired = Outcome::refused(Code::DeadlineExceeded, Reason::Timeout);
        assert_eq!(world.settled(), [(late, expired)]);
        if endpoints == 0 {
            let address = SocketAddr::from(([192, 0, 2, 1], 7100));
            pools.as_ref().unwrap().publish(ServiceId(0), &[crate::routing::Instance::at(address)]);
            world.forwarder.refresh(world.now);
        }
        let link = loop {
            if let Some(LinkCommand::Dial(link, _)) = world.forwarder.next_command() {
                break link;
            }
            world.now = world.forwarder.next_deadline().unwrap().max(world.now);
            world.forwarder.timers(world.now);
        };
        world.forwarder.connected(world.now, link, NONCE);
        world.flush();
        world.say(link, to_gateway::Member::HelloAck(hello_ack()));
        let call = world.call(link);
        assert_eq!(&call.payload[..], b"2", "in their order");
        world.reply(link, &call, b"");
        let call = world.call(link);
        assert_eq!(&call.payload[..], b"3");
        // From now on a call without a link fails at once.
        world.forwarder.link_lost(world.now, link, &"gone");
        world.settled();
        let ticket = world.ask(b"");
        assert_eq!(world.settled(), [(ticket, no_endpoint())]);
    }
}

#[test]
fn a_worker_that_stops_settles_what_waits_for_a_first_link() {
    let mut world = World::new(1);
    let ticket = world.ask(b"");
    world.forwarder.stop(world.now);
    assert_eq!((world.settled(), world.forwarder.calls()), (vec![(ticket, no_endpoint())], 0));
}

// spec: L-38, S-12
#[test]
fn calls_wait_for_room_and_go_in_order() {
    let (mut world, link) = World::ready(2);
    let tickets = [world.ask(b"1"), world.ask(b"2"), world.ask(b"3"), world.ask(b"4")];
    let calls = world.calls(link);
    assert_eq!(calls.len(), 2);
    world.reply(link, &calls[1], b"");
    let third = world.call(link);
    assert_eq!(&third.payload[..], b"3");
    world.reply(link, &calls[0], b"");
    assert_eq!(&world.call(link).payload[..], b"4");
    assert_eq!(world.settled(), [(tickets[1], done()), (tickets[0], done())]);
}

// spec: L-38
#[test]
fn a_larger_grant_lets_waiting_calls_go() {
    let (mut world, link) = World::ready(1);
    world.ask(b"1");
    world.ask(b"2");
    assert_eq!(world.calls(link).len(), 1);
    let view = v1::ServiceView { outstanding_max: 8, ..v1::ServiceView::default() };
    world.say(link, to_gateway::Member::Ping(v1::LinkPing { nonce: 1, view: Some(view) }));
    assert_eq!(&world.call(link).payload[..], b"2");
}

// spec: S-12
#[test]
fn more_than_may_wait_are_shed() {
    let mut world = World::with(1, |parts| parts.settings.waiting_max = 2);
    let link = world.dialled();
    world.open(link, 1);
    let tickets = [world.ask(b"sent"), world.ask(b"1"), world.ask(b"2"), world.ask(b"3")];
    let shed = Outcome::refused(Code::ResourceExhausted, Reason::ServiceOverloaded);
    assert_eq!(world.settled(), [(tickets[3], shed)]);
    assert_eq!(world.count(Count::CallsShedNormal), 1);
    let call = world.call(link);
    world.reply(link, &call, b"");
    world.ask(b"4");
    assert_eq!(world.settled(), [(tickets[0], done())], "there is room again");
}

// spec: S-13
#[test]
fn a_payload_above_what_the_service_takes() {
    let mut world = World::new(1);
    let link = world.dialled();
    world.forwarder.connected(world.now, link, NONCE);
    let ack = v1::LinkHelloAck { frame_bytes_max: 4096, ..hello_ack() };
    world.say(link, to_gateway::Member::HelloAck(ack));
    world.heard(link);
    let ticket = world.ask(&[0; 4090]);
    assert_eq!(world.settled(), [(ticket, Outcome::refused(Code::InvalidArgument, Reason::PayloadTooLarge))]);
    assert!(world.heard(link).is_empty());
    world.ask(b"small");
    assert_eq!(world.calls(link).len(), 1);
}

#[test]
fn output_above_its_bound_lets_calls_wait() {
    let mut world = World::with(1, |parts| parts.settings.output_bytes_max = 1);
    let link = world.dialled();
    world.open(link, 0);
    world.stuck.push(link);
    world.ask(b"1");
    world.flush();
    world.ask(b"2");
    assert_eq!(members(world.forwarder.unsent(link)).len(), 1, "the second waits outside");
    world.unstick(link);
    let calls = world.calls(link);
    assert_eq!((calls.len(), &calls[1].payload[..]), (2, &b"2"[..]), "sent once the output is empty");
}

// spec: L-23
#[test]
fn replies_that_no_call_waits_for() {
    let (mut world, [one, two]) = World::two(0);
    let ticket = world.ask(b"");
    let call = world.call(one);
    world.reply(two, &call, b"not yours");
    assert!(world.settled().is_empty(), "a call is answered on its own link");
    world.reply(one, &v1::Call { call_id: 1 << 40, ..v1::Call::default() }, b"");
    assert!(world.settled().is_empty());
    world.reply(one, &call, b"");
    world.reply(one, &call, b"twice");
    assert_eq!(world.settled(), [(ticket, done())]);
    assert_eq!(world.count(Count::RepliesUnknown), 3);
    assert_eq!(world.forwarder.links(), 2, "counted, not punished");
}
