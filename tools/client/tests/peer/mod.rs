//! A gateway's end of a connection, by hand.

#![allow(dead_code, reason = "each test file uses some of it")]

#[path = "../../../../tests/loopback/mod.rs"]
mod loopback;

use moorgate_proto::codec::{Assembler, put_frame};
use moorgate_proto::envelope::{Numbers, member::gateway};
use moorgate_proto::v1::{self, ResumeResult, client_frame::Member};
use moorgate_proto::view::Body;
use prost::Message;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::time::Duration;

/// Far longer than anything here takes; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const IN_FLIGHT: u32 = 64;
pub(crate) const SERVER_TIME_MS: u64 = 1_700_000_000_000;

/// Where clients connect.
pub(crate) struct Listener {
    socket: TcpListener,
}

impl Listener {
    pub(crate) fn new() -> Listener {
        Listener::at(loopback::own_address())
    }

    pub(crate) fn at(address: SocketAddr) -> Listener {
        Listener { socket: TcpListener::bind(address).unwrap() }
    }

    pub(crate) fn address(&self) -> String {
        self.socket.local_addr().unwrap().to_string()
    }

    /// The next client's connection.
    pub(crate) fn accept(&self) -> Peer {
        let (tell, told) = channel();
        let socket = self.socket.try_clone().unwrap();
        std::thread::spawn(move || {
            let (stream, _) = socket.accept().unwrap();
            // When the test goes on, nothing but its own socket listens there.
            drop(socket);
            let _ = tell.send(stream);
        });
        Peer::new(told.recv_timeout(PATIENCE).unwrap())
    }
}

/// An address where nobody listens.
pub(crate) fn nobody() -> SocketAddr {
    loopback::nobody()
}

/// One connection.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    assembler: Assembler,
    heard: VecDeque<v1::ClientFrame>,
    numbered: u64,
    /// What Welcomes say beside the rest.
    pub(crate) template: v1::Welcome,
}

impl Peer {
    pub(crate) fn new(stream: TcpStream) -> Peer {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Peer {
            stream,
            assembler: Assembler::default(),
            heard: VecDeque::new(),
            numbered: 0,
            template: v1::Welcome::default(),
        }
    }

    pub(crate) fn say(&mut self, member: u32, body: &impl Body) {
        self.say_as(0, member, body);
    }

    fn say_as(&mut self, seq: u64, member: u32, body: &impl Body) {
        let mut frame = Vec::new();
        put_frame(&mut frame, Numbers { seq, ack: 0 }, member, body);
        self.stream.write_all(&frame).unwrap();
    }

    pub(crate) fn say_numbered(&mut self, member: u32, body: &impl Body) {
        self.numbered += 1;
        self.say_as(self.numbered, member, body);
    }

    /// What the client says next; `None`: its end of stream.
    pub(crate) fn hear(&mut self) -> Option<v1::ClientFrame> {
        let mut buffer = vec![0; 64 * 1024];
        while self.heard.is_empty() {
            let count = match self.stream.read(&mut buffer) {
                // A read with a timeout is not taken up again after a signal.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                count => count.unwrap(),
            };
            if count == 0 {
                return None;
            }
            let mut bytes = &buffer[..count];
            while let Some(frame) = self.assembler.next(&mut bytes, usize::MAX).unwrap() {
                self.heard.push_back(v1::ClientFrame::decode(frame).unwrap());
            }
        }
        self.heard.pop_front()
    }

    /// The next member; acknowledgements are passed over.
    pub(crate) fn member(&mut self) -> Member {
        loop {
            if let Some(member) = self.hear().unwrap().member {
                return member;
            }
        }
    }

    /// The number of the next request.
    pub(crate) fn request(&mut self) -> u64 {
        self.asked().0
    }

    /// The next request, with its number.
    pub(crate) fn asked(&mut self) -> (u64, v1::Request) {
        loop {
            match self.hear().unwrap() {
                v1::ClientFrame { up_seq, member: Some(Member::Request(request)), .. } => {
                    return (up_seq, request);
                }
                v1::ClientFrame { member: None, .. } => {}
                other => panic!("no request but {other:?}"),
            }
        }
    }

    /// Waits for an acknowledgement of this number.
    pub(crate) fn acknowledged(&mut self, down_seq: u64) {
        while self.hear().unwrap().ack < down_seq {}
    }

    pub(crate) fn hello(&mut self) -> v1::Hello {
        match self.member() {
            Member::Hello(hello) => hello,
            other => panic!("no Hello but {other:?}"),
        }
    }

    /// Takes a Hello and answers it; its access token.
    pub(crate) fn welcome(&mut self, heartbeat_ms: u32) -> String {
        let hello = self.hello();
        self.welcome_user("", heartbeat_ms, 0);
        hello.access_token
    }

    /// Welcomes this user, with a token that lives so long; 0: for ever.
    pub(crate) fn welcome_user(&mut self, user_id: &str, heartbeat_ms: u32, life_ms: u64) {
        let limits =
            v1::Limits { frame_bytes_max: 65536, in_flight_max: IN_FLIGHT, window_max: 2 * IN_FLIGHT };
        let welcome = v1::Welcome {
            version: 1,
            heartbeat_ms,
            limits: Some(limits),
            user_id: user_id.to_owned(),
            server_time_ms: SERVER_TIME_MS,
            access_expires_ms: if life_ms == 0 { 0 } else { SERVER_TIME_MS + life_ms },
            ..self.template.clone()
        };
        self.say(gateway::WELCOME, &welcome);
    }

    /// Takes a Hello, and welcomes this user with this result, resume token and admitted number, going on after this
    /// `down_seq`.
    pub(crate) fn resumes(
        &mut self,
        user_id: &str,
        (result, token): (ResumeResult, &[u8]),
        admitted: u64,
        sent: u64,
    ) -> v1::Hello {
        let hello = self.hello();
        self.template = v1::Welcome {
            resume_result: result.into(),
            resume_token: token.to_vec().into(),
            detached_ttl_ms: 60_000,
            admitted,
            ..v1::Welcome::default()
        };
        self.numbered = sent;
        self.welcome_user(user_id, 60_000, 0);
        hello
    }

    /// As [`Peer::resumes`], for alice; what the Hello asked for: token, attempt and `down_seq`.
    pub(crate) fn resume(
        &mut self,
        how: (ResumeResult, &[u8]),
        admitted: u64,
        sent: u64,
    ) -> Option<(Vec<u8>, u64, u64)> {
        let resume = self.resumes("alice", how, admitted, sent).resume?;
        Some((resume.resume_token.to_vec(), resume.attempt, resume.down_seq))
    }

    pub(crate) fn answer(&mut self, up_seq: u64) {
        let payload = up_seq.to_be_bytes().to_vec().into();
        self.answer_with(v1::Response { up_seq, payload, ..v1::Response::default() });
    }

    pub(crate) fn answer_with(&mut self, response: v1::Response) {
        self.say_numbered(gateway::RESPONSE, &response);
    }

    pub(crate) fn refuse(&mut self, message: &str) {
        let error = v1::Error { message: message.to_owned(), ..v1::Error::default() };
        self.say(gateway::ERROR, &error);
    }

    /// Takes the client's Bye and answers it.
    pub(crate) fn bye(&mut self) {
        match self.member() {
            Member::Bye(_) => self.say(gateway::BYE_ACK, &v1::ByeAck::default()),
            other => panic!("no Bye but {other:?}"),
        }
    }
}
