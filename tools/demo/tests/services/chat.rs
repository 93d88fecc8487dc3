//! Messages, groups, and who is there.

use crate::gateway::{Gateway, frame};
use crate::{FINE, INVALID, ask, call, outcome};
use moorgate_demo::chat;
use moorgate_demo::wire::chat::{JOIN, LEAVE, MESSAGE, NAME, NOTICE, PRESENCE, SEND, SEND_GROUP, WHO};
use moorgate_demo::wire::message::Target as To;
use moorgate_demo::wire::sent::Receiver;
use moorgate_demo::wire::{Group, Message, Notice, Presence, Send, SendGroup, Sent, TEXT_BYTES_MAX, Who};
use moorgate_proto::envelope::member::to_service;
use moorgate_proto::v1::directive::Action;
use moorgate_proto::v1::push_result::Target;
use moorgate_proto::v1::{self, service_push};
use moorgate_service::{Code, Execution, Handle, Reason};
use prost::Message as _;

fn start(pushes_max: u32) -> (Handle, Gateway) {
    let service = chat::listen("127.0.0.1:0".parse().unwrap(), None).unwrap().spawn().unwrap();
    let gateway = Gateway::of("gate", pushes_max, service.address(), NAME);
    (service, gateway)
}

fn send(to: &str, text: &str) -> Send {
    Send { to: to.to_owned(), text: text.to_owned(), reference: 7 }
}

fn users(push: &v1::ServicePush) -> &[String] {
    match &push.target {
        Some(service_push::Target::Users(users)) => &users.user_ids,
        other => panic!("not to users but {other:?}"),
    }
}

fn group(push: &v1::ServicePush) -> &str {
    match &push.target {
        Some(service_push::Target::Group(group)) => group,
        other => panic!("not to a group but {other:?}"),
    }
}

fn seen(gateway: &mut Gateway, user: &str) -> Vec<String> {
    let reply = ask(gateway, WHO, user, &Group::default());
    assert_eq!(outcome(&reply), FINE);
    let mut users: Vec<_> =
        Who::decode(reply.payload).unwrap().users.into_iter().map(|seen| seen.user).collect();
    users.sort_unstable();
    users
}

// spec: L-53
#[test]
fn a_message_goes_to_both_users_and_its_sender_learns_whether_the_receiver_is_there() {
    let (_service, mut gateway) = start(10);
    let states = [
        (Target::Queued, Receiver::Online),
        (Target::Waiting, Receiver::Away),
        (Target::Offline, Receiver::Offline),
        (Target::Refused, Receiver::Unknown),
    ];
    for (target, receiver) in states {
        gateway.send(&call(1, SEND, "alice", &send("bob", "hello")));
        let push = gateway.push();
        assert_eq!((push.command, users(&push)), (MESSAGE, &["bob".to_owned(), "alice".to_owned()][..]));
        let message = Message::decode(&push.payload[..]).unwrap();
        let expected = Message {
            id: push.push_id.to_vec(),
            from: "alice".to_owned(),
            target: Some(To::To("bob".to_owned())),
            text: "hello".to_owned(),
            unix_ms: message.unix_ms,
            reference: 7,
        };
        assert_eq!(message, expected);
        assert!(message.id.len() == 16 && message.unix_ms > 1_700_000_000_000);
        gateway.result(&push, &[target, Target::Queued]);
        let reply = gateway.reply();
        assert_eq!(outcome(&reply), FINE);
        let sent = Sent { id: message.id, unix_ms: message.unix_ms, receiver: receiver.into() };
        assert_eq!(Sent::decode(reply.payload).unwrap(), sent);
    }
    gateway.send(&call(1, SEND, "alice", &send("alice", "note")));
    let push = gateway.push();
    assert_eq!(users(&push), ["alice"]);
}

#[test]
fn a_group_is_joined_told_and_left() {
    let (_service, mut gateway) = start(10);
    let lobby = Group { group: "lobby".to_owned() };
    let session_id = prost::bytes::Bytes::new();
    let join = Action::JoinGroup(v1::JoinGroup { group: "lobby".to_owned(), session_id: session_id.clone() });
    let leave = Action::LeaveGroup(v1::LeaveGroup { group: "lobby".to_owned(), session_id });
    for (command, action) in [(JOIN, join), (LEAVE, leave)] {
        let reply = ask(&mut gateway, command, "alice", &lobby);
        assert_eq!((outcome(&reply), reply.directives[0].action.clone()), (FINE, Some(action)));
        let push = gateway.push();
        assert_eq!((push.command, group(&push)), (NOTICE, "lobby"));
        let notice = Notice::decode(&push.payload[..]).unwrap();
        assert_eq!((&notice.group[..], &notice.user[..]), ("lobby", "alice"));
        assert_eq!(notice.joined, command == JOIN);
        gateway.result(&push, &[]);
    }
    let text = SendGroup { group: "lobby".to_owned(), text: "all".to_owned(), reference: 9 };
    gateway.send(&call(1, SEND_GROUP, "alice", &text));
    let push = gateway.push();
    let message = Message::decode(&push.payload[..]).unwrap();
    assert_eq!((push.command, group(&push), &message.text[..]), (MESSAGE, "lobby", "all"));
    assert_eq!((message.target, message.reference), (Some(To::Group("lobby".to_owned())), 9));
    gateway.result(&push, &[]);
    let sent = Sent::decode(gateway.reply().payload).unwrap();
    assert_eq!((sent.receiver(), sent.id), (Receiver::Unknown, message.id));
}

#[test]
fn who_was_heard_of_lately_and_not_found_offline_is_listed() {
    let (_service, mut gateway) = start(10);
    assert_eq!(seen(&mut gateway, "bob"), ["bob"]);
    assert_eq!(seen(&mut gateway, "alice"), ["alice", "bob"]);
    for (target, listed) in [(Target::Queued, &["alice", "bob"][..]), (Target::Offline, &["alice"][..])] {
        gateway.send(&call(1, SEND, "alice", &send("bob", "there?")));
        let push = gateway.push();
        gateway.result(&push, &[target, Target::Queued]);
        gateway.reply();
        assert_eq!(seen(&mut gateway, "alice"), listed);
    }
}

// spec: L-60
#[test]
fn whoever_keeps_company_with_a_user_is_told_when_the_user_comes_and_goes() {
    let (_service, mut gateway) = start(10);
    assert_eq!(gateway.subscriptions, 1);
    let mut version = 0;
    let mut event = |gateway: &mut Gateway, user: &str, sessions: u32| {
        version += 1;
        let event = v1::PresenceEvent {
            user_id: user.to_owned(),
            online: sessions > 0,
            sessions,
            version,
            ..v1::PresenceEvent::default()
        };
        gateway.send(&frame(to_service::PRESENCE_EVENT, &event));
    };
    gateway.send(&frame(to_service::PRESENCE_SNAPSHOT, &v1::PresenceSnapshot { end: false, version: 1 }));
    // The versions of a gateway rise from each frame to the next.
    for user in ["", "alice", "bob", "carol", "dave"] {
        event(&mut gateway, user, 1);
    }
    gateway.round_trip();
    for (user, command) in [("alice", JOIN), ("bob", JOIN)] {
        ask(&mut gateway, command, user, &Group { group: "lobby".to_owned() });
        let notice = gateway.push();
        gateway.result(&notice, &[]);
    }
    gateway.send(&call(1, SEND, "alice", &send("carol", "hello")));
    let message = gateway.push();
    gateway.result(&message, &[Target::Queued, Target::Queued]);
    gateway.reply();
    for (sessions, online) in [(0, false), (2, true)] {
        event(&mut gateway, "alice", sessions);
        let push = gateway.push();
        assert_eq!((push.command, users(&push)), (PRESENCE, &["bob".to_owned(), "carol".to_owned()][..]));
        assert_eq!((&push.collapse_key[..], push.ttl_ms), ("presence alice", 60_000));
        let told = Presence::decode(&push.payload[..]).unwrap();
        assert_eq!((&told.user[..], told.online), ("alice", online));
        gateway.result(&push, &[Target::Queued, Target::Queued]);
    }
    // Nobody who is here has to do with dave.
    event(&mut gateway, "dave", 0);
    gateway.round_trip();
    assert_eq!(seen(&mut gateway, "alice"), ["alice", "bob", "carol"]);
    event(&mut gateway, "bob", 0);
    let push = gateway.push();
    assert_eq!(users(&push), ["alice"], "carol does not know him");
}

#[test]
fn anonymous_sessions_bad_names_and_bad_texts_are_refused() {
    let (_service, mut gateway) = start(10);
    let login_required = (Code::Unauthenticated, Reason::LoginRequired, Execution::NotExecuted);
    assert_eq!(outcome(&ask(&mut gateway, SEND, "", &send("bob", "x"))), login_required);
    let long = "x".repeat(TEXT_BYTES_MAX + 1);
    for bad in [send("", "x"), send("b ob", "x"), send("bob", ""), send("bob", &long)] {
        assert_eq!(outcome(&ask(&mut gateway, SEND, "alice", &bad)), INVALID);
        let bad = SendGroup { group: bad.to, text: bad.text, reference: 0 };
        assert_eq!(outcome(&ask(&mut gateway, SEND_GROUP, "alice", &bad)), INVALID);
    }
    for command in [JOIN, LEAVE] {
        assert_eq!(outcome(&ask(&mut gateway, command, "alice", &Group::default())), INVALID);
    }
    gateway.send(&call(1, SEND, "alice", &send("bob", &long[1..])));
    let push = gateway.push();
    assert!(push.payload.len() > TEXT_BYTES_MAX);
}

// spec: L-31
#[test]
fn a_message_that_no_gateway_takes_is_told() {
    let (_service, mut gateway) = start(0);
    let reply = ask(&mut gateway, SEND, "alice", &send("bob", "x"));
    assert_eq!(outcome(&reply), (Code::Unavailable, Reason::Unspecified, Execution::NotExecuted));
    // Joining is for the gateway to do, and a notice that nobody has is no fault of who joins.
    let reply = ask(&mut gateway, JOIN, "alice", &Group { group: "lobby".to_owned() });
    assert_eq!(outcome(&reply), FINE);
    gateway.round_trip();
}

#[test]
fn a_message_that_is_sent_again_is_one_message() {
    let (_service, mut gateway) = start(10);
    let request = |call_id| {
        let (payload, key) = (send("bob", "once").encode_to_vec().into(), b"k".to_vec().into());
        let caller = v1::Caller { user_id: "alice".to_owned(), ..v1::Caller::default() };
        let call = v1::Call {
            call_id,
            command: SEND,
            version: 1,
            caller: Some(caller),
            idempotency_key: key,
            payload,
            ..v1::Call::default()
        };
        frame(to_service::CALL, &call)
    };
    gateway.send(&[request(1), request(2)].concat());
    let push = gateway.push();
    gateway.round_trip();
    gateway.result(&push, &[Target::Queued, Target::Queued]);
    let mut replies = [gateway.reply(), gateway.reply()];
    replies.sort_by_key(|reply| reply.call_id);
    assert_eq!((replies[0].call_id, replies[1].call_id), (1, 2));
    assert_eq!(replies[0].payload, replies[1].payload);
}
