//! Messages of ours that were not taken by the service yet. They go one after the other, so that they keep their order,
//! each with a key of its own, so that none is taken twice however often it is sent.

use super::entries::EntryId;
use crate::command::Target;
use std::collections::VecDeque;

/// So many messages may wait.
pub(crate) const WAITING_MAX: usize = 100;

/// What a receiver knows a message of one sender by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Reference(pub(crate) u64);

/// A message of ours.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outgoing {
    pub(crate) reference: Reference,
    pub(crate) target: Target,
    pub(crate) text: String,
    pub(crate) entry: EntryId,
}

/// See the module's page.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: VecDeque<Outgoing>,
    /// The first one is on its way.
    is_busy: bool,
}

impl Outbox {
    /// Takes a message, unless too many wait.
    pub(crate) fn put(&mut self, outgoing: Outgoing) {
        if !self.is_full() {
            self.waiting.push_back(outgoing);
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_MAX
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The next to be sent, which is on its way then.
    pub(crate) fn send(&mut self) -> Option<&Outgoing> {
        if self.is_busy {
            return None;
        }
        let first = self.waiting.front()?;
        self.is_busy = true;
        Some(first)
    }

    /// The one on its way has come to its end.
    pub(crate) fn done(&mut self, reference: Reference) -> Option<Outgoing> {
        if self.waiting.front().is_none_or(|first| first.reference != reference) {
            return None;
        }
        self.is_busy = false;
        self.waiting.pop_front()
    }

    /// Nothing of it is to be sent any more.
    pub(crate) fn clear(&mut self) -> impl Iterator<Item = Outgoing> {
        self.is_busy = false;
        std::mem::take(&mut self.waiting).into_iter()
    }

    /// The one on its way goes again later.
    pub(crate) fn again(&mut self) {
        self.is_busy = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing(reference: u64) -> Outgoing {
        let target = Target::User("bob".to_owned());
        Outgoing { reference: Reference(reference), target, text: String::new(), entry: EntryId(reference) }
    }

    #[test]
    fn messages_go_one_after_the_other() {
        let mut outbox = Outbox::default();
        outbox.put(outgoing(1));
        outbox.put(outgoing(2));
        assert_eq!(outbox.send(), Some(&outgoing(1)));
        assert_eq!(outbox.send(), None);
        outbox.again();
        assert_eq!(outbox.send(), Some(&outgoing(1)));
        assert_eq!(outbox.done(Reference(2)), None);
        assert_eq!(outbox.done(Reference(1)), Some(outgoing(1)));
        assert_eq!(outbox.send(), Some(&outgoing(2)));
        assert_eq!(outbox.len(), 1);
    }

    #[test]
    fn what_is_cleared_is_handed_back() {
        let mut outbox = Outbox::default();
        outbox.put(outgoing(1));
        outbox.send();
        assert_eq!(outbox.clear().collect::<Vec<_>>(), [outgoing(1)]);
        outbox.put(outgoing(2));
        assert_eq!(outbox.send(), Some(&outgoing(2)));
    }

    #[test]
    fn only_so_many_wait() {
        let mut outbox = Outbox::default();
        (0..2 * WAITING_MAX as u64).for_each(|reference| outbox.put(outgoing(reference)));
        assert!(outbox.is_full());
        assert_eq!(outbox.len(), WAITING_MAX);
    }
}
