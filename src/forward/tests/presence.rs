//! Presence, told on one link to each instance.

use super::*;
use crate::directory::{Directory, Life, Place, SessionRef};
use crate::routing::Right;

/// A world with one endpoint and this many links to it, all ready, whose service may know who is here.
struct Watched {
    world: World,
    directory: Arc<Directory>,
    links: Vec<LinkKey>,
}

/// What was heard of presence.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Heard {
    Begin,
    End,
    User(String, u32),
}

impl Watched {
    fn new(links: u16) -> Watched {
        Watched::with(links, |_| ())
    }

    fn with(links: u16, change: impl FnOnce(&mut Parts)) -> Watched {
        let directory = Arc::new(Directory::unrung(1, 1));
        let mut world = World::with(1, |parts| {
            parts.settings.links_per_endpoint = links;
            parts.settings.gateway_id = "gate-1".to_owned();
            parts.services[0].grants = Grants::NONE.with(Right::Presence);
            parts.directory = directory.clone();
            change(parts);
        });
        let links: Vec<LinkKey> = (0..links).map(|_| world.dialled()).collect();
        links.iter().for_each(|link| world.open(*link, 0));
        Watched { world, directory, links }
    }

    fn subscribe(&mut self, at: usize) {
        let link = self.links[at];
        self.world.say(link, to_gateway::Member::PresenceSubscribe(v1::PresenceSubscribe {}));
    }

    fn session(index: u32) -> SessionRef {
        SessionRef { shard: SHARD, key: SessionKey::new(index, 1) }
    }

    fn comes(&self, user: &str, index: u32) {
        let place = Place { application: "im", device_id: "", platform: "" };
        self.directory.note(Self::session(index), Life::Attached);
        self.directory.claim(&user.into(), Self::session(index), place).unwrap();
    }

    fn goes(&self, user: &str, index: u32) {
        self.directory.release(user, Self::session(index));
    }

    /// Turns until there is nothing to tell; what is heard on a link of it, everything in its order.
    fn told(&mut self, at: usize) -> Vec<Heard> {
        let mut heard = Vec::new();
        let mut turns = 0;
        loop {
            heard.extend(self.world.heard(self.links[at]));
            if !self.world.forwarder.has_presence() {
                break;
            }
            self.world.forwarder.tell_presence();
            turns += 1;
            assert!(turns < 1000, "it never ends");
        }
        let heard = heard.into_iter().filter_map(|member| match member {
            to_service::Member::PresenceSnapshot(bracket) if bracket.end => Some(Heard::End),
            to_service::Member::PresenceSnapshot(_) => Some(Heard::Begin),
            to_service::Member::PresenceEvent(event) => {
                assert_eq!((event.gateway_id.as_str(), event.boot_id), ("gate-1", 9));
                assert_eq!((event.lease_ms, event.online), (30_000, event.sessions > 0));
                Some(Heard::User(event.user_id, event.sessions))
            }
            _ => None,
        });
        heard.collect()
    }
}

fn user(name: &str, sessions: u32) -> Heard {
    Heard::User(name.to_owned(), sessions)
}

// spec: L-60
#[test]
fn whoever_subscribes_gets_everybody_and_then_each_change() {
    let mut watched = Watched::new(1);
    watched.comes("alice", 1);
    assert!(!watched.world.forwarder.has_presence());
    watched.subscribe(0);
    assert_eq!(watched.told(0), [Heard::Begin, user("alice", 1), Heard::End]);
    watched.comes("bob", 2);
    watched.comes("alice", 3);
    assert_eq!(watched.told(0), [user("bob", 1), user("alice", 2)]);
    watched.goes("alice", 1);
    watched.goes("bob", 2);
    watched.comes("bob", 4);
    watched.goes("bob", 4);
    watched.goes("alice", 3);
    assert_eq!(watched.told(0), [user("alice", 0), user("bob", 0)], "each once, as it is now");
    assert_eq!(watched.told(0), []);
    assert_eq!(watched.world.count(Count::PresenceCoalesced), 3);
    assert_eq!(watched.world.count(Count::PresenceSnapshots), 1);
    assert_eq!(watched.world.count(Count::PresenceEvents), 5);
    watched.subscribe(0);
    assert_eq!(watched.told(0), [Heard::Begin, Heard::End], "it has asked anew");
}

// spec: L-61, L-71
#[test]
fn versions_rise() {
    let mut watched = Watched::new(1);
    watched.subscribe(0);
    let mut last = 0;
    for round in 0..10 {
        watched.comes("alice", round);
        watched.comes("bob", 100 + round);
        watched.world.forwarder.tell_presence();
        for member in watched.world.heard(watched.links[0]) {
            let version = match member {
                to_service::Member::PresenceEvent(event) => event.version,
                to_service::Member::PresenceSnapshot(bracket) => bracket.version,
                _ => continue,
            };
            assert!(version > last);
            last = version;
        }
    }
    assert!(last >= 20);
}

// spec: L-60, L-68
#[test]
fn one_link_of_an_instance_is_told_and_another_when_it_is_lost() {
    let mut watched = Watched::new(3);
    watched.comes("alice", 1);
    (0..2).for_each(|at| watched.subscribe(at));
    let snapshot = [Heard::Begin, user("alice", 1), Heard::End];
    assert_eq!((watched.told(0), watched.told(1)), (snapshot.to_vec(), vec![]));
    watched.world.forwarder.link_lost(watched.world.now, watched.links[0], &"gone");
    assert_eq!((watched.told(1), watched.told(2)), (snapshot.to_vec(), vec![]));
    watched.comes("bob", 2);
    assert_eq!((watched.told(1), watched.told(2)), (vec![user("bob", 1)], vec![]));
    watched.world.forwarder.link_lost(watched.world.now, watched.links[1], &"gone");
    watched.comes("carol", 3);
    assert!(!watched.directory.has_changed(), "nobody who has asked is left");
    watched.subscribe(2);
    assert_eq!(watched.told(2).len(), 5, "everybody again");
}

#[test]
fn each_instance_is_told() {
    let directory = Arc::new(Directory::unrung(1, 1));
    let mut world = World::with(2, |parts| {
        parts.settings.gateway_id = "gate-1".to_owned();
        parts.services[0].grants = Grants::NONE.with(Right::Presence);
        parts.directory = directory.clone();
    });
    let links = vec![world.dialled(), world.dialled()];
    links.iter().for_each(|link| world.open(*link, 0));
    let mut watched = Watched { world, directory, links };
    (0..2).for_each(|at| watched.subscribe(at));
    let empty = vec![Heard::Begin, Heard::End];
    assert_eq!((watched.told(0), watched.told(1)), (empty.clone(), empty));
    watched.comes("alice", 1);
    let change = vec![user("alice", 1)];
    assert_eq!((watched.told(0), watched.told(1)), (change.clone(), change));
}

// spec: L-64
#[test]
fn without_the_right_to_it_nothing_is_told() {
    let mut watched = Watched::with(1, |parts| parts.services[0].grants = Grants::NONE.with(Right::Push));
    watched.subscribe(0);
    watched.comes("alice", 1);
    assert_eq!(watched.told(0), []);
    assert_eq!(watched.world.count(Count::PresenceRefused), 1);
    // The link goes on.
    let ticket = watched.world.ask(b"x");
    let call = watched.world.call(watched.links[0]);
    watched.world.reply(watched.links[0], &call, b"");
    assert_eq!(watched.world.settled(), [(ticket, done())]);
}

#[test]
fn one_worker_tells() {
    let mut watched = Watched::with(1, |parts| parts.id = crate::base::ids::WorkerId(1));
    watched.subscribe(0);
    watched.comes("alice", 1);
    assert_eq!((watched.told(0), watched.directory.has_changed()), (vec![], false));
}

#[test]
fn a_service_that_does_not_read_gets_everybody_anew() {
    let mut watched = Watched::with(1, |parts| parts.settings.output_bytes_max = 4096);
    watched.subscribe(0);
    assert_eq!(watched.told(0), [Heard::Begin, Heard::End]);
    watched.world.stuck.push(watched.links[0]);
    for index in 0..200 {
        watched.comes(&format!("user-{index}"), index);
        watched.world.forwarder.tell_presence();
        watched.world.flush();
        let unsent = watched.world.forwarder.unsent(watched.links[0]).len();
        assert!(unsent < 4096 + 256, "{unsent} bytes wait");
    }
    assert!(!watched.world.forwarder.has_presence(), "nothing to do until it reads");
    assert_eq!(watched.world.count(Count::PresenceOverflowed), 1);
    watched.world.unstick(watched.links[0]);
    let told = watched.told(0);
    let begin = told.iter().rposition(|heard| *heard == Heard::Begin).unwrap();
    let (before, snapshot) = told.split_at(begin);
    assert!(before.len() < 200 && before.iter().all(|heard| matches!(heard, Heard::User(_, 1))));
    let mut names: Vec<&Heard> = snapshot.iter().filter(|heard| matches!(heard, Heard::User(..))).collect();
    names.sort_by_key(|heard| format!("{heard:?}"));
    names.dedup();
    assert_eq!((names.len(), snapshot.last()), (200, Some(&Heard::End)));
}

#[test]
fn a_snapshot_waits_for_room_and_changes_are_told_between() {
    let mut watched = Watched::with(1, |parts| parts.settings.output_bytes_max = 4096);
    (0..100).for_each(|index| watched.comes(&format!("user-{index}"), index));
    watched.world.stuck.push(watched.links[0]);
    watched.subscribe(0);
    watched.world.forwarder.tell_presence();
    watched.world.flush();
    assert!(!watched.world.forwarder.has_presence(), "half of what may wait is full");
    watched.comes("late", 100);
    watched.goes("user-7", 7);
    watched.world.forwarder.tell_presence();
    watched.world.unstick(watched.links[0]);
    let told = watched.told(0);
    assert_eq!((&told[0], told.last()), (&Heard::Begin, Some(&Heard::End)));
    let count = |heard: Heard| told.iter().filter(|other| **other == heard).count();
    assert_eq!((count(Heard::Begin), count(Heard::End), count(user("user-7", 0))), (1, 1, 1));
    assert!((0..100).filter(|index| *index != 7).all(|index| count(user(&format!("user-{index}"), 1)) > 0));
    assert!(count(user("late", 1)) >= 1);
    assert_eq!(watched.world.count(Count::PresenceOverflowed), 0);
}

#[test]
fn more_changes_than_are_kept_become_a_snapshot() {
    let settings = crate::directory::Settings { presence_changes_max: 10, ..Default::default() };
    let directory = Arc::new(Directory::unrung_with(1, 1, settings));
    let mut watched = Watched::with(1, |parts| parts.directory = directory.clone());
    watched.directory = directory;
    watched.subscribe(0);
    assert_eq!(watched.told(0).len(), 2);
    (0..20).for_each(|index| watched.comes(&format!("user-{index}"), index));
    let told = watched.told(0);
    assert_eq!((told.len(), &told[0], told.last()), (22, &Heard::Begin, Some(&Heard::End)));
    assert_eq!(watched.world.count(Count::PresenceOverflowed), 1);
}

#[test]
fn a_turn_is_bounded() {
    let mut watched = Watched::new(1);
    (0..5000).for_each(|index| watched.comes(&format!("user-{index}"), index));
    watched.subscribe(0);
    watched.world.forwarder.tell_presence();
    let events = watched.world.heard(watched.links[0]).len();
    assert!((1..=2048).contains(&events), "{events}");
    assert_eq!(watched.told(0).last(), Some(&Heard::End));
    assert_eq!(watched.world.count(Count::PresenceEvents), 5000);
}
