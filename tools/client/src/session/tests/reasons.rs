//! Each reason gets its documented action: in an answer, and as the end of a session.

use super::*;
use moorgate_proto::action;
use moorgate_proto::v1::Action;

/// What the kit does about an answer.
#[derive(Debug, PartialEq, Eq)]
enum Does {
    /// The application has it.
    HandsOver,
    /// It is sent again at once.
    Repeats,
    /// It is sent again after a wait.
    RepeatsLater,
}

fn does(reason: i32, execution: Execution, key: &[u8]) -> Does {
    does_told(reason, Action::Unspecified.into(), execution, key)
}

/// The same, with an action beside the reason.
fn does_told(reason: i32, told: i32, execution: Execution, key: &[u8]) -> Does {
    let mut desk = Desk::open(token("mine"), "alice");
    let ticket = desk.ask_with(key, Duration::ZERO).unwrap();
    desk.heard();
    desk.answer(
        1,
        v1::Response {
            status: Code::Internal.to_wire(),
            reason,
            execution: execution.into(),
            action: told,
            ..v1::Response::default()
        },
    );
    if let Some(outcome) = desk.outcomes.get(&ticket) {
        let answer = answered(outcome);
        assert_eq!(answer.execution, execution);
        let documented = || action::of(answer.reason, execution);
        let expected = action::on_wire(told).unwrap_or_else(documented);
        assert_eq!(answer.action(), expected, "the rest is the application's");
        return Does::HandsOver;
    }
    let at_once = !desk.requests().is_empty();
    while !at_once && desk.requests().is_empty() {
        desk.wait();
    }
    if at_once { Does::Repeats } else { Does::RepeatsLater }
}

fn reasons() -> Vec<Reason> {
    (0..200).filter_map(|number| Reason::try_from(number).ok()).collect()
}

fn repeats(action: Action) -> Does {
    match action {
        Action::RetryNow => Does::Repeats,
        Action::RetryAfter => Does::RepeatsLater,
        _ => Does::HandsOver,
    }
}

// spec: N-1, N-2, S-5
#[test]
fn every_reason_of_an_answer_has_its_action() {
    let reasons = reasons();
    assert!(reasons.len() > 50);
    for reason in reasons {
        for execution in
            [Execution::Unspecified, Execution::NotExecuted, Execution::Unknown, Execution::Executed]
        {
            let documented = action::of(reason, execution);
            let may_have_run = matches!(execution, Execution::Unknown | Execution::Executed);
            let plain = does(reason.into(), execution, b"");
            assert_eq!(plain, repeats(documented), "{reason:?} {execution:?}");
            let of_key = match documented {
                // By its key the service recognises it.
                Action::Resync => action::of(reason, Execution::NotExecuted),
                documented => documented,
            };
            let keyed = does(reason.into(), execution, b"key");
            assert_eq!(keyed, repeats(of_key), "{reason:?} {execution:?} with a key");
            if documented == Action::Reauthenticate && !may_have_run {
                renews_the_token_and_repeats(reason, execution);
            }
        }
    }
    assert_eq!(does(9_999, Execution::NotExecuted, b"key"), Does::HandsOver);
}

// spec: N-3, N-7
#[test]
fn unknown_reason_of_an_answer_follows_its_action() {
    for (told, does) in [
        (Action::RetryNow, Does::Repeats),
        (Action::RetryAfter, Does::RepeatsLater),
        (Action::Reauthenticate, Does::HandsOver),
        (Action::Resync, Does::HandsOver),
        (Action::GiveUp, Does::HandsOver),
    ] {
        assert_eq!(does_told(9_999, told.into(), Execution::NotExecuted, b""), does, "{told:?}");
    }
    let resync = Action::Resync.into();
    assert_eq!(does_told(9_999, resync, Execution::Executed, b"key"), Does::RepeatsLater);
    assert_eq!(does_told(Reason::NoEndpoint.into(), 99, Execution::NotExecuted, b""), Does::RepeatsLater);
    let give_up = Action::GiveUp.into();
    assert_eq!(does_told(Reason::NoEndpoint.into(), give_up, Execution::NotExecuted, b""), Does::HandsOver);
}

// spec: N-8
#[test]
fn retry_now_is_at_once_twice_and_then_later() {
    let mut desk = Desk::open(token("mine"), "alice");
    let ticket = desk.ask();
    desk.heard();
    for (up_seq, is_at_once) in [(1, true), (2, true), (3, false)] {
        let status = Code::Internal.to_wire();
        let (reason, execution) = (Reason::Internal.into(), Execution::NotExecuted.into());
        desk.answer(up_seq, v1::Response { status, reason, execution, ..v1::Response::default() });
        assert!(!desk.outcomes.contains_key(&ticket));
        assert_eq!(!desk.requests().is_empty(), is_at_once, "{up_seq}");
    }
    // The end of a session likewise.
    let mut desk = Desk::open(Credentials::Anonymous, "");
    for is_at_once in [true, true, false, false] {
        desk.error(Reason::HeartbeatTimeout, allowed(0));
        assert_eq!(desk.reconnect("a").is_zero(), is_at_once);
        desk.accept("a");
        desk.welcome("", 0);
    }
}

/// With an application that can be asked for tokens.
fn renews_the_token_and_repeats(reason: Reason, execution: Execution) {
    let mut desk = Desk::new(Credentials::Asked);
    desk.listed(&["a"]);
    assert_eq!(desk.asked(), [Output::FetchToken(TokenNeed::Open)]);
    desk.act(|session, now| session.token(now, Ok("mine".to_owned())));
    desk.accept("a");
    desk.welcome("alice", 0);
    let ticket = desk.ask();
    desk.heard();
    let response = v1::Response {
        status: Code::Unauthenticated.to_wire(),
        reason: reason.into(),
        execution: execution.into(),
        ..v1::Response::default()
    };
    desk.answer(1, response);
    assert!(!desk.outcomes.contains_key(&ticket));
    assert_eq!(desk.asked(), [Output::FetchToken(TokenNeed::Renew)]);
    desk.act(|session, now| session.token(now, Ok("another".to_owned())));
    assert!(matches!(
        &desk.heard()[..],
        [v1::ClientFrame { member: Some(Member::Authenticate(shown)), .. }] if shown.access_token == "another"
    ));
    desk.say(0, gateway::AUTHENTICATED, &v1::Authenticated::default());
    assert_eq!(desk.requests().len(), 1, "{reason:?} {execution:?}");
}

// spec: N-1, N-4, N-5, X-5
#[test]
fn every_reason_of_an_error_has_its_action() {
    for reason in reasons() {
        let documented = action::of(reason, Execution::Unspecified);
        for is_allowed in [true, false] {
            let mut desk = Desk::open(token("mine"), "alice");
            desk.error(reason, v1::Reconnect { allowed: is_allowed, ..v1::Reconnect::default() });
            let comes_back =
                is_allowed && matches!(documented, Action::RetryNow | Action::RetryAfter | Action::Resync);
            if comes_back {
                assert!(desk.reconnect("a") <= SECOND, "{reason:?}");
                assert_eq!(desk.accept("a").access_token, "mine");
                desk.welcome("alice", 0);
                assert!(desk.events.iter().any(|(event, _)| *event == Event::Resync(Missed::Session)));
                continue;
            }
            let ending = desk.ending().unwrap_or_else(|| panic!("{reason:?} does not end it"));
            assert_eq!(ending.reason(), reason);
            let left = match documented {
                Action::RetryNow | Action::RetryAfter | Action::Resync => Action::GiveUp,
                documented => documented,
            };
            assert_eq!(ending.action(), left, "{reason:?}");
            assert_eq!(desk.session.next_deadline(), Mono::NEVER, "{reason:?}: nothing more is done");
            assert_eq!(desk.asked(), [Output::Disconnect]);
        }
    }
}

// spec
#[test]
fn some_ends_are_for_good_also_with_other_tokens_at_hand() {
    let others = [Reason::Superseded, Reason::DeviceConflict, Reason::SessionLimit];
    for reason in [Reason::Kicked, Reason::LoggedOut, Reason::TokenRevoked].into_iter().chain(others) {
        for allowed in [true, false] {
            let mut desk = Desk::new(Credentials::Asked);
            desk.listed(&["a"]);
            desk.act(|session, now| session.token(now, Ok("mine".to_owned())));
            desk.accept("a");
            desk.welcome("alice", 0);
            let ticket = desk.ask_with(b"key", Duration::ZERO).unwrap();
            desk.error(reason, v1::Reconnect { allowed, ..v1::Reconnect::default() });
            assert_eq!(desk.ending().unwrap().reason(), reason);
            assert_eq!(desk.outcomes[&ticket], Outcome::Unanswered(Execution::NotExecuted));
            assert_eq!(desk.ask_with(b"", Duration::ZERO), Err(Refused::NotOpen));
            let is_ended = |event: &Event| matches!(event, Event::State(State::Ended(_)));
            assert_eq!(desk.events.iter().filter(|(event, _)| is_ended(event)).count(), 1, "one clear event");
        }
    }
}
