//! What the service manager is told.

use crate::unit::{Site, any_port, client, echo, echo_service};
use std::net::TcpListener;

const LISTENER: &str = "[[listener]]\naddress = \"127.0.0.1:0\"";
const WATCHDOG: (&str, &str) = ("WATCHDOG_USEC", "100000");

#[test]
fn it_is_ready_when_its_listeners_stand_and_does_not_wait_for_links() {
    // Somebody who takes connections and says nothing.
    let silent = TcpListener::bind(any_port()).unwrap();
    let site = Site::new(LISTENER, silent.local_addr().unwrap());
    let mut unit = site.start(&[]);
    let status = "STATUS=not ready: service echo has no ready link; 0 connections";
    assert_eq!(site.notice(), format!("READY=1\n{status}\n"));
    drop(client(unit.address()));
    unit.signal("TERM");
    let first = site.notice_with("STOPPING=1");
    assert!(first.starts_with("STOPPING=1\nEXTEND_TIMEOUT_USEC=10000000\n"), "{first}");
    assert_eq!(unit.ended().0, Some(0));
}

#[test]
fn the_watchdog_is_fed_while_it_serves_and_while_it_drains() {
    let service = echo_service();
    let site = Site::new(LISTENER, service.address());
    let mut unit = site.start(&[WATCHDOG]);
    let first = site.notice();
    assert!(first.starts_with("READY=1\nWATCHDOG=1\nSTATUS="), "{first}");
    let mut client = client(unit.address());
    let status = site.notice_with("; 1 connection");
    assert!(status.starts_with("WATCHDOG=1\nSTATUS="), "{status}");
    echo(&mut client);
    for _ in 0..3 {
        assert!(site.notice().starts_with("WATCHDOG=1\n"));
    }
    unit.signal("TERM");
    let stopping = site.notice_with("STOPPING=1");
    let draining = "STATUS=draining; 1 connection\n";
    assert_eq!(stopping, format!("STOPPING=1\nWATCHDOG=1\nEXTEND_TIMEOUT_USEC=10000000\n{draining}"));
    for _ in 0..3 {
        assert_eq!(site.notice(), "WATCHDOG=1\nEXTEND_TIMEOUT_USEC=10000000\n");
    }
    client.bye().unwrap();
    let (code, log) = unit.ended();
    assert_eq!(code, Some(0), "{log}");
    service.stop();
    assert!(service.join());
}

#[test]
fn a_watchdog_that_was_meant_for_another_process_is_none() {
    let silent = TcpListener::bind(any_port()).unwrap();
    let site = Site::new(LISTENER, silent.local_addr().unwrap());
    let _unit = site.start(&[WATCHDOG, ("WATCHDOG_PID", "1")]);
    let first = site.notice();
    assert!(first.starts_with("READY=1\nSTATUS="), "{first}");
}

#[test]
fn a_service_manager_that_cannot_be_told_is_logged_once_and_does_no_harm() {
    let service = echo_service();
    let site = Site::new(LISTENER, service.address());
    for (name, why) in [
        ("/nowhere/notify", "cannot be told how the gateway is: No such file or directory"),
        ("run/notify", "NOTIFY_SOCKET is `run/notify`: neither a path nor @NAME"),
    ] {
        let mut unit = site.start(&[("NOTIFY_SOCKET", name), WATCHDOG]);
        let address = unit.address();
        unit.logged(why);
        client(address).bye().unwrap();
        unit.signal("TERM");
        let (code, log) = unit.ended();
        assert_eq!((code, log.matches(why).count()), (Some(0), 1), "{log}");
    }
    service.stop();
    assert!(service.join());
}
