//! Pushes that wait for their number: order is kept, what is given up becomes a gap in its place.
//!
//! ```text
//!   offer ──► waiting ── room in output and window ──► numbered
//!                │ a newer one with the same collapse key   ──► gone, replaced
//!                │ its time is over when its turn comes     ──► Gap (PUSH_EXPIRED)
//!                └ too many, or too many bytes: the oldest
//!                  of the least priority                    ──► Gap (PUSH_OVERFLOW)
//! ```

use crate::relay::{Push, ReceiptTo};
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{Priority, Reason};
use std::collections::VecDeque;
use std::sync::Arc;

/// How many pushes, and bytes of them, as if each were its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct PushBudget {
    pub(super) count: usize,
    pub(super) bytes: usize,
}

impl PushBudget {
    /// What is left of it.
    pub(super) fn without(self, used: PushBudget) -> PushBudget {
        let count = self.count.saturating_sub(used.count);
        PushBudget { count, bytes: self.bytes.saturating_sub(used.bytes) }
    }
}

/// Pushes that were given up, and who wanted to know of them.
#[derive(Debug, Default)]
pub struct Lost {
    /// How many: for overflow, for age, for a newer one.
    pub overflowed: u64,
    /// Their time was over.
    pub expired: u64,
    /// A newer one took their place.
    pub collapsed: u64,
    /// To be told of it.
    pub receipts: Vec<(Arc<ReceiptTo>, Reason)>,
}

impl Lost {
    /// A push that was sent, may not have arrived, and cannot be sent again.
    pub(super) fn note_sent(&mut self, receipt: Option<Arc<ReceiptTo>>) {
        self.overflowed = self.overflowed.saturating_add(1);
        self.receipts.extend(receipt.map(|to| (to, Reason::PushOverflow)));
    }

    fn note(&mut self, push: &Push, reason: Reason) {
        let count = match reason {
            Reason::PushExpired => &mut self.expired,
            Reason::PushCollapsed => &mut self.collapsed,
            _ => &mut self.overflowed,
        };
        *count = count.saturating_add(1);
        self.receipts.extend(push.receipt.clone().map(|to| (to, reason)));
    }
}

#[derive(Debug)]
enum Waiting {
    Push(Arc<Push>),
    Gap { count: u64, reason: Reason },
}

/// What is to be numbered next.
#[derive(Debug)]
pub(super) enum Next {
    Push(Arc<Push>),
    Gap { count: u64, reason: Reason },
}

/// The pushes that wait for one client.
#[derive(Debug, Default)]
pub(super) struct PushQueue {
    waiting: VecDeque<Waiting>,
    /// How many pushes wait, by [`rank`].
    pushes: [usize; 3],
    bytes: usize,
}

/// The last are given up first.
fn rank(priority: Priority) -> usize {
    match priority {
        Priority::High => 2,
        Priority::Normal => 1,
        Priority::Low => 0,
    }
}

impl PushQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What waits.
    pub(super) fn used(&self) -> PushBudget {
        PushBudget { count: self.pushes.iter().sum(), bytes: self.bytes }
    }

    /// Puts a push at the end, and gives up what is too much.
    pub(super) fn offer(&mut self, push: &Arc<Push>, budget: PushBudget, lost: &mut Lost) {
        if !push.collapse_key.is_empty() {
            self.collapse(&push.collapse_key, lost);
        }
        self.count(push, 1);
        self.bytes = self.bytes.saturating_add(push.body.len());
        self.waiting.push_back(Waiting::Push(push.clone()));
        while self.pushes.iter().sum::<usize>() > budget.count || self.bytes > budget.bytes {
            let least = self.pushes.iter().position(|count| *count > 0);
            let is_least = |it: &Waiting| matches!(it, Waiting::Push(it) if Some(rank(it.priority)) == least);
            let Some(oldest) = self.waiting.iter().position(is_least) else { return };
            self.give_up(oldest, Reason::PushOverflow, lost);
        }
    }

    fn count(&mut self, push: &Push, change: isize) {
        if let Some(count) = self.pushes.get_mut(rank(push.priority)) {
            *count = count.saturating_add_signed(change);
        }
    }

    /// A push that cannot be sent at all: a gap in its place.
    pub(super) fn skip(&mut self, push: &Push, lost: &mut Lost) {
        lost.note(push, Reason::PushOverflow);
        self.waiting.push_back(Waiting::Gap { count: 1, reason: Reason::PushOverflow });
        self.merge(self.waiting.len().saturating_sub(1));
    }

    fn collapse(&mut self, key: &str, lost: &mut Lost) {
        let same = |waiting: &Waiting| matches!(waiting, Waiting::Push(push) if *push.collapse_key == *key);
        let Some(at) = self.waiting.iter().position(same) else { return };
        if let Some(Waiting::Push(old)) = self.waiting.remove(at) {
            self.forget(&old);
            lost.note(&old, Reason::PushCollapsed);
            // What stood on both sides of it may be one gap now.
            self.merge(at);
        }
    }

    fn forget(&mut self, push: &Push) {
        self.count(push, -1);
        self.bytes = self.bytes.saturating_sub(push.body.len());
    }

    fn give_up(&mut self, at: usize, reason: Reason, lost: &mut Lost) {
        let Some(entry) = self.waiting.get_mut(at) else { return };
        if let Waiting::Push(push) = std::mem::replace(entry, Waiting::Gap { count: 1, reason }) {
            self.forget(&push);
            lost.note(&push, reason);
            self.merge(at.saturating_add(1));
            self.merge(at);
        }
    }

    /// Makes one of the gap at this place and the one before it, if both are gaps for the same reason.
    fn merge(&mut self, at: usize) {
        let Some(before) = at.checked_sub(1) else { return };
        let (Some(Waiting::Gap { count: one, reason }), Some(Waiting::Gap { count: other, reason: same })) =
            (self.waiting.get(before), self.waiting.get(at))
        else {
            return;
        };
        if reason == same {
            let merged = Waiting::Gap { count: one.saturating_add(*other), reason: *reason };
            self.waiting.remove(at);
            if let Some(entry) = self.waiting.get_mut(before) {
                *entry = merged;
            }
        }
    }

    /// Takes what is to be numbered next.
    pub(super) fn next(&mut self, now: Mono, lost: &mut Lost) -> Option<Next> {
        let is_over =
            |waiting: Option<&Waiting>| matches!(waiting, Some(Waiting::Push(it)) if it.expires <= now);
        if is_over(self.waiting.front()) {
            self.give_up(0, Reason::PushExpired, lost);
            // Those behind it go with it: one gap is enough for all.
            while is_over(self.waiting.get(1)) {
                self.give_up(1, Reason::PushExpired, lost);
            }
        }
        match self.waiting.pop_front()? {
            Waiting::Push(push) => {
                self.forget(&push);
                Some(Next::Push(push))
            }
            Waiting::Gap { count, reason } => Some(Next::Gap { count, reason }),
        }
    }

    pub(super) fn fit(&mut self) {
        self.waiting.shrink_to_fit();
    }

    /// Everything goes, with its session; who wanted to know of it.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = Arc<ReceiptTo>> + '_ {
        (self.pushes, self.bytes) = ([0; 3], 0);
        self.waiting.drain(..).filter_map(|waiting| match waiting {
            Waiting::Push(push) => push.receipt.clone(),
            Waiting::Gap { .. } => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::test_push::{PushDraft, push};
    use std::time::Duration;

    const LIMITS: PushBudget = PushBudget { count: 3, bytes: 100 };

    /// What comes out, in words: the body of a push, or the size and reason of a gap.
    fn all(queue: &mut PushQueue, now: Mono, lost: &mut Lost) -> Vec<String> {
        let mut found = Vec::new();
        while let Some(next) = queue.next(now, lost) {
            found.push(match next {
                Next::Push(push) => String::from_utf8(push.body.to_vec()).unwrap(),
                Next::Gap { count, reason } => format!("{count} {}", reason.as_str_name()),
            });
        }
        assert_eq!((queue.pushes, queue.bytes), ([0; 3], 0));
        found
    }

    // spec: D-10, D-11, D-12, D-15
    #[test]
    fn over_the_bound_the_oldest_of_the_least_priority_become_a_gap_in_their_place() {
        let (mut queue, mut lost) = (PushQueue::default(), Lost::default());
        let draft = |body: &[u8], priority| PushDraft { priority, ..PushDraft::of(body) }.push();
        queue.offer(&draft(b"a", Priority::High), LIMITS, &mut lost);
        queue.offer(&draft(b"b", Priority::Low), LIMITS, &mut lost);
        queue.offer(&draft(b"c", Priority::Low), LIMITS, &mut lost);
        queue.offer(&draft(b"d", Priority::Normal), LIMITS, &mut lost);
        queue.offer(&draft(b"e", Priority::High), LIMITS, &mut lost);
        assert_eq!(all(&mut queue, Mono::ZERO, &mut lost), ["a", "2 REASON_PUSH_OVERFLOW", "d", "e"]);
        assert_eq!((lost.overflowed, lost.receipts.len()), (2, 2));
        queue.offer(&draft(b"f", Priority::High), LIMITS, &mut lost);
        queue.offer(&draft(&[b'g'; 100], Priority::High), LIMITS, &mut lost);
        assert_eq!(all(&mut queue, Mono::ZERO, &mut lost).len(), 2, "bytes count too");
    }

    // spec: L-55
    #[test]
    fn a_newer_push_takes_the_place_of_one_with_its_collapse_key() {
        let (mut queue, mut lost) = (PushQueue::default(), Lost::default());
        let draft = |body: &[u8], key: &str| PushDraft { collapse_key: key, ..PushDraft::of(body) }.push();
        for (body, key) in [(b"a", "k"), (b"b", ""), (b"c", "other"), (b"d", "k")] {
            queue.offer(&draft(body, key), LIMITS, &mut lost);
        }
        assert_eq!(all(&mut queue, Mono::ZERO, &mut lost), ["b", "c", "d"]);
        assert_eq!((lost.collapsed, lost.overflowed), (1, 0));
        assert_eq!(lost.receipts[0].1, Reason::PushCollapsed);
    }

    // spec: L-56
    #[test]
    fn what_is_too_old_when_its_turn_comes_is_one_gap() {
        let (mut queue, mut lost) = (PushQueue::default(), Lost::default());
        let at = |seconds| Mono::ZERO + Duration::from_secs(seconds);
        let draft = |body: &[u8], expires| PushDraft { expires, ..PushDraft::of(body) }.push();
        queue.offer(&draft(b"a", at(1)), LIMITS, &mut lost);
        queue.offer(&draft(b"b", at(2)), LIMITS, &mut lost);
        queue.offer(&draft(b"c", at(3)), LIMITS, &mut lost);
        assert_eq!(all(&mut queue, at(2), &mut lost), ["2 REASON_PUSH_EXPIRED", "c"]);
        assert_eq!(lost.expired, 2);
        for body in [b"d", b"e", b"f"] {
            queue.offer(&draft(body, at(4)), LIMITS, &mut lost);
        }
        assert_eq!(all(&mut queue, at(4), &mut lost), ["3 REASON_PUSH_EXPIRED"], "however many");
    }

    #[test]
    fn a_push_that_fits_into_no_frame_is_a_gap() {
        let (mut queue, mut lost) = (PushQueue::default(), Lost::default());
        queue.skip(&push(b"x"), &mut lost);
        queue.skip(&push(b"y"), &mut lost);
        assert_eq!(all(&mut queue, Mono::ZERO, &mut lost), ["2 REASON_PUSH_OVERFLOW"]);
    }
}
