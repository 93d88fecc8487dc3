//! What a running service says is what the vectors have, byte by byte.

#[path = "../../../../proto/tests/contract/vector_file.rs"]
mod vector_file;

use crate::gateway::{Gateway, PATIENCE};
use moorgate_service::{
    Code, Directive, Execution, Priority, Push, PushId, Reason, Reply, Service, TargetState, Verdict,
};
use std::sync::mpsc::channel;
use std::time::Duration;

fn bytes(name: &str) -> Vec<u8> {
    let vector = vector_file::read_all().into_iter().find(|vector| vector.name() == name);
    vector.unwrap_or_else(|| panic!("no vector {name}")).bytes("hex")
}

/// The service's next frame is that of the vector.
fn says(gateway: &mut Gateway, name: &str) {
    // Behind the length.
    assert_eq!(gateway.next_frame().unwrap(), bytes(name)[4..], "{name}");
}

// spec: E-6, L-22, L-31
#[test]
fn replies_are_those_of_the_vectors() {
    let moved = || {
        Reply::error(Code::FailedPrecondition, "the group is being moved")
            .with_reason(Reason::Draining)
            .with_execution(Execution::NotExecuted)
            .with_retry_after(Duration::from_millis(250))
            .with_content_encoding("gzip")
            .with_payload(b"more")
    };
    let welcome = || {
        Reply::ok(b"welcome")
            .with_login("alice", &["member"], Duration::from_secs(3600))
            .with(Directive::join("rust"))
            .with(Directive::kick_user("bob", "banned"))
    };
    let service = Service::named("vectors")
        .handle(0x0001..=0x0001, move |_, responder| responder.reply(welcome()))
        .handle_blocking(0x0102..=0x0102, move |_, later| later.reply(moved()));
    let service = service.listen("127.0.0.1:0".parse().unwrap()).unwrap().spawn().unwrap();
    let mut gateway = Gateway::of("gate", 0, service.address(), "vectors");
    gateway.send(&bytes("call"));
    says(&mut gateway, "reply-error");
    gateway.send(&bytes("call-anonymous"));
    says(&mut gateway, "reply-directives");
}

// spec: E-6, L-49, L-50, L-53, L-54, L-59, L-63
#[test]
fn pushes_and_verdicts_are_those_of_the_vectors() {
    let (sender, receipts) = channel();
    let service = Service::named("vectors")
        .on_receipt(move |receipt| sender.send(receipt.clone()).unwrap())
        .check_sessions(|caller| {
            assert_eq!(caller.user_id, "alice");
            Verdict::refuse(Reason::Banned, "until tomorrow").with_cache(Duration::from_secs(60))
        });
    let service = service.listen("127.0.0.1:0".parse().unwrap()).unwrap().spawn().unwrap();
    let mut gateway = Gateway::of("gate", 5, service.address(), "vectors");
    let pusher = service.pusher();
    let greeting = || {
        Push::to_users(["alice", "bob"], 4097, &b"good morning"[..])
            .with_id(PushId::new(&[1, 2, 3, 4]).unwrap())
            .with_priority(Priority::Low)
            .with_ttl(Duration::from_secs(60))
            .with_collapse_key("typing")
            .with_receipt()
    };
    for (result, targets) in [
        ("push-result", [TargetState::Queued, TargetState::Offline]),
        ("push-result-not-granted", [TargetState::Refused; 2]),
    ] {
        let pending = pusher.send(greeting()).unwrap();
        says(&mut gateway, "service-push-users");
        gateway.send(&bytes(result));
        assert_eq!(pending.wait(PATIENCE).unwrap().targets, targets, "{result}");
    }
    gateway.send(&bytes("push-receipt"));
    let receipt = receipts.recv_timeout(PATIENCE).unwrap();
    assert_eq!((&receipt.push_id[..], &receipt.user_id[..]), (&[1, 2, 3, 4][..], "alice"));
    assert!(receipt.acknowledged);
    let closing = Push::to_everyone(4098, &b"the service closes at ten"[..]);
    pusher.send(closing.with_id(PushId::new(&[5]).unwrap())).unwrap();
    says(&mut gateway, "service-push-everyone");
    gateway.send(&bytes("session-check"));
    says(&mut gateway, "session-verdict");
}
