//! Who is online, gathered from all gateways, without I/O.
//!
//! ```text
//!  what is known of one start of a gateway
//!
//!  nothing ── a snapshot begins ──► gathering ── it ends: whoever was not named is offline ──► known ── a change ──┐
//!     ▲                                ▲ └── a change ──┘                                       │  ▲              │
//!     │                                └──────────── a snapshot begins anew ────────────────────┤  └──────────────┘
//!     └── no frame for as long as the lease: everybody is offline ── a newer start is known ────┘
//! ```
//!
//! A user is online as long as one gateway says so. What comes late, from a link that was lost meanwhile, has a version
//! that is not above the last, and is ignored.

use crate::core::GatewayKey;
use moorgate_proto::time::Mono;
use moorgate_proto::v1;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Users of all gateways that are remembered; a user of two counts twice.
pub(crate) const USERS_MAX: usize = 1_000_000;
/// Starts of gateways that are remembered.
const GATEWAYS_MAX: usize = 4096;
/// Where a gateway does not say.
const LEASE: Duration = Duration::from_secs(30);
/// Nobody is believed for longer.
const LEASE_MAX: Duration = Duration::from_secs(24 * 3600);

/// A user has come or gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceChange {
    /// Which user.
    pub user_id: Arc<str>,
    /// Whether the user is online now, at whichever gateway.
    pub online: bool,
}

#[derive(Debug)]
struct Gateway {
    heard: Mono,
    lease: Duration,
    /// Of the last frame.
    version: u64,
    /// Counts the snapshots that have begun.
    round: u64,
    /// Users who are online there, and the last round in which they were named.
    users: HashMap<Arc<str>, u64, foldhash::fast::RandomState>,
}

impl Gateway {
    fn is_over(&self, now: Mono) -> bool {
        self.heard + self.lease <= now
    }
}

/// See the module's page.
#[derive(Debug)]
pub struct Presence {
    users_max: usize,
    gateways: BTreeMap<GatewayKey, Gateway>,
    /// At how many gateways each user is.
    online: HashMap<Arc<str>, u32, foldhash::fast::RandomState>,
    /// Entries of all gateways.
    entries: usize,
    is_full: bool,
    changes: VecDeque<PresenceChange>,
}

impl Presence {
    /// Nobody is known. Of more than `users_max` users some are taken as offline.
    pub fn new(users_max: usize) -> Presence {
        Presence {
            users_max,
            gateways: BTreeMap::new(),
            online: HashMap::default(),
            entries: 0,
            is_full: false,
            changes: VecDeque::new(),
        }
    }

    /// Who has come or gone, until nobody has.
    pub fn poll_change(&mut self) -> Option<PresenceChange> {
        self.changes.pop_front()
    }

    /// Users who are online.
    pub fn online(&self) -> usize {
        self.online.len()
    }

    /// Something came on a link of this gateway, whatever it is.
    pub fn heard(&mut self, now: Mono, key: &GatewayKey) {
        if let Some(gateway) = self.gateways.get_mut(key) {
            gateway.heard = now;
        }
    }

    /// A bracket came on a link of this gateway.
    pub fn snapshot(&mut self, now: Mono, key: &GatewayKey, bracket: &v1::PresenceSnapshot) {
        if !self.gateways.contains_key(key) {
            if bracket.end || self.gateways.len() >= GATEWAYS_MAX {
                return;
            }
            let users = HashMap::default();
            let gateway = Gateway { heard: now, lease: LEASE, version: 0, round: 0, users };
            self.gateways.insert(key.clone(), gateway);
        }
        let Some(gateway) = self.gateways.get_mut(key) else { return };
        if bracket.version <= gateway.version {
            return;
        }
        gateway.version = bracket.version;
        if !bracket.end {
            gateway.round = gateway.round.saturating_add(1);
            return;
        }
        let round = gateway.round;
        let mut gone = Vec::new();
        gateway.users.retain(|user, named| {
            let stays = *named == round;
            if !stays {
                gone.push(user.clone());
            }
            stays
        });
        gone.into_iter().for_each(|user| self.leaves(user));
        self.replace_others(key);
    }

    /// This start of a gateway is known as a whole: earlier ones are over.
    fn replace_others(&mut self, key: &GatewayKey) {
        let is_other = |other: &&GatewayKey| other.gateway_id == key.gateway_id && *other != key;
        let others: Vec<GatewayKey> = self.gateways.keys().filter(is_other).cloned().collect();
        others.iter().for_each(|other| self.forget(other));
    }

    /// A user has come or gone, or is named in a snapshot.
    pub fn event(&mut self, key: &GatewayKey, event: &v1::PresenceEvent) {
        let Some(gateway) = self.gateways.get_mut(key) else { return };
        if event.version <= gateway.version {
            return;
        }
        gateway.version = event.version;
        if event.lease_ms > 0 {
            gateway.lease = Duration::from_millis(event.lease_ms.into()).min(LEASE_MAX);
        }
        let user = event.user_id.as_str();
        if !(event.online && event.sessions > 0) {
            if let Some((user, _)) = gateway.users.remove_entry(user) {
                self.leaves(user);
            }
        } else if let Some(named) = gateway.users.get_mut(user) {
            *named = gateway.round;
        } else if self.entries < self.users_max {
            let known = self.online.get_key_value(user).map(|(user, _)| user.clone());
            let user = known.unwrap_or_else(|| user.into());
            gateway.users.insert(user.clone(), gateway.round);
            self.comes(user);
        } else if !std::mem::replace(&mut self.is_full, true) {
            log::warn!("more than {} users are online: the others count as offline", self.users_max);
        }
    }

    fn comes(&mut self, user_id: Arc<str>) {
        self.entries = self.entries.saturating_add(1);
        let gateways = self.online.entry(user_id.clone()).or_insert(0);
        *gateways = gateways.saturating_add(1);
        if *gateways == 1 {
            self.changes.push_back(PresenceChange { user_id, online: true });
        }
    }

    fn leaves(&mut self, user_id: Arc<str>) {
        self.entries = self.entries.saturating_sub(1);
        let Some(gateways) = self.online.get_mut(&user_id) else { return };
        *gateways = gateways.saturating_sub(1);
        if *gateways == 0 {
            self.online.remove(&user_id);
            self.changes.push_back(PresenceChange { user_id, online: false });
        }
    }

    fn forget(&mut self, key: &GatewayKey) {
        if let Some(gateway) = self.gateways.remove(key) {
            gateway.users.into_keys().for_each(|user| self.leaves(user));
        }
    }

    /// When [`Presence::timers`] has something to do.
    pub fn next_deadline(&self) -> Mono {
        let ends = self.gateways.values().map(|gateway| gateway.heard + gateway.lease);
        ends.min().unwrap_or(Mono::NEVER)
    }

    /// Forgets the users of gateways that were silent for as long as their lease. These gateways: one that is heard of
    /// again is to be asked anew.
    pub fn timers(&mut self, now: Mono) -> Vec<GatewayKey> {
        let is_over = |(key, gateway): (&GatewayKey, &Gateway)| gateway.is_over(now).then(|| key.clone());
        let over: Vec<GatewayKey> = self.gateways.iter().filter_map(is_over).collect();
        over.iter().for_each(|key| self.forget(key));
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const NOW: Mono = Mono::from_nanos(1_000_000_000);

    fn gateway(name: &str, boot_id: u64) -> GatewayKey {
        GatewayKey { gateway_id: name.into(), boot_id }
    }

    /// Presence, and the gateway that speaks, whose versions rise by themselves.
    struct Desk {
        presence: Presence,
        key: GatewayKey,
        now: Mono,
        version: u64,
    }

    impl Desk {
        fn new() -> Desk {
            let presence = Presence::new(USERS_MAX);
            Desk { presence, key: gateway("a", 1), now: NOW, version: 0 }
        }

        fn bracket(&mut self, end: bool) {
            self.version += 1;
            let bracket = v1::PresenceSnapshot { end, version: self.version };
            self.presence.snapshot(self.now, &self.key, &bracket);
        }

        fn event(&mut self, user: &str, online: bool) {
            self.version += 1;
            self.late_event(user, online, self.version);
        }

        fn late_event(&mut self, user: &str, online: bool, version: u64) {
            let event = v1::PresenceEvent {
                user_id: user.to_owned(),
                version,
                online,
                sessions: u32::from(online),
                lease_ms: 9000,
                ..v1::PresenceEvent::default()
            };
            self.presence.event(&self.key, &event);
        }

        fn everybody(&mut self, users: &[&str]) {
            self.bracket(false);
            users.iter().for_each(|user| self.event(user, true));
            self.bracket(true);
        }

        /// Who has come and gone since the last look, sorted.
        fn told(&mut self) -> Vec<String> {
            let mark = |change: PresenceChange| {
                format!("{}{}", if change.online { '+' } else { '-' }, change.user_id)
            };
            let mut told: Vec<String> =
                std::iter::from_fn(|| self.presence.poll_change()).map(mark).collect();
            told.sort();
            told
        }
    }

    // spec: L-60, L-61, L-69
    #[test]
    fn snapshots_and_changes_become_who_has_come_and_gone() {
        let mut desk = Desk::new();
        desk.event("early", true);
        assert_eq!(desk.told(), [""; 0], "no snapshot has begun");
        desk.everybody(&["alice", "bob"]);
        assert_eq!(desk.told(), ["+alice", "+bob"]);
        desk.event("alice", true);
        desk.event("carol", true);
        desk.event("bob", false);
        desk.event("dave", false);
        assert_eq!(desk.told(), ["+carol", "-bob"]);
        let old = desk.version - 3;
        desk.late_event("bob", true, old);
        assert_eq!(desk.told(), [""; 0], "it is not above the last");
        desk.bracket(false);
        desk.event("alice", true);
        desk.event("erin", true);
        desk.event("erin", false);
        assert_eq!(desk.told(), ["+erin", "-erin"]);
        desk.bracket(true);
        assert_eq!((desk.told(), desk.presence.online()), (vec!["-carol".to_owned()], 1));
    }

    // spec: L-71
    #[test]
    fn a_snapshot_that_begins_anew_counts_from_there() {
        let mut desk = Desk::new();
        desk.everybody(&["alice", "bob"]);
        desk.bracket(false);
        desk.event("alice", true);
        desk.bracket(false);
        desk.event("bob", true);
        desk.bracket(true);
        assert_eq!(desk.told(), ["+alice", "+bob", "-alice"]);
        // One whose end is late does nothing.
        let late = v1::PresenceSnapshot { end: true, version: desk.version - 1 };
        desk.presence.snapshot(desk.now, &desk.key, &late);
        assert_eq!(desk.told(), [""; 0]);
    }

    #[test]
    fn a_user_is_online_as_long_as_one_gateway_says_so() {
        let mut desk = Desk::new();
        desk.everybody(&["alice"]);
        desk.key = gateway("b", 7);
        desk.everybody(&["alice", "bob"]);
        assert_eq!(desk.told(), ["+alice", "+bob"]);
        desk.event("alice", false);
        assert_eq!(desk.told(), [""; 0]);
        desk.key = gateway("a", 1);
        desk.event("alice", false);
        assert_eq!(desk.told(), ["-alice"]);
    }

    // spec: L-70
    #[test]
    fn a_new_start_replaces_the_old_one_once_it_is_known_as_a_whole() {
        let mut desk = Desk::new();
        desk.everybody(&["alice", "bob"]);
        desk.told();
        (desk.key, desk.version) = (gateway("a", 2), 0);
        desk.bracket(false);
        desk.event("bob", true);
        desk.event("carol", true);
        assert_eq!(desk.told(), ["+carol"], "nobody goes only to come back");
        desk.bracket(true);
        assert_eq!((desk.told(), desk.presence.gateways.len()), (vec!["-alice".to_owned()], 1));
        desk.key = gateway("a", 1);
        desk.event("alice", true);
        assert_eq!(desk.told(), [""; 0], "that start is over");
    }

    // spec: L-62
    #[test]
    fn a_gateway_that_is_silent_is_forgotten_after_its_lease() {
        let mut desk = Desk::new();
        assert_eq!(desk.presence.next_deadline(), Mono::NEVER);
        desk.everybody(&["alice"]);
        desk.told();
        let lease = Duration::from_secs(9);
        assert_eq!(desk.presence.next_deadline(), NOW + lease);
        desk.presence.heard(NOW + lease / 2, &desk.key);
        // Another start of it is another gateway.
        desk.presence.heard(NOW + lease, &gateway("a", 2));
        assert!(desk.presence.timers(NOW + lease).is_empty());
        let end = NOW + lease / 2 + lease;
        assert_eq!(desk.presence.next_deadline(), end);
        assert_eq!(desk.presence.timers(end), [desk.key.clone()]);
        assert_eq!((desk.told(), desk.presence.next_deadline()), (vec!["-alice".to_owned()], Mono::NEVER));
        desk.event("alice", true);
        assert_eq!(desk.told(), [""; 0], "it has to begin anew");
        desk.everybody(&["alice"]);
        assert_eq!(desk.told(), ["+alice"]);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut desk = Desk { presence: Presence::new(2), ..Desk::new() };
        desk.everybody(&["alice", "bob", "carol"]);
        assert_eq!((desk.told(), desk.presence.online()), (vec!["+alice".to_owned(), "+bob".to_owned()], 2));
        desk.event("alice", false);
        desk.event("carol", true);
        assert_eq!(desk.told(), ["+carol", "-alice"]);
        for boot_id in 0..5000 {
            let bracket = v1::PresenceSnapshot { end: false, version: 1 };
            desk.presence.snapshot(NOW, &gateway("many", boot_id), &bracket);
        }
        assert_eq!(desk.presence.gateways.len(), GATEWAYS_MAX);
    }

    proptest! {
        /// Whatever gateways say, those who were told as come and not as gone are those whom one has online.
        #[test]
        fn what_is_told_adds_up(
            steps in proptest::collection::vec((0u8..3, 0u8..2, 0u8..6, 0u8..5), 1..200),
        ) {
            let mut desk = Desk::new();
            let mut here: BTreeSet<String> = BTreeSet::new();
            for (name, boot, what, user) in steps {
                desk.key = gateway(&name.to_string(), boot.into());
                let user = user.to_string();
                match what {
                    0 => desk.bracket(false),
                    1 => desk.bracket(true),
                    2 => {
                        desk.now = desk.now + Duration::from_secs(5);
                        desk.presence.timers(desk.now);
                        desk.presence.heard(desk.now, &desk.key);
                    }
                    3 => desk.event(&user, false),
                    _ => desk.event(&user, true),
                }
                while let Some(PresenceChange { user_id, online }) = desk.presence.poll_change() {
                    let is_news = if online {
                        here.insert(user_id.to_string())
                    } else {
                        here.remove(&*user_id)
                    };
                    prop_assert!(is_news, "told twice");
                }
                let gateways = desk.presence.gateways.values();
                let said: BTreeSet<String> =
                    gateways.flat_map(|gateway| gateway.users.keys()).map(|user| user.to_string()).collect();
                prop_assert_eq!(&said, &here);
                let entries: usize = desk.presence.gateways.values().map(|gateway| gateway.users.len()).sum();
                prop_assert_eq!(entries, desk.presence.entries);
            }
        }
    }
}
