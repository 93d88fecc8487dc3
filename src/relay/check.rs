//! A new session that a service has to confirm before it is welcomed.

use super::Body;
use crate::base::ids::ConnectionKey;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::Reason;
use std::time::Duration;

/// A question about a session that is about to open.
#[derive(Debug)]
pub struct Check {
    /// Whose answer it is.
    pub connection: ConnectionKey,
    /// Nobody waits for the answer after that.
    pub deadline: Mono,
    /// The encoded `v1::Caller`.
    pub caller: Body,
}

/// The answer of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Let it in, and for so long others of the same user too.
    Admitted(Duration),
    /// Do not, and why; for so long neither others of the same user.
    Refused {
        /// Why, for the client.
        reason: Reason,
        /// For people who debug.
        message: Box<str>,
        /// How long it holds.
        cache: Duration,
    },
    /// Nobody can say.
    Unavailable,
}

/// The answer to a [`Check`].
#[derive(Debug)]
pub struct Checked {
    /// Who waits for it.
    pub connection: ConnectionKey,
    /// What was said.
    pub verdict: Verdict,
}
