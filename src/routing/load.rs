//! What a choice looks at of each endpoint: small, and kept together, because it is read for every call.

use super::ewma::Ewma;
use moorgate_proto::time::Mono;

/// Where an endpoint stands among the lots that choices draw from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spot {
    /// Which side: those with the canary's tag are on the second.
    pub(super) canary: bool,
    /// Whether it is preferred.
    pub(super) near: bool,
    /// Its number there.
    pub(super) at: usize,
}

/// One endpoint's load at this worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) ewma: Ewma,
    /// Calls that are sent and not answered.
    pub(super) outstanding: u32,
    /// Calls that may be.
    pub(super) bound: u32,
    /// Since then a call waits there and nothing has come back; never: it is not known, or none waits.
    pub(super) quiet: Mono,
    /// Which call of the pool was its last one.
    pub(super) last: u64,
    /// `None`: no call is sent there.
    pub(super) spot: Option<Spot>,
}

impl Load {
    pub(super) fn new(bound: u32) -> Load {
        Load { ewma: Ewma::default(), outstanding: 0, bound, quiet: Mono::NEVER, last: 0, spot: None }
    }

    /// The latency to reckon with, in nanoseconds. As long as nothing comes back it is at least what has been waited: who
    /// hangs gives no answers to learn from.
    pub(super) fn nanos(&self, now: Mono, typical: f64) -> f64 {
        let waited =
            if self.outstanding > 0 { now.as_nanos().saturating_sub(self.quiet.as_nanos()) } else { 0 };
        self.ewma.nanos(now, typical).max(waited as f64)
    }
}
