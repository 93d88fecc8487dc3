//! The groups that sessions of this shard are in: who the members are. Which shards have any, the directory knows.

use crate::base::ids::SessionKey;
use crate::session::Membership;
use std::collections::HashMap;
use std::sync::Arc;

/// A group with members here.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: Arc<str>,
    /// In no order: whoever leaves has the last one take its place.
    pub(super) members: Vec<SessionKey>,
}

/// All groups with members here. A session keeps the list of its own places, in [`crate::session::Session::groups`].
#[derive(Debug, Default)]
pub(super) struct GroupTable {
    groups: slab::Slab<Group>,
    by_name: HashMap<Arc<str>, u32, foldhash::fast::RandomState>,
    members: usize,
}

impl GroupTable {
    /// Memberships of all sessions.
    pub(super) fn members(&self) -> usize {
        self.members
    }

    /// Groups with members.
    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    pub(super) fn find(&self, name: &str) -> Option<&Group> {
        self.groups.get(*self.by_name.get(name)? as usize)
    }

    pub(super) fn number(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    pub(super) fn name(&self, number: u32) -> Option<&Arc<str>> {
        self.groups.get(number as usize).map(|group| &group.name)
    }

    /// Puts a session that is not in it into a group; its place.
    pub(super) fn join(&mut self, name: &Arc<str>, session: SessionKey) -> Membership {
        let number = match self.by_name.get(name) {
            Some(number) => *number,
            None => {
                let index = self.groups.insert(Group { name: name.clone(), members: Vec::new() });
                // Groups are bounded by memberships, and those far below.
                let number = u32::try_from(index).unwrap_or(u32::MAX);
                self.by_name.insert(name.clone(), number);
                number
            }
        };
        self.members = self.members.saturating_add(1);
        let members = self.groups.get_mut(number as usize).map(|group| &mut group.members);
        let at = members.map_or(0, |members| {
            members.push(session);
            members.len().saturating_sub(1)
        });
        Membership { group: number, at: u32::try_from(at).unwrap_or(u32::MAX) }
    }

    /// Takes a session out; who stands in its place now, if somebody had to move.
    pub(super) fn leave(&mut self, place: Membership) -> Option<SessionKey> {
        let group = self.groups.get_mut(place.group as usize)?;
        let at = place.at as usize;
        if at >= group.members.len() {
            debug_assert!(false, "a member knows its place");
            return None;
        }
        group.members.swap_remove(at);
        self.members = self.members.saturating_sub(1);
        let moved = group.members.get(at).copied();
        if group.members.is_empty() {
            let group = self.groups.remove(place.group as usize);
            self.by_name.remove(&group.name);
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_leaves_has_the_last_one_take_its_place() {
        let mut table = GroupTable::default();
        let (name, key) = (Arc::from("g"), |index| SessionKey::new(index, 1));
        let places: Vec<Membership> = (0..3).map(|index| table.join(&name, key(index))).collect();
        assert_eq!((table.members(), table.len(), table.number("g")), (3, 1, Some(places[0].group)));
        assert_eq!(table.leave(places[0]), Some(key(2)));
        assert_eq!(table.find("g").unwrap().members, [key(2), key(1)]);
        assert_eq!(table.leave(places[1]), None, "it was the last");
        assert_eq!(table.leave(Membership { at: 0, ..places[2] }), None);
        assert_eq!((table.members(), table.len()), (0, 0));
        assert!(table.find("g").is_none());
    }
}
