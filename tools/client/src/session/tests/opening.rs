//! Connecting, losing, coming back, leaving.

use super::*;

// spec: O-1
#[test]
fn a_session_is_opened_with_the_token_that_was_given() {
    let mut desk = Desk::new(token("mine"));
    desk.listed(&["a"]);
    assert_eq!(desk.states(), [&State::Connecting { address: "a".to_owned() }]);
    assert_eq!(desk.accept("a").access_token, "mine");
    desk.welcome("alice", 0);
    assert_eq!(desk.session.state(), &open_state("alice"));
    assert!(!desk.events.iter().any(|(event, _)| matches!(event, Event::Resync(_))), "nothing was missed");
}

// spec: X-6
#[test]
fn each_address_is_tried_with_a_backoff_between_and_then_the_list_is_asked_for_again() {
    let mut desk = Desk::new(Credentials::Anonymous);
    desk.listed(&["a", "b"]);
    let mut bound = SECOND;
    for address in ["a", "b"] {
        let attempt = desk.attempt(address);
        desk.act(|session, now| session.connect_failed(now, attempt, "refused".to_owned()));
        assert!(matches!(
            desk.session.state(),
            State::Away { retry_in, why: Setback::NotConnected(why) } if *retry_in <= bound && why == "refused"
        ));
        let State::Away { retry_in, .. } = desk.session.state().clone() else { unreachable!() };
        assert_eq!(desk.wait(), retry_in);
        bound *= 2;
    }
    desk.listed(&[]);
    desk.accept("a");
    desk.welcome("", 0);
    assert_eq!(desk.session.state(), &open_state(""));
}

#[test]
fn without_an_address_it_asks_again() {
    let mut desk = Desk::new(Credentials::Anonymous);
    for _ in 0..3 {
        assert_eq!(desk.asked(), [Output::List]);
        desk.act(|session, now| session.listed(now, Err("no such name".to_owned())));
        let no_address = Setback::NoAddress("no such name".to_owned());
        assert!(matches!(desk.session.state(), State::Away { why, .. } if *why == no_address));
        desk.wait();
    }
    desk.listed(&["a"]);
    desk.accept("a");
}

// spec: O-24
#[test]
fn attempts_that_take_too_long_are_given_up_and_what_comes_of_them_is_not_wanted() {
    let mut desk = Desk::new(Credentials::Anonymous);
    desk.listed(&["a", "b"]);
    let first = desk.attempt("a");
    assert_eq!(desk.wait(), Duration::from_secs(5));
    assert_eq!(desk.asked(), [Output::Disconnect]);
    assert!(!desk.act(|session, now| session.connected(now, first, None)));
    desk.wait();
    assert!(!desk.act(|session, now| session.connected(now, first, None)));
    desk.act(|session, now| session.connect_failed(now, first, String::new()));
    desk.accept("b");
    assert_eq!(desk.wait(), Duration::from_secs(5));
    assert_eq!(desk.asked(), [Output::Disconnect]);
    assert!(matches!(desk.session.state(), State::Away { why: Setback::Ended(End::OpeningTimeout), .. }));
}

// spec: F-12, X-6, X-16
#[test]
fn a_session_that_was_lost_is_opened_again_with_the_same_token_and_a_resync() {
    let mut desk = Desk::open(token("mine"), "alice");
    for bytes in [None, Some([0xff; 4])] {
        desk.events.clear();
        match bytes {
            Some(bytes) => desk.act(|session, now| session.received(now, &bytes)),
            None => desk.lose(),
        }
        assert_eq!(desk.asked(), [Output::Disconnect]);
        assert!(desk.reconnect("a") <= 2 * SECOND);
        assert_eq!(desk.accept("a").access_token, "mine");
        desk.welcome("alice", 0);
        let last = desk.events.iter().rev().take(2).map(|(event, _)| event).collect::<Vec<_>>();
        assert_eq!(last, [&Event::State(open_state("alice")), &Event::Resync(Missed::Session)]);
    }
}

// spec: X-6
#[test]
fn sessions_that_do_not_last_count_as_failures() {
    let mut desk = Desk::open(Credentials::Anonymous, "");
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        desk.lose();
        longest = longest.max(desk.reconnect("a"));
        desk.accept("a");
        desk.welcome("", 0);
    }
    assert!(longest > 5 * SECOND, "{longest:?}: the backoff grows");
    desk.pass(Duration::from_secs(10));
    desk.lose();
    assert!(desk.reconnect("a") <= SECOND, "after a session that has lasted it begins anew");
}

// spec: X-6
#[test]
fn the_gateway_says_when_to_come_back() {
    for reason in [Reason::Shutdown, Reason::HeartbeatTimeout] {
        let mut desk = Desk::open(Credentials::Anonymous, "");
        desk.error(reason, allowed(70_000));
        assert_eq!(desk.asked(), [Output::Disconnect]);
        assert_eq!(desk.reconnect("a"), Duration::from_secs(70), "{reason:?}");
    }
    let mut desk = Desk::open(Credentials::Anonymous, "");
    desk.error(Reason::HeartbeatTimeout, allowed(0));
    assert_eq!(desk.reconnect("a"), Duration::ZERO, "at once");
    desk.accept("a");
    desk.error(Reason::HeartbeatTimeout, allowed(0));
    assert_eq!(desk.reconnect("a"), Duration::ZERO, "twice");
    desk.accept("a");
    desk.error(Reason::HeartbeatTimeout, allowed(0));
    assert!(desk.reconnect("a") > Duration::ZERO, "but not for ever");
}

// spec: X-7
#[test]
fn the_gateway_says_where_to_go() {
    let mut desk = Desk::open(Credentials::Anonymous, "");
    desk.error(Reason::Rebalance, v1::Reconnect { addresses: vec!["x".to_owned()], ..allowed(0) });
    desk.reconnect("a");
    desk.accept("x");
    desk.lose();
    desk.reconnect("a");
    desk.accept("a");
}

// spec
#[test]
fn a_gateway_that_goes_away_is_left_once_all_is_answered() {
    let mut desk = Desk::open(token("mine"), "alice");
    let early = desk.ask();
    let go_away = v1::GoAway {
        reason: Reason::Shutdown.into(),
        deadline_ms: 60_000,
        reconnect_after_ms: 5_000,
        addresses: vec!["x".to_owned()],
        ..v1::GoAway::default()
    };
    desk.say(0, gateway::GO_AWAY, &go_away);
    assert_eq!(desk.session.state(), &State::GoingAway);
    let late = desk.ask();
    assert_eq!(desk.requests().len(), 1, "the late one waits");
    desk.pass(SECOND);
    assert!(!desk.has_said_bye());
    desk.answer(1, v1::Response::default());
    assert!(answered(&desk.outcomes[&early]).is_ok());
    assert!(desk.has_said_bye());
    desk.say(0, gateway::BYE_ACK, &v1::ByeAck {});
    let gone = Setback::GoneAway(Reason::Shutdown);
    assert!(matches!(desk.session.state(), State::Away { why, .. } if *why == gone));
    assert_eq!(desk.reconnect("a"), 4 * SECOND, "counted from its word");
    assert_eq!(desk.accept("x").access_token, "mine");
    desk.welcome("alice", 0);
    assert_eq!(desk.requests().len(), 1);
    desk.answer(1, v1::Response::default());
    assert!(answered(&desk.outcomes[&late]).is_ok());
}

// spec
#[test]
fn the_deadline_of_a_gateway_that_goes_away_settles_what_is_open() {
    let mut desk = Desk::open(Credentials::Anonymous, "");
    let ticket = desk.ask();
    desk.say(0, gateway::GO_AWAY, &v1::GoAway { reconnect_after_ms: 9_000, ..v1::GoAway::default() });
    desk.error(Reason::Shutdown, allowed(1_000));
    assert!(!desk.outcomes.contains_key(&ticket), "it was not admitted, and is sent again");
    assert_eq!(desk.reconnect("a"), Duration::from_secs(9), "both words are kept");
    desk.accept("a");
    desk.welcome("", 0);
    assert_eq!(desk.requests().len(), 1);
}

// spec: X-13
#[test]
fn who_leaves_awaits_answers_says_bye_and_is_gone() {
    let mut desk = Desk::open(Credentials::Anonymous, "");
    let ticket = desk.ask();
    desk.heard();
    desk.act(|session, now| session.leave(now, 5 * SECOND));
    assert_eq!(desk.ask_with(b"", Duration::ZERO), Err(Refused::NotOpen));
    assert!(!desk.has_said_bye());
    desk.answer(1, v1::Response::default());
    assert!(desk.outcomes.contains_key(&ticket) && desk.has_said_bye());
    desk.say(0, gateway::BYE_ACK, &v1::ByeAck {});
    assert_eq!(desk.ending(), Some(&Ending::Left));
    assert_eq!(desk.asked(), [Output::Disconnect]);
    assert_eq!(desk.session.next_deadline(), Mono::NEVER);
}

#[test]
fn leaving_does_not_wait_for_ever() {
    let mut desk = Desk::open(Credentials::Anonymous, "");
    let ticket = desk.ask();
    desk.heard();
    desk.act(|session, now| session.leave(now, 5 * SECOND));
    assert_eq!(desk.wait(), 5 * SECOND);
    assert!(desk.has_said_bye());
    assert_eq!(desk.wait(), 2 * SECOND);
    assert_eq!(desk.ending(), Some(&Ending::Left));
    assert_eq!(desk.outcomes[&ticket], Outcome::Unanswered(Execution::Unknown));
    for mut desk in [Desk::new(Credentials::Anonymous), {
        let mut desk = Desk::open(Credentials::Anonymous, "");
        desk.lose();
        desk
    }] {
        let ticket = desk.ask();
        desk.act(|session, now| session.leave(now, 5 * SECOND));
        assert_eq!(desk.ending(), Some(&Ending::Left), "without a session there is nothing to wait for");
        assert_eq!(desk.outcomes[&ticket], Outcome::Unanswered(Execution::NotExecuted));
    }
}

#[test]
fn a_driver_that_dies_leaves_no_request_without_an_outcome() {
    let mut desk = Desk::open(Credentials::Anonymous, "");
    let ticket = desk.ask();
    desk.act(|session, _| session.abandon());
    assert_eq!(desk.ending(), Some(&Ending::Broken));
    assert_eq!(desk.outcomes[&ticket], Outcome::Unanswered(Execution::Unknown));
}
