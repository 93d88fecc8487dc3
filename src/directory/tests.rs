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
    (Directory::new(doors, Arc::new(()), Settings::default()), rings)
}

fn session(shard: u16, index: u32) -> SessionRef {
    SessionRef { shard: ShardId(shard), key: SessionKey::new(index, 1) }
}

fn place(device_id: &str) -> Place<'_> {
    Place { application: "im", device_id, platform: "android" }
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
    directory.claim(&alice, session(0, 1), place("phone")).unwrap();
    directory.claim(&alice, session(1, 2), place("laptop")).unwrap();
    assert_eq!(sessions_of(&directory, "alice"), [session(0, 1), session(1, 2)]);
    directory.claim(&alice, session(1, 3), place("phone")).unwrap();
    assert_eq!(sessions_of(&directory, "alice"), [session(1, 2), session(1, 3)]);
    assert_eq!(directory.take_orders(ShardId(0)), [Order::Kick(session(0, 1).key, Kick::Superseded)]);
    assert_eq!(rings[0].0.load(Ordering::Relaxed), 1);
    assert!(!directory.has_orders(ShardId(1)));
    // It ends afterwards, and takes nobody with it.
    directory.release("alice", session(0, 1));
    assert_eq!(sessions_of(&directory, "alice").len(), 2);
    let other_application = Place { application: "web", ..place("phone") };
    directory.claim(&alice, session(0, 4), other_application).unwrap();
    directory.claim(&alice, session(0, 5), place("")).unwrap();
    directory.claim(&alice, session(0, 6), place("")).unwrap();
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
    directory.claim(&alice, session(0, 1), place("phone")).unwrap();
    directory.claim(&alice, session(1, 2), place("laptop")).unwrap();
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

// ---- devices ----

fn with(devices: DevicePolicy, sessions_per_user: usize) -> Directory {
    Directory::unrung_with(2, 1, Settings { devices, sessions_per_user, ..Settings::default() })
}

fn policy(allowed: Allowed, wins: Wins) -> DevicePolicy {
    let mut classes = DeviceClasses::default();
    for (platform, class) in [("Android", 0), ("iOS", 0), ("windows", 1), ("macos", 1)] {
        assert!(classes.insert(platform, class));
    }
    DevicePolicy { allowed, wins, classes }
}

/// Opens sessions of alice on shard 0, numbered from 1 on, on devices of these platforms, each a device of its own.
fn opened(directory: &Directory, platforms: &[&str]) -> Vec<Result<(), Conflict>> {
    let open = |(index, platform): (u32, &&str)| {
        let device_id = index.to_string();
        open(directory, index, Place { application: "im", device_id: &device_id, platform })
    };
    (1..).zip(platforms).map(open).collect()
}

fn open(directory: &Directory, index: u32, place: Place<'_>) -> Result<(), Conflict> {
    directory.note(session(0, index), Life::Attached);
    directory.claim(&"alice".into(), session(0, index), place)
}

/// The numbers of the sessions that alice has, in the order in which they came.
fn here(directory: &Directory) -> Vec<usize> {
    sessions_of(directory, "alice").iter().map(|session| session.key.index()).collect()
}

/// The sessions that were told to go, and why.
fn kicked(directory: &Directory) -> Vec<(usize, Kick)> {
    let orders = directory.take_orders(ShardId(0)).into_iter();
    let mut kicked: Vec<(usize, Kick)> = orders
        .map(|order| match order {
            Order::Kick(key, kick) => (key.index(), kick),
            Order::Sweep => panic!("nobody swept"),
        })
        .collect();
    kicked.sort_by_key(|(index, _)| *index);
    kicked
}

const DEVICE: Kick = Kick::Conflict(Conflict::Device);
const LIMIT: Kick = Kick::Conflict(Conflict::Limit);

// spec
#[test]
fn each_policy_lets_in_whom_it_says() {
    let platforms = ["android", "IOS", "windows", "web", "Web", "android"];
    let all_in = vec![Ok(()); platforms.len()];
    let any = with(policy(Allowed::Any, Wins::Newer), 16);
    assert_eq!(opened(&any, &platforms), all_in);
    assert_eq!((here(&any).len(), kicked(&any)), (6, vec![]));
    let per_class = with(policy(Allowed::OnePerClass, Wins::Newer), 16);
    assert_eq!(opened(&per_class, &platforms), all_in);
    assert_eq!(here(&per_class), [3, 5, 6], "a computer, a browser, a phone");
    assert_eq!(kicked(&per_class), [(1, DEVICE), (2, DEVICE), (4, DEVICE)]);
    let one = with(policy(Allowed::One, Wins::Newer), 16);
    assert_eq!(opened(&one, &platforms), all_in);
    assert_eq!((here(&one), kicked(&one).len()), (vec![6], 5));
    let older = with(policy(Allowed::OnePerClass, Wins::Older), 16);
    let refused = Err(Conflict::Device);
    assert_eq!(opened(&older, &platforms), [Ok(()), refused, Ok(()), Ok(()), refused, refused]);
    assert_eq!((here(&older), kicked(&older)), (vec![1, 3, 4], vec![]));
    let older = with(policy(Allowed::One, Wins::Older), 16);
    assert_eq!(opened(&older, &platforms).iter().filter(|result| result.is_ok()).count(), 1);
    assert_eq!(here(&older), [1]);
}

// spec
#[test]
fn the_policy_is_for_each_application_and_never_keeps_a_device_from_itself() {
    for wins in [Wins::Newer, Wins::Older] {
        let directory = with(policy(Allowed::One, wins), 16);
        let phone = place("phone");
        assert_eq!(open(&directory, 1, phone), Ok(()));
        assert_eq!(open(&directory, 2, Place { application: "mail", ..phone }), Ok(()));
        assert_eq!((here(&directory), kicked(&directory)), (vec![1, 2], vec![]));
        assert_eq!(open(&directory, 3, phone), Ok(()));
        assert_eq!((here(&directory), kicked(&directory)), (vec![2, 3], vec![(1, Kick::Superseded)]));
        // A device without a name is no device that was here before.
        let nameless = place("");
        assert_eq!(open(&directory, 4, nameless).is_ok(), wins == Wins::Newer);
        assert_eq!(open(&directory, 5, nameless).is_ok(), wins == Wins::Newer);
    }
}

// spec
#[test]
fn whoever_has_no_connection_does_not_win() {
    let directory = with(policy(Allowed::One, Wins::Older), 16);
    assert_eq!(open(&directory, 1, place("phone")), Ok(()));
    assert_eq!(open(&directory, 2, place("laptop")), Err(Conflict::Device));
    directory.note(session(0, 1), Life::Detached);
    assert_eq!(open(&directory, 3, place("laptop")), Ok(()));
    assert_eq!((here(&directory), kicked(&directory)), (vec![3], vec![(1, DEVICE)]));
    // The same device: superseded, detached or not.
    directory.note(session(0, 3), Life::Detached);
    assert_eq!(open(&directory, 4, place("laptop")), Ok(()));
    assert_eq!((here(&directory), kicked(&directory)), (vec![4], vec![(3, Kick::Superseded)]));
}

// spec: A-32
#[test]
fn beyond_the_limit_the_oldest_goes_or_nobody_comes() {
    let newer = with(DevicePolicy::default(), 3);
    assert_eq!(opened(&newer, &["a"; 4]), [Ok(()); 4]);
    assert_eq!((here(&newer), kicked(&newer)), (vec![2, 3, 4], vec![(1, LIMIT)]));
    newer.note(session(0, 4), Life::Detached);
    newer.note(session(0, 3), Life::Detached);
    assert_eq!(open(&newer, 5, place("")), Ok(()));
    assert_eq!((here(&newer), kicked(&newer)), (vec![2, 4, 5], vec![(3, LIMIT)]));
    // One that takes another's place needs no room.
    assert_eq!(open(&newer, 6, Place { device_id: "2", ..place("") }), Ok(()));
    assert_eq!((here(&newer), kicked(&newer)), (vec![4, 5, 6], vec![(2, Kick::Superseded)]));
    let older = with(DevicePolicy { wins: Wins::Older, ..DevicePolicy::default() }, 3);
    assert_eq!(opened(&older, &["a"; 4]), [Ok(()), Ok(()), Ok(()), Err(Conflict::Limit)]);
    assert_eq!((here(&older), kicked(&older)), (vec![1, 2, 3], vec![]));
    older.note(session(0, 2), Life::Detached);
    assert_eq!(open(&older, 5, place("")), Ok(()));
    assert_eq!((here(&older), kicked(&older)), (vec![1, 3, 5], vec![(2, LIMIT)]));
}

// ---- presence ----

#[test]
fn presence_changes_with_the_sessions_that_count() {
    let directory = with(policy(Allowed::Any, Wins::Newer), 16);
    let told = || {
        let Changed { users, .. } = directory.take_changed(9);
        users.iter().map(|user| (user.to_string(), directory.presence_of(user))).collect::<Vec<_>>()
    };
    let alice = |present| vec![("alice".to_owned(), present)];
    open(&directory, 1, place("phone")).unwrap();
    assert!(!directory.has_changed(), "nobody watches");
    directory.watch_presence(true);
    let here: Vec<_> = (0..).map_while(|part| directory.present_in(part)).flatten().collect();
    assert_eq!(here, ["alice".into()]);
    open(&directory, 2, place("laptop")).unwrap();
    assert_eq!(told(), alice(2));
    // Another in the same place changes nothing.
    open(&directory, 3, place("laptop")).unwrap();
    assert!(!directory.has_changed());
    directory.release("alice", session(0, 2));
    assert!(!directory.has_changed());
    directory.away("alice", session(0, 3));
    directory.away("alice", session(0, 3));
    assert_eq!((told(), told()), (alice(1), vec![]));
    directory.back("alice", session(0, 3));
    assert_eq!(told(), alice(2));
    directory.away("alice", session(0, 3));
    directory.release("alice", session(0, 1));
    assert_eq!(told(), alice(0));
    assert_eq!(sessions_of(&directory, "alice").len(), 1, "it waits for its client");
    assert_eq!((0..).map_while(|part| directory.present_in(part)).flatten().count(), 0);
    directory.release("alice", session(0, 3));
    assert!(!directory.has_changed());
}
