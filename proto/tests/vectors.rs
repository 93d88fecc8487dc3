//! Every frame of `proto/vectors/` is what its text says, what the generated types write, and what the views write.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

#[path = "contract/schema.rs"]
mod schema;
#[path = "contract/text.rs"]
mod text;
#[path = "contract/vector_file.rs"]
mod vector_file;

use moorgate_proto::codec::{Assembler, FrameError, LENGTH_BYTES, put_bare_frame, put_frame};
use moorgate_proto::envelope::{Envelope, member};
use moorgate_proto::limits::{FRAME_BYTES_MAIN_LINK, FRAME_BYTES_OPENING};
use moorgate_proto::proof::{ApplicationFacts, ApplicationKey, LinkFacts, LinkKey, Prover};
use moorgate_proto::v1;
use moorgate_proto::view::{Body, CallView, PushView, ReplyView, RequestView, ResponseView};
use prost::Message;
use schema::Schema;
use vector_file::{Vector, read, read_all};

const FILES: [&str; 3] = ["client.txt", "gateway.txt", "links.txt"];

/// Appends a frame.
type Writer<'a> = Box<dyn Fn(&mut Vec<u8>) + 'a>;

fn good() -> Vec<Vector> {
    FILES.into_iter().flat_map(read).collect()
}

/// The bytes behind the length, which must be right.
fn body(vector: &Vector) -> Vec<u8> {
    let bytes = vector.bytes("hex");
    let mut rest = &bytes[..];
    let mut assembler = Assembler::default();
    let frame = assembler.next(&mut rest, usize::MAX).unwrap().map(<[u8]>::to_vec);
    assert!(rest.is_empty(), "{}: bytes behind the frame", vector.name());
    frame.unwrap_or_else(|| panic!("{}: the frame is not whole", vector.name()))
}

/// Whether it has fields that the `.proto` files do not have.
fn is_of_a_newer_peer(vector: &Vector) -> bool {
    vector
        .text("text")
        .lines()
        .any(|line| line.trim_start().starts_with(|first: char| first.is_ascii_digit()))
}

/// Through the generated type and back.
fn rewritten(vector: &Vector, frame: &[u8]) -> Result<Vec<u8>, prost::DecodeError> {
    Ok(match vector.frame() {
        "ClientFrame" => v1::ClientFrame::decode(frame)?.encode_to_vec(),
        "GatewayFrame" => v1::GatewayFrame::decode(frame)?.encode_to_vec(),
        "ToService" => v1::ToService::decode(frame)?.encode_to_vec(),
        _ => v1::ToGateway::decode(frame)?.encode_to_vec(),
    })
}

fn find(name: &str) -> Vector {
    let found = read_all().into_iter().find(|vector| vector.name() == name);
    found.unwrap_or_else(|| panic!("no vector {name}"))
}

fn in_hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|byte| format!(" {byte:02x}")).collect::<String>();
    bytes.chunks(32).map(|chunk| format!("\n {}", line(chunk))).collect()
}

#[test]
fn the_bytes_say_what_the_text_says() {
    let schema = Schema::read();
    let mut wrong = String::new();
    for vector in good() {
        let body = text::encode(&schema, vector.frame(), vector.text("text"));
        let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        frame.extend(body);
        if vector.text("hex").trim() == "?" || vector.bytes("hex") != frame {
            wrong.push_str(&format!("name: {}\nhex:{}\n", vector.name(), in_hex(&frame)));
        }
    }
    assert!(wrong.is_empty(), "by their text these would be\n{wrong}");
}

#[test]
fn the_generated_types_write_the_same_bytes() {
    for vector in good() {
        let frame = body(&vector);
        let rewritten = rewritten(&vector, &frame).unwrap();
        if let Some(other) = vector.find("same-as") {
            assert_ne!(rewritten, frame, "{}: it is in order", vector.name());
            assert_eq!(in_hex(&rewritten), in_hex(&body(&find(other))), "{}", vector.name());
        } else if is_of_a_newer_peer(&vector) {
            assert!(rewritten.len() < frame.len(), "{}: nothing in it is unknown", vector.name());
        } else {
            assert_eq!(in_hex(&rewritten), in_hex(&frame), "{}", vector.name());
        }
    }
}

#[test]
fn the_views_write_the_same_bytes() {
    let mut seen = [0; 6];
    let in_order = |vector: &Vector| !is_of_a_newer_peer(vector) && vector.find("same-as").is_none();
    for vector in good().into_iter().filter(in_order) {
        let frame = body(&vector);
        let envelope = Envelope::decode(&frame).unwrap();
        let Some((number, message)) = envelope.member else {
            let mut out = Vec::new();
            put_bare_frame(&mut out, envelope.numbers);
            assert_eq!(out, vector.bytes("hex"), "{}", vector.name());
            seen[0] += 1;
            continue;
        };
        let view: (usize, Writer<'_>) = match (vector.frame(), number) {
            ("ClientFrame", member::client::REQUEST) => {
                (1, put(envelope, RequestView::decode(message).unwrap()))
            }
            ("GatewayFrame", member::gateway::RESPONSE) => {
                (2, put(envelope, ResponseView::decode(message).unwrap()))
            }
            ("GatewayFrame", member::gateway::PUSH) => (3, put(envelope, PushView::decode(message).unwrap())),
            ("ToService", member::to_service::CALL) => (4, put(envelope, CallView::decode(message).unwrap())),
            ("ToGateway", member::to_gateway::REPLY) => {
                let view = ReplyView::decode(message).unwrap();
                let generated = v1::Reply::decode(message).unwrap();
                assert_eq!(view.directives.0 as usize, generated.directives.len());
                if view.directives.0 > 0 {
                    // Views count directives, and do not write them.
                    continue;
                }
                (5, put(envelope, view))
            }
            _ => continue,
        };
        let mut out = Vec::new();
        view.1(&mut out);
        assert_eq!(in_hex(&out), in_hex(&vector.bytes("hex")), "{}", vector.name());
        seen[view.0] += 1;
    }
    assert!(seen.iter().all(|count| *count > 0), "a view without a vector: {seen:?}");
}

fn put<'a>(envelope: Envelope<'a>, view: impl Body + 'a) -> Writer<'a> {
    let number = envelope.member.unwrap().0;
    Box::new(move |out| put_frame(out, envelope.numbers, number, &view))
}

#[test]
fn every_member_has_a_vector() {
    let vectors = good();
    let schema = Schema::read();
    for frame in ["ClientFrame", "GatewayFrame", "ToService", "ToGateway"] {
        let of_frame = || vectors.iter().filter(|vector| vector.frame() == frame);
        let members: Vec<u32> =
            of_frame().filter_map(|v| Some(Envelope::decode(&body(v)).unwrap().member?.0)).collect();
        for (number, message) in schema.members(frame) {
            assert!(members.contains(&number), "{frame}: no vector of {message}");
        }
    }
}

#[test]
fn unknown_members_are_found_by_their_numbers() {
    for (name, seq, number) in [
        ("unknown-member-numbered", 2, 40),
        ("unknown-member-unnumbered", 0, 63),
        ("unknown-fields", 1, member::client::REQUEST),
        ("gateway-unknown-member-numbered", 5, 50),
        ("link-unknown-member", 0, 63),
    ] {
        let frame = body(&find(name));
        let envelope = Envelope::decode(&frame).unwrap();
        assert_eq!((envelope.numbers.seq, envelope.member.unwrap().0), (seq, number), "{name}");
    }
    for name in ["request", "unknown-fields", "request-any-order"] {
        let frame = body(&find(name));
        let envelope = Envelope::decode(&frame).unwrap();
        let request = RequestView::decode(envelope.member.unwrap().1).unwrap();
        assert_eq!((envelope.numbers.seq, request.command, request.payload), (1, 1, &b"hello"[..]), "{name}");
    }
}

/// How far the bytes get with a receiver: `Ok` means that only its state can tell what is wrong.
fn judge(vector: &Vector) -> Result<(), &'static str> {
    let bytes = vector.bytes("hex");
    let max = if vector.text("state") == "opening" { FRAME_BYTES_OPENING } else { FRAME_BYTES_MAIN_LINK };
    let mut assembler = Assembler::default();
    let frame = match assembler.next(&mut &bytes[..], max) {
        Err(FrameError::TooLarge { .. }) => return Err("FRAME_TOO_LARGE"),
        Ok(frame) => frame.unwrap_or_else(|| panic!("{}: the frame is not whole", vector.name())),
    };
    let envelope = Envelope::decode(frame).map_err(|_| "FRAME_MALFORMED")?;
    if let (Some((member::client::REQUEST, body)), "ClientFrame") = (envelope.member, vector.frame()) {
        let view = RequestView::decode(body).map_err(|_| "FRAME_MALFORMED")?;
        v1::Trace::decode(view.trace).map_err(|_| "FRAME_MALFORMED")?;
    }
    if let (Some((member::to_gateway::REPLY, body)), "ToGateway") = (envelope.member, vector.frame()) {
        ReplyView::decode(body).map_err(|_| "FRAME_MALFORMED")?;
    }
    rewritten(vector, frame).map(|_| ()).map_err(|_| "FRAME_MALFORMED")
}

#[test]
fn malformed_bytes_are_refused_for_their_reason() {
    for vector in read("malformed.txt") {
        let fault = vector.text("fault");
        let expected = if fault.starts_with("FRAME_") { Err(fault) } else { Ok(()) };
        assert_eq!(judge(&vector), expected, "{}", vector.name());
        assert!(v1::Reason::from_str_name(&format!("REASON_{fault}")).is_some(), "{fault}");
    }
}

/// Each byte for itself says the same as all at once.
#[test]
fn any_split_gives_the_same_frame() {
    for vector in good() {
        let mut assembler = Assembler::default();
        let mut frames = Vec::new();
        for byte in vector.bytes("hex") {
            let byte = [byte];
            let mut input = &byte[..];
            while let Some(frame) = assembler.next(&mut input, FRAME_BYTES_MAIN_LINK).unwrap() {
                frames.push(frame.to_vec());
            }
        }
        assert_eq!(frames, [body(&vector)], "{}", vector.name());
        assert_eq!(vector.bytes("hex").len(), LENGTH_BYTES + frames[0].len());
    }
}

// spec: L-10, V-5
#[test]
fn proofs_hold() {
    let (hello, ack, auth) = (find("link-hello"), find("link-hello-ack"), find("link-auth"));
    let frames = [body(&hello), body(&ack), body(&auth)];
    let message = |at: usize| Envelope::decode(&frames[at]).unwrap().member.unwrap().1;
    let key = LinkKey::new(&ack.bytes("key")).unwrap();
    assert_eq!(ack.bytes("key"), auth.bytes("key"));
    let (hello, ack) =
        (v1::LinkHello::decode(message(0)).unwrap(), v1::LinkHelloAck::decode(message(1)).unwrap());
    let auth = v1::LinkAuth::decode(message(2)).unwrap();
    let facts = LinkFacts {
        version: ack.version,
        gateway_id: &hello.gateway_id,
        boot_id: hello.boot_id,
        service: &hello.service,
        instance_id: &ack.instance_id,
        gateway_nonce: &hello.nonce,
        service_nonce: &ack.nonce,
        purpose: hello.purpose,
    };
    assert_eq!(facts.prove(&key, Prover::Service)[..], ack.proof[..]);
    assert_eq!(facts.prove(&key, Prover::Gateway)[..], auth.proof[..]);
    assert!(facts.verify(&key, Prover::Service, &ack.proof));
    assert!(!LinkFacts { version: 2, ..facts }.verify(&key, Prover::Service, &ack.proof));
}

#[test]
fn the_proof_of_an_application_holds() {
    let vector = find("hello-application-proof");
    let frame = body(&vector);
    let hello = v1::Hello::decode(Envelope::decode(&frame).unwrap().member.unwrap().1).unwrap();
    let proof = hello.application_proof.unwrap();
    let facts = ApplicationFacts {
        application: &hello.application,
        device_id: &hello.device_id,
        time_ms: proof.time_ms,
        nonce: &proof.nonce,
    };
    assert!(facts.verify(&ApplicationKey::new(&vector.bytes("key")).unwrap(), &proof.mac));
}
