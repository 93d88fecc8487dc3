//! The directory as shards and workers use it.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Default)]
struct Rings(AtomicUsize);

impl Ring for Rings {
    fn ring(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn directory() -> (Directory, Vec<Arc<Rings>>) {
    let rings: Vec<Arc<Rings>> = (0..2).map(|_| Arc::default()).collect();
    let doors = rings.iter().zip(1..).map(|(ring, seed)| (ring.clone() as Arc<dyn Ring>, seed)).collect();
    (Directory::new(doors), rings)
}

fn session(shard: u16, index: u32) -> SessionRef {
    SessionRef { shard: ShardId(shard), key: SessionKey::new(index, 1) }
}

fn place(device_id: &str) -> Place<'_> {
    Place { application: "im", device_id }
}

fn sessions_of(directory: &Directory, user_id: &str) -> Vec<SessionRef> {
    let mut found = Vec::new();
    directory.sessions_of(user_id, |session| found.push(session));
    found
}

// spec: A-25
#[test]
fn the_later_session_on_a_device_takes_the_earlier_one_s_place() {
    let (directory, rings) = directory();
    let alice: Arc<str> = "alice".into();
    directory.claim(&alice, session(0, 1), place("phone"));
    directory.claim(&alice, session(1, 2), place("laptop"));
    assert_eq!(sessions_of(&directory, "alice"), [session(0, 1), session(1, 2)]);
    directory.claim(&alice, session(1, 3), place("phone"));
    assert_eq!(sessions_of(&directory, "alice"), [session(1, 2), session(1, 3)]);
    assert_eq!(directory.take_orders(ShardId(0)), [Order::Kick(session(0, 1).key, Kick::Superseded)]);
    assert_eq!(rings[0].0.load(Ordering::Relaxed), 1);
    assert!(!directory.has_orders(ShardId(1)));
    // It ends afterwards, and takes nobody with it.
    directory.release("alice", session(0, 1));
    assert_eq!(sessions_of(&directory, "alice").len(), 2);
    let other_application = Place { application: "web", device_id: "phone" };
    directory.claim(&alice, session(0, 4), other_application);
    directory.claim(&alice, session(0, 5), place(""));
    directory.claim(&alice, session(0, 6), place(""));
    assert_eq!(sessions_of(&directory, "alice").len(), 5, "nobody knows the device: nobody has to go");
    for gone in sessions_of(&directory, "alice") {
        directory.release("alice", gone);
    }
    assert_eq!(directory.users(), 0);
}

#[test]
fn a_kick_reaches_every_session_of_a_user_or_one_by_its_id() {
    let (directory, _) = directory();
    let alice: Arc<str> = "alice".into();
    directory.claim(&alice, session(0, 1), place("phone"));
    directory.claim(&alice, session(1, 2), place("laptop"));
    let kick = Kick::Kicked("enough".into());
    assert_eq!(directory.kick_user("bob", &kick), 0);
    assert_eq!(directory.kick_user("alice", &kick), 2);
    assert_eq!(directory.take_orders(ShardId(1)), [Order::Kick(session(1, 2).key, kick.clone())]);
    let id = directory.id_of(session(1, 7));
    assert_eq!(directory.session_of(id), Some(session(1, 7)));
    assert!(directory.kick_session(id, kick.clone()));
    assert_eq!(directory.take_orders(ShardId(1)), [Order::Kick(session(1, 7).key, kick.clone())]);
    assert!(!directory.kick_session(SessionId([9; 16]), kick), "of another gateway");
    directory.sweep();
    assert_eq!(directory.take_orders(ShardId(1)), [Order::Sweep]);
}

#[test]
fn groups_are_known_by_their_shards() {
    let (directory, _) = directory();
    let shards = || {
        let mut found = Vec::new();
        directory.shards_of("g", |shard, members| found.push((shard.0, members)));
        found
    };
    directory.join("g", ShardId(1));
    directory.join("g", ShardId(1));
    assert_eq!(shards(), [(1, 2)]);
    directory.join("g", ShardId(0));
    directory.leave("g", ShardId(1));
    assert_eq!(shards(), [(0, 1), (1, 1)]);
    directory.leave("g", ShardId(1));
    directory.leave("g", ShardId(0));
    assert_eq!((shards(), directory.groups()), (vec![], 0));
}

#[test]
fn ids_are_never_the_same() {
    let (directory, _) = directory();
    let mut ids = std::collections::HashSet::new();
    for shard in 0..2 {
        for index in 0..1000 {
            assert!(ids.insert(directory.id_of(session(shard, index))));
        }
    }
}
