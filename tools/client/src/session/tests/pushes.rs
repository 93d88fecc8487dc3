//! The push stream: in order, each once, acknowledged when taken.

use super::*;

fn push(desk: &mut Desk, push_id: &[u8]) {
    let push = v1::Push {
        command: 9,
        push_id: push_id.to_vec().into(),
        group: "friends".to_owned(),
        payload: b"hi"[..].into(),
        ..v1::Push::default()
    };
    desk.say_numbered(gateway::PUSH, &push);
}

fn ids(desk: &Desk) -> Vec<&[u8]> {
    let pushes = desk.events.iter().filter_map(|(event, _)| match event {
        Event::Push(push) => Some(&push.push_id[..]),
        _ => None,
    });
    pushes.collect()
}

fn acks(desk: &mut Desk) -> Vec<u64> {
    desk.heard().iter().map(|frame| frame.ack).filter(|ack| *ack > 0).collect()
}

fn take(desk: &mut Desk, at: usize) {
    let delivery = desk.events[at].1.unwrap();
    desk.act(|session, now| session.taken(now, delivery));
}

// spec: W-4, W-7
#[test]
fn a_push_is_acknowledged_once_the_application_has_taken_it() {
    let mut desk = Desk::open(token("mine"), "alice");
    for id in [b"1", b"2", b"3"] {
        push(&mut desk, id);
    }
    assert_eq!(ids(&desk), [b"1", b"2", b"3"]);
    assert!(matches!(&desk.events[0].0, Event::Push(push) if push.command == 9 && push.group == "friends"));
    desk.pass(10 * SECOND);
    assert_eq!(acks(&mut desk), []);
    take(&mut desk, 1);
    desk.pass(10 * SECOND);
    assert_eq!(acks(&mut desk), [], "the first is missing");
    take(&mut desk, 0);
    assert!(desk.wait() <= SECOND);
    assert_eq!(acks(&mut desk), [2]);
    take(&mut desk, 2);
    desk.ask();
    assert_eq!(acks(&mut desk), [3], "a request carries it");
}

// spec: D-14
#[test]
fn a_push_is_taken_once_also_over_connections() {
    let mut desk = Desk::open(token("mine"), "alice");
    push(&mut desk, b"1");
    push(&mut desk, b"1");
    let old = desk.events[0].1.unwrap();
    desk.lose();
    desk.reopen("alice");
    push(&mut desk, b"1");
    push(&mut desk, b"2");
    push(&mut desk, b"");
    push(&mut desk, b"");
    assert_eq!(ids(&desk), [&b"1"[..], b"2", b"", b""]);
    desk.act(|session, now| session.taken(now, old));
    desk.wait();
    assert_eq!(acks(&mut desk), [1], "only what this connection has brought, and it had that before");
}

// spec: D-13
#[test]
fn a_gap_is_a_resync() {
    let mut desk = Desk::open(token("mine"), "alice");
    push(&mut desk, b"1");
    let overflow = Reason::PushOverflow;
    desk.say_numbered(gateway::GAP, &v1::Gap { count: 7, reason: overflow.into(), ..v1::Gap::default() });
    desk.numbered += 2;
    desk.say_numbered(
        gateway::GAP,
        &v1::Gap { first: 3, last: 5, reason: Reason::PushExpired.into(), ..v1::Gap::default() },
    );
    push(&mut desk, b"2");
    let seen: Vec<&Event> = desk.events.iter().map(|(event, _)| event).collect();
    assert!(matches!(seen[0], Event::Push(_)) && matches!(seen[3], Event::Push(_)));
    assert_eq!(seen[1], &Event::Resync(Missed::Pushes(7, overflow)));
    assert_eq!(seen[2], &Event::Resync(Missed::Pushes(3, Reason::PushExpired)));
    for at in [0, 1] {
        take(&mut desk, at);
    }
    desk.wait();
    assert_eq!(acks(&mut desk), [2], "a gap is taken like a push");
    for at in [2, 3] {
        take(&mut desk, at);
    }
    assert_eq!(acks(&mut desk), [6], "half a window");
}

// spec: W-1
#[test]
fn pushes_that_are_not_taken_keep_requests_back_but_never_break_the_contract() {
    let mut desk = Desk::open(token("mine"), "alice");
    push(&mut desk, b"1");
    for up_seq in 1..=u64::from(IN_FLIGHT) {
        desk.ask();
        desk.answer(up_seq, v1::Response::default());
    }
    desk.heard();
    let ticket = desk.ask();
    assert_eq!(desk.requests(), [], "four Responses cannot be acknowledged");
    take(&mut desk, 0);
    assert_eq!(desk.requests().len(), 1);
    assert!(!desk.outcomes.contains_key(&ticket));
}
