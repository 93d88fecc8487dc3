//! The binary and its signals.

use crate::child::Process;
use crate::link::{RawLink, listener};
use crate::site::{command, echo_service, nobody, own_address, text, until};
use crate::wire::{hello, hello_frame, request};
use moorgate_proto::v1::{Reason, gateway_frame::Member};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

#[test]
fn sigterm_drains_and_ends_with_a_summary() {
    for signal in ["TERM", "INT"] {
        let service = echo_service();
        let mut process = Process::start(&text(service.address(), ""));
        process.ready();
        let mut client = process.open();
        assert_eq!(&client.ask(1, command::OPEN, b"x").payload[..], b"x");
        process.signal(signal);
        assert!(matches!(client.member(), Member::GoAway(told) if told.reason() == Reason::Shutdown));
        drop(client);
        let (status, printed) = process.ended();
        assert_eq!(status.code(), Some(0), "{signal}");
        assert_eq!(printed, "drained: 1 connections, 1 sessions, 1 requests, 1 of them OK\n");
        service.stop();
        service.join();
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let listener = listener();
    let mut process = Process::start(&text(listener.local_addr().unwrap(), ""));
    let mut link = RawLink::open(&listener);
    process.ready();
    let mut client = process.open();
    client.send(&request(1, command::OPEN, b"x"));
    link.call();
    process.signal("TERM");
    assert!(matches!(client.member(), Member::GoAway(_)));
    process.logged("a second signal ends at once");
    process.signal("TERM");
    let (status, printed) = process.ended();
    assert_eq!((status.code(), printed.as_str()), (Some(1), ""));
    process.logged("ended by a second signal");
}

#[test]
fn after_a_kill_it_starts_again_on_the_same_port() {
    let service = echo_service();
    let on = |listener: &str| text(service.address(), "").replacen("127.0.0.1:0", listener, 1);
    let mut process = Process::start(&on(&own_address().to_string()));
    process.ready();
    let address = process.address;
    let mut clients = [process.open(), process.open(), process.open()];
    clients[0].ask(1, command::OPEN, b"x");
    process.signal("KILL");
    assert_eq!(process.ended().0.code(), None);
    clients[1].closed();
    let again = Process::start(&on(&address.to_string()));
    assert_eq!(again.address, address);
    again.ready();
    assert_eq!(&again.open().ask(1, command::OPEN, b"again").payload[..], b"again");
    drop((clients, again));
    service.stop();
    service.join();
}

#[test]
fn a_client_of_a_killed_service_is_told_and_the_gateway_lives() {
    let service = echo_service();
    let process = Process::start(&text(service.address(), "[links]\nreconnect_min = \"10ms\"\n"));
    process.ready();
    service.stop();
    service.join();
    until("the link is lost", || crate::child::http::get(process.admin, "/readyz").0 == 503);
    let mut client = process.open();
    assert_eq!(client.ask(1, command::OPEN, b"x").reason(), Reason::NoEndpoint);
}

#[test]
fn a_configuration_with_mistakes_ends_with_every_one_of_them() {
    let directory = crate::child::Directory::new();
    let file = directory.path().join("bad.toml");
    std::fs::write(&file, text(nobody(), "[session]\nin_flight = 0\n[limits]\nconnections = 0\n")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_moorgate"))
        .args(["serve", "-c"])
        .arg(&file)
        .env("ACCESS", "too short")
        .env("LINK", crate::site::LINK_SECRET)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    for mistake in ["in_flight", "limits.connections", "auth.key"] {
        assert!(said.contains(mistake), "{said}");
    }
}

#[test]
fn a_port_in_use_ends_it_with_exit_code_1() {
    let holder = std::net::TcpListener::bind(own_address()).unwrap();
    let held = holder.local_addr().unwrap();
    let directory = crate::child::Directory::new();
    let file = directory.path().join("held.toml");
    std::fs::write(
        &file,
        text(nobody(), "").replacen("127.0.0.1:0\"\n[admin]", &format!("{held}\"\n[admin]"), 1),
    )
    .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_moorgate"))
        .args(["serve", "-c"])
        .arg(&file)
        .env("ACCESS", crate::site::ACCESS_SECRET)
        .env("LINK", crate::site::LINK_SECRET)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&format!("{held} is in use")), "{said}");
}

#[test]
fn a_stopped_process_serves_again_when_it_goes_on() {
    let service = echo_service();
    let process = Process::start(&text(service.address(), ""));
    process.ready();
    let mut client = process.open();
    process.signal("STOP");
    client.send(&request(1, command::OPEN, b"while it sleeps"));
    let mut other = crate::wire::RawClient::connect(process.address);
    other.send(&hello_frame(&hello()));
    process.signal("CONT");
    assert_eq!(&client.response().payload[..], b"while it sleeps");
    other.welcome();
    drop((client, other, process));
    service.stop();
    service.join();
}

#[test]
fn an_operator_is_answered_although_the_process_was_stopped_meanwhile() {
    let process = Process::start(&text(nobody(), ""));
    let is_answered = || {
        let mut stream = TcpStream::connect(process.admin).unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\n").unwrap();
        // The gateway waits for the rest of the question, all but perhaps the first time.
        for signal in ["STOP", "CONT"].repeat(4) {
            process.signal(signal);
        }
        // It has closed, if it has taken that for the end.
        let _ = stream.write_all(b"\r\n");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).is_ok_and(|_| answer.starts_with("HTTP/1.1 200 OK"))
    };
    // It has two seconds for each, which may be too short on a busy machine.
    until("it is answered", is_answered);
}
