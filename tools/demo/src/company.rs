//! Who keeps company with whom: users of one group, and users who have written to each other. They are told when one of
//! them comes or goes.

use std::collections::{BTreeSet, HashMap};

/// Places in groups and pairs that are remembered; a pair has two.
const PLACES_MAX: usize = 100_000;
/// Users who are told of one.
const TOLD_MAX: usize = 1000;

/// Where users meet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Room {
    Group(String),
    /// Two users, in the order of their names.
    Pair(String, String),
}

/// See the module's page.
#[derive(Debug, Default)]
pub(crate) struct Company {
    members: HashMap<Room, BTreeSet<String>>,
    rooms: HashMap<String, BTreeSet<Room>>,
    places: usize,
}

impl Company {
    /// A user has joined a group, with one of the user's sessions.
    pub(crate) fn joins(&mut self, user: &str, group: &str) {
        self.enters(user, Room::Group(group.to_owned()));
    }

    /// A user has left a group.
    pub(crate) fn leaves(&mut self, user: &str, group: &str) {
        self.exits(user, &Room::Group(group.to_owned()));
    }

    /// A user has written to another.
    pub(crate) fn meets(&mut self, one: &str, other: &str) {
        if one == other {
            return;
        }
        let (first, second) = if one < other { (one, other) } else { (other, one) };
        let pair = Room::Pair(first.to_owned(), second.to_owned());
        self.enters(one, pair.clone());
        self.enters(other, pair);
    }

    /// Who is told of a user: at most a thousand, in the order of their names, of those for whom `is_here` holds.
    pub(crate) fn of(&self, user: &str, is_here: impl Fn(&str) -> bool) -> Vec<String> {
        let rooms = self.rooms.get(user).into_iter().flatten();
        let members = rooms.filter_map(|room| self.members.get(room)).flatten();
        let others: BTreeSet<&String> = members.filter(|other| *other != user && is_here(other)).collect();
        others.into_iter().take(TOLD_MAX).cloned().collect()
    }

    fn enters(&mut self, user: &str, room: Room) {
        // When there is no room for more, all is forgotten: groups are joined again with each new session.
        if self.places >= PLACES_MAX {
            *self = Company::default();
        }
        if self.members.entry(room.clone()).or_default().insert(user.to_owned()) {
            self.places += 1;
        }
        self.rooms.entry(user.to_owned()).or_default().insert(room);
    }

    fn exits(&mut self, user: &str, room: &Room) {
        let Some(members) = self.members.get_mut(room) else { return };
        if members.remove(user) {
            self.places = self.places.saturating_sub(1);
        }
        if members.is_empty() {
            self.members.remove(room);
        }
        if let Some(rooms) = self.rooms.get_mut(user) {
            rooms.remove(room);
            if rooms.is_empty() {
                self.rooms.remove(user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_shares_a_group_or_has_written_is_told_once() {
        let mut company = Company::default();
        for (user, group) in [("alice", "a"), ("bob", "a"), ("alice", "b"), ("bob", "b"), ("carol", "b")] {
            company.joins(user, group);
        }
        company.meets("dave", "alice");
        company.meets("alice", "bob");
        company.meets("alice", "alice");
        let told = |company: &Company, user: &str| company.of(user, |other| other != "carol").join(" ");
        assert_eq!(told(&company, "alice"), "bob dave");
        assert_eq!((told(&company, "dave"), told(&company, "nobody")), ("alice".to_owned(), String::new()));
        company.leaves("bob", "a");
        company.leaves("bob", "b");
        company.leaves("bob", "c");
        assert_eq!(
            (told(&company, "bob"), told(&company, "carol")),
            ("alice".to_owned(), "alice".to_owned())
        );
        company.leaves("carol", "b");
        assert_eq!(told(&company, "carol"), "");
    }

    #[test]
    fn it_is_bounded() {
        let mut company = Company::default();
        for number in 0..PLACES_MAX + 10 {
            company.joins(&number.to_string(), "all");
        }
        assert!(company.places <= PLACES_MAX && company.rooms.len() <= PLACES_MAX);
        for number in 0..TOLD_MAX + 10 {
            company.joins(&number.to_string(), "all");
        }
        assert_eq!(company.of("5", |_| true).len(), TOLD_MAX);
    }
}
