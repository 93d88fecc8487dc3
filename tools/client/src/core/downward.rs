//! The downward stream as its receiver keeps it: what came, what the application has taken of it, and what is still
//! to be acknowledged.

use moorgate_proto::time::Mono;
use std::collections::VecDeque;
use std::time::Duration;

/// What came is acknowledged this long after it was taken, at the latest.
pub const ACK_DELAY: Duration = Duration::from_millis(500);

/// A numbered frame that the application has not taken yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Held(u64);

/// See the module's page.
#[derive(Debug)]
pub(super) struct Downward {
    /// The highest number that came.
    came: u64,
    /// The first number of the frame that is looked at: a Gap may stand for several.
    first: u64,
    /// The first numbers of frames that were not taken yet, rising.
    held: VecDeque<u64>,
    /// Responses behind a frame that is held: unacknowledged, they keep their places in flight.
    kept_places: VecDeque<u64>,
    acknowledged: u64,
    /// `NEVER`: there is nothing to acknowledge.
    ack_due: Mono,
    window_max: u64,
}

impl Downward {
    pub(super) fn new() -> Downward {
        Downward {
            came: 0,
            first: 0,
            held: VecDeque::new(),
            kept_places: VecDeque::new(),
            acknowledged: 0,
            ack_due: Mono::NEVER,
            window_max: 0,
        }
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

    /// The frame that came last is not taken yet.
    pub(super) fn hold(&mut self) -> Option<Held> {
        if self.first == 0 {
            return None;
        }
        if self.held.back() != Some(&self.first) {
            self.held.push_back(self.first);
        }
        Some(Held(self.first))
    }

    /// More is held than a gateway may send.
    pub(super) fn is_overrun(&self) -> bool {
        self.held.len() as u64 > self.window_max
    }

    /// A frame that was held is taken now.
    pub(super) fn release(&mut self, now: Mono, held: Held) {
        if let Ok(at) = self.held.binary_search(&held.0) {
            self.held.remove(at);
            let ack = self.ack();
            while self.kept_places.front().is_some_and(|seq| *seq <= ack) {
                self.kept_places.pop_front();
            }
            self.judge(now);
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

    /// The highest number up to which everything was taken.
    pub(super) fn ack(&self) -> u64 {
        self.held.front().map_or(self.came, |first| first.saturating_sub(1))
    }

    /// Looks whether there is something to acknowledge, and until when.
    pub(super) fn judge(&mut self, now: Mono) {
        if self.ack() > self.acknowledged {
            self.ack_due = self.ack_due.min(now + ACK_DELAY);
        }
    }

    /// A frame with [`Downward::ack`] was written.
    pub(super) fn acknowledged(&mut self) {
        self.acknowledged = self.ack();
        self.ack_due = Mono::NEVER;
    }

    /// Whether an acknowledgement must be sent of its own.
    pub(super) fn is_ack_due(&self, now: Mono) -> bool {
        let behind = self.ack().saturating_sub(self.acknowledged);
        behind > 0 && (behind.saturating_mul(2) >= self.window_max || now >= self.ack_due)
    }

    pub(super) fn ack_due(&self) -> Mono {
        self.ack_due
    }
}
