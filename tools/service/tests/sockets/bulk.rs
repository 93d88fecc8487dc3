//! Bulk links, and what becomes of the Replies on them.

use crate::gateway::{Gateway, auth, call, frame, hello_of};
use crate::{ECHO, LARGE, start, wait_until_it_sleeps};
use moorgate_proto::envelope::member::to_service;
use moorgate_proto::v1::to_gateway::Member;
use moorgate_proto::v1::{LinkHello, LinkPurpose};
use moorgate_service::{Code, Reason, Reply, Service};
use std::net::SocketAddr;

const BYTES: usize = 1 << 20;
const CALLS: u64 = 24;
const MAIN_NONCE: [u8; 32] = [1; 32];

/// A main link with a nonce of its own.
fn open_main(address: SocketAddr, service: &str) -> Gateway {
    let hello = LinkHello { nonce: MAIN_NONCE.to_vec().into(), ..hello_of("gateway", 0, service) };
    open(address, &hello)
}

/// A bulk link of a main link with this nonce; not yet read.
fn open_bulk(address: SocketAddr, service: &str, main_nonce: [u8; 32]) -> Gateway {
    let hello = LinkHello {
        purpose: LinkPurpose::Bulk.into(),
        main_nonce: main_nonce.to_vec().into(),
        ..hello_of("gateway", 0, service)
    };
    open(address, &hello)
}

fn open(address: SocketAddr, hello: &LinkHello) -> Gateway {
    let mut gateway = Gateway::connect(address);
    gateway.send(&frame(to_service::HELLO, hello));
    assert!(matches!(gateway.next(), Some(Member::HelloAck(_))));
    gateway.send(&auth());
    gateway
}

/// A service whose Replies to `LARGE` are large.
fn large(name: &str) -> moorgate_service::Handle {
    let service = Service::named(name)
        .handle(ECHO..=ECHO, |call, responder| responder.reply(Reply::ok(call.payload())))
        .handle(LARGE..=LARGE, |_, responder| responder.reply(Reply::ok(&vec![5; BYTES])));
    service.listen("127.0.0.1:0".parse().unwrap()).unwrap().spawn().unwrap()
}

/// A pair of links, and [`CALLS`] large calls on its main link, whose Replies the bulk link holds.
fn pair_with_large_replies(service: &str, address: SocketAddr) -> (Gateway, Gateway) {
    let mut main = open_main(address, service);
    main.round_trip();
    let mut bulk = open_bulk(address, service, MAIN_NONCE);
    bulk.round_trip();
    main.send(&(0..CALLS).flat_map(|id| call(id, LARGE, b"")).collect::<Vec<u8>>());
    // On the main link they would delay this one.
    main.send(&call(CALLS, ECHO, b"small"));
    assert_eq!(main.reply().call_id, CALLS);
    (main, bulk)
}

// spec: L-84
#[test]
fn bulk_link_without_its_main_link_is_refused() {
    let (service, _laters) = start("unpaired");
    let _main = open_main(service.address(), "unpaired");
    let mut bulk = open_bulk(service.address(), "unpaired", [2; 32]);
    match bulk.next() {
        Some(Member::Error(error)) => {
            let said = (Code::from_wire(error.status), error.reason());
            assert_eq!(said, (Code::FailedPrecondition, Reason::IdentityMismatch));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(bulk.next(), None);
}

// spec: L-23, L-86
#[test]
fn replies_unsent_on_a_lost_bulk_link_go_on_its_main_link() {
    let service = large("lost-bulk");
    let (mut main, bulk) = pair_with_large_replies("lost-bulk", service.address());
    wait_until_it_sleeps("lost-bulk");
    drop(bulk);
    // What its socket had taken is lost, and nothing else.
    let first = main.reply();
    assert!(first.call_id < CALLS, "{}", first.call_id);
    for id in first.call_id + 1..CALLS {
        let reply = main.reply();
        assert_eq!((reply.call_id, reply.payload.len()), (id, BYTES));
    }
    main.round_trip();
}

// spec: L-87
#[test]
fn bulk_link_whose_stream_ends_writes_its_replies_first() {
    let service = large("ended-bulk");
    let (mut main, mut bulk) = pair_with_large_replies("ended-bulk", service.address());
    bulk.stream.shutdown(std::net::Shutdown::Write).unwrap();
    for id in 0..CALLS {
        let reply = bulk.reply();
        assert_eq!((reply.call_id, reply.payload.len()), (id, BYTES));
    }
    assert_eq!(bulk.next(), None);
    main.round_trip();
}
