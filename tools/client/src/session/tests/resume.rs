//! Sessions that outlive their connections: a pause, not a break.

use super::*;

fn push(desk: &mut Desk, seq: u64) {
    let push_id = seq.to_be_bytes().to_vec().into();
    desk.say(seq, gateway::PUSH, &v1::Push { push_id, ..v1::Push::default() });
}

fn pushes(desk: &Desk) -> Vec<u64> {
    let pushes = desk.events.iter().filter_map(|(event, _)| match event {
        Event::Push(push) => Some(u64::from_be_bytes(push.push_id[..].try_into().unwrap())),
        _ => None,
    });
    pushes.collect()
}

fn acks(desk: &mut Desk) -> Vec<u64> {
    desk.heard().iter().map(|frame| frame.ack).filter(|ack| *ack > 0).collect()
}

fn asked_for(hello: &v1::Hello) -> (&[u8], u64, u64) {
    let resume = hello.resume.as_ref().unwrap();
    (&resume.resume_token, resume.attempt, resume.down_seq)
}

// spec
#[test]
fn the_application_sees_a_pause() {
    let mut desk = Desk::resumable(token("mine"));
    let [first, second] = [desk.ask(), desk.ask()];
    let late = {
        desk.lose();
        desk.ask()
    };
    assert!(matches!(desk.session.state(), State::Away { .. }));
    assert_eq!((desk.outcomes.len(), desk.session.open_requests()), (0, 3), "nothing is settled");
    desk.reconnect("a");
    let hello = desk.accept("a");
    assert_eq!((hello.access_token.as_str(), asked_for(&hello)), ("mine", (&b"first"[..], 1, 0)));
    desk.resumes(ResumeResult::Resumed, b"second", 1);
    desk.welcome("alice", 0);
    assert_eq!(desk.session.state(), &open_state("alice"));
    let again: Vec<u64> = desk.requests().iter().map(|(up_seq, _)| *up_seq).collect();
    assert_eq!(again, [2, 3], "what was not admitted, and what is new");
    for up_seq in 1..=3 {
        desk.answer(up_seq, v1::Response::default());
    }
    assert!([first, second, late].iter().all(|ticket| answered(&desk.outcomes[ticket]).is_ok()));
    assert!(!desk.has_missed());
    let hello = desk.resume(b"third", 3);
    assert_eq!(asked_for(&hello), (&b"second"[..], 2, 3));
}

// spec: R-31
#[test]
fn hello_that_resumes_has_the_identity_of_the_opening() {
    let mut desk = Desk::new(token("mine"));
    desk.resumes(ResumeResult::None, b"first", 0);
    desk.listed(&["a"]);
    let opening = desk.accept("a");
    desk.welcome("alice", 0);
    desk.lose();
    desk.reconnect("a");
    let hello = desk.accept("a");
    assert_eq!((&*hello.access_token, hello.resume.is_some()), ("mine", true));
    assert_eq!(v1::Hello { resume: None, ..hello }, opening);
}

// spec: D-2, R-14
#[test]
fn pushes_are_given_once_whether_taken_or_not() {
    let mut desk = Desk::resumable(token("mine"));
    (1..=3).for_each(|seq| push(&mut desk, seq));
    let take = |desk: &mut Desk, at: usize| {
        let delivery = desk.events[at].1.unwrap();
        desk.act(|session, now| session.taken(now, delivery));
    };
    take(&mut desk, 0);
    desk.events.retain(|(event, _)| matches!(event, Event::Push(_)));
    let kept = desk.events.clone();
    desk.lose();
    desk.events = kept;
    take(&mut desk, 1);
    desk.reconnect("a");
    let hello = desk.accept("a");
    assert_eq!(asked_for(&hello).2, 2, "also what was taken while there was no connection");
    desk.resumes(ResumeResult::Resumed, b"second", 0);
    desk.welcome("alice", 0);
    assert_eq!(acks(&mut desk), [2], "at once");
    (3..=4).for_each(|seq| push(&mut desk, seq));
    assert_eq!(pushes(&desk), [1, 2, 3, 4]);
    take(&mut desk, 2);
    desk.wait();
    assert_eq!(acks(&mut desk), [3], "the delivery of the connection before counts");
}

// spec: R-4, S-15, S-16
#[test]
fn what_cannot_be_resumed_is_lost_as_before_and_nobody_logs_in_again() {
    use ResumeResult as R;
    for result in [R::UnknownSession, R::Ended, R::NotSupported] {
        let mut desk = Desk::resumable(token("mine"));
        let plain = desk.ask();
        let keyed = desk.ask_with(b"key", Duration::ZERO).unwrap();
        push(&mut desk, 1);
        let old = desk.events[0].1.unwrap();
        desk.lose();
        desk.reconnect("a");
        assert_eq!(asked_for(&desk.accept("a")).1, 1);
        desk.numbered = 0;
        desk.resumes(result, b"other", 0);
        desk.welcome("alice", 0);
        assert_eq!(desk.outcomes[&plain], Outcome::Unanswered(Execution::Unknown), "{result:?}");
        assert!(desk.has_missed(), "{result:?}");
        let again = desk.requests();
        assert_eq!((again.len(), again[0].0), (1, 1), "{result:?}: what has a key, in the fresh session");
        desk.act(|session, now| session.taken(now, old));
        desk.answer(1, v1::Response::default());
        assert!(answered(&desk.outcomes[&keyed]).is_ok());
        desk.lose();
        desk.reconnect("a");
        assert_eq!(asked_for(&desk.accept("a")), (&b"other"[..], 1, 1));
    }
}

// spec: C-8
#[test]
fn cancels_reach_the_gateway_also_over_a_loss() {
    let mut desk = Desk::resumable(token("mine"));
    let [first, second] = [desk.ask(), desk.ask()];
    desk.lose();
    desk.act(|session, now| session.cancel(now, first));
    desk.act(|session, now| session.cancel(now, second));
    desk.reconnect("a");
    desk.accept("a");
    desk.resumes(ResumeResult::Resumed, b"second", 1);
    desk.welcome("alice", 0);
    let cancelled = desk.heard().into_iter().filter_map(|frame| match frame.member {
        Some(Member::Cancel(cancel)) => Some(cancel.up_seq),
        Some(Member::Request(_)) => panic!("a request that was taken back"),
        _ => None,
    });
    assert_eq!(cancelled.collect::<Vec<_>>(), [1, 2]);
    let cancelled = v1::Response {
        status: Code::Cancelled.to_wire(),
        reason: Reason::Cancelled.into(),
        execution: Execution::NotExecuted.into(),
        ..v1::Response::default()
    };
    desk.answer(2, cancelled);
    desk.answer(1, v1::Response::default());
    assert_eq!(answered(&desk.outcomes[&second]).code, Code::Cancelled);
    assert!(answered(&desk.outcomes[&first]).is_ok());
}

// spec: R-16, C-1
#[test]
fn a_request_whose_time_is_over_before_it_was_admitted_never_runs() {
    let mut desk = Desk::resumable(token("mine"));
    let short = desk.ask_with(b"", 3 * SECOND).unwrap();
    let long = desk.ask_with(b"", 30 * SECOND).unwrap();
    desk.lose();
    desk.reconnect("a");
    desk.accept("a");
    desk.now = desk.now + 4 * SECOND;
    let left = 30 * SECOND - desk.now.since(Mono::ZERO + SECOND);
    desk.resumes(ResumeResult::Resumed, b"second", 0);
    desk.welcome("alice", 0);
    let frames = desk.heard();
    assert!(
        frames.iter().any(|frame| matches!(frame.member, Some(Member::Cancel(v1::Cancel { up_seq: 1 }))))
    );
    let resent = frames.iter().find_map(|frame| match &frame.member {
        Some(Member::Request(request)) => Some((frame.up_seq, u128::from(request.timeout_ms))),
        _ => None,
    });
    assert_eq!(resent, Some((2, left.as_nanos().div_ceil(1_000_000))));
    let cancelled = v1::Response {
        status: Code::Cancelled.to_wire(),
        reason: Reason::Cancelled.into(),
        execution: Execution::NotExecuted.into(),
        ..v1::Response::default()
    };
    desk.answer(1, cancelled);
    assert_eq!(desk.outcomes[&short], Outcome::TimedOut(Execution::NotExecuted));
    assert!(!desk.outcomes.contains_key(&long));
}

#[test]
fn a_request_is_not_open_for_ever_while_there_is_no_connection() {
    let mut desk = Desk::resumable(token("mine"));
    let ticket = desk.ask_with(b"", 3 * SECOND).unwrap();
    desk.lose();
    while !desk.outcomes.contains_key(&ticket) {
        desk.wait();
        desk.asked.clear();
    }
    assert_eq!(desk.outcomes[&ticket], Outcome::TimedOut(Execution::Unknown));
}

// spec: R-18
#[test]
fn an_access_token_that_has_expired_is_renewed_and_the_session_resumed_with_it() {
    let mut desk = Desk::new(Credentials::Asked);
    desk.listed(&["a"]);
    desk.act(|session, now| session.token(now, Ok("first".to_owned())));
    desk.resumes(ResumeResult::None, b"first", 0);
    desk.accept("a");
    desk.welcome("alice", 0);
    let ticket = desk.ask();
    desk.lose();
    desk.reconnect("a");
    desk.accept("a");
    desk.error(Reason::TokenExpired, v1::Reconnect { resumable: true, ..v1::Reconnect::default() });
    while !matches!(desk.asked.last(), Some(Output::FetchToken(_))) {
        desk.wait();
        if desk.asked.last() == Some(&Output::List) {
            desk.asked.clear();
            desk.act(|session, now| session.listed(now, Ok(vec!["a".to_owned()])));
        }
    }
    assert_eq!(desk.asked.pop(), Some(Output::FetchToken(TokenNeed::Refused(Reason::TokenExpired))));
    desk.act(|session, now| session.token(now, Ok("second".to_owned())));
    let hello = desk.accept("a");
    assert_eq!((hello.access_token.as_str(), asked_for(&hello)), ("second", (&b"first"[..], 2, 0)));
    desk.resumes(ResumeResult::Resumed, b"second", 1);
    desk.welcome("alice", 0);
    desk.answer(1, v1::Response::default());
    assert!(answered(&desk.outcomes[&ticket]).is_ok() && !desk.has_missed());
}

// spec: R-19
#[test]
fn a_session_that_is_not_this_users_is_given_up() {
    let mut desk = Desk::resumable(token("mine"));
    let ticket = desk.ask();
    desk.lose();
    desk.act(|session, now| session.use_token(now, "bobs".to_owned())).unwrap();
    desk.reconnect("a");
    let hello = desk.accept("a");
    assert_eq!((hello.access_token.as_str(), hello.resume.is_some()), ("bobs", true));
    desk.error(Reason::IdentityMismatch, v1::Reconnect::default());
    assert_eq!(desk.outcomes[&ticket], Outcome::Unanswered(Execution::Unknown));
    desk.reconnect("a");
    let hello = desk.accept("a");
    assert_eq!((hello.access_token.as_str(), hello.resume), ("bobs", None));
    desk.resumes(ResumeResult::None, b"bobs", 0);
    desk.welcome("bob", 0);
    assert!(desk.has_missed());
    desk.error(Reason::IdentityMismatch, v1::Reconnect::default());
    assert!(desk.ending().is_some(), "it is the session's end otherwise");
}

// spec: R-20
#[test]
fn without_a_token_an_expired_session_makes_room_for_an_anonymous_one() {
    let mut desk = Desk::resumable(Credentials::Anonymous);
    desk.lose();
    desk.reconnect("a");
    assert!(desk.accept("a").resume.is_some());
    desk.error(Reason::TokenExpired, v1::Reconnect { resumable: true, ..v1::Reconnect::default() });
    desk.reconnect("a");
    assert_eq!(desk.accept("a").resume, None);
    desk.resumes(ResumeResult::None, b"other", 0);
    desk.welcome("", 0);
    assert!(desk.has_missed());
    assert_eq!(desk.session.state(), &open_state(""));
}

// spec
#[test]
fn the_gateways_waits_are_kept_and_so_is_the_session() {
    for (reason, after_ms) in
        [(Reason::GatewayOverloaded, 7_000), (Reason::ConnectionLimit, 9_000), (Reason::Banned, 20_000)]
    {
        let mut desk = Desk::resumable(token("mine"));
        let ticket = desk.ask();
        desk.lose();
        desk.reconnect("a");
        desk.accept("a");
        desk.error(reason, allowed(after_ms));
        assert!(desk.reconnect("a") >= Duration::from_millis(after_ms.into()), "{reason:?}");
        assert_eq!(asked_for(&desk.accept("a")).1, 2);
        desk.resumes(ResumeResult::Resumed, b"second", 1);
        desk.welcome("alice", 0);
        desk.answer(1, v1::Response::default());
        assert!(answered(&desk.outcomes[&ticket]).is_ok(), "{reason:?}");
    }
}

// spec
#[test]
fn refused_resume_is_a_resync_and_a_hello_without_resume() {
    for reason in [Reason::ResumeStale, Reason::ResumeInvalid] {
        for is_allowed in [true, false] {
            let mut desk = Desk::resumable(token("mine"));
            let ticket = desk.ask();
            desk.lose();
            desk.reconnect("a");
            assert!(desk.accept("a").resume.is_some());
            desk.error(reason, v1::Reconnect { allowed: is_allowed, ..v1::Reconnect::default() });
            assert_eq!(desk.outcomes[&ticket], Outcome::Unanswered(Execution::Unknown), "{reason:?}");
            if is_allowed {
                desk.reconnect("a");
                assert_eq!(desk.accept("a").resume, None, "{reason:?}");
                desk.welcome("alice", 0);
                assert!(desk.has_missed(), "{reason:?}");
            } else {
                assert_eq!(desk.ending().unwrap().reason(), reason);
            }
        }
    }
}

// spec
#[test]
fn an_error_says_whether_the_session_is_kept() {
    for (reason, is_resumable) in [
        (Reason::SequenceGap, true),
        (Reason::HeartbeatTimeout, true),
        (Reason::RateLimited, true),
        (Reason::Shutdown, false),
    ] {
        let mut desk = Desk::resumable(token("mine"));
        let ticket = desk.ask();
        let reconnect = Some(v1::Reconnect { resumable: is_resumable, ..allowed(0) });
        let error = v1::Error { reason: reason.into(), admitted: 1, reconnect, ..v1::Error::default() };
        desk.say(0, gateway::ERROR, &error);
        assert_eq!(desk.outcomes.contains_key(&ticket), !is_resumable, "{reason:?}");
        desk.reconnect("a");
        assert_eq!(desk.accept("a").resume.is_some(), is_resumable, "{reason:?}");
    }
}

// spec: R-23
#[test]
fn being_superseded_is_for_good_and_is_heard_only_on_the_connection_of_now() {
    let mut desk = Desk::resumable(token("mine"));
    let old = Attempt(1);
    desk.resume(b"second", 0);
    assert!(!desk.act(|session, now| session.connected(now, old, None)), "its bytes are nobody's");
    assert_eq!(desk.session.state(), &open_state("alice"));
    desk.error(Reason::Superseded, v1::Reconnect::default());
    assert_eq!(desk.ending().unwrap().reason(), Reason::Superseded);
    assert_eq!(desk.asked(), [Output::Disconnect]);
}

// spec
#[test]
fn a_gateway_that_goes_away_may_hand_the_session_on() {
    for resumable in [true, false] {
        let mut desk = Desk::resumable(token("mine"));
        let ticket = desk.ask();
        let go_away = v1::GoAway {
            reason: Reason::Rebalance.into(),
            reconnect_after_ms: 2_000,
            addresses: vec!["x".to_owned()],
            resumable,
            ..v1::GoAway::default()
        };
        desk.say(0, gateway::GO_AWAY, &go_away);
        desk.answer(1, v1::Response::default());
        assert!(desk.outcomes.contains_key(&ticket));
        let bye = desk.heard().into_iter().find_map(|frame| match frame.member {
            Some(Member::Bye(bye)) => Some(bye.keep_for_ms),
            _ => None,
        });
        assert_eq!(bye, Some(if resumable { 60_000 } else { 0 }));
        desk.say(0, gateway::BYE_ACK, &v1::ByeAck {});
        assert_eq!(desk.reconnect("a"), 2 * SECOND);
        assert_eq!(desk.accept("x").resume.is_some(), resumable);
    }
}

#[test]
fn a_login_brings_a_newer_resume_token() {
    let mut desk = Desk::new(Credentials::Anonymous);
    desk.resumes(ResumeResult::None, b"first", 0);
    desk.listed(&["a"]);
    desk.accept("a");
    desk.welcome("", 0);
    desk.ask();
    let login = v1::LoginResult {
        user_id: "alice".to_owned(),
        access_token: "from login".to_owned(),
        resume_token: b"newer"[..].into(),
        ..v1::LoginResult::default()
    };
    desk.answer(1, v1::Response { login: Some(login), ..v1::Response::default() });
    let hello = desk.resume(b"second", 1);
    assert_eq!((hello.access_token.as_str(), asked_for(&hello)), ("from login", (&b"newer"[..], 1, 1)));
}

// spec
#[test]
fn a_gateway_that_takes_no_token_in_band_gets_it_with_a_resume() {
    let mut desk = Desk::resumable(token("mine"));
    desk.act(|session, now| session.use_token(now, "newer".to_owned())).unwrap();
    desk.heard();
    let refused = v1::Authenticated {
        status: Code::Unimplemented.to_wire(),
        reason: Reason::NotSupported.into(),
        ..v1::Authenticated::default()
    };
    desk.say(0, gateway::AUTHENTICATED, &refused);
    assert!(desk.has_said_bye());
    desk.say(0, gateway::BYE_ACK, &v1::ByeAck {});
    desk.reconnect("a");
    let hello = desk.accept("a");
    assert_eq!((hello.access_token.as_str(), hello.resume.is_some()), ("newer", true));
}

#[test]
fn who_leaves_without_a_connection_settles_what_is_open() {
    let mut desk = Desk::resumable(token("mine"));
    let sent = desk.ask();
    desk.lose();
    let unsent = desk.ask();
    desk.act(|session, now| session.leave(now, SECOND));
    assert_eq!(desk.ending(), Some(&Ending::Left));
    assert_eq!(desk.outcomes[&sent], Outcome::Unanswered(Execution::Unknown));
    assert_eq!(desk.outcomes[&unsent], Outcome::Unanswered(Execution::NotExecuted));
}
