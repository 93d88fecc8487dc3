//! Addresses, accept modes, limits of connections, and places that are used again.

use crate::link::listener;
use crate::site::{Site, command, echo_service, nobody, own_address, settings, until};
use crate::wire::{RawClient, hello, hello_frame};
use moorgate::config::Settings;
use moorgate::gateway::Gateway;
use moorgate::reactor::{AcceptMode, ListenAt, ListenerSettings};
use moorgate::telemetry::AccessTarget;
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Reason, gateway_frame::Member};
use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};

fn listening(addresses: &[&str], accept: AcceptMode) -> Vec<ListenerSettings> {
    let at = |address: &&str| ListenAt::Address(address.parse().unwrap());
    addresses.iter().map(|address| ListenerSettings { at: at(address), accept, heartbeat: None }).collect()
}

/// Opens a session; which shard has it shows in the first half of its id.
fn open(address: SocketAddr) -> (RawClient, Vec<u8>) {
    let mut client = RawClient::connect(address);
    client.send(&hello_frame(&hello()));
    let shard = client.welcome().session_id[..8].to_vec();
    (client, shard)
}

#[test]
fn several_listeners_on_ipv4_and_ipv6_serve() {
    for accept in [AcceptMode::ReusePort, AcceptMode::Shared] {
        let site = Site::start_with("", |settings| {
            settings.reactor.shards = 2;
            settings.reactor.listeners =
                listening(&["127.0.0.1:0", "[::1]:0", "127.0.0.1:0", "127.0.0.2:0"], accept);
        });
        let addresses = site.gateway().client_addresses().to_vec();
        assert_eq!(
            addresses.iter().map(SocketAddr::is_ipv6).collect::<Vec<_>>(),
            [false, true, false, false]
        );
        assert_ne!(addresses[0], addresses[2]);
        for address in addresses {
            assert_ne!(address.port(), 0);
            let mut client = RawClient::open(address);
            assert_eq!(client.ask(1, command::OPEN, b"here").status, Code::Ok.to_wire());
        }
        site.end();
    }
}

#[test]
fn a_call_names_an_ipv6_client_in_brackets() {
    let listener = listener();
    let mut settings = settings(listener.local_addr().unwrap(), "");
    settings.reactor.listeners = listening(&["[::1]:0"], AcceptMode::default());
    let site = Site::of(settings);
    let mut link = crate::link::RawLink::open(&listener);
    site.ready();
    let mut client = site.open();
    client.send(&crate::wire::request(1, command::OPEN, b"x"));
    let call = link.call();
    let address = client.stream.local_addr().unwrap();
    assert_eq!(call.caller.unwrap().client_address, address.to_string());
    link.reply(call.call_id, b"");
    client.response();
    drop(client);
    site.end();
}

#[test]
fn a_shared_listener_deals_its_connections_to_all_shards() {
    let site = Site::start_with("", |settings| {
        settings.reactor.shards = 4;
        settings.reactor.workers = 2;
        settings.reactor.listeners = listening(&["127.0.0.1:0"], AcceptMode::Shared);
    });
    let mut shards: HashMap<Vec<u8>, u32> = HashMap::new();
    let mut clients = Vec::new();
    for _ in 0..16 {
        let (mut client, shard) = open(site.address());
        assert_eq!(client.ask(1, command::OPEN, b"x").status, Code::Ok.to_wire());
        *shards.entry(shard).or_default() += 1;
        clients.push(client);
    }
    assert_eq!(shards.values().copied().collect::<Vec<_>>(), [4; 4]);
    drop(clients);
    site.end();
}

#[test]
fn listeners_of_their_own_serve_on_several_shards() {
    let site = Site::start_with("", |settings| {
        settings.reactor.shards = 4;
        settings.reactor.workers = 2;
        settings.reactor.listeners = listening(&["127.0.0.1:0"], AcceptMode::ReusePort);
    });
    let mut shards: HashMap<Vec<u8>, u32> = HashMap::new();
    let mut clients = Vec::new();
    for _ in 0..64 {
        let (mut client, shard) = open(site.address());
        assert_eq!(client.ask(1, command::OPEN, b"x").status, Code::Ok.to_wire());
        *shards.entry(shard).or_default() += 1;
        clients.push(client);
    }
    assert!(shards.len() > 1, "the kernel spreads them: {shards:?}");
    drop(clients);
    site.end();
}

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    let service = echo_service();
    let on = |address: SocketAddr, accept| -> Settings {
        let mut settings = settings(service.address(), "");
        settings.reactor.listeners =
            vec![ListenerSettings { at: ListenAt::Address(address), accept, heartbeat: None }];
        settings
    };
    let both = [AcceptMode::ReusePort, AcceptMode::Shared];
    let holder = TcpListener::bind(own_address()).unwrap();
    let held = holder.local_addr().unwrap();
    for first in both {
        let site = Site::of(on(own_address(), first));
        for (address, second) in
            both.into_iter().flat_map(|second| [(held, second), (site.address(), second)])
        {
            let error = Gateway::start(on(address, second)).err().expect("it has started").to_string();
            assert!(error.contains(&address.to_string()) && error.contains("in use"), "{error}");
        }
        site.end();
    }
    service.stop();
    assert!(service.join());
}

#[test]
fn an_operators_port_in_use_is_an_error_that_names_it() {
    let holder = TcpListener::bind(own_address()).unwrap();
    let held = holder.local_addr().unwrap();
    let mut settings = settings(nobody(), "");
    settings.admin = Some(ListenAt::Address(held));
    let error = Gateway::start(settings).err().expect("it has started").to_string();
    assert!(error.contains(&held.to_string()) && error.contains("operator"), "{error}");
}

#[test]
fn a_gateway_that_does_not_start_leaves_nothing_running() {
    let address = nobody();
    let mut settings = settings(nobody(), "");
    settings.admin = Some(ListenAt::Address(address));
    settings.access_log = AccessTarget::File("/nowhere/access.log".into());
    let error = Gateway::start(settings).err().expect("it has started").to_string();
    assert!(error.contains("/nowhere/access.log"), "{error}");
    TcpListener::bind(address).expect("the operator's page is still there");
}

#[test]
fn an_address_of_another_machine_is_an_error_that_names_it() {
    let mut settings = settings(nobody(), "");
    // TEST-NET-1 (RFC 5737) is nobody's.
    settings.reactor.listeners = listening(&["192.0.2.1:7000"], AcceptMode::default());
    let error = Gateway::start(settings).err().expect("it has started").to_string();
    assert!(error.contains("192.0.2.1:7000 is no address of this machine"), "{error}");
}

// spec: O-22
#[test]
fn connections_of_one_address_have_their_limit_and_get_it_back() {
    let limit = "[limits]\nconnections_per_address = 3\n";
    for accept in [AcceptMode::ReusePort, AcceptMode::Shared] {
        let site = Site::start_with(limit, |settings| {
            settings.reactor.shards = 2;
            settings.reactor.listeners = listening(&["127.0.0.1:0"], accept);
        });
        let mut clients: Vec<RawClient> = (0..3).map(|_| site.open()).collect();
        for _ in 0..2 {
            let mut refused = site.connect();
            let error = refused.error();
            let (code, reason) = (Code::from_wire(error.status), error.reason());
            assert_eq!((code, reason), (Code::ResourceExhausted, Reason::ConnectionLimit));
            let reconnect = error.reconnect.unwrap();
            assert!(reconnect.allowed && reconnect.after_ms > 0);
        }
        assert_eq!(site.metric("moorgate_connections_refused_total{why=\"address\"}"), 2);
        // From another address of this machine.
        let other = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        other.bind(&SocketAddr::from(([127, 0, 0, 3], 0)).into()).unwrap();
        other.connect(&site.address().into()).unwrap();
        let mut other = RawClient::over(other.into());
        other.send(&hello_frame(&hello()));
        other.welcome();
        clients.pop();
        // The other shard may be asked before the one that had it has given the place back.
        until("there is room again", || {
            let mut client = site.connect();
            client.try_send(&hello_frame(&hello()));
            let is_in = matches!(client.member(), Member::Welcome(_));
            clients.extend(is_in.then_some(client));
            is_in
        });
        drop((clients, other));
        site.end();
    }
}

// spec: O-22
#[test]
fn connections_of_a_shard_have_their_limit_and_get_it_back() {
    let site = Site::start("[limits]\nconnections = 2\nreserve = 0\n");
    let mut clients = vec![site.open(), site.open()];
    for _ in 0..2 {
        let error = site.connect().error();
        assert_eq!(error.reason(), Reason::ConnectionLimit);
    }
    assert_eq!(site.metric("moorgate_connections_refused_total{why=\"limit\"}"), 2);
    clients.pop();
    site.metric_becomes("moorgate_connections", 1);
    clients.push(site.open());
    drop(clients);
    site.end();
}

// spec: F-11
#[test]
fn unfinished_frames_have_their_budget() {
    let site = Site::start("[limits]\nunfinished_frames = \"110 KiB\"\n");
    let mut clients: Vec<RawClient> = (0..4).map(|_| site.open()).collect();
    // Each begins a frame of 60,000 bytes and sends half of it: together four are too much.
    for client in &mut clients {
        client.send(&60_000u32.to_be_bytes());
        client.send(&[0; 30_000]);
    }
    site.metric_becomes("moorgate_partial_budget_exceeded_total", 1);
    site.metric_becomes("moorgate_sessions", 3);
    site.serves();
    drop(clients);
    site.end();
}

#[test]
fn a_place_that_is_left_and_taken_in_one_turn_serves_the_new_connection() {
    let site = Site::start("");
    let mut clients: Vec<RawClient> = (0..4).map(|_| site.open()).collect();
    for round in 0..300 {
        // Some leave before the others come, some after: both in one turn of the loop, as often as it happens.
        let last = if round % 2 == 0 { std::mem::take(&mut clients) } else { Vec::new() };
        drop(last);
        let mut next: Vec<RawClient> = (0..4).map(|_| site.connect()).collect();
        clients.clear();
        for client in &mut next {
            client.send(&hello_frame(&v1::Hello { device_id: round.to_string(), ..hello() }));
        }
        for client in &mut next {
            client.welcome();
        }
        clients = next;
    }
    for client in &mut clients {
        assert_eq!(client.ask(1, command::OPEN, b"last").status, Code::Ok.to_wire());
    }
    drop(clients);
    site.end();
}
