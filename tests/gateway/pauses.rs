//! The gateway's process is stopped and continued, as by SIGSTOP or by the migration of its virtual machine.

use crate::child::Process;
use crate::link::{RawLink, listener};
use crate::site::{command, text, until};
use crate::wire::{RawClient, frame, hello, hello_frame, ping, request};
use moorgate::base::clock::{Clock, PAUSE_MIN};
use moorgate_proto::envelope::member::client;
use moorgate_proto::v1::{Reason, gateway_frame::Member};
use moorgate_proto::view::RequestView;
use std::time::Duration;

/// Every deadline of a peer's silence or slowness.
const DEADLINE: Duration = Duration::from_secs(4);
/// Longer than each of them.
const PAUSE: Duration = Duration::from_secs(5);
const _: () = assert!(PAUSE.as_millis() > DEADLINE.as_millis() && PAUSE.as_millis() > PAUSE_MIN.as_millis());
/// With more clients than one poll returns events of.
const CLIENTS: usize = 1200;

const TABLES: &str = "
[session]
heartbeat = \"2s\"
heartbeat_min = \"2s\"
handshake_timeout = \"4s\"
frame_timeout = \"4s\"
write_timeout = \"4s\"
[links]
heartbeat = \"2s\"
[limits]
connections_per_address = 0
[rates]
frames = \"off\"
";

/// Stops the process for longer than every deadline; `meanwhile` is done after it has stopped.
fn pause(process: &Process, meanwhile: impl FnOnce()) {
    process.signal("STOP");
    until("the process is stopped", || process.thread_state("moorgate") == 'T');
    let (clock, begun) = (Clock::start(), Clock::start().read().mono);
    meanwhile();
    let lasts = || clock.read().mono.since(begun) < PAUSE;
    while lasts() {
        std::thread::park_timeout(PAUSE);
    }
    process.signal("CONT");
}

// spec: P-8, P-3, O-5, F-10, S-10, L-43
#[test]
fn pause_ends_nothing_whose_input_has_arrived() {
    let listener = listener();
    let process = Process::start(&text(listener.local_addr().unwrap(), TABLES));
    let mut link = RawLink::open(&listener);
    process.ready();
    let mut silent: Vec<RawClient> = (0..100).map(|_| RawClient::connect(process.address)).collect();
    until("all are accepted", || process.metric("moorgate_connections") == 100);
    let mut asking: Vec<RawClient> = (0..50).map(|_| process.open()).collect();
    let view =
        RequestView { command: command::OPEN, payload: b"asked", timeout_ms: 4000, ..RequestView::default() };
    asking.iter_mut().for_each(|it| it.send(&frame(1, 0, client::REQUEST, &view)));
    let calls: Vec<u64> = (0..50).map(|_| link.call().call_id).collect();
    let whole = request(1, command::OPEN, b"in two parts");
    let (begin, rest) = whole.split_at(10);
    let mut halves: Vec<RawClient> = (0..50).map(|_| process.open()).collect();
    halves.iter_mut().for_each(|it| it.send(begin));
    let mut quiet: Vec<RawClient> = (0..CLIENTS).map(|_| process.open()).collect();
    let mut queued = Vec::new();
    pause(&process, || {
        quiet.iter_mut().for_each(|it| it.send(&ping(7)));
        silent.iter_mut().for_each(|it| it.send(&hello_frame(&hello())));
        halves.iter_mut().for_each(|it| it.send(rest));
        calls.iter().for_each(|call_id| link.reply(*call_id, b"answered"));
        queued.extend((0..50).map(|_| {
            let mut client = RawClient::connect(process.address);
            client.send(&hello_frame(&hello()));
            client
        }));
    });
    for _ in 0..50 {
        let call = link.call();
        link.reply(call.call_id, &call.payload);
    }
    for client in &mut quiet {
        assert!(matches!(client.member(), Member::Pong(pong) if pong.nonce == 7));
    }
    for client in silent.iter_mut().chain(&mut queued) {
        client.welcome();
    }
    for (clients, payload) in [(&mut asking, "answered"), (&mut halves, "in two parts")] {
        for client in clients {
            let response = client.response();
            assert_eq!((&response.payload[..], response.reason()), (payload.as_bytes(), Reason::Unspecified));
        }
    }
    assert_eq!(process.metric("moorgate_links_lost_total"), 0);
    assert_eq!(process.metric("moorgate_process_pauses_total"), 1);
    process.logged("process_paused duration=");
}

// spec: P-8, S-10, L-43
#[test]
fn pause_counts_against_no_deadline() {
    let listener = listener();
    let process = Process::start(&text(listener.local_addr().unwrap(), TABLES));
    let mut link = RawLink::open(&listener);
    process.ready();
    let mut client = process.open();
    let view =
        RequestView { command: command::OPEN, payload: b"x", timeout_ms: 4000, ..RequestView::default() };
    client.send(&frame(1, 0, client::REQUEST, &view));
    let call = link.call();
    pause(&process, || {});
    // The link may be asked first, and is given its time to answer.
    client.send(&ping(1));
    assert!(matches!(client.member(), Member::Pong(_)));
    link.nothing_else();
    link.reply(call.call_id, b"late, and in time");
    assert_eq!(&client.response().payload[..], b"late, and in time");
}
