//! What a deployment chooses for its sessions.

use super::Bounds;
use moorgate_proto::limits::FRAME_BYTES_MAIN_LINK;
use std::time::Duration;

/// Limits and times of every session, told to clients in Welcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Requests that are unanswered plus Responses that are unacknowledged.
    pub in_flight_max: u32,
    /// Numbered frames towards the client that may be unacknowledged; at least `in_flight_max`.
    pub window_max: u32,
    /// The largest frame, in bytes.
    pub frame_bytes_max: usize,
    /// Pushes that one session keeps, waiting or unacknowledged.
    pub pushes_max: usize,
    /// Bytes of these pushes.
    pub push_bytes_max: usize,
    /// Bytes of Responses that one session keeps, waiting or unacknowledged; by default those of the requests in flight,
    /// each with the largest payload.
    pub response_bytes_max: usize,
    /// Groups of one session.
    pub groups_max: usize,
    /// The heartbeat interval when the client wishes none.
    pub heartbeat: Duration,
    /// The shortest interval that a client gets.
    pub heartbeat_min: Duration,
    /// The longest interval that a client gets.
    pub heartbeat_max: Duration,
    /// How long a session lives without a connection; zero: it ends with its connection.
    pub detached_ttl: Duration,
}

impl Settings {
    /// What one session keeps for its client.
    pub fn bounds(&self) -> Bounds {
        Bounds {
            pushes_max: self.pushes_max,
            push_bytes_max: self.push_bytes_max,
            response_bytes_max: self.response_bytes_max,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            in_flight_max: 64,
            window_max: 256,
            frame_bytes_max: FRAME_BYTES_MAIN_LINK,
            pushes_max: 512,
            push_bytes_max: 2 * 1024 * 1024,
            response_bytes_max: 4 * 1024 * 1024,
            groups_max: 256,
            heartbeat: Duration::from_secs(30),
            heartbeat_min: Duration::from_secs(5),
            heartbeat_max: Duration::from_secs(600),
            detached_ttl: Duration::from_secs(120),
        }
    }
}
