//! Every interleaving of what threads do with the directory at the same time, with loom.

use super::*;
use crate::auth::{Revocations, TokenHash};
use crate::base::sync::modelled::Loom;
use loom::sync::Arc as Shared;
use std::time::Duration;

type Modelled = Directory<Loom>;

/// Two shards; one lock for all users, so that every run takes the same ones.
fn directory() -> Shared<Modelled> {
    with(Settings::default())
}

fn with(settings: Settings) -> Shared<Modelled> {
    let doors = (1..=2).map(|seed| (Arc::new(()) as Arc<dyn Ring>, seed)).collect();
    Shared::new(Modelled::with_stripes(doors, Arc::new(()), settings, 1))
}

fn session(shard: u16) -> SessionRef {
    SessionRef { shard: ShardId(shard), key: SessionKey::new(7, 1) }
}

const PHONE: Place<'_> = Place { application: "im", device_id: "phone", platform: "android" };

fn sessions_of(directory: &Modelled) -> Vec<SessionRef> {
    let mut found = Vec::new();
    directory.sessions_of("alice", |session| found.push(session));
    found
}

fn is_superseded(directory: &Modelled, session: SessionRef) -> bool {
    directory.take_orders(session.shard).contains(&Order::Kick(session.key, Kick::Superseded))
}

#[test]
fn of_two_claims_of_one_place_exactly_one_stays() {
    loom::model(|| {
        let directory = directory();
        let claim = |shard| {
            let directory = directory.clone();
            move || directory.claim(&"alice".into(), session(shard), PHONE).unwrap()
        };
        let other = loom::thread::spawn(claim(1));
        claim(0)();
        other.join().unwrap();
        let gone = [0, 1].map(|shard| is_superseded(&directory, session(shard)));
        let stays = sessions_of(&directory);
        assert_eq!(stays.len(), 1);
        assert_eq!(gone, [stays != [session(0)], stays != [session(1)]]);
    });
}

#[test]
fn a_session_that_ends_while_another_takes_its_place_leaves_the_other() {
    loom::model(|| {
        let directory = directory();
        directory.claim(&"alice".into(), session(0), PHONE).unwrap();
        let ending = directory.clone();
        let other = loom::thread::spawn(move || ending.release("alice", session(0)));
        directory.claim(&"alice".into(), session(1), PHONE).unwrap();
        other.join().unwrap();
        assert_eq!(sessions_of(&directory), [session(1)]);
        directory.release("alice", session(1));
        assert_eq!(directory.users(), 0);
    });
}

#[test]
fn a_push_finds_one_session_of_a_device_whoever_comes_or_goes() {
    loom::model(|| {
        let directory = directory();
        directory.claim(&"alice".into(), session(0), PHONE).unwrap();
        let pushing = directory.clone();
        let other = loom::thread::spawn(move || sessions_of(&pushing));
        directory.claim(&"alice".into(), session(1), PHONE).unwrap();
        directory.release("alice", session(0));
        let found = other.join().unwrap();
        assert!(found == [session(0)] || found == [session(1)], "{found:?}");
    });
}

/// As the shard and whoever revokes do it: one of the two sees the other.
#[test]
fn no_session_of_a_revoked_token_slips_in() {
    loom::model(|| {
        let (directory, revocations) =
            (directory(), Shared::new(Revocations::<Loom>::with_primitives(Duration::MAX)));
        let shard = {
            let (directory, revocations) = (directory.clone(), revocations.clone());
            loom::thread::spawn(move || {
                directory.claim(&"alice".into(), session(0), PHONE).unwrap();
                revocations.is_revoked("alice", 5, TokenHash::NONE)
            })
        };
        revocations.revoke_user(5, "alice");
        directory.kick_user("alice", &Kick::Revoked);
        let refused = shard.join().unwrap();
        let kicked = directory.take_orders(ShardId(0)) == [Order::Kick(session(0).key, Kick::Revoked)];
        assert!(refused || kicked);
    });
}

#[test]
fn an_order_is_seen_or_still_there() {
    loom::model(|| {
        let directory = directory();
        let kicking = directory.clone();
        let id = directory.id_of(session(0));
        let other = loom::thread::spawn(move || kicking.kick_session(id, Kick::Superseded));
        let mut seen = directory.take_orders(ShardId(0));
        assert!(other.join().unwrap());
        // What was not seen raises the flag that keeps a shard from sleeping.
        assert_eq!(directory.has_orders(ShardId(0)), seen.is_empty());
        seen.extend(directory.take_orders(ShardId(0)));
        assert_eq!(seen, [Order::Kick(session(0).key, Kick::Superseded)]);
    });
}

/// The order that the module's page forbids: the model must find the session that slips in.
#[test]
#[should_panic(expected = "slips in")]
fn whoever_asks_before_it_claims_is_found_out() {
    loom::model(|| {
        let (directory, revocations) =
            (directory(), Shared::new(Revocations::<Loom>::with_primitives(Duration::MAX)));
        let shard = {
            let (directory, revocations) = (directory.clone(), revocations.clone());
            loom::thread::spawn(move || {
                let refused = revocations.is_revoked("alice", 5, TokenHash::NONE);
                directory.claim(&"alice".into(), session(0), PHONE).unwrap();
                refused
            })
        };
        revocations.revoke_user(5, "alice");
        directory.kick_user("alice", &Kick::Revoked);
        let refused = shard.join().unwrap();
        assert!(refused || directory.has_orders(ShardId(0)), "it slips in");
    });
}

// ---- devices ----

/// Another device, of the same class.
const TABLET: Place<'_> = Place { application: "im", device_id: "tablet", platform: "android" };

fn policy(allowed: Allowed, wins: Wins) -> Settings {
    Settings { devices: DevicePolicy { allowed, wins, ..DevicePolicy::default() }, ..Settings::default() }
}

fn conflicts(directory: &Modelled, session: SessionRef) -> bool {
    let conflict = Order::Kick(session.key, Kick::Conflict(Conflict::Device));
    directory.take_orders(session.shard).contains(&conflict)
}

/// As a shard opens a session: it lives, and then it claims.
fn open(directory: &Modelled, session: SessionRef, place: Place<'_>) -> Result<(), Conflict> {
    directory.note(session, Life::Attached);
    directory.claim(&"alice".into(), session, place)
}

#[test]
fn of_two_devices_that_come_at_once_exactly_one_stays() {
    for allowed in [Allowed::One, Allowed::OnePerClass] {
        loom::model(move || {
            let directory = with(policy(allowed, Wins::Newer));
            let shared = directory.clone();
            let other = loom::thread::spawn(move || open(&shared, session(1), TABLET));
            assert_eq!(open(&directory, session(0), PHONE), Ok(()));
            assert_eq!(other.join().unwrap(), Ok(()));
            let gone = [0, 1].map(|shard| conflicts(&directory, session(shard)));
            let stays = sessions_of(&directory);
            assert_eq!(stays.len(), 1);
            assert_eq!(gone, [stays != [session(0)], stays != [session(1)]]);
        });
    }
}

#[test]
fn where_the_older_wins_exactly_one_of_two_is_refused() {
    for allowed in [Allowed::One, Allowed::OnePerClass] {
        loom::model(move || {
            let directory = with(policy(allowed, Wins::Older));
            let shared = directory.clone();
            let other = loom::thread::spawn(move || open(&shared, session(1), TABLET));
            let results = [open(&directory, session(0), PHONE), other.join().unwrap()];
            let stays = if results[0].is_ok() { session(0) } else { session(1) };
            assert!(results.contains(&Err(Conflict::Device)) && results.contains(&Ok(())));
            assert_eq!(sessions_of(&directory), [stays]);
            // Whoever was refused ends afterwards, and takes nobody along.
            assert!([0, 1].iter().all(|shard| !directory.has_orders(ShardId(*shard))));
            let refused = if results[0].is_ok() { session(1) } else { session(0) };
            directory.release("alice", refused);
            assert_eq!(sessions_of(&directory), [stays]);
        });
    }
}

#[test]
fn a_device_comes_while_the_one_in_its_way_goes() {
    loom::model(|| {
        let directory = with(policy(Allowed::One, Wins::Older));
        open(&directory, session(0), PHONE).unwrap();
        let ending = directory.clone();
        let other = loom::thread::spawn(move || {
            ending.note(session(0), Life::Ended);
            ending.release("alice", session(0));
        });
        let result = open(&directory, session(1), TABLET);
        other.join().unwrap();
        assert!(!conflicts(&directory, session(1)), "nobody else comes");
        match result {
            Ok(()) => assert_eq!(sessions_of(&directory), [session(1)]),
            Err(conflict) => {
                assert_eq!((conflict, sessions_of(&directory)), (Conflict::Device, vec![]));
                assert_eq!(directory.users(), 0);
            }
        }
    });
}

#[test]
fn a_device_comes_while_the_one_in_its_way_loses_its_connection() {
    loom::model(|| {
        let directory = with(policy(Allowed::One, Wins::Older));
        open(&directory, session(0), PHONE).unwrap();
        let detaching = directory.clone();
        let other = loom::thread::spawn(move || {
            detaching.note(session(0), Life::Detached);
            detaching.away("alice", session(0));
        });
        let result = open(&directory, session(1), TABLET);
        other.join().unwrap();
        let displaced = conflicts(&directory, session(0));
        match result {
            Ok(()) => assert_eq!((sessions_of(&directory), displaced), (vec![session(1)], true)),
            Err(_) => assert_eq!((sessions_of(&directory), displaced), (vec![session(0)], false)),
        }
        assert_eq!(directory.presence_of("alice"), usize::from(result.is_ok()));
    });
}

// ---- presence ----

/// As the worker does it: it watches first, and then looks at everybody.
#[test]
fn whoever_watches_and_then_looks_misses_nobody() {
    loom::model(|| {
        let directory = directory();
        let claiming = directory.clone();
        let other = loom::thread::spawn(move || open(&claiming, session(0), PHONE));
        directory.watch_presence(true);
        let seen = directory.present_in(0).unwrap().len();
        other.join().unwrap().unwrap();
        let told = directory.take_changed(9).users.len();
        assert!(seen + told >= 1);
    });
}

/// A change that was taken is seen by whoever looks after it was taken.
#[test]
fn the_last_change_is_never_missed() {
    loom::model(|| {
        let directory = directory();
        directory.watch_presence(true);
        open(&directory, session(0), PHONE).unwrap();
        let ending = directory.clone();
        let other = loom::thread::spawn(move || ending.release("alice", session(0)));
        let mut seen = None;
        for _ in 0..2 {
            for user in directory.take_changed(9).users {
                seen = Some(directory.presence_of(&user));
            }
        }
        other.join().unwrap();
        for user in directory.take_changed(9).users {
            seen = Some(directory.presence_of(&user));
        }
        assert_eq!((seen, directory.has_changed()), (Some(0), false));
    });
}
