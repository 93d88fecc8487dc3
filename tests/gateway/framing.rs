//! Bytes that are no frames, frames that are no messages, and streams that end where they should not.

use crate::site::{Site, command};
use crate::wire::{Raw, RawClient, bare, frame, framed, hello, hello_frame, ping, request};
use moorgate_proto::envelope::member::client;
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Reason, gateway_frame::Member};
use prost::Message;

/// A gateway whose patience with unfinished frames is short.
const HASTY: &str = "[session]\nframe_timeout = \"200ms\"\n";

/// An unknown field with this many bytes of content; its number is beyond every message of ours.
fn unknown_field(bytes: usize) -> Vec<u8> {
    let mut field = Vec::new();
    prost::encoding::bytes::encode(1000, &vec![7u8; bytes], &mut field);
    field
}

/// A frame that says Hello and is exactly this long, length not counted.
fn hello_of(bytes: usize) -> Vec<u8> {
    let mut content = hello_frame(&hello()).split_off(4);
    let padding = bytes - content.len();
    let overhead = unknown_field(padding).len() - padding;
    content.extend(unknown_field(padding - overhead));
    assert_eq!(content.len(), bytes);
    framed(&content)
}

// spec: F-2, F-6, P-2
#[test]
fn empty_frame_is_a_bare_acknowledgement() {
    let site = Site::start("");
    let mut client = site.open();
    for part in [&[0, 0, 0, 0, 0, 0][..], &[0, 0]] {
        client.send(part);
    }
    assert_eq!(client.ask(1, command::OPEN, b"x").status, Code::Ok.to_wire());
    // It is no Hello.
    let mut other = site.connect();
    other.send(&[0, 0, 0, 0]);
    assert_eq!(other.error_reason(), Reason::ProtocolViolation);
    drop((client, other));
    site.end();
}

// spec: F-5, F-7
#[test]
fn a_huge_length_ends_the_connection_before_and_after_welcome() {
    let site = Site::start("");
    for length in [u32::MAX, 1 << 31, 16 * 1024 * 1024 + 1, 65 * 1024] {
        for mut client in [site.connect(), site.open()] {
            client.send(&length.to_be_bytes());
            assert_eq!(client.error_reason(), Reason::FrameTooLarge, "{length}");
        }
    }
    site.end();
}

// spec: F-3, F-4, F-7
#[test]
fn the_largest_frame_is_taken_and_one_byte_more_is_not() {
    let site = Site::start("[session]\nframe = \"64 KiB\"\n");
    let mut client = site.connect();
    client.send(&hello_of(4096));
    let limits = client.welcome().limits.unwrap();
    assert_eq!(limits.frame_bytes_max, 65536);
    let overhead = request(1, command::OPEN, &[0; 60_000]).len() - 4 - 60_000;
    let response = client.ask(1, command::OPEN, &vec![1; 65536 - overhead]);
    assert_eq!(response.status, Code::Ok.to_wire());
    client.send(&request(2, command::OPEN, &vec![1; 65536 - overhead + 1]));
    let error = client.error();
    assert_eq!((error.reason(), error.admitted), (Reason::FrameTooLarge, 1));
    let mut other = site.connect();
    other.send(&hello_of(4097));
    assert_eq!(other.error_reason(), Reason::FrameTooLarge);
    drop((client, other));
    site.end();
}

// spec: F-10
#[test]
fn a_length_that_lies_ends_with_the_frame_timeout_before_and_after_welcome() {
    let site = Site::start(HASTY);
    for mut client in [site.connect(), site.open()] {
        client.send(&[0, 0, 0, 100, 1, 2, 3]);
        let error = client.error();
        assert_eq!((error.status, error.reason()), (Code::DeadlineExceeded.to_wire(), Reason::FrameTimeout));
    }
    assert_eq!(site.metric("moorgate_close_reasons_total{reason=\"frame_timeout\"}"), 2);
    site.end();
}

// spec: F-10
#[test]
fn a_slow_drip_of_bytes_does_not_outlive_the_frame_timeout() {
    let site = Site::start(HASTY);
    let mut client = site.open();
    client.send(&[0, 0, 0xff, 0]);
    crate::site::until("the gateway closes", || {
        client.try_send(&[0]);
        site.metric("moorgate_close_reasons_total{reason=\"frame_timeout\"}") == 1
    });
    drop(client);
    site.end();
}

// spec: O-5
#[test]
fn silence_instead_of_hello_ends_with_the_handshake_timeout() {
    let site = Site::start("[session]\nhandshake_timeout = \"100ms\"\n");
    let mut client = site.connect();
    assert_eq!(client.error_reason(), Reason::HandshakeTimeout);
    drop(client);
    site.end();
}

#[test]
fn a_stream_that_ends_within_a_frame_leaves_nothing_behind() {
    let site = Site::start("");
    for mut client in [site.connect(), site.open()] {
        client.send(&[0, 0, 0, 100, 1, 2, 3]);
        client.finish();
        client.closed();
    }
    site.end();
}

#[test]
fn a_hello_cut_off_anywhere_leaves_nothing_behind() {
    let site = Site::start("");
    let whole = hello_frame(&v1::Hello { device_id: "phone".to_owned(), ..hello() });
    for cut in 0..whole.len() {
        let mut client = site.connect();
        client.send(&whole[..cut]);
        // Every other one waits for the gateway's side to end; the rest just go.
        if cut % 2 == 0 {
            client.finish();
            client.closed();
        }
    }
    site.metric_becomes("moorgate_connections_accepted_total", whole.len() as u64);
    site.is_empty_again();
    assert_eq!(site.metric("moorgate_sessions_opened_total"), 0);
    site.serves();
    site.end();
}

#[test]
fn random_bytes_do_no_harm() {
    let site = Site::start("[limits]\nconnections_per_address = 0\n[bans]\nenabled = false\n");
    let mut state = 0x5eed_0001_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut clients: Vec<RawClient> = Vec::new();
    for _ in 0..300 {
        let mut client = site.connect();
        let mut bytes = Vec::new();
        let kind = random() % 4;
        if kind > 0 {
            bytes.extend(hello_frame(&hello()));
        }
        let content: Vec<u8> = (0..random() % 200).map(|_| (random() >> 11).to_le_bytes()[0]).collect();
        match kind {
            // Frames of garbage; a garbage member in a good frame; garbage with garbage for a length.
            1 if !content.is_empty() => bytes.extend(framed(&content)),
            2 => bytes.extend(frame(random() % 3, 0, 8 + (random() % 9) as u32, &Raw(&content))),
            _ => bytes.extend(content),
        }
        client.try_send(&bytes);
        clients.push(client);
        if clients.len() == 20 {
            clients.clear();
        }
    }
    drop(clients);
    site.serves();
    site.end();
}

#[test]
fn http_and_tls_greetings_are_answered_with_an_error_and_the_end() {
    let site = Site::start("");
    let greetings: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: example\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    for greeting in greetings {
        let mut client = site.connect();
        client.send(greeting);
        assert_eq!(client.error_reason(), Reason::FrameTooLarge);
    }
    site.serves();
    site.end();
}

// spec: E-1, E-2, F-8
#[test]
fn several_members_in_one_frame_are_malformed() {
    let site = Site::start("");
    let ping = ping(1).split_off(4);
    let twice = framed(&[ping.clone(), ping].concat());
    for mut client in [site.connect(), site.open()] {
        client.send(&twice);
        assert_eq!(client.error_reason(), Reason::FrameMalformed);
    }
    site.end();
}

// spec: F-8
#[test]
fn frames_that_are_no_messages_are_malformed() {
    let site = Site::start("");
    let contents: [&[u8]; 6] = [&[0], &[0x48, 1], &[0x4a, 5, 0], &[0x08], &[0x4b], &[0xff; 11]];
    for content in contents {
        for mut client in [site.connect(), site.open()] {
            client.send(&framed(content));
            assert_eq!(client.error_reason(), Reason::FrameMalformed, "{content:x?}");
        }
    }
    site.end();
}

// spec: E-12
#[test]
fn members_that_are_not_their_message_are_malformed() {
    let site = Site::start("");
    let numbered = |member| u64::from(member == client::REQUEST);
    for member in client::HELLO + 1..=client::CLIENT_STATE {
        let mut client = site.open();
        // Field 1 with a wire type that no field 1 of these has.
        client.send(&frame(numbered(member), 0, member, &Raw(&[0x0d, 1, 2, 3, 4])));
        assert_eq!(client.error_reason(), Reason::FrameMalformed, "{member}");
    }
    let mut client = site.connect();
    client.send(&frame(0, 0, client::HELLO, &Raw(&[0x1a, 0x02, 0xff, 0xfe])));
    assert_eq!(client.error_reason(), Reason::FrameMalformed, "text that is not UTF-8");
    drop(client);
    site.end();
}

// spec: F-9
#[test]
fn one_byte_at_a_time_is_a_whole_conversation() {
    let site = Site::start("");
    let mut client = site.connect();
    let drip = |client: &mut RawClient, bytes: &[u8]| bytes.iter().for_each(|byte| client.send(&[*byte]));
    drip(&mut client, &hello_frame(&hello()));
    client.welcome();
    drip(&mut client, &request(1, command::OPEN, b"slow"));
    assert_eq!(&client.response().payload[..], b"slow");
    drip(&mut client, &ping(5));
    assert!(matches!(client.member(), Member::Pong(pong) if pong.nonce == 5));
    drip(&mut client, &bare(0, 1));
    drip(&mut client, &frame(0, 0, client::BYE, &v1::Bye::default()));
    assert!(matches!(client.member(), Member::ByeAck(_)));
    client.closed();
    drop(client);
    site.end();
}

// spec: E-4
#[test]
fn unknown_fields_are_ignored_everywhere() {
    let site = Site::start("");
    let with_unknown = |message: Vec<u8>| [message, unknown_field(3)].concat();
    let mut client = site.connect();
    client.send(&frame(0, 0, client::HELLO, &Raw(&with_unknown(hello().encode_to_vec()))));
    client.welcome();
    let body = v1::Request { command: command::OPEN, payload: b"new".to_vec().into(), ..Default::default() };
    let mut content = frame(1, 0, client::REQUEST, &Raw(&with_unknown(body.encode_to_vec()))).split_off(4);
    // In the envelope: field 3, and one beyond the members.
    content.extend([0x18, 1]);
    content.extend(unknown_field(3));
    client.send(&framed(&content));
    let response = client.response();
    assert_eq!((response.status, &response.payload[..]), (Code::Ok.to_wire(), &b"new"[..]));
    client.nothing_else();
    drop(client);
    site.end();
}

#[test]
fn data_and_fin_in_one_segment_release_the_connection() {
    let site = Site::start("");
    let good = [hello_frame(&hello()), request(1, command::OPEN, b"bye")].concat();
    let lasts: [&[u8]; 5] =
        [&good, &hello_frame(&hello()), &good[..7], b"GET / HTTP/1.1\r\n\r\n", &[0, 0, 0, 0]];
    let clients: Vec<RawClient> = (0..50)
        .map(|at| {
            let mut client = site.connect();
            // The kernel holds the bytes back until the end of the stream goes with them.
            socket2::SockRef::from(&client.stream).set_tcp_cork(true).unwrap();
            client.send(lasts[at % lasts.len()]);
            client.finish();
            client
        })
        .collect();
    site.metric_becomes("moorgate_connections_accepted_total", 50);
    site.is_empty_again();
    drop(clients);
    site.end();
}
