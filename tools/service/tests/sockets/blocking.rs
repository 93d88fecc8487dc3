//! Handlers that block: order, bounds, cancels and times.

use crate::gateway::{Gateway, PATIENCE, call_of, cancel};
use moorgate_proto::v1;
use moorgate_service::{Code, Execution, Handle, Reason, Reply, Service};
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

const WAITS: u32 = 1;
const UNTIL_CANCELLED: u32 = 2;
const PANICS: u32 = 3;

/// A service whose handlers of `WAITS` tell that they run, and wait for a word.
struct Site {
    service: Handle,
    running: Receiver<Vec<u8>>,
    go_on: Sender<()>,
}

fn start(name: &str, threads: usize, waiting_max: usize) -> Site {
    let (runs, running) = channel();
    let (go_on, word) = channel::<()>();
    let word = Mutex::new(word);
    let also_runs = runs.clone();
    let service = Service::named(name)
        .threads(threads, waiting_max)
        .handle_blocking(WAITS..=WAITS, move |call, later| {
            runs.send(call.payload().to_vec()).unwrap();
            word.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            later.reply(Reply::ok(call.payload()));
        })
        .handle_blocking(UNTIL_CANCELLED..=UNTIL_CANCELLED, move |call, later| {
            also_runs.send(call.payload().to_vec()).unwrap();
            while !call.is_cancelled() {
                std::thread::yield_now();
            }
            assert!(later.is_cancelled());
            also_runs.send(b"stopped".to_vec()).unwrap();
            later.reply(Reply::error(Code::Cancelled, "").with_execution(Execution::Unknown));
        })
        .handle_blocking(PANICS..=PANICS, |_, _| panic!("as a handler may"));
    let service = service.listen("127.0.0.1:0".parse().unwrap()).unwrap().spawn().unwrap();
    Site { service, running, go_on }
}

impl Site {
    fn gateway(&self, name: &str) -> Gateway {
        Gateway::of("gate", 0, self.service.address(), name)
    }

    fn runs(&self) -> Vec<u8> {
        self.running.recv_timeout(PATIENCE).unwrap()
    }
}

fn call(call_id: u64, command: u32, key: &str) -> Vec<u8> {
    let (ordering_key, payload) = (key.as_bytes().to_vec().into(), call_id.to_string().into_bytes().into());
    call_of("alice", v1::Call { call_id, command, ordering_key, payload, ..v1::Call::default() })
}

fn outcome(reply: &v1::Reply) -> (u64, Code, Reason, Execution) {
    (reply.call_id, Code::from_wire(reply.status), reply.reason(), reply.execution())
}

// spec: L-28
#[test]
fn calls_with_the_same_key_run_one_after_the_other_and_others_beside_them() {
    let site = start("ordered", 3, 100);
    let mut gateway = site.gateway("ordered");
    let mut other = site.gateway("ordered");
    gateway.send(&[call(1, WAITS, "a"), call(2, WAITS, "a")].concat());
    assert_eq!(site.runs(), b"1");
    gateway.round_trip();
    other.send(&call(3, WAITS, "a"));
    other.round_trip();
    gateway.send(&[call(4, WAITS, "b"), call(5, WAITS, "")].concat());
    let beside: HashSet<_> = [site.runs(), site.runs()].into();
    assert_eq!(beside, [b"4".to_vec(), b"5".to_vec()].into());
    assert!(site.running.try_recv().is_err(), "2 and 3 wait behind 1");
    for _ in 0..5 {
        site.go_on.send(()).unwrap();
    }
    assert_eq!([site.runs(), site.runs()], [b"2", b"3"], "in order of arrival, also over links");
    let replied: HashSet<u64> = (0..4).map(|_| gateway.reply().call_id).collect();
    assert_eq!(replied, [1, 2, 4, 5].into());
    assert_eq!(other.reply().call_id, 3);
}

// spec: L-31, L-39
#[test]
fn calls_beyond_the_queue_are_refused_while_the_loop_goes_on() {
    let site = start("full", 1, 1);
    let mut gateway = site.gateway("full");
    gateway.send(&call(1, WAITS, ""));
    site.runs();
    gateway.send(&[call(2, WAITS, ""), call(3, WAITS, "")].concat());
    let refused = (3, Code::ResourceExhausted, Reason::ServiceOverloaded, Execution::NotExecuted);
    assert_eq!(outcome(&gateway.reply()), refused);
    gateway.round_trip();
    site.go_on.send(()).unwrap();
    site.go_on.send(()).unwrap();
    assert_eq!([gateway.reply().call_id, gateway.reply().call_id], [1, 2]);
}

// spec: L-22, L-33
#[test]
fn a_cancel_reaches_a_handler_that_runs_and_spares_one_that_does_not() {
    let site = start("cancelled", 1, 10);
    let mut gateway = site.gateway("cancelled");
    gateway.send(&[call(1, UNTIL_CANCELLED, ""), call(2, WAITS, "")].concat());
    assert_eq!(site.runs(), b"1");
    gateway.send(&cancel(2));
    gateway.round_trip();
    gateway.send(&cancel(1));
    assert_eq!(site.runs(), b"stopped");
    assert_eq!(outcome(&gateway.reply()), (1, Code::Cancelled, Reason::Unspecified, Execution::Unknown));
    assert_eq!(outcome(&gateway.reply()), (2, Code::Cancelled, Reason::Cancelled, Execution::NotExecuted));
    // The loss of the link is a cancel too.
    gateway.send(&call(3, UNTIL_CANCELLED, ""));
    assert_eq!(site.runs(), b"3");
    drop(gateway);
    assert_eq!(site.runs(), b"stopped");
}

// spec: L-31
#[test]
fn a_call_whose_time_is_over_before_it_starts_is_not_run() {
    let site = start("late", 1, 10);
    let mut gateway = site.gateway("late");
    gateway.send(&call(1, WAITS, ""));
    site.runs();
    let hasty = v1::Call { call_id: 2, command: WAITS, remaining_ms: 1, ..v1::Call::default() };
    let patient = v1::Call { call_id: 3, command: WAITS, remaining_ms: u32::MAX, ..v1::Call::default() };
    gateway.send(&[call_of("alice", hasty), call_of("alice", patient)].concat());
    gateway.round_trip();
    // A millisecond passes.
    let (_keep, pause) = channel::<()>();
    let _ = pause.recv_timeout(std::time::Duration::from_millis(2));
    site.go_on.send(()).unwrap();
    site.go_on.send(()).unwrap();
    assert_eq!(gateway.reply().call_id, 1);
    let late = (2, Code::DeadlineExceeded, Reason::Timeout, Execution::NotExecuted);
    assert_eq!(outcome(&gateway.reply()), late);
    assert_eq!(outcome(&gateway.reply()), (3, Code::Ok, Reason::Unspecified, Execution::Unspecified));
}

// spec: L-22
#[test]
fn a_handler_that_panics_answers_internal_and_its_thread_goes_on() {
    let site = start("panicking", 1, 10);
    let mut gateway = site.gateway("panicking");
    gateway.send(&[call(1, PANICS, "a"), call(2, WAITS, "a")].concat());
    assert_eq!(outcome(&gateway.reply()), (1, Code::Internal, Reason::Internal, Execution::Unknown));
    site.go_on.send(()).unwrap();
    assert_eq!(gateway.reply().call_id, 2);
}
