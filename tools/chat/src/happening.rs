//! What the main thread waits for, whoever brings it.

use crate::app::Asked;
use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};
use moorgate_client::{Answer, ClientError, Event};
use std::time::Duration;

/// So much may wait for the main thread; who brings more waits as well. For pushes that means that they are not
/// acknowledged, and that the gateway holds them back.
const WAITING_MAX: usize = 256;

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

/// Where happenings are brought.
#[derive(Debug, Clone)]
pub(crate) struct Bringer {
    happenings: Sender<Happening>,
    answers: Sender<Happening>,
}

impl Bringer {
    /// Waits for room. Whether anybody still waits for it.
    pub(crate) fn bring(&self, happening: Happening) -> bool {
        self.happenings.send(happening).is_ok()
    }

    /// Does not wait: there are no more answers than requests, and those are bounded.
    pub(crate) fn answer(&self, generation: Generation, asked: Asked, result: Result<Answer, ClientError>) {
        // At the end nobody waits for answers.
        let _ = self.answers.send(Happening::Answered(generation, asked, result));
    }
}

/// What has happened and was not looked at.
#[derive(Debug)]
pub(crate) struct Happenings {
    happenings: Receiver<Happening>,
    answers: Receiver<Happening>,
}

impl Happenings {
    pub(crate) fn new() -> (Bringer, Happenings) {
        let (happenings, happened) = bounded(WAITING_MAX);
        let (answers, answered) = unbounded();
        (Bringer { happenings, answers }, Happenings { happenings: happened, answers: answered })
    }

    /// Waits for the next; `None`: nothing has happened in this time.
    pub(crate) fn next(&self, wait: Duration) -> Option<Happening> {
        select! {
            recv(self.answers) -> answer => answer.ok(),
            recv(self.happenings) -> happening => happening.ok(),
            default(wait) => None,
        }
    }
}
