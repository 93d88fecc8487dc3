//! Bulk links through the running reactor, with services by hand and with the service SDK.

use crate::link::{RawLink, acknowledgement, listener};
use crate::site::{LINK_SECRET, Site, command, link_key, own_address, settings};
use crate::wire::{RawClient, bare, request};
use moorgate_proto::envelope::member::to_gateway;
use moorgate_proto::v1::link_notice::Kind;
use moorgate_proto::v1::{self, LinkPurpose, Reason, to_service::Member};
use moorgate_service::{Reply, Service};
use std::net::TcpListener;

/// Clients may send and get large frames.
const LARGE_FRAMES: &str = "[session]\nframe = \"4 MiB\"\n[links]\nframe = \"4 MiB\"\n";
const LARGE: usize = 1024 * 1024;

/// Takes the bulk link that the gateway dials.
fn open_bulk(listener: &TcpListener, of: &v1::LinkHello) -> RawLink {
    let mut bulk = RawLink::accept(listener);
    let hello = bulk.hello();
    assert_eq!((hello.purpose(), &hello.main_nonce), (LinkPurpose::Bulk, &of.nonce));
    assert_eq!((hello.boot_id, hello.worker), (of.boot_id, of.worker));
    assert!(hello.nonce != of.nonce);
    bulk.send(to_gateway::HELLO_ACK, &acknowledgement(&hello, LINK_SECRET));
    assert!(matches!(bulk.member(), Member::Auth(_)));
    bulk
}

/// A gateway with its main link, and that one's LinkHello.
fn site_and_main(listener: &TcpListener) -> (Site, RawLink, v1::LinkHello) {
    let site = Site::beside(listener, LARGE_FRAMES);
    let mut main = RawLink::accept(listener);
    let hello = main.hello();
    main.send(to_gateway::HELLO_ACK, &acknowledgement(&hello, LINK_SECRET));
    assert!(matches!(main.member(), Member::Auth(_)));
    site.ready();
    (site, main, hello)
}

// spec: L-15, L-23, L-84, L-85, L-86
#[test]
fn large_calls_and_replies_use_a_second_link() {
    let listener = listener();
    let (site, mut main, hello) = site_and_main(&listener);
    let mut client = site.open();
    client.send(&request(1, command::OPEN, &vec![1; LARGE]));
    client.send(&request(2, command::OPEN, b"small"));
    let call = main.call();
    assert_eq!(&call.payload[..], b"small", "it does not wait for the large one");
    main.reply(call.call_id, b"small");
    assert_eq!(client.response().up_seq, 2);
    let mut bulk = open_bulk(&listener, &hello);
    let call = bulk.call();
    assert_eq!(call.payload.len(), LARGE);
    main.reply(call.call_id, b"on the main link");
    let response = client.response();
    assert_eq!((response.up_seq, &response.payload[..]), (1, &b"on the main link"[..]));
    client.send(&request(3, command::OPEN, b"small"));
    let call = main.call();
    bulk.reply(call.call_id, &vec![2; LARGE]);
    assert_eq!(client.response().payload.len(), LARGE, "on the bulk link");
    // Lost alone it costs the main link nothing; a service that asks gets another one.
    drop(bulk);
    main.send(
        to_gateway::NOTICE,
        &v1::LinkNotice { kind: Kind::BulkWanted.into(), ..v1::LinkNotice::default() },
    );
    let mut bulk = open_bulk(&listener, &hello);
    bulk.nothing_else();
    drop(main);
    assert_eq!(bulk.ends(), None, "it ends with its main link");
    drop(client);
    site.end();
}

// spec: L-84
#[test]
fn a_bulk_link_proves_its_purpose() {
    let listener = listener();
    let (site, main, of) = site_and_main(&listener);
    let mut client = site.open();
    client.send(&request(1, command::OPEN, &vec![1; LARGE]));
    let mut bulk = RawLink::accept(&listener);
    let hello = bulk.hello();
    // A proof for a main link, as an old one that is sent again would be.
    let main_hello = v1::LinkHello { purpose: LinkPurpose::Main.into(), ..hello };
    bulk.send(to_gateway::HELLO_ACK, &acknowledgement(&main_hello, LINK_SECRET));
    assert_eq!(bulk.ends(), Some(Reason::ProofInvalid));
    let mut bulk = open_bulk(&listener, &of);
    let call = bulk.call();
    bulk.reply(call.call_id, b"");
    assert_eq!(client.response().status, 0);
    drop((client, main));
    site.end();
}

/// What one client sends and gets, large and small mixed. One large Response at a time: more than a session may hold
/// unacknowledged would lose their payloads.
fn mixed(mut client: RawClient) {
    for first in (1..=40u8).step_by(4) {
        for up_seq in first..first + 4 {
            let len = if up_seq.is_multiple_of(4) { LARGE } else { 100 };
            client.send(&request(up_seq.into(), command::OPEN, &vec![up_seq; len]));
        }
        (0..4).for_each(|_| answered(&mut client));
    }
}

/// Takes a Response and acknowledges it.
fn answered(client: &mut RawClient) {
    let frame = client.frame();
    client.send(&bare(0, frame.down_seq));
    let Some(v1::gateway_frame::Member::Response(response)) = frame.member else { panic!("{frame:?}") };
    let len = if response.up_seq.is_multiple_of(4) { LARGE } else { 100 };
    assert_eq!(response.status, 0, "{}", response.up_seq);
    assert_eq!(response.payload.len(), len);
    assert!(response.payload.iter().all(|byte| u64::from(*byte) == response.up_seq));
}

// spec: L-22, L-84, L-85
#[test]
fn the_service_sdk_uses_bulk_links_and_loses_nothing() {
    let service = Service::named("echo").key(link_key()).handle_blocking(0..=u32::MAX, |call, later| {
        later.reply(Reply::ok(call.payload()));
    });
    let service = service.listen(own_address()).unwrap().spawn().unwrap();
    let mut settings = settings(service.address(), LARGE_FRAMES);
    (settings.reactor.shards, settings.reactor.workers) = (2, 2);
    let site = Site::of(settings);
    site.ready();
    let clients: Vec<RawClient> = (0..4).map(|_| site.open()).collect();
    let loads: Vec<_> = clients.into_iter().map(|client| std::thread::spawn(move || mixed(client))).collect();
    loads.into_iter().for_each(|load| load.join().unwrap());
    let opened = site.metric("moorgate_bulk_links_opened_total");
    assert!((1..=2).contains(&opened), "{opened}: at most one for each worker's link");
    assert_eq!(site.metric("moorgate_links_lost_total"), 0);
    service.drain();
    assert!(service.join());
    site.end();
}
