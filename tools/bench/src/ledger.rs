//! What one connection has got of the pushes for it: each once, in order, or told that it was given up.
//!
//! Pushes for one connection are counted 0, 1, 2 and so on. One above the next expected leaves a hole; one that comes
//! later into a hole was overtaken; one that fits into none came twice. Lost is what was sent and neither came nor was
//! told of.

use std::collections::VecDeque;
use std::ops::Range;

/// Holes that are remembered; beyond them the oldest is forgotten, and what comes late into it counts as a duplicate.
const HOLES_MAX: usize = 256;

/// See the module's page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    next: u64,
    /// Below `next` and not come, in order.
    holes: VecDeque<Range<u64>>,
    tally: Tally,
}

/// Sums, of one connection or of many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Pushes that came, each counted once.
    pub(crate) received: u64,
    /// Those that came again.
    pub(crate) duplicated: u64,
    /// Those that were overtaken.
    pub(crate) reordered: u64,
    /// Those of which the other side has said that they will not come.
    pub(crate) given_up: u64,
    /// Those that were sent, and neither came nor were told of.
    pub(crate) lost: u64,
    /// Those that came, or were told of, beyond what was sent.
    pub(crate) surplus: u64,
}

impl Ledger {
    /// The push of this count has come. Whether it is new.
    pub(crate) fn came(&mut self, count: u64) -> bool {
        if count >= self.next {
            if count > self.next {
                self.leave_hole(self.next..count);
            }
            self.next = count.saturating_add(1);
        } else if self.fill_hole(count) {
            self.tally.reordered = self.tally.reordered.saturating_add(1);
        } else {
            self.tally.duplicated = self.tally.duplicated.saturating_add(1);
            return false;
        }
        self.tally.received = self.tally.received.saturating_add(1);
        true
    }

    /// So many pushes will not come.
    pub(crate) fn gave_up(&mut self, count: u64) {
        self.tally.given_up = self.tally.given_up.saturating_add(count);
    }

    /// Pushes that have come.
    pub(crate) fn received(&self) -> u64 {
        self.tally.received
    }

    /// The sums, now that so many have been sent.
    pub(crate) fn closed(&self, sent: u64) -> Tally {
        let settled = self.tally.received.saturating_add(self.tally.given_up);
        Tally { lost: sent.saturating_sub(settled), surplus: settled.saturating_sub(sent), ..self.tally }
    }

    fn leave_hole(&mut self, hole: Range<u64>) {
        if self.holes.len() >= HOLES_MAX {
            self.holes.pop_front();
        }
        self.holes.push_back(hole);
    }

    /// Whether there was one.
    fn fill_hole(&mut self, count: u64) -> bool {
        let Some(at) = self.holes.iter().position(|hole| hole.contains(&count)) else { return false };
        let Some(hole) = self.holes.remove(at) else { return false };
        // What is left of it, on both sides; more than the bound by one for a moment at the most.
        for part in [count.saturating_add(1)..hole.end, hole.start..count] {
            if !part.is_empty() {
                self.holes.insert(at, part);
            }
        }
        true
    }
}

impl Tally {
    /// Adds another one.
    pub(crate) fn add(&mut self, other: Tally) {
        let Tally { received, duplicated, reordered, given_up, lost, surplus } = other;
        for (sum, part) in [
            (&mut self.received, received),
            (&mut self.duplicated, duplicated),
            (&mut self.reordered, reordered),
            (&mut self.given_up, given_up),
            (&mut self.lost, lost),
            (&mut self.surplus, surplus),
        ] {
            *sum = sum.saturating_add(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(counts: &[u64], sent: u64) -> Tally {
        let mut ledger = Ledger::default();
        counts.iter().for_each(|count| {
            ledger.came(*count);
        });
        ledger.closed(sent)
    }

    #[test]
    fn each_once_and_in_order_is_good() {
        assert_eq!(after(&[0, 1, 2], 3), Tally { received: 3, ..Tally::default() });
        assert_eq!(after(&[], 0), Tally::default());
    }

    #[test]
    fn each_planted_fault_is_told_from_the_others() {
        let three = Tally { received: 3, ..Tally::default() };
        assert_eq!(after(&[0, 1, 3], 4), Tally { lost: 1, ..three }, "a hole");
        assert_eq!(after(&[0, 1, 2], 5), Tally { lost: 2, ..three }, "the last ones");
        assert_eq!(after(&[1, 2, 3], 4), Tally { lost: 1, ..three }, "the first one");
        assert_eq!(after(&[0, 1, 1, 2], 3), Tally { duplicated: 1, ..three }, "twice in a row");
        assert_eq!(after(&[0, 1, 2, 0], 3), Tally { duplicated: 1, ..three }, "again, later");
        assert_eq!(after(&[0, 2, 1], 3), Tally { reordered: 1, ..three }, "overtaken");
        assert_eq!(after(&[0, 2, 1, 1], 3), Tally { reordered: 1, duplicated: 1, ..three });
        assert_eq!(after(&[2, 1, 0], 3), Tally { reordered: 2, ..three }, "the wrong way round");
        assert_eq!(after(&[0, 1, 2], 2), Tally { surplus: 1, ..three }, "never sent");
        let out_of_the_middle = after(&[0, 9, 5, 4, 6], 10);
        assert_eq!(out_of_the_middle, Tally { received: 5, reordered: 3, lost: 5, ..Tally::default() });
    }

    #[test]
    fn what_was_told_to_be_given_up_is_not_lost() {
        let mut ledger = Ledger::default();
        assert!(ledger.came(0));
        ledger.gave_up(2);
        assert!(ledger.came(3));
        assert_eq!(ledger.closed(4), Tally { received: 2, given_up: 2, ..Tally::default() });
        assert_eq!(ledger.closed(5).lost, 1);
        assert!(!ledger.came(3));
    }

    #[test]
    fn holes_are_bounded_and_what_they_hold_is_lost_all_the_same() {
        let mut ledger = Ledger::default();
        let holes = 3 * HOLES_MAX as u64;
        (0..holes).for_each(|at| {
            ledger.came(2 * at + 1);
        });
        assert!(ledger.holes.len() <= HOLES_MAX);
        assert_eq!(ledger.closed(2 * holes).lost, holes);
        assert!(ledger.came(2 * (holes - 1)), "the newest hole is known");
        assert!(!ledger.came(0), "the oldest is not");
    }

    #[test]
    fn tallies_add_up() {
        let mut all = after(&[0, 2, 1, 1], 4);
        all.add(after(&[0, 1, 2], 2));
        let expected = Tally { received: 6, duplicated: 1, reordered: 1, given_up: 0, lost: 1, surplus: 1 };
        assert_eq!(all, expected);
    }
}
