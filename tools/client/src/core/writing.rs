//! Writing a session down for another process.

use super::{ClientCore, Resumption, State};
use moorgate_proto::time::Mono;

impl ClientCore {
    /// The session is written down from now on. What was [restored](ClientCore::restored) is.
    pub fn write_down(&mut self) {
        let taken = if self.state == State::Detached { self.downward.taken() } else { 0 };
        self.downward.set_saved(taken);
    }

    /// It is not written down any more: everything that is taken may be acknowledged.
    pub fn stop_writing_down(&mut self, now: Mono) {
        self.downward.set_saved(u64::MAX);
        self.pump(now);
    }

    /// What to write down; `None`: the session cannot be resumed. What is asked of
    /// [`ClientCore::is_save_due`] begins anew with this.
    pub fn resumption(&mut self) -> Option<Resumption> {
        self.resume.is_news = false;
        let in_flight = self.upward.in_flight().saturating_add(self.downward.kept_places());
        let in_flight = in_flight.saturating_sub(self.downward.places_unsaved());
        self.resume.is_possible().then(|| Resumption {
            down_seq: self.downward.taken(),
            up_seq: self.upward.sent(),
            in_flight: u32::try_from(in_flight).unwrap_or(u32::MAX),
            ..self.resume.resumption()
        })
    }

    /// What was taken up to this `down_seq` of a [`Resumption`] is written down.
    pub fn saved(&mut self, now: Mono, down_seq: u64) {
        self.downward.set_saved(down_seq);
        self.pump(now);
    }

    /// Whether something must be written down now: before what is in [`ClientCore::output`] is sent, or so that what
    /// was taken can be acknowledged. `wants_place`: a request waits for a place in flight.
    pub fn is_save_due(&self, now: Mono, wants_place: bool) -> bool {
        let wants_place = wants_place || self.upward.waiting() > 0;
        let frees = wants_place && self.free_places() == 0 && self.downward.places_unsaved() > 0;
        self.resume.is_news || frees || self.downward.is_save_due(now)
    }
}
