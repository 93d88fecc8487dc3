//! Register, log in, log out.

use crate::gateway::{Gateway, frame};
use crate::{FINE, INVALID, ask, call, outcome};
use moorgate_demo::accounts;
use moorgate_demo::wire::Credentials;
use moorgate_demo::wire::accounts::{LOGIN, LOGOUT, NAME, REGISTER};
use moorgate_proto::envelope::member::to_service;
use moorgate_proto::v1;
use moorgate_proto::v1::directive::Action;
use moorgate_service::{Code, Execution, Handle, Reason};

fn start() -> (Handle, Gateway) {
    let service = accounts::listen("127.0.0.1:0".parse().unwrap(), None).unwrap().spawn().unwrap();
    let gateway = Gateway::of("gate", 0, service.address(), NAME);
    (service, gateway)
}

fn credentials(user: &str, password: &str) -> Credentials {
    Credentials { user: user.to_owned(), password: password.to_owned() }
}

fn actions(reply: &v1::Reply) -> Vec<Action> {
    reply.directives.iter().filter_map(|directive| directive.action.clone()).collect()
}

/// The session is to be the user's.
fn logs_in(reply: &v1::Reply, user: &str) {
    assert_eq!(outcome(reply), FINE, "{reply:?}");
    assert_eq!(
        actions(reply),
        [Action::Login(v1::Login { user_id: user.to_owned(), ..v1::Login::default() })]
    );
}

fn fails(reply: &v1::Reply, expected: (Code, Reason, Execution)) {
    assert_eq!(outcome(reply), expected, "{reply:?}");
    assert!(reply.directives.is_empty() && !reply.message.is_empty());
}

// spec: A-22
#[test]
fn who_registers_is_logged_in_and_can_log_in_again_and_out() {
    let (_service, mut gateway) = start();
    let alice = credentials("alice", "wonderland");
    logs_in(&ask(&mut gateway, REGISTER, "", &alice), "alice");
    logs_in(&ask(&mut gateway, LOGIN, "", &alice), "alice");
    let wrong = (Code::Unauthenticated, Reason::Unspecified, Execution::Unspecified);
    let other_password = ask(&mut gateway, LOGIN, "", &credentials("alice", "Wonderland"));
    fails(&other_password, wrong);
    let nobody = ask(&mut gateway, LOGIN, "", &credentials("nobody", "wonderland"));
    assert_eq!(nobody, other_password, "nothing tells whether a user exists");
    let other_case = ask(&mut gateway, LOGIN, "", &credentials("Alice", "wonderland"));
    fails(&other_case, wrong);
    let taken = (Code::AlreadyExists, Reason::Unspecified, Execution::Unspecified);
    fails(&ask(&mut gateway, REGISTER, "", &credentials("alice", "other")), taken);
    let has_a_user = (Code::FailedPrecondition, Reason::AlreadyAuthenticated, Execution::NotExecuted);
    for command in [REGISTER, LOGIN] {
        fails(&ask(&mut gateway, command, "alice", &alice), has_a_user);
    }
    let out = ask(&mut gateway, LOGOUT, "alice", &Credentials::default());
    assert_eq!((outcome(&out), actions(&out)), (FINE, vec![Action::Logout(v1::Logout {})]));
}

#[test]
fn names_and_passwords_are_bounded() {
    let (_service, mut gateway) = start();
    let long = "p".repeat(129);
    let bad = [("", "x"), ("a b", "x"), (&"n".repeat(33), "x"), ("alice", ""), ("alice", &long)];
    for (user, password) in bad {
        fails(&ask(&mut gateway, REGISTER, "", &credentials(user, password)), INVALID);
        let login = ask(&mut gateway, LOGIN, "", &credentials(user, password));
        fails(&login, (Code::Unauthenticated, Reason::Unspecified, Execution::Unspecified));
    }
    let no_credentials =
        v1::Call { call_id: 1, command: REGISTER, payload: vec![9].into(), ..v1::Call::default() };
    gateway.send(&crate::call_of("", no_credentials));
    fails(&gateway.reply(), INVALID);
    logs_in(&ask(&mut gateway, REGISTER, "", &credentials("alice", &long[1..])), "alice");
}

// spec: L-39
#[test]
fn a_flood_of_logins_is_refused_and_stalls_nobody() {
    const LOGINS: u64 = 400;
    let (_service, mut gateway) = start();
    let mut flood: Vec<u8> =
        (0..LOGINS).flat_map(|id| call(id, LOGIN, "", &credentials("nobody", "x"))).collect();
    let ping = frame(to_service::PING, &v1::LinkPing { nonce: 1, view: None });
    // At once, so that no password is hashed in between.
    flood.extend(&ping);
    gateway.send(&flood);
    let overloaded = (Code::ResourceExhausted, Reason::ServiceOverloaded, Execution::NotExecuted);
    let (mut refused, mut replies, mut replies_before_pong) = (0, 0, LOGINS);
    while replies < LOGINS {
        match gateway.next().unwrap() {
            v1::to_gateway::Member::Reply(reply) => {
                refused += u64::from(outcome(&reply) == overloaded);
                replies += 1;
                // However long that takes, the link lives.
                gateway.send(&ping);
            }
            v1::to_gateway::Member::Pong(_) => replies_before_pong = replies_before_pong.min(replies),
            other => panic!("{other:?}"),
        }
    }
    assert!(replies_before_pong < LOGINS, "the loop goes on while passwords are hashed");
    assert!((LOGINS / 2..LOGINS).contains(&refused), "{refused} refused");
}

#[test]
fn a_registration_that_is_repeated_by_its_session_succeeds_again() {
    let (_service, mut gateway) = start();
    let request = |session_id: &[u8]| {
        let caller = v1::Caller { session_id: session_id.to_vec().into(), ..v1::Caller::default() };
        let payload = prost::Message::encode_to_vec(&credentials("alice", "wonderland")).into();
        let call = v1::Call {
            call_id: 1,
            command: REGISTER,
            version: 1,
            caller: Some(caller),
            idempotency_key: b"k".to_vec().into(),
            payload,
            ..v1::Call::default()
        };
        frame(to_service::CALL, &call)
    };
    for _ in 0..2 {
        gateway.send(&request(b"one"));
        logs_in(&gateway.reply(), "alice");
    }
    gateway.send(&request(b"another"));
    assert_eq!(outcome(&gateway.reply()).0, Code::AlreadyExists, "nobody is logged in by another's key");
}
