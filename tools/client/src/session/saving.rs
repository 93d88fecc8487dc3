//! Writing the session down, so that it outlives its process: what, when, and what waits for it.

use super::{ClientSession, Ending, Event, Output};
use crate::core::{ClientCore, Resumption};
use moorgate_proto::time::Mono;
use std::sync::Arc;

/// A session that cannot be resumed has nothing to wait for: what is taken of it may be acknowledged.
const UNBOUND: u64 = u64::MAX - 1;

/// Whether the session is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Saving {
    Never,
    /// What is written down is what is known.
    Idle,
    /// This `down_seq` is being written.
    Busy(u64),
}

impl ClientSession {
    /// Has the session written down, by [`Output::Save`]; to be called before [`ClientSession::start`]. `restored` is
    /// what was written by the process before. A first session that is not that one is an [`Event::Resync`], too: the
    /// application may have missed what came since its process before.
    #[must_use]
    pub fn writing_down(mut self, restored: Option<&Resumption>) -> ClientSession {
        if let Some(resumption) = restored.filter(|resumption| !resumption.resume_token.is_empty()) {
            let restored = ClientCore::restored(Arc::clone(&self.book.options), resumption);
            self.core = restored.in_place_of(self.core);
        }
        self.book.was_open = true;
        self.core.write_down();
        self.book.saving = Saving::Idle;
        self
    }

    /// What was to be [saved](Output::Save) is safe; or why it is not.
    pub fn saved(&mut self, now: Mono, result: Result<(), String>) {
        let Saving::Busy(down_seq) = self.book.saving else { return };
        match result {
            Ok(()) => {
                self.book.saving = Saving::Idle;
                self.core.saved(now, down_seq);
            }
            Err(why) => {
                self.book.saving = Saving::Never;
                self.core.stop_writing_down(now);
                self.book.tell(Event::NotSaved(why), None);
            }
        }
        self.turn(now);
    }

    /// Asks to write down what must be.
    pub(super) fn save(&mut self, now: Mono) {
        let ClientSession { core, book, .. } = self;
        if book.saving == Saving::Idle && core.is_save_due(now, book.requests.wants_place()) {
            let resumption = core.resumption();
            let down_seq = resumption.as_ref().map_or(UNBOUND, |resumption| resumption.down_seq);
            book.saving = Saving::Busy(down_seq);
            book.outputs.push_back(Output::Save(resumption.map(Box::new)));
        }
    }

    /// The client ends: writes down what is to be resumed by the next start, or erases it.
    pub(super) fn save_last(&mut self, ending: &Ending) {
        if self.book.saving == Saving::Never {
            return;
        }
        let is_left = self.book.leaving.is_some_and(|leaving| leaving.keep_for.is_zero());
        let is_over = is_left && *ending == Ending::Left;
        let resumption = self.core.resumption().filter(|_| !is_over);
        self.book.saving = Saving::Never;
        self.book.outputs.push_back(Output::Save(resumption.map(Box::new)));
    }
}
