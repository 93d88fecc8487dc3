//! The service kit does with the frames of a gateway what `protocol-spec.md` and the vectors say.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "../../../proto/tests/contract/vector_file.rs"]
mod vector_file;

use moorgate_proto::codec::{Assembler, put_frame};
use moorgate_proto::envelope::{Numbers, member};
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{self, to_gateway};
use moorgate_proto::view::ReplyView;
use moorgate_service::LinkKey;
use moorgate_service::core::{Calls, Input, LinkCore, LinkSettings};
use prost::Message;
use std::sync::Arc;
use vector_file::{Vector, read, read_all};

const NOW: Mono = Mono::from_nanos(1_000_000_000);

fn vector(name: &str) -> Vector {
    read_all().into_iter().find(|vector| vector.name() == name).unwrap_or_else(|| panic!("no vector {name}"))
}

fn bytes(name: &str) -> Vec<u8> {
    vector(name).bytes("hex")
}

fn link(settings: LinkSettings) -> LinkCore {
    LinkCore::new(NOW, Arc::new(settings), [2; 32])
}

/// A link that has told how large a frame its gateway takes.
fn ready(gateway_frame_max: u32) -> LinkCore {
    let mut core = link(LinkSettings::new("echo"));
    let hello = v1::LinkHello {
        version_min: 1,
        version_max: 1,
        service: "echo".to_owned(),
        frame_bytes_max: gateway_frame_max,
        ..v1::LinkHello::default()
    };
    let mut opening = Vec::new();
    put_frame(&mut opening, Numbers::NONE, member::to_service::HELLO, &hello);
    opening.extend(bytes("link-auth-without-key"));
    core.received(NOW, &opening, &mut |_, _| {}).unwrap();
    assert!(core.is_ready());
    core.output().clear();
    core
}

fn members(mut bytes: &[u8]) -> Vec<to_gateway::Member> {
    let mut assembler = Assembler::default();
    let mut members = Vec::new();
    while let Some(frame) = assembler.next(&mut bytes, usize::MAX).unwrap() {
        members.push(v1::ToGateway::decode(frame).unwrap().member.unwrap());
    }
    members
}

// spec: L-2, L-3, L-5, L-6, L-8, L-10
#[test]
fn a_link_is_opened_as_the_vectors_have_it() {
    let key = LinkKey::new(&vector("link-hello-ack").bytes("key"));
    let settings = LinkSettings {
        instance_id: "chat-a".to_owned(),
        key,
        outstanding_max: 500,
        ..LinkSettings::new("chat")
    };
    let mut core = link(settings.clone());
    core.received(NOW, &bytes("link-hello"), &mut |_, _| {}).unwrap();
    assert_eq!(*core.output(), bytes("link-hello-ack"));
    core.received(NOW, &bytes("link-auth"), &mut |_, _| {}).unwrap();
    assert!(core.is_ready());
    let mut core = link(settings);
    core.received(NOW, &bytes("link-hello"), &mut |_, _| {}).unwrap();
    core.output().clear();
    let unproven = [bytes("link-auth-without-key"), bytes("call")].concat();
    assert!(core.received(NOW, &unproven, &mut |_, _| panic!("a call without a proof")).is_err());
    assert_eq!(*core.output(), bytes("link-error-service"));
}

// spec: L-18, L-22, L-24, L-33, L-42
#[test]
fn calls_come_as_the_vectors_have_them() {
    let mut core = ready(0);
    let mut seen = Vec::new();
    let frames = ["call", "call-anonymous", "cancel-call", "link-ping-gateway", "link-unknown-member"];
    let stream: Vec<u8> = frames.into_iter().flat_map(bytes).collect();
    let mut handle = |calls: &mut Calls, input: Input<'_>| match input {
        Input::Call(call) => {
            let caller = v1::Caller::decode(call.caller).unwrap();
            seen.push((call.call_id, call.command, caller.user_id));
            if call.call_id == 1 {
                calls
                    .reply(&ReplyView { call_id: 1, payload: call.payload, ..ReplyView::default() })
                    .unwrap();
            }
        }
        Input::Cancel(call_id) => seen.push((call_id, 0, "cancelled".to_owned())),
        input => panic!("{input:?}"),
    };
    core.received(NOW, &stream, &mut handle).unwrap();
    let id = 4_294_967_297;
    assert_eq!(seen, [(id, 258, "alice".to_owned()), (1, 1, String::new()), (id, 0, "cancelled".to_owned())]);
    let pong = core.output().split_off(bytes("reply-ok").len());
    assert_eq!(*core.output(), bytes("reply-ok"));
    assert!(matches!(members(&pong)[..], [to_gateway::Member::Pong(v1::LinkPong { nonce: 8, .. })]));
    assert!(core.received(NOW, &bytes("link-error-gateway"), &mut |_, _| {}).is_err());
}

// spec: L-2, L-8, L-16, L-17
#[test]
fn a_gateway_that_breaks_the_contract_is_told_why() {
    let mut seen = 0;
    for vector in read("malformed.txt").iter().filter(|vector| vector.frame() == "ToService") {
        let opening = vector.text("state") == "opening";
        let mut core = if opening { link(LinkSettings::new("echo")) } else { ready(0) };
        let result = core.received(NOW, &vector.bytes("hex"), &mut |_, _| panic!("{}", vector.name()));
        assert!(result.is_err(), "{}", vector.name());
        let said = members(core.output());
        let [to_gateway::Member::Error(error)] = &said[..] else { panic!("{}: {said:?}", vector.name()) };
        assert_eq!(error.reason().as_str_name(), format!("REASON_{}", vector.text("fault")));
        assert_eq!(Code::from_wire(error.status).name(), vector.text("status"), "{}", vector.name());
        seen += 1;
    }
    assert!(seen >= 4);
}

// spec: L-35
#[test]
fn a_reply_that_fits_into_no_frame_is_replaced_and_the_link_lives() {
    let mut core = ready(4096);
    let call = bytes("call-anonymous");
    for (payload_bytes, fits) in [(4000, true), (4096, false)] {
        let payload = vec![7; payload_bytes];
        let mut handle = |calls: &mut Calls, input: Input<'_>| {
            let Input::Call(call) = input else { panic!("{input:?}") };
            calls
                .reply(&ReplyView { call_id: call.call_id, payload: &payload, ..ReplyView::default() })
                .unwrap();
        };
        core.received(NOW, &call, &mut handle).unwrap();
        let said = members(&std::mem::take(core.output()));
        let [to_gateway::Member::Reply(reply)] = &said[..] else { panic!("{said:?}") };
        assert_eq!(reply.payload.len(), if fits { payload_bytes } else { 0 });
        assert_eq!(reply.reason() == v1::Reason::ReplyTooLarge, !fits);
        assert_eq!(Code::from_wire(reply.status), if fits { Code::Ok } else { Code::ResourceExhausted });
    }
}
