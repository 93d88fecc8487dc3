//! What was said, in the order in which it is shown.

use crate::command::Target;
use std::collections::VecDeque;

/// Entries that are kept; then the oldest go.
pub(crate) const ENTRIES_MAX: usize = 2000;

/// Names an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EntryId(pub(crate) u64);

/// One thing that is shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: EntryId,
    /// When, in milliseconds of Unix time.
    pub(crate) unix_ms: u64,
    pub(crate) what: What,
}

/// What it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Somebody says something.
    Message(Message),
    /// Something has happened.
    Note(String),
    /// Something is wrong.
    Problem(String),
}

/// A message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) from: String,
    pub(crate) target: Target,
    pub(crate) text: String,
    pub(crate) fate: Fate,
}

/// How far a message has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It has come here.
    Received,
    /// Ours, not taken by the service yet.
    Waiting,
    /// Ours, taken.
    Sent,
    /// Ours, taken, and nobody was there to get it.
    Missed,
    /// Ours, and not taken; why.
    Failed(String),
}

/// See the module's page.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    list: VecDeque<Entry>,
    next: u64,
}

impl Entries {
    pub(crate) fn add(&mut self, unix_ms: u64, what: What) -> EntryId {
        let id = EntryId(self.next);
        self.next += 1;
        self.list.push_back(Entry { id, unix_ms, what });
        if self.list.len() > ENTRIES_MAX {
            self.list.pop_front();
        }
        id
    }

    /// The place of an entry that is still there.
    fn place(&self, id: EntryId) -> Option<usize> {
        usize::try_from(id.0.checked_sub(self.list.front()?.id.0)?).ok()
    }

    pub(crate) fn find(&self, id: EntryId) -> Option<&Entry> {
        self.list.get(self.place(id)?)
    }

    /// The message that an entry is.
    pub(crate) fn message_mut(&mut self, id: EntryId) -> Option<&mut Message> {
        let place = self.place(id)?;
        match &mut self.list.get_mut(place)?.what {
            What::Message(message) => Some(message),
            What::Note(_) | What::Problem(_) => None,
        }
    }

    /// From the latest back.
    pub(crate) fn latest_first(&self) -> impl Iterator<Item = &Entry> {
        self.list.iter().rev()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_while_they_are_kept() {
        let mut entries = Entries::default();
        let ids: Vec<EntryId> =
            (0..ENTRIES_MAX as u64 + 2).map(|at| entries.add(at, What::Note(at.to_string()))).collect();
        assert_eq!(entries.find(ids[0]), None);
        assert_eq!(entries.find(ids[1]), None);
        for id in &ids[2..] {
            assert_eq!(entries.find(*id).unwrap().id, *id);
        }
        assert_eq!(entries.find(EntryId(u64::MAX)), None);
        assert_eq!(entries.latest_first().next().unwrap().id, ids[ENTRIES_MAX + 1]);
        assert_eq!(entries.message_mut(ids[5]), None, "a note");
    }
}
