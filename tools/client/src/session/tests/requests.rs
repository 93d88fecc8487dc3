//! Requests over many connections: one outcome each, within their time, and nothing done twice.

use super::*;

fn outcome_of(desk: &Desk, ticket: Ticket) -> Option<&Outcome> {
    desk.outcomes.get(&ticket)
}

// spec: U-1, W-1
#[test]
fn what_waits_is_sent_in_order_once_there_is_a_session_with_a_place() {
    let mut desk = Desk::new(Credentials::Anonymous);
    let tickets: Vec<Ticket> = (0..6).map(|_| desk.ask()).collect();
    desk.listed(&["a"]);
    desk.accept("a");
    assert_eq!(desk.heard(), [], "nothing before Welcome");
    desk.welcome("", 0);
    let sent: Vec<u64> = desk.requests().iter().map(|(up_seq, _)| *up_seq).collect();
    assert_eq!(sent, [1, 2, 3, 4]);
    desk.answer(2, v1::Response::default());
    assert_eq!(desk.requests().len(), 1);
    assert!(outcome_of(&desk, tickets[1]).is_some() && outcome_of(&desk, tickets[0]).is_none());
    assert_eq!(desk.session.open_requests(), 5);
}

#[test]
fn only_so_many_may_wait() {
    let options = Options { waiting_max: 2, ..Options::default() };
    let mut desk = Desk::with(Settings { options, ..Settings::default() }, Credentials::Anonymous);
    desk.ask();
    let second = desk.ask();
    assert_eq!(desk.ask_with(b"", Duration::ZERO), Err(Refused::Full));
    desk.act(|session, now| session.cancel(now, second));
    assert!(desk.ask_with(b"", Duration::ZERO).is_ok());
}

// spec: U-8, R-16
#[test]
fn the_gateway_is_told_what_is_left_of_the_time() {
    let mut desk = Desk::new(Credentials::Anonymous);
    desk.ask_with(b"", 8 * SECOND).unwrap();
    desk.pass(3 * SECOND);
    desk.listed(&["a"]);
    desk.accept("a");
    desk.welcome("", 0);
    assert_eq!(desk.requests()[0].1.timeout_ms, 5_000);
}

#[test]
fn a_request_that_was_never_sent_is_over_at_its_time() {
    let mut desk = Desk::new(Credentials::Anonymous);
    let ticket = desk.ask_with(b"key", 8 * SECOND).unwrap();
    assert_eq!(desk.wait(), 8 * SECOND);
    assert_eq!(outcome_of(&desk, ticket), Some(&Outcome::TimedOut(Execution::NotExecuted)));
    desk.listed(&["a"]);
    desk.accept("a");
    desk.welcome("", 0);
    assert_eq!(desk.requests(), []);
}

// spec: C-3, C-4
#[test]
fn a_request_that_was_sent_has_a_grace_and_is_cancelled_then() {
    let mut desk = Desk::open(Credentials::Anonymous, "");
    let ticket = desk.ask_with(b"", 8 * SECOND).unwrap();
    desk.heard();
    assert_eq!(desk.wait(), 8 * SECOND, "it could have been sent late");
    assert_eq!(desk.wait(), ANSWER_GRACE);
    assert_eq!(outcome_of(&desk, ticket), Some(&Outcome::TimedOut(Execution::Unknown)));
    let cancels =
        |frame: &v1::ClientFrame| matches!(frame.member, Some(Member::Cancel(v1::Cancel { up_seq: 1 })));
    assert!(desk.heard().iter().any(cancels));
    desk.answer(1, v1::Response::default());
    assert_eq!(desk.session.state(), &open_state(""), "its late answer harms nobody");
}

// spec: S-15, S-16
#[test]
fn after_a_loss_only_what_is_safe_is_sent_again() {
    let mut desk = Desk::open(Credentials::Anonymous, "");
    let plain = desk.ask();
    let keyed = desk.ask_with(b"key", Duration::ZERO).unwrap();
    let unsent: Vec<Ticket> = (0..4).map(|_| desk.ask()).collect();
    assert_eq!(desk.requests().len(), 4);
    desk.lose();
    for ticket in [plain, unsent[0], unsent[1]] {
        assert_eq!(outcome_of(&desk, ticket), Some(&Outcome::Unanswered(Execution::Unknown)));
    }
    desk.reopen("");
    let again = desk.requests();
    assert_eq!(again.iter().map(|(up_seq, _)| *up_seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(&again[0].1.idempotency_key[..], b"key", "in the order in which they were made");
    desk.answer(1, v1::Response::default());
    assert!(outcome_of(&desk, keyed).is_some());
    assert!(desk.events.iter().any(|(event, _)| *event == Event::Resync(Missed::Session)));
}

// spec: S-15, S-16, X-3
#[test]
fn an_error_that_says_what_was_admitted_lets_the_rest_be_sent_again() {
    let mut desk = Desk::open(Credentials::Anonymous, "");
    let tickets = [desk.ask(), desk.ask(), desk.ask()];
    let reconnect = Some(allowed(0));
    let error = v1::Error { reason: Reason::Shutdown.into(), admitted: 1, reconnect, ..v1::Error::default() };
    desk.say(0, gateway::ERROR, &error);
    assert_eq!(outcome_of(&desk, tickets[0]), Some(&Outcome::Unanswered(Execution::Unknown)));
    desk.reopen("");
    assert_eq!(desk.requests().len(), 2);
}

// spec: S-16
#[test]
fn what_may_have_run_before_stays_unknown_whatever_comes() {
    let mut desk = Desk::open(Credentials::Anonymous, "");
    let ticket = desk.ask_with(b"key", 20 * SECOND).unwrap();
    desk.lose();
    assert_eq!(outcome_of(&desk, ticket), None);
    while outcome_of(&desk, ticket).is_none() {
        desk.wait();
        desk.asked.clear();
    }
    assert_eq!(outcome_of(&desk, ticket), Some(&Outcome::TimedOut(Execution::Unknown)));
}

// spec: C-3
#[test]
fn a_cancel_takes_back_what_waits_and_is_passed_on_for_what_was_sent() {
    let mut desk = Desk::open(Credentials::Anonymous, "");
    let sent = desk.ask_with(b"key", Duration::ZERO).unwrap();
    let cancelled = (1..IN_FLIGHT + 1).map(|_| desk.ask()).last().unwrap();
    desk.heard();
    desk.act(|session, now| session.cancel(now, cancelled));
    let answer = answered(&desk.outcomes[&cancelled]);
    assert_eq!((answer.code, answer.execution), (Code::Cancelled, Execution::NotExecuted));
    desk.act(|session, now| session.cancel(now, sent));
    assert!(matches!(desk.heard()[0].member, Some(Member::Cancel(v1::Cancel { up_seq: 1 }))));
    assert_eq!(outcome_of(&desk, sent), None, "it is still answered");
    desk.lose();
    assert_eq!(outcome_of(&desk, sent), Some(&Outcome::Unanswered(Execution::Unknown)), "not sent again");
    desk.act(|session, now| session.cancel(now, sent));
}

// spec: M-1
#[test]
fn a_payload_that_fits_into_no_frame_is_told() {
    let mut desk = Desk::open(Credentials::Anonymous, "");
    let large = vec![0; 70_000];
    let ticket = desk.act(|session, now| session.request(now, &RequestOptions::command(7), &large)).unwrap();
    assert_eq!(outcome_of(&desk, ticket), Some(&Outcome::TooLarge));
    desk.ask();
    assert_eq!(desk.requests()[0].0, 1);
}

// spec: S-7
#[test]
fn a_hint_is_waited_out_and_what_has_no_time_left_is_not_repeated() {
    let mut desk = Desk::open(Credentials::Anonymous, "");
    let limited = |retry_after_ms| v1::Response {
        status: Code::ResourceExhausted.to_wire(),
        reason: Reason::RateLimited.into(),
        execution: Execution::NotExecuted.into(),
        retry_after_ms,
        ..v1::Response::default()
    };
    let ticket = desk.ask_with(b"", 20 * SECOND).unwrap();
    desk.heard();
    desk.answer(1, limited(7_000));
    assert_eq!(desk.requests(), []);
    let mut waited = Duration::ZERO;
    while waited < 7 * SECOND {
        assert_eq!(desk.requests(), []);
        waited += desk.wait();
    }
    assert_eq!(waited, 7 * SECOND);
    let again = desk.requests();
    assert_eq!((again[0].0, again[0].1.timeout_ms), (2, 13_000));
    desk.answer(2, limited(13_000));
    assert_eq!(answered(&desk.outcomes[&ticket]).reason, Reason::RateLimited, "there is no time for a third");
}

#[test]
fn repeating_has_an_end() {
    let mut desk = Desk::open(Credentials::Anonymous, "");
    let ticket = desk.ask();
    let lost = v1::Response {
        status: Code::Aborted.to_wire(),
        reason: Reason::EndpointLost.into(),
        execution: Execution::NotExecuted.into(),
        ..v1::Response::default()
    };
    for up_seq in 1..=4 {
        assert_eq!(outcome_of(&desk, ticket), None);
        while desk.requests().is_empty() {
            desk.wait();
        }
        desk.answer(up_seq, lost.clone());
    }
    assert_eq!(answered(&desk.outcomes[&ticket]).reason, Reason::EndpointLost);
}
