//! What a deployment chooses for the links to its services.

use moorgate_proto::limits::FRAME_BYTES_MAIN_LINK;
use std::time::Duration;

/// Limits and times of one worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The gateway's name, as services see it.
    pub gateway_id: String,
    /// Links from one worker to one endpoint.
    pub links_per_endpoint: u16,
    /// For a connection and its opening frames.
    pub connect_timeout: Duration,
    /// The first delay after a link failed; it doubles.
    pub reconnect_min: Duration,
    /// The longest delay.
    pub reconnect_max: Duration,
    /// Interval of pings on every link, whatever else is said on it, a tenth more or less; silence for twice this long
    /// ends it.
    pub heartbeat: Duration,
    /// How long a settled call keeps its slot, for a late reply to be told from a wrong one.
    pub late_reply_grace: Duration,
    /// The largest frame from a service, in bytes.
    pub frame_bytes_max: usize,
    /// The largest frame of a call on a main link, in bytes: larger ones go on its bulk link.
    pub main_link_frame_bytes: usize,
    /// A bulk link without large frames for so long is closed.
    pub bulk_idle: Duration,
    /// Unsent bytes on one link above which calls are refused.
    pub output_bytes_max: usize,
    /// Calls that wait for a link to have room, or for their turn in a session's order, for all services at one worker.
    pub waiting_max: usize,
    /// Bytes that these calls may hold, at one worker.
    pub waiting_bytes_max: usize,
    /// Pushes that a service may have unanswered on one link.
    pub pushes_max: u32,
    /// Deliveries of pushes that may wait at one shard.
    pub deliveries_max: usize,
    /// Bytes of all pushes that live; above it pushes are refused.
    pub push_bytes_max: usize,
    /// The largest frame towards clients, in bytes: no push is larger.
    pub client_frame_bytes_max: usize,
    /// How long a service believes what it was told of presence without a frame of this gateway.
    pub presence_lease: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            gateway_id: "moorgate".to_owned(),
            links_per_endpoint: 1,
            connect_timeout: Duration::from_secs(2),
            reconnect_min: Duration::from_millis(100),
            reconnect_max: Duration::from_secs(10),
            heartbeat: Duration::from_secs(5),
            late_reply_grace: Duration::from_secs(5),
            frame_bytes_max: 1024 * 1024,
            main_link_frame_bytes: FRAME_BYTES_MAIN_LINK,
            bulk_idle: Duration::from_secs(60),
            output_bytes_max: 8 * 1024 * 1024,
            waiting_max: 16 * 1024,
            waiting_bytes_max: 64 * 1024 * 1024,
            pushes_max: 1024,
            deliveries_max: 1024 * 1024,
            push_bytes_max: 256 * 1024 * 1024,
            client_frame_bytes_max: FRAME_BYTES_MAIN_LINK,
            presence_lease: Duration::from_secs(30),
        }
    }
}
