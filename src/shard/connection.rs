//! One connection as its shard keeps it: state, unfinished input, unsent output, deadlines.

use crate::base::ids::{ListenerId, SessionKey};
use crate::base::output::Output;
use crate::base::wheel::Alarm;
use crate::limit::Gcra;
use moorgate_proto::codec::Assembler;
use moorgate_proto::time::Mono;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// ```text
/// Opening ── good Hello ──► Open ── Fault, Bye, drain ──► Closing ── all sent ──► HalfClosed ── peer's end ──► gone
///    │   ├─► Confirming ──────▲                             ▲          └── linger over ──► gone ◄── linger over ─┘
///    │   └─► Moving ── another shard has it ──► gone        │
///    └────────────┴─── Fault ───────────────────────────────┘
/// ```
/// A service that has to confirm the session comes between Hello and Open. Whose session is another shard's moves there.
/// The end of the peer's stream, or an error of the socket, leads from anywhere to gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Waits for a Hello until then; where it came in.
    Opening(Mono, ListenerId),
    /// Has said Hello, and a service has to confirm the session until then.
    Confirming(Mono),
    /// Has said Hello, and goes to the shard that has its session; until then at the latest.
    Moving(Mono),
    /// Has a session.
    Open(SessionKey),
    /// The last frame is in the output; what comes in is ignored. Gone then at the latest.
    Closing(Mono),
    /// The last frame was sent, and the end of our stream with it.
    HalfClosed(Mono),
}

impl State {
    /// Whether there is no session yet, and may be one.
    pub(super) fn is_opening(self) -> bool {
        matches!(self, State::Opening(..) | State::Confirming(_) | State::Moving(_))
    }
}

/// Whatever has no deadline now.
const NEVER: Mono = Mono::NEVER;

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) state: State,
    /// Where it comes from; in two parts, which take less than the whole.
    ip: IpAddr,
    port: u16,
    pub(super) assembler: Assembler,
    pub(super) output: Output,
    /// When the last complete frame came.
    pub(super) heard: Mono,
    /// The peer has promised to be heard again by then; `NEVER`: it has not.
    pub(super) announced: Mono,
    /// When the unfinished frame began.
    pub(super) frame_began: Mono,
    pub(super) alarm: Alarm,
    /// Frames that it has sent, against their rate.
    pub(super) frames: Gcra,
}

impl Connection {
    pub(super) fn new(now: Mono, peer: SocketAddr, handshake_deadline: Mono) -> Connection {
        Connection {
            state: State::Opening(handshake_deadline, ListenerId::default()),
            ip: peer.ip(),
            port: peer.port(),
            assembler: Assembler::default(),
            output: Output::default(),
            heard: now,
            announced: NEVER,
            frame_began: NEVER,
            alarm: Alarm::default(),
            frames: Gcra::default(),
        }
    }

    /// Where it comes from.
    pub(super) fn peer(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }

    /// When the unfinished frame is overdue.
    pub(super) fn frame_deadline(&self, timeout: Duration) -> Mono {
        self.frame_began + timeout
    }

    /// When unsent output is overdue.
    pub(super) fn write_deadline(&self, timeout: Duration) -> Mono {
        self.output.stalled_since() + timeout
    }

    /// When silence becomes too long.
    pub(super) fn silence_deadline(&self, heartbeat: Duration) -> Mono {
        let usual = self.heard + heartbeat.saturating_mul(2);
        if self.announced == NEVER { usual } else { usual.max(self.announced + heartbeat) }
    }
}
