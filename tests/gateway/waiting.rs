//! Calls that wait: for a service's bound, for their turn in a session's order.

use crate::link::{RawLink, listener, site_and_link};
use crate::site::{Site, command};
use crate::wire::{ask_many, assert_gateway_says, cancel, frame, hello, hello_frame, request};
use moorgate_proto::envelope::member::client::REQUEST;
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Execution, Reason};

// spec: L-34
#[test]
fn a_call_that_is_never_answered_gives_its_slot_back_after_the_grace() {
    let listener = listener();
    let site = Site::beside(&listener, "[links]\nlate_reply_grace = \"100ms\"\n");
    let view = v1::ServiceView { outstanding_max: 1, ..v1::ServiceView::default() };
    let mut link = RawLink::open_with(&listener, |ack| ack.view = Some(view));
    site.ready();
    let mut client = site.open();
    client.send(&request(1, command::HASTY, b"x"));
    let never = link.call();
    assert_eq!(client.response().reason(), Reason::Timeout);
    client.send(&request(2, command::OPEN, b"next"));
    assert_eq!(link.cancel().call_id, never.call_id);
    let next = link.call();
    link.reply(next.call_id, b"");
    assert_eq!(client.response().up_seq, 2);
    // Now it is a reply to nothing.
    link.reply(never.call_id, b"");
    link.nothing_else();
    assert_eq!(site.metric("moorgate_replies_late_total"), 0);
    assert_eq!(site.metric("moorgate_replies_unknown_total"), 1);
    drop(client);
    site.end();
}

// spec: L-38, S-12
#[test]
fn a_service_at_its_bound_gets_the_next_call_when_it_has_answered() {
    let listener = listener();
    let site = Site::beside(&listener, "");
    let view = v1::ServiceView { outstanding_max: 2, ..v1::ServiceView::default() };
    let mut link = RawLink::open_with(&listener, |ack| ack.view = Some(view));
    site.ready();
    let mut client = site.open();
    ask_many(&mut client, command::OPEN, 4);
    let (first, second) = (link.call(), link.call());
    link.nothing_else();
    link.reply(second.call_id, b"");
    assert_eq!(client.response().up_seq, 2);
    let third = link.call();
    link.nothing_else();
    for call in [first, third] {
        link.reply(call.call_id, b"");
        client.response();
    }
    let fourth = link.call();
    link.reply(fourth.call_id, b"");
    assert_eq!(client.response().up_seq, 4);
    drop(client);
    site.end();
}

// spec: S-12
#[test]
fn calls_that_wait_are_bounded_and_the_rest_is_refused() {
    let listener = listener();
    let site = Site::beside(&listener, "[links]\nwaiting = 1\n");
    let view = v1::ServiceView { outstanding_max: 1, ..v1::ServiceView::default() };
    let mut link = RawLink::open_with(&listener, |ack| ack.view = Some(view));
    site.ready();
    let mut client = site.open();
    ask_many(&mut client, command::OPEN, 3);
    let refused = client.response();
    assert_eq!(refused.up_seq, 3);
    let reason = Reason::ServiceOverloaded;
    assert_gateway_says(&refused, Code::ResourceExhausted, reason, Execution::NotExecuted);
    for up_seq in 1..=2 {
        let call = link.call();
        link.reply(call.call_id, b"");
        assert_eq!(client.response().up_seq, up_seq);
    }
    drop(client);
    site.end();
}

// spec: C-3
#[test]
fn a_cancelled_call_that_waits_is_never_sent() {
    let listener = listener();
    let site = Site::beside(&listener, "");
    let view = v1::ServiceView { outstanding_max: 1, ..v1::ServiceView::default() };
    let mut link = RawLink::open_with(&listener, |ack| ack.view = Some(view));
    site.ready();
    let mut client = site.open();
    ask_many(&mut client, command::OPEN, 3);
    let first = link.call();
    client.send(&cancel(2));
    let response = client.response();
    assert_eq!(response.up_seq, 2);
    assert_gateway_says(&response, Code::Cancelled, Reason::Cancelled, Execution::NotExecuted);
    link.reply(first.call_id, b"");
    assert_eq!(client.response().up_seq, 1);
    let third = link.call();
    link.reply(third.call_id, b"");
    assert_eq!(client.response().up_seq, 3);
    drop(client);
    site.end();
}

// spec: L-27, S-10
#[test]
fn a_call_that_waits_past_its_deadline_is_never_sent() {
    let listener = listener();
    let site = Site::beside(&listener, "");
    let view = v1::ServiceView { outstanding_max: 1, ..v1::ServiceView::default() };
    let mut link = RawLink::open_with(&listener, |ack| ack.view = Some(view));
    site.ready();
    let mut client = site.open();
    client.send(&[request(1, command::OPEN, b"x"), request(2, command::HASTY, b"x")].concat());
    let first = link.call();
    let response = client.response();
    assert_eq!(response.up_seq, 2);
    assert_gateway_says(&response, Code::DeadlineExceeded, Reason::Timeout, Execution::NotExecuted);
    link.reply(first.call_id, b"");
    assert_eq!(client.response().up_seq, 1);
    link.nothing_else();
    drop(client);
    site.end();
}

// spec: L-28, L-29
#[test]
fn a_session_ordered_route_sends_one_call_at_a_time_in_order() {
    let (site, mut link) = site_and_link("");
    let mut client = site.connect();
    client.send(&hello_frame(&hello()));
    let session_id = client.welcome().session_id;
    let mut other = site.open();
    ask_many(&mut client, command::ORDERED, 4);
    for up_seq in 1..=4 {
        let call = link.call();
        assert_eq!(call.ordering_key, session_id);
        link.nothing_else();
        if up_seq == 2 {
            // Another session does not wait behind this one.
            other.send(&request(1, command::ORDERED, b"other"));
            let call = link.call();
            assert_eq!(&call.payload[..], b"other");
            link.reply(call.call_id, b"");
            other.response();
        }
        link.reply(call.call_id, b"");
        assert_eq!(client.response().up_seq, up_seq);
    }
    drop((client, other));
    site.end();
}

#[test]
fn a_session_ordered_route_goes_on_after_a_cancel_and_after_a_deadline() {
    let (site, mut link) = site_and_link("");
    let mut client = site.open();
    let short = v1::Request { command: command::ORDERED, timeout_ms: 2000, ..v1::Request::default() };
    client.send(
        &[
            frame(1, 0, REQUEST, &short),
            request(2, command::ORDERED, b"cancelled"),
            request(3, command::ORDERED, b"last"),
        ]
        .concat(),
    );
    let first = link.call();
    client.send(&cancel(2));
    let cancelled = client.response();
    assert_eq!((cancelled.up_seq, cancelled.execution()), (2, Execution::NotExecuted));
    assert_eq!(client.response().reason(), Reason::Timeout);
    assert_eq!(link.cancel().call_id, first.call_id);
    // The next one goes when the service has answered the one that was given up.
    link.nothing_else();
    link.reply(first.call_id, b"late");
    let last = link.call();
    assert_eq!(&last.payload[..], b"last");
    link.reply(last.call_id, b"");
    assert_eq!(client.response().up_seq, 3);
    drop(client);
    site.end();
}
