//! The driver against gateways by hand, where a test decides what a name stands for.

use super::Client;
use crate::core::Options;
use crate::session::Backoff;
use moorgate_proto::codec::{Assembler, put_frame};
use moorgate_proto::envelope::{Envelope, Numbers, member};
use moorgate_proto::v1;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

#[path = "../../../../tests/loopback/mod.rs"]
mod loopback;

const PATIENCE: Duration = Duration::from_secs(60);
const OPENING_TIMEOUT: Duration = Duration::from_millis(500);

/// Reads a Hello; whether it came.
fn hello(mut stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut assembler, mut buffer) = (Assembler::default(), [0; 4096]);
    loop {
        let count = stream.read(&mut buffer).unwrap();
        if count == 0 {
            return false;
        }
        let mut bytes = &buffer[..count];
        if let Some(frame) = assembler.next(&mut bytes, 4096).unwrap() {
            let found = Envelope::decode(frame).unwrap().member.unwrap().0;
            return found == member::client::HELLO;
        }
    }
}

fn welcome(mut stream: &TcpStream) {
    let limits = v1::Limits { frame_bytes_max: 65536, in_flight_max: 64, window_max: 128 };
    let welcome =
        v1::Welcome { version: 1, heartbeat_ms: 60_000, limits: Some(limits), ..Default::default() };
    let mut frame = Vec::new();
    put_frame(&mut frame, Numbers::NONE, member::gateway::WELCOME, &welcome);
    // A client that has given up is gone.
    drop(stream.write_all(&frame));
}

// spec: O-24
#[test]
fn name_whose_first_address_never_answers_is_tried_at_the_next() {
    let silent = TcpListener::bind(loopback::own_address()).unwrap();
    let answering = TcpListener::bind(loopback::own_address()).unwrap();
    let addresses = [loopback::nobody(), silent.local_addr().unwrap(), answering.local_addr().unwrap()];
    let backoff = Backoff { base: Duration::from_millis(5), max: Duration::from_millis(20) };
    let options = Options { opening_timeout: OPENING_TIMEOUT, ..Options::default() };
    let mut builder = Client::builder("gateway.example:7000").options(options).backoff(backoff);
    builder.lookup = Arc::new(move |name: &str| {
        assert_eq!(name, "gateway.example:7000");
        Ok(Vec::<SocketAddr>::from(addresses))
    });
    std::thread::spawn(move || {
        // However often it is tried: a busy machine may be late.
        let mut open = Vec::new();
        for stream in answering.incoming().map(Result::unwrap) {
            if hello(&stream) {
                welcome(&stream);
                open.push(stream);
            }
        }
    });
    let client = builder.start().unwrap();
    client.opened(PATIENCE).unwrap();
    // Connections to it were accepted, and nobody has read them.
    silent.accept().unwrap();
}
