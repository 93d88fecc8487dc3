//! A session through its public interface: its opening, its limits, and both streams together.

use super::*;
use crate::auth::{Authority, KeyRing, SigningKey, mint};
use crate::base::clock::Now;
use crate::base::ids::{SessionId, Ticket};
use moorgate_proto::codec::Assembler;
use moorgate_proto::envelope::Envelope;
use moorgate_proto::v1::{self, Feature, ResumeResult};
use moorgate_proto::view::ResponseView;
use proptest::prelude::*;
use prost::Message;
use std::collections::VecDeque;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const UNIX_S: u64 = 1_800_000_000;

fn now() -> Now {
    Now { mono: Mono::ZERO + Duration::from_secs(5), unix_ms: UNIX_S * 1000 }
}

fn hello() -> v1::Hello {
    v1::Hello { version_min: 1, version_max: 1, ..v1::Hello::default() }
}

fn with_token(claims: &serde_json::Value) -> v1::Hello {
    v1::Hello { access_token: mint(&SigningKey::new("k", SECRET).unwrap(), claims), ..hello() }
}

fn opened(hello: v1::Hello) -> Result<Opened, Fault> {
    let keys = KeyRing::new(vec![SigningKey::new("k", SECRET).unwrap()], None, None, 0).unwrap();
    let authority = Authority::of_keys(keys);
    let settings = Settings::default();
    let peer = std::net::SocketAddr::from(([192, 0, 2, 9], 999));
    open(
        now(),
        hello,
        OpeningContext { authority: &authority, settings: &settings, peer, heartbeat: settings.heartbeat },
    )
}

fn session(hello: v1::Hello) -> Session {
    let opened = opened(hello).unwrap();
    let caller = opened.caller(SessionId([3; 16]));
    Session::new(ConnectionKey::new(0, 0), &opened, RoleMask::NONE, caller)
}

#[test]
fn the_highest_common_version_is_in_force() {
    assert_eq!(opened(v1::Hello { version_max: 7, ..hello() }).unwrap().version, 1);
    for (min, max) in [(2, 7), (0, 0), (3, 1)] {
        let fault = opened(v1::Hello { version_min: min, version_max: max, ..hello() }).unwrap_err();
        assert_eq!(fault, Fault::VersionUnsupported { min, max });
    }
}

#[test]
fn features_are_what_both_sides_have() {
    let features = 1 << Feature::Trace as u32 | 1 << Feature::Fragments as u32 | 1 << 63;
    assert_eq!(opened(v1::Hello { features, ..hello() }).unwrap().features, 1 << Feature::Trace as u32);
}

#[test]
fn wishes_count_within_the_deployment_s_bounds() {
    let heartbeat = |wished| session(v1::Hello { heartbeat_ms: wished, ..hello() }).heartbeat().as_secs();
    assert_eq!([0, 1, 7000, u32::MAX].map(heartbeat), [30, 5, 7, 600]);
    let frame = |wished| session(v1::Hello { frame_bytes_max: wished, ..hello() }).frame_bytes_max();
    assert_eq!([0, 4096, 1 << 20].map(frame), [65_536, 4096, 65_536]);
}

#[test]
fn names_have_bounds() {
    let long = || "x".repeat(65);
    let named = [
        v1::Hello { application: long(), ..hello() },
        v1::Hello { app_version: long(), ..hello() },
        v1::Hello { platform: long(), ..hello() },
        v1::Hello { device_id: long(), ..hello() },
    ];
    for hello in named {
        assert!(matches!(opened(hello), Err(Fault::HelloInvalid(_))));
    }
    assert!(opened(v1::Hello { device_id: "x".repeat(64), ..hello() }).is_ok());
}

#[test]
fn services_learn_what_the_token_says() {
    let claims =
        serde_json::json!({"sub": "alice", "exp": UNIX_S + 60, "roles": ["admin"], "device": "phone-1"});
    let session = session(v1::Hello { device_id: "phone-2".to_owned(), ..with_token(&claims) });
    let caller = v1::Caller::decode(&*session.caller.encoded).unwrap();
    assert_eq!((caller.user_id.as_str(), &*session.caller.user_id), ("alice", "alice"));
    assert_eq!(caller.device_id, "phone-1", "the claim overrides Hello");
    assert_eq!((caller.roles, caller.client_address.as_str()), (vec!["admin".to_owned()], "192.0.2.9:999"));
    assert_eq!(&caller.session_id[..], &[3; 16]);
}

#[test]
fn access_ends_when_the_token_does() {
    let claims = serde_json::json!({"sub": "alice", "exp": UNIX_S + 60});
    let mut session = session(with_token(&claims));
    let expires_ms = now().unix_ms + 60_000;
    let at = |unix_ms| Now { unix_ms, ..now() };
    assert_eq!(session.expiry, Expiry::At(expires_ms));
    assert_eq!(session.expiry.due(at(expires_ms - 1)), now().mono + Duration::from_millis(1));
    assert!(session.has_access(at(expires_ms - 1)) && !session.has_access(at(expires_ms)));
    session.expiry = Expiry::Grace(now().mono + Duration::from_secs(60));
    assert!(!session.has_access(now()), "the grace is for leaving, not for requests");
    session.expiry = Expiry::Never;
    assert!(session.has_access(at(u64::MAX)));
}

#[test]
fn a_welcome_tells_the_limits_and_why_the_session_is_fresh() {
    let session = session(hello());
    let settings = Settings::default();
    let result = ResumeResult::NotSupported;
    let welcome = welcome(now(), &session, Welcoming { result, resume_token: &[], settings: &settings });
    assert_eq!((welcome.resume_result(), welcome.detached_ttl_ms), (result, 0));
    let limits = welcome.limits.unwrap();
    assert_eq!((limits.in_flight_max, limits.window_max), (settings.in_flight_max, settings.window_max));
    assert_eq!((welcome.server_time_ms, welcome.access_expires_ms), (UNIX_S * 1000, 0));
    assert!(welcome.resume_token.is_empty() && session.caller.is_anonymous());
}

fn sending(out: Option<&mut Vec<u8>>) -> Sending<'_> {
    Sending { admitted: 3, window_max: 256, out, room: Room::Whole, bounds: Settings::default().bounds() }
}

#[test]
fn in_flight_is_what_is_unanswered_or_unacknowledged() {
    let mut session = session(hello());
    for number in 1..=3 {
        let up_seq = session.up.admit();
        session.up.forwarded(up_seq, Ticket::new(number, 0));
    }
    assert_eq!(session.in_flight(), 3);
    let mut out = Vec::new();
    for up_seq in [2, 1] {
        assert!(session.up.answered(up_seq));
        let response = ResponseView { up_seq, ..ResponseView::default() };
        let full = up_seq == 1;
        session.down.respond(&response, sending((!full).then_some(&mut out)));
    }
    assert_eq!(session.in_flight(), 3, "answered, sent or waiting, is not acknowledged");
    assert_eq!(session.down.acknowledge(1, |_| ()), Ok(()));
    assert_eq!(session.in_flight(), 2);
    assert_eq!(
        session.down.acknowledge(2, |_| ()),
        Err(Fault::AckBeyondSent { sent: 1, got: 2 }),
        "it waits"
    );
    session.down.pump(Mono::ZERO, sending(Some(&mut out)), usize::MAX, &mut Lost::default());
    assert_eq!(session.down.acknowledge(2, |_| ()), Ok(()));
    assert_eq!(session.in_flight(), 1);
    session.shrink();
    assert!(!session.is_bare(), "a request is under way");
    session.up.answered(3);
    session.shrink();
    assert!(session.is_bare());
}

/// What may happen to a session, in any order.
#[derive(Debug, Clone)]
enum Step {
    Admit,
    /// The answer to one of those under way.
    Answer(usize),
    /// The socket takes what there is, or nothing from now on.
    Room(bool),
    /// The client acknowledges some of what it has got.
    Ack(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        Just(Step::Admit),
        any::<usize>().prop_map(Step::Answer),
        any::<bool>().prop_map(Step::Room),
        (0u64..4).prop_map(Step::Ack),
    ];
    proptest::collection::vec(step, 1..200)
}

/// Numbers and requests of the Responses in some bytes.
fn responses(mut bytes: &[u8]) -> Vec<(u64, u64)> {
    let mut assembler = Assembler::default();
    let mut found = Vec::new();
    while let Some(frame) = assembler.next(&mut bytes, 1 << 24).unwrap() {
        let envelope = Envelope::decode(frame).unwrap();
        let response = ResponseView::decode(envelope.member.unwrap().1).unwrap();
        found.push((envelope.numbers.seq, response.up_seq));
    }
    found
}

proptest! {
    #[test]
    fn every_request_gets_its_one_response_in_the_order_of_the_answers(steps in steps()) {
        let mut session = session(hello());
        let (mut out, mut room) = (Vec::new(), true);
        let mut pending: Vec<u64> = Vec::new();
        let mut answered: VecDeque<u64> = VecDeque::new();
        let (mut written, mut acked) = (0u64, 0u64);
        for step in steps {
            match step {
                Step::Admit => {
                    let up_seq = session.up.admit();
                    session.up.forwarded(up_seq, Ticket::new(0, 0));
                    pending.push(up_seq);
                }
                Step::Answer(_) if pending.is_empty() => {}
                Step::Answer(at) => {
                    let up_seq = pending.remove(at % pending.len());
                    prop_assert!(session.up.answered(up_seq));
                    let response = ResponseView { up_seq, ..ResponseView::default() };
                    session.down.respond(&response, sending(room.then_some(&mut out)));
                    answered.push_back(up_seq);
                }
                Step::Room(now) => {
                    room = now;
                    if room {
                        session.down.pump(Mono::ZERO, sending(Some(&mut out)), usize::MAX, &mut Lost::default());
                    }
                }
                Step::Ack(more) => {
                    acked = (acked + more).min(session.down.sent());
                    prop_assert_eq!(session.down.acknowledge(acked, |_| ()), Ok(()));
                }
            }
            for (seq, up_seq) in responses(&std::mem::take(&mut out)) {
                written += 1;
                prop_assert_eq!((seq, Some(up_seq)), (written, answered.pop_front()));
            }
            let unacknowledged = usize::try_from(written - acked).unwrap();
            prop_assert_eq!(session.in_flight(), pending.len() + answered.len() + unacknowledged);
        }
    }
}
