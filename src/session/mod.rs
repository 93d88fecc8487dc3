//! One client's session, pure: its identity, its two numbered streams, and the rules of both.
//!
//! ```text
//!            Hello refused: Fault
//!   Opening ─────────────────────► closed
//!      │ open(): Opened
//!      ▼
//!   Session ── up: Request n ──► admitted = n, pending until its one Response
//!      │      down: Response, push ──► waiting ─► numbered as it enters the output ─► window ─► acknowledged
//!      │      login: from anonymous to a user, once
//!      │ a Fault poisons the connection: one final Error, then it closes
//!      │ the connection is lost: detach() ──► nothing leaves, what comes waits ──► resumed: attach(), a replay
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
mod push_queue;
mod refresh;
mod resume;
mod settings;
#[cfg(test)]
pub(crate) mod test_push;
#[cfg(test)]
mod tests;
mod up;
mod window;

pub use down::{Bounds, Down, Pushed, Responded, Room, Sending};
pub use fault::{Fault, NotResumed, whole_ms};
pub use opening::{Opened, OpeningContext, Welcoming, expiry_of, welcome};
pub use push_queue::Lost;
pub use refresh::{NoRefresh, Refreshed, refresh};
pub use settings::Settings;
pub use up::{Arrival, CancelTarget, Up};

pub use opening::open;

use crate::auth::TokenHash;
use crate::base::clock::Now;
use crate::base::ids::ConnectionKey;
use crate::limit::Standing;
use crate::relay::Caller;
use crate::routing::RoleMask;
use moorgate_proto::time::Mono;
use resume::Generations;
use std::sync::Arc;
use std::time::Duration;

/// What a session has been told about its access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// Anonymous: nothing expires.
    Never,
    /// Good until then, in milliseconds since the Unix epoch.
    At(u64),
    /// Expired, and the client was warned; the connection closes then.
    Grace(Mono),
    /// The user has logged out; the connection closes then, or once no Response waits any more.
    LoggedOut(Mono),
}

impl Expiry {
    /// When something has to happen, as long as civil time is not stepped.
    pub fn due(self, now: Now) -> Mono {
        match self {
            Expiry::Never => Mono::NEVER,
            Expiry::At(unix_ms) => now.mono + Duration::from_millis(unix_ms.saturating_sub(now.unix_ms)),
            Expiry::Grace(due) | Expiry::LoggedOut(due) => due,
        }
    }
}

/// Where a session's client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// On this connection.
    Attached(ConnectionKey),
    /// Away, and may come back; its place on the shard's list of those.
    Detached(u32),
}

/// What is kept of an access token: whether it was revoked can be asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenMark {
    /// When it ends, in seconds since the Unix epoch.
    pub expires_unix_s: u64,
    /// When it was issued, in seconds since the Unix epoch; 0: unknown. Never far in the future: a token that is, is
    /// refused.
    pub issued_unix_s: u32,
    /// Stands for its id.
    pub token: TokenHash,
}

impl TokenMark {
    /// Of a token that was issued and ends then, in seconds since the Unix epoch.
    pub fn new(issued_unix_s: u64, expires_unix_s: u64, token: TokenHash) -> TokenMark {
        TokenMark { issued_unix_s: u32::try_from(issued_unix_s).unwrap_or(u32::MAX), expires_unix_s, token }
    }
}

/// The groups that a session is in, in no order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Groups(pub Vec<Membership>);

/// A session's place in a group of its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    /// Which group, as the shard numbers them.
    pub group: u32,
    /// Its place among the members.
    pub at: u32,
}

/// A session, attached or not.
#[derive(Debug)]
pub struct Session {
    /// Where its client is.
    pub attachment: Attachment,
    generations: Generations,
    /// Who asks.
    pub caller: Arc<Caller>,
    /// The roles that any route asks for.
    pub roles: RoleMask,
    /// The protocol version in force.
    pub version: u8,
    /// Bits of `v1::Feature` in force; those that are served are the first.
    pub features: u16,
    heartbeat_ms: u32,
    frame_bytes_max: u32,
    /// Of the access token.
    pub expiry: Expiry,
    /// The access token that it lives by.
    pub token: TokenMark,
    /// The groups that it is in; made on use.
    pub groups: Option<Box<Groups>>,
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
            attachment: Attachment::Attached(connection),
            generations: Generations::default(),
            caller,
            roles,
            version: u8::try_from(opened.version).unwrap_or(u8::MAX),
            features: u16::try_from(opened.features).unwrap_or_default(),
            heartbeat_ms: u32::try_from(opened.heartbeat.as_millis()).unwrap_or(u32::MAX),
            frame_bytes_max: u32::try_from(opened.frame_bytes_max).unwrap_or(u32::MAX),
            expiry: opened.expiry,
            token: opened.token,
            groups: None,
            up: Up::default(),
            down: Down::default(),
            standing: Standing::default(),
        }
    }

    /// Somebody has logged in, or shown a new access token.
    pub fn identify(&mut self, caller: Arc<Caller>, roles: RoleMask, (expiry, token): (Expiry, TokenMark)) {
        self.caller = caller;
        self.roles = roles;
        self.expiry = expiry;
        self.token = token;
    }

    /// The connection that it is attached to.
    pub fn connection(&self) -> Option<ConnectionKey> {
        match self.attachment {
            Attachment::Attached(connection) => Some(connection),
            Attachment::Detached(_) => None,
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
    pub fn has_access(&self, now: Now) -> bool {
        match self.expiry {
            Expiry::Never => true,
            Expiry::At(unix_ms) => now.unix_ms < unix_ms,
            Expiry::Grace(_) | Expiry::LoggedOut(_) => false,
        }
    }

    /// When access ends, as the client is told: Unix time in milliseconds, 0: never.
    pub fn told_expiry_ms(&self) -> u64 {
        match self.expiry {
            Expiry::Never => 0,
            Expiry::At(_) | Expiry::Grace(_) | Expiry::LoggedOut(_) => {
                self.token.expires_unix_s.saturating_mul(1000)
            }
        }
    }

    /// Whether it ends once its client has got what waits.
    pub fn is_leaving(&self) -> bool {
        matches!(self.expiry, Expiry::LoggedOut(_))
    }

    /// Gives back the memory of queues that are empty.
    pub fn shrink(&mut self) {
        self.up.shrink();
        self.down.shrink();
        if self.groups.as_ref().is_some_and(|groups| groups.0.is_empty()) {
            self.groups = None;
        }
    }

    /// Whether it holds no memory but its own.
    #[cfg(test)]
    pub(crate) fn is_bare(&self) -> bool {
        self.up.is_bare() && self.down.is_bare()
    }
}
