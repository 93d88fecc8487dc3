//! The driver of one connection against a gateway's end by hand.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

mod peer;

use moorgate_client::core::{End, Fault, Refused};
use moorgate_client::{Connection, ConnectionError, Execution, Options, RequestOptions};
use moorgate_proto::envelope::member::gateway;
use moorgate_proto::v1::{self, client_frame::Member};
use peer::{IN_FLIGHT, PATIENCE, Peer};
use std::io::Write;
use std::net::TcpListener;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

/// A client, and the thread of a peer that does this.
fn meet(
    options: Options,
    peer: impl FnOnce(&mut Peer) + Send + 'static,
) -> (Result<Connection, ConnectionError>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        peer(&mut Peer::new(stream));
    });
    (Connection::connect(address, options, ""), thread)
}

fn ask(client: &mut Connection) -> Result<moorgate_client::core::RequestId, ConnectionError> {
    client.start(&RequestOptions::command(1), b"hi")
}

// spec: U-6
#[test]
fn answers_are_found_in_any_order() {
    let (client, peer) = meet(Options::default(), |peer| {
        peer.welcome(60_000);
        let asked = [peer.request(), peer.request(), peer.request()];
        for up_seq in asked.into_iter().rev() {
            peer.answer(up_seq);
        }
        assert!(matches!(peer.hear().unwrap().member, Some(Member::Bye(_))));
        peer.say(gateway::BYE_ACK, &v1::ByeAck::default());
    });
    let mut client = client.unwrap();
    for id in [(); 3].map(|()| ask(&mut client).unwrap()) {
        assert_eq!(client.answer(id, PATIENCE).unwrap().payload, id.0.to_be_bytes());
    }
    client.bye().unwrap();
    peer.join().unwrap();
}

#[test]
fn no_answer_is_lost_to_many_others() {
    let options = Options::default();
    let all = options.waiting_max as u64 + u64::from(IN_FLIGHT);
    let (client, peer) = meet(options, move |peer| {
        peer.welcome(60_000);
        for _ in 0..all {
            let up_seq = peer.request();
            peer.answer(up_seq);
        }
    });
    let mut client = client.unwrap();
    let ids: Vec<_> = (0..all).map(|_| ask(&mut client).unwrap()).collect();
    assert!(matches!(ask(&mut client), Err(ConnectionError::NotTaken(Refused::Full))));
    for id in ids.into_iter().rev() {
        assert_eq!(client.answer(id, PATIENCE).unwrap().payload, id.0.to_be_bytes());
    }
    drop(client);
    peer.join().unwrap();
}

// spec: S-15, X-3
#[test]
fn the_last_word_is_heard_although_writing_fails_and_is_told_by_every_call() {
    let (go_on, welcomed) = channel();
    let (client, peer) = meet(Options::default(), move |peer| {
        peer.welcome(60_000);
        welcomed.recv().unwrap();
        peer.refuse("enough");
    });
    let mut client = client.unwrap();
    go_on.send(()).unwrap();
    peer.join().unwrap();
    // The peer is gone: the first write brings a reset, the second fails.
    let ids = [(); 3].map(|()| ask(&mut client).unwrap());
    for id in ids {
        let answer = client.answer(id, PATIENCE);
        assert!(matches!(answer, Err(ConnectionError::Unanswered(Execution::NotExecuted))), "{answer:?}");
    }
    let refused = |error: ConnectionError| matches!(error, ConnectionError::Refused(error) if error.message == "enough");
    assert!(refused(client.push(PATIENCE).unwrap_err()));
    assert!(refused(client.push(PATIENCE).unwrap_err()));
    assert!(refused(client.answer(ids[0], PATIENCE).unwrap_err()));
    assert!(refused(ask(&mut client).unwrap_err()));
}

// spec: S-15, X-16
#[test]
fn a_connection_lost_within_a_frame_leaves_the_request_unknown() {
    let (client, peer) = meet(Options::default(), |peer| {
        peer.welcome(60_000);
        peer.request();
        peer.stream.write_all(&[0, 0, 0, 9, 1]).unwrap();
    });
    let mut client = client.unwrap();
    let answer = client.request(1, b"hi", PATIENCE);
    assert!(matches!(answer, Err(ConnectionError::Unanswered(Execution::Unknown))), "{answer:?}");
    assert!(matches!(client.push(PATIENCE), Err(ConnectionError::Ended(End::Lost))));
    peer.join().unwrap();
}

// spec: P-5, P-6
#[test]
fn a_gateway_that_answers_no_ping_is_lost() {
    let (client, peer) = meet(Options::default(), |peer| {
        peer.welcome(20);
        assert!(matches!(peer.hear().unwrap().member, Some(Member::Ping(_))));
        while peer.hear().is_some() {}
    });
    let mut client = client.unwrap();
    assert!(matches!(client.push(PATIENCE), Err(ConnectionError::Ended(End::Silence))));
    drop(client);
    peer.join().unwrap();
}

// spec: C-4
#[test]
fn a_request_without_an_answer_is_cancelled_and_its_answer_is_still_taken() {
    let (client, peer) = meet(Options::default(), |peer| {
        peer.welcome(60_000);
        let up_seq = peer.request();
        let cancel = peer.hear().unwrap().member;
        assert!(matches!(cancel, Some(Member::Cancel(cancel)) if cancel.up_seq == up_seq));
        peer.answer(up_seq);
    });
    let mut client = client.unwrap();
    let id = ask(&mut client).unwrap();
    assert!(matches!(client.answer(id, Duration::ZERO), Err(ConnectionError::TimedOut)));
    assert_eq!(client.answer(id, PATIENCE).unwrap().payload, id.0.to_be_bytes());
    peer.join().unwrap();
}

// spec
#[test]
fn a_gateway_that_goes_away_answers_what_is_open_and_says_when_to_come_back() {
    let (client, peer) = meet(Options::default(), |peer| {
        peer.welcome(60_000);
        let up_seq = peer.request();
        let go_away = v1::GoAway { reconnect_after_ms: 77, ..v1::GoAway::default() };
        peer.say(gateway::GO_AWAY, &go_away);
        peer.answer(up_seq);
        while !matches!(peer.hear().unwrap().member, Some(Member::Bye(_))) {}
        peer.say(gateway::BYE_ACK, &v1::ByeAck::default());
    });
    let mut client = client.unwrap();
    assert!(client.going_away().is_none());
    assert!(client.request(1, b"hi", PATIENCE).is_ok());
    assert_eq!(client.going_away().unwrap().reconnect_after_ms, 77);
    assert!(matches!(ask(&mut client), Err(ConnectionError::NotTaken(Refused::NotOpen))));
    client.bye().unwrap();
    peer.join().unwrap();
}

// spec: F-12, O-21, O-24
#[test]
fn an_opening_that_fails_says_how() {
    let quick = Options { opening_timeout: Duration::from_millis(50), ..Options::default() };
    let (client, peer) = meet(Options::default(), |peer| peer.refuse("not you"));
    assert!(matches!(client, Err(ConnectionError::Refused(error)) if error.message == "not you"));
    peer.join().unwrap();
    let (client, peer) = meet(Options::default(), |peer| {
        peer.stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        while peer.hear().is_some() {}
    });
    assert!(matches!(client, Err(ConnectionError::Ended(End::Fault(Fault::Frame(_))))), "{client:?}");
    peer.join().unwrap();
    let (client, peer) = meet(quick, |peer| while peer.hear().is_some() {});
    assert!(matches!(client, Err(ConnectionError::Ended(End::OpeningTimeout) | ConnectionError::TimedOut)));
    peer.join().unwrap();
}
