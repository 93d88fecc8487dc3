//! Sessions whose clients are away: until when, and which go first when there are too many.
//!
//! ```text
//!   add ──► away but present ── grace over: Due::Away ──► away ── time to live over: Due::Over ──► removed
//!    │            └─────────────────────────── remove: it was resumed, or has ended ──────────────────┘
//!    └─► an owner (user, address, application) has more than its share: that owner's oldest go
//!    └─► there are too many in all: anonymous ones go, then those of users with several, then the oldest
//! ```

use crate::base::ids::SessionKey;
use moorgate_proto::time::Mono;
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::Duration;

/// How many sessions without a connection one shard keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachedCaps {
    /// In all; a tenth of them without a user.
    pub total: usize,
    /// Of one user of an application.
    pub user: usize,
    /// Of one address.
    pub address: usize,
    /// Of one application.
    pub application: usize,
}

impl Default for DetachedCaps {
    fn default() -> Self {
        DetachedCaps { total: 500_000, user: 16, address: 20_000, application: 500_000 }
    }
}

/// Whose session it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner<'a> {
    /// Empty: nobody's.
    pub(super) user_id: &'a str,
    pub(super) application: &'a str,
    pub(super) address: IpAddr,
}

/// Which go first when there are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Anonymous,
    /// Its user had another one here when it came.
    OneOfSeveral,
    Only,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    since: Mono,
    until: Mono,
    /// When its user is not present any more; `NEVER`: that has been, or there is no user.
    away: Mono,
    rank: Rank,
}

impl Entry {
    fn next(&self) -> Mono {
        self.until.min(self.away)
    }
}

/// When one of an owner's sessions came, and which it is.
type Place = (Mono, u64);

/// Most users have one.
#[derive(Debug)]
enum Owned {
    One(Place),
    Several(BTreeSet<Place>),
}

impl Owned {
    fn len(&self) -> usize {
        match self {
            Owned::One(_) => 1,
            Owned::Several(places) => places.len(),
        }
    }

    fn oldest(&self) -> Option<Place> {
        match self {
            Owned::One(place) => Some(*place),
            Owned::Several(places) => places.first().copied(),
        }
    }

    fn add(&mut self, place: Place) {
        match self {
            Owned::One(one) => *self = Owned::Several(BTreeSet::from([*one, place])),
            Owned::Several(places) => {
                places.insert(place);
            }
        }
    }

    /// Whether nothing is left.
    fn remove(&mut self, place: Place) -> bool {
        match self {
            Owned::One(one) => *one == place,
            Owned::Several(places) => {
                places.remove(&place);
                places.is_empty()
            }
        }
    }
}

/// What has come over a session that is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Its user is no longer taken as present for it.
    Away,
    /// Its time to live is over.
    Over,
}

/// How one is added.
#[derive(Debug, Clone, Copy)]
pub(super) struct Detaching<'a> {
    pub(super) owner: Owner<'a>,
    /// How long it lives.
    pub(super) ttl: Duration,
    /// How long its user is present all the same.
    pub(super) grace: Duration,
}

/// How one was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Removed {
    /// Its user was still taken as present for it.
    pub(super) was_present: bool,
    /// It would have lived until then.
    pub(super) until: Mono,
}

/// Of all the part that anonymous sessions may be: they cost their clients nothing.
const ANONYMOUS_PART: usize = 10;

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct DetachedTable {
    /// Of `entries`, those without a user.
    anonymous: usize,
    entries: HashMap<u64, Entry, foldhash::fast::FixedState>,
    deadlines: BTreeSet<Place>,
    ranks: BTreeSet<(Rank, Place)>,
    owners: HashMap<u64, Owned, foldhash::fast::FixedState>,
    hash: foldhash::quality::RandomState,
}

impl DetachedTable {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds a session. Those that have to go for it, it may be the newcomer itself: the caller ends them, which removes
    /// them here.
    pub(super) fn add(
        &mut self,
        now: Mono,
        key: SessionKey,
        detaching: Detaching<'_>,
        caps: &DetachedCaps,
    ) -> Vec<SessionKey> {
        let Detaching { owner, ttl, grace } = detaching;
        let key = key.to_u64();
        let owners = self.owners_of(owner);
        let has_several = owners.first().is_some_and(|user| self.owners.contains_key(user));
        let rank = match owner.user_id {
            "" => Rank::Anonymous,
            _ if has_several => Rank::OneOfSeveral,
            _ => Rank::Only,
        };
        let away = if owner.user_id.is_empty() { Mono::NEVER } else { now + grace };
        let entry = Entry { since: now, until: now + ttl, away, rank };
        self.entries.insert(key, entry);
        self.deadlines.insert((entry.next(), key));
        self.ranks.insert((rank, (now, key)));
        let mut gone = Vec::new();
        for (owner, cap) in owners.into_iter().zip(caps_of(owner, caps)) {
            let place = (now, key);
            self.owners.entry(owner).and_modify(|owned| owned.add(place)).or_insert(Owned::One(place));
            if let Some(owned) = self.owners.get(&owner)
                && owned.len() > cap
            {
                gone.extend(owned.oldest());
            }
        }
        if rank == Rank::Anonymous {
            self.anonymous = self.anonymous.saturating_add(1);
        }
        // The anonymous ones are the first, the oldest of them before all.
        if self.entries.len() > caps.total || self.anonymous > caps.total.div_ceil(ANONYMOUS_PART) {
            gone.extend(self.ranks.first().map(|(_, place)| *place));
        }
        gone.sort_unstable();
        gone.dedup();
        gone.into_iter().map(|(_, key)| SessionKey::from_u64(key)).collect()
    }

    /// Takes one out, if it is there.
    pub(super) fn remove(&mut self, key: SessionKey, owner: Owner<'_>) -> Option<Removed> {
        let key = key.to_u64();
        let entry = self.entries.remove(&key)?;
        self.deadlines.remove(&(entry.next(), key));
        let place = (entry.since, key);
        self.ranks.remove(&(entry.rank, place));
        for owner in self.owners_of(owner) {
            if self.owners.get_mut(&owner).is_some_and(|owned| owned.remove(place)) {
                self.owners.remove(&owner);
            }
        }
        if entry.rank == Rank::Anonymous {
            self.anonymous = self.anonymous.saturating_sub(1);
        }
        Some(Removed { was_present: entry.away != Mono::NEVER, until: entry.until })
    }

    /// The next thing whose time has come. What is over is still there until it is removed, but is not told again.
    pub(super) fn due(&mut self, now: Mono) -> Option<(SessionKey, Due)> {
        let place = self.deadlines.first().copied().filter(|(due, _)| *due <= now)?;
        self.deadlines.remove(&place);
        let entry = self.entries.get_mut(&place.1)?;
        let key = SessionKey::from_u64(place.1);
        if entry.until <= now {
            return Some((key, Due::Over));
        }
        entry.away = Mono::NEVER;
        self.deadlines.insert((entry.next(), place.1));
        Some((key, Due::Away))
    }

    pub(super) fn next_due(&self) -> Option<Mono> {
        self.deadlines.first().map(|(due, _)| *due)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = SessionKey> + '_ {
        // In the order of their deadlines, which is the same in every run.
        self.deadlines.iter().map(|(_, key)| SessionKey::from_u64(*key))
    }

    /// A number for each owner of a session; the user's is the first.
    fn owners_of(&self, owner: Owner<'_>) -> Vec<u64> {
        let user =
            (!owner.user_id.is_empty()).then(|| self.hash.hash_one((0u8, owner.application, owner.user_id)));
        let address = self.hash.hash_one((1u8, owner.address));
        let application = self.hash.hash_one((2u8, owner.application));
        user.into_iter().chain([address, application]).collect()
    }
}

/// In the order of [`DetachedTable::owners_of`].
fn caps_of(owner: Owner<'_>, caps: &DetachedCaps) -> impl Iterator<Item = usize> {
    let user = (!owner.user_id.is_empty()).then_some(caps.user);
    user.into_iter().chain([caps.address, caps.application])
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: [u32; 0] = [];
    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Mono {
        Mono::ZERO + Duration::from_secs(seconds)
    }

    fn key(index: u32) -> SessionKey {
        SessionKey::new(index, 1)
    }

    fn owner(user_id: &str) -> Owner<'_> {
        Owner { user_id, application: "im", address: IpAddr::from([192, 0, 2, 1]) }
    }

    fn add(table: &mut DetachedTable, seconds: u64, index: u32, user: &str, caps: &DetachedCaps) -> Vec<u32> {
        let detaching = Detaching { owner: owner(user), ttl: 100 * SECOND, grace: 10 * SECOND };
        let gone = table.add(at(seconds), key(index), detaching, caps);
        gone.into_iter().map(|gone| u32::try_from(gone.index()).unwrap()).collect()
    }

    fn is_empty(table: &DetachedTable) -> bool {
        table.entries.is_empty()
            && table.deadlines.is_empty()
            && table.ranks.is_empty()
            && table.owners.is_empty()
    }

    #[test]
    fn first_away_then_over() {
        let mut table = DetachedTable::default();
        let caps = DetachedCaps::default();
        assert_eq!(add(&mut table, 0, 1, "alice", &caps), NOBODY);
        assert_eq!(add(&mut table, 1, 2, "", &caps), NOBODY);
        assert_eq!(table.next_due(), Some(at(10)));
        assert_eq!(table.due(at(9)), None);
        assert_eq!(table.due(at(10)), Some((key(1), Due::Away)));
        assert_eq!(table.next_due(), Some(at(100)));
        assert_eq!(table.due(at(101)), Some((key(1), Due::Over)));
        assert_eq!(table.due(at(101)), Some((key(2), Due::Over)), "nobody is away who is nobody");
        assert!(!table.remove(key(1), owner("alice")).unwrap().was_present);
        assert!(!table.remove(key(2), owner("")).unwrap().was_present);
        assert_eq!(table.remove(key(2), owner("")), None);
        assert!(is_empty(&table));
    }

    #[test]
    fn whoever_is_back_soon_was_never_away() {
        let mut table = DetachedTable::default();
        add(&mut table, 0, 1, "alice", &DetachedCaps::default());
        let removed = table.remove(key(1), owner("alice"));
        assert_eq!(removed, Some(Removed { was_present: true, until: at(100) }));
        assert!(is_empty(&table));
    }

    // spec: R-25
    #[test]
    fn an_owner_with_more_than_its_share_loses_its_oldest() {
        let caps = DetachedCaps { user: 2, ..DetachedCaps::default() };
        let mut table = DetachedTable::default();
        add(&mut table, 0, 1, "bob", &caps);
        add(&mut table, 1, 2, "alice", &caps);
        add(&mut table, 2, 3, "alice", &caps);
        assert_eq!(add(&mut table, 3, 4, "alice", &caps), [2]);
        let caps = DetachedCaps { address: 3, ..caps };
        table.remove(key(2), owner("alice"));
        assert_eq!(add(&mut table, 4, 5, "carol", &caps), [1], "the oldest of the address");
        let none = DetachedCaps { application: 0, ..DetachedCaps::default() };
        assert_eq!(add(&mut DetachedTable::default(), 0, 7, "dave", &none), [7], "no room at all");
    }

    // spec: R-25
    #[test]
    fn of_too_many_the_anonymous_go_first_then_those_of_users_with_several() {
        let mut table = DetachedTable::default();
        let caps = |total| DetachedCaps { total, ..DetachedCaps::default() };
        let wide = caps(100);
        for (index, user) in [(1, "alice"), (2, "bob"), (3, "bob"), (4, ""), (5, "")] {
            add(&mut table, u64::from(index), index, user, &wide);
        }
        let mut order = Vec::new();
        let users = ["", "alice", "bob", "bob", "", "", "carol"];
        for total in (0..=5).rev() {
            let index = 6 + u32::try_from(5 - total).unwrap();
            let gone = add(&mut table, 10, index, &format!("new {index}"), &caps(total));
            table.remove(key(index), owner(&format!("new {index}")));
            for gone in gone.into_iter().filter(|gone| *gone < 6) {
                table.remove(key(gone), owner(users[gone as usize]));
                order.push(gone);
            }
        }
        assert_eq!(order, [4, 5, 3, 1, 2]);
    }
}
