//! What a client says of itself, and of one request.

use moorgate_proto::proof::{ApplicationFacts, ApplicationKey};
use moorgate_proto::v1;
use std::time::Duration;

/// What a client says of itself; shared by all its connections.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which application this is.
    pub application: String,
    /// The key by which it proves that, where a deployment asks for it.
    pub application_key: Option<ApplicationKey>,
    /// Its version.
    pub app_version: String,
    /// For example `ios`, `linux`.
    pub platform: String,
    /// Stable for one installation.
    pub device_id: String,
    /// Wished heartbeat interval; zero: the gateway's.
    pub heartbeat: Duration,
    /// The largest frame that is taken, in bytes; 0: the gateway's.
    pub frame_bytes_max: u32,
    /// From the connection to Welcome.
    pub opening_timeout: Duration,
    /// Requests that may wait for a slot.
    pub waiting_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            application: String::new(),
            application_key: None,
            app_version: env!("CARGO_PKG_VERSION").to_owned(),
            platform: std::env::consts::OS.to_owned(),
            device_id: String::new(),
            heartbeat: Duration::ZERO,
            frame_bytes_max: 0,
            opening_timeout: Duration::from_secs(5),
            waiting_max: 1024,
        }
    }
}

impl Options {
    /// The proof for one Hello, at this Unix time in milliseconds, with a nonce of at least 16 random bytes; `None`:
    /// there is no key.
    pub fn application_proof(&self, time_ms: u64, nonce: &[u8]) -> Option<v1::ApplicationProof> {
        let key = self.application_key.as_ref()?;
        let (application, device_id) = (&self.application, &self.device_id);
        let mac = ApplicationFacts { application, device_id, time_ms, nonce }.prove(key);
        Some(v1::ApplicationProof { time_ms, nonce: nonce.to_vec().into(), mac: mac.to_vec().into() })
    }
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub struct RequestOptions<'a> {
    /// What is asked.
    pub command: u32,
    /// The command's version.
    pub version: u32,
    /// For the gateway to answer; zero: the route's own.
    pub timeout: Duration,
    /// Services deduplicate by it; at most 64 bytes.
    pub idempotency_key: &'a [u8],
}

impl RequestOptions<'_> {
    /// A request of this command, with the defaults.
    pub fn command(command: u32) -> RequestOptions<'static> {
        RequestOptions { command, version: 1, timeout: Duration::ZERO, idempotency_key: &[] }
    }
}
