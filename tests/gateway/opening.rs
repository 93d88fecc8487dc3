//! From the connection to Welcome, or to the Error that says why not.

use crate::site::{Site, command};
use crate::token::{claims, current_key, token, token_with, unix_s, unsigned};
use crate::wire::{RawClient, frame, hello, hello_frame, ping, request};
use moorgate::auth::{SigningKey, mint};
use moorgate_client::{Connection, ConnectionError, Options};
use moorgate_proto::envelope::member::client;
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Reason, ResumeResult, gateway_frame::Member};
use serde_json::json;

const STRICT: &str = "[auth]\nissuer = \"accounts\"\naudience = \"moorgate\"\nleeway = \"0s\"\n";

/// What a Hello gets: a Welcome, or the final Error.
fn open(site: &Site, hello: &v1::Hello) -> Result<v1::Welcome, v1::Error> {
    let mut client = site.connect();
    client.send(&hello_frame(hello));
    match client.member() {
        Member::Welcome(welcome) => Ok(welcome),
        Member::Error(error) => {
            client.closed();
            Err(error)
        }
        other => panic!("neither Welcome nor Error: {other:?}"),
    }
}

fn refused(site: &Site, hello: &v1::Hello) -> (Code, Reason, bool) {
    let error = open(site, hello).expect_err("it was welcomed");
    (Code::from_wire(error.status), error.reason(), error.reconnect.unwrap_or_default().allowed)
}

// spec: O-6, O-7
#[test]
fn a_range_without_our_version_is_refused_with_the_version_that_is_spoken() {
    let site = Site::start("");
    for (version_min, version_max) in [(2, 3), (0, 0), (u32::MAX, u32::MAX), (2, 1)] {
        let hello = v1::Hello { version_min, version_max, ..hello() };
        assert_eq!(refused(&site, &hello), (Code::FailedPrecondition, Reason::VersionUnsupported, false));
        assert!(open(&site, &hello).unwrap_err().message.contains("only 1"));
    }
    for (version_min, version_max) in [(0, 1), (1, 7), (0, u32::MAX)] {
        let hello = v1::Hello { version_min, version_max, ..hello() };
        assert_eq!(open(&site, &hello).unwrap().version, 1);
    }
    site.end();
}

// spec: O-8, O-9
#[test]
fn hello_fields_out_of_bounds_are_refused() {
    let site = Site::start("");
    let long = "x".repeat(65);
    let hellos = [
        v1::Hello { application: long.clone(), ..hello() },
        v1::Hello { app_version: long.clone(), ..hello() },
        v1::Hello { platform: long.clone(), ..hello() },
        v1::Hello { device_id: long, ..hello() },
        v1::Hello { frame_bytes_max: 1, ..hello() },
        v1::Hello { frame_bytes_max: 4095, ..hello() },
    ];
    for hello in hellos {
        assert_eq!(refused(&site, &hello), (Code::InvalidArgument, Reason::ProtocolViolation, false));
    }
    site.end();
}

// spec: O-12, O-14, O-15, O-16, O-17
#[test]
fn welcome_says_what_was_agreed() {
    let site =
        Site::start("[session]\nin_flight = 5\nwindow = 9\nframe = \"32 KiB\"\nheartbeat_min = \"7s\"\n");
    let wishes = v1::Hello { frame_bytes_max: 5000, heartbeat_ms: 1, features: u64::MAX, ..hello() };
    let welcome = open(&site, &wishes).unwrap();
    let limits = welcome.limits.unwrap();
    assert_eq!((limits.frame_bytes_max, limits.in_flight_max, limits.window_max), (5000, 5, 9));
    assert_eq!((welcome.heartbeat_ms, welcome.session_id.len(), welcome.admitted), (7000, 16, 0));
    assert_eq!((welcome.user_id.as_str(), welcome.access_expires_ms), ("", 0));
    assert!(welcome.server_time_ms / 1000 <= unix_s() && welcome.server_time_ms / 1000 + 60 > unix_s());
    let other = open(&site, &hello()).unwrap();
    assert_eq!(other.limits.unwrap().frame_bytes_max, 32 * 1024);
    assert_ne!(other.session_id, welcome.session_id);
    site.end();
}

// spec
#[test]
fn a_resume_gets_a_fresh_session_that_says_why() {
    let site = Site::start("");
    let resume = v1::Resume { resume_token: vec![1; 40].into(), attempt: 1, down_seq: 9 };
    let welcome = open(&site, &v1::Hello { resume: Some(resume), ..hello() }).unwrap();
    assert_eq!(welcome.resume_result(), ResumeResult::NotSupported);
    assert!(welcome.resume_token.is_empty() && welcome.detached_ttl_ms == 0);
    assert_eq!(open(&site, &hello()).unwrap().resume_result(), ResumeResult::None);
    site.end();
}

// spec: E-13
#[test]
fn a_second_hello_ends_the_connection() {
    let site = Site::start("");
    let mut client = site.open();
    client.send(&hello_frame(&hello()));
    let error = client.error();
    assert_eq!((error.status, error.reason()), (Code::InvalidArgument.to_wire(), Reason::ProtocolViolation));
    let mut both = site.connect();
    both.send(&[hello_frame(&hello()), hello_frame(&hello())].concat());
    both.welcome();
    assert_eq!(both.error_reason(), Reason::ProtocolViolation);
    drop((client, both));
    site.end();
}

// spec: O-3, O-4
#[test]
fn a_hello_that_numbers_or_acknowledges_is_refused() {
    let site = Site::start("");
    let mut numbered = site.connect();
    numbered.send(&frame(1, 0, client::HELLO, &hello()));
    assert_eq!(numbered.error_reason(), Reason::ProtocolViolation);
    let mut acknowledging = site.connect();
    acknowledging.send(&frame(0, 1, client::HELLO, &hello()));
    assert_eq!(acknowledging.error_reason(), Reason::AckBeyondSent);
    drop((numbered, acknowledging));
    site.end();
}

#[test]
fn what_comes_in_one_segment_with_hello_is_served_after_welcome() {
    let site = Site::start("");
    let mut client = site.connect();
    client.send(&[hello_frame(&hello()), request(1, command::OPEN, b"early"), ping(3)].concat());
    client.welcome();
    assert!(matches!(client.member(), Member::Pong(pong) if pong.nonce == 3));
    assert_eq!(&client.response().payload[..], b"early");
    drop(client);
    site.end();
}

// spec: O-3
#[test]
fn a_frame_before_hello_ends_the_connection_and_is_not_served() {
    let site = Site::start("");
    let mut client = site.connect();
    client.send(&[request(1, command::OPEN, b"early"), hello_frame(&hello())].concat());
    assert_eq!(client.error_reason(), Reason::ProtocolViolation);
    assert_eq!(site.metric("moorgate_requests_admitted_total"), 0);
    assert_eq!(site.metric("moorgate_sessions_opened_total"), 0);
    drop(client);
    site.end();
}

// spec: O-18, O-19
#[test]
fn a_good_token_opens_a_session_of_its_user() {
    let site = Site::start(STRICT);
    let hello = v1::Hello { access_token: token("alice", &[]), ..hello() };
    let welcome = open(&site, &hello).unwrap();
    assert_eq!(welcome.user_id, "alice");
    assert!(welcome.access_expires_ms / 1000 > unix_s());
    let mut client = site.client_with(Options::default(), &token("bob", &[]));
    assert_eq!(client.welcome().user_id, "bob");
    let answer = client.request(command::USER, b"mine", crate::wire::PATIENCE).unwrap();
    assert_eq!(answer.code, Code::Ok);
    client.bye().unwrap();
    site.end();
}

// spec, O-11
#[test]
fn bad_tokens_are_refused_each_with_its_reason() {
    let site = Site::start(STRICT);
    let other = |id: &str| SigningKey::new(id, b"ffffffffffffffffffffffffffffffff").unwrap();
    let good = token("alice", &[]);
    let cut = good.rsplit_once('.').unwrap().0.to_owned();
    let cases = [
        ("alg none", unsigned("alice"), Reason::TokenInvalid, "not signed"),
        ("wrong key", mint(&other("current"), &claims("alice")), Reason::TokenInvalid, "signature"),
        ("unknown kid", mint(&other("stranger"), &claims("alice")), Reason::TokenInvalid, "key"),
        ("wrong audience", token_with("alice", "aud", json!("web")), Reason::TokenInvalid, "audience"),
        ("no audience", token_with("alice", "aud", json!(null)), Reason::TokenInvalid, "`aud`"),
        ("wrong issuer", token_with("alice", "iss", json!("mallory")), Reason::TokenInvalid, "issuer"),
        ("expired", token_with("alice", "exp", json!(unix_s() - 1)), Reason::TokenExpired, "expired"),
        ("not yet", token_with("alice", "nbf", json!(unix_s() + 600)), Reason::TokenNotYetValid, "future"),
        (
            "issued later",
            token_with("alice", "iat", json!(unix_s() + 600)),
            Reason::TokenNotYetValid,
            "future",
        ),
        ("fractional exp", token_with("alice", "exp", json!(1.9e9)), Reason::TokenInvalid, "`exp`"),
        ("no user", token_with("", "x", json!(1)), Reason::TokenInvalid, "sub"),
        ("oversized", token_with("alice", "x", json!("x".repeat(2300))), Reason::TokenInvalid, "too long"),
        ("garbage", "garbage".to_owned(), Reason::TokenInvalid, "well-formed"),
        ("dots", "..".to_owned(), Reason::TokenInvalid, "well-formed"),
        ("no signature", cut, Reason::TokenInvalid, "well-formed"),
        ("not ASCII", "é.é.é".to_owned(), Reason::TokenInvalid, "well-formed"),
    ];
    for (name, access_token, reason, word) in cases {
        let error = open(&site, &v1::Hello { access_token, ..hello() }).expect_err(name);
        assert_eq!(
            (Code::from_wire(error.status), error.reason()),
            (Code::Unauthenticated, reason),
            "{name}"
        );
        assert!(error.message.contains(word), "{name}: {}", error.message);
        let allowed = error.reconnect.unwrap().allowed;
        assert_eq!(
            allowed,
            reason == Reason::TokenNotYetValid,
            "{name}: may the same token do better later?"
        );
    }
    assert_eq!(site.metric("moorgate_sessions_opened_total"), 0);
    site.end();
}

#[test]
fn a_hello_whose_token_fits_into_no_opening_frame_is_too_large() {
    let site = Site::start("");
    let hello = v1::Hello { access_token: "x".repeat(5000), ..hello() };
    assert_eq!(refused(&site, &hello).1, Reason::FrameTooLarge);
    site.end();
}

#[test]
fn the_client_kit_is_told_why_it_is_refused() {
    let site = Site::start(STRICT);
    let expired = token_with("alice", "exp", json!(1));
    match Connection::connect(site.address(), Options::default(), &expired) {
        Err(ConnectionError::Refused(error)) => assert_eq!(error.reason(), Reason::TokenExpired),
        other => panic!("{other:?}"),
    }
    site.end();
}

// spec, U-13
#[test]
fn a_token_that_expires_on_a_live_connection_warns_then_closes() {
    let site = Site::start("[auth]\nleeway = \"0s\"\n[session]\nexpiry_grace = \"3s\"\n");
    let claims = json!({"sub": "alice", "exp": unix_s() + 4});
    let mut client = site.connect();
    client.send(&hello_frame(&v1::Hello { access_token: mint(&current_key(), &claims), ..hello() }));
    client.welcome();
    let notice = client.notice();
    assert_eq!((notice.status, notice.reason()), (Code::Unauthenticated.to_wire(), Reason::TokenExpired));
    let late = client.ask(1, command::USER, b"late");
    assert_eq!((late.status, late.reason()), (Code::Unauthenticated.to_wire(), Reason::TokenExpired));
    let error = client.error();
    assert_eq!((error.reason(), error.admitted), (Reason::TokenExpired, 1));
    drop(client);
    site.end();
}

#[test]
fn two_devices_of_one_user_are_two_sessions() {
    let site = Site::start("");
    let mut clients: Vec<RawClient> = Vec::new();
    let mut ids = Vec::new();
    for device in ["phone", "laptop"] {
        let access_token = token("alice", &[]);
        let hello = v1::Hello { access_token, device_id: device.to_owned(), ..hello() };
        let mut client = site.connect();
        client.send(&hello_frame(&hello));
        ids.push(client.welcome().session_id);
        clients.push(client);
    }
    assert_ne!(ids[0], ids[1]);
    for client in &mut clients {
        assert_eq!(client.ask(1, command::USER, b"each").status, Code::Ok.to_wire());
    }
    drop(clients);
    site.end();
}

#[test]
fn silence_for_twice_the_heartbeat_ends_the_connection() {
    let site = Site::start("[session]\nheartbeat = \"300ms\"\nheartbeat_min = \"300ms\"\n");
    let mut silent = site.open();
    let error = silent.error();
    assert_eq!(Code::from_wire(error.status), Code::DeadlineExceeded);
    assert_eq!(error.reason(), Reason::HeartbeatTimeout);
    assert!(error.reconnect.unwrap().allowed);
    drop(silent);
    site.end();
}

#[test]
fn an_announced_pause_is_no_silence() {
    let site = Site::start("[session]\nheartbeat = \"1s\"\nheartbeat_min = \"1s\"\n");
    let mut quiet = site.open();
    quiet.send(&frame(0, 0, client::PING, &v1::Ping { nonce: 1, next_ms: 600_000 }));
    assert!(matches!(quiet.member(), Member::Pong(pong) if pong.nonce == 1));
    // Another that announces nothing is closed meanwhile.
    assert_eq!(site.open().error_reason(), Reason::HeartbeatTimeout);
    quiet.nothing_else();
    drop(quiet);
    site.end();
}
