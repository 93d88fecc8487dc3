//! What a deployment chooses for each shard.

use crate::limit::Reserve;
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
    /// Clients come back after a drain within this time, each at a moment of its own.
    pub reconnect_spread: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            connections_max: 1_000_000,
            handshakes_max: 16 * 1024,
            reserve: Reserve::default(),
            partial_bytes_max: 64 * 1024 * 1024,
            output_bytes_high: 256 * 1024,
            owed_bytes_max: 512 * 1024 * 1024,
            outstanding_max: 32 * 1024,
            handshake_timeout: Duration::from_secs(10),
            frame_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(20),
            linger: Duration::from_secs(2),
            expiry_grace: Duration::from_secs(60),
            reconnect_spread: Duration::from_secs(10),
        }
    }
}
