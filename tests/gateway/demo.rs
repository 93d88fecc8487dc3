//! The demo services behind a gateway, with keys and grants as a deployment has them: the whole way of a message.

use crate::site::{ACCESS_SECRET, LINK_SECRET, Site, link_key, own_address, until};
use crate::wire::{RawClient, hello, hello_frame};
use moorgate::config;
use moorgate_demo::wire::chat::{JOIN, LEAVE, MESSAGE, NOTICE, PRESENCE, SEND, SEND_GROUP, WHO};
use moorgate_demo::wire::message::Target;
use moorgate_demo::wire::sent::Receiver;
use moorgate_demo::wire::{self, Credentials, Group, Message, Notice, Presence, accounts};
use moorgate_demo::{accounts as accounts_service, chat as chat_service};
use moorgate_proto::status::Code;
use moorgate_proto::v1::gateway_frame::Member;
use moorgate_proto::v1::{self, Execution, Reason};
use moorgate_service::Handle;
use prost::Message as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

fn text(accounts: SocketAddr, chat: SocketAddr, chat_grants: &str) -> String {
    format!(
        r#"
[gateway]
id = "gateway-test"
shards = 2
workers = 1
[[listener]]
address = "127.0.0.1:0"
[[auth.key]]
id = "current"
secret_env = "ACCESS"
[[service]]
name = "accounts"
endpoints = ["{accounts}"]
key_env = "LINK"
grants = ["login"]
[[service]]
name = "chat"
endpoints = ["{chat}"]
key_env = "LINK"
grants = [{chat_grants}]
[[route]]
commands = "0x0200-0x0201"
service = "accounts"
anonymous = true
timeout = "1m"
[[route]]
commands = "0x0202"
service = "accounts"
timeout = "1m"
[[route]]
commands = "0x0210-0x0214"
service = "chat"
order = "session"
timeout = "1m"
"#
    )
}

struct Chat {
    site: Site,
    services: [Handle; 2],
}

impl Chat {
    fn start(chat_grants: &str) -> Chat {
        let accounts = accounts_service::listen(own_address(), Some(link_key())).unwrap();
        let chat = chat_service::listen(own_address(), Some(link_key())).unwrap();
        let environment = |name: &str| match name {
            "ACCESS" => Some(ACCESS_SECRET.to_owned()),
            "LINK" => Some(LINK_SECRET.to_owned()),
            _ => None,
        };
        let text = text(accounts.address(), chat.address(), chat_grants);
        let services = [accounts, chat].map(|service| service.spawn().unwrap());
        let mut settings = config::parse("test.toml", &text, Path::new(""), &environment).unwrap();
        settings.session.detached_ttl = Duration::ZERO;
        let site = Site::of(settings);
        site.ready();
        Chat { site, services }
    }

    /// A session of a device, logged in by `command`.
    fn enters(&self, command: u32, user: &str, device: &str) -> User {
        let mut client = self.site.connect();
        client.send(&hello_frame(&v1::Hello { device_id: device.to_owned(), ..hello() }));
        client.welcome();
        let mut user_client = User { client, up_seq: 0, pushes: Vec::new() };
        let response = user_client.ask(command, &credentials(user, "wonderland"));
        let login = response.login.expect("logged in");
        assert_eq!((login.user_id.as_str(), login.access_token.is_empty()), (user, false));
        user_client
    }

    fn end(self) {
        self.site.end();
        for service in self.services {
            service.stop();
            assert!(service.join());
        }
    }
}

fn credentials(user: &str, password: &str) -> Credentials {
    Credentials { user: user.to_owned(), password: password.to_owned() }
}

/// A session, and the pushes that came before a Response, or that a Response has overtaken.
struct User {
    client: RawClient,
    up_seq: u64,
    pushes: Vec<v1::Push>,
}

impl User {
    fn ask(&mut self, command: u32, payload: &impl prost::Message) -> v1::Response {
        self.up_seq += 1;
        self.client.send(&crate::wire::request(self.up_seq, command, &payload.encode_to_vec()));
        loop {
            match self.client.member() {
                Member::Push(push) => self.pushes.push(push),
                Member::Response(response) => return response,
                other => panic!("{other:?}"),
            }
        }
    }

    fn asks(&mut self, command: u32, payload: &impl prost::Message) -> Vec<u8> {
        let response = self.ask(command, payload);
        assert_eq!(Code::from_wire(response.status), Code::Ok, "{response:?}");
        response.payload.to_vec()
    }

    fn sends(&mut self, to: &str, text: &str) -> wire::Sent {
        let send = wire::Send { to: to.to_owned(), text: text.to_owned(), reference: 77 };
        wire::Sent::decode(&self.asks(SEND, &send)[..]).unwrap()
    }

    fn push(&mut self) -> v1::Push {
        if self.pushes.is_empty() { self.client.push().1 } else { self.pushes.remove(0) }
    }

    fn message(&mut self) -> Message {
        let push = self.push();
        assert_eq!(push.command, MESSAGE);
        let message = Message::decode(&push.payload[..]).unwrap();
        assert_eq!(message.id, push.push_id, "whoever remembers push ids has each message once");
        message
    }

    fn notice(&mut self) -> (String, bool) {
        let push = self.push();
        assert_eq!((push.command, push.group.as_str()), (NOTICE, "lobby"));
        let notice = Notice::decode(&push.payload[..]).unwrap();
        (notice.user, notice.joined)
    }
}

// spec: A-23, A-24, L-53, L-57
#[test]
fn users_register_log_in_and_send_each_other_messages() {
    let chat = Chat::start(r#""groups", "push""#);
    let mut phone = chat.enters(accounts::REGISTER, "alice", "phone");
    let mut laptop = chat.enters(accounts::LOGIN, "alice", "laptop");
    let mut bob = chat.enters(accounts::REGISTER, "bob", "phone");
    for number in 1..=20 {
        let text = format!("message {number}");
        let sent = phone.sends("bob", &text);
        assert_eq!(sent.receiver(), Receiver::Online);
        for client in [&mut bob, &mut laptop, &mut phone] {
            let message = client.message();
            assert_eq!((&message.id, &message.from[..], &message.text), (&sent.id, "alice", &text));
            assert_eq!((message.target, message.reference), (Some(Target::To("bob".to_owned())), 77));
        }
    }
    let answer = wire::Who::decode(&bob.asks(WHO, &Group::default())[..]).unwrap();
    let mut users: Vec<&str> = answer.users.iter().map(|seen| seen.user.as_str()).collect();
    users.sort_unstable();
    assert_eq!(users, ["alice", "bob"]);
    assert_eq!(bob.ask(accounts::LOGOUT, &Group::default()).status, 0);
    assert_eq!(bob.client.error_reason(), Reason::LoggedOut);
    assert_eq!(phone.sends("bob", "gone?").receiver(), Receiver::Offline);
    assert_eq!(phone.message().text, "gone?");
    let answer = wire::Who::decode(&phone.asks(WHO, &Group::default())[..]).unwrap();
    assert_eq!(answer.users.len(), 1, "bob was found offline: {answer:?}");
    drop((phone, laptop, bob));
    chat.end();
}

#[test]
fn a_group_is_joined_told_and_left() {
    let chat = Chat::start(r#""groups", "push""#);
    let [mut alice, mut bob, mut carol] =
        ["alice", "bob", "carol"].map(|user| chat.enters(accounts::REGISTER, user, "phone"));
    let lobby = Group { group: "lobby".to_owned() };
    alice.asks(JOIN, &lobby);
    bob.asks(JOIN, &lobby);
    // The gateway has one link here, so that who joins is told of it too.
    let joined = |user: &str| (user.to_owned(), true);
    assert_eq!([alice.notice(), alice.notice()], [joined("alice"), joined("bob")]);
    assert_eq!(bob.notice(), joined("bob"));
    // Groups are open: carol is not in it.
    let text = wire::SendGroup { group: "lobby".to_owned(), text: "all".to_owned(), reference: 3 };
    let sent = wire::Sent::decode(&carol.asks(SEND_GROUP, &text)[..]).unwrap();
    for client in [&mut alice, &mut bob] {
        let message = client.message();
        assert_eq!((&message.id, &message.from[..], &message.text[..]), (&sent.id, "carol", "all"));
        assert_eq!(message.target, Some(Target::Group("lobby".to_owned())));
    }
    bob.asks(LEAVE, &lobby);
    assert_eq!(alice.notice(), ("bob".to_owned(), false));
    carol.asks(SEND_GROUP, &text);
    assert_eq!(alice.message().text, "all");
    for client in [&mut bob, &mut carol] {
        assert!(client.pushes.is_empty());
        client.client.nothing_else();
    }
    drop((alice, bob, carol));
    chat.end();
}

/// Whom the chat has online.
fn who(user: &mut User) -> Vec<String> {
    let answer = wire::Who::decode(&user.asks(WHO, &Group::default())[..]).unwrap();
    let mut users: Vec<String> = answer.users.into_iter().map(|seen| seen.user).collect();
    users.sort();
    users
}

// spec: L-60
#[test]
fn friends_are_told_who_comes_and_goes() {
    let chat = Chat::start(r#""groups", "push", "presence""#);
    let mut alice = chat.enters(accounts::REGISTER, "alice", "phone");
    let mut bob = chat.enters(accounts::REGISTER, "bob", "phone");
    // He has asked the chat for nothing: that he is here, it knows from the gateway.
    until("the chat knows that bob is here", || who(&mut alice) == ["alice", "bob"]);
    alice.sends("bob", "hello");
    assert_eq!((alice.message().text, bob.message().text), ("hello".to_owned(), "hello".to_owned()));
    let laptop = chat.enters(accounts::LOGIN, "bob", "laptop");
    drop((bob, laptop));
    let told = |alice: &mut User| {
        let push = alice.push();
        assert_eq!(push.command, PRESENCE);
        let presence = Presence::decode(&push.payload[..]).unwrap();
        (presence.user, presence.online)
    };
    assert_eq!(told(&mut alice), ("bob".to_owned(), false), "once, with the last of his sessions");
    let bob = chat.enters(accounts::LOGIN, "bob", "phone");
    assert_eq!(told(&mut alice), ("bob".to_owned(), true));
    assert_eq!(who(&mut alice), ["alice", "bob"]);
    drop((alice, bob));
    chat.end();
}

// spec: U-17, A-22
#[test]
fn who_is_not_logged_in_and_who_is_already_is_told() {
    let chat = Chat::start(r#""groups", "push""#);
    let mut alice = chat.enters(accounts::REGISTER, "alice", "phone");
    let mut stranger = User { client: chat.site.open(), up_seq: 0, pushes: Vec::new() };
    let outcome =
        |response: v1::Response| (Code::from_wire(response.status), response.reason(), response.login);
    let unauthenticated = |reason| (Code::Unauthenticated, reason, None);
    for command in [JOIN, accounts::LOGOUT] {
        let response = stranger.ask(command, &Group { group: "lobby".to_owned() });
        assert_eq!(outcome(response), unauthenticated(Reason::LoginRequired));
    }
    for (user, password) in [("alice", "Wonderland"), ("nobody", "wonderland")] {
        let response = stranger.ask(accounts::LOGIN, &credentials(user, password));
        assert_eq!(response.execution(), Execution::Executed);
        assert_eq!(outcome(response), unauthenticated(Reason::Unspecified));
    }
    let response = stranger.ask(accounts::REGISTER, &credentials("alice", "mine now"));
    assert_eq!(outcome(response), (Code::AlreadyExists, Reason::Unspecified, None));
    let response = alice.ask(accounts::LOGIN, &credentials("alice", "wonderland"));
    assert_eq!(outcome(response), (Code::FailedPrecondition, Reason::AlreadyAuthenticated, None));
    drop((alice, stranger));
    chat.end();
}

// spec: L-59
#[test]
fn without_the_grants_no_message_goes_out_and_the_sender_is_told() {
    let chat = Chat::start("");
    let mut alice = chat.enters(accounts::REGISTER, "alice", "phone");
    let send = wire::Send { to: "alice".to_owned(), text: "x".to_owned(), reference: 0 };
    let response = alice.ask(SEND, &send);
    assert_eq!(Code::from_wire(response.status), Code::Unavailable);
    assert_eq!(response.execution(), Execution::NotExecuted);
    alice.client.nothing_else();
    drop(alice);
    chat.end();
}
