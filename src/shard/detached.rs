//! Sessions whose clients are away: until when, and which go first when there are too many.
//!
//! ```text
//!   add ──► away but present ── grace over: Due::Away ──► away ── time to live over: Due::Over ──► removed
//!    │            └─────────────────────────── remove: it was resumed, or has ended ──────────────────┘
//!    └─► an owner (user, address, application) has more than its share: that owner's oldest go
//!    └─► there are too many in all: anonymous ones go, then those of users with several, then the oldest
//! ```
//!
//! Each is in four lists, in the order in which they came: of its rank, its user, its address, its application. So the
//! oldest of anybody is at hand, and nothing here costs more with more of them.

use crate::base::ids::SessionKey;
use crate::base::wheel::{Alarm, Wheel};
use moorgate_proto::time::Mono;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::Duration;

/// How many sessions without a connection one shard keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachedCaps {
    /// In all; a tenth of them without a user.
    pub total: usize,
    /// Of one user; of an application, where applications prove themselves.
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

/// Of all the part that anonymous sessions may be: they cost their clients nothing.
const ANONYMOUS_PART: usize = 10;

/// Whose session it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner<'a> {
    /// Empty: nobody's.
    pub(super) user_id: &'a str,
    /// Of the user: empty, unless applications prove themselves.
    pub(super) user_application: &'a str,
    pub(super) application: &'a str,
    pub(super) address: IpAddr,
}

/// Which go first when there are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rank {
    Anonymous,
    /// Its user had another one here when it came.
    OneOfSeveral,
    Only,
}

/// A list that an entry is in, by what its entries have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Rank,
    User,
    Address,
    Application,
}

const LISTS: [By; 4] = [By::Rank, By::User, By::Address, By::Application];
/// No entry.
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Links {
    before: u32,
    behind: u32,
}

impl Default for Links {
    fn default() -> Self {
        Links { before: NONE, behind: NONE }
    }
}

#[derive(Debug)]
struct Entry {
    session: SessionKey,
    until: Mono,
    /// When its user is not present any more; `NEVER`: that has been, or there is no user.
    away: Mono,
    alarm: Alarm,
    links: [Links; LISTS.len()],
    rank: Rank,
}

impl Entry {
    fn next(&self) -> Mono {
        self.until.min(self.away)
    }
}

#[derive(Debug, Clone, Copy)]
struct List {
    oldest: u32,
    newest: u32,
    len: u32,
}

impl Default for List {
    fn default() -> Self {
        List { oldest: NONE, newest: NONE, len: 0 }
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

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct DetachedTable {
    entries: slab::Slab<Entry>,
    /// The lists of the ranks, in their order.
    ranks: [List; 3],
    /// All others, each by a number that stands for its owner.
    owners: HashMap<u64, List, foldhash::fast::FixedState>,
    wheel: Wheel<u32>,
    hash: foldhash::quality::RandomState,
}

impl DetachedTable {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds a session; its place here. Those that have to go for it, it may be the newcomer itself: the caller ends
    /// them, which removes them here.
    pub(super) fn add(
        &mut self,
        now: Mono,
        session: SessionKey,
        detaching: Detaching<'_>,
        caps: &DetachedCaps,
    ) -> (u32, Vec<SessionKey>) {
        let Detaching { owner, ttl, grace } = detaching;
        let numbers = self.numbers(owner);
        let has_several = self.owners.contains_key(&self.number(owner, By::User));
        let (rank, away) = match owner.user_id {
            "" => (Rank::Anonymous, Mono::NEVER),
            _ if has_several => (Rank::OneOfSeveral, now + grace),
            _ => (Rank::Only, now + grace),
        };
        let links = Default::default();
        let entry = Entry { session, until: now + ttl, away, alarm: Alarm::default(), links, rank };
        // Sessions are bounded far below.
        let at = u32::try_from(self.entries.insert(entry)).unwrap_or(NONE);
        for (by, number) in numbers {
            self.append(by, number, at);
        }
        self.arm(at);
        (at, self.too_many(owner, caps))
    }

    /// The oldest of each owner that has more than its share, and the first to go when there are too many in all.
    fn too_many(&self, owner: Owner<'_>, caps: &DetachedCaps) -> Vec<SessionKey> {
        let shares =
            [(By::User, caps.user), (By::Address, caps.address), (By::Application, caps.application)];
        let lists = shares.into_iter().filter(|(by, _)| *by != By::User || !owner.user_id.is_empty());
        let over = lists.filter_map(|(by, cap)| {
            let list = self.owners.get(&self.number(owner, by))?;
            (list.len as usize > cap).then_some(list.oldest)
        });
        let anonymous = self.ranks.first().map_or(0, |list| list.len as usize);
        let is_full = self.len() > caps.total || anonymous > caps.total.div_ceil(ANONYMOUS_PART);
        let first = self.ranks.iter().map(|list| list.oldest).find(|oldest| *oldest != NONE);
        let mut gone: Vec<u32> = over.chain(first.filter(|_| is_full)).collect();
        gone.sort_unstable();
        gone.dedup();
        gone.into_iter().filter_map(|at| self.entries.get(at as usize)).map(|entry| entry.session).collect()
    }

    /// Takes out the one at this place, if it is this session's.
    pub(super) fn remove(&mut self, at: u32, session: SessionKey, owner: Owner<'_>) -> Option<Removed> {
        let rank = self.entries.get(at as usize).filter(|entry| entry.session == session)?.rank;
        for (by, number) in self.numbers(owner) {
            self.unlink(by, number, at, rank);
        }
        let entry = self.entries.try_remove(at as usize)?;
        Some(Removed { was_present: entry.away != Mono::NEVER, until: entry.until })
    }

    /// The next thing whose time has come. What is over is still there until it is removed, but is not told again.
    pub(super) fn due(&mut self, now: Mono) -> Option<(SessionKey, Due)> {
        while let Some((at, due)) = self.wheel.expire(now) {
            // An entry of the wheel may be that of one that has gone.
            let Some(entry) = self.entries.get_mut(at as usize) else { continue };
            if !entry.alarm.rings(due) {
                continue;
            }
            let session = entry.session;
            if entry.until <= now {
                return Some((session, Due::Over));
            }
            let is_away = entry.away <= now;
            if is_away {
                entry.away = Mono::NEVER;
            }
            self.arm(at);
            if is_away {
                return Some((session, Due::Away));
            }
        }
        None
    }

    pub(super) fn next_due(&self) -> Option<Mono> {
        self.wheel.next_due()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = SessionKey> + '_ {
        self.entries.iter().map(|(_, entry)| entry.session)
    }

    fn arm(&mut self, at: u32) {
        if let Some(entry) = self.entries.get_mut(at as usize) {
            let due = entry.next();
            self.wheel.arm(&mut entry.alarm, at, due);
        }
    }

    /// Stands for an owner.
    fn number(&self, owner: Owner<'_>, by: By) -> u64 {
        match by {
            By::Rank => 0,
            By::User => self.hash.hash_one((0u8, owner.user_application, owner.user_id)),
            By::Address => self.hash.hash_one((1u8, owner.address)),
            By::Application => self.hash.hash_one((2u8, owner.application)),
        }
    }

    /// The lists that a session of this owner is in.
    fn numbers(&self, owner: Owner<'_>) -> Vec<(By, u64)> {
        let is_in = |by: &By| *by != By::User || !owner.user_id.is_empty();
        LISTS.into_iter().filter(is_in).map(|by| (by, self.number(owner, by))).collect()
    }

    fn list(&mut self, by: By, number: u64, rank: Rank) -> Option<&mut List> {
        match by {
            By::Rank => self.ranks.get_mut(rank as usize),
            _ => Some(self.owners.entry(number).or_default()),
        }
    }

    fn links(&mut self, at: u32, by: By) -> Option<&mut Links> {
        self.entries.get_mut(at as usize)?.links.get_mut(by as usize)
    }

    fn append(&mut self, by: By, number: u64, at: u32) {
        let Some(rank) = self.entries.get(at as usize).map(|entry| entry.rank) else { return };
        let Some(list) = self.list(by, number, rank) else { return };
        let before = std::mem::replace(&mut list.newest, at);
        if before == NONE {
            list.oldest = at;
        }
        list.len = list.len.saturating_add(1);
        if let Some(links) = self.links(at, by) {
            links.before = before;
        }
        if let Some(links) = self.links(before, by) {
            links.behind = at;
        }
    }

    fn unlink(&mut self, by: By, number: u64, at: u32, rank: Rank) {
        let Some(Links { before, behind }) = self.links(at, by).copied() else { return };
        if let Some(links) = self.links(before, by) {
            links.behind = behind;
        }
        if let Some(links) = self.links(behind, by) {
            links.before = before;
        }
        let Some(list) = self.list(by, number, rank) else { return };
        if list.oldest == at {
            list.oldest = behind;
        }
        if list.newest == at {
            list.newest = before;
        }
        list.len = list.len.saturating_sub(1);
        if list.len == 0 && by != By::Rank {
            self.owners.remove(&number);
        }
    }

    /// What one session without a connection takes here, its user having no other.
    #[cfg(test)]
    pub(super) fn bytes_of_one() -> usize {
        let owner = size_of::<(u64, List)>();
        let wheel = size_of::<(u32, Mono)>();
        size_of::<Entry>().saturating_add(owner).saturating_add(wheel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: [u32; 0] = [];
    const SECOND: Duration = Duration::from_secs(1);
    /// How late something may be noticed.
    const TICK: Duration = Duration::from_millis(9);

    /// A table, and the places of sessions in it.
    #[derive(Default)]
    struct Table {
        table: DetachedTable,
        places: HashMap<u32, u32>,
    }

    fn at(seconds: u64) -> Mono {
        Mono::ZERO + Duration::from_secs(seconds)
    }

    fn key(index: u32) -> SessionKey {
        SessionKey::new(index, 1)
    }

    fn owner(user_id: &str) -> Owner<'_> {
        Owner { user_id, user_application: "im", application: "im", address: IpAddr::from([192, 0, 2, 1]) }
    }

    impl Table {
        fn add(&mut self, seconds: u64, index: u32, user: &str, caps: &DetachedCaps) -> Vec<u32> {
            let detaching = Detaching { owner: owner(user), ttl: 100 * SECOND, grace: 10 * SECOND };
            let (place, gone) = self.table.add(at(seconds), key(index), detaching, caps);
            self.places.insert(index, place);
            gone.into_iter().map(|gone| u32::try_from(gone.index()).unwrap()).collect()
        }

        fn remove(&mut self, index: u32, user: &str) -> Option<Removed> {
            self.table.remove(self.places[&index], key(index), owner(user))
        }

        fn is_empty(&self) -> bool {
            let Table { table, .. } = self;
            table.entries.is_empty()
                && table.owners.is_empty()
                && table.ranks.iter().all(|list| list.len == 0)
        }
    }

    #[test]
    fn first_away_then_over() {
        let mut table = Table::default();
        let caps = DetachedCaps::default();
        assert_eq!(table.add(0, 1, "alice", &caps), NOBODY);
        assert_eq!(table.add(1, 2, "", &caps), NOBODY);
        assert_eq!(table.table.due(at(9)), None);
        assert_eq!(table.table.due(at(10) + TICK), Some((key(1), Due::Away)));
        assert_eq!(table.table.due(at(99)), None);
        let over = [(); 2].map(|()| table.table.due(at(101) + TICK).unwrap());
        assert!(over.contains(&(key(1), Due::Over)) && over.contains(&(key(2), Due::Over)), "{over:?}");
        assert_eq!(table.table.due(at(200)), None);
        assert!(!table.remove(1, "alice").unwrap().was_present);
        assert!(!table.remove(2, "").unwrap().was_present, "nobody is away who is nobody");
        assert_eq!(table.remove(2, ""), None);
        assert!(table.is_empty());
    }

    #[test]
    fn whoever_is_back_soon_was_never_away() {
        let mut table = Table::default();
        table.add(0, 1, "alice", &DetachedCaps::default());
        assert_eq!(table.remove(1, "alice"), Some(Removed { was_present: true, until: at(100) }));
        assert!(table.is_empty());
        // Its place is another's, whose time comes later.
        table.add(50, 2, "bob", &DetachedCaps::default());
        assert_eq!(table.places[&1], table.places[&2]);
        assert_eq!((table.table.due(at(59)), table.remove(1, "alice")), (None, None));
        assert_eq!(table.table.due(at(60) + TICK), Some((key(2), Due::Away)));
    }

    // spec: R-25
    #[test]
    fn an_owner_with_more_than_its_share_loses_its_oldest() {
        let caps = DetachedCaps { user: 2, ..DetachedCaps::default() };
        let mut table = Table::default();
        table.add(0, 1, "bob", &caps);
        table.add(1, 2, "alice", &caps);
        table.add(2, 3, "alice", &caps);
        assert_eq!(table.add(3, 4, "alice", &caps), [2]);
        let caps = DetachedCaps { address: 3, ..caps };
        table.remove(2, "alice");
        assert_eq!(table.add(4, 5, "carol", &caps), [1], "the oldest of the address");
        let none = DetachedCaps { application: 0, ..DetachedCaps::default() };
        assert_eq!(Table::default().add(0, 7, "dave", &none), [7], "no room at all");
    }

    // spec: R-25
    #[test]
    fn of_too_many_the_anonymous_go_first_then_those_of_users_with_several() {
        let mut table = Table::default();
        let caps = |total| DetachedCaps { total, ..DetachedCaps::default() };
        let wide = caps(100);
        for (index, user) in [(1, "alice"), (2, "bob"), (3, "bob"), (4, ""), (5, "")] {
            table.add(u64::from(index), index, user, &wide);
        }
        let mut order = Vec::new();
        let users = ["", "alice", "bob", "bob", "", ""];
        for total in (0..=5).rev() {
            let index = 6 + u32::try_from(5 - total).unwrap();
            let user = format!("new {index}");
            let gone = table.add(10, index, &user, &caps(total));
            table.remove(index, &user);
            for gone in gone.into_iter().filter(|gone| *gone < 6) {
                table.remove(gone, users[gone as usize]);
                order.push(gone);
            }
        }
        assert_eq!(order, [4, 5, 3, 1, 2]);
        assert!(table.is_empty());
        let mut anonymous = (1..=3).map(|index| table.add(20, index, "", &caps(20)));
        assert_eq!([(); 3].map(|()| anonymous.next().unwrap()), [vec![], vec![], vec![1]], "a tenth of all");
    }
}
