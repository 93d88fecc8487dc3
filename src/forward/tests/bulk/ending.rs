//! Bulk links that end while frames are arriving.

use super::*;

impl World {
    /// An idle bulk link, behind its last ping; and a call on its main link.
    fn leaving_bulk() -> (World, LinkKey, LinkKey, v1::Call) {
        let (mut world, [main]) = World::several(0, |parts| {
            small_main_links(parts);
            parts.settings.bulk_idle = Duration::from_secs(1);
        });
        let bulk = world.answered_bulk();
        world.ask_until(1, PLAIN, b"", world.now + Duration::from_secs(1000));
        let call = world.call(main);
        world.live(&[main], Settings::default().heartbeat + Duration::from_secs(1));
        (world, main, bulk, call)
    }

    /// The nonce of the last ping of a link, which is read now.
    fn last_ping(&mut self, link: LinkKey) -> u64 {
        let heard = self.heard(link);
        let Some(Heard::Ping(ping)) = heard.last() else { panic!("{heard:?}") };
        ping.nonce
    }

    /// The bytes of a Reply to this call, without the last one.
    fn large_reply(call: &v1::Call) -> Vec<u8> {
        let reply = v1::Reply { call_id: call.call_id, payload: LARGE.into(), ..v1::Reply::default() };
        frame(Said::Reply(reply))
    }

    /// Bytes of a frame come on a link, one each second, while its main link lives.
    fn trickle(&mut self, (main, link): (LinkKey, LinkKey), bytes: &[u8]) {
        for byte in bytes {
            self.hear(link, &[*byte]);
            self.live(&[main], Duration::from_secs(1));
        }
    }
}

// spec: L-45, L-87
#[test]
fn reply_that_arrives_slowly_delays_the_end_of_its_bulk_link() {
    let (mut world, main, bulk, call) = World::leaving_bulk();
    let nonce = world.last_ping(bulk);
    let reply = World::large_reply(&call);
    let (begin, end) = reply.split_at(20);
    world.trickle((main, bulk), begin);
    assert_eq!(world.forwarder.next_command(), None);
    world.hear(bulk, end);
    assert_eq!(world.settled().len(), 1);
    // The rest of what the service has sent may take another moment.
    world.live(&[main], Duration::from_secs(1));
    assert_eq!(world.forwarder.next_command(), None);
    world.say(bulk, Said::Pong(v1::LinkPong { nonce, view: None }));
    world.flush();
    assert_eq!(world.forwarder.next_command(), Some(LinkCommand::EndStream(bulk)));
}

// spec: L-87
#[test]
fn reply_that_arrives_slowly_behind_the_end_of_the_stream_counts() {
    let (mut world, main, bulk, call) = World::leaving_bulk();
    let nonce = world.last_ping(bulk);
    world.say(bulk, Said::Pong(v1::LinkPong { nonce, view: None }));
    world.flush();
    assert_eq!(world.forwarder.next_command(), Some(LinkCommand::EndStream(bulk)));
    let reply = World::large_reply(&call);
    let (begin, end) = reply.split_at(20);
    world.trickle((main, bulk), begin);
    assert_eq!(world.forwarder.next_command(), None);
    world.hear(bulk, end);
    assert_eq!(world.settled().len(), 1);
    world.live(&[main], Duration::from_secs(3));
    assert_eq!(world.forwarder.next_command(), Some(LinkCommand::Close(bulk)), "nothing more arrives");
}

// spec: L-87
#[test]
fn frame_that_has_begun_is_use_of_a_bulk_link() {
    let (mut world, [main]) = worlds(0);
    let bulk = world.answered_bulk();
    world.ask_until(1, PLAIN, b"", world.now + Duration::from_secs(1000));
    let reply = World::large_reply(&world.call(main));
    let (begin, end) = reply.split_at(60);
    assert!(begin.len() as u64 > IDLE.as_secs() * 2);
    world.trickle((main, bulk), begin);
    assert!(world.forwarder.links.get(bulk).unwrap().last_ping.is_none());
    world.hear(bulk, end);
    assert_eq!((world.settled().len(), world.forwarder.next_command()), (1, None));
}

// spec: L-45, L-87
#[test]
fn bulk_link_ends_behind_its_last_ping_and_no_other() {
    let (mut world, _, bulk, _) = World::leaving_bulk();
    let pings = world.heard(bulk).into_iter().filter_map(|member| match member {
        Heard::Ping(ping) => Some(ping.nonce),
        _ => None,
    });
    let [regular, last] = pings.collect::<Vec<_>>()[..] else { panic!("two pings of one turn") };
    world.say(bulk, Said::Pong(v1::LinkPong { nonce: regular, view: None }));
    world.flush();
    assert_eq!(world.forwarder.next_command(), None);
    world.say(bulk, Said::Pong(v1::LinkPong { nonce: last, view: None }));
    world.flush();
    assert_eq!(world.forwarder.next_command(), Some(LinkCommand::EndStream(bulk)));
}

// spec: L-87
#[test]
fn bulk_link_that_ends_is_closed_in_time() {
    let (mut world, main, bulk, call) = World::leaving_bulk();
    world.trickle((main, bulk), &World::large_reply(&call)[..70]);
    world.flush();
    let commands: Vec<_> = std::iter::from_fn(|| world.forwarder.next_command()).collect();
    assert_eq!(commands, [LinkCommand::EndStream(bulk), LinkCommand::Close(bulk)]);
    assert!(world.settled().is_empty());
}

// spec: L-16, L-19, L-87
#[test]
fn bulk_link_that_ended_with_an_error_is_not_read() {
    let error = frame(Said::Error(v1::LinkError::default()));
    let (garbage, oversized) = ([0, 0, 0, 2, 0x4a, 5], [255; 4]);
    for behind_its_end in [false, true] {
        for break_it in [&error[..], &garbage, &oversized] {
            let (mut world, main, bulk, call) = World::leaving_bulk();
            let nonce = world.last_ping(bulk);
            if behind_its_end {
                world.say(bulk, Said::Pong(v1::LinkPong { nonce, view: None }));
            }
            world.hear(bulk, break_it);
            world.hear(bulk, &World::large_reply(&call));
            world.hear(bulk, &World::large_reply(&call));
            assert_eq!(world.settled(), [], "{break_it:?}");
            world.reply(main, &call, b"");
            assert_eq!(world.settled().len(), 1);
        }
    }
}
