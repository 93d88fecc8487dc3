//! Links that are ready: what services say of themselves, and how links end and come back.

use super::*;
use moorgate_proto::limits::FRAME_BYTES_CEILING;

/// How late a deadline may be noticed.
const TICK: Duration = Duration::from_millis(9);

// spec: L-37, S-9
#[test]
fn a_lost_link_settles_what_was_on_it() {
    let (mut world, links) = World::two(0);
    let tickets = [world.ask(b"1"), world.ask(b"2")];
    assert_eq!((world.calls(links[0]).len(), world.calls(links[1]).len()), (1, 1));
    world.forwarder.link_lost(world.now, links[0], &"gone");
    assert_eq!(world.settled(), [(tickets[0], Outcome::unknown(Code::Aborted, Reason::EndpointLost))]);
    assert!(world.closes(links[0]));
    assert_eq!((world.count(Count::CallsLost), world.count(Count::LinksLost)), (1, 1));
    assert_eq!(world.forwarder.calls(), 1, "the other one is still out");
}

#[test]
fn a_lost_link_settles_nothing_twice() {
    let (mut world, link) = World::ready(1);
    world.ask_until(1, PLAIN, b"1", world.now + Duration::from_secs(1));
    world.flush();
    world.pass(Duration::from_secs(2));
    let waiting = world.ask(b"2");
    assert_eq!(world.settled().len(), 1, "its deadline");
    world.forwarder.link_lost(world.now, link, &"gone");
    assert_eq!(world.settled(), [(waiting, no_endpoint())]);
    assert_eq!(world.forwarder.calls(), 0);
}

#[test]
fn what_waits_goes_to_the_link_that_is_left() {
    let (mut world, links) = World::two(1);
    let tickets = [world.ask(b"1"), world.ask(b"2"), world.ask(b"3")];
    world.flush();
    world.forwarder.link_lost(world.now, links[1], &"gone");
    let lost = Outcome::unknown(Code::Aborted, Reason::EndpointLost);
    assert_eq!(world.settled(), [(tickets[1], lost)]);
    let call = world.call(links[0]);
    world.reply(links[0], &call, b"");
    assert_eq!(&world.call(links[0]).payload[..], b"3");
}

// spec: L-45
#[test]
fn a_draining_link_finishes_its_calls_and_gets_no_new_ones() {
    let (mut world, link) = World::ready(1);
    let tickets = [world.ask(b"1"), world.ask(b"2")];
    let call = world.call(link);
    world.say(link, to_gateway::Member::Drain(v1::LinkDrain::default()));
    assert_eq!(world.settled(), [(tickets[1], no_endpoint())], "what waits has nowhere to go");
    assert_eq!(world.readiness.links(ServiceId(0)), 0);
    let third = world.ask(b"3");
    world.reply(link, &call, b"");
    assert_eq!(world.settled(), [(third, no_endpoint()), (tickets[0], done())]);
    assert!(world.closes_behind_a_ping(link), "it has no outstanding calls");
}

#[test]
fn a_link_without_calls_is_closed_when_its_service_drains() {
    let (mut world, link) = World::ready(0);
    world.say(link, to_gateway::Member::Drain(v1::LinkDrain::default()));
    assert!(world.closes_behind_a_ping(link));
    assert_eq!(world.readiness.links(ServiceId(0)), 0);
    let (delay, _) = redial(&mut world);
    assert!(delay <= Settings::default().reconnect_min + TICK, "{delay:?}: the service may be back at once");
}

// spec: L-40
#[test]
fn a_service_that_is_down_gets_no_calls_until_it_is_up() {
    let (mut world, link) = World::ready(0);
    assert_eq!(world.readiness.links(ServiceId(0)), 1);
    for state in [View::Down, View::Draining] {
        world.view(link, state, 0);
        let ticket = world.ask(b"");
        assert_eq!(world.settled(), [(ticket, no_endpoint())], "{state:?}");
        assert_eq!(world.readiness.links(ServiceId(0)), 0);
    }
    for state in [View::Degraded, View::Up] {
        world.view(link, state, 0);
        world.ask(b"");
        assert_eq!(world.calls(link).len(), 1, "{state:?}");
        assert_eq!(world.readiness.links(ServiceId(0)), 1);
    }
}

// spec: L-16
#[test]
fn a_frame_that_breaks_the_contract_closes_the_link() {
    let (mut world, link) = World::ready(0);
    let ticket = world.ask(b"");
    world.flush();
    world.hear(link, &[0, 0, 0, 2, 0x4a, 5]);
    assert!(world.closes(link));
    assert_eq!(world.count(Count::LinkGarbage), 1);
    assert_eq!(world.settled(), [(ticket, Outcome::unknown(Code::Aborted, Reason::EndpointLost))]);
}

// spec: L-19
#[test]
fn an_error_of_the_service_ends_the_link() {
    let (mut world, link) = World::ready(0);
    world.say(link, to_gateway::Member::Error(v1::LinkError::default()));
    assert!(world.closes(link));
    assert_eq!(world.count(Count::LinkGarbage), 0, "it is within the contract");
}

// spec: L-18
#[test]
fn members_of_a_newer_contract_are_ignored() {
    let (mut world, link) = World::ready(0);
    // Member 60, an empty message.
    world.hear(link, &[0, 0, 0, 3, 0xe2, 3, 0]);
    assert_eq!((world.forwarder.links(), world.forwarder.next_command()), (1, None));
}

// spec: L-43
#[test]
fn a_silent_link_is_asked_and_then_given_up() {
    let (mut world, link) = World::ready(0);
    let heartbeat = Settings::default().heartbeat;
    world.pass(heartbeat * 11 / 10 + TICK);
    let [to_service::Member::Ping(ping)] = &world.heard(link)[..] else { panic!("a ping") };
    let pong = v1::LinkPong { nonce: ping.nonce, view: None };
    world.say(link, to_gateway::Member::Pong(pong));
    world.pass(heartbeat * 11 / 10 + TICK);
    assert!(matches!(world.heard(link)[..], [to_service::Member::Ping(_)]), "the pong was life");
    world.pass(heartbeat * 9 / 10 - 3 * TICK);
    assert_eq!(world.forwarder.links(), 1);
    world.pass(3 * TICK);
    assert!(world.closes(link), "silence for twice the interval");
}

// spec: L-43
#[test]
fn link_is_never_closed_without_an_unanswered_ping() {
    let (mut world, link) = World::ready(0);
    let heartbeat = Settings::default().heartbeat;
    // The worker did not run for long: its ping is late, not the service.
    world.now = world.now + heartbeat * 5;
    world.forwarder.timers(world.now);
    assert!(matches!(world.heard(link)[..], [to_service::Member::Ping(_)]));
    world.pass(heartbeat / 2 - TICK);
    assert_eq!(world.forwarder.links(), 1, "the ping has its time to be answered");
    world.pass(2 * TICK);
    assert!(world.closes(link), "it was not answered");
}

// spec: L-43
#[test]
fn a_link_is_asked_although_it_is_busy_and_not_in_step_with_others() {
    let mut world = World::new(8);
    let links: Vec<LinkKey> = (0..8).map(|_| world.dialled()).collect();
    links.iter().for_each(|link| world.open(*link, 0));
    let (begun, heartbeat) = (world.now, Settings::default().heartbeat);
    let mut asked = HashMap::new();
    while world.now < begun + heartbeat * 12 / 10 {
        world.pass(heartbeat / 100);
        for link in &links {
            let pings = world.heard(*link);
            if pings.iter().any(|member| matches!(member, to_service::Member::Ping(_))) {
                asked.entry(*link).or_insert(world.now.since(begun));
            }
            world.view(*link, View::Up, 0);
        }
    }
    let (first, last) = (asked.values().min().unwrap(), asked.values().max().unwrap());
    assert_eq!(asked.len(), 8, "each, although something came all the time");
    assert!(*first >= heartbeat * 9 / 10 && *last <= heartbeat * 112 / 100, "{first:?} to {last:?}");
    assert!(*last - *first > heartbeat / 50, "{first:?} to {last:?}: spread");
}

/// How long until the endpoint is dialled again.
fn redial(world: &mut World) -> (Duration, LinkKey) {
    let begun = world.now;
    loop {
        world.now = world.forwarder.next_deadline().unwrap().max(world.now);
        world.forwarder.timers(world.now);
        if let Some(LinkCommand::Dial(key, _)) = world.forwarder.next_command() {
            return (world.now.since(begun), key);
        }
    }
}

// spec: L-14
#[test]
fn the_delay_before_the_next_attempt_grows_and_starts_again() {
    let mut world = World::new(1);
    let mut link = world.dialled();
    let Settings { reconnect_min, reconnect_max, .. } = Settings::default();
    for failures in 1..12 {
        world.forwarder.link_lost(world.now, link, &"refused");
        assert!(world.closes(link));
        let longest = reconnect_min.saturating_mul(1 << (failures - 1)).min(reconnect_max);
        let (delay, next) = redial(&mut world);
        assert!(delay >= longest / 2 && delay <= longest + TICK, "{delay:?} after {failures} failures");
        link = next;
    }
    // A link that is lost as soon as it is ready is another failure: it has not lasted.
    for end in ["lost", "over", "drained", "error"] {
        world.open(link, 0);
        match end {
            "lost" => world.forwarder.link_lost(world.now, link, &"gone"),
            "over" => world.forwarder.link_over(world.now, link),
            "drained" => world.say(link, to_gateway::Member::Drain(v1::LinkDrain::default())),
            _ => world.say(link, to_gateway::Member::Error(v1::LinkError::default())),
        }
        assert!(world.closes_behind_a_ping(link), "{end}");
        let (delay, next) = redial(&mut world);
        assert!(delay >= reconnect_max / 2, "{delay:?} after {end}");
        link = next;
    }
    world.open(link, 0);
    let end = world.now + reconnect_max;
    while world.now < end {
        world.pass(Duration::from_secs(1));
        world.view(link, View::Up, 0);
    }
    world.forwarder.link_lost(world.now, link, &"gone");
    assert!(world.closes(link));
    let (delay, _) = redial(&mut world);
    assert!(delay <= reconnect_min + TICK, "{delay:?}: it has lasted");
}

#[test]
fn each_endpoint_has_as_many_links_as_configured() {
    let mut world = World::with(2, |parts| parts.settings.links_per_endpoint = 3);
    let links: Vec<LinkKey> = (0..6).map(|_| world.dialled()).collect();
    assert_eq!(world.forwarder.next_command(), None);
    links.iter().for_each(|link| world.open(*link, 0));
    for _ in 0..6 {
        world.ask(b"");
    }
    for link in links {
        assert_eq!(world.calls(link).len(), 1, "calls spread over endpoints and links");
    }
}

#[test]
fn a_worker_that_stops_closes_its_links_and_dials_no_more() {
    let (mut world, link) = World::ready(0);
    let sent = world.ask(b"");
    world.flush();
    let unsent = world.ask(b"");
    world.forwarder.stop(world.now);
    assert!(world.closes(link));
    let lost = Outcome::unknown(Code::Aborted, Reason::EndpointLost);
    assert_eq!(world.settled(), [(sent, lost), (unsent, no_endpoint())]);
    world.pass(Duration::from_secs(60));
    assert_eq!((world.forwarder.next_command(), world.forwarder.links()), (None, 0));
}

// spec: L-12, S-13
#[test]
fn no_call_is_above_the_largest_frame_of_the_contract() {
    let (mut world, _) = World::ready(0);
    let payload: &'static [u8] = vec![0; FRAME_BYTES_CEILING].leak();
    let largest = world.ask(&payload[..FRAME_BYTES_CEILING - 1024]);
    let bulk = world.dialled();
    assert_eq!(world.open_bulk(bulk).len(), 1);
    let refused = world.ask(&payload[..FRAME_BYTES_CEILING - 8]);
    let outcome = Outcome::refused(Code::InvalidArgument, Reason::PayloadTooLarge);
    assert_eq!(world.settled(), [(refused, outcome)], "and not {largest:?}");
}

// spec: L-47
#[test]
fn a_service_that_asks_and_does_not_read_is_given_up() {
    let (mut world, link) = World::ready(0);
    world.stuck.push(link);
    let ticket = world.ask(b"");
    let push = v1::ServicePush { push_id: vec![5; 64].into(), ..v1::ServicePush::default() };
    for _ in 0..100_000 {
        world.say(link, to_gateway::Member::Push(push.clone()));
        world.flush();
    }
    assert_eq!(world.settled(), [(ticket, no_endpoint())], "nothing of it was sent");
    assert_eq!(world.count(Count::LinkGarbage), 1);
    world.pass(Duration::from_secs(3));
    let commands: Vec<_> = std::iter::from_fn(|| world.forwarder.next_command()).collect();
    assert!(
        commands.contains(&LinkCommand::Close(link)),
        "although it does not take what it is owed: {commands:?}"
    );
}

#[test]
fn a_service_that_does_not_read_and_asks_a_little_keeps_its_link() {
    let (mut world, link) = World::ready(0);
    world.stuck.push(link);
    for _ in 0..1000 {
        world.say(link, to_gateway::Member::Ping(v1::LinkPing { nonce: 3, view: None }));
        world.flush();
    }
    world.unstick(link);
    assert_eq!(world.heard(link).len(), 1000);
}

// spec: L-43
#[test]
fn socket_that_takes_bytes_slowly_is_life() {
    let (mut world, link) = World::ready(0);
    world.stuck.push(link);
    let payload: &'static [u8] = &[7; 3000];
    let ticket = world.ask_until(1, PLAIN, payload, world.now + Duration::from_secs(1000));
    world.flush();
    // For longer than a silent service has, pings wait behind the call.
    for _ in 0..60 {
        world.pass(Duration::from_secs(1));
        world.forwarder.sent(world.now, link, 10);
        world.flush();
    }
    assert_eq!((world.settled(), world.forwarder.links()), (vec![], 1));
    world.pass(Settings::default().heartbeat);
    let lost = Outcome::unknown(Code::Aborted, Reason::EndpointLost);
    assert_eq!(world.settled(), [(ticket, lost)], "its socket takes nothing");
}

// spec: L-43
#[test]
fn socket_that_was_never_full_does_not_delay_silence() {
    let (mut world, link) = World::ready(0);
    let end = world.now + Settings::default().heartbeat * 2 + Duration::from_secs(1);
    while world.now < end {
        world.ask(b"");
        world.pass(Duration::from_millis(100));
        world.flush();
    }
    let commands: Vec<_> = std::iter::from_fn(|| world.forwarder.next_command()).collect();
    assert!(commands.contains(&LinkCommand::EndStream(link)), "{commands:?}");
}

#[test]
fn session_checks_wait_until_the_first_service_is_up() {
    let mut world = World::with(1, |parts| parts.check_service = Some(ServiceId(0)));
    let link = world.dialled();
    world.check();
    world.forwarder.connected(world.now, link, NONCE);
    let view = |state: View| Some(v1::ServiceView { state: state.into(), ..v1::ServiceView::default() });
    let ack = v1::LinkHelloAck { view: view(View::Down), ..hello_ack() };
    world.say(link, to_gateway::Member::HelloAck(ack));
    let checks = |heard: &[to_service::Member]| {
        heard.iter().filter(|member| matches!(member, to_service::Member::SessionCheck(_))).count()
    };
    assert_eq!(checks(&world.heard(link)), 0);
    world.check();
    let ping = v1::LinkPing { nonce: 3, view: view(View::Up) };
    world.say(link, to_gateway::Member::Ping(ping));
    assert_eq!((checks(&world.heard(link)), world.forwarder.checks()), (2, 2));
    world.check();
    assert_eq!(checks(&world.heard(link)), 1, "it waits for no other link");
}
