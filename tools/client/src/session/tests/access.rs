//! Access tokens: given, from a login, renewed, refused.

use super::*;

/// An application that is asked, with a session whose token lives so long.
fn asked_for(life_s: u64) -> Desk {
    let mut desk = Desk::new(Credentials::Asked);
    desk.listed(&["a"]);
    assert_eq!(desk.asked(), [Output::FetchToken(TokenNeed::Open)]);
    give(&mut desk, "first");
    assert_eq!(desk.accept("a").access_token, "first");
    desk.welcome("alice", life_s);
    desk.heard();
    desk
}

fn give(desk: &mut Desk, text: &str) {
    desk.act(|session, now| session.token(now, Ok(text.to_owned())));
}

/// Waits until the application is asked to renew, and gives this; what is shown to the gateway.
fn renew(desk: &mut Desk, text: &str) -> Duration {
    let begun = desk.now;
    while desk.asked.last() != Some(&Output::FetchToken(TokenNeed::Renew)) {
        desk.wait();
    }
    desk.asked();
    give(desk, text);
    desk.now.since(begun)
}

fn shown(desk: &mut Desk) -> Vec<String> {
    let frames = desk.heard().into_iter();
    frames
        .filter_map(|frame| match frame.member {
            Some(Member::Authenticate(shown)) => Some(shown.access_token),
            _ => None,
        })
        .collect()
}

fn judged(desk: &mut Desk, code: Code, reason: Reason, life_s: u64) {
    let authenticated = v1::Authenticated {
        status: code.to_wire(),
        reason: reason.into(),
        access_expires_ms: SERVER_TIME_MS + life_s * 1000,
        ..v1::Authenticated::default()
    };
    desk.say(0, gateway::AUTHENTICATED, &authenticated);
}

fn is_told(desk: &Desk, of: impl Fn(&Event) -> bool) -> bool {
    desk.events.iter().any(|(event, _)| of(event))
}

// spec: A-20
#[test]
fn a_token_is_renewed_well_before_it_expires_while_the_session_goes_on() {
    let mut desk = asked_for(1_000);
    let asked_at = renew(&mut desk, "second");
    assert!(asked_at >= Duration::from_secs(750) && asked_at < Duration::from_secs(900), "{asked_at:?}");
    assert_eq!(shown(&mut desk), ["second"]);
    desk.ask();
    assert_eq!(desk.requests().len(), 1);
    judged(&mut desk, Code::Ok, Reason::Unspecified, 3_000);
    assert!(is_told(&desk, |event| *event == Event::TokenRenewed));
    let asked_at = renew(&mut desk, "third");
    assert!(asked_at > Duration::from_secs(1_000), "by the new token's life, which began with the session's");
    assert_eq!(shown(&mut desk), ["third"]);
    judged(&mut desk, Code::Ok, Reason::Unspecified, 9_000);
    desk.lose();
    desk.reconnect("a");
    assert_eq!(desk.accept("a").access_token, "third");
}

// spec: A-19
#[test]
fn a_gateway_that_takes_no_token_in_band_gets_it_in_a_new_session() {
    let mut desk = asked_for(1_000);
    renew(&mut desk, "second");
    let ticket = desk.ask();
    desk.heard();
    judged(&mut desk, Code::Unimplemented, Reason::NotSupported, 0);
    assert!(!desk.has_said_bye(), "a request is open");
    let late = desk.ask();
    assert_eq!(desk.requests(), [], "what is new waits for the new session");
    desk.answer(1, v1::Response::default());
    assert!(desk.outcomes.contains_key(&ticket) && desk.has_said_bye());
    desk.say(0, gateway::BYE_ACK, &v1::ByeAck {});
    assert_eq!(desk.reconnect("a"), Duration::ZERO);
    assert_eq!(desk.accept("a").access_token, "second");
    desk.welcome("alice", 2_000);
    assert_eq!(desk.requests().len(), 1);
    assert!(!desk.outcomes.contains_key(&late));
}

// spec: A-21
#[test]
fn a_token_of_somebody_else_is_dropped_and_the_session_goes_on() {
    let mut desk = asked_for(1_000);
    renew(&mut desk, "bobs");
    judged(&mut desk, Code::PermissionDenied, Reason::IdentityMismatch, 0);
    assert!(is_told(&desk, |event| matches!(event, Event::TokenNotRenewed(why) if why.contains("MISMATCH"))));
    assert_eq!(desk.session.state(), &open_state("alice"));
    desk.lose();
    desk.reconnect("a");
    assert_eq!(desk.accept("a").access_token, "first");
}

#[test]
fn a_token_that_cannot_be_had_now_is_asked_for_again() {
    let mut desk = asked_for(1_000);
    renew(&mut desk, "first");
    assert!(is_told(&desk, |event| matches!(event, Event::TokenNotRenewed(why) if why.contains("in use"))));
    while desk.asked().is_empty() {
        desk.wait();
    }
    desk.act(|session, now| session.token(now, Err(TokenError::Later("the issuer is away".to_owned()))));
    assert!(renew(&mut desk, "second") <= 2 * SECOND);
    assert_eq!(shown(&mut desk), ["second"]);
    judged(&mut desk, Code::Unauthenticated, Reason::TokenInvalid, 0);
    renew(&mut desk, "third");
    assert_eq!(shown(&mut desk), ["third"]);
}

// spec: D-7
#[test]
fn a_token_that_was_not_judged_is_shown_again() {
    let mut desk = asked_for(1_000);
    renew(&mut desk, "second");
    assert_eq!(shown(&mut desk), ["second"]);
    assert_eq!(desk.wait(), 10 * SECOND);
    assert_eq!(shown(&mut desk), ["second"]);
    desk.lose();
    desk.reconnect("a");
    assert_eq!(desk.accept("a").access_token, "second");
}

// spec
#[test]
fn a_warning_leads_to_a_renewal() {
    let mut desk = asked_for(0);
    let wait = desk.session.next_deadline().since(desk.now);
    assert!((3_060 * SECOND..=3_600 * SECOND).contains(&wait), "only the heartbeat");
    let notice = v1::Notice {
        status: Code::Unauthenticated.to_wire(),
        reason: Reason::TokenExpired.into(),
        ..v1::Notice::default()
    };
    desk.say(0, gateway::NOTICE, &notice);
    assert_eq!(desk.asked(), [Output::FetchToken(TokenNeed::Renew)]);
    desk.say(0, gateway::NOTICE, &notice);
    assert_eq!(desk.asked(), [], "once");
    assert!(is_told(&desk, |event| matches!(
        event,
        Event::Notice { code: Code::Unauthenticated, reason: Reason::TokenExpired, .. }
    )));
    give(&mut desk, "second");
    assert_eq!(shown(&mut desk), ["second"]);
}

#[test]
fn requests_that_wait_for_a_token_keep_their_answer_when_there_is_none() {
    let mut desk = asked_for(0);
    let expired = v1::Response {
        status: Code::Unauthenticated.to_wire(),
        reason: Reason::TokenExpired.into(),
        execution: Execution::NotExecuted.into(),
        ..v1::Response::default()
    };
    for given in [Err(TokenError::Later(String::new())), Err(TokenError::Denied(String::new()))] {
        let ticket = desk.ask();
        let up_seq = desk.requests()[0].0;
        desk.answer(up_seq, expired.clone());
        assert!(!desk.outcomes.contains_key(&ticket));
        while desk.asked().is_empty() {
            desk.wait();
        }
        desk.act(|session, now| session.token(now, given));
        assert_eq!(answered(&desk.outcomes[&ticket]).reason, Reason::TokenExpired);
    }
    let ticket = desk.ask();
    let up_seq = desk.requests()[0].0;
    desk.answer(up_seq, expired);
    assert!(desk.outcomes.contains_key(&ticket), "who has none to give is not asked again");
    desk.error(Reason::TokenExpired, v1::Reconnect::default());
    assert_eq!(desk.ending().unwrap().action(), crate::Action::Reauthenticate);
}

// spec
#[test]
fn a_token_that_was_refused_is_never_shown_again() {
    let mut desk = asked_for(0);
    desk.error(Reason::TokenExpired, v1::Reconnect::default());
    let asked = loop {
        let asked = desk.asked();
        if asked.contains(&Output::List) {
            desk.asked.push(Output::List);
            desk.listed(&["a"]);
        } else if let Some(asked) = asked.into_iter().find(|output| matches!(output, Output::FetchToken(_))) {
            break asked;
        } else {
            desk.wait();
        }
    };
    assert_eq!(asked, Output::FetchToken(TokenNeed::Refused(Reason::TokenExpired)));
    give(&mut desk, "first");
    assert_eq!(desk.asked(), [], "no attempt with it");
    assert!(matches!(desk.session.state(), State::Away { why: Setback::NoToken(_), .. }));
    while desk.asked.is_empty() {
        desk.wait();
    }
    desk.asked();
    give(&mut desk, "second");
    assert_eq!(desk.accept("a").access_token, "second");
}

#[test]
fn an_application_that_gives_only_bad_tokens_is_not_asked_for_ever() {
    let mut desk = asked_for(0);
    for count in 1.. {
        desk.error(Reason::TokenInvalid, v1::Reconnect::default());
        desk.asked();
        if desk.ending().is_some() {
            assert_eq!((count, desk.ending().unwrap().reason()), (3, Reason::TokenInvalid));
            break;
        }
        while !matches!(desk.asked.last(), Some(Output::FetchToken(_))) {
            desk.wait();
            if desk.asked.last() == Some(&Output::List) {
                desk.listed(&["a"]);
            }
        }
        give(&mut desk, &format!("bad {count}"));
        desk.accept("a");
    }
}

// spec: X-5
#[test]
fn without_another_token_the_client_ends() {
    for reason in [Reason::TokenExpired, Reason::TokenInvalid] {
        let mut desk = Desk::open(token("mine"), "alice");
        desk.error(reason, v1::Reconnect::default());
        let ending = desk.ending().unwrap();
        assert_eq!((ending.reason(), ending.action()), (reason, crate::Action::Reauthenticate));
    }
    let mut desk = Desk::new(Credentials::Asked);
    desk.listed(&["a"]);
    desk.act(|session, now| session.token(now, Err(TokenError::Denied("log in".to_owned()))));
    assert_eq!(desk.ending(), Some(&Ending::NoToken("log in".to_owned())));
}

#[test]
fn an_application_that_denies_while_the_client_is_away_ends_it() {
    let mut desk = asked_for(1_000);
    while desk.asked.last() != Some(&Output::FetchToken(TokenNeed::Renew)) {
        desk.wait();
    }
    desk.error(Reason::TokenExpired, v1::Reconnect { after_ms: 5_000, ..v1::Reconnect::default() });
    assert!(matches!(desk.session.state(), State::Away { .. }), "a new one is on its way");
    desk.act(|session, now| session.token(now, Err(TokenError::Denied("log in".to_owned()))));
    assert_eq!(desk.ending(), Some(&Ending::NoToken("log in".to_owned())), "no anonymous session instead");
}

#[test]
fn tokens_do_not_show_in_logs() {
    let desk = Desk::open(token("hush"), "alice");
    assert!(!format!("{:?}", desk.session).contains("hush"));
}

#[test]
fn a_token_that_the_application_brings_is_used_at_once_and_kept() {
    let mut desk = Desk::open(token("mine"), "alice");
    let brought = |text: &str| {
        let text = text.to_owned();
        move |session: &mut ClientSession, now| session.use_token(now, text)
    };
    assert!(desk.act(brought("newer")).is_ok());
    assert_eq!(shown(&mut desk), ["newer"]);
    assert!(desk.act(brought(&"x".repeat(TOKEN_BYTES_MAX + 1))).is_err());
    desk.error(Reason::TokenExpired, v1::Reconnect::default());
    assert_eq!(desk.reconnect("a"), Duration::ZERO, "there is another");
    assert_eq!(desk.accept("a").access_token, "newer");
    let mut desk = Desk::open(Credentials::Anonymous, "");
    assert!(desk.act(brought("mine")).is_ok());
    assert!(desk.has_said_bye(), "an anonymous session takes none");
    desk.say(0, gateway::BYE_ACK, &v1::ByeAck {});
    assert_eq!(desk.reconnect("a"), Duration::ZERO);
    assert_eq!(desk.accept("a").access_token, "mine");
}

fn login(life_s: u64) -> v1::Response {
    let login = v1::LoginResult {
        user_id: "alice".to_owned(),
        access_token: "from login".to_owned(),
        access_expires_ms: SERVER_TIME_MS + life_s * 1000,
        ..v1::LoginResult::default()
    };
    v1::Response { login: Some(login), ..v1::Response::default() }
}

// spec: A-23
#[test]
fn a_login_binds_the_session_and_its_token_opens_the_next() {
    let mut desk = Desk::open(Credentials::Anonymous, "");
    let ticket = desk.ask();
    desk.heard();
    desk.answer(1, login(100));
    assert_eq!(desk.states(), [&open_state("alice")]);
    let found = answered(&desk.outcomes[&ticket]).login.clone().unwrap();
    assert_eq!((found.user_id.as_str(), found.access_token.as_str()), ("alice", "from login"));
    desk.lose();
    desk.reconnect("a");
    assert_eq!(desk.accept("a").access_token, "from login");
    desk.welcome("alice", 100);
    desk.error(Reason::TokenExpired, v1::Reconnect::default());
    assert_eq!(desk.ending().unwrap().action(), crate::Action::Reauthenticate);
}

// spec: A-24
#[test]
fn a_logout_ends_the_client() {
    let mut desk = Desk::open(token("mine"), "alice");
    let ticket = desk.ask();
    desk.answer(1, v1::Response::default());
    desk.error(Reason::LoggedOut, v1::Reconnect::default());
    assert!(answered(&desk.outcomes[&ticket]).is_ok());
    assert_eq!(desk.ending().unwrap().reason(), Reason::LoggedOut);
}
