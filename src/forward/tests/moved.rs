//! Calls of which nothing was sent when their link was lost.

use super::*;

/// Bytes of the frame of a call that is at the front of a link.
fn frame_bytes(world: &World, link: LinkKey) -> usize {
    let unsent = world.forwarder.unsent(link);
    4 + usize::try_from(u32::from_be_bytes(unsent[..4].try_into().unwrap())).unwrap()
}

/// Two endpoints; the first is stuck and has these calls, the second has had nothing.
fn stuck(payloads: &[&'static [u8]]) -> (World, [LinkKey; 2], Vec<Ticket>) {
    let (mut world, links): (World, [LinkKey; 2]) = World::several(0, |parts| {
        parts.services[0].pool.retry.attempts_max = 1;
    });
    world.view(links[1], View::Down, 0);
    world.stuck.push(links[0]);
    let tickets = payloads.iter().map(|payload| world.ask(payload)).collect();
    world.flush();
    world.view_unheard(links[1], View::Up);
    (world, links, tickets)
}

impl World {
    fn view_unheard(&mut self, link: LinkKey, state: View) {
        let view = v1::ServiceView { state: state.into(), ..v1::ServiceView::default() };
        self.say(link, to_gateway::Member::Pong(v1::LinkPong { nonce: 0, view: Some(view) }));
    }
}

// spec: L-37
#[test]
fn they_go_to_another_endpoint_at_once_in_their_order() {
    let (mut world, links, tickets) = stuck(&[b"1", b"2", b"3"]);
    world.now = world.now + Duration::from_secs(2);
    world.forwarder.link_lost(world.now, links[0], &"gone");
    let calls = world.calls(links[1]);
    let payloads: Vec<&[u8]> = calls.iter().map(|call| &call.payload[..]).collect();
    assert_eq!(payloads, [b"1", b"2", b"3"]);
    assert_eq!((calls[0].remaining_ms, calls[0].attempt), (3001, 1), "what is left, and still the first");
    assert_eq!(calls[0].caller.as_ref().map(|caller| caller.user_id.as_str()), Some("alice"));
    for call in &calls {
        world.reply(links[1], call, b"");
    }
    assert_eq!(world.settled(), tickets.iter().map(|ticket| (*ticket, done())).collect::<Vec<_>>());
    assert_eq!((world.count(Count::CallsMoved), world.count(Count::CallsLost)), (3, 0));
    assert_eq!(world.count(Count::RetriesTried), 0, "it costs no budget");
}

// spec: L-37, S-9
#[test]
fn one_of_which_a_byte_was_sent_is_not_moved() {
    let (mut world, links, tickets) = stuck(&[b"one", b"two", b"three"]);
    let first = frame_bytes(&world, links[0]);
    // All of the first, and one byte of the second; in between the buffer is compacted.
    for part in [1, first - 1, 1] {
        world.forwarder.sent(world.now, links[0], part);
    }
    world.forwarder.link_lost(world.now, links[0], &"gone");
    let lost = Outcome::unknown(Code::Aborted, Reason::EndpointLost);
    assert_eq!(world.settled(), [(tickets[0], lost), (tickets[1], lost)]);
    assert_eq!(&world.call(links[1]).payload[..], b"three");
    assert_eq!((world.count(Count::CallsMoved), world.count(Count::CallsLost)), (1, 2));
}

#[test]
fn frames_are_found_whatever_was_sent_before_them() {
    for before in 0..40 {
        let (mut world, links, _) = stuck(&[]);
        // Sent and answered, so that the link's bytes do not begin with the call's.
        world.unstick(links[0]);
        world.view_unheard(links[1], View::Down);
        for _ in 0..before {
            world.ask(&[7; 300]);
            let call = world.call(links[0]);
            world.reply(links[0], &call, b"");
        }
        world.stuck.push(links[0]);
        let tickets = [world.ask(b"partly"), world.ask(b"moved")];
        world.view_unheard(links[1], View::Up);
        let taken = 1 + before % frame_bytes(&world, links[0]);
        world.forwarder.sent(world.now, links[0], taken);
        world.settled();
        world.forwarder.link_lost(world.now, links[0], &"gone");
        assert_eq!(&world.call(links[1]).payload[..], b"moved", "{before}");
        assert_eq!(world.settled().iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), [tickets[0]]);
    }
}

#[test]
fn with_no_room_elsewhere_they_wait() {
    let (mut world, links, tickets) = stuck(&[b"1", b"2"]);
    let view = v1::ServiceView { outstanding_max: 1, ..v1::ServiceView::default() };
    world.say(links[1], to_gateway::Member::Pong(v1::LinkPong { nonce: 0, view: Some(view) }));
    world.forwarder.link_lost(world.now, links[0], &"gone");
    for ticket in tickets {
        let call = world.call(links[1]);
        world.reply(links[1], &call, b"");
        assert_eq!(world.settled(), [(ticket, done())]);
    }
}

// spec: S-11
#[test]
fn with_nobody_else_they_were_not_executed() {
    let (mut world, link) = World::ready(0);
    let ticket = world.ask(b"");
    world.forwarder.link_lost(world.now, link, &"gone");
    assert_eq!(world.settled(), [(ticket, no_endpoint())]);
}

#[test]
fn one_that_was_cancelled_ends_there() {
    let (mut world, links, tickets) = stuck(&[b"1"]);
    world.cancel(tickets[0]);
    world.forwarder.link_lost(world.now, links[0], &"gone");
    assert_eq!(world.settled(), [(tickets[0], Outcome::refused(Code::Cancelled, Reason::Cancelled))]);
    assert!(world.calls(links[1]).is_empty());
}

#[test]
fn one_whose_time_is_over_is_not_sent() {
    let (mut world, links, tickets) = stuck(&[b"1"]);
    world.now = world.now + Duration::from_secs(6);
    world.forwarder.link_lost(world.now, links[0], &"gone");
    assert_eq!(world.settled(), [(tickets[0], Outcome::refused(Code::DeadlineExceeded, Reason::Timeout))]);
    assert!(world.calls(links[1]).is_empty());
}

#[test]
fn it_is_not_moved_for_ever() {
    // There is always a link left.
    let mut world = World::with(1, |parts| parts.settings.links_per_endpoint = 8);
    let links: Vec<LinkKey> = (0..8).map(|_| world.dialled()).collect();
    links.iter().for_each(|link| world.open(*link, 0));
    world.stuck = links.clone();
    let ticket = world.ask(b"");
    let mut moves = 0;
    loop {
        world.flush();
        let with_call = links.iter().find(|link| !world.forwarder.unsent(**link).is_empty()).copied();
        let Some(link) = with_call else { break };
        world.forwarder.link_lost(world.now, link, &"gone");
        moves += 1;
    }
    assert_eq!(world.settled(), [(ticket, no_endpoint())]);
    assert_eq!((moves, world.count(Count::CallsMoved)), (5, 4), "two attempts and two more");
}

// spec: L-29
#[test]
fn the_head_of_a_line_takes_its_line_along() {
    let (mut world, links) = World::two(0);
    world.view(links[1], View::Down, 0);
    world.stuck.push(links[0]);
    let tickets = [world.ask_as(1, ORDERED, b"1"), world.ask_as(1, ORDERED, b"2")];
    world.view_unheard(links[1], View::Up);
    world.forwarder.link_lost(world.now, links[0], &"gone");
    for (ticket, payload) in tickets.into_iter().zip([b"1", b"2"]) {
        let call = world.call(links[1]);
        assert_eq!((&call.payload[..], &call.ordering_key[..]), (&payload[..], &[1; 16][..]));
        world.reply(links[1], &call, b"");
        assert_eq!(world.settled(), [(ticket, done())]);
    }
}

// spec: L-76
#[test]
fn those_that_must_wait_go_before_the_others() {
    let (mut world, links, _) = stuck(&[b"1", b"2"]);
    world.view_unheard(links[0], View::Down);
    let view = v1::ServiceView { outstanding_max: 1, ..v1::ServiceView::default() };
    world.say(links[1], to_gateway::Member::Pong(v1::LinkPong { nonce: 0, view: Some(view) }));
    world.ask(b"has the place");
    world.ask(b"waits");
    world.forwarder.link_lost(world.now, links[0], &"gone");
    for payload in [&b"has the place"[..], b"1", b"2", b"waits"] {
        let call = world.call(links[1]);
        assert_eq!(&call.payload[..], payload);
        world.reply(links[1], &call, b"");
    }
}

#[test]
fn a_worker_that_stops_moves_and_tries_nothing() {
    let (mut world, links): (World, [LinkKey; 4]) = World::several(0, idempotent);
    world.stuck.push(links[0]);
    for _ in 0..40 {
        world.ask(b"");
    }
    world.flush();
    world.forwarder.stop(world.now);
    assert_eq!(world.settled().len(), 40);
    assert_eq!((world.count(Count::RetriesTried), world.count(Count::CallsMoved)), (0, 0));
    assert_eq!(world.count(Count::CallsSent), 40);
}
