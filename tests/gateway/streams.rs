//! The two numbered streams: nothing lost, nothing twice, nothing beyond the limits.

use crate::link::site_and_link;
use crate::site::{Site, command};
use crate::wire::{Raw, bare, cancel, frame, request};
use moorgate_proto::envelope::member::{client, to_gateway};
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Execution, Reason, Source};

// spec: U-3, U-5
#[test]
fn lower_and_equal_numbers_are_ignored_and_each_request_has_one_response() {
    let (site, mut link) = site_and_link("");
    let mut client = site.open();
    let ask = |up_seq| request(up_seq, command::OPEN, b"x");
    // Repeated before the answer, and after it.
    client.send(&[ask(1), ask(1), ask(2), ask(1), ask(2)].concat());
    let calls = [link.call(), link.call()];
    link.nothing_else();
    for call in &calls {
        link.reply(call.call_id, b"once");
    }
    assert_eq!([client.response().up_seq, client.response().up_seq], [1, 2]);
    client.send(&[ask(1), ask(2)].concat());
    client.nothing_else();
    link.nothing_else();
    assert_eq!(site.metric("moorgate_requests_repeated_total"), 5);
    assert_eq!(site.metric("moorgate_requests_admitted_total"), 2);
    drop(client);
    site.end();
}

// spec: D-1, U-7
#[test]
fn responses_are_numbered_in_order_and_frames_acknowledge_what_was_admitted() {
    let site = Site::start("");
    let mut client = site.open();
    for up_seq in 1..=20 {
        client.send(&request(up_seq, command::OPEN, b"x"));
        let frame = client.frame();
        assert_eq!((frame.down_seq, frame.ack), (up_seq, up_seq));
    }
    drop(client);
    site.end();
}

// spec: U-4, X-4
#[test]
fn a_skipped_number_ends_the_connection_and_says_what_was_admitted() {
    let site = Site::start("");
    let mut client = site.open();
    client.ask(1, command::OPEN, b"x");
    client.send(&request(3, command::OPEN, b"x"));
    let error = client.error();
    assert_eq!((error.reason(), error.admitted), (Reason::SequenceGap, 1));
    assert!(error.reconnect.unwrap().allowed);
    assert!(error.message.contains('3') && error.message.contains('2'), "{}", error.message);
    drop(client);
    site.end();
}

// spec: W-6
#[test]
fn an_ack_of_what_was_never_sent_ends_the_connection() {
    let site = Site::start("");
    let mut client = site.open();
    client.ask(1, command::OPEN, b"x");
    client.send(&[bare(0, 1), bare(0, 0), bare(0, 1)].concat());
    client.nothing_else();
    client.send(&bare(0, 2));
    let error = client.error();
    assert_eq!((error.reason(), error.admitted), (Reason::AckBeyondSent, 1));
    drop(client);
    site.end();
}

// spec: W-2
#[test]
fn a_request_beyond_the_in_flight_limit_ends_the_connection_and_is_not_admitted() {
    let (site, mut link) = site_and_link("[session]\nin_flight = 2\nwindow = 2\n");
    let mut client = site.open();
    let ask = |up_seq| request(up_seq, command::OPEN, b"x");
    client.send(&[ask(1), ask(2), ask(3)].concat());
    let error = client.error();
    assert_eq!((error.status, error.reason()), (Code::ResourceExhausted.to_wire(), Reason::InFlightExceeded));
    assert_eq!(error.admitted, 2);
    let calls = [link.call(), link.call()];
    link.nothing_else();
    // Their client is gone; their outcome is counted all the same.
    for call in calls {
        link.reply(call.call_id, b"");
    }
    site.metric_becomes("moorgate_replies_orphaned_total", 2);
    drop(client);
    site.end();
}

// spec: W-2
#[test]
fn responses_that_are_not_acknowledged_count_as_in_flight() {
    let site = Site::start("[session]\nin_flight = 2\nwindow = 2\n");
    let mut client = site.open();
    client.ask(1, command::OPEN, b"x");
    client.ask(2, command::OPEN, b"x");
    client.send(&request(3, command::OPEN, b"x"));
    let error = client.error();
    assert_eq!((error.reason(), error.admitted), (Reason::InFlightExceeded, 2));
    drop(client);
    site.end();
}

// spec: W-3
#[test]
fn an_ack_frees_its_slot_for_the_request_in_the_same_frame() {
    let site = Site::start("[session]\nin_flight = 1\nwindow = 1\n");
    let mut client = site.open();
    let body = v1::Request { command: command::OPEN, ..v1::Request::default() };
    for up_seq in 1..=5 {
        client.send(&frame(up_seq, up_seq - 1, client::REQUEST, &body));
        assert_eq!(client.response().up_seq, up_seq);
    }
    drop(client);
    site.end();
}

// spec: E-15
#[test]
fn an_unknown_unnumbered_member_gets_a_notice() {
    let site = Site::start("");
    let mut client = site.open();
    for member in [16, 40, 63] {
        client.send(&frame(0, 0, member, &Raw(b"\x0a\x03new")));
        let notice = client.notice();
        assert_eq!(
            (notice.status, notice.reason()),
            (Code::Unimplemented.to_wire(), Reason::UnsupportedFrame)
        );
        assert_eq!(notice.member, member);
    }
    client.nothing_else();
    drop(client);
    site.end();
}

// spec: E-14
#[test]
fn an_unknown_numbered_member_consumes_its_number() {
    let site = Site::start("");
    let mut client = site.open();
    client.send(&frame(1, 0, 40, &Raw(&[])));
    let response = client.response();
    assert_eq!((response.up_seq, response.status), (1, Code::Unimplemented.to_wire()));
    assert_eq!(response.reason(), Reason::UnsupportedFrame);
    assert_eq!((response.source(), response.execution()), (Source::Gateway, Execution::NotExecuted));
    client.send(&frame(1, 0, 40, &Raw(&[])));
    assert_eq!(client.ask(2, command::OPEN, b"next").status, Code::Ok.to_wire());
    client.nothing_else();
    drop(client);
    site.end();
}

// spec: C-1
#[test]
fn a_cancel_of_the_next_number_consumes_it_and_the_service_never_sees_it() {
    let (site, mut link) = site_and_link("");
    let mut client = site.open();
    client.send(&[cancel(1), request(1, command::OPEN, b"never"), request(2, command::OPEN, b"b")].concat());
    let response = client.response();
    assert_eq!((response.up_seq, response.status), (1, Code::Cancelled.to_wire()));
    assert_eq!((response.reason(), response.execution()), (Reason::Cancelled, Execution::NotExecuted));
    let call = link.call();
    assert_eq!(&call.payload[..], b"b");
    link.reply(call.call_id, b"");
    assert_eq!(client.response().up_seq, 2);
    drop(client);
    site.end();
}

// spec: C-3, L-32
#[test]
fn a_cancel_of_an_unanswered_request_reaches_the_service_once() {
    let (site, mut link) = site_and_link("");
    let mut client = site.open();
    client.send(&request(1, command::OPEN, b"x"));
    let call = link.call();
    client.send(&[cancel(1), cancel(1)].concat());
    assert_eq!(link.cancel().call_id, call.call_id);
    link.nothing_else();
    client.nothing_else();
    let reply = v1::Reply {
        call_id: call.call_id,
        status: Code::Cancelled.to_wire(),
        execution: Execution::NotExecuted.into(),
        ..v1::Reply::default()
    };
    link.send(to_gateway::REPLY, &reply);
    let response = client.response();
    assert_eq!((response.up_seq, response.status), (1, Code::Cancelled.to_wire()));
    assert_eq!((response.source(), response.execution()), (Source::Service, Execution::NotExecuted));
    assert_eq!(site.metric("moorgate_requests_cancelled_total"), 1);
    drop(client);
    site.end();
}

// spec: C-4
#[test]
fn a_cancel_together_with_its_request_still_gets_one_response() {
    let (site, mut link) = site_and_link("");
    let mut client = site.open();
    client.send(&[request(1, command::OPEN, b"x"), cancel(1)].concat());
    let call = link.call();
    assert_eq!(link.cancel().call_id, call.call_id);
    link.reply(call.call_id, b"too late to stop");
    assert_eq!(client.response().status, Code::Ok.to_wire());
    client.nothing_else();
    drop(client);
    site.end();
}

// spec: C-2
#[test]
fn a_cancel_of_an_answered_request_does_nothing() {
    let site = Site::start("");
    let mut client = site.open();
    client.ask(1, command::OPEN, b"x");
    client.send(&cancel(1));
    client.nothing_else();
    assert_eq!(site.metric("moorgate_requests_cancelled_total"), 0);
    drop(client);
    site.end();
}

// spec: C-5, C-6
#[test]
fn a_cancel_beyond_the_next_number_is_a_gap_and_of_none_a_violation() {
    let site = Site::start("");
    let mut client = site.open();
    client.ask(1, command::OPEN, b"x");
    client.send(&cancel(3));
    let error = client.error();
    assert_eq!((error.reason(), error.admitted), (Reason::SequenceGap, 1));
    let mut none = site.open();
    none.send(&cancel(0));
    assert_eq!(none.error_reason(), Reason::ProtocolViolation);
    drop((client, none));
    site.end();
}
