//! A request that was answered, on its way to its Response and to the access log.

use crate::base::ids::{RouteId, ServiceId};
use crate::relay::{Caller, Outcome};
use crate::routing::Decision;
use std::sync::Arc;
use std::time::Duration;

/// A request and its outcome, as its answer and the access log need them.
pub(super) struct Asked {
    pub(super) outcome: Outcome,
    pub(super) up_seq: u64,
    pub(super) command: u32,
    pub(super) route: Option<(RouteId, ServiceId)>,
    pub(super) endpoint: u32,
    pub(super) decision: Decision,
    pub(super) latency: Duration,
    pub(super) request_bytes: u32,
    /// Who asked, as at its admission.
    pub(super) caller: Arc<Caller>,
}

impl Asked {
    /// A request that no worker gets to see.
    pub(super) fn refused(up_seq: u64, command: u32, outcome: Outcome, caller: Arc<Caller>) -> Asked {
        Asked {
            outcome,
            up_seq,
            command,
            route: None,
            endpoint: 0,
            decision: Decision::default(),
            latency: Duration::ZERO,
            request_bytes: 0,
            caller,
        }
    }
}

/// What the directives of a Reply lead to.
#[derive(Debug, Default)]
pub(super) struct Effect {
    /// The encoded `v1::LoginResult`; empty: nobody has logged in.
    pub(super) login: Vec<u8>,
    /// The session ends once its answer is out.
    pub(super) logout: bool,
    /// The login was not possible: what the client gets in place of the service's answer.
    pub(super) refused: Option<Outcome>,
}
