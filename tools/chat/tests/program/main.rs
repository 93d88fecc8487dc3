//! The program itself, against a gateway by hand, on loopback.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

#[path = "../../../client/tests/peer/mod.rs"]
mod peer;
mod plain;
mod terminal;

use moorgate_demo::wire::{self, accounts, chat};
use moorgate_proto::envelope::member::gateway;
use moorgate_proto::v1;
use peer::{Listener, Peer};
use prost::Message;

const HEARTBEAT_MS: u32 = 60_000;

fn program() -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_moorgate-chat"));
    command.env_remove("NO_COLOR").env("TZ", "UTC");
    command
}

/// Takes a client without a login.
fn anonymous(listener: &Listener) -> Peer {
    let mut peer = listener.accept();
    let hello = peer.hello();
    assert_eq!((hello.access_token.as_str(), hello.application.as_str()), ("", "moorgate-chat"));
    assert_eq!(hello.device_id.len(), 32);
    peer.welcome_user("", HEARTBEAT_MS, 0);
    peer
}

/// Takes a client that comes back with the token of its login.
fn with_token(listener: &Listener) -> Peer {
    let mut peer = listener.accept();
    assert_eq!(peer.hello().access_token, "token of alice");
    peer.welcome_user("alice", HEARTBEAT_MS, 0);
    peer
}

/// The next request, which must be of this command; its number, key and payload.
fn asked<M: Message + Default>(peer: &mut Peer, command: u32) -> (u64, Vec<u8>, M) {
    let (up_seq, request) = peer.asked();
    assert_eq!(request.command, command, "{request:?}");
    (up_seq, request.idempotency_key.to_vec(), M::decode(&request.payload[..]).unwrap())
}

/// Lets the user log in, or register, with this password.
fn logs_in(peer: &mut Peer, command: u32, password: &str) {
    let (up_seq, _, credentials) = asked::<wire::Credentials>(peer, command);
    assert_eq!((credentials.user.as_str(), credentials.password.as_str()), ("alice", password));
    let login = v1::LoginResult {
        user_id: credentials.user,
        access_token: "token of alice".to_owned(),
        ..v1::LoginResult::default()
    };
    peer.answer_with(v1::Response { up_seq, login: Some(login), ..v1::Response::default() });
}

fn takes(peer: &mut Peer, up_seq: u64) {
    let payload = wire::Sent::default().encode_to_vec().into();
    peer.answer_with(v1::Response { up_seq, payload, ..v1::Response::default() });
}

fn pushes(peer: &mut Peer, from: &str, text: &str, reference: u64) {
    let message = wire::Message {
        from: from.to_owned(),
        text: text.to_owned(),
        unix_ms: 45_240_000,
        reference,
        target: Some(wire::message::Target::To("alice".to_owned())),
        ..wire::Message::default()
    };
    let payload = message.encode_to_vec().into();
    peer.say_numbered(gateway::PUSH, &v1::Push { command: chat::MESSAGE, payload, ..v1::Push::default() });
}

/// Of a login that is refused.
fn refuses(peer: &mut Peer) {
    let (up_seq, _, _) = asked::<wire::Credentials>(peer, accounts::LOGIN);
    let status = moorgate_client::Code::Unauthenticated.to_wire();
    peer.answer_with(v1::Response { up_seq, status, ..v1::Response::default() });
}
