//! The client kit does what `protocol-spec.md` and the vectors say.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

#[path = "../../../proto/tests/contract/document.rs"]
mod document;
#[path = "../../../proto/tests/contract/vector_file.rs"]
mod vector_file;

use document::Document;
use moorgate_client::core::{ClientCore, End, Event, Fault, ResumeToken, Resumption};
use moorgate_client::{Action, Options, RequestOptions, action};
use moorgate_proto::codec::put_frame;
use moorgate_proto::envelope::Numbers;
use moorgate_proto::envelope::member::gateway;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{self, Execution, Reason};
use std::sync::Arc;
use std::time::Duration;
use vector_file::{Vector, read};

const NOW: Mono = Mono::from_nanos(1_000_000_000);

fn name(action: Action) -> &'static str {
    match action {
        Action::RetryNow => "RETRY_NOW",
        Action::RetryAfter => "RETRY_AFTER",
        Action::Reauthenticate => "REAUTHENTICATE",
        Action::Resync => "RESYNC",
        Action::Update => "UPDATE",
        Action::GiveUp => "GIVE_UP",
        Action::Unspecified => "UNSPECIFIED",
    }
}

// spec: E-18, N-1, N-2, N-3, S-5
#[test]
fn each_reason_has_its_action() {
    let rows = Document::read().table("- [N-5]", &["number", "reason"]);
    assert!(!rows.is_empty());
    for row in rows {
        let reason = Reason::from_str_name(&format!("REASON_{}", row[1])).unwrap();
        for execution in [Execution::Unspecified, Execution::NotExecuted] {
            assert_eq!(name(action::of(reason, execution)), row[3], "{} {execution:?}", row[1]);
        }
        for execution in [Execution::Unknown, Execution::Executed] {
            assert_eq!(name(action::of(reason, execution)), row[4], "{} {execution:?}", row[1]);
        }
    }
    assert_eq!(Reason::try_from(9999).unwrap_or_default(), Reason::Unspecified);
}

fn opening() -> ClientCore {
    let mut core = ClientCore::new(Arc::new(Options::default()));
    core.connected(NOW, "");
    core
}

/// A session that was welcomed, with one request under way when `asked`.
fn open(asked: bool) -> ClientCore {
    let mut core = opening();
    let limits = v1::Limits { frame_bytes_max: 65536, in_flight_max: 64, window_max: 256 };
    let welcome =
        v1::Welcome { version: 1, heartbeat_ms: 30_000, limits: Some(limits), ..v1::Welcome::default() };
    let mut bytes = Vec::new();
    put_frame(&mut bytes, Numbers::NONE, gateway::WELCOME, &welcome);
    assert!(core.received(NOW, &bytes, &mut |_, _| {}));
    if asked {
        core.request(NOW, &RequestOptions::command(1), b"hello").unwrap();
    }
    core.output().clear();
    core
}

/// What happens, in words, when these bytes come.
fn events(core: &mut ClientCore, bytes: &[u8]) -> Vec<String> {
    let mut seen = Vec::new();
    core.received(NOW, bytes, &mut |_, event| seen.push(format!("{event:?}")));
    seen
}

fn vector(name: &str) -> Vector {
    read("gateway.txt").into_iter().find(|vector| vector.name() == name).unwrap()
}

#[test]
fn frames_of_a_gateway_are_taken() {
    for (name, begins) in [
        ("response-ok", "Response(RequestId(1), "),
        ("notice-unsupported-frame", "Notice("),
        ("authenticated-mismatch", "Authenticated("),
        ("go-away", "GoingAway("),
        ("error-shutdown", "Unanswered(RequestId(1), Unknown)"),
        ("error-version", "Unanswered(RequestId(1), NotExecuted)"),
    ] {
        let seen = events(&mut open(true), &vector(name).bytes("hex"));
        assert!(seen[0].starts_with(begins), "{name}: {seen:?}");
    }
    for name in ["welcome-anonymous", "welcome-user", "welcome-resumed"] {
        let seen = events(&mut opening(), &vector(name).bytes("hex"));
        assert!(seen[0].starts_with("Welcomed("), "{name}: {seen:?}");
    }
    let resumption = Resumption {
        resume_token: ResumeToken::from(&b"\xde\xad\xbe\xef"[..]),
        up_seq: 13,
        in_flight: 1,
        ..Resumption::default()
    };
    let mut core = ClientCore::restored(Arc::default(), &resumption);
    core.connected(NOW, "");
    let seen = events(&mut core, &vector("welcome-resumed").bytes("hex"));
    assert!(seen[0].starts_with("Resumed("), "{seen:?}");
    let mut core = open(false);
    core.bye(NOW, Duration::ZERO);
    assert_eq!(events(&mut core, &vector("bye-ack").bytes("hex")), ["Ended(Bye)"]);
}

// spec: M-1, O-1, O-2
#[test]
fn nothing_follows_hello_and_no_payload_is_too_large() {
    let mut core = opening();
    let hello = core.output().len();
    assert!(core.request(NOW, &RequestOptions::command(1), b"hello").is_err());
    core.bye(NOW, Duration::ZERO);
    assert_eq!(core.output().len(), hello, "before Welcome");
    let mut core = open(false);
    let payload = vec![0; 65536 - 1023];
    assert!(core.request(NOW, &RequestOptions::command(1), &payload).is_err());
    assert!(core.request(NOW, &RequestOptions::command(1), &payload[1..]).is_ok());
    assert!(core.output().len() < 65536);
}

#[test]
fn bytes_that_break_the_contract_end_the_session() {
    let mut seen = 0;
    for vector in read("malformed.txt").iter().filter(|vector| vector.frame() == "GatewayFrame") {
        let mut core = if vector.text("state") == "opening" { opening() } else { open(false) };
        let mut fault = None;
        core.received(NOW, &vector.bytes("hex"), &mut |_, event| {
            if let Event::Ended(End::Fault(found)) = event {
                fault = Some(found);
            }
        });
        let reason = match fault.unwrap_or_else(|| panic!("{}: it is taken", vector.name())) {
            Fault::Frame(moorgate_proto::codec::FrameError::TooLarge { .. }) => "FRAME_TOO_LARGE",
            Fault::Envelope(_) | Fault::Malformed(_) => "FRAME_MALFORMED",
            Fault::Unexpected(_) | Fault::UnknownRequest(_) | Fault::WindowExceeded => "PROTOCOL_VIOLATION",
            Fault::SequenceGap { .. } | Fault::Admitted(_) => "SEQUENCE_GAP",
            Fault::Version(_) => "VERSION_UNSUPPORTED",
        };
        assert_eq!(reason, vector.text("fault"), "{}", vector.name());
        assert!(core.has_ended());
        seen += 1;
    }
    assert!(seen >= 5);
}
