//! One client's session, pure: its identity, its two numbered streams, and the rules of both.
//!
//! ```text
//!            Hello refused: Fault
//!   Opening ─────────────────────► closed
//!      │ open(): Opened
//!      ▼
//!   Session ── up: Request n ──► admitted = n, pending until its one Response
//!      │      down: Response ──► waiting ─► numbered as it enters the output ─► window ─► acknowledged
//!      │ a Fault poisons the connection: one final Error, then it closes
//!      ▼
//!    ended
//! ```
//!
//! A session knows nothing of sockets, threads or services. Its shard calls it with each frame and each answer,
//! and it says what to do. In flight are the requests without an answer plus the Responses without an
//! acknowledgement; the client keeps their number within [`Settings::in_flight_max`], so both queues are bounded.

mod down;
mod fault;
mod opening;
mod settings;
#[cfg(test)]
mod tests;
mod up;

pub use down::{Down, Responded, Room};
pub use fault::{Fault, whole_ms};
pub use opening::{Opened, OpeningContext, welcome};
pub use settings::Settings;
pub use up::{Arrival, CancelTarget, Up};

pub use opening::open;

use crate::base::ids::ConnectionKey;
use crate::limit::Standing;
use crate::relay::Caller;
use crate::routing::RoleMask;
use moorgate_proto::time::Mono;
use std::sync::Arc;
use std::time::Duration;

/// What a session has been told about its access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// Anonymous: nothing expires.
    Never,
    /// Good until then.
    At(Mono),
    /// Expired, and the client was warned; the connection closes then.
    Grace(Mono),
}

/// A session that is open.
#[derive(Debug)]
pub struct Session {
    /// The connection that it is attached to.
    pub connection: ConnectionKey,
    /// Who asks.
    pub caller: Arc<Caller>,
    /// The roles that any route asks for.
    pub roles: RoleMask,
    /// The protocol version in force.
    pub version: u32,
    /// Bits of `v1::Feature` in force.
    pub features: u64,
    heartbeat_ms: u32,
    frame_bytes_max: u32,
    /// Of the access token.
    pub expiry: Expiry,
    /// Requests.
    pub up: Up,
    /// Responses and pushes.
    pub down: Down,
    /// What it has been charged for its requests.
    pub standing: Standing,
}

impl Session {
    /// A session as it was opened, attached to `connection`.
    pub fn new(connection: ConnectionKey, opened: &Opened, roles: RoleMask, caller: Arc<Caller>) -> Session {
        Session {
            connection,
            caller,
            roles,
            version: opened.version,
            features: opened.features,
            heartbeat_ms: u32::try_from(opened.heartbeat.as_millis()).unwrap_or(u32::MAX),
            frame_bytes_max: u32::try_from(opened.frame_bytes_max).unwrap_or(u32::MAX),
            expiry: opened.expiry,
            up: Up::default(),
            down: Down::default(),
            standing: Standing::default(),
        }
    }

    /// Interval of the heartbeat; silence for twice this long ends the connection.
    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(u64::from(self.heartbeat_ms))
    }

    /// The largest frame towards the client, in bytes.
    pub fn frame_bytes_max(&self) -> usize {
        self.frame_bytes_max as usize
    }

    /// Requests that are unanswered plus Responses that are unacknowledged.
    pub fn in_flight(&self) -> usize {
        self.up.pending().saturating_add(self.down.responses())
    }

    /// Whether a request may be served in the session's name at `now`.
    pub fn has_access(&self, now: Mono) -> bool {
        match self.expiry {
            Expiry::Never => true,
            Expiry::At(expires) => now < expires,
            Expiry::Grace(_) => false,
        }
    }

    /// Gives back the memory of queues that are empty.
    pub fn shrink(&mut self) {
        self.up.shrink();
        self.down.shrink();
    }

    /// Whether it holds no memory but its own.
    #[cfg(test)]
    pub(crate) fn is_bare(&self) -> bool {
        self.up.is_bare() && self.down.is_bare()
    }
}
