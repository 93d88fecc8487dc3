//! One link, driven by hand.

use super::*;
use moorgate_proto::codec::put_frame;
use moorgate_proto::envelope::Numbers;
use moorgate_proto::view::ReplyView;

const NOW: Mono = Mono::from_nanos(1_000_000_000);

fn settings(key: bool) -> Arc<LinkSettings> {
    let key = key.then(|| LinkKey::new(&[5; 16]).unwrap());
    Arc::new(LinkSettings { key, outstanding_max: 2, ..LinkSettings::new("echo") })
}

fn frame(member: u32, body: &impl Body) -> Vec<u8> {
    let mut out = Vec::new();
    put_frame(&mut out, Numbers::NONE, member, body);
    out
}

fn hello(service: &str) -> v1::LinkHello {
    v1::LinkHello {
        version_min: 1,
        version_max: 1,
        gateway_id: "gw".into(),
        boot_id: 9,
        service: service.into(),
        nonce: vec![1; NONCE_BYTES].into(),
        ..Default::default()
    }
}

/// What the link says, as members.
fn said(core: &mut LinkCore) -> Vec<(u32, Vec<u8>)> {
    let output = std::mem::take(core.output());
    let mut rest = &output[..];
    let mut assembler = Assembler::default();
    let mut found = Vec::new();
    while let Some(frame) = assembler.next(&mut rest, 1 << 20).unwrap() {
        let (member, body) = Envelope::decode(frame).unwrap().member.unwrap();
        found.push((member, body.to_vec()));
    }
    found
}

fn ready() -> LinkCore {
    let mut core = LinkCore::new(NOW, settings(false), [2; NONCE_BYTES]);
    let mut bytes = frame(to_service::HELLO, &hello("echo"));
    bytes.extend(frame(to_service::AUTH, &v1::LinkAuth::default()));
    core.received(NOW, &bytes, &mut |_, _| {}).unwrap();
    assert!(core.is_ready());
    core.output().clear();
    core
}

fn call(id: u64) -> Vec<u8> {
    frame(to_service::CALL, &CallView { call_id: id, command: 1, payload: b"hi", ..Default::default() })
}

// spec: L-5, L-6, L-8
#[test]
fn proofs_are_mutual() {
    let settings = settings(true);
    for good in [true, false] {
        let mut core = LinkCore::new(NOW, settings.clone(), [2; NONCE_BYTES]);
        let hello = hello("echo");
        core.received(NOW, &frame(to_service::HELLO, &hello), &mut |_, _| {}).unwrap();
        let ack = v1::LinkHelloAck::decode(&said(&mut core)[0].1[..]).unwrap();
        let facts = facts(&settings, &hello, &[2; NONCE_BYTES]);
        let key = settings.key.as_ref().unwrap();
        assert!(facts.verify(key, Prover::Service, &ack.proof));
        let mut proof = facts.prove(key, Prover::Gateway).to_vec();
        proof[0] ^= u8::from(!good);
        let auth = frame(to_service::AUTH, &v1::LinkAuth { proof: proof.into() });
        let result = core.received(NOW, &[auth, call(1)].concat(), &mut |_, _| {});
        assert_eq!(result, if good { Ok(()) } else { Err(LinkFault::Proof) });
        assert_eq!(core.calls().open(), usize::from(good), "no call runs without a proof");
    }
}

// spec: L-2, L-8, L-17
#[test]
fn a_call_before_auth_and_a_wrong_service_end_the_link() {
    let mut core = LinkCore::new(NOW, settings(true), [2; NONCE_BYTES]);
    assert_eq!(core.received(NOW, &call(1), &mut |_, _| {}), Err(LinkFault::Unexpected(to_service::CALL)));
    assert_eq!(said(&mut core)[0].0, to_gateway::ERROR);
    assert_eq!(core.received(NOW, &call(1), &mut |_, _| panic!("ended")), Ok(()));
    let mut core = LinkCore::new(NOW, settings(true), [2; NONCE_BYTES]);
    let result = core.received(NOW, &frame(to_service::HELLO, &hello("chat")), &mut |_, _| {});
    assert_eq!(result, Err(LinkFault::WrongService("chat".into())));
}

// spec: L-68
#[test]
fn a_link_asks_for_presence_first_of_all() {
    for wants_presence in [false, true] {
        let settings = Arc::new(LinkSettings { wants_presence, ..LinkSettings::new("echo") });
        let mut core = LinkCore::new(NOW, settings, [2; NONCE_BYTES]);
        core.received(NOW, &frame(to_service::HELLO, &hello("echo")), &mut |_, _| {}).unwrap();
        assert_eq!(said(&mut core).len(), 1);
        let ping = frame(to_service::PING, &v1::LinkPing::default());
        let auth = frame(to_service::AUTH, &v1::LinkAuth::default());
        core.received(NOW, &[auth, ping].concat(), &mut |_, _| {}).unwrap();
        let members: Vec<u32> = said(&mut core).into_iter().map(|(member, _)| member).collect();
        let subscribed = [to_gateway::PRESENCE_SUBSCRIBE, to_gateway::PONG];
        assert_eq!(members, subscribed[usize::from(!wants_presence)..]);
    }
    let mut core = ready();
    let event = v1::PresenceEvent { user_id: "alice".to_owned(), ..v1::PresenceEvent::default() };
    let bytes = [
        frame(to_service::PRESENCE_SNAPSHOT, &v1::PresenceSnapshot { end: true, version: 3 }),
        frame(to_service::PRESENCE_EVENT, &event),
    ];
    let mut seen = 0;
    let mut handle = |_: &mut Calls, input: Input<'_>| match input {
        Input::PresenceSnapshot(bracket) => seen += usize::from(bracket.end),
        Input::PresenceEvent(told) => seen += usize::from(*told == event),
        other => panic!("{other:?}"),
    };
    core.received(NOW, &bytes.concat(), &mut handle).unwrap();
    assert_eq!(seen, 2);
}

// spec: F-9, L-22, L-39, L-47
#[test]
fn each_call_is_answered_once() {
    let mut core = ready();
    let mut seen = Vec::new();
    let bytes = [call(1), call(2), call(3)].concat();
    for byte in bytes {
        let mut handle = |_: &mut Calls, input: Input<'_>| {
            if let Input::Call(call) = input {
                seen.push(call.call_id);
            }
        };
        core.received(NOW, &[byte], &mut handle).unwrap();
    }
    assert_eq!(seen, [1, 2]);
    let refused = ReplyView::decode(&said(&mut core)[0].1).unwrap().call_id;
    assert_eq!(refused, 3, "beyond the bound");
    let reply = ReplyView { call_id: 1, ..Default::default() };
    assert_eq!(core.calls().reply(&reply), Ok(()));
    assert_eq!(core.calls().reply(&reply), Err(ReplyError::NotOpen));
    assert_eq!(core.calls().reply(&ReplyView { call_id: 77, ..reply }), Err(ReplyError::NotOpen));
    assert_eq!(said(&mut core).len(), 1);
}

// spec: L-18, L-33, L-42
#[test]
fn pings_cancels_and_drains_are_passed_on() {
    let mut core = ready();
    let mut bytes = [call(1), frame(to_service::CANCEL, &v1::CancelCall { call_id: 1 })].concat();
    bytes.extend(frame(to_service::CANCEL, &v1::CancelCall { call_id: 8 }));
    bytes.extend(frame(to_service::PING, &v1::LinkPing { nonce: 7, view: None }));
    bytes.extend(frame(to_service::DRAIN, &v1::LinkDrain { deadline_ms: 1 }));
    bytes.extend(frame(63, &v1::LinkDrain { deadline_ms: 1 }));
    let mut inputs = Vec::new();
    core.received(NOW, &bytes, &mut |_, input| inputs.push(format!("{input:?}"))).unwrap();
    assert_eq!(inputs[1..], ["Cancel(1)", "Drain"]);
    let (member, pong) = &said(&mut core)[0];
    assert_eq!((*member, v1::LinkPong::decode(&pong[..]).unwrap().nonce), (to_gateway::PONG, 7));
}

// spec: L-9, L-16, L-44
#[test]
fn garbage_and_silence_end_the_link() {
    let mut core = ready();
    assert!(core.received(NOW, &[0, 0, 0, 0], &mut |_, input| panic!("{input:?}")).is_ok(), "an empty frame");
    assert!(core.received(NOW, &[0, 0, 0, 1, 0xff], &mut |_, _| {}).is_err());
    let mut core = ready();
    assert_eq!(core.timers(NOW + Duration::from_secs(29)), Ok(()));
    assert_eq!(core.timers(NOW + Duration::from_secs(30)), Err(LinkFault::Silence));
    let mut core = LinkCore::new(NOW, settings(false), [2; NONCE_BYTES]);
    assert_eq!(core.timers(NOW + Duration::from_secs(5)), Err(LinkFault::OpeningTimeout));
}

// spec: L-38, L-39, L-41
#[test]
fn a_changed_view_is_told_at_once_and_with_every_pong() {
    let mut core = LinkCore::new(NOW, settings(false), [2; NONCE_BYTES]);
    let view = |outstanding_max, load| v1::ServiceView {
        state: service_view::State::Degraded.into(),
        outstanding_max,
        load,
    };
    core.received(NOW, &frame(to_service::HELLO, &hello("echo")), &mut |_, _| {}).unwrap();
    assert_eq!(said(&mut core).len(), 1);
    core.set_view(view(1, 20_000));
    assert!(said(&mut core).is_empty(), "no LinkPing before the link is ready");
    core.received(NOW, &frame(to_service::AUTH, &v1::LinkAuth::default()), &mut |_, _| {}).unwrap();
    let (member, body) = said(&mut core).remove(0);
    let ping = v1::LinkPing::decode(&body[..]).unwrap();
    assert_eq!((member, ping.view), (to_gateway::PING, Some(view(1, LOAD_MAX))));
    core.set_view(view(1, LOAD_MAX));
    assert!(said(&mut core).is_empty(), "no news");
    // The gateway still goes by two: what crosses the news is run.
    core.received(NOW, &[call(1), call(2)].concat(), &mut |_, _| {}).unwrap();
    assert_eq!(core.calls().open(), 2);
    core.calls().reply(&ReplyView { call_id: 1, ..Default::default() }).unwrap();
    core.output().clear();
    let pong = frame(to_service::PONG, &v1::LinkPong { nonce: ping.nonce, view: None });
    let asks = frame(to_service::PING, &v1::LinkPing { nonce: 5, view: None });
    core.received(NOW, &[pong, call(3), asks].concat(), &mut |_, _| panic!("beyond the bound")).unwrap();
    let said = said(&mut core);
    assert_eq!(ReplyView::decode(&said[0].1).unwrap().reason, i32::from(Reason::ServiceOverloaded));
    assert_eq!(v1::LinkPong::decode(&said[1].1[..]).unwrap().view, Some(view(1, LOAD_MAX)));
}

// spec: L-45
#[test]
fn a_link_that_drains_says_so_whatever_its_view() {
    let mut core = ready();
    core.drain(Duration::from_secs(1));
    core.set_view(v1::ServiceView { load: 7, ..v1::ServiceView::default() });
    let said = said(&mut core);
    assert_eq!(said[0].0, to_gateway::DRAIN);
    let view = v1::LinkPing::decode(&said[1].1[..]).unwrap().view.unwrap();
    assert_eq!((view.state(), view.load), (service_view::State::Draining, 7));
}

#[test]
fn a_call_that_is_watched_tells_of_its_cancellation_and_of_the_end_of_its_link() {
    let mut core = ready();
    core.received(NOW, &[call(1), call(2)].concat(), &mut |_, _| {}).unwrap();
    let [first, second] = [1, 2].map(|id| core.calls().watch(id));
    let none = core.calls().watch(77);
    core.received(NOW, &frame(to_service::CANCEL, &v1::CancelCall { call_id: 1 }), &mut |_, _| {}).unwrap();
    assert!(first.is_set() && core.calls().watch(1).is_set() && !second.is_set());
    drop(core);
    assert!(second.is_set() && !none.is_set());
}

// spec: L-54, L-63
#[test]
fn results_receipts_and_checks_are_passed_on() {
    let mut core = ready();
    let result = v1::PushResult { push_id: vec![1].into(), ..Default::default() };
    let receipt = v1::PushReceipt { push_id: vec![2].into(), acknowledged: true, ..Default::default() };
    let check = v1::SessionCheck { check_id: 3, caller: None };
    let frames = [
        frame(to_service::PUSH_RESULT, &result),
        frame(to_service::PUSH_RECEIPT, &receipt),
        frame(to_service::SESSION_CHECK, &check),
    ];
    let mut inputs = Vec::new();
    core.received(NOW, &frames.concat(), &mut |_, input| inputs.push(format!("{input:?}"))).unwrap();
    let expected = [Input::PushResult(&result), Input::PushReceipt(&receipt), Input::SessionCheck(&check)];
    assert_eq!(inputs, expected.map(|input| format!("{input:?}")));
    let verdict = v1::SessionVerdict { check_id: 3, admitted: true, ..Default::default() };
    core.verdict(&verdict);
    assert_eq!(said(&mut core), [(to_gateway::SESSION_VERDICT, verdict.encode_to_vec())]);
    assert!(core.received(NOW, &frame(to_service::PUSH_RESULT, &Encoded(&[9])), &mut |_, _| {}).is_err());
}

#[test]
fn pushes_go_out_on_a_link_that_is_ready_and_takes_them() {
    let mut core = LinkCore::new(NOW, settings(false), [2; NONCE_BYTES]);
    let push = v1::ServicePush { push_id: vec![1; 16].into(), ..Default::default() }.encode_to_vec();
    assert!(!core.push(&push));
    assert_eq!(core.peer(), None);
    let hello = v1::LinkHello { frame_bytes_max: 4096, pushes_max: 3, ..hello("echo") };
    let opening = [frame(to_service::HELLO, &hello), frame(to_service::AUTH, &v1::LinkAuth::default())];
    core.received(NOW, &opening.concat(), &mut |_, _| {}).unwrap();
    core.output().clear();
    let gateway = GatewayKey { gateway_id: "gw".into(), boot_id: 9 };
    let peer = core.peer().unwrap();
    assert_eq!((&peer.gateway, peer.pushes_max, peer.frame_bytes_max), (&gateway, 3, 4096));
    assert_eq!((&peer.bulk_of, peer.nonce.len()), (&None, NONCE_BYTES));
    assert!(core.push(&push));
    assert_eq!(said(&mut core), [(to_gateway::PUSH, push)]);
    let large = v1::ServicePush { payload: vec![0; 4096].into(), ..Default::default() };
    assert!(!core.push(&large.encode_to_vec()));
    assert!(core.output().is_empty());
}
