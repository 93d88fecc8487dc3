//! Calls of one service that wait for a link: those of the highest priority first, and among equals the first first.

use crate::base::ids::CallKey;
use crate::routing::Priority;
use std::collections::VecDeque;

/// Calls of one priority.
#[derive(Debug, Default)]
struct Class {
    /// They were sent before, and go first.
    again: VecDeque<CallKey>,
    first: VecDeque<CallKey>,
}

/// Where one was that was taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    priority: Priority,
    pub(super) is_again: bool,
}

/// Keys only: who of them has been settled meanwhile is for the owner to tell.
#[derive(Debug, Default)]
pub(super) struct Queue {
    high: Class,
    normal: Class,
    low: Class,
}

impl Queue {
    fn class(&mut self, priority: Priority) -> &mut Class {
        match priority {
            Priority::High => &mut self.high,
            Priority::Normal => &mut self.normal,
            Priority::Low => &mut self.low,
        }
    }

    fn of(&mut self, rank: Rank) -> &mut VecDeque<CallKey> {
        let class = self.class(rank.priority);
        if rank.is_again { &mut class.again } else { &mut class.first }
    }

    /// The last of its class; of one that was sent before (`is_again`): the last of those, before all others.
    pub(super) fn push(&mut self, priority: Priority, is_again: bool, key: CallKey) {
        self.of(Rank { priority, is_again }).push_back(key);
    }

    /// Puts one back that was taken from the front.
    pub(super) fn put_back(&mut self, rank: Rank, key: CallKey) {
        self.of(rank).push_front(key);
    }

    /// The first of the highest class.
    pub(super) fn pop(&mut self) -> Option<(Rank, CallKey)> {
        let rank = self.first()?;
        Some((rank, self.of(rank).pop_front()?))
    }

    /// The rank of the first.
    pub(super) fn first(&self) -> Option<Rank> {
        let of = |class: &Class, priority| match (class.again.is_empty(), class.first.is_empty()) {
            (false, _) => Some(Rank { priority, is_again: true }),
            (true, false) => Some(Rank { priority, is_again: false }),
            (true, true) => None,
        };
        of(&self.high, Priority::High)
            .or_else(|| of(&self.normal, Priority::Normal))
            .or_else(|| of(&self.low, Priority::Low))
    }

    /// The lowest class that has anybody.
    pub(super) fn lowest(&self) -> Option<Priority> {
        let classes =
            [(Priority::Low, &self.low), (Priority::Normal, &self.normal), (Priority::High, &self.high)];
        classes.into_iter().find(|(_, class)| class.len() > 0).map(|(priority, _)| priority)
    }

    /// The last of a class.
    pub(super) fn pop_youngest(&mut self, of: Priority) -> Option<CallKey> {
        let class = self.class(of);
        class.first.pop_back().or_else(|| class.again.pop_back())
    }

    pub(super) fn len(&self) -> usize {
        self.high.len().saturating_add(self.normal.len()).saturating_add(self.low.len())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &CallKey> {
        let classes = [&self.high, &self.normal, &self.low].into_iter();
        classes.flat_map(|class| class.again.iter().chain(&class.first))
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&CallKey) -> bool) {
        for class in [&mut self.high, &mut self.normal, &mut self.low] {
            class.again.retain(&mut keep);
            class.first.retain(&mut keep);
        }
    }
}

impl Class {
    fn len(&self) -> usize {
        self.again.len().saturating_add(self.first.len())
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
            queue.push(priority, false, key(n));
        }
        assert_eq!(queue.lowest(), Some(Priority::Low));
        assert_eq!(queue.pop_youngest(Priority::Low), Some(key(4)));
        let (rank, first) = queue.pop().unwrap();
        assert_eq!((rank.priority, first), (Priority::High, key(3)));
        queue.put_back(rank, key(3));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|(_, key)| key).collect();
        assert_eq!(order, [key(3), key(2), key(1)]);
        queue.push(Priority::High, false, key(5));
        assert_eq!((queue.len(), queue.pop_youngest(Priority::High)), (1, Some(key(5))));
        assert!(queue.is_empty() && queue.lowest().is_none());
    }

    #[test]
    fn those_that_were_sent_before_go_first_in_their_order() {
        let key = |n| CallKey::new(n, 1);
        let mut queue = Queue::default();
        for (n, is_again) in [(1, false), (2, true), (3, true), (4, false)] {
            queue.push(Priority::Low, is_again, key(n));
        }
        let taken: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        taken.iter().rev().for_each(|(rank, key)| queue.put_back(*rank, *key));
        queue.push(Priority::Low, true, key(5));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|(_, key)| key).collect();
        assert_eq!(order, [2, 3, 5, 1, 4].map(key));
    }
}
