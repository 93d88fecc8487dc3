//! The operator's HTTP: pages to look at, and operations on sessions, tokens and bans. One thread, one request per
//! connection.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`server`] | the thread: sockets, whole requests and answers within bounds |
//! | [`host`] | whether the `Host` of a request names this gateway |
//! | [`answer`] | which request gets which answer |
//! | [`operation`] | what an operator asks for, checked, and what comes of it |
//! | [`parameter`] | single parameters, checked |
//! | [`question`] | what a call is explained for |
//! | [`shown`] | what is shown of endpoints and explanations |
//! | [`query`] | `name=value&...`, percent-encoded |
//!
//! It listens where clients cannot reach it; a request is small, and a slow peer is given up. There is no password, and
//! the one stranger who can reach it all the same is a web page in the browser of somebody who can: browsers send an
//! `Origin` with what a page asks for, and whatever has one is refused; a page whose own name resolves to this machine
//! sends that name as the `Host`, and is refused too.

mod answer;
mod host;
mod operation;
mod parameter;
mod query;
mod question;
mod server;
mod shown;

pub use operation::{Ban, BanTarget, KickTarget, OperateError, Operation, Outcome, RevokeTarget};
pub use query::encode;
pub use question::Question;
pub use server::Admin;
pub use shown::{CandidateShown, EndpointShown, Explained, WorkerShown};

/// What the pages show, and who carries operations out.
pub trait Pages: Send + Sync {
    /// Whether the loops make progress.
    fn is_live(&self) -> bool;
    /// Whether clients should be sent here; if not, why.
    fn readiness(&self) -> Result<(), String>;
    /// Prometheus' text format.
    fn metrics(&self) -> String;
    /// Carries an operation out; it is checked already. Called on the operator's thread, which answers nobody else
    /// meanwhile.
    ///
    /// # Errors
    /// [`OperateError`]; then nothing has been done.
    fn operate(&self, operation: Operation) -> Result<Outcome, OperateError>;
}
