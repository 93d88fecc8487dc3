//! What the threads that find something out tell the hub.

use crate::routing::{Source, SourceList};
use crossbeam_channel::Sender;
use std::net::SocketAddr;

/// Events that may wait; whoever has one more waits too.
pub(super) const EVENTS_MAX: usize = 256;

/// Whom: one of the hub's services, and where.
pub(super) type Whom = (usize, SocketAddr);

/// What comes to the hub.
#[derive(Debug)]
pub(super) enum Event {
    /// A source of a service says.
    Answer(usize, Source, Result<SourceList, String>),
    /// Probes have ended.
    Probed {
        /// Who, and whether they answer.
        shown: Vec<(Whom, bool)>,
        /// Whether the round has ended.
        is_over: bool,
    },
}

/// Where it comes in.
pub(super) type Events = Sender<Event>;
