//! A shard, against the frames of a client.

use super::vector_file::read;
use super::{NOW, bytes, route};
use moorgate::auth::{Authority, KeyRing, SigningKey, TokenError, mint};
use moorgate::base::clock::Now;
use moorgate::base::ids::ConnectionKey;
use moorgate::relay::{Delivery, DeliveryBatch, Outcome, Settled};
use moorgate::routing::{RouteSettings, RouteTable};
use moorgate::shard::{End, Parts, Shard};
use moorgate_proto::codec::{Assembler, put_frame};
use moorgate_proto::envelope::{Numbers, member};
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Execution, Reason, Source, gateway_frame};
use moorgate_proto::view::ReplyView;
use prost::Message;
use std::time::Duration;

fn key() -> SigningKey {
    SigningKey::new("vector", b"a secret of at least 32 bytes ok").unwrap()
}

/// A shard with one connection, as its reactor drives it.
struct Site {
    shard: Shard,
    key: ConnectionKey,
}

impl Site {
    /// Before Hello.
    fn opening() -> Site {
        Site::with(moorgate::session::Settings::default(), route())
    }

    /// Before Hello, with other settings.
    fn with(session: moorgate::session::Settings, route: RouteSettings) -> Site {
        let keys = KeyRing::new(vec![key()], None, None, 30).unwrap();
        let parts = Parts::alone(RouteTable::build(&[route]).unwrap(), Authority::of_keys(keys));
        // The vectors know no secret of a gateway: none of them resumes.
        let session = moorgate::session::Settings { detached_ttl: std::time::Duration::ZERO, ..session };
        let mut shard = Shard::new(Parts { session, ..parts });
        let key = shard.accepted(NOW, "192.0.2.1:40000".parse().unwrap()).unwrap();
        Site { shard, key }
    }

    /// With an anonymous session.
    fn open() -> Site {
        Site::opening().welcomed(&bytes("hello-anonymous"))
    }

    fn welcomed(mut self, hello: &[u8]) -> Site {
        let welcome = self.say(hello);
        assert!(matches!(welcome[0].member, Some(gateway_frame::Member::Welcome(_))));
        self
    }

    /// Settles the one call that is out with a reply of the service.
    fn settle(&mut self, now: Now, reply: &v1::Reply) {
        let batch = self.shard.forwards().unwrap();
        let mut delivered = DeliveryBatch::default();
        let outcome = Outcome {
            code: Code::from_wire(reply.status),
            reason: Reason::Unspecified,
            source: Source::Service,
            execution: Execution::Executed,
            retry_after_ms: 0,
        };
        let reply = reply.encode_to_vec();
        let reply = ReplyView::decode(&reply).unwrap();
        let settled = Settled { endpoint: 1, ..Settled::bare(batch.forwards[0].ticket, outcome) };
        let settled = settled.with_reply(&reply, &mut delivered.arena);
        delivered.deliveries.push(Delivery::Settled(settled));
        self.shard.delivered(now, delivered);
    }

    /// What the gateway answers, as bytes.
    fn said(&mut self) -> Vec<u8> {
        let mut said = Vec::new();
        while let Some(key) = self.shard.next_flush() {
            let unsent = self.shard.unsent(key).to_vec();
            self.shard.sent(NOW, key, unsent.len());
            said.extend(unsent);
        }
        said
    }

    /// Sends these bytes; what the gateway answers, as frames.
    fn say(&mut self, bytes: &[u8]) -> Vec<v1::GatewayFrame> {
        self.shard.received(NOW, self.key, bytes);
        frames(&self.said())
    }

    /// Sends these bytes; the one frame that the gateway answers, as bytes.
    fn answer(&mut self, name: &str) -> Vec<u8> {
        self.shard.received(NOW, self.key, &bytes(name));
        self.said()
    }
}

fn frames(mut bytes: &[u8]) -> Vec<v1::GatewayFrame> {
    let mut assembler = Assembler::default();
    let mut frames = Vec::new();
    while let Some(frame) = assembler.next(&mut bytes, usize::MAX).unwrap() {
        frames.push(v1::GatewayFrame::decode(frame).unwrap());
    }
    frames
}

fn code(name: &str) -> i32 {
    Code::ALL.iter().find(|code| code.name() == name).unwrap().to_wire()
}

// spec: X-1, X-2, X-4
#[test]
fn what_breaks_the_contract_ends_the_connection_with_its_reason() {
    let mut seen = 0;
    for vector in read("malformed.txt").iter().filter(|vector| vector.frame() == "ClientFrame") {
        let mut site = if vector.text("state") == "opening" { Site::opening() } else { Site::open() };
        let said = site.say(&vector.bytes("hex"));
        let Some(gateway_frame::Member::Error(error)) = said.last().and_then(|frame| frame.member.clone())
        else {
            panic!("{}: {said:?}", vector.name());
        };
        assert_eq!(said.len(), 1, "{}", vector.name());
        let fault = format!("REASON_{}", vector.text("fault"));
        assert_eq!(error.reason().as_str_name(), fault, "{}", vector.name());
        assert_eq!(error.status, code(vector.text("status")), "{}", vector.name());
        assert_eq!(error.admitted, 0, "{}", vector.name());
        assert_eq!(site.shard.next_ended(), Some((site.key, End::ShutdownWrite)), "{}", vector.name());
        assert!(site.say(&bytes("ping")).is_empty(), "{}: nothing comes after it", vector.name());
        seen += 1;
    }
    assert!(seen > 30);
}

/// The Welcome to a Hello, with the session id of the vectors.
fn welcomed(hello: &str) -> Vec<u8> {
    let mut said = Site::opening().say(&bytes(hello));
    let Some(gateway_frame::Member::Welcome(welcome)) = &mut said[0].member else {
        panic!("{hello}: {said:?}");
    };
    assert_eq!(welcome.session_id.len(), 16);
    // Who wishes no heartbeat has one that is a little random.
    if (27_000..=30_000).contains(&welcome.heartbeat_ms) {
        welcome.heartbeat_ms = 30_000;
    }
    welcome.session_id = (0x10..0x20).collect::<Vec<u8>>().into();
    let body = said[0].encode_to_vec();
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()
}

#[test]
fn hellos_are_welcomed() {
    assert_eq!(welcomed("hello-anonymous"), bytes("welcome-anonymous"));
    assert_eq!(welcomed("hello-application-proof"), bytes("welcome-anonymous"), "the proof is ignored");
    let mut user = frames(&bytes("welcome-user"));
    if let Some(gateway_frame::Member::Welcome(welcome)) = &mut user[0].member {
        assert_eq!(welcome.resume_result(), v1::ResumeResult::NotSupported);
        welcome.resume_result = v1::ResumeResult::None.into();
    }
    assert_eq!(frames(&welcomed("hello-token")), user);
    let Some(gateway_frame::Member::Welcome(welcome)) = frames(&welcomed("hello-resume"))[0].member.clone()
    else {
        panic!("no Welcome");
    };
    assert_eq!(welcome.resume_result(), v1::ResumeResult::NotSupported);
    assert_eq!((welcome.resume_token.len(), welcome.detached_ttl_ms, welcome.admitted), (0, 0, 0));
}

// spec: O-2, O-12, O-32
#[test]
fn early_request_is_answered_behind_welcome() {
    let mut site = Site::opening();
    let said = site.say(&[bytes("hello-anonymous"), bytes("request-early"), bytes("ack-empty")].concat());
    assert!(matches!(said[..], [v1::GatewayFrame { member: Some(gateway_frame::Member::Welcome(_)), .. }]));
    site.settle(NOW, &v1::Reply { payload: b"hello"[..].into(), ..v1::Reply::default() });
    assert_eq!(site.said(), bytes("response-ok"));
}

/// A frame of a session that has admitted nothing, with the `ack` that the vector has.
fn acknowledging(frame: &[u8], ack: u64) -> Vec<v1::GatewayFrame> {
    frames(frame).into_iter().map(|frame| v1::GatewayFrame { ack, ..frame }).collect()
}

#[test]
fn unnumbered_frames_get_their_answers() {
    for (asked, answered) in [
        ("ping", "gateway-pong"),
        ("authenticate", "authenticated-mismatch"),
        ("unknown-member-unnumbered", "notice-unsupported-frame"),
    ] {
        let answer = Site::open().answer(asked);
        assert_eq!(acknowledging(&answer, 3), frames(&bytes(answered)), "{asked}");
    }
    let said = Site::open().say(&bytes("client-state"));
    let Some(gateway_frame::Member::Notice(notice)) = &said[0].member else { panic!("{said:?}") };
    assert_eq!((notice.reason(), notice.member), (Reason::FeatureNotNegotiated, 15));
    assert!(Site::open().answer("pong").is_empty());
}

// spec: X-2, X-13, X-14
#[test]
fn bye_is_acknowledged_and_the_last() {
    let mut site = Site::open();
    assert_eq!(site.answer("bye-keep"), bytes("bye-ack"));
    assert_eq!(site.shard.next_ended(), Some((site.key, End::ShutdownWrite)));
    assert!(site.answer("request").is_empty() && site.shard.forwards().is_none());
}

// spec: U-2, U-3, U-5, U-7, D-1
#[test]
fn a_request_is_forwarded_and_answered_once() {
    let mut site = Site::open();
    assert!(site.answer("request").is_empty());
    assert!(site.answer("request").is_empty(), "admitted before: ignored");
    site.settle(NOW, &v1::Reply { payload: b"hello"[..].into(), ..v1::Reply::default() });
    assert!(site.shard.forwards().is_none());
    assert_eq!(site.said(), bytes("response-ok"));
    assert_eq!(site.answer("unknown-member-numbered"), bytes("response-unsupported-frame"));
}

fn cancel(up_seq: u64) -> Vec<u8> {
    let mut frame = Vec::new();
    put_frame(&mut frame, Numbers::NONE, member::client::CANCEL, &v1::Cancel { up_seq });
    frame
}

// spec: C-1, C-2
#[test]
fn a_cancel_of_the_next_number_consumes_it() {
    let mut site = Site::open();
    assert_eq!(site.say(&cancel(1)).len(), 1);
    site.shard.received(NOW, site.key, &cancel(2));
    assert_eq!(site.said(), bytes("response-cancelled"));
    assert!(site.say(&cancel(1)).is_empty(), "it has its Response");
    assert!(site.shard.forwards().is_none(), "none of them is run");
}

// spec: K-2, K-4, O-16, U-11
#[test]
fn only_features_that_are_served_are_in_force() {
    let mut site = Site::opening();
    let hello = v1::Hello { version_min: 1, version_max: 1, features: u64::MAX, ..v1::Hello::default() };
    let mut frame = Vec::new();
    put_frame(&mut frame, Numbers::NONE, member::client::HELLO, &hello);
    let said = site.say(&frame);
    let Some(gateway_frame::Member::Welcome(welcome)) = &said[0].member else { panic!("{said:?}") };
    assert_eq!(welcome.features, 0b1_0111, "TRACE, PRIORITY, CONTENT_ENCODING, PUSH_EXPIRY");
    let mut site = Site::open();
    let request = v1::Request {
        command: 1,
        trace: Some(v1::Trace { parent: "p".to_owned(), state: "s".to_owned() }),
        priority: v1::Priority::High.into(),
        content_encoding: "zstd".to_owned(),
        ..v1::Request::default()
    };
    let mut frame = Vec::new();
    put_frame(&mut frame, Numbers { seq: 1, ack: 0 }, member::client::REQUEST, &request);
    assert!(site.say(&frame).is_empty());
    let batch = site.shard.forwards().unwrap();
    let call = v1::Call::decode(batch.arena.read(&batch.forwards[0].call)).unwrap();
    let passed_on = (call.trace, call.priority, call.content_encoding);
    assert_eq!(passed_on, (request.trace, request.priority, request.content_encoding));
}

// spec: M-2, S-8
#[test]
fn a_services_message_is_cut_at_a_character() {
    let mut site = Site::open();
    assert!(site.answer("request").is_empty());
    let reply = v1::Reply {
        status: Code::Internal.to_wire(),
        message: format!("{}é and more", "m".repeat(255)),
        content_encoding: "zstd".to_owned(),
        ..v1::Reply::default()
    };
    site.settle(NOW, &reply);
    let said = frames(&site.said());
    let Some(gateway_frame::Member::Response(response)) = &said[0].member else { panic!("{said:?}") };
    assert_eq!(response.message, "m".repeat(255));
    assert_eq!((response.status, &*response.content_encoding), (Code::Internal.to_wire(), "zstd"));
}

// spec: A-6, A-14
#[test]
fn a_tokens_signature_comes_first() {
    let ring = KeyRing::new(vec![key()], None, None, 30).unwrap();
    let token = |jti: usize| {
        let claims = format!(r#"{{"sub":"alice","exp":4102444800,"jti":"{}"}}"#, "j".repeat(jti));
        mint(&key(), &claims.parse().unwrap())
    };
    assert_eq!(ring.verify(&token(64), NOW.unix_s()).unwrap().token_id, Some("j".repeat(64)));
    assert_eq!(ring.verify(&token(65), NOW.unix_s()), Err(TokenError::BadClaim("jti")));
    let token = token(1);
    let parts: Vec<&str> = token.split('.').collect();
    let unreadable = [parts[0], "not-base64!", parts[2]].join(".");
    assert_eq!(ring.verify(&unreadable, NOW.unix_s()), Err(TokenError::BadSignature));
}

// spec: C-7, W-2, W-9
#[test]
fn what_is_not_acknowledged_stops_no_frame_but_the_next_number() {
    let settings = moorgate::session::Settings { in_flight_max: 2, window_max: 2, ..Default::default() };
    let mut site = Site::with(settings, route()).welcomed(&bytes("hello-anonymous"));
    assert_eq!([site.say(&cancel(1)).len(), site.say(&cancel(2)).len()], [1, 1]);
    assert_eq!(site.say(&bytes("ping")).len(), 1, "the window is full, and frames are read");
    let said = site.say(&cancel(3));
    let Some(gateway_frame::Member::Error(error)) = &said[0].member else { panic!("{said:?}") };
    assert_eq!((error.reason(), error.admitted), (Reason::InFlightExceeded, 2));
}

// spec: U-16
#[test]
fn a_route_may_ask_for_a_newer_protocol() {
    let route = RouteSettings { protocol_min: 2, ..route() };
    let mut site = Site::with(Default::default(), route).welcomed(&bytes("hello-anonymous"));
    let said = site.say(&bytes("request"));
    let Some(gateway_frame::Member::Response(response)) = &said[0].member else { panic!("{said:?}") };
    assert_eq!(response.status, Code::FailedPrecondition.to_wire());
    assert_eq!((response.reason(), response.execution()), (Reason::VersionTooLow, Execution::NotExecuted));
}

// spec: U-12, U-13
#[test]
fn access_counts_when_a_request_is_admitted() {
    let expires = NOW.unix_s() + 10;
    let claims = format!(r#"{{"sub":"alice","exp":{expires}}}"#);
    let hello = v1::Hello {
        version_min: 1,
        version_max: 1,
        access_token: mint(&key(), &claims.parse().unwrap()),
        ..v1::Hello::default()
    };
    let mut frame = Vec::new();
    put_frame(&mut frame, Numbers::NONE, member::client::HELLO, &hello);
    let mut site =
        Site::with(Default::default(), RouteSettings { anonymous: false, ..route() }).welcomed(&frame);
    assert!(site.say(&bytes("request")).is_empty());
    // Beyond the leeway too.
    let later = Now { mono: NOW.mono + Duration::from_secs(41), unix_ms: NOW.unix_ms + 41_000 };
    site.settle(later, &v1::Reply { payload: b"hello"[..].into(), ..v1::Reply::default() });
    assert_eq!(site.said(), bytes("response-ok"), "it was admitted in time");
    let request = v1::Request { command: 1, ..v1::Request::default() };
    let mut frame = Vec::new();
    put_frame(&mut frame, Numbers { seq: 2, ack: 1 }, member::client::REQUEST, &request);
    site.shard.received(later, site.key, &frame);
    let said = frames(&site.said());
    let Some(gateway_frame::Member::Response(response)) = &said[0].member else { panic!("{said:?}") };
    assert_eq!((response.status, response.reason()), (Code::Unauthenticated.to_wire(), Reason::TokenExpired));
}
