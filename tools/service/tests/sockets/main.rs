//! The service's driver on real sockets: links that vanish, stall, break the contract, and drain; and what the kit does
//! for handlers.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

mod blocking;
mod bulk;
mod deduplication;
mod gateway;
mod health;
mod presence;
mod pushing;
mod vectors;

use gateway::{Gateway, PATIENCE, auth, call, hello};
use moorgate_proto::v1::to_gateway::Member;
use moorgate_service::{Code, Execution, Handle, Later, Reason, Reply, Service};
use std::collections::HashSet;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

const ECHO: u32 = 1;
const LATER: u32 = 2;
const PANIC: u32 = 3;
const FORGET: u32 = 4;
const LARGE: u32 = 5;

/// A service, and the calls of `LATER` to be answered by the test.
fn start(name: &str) -> (Handle, Receiver<Later>) {
    let (sender, laters) = channel();
    let service = Service::named(name)
        .handle(ECHO..=ECHO, |call, responder| responder.reply(Reply::ok(call.payload())))
        .handle(LATER..=LATER, move |_, responder| sender.send(responder.later()).unwrap())
        .handle(PANIC..=PANIC, |_, _| panic!("as a handler may"))
        .handle(FORGET..=FORGET, |_, responder| drop(responder.later()));
    (service.listen("127.0.0.1:0".parse().unwrap()).unwrap().spawn().unwrap(), laters)
}

// spec: F-9, L-2, L-22
#[test]
fn frames_may_come_byte_by_byte() {
    let (service, _laters) = start("bytes");
    let mut gateway = Gateway::connect(service.address());
    for byte in [hello("bytes"), auth(), call(1, ECHO, b"one"), call(2, ECHO, b"two")].concat() {
        gateway.send(&[byte]);
    }
    assert!(matches!(gateway.next(), Some(Member::HelloAck(_))));
    assert_eq!(gateway.reply().payload, &b"one"[..]);
    assert_eq!(gateway.reply().payload, &b"two"[..]);
    service.stop();
    assert_eq!(gateway.next(), None);
    assert!(service.join());
}

// spec: L-22, L-31
#[test]
fn a_handler_that_panics_or_forgets_answers_internal_and_the_service_goes_on() {
    let (service, _laters) = start("panics");
    let mut gateway = Gateway::ready(service.address(), "panics");
    gateway
        .send(&[call(1, PANIC, b""), call(2, FORGET, b""), call(3, 99, b""), call(4, ECHO, b"on")].concat());
    let mut replies: Vec<_> = (0..4).map(|_| gateway.reply()).collect();
    replies.sort_by_key(|reply| reply.call_id);
    let outcomes: Vec<_> = replies
        .iter()
        .map(|reply| (Code::from_wire(reply.status), reply.reason(), reply.execution()))
        .collect();
    let internal = (Code::Internal, Reason::Internal, Execution::Unknown);
    let no_handler = (Code::Unimplemented, Reason::NoRoute, Execution::NotExecuted);
    assert_eq!(outcomes[..3], [internal, internal, no_handler]);
    assert_eq!(replies[3].payload, &b"on"[..]);
    gateway.round_trip();
}

// spec: L-21, L-23
#[test]
fn a_late_reply_reaches_no_other_link() {
    let (service, laters) = start("reused");
    let mut other = Gateway::ready(service.address(), "reused");
    let mut lost = Gateway::ready(service.address(), "reused");
    lost.send(&call(1, LATER, b""));
    let old = laters.recv_timeout(PATIENCE).unwrap();
    drop(lost);
    other.round_trip();
    // The place of the lost link is free, and the same number is open on the link that has it now.
    let mut gateway = Gateway::ready(service.address(), "reused");
    gateway.send(&call(1, LATER, b""));
    let new = laters.recv_timeout(PATIENCE).unwrap();
    old.reply(Reply::ok(b"old"));
    new.reply(Reply::ok(b"new"));
    assert_eq!(gateway.reply().payload, &b"new"[..]);
    gateway.round_trip();
    other.round_trip();
}

// spec: L-22
#[test]
fn a_handler_may_answer_any_number_of_other_calls() {
    const CALLS: u64 = 70_000;
    let waiting = Mutex::new(Vec::new());
    let service = Service::named("many").handle(0..=u32::MAX, move |call, responder| {
        waiting.lock().unwrap().push(responder.later());
        if call.payload() == b"go" {
            for later in waiting.lock().unwrap().drain(..) {
                later.reply(Reply::ok(b""));
            }
        }
    });
    let service = service.listen("127.0.0.1:0".parse().unwrap()).unwrap().spawn().unwrap();
    let mut gateway = Gateway::ready(service.address(), "many");
    let mut calls: Vec<u8> = (1..CALLS).flat_map(|id| call(id, 1, b"")).collect();
    calls.extend(call(CALLS, 1, b"go"));
    gateway.send(&calls);
    let answered: HashSet<u64> = (0..CALLS).map(|_| gateway.reply().call_id).collect();
    assert_eq!(answered.len() as u64, CALLS);
}

/// Waits until the service's thread, which has its name, sleeps.
fn wait_until_it_sleeps(name: &str) {
    let (_keep, pause) = channel::<()>();
    for _ in 0..6_000 {
        for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
            // The name stands in parentheses, the state behind it.
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            if stat.contains(&format!("({name}) S")) {
                return;
            }
        }
        let _ = pause.recv_timeout(PATIENCE / 6_000);
    }
    panic!("the loop of {name} never sleeps");
}

// spec: L-47
#[test]
fn a_gateway_that_does_not_read_is_waited_for_asleep_and_gets_everything() {
    const CALLS: u64 = 32;
    let (sender, handled) = channel();
    let service = Service::named("stalled").handle(LARGE..=LARGE, move |_, responder| {
        responder.reply(Reply::ok(&vec![5; 1 << 20]));
        sender.send(()).unwrap();
    });
    let service = service.listen("127.0.0.1:0".parse().unwrap()).unwrap().spawn().unwrap();
    let mut gateway = Gateway::ready(service.address(), "stalled");
    let calls: Vec<u8> = (0..CALLS).flat_map(|id| call(id, LARGE, b"")).collect();
    gateway.send(&calls);
    for _ in 0..CALLS {
        handled.recv_timeout(PATIENCE).unwrap();
    }
    wait_until_it_sleeps("stalled");
    // Not read before there is room again, and then without another event.
    gateway.send(&call(CALLS, LARGE, b""));
    for id in 0..=CALLS {
        let reply = gateway.reply();
        assert_eq!((reply.call_id, reply.payload.len()), (id, 1 << 20));
    }
    gateway.round_trip();
}

// spec: L-16, L-17
#[test]
fn a_final_error_is_followed_by_an_end_and_no_reset() {
    let (service, _laters) = start("polite");
    let mut gateway = Gateway::connect(service.address());
    let mut writer = gateway.stream.try_clone().unwrap();
    // More than a turn reads is on its way when the service closes.
    let garbage = std::thread::spawn(move || writer.write_all(&vec![0xff; 2 << 20]));
    match gateway.next() {
        Some(Member::Error(error)) => assert_eq!(error.reason(), Reason::FrameTooLarge),
        other => panic!("{other:?}"),
    }
    assert_eq!(gateway.next(), None);
    garbage.join().unwrap().unwrap();
}

// spec: L-2, L-8
#[test]
fn who_does_not_open_a_link_is_told_why() {
    let (service, _laters) = start("strict");
    for (bytes, reason) in [
        (hello("other"), Reason::IdentityMismatch),
        (call(1, ECHO, b""), Reason::ProtocolViolation),
        ([hello("strict"), call(1, ECHO, b"")].concat(), Reason::ProtocolViolation),
    ] {
        let mut gateway = Gateway::connect(service.address());
        gateway.send(&bytes);
        let said: Vec<Member> = std::iter::from_fn(|| gateway.next()).collect();
        match said.last() {
            Some(Member::Error(error)) => assert_eq!(error.reason(), reason),
            other => panic!("{other:?}"),
        }
    }
}

// spec: L-45, L-46
#[test]
fn a_drain_runs_what_crosses_it_and_waits_for_open_calls() {
    let (service, laters) = start("drained");
    let address = service.address();
    let mut gateway = Gateway::ready(address, "drained");
    let mut quiet = Gateway::ready(address, "drained");
    let mut half_open = Gateway::greeted(address, "drained");
    // A LinkDrain comes on links that are ready.
    quiet.round_trip();
    gateway.send(&call(1, LATER, b""));
    let later = laters.recv_timeout(PATIENCE).unwrap();
    service.drain();
    assert!(matches!(gateway.next(), Some(Member::Drain(_))));
    assert!(matches!(quiet.next(), Some(Member::Drain(_))));
    assert_eq!(half_open.next(), None, "a link that is not open is not waited for");
    assert!(TcpStream::connect(address).is_err(), "no new links");
    gateway.send(&call(2, ECHO, b"crossing"));
    assert_eq!(gateway.reply().payload, &b"crossing"[..]);
    later.reply(Reply::ok(b"at last"));
    assert_eq!(gateway.reply().payload, &b"at last"[..]);
    drop((gateway, quiet));
    assert!(service.join());
}

#[test]
fn a_stop_waits_for_nobody() {
    let (service, laters) = start("stopped");
    let mut gateway = Gateway::ready(service.address(), "stopped");
    gateway.send(&call(1, LATER, b""));
    let later = laters.recv_timeout(PATIENCE).unwrap();
    service.stop();
    assert!(service.join());
    later.reply(Reply::ok(b"to nobody"));
    assert_eq!(gateway.next(), None);
}
