//! What a pool is told of an endpoint by calls that end without its answer, and by choices that come to nothing.

use super::*;
use crate::relay::{Check, ForwardBatch};
use crate::routing::{Bounds, Calls, CanarySettings, Instance, Pools};

/// Of the route.
const TIMEOUT: Duration = Duration::from_secs(2);

fn ejected(world: &World) -> u64 {
    world.forwarder.pools.ejected(ServiceId(0))
}

/// Within which deadlines are looked at.
const SLACK: Duration = Duration::from_millis(20);

/// Calls that nobody answers, with so much time each.
fn unanswered(world: &mut World, calls: usize, time: Duration) {
    for _ in 0..calls {
        world.ask_until(7, PLAIN, b"", world.now + time);
    }
    world.flush();
    world.pass(time + SLACK);
    assert_eq!(world.settled().len(), calls);
}

fn several(change: impl FnOnce(&mut Parts)) -> (World, [LinkKey; 6]) {
    World::several(0, |parts| {
        parts.routes = routes_with(|route| route.timeout = TIMEOUT);
        change(parts);
    })
}

#[test]
fn a_client_with_little_time_says_nothing_of_an_endpoint() {
    let (mut world, _) = several(|_| ());
    unanswered(&mut world, 100, Duration::from_millis(1));
    unanswered(&mut world, 100, TIMEOUT / 2 - Duration::from_millis(1));
    assert_eq!(ejected(&world), 0);
    unanswered(&mut world, 100, TIMEOUT / 2 + Duration::from_millis(1));
    assert!(ejected(&world) > 0, "that was time enough");
}

#[test]
fn what_is_usual_is_time_enough_where_it_is_known() {
    let (mut world, links) = several(|parts| {
        parts.routes = routes_with(|route| {
            (route.timeout, route.idempotent, route.hedge) = (TIMEOUT, true, true);
        });
        parts.services[0].pool.retry.hedge_percent_max = 0;
    });
    for _ in 0..100 {
        world.ask(b"");
        let (on, call) = world.call_on_any(&links);
        world.now = world.now + Duration::from_millis(10);
        world.reply(links[on], &call, b"");
    }
    world.settled();
    unanswered(&mut world, 100, Duration::from_millis(30));
    assert_eq!(ejected(&world), 0);
    unanswered(&mut world, 100, Duration::from_millis(60));
    assert!(ejected(&world) > 0);
}

#[test]
fn what_a_client_cancels_says_nothing_of_an_endpoint() {
    let (mut world, _) = several(|_| ());
    let tickets: Vec<_> = (0..100).map(|_| world.ask_until(7, PLAIN, b"", world.now + TIMEOUT)).collect();
    world.flush();
    tickets.into_iter().for_each(|ticket| world.cancel(ticket));
    world.pass(TIMEOUT * 2);
    assert_eq!((world.settled().len(), ejected(&world)), (100, 0));
}

#[test]
fn a_lost_link_counts_once_however_much_was_on_it() {
    let mut world = World::with(3, |parts| parts.check_service = Some(ServiceId(0)));
    let links = [world.dialled(), world.dialled(), world.dialled()];
    links.iter().for_each(|link| world.open(*link, 0));
    for _ in 0..60 {
        world.ask(b"");
        world.check();
    }
    world.flush();
    world.forwarder.link_lost(world.now, links[0], &"reset");
    assert!(world.settled().len() >= 10);
    assert_eq!(ejected(&world), 0);
    // As many as failures in a row eject, with one call each.
    for lost in 1..5 {
        let link = loop {
            match world.forwarder.next_command().or_else(|| {
                world.pass(Duration::from_secs(1));
                world.forwarder.next_command()
            }) {
                Some(LinkCommand::Dial(link, _)) => break link,
                _ => continue,
            }
        };
        world.open(link, 0);
        world.settled();
        let sent = (0..60).find(|_| {
            world.ask(b"");
            !world.calls(link).is_empty()
        });
        assert!(sent.is_some());
        assert_eq!(ejected(&world), 0, "after {lost}");
        world.forwarder.link_lost(world.now, link, &"reset");
    }
    assert_eq!(ejected(&world), 1);
}

impl World {
    /// A shard asks about a session.
    pub(super) fn check(&mut self) {
        let mut batch = ForwardBatch { shard: SHARD, ..ForwardBatch::default() };
        let caller = batch.arena.put(&v1::Caller::default().encode_to_vec());
        batch.checks.push(Check {
            connection: crate::base::ids::ConnectionKey::new(1, 1),
            caller,
            deadline: self.now + Duration::from_secs(20),
        });
        self.forwarder.forward(self.now, &batch);
    }
}

#[test]
fn a_question_that_is_over_makes_room() {
    for is_answered in [true, false] {
        let mut world = World::with(1, |parts| {
            parts.check_service = Some(ServiceId(0));
            parts.services[0].pool.bounds = Bounds { outstanding_max: 1, ..Bounds::default() };
        });
        let link = world.dialled();
        world.open(link, 0);
        world.check();
        let heard = world.heard(link);
        let id = heard.iter().find_map(|member| match member {
            to_service::Member::SessionCheck(check) => Some(check.check_id),
            _ => None,
        });
        world.ask_until(1, PLAIN, b"waits", world.now + Duration::from_secs(60));
        assert!(world.calls(link).is_empty());
        if is_answered {
            let verdict = v1::SessionVerdict { check_id: id.unwrap(), admitted: true, ..Default::default() };
            world.say(link, to_gateway::Member::SessionVerdict(verdict));
        } else {
            for _ in 0..21 {
                world.view(link, View::Up, 0);
                world.pass(Duration::from_secs(1));
            }
        }
        assert_eq!(&world.call(link).payload[..], b"waits");
    }
}

/// An endpoint and one with the tag `c`, which takes nobody but the role `t`; each takes one call.
fn canary(share: u32) -> (World, [LinkKey; 2]) {
    let mut world = World::with(1, |parts| {
        let mut canary = Instance::at(SocketAddr::from(([192, 0, 2, 2], 7100)));
        canary.tags = Instance::sorted_tags(["c"].into_iter());
        parts.services[0].endpoints.push(canary);
        let roles = vec!["t".to_owned()];
        let pool = &mut parts.services[0].pool;
        pool.canary = Some(CanarySettings { tag: "c".into(), share, roles, hello: vec![] });
        pool.bounds = Bounds { endpoint_outstanding_max: 1, ..Bounds::default() };
        parts.pools = Arc::new(Pools::of(&parts.services));
    });
    let links = [world.dialled(), world.dialled()];
    links.iter().for_each(|link| world.open(*link, 0));
    (world, links)
}

impl World {
    fn ask_with(&mut self, roles: &[&str], payload: &'static [u8]) {
        let ticket = Ticket::new(self.tickets, 0);
        self.tickets += 1;
        let mut batch = ForwardBatch { shard: SHARD, ..ForwardBatch::default() };
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        let caller = v1::Caller { user_id: "alice".to_owned(), roles, ..v1::Caller::default() };
        let call =
            v1::Call { command: PLAIN, caller: Some(caller), payload: payload.into(), ..v1::Call::default() };
        batch.forwards.push(Forward {
            ticket,
            session: SessionKey::new(1000 + self.tickets, 0),
            session_id: SessionId([1; 16]),
            route: RouteId(0),
            caller: 0,
            deadline: self.now + Duration::from_secs(30),
            call: batch.arena.encode(&call),
        });
        self.forwarder.forward(self.now, &batch);
    }
}

#[test]
fn a_full_canary_does_not_hold_the_others_up() {
    let (mut world, [usual, canary]) = canary(0);
    world.ask_with(&["t"], b"c1");
    world.ask_with(&[], b"o1");
    drop(world.call(canary));
    let call = world.call(usual);
    world.ask_with(&["t"], b"c2");
    world.ask_with(&[], b"o2");
    world.reply(usual, &call, b"");
    assert_eq!(&world.call(usual).payload[..], b"o2");
}

#[test]
fn a_call_that_the_only_canary_refused_is_tried_again_if_at_all_elsewhere() {
    let (mut world, [usual, canary]) = canary(0);
    world.ask_with(&["t"], b"");
    let call = world.call(canary);
    world.fail(canary, &call, (Code::Unavailable, Reason::Draining), Execution::NotExecuted);
    assert!(world.calls(canary).is_empty());
    assert_eq!(world.calls(usual).len() + world.settled().len(), 1);
}

#[test]
fn a_probe_that_fits_into_no_frame_leaves_the_next_one_its_chance() {
    let (mut world, links): (World, [LinkKey; 2]) = World::several(0, |_| ());
    while ejected(&world) == 0 {
        world.ask(b"");
        let (on, call) = world.call_on_any(&links);
        let code = if on == 0 { Code::Internal } else { Code::Ok };
        world.fail(links[on], &call, (code, Reason::Unspecified), Execution::Executed);
    }
    world.pass(Duration::from_secs(3));
    world.settled();
    let whole = world.forwarder.links.get(links[0]).map(|link| link.frame_bytes_max).unwrap();
    world.forwarder.links.get_mut(links[0]).unwrap().frame_bytes_max = 4;
    world.ask(b"too large for it");
    assert_eq!(world.settled()[0].1.reason, Reason::PayloadTooLarge, "it was to be the probe");
    let members = world.forwarder.pools.members(ServiceId(0));
    assert!(members.iter().all(|member| !member.vitals.ejection.is_probed()));
    world.forwarder.links.get_mut(links[0]).unwrap().frame_bytes_max = whole;
    world.ask(b"");
    assert_eq!(world.calls(links[0]).len(), 1, "the probe");
}

#[test]
fn calls_are_counted_for_each_endpoint_and_by_how_they_failed() {
    let (mut world, link) = World::ready(0);
    let calls = |world: &World| world.forwarder.pools.members(ServiceId(0))[0].vitals.calls();
    let failed = |world: &mut World, status, execution| {
        world.ask(b"");
        let call = world.call(link);
        world.fail(link, &call, status, execution);
    };
    failed(&mut world, (Code::Internal, Reason::Internal), Execution::Executed);
    failed(&mut world, (Code::ResourceExhausted, Reason::ServiceOverloaded), Execution::Executed);
    // What is wrong with the request is none of its faults, and what its client gives up is not either.
    failed(&mut world, (Code::InvalidArgument, Reason::Unspecified), Execution::Executed);
    let ticket = world.ask_until(7, PLAIN, b"", world.now + TIMEOUT);
    world.flush();
    world.cancel(ticket);
    world.pass(TIMEOUT + SLACK);
    assert_eq!(calls(&world), Calls { sent: 4, failed: [1, 1, 0, 0] });
    world.settled();
    unanswered(&mut world, 2, Duration::from_millis(1));
    world.ask(b"");
    world.flush();
    world.forwarder.link_lost(world.now, link, &"reset");
    assert_eq!(calls(&world), Calls { sent: 7, failed: [1, 1, 2, 1] }, "in the order of Fault::ALL");
}
