//! Requests that come again.

use crate::gateway::{Gateway, PATIENCE, call_of};
use moorgate_proto::v1;
use moorgate_service::{Code, Directive, Execution, Handle, Later, Reason, Reply, Service};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};

const LATER: u32 = 1;
const COUNTS: u32 = 2;

/// A service with a handler that the test answers for, and one that answers how often it ran.
fn start(name: &str) -> (Handle, Receiver<Later>) {
    let (sender, laters) = channel();
    let ran = AtomicUsize::new(0);
    let service = Service::named(name)
        .deduplicate(LATER..=COUNTS)
        .handle(LATER..=LATER, move |_, responder| sender.send(responder.later()).unwrap())
        .handle(COUNTS..=COUNTS, move |_, responder| {
            let count = ran.fetch_add(1, Ordering::Relaxed) + 1;
            responder.reply(Reply::ok(count.to_string().as_bytes()).with(Directive::leave("x")));
        });
    (service.listen("127.0.0.1:0".parse().unwrap()).unwrap().spawn().unwrap(), laters)
}

fn call(call_id: u64, command: u32, user_id: &str, key: &[u8]) -> Vec<u8> {
    let idempotency_key = key.to_vec().into();
    call_of(user_id, v1::Call { call_id, command, idempotency_key, ..v1::Call::default() })
}

// spec: L-22
#[test]
fn a_repeat_through_another_gateway_waits_for_the_first_and_has_its_reply() {
    let (service, laters) = start("repeat");
    let [mut first, mut second] =
        ["east", "west"].map(|name| Gateway::of(name, 0, service.address(), "repeat"));
    first.send(&call(1, LATER, "alice", b"k"));
    let later = laters.recv_timeout(PATIENCE).unwrap();
    second.send(&[call(70_000, LATER, "alice", b"k"), call(8, LATER, "bob", b"k")].concat());
    let of_bob = laters.recv_timeout(PATIENCE).unwrap();
    second.round_trip();
    later.reply(Reply::error(Code::NotFound, "why").with_payload(b"once"));
    let expected = |call_id| v1::Reply {
        call_id,
        status: Code::NotFound.to_wire(),
        message: "why".to_owned(),
        payload: b"once".to_vec().into(),
        ..v1::Reply::default()
    };
    assert_eq!(first.reply(), expected(1));
    assert_eq!(second.reply(), expected(70_000));
    first.send(&call(2, LATER, "alice", b"k"));
    assert_eq!(first.reply(), expected(2));
    of_bob.reply(Reply::ok(b"bob"));
    assert_eq!(second.reply().payload, &b"bob"[..]);
    assert!(laters.try_recv().is_err(), "each ran once");
    // Without a key each is another one.
    first.send(&[call(3, LATER, "alice", b""), call(4, LATER, "alice", b"")].concat());
    for _ in 0..2 {
        laters.recv_timeout(PATIENCE).unwrap().reply(Reply::ok(b""));
    }
}

#[test]
fn what_ran_for_a_lost_link_is_remembered_and_what_did_not_run_is_not() {
    let (service, laters) = start("lost-first");
    let mut lost = Gateway::of("east", 0, service.address(), "lost-first");
    lost.send(&call(1, LATER, "alice", b"k"));
    let later = laters.recv_timeout(PATIENCE).unwrap();
    drop(lost);
    let mut gateway = Gateway::of("west", 0, service.address(), "lost-first");
    assert!(!later.is_cancelled(), "a repeat wants its answer");
    later.reply(Reply::ok(b"done"));
    gateway.send(&call(1, LATER, "alice", b"k"));
    assert_eq!(gateway.reply().payload, &b"done"[..]);
    gateway.send(&call(2, LATER, "alice", b"other"));
    let refused = Reply::error(Code::Unavailable, "").with_execution(Execution::NotExecuted);
    laters.recv_timeout(PATIENCE).unwrap().reply(refused);
    assert_eq!(gateway.reply().execution(), Execution::NotExecuted);
    gateway.send(&call(3, LATER, "alice", b"other"));
    laters.recv_timeout(PATIENCE).unwrap().reply(Reply::ok(b"now"));
    assert_eq!(gateway.reply().payload, &b"now"[..]);
}

#[test]
fn a_handler_of_the_loop_runs_once_too_and_its_directives_come_again() {
    let (service, _laters) = start("loop");
    let mut gateway = Gateway::of("east", 0, service.address(), "loop");
    let keys: [&[u8]; 5] = [b"a", b"b", b"a", b"", b"a"];
    for (call_id, key) in (0..).zip(keys) {
        gateway.send(&call(call_id, COUNTS, "alice", key));
    }
    let mut replies: Vec<_> = keys.iter().map(|_| gateway.reply()).collect();
    replies.sort_by_key(|reply| reply.call_id);
    let counts: Vec<_> = replies.iter().map(|reply| &reply.payload[..]).collect();
    assert_eq!(counts, [b"1", b"2", b"1", b"3", b"1"]);
    assert!(replies.iter().all(|reply| reply.directives.len() == 1 && reply.reason() == Reason::Unspecified));
}
