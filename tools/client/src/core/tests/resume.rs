//! One session over many connections.

use super::*;
use moorgate_proto::v1::client_frame::Member;
use moorgate_proto::v1::{Execution, ResumeResult};

const TTL_MS: u32 = 60_000;

fn welcome(result: ResumeResult, token: &[u8], admitted: u64) -> Vec<u8> {
    let limits = v1::Limits { frame_bytes_max: 65536, in_flight_max: 4, window_max: 8 };
    let welcome = v1::Welcome {
        version: 1,
        heartbeat_ms: 10_000,
        limits: Some(limits),
        resume_result: result.into(),
        resume_token: token.to_vec().into(),
        detached_ttl_ms: TTL_MS,
        admitted,
        user_id: "alice".to_owned(),
        ..Default::default()
    };
    frame(0, gateway::WELCOME, &welcome)
}

fn resumed(token: &[u8], admitted: u64) -> Vec<u8> {
    welcome(ResumeResult::Resumed, token, admitted)
}

fn opened() -> ClientCore {
    let mut core = ClientCore::resuming(Arc::default());
    core.connected(NOW, "mine");
    assert_eq!(hello(&mut core).resume, None);
    assert_eq!(events(&mut core, &welcome(ResumeResult::None, b"first", 0)), ["welcomed"]);
    core.output().clear();
    core
}

/// What it says next, whole.
fn frames(core: &mut ClientCore) -> Vec<v1::ClientFrame> {
    let output = std::mem::take(core.output());
    let mut rest = &output[..];
    let mut assembler = Assembler::default();
    let mut found = Vec::new();
    while let Some(frame) = assembler.next(&mut rest, 1 << 20).unwrap() {
        found.push(v1::ClientFrame::decode(frame).unwrap());
    }
    found
}

fn hello(core: &mut ClientCore) -> v1::Hello {
    match frames(core).remove(0).member {
        Some(Member::Hello(hello)) => hello,
        other => panic!("{other:?}"),
    }
}

fn lose(core: &mut ClientCore) -> Vec<String> {
    let mut seen = Vec::new();
    core.disconnected(&mut |_, event| seen.push(name(&event)));
    seen
}

/// What the next Hello asks for: token, attempt, down_seq.
fn asks(core: &mut ClientCore, now: Mono) -> (Vec<u8>, u64, u64) {
    core.connected(now, "mine");
    let hello = hello(core);
    assert_eq!(hello.access_token, "mine");
    let resume = hello.resume.unwrap();
    (resume.resume_token.to_vec(), resume.attempt, resume.down_seq)
}

fn push(seq: u64) -> Vec<u8> {
    frame(seq, gateway::PUSH, &PushView { command: 5, ..Default::default() })
}

fn hold_all(core: &mut ClientCore, bytes: &[u8]) -> Vec<Held> {
    let mut held = Vec::new();
    core.received(NOW, bytes, &mut |core, _| held.extend(core.hold()));
    held
}

fn error(reason: Reason, is_resumable: bool, admitted: u64) -> Vec<u8> {
    let reconnect = v1::Reconnect { allowed: true, resumable: is_resumable, ..Default::default() };
    let error =
        v1::Error { reason: reason.into(), admitted, reconnect: Some(reconnect), ..Default::default() };
    frame(0, gateway::ERROR, &error)
}

// spec, W-10
#[test]
fn a_session_goes_on_where_it_was() {
    let mut core = opened();
    (0..3).for_each(|_| assert!(ask(&mut core).is_ok()));
    assert_eq!(events(&mut core, &[push(1), response(2, 1)].concat()), ["push", "response 1"]);
    core.output().clear();
    assert_eq!(lose(&mut core), ["detached: Lost"]);
    assert!(core.is_detached() && !core.has_ended());
    assert_eq!(core.next_deadline(), Mono::NEVER);
    assert_eq!(ask(&mut core), Err(Refused::NotOpen));
    assert_eq!(asks(&mut core, NOW), (b"first".to_vec(), 1, 2));
    assert_eq!(events(&mut core, &resumed(b"second", 2)), ["resumed"]);
    assert_eq!(said(&mut core), [(0, 2, 0), (3, 2, client::REQUEST)], "an ack at once, and what was lost");
    assert_eq!(ask(&mut core), Ok(RequestId(4)));
    let rest = [push(3), response(4, 3), response(5, 2), response(6, 4)].concat();
    assert_eq!(events(&mut core, &rest), ["push", "response 3", "response 2", "response 4"]);
    assert_eq!(lose(&mut core), ["detached: Lost"]);
    assert_eq!(asks(&mut core, NOW), (b"second".to_vec(), 2, 6));
}

// spec: R-12
#[test]
fn no_attempt_has_a_number_twice_and_a_lost_welcome_loses_nothing() {
    let mut core = opened();
    assert!(ask(&mut core).is_ok());
    lose(&mut core);
    assert_eq!(asks(&mut core, NOW), (b"first".to_vec(), 1, 0));
    assert_eq!(lose(&mut core), ["detached: Lost"]);
    assert_eq!(asks(&mut core, NOW), (b"first".to_vec(), 2, 0));
    let mut seen = Vec::new();
    core.timers(NOW + Duration::from_secs(10), &mut |_, event| seen.push(name(&event)));
    assert_eq!(seen, ["detached: OpeningTimeout"]);
    assert_eq!(asks(&mut core, NOW), (b"first".to_vec(), 3, 0));
    let shed = error(Reason::GatewayOverloaded, false, 0);
    assert_eq!(events(&mut core, &shed), ["detached by an error"], "the old session is left alone");
    assert_eq!(asks(&mut core, NOW), (b"first".to_vec(), 4, 0));
    assert_eq!(
        events(&mut core, b"HTTP/1.1 400"),
        ["detached: Fault(Frame(TooLarge { announced: 1213486160, max: 4096 }))"]
    );
    assert_eq!(asks(&mut core, NOW), (b"first".to_vec(), 5, 0));
    assert_eq!(events(&mut core, &resumed(b"second", 1)), ["resumed"]);
    assert_eq!(events(&mut core, &response(1, 1)), ["response 1"]);
}

// spec: W-10
#[test]
fn a_resume_is_proven_also_when_there_is_nothing_to_acknowledge() {
    let mut core = opened();
    lose(&mut core);
    asks(&mut core, NOW);
    events(&mut core, &resumed(b"second", 0));
    assert_eq!(said(&mut core), [(0, 0, 0)], "an empty frame");
}

// spec: F-16
#[test]
fn second_broken_contract_of_a_session_ends_it() {
    let mut core = opened();
    assert!(ask(&mut core).is_ok());
    assert_eq!(events(&mut core, &push(2)), ["detached: Fault(SequenceGap { expected: 1, got: 2 })"]);
    asks(&mut core, NOW);
    events(&mut core, &resumed(b"second", 1));
    // Another loss between the two makes no difference.
    assert_eq!(lose(&mut core), ["detached: Lost"]);
    asks(&mut core, NOW);
    events(&mut core, &resumed(b"third", 1));
    let seen = events(&mut core, &push(2));
    assert_eq!(seen, ["1 Unknown", "SequenceGap { expected: 1, got: 2 }"]);
    core.connected(NOW, "mine");
    assert_eq!(hello(&mut core).resume, None);
    assert_eq!(events(&mut core, &welcome(ResumeResult::None, b"other", 0)), ["welcomed"]);
    assert_eq!(events(&mut core, &push(2)), ["detached: Fault(SequenceGap { expected: 1, got: 2 })"]);
}

// spec: D-2, R-14
#[test]
fn what_is_replayed_is_not_given_twice() {
    let mut core = opened();
    let held = hold_all(&mut core, &[push(1), push(2), push(3)].concat());
    core.release(NOW, held[0]);
    lose(&mut core);
    assert_eq!(asks(&mut core, NOW).2, 1);
    core.release(NOW, held[1]);
    assert_eq!(events(&mut core, &resumed(b"second", 0)), ["resumed"]);
    assert_eq!(said(&mut core), [(0, 2, 0)], "what was taken meanwhile");
    assert_eq!(events(&mut core, &[push(2), push(3)].concat()), [""; 0]);
    assert_eq!(events(&mut core, &push(4)), ["push"]);
    core.release(NOW, held[2]);
    core.timers(NOW + ACK_DELAY, &mut |_, _| {});
    assert_eq!(said(&mut core), [(0, 4, 0)]);
}

// spec: D-13
#[test]
fn a_replayed_gap_is_for_what_had_not_come() {
    let mut core = opened();
    hold_all(&mut core, &[push(1), push(2)].concat());
    lose(&mut core);
    asks(&mut core, NOW);
    let gap = |first, last| frame(last, gateway::GAP, &v1::Gap { first, last, ..Default::default() });
    let mut gaps = Vec::new();
    let bytes = [resumed(b"second", 0), gap(1, 2), gap(1, 4), push(5)].concat();
    core.received(NOW, &bytes, &mut |_, event| {
        if let Event::Gap(gap) = event {
            gaps.push((gap.first, gap.last));
        }
    });
    assert_eq!(gaps, [(3, 4)]);
}

// spec: R-16
#[test]
fn what_is_sent_again_has_what_is_left_of_its_time() {
    let mut core = opened();
    let options = |seconds| RequestOptions {
        timeout: Duration::from_secs(seconds),
        idempotency_key: b"key",
        version: 3,
        ..RequestOptions::command(7)
    };
    for seconds in [20, 5, 0] {
        assert!(core.request(NOW, &options(seconds), b"content").is_ok());
    }
    lose(&mut core);
    let now = NOW + Duration::from_secs(6);
    asks(&mut core, now);
    core.received(now, &resumed(b"second", 0), &mut |_, _| {});
    let frames = frames(&mut core);
    let Some(Member::Request(first)) = &frames[1].member else { panic!("{frames:?}") };
    assert_eq!((frames[1].up_seq, first.timeout_ms, first.command, first.version), (1, 14_000, 7, 3));
    assert_eq!((&first.idempotency_key[..], &first.payload[..]), (&b"key"[..], &b"content"[..]));
    assert!(
        matches!(frames[2].member, Some(Member::Cancel(v1::Cancel { up_seq: 2 }))),
        "its time is over: the number is consumed and it never runs"
    );
    let Some(Member::Request(third)) = &frames[3].member else { panic!("{frames:?}") };
    assert_eq!((frames[3].up_seq, third.timeout_ms), (3, 0), "the route's own time has not begun");
}

// spec: C-1, C-8
#[test]
fn cancels_are_repeated() {
    let mut core = opened();
    (0..4).for_each(|_| assert!(ask(&mut core).is_ok()));
    events(&mut core, &response(1, 1));
    core.cancel(NOW, RequestId(1));
    core.cancel(NOW, RequestId(2));
    lose(&mut core);
    core.cancel(NOW, RequestId(3));
    core.cancel(NOW, RequestId(4));
    assert!(core.output().is_empty() || !said(&mut core).is_empty());
    asks(&mut core, NOW);
    core.cancel(NOW, RequestId(3));
    assert_eq!(said(&mut core), [], "nothing before Welcome");
    events(&mut core, &resumed(b"second", 3));
    let cancelled: Vec<u64> = frames(&mut core)
        .iter()
        .filter_map(|frame| match &frame.member {
            Some(Member::Cancel(cancel)) => Some(cancel.up_seq),
            Some(other) => panic!("{other:?}"),
            None => None,
        })
        .collect();
    assert_eq!(cancelled, [2, 3, 4]);
    let rest: Vec<u8> = (2..=4).flat_map(|id| response(id, id)).collect();
    assert_eq!(events(&mut core, &rest), ["response 2", "response 3", "response 4"]);
}

// spec: W-1
#[test]
fn what_waits_for_a_place_waits_on_and_places_are_kept() {
    let mut core = opened();
    let held = hold_all(&mut core, &push(1));
    (0..6).for_each(|_| assert!(ask(&mut core).is_ok()));
    events(&mut core, &[response(2, 1), response(3, 2)].concat());
    lose(&mut core);
    asks(&mut core, NOW);
    events(&mut core, &resumed(b"second", 3));
    assert_eq!(
        said(&mut core),
        [(0, 0, 0), (4, 0, client::REQUEST)],
        "two are open, and two Responses cannot be acknowledged"
    );
    core.release(NOW, held[0]);
    assert_eq!(said(&mut core), [(5, 3, client::REQUEST), (6, 3, client::REQUEST)]);
}

// spec: R-4, S-15, S-16
#[test]
fn a_session_that_is_gone_is_settled_and_another_begins() {
    use ResumeResult as R;
    for result in [R::UnknownSession, R::Ended, R::NotSupported, R::None] {
        let mut core = opened();
        (0..6).for_each(|_| assert!(ask(&mut core).is_ok()));
        let held = hold_all(&mut core, &push(1));
        events(&mut core, &response(2, 1));
        lose(&mut core);
        asks(&mut core, NOW);
        let seen = events(&mut core, &welcome(result, b"other", 0));
        let settled = ["2 Unknown", "3 Unknown", "4 Unknown", "5 NotExecuted", "6 NotExecuted", "welcomed"];
        assert_eq!(seen, settled, "{result:?}");
        assert_eq!(said(&mut core), [], "{result:?}");
        assert_eq!(ask(&mut core), Ok(RequestId(1)));
        assert_eq!(events(&mut core, &push(1)), ["push"]);
        core.release(NOW, held[0]);
        lose(&mut core);
        assert_eq!(asks(&mut core, NOW), (b"other".to_vec(), 1, 1), "attempts are counted for each session");
    }
}

// spec
#[test]
fn only_some_ends_keep_a_session() {
    let mut core = opened();
    (0..3).for_each(|_| assert!(ask(&mut core).is_ok()));
    let kept = error(Reason::HeartbeatTimeout, true, 1);
    assert_eq!(events(&mut core, &kept), ["detached by an error"]);
    asks(&mut core, NOW);
    let seen = events(&mut core, &welcome(ResumeResult::Ended, b"other", 0));
    assert_eq!(seen, ["1 Unknown", "2 NotExecuted", "3 NotExecuted", "welcomed"], "as the Error has said");
    assert_eq!(events(&mut core, &error(Reason::Kicked, false, 0)), ["error"]);
    core.connected(NOW, "mine");
    assert_eq!(hello(&mut core).resume, None);
    for (token, ttl_ms) in [(&b""[..], TTL_MS), (b"token", 0), (&[7; RESUME_TOKEN_BYTES_MAX + 1], TTL_MS)] {
        let welcome = v1::Welcome {
            version: 1,
            heartbeat_ms: 10_000,
            resume_token: token.to_vec().into(),
            detached_ttl_ms: ttl_ms,
            ..Default::default()
        };
        let mut core = ClientCore::resuming(Arc::default());
        core.connected(NOW, "mine");
        events(&mut core, &frame(0, gateway::WELCOME, &welcome));
        assert!(!core.can_resume());
        assert_eq!(lose(&mut core), ["Lost"]);
    }
    let mut core = ClientCore::new(Arc::default());
    core.connected(NOW, "mine");
    events(&mut core, &welcome(ResumeResult::None, b"first", 0));
    assert_eq!(lose(&mut core), ["Lost"], "it was not asked for");
}

// spec: X-15
#[test]
fn a_farewell_may_keep_the_session() {
    for keep_for in [Duration::ZERO, Duration::from_secs(30)] {
        let mut core = opened();
        core.bye(NOW, keep_for);
        let Some(Member::Bye(bye)) = frames(&mut core).remove(0).member else { panic!("no Bye") };
        assert_eq!(u128::from(bye.keep_for_ms), keep_for.as_millis());
        let seen = events(&mut core, &frame(0, gateway::BYE_ACK, &v1::ByeAck {}));
        let kept = !keep_for.is_zero();
        assert_eq!(seen, [if kept { "detached: Bye" } else { "Bye" }]);
        assert_eq!(core.is_detached(), kept);
    }
}

// spec: R-4
#[test]
fn some_answers_deny_the_session_and_others_leave_it() {
    for (reason, denies) in [
        (Reason::IdentityMismatch, true),
        (Reason::ResumeStale, true),
        (Reason::ResumeInvalid, true),
        (Reason::TokenExpired, false),
        (Reason::TokenInvalid, false),
        (Reason::Banned, false),
        (Reason::ConnectionLimit, false),
        (Reason::Shutdown, false),
    ] {
        let mut core = opened();
        assert!(ask(&mut core).is_ok());
        lose(&mut core);
        asks(&mut core, NOW);
        let seen = events(&mut core, &error(reason, false, 0));
        let expected = if denies { vec!["1 Unknown", "error"] } else { vec!["detached by an error"] };
        assert_eq!(seen, expected, "{reason:?}");
    }
    let mut core = opened();
    assert!(ask(&mut core).is_ok());
    lose(&mut core);
    let mut seen = Vec::new();
    core.give_up(&mut |_, event| seen.push(name(&event)));
    assert_eq!((seen, core.has_ended()), (vec!["1 Unknown".to_owned()], true));
}

// spec: D-3, R-15
#[test]
fn a_gateway_that_breaks_the_contract_is_not_resumed_for_ever() {
    let mut core = opened();
    assert_eq!(events(&mut core, &push(2)), ["detached: Fault(SequenceGap { expected: 1, got: 2 })"]);
    assert_eq!(asks(&mut core, NOW).2, 0, "it is not acknowledged");
    let again = [resumed(b"second", 0), push(2)].concat();
    assert_eq!(events(&mut core, &again), ["resumed", "SequenceGap { expected: 1, got: 2 }"]);
    assert!(core.has_ended());
    for (admitted, answered) in [(9, 0), (1, 2), (0, 1)] {
        let mut core = opened();
        (0..2).for_each(|_| assert!(ask(&mut core).is_ok()));
        if answered > 0 {
            events(&mut core, &response(1, answered));
        }
        lose(&mut core);
        asks(&mut core, NOW);
        let seen = events(&mut core, &resumed(b"second", admitted));
        assert_eq!(seen.last().unwrap(), &format!("Admitted({admitted})"));
    }
}

fn login(seq: u64, up_seq: u64) -> Vec<u8> {
    let login = v1::LoginResult {
        user_id: "bob".to_owned(),
        resume_token: b"newer"[..].into(),
        ..Default::default()
    };
    frame(seq, gateway::RESPONSE, &v1::Response { up_seq, login: Some(login), ..Default::default() })
}

#[test]
fn a_login_has_a_newer_token_unless_it_is_replayed() {
    let mut core = opened();
    assert!(ask(&mut core).is_ok());
    events(&mut core, &login(1, 1));
    assert_eq!(core.resumption().unwrap().user_id, "bob");
    lose(&mut core);
    assert_eq!(asks(&mut core, NOW).0, b"newer");
    let mut core = opened();
    assert!(ask(&mut core).is_ok());
    lose(&mut core);
    asks(&mut core, NOW);
    events(&mut core, &[resumed(b"second", 1), login(1, 1)].concat());
    lose(&mut core);
    assert_eq!(asks(&mut core, NOW).0, b"second");
}

// spec: W-4
#[test]
fn what_is_written_down_is_acknowledged_afterwards() {
    let mut core = ClientCore::resuming(Arc::default());
    core.write_down();
    core.connected(NOW, "mine");
    assert!(!core.is_save_due(NOW, false), "there is nothing yet");
    events(&mut core, &welcome(ResumeResult::None, b"first", 0));
    assert!(core.is_save_due(NOW, false));
    assert_eq!(core.resumption().unwrap().resume_token.as_bytes(), b"first");
    core.saved(NOW, 0);
    assert!(!core.is_save_due(NOW, false));
    (0..5).for_each(|_| assert!(ask(&mut core).is_ok()));
    core.output().clear();
    events(&mut core, &[push(1), response(2, 1), response(3, 2)].concat());
    assert!(core.is_save_due(NOW, false), "a request waits for a place");
    let due = NOW + ACK_DELAY;
    assert_eq!(core.next_deadline(), due);
    core.timers(due, &mut |_, _| {});
    assert_eq!(said(&mut core), []);
    let resumption = core.resumption().unwrap();
    assert_eq!((resumption.down_seq, resumption.up_seq, resumption.in_flight), (3, 4, 2));
    core.saved(due, 3);
    assert_eq!(said(&mut core), [(5, 3, client::REQUEST)]);
    events(&mut core, &response(4, 3));
    assert!(!core.is_save_due(NOW, false) && core.is_save_due(NOW + ACK_DELAY, false));
    events(&mut core, &[push(5), push(6), push(7)].concat());
    assert!(core.is_save_due(NOW, false), "half a window");
    core.stop_writing_down(NOW);
    assert_eq!(said(&mut core), [(0, 7, 0)]);
}

// spec: D-9, R-14, U-1, W-1
#[test]
fn another_process_goes_on_with_what_was_written_down() {
    let mut core = opened();
    (0..5).for_each(|_| assert!(ask(&mut core).is_ok()));
    events(&mut core, &[push(1), response(2, 2)].concat());
    let written = core.resumption().unwrap();
    assert_eq!((written.up_seq, written.in_flight), (5, 4), "the fifth has got the place of the second");
    // Four was the last that the gateway admitted: of those in flight three are left.
    let mut core = ClientCore::restored(Arc::default(), &written);
    assert_eq!(asks(&mut core, NOW), (b"first".to_vec(), 1, 2));
    assert_eq!(events(&mut core, &resumed(b"second", 4)), ["resumed"]);
    assert_eq!(said(&mut core), [(0, 2, 0)]);
    assert_eq!(core.places(), 1);
    assert_eq!(ask(&mut core), Ok(RequestId(5)), "the number was not admitted");
    assert_eq!(ask(&mut core), Ok(RequestId(6)));
    assert_eq!(said(&mut core), [(5, 2, client::REQUEST)]);
    let rest = [response(3, 1), response(4, 4), response(5, 3), response(6, 5)].concat();
    assert_eq!(events(&mut core, &rest), ["response 1", "response 4", "response 3", "response 5"]);
    assert_eq!(said(&mut core), [(6, 6, client::REQUEST)]);
    assert_eq!(core.places(), 3);
    assert_eq!(lose(&mut core), ["detached: Lost"]);
    asks(&mut core, NOW);
    assert_eq!(events(&mut core, &resumed(b"third", 6)), ["resumed"]);
    assert_eq!(events(&mut core, &response(7, 6)), ["response 6"]);
    assert_eq!(events(&mut core, &response(8, 7)), ["detached: Fault(UnknownRequest(7))"]);
}

#[test]
fn nothing_of_it_shows_in_logs_and_executions_are_honest() {
    let mut core = ClientCore::resuming(Arc::default());
    core.connected(NOW, "");
    events(&mut core, &welcome(ResumeResult::None, b"hush", 0));
    core.output().clear();
    let shown = format!("{core:?} {:?}", core.resumption());
    assert!(!shown.contains("hush") && !shown.contains("104, 117"), "{shown}");
    let mut seen = Vec::new();
    assert!(ask(&mut core).is_ok());
    core.give_up(&mut |_, event| {
        if let Event::Unanswered(_, execution) = event {
            seen.push(execution);
        }
    });
    assert_eq!(seen, [Execution::Unknown]);
}
