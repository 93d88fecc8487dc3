//! How links end: what was read on them is settled, what is owed is written, and a service that broke the contract gets an
//! Error with the reason.

use super::*;
use crate::routing::Right;
use moorgate_proto::limits::{FRAME_BYTES_CEILING, FRAME_BYTES_OPENING};
use to_gateway::Member as Said;
use to_service::Member as Heard;

fn granted() -> (World, LinkKey) {
    let (world, [link]) = World::several(0, |parts| {
        parts.services[0].grants = Grants::NONE.with(Right::Push).with(Right::PushAll);
    });
    (world, link)
}

fn push(id: u8) -> Said {
    Said::Push(v1::ServicePush {
        push_id: vec![id].into(),
        target: Some(v1::service_push::Target::Everyone(v1::Everyone {})),
        ..v1::ServicePush::default()
    })
}

fn reply_to(call: &v1::Call) -> Said {
    Said::Reply(v1::Reply { call_id: call.call_id, ..v1::Reply::default() })
}

fn results(heard: &[Heard]) -> Vec<u8> {
    let result = |member: &Heard| match member {
        Heard::PushResult(result) => Some(result.push_id[0]),
        _ => None,
    };
    heard.iter().filter_map(result).collect()
}

// spec: L-45, L-49
#[test]
fn pushes_of_a_draining_service_have_their_results_before_the_link_ends() {
    // All in one read: before the drain, between it and the last Reply, behind that.
    let (mut world, link) = granted();
    let ticket = world.ask(b"");
    let call = world.call(link);
    let said = [push(1), Said::Drain(v1::LinkDrain::default()), push(2), reply_to(&call), push(3), push(4)];
    world.hear(link, &said.map(frame).concat());
    assert_eq!(world.settled(), [(ticket, done())]);
    let heard = world.heard(link);
    assert_eq!(results(&heard), [1, 2, 3, 4]);
    assert_eq!(world.forwarder.next_command(), None, "more may be under way");
    // And what was under way until the answer to the last ping.
    let Some(Heard::Ping(ping)) = heard.iter().find(|member| matches!(member, Heard::Ping(_))) else {
        panic!("{heard:?}");
    };
    let pong = Said::Pong(v1::LinkPong { nonce: ping.nonce, view: None });
    world.hear(link, &[push(5), pong, push(6)].map(frame).concat());
    assert_eq!(results(&world.heard(link)), [5], "a later push has no result and is not delivered");
    assert_eq!(world.forwarder.next_command(), Some(LinkCommand::EndStream(link)));
    assert_eq!(world.count(Count::PushesTaken), 5);
    world.forwarder.link_over(world.now, link);
    assert_eq!(world.forwarder.next_command(), Some(LinkCommand::Close(link)));
    assert_eq!(world.forwarder.links(), 0);
}

// spec: L-45
#[test]
fn a_draining_service_that_answers_no_ping_loses_its_link_in_time() {
    let (mut world, link) = granted();
    world.say(link, Said::Drain(v1::LinkDrain::default()));
    world.flush();
    let end = world.now + Settings::default().connect_timeout + Duration::from_millis(9);
    while world.now < end {
        world.say(link, push(1));
        world.pass(Duration::from_millis(100));
        world.flush();
    }
    let commands: Vec<_> = std::iter::from_fn(|| world.forwarder.next_command()).collect();
    assert!(commands.contains(&LinkCommand::EndStream(link)), "{commands:?}");
}

#[test]
fn a_service_that_ends_its_stream_has_the_results_of_its_pushes() {
    let (mut world, link) = granted();
    let ticket = world.ask(b"");
    world.call(link);
    world.hear(link, &[push(1), push(2)].map(frame).concat());
    world.forwarder.link_over(world.now, link);
    assert_eq!(world.settled(), [(ticket, Outcome::unknown(Code::Aborted, Reason::EndpointLost))]);
    assert_eq!(world.forwarder.next_command(), None, "they are not written yet");
    assert_eq!(results(&world.heard(link)), [1, 2]);
    assert_eq!(world.forwarder.next_command(), Some(LinkCommand::Close(link)), "it has nothing more to send");
}

/// What a service does, and the reason that it gets.
type Break = (&'static str, fn(&mut World, LinkKey), Reason);

// spec: L-16, L-20, L-43, F-3
#[test]
fn a_link_that_is_ended_from_this_side_says_why() {
    let breaks: [Break; 6] = [
        ("no frame", |world, link| world.hear(link, &[0, 0, 0, 2, 0x4a, 5]), Reason::FrameMalformed),
        ("no Reply", |world, link| world.hear(link, &[0, 0, 0, 4, 0x4a, 2, 8, 255]), Reason::FrameMalformed),
        (
            "above the ceiling",
            |world, link| {
                world.hear(link, &u32::try_from(FRAME_BYTES_CEILING + 1).unwrap().to_be_bytes());
            },
            Reason::FrameTooLarge,
        ),
        (
            "a second HelloAck",
            |world, link| world.say(link, Said::HelloAck(hello_ack())),
            Reason::ProtocolViolation,
        ),
        (
            "silence",
            |world, _| world.pass(Settings::default().heartbeat * 2 + Duration::from_millis(9)),
            Reason::HeartbeatTimeout,
        ),
        (
            "a push that is none",
            |world, link| world.hear(link, &[0, 0, 0, 4, 0x52, 2, 8, 255]),
            Reason::FrameMalformed,
        ),
    ];
    for (what, break_it, reason) in breaks {
        let (mut world, link) = granted();
        world.say(link, push(1));
        break_it(&mut world, link);
        let heard = world.heard(link);
        assert_eq!(results(&heard), [1], "{what}");
        let Some(Heard::Error(error)) = heard.last() else { panic!("{what}: {heard:?}") };
        assert_eq!(error.reason(), reason, "{what}");
        assert!(error.status != 0 && !error.message.is_empty(), "{what}");
        assert!(world.closes(link), "{what}");
    }
    let mut world = World::new(1);
    let link = world.dialled();
    world.forwarder.connected(world.now, link, NONCE);
    world.flush();
    world.hear(link, &u32::try_from(FRAME_BYTES_OPENING + 1).unwrap().to_be_bytes());
    let [Heard::Hello(_), Heard::Error(error)] = &world.heard(link)[..] else { panic!("no Error") };
    assert_eq!(error.reason(), Reason::FrameTooLarge, "before it is ready nothing is passed over");
}

// spec: L-20, L-37
#[test]
fn a_frame_that_is_half_written_is_completed_and_unsent_calls_go_elsewhere() {
    for taken in [0, 1, 3, 4, 30] {
        let (mut world, links) = World::two(0);
        world.stuck = links.to_vec();
        let tickets = [world.ask(b"first"), world.ask(b"second"), world.ask(b"third"), world.ask(b"fourth")];
        // Two calls on each, then an answer behind them.
        let link = links[0];
        world.say(link, Said::Ping(v1::LinkPing { nonce: 5, view: None }));
        let mut wire = world.forwarder.unsent(link)[..taken].to_vec();
        world.forwarder.sent(world.now, link, taken);
        world.hear(link, &[0, 0, 0, 2, 0x4a, 5]);
        wire.extend(world.forwarder.unsent(link));
        let names: Vec<&str> = members(&wire)
            .iter()
            .map(|member| match member {
                Heard::Call(_) => "call",
                Heard::Pong(_) => "pong",
                Heard::Error(_) => "error",
                other => panic!("{other:?}"),
            })
            .collect();
        let begun: &[&str] = if taken == 0 { &[] } else { &["call"] };
        assert_eq!(names, [begun, &["pong", "error"]].concat(), "{taken} bytes were taken");
        world.unstick(links[1]);
        assert_eq!(world.calls(links[1]).len(), 4 - begun.len(), "of {tickets:?}");
    }
}

// spec: L-79
#[test]
fn one_link_of_a_slot_ends_at_a_time() {
    let (mut world, link) = World::ready(0);
    world.hear(link, &[0, 0, 0, 2, 0x4a, 5]);
    world.flush();
    assert_eq!(world.forwarder.next_command(), Some(LinkCommand::EndStream(link)));
    // The service does not close it, and breaks the next one too.
    let next = loop {
        world.now = world.forwarder.next_deadline().unwrap().max(world.now);
        world.forwarder.timers(world.now);
        if let Some(LinkCommand::Dial(next, _)) = world.forwarder.next_command() {
            break next;
        }
    };
    world.open(next, 0);
    world.hear(next, &[0, 0, 0, 2, 0x4a, 5]);
    world.flush();
    assert_eq!(world.forwarder.next_command(), Some(LinkCommand::Close(link)), "its time ends at once");
    assert_eq!(world.forwarder.next_command(), Some(LinkCommand::EndStream(next)));
    world.pass(Duration::from_secs(3));
    let commands: Vec<_> = std::iter::from_fn(|| world.forwarder.next_command()).collect();
    assert!(commands.contains(&LinkCommand::Close(next)), "{commands:?}");
}

// spec: L-16, L-78
#[test]
fn a_reply_above_the_largest_frame_fails_its_own_call_only() {
    for (execution, expected) in [
        (Execution::Unspecified, Execution::Executed),
        (Execution::NotExecuted, Execution::NotExecuted),
        (Execution::Unknown, Execution::Unknown),
    ] {
        let (mut world, link) = granted();
        let tickets = [world.ask(b"1"), world.ask(b"2"), world.ask(b"3")];
        let calls = world.calls(link);
        let too_large = v1::Reply {
            call_id: calls[1].call_id,
            execution: execution.into(),
            payload: vec![7; Settings::default().frame_bytes_max].into(),
            ..v1::Reply::default()
        };
        let large_push = v1::ServicePush {
            push_id: vec![9].into(),
            payload: vec![7; Settings::default().frame_bytes_max].into(),
            ..v1::ServicePush::default()
        };
        let said = [
            reply_to(&calls[0]),
            Said::Reply(too_large),
            Said::Push(large_push),
            push(1),
            reply_to(&calls[2]),
        ];
        for read in said.map(frame).concat().chunks(10_007) {
            world.hear(link, read);
        }
        let failed = Outcome {
            code: Code::ResourceExhausted,
            reason: Reason::ReplyTooLarge,
            source: Source::Gateway,
            execution: expected,
            retry_after_ms: 0,
        };
        assert_eq!(world.settled(), [(tickets[0], done()), (tickets[1], failed), (tickets[2], done())]);
        let heard = world.heard(link);
        let of_pushes: Vec<(u8, Reason)> = heard
            .iter()
            .filter_map(|member| match member {
                Heard::PushResult(result) => Some((result.push_id[0], result.reason())),
                _ => None,
            })
            .collect();
        assert_eq!(of_pushes, [(9, Reason::PayloadTooLarge), (1, Reason::Unspecified)]);
        assert_eq!(world.count(Count::LinkFramesPassedOver), 2);
        assert_eq!((world.forwarder.links(), world.forwarder.calls()), (1, 0));
    }
}

// spec: L-43
#[test]
fn a_large_frame_that_takes_its_time_is_life() {
    let (mut world, link) = World::ready(0);
    world.ask_until(1, PLAIN, b"", world.now + Duration::from_secs(60));
    let call = world.call(link);
    let reply = v1::Reply { call_id: call.call_id, payload: vec![7; 30].into(), ..v1::Reply::default() };
    for byte in frame(Said::Reply(reply)) {
        world.hear(link, &[byte]);
        world.pass(Duration::from_secs(1));
        world.flush();
    }
    assert_eq!((world.settled().len(), world.forwarder.links()), (1, 1));
}
