//! Every signal that may be sent to the binary.

use crate::child::{Process, http};
use crate::link::{RawLink, listener};
use crate::site::{command, echo_service, nobody, text, until};
use crate::wire::{RawClient, request};
use moorgate_proto::v1::{Reason, gateway_frame::Member};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;

/// What a signal must do.
enum Effect {
    /// A drain; a second one ends the process at once, or does nothing.
    Drains { second_ends: bool },
    /// A line of the log with these words, and nothing else.
    Logs(&'static str),
    /// Nothing.
    Nothing,
    /// The process stops, and goes on after CONT.
    Stops,
    /// The process dies of it: a fault of its own, or what cannot be caught.
    Kills,
    /// The C library's own.
    Reserved,
}

/// All of them, as signal(7) has them on Linux.
fn effect(signal: i32) -> Effect {
    match signal {
        1 => Effect::Logs("SIGHUP received: the configuration is not reloaded"),
        2 | 3 | 15 => Effect::Drains { second_ends: true },
        24 | 30 => Effect::Drains { second_ends: false },
        4..=9 | 11 | 31 => Effect::Kills,
        10 => Effect::Logs("no access log to reopen"),
        12 => Effect::Logs("SIGUSR2 received and ignored"),
        14 => Effect::Logs("SIGALRM received and ignored"),
        16 => Effect::Logs("signal 16 received and ignored"),
        26 => Effect::Logs("SIGVTALRM received and ignored"),
        27 => Effect::Logs("SIGPROF received and ignored"),
        29 => Effect::Logs("SIGIO received and ignored"),
        13 | 17 | 18 | 23 | 25 | 28 => Effect::Nothing,
        19..=22 => Effect::Stops,
        32 | 33 => Effect::Reserved,
        34..=64 => Effect::Logs("received and ignored"),
        _ => panic!("there is no signal {signal}"),
    }
}

#[test]
fn every_signal_has_its_effect() {
    let service = echo_service();
    let configuration = text(service.address(), "");
    let mut process = Process::start_behind("ulimit -c 0; ", &configuration);
    process.ready();
    let mut client = process.open();
    for signal in 1..=64 {
        let name = signal.to_string();
        match effect(signal) {
            Effect::Logs(words) => {
                process.signal(&name);
                process.logged(words);
            }
            Effect::Nothing => process.signal(&name),
            Effect::Stops => {
                process.signal(&name);
                process.signal("CONT");
            }
            Effect::Drains { second_ends } => drains(&configuration, &name, second_ends),
            Effect::Kills => {
                let mut other = Process::start_behind("ulimit -c 0; ", &configuration);
                other.signal(&name);
                // The standard library handles these two, and leaves the second to the system.
                if matches!(signal, 7 | 11) {
                    until("it dies", || {
                        other.signal(&name);
                        other.has_ended()
                    });
                }
                assert_eq!(other.ended().0.signal(), Some(signal));
            }
            Effect::Reserved => {}
        }
    }
    // It has survived all of them, and ends as it should.
    assert_eq!(&client.ask(1, command::OPEN, b"alive").payload[..], b"alive");
    drop(client);
    process.signal("TERM");
    let (status, printed) = process.ended();
    assert_eq!((status.code(), printed.starts_with("drained: 1 connections")), (Some(0), true), "{printed}");
    service.stop();
    service.join();
}

fn drains(configuration: &str, signal: &str, second_ends: bool) {
    let mut process = Process::start(configuration);
    process.ready();
    let mut client = process.open();
    process.signal(signal);
    assert!(matches!(client.member(), Member::GoAway(away) if away.reason() == Reason::Shutdown), "{signal}");
    process.signal(signal);
    if !second_ends {
        process.signal("USR2");
        process.logged("SIGUSR2 received");
        drop(client);
    }
    let (status, printed) = process.ended();
    let expected =
        if second_ends { "" } else { "drained: 1 connections, 1 sessions, 0 requests, 0 of them OK\n" };
    assert_eq!((status.code(), printed.as_str()), (Some(i32::from(second_ends)), expected), "{signal}");
}

#[test]
fn second_signal_ends_beside_a_silent_registry() {
    let (service, registry) = (echo_service(), TcpListener::bind("127.0.0.1:0").unwrap());
    let at = registry.local_addr().unwrap();
    let tables = format!(
        "[consul]\naddress = \"http://{at}\"\n[register]\naddress = \"192.0.2.9:7000\"\nconsul = true\n"
    );
    let mut process = Process::start(&text(service.address(), &tables));
    process.ready();
    let _client = process.open();
    // It registers, and is never answered.
    let _registering = registry.accept().unwrap();
    process.signal("TERM");
    process.logged("a second signal ends at once");
    process.signal("TERM");
    assert_eq!(process.ended().0.code(), Some(1));
    let log = process.whole_log();
    assert!(log.contains("ended by a second signal") && !log.contains("has not confirmed"), "{log}");
    service.stop();
    service.join();
}

#[test]
fn drain_delay_serves_while_it_is_not_ready() {
    let service = echo_service();
    let with_delay = |delay: &str| {
        text(service.address(), "").replace("shards = 1", &format!("shards = 1\ndrain_delay = \"{delay}\""))
    };
    let mut process = Process::start(&with_delay("10m"));
    process.ready();
    let mut old = process.open();
    process.signal("TERM");
    until("it is not ready", || http::get(process.admin, "/readyz").0 == 503);
    let mut new = process.open();
    for client in [&mut old, &mut new] {
        assert_eq!(&client.ask(1, command::OPEN, b"x").payload[..], b"x");
    }
    old.nothing_else();
    process.signal("TERM");
    assert_eq!(process.ended().0.code(), Some(1));

    let mut process = Process::start(&with_delay("50ms"));
    process.ready();
    let mut client = process.open();
    process.signal("TERM");
    assert!(matches!(client.member(), Member::GoAway(_)));
    drop(client);
    assert_eq!(process.ended().0.code(), Some(0));
    service.stop();
    service.join();
}

// spec: O-23
#[test]
fn clients_that_wait_to_be_accepted_get_shutdown() {
    let listener = listener();
    let tables = "[rates]\naccepts = \"1/h, burst 1\"\n";
    let mut process = Process::start(&text(listener.local_addr().unwrap(), tables));
    let mut link = RawLink::open(&listener);
    process.ready();
    let mut client = process.open();
    client.send(&request(1, command::OPEN, b"x"));
    let call = link.call();
    // More than are kept for a moment after their refusal.
    let mut waiting: Vec<RawClient> = (0..200).map(|_| RawClient::connect(process.address)).collect();
    for client in waiting.iter_mut().step_by(2) {
        client.send(&crate::wire::hello_frame(&crate::wire::hello()));
    }
    process.signal("TERM");
    for mut client in waiting {
        let error = client.error();
        assert_eq!(error.reason(), Reason::Shutdown);
        assert!(error.reconnect.unwrap().allowed);
    }
    assert!(matches!(client.member(), Member::GoAway(_)));
    link.reply(call.call_id, b"last");
    assert_eq!(&client.response().payload[..], b"last");
    drop(client);
    assert_eq!(process.ended().0.code(), Some(0));
}

#[test]
fn soft_limit_of_descriptors_is_raised_and_small_room_reported() {
    let configuration = text(nobody(), "");
    let process = Process::start_behind("ulimit -S -n 256; ", &configuration);
    let (soft, hard) = process.descriptor_limits();
    assert!(process.has_logged("limit of descriptors raised from 256 to "));
    assert!(soft == hard && soft != "256", "{soft} of {hard}");
    drop(process);
    let process = Process::start_behind("ulimit -n 256; ", &configuration);
    assert!(process.has_logged("this process may have 256 descriptors"));
}
