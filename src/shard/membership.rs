//! Sessions join groups and leave them: because a service says so, or because they end.

use super::Shard;
use crate::base::counters::Count;
use crate::base::ids::SessionKey;
use crate::relay::{MemberOrder, Membership};
use crate::session::{self, Session};

impl Shard {
    /// A service changes a group for a session that it names.
    pub(super) fn member_ordered(&mut self, order: &MemberOrder) {
        if self.sessions.get(order.session).is_none() {
            self.cells.count(Count::DirectivesStale);
            return self.unregister(&order.membership);
        }
        self.change(order.session, &order.membership);
    }

    /// Takes back what the worker has told the directory.
    pub(super) fn unregister(&mut self, membership: &Membership) {
        if let Membership::Join(group) = membership {
            self.directory.leave(group, self.batch.shard);
        }
    }

    pub(super) fn change(&mut self, session_key: SessionKey, membership: &Membership) {
        let Some(session) = self.sessions.get_mut(session_key) else {
            return self.unregister(membership);
        };
        let (Membership::Join(name) | Membership::Leave(name)) = membership;
        let number = self.groups.number(name);
        let places = session.groups.as_ref().map(|groups| groups.0.as_slice()).unwrap_or_default();
        let at = places.iter().position(|place| Some(place.group) == number);
        match (membership, at) {
            (Membership::Join(_), Some(_)) => self.unregister(membership),
            (Membership::Join(_), None) if places.len() >= self.session_settings.groups_max => {
                self.cells.count(Count::GroupsRefused);
                self.unregister(membership);
            }
            (Membership::Join(name), None) => {
                let place = self.groups.join(name, session_key);
                session.groups.get_or_insert_default().0.push(place);
                self.cells.count(Count::GroupsJoined);
            }
            (Membership::Leave(_), Some(at)) => self.leave(session_key, at),
            (Membership::Leave(_), None) => {}
        }
    }

    /// Takes a session out of the group at this place of its list.
    fn leave(&mut self, session_key: SessionKey, at: usize) {
        let Some(groups) = self.sessions.get_mut(session_key).and_then(|it| it.groups.as_mut()) else {
            return;
        };
        if at < groups.0.len() {
            let place = groups.0.swap_remove(at);
            self.vacate(place);
        }
    }

    /// A session has ended: it is in no group any more.
    pub(super) fn leave_all(&mut self, session: &mut Session) {
        for place in session.groups.take().map(|groups| groups.0).unwrap_or_default() {
            self.vacate(place);
        }
    }

    fn vacate(&mut self, place: session::Membership) {
        let Some(name) = self.groups.name(place.group).cloned() else { return };
        let moved = self.groups.leave(place);
        let moved = moved.and_then(|key| self.sessions.get_mut(key)).and_then(|it| it.groups.as_mut());
        if let Some(groups) = moved
            && let Some(of_moved) = groups.0.iter_mut().find(|it| it.group == place.group)
        {
            of_moved.at = place.at;
        }
        self.directory.leave(&name, self.batch.shard);
        self.cells.count(Count::GroupsLeft);
    }
}
