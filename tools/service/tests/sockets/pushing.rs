//! Pushes, their reports and receipts, and directives, with one gateway and with two.

use crate::gateway::{Gateway, PATIENCE, call, frame};
use moorgate_proto::envelope::member::to_service;
use moorgate_proto::v1::directive::Action;
use moorgate_proto::v1::push_result::Target;
use moorgate_proto::v1::{self, Users, service_push};
use moorgate_service::push::GatewayAnswer;
use moorgate_service::{
    Directive, Handle, LinkKey, Priority, Push, PushError, PushId, Reason, Reply, Service, TargetState,
};
use std::pin::Pin;
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

fn start(service: Service) -> Handle {
    service.listen("127.0.0.1:0".parse().unwrap()).unwrap().spawn().unwrap()
}

// spec: L-5, L-6, L-50, L-53
#[test]
fn two_gateways_with_proofs_get_a_push_and_their_answers_are_joined() {
    let key = LinkKey::new(b"a secret of 16 bytes or more").unwrap();
    let service = start(Service::named("two").key(key.clone()));
    let mut gateways = ["east", "west"].map(|name| Gateway::proven(name, service.address(), "two", &key));
    let push = Push::to_users(["alice", "bob"], 0x0220, &b"hello"[..])
        .with_priority(Priority::High)
        .with_ttl(Duration::from_secs(30))
        .with_collapse_key("typing")
        .with_content_encoding("br")
        .with_trace(v1::Trace { parent: "00-a".to_owned(), state: String::new() })
        .with(Directive::join_session("lobby", b"0123456789abcdef"))
        .with_receipt();
    let mut pending = service.pusher().send(push).unwrap();
    assert_eq!(Pin::new(&mut pending).poll(&mut Context::from_waker(Waker::noop())), Poll::Pending);
    let user_ids = vec!["alice".to_owned(), "bob".to_owned()];
    let expected = v1::ServicePush {
        push_id: pending.id().as_bytes().to_vec().into(),
        target: Some(service_push::Target::Users(Users { user_ids })),
        command: 0x0220,
        priority: Priority::High.into(),
        ttl_ms: 30_000,
        collapse_key: "typing".to_owned(),
        want_receipt: true,
        content_encoding: "br".to_owned(),
        trace: Some(v1::Trace { parent: "00-a".to_owned(), state: String::new() }),
        directives: vec![v1::Directive {
            action: Some(Action::JoinGroup(v1::JoinGroup {
                group: "lobby".to_owned(),
                session_id: b"0123456789abcdef".to_vec().into(),
            })),
        }],
        fragment: None,
        payload: b"hello".to_vec().into(),
    };
    assert_eq!(expected.push_id.len(), 16);
    for (gateway, bob) in gateways.iter_mut().zip([Target::Offline, Target::Waiting]) {
        assert_eq!(pending.report(), None);
        let push = gateway.push();
        assert_eq!(push, expected);
        gateway.result(&push, &[Target::Queued, bob]);
    }
    let report = pending.wait(PATIENCE).unwrap();
    assert_eq!(report.targets, [TargetState::Queued, TargetState::Waiting]);
    assert!(report.is_accepted() && report.gateways.len() == 2);
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(Pin::new(&mut pending).poll(&mut context), Poll::Ready(report));
    gateways.iter_mut().for_each(Gateway::round_trip);
}

// spec: L-50, L-51
#[test]
fn what_a_lost_link_has_not_answered_goes_on_another_one() {
    let service = start(Service::named("lost"));
    let [mut first, mut second] = [(); 2].map(|()| Gateway::of("gate", 2, service.address(), "lost"));
    let pusher = service.pusher();
    let id = PushId::new(b"chosen").unwrap();
    let pending = pusher.send(Push::to_group("lobby", 1, &b"x"[..]).with_id(id.clone())).unwrap();
    let push = first.push();
    assert_eq!((&push.push_id[..], pending.id()), (&b"chosen"[..], &id));
    second.round_trip();
    drop(first);
    assert_eq!(second.push(), push);
    second.result(&push, &[]);
    assert!(pending.wait(PATIENCE).unwrap().is_accepted());
    // No more at once than the gateway grants, in order.
    let later: Vec<_> = (0..4).map(|_| pusher.send(Push::to_everyone(2, &b""[..])).unwrap()).collect();
    let [one, two] = [(); 2].map(|()| second.push());
    second.round_trip();
    second.result(&one, &[]);
    let three = second.push();
    assert!(matches!(three.target, Some(service_push::Target::Everyone(_))));
    second.round_trip();
    second.result(&two, &[]);
    second.result(&three, &[]);
    let four = second.push();
    second.result(&four, &[]);
    for (pending, push) in later.iter().zip([one, two, three, four]) {
        assert_eq!(pending.id().as_bytes(), &push.push_id[..]);
        assert!(pending.wait(PATIENCE).unwrap().is_accepted());
    }
}

#[test]
fn what_cannot_be_pushed_is_told_at_once() {
    let service = start(Service::named("poor"));
    let pusher = service.pusher();
    let to_nobody = pusher.send(Push::to_users(["alice"], 1, &b""[..])).unwrap().wait(PATIENCE).unwrap();
    assert_eq!((to_nobody.targets, to_nobody.gateways.len()), (vec![TargetState::Refused], 0));
    let mut gateway = Gateway::of("gate", 0, service.address(), "poor");
    let (sender, reports) = channel();
    let push = Push::to_sessions([&b"0123456789abcdef"[..]], 1, &b""[..]);
    pusher.send_then(push, move |report| sender.send(report).unwrap());
    let report = reports.recv_timeout(PATIENCE).unwrap().unwrap();
    let GatewayAnswer::Refused { reason, .. } = &report.gateways[0].answer else { panic!("{report:?}") };
    assert_eq!(*reason, Reason::GrantMissing);
    let error = |push: Push| pusher.send(push).map(|_| ()).unwrap_err();
    let push = || Push::to_everyone(1, &b""[..]);
    assert_eq!(error(push().with(Directive::join("lobby"))), PushError::NoCaller);
    assert_eq!(error(push().with(Directive::leave("lobby"))), PushError::NoCaller);
    let many = (0..17).fold(push(), |push, _| push.with(Directive::kick_user("bob", "")));
    assert_eq!(error(many), PushError::TooManyDirectives);
    assert_eq!(error(Push::to_everyone(1, vec![0; 16 << 20])), PushError::TooLarge);
    gateway.round_trip();
    service.stop();
    assert!(service.join());
    assert_eq!(error(push()), PushError::Ended);
    for (push, error) in
        [(push(), PushError::Ended), (push().with(Directive::join("x")), PushError::NoCaller)]
    {
        let (sender, reports) = channel();
        pusher.send_then(push, move |report| sender.send(report).unwrap());
        assert_eq!(reports.recv().unwrap().unwrap_err(), error);
    }
}

#[test]
fn pushes_without_a_report_are_bounded_and_all_have_one_in_the_end() {
    let service = Service::named("bounded");
    let pusher = service.pusher();
    let push = || Push::to_users(["alice"], 1, &b""[..]);
    let pending: Vec<_> = std::iter::from_fn(|| pusher.send(push()).ok()).collect();
    assert_eq!(pending.len(), 16 * 1024);
    assert_eq!(pusher.send(push()).unwrap_err(), PushError::Full);
    let service = start(service);
    for pending in pending {
        assert_eq!(pending.wait(PATIENCE).unwrap().gateways, [], "before it has listened");
    }
    let mut gateway = Gateway::of("gate", 1, service.address(), "bounded");
    let [sent, waits] = [(); 2].map(|()| pusher.send(push()).unwrap());
    gateway.push();
    service.stop();
    assert!(service.join());
    let answer = |report: moorgate_service::PushReport| report.gateways[0].answer.clone();
    assert_eq!(answer(sent.wait(PATIENCE).unwrap()), GatewayAnswer::Unknown);
    assert_eq!(answer(waits.wait(PATIENCE).unwrap()), GatewayAnswer::NotSent);
}

// spec: L-54
#[test]
fn receipts_come_on_any_link_and_a_listener_that_panics_ends_nothing() {
    let (sender, receipts) = channel();
    let service = start(Service::named("receipts").on_receipt(move |receipt| {
        sender.send(receipt.clone()).unwrap();
        assert!(receipt.acknowledged, "as a listener may");
    }));
    let [mut first, mut second] = [(); 2].map(|()| Gateway::of("gate", 1, service.address(), "receipts"));
    let pusher = service.pusher();
    let id = PushId::new(b"chosen").unwrap();
    let push = Push::to_users(["alice"], 1, &b""[..]).with_receipt().with_id(id.clone());
    pusher.send_then(push, |_| panic!("as a listener may"));
    let push = first.push();
    assert!(push.want_receipt);
    first.result(&push, &[Target::Queued]);
    for acknowledged in [false, true] {
        let receipt = v1::PushReceipt {
            push_id: push.push_id.clone(),
            session_id: b"0123456789abcdef".to_vec().into(),
            user_id: "alice".to_owned(),
            acknowledged,
            reason: if acknowledged { Reason::Unspecified } else { Reason::PushExpired }.into(),
        };
        second.send(&frame(to_service::PUSH_RECEIPT, &receipt));
        let told = receipts.recv_timeout(PATIENCE).unwrap();
        assert_eq!((&told.push_id[..], &told.session_id[..]), (id.as_bytes(), &b"0123456789abcdef"[..]));
        assert_eq!(
            (told.user_id, told.acknowledged, told.reason),
            ("alice".to_owned(), acknowledged, receipt.reason())
        );
    }
    first.round_trip();
    second.round_trip();
}

// spec: L-57
#[test]
fn directives_go_with_replies_and_in_order_with_pushes_before_and_behind() {
    const NOW: u32 = 1;
    const LATER: u32 = 2;
    const FAREWELL: u32 = 3;
    let service = Service::named("directed");
    let [pusher, parting] = [(); 2].map(|()| service.pusher());
    let service = start(
        service
            .handle_blocking(FAREWELL..=FAREWELL, move |_, later| {
                parting.send(Push::to_group("lobby", 4, &b"farewell"[..])).unwrap();
                later.reply(Reply::ok(b"").with(Directive::leave("lobby")));
            })
            .handle(NOW..=NOW, |_, responder| {
                responder.reply(Reply::ok(b"hi").with_login("alice", &["member"], Duration::from_secs(60)));
            })
            .handle(LATER..=LATER, move |_, responder| {
                responder.later().reply(Reply::ok(b"").with(Directive::join("lobby")));
                pusher.send(Push::to_group("lobby", 3, &b"joined"[..])).unwrap();
            }),
    );
    let mut gateway = Gateway::of("gate", 10, service.address(), "directed");
    gateway.send(&[call(1, NOW, b""), call(2, LATER, b"")].concat());
    let login =
        v1::Login { user_id: "alice".to_owned(), roles: vec!["member".to_owned()], access_ttl_ms: 60_000 };
    let action = |reply: &v1::Reply| reply.directives[0].action.clone().unwrap();
    let reply = gateway.reply();
    assert_eq!((reply.call_id, &reply.payload[..], action(&reply)), (1, &b"hi"[..], Action::Login(login)));
    let reply = gateway.reply();
    let join = v1::JoinGroup { group: "lobby".to_owned(), session_id: Vec::new().into() };
    assert_eq!((reply.call_id, action(&reply)), (2, Action::JoinGroup(join)));
    assert_eq!(&gateway.push().payload[..], b"joined");
    gateway.send(&call(3, FAREWELL, b""));
    assert_eq!(&gateway.push().payload[..], b"farewell");
    assert_eq!(gateway.reply().call_id, 3);
}
