//! Bulk links: large frames go on a second link, which is opened when there are some and ends when there are none.

mod ending;

use super::*;
use crate::routing::{Priority, Right};
use to_gateway::Member as Said;
use to_service::Member as Heard;

/// Above what a main link takes here.
const LARGE: &[u8] = &[7; 2000];
const IDLE: Duration = Duration::from_secs(20);

fn small_main_links(parts: &mut Parts) {
    (parts.settings.main_link_frame_bytes, parts.settings.bulk_idle) = (1000, IDLE);
    parts.services[0].grants = Grants::NONE.with(Right::PushAll);
}

fn worlds<const N: usize>(outstanding_max: u32) -> (World, [LinkKey; N]) {
    World::several(outstanding_max, small_main_links)
}

impl World {
    /// A bulk link from its connection to ready; what is sent on it behind its LinkAuth.
    pub(super) fn open_bulk(&mut self, bulk: LinkKey) -> Vec<v1::Call> {
        self.forwarder.connected(self.now, bulk, [8; NONCE_BYTES]);
        let [Heard::Hello(hello)] = &self.heard(bulk)[..] else { panic!("a Hello comes first") };
        assert_eq!((hello.purpose(), &hello.main_nonce[..]), (v1::LinkPurpose::Bulk, &NONCE[..]));
        self.say(bulk, Said::HelloAck(hello_ack()));
        let mut heard = self.heard(bulk).into_iter();
        assert!(matches!(heard.next(), Some(Heard::Auth(_))));
        heard
            .map(|member| match member {
                Heard::Call(call) => call,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    /// A bulk link whose one call is answered.
    fn answered_bulk(&mut self) -> LinkKey {
        self.ask(LARGE);
        let bulk = self.dialled();
        let calls = self.open_bulk(bulk);
        self.reply(bulk, &calls[0], b"");
        self.settled();
        bulk
    }

    /// The next link to dial, when its time has come.
    fn dialled_later(&mut self) -> LinkKey {
        loop {
            if let Some(LinkCommand::Dial(key, _)) = self.forwarder.next_command() {
                return key;
            }
            self.now = self.forwarder.next_deadline().unwrap().max(self.now);
            self.forwarder.timers(self.now);
        }
    }

    /// Answers every ping on these links for so long.
    fn live(&mut self, links: &[LinkKey], length: Duration) {
        let end = self.now + length;
        while self.now < end {
            self.pass(Duration::from_secs(1));
            for link in links {
                for member in self.heard(*link) {
                    if let Heard::Ping(ping) = member {
                        self.say(*link, Said::Pong(v1::LinkPong { nonce: ping.nonce, view: None }));
                    }
                }
            }
        }
    }
}

// spec: L-15, L-23, L-84
#[test]
fn large_calls_wait_for_a_bulk_link_and_small_ones_do_not() {
    for reply_on_main in [false, true] {
        let (mut world, [main]) = worlds(0);
        let large = world.ask(LARGE);
        let small = world.ask(b"small");
        let call = world.call(main);
        assert_eq!(&call.payload[..], b"small");
        world.reply(main, &call, b"");
        assert_eq!(world.settled(), [(small, done())]);
        let bulk = world.dialled();
        let calls = world.open_bulk(bulk);
        assert_eq!((calls.len(), &calls[0].payload[..], calls[0].attempt), (1, LARGE, 1));
        world.reply(if reply_on_main { main } else { bulk }, &calls[0], b"");
        assert_eq!(world.settled(), [(large, done())]);
        // From now on there is one; a Reply to a call of the main link may come on it too.
        world.ask(LARGE);
        let call = world.call(bulk);
        world.reply(main, &call, b"");
        world.ask(b"small");
        let call = world.call(main);
        world.reply(bulk, &call, b"");
        assert_eq!(world.settled().len(), 2);
        assert_eq!(
            (world.forwarder.calls(), world.readiness.links(ServiceId(0))),
            (0, 1),
            "one of them is ready"
        );
    }
}

// spec: L-23
#[test]
fn a_reply_on_another_pair_counts_for_nothing() {
    let (mut world, mains) = worlds::<2>(0);
    world.ask(LARGE);
    let bulk = world.dialled();
    let calls = world.open_bulk(bulk);
    let owner = world.forwarder.links.get(bulk).and_then(|link| link.partner()).unwrap();
    let other = if mains[0] == owner { mains[1] } else { mains[0] };
    world.reply(other, &calls[0], b"");
    assert_eq!((world.settled(), world.count(Count::RepliesUnknown)), (vec![], 1));
    world.reply(owner, &calls[0], b"");
    assert_eq!(world.settled().len(), 1);
}

// spec: L-15, S-10
#[test]
fn a_large_call_without_a_bulk_link_was_not_executed() {
    let (mut world, [main]) = worlds(0);
    let ticket = world.ask_until(1, PLAIN, LARGE, world.now + Duration::from_secs(1));
    // Refused for as long as the call lives; the attempts have growing delays between them.
    let mut attempts = 0;
    while world.forwarder.calls() > 0 {
        let bulk = world.dialled_later();
        world.forwarder.link_lost(world.now, bulk, &"refused");
        assert!(world.closes(bulk));
        attempts += 1;
        world.pass(Duration::from_millis(100));
    }
    assert!((2..6).contains(&attempts), "{attempts}");
    assert_eq!(world.settled(), [(ticket, Outcome::refused(Code::DeadlineExceeded, Reason::Timeout))]);
    assert!(world.calls(main).is_empty());
}

// spec: L-15
#[test]
fn bulk_link_is_not_dialled_again_once_nothing_large_waits() {
    let (mut world, [main]) = worlds(0);
    world.ask_until(1, PLAIN, LARGE, world.now + Duration::from_secs(1));
    while world.forwarder.calls() > 0 {
        if let Some(LinkCommand::Dial(bulk, _)) = world.forwarder.next_command() {
            world.forwarder.link_lost(world.now, bulk, &"refused");
        }
        world.pass(Duration::from_millis(100));
    }
    while world.forwarder.next_command().is_some() {}
    world.live(&[main], Settings::default().reconnect_max * 2);
    assert_eq!(world.forwarder.next_command(), None);
}

// spec: L-15, L-85
#[test]
fn bulk_link_that_is_asked_for_when_it_is_there_ends_when_idle() {
    let (mut world, [main]) = worlds(0);
    world.ask(LARGE);
    let bulk = world.dialled();
    let calls = world.open_bulk(bulk);
    // The service has asked before it read LinkAuth.
    let wanted =
        v1::LinkNotice { kind: v1::link_notice::Kind::BulkWanted.into(), ..v1::LinkNotice::default() };
    world.say(main, Said::Notice(wanted));
    world.reply(bulk, &calls[0], b"");
    world.live(&[main, bulk], IDLE * 2);
    assert_eq!(world.forwarder.next_command(), Some(LinkCommand::EndStream(bulk)));
    world.forwarder.link_over(world.now, bulk);
    assert_eq!(world.forwarder.next_command(), Some(LinkCommand::Close(bulk)));
    world.live(&[main], IDLE);
    assert_eq!(world.forwarder.next_command(), None);
}

// spec: L-15
#[test]
fn waiting_large_call_opens_one_bulk_link() {
    let (mut world, mains) = worlds::<4>(0);
    world.ask(LARGE);
    let bulk = world.dialled();
    let asked = world.forwarder.links.get(bulk).unwrap().partner().unwrap();
    for _ in 0..20 {
        world.ask(b"small");
        let (at, call) = world.call_on_any(&mains);
        world.reply(mains[at], &call, b"");
    }
    assert_eq!(world.forwarder.next_command(), None);
    // Once its main link takes no calls, another one is asked.
    world.view(asked, View::Down, 0);
    let next = world.dialled();
    assert!(world.forwarder.links.get(next).unwrap().partner() != Some(asked));
    assert_eq!(world.open_bulk(next).len(), 1);
}

// spec: L-15
#[test]
fn small_calls_pass_any_number_of_large_ones() {
    const LARGE_CALLS: usize = 200;
    let (mut world, [main]) = worlds(1);
    world.ask(b"fills the link");
    let mut call = world.call(main);
    for _ in 0..LARGE_CALLS {
        world.ask(LARGE);
    }
    let small = world.ask(b"small");
    world.reply(main, &call, b"");
    world.settled();
    call = world.call(main);
    assert_eq!(&call.payload[..], b"small");
    world.reply(main, &call, b"");
    assert_eq!(world.settled(), [(small, done())]);
    // They go in their order, one at a time: that is the credit of the pair.
    let bulk = world.dialled();
    let mut calls = world.open_bulk(bulk);
    for _ in 0..LARGE_CALLS {
        assert_eq!(calls.len(), 1);
        world.reply(bulk, &calls[0], b"");
        calls = world.calls(bulk);
    }
    let order: Vec<_> = world.settled().into_iter().map(|(ticket, _)| ticket).collect();
    assert_eq!((order.len(), order.is_sorted_by_key(|ticket| ticket.index())), (LARGE_CALLS, true));
}

// spec: L-15, L-29
#[test]
fn large_calls_pass_those_that_are_bound_to_another_link() {
    let (mut world, mains) = worlds::<2>(0);
    // A session on the link without a bulk link.
    world.ask_as(1, ORDERED, b"small");
    let (at, call) = world.call_on_any(&mains);
    world.ask_as(1, ORDERED, LARGE);
    world.reply(mains[at], &call, b"");
    let own = world.dialled();
    // Another one finds the other link, whose bulk link is opened first.
    let ticket = world.ask(LARGE);
    let other = world.dialled();
    assert!(world.forwarder.links.get(other).unwrap().partner() == Some(mains[1 - at]));
    let calls = world.open_bulk(other);
    assert_eq!(calls.len(), 1);
    world.settled();
    world.reply(other, &calls[0], b"");
    assert_eq!(world.settled(), [(ticket, done())]);
    assert_eq!(world.open_bulk(own).len(), 1);
}

// spec: L-76
#[test]
fn waiting_large_call_makes_room_for_a_higher_one() {
    let (mut world, [main]) = World::several(1, |parts| {
        small_main_links(parts);
        parts.services[0].pool.bounds.queue_max = 2;
        parts.routes = routes_with(|route| {
            let is_low = route.commands.first == PLAIN;
            route.order = Order::None;
            route.priority = if is_low { Priority::Low } else { Priority::High };
        });
    });
    let large = [world.ask(LARGE), world.ask(LARGE)];
    world.ask_as(1, ORDERED, b"fills the link");
    let call = world.call(main);
    world.ask_as(1, ORDERED, b"waits");
    let shed = Outcome::refused(Code::ResourceExhausted, Reason::ServiceOverloaded);
    assert_eq!(world.settled(), [(large[1], shed)]);
    world.reply(main, &call, b"");
    assert_eq!(&world.call(main).payload[..], b"waits");
}

#[test]
fn no_call_is_sent_on_a_bulk_link_that_ends() {
    const ABOVE_MAIN: &[u8] = &[7; 4000];
    let mut world = World::with(1, |parts| {
        small_main_links(parts);
        parts.settings.bulk_idle = Duration::from_secs(1);
    });
    let main = world.dialled();
    world.forwarder.connected(world.now, main, NONCE);
    world.say(main, Said::HelloAck(v1::LinkHelloAck { frame_bytes_max: 3000, ..hello_ack() }));
    let bulk = world.answered_bulk();
    world.live(&[main], Settings::default().heartbeat + Duration::from_secs(1));
    assert!(world.forwarder.links.get(bulk).unwrap().last_ping.is_some(), "which is not answered yet");
    let ticket = world.ask(ABOVE_MAIN);
    assert!(world.calls(bulk).is_empty());
    let outcome = Outcome::refused(Code::InvalidArgument, Reason::PayloadTooLarge);
    assert_eq!(world.settled(), [(ticket, outcome)]);
}

// spec: L-45
#[test]
fn no_bulk_link_is_dialled_for_a_draining_link_without_calls() {
    let (mut world, [main, other]) = worlds::<2>(0);
    world.ask(LARGE);
    let bulk = world.dialled();
    let asked = world.forwarder.links.get(bulk).unwrap().partner().unwrap();
    let stays = if asked == main { other } else { main };
    world.say(asked, Said::Drain(v1::LinkDrain::default()));
    let commands: Vec<_> = std::iter::from_fn(|| world.forwarder.next_command()).collect();
    assert!(matches!(commands[..], [LinkCommand::Dial(_, _), LinkCommand::Close(gone)] if gone == bulk));
    world.live(&[stays], Duration::from_secs(1));
    assert_eq!(world.forwarder.next_command(), None);
}

// spec: L-38
#[test]
fn credit_belongs_to_the_pair() {
    let (mut world, [main]) = worlds(1);
    world.ask(LARGE);
    let bulk = world.dialled();
    let calls = world.open_bulk(bulk);
    world.ask(b"waits");
    assert!(world.calls(main).is_empty());
    world.reply(bulk, &calls[0], b"");
    let call = world.call(main);
    world.ask(LARGE);
    assert!(world.calls(bulk).is_empty(), "and the other way round");
    world.reply(main, &call, b"");
    assert_eq!(world.calls(bulk).len(), 1);
}

// spec: L-29
#[test]
fn a_session_keeps_its_order_over_both_links_of_a_pair() {
    let (mut world, mains) = worlds::<2>(0);
    let payloads: [&'static [u8]; 4] = [b"1", LARGE, b"3", LARGE];
    payloads.iter().for_each(|payload| {
        world.ask_as(1, ORDERED, payload);
    });
    let (at, first) = world.call_on_any(&mains);
    let main = mains[at];
    world.reply(main, &first, b"");
    assert!(
        world.calls(mains[0]).is_empty() && world.calls(mains[1]).is_empty(),
        "its turn is the large one's"
    );
    let bulk = world.dialled();
    let calls = world.open_bulk(bulk);
    assert_eq!(calls.len(), 1);
    assert!(world.calls(main).is_empty());
    world.reply(bulk, &calls[0], b"");
    let third = world.call(main);
    assert!(world.calls(bulk).is_empty());
    world.reply(main, &third, b"");
    assert_eq!(world.calls(bulk).len(), 1);
}

// spec: L-86
#[test]
fn a_lost_bulk_link_costs_its_own_calls_and_a_lost_main_link_those_of_both() {
    for main_is_lost in [false, true] {
        let (mut world, [main]) = worlds(0);
        let large = world.ask(LARGE);
        let bulk = world.dialled();
        world.open_bulk(bulk);
        let small = world.ask(b"small");
        let call = world.call(main);
        let lost = Outcome::unknown(Code::Aborted, Reason::EndpointLost);
        if main_is_lost {
            world.forwarder.link_lost(world.now, main, &"gone");
            assert_eq!(world.settled(), [(small, lost), (large, lost)]);
            world.flush();
            let commands: Vec<_> = std::iter::from_fn(|| world.forwarder.next_command()).collect();
            assert_eq!(commands, [LinkCommand::Close(main), LinkCommand::EndStream(bulk)]);
        } else {
            world.forwarder.link_lost(world.now, bulk, &"gone");
            assert_eq!(world.settled(), [(large, lost)]);
            assert!(world.closes(bulk));
            world.reply(main, &call, b"");
            assert_eq!(world.settled(), [(small, done())]);
            // Another large call brings another bulk link.
            world.ask(LARGE);
            let bulk = world.dialled_later();
            assert_eq!(world.open_bulk(bulk).len(), 1);
        }
    }
}

// spec: L-37
#[test]
fn a_large_call_of_which_nothing_was_sent_goes_on_the_next_bulk_link() {
    let (mut world, [main]) = worlds(0);
    let bulk = world.answered_bulk();
    world.stuck.push(bulk);
    world.ask(LARGE);
    world.flush();
    world.forwarder.link_lost(world.now, bulk, &"gone");
    assert!(world.closes(bulk));
    let next = world.dialled_later();
    let calls = world.open_bulk(next);
    assert_eq!((calls.len(), calls[0].attempt), (1, 1));
    assert_eq!((world.settled(), world.calls(main).len()), (vec![], 0));
}

// spec: L-85, L-87
#[test]
fn a_service_asks_for_a_bulk_link_and_an_idle_one_ends() {
    let (mut world, [main]) = worlds(0);
    let wanted =
        v1::LinkNotice { kind: v1::link_notice::Kind::BulkWanted.into(), ..v1::LinkNotice::default() };
    world.say(main, Said::Notice(wanted.clone()));
    world.say(main, Said::Notice(wanted));
    let bulk = world.dialled();
    assert_eq!(world.forwarder.next_command(), None, "once");
    assert!(world.open_bulk(bulk).is_empty());
    let ticket = world.ask_until(1, PLAIN, b"", world.now + Duration::from_secs(100));
    let call = world.call(main);
    // Used for longer than the idle time, and then not.
    for _ in 0..3 {
        world.live(&[main, bulk], IDLE / 2);
        let everyone = Some(v1::service_push::Target::Everyone(v1::Everyone {}));
        world.say(bulk, Said::Push(v1::ServicePush { target: everyone, ..v1::ServicePush::default() }));
        assert!(world.heard(bulk).iter().any(|member| matches!(member, Heard::PushResult(_))));
    }
    assert_eq!(world.forwarder.next_command(), None);
    let begun = world.now;
    let ended = loop {
        world.live(&[main, bulk], Duration::from_secs(1));
        world.flush();
        if let Some(command) = world.forwarder.next_command() {
            break command;
        }
        assert!(world.now < begun + IDLE * 2);
    };
    assert_eq!(ended, LinkCommand::EndStream(bulk));
    assert!(world.now >= begun + IDLE);
    // A Reply that crossed the end counts, and what is asked then does not.
    let reply = v1::Reply { call_id: call.call_id, payload: LARGE.into(), ..v1::Reply::default() };
    world.say(bulk, Said::Reply(reply));
    world.say(bulk, Said::Ping(v1::LinkPing { nonce: 3, view: None }));
    assert_eq!(world.settled(), [(ticket, done())]);
    assert!(world.heard(bulk).is_empty());
    world.forwarder.link_over(world.now, bulk);
    assert_eq!(world.forwarder.next_command(), Some(LinkCommand::Close(bulk)));
    world.ask(LARGE);
    let bulk = world.dialled_later();
    assert_eq!(world.open_bulk(bulk).len(), 1);
}

// spec: L-45, L-86
#[test]
fn a_draining_pair_ends_once_all_its_calls_have_their_replies() {
    let (mut world, [main]) = worlds(0);
    let large = world.ask(LARGE);
    let bulk = world.dialled();
    let calls = world.open_bulk(bulk);
    world.say(main, Said::Drain(v1::LinkDrain::default()));
    assert!(world.heard(main).is_empty() && world.heard(bulk).is_empty(), "a call is outstanding");
    world.reply(bulk, &calls[0], b"");
    assert_eq!(world.settled(), [(large, done())]);
    assert!(world.heard(main).is_empty(), "the bulk link is first");
    assert!(world.closes_behind_a_ping(bulk));
    assert!(world.closes_behind_a_ping(main));
}

// spec: L-15
#[test]
fn large_calls_are_balanced_once_each_endpoint_has_a_bulk_link() {
    let (mut world, mains) = worlds::<2>(0);
    world.ask(LARGE);
    let one = world.dialled();
    world.open_bulk(one);
    // The other endpoint has less to do; until it has a bulk link its share goes to the first.
    world.ask(LARGE);
    assert_eq!(world.calls(one).len(), 1);
    let two = world.dialled();
    world.open_bulk(two);
    let owners: Vec<_> =
        [one, two].iter().map(|bulk| world.forwarder.links.get(*bulk).unwrap().partner()).collect();
    assert!(owners[0] != owners[1] && mains.iter().all(|main| owners.contains(&Some(*main))));
    for _ in 0..2 {
        world.ask(LARGE);
        assert_eq!(world.calls(two).len(), 1, "it has less to do");
    }
}
