//! What the main thread waits for, whoever brings it.

use crate::app::Asked;
use moorgate_client::{Answer, ClientError, Event};

/// Counts the kit's clients: one after the other, and what comes from one before is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Generation(pub(crate) u64);

/// Something has happened.
#[derive(Debug)]
pub(crate) enum Happening {
    /// With the kit's client.
    Kit(Generation, Event),
    /// A request is answered.
    Answered(Generation, Asked, Result<Answer, ClientError>),
    /// At the keyboard.
    Terminal(crossterm::event::Event),
    /// A line has come.
    Line(String),
    /// No more lines come, or keys.
    InputEnds,
    /// The system asks for the end.
    Terminate,
}
