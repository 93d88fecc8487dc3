//! Queues: what waits, in which order, and what is given up when they are full.

use super::*;
use crate::routing::{Bounds, Priority};

/// Commands of services that have their own routes, by priority.
const LOW: u32 = 1;
const NORMAL: u32 = 2;
const HIGH: u32 = 3;
/// Of the second service.
const OTHER: u32 = 4;

fn shed() -> Outcome {
    Outcome::refused(Code::ResourceExhausted, Reason::ServiceOverloaded)
}

/// Two services with one endpoint each, which takes one call at a time; and their links.
fn world(change: impl FnOnce(&mut Parts)) -> (World, [LinkKey; 2]) {
    let mut world = World::with(1, |parts| {
        let route = |command, service, priority| RouteSettings {
            priority,
            ..RouteSettings::new(Span { first: command, last: command }, ServiceId(service))
        };
        let routes = [
            route(LOW, 0, Priority::Low),
            route(NORMAL, 0, Priority::Normal),
            route(HIGH, 0, Priority::High),
            route(OTHER, 1, Priority::Normal),
        ];
        parts.routes = Arc::new(RouteTable::build(&routes).unwrap());
        let other = SocketAddr::from(([192, 0, 2, 99], 7100));
        parts.services.push(ServiceSettings::new("chat", [other]));
        parts.readiness = Arc::new(Readiness::new(2));
        change(parts);
        parts.pools = Arc::new(crate::routing::Pools::of(&parts.services));
        parts.recent = Arc::new(vec![Default::default(), Default::default()]);
    });
    let links = [world.dialled(), world.dialled()];
    links.iter().for_each(|link| world.open(*link, 1));
    (world, links)
}

impl World {
    fn ask_by(&mut self, command: u32, payload: &'static [u8]) -> Ticket {
        let ticket = Ticket::new(self.tickets, 0);
        self.tickets += 1;
        let mut batch = ForwardBatch { shard: SHARD, ..ForwardBatch::default() };
        let call = v1::Call { command, payload: payload.into(), ..v1::Call::default() };
        batch.forwards.push(Forward {
            ticket,
            session: SessionKey::new(self.tickets, 0),
            session_id: SessionId::default(),
            route: RouteId(u16::try_from(command).unwrap() - 1),
            caller: 0,
            deadline: self.now + Duration::from_secs(5),
            call: batch.arena.encode(&call),
        });
        self.forwarder.forward(self.now, &batch);
        ticket
    }
}

fn queue_of(queue_max: usize) -> Bounds {
    Bounds { queue_max, ..Bounds::default() }
}

// spec: L-76
#[test]
fn the_highest_priority_is_sent_first() {
    let (mut world, [link, _]) = world(|_| ());
    world.ask_by(LOW, b"fills the link");
    let mut call = world.call(link);
    for (command, payload) in [(LOW, &b"low"[..]), (HIGH, b"high 1"), (NORMAL, b"normal"), (HIGH, b"high 2")]
    {
        world.ask_by(command, payload);
    }
    for payload in [&b"high 1"[..], b"high 2", b"normal", b"low"] {
        world.reply(link, &call, b"");
        call = world.call(link);
        assert_eq!(&call.payload[..], payload);
    }
}

// spec: L-76, S-12
#[test]
fn a_full_queue_gives_up_the_youngest_of_the_lowest_for_a_higher_one() {
    let (mut world, [link, _]) = world(|parts| parts.services[0].pool.bounds = queue_of(3));
    world.ask_by(NORMAL, b"fills the link");
    let lows = [world.ask_by(LOW, b"1"), world.ask_by(LOW, b"2")];
    world.ask_by(NORMAL, b"3");
    let same = world.ask_by(LOW, b"as low as they are");
    assert_eq!(world.settled(), [(same, shed())]);
    world.ask_by(HIGH, b"4");
    assert_eq!(world.settled(), [(lows[1], shed())]);
    world.ask_by(HIGH, b"5");
    assert_eq!(world.settled(), [(lows[0], shed())]);
    world.ask_by(HIGH, b"6");
    assert_eq!(world.settled().len(), 1, "the normal one");
    let last = world.ask_by(HIGH, b"7");
    assert_eq!(world.settled(), [(last, shed())], "all are as high");
    let counts = [Count::CallsShedLow, Count::CallsShedNormal, Count::CallsShedHigh];
    assert_eq!(counts.map(|count| world.count(count)), [3, 1, 1]);
    drop(world.calls(link));
}

// spec: L-29, L-76
#[test]
fn one_whose_predecessor_is_given_up_for_it_is_sent_whole() {
    const LARGE: &[u8] = &[7; 2000];
    let (mut world, [link]) = World::several(0, |parts| {
        parts.settings.main_link_frame_bytes = 1000;
        parts.services[0].pool.bounds = queue_of(1);
        parts.routes = routes_with(|route| {
            let is_low = route.commands.first == PLAIN;
            (route.order, route.priority) =
                (Order::Session, if is_low { Priority::Low } else { Priority::High });
        });
    });
    let large = world.ask_as(1, PLAIN, LARGE);
    assert_eq!(world.calls(link), [], "it needs a bulk link");
    let small = world.ask_as(1, ORDERED, b"small");
    assert_eq!(world.settled(), [(large, shed())]);
    let call = world.call(link);
    assert_eq!(&call.payload[..], b"small");
    world.reply(link, &call, b"");
    assert_eq!(world.settled(), [(small, done())]);
}

#[test]
fn a_queue_is_bounded_in_bytes_too() {
    let (mut world, _) = world(|parts| {
        parts.services[0].pool.bounds = Bounds { queue_bytes_max: 1000, ..Bounds::default() };
    });
    world.ask_by(NORMAL, b"fills the link");
    world.ask_by(NORMAL, &[0; 500]);
    let second = world.ask_by(NORMAL, &[0; 500]);
    assert_eq!(world.settled(), [(second, shed())]);
    world.ask_by(NORMAL, &[0; 100]);
    assert!(world.settled().is_empty());
}

// spec: L-77
#[test]
fn a_saturated_service_leaves_another_alone() {
    let (mut world, [link, other]) = world(|parts| parts.services[0].pool.bounds = queue_of(10));
    for _ in 0..100 {
        world.ask_by(HIGH, b"");
    }
    assert_eq!((world.settled().len(), world.calls(link).len()), (89, 1));
    let tickets = [world.ask_by(OTHER, b"1"), world.ask_by(OTHER, b"2")];
    for ticket in tickets {
        let call = world.call(other);
        world.reply(other, &call, b"");
        assert_eq!(world.settled(), [(ticket, done())]);
    }
}

// spec: L-77
#[test]
fn the_service_that_waits_for_most_makes_room_for_one_that_waits_for_little() {
    let (mut world, [link, other]) = world(|parts| parts.settings.waiting_max = 20);
    for _ in 0..30 {
        world.ask_by(HIGH, b"");
    }
    world.ask_by(OTHER, b"fills the link");
    drop(world.calls(link));
    let call = world.call(other);
    assert_eq!(world.settled().len(), 9, "21 are there, one of them on the link");
    let waits: Vec<Ticket> = (0..10).map(|_| world.ask_by(OTHER, b"waits")).collect();
    assert_eq!(world.settled().len(), 10, "as many of the first service");
    let beyond = world.ask_by(OTHER, b"");
    assert_eq!(world.settled(), [(beyond, shed())], "both have as many");
    world.reply(other, &call, b"");
    assert_eq!(world.calls(other).len(), 1, "{waits:?} go on");
}

#[test]
fn a_service_has_no_more_out_than_its_bound() {
    let (mut world, links): (World, [LinkKey; 2]) = World::several(0, |parts| {
        parts.services[0].pool.bounds = Bounds { outstanding_max: 3, ..Bounds::default() };
    });
    for _ in 0..4 {
        world.ask(b"");
    }
    world.ask_as(1, ORDERED, b"1");
    let calls: Vec<_> =
        links.iter().flat_map(|link| world.calls(*link).into_iter().map(|call| (*link, call))).collect();
    assert_eq!(calls.len(), 3);
    for (link, call) in calls {
        world.reply(link, &call, b"");
    }
    let more: usize = links.iter().map(|link| world.calls(*link).len()).sum();
    assert_eq!(more, 2);
}

#[test]
fn a_place_is_free_once_a_call_is_given_up() {
    let (mut world, links): (World, [LinkKey; 2]) = World::several(0, |parts| {
        parts.services[0].pool.bounds = Bounds { outstanding_max: 1, ..Bounds::default() };
    });
    world.ask_until(1, PLAIN, b"never answered", world.now + Duration::from_secs(1));
    world.call_on_any(&links);
    world.ask(b"waits");
    world.pass(Duration::from_secs(2));
    let (_, call) = world.call_on_any(&links);
    assert_eq!(&call.payload[..], b"waits");
}

/// Calls of a few sessions in their order: those behind their heads wait.
fn in_order(parts: &mut Parts) {
    let route = |command, order, service, priority| {
        let commands = Span { first: command, last: command };
        RouteSettings { order, priority, ..RouteSettings::new(commands, ServiceId(service)) }
    };
    let routes = [
        route(LOW, Order::Session, 0, Priority::Low),
        route(HIGH, Order::None, 0, Priority::High),
        route(OTHER, Order::None, 1, Priority::Normal),
    ];
    parts.routes = Arc::new(RouteTable::build(&routes).unwrap());
}

impl World {
    fn ask_in_order(&mut self) -> Ticket {
        let ticket = Ticket::new(self.tickets, 0);
        self.tickets += 1;
        let mut batch = ForwardBatch { shard: SHARD, ..ForwardBatch::default() };
        let call = v1::Call { command: LOW, ..v1::Call::default() };
        batch.forwards.push(Forward {
            ticket,
            session: SessionKey::new(77, 0),
            session_id: SessionId([7; 16]),
            route: RouteId(0),
            caller: 0,
            deadline: self.now + Duration::from_secs(5),
            call: batch.arena.encode(&call),
        });
        self.forwarder.forward(self.now, &batch);
        ticket
    }

    fn ask_route(&mut self, route: u16) -> Ticket {
        let ticket = Ticket::new(self.tickets, 0);
        self.tickets += 1;
        let mut batch = ForwardBatch { shard: SHARD, ..ForwardBatch::default() };
        batch.forwards.push(Forward {
            ticket,
            session: SessionKey::new(self.tickets, 0),
            session_id: SessionId::default(),
            route: RouteId(route),
            caller: 0,
            deadline: self.now + Duration::from_secs(5),
            call: batch.arena.encode(&v1::Call::default()),
        });
        self.forwarder.forward(self.now, &batch);
        ticket
    }
}

// spec: L-76
#[test]
fn calls_behind_others_of_their_session_make_room_too() {
    let (mut world, [link, _]) = world(|parts| {
        in_order(parts);
        parts.services[0].pool.bounds = queue_of(3);
    });
    let tickets: Vec<Ticket> = (0..4).map(|_| world.ask_in_order()).collect();
    world.ask_route(1);
    assert_eq!(world.settled(), [(tickets[3], shed())]);
    let head = world.call(link);
    world.reply(link, &head, b"");
    assert_eq!(world.settled(), [(tickets[0], done())]);
    let call = world.call(link);
    world.reply(link, &call, b"");
    assert_eq!(world.settled().len(), 1, "the high one was first");
}

// spec: L-77
#[test]
fn calls_behind_others_of_their_session_make_room_for_other_services() {
    let (mut world, [_, other]) = world(|parts| {
        in_order(parts);
        parts.settings.waiting_max = 10;
    });
    let tickets: Vec<Ticket> = (0..11).map(|_| world.ask_in_order()).collect();
    world.ask_route(2);
    drop(world.call(other));
    world.ask_route(2);
    assert_eq!(world.settled(), [(tickets[10], shed())]);
}
