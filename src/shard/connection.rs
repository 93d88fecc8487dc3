//! One connection as its shard keeps it: state, unfinished input, unsent output, deadlines.

use crate::base::ids::SessionKey;
use crate::base::wheel::Alarm;
use moorgate_proto::codec::Assembler;
use moorgate_proto::time::Mono;
use std::net::SocketAddr;
use std::time::Duration;

/// ```text
/// Opening ── good Hello ──► Open ── Fault, Bye, drain ──► Closing ── all sent ──► HalfClosed ── peer's end ──► gone
///    └─────────── Fault ──────────────────────────────────────▲          └── linger over ──► gone ◄── linger over ─┘
/// ```
/// The end of the peer's stream, or an error of the socket, leads from anywhere to gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Waits for a Hello until then.
    Opening(Mono),
    /// Has a session.
    Open(SessionKey),
    /// The last frame is in the output; what comes in is ignored. Gone then at the latest.
    Closing(Mono),
    /// The last frame was sent, and the end of our stream with it.
    HalfClosed(Mono),
}

/// Whatever has no deadline now.
const NEVER: Mono = Mono::NEVER;

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) state: State,
    pub(super) peer: SocketAddr,
    pub(super) assembler: Assembler,
    pub(super) output: Output,
    /// When the last complete frame came.
    pub(super) heard: Mono,
    /// The peer has promised to be heard again by then; `NEVER`: it has not.
    pub(super) announced: Mono,
    /// When the unfinished frame began.
    pub(super) frame_began: Mono,
    pub(super) alarm: Alarm,
}

/// Bytes on their way out.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) bytes: Vec<u8>,
    /// How many of them the socket has taken.
    sent: usize,
    /// Since when the socket takes nothing.
    stalled: Mono,
    /// In the list of connections to be flushed.
    pub(super) listed: bool,
}

impl Output {
    pub(super) fn unsent(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.unsent().is_empty()
    }

    /// Room is judged by what is unsent.
    pub(super) fn is_above(&self, high: usize) -> bool {
        self.unsent().len() >= high
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.stalled != NEVER
    }

    /// The socket took `count` bytes; what is left has to wait for it. Returns the buffer once it is used up.
    pub(super) fn took(&mut self, now: Mono, count: usize) -> Option<Vec<u8>> {
        self.sent = self.sent.saturating_add(count);
        if self.is_empty() {
            self.sent = 0;
            self.stalled = NEVER;
            let mut buffer = std::mem::take(&mut self.bytes);
            buffer.clear();
            return Some(buffer);
        }
        if count > 0 || self.stalled == NEVER {
            self.stalled = now;
        }
        // A client that always reads a little must not let the sent part pile up.
        if self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        None
    }
}

impl Connection {
    pub(super) fn new(now: Mono, peer: SocketAddr, handshake_deadline: Mono) -> Connection {
        Connection {
            state: State::Opening(handshake_deadline),
            peer,
            assembler: Assembler::default(),
            output: Output {
                bytes: Vec::new(),
                sent: 0,
                stalled: NEVER,
                listed: false,
            },
            heard: now,
            announced: NEVER,
            frame_began: NEVER,
            alarm: Alarm::default(),
        }
    }

    /// When the unfinished frame is overdue.
    pub(super) fn frame_deadline(&self, timeout: Duration) -> Mono {
        self.frame_began + timeout
    }

    /// When unsent output is overdue.
    pub(super) fn write_deadline(&self, timeout: Duration) -> Mono {
        self.output.stalled + timeout
    }

    /// When silence becomes too long.
    pub(super) fn silence_deadline(&self, heartbeat: Duration) -> Mono {
        let usual = self.heard + heartbeat.saturating_mul(2);
        if self.announced == NEVER {
            usual
        } else {
            usual.max(self.announced + heartbeat)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_knows_since_when_it_is_stalled() {
        let at = Mono::from_nanos;
        let mut output = Output {
            bytes: vec![0; 10],
            sent: 0,
            stalled: NEVER,
            listed: false,
        };
        assert_eq!(output.took(at(1), 0), None);
        assert_eq!(output.stalled, at(1));
        assert_eq!(output.took(at(2), 0), None);
        assert_eq!(output.stalled, at(1), "no progress");
        assert_eq!(output.took(at(3), 8), None);
        assert_eq!(
            (output.stalled, output.unsent().len(), output.bytes.len()),
            (at(3), 2, 2)
        );
        assert!(output.took(at(4), 2).is_some());
        assert!(!output.is_stalled() && output.is_empty());
    }
}
