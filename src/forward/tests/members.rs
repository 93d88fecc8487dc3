//! Endpoints that come, go, and come back, while calls are under way.

use super::*;
use crate::base::ids::WorkerId;
use crate::routing::{Instance, Pools, Standing};
use std::sync::atomic::Ordering;

const SERVICE: ServiceId = ServiceId(0);

fn at(host: u8) -> Instance {
    Instance::at(SocketAddr::from(([192, 0, 2, host], 7100)))
}

/// A world, its links, and the pools that a registry publishes to.
fn world<const N: usize>() -> (World, [LinkKey; N], Arc<Pools>) {
    let mut pools = None;
    let (world, links) = World::several(0, |parts| pools = Some(parts.pools.clone()));
    (world, links, pools.unwrap())
}

impl World {
    fn publish(&mut self, pools: &Pools, instances: &[Instance]) {
        pools.publish(SERVICE, instances);
        assert!(self.forwarder.has_news());
        self.forwarder.refresh(self.now);
        assert!(!self.forwarder.has_news());
    }

    /// The address that is dialled next.
    fn dials(&mut self) -> Option<(LinkKey, SocketAddr)> {
        match self.forwarder.next_command() {
            Some(LinkCommand::Dial(key, address)) => Some((key, address)),
            other => {
                assert_eq!(other, None);
                None
            }
        }
    }
}

#[test]
fn one_that_joins_is_dialled_and_the_others_keep_their_links() {
    let (mut world, [one], pools) = world();
    world.publish(&pools, &[at(1), at(2)]);
    let (two, address) = world.dials().unwrap();
    assert_eq!((address, world.dials()), (at(2).address, None));
    world.open(two, 0);
    assert_eq!(world.readiness.links(SERVICE), 2);
    world.ask(b"");
    world.ask(b"");
    assert_eq!((world.calls(one).len(), world.calls(two).len()), (1, 1));
    assert_eq!(world.count(Count::EndpointsJoined), 2);
    world.publish(&pools, &[at(2), at(1)]);
    assert_eq!((world.dials(), world.count(Count::EndpointsLeft)), (None, 0), "the order says nothing");
}

// spec: L-72
#[test]
fn one_that_leaves_finishes_its_calls_and_gets_no_new_ones() {
    let (mut world, [one, two], pools) = world();
    world.ask(b"");
    let (on, call) = world.call_on_any(&[one, two]);
    let (leaving, staying) = if on == 0 { (one, two) } else { (two, one) };
    world.publish(&pools, &[at(if on == 0 { 2 } else { 1 })]);
    assert_eq!((world.readiness.links(SERVICE), world.forwarder.links()), (1, 2));
    for _ in 0..3 {
        world.ask(b"");
    }
    assert_eq!((world.calls(leaving).len(), world.calls(staying).len()), (0, 3));
    assert_eq!(world.forwarder.next_command(), None, "its call is not answered yet");
    world.reply(leaving, &call, b"the last");
    assert_eq!(world.settled().len(), 1);
    assert!(world.closes_behind_a_ping(leaving), "it has no outstanding calls");
    world.pass(Duration::from_secs(1));
    assert!(world.dials().is_none(), "it is not dialled again");
    assert_eq!(world.forwarder.services[0].pool.member(on).map(|member| member.id), None, "its seat is free");
}

#[test]
fn one_that_is_leaving_until_its_calls_time_is_over_is_closed_then() {
    let (mut world, [one, two], pools) = world();
    let ticket = world.ask_until(1, PLAIN, b"", world.now + Duration::from_secs(1));
    let (on, _) = world.call_on_any(&[one, two]);
    let links = [one, two];
    world.publish(&pools, &[at(if on == 0 { 2 } else { 1 })]);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.settled(), [(ticket, Outcome::unknown(Code::DeadlineExceeded, Reason::Timeout))]);
    for _ in 0..9 {
        links
            .iter()
            .filter(|link| world.forwarder.links.get(**link).is_some_and(|link| link.is_open()))
            .copied()
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|link| world.view(link, View::Up, 0));
        world.pass(Duration::from_secs(1));
    }
    let commands: Vec<_> = std::iter::from_fn(|| world.forwarder.next_command()).collect();
    assert!(
        commands.contains(&LinkCommand::EndStream(links[on])),
        "after the grace of its call: {commands:?}"
    );
    world.pass(Duration::from_secs(3));
    assert_eq!(world.forwarder.links(), 1);
}

#[test]
fn one_that_is_back_before_it_is_gone_goes_on_with_its_links() {
    let (mut world, [one], pools) = world();
    let first = world.ask(b"1");
    let call = world.call(one);
    world.publish(&pools, &[]);
    let refused = world.ask(b"2");
    assert_eq!(world.settled(), [(refused, no_endpoint())]);
    world.publish(&pools, &[at(1)]);
    assert_eq!((world.dials(), world.readiness.links(SERVICE)), (None, 1));
    world.ask(b"3");
    assert_eq!(&world.call(one).payload[..], b"3");
    world.reply(one, &call, b"");
    assert_eq!(world.settled(), [(first, done())]);
    assert_eq!(world.forwarder.links(), 1);
}

#[test]
fn one_that_its_registry_says_is_leaving_drains_too() {
    let (mut world, [one], pools) = world();
    let leaving = Instance { standing: Standing::Leaving, ..at(1) };
    world.publish(&pools, &[leaving, at(2)]);
    assert_eq!(world.dials().map(|(_, address)| address), Some(at(2).address));
    assert!(world.closes_behind_a_ping(one), "it has nothing to do");
}

#[test]
fn a_connection_under_way_to_one_that_leaves_is_given_up() {
    let mut pools = None;
    let mut world = World::with(1, |parts| pools = Some(parts.pools.clone()));
    let (link, pools) = (world.dialled(), pools.unwrap());
    world.publish(&pools, &[]);
    assert!(world.closes(link));
    world.publish(&pools, &[at(1)]);
    assert_eq!(world.dials().map(|(_, address)| address), Some(at(1).address));
}

#[test]
fn a_seat_that_is_taken_again_is_not_taken_for_its_first_owner() {
    let (mut world, [one], pools) = world();
    world.forwarder.link_lost(world.now, one, &"gone");
    assert!(world.closes(one));
    // Its redial is armed, and the seat is another's when it rings.
    world.publish(&pools, &[]);
    world.publish(&pools, &[at(9)]);
    let (nine, address) = world.dials().unwrap();
    assert_eq!(address, at(9).address);
    world.open(nine, 0);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.dials(), None, "nobody dials the first again, and nobody the second twice");
    world.ask(b"");
    let call = world.call(nine);
    world.reply(nine, &call, b"");
    let decided = world.decided();
    assert_eq!(pools.address(crate::routing::EndpointId(decided[0].1)), Some((SERVICE, at(9).address)));
}

#[test]
fn what_waits_goes_to_one_that_joins() {
    let mut pools = None;
    let (mut world, [_one]) = World::several(1, |parts| pools = Some(parts.pools.clone()));
    let pools = pools.unwrap();
    world.ask(b"fills the first");
    world.ask(b"waits");
    world.flush();
    world.publish(&pools, &[at(1), at(2)]);
    let (two, _) = world.dials().unwrap();
    world.open_silently(two);
    assert_eq!(&world.call(two).payload[..], b"waits");
}

impl World {
    /// Takes a link to ready without looking at what comes on it at once.
    fn open_silently(&mut self, link: LinkKey) {
        self.forwarder.connected(self.now, link, NONCE);
        self.say(link, to_gateway::Member::HelloAck(hello_ack()));
    }
}

#[test]
fn all_workers_count_the_links_of_an_endpoint_together() {
    let mut shared = None;
    let (mut one, [link]) = World::several::<1>(0, |parts| shared = Some(parts.pools.clone()));
    let shared = shared.unwrap();
    let mut two = World::with(1, |parts| {
        parts.id = WorkerId(1);
        parts.pools = shared.clone();
    });
    let links = || shared.members(SERVICE)[0].vitals.links.load(Ordering::Relaxed);
    assert_eq!(links(), 1);
    let other = two.dialled();
    two.open(other, 0);
    assert_eq!(links(), 2);
    one.forwarder.link_lost(one.now, link, &"gone");
    assert_eq!(links(), 1);
    two.view(other, View::Down, 0);
    assert_eq!(links(), 0, "a link that takes no calls is not ready");
    // Each takes in what is published by itself.
    shared.publish(SERVICE, &[]);
    assert!(one.forwarder.has_news() && two.forwarder.has_news());
    one.forwarder.refresh(one.now);
    assert!(!one.forwarder.has_news() && two.forwarder.has_news());
    two.forwarder.refresh(two.now);
    assert!(two.closes_behind_a_ping(other));
}

#[test]
fn what_one_worker_ejects_no_other_uses() {
    let mut shared = None;
    let (mut one, links) = World::several::<3>(0, |parts| shared = Some(parts.pools.clone()));
    let shared = shared.unwrap();
    let (mut two, others) = World::several::<3>(0, |parts| {
        parts.id = WorkerId(1);
        parts.pools = shared.clone();
    });
    while shared.ejected(SERVICE) == 0 {
        one.ask(b"");
        let (on, call) = one.call_on_any(&links);
        match on {
            0 => one.fail(links[0], &call, (Code::Internal, Reason::Unspecified), Execution::Executed),
            _ => one.reply(links[on], &call, b""),
        }
    }
    for _ in 0..9 {
        two.ask(b"");
    }
    let counts = others.map(|link| two.calls(link).len());
    assert_eq!((counts[0], counts[1] + counts[2]), (0, 9), "{counts:?}");
}
