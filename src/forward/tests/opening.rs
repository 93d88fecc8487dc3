//! Links from their connection to ready, and what is refused on the way.

use super::*;
use moorgate_proto::proof::{LinkFacts, LinkKey as Secret, Prover};

const SERVICE_NONCE: [u8; NONCE_BYTES] = [8; NONCE_BYTES];

fn secret() -> Secret {
    Secret::new(b"0123456789abcdef").unwrap()
}

fn facts() -> LinkFacts<'static> {
    LinkFacts {
        version: 1,
        gateway_id: "moorgate",
        boot_id: 9,
        service: "chat",
        instance_id: "chat-a",
        gateway_nonce: &NONCE,
        service_nonce: &SERVICE_NONCE,
        purpose: v1::LinkPurpose::Main.into(),
    }
}

/// A deployment with a key, and its one link, which has said Hello.
fn keyed() -> (World, LinkKey) {
    let mut world = World::with(1, |parts| parts.services[0].key = Some(secret()));
    let link = world.dialled();
    world.forwarder.connected(world.now, link, NONCE);
    let [to_service::Member::Hello(hello)] = &world.heard(link)[..] else { panic!("a Hello comes first") };
    assert_eq!((hello.service.as_str(), hello.boot_id, &hello.nonce[..]), ("chat", 9, &NONCE[..]));
    (world, link)
}

fn refused(ack: v1::LinkHelloAck) {
    let (mut world, link) = keyed();
    world.say(link, to_gateway::Member::HelloAck(ack));
    assert!(world.closes(link));
    assert_eq!((world.count(Count::LinkProofsRefused), world.count(Count::LinksFailed)), (1, 1));
    assert_eq!(world.readiness.links(ServiceId(0)), 0);
}

fn proven() -> v1::LinkHelloAck {
    let proof = facts().prove(&secret(), Prover::Service).to_vec().into();
    v1::LinkHelloAck { nonce: SERVICE_NONCE.to_vec().into(), proof, ..hello_ack() }
}

// spec: L-5, L-6, L-7, L-10
#[test]
fn both_ends_prove_that_they_hold_the_key() {
    let (mut world, link) = keyed();
    world.say(link, to_gateway::Member::HelloAck(proven()));
    let [to_service::Member::Auth(auth)] = &world.heard(link)[..] else { panic!("its own proof") };
    assert!(facts().verify(&secret(), Prover::Gateway, &auth.proof));
    assert_eq!((world.count(Count::LinksOpened), world.readiness.links(ServiceId(0))), (1, 1));
}

// spec: L-5
#[test]
fn a_wrong_proof_is_refused() {
    refused(v1::LinkHelloAck { proof: vec![0; 32].into(), ..proven() });
    refused(v1::LinkHelloAck {
        proof: facts().prove(&secret(), Prover::Gateway).to_vec().into(),
        ..proven()
    });
    refused(v1::LinkHelloAck { nonce: vec![8; NONCE_BYTES - 1].into(), ..proven() });
    refused(hello_ack());
}

// spec: L-4
#[test]
fn another_service_or_version_is_refused() {
    refused(v1::LinkHelloAck { service: "accounts".to_owned(), ..proven() });
    refused(v1::LinkHelloAck { version: 2, ..proven() });
}

#[test]
fn only_a_hello_ack_opens_a_link() {
    let mut world = World::new(1);
    let link = world.dialled();
    world.forwarder.connected(world.now, link, NONCE);
    world.say(link, to_gateway::Member::Ping(v1::LinkPing::default()));
    assert!(world.closes(link));
    assert_eq!(world.count(Count::LinkGarbage), 1);
}

// spec: L-16
#[test]
fn a_second_hello_ack_closes_the_link() {
    let (mut world, link) = World::ready(0);
    world.say(link, to_gateway::Member::HelloAck(hello_ack()));
    assert!(world.closes(link));
}

// spec: F-3
#[test]
fn opening_frames_are_small() {
    let mut world = World::new(1);
    let link = world.dialled();
    world.forwarder.connected(world.now, link, NONCE);
    world.hear(link, &4097u32.to_be_bytes());
    assert!(world.closes(link));
}

// spec: F-9
#[test]
fn frames_may_come_in_pieces() {
    let mut world = World::new(1);
    let link = world.dialled();
    world.forwarder.connected(world.now, link, NONCE);
    for byte in frame(to_gateway::Member::HelloAck(hello_ack())) {
        world.hear(link, &[byte]);
    }
    let ticket = world.ask(b"");
    let call = world.call(link);
    let reply = v1::Reply { call_id: call.call_id, payload: vec![1; 300].into(), ..v1::Reply::default() };
    for piece in frame(to_gateway::Member::Reply(reply)).chunks(7) {
        assert!(world.settled().is_empty());
        world.hear(link, piece);
    }
    assert_eq!(world.settled(), [(ticket, done())]);
}

// spec: L-9, L-14
#[test]
fn a_connection_must_stand_and_open_in_time() {
    let mut world = World::new(1);
    let link = world.dialled();
    world.pass(Duration::from_millis(2100));
    assert!(world.closes(link), "no connection");
    world.pass(Duration::from_millis(300));
    let link = world.dialled();
    world.forwarder.connected(world.now, link, NONCE);
    world.pass(Duration::from_millis(2100));
    assert!(world.closes(link), "no HelloAck");
    assert_eq!(world.count(Count::LinksFailed), 2);
}
