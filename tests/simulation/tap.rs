//! Listens at the gateway's sockets: what clients really said to it, and what it really answered.

use crate::network::ConnId;
use crate::world::World;
use moorgate_proto::codec::{Assembler, LENGTH_BYTES};
use moorgate_proto::envelope::Envelope;
use moorgate_proto::envelope::member::{client, gateway};
use moorgate_proto::limits::FRAME_BYTES_CEILING;
use moorgate_proto::v1;
use moorgate_proto::view::{PushView, ResponseView};
use prost::Message;

/// One direction of a connection.
#[derive(Debug, Default)]
struct Stream {
    assembler: Assembler,
    /// It is none of our protocol.
    is_garbage: bool,
}

/// One connection between a client and the gateway.
#[derive(Debug, Default)]
pub struct Tap {
    up: Stream,
    down: Stream,
    /// A Hello was read, and nobody has looked yet.
    pub hello_is_new: bool,
    /// It was to resume a session.
    pub is_resume: bool,
    /// The frame that its client says it has sent first, where a planted bug has altered it.
    pub claimed: Option<Vec<u8>>,
}

/// A client's frame.
#[derive(Debug)]
pub enum Up {
    Hello(Box<v1::Hello>),
    Request(u64),
    Cancel(u64),
    Bye(u32),
    Other,
}

/// What a numbered frame of the gateway carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carried {
    Response(u64),
    Push(Vec<u8>),
    Gap(u64, u64),
    Other,
}

/// A gateway's frame.
#[derive(Debug)]
pub enum Down {
    Welcome(Box<v1::Welcome>),
    Login(v1::LoginResult),
    Numbered(u64, Carried, usize),
    Error(v1::Error),
    ByeAck,
}

impl Stream {
    /// The frames that these bytes complete.
    fn frames(&mut self, mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while !self.is_garbage {
            match self.assembler.next(&mut bytes, FRAME_BYTES_CEILING) {
                Ok(Some(frame)) => frames.push(frame.to_vec()),
                Ok(None) => break,
                Err(_) => self.is_garbage = true,
            }
        }
        frames
    }
}

fn up(envelope: &Envelope<'_>) -> Option<Up> {
    Some(match envelope.member {
        Some((client::HELLO, body)) => Up::Hello(Box::new(v1::Hello::decode(body).ok()?)),
        Some((client::REQUEST, _)) => Up::Request(envelope.numbers.seq),
        Some((client::CANCEL, body)) => Up::Cancel(v1::Cancel::decode(body).ok()?.up_seq),
        Some((client::BYE, body)) => Up::Bye(v1::Bye::decode(body).ok()?.keep_for_ms),
        _ => Up::Other,
    })
}

/// What these bytes of a frame say; a Response to a login says two things.
fn down(envelope: &Envelope<'_>, len: usize) -> Option<Vec<Down>> {
    let mut said = Vec::new();
    let carried = match envelope.member {
        Some((gateway::WELCOME, body)) => {
            return Some(vec![Down::Welcome(Box::new(v1::Welcome::decode(body).ok()?))]);
        }
        Some((gateway::ERROR, body)) => return Some(vec![Down::Error(v1::Error::decode(body).ok()?)]),
        Some((gateway::BYE_ACK, _)) => return Some(vec![Down::ByeAck]),
        Some((gateway::RESPONSE, body)) => {
            let response = ResponseView::decode(body).ok()?;
            if !response.login.is_empty() {
                said.push(Down::Login(v1::LoginResult::decode(response.login).ok()?));
            }
            Carried::Response(response.up_seq)
        }
        Some((gateway::PUSH, body)) => Carried::Push(PushView::decode(body).ok()?.push_id.to_vec()),
        Some((gateway::GAP, body)) => {
            let gap = v1::Gap::decode(body).ok()?;
            Carried::Gap(gap.first, gap.last)
        }
        _ => Carried::Other,
    };
    if envelope.numbers.seq > 0 {
        said.push(Down::Numbered(envelope.numbers.seq, carried, len));
    }
    Some(said)
}

impl World {
    /// Bytes that the gateway is about to read; whether nothing waits in the other direction.
    pub fn tap_up(&mut self, conn: ConnId, bytes: &[u8], is_clear: bool) {
        for frame in self.taps[conn].up.frames(bytes) {
            let claimed = self.taps[conn].claimed.take().map(|claimed| claimed[LENGTH_BYTES..].to_vec());
            let frame = claimed.unwrap_or(frame);
            let Some(said) = Envelope::decode(&frame).ok().and_then(|envelope| up(&envelope)) else {
                continue;
            };
            if let Up::Hello(hello) = &said {
                self.taps[conn].hello_is_new = true;
                self.taps[conn].is_resume = hello.resume.is_some();
            }
            let now = self.now;
            self.trace.note(now, "up", (conn as u64, frame.len() as u64), || match &said {
                Up::Hello(hello) => format!("on {conn}: Hello, resume {:?}", hello.resume),
                said => format!("on {conn}: {said:?}"),
            });
            self.sessions.said(now, conn, said, is_clear);
        }
    }

    /// Bytes that the gateway has written.
    pub fn tap_down(&mut self, conn: ConnId, bytes: &[u8]) {
        for frame in self.taps[conn].down.frames(bytes) {
            let Ok(envelope) = Envelope::decode(&frame) else { continue };
            let Some(all) = down(&envelope, frame.len()) else { continue };
            self.sessions.admitted(conn, envelope.numbers.ack);
            for said in all {
                let now = self.now;
                self.trace
                    .note(now, "down", (conn as u64, frame.len() as u64), || format!("on {conn}: {said:?}"));
                match &said {
                    Down::Welcome(welcome) => self.note_heartbeat(conn, welcome),
                    Down::Error(error) => self.judge_error(conn, error),
                    _ => {}
                }
                let problem = self.sessions.heard(now, conn, said);
                for path in std::mem::take(&mut self.sessions.noted) {
                    self.reach(path);
                }
                if let Some(problem) = problem {
                    self.oracle.violated(problem);
                }
            }
        }
    }
}
