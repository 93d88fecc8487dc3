//! Second attempts beside slow ones.

use super::*;
use crate::routing::Marks;

const TICK: Duration = Duration::from_millis(9);
const USUAL: Duration = Duration::from_millis(20);

/// Two endpoints that answer within 20 ms, so that more is slow; and the links.
fn world(change: impl FnOnce(&mut Parts)) -> (World, [LinkKey; 2]) {
    let (mut world, links): (World, [LinkKey; 2]) = World::several(0, |parts| {
        parts.routes = routes_with(|route| (route.idempotent, route.hedge) = (true, true));
        change(parts);
    });
    for _ in 0..100 {
        world.ask(b"");
        let (on, call) = world.call_on_any(&links);
        world.now = world.now + USUAL;
        world.reply(links[on], &call, b"");
    }
    assert_eq!(world.settled().len(), 100);
    (world, links)
}

/// A call that is slow, where it is, and where its twin is.
struct Slow {
    ticket: Ticket,
    on: usize,
    first: v1::Call,
    second: v1::Call,
}

fn slow(world: &mut World, links: [LinkKey; 2]) -> Slow {
    let ticket = world.ask(b"slow");
    let (on, first) = world.call_on_any(&links);
    world.pass(USUAL * 2 + TICK);
    let second = world.call(links[1 - on]);
    assert_eq!((&second.payload[..], second.attempt), (&b"slow"[..], 2));
    assert_eq!(world.count(Count::HedgesSent), 1);
    Slow { ticket, on, first, second }
}

fn cancels(world: &mut World, link: LinkKey) -> Vec<u64> {
    let heard = world.heard(link).into_iter();
    heard
        .filter_map(|member| match member {
            to_service::Member::Cancel(cancel) => Some(cancel.call_id),
            _ => None,
        })
        .collect()
}

// spec: L-75
#[test]
fn the_second_attempt_wins_and_the_first_is_cancelled() {
    let (mut world, links) = world(|_| ());
    let Slow { ticket, on, first, second } = slow(&mut world, links);
    world.reply(links[1 - on], &second, b"quick");
    let decided = world.decided();
    assert_eq!((decided.len(), decided[0].0), (1, ticket));
    assert!(decided[0].2.marks.has(Marks::HEDGE));
    assert_eq!(cancels(&mut world, links[on]), [first.call_id]);
    world.reply(links[on], &first, b"late");
    assert!(world.settled().is_empty());
    assert_eq!((world.count(Count::RepliesLate), world.count(Count::HedgesWon)), (1, 1));
    assert_eq!(world.forwarder.calls(), 0);
}

#[test]
fn the_first_attempt_wins_and_the_second_is_cancelled() {
    let (mut world, links) = world(|_| ());
    let Slow { ticket, on, first, second } = slow(&mut world, links);
    world.reply(links[on], &first, b"after all");
    assert_eq!(world.settled(), [(ticket, done())]);
    assert_eq!(cancels(&mut world, links[1 - on]), [second.call_id]);
    assert_eq!((world.count(Count::HedgesWon), world.forwarder.calls()), (0, 1), "its Reply is awaited");
    world.reply(links[1 - on], &second, b"late");
    assert_eq!(world.forwarder.calls(), 0);
}

#[test]
fn a_quick_call_is_not_hedged() {
    let (mut world, links) = world(|_| ());
    world.ask(b"");
    let (on, call) = world.call_on_any(&links);
    world.pass(USUAL / 2);
    world.reply(links[on], &call, b"");
    world.pass(USUAL * 4);
    assert_eq!((world.count(Count::HedgesSent), world.forwarder.calls()), (0, 0));
}

#[test]
fn when_one_is_lost_the_other_is_the_call() {
    for lose_first in [true, false] {
        let (mut world, links) = world(|_| ());
        let Slow { ticket, on, first, second } = slow(&mut world, links);
        let (lost, left, call) = if lose_first { (on, 1 - on, &second) } else { (1 - on, on, &first) };
        world.forwarder.link_lost(world.now, links[lost], &"gone");
        assert!(world.settled().is_empty(), "one is left");
        world.reply(links[left], call, b"");
        assert_eq!(world.settled(), [(ticket, done())]);
        assert_eq!((world.forwarder.calls(), world.count(Count::CallsLost)), (0, 0));
    }
}

#[test]
fn when_both_are_lost_there_is_one_outcome() {
    let (mut world, links) = world(|_| ());
    let Slow { ticket, .. } = slow(&mut world, links);
    links.iter().for_each(|link| world.forwarder.link_lost(world.now, *link, &"gone"));
    assert_eq!(world.settled(), [(ticket, Outcome::unknown(Code::Aborted, Reason::EndpointLost))]);
    assert_eq!(world.forwarder.calls(), 0);
}

#[test]
fn an_answer_that_is_to_be_tried_again_leaves_it_to_the_other() {
    let (mut world, links) = world(|_| ());
    let Slow { ticket, on, first, second } = slow(&mut world, links);
    world.fail(links[on], &first, (Code::Internal, Reason::Unspecified), Execution::Unknown);
    assert!(world.settled().is_empty());
    // Two attempts are all that there are.
    world.fail(links[1 - on], &second, (Code::Unavailable, Reason::Unspecified), Execution::NotExecuted);
    let settled = world.settled();
    assert_eq!((settled.len(), settled[0].0, settled[0].1.code), (1, ticket, Code::Unavailable));
    assert_eq!(settled[0].1.execution, Execution::Unknown, "the first may have run");
}

#[test]
fn the_deadline_ends_both() {
    let (mut world, links) = world(|_| ());
    let Slow { ticket, on, first, second } = slow(&mut world, links);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.settled(), [(ticket, Outcome::unknown(Code::DeadlineExceeded, Reason::Timeout))]);
    assert_eq!(cancels(&mut world, links[on]), [first.call_id]);
    assert_eq!(cancels(&mut world, links[1 - on]), [second.call_id]);
}

#[test]
fn a_cancel_goes_to_both() {
    let (mut world, links) = world(|_| ());
    let Slow { ticket, on, first, second } = slow(&mut world, links);
    world.cancel(ticket);
    assert_eq!(cancels(&mut world, links[on]), [first.call_id]);
    assert_eq!(cancels(&mut world, links[1 - on]), [second.call_id]);
    world.fail(links[on], &first, (Code::Cancelled, Reason::Cancelled), Execution::Unknown);
    assert_eq!(world.settled().len(), 1);
}

#[test]
fn neither_ordered_nor_once_only_calls_are_hedged() {
    let (mut world, links) = world(|_| ());
    world.ask_as(1, ORDERED, b"");
    world.call_on_any(&links);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.count(Count::HedgesSent), 0);
    let (mut world, links) = self::world(|parts| {
        parts.routes = routes_with(|route| route.hedge = true);
    });
    world.ask(b"");
    world.call_on_any(&links);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.count(Count::HedgesSent), 0);
}

#[test]
fn hedges_stay_within_their_part() {
    let (mut world, links) = world(|parts| parts.services[0].pool.ejection.failures_max = 0);
    for _ in 0..100 {
        world.ask(b"");
    }
    links.iter().for_each(|link| drop(world.calls(*link)));
    world.pass(Duration::from_secs(1));
    let (sent, refused) = (world.count(Count::HedgesSent), world.count(Count::HedgesRefused));
    assert!(sent > 0 && sent <= 10, "{sent}: at most a twentieth of all");
    assert_eq!(sent + refused, 100);
}

#[test]
fn without_another_endpoint_there_is_no_hedge() {
    let (mut world, links) = world(|_| ());
    world.view(links[1], View::Down, 0);
    world.ask(b"");
    world.pass(Duration::from_secs(1));
    assert_eq!((world.count(Count::HedgesSent), world.count(Count::HedgesRefused)), (0, 1));
}

#[test]
fn a_hedge_that_finds_no_room_costs_nothing() {
    let (mut world, links) = world(|parts| parts.services[0].pool.retry.budget_per_s = 0);
    links.iter().for_each(|link| world.view(*link, View::Up, 1));
    world.ask(b"a");
    world.ask(b"b");
    let left = world.forwarder.services[0].budget.left();
    world.pass(Duration::from_secs(1));
    assert_eq!((world.count(Count::HedgesSent), world.count(Count::HedgesRefused)), (0, 2));
    assert_eq!(world.forwarder.services[0].budget.left(), left);
}

/// Three endpoints of which one has a slow call, and whoever gets the second attempt does not read.
#[test]
fn a_second_attempt_that_was_not_sent_is_none() {
    let (mut world, links): (World, [LinkKey; 3]) = World::several(0, |parts| {
        parts.routes = routes_with(|route| (route.idempotent, route.hedge) = (true, true));
    });
    for _ in 0..100 {
        world.ask(b"");
        let (on, call) = world.call_on_any(&links);
        world.now = world.now + USUAL;
        world.reply(links[on], &call, b"");
    }
    world.settled();
    let ticket = world.ask(b"slow");
    let (on, call) = world.call_on_any(&links);
    world.stuck.extend(links.iter().filter(|link| **link != links[on]));
    world.pass(USUAL * 2 + TICK);
    world.flush();
    assert_eq!(world.count(Count::HedgesSent), 1);
    let outstanding = |world: &World, link| world.forwarder.links.get(link).unwrap().outstanding;
    let other = (0..3).find(|at| *at != on && outstanding(&world, links[*at]) > 0).unwrap();
    world.forwarder.link_lost(world.now, links[other], &"gone");
    world.fail(links[on], &call, (Code::Unavailable, Reason::Draining), Execution::NotExecuted);
    assert!(world.settled().is_empty(), "{ticket:?} has an attempt left");
    world.unstick(links[3 - on - other]);
    let again = world.call(links[3 - on - other]);
    assert_eq!((again.attempt, world.count(Count::RetriesTried)), (2, 1));
}

#[test]
fn the_second_attempt_takes_over_what_is_needed_for_a_third() {
    let (mut world, links) = world(|parts| parts.services[0].pool.retry.attempts_max = 3);
    let Slow { ticket, on, first, second } = slow(&mut world, links);
    world.fail(links[on], &first, (Code::Internal, Reason::Unspecified), Execution::Unknown);
    world.fail(links[1 - on], &second, (Code::Internal, Reason::Unspecified), Execution::Unknown);
    let (at, third) = world.call_on_any(&links);
    assert_eq!((&third.payload[..], third.attempt), (&b"slow"[..], 3));
    world.reply(links[at], &third, b"");
    assert_eq!(world.settled(), [(ticket, done())]);
    assert_eq!(world.forwarder.services[0].kept_bytes, 0);
}
