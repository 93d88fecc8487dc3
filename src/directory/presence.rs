//! Which users' presence has changed, for the one who tells the services. Nothing is kept while nobody wants to know.

use crate::base::bell::Ring;
use crate::base::sync::{Lock, Primitives, Signal};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

/// Users whose presence has changed since they were taken the last time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changed {
    /// Each once, in the order of their first change; how they are now, [`Directory::presence_of`] says.
    ///
    /// [`Directory::presence_of`]: super::Directory::presence_of
    pub users: Vec<Arc<str>>,
    /// Changes of users that waited already.
    pub coalesced: u64,
    /// There were more than may wait: whoever wants to know them all has to look at everybody.
    pub overflowed: bool,
}

#[derive(Debug, Default)]
struct Waiting {
    names: HashSet<Arc<str>, foldhash::fast::RandomState>,
    order: VecDeque<Arc<str>>,
    coalesced: u64,
    overflowed: bool,
}

impl Waiting {
    fn note(&mut self, user_id: &Arc<str>, max: usize) {
        if self.overflowed {
            return;
        }
        if self.names.contains(user_id) {
            self.coalesced = self.coalesced.saturating_add(1);
        } else if self.order.len() >= max {
            *self = Waiting { coalesced: self.coalesced, overflowed: true, ..Waiting::default() };
        } else {
            self.names.insert(user_id.clone());
            self.order.push_back(user_id.clone());
        }
    }
}

pub(super) struct Presence<P: Primitives> {
    bell: Arc<dyn Ring>,
    is_watched: P::Flag,
    has_changes: P::Flag,
    waiting: P::Mutex<Waiting>,
    changes_max: usize,
}

impl<P: Primitives> Presence<P> {
    /// `bell` wakes whoever takes the changes.
    pub(super) fn new(bell: Arc<dyn Ring>, changes_max: usize) -> Presence<P> {
        Presence {
            bell,
            is_watched: P::Flag::new(),
            has_changes: P::Flag::new(),
            waiting: P::Mutex::new(Waiting::default()),
            changes_max,
        }
    }

    /// From now on changes are kept, or no more.
    pub(super) fn watch(&self, watched: bool) {
        self.waiting.with(|waiting| {
            *waiting = Waiting::default();
            self.has_changes.set(false);
            self.is_watched.set(watched);
        });
    }

    /// A user's presence has changed; called after the change can be seen.
    pub(super) fn note(&self, user_id: &Arc<str>) {
        if !self.is_watched.is_set() {
            return;
        }
        self.waiting.with(|waiting| {
            // It may be over by now.
            if self.is_watched.is_set() {
                waiting.note(user_id, self.changes_max);
                self.has_changes.set(true);
            }
        });
        self.bell.ring();
    }

    pub(super) fn has_changes(&self) -> bool {
        self.has_changes.is_set()
    }

    pub(super) fn take(&self, max: usize) -> Changed {
        self.waiting.with(|waiting| {
            let count = waiting.order.len().min(max);
            let users: Vec<Arc<str>> = waiting.order.drain(..count).collect();
            for user in &users {
                waiting.names.remove(user);
            }
            self.has_changes.set(!waiting.order.is_empty());
            Changed {
                users,
                coalesced: std::mem::take(&mut waiting.coalesced),
                overflowed: std::mem::take(&mut waiting.overflowed),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::sync::Native;

    fn noted(presence: &Presence<Native>, users: &[&str]) {
        users.iter().for_each(|user| presence.note(&Arc::from(*user)));
    }

    #[test]
    fn a_user_that_changes_often_is_told_once() {
        let presence = Presence::<Native>::new(Arc::new(()), 9);
        noted(&presence, &["alice"]);
        assert!(!presence.has_changes(), "nobody watches");
        presence.watch(true);
        noted(&presence, &["alice", "bob", "alice", "alice", "carol"]);
        assert!(presence.has_changes());
        let first = presence.take(2);
        assert_eq!(first.users, ["alice".into(), "bob".into()]);
        assert_eq!((first.coalesced, first.overflowed, presence.has_changes()), (2, false, true));
        noted(&presence, &["alice"]);
        assert_eq!(presence.take(9).users, ["carol".into(), "alice".into()]);
        assert_eq!((presence.take(9), presence.has_changes()), (Changed::default(), false));
        noted(&presence, &["alice"]);
        presence.watch(false);
        assert_eq!((presence.take(9), presence.has_changes()), (Changed::default(), false));
    }

    #[test]
    fn more_than_may_wait_is_told_as_such() {
        let presence = Presence::<Native>::new(Arc::new(()), 2);
        presence.watch(true);
        noted(&presence, &["alice", "bob", "carol", "dave"]);
        let Changed { users, overflowed, .. } = presence.take(9);
        assert_eq!((users.len(), overflowed), (0, true));
        noted(&presence, &["erin"]);
        let Changed { users, overflowed, .. } = presence.take(9);
        assert_eq!((users.len(), overflowed), (1, false));
    }
}
