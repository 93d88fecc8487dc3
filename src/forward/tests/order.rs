//! `order = session`.

use super::*;

// spec: L-28, L-29
#[test]
fn one_at_a_time_within_a_session() {
    let (mut world, link) = World::ready(0);
    let tickets = [world.ask_as(1, ORDERED, b"1"), world.ask_as(1, ORDERED, b"2")];
    world.ask_as(2, ORDERED, b"other");
    let calls = world.calls(link);
    let payloads: Vec<&[u8]> = calls.iter().map(|call| &call.payload[..]).collect();
    assert_eq!(payloads, [&b"1"[..], b"other"], "sessions do not wait for each other");
    assert_eq!(&calls[0].ordering_key[..], &[1; 16]);
    world.reply(link, &calls[0], b"");
    let next = world.call(link);
    assert_eq!(&next.payload[..], b"2");
    world.reply(link, &next, b"");
    assert_eq!(world.settled(), [(tickets[0], done()), (tickets[1], done())]);
}

// spec: L-29
#[test]
fn a_session_stays_on_its_link() {
    let (mut world, links) = World::two(0);
    for payload in [&b"1"[..], b"2", b"3"] {
        world.ask_as(1, ORDERED, payload);
    }
    for _ in 0..3 {
        // The other endpoint has less to do.
        world.ask(b"");
        world.ask(b"");
        let calls = world.calls(links[0]);
        let ordered = calls.iter().find(|call| call.command == ORDERED);
        world.reply(links[0], ordered.unwrap(), b"");
    }
    assert!(world.calls(links[1]).iter().all(|call| call.command == PLAIN));
}

#[test]
fn a_cancelled_call_in_the_middle_is_left_out() {
    let (mut world, link) = World::ready(0);
    world.ask_as(1, ORDERED, b"1");
    let second = world.ask_as(1, ORDERED, b"2");
    world.ask_as(1, ORDERED, b"3");
    world.cancel(second);
    let call = world.call(link);
    world.reply(link, &call, b"");
    assert_eq!(&world.call(link).payload[..], b"3");
}

#[test]
fn the_next_follows_a_head_that_was_cancelled_while_it_waited() {
    let (mut world, link) = World::ready(1);
    world.ask(b"fills the link");
    let head = world.ask_as(1, ORDERED, b"1");
    world.ask_as(1, ORDERED, b"2");
    world.cancel(head);
    let call = world.call(link);
    world.reply(link, &call, b"");
    assert_eq!(&world.call(link).payload[..], b"2");
}

// spec: L-29, L-34
#[test]
fn a_call_that_may_still_run_holds_up_its_session() {
    let (mut world, link) = World::ready(0);
    world.ask_until(1, ORDERED, b"1", world.now + Duration::from_secs(1));
    let call = world.call(link);
    world.pass(Duration::from_secs(2));
    world.ask_as(1, ORDERED, b"2");
    assert!(world.calls(link).is_empty(), "the first may still run");
    world.reply(link, &call, b"late");
    assert_eq!(&world.call(link).payload[..], b"2");
}

#[test]
fn a_lost_link_lets_the_session_go_on_elsewhere() {
    let (mut world, links) = World::two(0);
    let first = world.ask_as(1, ORDERED, b"1");
    world.ask_as(1, ORDERED, b"2");
    assert_eq!(world.calls(links[0]).len(), 1);
    world.forwarder.link_lost(world.now, links[0], &"gone");
    assert_eq!(world.settled(), [(first, Outcome::unknown(Code::Aborted, Reason::EndpointLost))]);
    assert_eq!(&world.call(links[1]).payload[..], b"2");
}

#[test]
fn a_session_that_waits_for_its_link_holds_up_nobody_else() {
    let (mut world, links) = World::two(1);
    world.ask_as(1, ORDERED, b"1");
    let on_first = world.call(links[0]);
    world.ask(b"busy");
    let on_second = world.call(links[1]);
    // In this order they wait: `x` takes the place on the session's link, so that `2` has to wait for it.
    world.ask(b"x");
    world.ask_as(1, ORDERED, b"2");
    world.reply(links[0], &on_first, b"");
    assert_eq!(&world.call(links[0]).payload[..], b"x");
    world.ask(b"y");
    world.reply(links[1], &on_second, b"");
    assert_eq!(&world.call(links[1]).payload[..], b"y", "the other endpoint has room");
}

// spec: S-11
#[test]
fn the_next_is_told_at_once_when_no_link_is_ready() {
    let (mut world, link) = World::ready(0);
    world.ask_as(1, ORDERED, b"1");
    let call = world.call(link);
    world.view(link, View::Down, 0);
    let behind = world.ask_as(1, ORDERED, b"behind it");
    assert_eq!(world.settled(), [(behind, no_endpoint())]);
    world.reply(link, &call, b"");
    assert_eq!(world.settled().len(), 1);
    assert_eq!(world.forwarder.calls(), 0);
}

#[test]
fn what_waits_for_a_lost_link_goes_to_another_at_once() {
    let (mut world, links) = {
        let mut world = World::with(2, |parts| parts.settings.output_bytes_max = 100);
        let links = [world.dialled(), world.dialled()];
        links.iter().for_each(|link| world.open(*link, 0));
        (world, links)
    };
    let short = world.now + Duration::from_secs(1);
    world.ask_until(1, ORDERED, &[0; 200], short);
    world.stuck.push(links[0]);
    world.ask_until(1, ORDERED, b"waits", world.now + Duration::from_secs(60));
    assert!(world.calls(links[0]).is_empty() && world.calls(links[1]).is_empty());
    // The first one's time and grace are over: nothing is out, but the link that the session keeps to takes nothing.
    world.pass(Duration::from_secs(7));
    assert_eq!(world.settled().len(), 1);
    assert!(world.calls(links[1]).is_empty());
    world.forwarder.link_lost(world.now, links[0], &"gone");
    assert_eq!(&world.call(links[1]).payload[..], b"waits");
}

#[test]
fn a_line_whose_heads_are_cancelled_leaves_nothing_behind() {
    let (mut world, _) = World::ready(1);
    world.ask(b"fills the link");
    world.ask(b"waits before all");
    let mut head = world.ask_as(1, ORDERED, b"");
    for _ in 0..1000 {
        let behind = world.ask_as(1, ORDERED, b"");
        world.cancel(head);
        head = behind;
    }
    let kept = world.forwarder.services[0].queue.len();
    assert!(kept < 100, "{kept} places for 2 calls that wait");
}
