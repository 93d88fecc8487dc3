//! What goes out when a client does not read.

use super::*;

/// A client whose output is full from the first byte on, with this many requests under way.
fn full(requests: u64) -> (World, ConnectionKey, Vec<Ticket>) {
    let (mut world, client) = World::joined_with(|parts| parts.settings.output_bytes_high = 1);
    for up_seq in 1..=requests {
        world.request(client, up_seq);
    }
    let tickets = world.tickets();
    world.stuck.push(client);
    (world, client, tickets)
}

/// Numbers and requests of the Responses that a client has got.
fn responses(world: &mut World, client: ConnectionKey) -> Vec<(u64, u64)> {
    let got = world.got(client);
    got.iter()
        .map(|frame| match &frame.member {
            Some(gateway_frame::Member::Response(response)) => (frame.down_seq, response.up_seq),
            other => panic!("a Response, not {other:?}"),
        })
        .collect()
}

// spec: D-1, D-4
#[test]
fn responses_wait_for_room_and_come_in_the_order_of_their_answers() {
    let (mut world, client, tickets) = full(3);
    for at in [2, 0, 1] {
        world.settle(tickets[at], b"");
        world.flush();
    }
    assert_eq!(frames(world.shard.unsent(client)).len(), 1, "the others have no number yet");
    world.unstick(client);
    assert_eq!(responses(&mut world, client), [(1, 3), (2, 1), (3, 2)]);
}

// spec: W-6
#[test]
fn a_response_that_waits_cannot_be_acknowledged() {
    let (mut world, client, tickets) = full(2);
    world.settle(tickets[0], b"");
    world.settle(tickets[1], b"");
    world.flush();
    world.ack(client, 1);
    assert_eq!(world.shard.detached(), 0);
    world.ack(client, 2);
    assert_eq!(world.shard.detached(), 1, "it was never sent");
}

#[test]
fn an_acknowledgement_frees_slots_while_others_wait() {
    let (mut world, client) = World::joined_with(|parts| {
        parts.settings.output_bytes_high = 1;
        parts.session.in_flight_max = 2;
    });
    world.request(client, 1);
    world.request(client, 2);
    let tickets = world.tickets();
    world.settle(tickets[0], b"");
    assert_eq!(responses(&mut world, client), [(1, 1)]);
    world.stuck.push(client);
    world.settle(tickets[1], b"");
    world.flush();
    world.send(client, v1::ClientFrame { up_seq: 3, ack: 1, member: Some(request(CHAT, b"")) });
    assert_eq!(world.tickets().len(), 1);
}

// spec: D-7
#[test]
fn pongs_and_notices_are_left_out_when_the_output_is_full() {
    let (mut world, client, tickets) = full(1);
    world.settle(tickets[0], b"");
    world.flush();
    world.say(client, 0, ping(0));
    world.say(client, 0, client_frame::Member::ClientState(v1::ClientState::default()));
    assert_eq!(world.count(Count::ControlFramesShed), 2);
    world.unstick(client);
    assert_eq!(responses(&mut world, client), [(1, 1)]);
    world.say(client, 0, ping(0));
    assert!(matches!(world.member(client), gateway_frame::Member::Pong(_)));
}

#[test]
fn a_socket_may_take_a_little_at_a_time() {
    let (mut world, client) = World::joined();
    for up_seq in 1..=3 {
        world.request(client, up_seq);
    }
    for ticket in world.tickets() {
        world.settle(ticket, b"payload");
    }
    let mut written = Vec::new();
    let mut turns = 0;
    while let Some(key) = world.shard.next_flush() {
        let unsent = world.shard.unsent(key);
        let count = unsent.len().min(5);
        written.extend_from_slice(&unsent[..count]);
        world.shard.sent(world.now, key, count);
        world.shard.writable(key);
        turns += 1;
    }
    let numbers: Vec<u64> = frames(&written).iter().map(|frame| frame.down_seq).collect();
    assert_eq!((numbers, turns > 3), (vec![1, 2, 3], true));
    assert!(world.shard.unsent(client).is_empty());
}

#[test]
fn one_turn_writes_to_each_socket_once() {
    let (mut world, client) = World::joined();
    world.request(client, 1);
    world.request(client, 2);
    for ticket in world.tickets() {
        world.settle(ticket, b"");
    }
    world.say(client, 0, ping(0));
    assert_eq!(world.shard.next_flush(), Some(client));
    assert_eq!(world.shard.next_flush(), None);
    assert_eq!(frames(world.shard.unsent(client)).len(), 3);
}

// spec: D-4, D-6
#[test]
fn what_all_clients_are_owed_is_bounded_by_giving_payloads_up() {
    let (mut world, client) = World::joined_with(|parts| {
        parts.settings.output_bytes_high = 1;
        parts.settings.owed_bytes_max = 1;
    });
    world.request(client, 1);
    world.request(client, 2);
    let tickets = world.tickets();
    world.stuck.push(client);
    for ticket in tickets {
        world.settle(ticket, b"hello");
        world.flush();
    }
    world.unstick(client);
    let got = world.got(client);
    let [first, second] = [0, 1].map(|at| match got.get(at).and_then(|frame| frame.member.clone()) {
        Some(gateway_frame::Member::Response(response)) => response,
        other => panic!("a Response, not {other:?}"),
    });
    assert_eq!((&first.payload[..], first.payload_dropped), (&b"hello"[..], false), "there was room");
    assert_eq!((&second.payload[..], second.payload_dropped), (&b""[..], true), "it says so");
    assert_eq!((second.status, world.count(Count::PayloadsDropped)), (Code::Ok.to_wire(), 1));
    world.ack(client, 2);
    assert_eq!(world.shard.owed_bytes(), 0);
}
