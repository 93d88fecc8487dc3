//! The downward stream as its receiver keeps it: what came, what the application has taken of it, and what is still
//! to be acknowledged.
//!
//! Where the session is written down, nothing is acknowledged that was not saved as taken before.

use moorgate_proto::time::Mono;
use std::collections::VecDeque;
use std::time::Duration;

/// What came is acknowledged this long after it was taken, at the latest.
pub const ACK_DELAY: Duration = Duration::from_millis(500);

/// A numbered frame that the application has not taken yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Held {
    /// Which of a core's sessions has brought it.
    session: u64,
    first: u64,
}

/// See the module's page.
#[derive(Debug)]
pub(super) struct Downward {
    /// Which of the core's sessions this is.
    session: u64,
    /// The highest number that came.
    came: u64,
    /// The first number of the frame that is looked at: a Gap may stand for several.
    first: u64,
    /// The first numbers of frames that were not taken yet, rising.
    held: VecDeque<u64>,
    /// Responses that cannot be acknowledged yet: they keep their places in flight.
    kept_places: VecDeque<u64>,
    acknowledged: u64,
    /// Up to here it is written down what was taken; the highest number there is when nothing is.
    saved: u64,
    /// `NEVER`: there is nothing to acknowledge.
    ack_due: Mono,
    window_max: u64,
}

impl Downward {
    pub(super) fn new(session: u64) -> Downward {
        Downward {
            session,
            came: 0,
            first: 0,
            held: VecDeque::new(),
            kept_places: VecDeque::new(),
            acknowledged: 0,
            saved: u64::MAX,
            ack_due: Mono::NEVER,
            window_max: 0,
        }
    }

    /// Of a session whose application has taken everything up to this number.
    pub(super) fn restored(taken: u64) -> Downward {
        Downward { came: taken, acknowledged: taken, ..Downward::new(0) }
    }

    /// The next session of the same core.
    pub(super) fn next_session(&self) -> Downward {
        let saved = if self.saved == u64::MAX { u64::MAX } else { 0 };
        Downward { saved, ..Downward::new(self.session.wrapping_add(1)) }
    }

    pub(super) fn set_window(&mut self, window_max: u64) {
        self.window_max = window_max;
    }

    /// The next number.
    pub(super) fn expected(&self) -> u64 {
        self.came.saturating_add(1)
    }

    /// A frame that stands for these numbers has come; it counts as taken unless [`Downward::hold`] is called.
    pub(super) fn came(&mut self, first: u64, last: u64) {
        (self.first, self.came) = (first, last);
    }

    /// A frame without a number has come.
    pub(super) fn came_unnumbered(&mut self) {
        self.first = 0;
    }

    /// The first number that the frame that is looked at stands for, of those that had not come; 0: it has none.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The frame that came last is not taken yet.
    pub(super) fn hold(&mut self) -> Option<Held> {
        if self.first == 0 {
            return None;
        }
        if self.held.back() != Some(&self.first) {
            self.held.push_back(self.first);
        }
        Some(Held { session: self.session, first: self.first })
    }

    /// More is held than a gateway may send.
    pub(super) fn is_overrun(&self) -> bool {
        self.held.len() as u64 > self.window_max
    }

    /// A frame that was held is taken now.
    pub(super) fn release(&mut self, now: Mono, held: Held) {
        if held.session != self.session {
            return;
        }
        if let Ok(at) = self.held.binary_search(&held.first) {
            self.held.remove(at);
            self.free_places();
            self.judge(now);
        }
    }

    fn free_places(&mut self) {
        let ack = self.ack();
        while self.kept_places.front().is_some_and(|seq| *seq <= ack) {
            self.kept_places.pop_front();
        }
    }

    /// A Response has come.
    pub(super) fn response_came(&mut self) {
        if self.first > self.ack() {
            self.kept_places.push_back(self.first);
        }
    }

    /// Places in flight that an acknowledgement cannot free yet.
    pub(super) fn kept_places(&self) -> usize {
        self.kept_places.len()
    }

    /// Places that are not kept once everything that is taken is saved.
    pub(super) fn places_unsaved(&self) -> usize {
        self.kept_places.partition_point(|seq| *seq <= self.taken())
    }

    /// The highest number up to which everything was taken.
    pub(super) fn taken(&self) -> u64 {
        self.held.front().map_or(self.came, |first| first.saturating_sub(1))
    }

    /// The highest number that may be acknowledged.
    pub(super) fn ack(&self) -> u64 {
        self.taken().min(self.saved)
    }

    /// It is written down from now on what is taken; up to here it is.
    pub(super) fn set_saved(&mut self, saved: u64) {
        self.saved = saved;
        self.free_places();
    }

    /// Looks whether there is something to acknowledge, and until when.
    pub(super) fn judge(&mut self, now: Mono) {
        if self.taken() > self.acknowledged {
            self.ack_due = self.ack_due.min(now + ACK_DELAY);
        }
    }

    /// A frame with [`Downward::ack`] was written.
    pub(super) fn acknowledged(&mut self) {
        self.acknowledged = self.ack();
        if self.taken() == self.acknowledged {
            self.ack_due = Mono::NEVER;
        }
    }

    /// Whether an acknowledgement must be sent of its own.
    pub(super) fn is_ack_due(&self, now: Mono) -> bool {
        self.ack() > self.acknowledged && self.is_due(now)
    }

    /// Whether what is taken must be written down, so that it can be acknowledged.
    pub(super) fn is_save_due(&self, now: Mono) -> bool {
        self.taken() > self.saved && self.is_due(now)
    }

    fn is_due(&self, now: Mono) -> bool {
        let behind = self.taken().saturating_sub(self.acknowledged);
        behind.saturating_mul(2) >= self.window_max || now >= self.ack_due
    }

    pub(super) fn ack_due(&self) -> Mono {
        self.ack_due
    }
}
