//! The service kit in a registry: it comes once it serves, and leaves before it says so to gateways.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

#[path = "../../service/tests/sockets/gateway.rs"]
#[allow(dead_code, reason = "the kit's own tests use the rest")]
mod gateway;
mod programs;

use gateway::{Gateway, call};
use moorgate_proto::v1::to_gateway::Member;
use moorgate_registry::{ConsulQuery, ConsulSettings, ConsulWatch, Health, Listed, Registration, Target};
use moorgate_service::{Handle, Later, Reply, Service};
use programs::consul::Consul;
use programs::{PATIENCE, Watcher};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// A service that is listed there, and its calls, to be answered by the test.
fn start(settings: &ConsulSettings) -> (Handle, Receiver<Later>) {
    let (sender, laters) = channel();
    let service = Service::named("chat")
        .handle(1..=1, move |_, responder| sender.send(responder.later()).unwrap())
        .register(Target::Consul(settings.clone()), |address| Registration::new("chat", address));
    (service.listen("127.0.0.1:0".parse().unwrap()).unwrap().spawn().unwrap(), laters)
}

fn watch(consul: &Consul) -> Watcher {
    let query = ConsulQuery { name: "chat".to_owned(), ..ConsulQuery::default() };
    Watcher::new(ConsulWatch::new(&consul.settings, query))
}

fn is_up(list: &[Listed]) -> bool {
    list.iter().any(|listed| listed.health == Health::Good)
}

#[test]
fn a_service_leaves_the_registry_then_the_gateways_and_then_ends() {
    let Some(consul) = Consul::start() else { return };
    let (service, laters) = start(&consul.settings);
    let watcher = watch(&consul);
    let list = watcher.list("listed", is_up);
    assert_eq!(list[0].address, service.address());
    let mut gateway = Gateway::ready(service.address(), "chat");
    gateway.send(&call(1, 1, b""));
    let later = laters.recv_timeout(PATIENCE).unwrap();
    service.drain();
    assert!(matches!(gateway.next(), Some(Member::Drain(_))));
    assert!(!consul.lists("chat"), "it had left the agent before");
    watcher.list("gone", <[Listed]>::is_empty);
    later.reply(Reply::ok(b"at last"));
    assert_eq!(gateway.reply().payload, &b"at last"[..]);
    drop(gateway);
    assert!(service.join());
}

#[test]
fn a_service_that_stops_leaves_the_registry_first() {
    let Some(consul) = Consul::start() else { return };
    let (service, _laters) = start(&consul.settings);
    watch(&consul).list("listed", is_up);
    service.stop();
    assert!(service.join());
    assert!(!consul.lists("chat"));
}

#[test]
fn a_registry_that_does_not_answer_delays_a_drain_and_nothing_else() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", silent.local_addr().unwrap());
    let (service, laters) = start(&ConsulSettings { address, ..ConsulSettings::default() });
    let mut gateway = Gateway::ready(service.address(), "chat");
    gateway.round_trip();
    let asked = silent.accept().unwrap();
    service.drain();
    // It has not left, and runs what comes.
    gateway.send(&call(1, 1, b""));
    laters.recv_timeout(PATIENCE).unwrap().reply(Reply::ok(b"served"));
    assert_eq!(gateway.reply().payload, &b"served"[..]);
    gateway.stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert!(matches!(gateway.next(), Some(Member::Drain(_))), "it drains all the same");
    drop((gateway, asked));
    assert!(service.join());
}
