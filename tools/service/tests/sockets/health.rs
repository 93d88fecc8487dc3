//! How a service sees itself, and whether it lets sessions be.

use crate::gateway::{Gateway, call, frame};
use moorgate_proto::envelope::member::to_service;
use moorgate_proto::v1::to_gateway::Member;
use moorgate_proto::v1::{self, ServiceView};
use moorgate_service::{Reason, Reply, Service, State, Verdict};
use std::time::Duration;

const ECHO: u32 = 1;

fn ping(gateway: &mut Gateway) -> v1::LinkPing {
    match gateway.next() {
        Some(Member::Ping(ping)) => ping,
        other => panic!("no LinkPing but {other:?}"),
    }
}

// spec: L-41, L-42
#[test]
fn every_gateway_is_told_at_once_and_a_later_one_when_it_comes() {
    let service = Service::named("moody").outstanding_max(50);
    let early = service.health();
    early.set_load(1);
    let service = service.handle(ECHO..=ECHO, |call, responder| responder.reply(Reply::ok(call.payload())));
    let service = service.listen("127.0.0.1:0".parse().unwrap()).unwrap().spawn().unwrap();
    let mut gateways = ["east", "west"].map(|name| Gateway::of(name, 0, service.address(), "moody"));
    let health = service.health();
    assert_eq!(health.view(), ServiceView { state: State::Up.into(), outstanding_max: 50, load: 1 });
    health.set_state(State::Degraded);
    health.set_load(99_999);
    let view = ServiceView { state: State::Degraded.into(), outstanding_max: 50, load: 10_000 };
    for gateway in &mut gateways {
        // Two changes may come as one.
        let mut told = ping(gateway);
        while told.view != Some(view) {
            told = ping(gateway);
        }
        gateway.send(&frame(to_service::PING, &v1::LinkPing { nonce: 9, view: None }));
        assert_eq!(gateway.next(), Some(Member::Pong(v1::LinkPong { nonce: 9, view: Some(view) })));
        gateway.send(&call(1, ECHO, b"still served"));
        assert_eq!(gateway.reply().payload, &b"still served"[..]);
    }
    // A link that is opened now is told in its LinkHelloAck.
    let mut late = Gateway::connect(service.address());
    late.send(&crate::gateway::hello("moody"));
    let Some(Member::HelloAck(ack)) = late.next() else { panic!("no LinkHelloAck") };
    assert_eq!(ack.view, Some(view));
}

// spec: L-63
#[test]
fn each_session_check_has_one_verdict() {
    let checked = Service::named("checked").check_sessions(|caller| match caller.user_id.as_str() {
        "alice" => Verdict::admit().with_cache(Duration::from_secs(5)),
        "panic" => panic!("as a check may"),
        _ => Verdict::refuse(Reason::Banned, "until Friday"),
    });
    for (service, name) in [(checked, "checked"), (Service::named("unchecked"), "unchecked")] {
        let service = service.listen("127.0.0.1:0".parse().unwrap()).unwrap().spawn().unwrap();
        let mut gateway = Gateway::of("east", 0, service.address(), name);
        let mut verdict = |check_id, user_id: &str| {
            let caller = Some(v1::Caller { user_id: user_id.to_owned(), ..v1::Caller::default() });
            gateway.send(&frame(to_service::SESSION_CHECK, &v1::SessionCheck { check_id, caller }));
            match gateway.next() {
                Some(Member::SessionVerdict(verdict)) if verdict.check_id == check_id => verdict,
                other => panic!("{other:?}"),
            }
        };
        let alice = verdict(5, "alice");
        let expected = if name == "checked" { (true, 5000) } else { (false, 0) };
        assert_eq!((alice.admitted, alice.cache_ms), expected);
        if name == "checked" {
            let bob = verdict(6, "bob");
            assert_eq!(
                (bob.admitted, bob.reason(), &bob.message[..]),
                (false, Reason::Banned, "until Friday")
            );
            let panicked = verdict(7, "panic");
            assert_eq!((panicked.admitted, panicked.reason()), (false, Reason::Internal));
            assert!(verdict(8, "alice").admitted, "it goes on");
        }
    }
}
