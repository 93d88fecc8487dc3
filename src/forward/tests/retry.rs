//! Attempts that failed, and whether another is made.

use super::*;
use crate::routing::Marks;

const LOST: Outcome = Outcome::unknown(Code::Aborted, Reason::EndpointLost);

/// An outcome of a service.
fn said(code: Code, reason: Reason, execution: Execution) -> Outcome {
    Outcome { code, reason, source: Source::Service, execution, retry_after_ms: 0 }
}

// spec: L-37, L-73
#[test]
fn a_lost_link_is_no_loss_on_an_idempotent_route() {
    let (mut world, links): (World, [LinkKey; 3]) = World::several(0, idempotent);
    let ticket = world.ask(b"once or twice");
    let (on, _) = world.call_on_any(&links);
    world.now = world.now + Duration::from_secs(1);
    world.forwarder.link_lost(world.now, links[on], &"gone");
    let (other, call) = world.call_on_any(&links);
    assert_ne!(on, other);
    assert_eq!((&call.payload[..], call.attempt, call.remaining_ms), (&b"once or twice"[..], 2, 4001));
    world.reply(links[other], &call, b"");
    let batch = world.forwarder.deliveries(SHARD).unwrap();
    let settled = batch.settled().next().unwrap();
    assert_eq!((settled.ticket, settled.outcome, settled.endpoint), (ticket, done(), [1, 2, 3][other]));
    assert!(settled.decision.marks.has(Marks::RETRY) && settled.decision.attempt == 2);
    assert_eq!((world.count(Count::RetriesTried), world.count(Count::RetriesAnswered)), (1, 1));
    assert_eq!((world.count(Count::CallsLost), world.forwarder.calls()), (0, 0));
}

// spec: L-37, S-9
#[test]
fn a_lost_link_is_a_loss_where_running_twice_does_harm() {
    let (mut world, links) = World::two(0);
    let ticket = world.ask(b"");
    let (on, _) = world.call_on_any(&links);
    world.forwarder.link_lost(world.now, links[on], &"gone");
    assert_eq!(world.settled(), [(ticket, LOST)]);
    assert!(world.calls(links[1 - on]).is_empty());
    assert_eq!(world.forwarder.services[0].kept_bytes, 0);
}

// spec: L-37, L-46
#[test]
fn what_a_draining_service_did_not_execute_goes_elsewhere_on_any_route() {
    for command in [PLAIN, ORDERED] {
        let (mut world, links) = World::two(0);
        let tickets = [world.ask_as(1, command, b"1"), world.ask_as(1, ORDERED, b"2")];
        let (on, call) = {
            let calls: Vec<_> = links.iter().map(|link| world.calls(*link)).collect();
            let on =
                calls.iter().position(|calls| calls.iter().any(|call| call.payload == b"1"[..])).unwrap();
            let call = calls[on].iter().find(|call| call.payload == b"1"[..]).cloned().unwrap();
            (on, call)
        };
        world.say(links[on], to_gateway::Member::Drain(v1::LinkDrain::default()));
        world.fail(links[on], &call, (Code::Unavailable, Reason::Draining), Execution::NotExecuted);
        let calls = world.calls(links[1 - on]);
        let again = calls.iter().find(|call| call.payload == b"1"[..]).unwrap();
        assert_eq!(again.attempt, 2);
        assert_ne!(again.call_id, call.call_id, "a second Reply to the first is not taken for its own");
        world.reply(links[1 - on], again, b"");
        assert!(world.settled().contains(&(tickets[0], done())), "command {command}");
    }
}

// spec: L-29
#[test]
fn the_calls_behind_one_that_is_tried_again_follow_it() {
    let (mut world, links) = World::two(0);
    let tickets = [world.ask_as(1, ORDERED, b"1"), world.ask_as(1, ORDERED, b"2")];
    let (on, call) = world.call_on_any(&links);
    world.fail(links[on], &call, (Code::Unavailable, Reason::Unspecified), Execution::NotExecuted);
    for (ticket, payload) in tickets.into_iter().zip([b"1", b"2"]) {
        let call = world.call(links[1 - on]);
        assert_eq!(&call.payload[..], payload);
        assert!(world.calls(links[on]).is_empty());
        world.reply(links[1 - on], &call, b"");
        assert_eq!(world.settled(), [(ticket, done())]);
    }
}

#[test]
fn what_was_executed_or_is_the_clients_is_passed_on() {
    let (mut world, links): (World, [LinkKey; 2]) = World::several(0, idempotent);
    let cases = [
        (Code::Unavailable, Reason::Unspecified, Execution::Executed),
        (Code::InvalidArgument, Reason::Unspecified, Execution::NotExecuted),
        (Code::ResourceExhausted, Reason::RateLimited, Execution::NotExecuted),
        (Code::PermissionDenied, Reason::RoleRequired, Execution::NotExecuted),
    ];
    for (code, reason, execution) in cases {
        let ticket = world.ask(b"");
        let (on, call) = world.call_on_any(&links);
        world.fail(links[on], &call, (code, reason), execution);
        assert_eq!(world.settled(), [(ticket, said(code, reason, execution))]);
    }
    assert_eq!(world.count(Count::RetriesTried), 0);
}

#[test]
fn the_directives_of_an_attempt_that_is_tried_again_are_discarded() {
    let (mut world, links): (World, [LinkKey; 2]) =
        World::several(0, |parts| parts.services[0].grants = Grants::NONE.with(crate::routing::Right::Login));
    world.ask(b"");
    let (on, call) = world.call_on_any(&links);
    let logout = v1::Directive { action: Some(v1::directive::Action::Logout(v1::Logout {})) };
    let reply = v1::Reply {
        call_id: call.call_id,
        status: Code::Unavailable.to_wire(),
        execution: Execution::NotExecuted.into(),
        directives: vec![logout],
        ..v1::Reply::default()
    };
    world.say(links[on], to_gateway::Member::Reply(reply));
    let call = world.call(links[1 - on]);
    world.reply(links[1 - on], &call, b"");
    let batch = world.forwarder.deliveries(SHARD).unwrap();
    assert!(batch.settled().next().unwrap().directives.is_none());
    assert_eq!(world.count(Count::DirectivesStale), 1);
}

#[test]
fn no_more_attempts_than_are_allowed_and_the_last_one_counts() {
    let (mut world, links): (World, [LinkKey; 3]) = World::several(0, idempotent);
    let ticket = world.ask(b"");
    for _ in 0..2 {
        let (on, call) = world.call_on_any(&links);
        world.fail(links[on], &call, (Code::Internal, Reason::Unspecified), Execution::Unknown);
    }
    assert_eq!(world.settled(), [(ticket, said(Code::Internal, Reason::Unspecified, Execution::Unknown))]);
    assert!(links.iter().all(|link| world.calls(*link).is_empty()));
    assert_eq!(world.count(Count::RetriesTried), 1);
}

// spec: S-4
#[test]
fn an_attempt_that_may_have_run_is_not_forgotten() {
    let (mut world, links): (World, [LinkKey; 2]) = World::several(0, idempotent);
    let ticket = world.ask(b"");
    let (on, _) = world.call_on_any(&links);
    world.forwarder.link_lost(world.now, links[on], &"gone");
    let call = world.call(links[1 - on]);
    world.fail(links[1 - on], &call, (Code::InvalidArgument, Reason::Unspecified), Execution::NotExecuted);
    let outcome = said(Code::InvalidArgument, Reason::Unspecified, Execution::Unknown);
    assert_eq!(world.settled(), [(ticket, outcome)], "the first one may have run it");
}

// spec: S-9
#[test]
fn what_cannot_be_tried_again_ends_as_the_attempt_ended() {
    let (mut world, links): (World, [LinkKey; 2]) = World::several(1, idempotent);
    let tickets = [world.ask(b"1"), world.ask(b"2")];
    world.flush();
    world.forwarder.link_lost(world.now, links[0], &"gone");
    assert!(world.settled().is_empty(), "it waits for room at the other");
    world.forwarder.link_lost(world.now, links[1], &"gone");
    let mut settled = world.settled();
    settled.sort_unstable_by_key(|(ticket, _)| ticket.to_u64());
    assert_eq!(settled, [(tickets[0], LOST), (tickets[1], LOST)]);
    assert_eq!(world.count(Count::CallsLost), 2);
}

// spec: S-10
#[test]
fn the_deadline_holds_for_all_attempts() {
    let (mut world, links): (World, [LinkKey; 2]) = World::several(1, idempotent);
    let tickets = [world.ask(b"1"), world.ask(b"2")];
    world.flush();
    world.forwarder.link_lost(world.now, links[0], &"gone");
    world.pass(Duration::from_secs(6));
    let timeout = Outcome::unknown(Code::DeadlineExceeded, Reason::Timeout);
    let mut settled = world.settled();
    settled.sort_unstable_by_key(|(ticket, _)| ticket.to_u64());
    assert_eq!(
        settled,
        tickets.map(|ticket| (ticket, timeout)),
        "also the one that waits: it was sent before"
    );
    let counts = (world.count(Count::CallsExpired), world.count(Count::CallsExpiredUnsent));
    assert_eq!(counts, (2, 0));
}

#[test]
fn a_cancelled_call_is_not_tried_again() {
    let (mut world, links): (World, [LinkKey; 2]) = World::several(0, idempotent);
    let ticket = world.ask(b"");
    let (on, _) = world.call_on_any(&links);
    world.cancel(ticket);
    world.flush();
    world.forwarder.link_lost(world.now, links[on], &"gone");
    assert_eq!(world.settled(), [(ticket, LOST)]);
}

// spec: L-74
#[test]
fn retries_stay_within_their_budget() {
    let (mut world, links): (World, [LinkKey; 2]) = World::several(0, |parts| {
        idempotent(parts);
        let retry = &mut parts.services[0].pool.retry;
        (retry.budget_percent, retry.budget_per_s) = (10, 0);
        parts.services[0].pool.ejection.failures_max = 0;
        parts.services[0].pool.ejection.success_percent_min = 0;
    });
    let (mut asked, mut tried) = (0, 0);
    for _ in 0..200 {
        world.ask(b"");
        asked += 1;
        loop {
            let calls: Vec<_> = links
                .iter()
                .flat_map(|link| world.calls(*link).into_iter().map(|call| (*link, call)))
                .collect();
            let Some((link, call)) = calls.into_iter().next() else { break };
            tried += u64::from(call.attempt > 1);
            world.fail(link, &call, (Code::Internal, Reason::Unspecified), Execution::Unknown);
        }
    }
    assert_eq!(world.settled().len(), 200, "each once");
    assert_eq!(tried, world.count(Count::RetriesTried));
    assert!(tried > 0 && tried * 10 <= asked, "{tried} of {asked}");
    assert_eq!(world.count(Count::RetriesNoBudget) + tried, 200);
}

#[test]
fn what_is_kept_is_bounded_and_counted() {
    let (mut world, links): (World, [LinkKey; 2]) = World::several(0, |parts| {
        idempotent(parts);
        parts.services[0].pool.retry.kept_bytes_max = 1000;
    });
    let tickets: Vec<Ticket> = (0..4).map(|_| world.ask(&[7; 400])).collect();
    assert_eq!(world.count(Count::CallsNotKept), 2);
    assert!(world.forwarder.services[0].kept_bytes <= 1000);
    world.flush();
    links.iter().for_each(|link| world.forwarder.link_lost(world.now, *link, &"gone"));
    assert_eq!(world.settled().len(), tickets.len());
    assert!(world.count(Count::RetriesNotKept) >= 1);
    assert_eq!(world.forwarder.services[0].kept_bytes, 0);
}

#[test]
fn a_service_with_one_endpoint_keeps_nothing() {
    let mut world = World::with(1, idempotent);
    let link = world.dialled();
    world.open(link, 0);
    world.ask(&[7; 400]);
    assert_eq!((world.forwarder.services[0].kept_bytes, world.count(Count::CallsNotKept)), (0, 0));
}
