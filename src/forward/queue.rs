//! Calls of one service that wait for a link: those of the highest priority first, and among equals the first first.

use crate::base::ids::CallKey;
use crate::routing::Priority;
use std::collections::VecDeque;

/// From the highest.
const CLASSES: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];

/// Keys only: who of them has been settled meanwhile is for the owner to tell.
#[derive(Debug, Default)]
pub(super) struct Queue {
    high: VecDeque<CallKey>,
    normal: VecDeque<CallKey>,
    low: VecDeque<CallKey>,
}

impl Queue {
    fn class(&mut self, priority: Priority) -> &mut VecDeque<CallKey> {
        match priority {
            Priority::High => &mut self.high,
            Priority::Normal => &mut self.normal,
            Priority::Low => &mut self.low,
        }
    }

    pub(super) fn push_back(&mut self, priority: Priority, key: CallKey) {
        self.class(priority).push_back(key);
    }

    /// Puts one back that was taken from the front.
    pub(super) fn push_front(&mut self, priority: Priority, key: CallKey) {
        self.class(priority).push_front(key);
    }

    /// The first of the highest class.
    pub(super) fn pop(&mut self) -> Option<(Priority, CallKey)> {
        CLASSES.iter().find_map(|priority| Some((*priority, self.class(*priority).pop_front()?)))
    }

    /// The last of the lowest class, of those below `priority`; of all with `None`.
    pub(super) fn pop_youngest(&mut self, below: Option<Priority>) -> Option<CallKey> {
        let classes = CLASSES.iter().rev().filter(|priority| below.is_none_or(|below| **priority < below));
        classes.into_iter().find_map(|priority| self.class(*priority).pop_back())
    }

    pub(super) fn len(&self) -> usize {
        self.high.len().saturating_add(self.normal.len()).saturating_add(self.low.len())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.high.is_empty() && self.normal.is_empty() && self.low.is_empty()
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&CallKey) -> bool) {
        self.high.retain(&mut keep);
        self.normal.retain(&mut keep);
        self.low.retain(keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_goes_first_and_the_youngest_of_the_lowest_is_given_up() {
        let key = |n| CallKey::new(n, 1);
        let mut queue = Queue::default();
        for (n, priority) in (1..).zip([Priority::Low, Priority::Normal, Priority::High, Priority::Low]) {
            queue.push_back(priority, key(n));
        }
        assert_eq!(queue.pop_youngest(Some(Priority::Low)), None, "nothing is lower");
        assert_eq!(queue.pop_youngest(Some(Priority::Normal)), Some(key(4)));
        assert_eq!(queue.pop(), Some((Priority::High, key(3))));
        queue.push_front(Priority::High, key(3));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|(_, key)| key).collect();
        assert_eq!(order, [key(3), key(2), key(1)]);
        queue.push_back(Priority::High, key(5));
        assert_eq!((queue.len(), queue.pop_youngest(None)), (1, Some(key(5))));
        assert!(queue.is_empty());
    }
}
