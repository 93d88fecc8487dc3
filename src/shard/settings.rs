//! What a deployment chooses for each shard.

use super::DetachedCaps;
use crate::base::ids::ServiceId;
use crate::limit::{Rate, Reserve};
use std::time::Duration;

/// Limits and times of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Connections at once.
    pub connections_max: usize,
    /// Connections at once that have no session yet.
    pub handshakes_max: usize,
    /// The part of the room for connections that is kept for clients with an access token.
    pub reserve: Reserve,
    /// Services that log users in: what they refuse an anonymous session as UNAUTHENTICATED is a failed login.
    pub login_services: Vec<ServiceId>,
    /// Memory for frames that have not arrived whole, over all connections, in bytes.
    pub partial_bytes_max: usize,
    /// Above this many unsent bytes a connection gets no more numbered frames, and control frames are left out.
    pub output_bytes_high: usize,
    /// Memory for Responses that clients have not acknowledged or not taken, over all connections, in bytes; above
    /// it they are held without their payloads.
    pub owed_bytes_max: usize,
    /// Calls outstanding at the worker: the shard's credit.
    pub outstanding_max: usize,
    /// From accept to a complete Hello.
    pub handshake_timeout: Duration,
    /// From a frame's first byte to its last.
    pub frame_timeout: Duration,
    /// For output to make progress.
    pub write_timeout: Duration,
    /// For the last frame to leave before the socket is closed all the same.
    pub linger: Duration,
    /// From a token's expiry on a live connection to its close.
    pub expiry_grace: Duration,
    /// Bytes of all pushes that live, above which sessions keep none: what cannot be sent at once becomes a Gap.
    pub push_bytes_soft: usize,
    /// Whether a service confirms new sessions.
    pub check: Option<CheckSettings>,
    /// The heartbeat that each listener hints at, by their ids; `None`, or none there: the deployment's own.
    pub heartbeats: Vec<Option<Duration>>,
    /// Fresh sessions that open, so that a storm of them leaves room for those who come back; `None`: as many as come.
    pub openings: Option<Rate>,
    /// Sessions without a connection.
    pub detached: DetachedCaps,
    /// How long a user is taken as present whose last session has lost its connection.
    pub presence_grace: Duration,
    /// Clients come back after a drain within this time, each at a moment of its own.
    pub reconnect_spread: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            connections_max: 1_000_000,
            handshakes_max: 16 * 1024,
            reserve: Reserve::default(),
            login_services: Vec::new(),
            partial_bytes_max: 64 * 1024 * 1024,
            output_bytes_high: 256 * 1024,
            owed_bytes_max: 512 * 1024 * 1024,
            outstanding_max: 32 * 1024,
            handshake_timeout: Duration::from_secs(10),
            frame_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(20),
            linger: Duration::from_secs(2),
            expiry_grace: Duration::from_secs(60),
            push_bytes_soft: 128 * 1024 * 1024,
            check: None,
            heartbeats: Vec::new(),
            openings: None,
            detached: DetachedCaps::default(),
            presence_grace: Duration::from_secs(10),
            reconnect_spread: Duration::from_secs(10),
        }
    }
}

/// How new sessions of users are confirmed by a service, which the worker knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckSettings {
    /// For its answer.
    pub timeout: Duration,
    /// What happens when there is none: the session opens, or it is refused for the moment.
    pub fail_open: bool,
}

impl Default for CheckSettings {
    fn default() -> Self {
        CheckSettings { timeout: Duration::from_millis(500), fail_open: false }
    }
}
