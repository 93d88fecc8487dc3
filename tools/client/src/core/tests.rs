mod beat;
mod resume;

use super::*;
use moorgate_proto::v1::Reason;

const NOW: Mono = Mono::from_nanos(1_000_000_000);
const SECOND: Duration = Duration::from_secs(1);

fn frame(seq: u64, member: u32, body: &impl Body) -> Vec<u8> {
    let mut out = Vec::new();
    put_frame(&mut out, Numbers { seq, ack: 0 }, member, body);
    out
}

fn welcome() -> Vec<u8> {
    let limits = v1::Limits { frame_bytes_max: 65536, in_flight_max: 2, window_max: 8 };
    let welcome =
        v1::Welcome { version: 1, heartbeat_ms: 10_000, limits: Some(limits), ..Default::default() };
    frame(0, gateway::WELCOME, &welcome)
}

fn response(seq: u64, up_seq: u64) -> Vec<u8> {
    frame(seq, gateway::RESPONSE, &ResponseView { up_seq, payload: b"x", ..Default::default() })
}

fn events(core: &mut ClientCore, bytes: &[u8]) -> Vec<String> {
    let mut events = Vec::new();
    core.received(NOW, bytes, &mut |_, event| events.push(name(&event)));
    events
}

fn name(event: &Event<'_>) -> String {
    match event {
        Event::Response(id, _) => format!("response {}", id.0),
        Event::Unanswered(id, execution) => format!("{} {execution:?}", id.0),
        Event::Ended(End::Fault(fault)) => format!("{fault:?}"),
        Event::Ended(End::Error(_)) => "error".to_owned(),
        Event::Ended(end) => format!("{end:?}"),
        Event::Welcomed(_) => "welcomed".to_owned(),
        Event::Resumed(_) => "resumed".to_owned(),
        Event::Detached(End::Error(_)) => "detached by an error".to_owned(),
        Event::Detached(end) => format!("detached: {end:?}"),
        Event::GoingAway(_) => "going away".to_owned(),
        Event::Push(_) => "push".to_owned(),
        other => format!("{other:?}"),
    }
}

fn opened() -> ClientCore {
    let mut core = ClientCore::new(Arc::new(Options { waiting_max: 2, ..Options::default() }));
    core.connected(NOW, "");
    assert_eq!(events(&mut core, &welcome()), ["welcomed"]);
    core.output().clear();
    core
}

fn ask(core: &mut ClientCore) -> Result<RequestId, Refused> {
    core.request(NOW, &RequestOptions::command(1), b"hi")
}

/// What the core says: up_seq, ack and member of each frame.
fn said(core: &mut ClientCore) -> Vec<(u64, u64, u32)> {
    let output = std::mem::take(core.output());
    let mut rest = &output[..];
    let mut assembler = Assembler::default();
    let mut found = Vec::new();
    while let Some(frame) = assembler.next(&mut rest, 1 << 20).unwrap() {
        let envelope = Envelope::decode(frame).unwrap();
        found.push((
            envelope.numbers.seq,
            envelope.numbers.ack,
            envelope.member.map_or(0, |member| member.0),
        ));
    }
    found
}

// spec: U-1, U-6, W-1, W-8
#[test]
fn requests_are_numbered_and_wait_for_a_slot() {
    let mut core = opened();
    for id in 1..=4 {
        assert_eq!(ask(&mut core), Ok(RequestId(id)));
    }
    assert_eq!(ask(&mut core), Err(Refused::Full));
    assert_eq!(said(&mut core), [(1, 0, client::REQUEST), (2, 0, client::REQUEST)]);
    assert_eq!(events(&mut core, &response(1, 2)), ["response 2"]);
    assert_eq!(said(&mut core), [(3, 1, client::REQUEST)], "the request acknowledges");
    assert_eq!(core.unanswered(), 3);
}

// spec: W-4, W-7, W-8
#[test]
fn what_came_is_acknowledged_at_half_a_window_or_after_a_while() {
    let mut core = opened();
    let push = |seq| frame(seq, gateway::PUSH, &PushView { command: 5, ..Default::default() });
    let pushes: Vec<u8> = (1..=4).flat_map(push).collect();
    assert_eq!(events(&mut core, &pushes).len(), 4);
    assert_eq!(said(&mut core), [(0, 4, 0)]);
    assert_eq!(events(&mut core, &push(5)), ["push"]);
    assert_eq!(said(&mut core), []);
    assert_eq!(core.next_deadline(), NOW + ACK_DELAY);
    assert!(core.timers(NOW + ACK_DELAY, &mut |_, _| {}));
    assert_eq!(said(&mut core), [(0, 5, 0)]);
}

// spec: W-1, W-4
#[test]
fn what_is_held_is_acknowledged_once_it_is_taken_and_keeps_places_until_then() {
    let mut core = opened();
    let push = |seq| frame(seq, gateway::PUSH, &PushView::default());
    (0..2).for_each(|_| assert!(ask(&mut core).is_ok()));
    core.output().clear();
    let mut held = Vec::new();
    let bytes = [push(1), response(2, 1), push(3), response(4, 2)].concat();
    assert!(core.received(NOW, &bytes, &mut |core, event| {
        if matches!(event, Event::Push(_)) {
            held.extend(core.hold());
        }
    }));
    assert_eq!((held.len(), core.unanswered(), core.places()), (2, 0, 0), "no Response may be acknowledged");
    assert_eq!(ask(&mut core), Ok(RequestId(3)));
    assert_eq!(said(&mut core), []);
    assert_eq!(core.next_deadline(), NOW + Duration::from_secs(10), "there is nothing to acknowledge");
    core.release(NOW, held[0]);
    assert_eq!(said(&mut core), [(3, 2, client::REQUEST)], "the first place is free");
    assert_eq!(core.places(), 0, "one request, and a Response behind the second push");
    core.release(NOW, held[1]);
    assert_eq!(core.places(), 1);
    core.release(NOW, held[1]);
    assert!(core.timers(NOW + ACK_DELAY, &mut |_, _| {}));
    assert_eq!(said(&mut core), [(0, 4, 0)]);
}

#[test]
fn a_gateway_that_sends_more_than_the_window_is_left() {
    let mut core = opened();
    let pushes: Vec<u8> = (1..=9).flat_map(|seq| frame(seq, gateway::PUSH, &PushView::default())).collect();
    let mut seen = Vec::new();
    core.received(NOW, &pushes, &mut |core, event| {
        assert!(core.hold().is_some() || matches!(event, Event::Ended(_)));
        seen.push(name(&event));
    });
    assert_eq!(seen.last().unwrap(), "WindowExceeded");
}

// spec: D-13
#[test]
fn a_gap_stands_for_the_numbers_that_will_not_come() {
    let gap = |seq, first, last| frame(seq, gateway::GAP, &v1::Gap { first, last, ..Default::default() });
    let mut core = opened();
    assert_eq!(events(&mut core, &gap(3, 1, 3)).len(), 1);
    assert_eq!(events(&mut core, &frame(4, gateway::PUSH, &PushView::default())), ["push"]);
    assert_eq!(said(&mut core), [(0, 4, 0)]);
    for (seq, first, last) in [(7, 6, 7), (7, 5, 6), (7, 0, 7)] {
        let mut core = opened();
        let pushes: Vec<u8> =
            (1..=4).flat_map(|seq| frame(seq, gateway::PUSH, &PushView::default())).collect();
        events(&mut core, &pushes);
        assert_eq!(
            events(&mut core, &gap(seq, first, last)),
            ["SequenceGap { expected: 5, got: 7 }"],
            "{first} to {last}"
        );
    }
}

#[test]
fn a_token_is_shown_in_band_while_there_is_a_session() {
    let mut core = opened();
    assert!(core.authenticate(NOW, "new"));
    assert_eq!(said(&mut core), [(0, 0, client::AUTHENTICATE)]);
    core.disconnected(&mut |_, _| {});
    assert!(!core.authenticate(NOW, "newer"));
}

// spec: D-2, D-3
#[test]
fn repeated_frames_are_dropped_and_missing_ones_end_the_session() {
    let mut core = opened();
    let push = |seq| frame(seq, gateway::PUSH, &PushView::default());
    assert_eq!(events(&mut core, &push(1)), ["push"]);
    assert_eq!(events(&mut core, &push(1)), [""; 0]);
    assert_eq!(events(&mut core, &push(3)), ["SequenceGap { expected: 2, got: 3 }"]);
    assert!(core.has_ended());
}

// spec: E-16
#[test]
fn unknown_numbered_members_count() {
    let mut core = opened();
    assert_eq!(events(&mut core, &frame(1, 60, &v1::Pong { nonce: 1 })), [""; 0]);
    assert_eq!(events(&mut core, &frame(2, gateway::PUSH, &PushView::default())), ["push"]);
}

// spec: S-15
#[test]
fn a_lost_connection_settles_what_is_open() {
    let mut core = opened();
    (0..4).for_each(|_| assert!(ask(&mut core).is_ok()));
    let mut events = Vec::new();
    core.disconnected(&mut |_, event| events.push(name(&event)));
    assert_eq!(events, ["1 Unknown", "2 Unknown", "3 NotExecuted", "4 NotExecuted", "Lost"]);
    assert_eq!(ask(&mut core), Err(Refused::NotOpen));
}

// spec: S-15, X-3
#[test]
fn an_error_says_what_was_admitted() {
    let mut core = opened();
    (0..3).for_each(|_| assert!(ask(&mut core).is_ok()));
    let error = v1::Error { reason: Reason::Shutdown.into(), admitted: 1, ..Default::default() };
    let seen = events(&mut core, &frame(0, gateway::ERROR, &error));
    assert_eq!(seen, ["1 Unknown", "2 NotExecuted", "3 NotExecuted", "error"]);
}

// spec: C-1, C-3
#[test]
fn cancels_reach_what_is_sent_and_replace_what_waits() {
    let mut core = opened();
    (0..4).for_each(|_| assert!(ask(&mut core).is_ok()));
    core.output().clear();
    core.cancel(NOW, RequestId(1));
    core.cancel(NOW, RequestId(3));
    assert_eq!(said(&mut core), [(0, 0, client::CANCEL)]);
    events(&mut core, &[response(1, 1), response(2, 2)].concat());
    assert_eq!(said(&mut core), [(0, 2, client::CANCEL), (4, 2, client::REQUEST)]);
    core.cancel(NOW, RequestId(1));
    assert_eq!(said(&mut core), [], "it is answered");
}

// spec
#[test]
fn go_away_takes_no_new_requests_and_finishes_the_old() {
    let mut core = opened();
    assert!(ask(&mut core).is_ok());
    assert_eq!(events(&mut core, &frame(0, gateway::GO_AWAY, &v1::GoAway::default())), ["going away"]);
    assert_eq!(ask(&mut core), Err(Refused::NotOpen));
    assert_eq!(events(&mut core, &response(1, 1)), ["response 1"]);
    core.bye(NOW, Duration::ZERO);
    assert_eq!(events(&mut core, &frame(0, gateway::BYE_ACK, &v1::ByeAck {})), ["Bye"]);
}

// spec: F-12, D-9, O-21
#[test]
fn a_gateway_that_breaks_the_contract_is_left() {
    let unreadable = ResponseView { login: &[0xff], ..Default::default() };
    for (bytes, fault) in [
        (response(1, 9), "UnknownRequest(9)"),
        (welcome(), "Unexpected(8)"),
        (frame(0, gateway::BYE_ACK, &v1::ByeAck {}), "Unexpected(18)"),
        (vec![0, 0, 0, 4, 0x4a, 0, 0x52, 0], "Envelope(SeveralMembers)"),
        (frame(1, gateway::RESPONSE, &unreadable), "Malformed(9)"),
    ] {
        assert_eq!(events(&mut opened(), &bytes), [fault]);
    }
    let mut opening = ClientCore::new(Arc::default());
    opening.connected(NOW, "");
    assert_eq!(events(&mut opening, &response(1, 1)), ["Unexpected(9)"]);
}

// spec: F-2, F-6
#[test]
fn empty_frame_is_a_bare_acknowledgement() {
    let mut core = opened();
    assert_eq!(events(&mut core, &[0; 8]), [""; 0]);
    assert!(core.is_open());
}

// spec: O-24, P-5, P-6
#[test]
fn silence_is_answered_with_a_ping_and_then_the_end() {
    let mut core = opened();
    let mut seen = Vec::new();
    let at = |seconds| NOW + Duration::from_secs(seconds);
    assert!(core.timers(at(10), &mut |_, _| {}));
    assert_eq!(said(&mut core), [(0, 0, client::PING)]);
    assert!(!core.timers(at(20), &mut |_, event| seen.push(name(&event))));
    assert_eq!(seen, ["Silence"]);
    let mut opening = ClientCore::new(Arc::default());
    opening.connected(NOW, "");
    assert!(!opening.timers(at(5), &mut |_, event| assert_eq!(event, Event::Ended(End::OpeningTimeout))));
}

// spec: P-6
#[test]
fn a_client_that_speaks_still_asks_before_it_gives_up() {
    let mut core = opened();
    let at = |seconds| NOW + Duration::from_secs(seconds);
    for seconds in [4, 8] {
        assert!(core.request(at(seconds), &RequestOptions::command(1), b"hi").is_ok());
    }
    core.output().clear();
    assert_eq!(core.next_deadline(), at(10));
    assert!(core.timers(at(10), &mut |_, _| {}));
    assert_eq!(said(&mut core), [(0, 0, client::PING)], "its requests have no answer yet");
    assert!(core.timers(at(19), &mut |_, _| {}));
    assert_eq!(events(&mut core, &frame(0, gateway::PONG, &v1::Pong { nonce: 1 })), [""; 0]);
    assert!(core.timers(at(10), &mut |_, _| {}), "it was heard");
    assert!(opened().timers(at(100), &mut |_, event| panic!("{event:?}: it was not asked")));
}

// spec: F-9
#[test]
fn any_split_gives_the_same_events() {
    let bytes = [response(1, 1), response(2, 2), frame(0, gateway::PING, &v1::Ping::default())].concat();
    for cut in 0..bytes.len() {
        let mut core = opened();
        (0..2).for_each(|_| assert!(ask(&mut core).is_ok()));
        let mut seen = events(&mut core, &bytes[..cut]);
        seen.extend(events(&mut core, &bytes[cut..]));
        assert_eq!(seen, ["response 1", "response 2"]);
    }
}
