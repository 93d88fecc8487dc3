//! One answered request, as data for the access log.

use super::{Caller, Outcome};
use crate::base::ids::{RouteId, ServiceId};
use crate::routing::Decision;
use std::sync::Arc;
use std::time::Duration;

/// What the access log says about one request. Written by the log's own thread.
#[derive(Debug, Clone)]
pub struct AccessRecord {
    /// When it was answered, in milliseconds since the Unix epoch.
    pub unix_ms: u64,
    /// Who asked, and from where.
    pub caller: Arc<Caller>,
    /// Its number in the session's upward stream; with the session id it names the request.
    pub up_seq: u64,
    /// What was asked.
    pub command: u32,
    /// Where it went; `None`: nowhere.
    pub route: Option<(RouteId, ServiceId)>,
    /// Which endpoint had it, as `forward` numbers them; 0: none.
    pub endpoint: u32,
    /// Why it went there.
    pub decision: Decision,
    /// How it ended.
    pub outcome: Outcome,
    /// From its receipt to its answer.
    pub latency: Duration,
    /// Bytes of its payload.
    pub request_bytes: u32,
    /// Bytes of its answer's payload.
    pub response_bytes: u32,
}
