//! What runs out: descriptors, and the memory for clients that do not read.

use crate::child::{Process, http};
use crate::site::{Site, command, echo_service, echo_service_at, text, until};
use crate::wire::{RawClient, hello, hello_frame, request};
use moorgate_proto::v1::{Reason, gateway_frame::Member};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// Opens a session, unless it is refused for want of room.
fn try_open(address: SocketAddr) -> Option<RawClient> {
    let mut client = RawClient::connect(address);
    client.try_send(&hello_frame(&hello()));
    match client.member() {
        Member::Welcome(_) => Some(client),
        Member::Error(error) => {
            assert_eq!(error.reason(), Reason::ConnectionLimit);
            assert!(error.reconnect.unwrap().allowed);
            None
        }
        other => panic!("{other:?}"),
    }
}

// spec: O-22
#[test]
fn without_descriptors_clients_are_refused_politely_and_served_again_later() {
    let service = echo_service();
    let process = Process::with_descriptors(&text(service.address(), "[limits]\nreserve = 0\n"), 128);
    process.ready();
    let mut clients = Vec::new();
    while let Some(client) = try_open(process.address) {
        clients.push(client);
        assert!(clients.len() < 128, "there are not so many descriptors");
    }
    assert!(clients.len() > 30, "only {} clients", clients.len());
    // Each gets its Error, and the shard does not spin.
    for _ in 0..5 {
        assert!(try_open(process.address).is_none());
    }
    // The shard sleeps between its tries: it is rarely seen awake.
    let asleep = || (0..50).filter(|_| rests(&process, "shard-0")).count();
    until("the shard rests", || asleep() > 25);
    // Those that are there are served.
    for client in &mut clients {
        assert_eq!(&client.ask(1, command::OPEN, b"room").payload[..], b"room");
    }
    clients.truncate(10);
    until("there is room again", || {
        try_open(process.address).is_some_and(|client| {
            clients.push(client);
            true
        })
    });
    assert_eq!(&clients.last_mut().unwrap().ask(1, command::OPEN, b"back").payload[..], b"back");
    assert!(process.metric("moorgate_connections_refused_total{why=\"descriptors\"}") >= 6);
    assert_eq!(process.metric("moorgate_listener_pauses_total"), 0, "some descriptors are left for others");
    let turns = process.metric("moorgate_loop_turns_total");
    assert!(turns < 20_000, "the loops spin: {turns} turns");
    drop(clients);
    until("all are released", || process.metric("moorgate_connections") == 0);
    drop(process);
    service.stop();
    service.join();
}

// spec: O-22
#[test]
fn a_refused_client_that_has_said_hello_gets_the_word_and_no_reset() {
    let service = echo_service();
    let process = Process::start(&text(service.address(), "[limits]\nconnections = 1\n"));
    let held = process.open();
    // Its Hello is there before the gateway looks.
    process.signal("STOP");
    let mut refused = RawClient::connect(process.address);
    refused.send(&hello_frame(&hello()));
    process.signal("CONT");
    let Member::Error(error) = refused.member() else { panic!("an Error") };
    assert_eq!(error.reason(), Reason::ConnectionLimit);
    // A reset would, on many systems, take the Error from a client that has not read it yet.
    assert_eq!(refused.stream.read_to_end(&mut Vec::new()).unwrap(), 0);
    // The gateway reads the Hello after that: only when it has closed too is it known that no reset came. To kill it
    // would be one.
    refused.stream.shutdown(Shutdown::Write).expect("no reset");
    until("only the other is left", || process.metric("moorgate_connections") == 1);
    assert!(refused.stream.take_error().unwrap().is_none(), "a reset");
    drop((held, process));
    service.stop();
    service.join();
}

// spec: O-22
#[test]
fn the_spare_descriptor_that_was_lost_is_found_again() {
    let service = echo_service();
    let process = Process::start(&text(service.address(), ""));
    process.ready();
    let spares = || process.descriptors_of("/dev/null");
    let before = spares();
    process.limit_descriptors(3);
    let mut first = RawClient::connect(process.address);
    until("the spare is given up, and cannot be had again", || spares() < before);
    process.limit_descriptors(40);
    first.send(&hello_frame(&hello()));
    first.welcome();
    let mut clients = Vec::new();
    while let Some(client) = try_open(process.address) {
        clients.push(client);
        assert!(clients.len() < 40, "there are not so many descriptors");
    }
    assert!(process.metric("moorgate_listener_pauses_total") >= 1);
    drop((first, clients, process));
    service.stop();
    service.join();
}

/// Clients hold every descriptor that they get, and others wait for the next one; a link that is lost gets one before
/// them.
#[test]
fn a_lost_link_is_dialled_again_beside_clients_that_hold_every_descriptor() {
    let service = echo_service();
    let at = service.address();
    let process = Process::with_descriptors(
        &text(at, "[limits]\nreserve = 0\n[links]\nreconnect_max = \"200ms\"\n"),
        128,
    );
    process.ready();
    let mut clients = Vec::new();
    while let Some(client) = try_open(process.address) {
        clients.push(client);
    }
    service.stop();
    service.join();
    until("the link is lost", || process.metric("moorgate_links_lost_total") >= 1);
    // As many as would take what the link has left.
    let waiting: Vec<RawClient> = (0..20).map(|_| RawClient::connect(process.address)).collect();
    for _ in 0..5 {
        assert!(try_open(process.address).is_none());
    }
    let service = echo_service_at(at);
    process.ready();
    assert_eq!(&clients[0].ask(1, command::OPEN, b"again").payload[..], b"again");
    drop((waiting, clients, process));
    service.stop();
    service.join();
}

/// Those that wait to be accepted cannot even be refused: the drain gives them up at once.
// spec: X-9
#[test]
fn drain_without_descriptors_gives_up_the_accept_queue() {
    let service = echo_service();
    let mut process = Process::start(&text(service.address(), ""));
    process.ready();
    let held = process.open();
    process.limit_descriptors(3);
    let waiting: Vec<RawClient> = (0..5).map(|_| RawClient::connect(process.address)).collect();
    process.signal("TERM");
    until("its listener is closed", || TcpStream::connect(process.address).is_err());
    process.limit_descriptors(1000);
    assert_eq!(process.metric("moorgate_accept_errors_total"), 0);
    drop((held, waiting));
    assert_eq!(process.ended().0.code(), Some(0));
    service.stop();
    service.join();
}

#[test]
fn without_descriptors_the_operators_thread_rests_and_answers_again_later() {
    let service = echo_service();
    let process = Process::start(&text(service.address(), ""));
    process.ready();
    process.limit_descriptors(3);
    let mut waiting = TcpStream::connect(process.admin).unwrap();
    waiting.write_all(b"GET /livez HTTP/1.1\r\n\r\n").unwrap();
    process.logged("admin: Too many open files");
    until("the operator's thread rests", || process.thread_state("admin") == 'S');
    process.limit_descriptors(1000);
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(http::get(process.admin, "/livez").0, 200);
    drop(process);
    service.stop();
    service.join();
}

// spec: D-8
#[test]
fn a_client_that_does_not_read_is_closed_and_the_others_are_served() {
    let tables = "[session]\nwrite_timeout = \"300ms\"\nin_flight = 400\nwindow = 400\n";
    let site = Site::start(tables);
    let mut deaf = deaf_client(site.address());
    let closed = || site.metric("moorgate_close_reasons_total{reason=\"write_stalled\"}") == 1;
    // One after the other, so that each is written as far as the socket takes it.
    for up_seq in 1..=300 {
        deaf.try_send(&request(up_seq, command::OPEN, &[7; 60_000]));
        let is_answered = || site.metric("moorgate_requests_total{status=\"OK\"}") == up_seq;
        until("it is answered or closed", || is_answered() || closed());
    }
    let mut other = site.open();
    assert_eq!(&other.ask(1, command::OPEN, b"mine").payload[..], b"mine");
    until("it is closed", closed);
    // What the kernel has taken for it counts as sent: little more than what its own kernel takes.
    let taken = site.metric("moorgate_bytes_sent_total");
    assert!(taken < 600 * 1024, "{taken} bytes were taken before it was noticed");
    assert_eq!(&other.ask(2, command::OPEN, b"mine").payload[..], b"mine");
    drop((deaf, other));
    site.end();
}

/// Whether a thread sleeps, looked at after a moment.
fn rests(process: &Process, thread: &str) -> bool {
    std::thread::park_timeout(Duration::from_millis(2));
    process.thread_state(thread) == 'S'
}

/// An open session whose kernel takes next to nothing for it.
fn deaf_client(address: SocketAddr) -> RawClient {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.into()).unwrap();
    let mut client = RawClient::over(socket.into());
    client.send(&hello_frame(&hello()));
    client.welcome();
    client
}

// spec: D-7
#[test]
fn clients_that_do_not_read_hold_bounded_memory() {
    let service = echo_service();
    let tables = "[session]\nin_flight = 400\nwindow = 400\n";
    let process = Process::start(&text(service.address(), tables));
    process.ready();
    let mut clients: Vec<RawClient> = (0..16).map(|_| deaf_client(process.address)).collect();
    let before_kib = process.status_of("VmHWM");
    // 16 clients are owed 9 MB each.
    for up_seq in 1..=150 {
        for client in &mut clients {
            client.send(&request(up_seq, command::OPEN, &[7; 60_000]));
        }
        let answered = 16 * up_seq;
        until("all is answered", || process.metric("moorgate_requests_total{status=\"OK\"}") == answered);
    }
    let grown_kib = process.status_of("VmHWM") - before_kib;
    // For each: 1 MiB that was sent and may be sent again, 4 MiB that wait, the output.
    assert!(grown_kib < 112 * 1024, "{grown_kib} KiB for 16 clients");
    drop(clients);
    until("all are released", || process.metric("moorgate_connections") == 0);
    drop(process);
    service.stop();
    service.join();
}
