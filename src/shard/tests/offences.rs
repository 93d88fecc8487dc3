//! Which faults are violations, and which clients are admitted from a banned address.

use super::limits::{banning, hello_of, nobody};
use super::*;
use crate::auth::{ApplicationError, TokenError};
use crate::directory::Conflict;
use crate::limit::{Offence, Shared, Subject};
use crate::session::{Fault, NotResumed};
use crate::shard::limits::offence;
use moorgate_proto::codec::FrameError;
use moorgate_proto::envelope::EnvelopeError;
use serde_json::json;
use std::collections::BTreeSet;

/// The name of each fault. A new one does not compile until it is here, and the test fails until it is in its table.
fn name(fault: &Fault) -> &'static str {
    match fault {
        Fault::Frame(FrameError::TooLarge { .. }) => "Frame(TooLarge)",
        Fault::ForeignProtocol(_) => "ForeignProtocol",
        Fault::Envelope(_) => "Envelope",
        Fault::Malformed(_) => "Malformed",
        Fault::UnexpectedFrame(_) => "UnexpectedFrame",
        Fault::NumberMissing => "NumberMissing",
        Fault::NumberUnexpected(_) => "NumberUnexpected",
        Fault::SequenceGap { .. } => "SequenceGap",
        Fault::AckBeyondSent { .. } => "AckBeyondSent",
        Fault::InFlightExceeded(_) => "InFlightExceeded",
        Fault::VersionUnsupported { .. } => "VersionUnsupported",
        Fault::HelloInvalid(_) => "HelloInvalid",
        Fault::Token(error) => match error {
            TokenError::Malformed => "Token(Malformed)",
            TokenError::TooLong => "Token(TooLong)",
            TokenError::Unsigned => "Token(Unsigned)",
            TokenError::WrongAlgorithm => "Token(WrongAlgorithm)",
            TokenError::CriticalExtension => "Token(CriticalExtension)",
            TokenError::UnknownKey => "Token(UnknownKey)",
            TokenError::BadSignature => "Token(BadSignature)",
            TokenError::BadPayload => "Token(BadPayload)",
            TokenError::ClaimType { .. } => "Token(ClaimType)",
            TokenError::Expired => "Token(Expired)",
            TokenError::NotYetValid => "Token(NotYetValid)",
            TokenError::WrongIssuer => "Token(WrongIssuer)",
            TokenError::WrongAudience => "Token(WrongAudience)",
            TokenError::BadClaim(_) => "Token(BadClaim)",
            TokenError::Revoked => "Token(Revoked)",
        },
        Fault::TokenExpired => "TokenExpired",
        Fault::IdentityMismatch => "IdentityMismatch",
        Fault::NotResumed(why) => match why {
            NotResumed::Unnumbered => "NotResumed(Unnumbered)",
            NotResumed::Stale => "NotResumed(Stale)",
            NotResumed::Invalid => "NotResumed(Invalid)",
        },
        Fault::EarlyExceeded => "EarlyExceeded",
        Fault::HandshakeTimeout => "HandshakeTimeout",
        Fault::FrameTimeout => "FrameTimeout",
        Fault::HeartbeatTimeout => "HeartbeatTimeout",
        Fault::WriteStalled => "WriteStalled",
        Fault::Overloaded => "Overloaded",
        Fault::ConnectionLimit => "ConnectionLimit",
        Fault::OpeningsLimited(_) => "OpeningsLimited",
        Fault::FramesLimited(_) => "FramesLimited",
        Fault::Banned(_) => "Banned",
        Fault::Application(error) => match error {
            ApplicationError::Unknown => "Application(Unknown)",
            ApplicationError::Revoked => "Application(Revoked)",
            ApplicationError::NoProof => "Application(NoProof)",
            ApplicationError::Stale => "Application(Stale)",
            ApplicationError::WrongProof => "Application(WrongProof)",
        },
        Fault::SessionRefused { .. } => "SessionRefused",
        Fault::SessionUnconfirmed => "SessionUnconfirmed",
        Fault::Superseded => "Superseded",
        Fault::Conflict(_) => "Conflict",
        Fault::Kicked(_) => "Kicked",
        Fault::LoggedOut => "LoggedOut",
        Fault::TokenRevoked => "TokenRevoked",
        Fault::Shutdown => "Shutdown",
    }
}

/// Names in the match above.
const FAULTS: usize = 55;

// spec: O-29, X-20
#[test]
fn each_fault_is_a_violation_or_is_not() {
    const ZERO: Duration = Duration::ZERO;
    let violations = [
        (Fault::EarlyExceeded, Offence::Violation),
        (Fault::Frame(FrameError::TooLarge { announced: 70_000, max: 4096 }), Offence::Violation),
        (Fault::Envelope(EnvelopeError::Malformed), Offence::Violation),
        (Fault::Malformed(9), Offence::Violation),
        (Fault::UnexpectedFrame(8), Offence::Violation),
        (Fault::NumberMissing, Offence::Violation),
        (Fault::NumberUnexpected(11), Offence::Violation),
        (Fault::SequenceGap { expected: 1, got: 3 }, Offence::Violation),
        (Fault::AckBeyondSent { sent: 1, got: 3 }, Offence::Violation),
        (Fault::InFlightExceeded(64), Offence::Violation),
        (Fault::HelloInvalid("device_id"), Offence::Violation),
        (Fault::FramesLimited(SECOND), Offence::Violation),
        (Fault::Token(TokenError::Malformed), Offence::BadToken),
        (Fault::Token(TokenError::Unsigned), Offence::BadToken),
        (Fault::Token(TokenError::BadSignature), Offence::BadToken),
        (Fault::Application(ApplicationError::WrongProof), Offence::BadProof),
    ];
    let others = [
        Fault::ForeignProtocol("TLS"),
        Fault::VersionUnsupported { min: 2, max: 3 },
        // A signature that cannot be checked, or that holds.
        Fault::Token(TokenError::TooLong),
        Fault::Token(TokenError::WrongAlgorithm),
        Fault::Token(TokenError::CriticalExtension),
        Fault::Token(TokenError::UnknownKey),
        Fault::Token(TokenError::BadPayload),
        Fault::Token(TokenError::ClaimType { claim: "exp", expected: "a number" }),
        Fault::Token(TokenError::Expired),
        Fault::Token(TokenError::NotYetValid),
        Fault::Token(TokenError::WrongIssuer),
        Fault::Token(TokenError::WrongAudience),
        Fault::Token(TokenError::BadClaim("sub")),
        Fault::Token(TokenError::Revoked),
        Fault::TokenExpired,
        Fault::IdentityMismatch,
        Fault::NotResumed(NotResumed::Unnumbered),
        Fault::NotResumed(NotResumed::Stale),
        Fault::NotResumed(NotResumed::Invalid),
        Fault::HandshakeTimeout,
        Fault::FrameTimeout,
        Fault::HeartbeatTimeout,
        Fault::WriteStalled,
        Fault::Overloaded,
        Fault::ConnectionLimit,
        Fault::OpeningsLimited(ZERO),
        Fault::Banned(ZERO),
        Fault::Application(ApplicationError::Unknown),
        Fault::Application(ApplicationError::Revoked),
        Fault::Application(ApplicationError::NoProof),
        Fault::Application(ApplicationError::Stale),
        Fault::SessionRefused { reason: Reason::Banned, message: "".into() },
        Fault::SessionUnconfirmed,
        Fault::Superseded,
        Fault::Conflict(Conflict::Device),
        Fault::Kicked("".into()),
        Fault::LoggedOut,
        Fault::TokenRevoked,
        Fault::Shutdown,
    ];
    let mut names = BTreeSet::new();
    for (fault, expected) in violations {
        assert_eq!(offence(&fault), Some(expected), "{fault:?}");
        assert!(names.insert(name(&fault)), "{fault:?} twice");
    }
    for fault in others {
        assert_eq!(offence(&fault), None, "{fault:?}");
        assert!(names.insert(name(&fault)), "{fault:?} twice");
    }
    assert_eq!(names.len(), FAULTS, "{names:?}");
}

fn hello_with(claims: &serde_json::Value, key: &SigningKey) -> v1::Hello {
    v1::Hello { access_token: mint(key, claims), ..hello() }
}

fn forged() -> v1::Hello {
    let wrong = SigningKey::new("k", &[9; 32]).unwrap();
    hello_with(&json!({"sub": "mallory", "exp": BEGIN_UNIX_MS / 1000 + 60}), &wrong)
}

impl World {
    /// What the client is refused with.
    fn refused(&mut self, last: u8, hello: v1::Hello) -> v1::Error {
        match self.greeted(last, hello) {
            (_, gateway_frame::Member::Error(error)) => error,
            (_, other) => panic!("an Error, not {other:?}"),
        }
    }

    /// An address with more violations than are put up with.
    fn ban(&mut self, last: u8) {
        while self.shard.bans.is_banned(self.now.mono, &Subject::address([192, 0, 2, last].into())).is_none()
        {
            assert_eq!(self.refused(last, forged()).reason(), Reason::TokenInvalid);
        }
    }
}

// spec: A-16
#[test]
fn good_signatures_and_foreign_greetings_cause_no_ban() {
    let mut world = World::with(|parts| {
        parts.limits = banning(1);
        let key = SigningKey::new("k", SECRET).unwrap();
        let keys = KeyRing::new(vec![key], Some("accounts".into()), Some("im".into()), 0).unwrap();
        parts.authority = Arc::new(Authority::of_keys(keys));
    });
    let (key, other) = (SigningKey::new("k", SECRET).unwrap(), SigningKey::new("next", SECRET).unwrap());
    let exp = BEGIN_UNIX_MS / 1000 + 60;
    let good = json!({"sub": "alice", "exp": exp, "iss": "accounts", "aud": "im"});
    let with = |name: &str, value: serde_json::Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    for _ in 0..10 {
        for claims in [
            with("aud", json!("games")),
            with("iss", json!("elsewhere")),
            with("exp", json!(1.9e9)),
            with("exp", json!(null)),
            with("sub", json!("")),
            with("roles", json!("admin")),
            with("nbf", json!(exp + 60)),
        ] {
            world.refused(7, hello_with(&claims, &key));
        }
        world.refused(7, hello_with(&good, &other));
        for greeting in
            ["GET / HTTP/1.1\r\n\r\n", "PROXY TCP4 ", "SSH-2.0-x\r\n", "\u{16}\u{3}\u{1}\u{2}\0\0"]
        {
            let client = world.accept_from(7);
            world.shard.received(world.now, client, greeting.as_bytes());
            assert_eq!(world.error(client), (Reason::FrameTooLarge, false));
        }
    }
    world.join_as(7, v1::Hello { access_token: String::new(), ..hello() });
    assert_eq!(world.count(Count::OffencesToken) + world.count(Count::OffencesViolation), 0);
    assert_eq!((world.count(Count::CloseForeignProtocol), world.count(Count::CloseProtocol)), (40, 0));
}

// spec: O-22, O-29
#[test]
fn from_a_banned_address_a_good_token_or_a_resume_gets_in() {
    let mut world = World::with(|parts| parts.limits = banning(2));
    let (client, member) = world.greeted(7, nobody());
    let gateway_frame::Member::Welcome(welcome) = member else { panic!("a Welcome") };
    let open = world.join_as(7, nobody());
    world.ban(7);
    for _ in 0..10 {
        let error = world.refused(7, nobody());
        assert_eq!((Code::from_wire(error.status), error.reason()), (Code::PermissionDenied, Reason::Banned));
        assert_eq!(error.reconnect.unwrap().after_ms, 60_000, "the rest of the ban");
    }
    assert_eq!(world.refused(7, forged()).reason(), Reason::Banned);
    let expired = v1::Hello { access_token: token(Duration::ZERO), ..hello() };
    assert_eq!(world.refused(7, expired).reason(), Reason::TokenExpired, "it learns what to do");
    assert!(world.asks(open, 1).is_none(), "open connections go on");
    // As many users as there are, however fast.
    for number in 0..100 {
        world.join_as(7, hello_of(&format!("user-{number}")));
    }
    world.shard.peer_closed(world.now, client);
    let resume = v1::Resume { resume_token: welcome.resume_token, down_seq: 0, attempt: 1 };
    let (_, member) = world.greeted(7, v1::Hello { resume: Some(resume.clone()), ..nobody() });
    assert!(
        matches!(member, gateway_frame::Member::Welcome(welcome) if welcome.resume_result() == v1::ResumeResult::Resumed)
    );
    // A token that names none opens no fresh session.
    let lost = v1::Resume { resume_token: vec![1; 39].into(), ..resume };
    assert_eq!(world.refused(7, v1::Hello { resume: Some(lost), ..nobody() }).reason(), Reason::Banned);
}

// spec: O-22, O-29
#[test]
fn an_attacker_on_a_banned_address_takes_no_room_from_a_user_with_a_token() {
    let mut world = World::with(|parts| parts.limits = banning(2));
    world.ban(7);
    let mut refused_at_once = 0;
    for _ in 0..200 {
        // Silent, and gone at once.
        let client = world.accept_from(7);
        if let [frame] = &world.got(client)[..] {
            let Some(gateway_frame::Member::Error(error)) = &frame.member else { panic!("{frame:?}") };
            let reconnect = error.reconnect.clone().unwrap();
            assert_eq!(error.reason(), Reason::Banned);
            assert!((1..=1000).contains(&reconnect.after_ms), "{reconnect:?}: until the next one is read");
            refused_at_once += 1;
        }
        world.shard.peer_closed(world.now, client);
    }
    assert!((180..=182).contains(&refused_at_once), "{refused_at_once}");
    world.pass(SECOND);
    for number in 0..50 {
        world.join_as(7, hello_of(&format!("user-{number}")));
    }
    world.join_as(8, nobody());
}

/// Connections of before the ban were not charged for it, and give nothing back.
// spec: O-29
#[test]
fn tokens_on_connections_of_before_a_ban_buy_no_further_ones() {
    let mut world = World::with(|parts| parts.limits = banning(2));
    let before: Vec<_> = (0..100).map(|_| world.accept_from(7)).collect();
    world.pass(TICK);
    world.ban(7);
    let charged = |world: &mut World| {
        let is_charged = |_: &i32| {
            let client = world.accept_from(7);
            let is_refused = !world.got(client).is_empty();
            world.shard.peer_closed(world.now, client);
            !is_refused
        };
        (0..100).filter(is_charged).count()
    };
    assert!((18..=20).contains(&charged(&mut world)), "a burst");
    for client in before {
        world.say(client, 0, client_frame::Member::Hello(hello()));
        assert!(matches!(world.member(client), gateway_frame::Member::Welcome(_)));
    }
    assert_eq!(charged(&mut world), 0);
}

// spec: O-29
#[test]
fn a_ban_by_an_operator_refuses_tokens_too() {
    let mut world = World::with(|parts| parts.limits = Shared::unlimited());
    let accepted = world.accept_from(7);
    assert!(world.shard.bans.ban(world.now.mono, &Subject::address([192, 0, 2, 7].into()), 60 * SECOND));
    let (_, member) = world.greeted(7, hello());
    assert!(matches!(member, gateway_frame::Member::Error(error) if error.reason() == Reason::Banned));
    world.say(accepted, 0, client_frame::Member::Hello(hello()));
    assert_eq!(world.error(accepted), (Reason::Banned, true), "it was accepted before");
}

// spec
#[test]
fn forged_tokens_in_authenticate_are_judged_as_in_hello() {
    let authenticate =
        |access_token: String| client_frame::Member::Authenticate(v1::Authenticate { access_token });
    let key = SigningKey::new("k", SECRET).unwrap();
    let other_user = json!({"sub": "bob", "exp": BEGIN_UNIX_MS / 1000 + 60});
    let fractional = json!({"sub": "mallory", "exp": 1.9e9});
    let mut world = World::with(|parts| parts.limits = banning(2));
    let client = world.join_as(7, hello_of("mallory"));
    for claims in [&other_user, &fractional].repeat(10) {
        world.say(client, 0, authenticate(mint(&key, claims)));
        assert!(matches!(world.member(client), gateway_frame::Member::Authenticated(it) if it.status != 0));
    }
    for _ in 0..2 {
        world.say(client, 0, authenticate(forged().access_token));
        assert!(matches!(world.member(client), gateway_frame::Member::Authenticated(it) if it.status != 0));
    }
    world.say(client, 0, authenticate(forged().access_token));
    assert_eq!((world.error(client).0, world.count(Count::OffencesToken)), (Reason::Banned, 3));
    assert_eq!(
        world.refused(8, hello_of("mallory")).reason(),
        Reason::Banned,
        "it is the user who is banned"
    );
    world.join_as(7, hello_of("alice"));
    world.join_as(7, nobody());
    // Of an anonymous session it is the address.
    let client = world.join_as(9, nobody());
    for _ in 0..3 {
        world.say(client, 0, authenticate(forged().access_token));
    }
    assert_eq!(world.refused(9, nobody()).reason(), Reason::Banned);
}

// spec: O-19
#[test]
fn welcome_has_an_expiry_beyond_2106() {
    let mut world = World::new();
    let key = SigningKey::new("k", SECRET).unwrap();
    for exp in [4_294_967_295, 4_294_967_296, 253_402_300_799, u64::MAX / 1000] {
        let hello = hello_with(&json!({"sub": "alice", "exp": exp}), &key);
        let (client, member) = world.greeted(1, hello.clone());
        let gateway_frame::Member::Welcome(welcome) = member else { panic!("a Welcome") };
        assert_eq!(welcome.access_expires_ms, exp * 1000);
        world.say(
            client,
            0,
            client_frame::Member::Authenticate(v1::Authenticate { access_token: hello.access_token }),
        );
        let gateway_frame::Member::Authenticated(answer) = world.member(client) else { panic!("an answer") };
        assert_eq!(answer.access_expires_ms, exp * 1000);
    }
}
