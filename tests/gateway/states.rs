//! Every member in every state of a connection: before Hello, open, after Bye.

use crate::site::{Site, command};
use crate::wire::{Raw, RawClient, bare, frame, hello};
use moorgate_proto::envelope::member::client;
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Reason, gateway_frame::Member};
use prost::Message;

/// What a frame gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gets {
    Welcome,
    /// A Response to up_seq 1 with this status.
    Response(Code),
    Pong,
    Authenticated,
    /// A Notice with this reason.
    Notice(Reason),
    ByeAck,
    /// The final Error with this reason.
    Error(Reason),
    Nothing,
}

use Gets::{Authenticated, ByeAck, Error, Nothing, Notice, Pong, Response, Welcome};

const VIOLATION: Gets = Error(Reason::ProtocolViolation);
/// A member number that no message has yet.
const UNKNOWN: u32 = 63;

struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    before_hello: Gets,
    open: Gets,
}

fn case(
    name: &'static str,
    up_seq: u64,
    (member, body): (u32, Vec<u8>),
    before_hello: Gets,
    open: Gets,
) -> Case {
    Case { name, bytes: frame(up_seq, 0, member, &Raw(&body)), before_hello, open }
}

fn cases() -> Vec<Case> {
    let said_hello = || (client::HELLO, hello().encode_to_vec());
    let asked = || {
        let request = v1::Request { command: command::OPEN, ..v1::Request::default() };
        (client::REQUEST, request.encode_to_vec())
    };
    let cancel = || (client::CANCEL, v1::Cancel { up_seq: 1 }.encode_to_vec());
    let ping = || (client::PING, v1::Ping { nonce: 9, next_ms: 0 }.encode_to_vec());
    let pong = || (client::PONG, v1::Pong { nonce: 9 }.encode_to_vec());
    let authenticate =
        || (client::AUTHENTICATE, v1::Authenticate { access_token: "x".to_owned() }.encode_to_vec());
    let bye = || (client::BYE, v1::Bye { keep_for_ms: 60_000 }.encode_to_vec());
    let client_state = || (client::CLIENT_STATE, v1::ClientState::default().encode_to_vec());
    let unknown = || (UNKNOWN, vec![0x08, 1]);
    let empty_ack = Case {
        name: "a bare frame with a number",
        bytes: bare(1, 0),
        before_hello: VIOLATION,
        open: VIOLATION,
    };
    let bare_ack = Case {
        name: "a bare ack of what was never sent",
        bytes: bare(0, 1),
        before_hello: VIOLATION,
        open: Error(Reason::AckBeyondSent),
    };
    vec![
        case("Hello", 0, said_hello(), Welcome, VIOLATION),
        case("Hello 1", 1, said_hello(), VIOLATION, VIOLATION),
        case("Request", 0, asked(), VIOLATION, VIOLATION),
        case("Request 1", 1, asked(), VIOLATION, Response(Code::Ok)),
        case("Request 2", 2, asked(), VIOLATION, Error(Reason::SequenceGap)),
        case("Cancel", 0, cancel(), VIOLATION, Response(Code::Cancelled)),
        case("Cancel 1", 1, cancel(), VIOLATION, VIOLATION),
        case("Ping", 0, ping(), VIOLATION, Pong),
        case("Ping 1", 1, ping(), VIOLATION, VIOLATION),
        case("Pong", 0, pong(), VIOLATION, Nothing),
        case("Pong 1", 1, pong(), VIOLATION, VIOLATION),
        case("Authenticate", 0, authenticate(), VIOLATION, Authenticated),
        case("Authenticate 1", 1, authenticate(), VIOLATION, VIOLATION),
        case("Bye", 0, bye(), VIOLATION, ByeAck),
        case("Bye 1", 1, bye(), VIOLATION, VIOLATION),
        case("ClientState", 0, client_state(), VIOLATION, Notice(Reason::FeatureNotNegotiated)),
        case("ClientState 1", 1, client_state(), VIOLATION, VIOLATION),
        case("unknown", 0, unknown(), VIOLATION, Notice(Reason::UnsupportedFrame)),
        case("unknown 1", 1, unknown(), VIOLATION, Response(Code::Unimplemented)),
        case("unknown 2", 2, unknown(), VIOLATION, Error(Reason::SequenceGap)),
        empty_ack,
        bare_ack,
    ]
}

/// What came, or nothing when the answer to a later Ping came first.
fn came(client: &mut RawClient, is_open: bool) -> Gets {
    if is_open {
        client.try_send(&crate::wire::ping(0xe0f));
    }
    match client.member() {
        Member::Welcome(_) => Welcome,
        Member::Response(response) => {
            assert_eq!(response.up_seq, 1);
            Response(Code::from_wire(response.status))
        }
        Member::Pong(pong) if pong.nonce == 0xe0f => Nothing,
        Member::Pong(_) => Pong,
        Member::Authenticated(answer) => {
            // An empty token is none.
            assert_eq!(
                (answer.status, answer.reason()),
                (Code::Unauthenticated.to_wire(), Reason::TokenInvalid)
            );
            Authenticated
        }
        Member::Notice(notice) => {
            assert_eq!(notice.status, Code::Unimplemented.to_wire());
            Notice(notice.reason())
        }
        Member::ByeAck(_) => {
            client.closed();
            ByeAck
        }
        Member::Error(error) => {
            client.closed();
            Error(error.reason())
        }
        other => panic!("not to be expected: {other:?}"),
    }
}

// spec: O-3
#[test]
fn every_member_before_hello() {
    let site = Site::start("");
    for case in cases() {
        let mut client = site.connect();
        client.send(&case.bytes);
        assert_eq!(came(&mut client, false), case.before_hello, "{}", case.name);
    }
    site.end();
}

// spec: E-9, E-13
#[test]
fn every_member_when_open() {
    let site = Site::start("");
    for case in cases() {
        let mut client = site.open();
        client.send(&case.bytes);
        // An answer of the service is later than that to a Ping: the Ping waits for it.
        let asks = matches!(case.open, Response(Code::Ok));
        assert_eq!(came(&mut client, !asks), case.open, "{}", case.name);
    }
    site.end();
}

// spec: X-14
#[test]
fn every_member_after_bye_is_ignored() {
    let site = Site::start("");
    let bye = frame(0, 0, client::BYE, &v1::Bye::default());
    for case in cases() {
        // In the same segment as Bye, and after its acknowledgement.
        let mut at_once = site.open();
        at_once.send(&[bye.clone(), case.bytes.clone()].concat());
        assert!(matches!(at_once.member(), Member::ByeAck(_)), "{}", case.name);
        at_once.closed();
        let mut later = site.open();
        later.send(&bye);
        assert!(matches!(later.member(), Member::ByeAck(_)), "{}", case.name);
        later.try_send(&case.bytes);
        later.closed();
    }
    site.is_empty_again();
    assert_eq!(site.metric("moorgate_requests_admitted_total"), 0);
    site.end();
}

// spec: X-2
#[test]
fn every_member_after_an_error_is_ignored() {
    let site = Site::start("");
    for case in cases() {
        let mut client = site.open();
        client.send(&[frame(7, 0, client::PING, &v1::Ping::default()), case.bytes].concat());
        assert_eq!(client.error_reason(), Reason::ProtocolViolation, "{}", case.name);
    }
    site.is_empty_again();
    assert_eq!(site.metric("moorgate_requests_admitted_total"), 0);
    site.end();
}
