//! How a request ended, whoever decided it.

use moorgate_proto::status::Code;
use moorgate_proto::v1::{Execution, Reason, Source};

/// Status, reason, source and execution of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub code: Code,
    /// Why; the client's action hangs on it.
    pub reason: Reason,
    /// Who decided.
    pub source: Source,
    /// Whether the service may have run it.
    pub execution: Execution,
    /// Wait this long before another try; 0: no hint.
    pub retry_after_ms: u32,
}

impl Outcome {
    /// An outcome of the gateway's own for a request that never reached a service.
    pub const fn refused(code: Code, reason: Reason) -> Outcome {
        Outcome {
            code,
            reason,
            source: Source::Gateway,
            execution: Execution::NotExecuted,
            retry_after_ms: 0,
        }
    }

    /// An outcome of the gateway's own for a call that a service may have run.
    pub const fn unknown(code: Code, reason: Reason) -> Outcome {
        Outcome { execution: Execution::Unknown, ..Outcome::refused(code, reason) }
    }
}
