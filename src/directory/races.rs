//! Every interleaving of what threads do with the directory at the same time, with loom.

use super::*;
use crate::auth::{Revocations, TokenHash};
use crate::base::sync::modelled::Loom;
use loom::sync::Arc as Shared;
use std::time::Duration;

type Modelled = Directory<Loom>;

/// Two shards; one lock for all users, so that every run takes the same ones.
fn directory() -> Shared<Modelled> {
    let doors = (1..=2).map(|seed| (Arc::new(()) as Arc<dyn Ring>, seed)).collect();
    Shared::new(Modelled::with_stripes(doors, 1))
}

fn session(shard: u16) -> SessionRef {
    SessionRef { shard: ShardId(shard), key: SessionKey::new(7, 1) }
}

const PHONE: Place<'_> = Place { application: "im", device_id: "phone" };

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
            move || directory.claim(&"alice".into(), session(shard), PHONE)
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
        directory.claim(&"alice".into(), session(0), PHONE);
        let ending = directory.clone();
        let other = loom::thread::spawn(move || ending.release("alice", session(0)));
        directory.claim(&"alice".into(), session(1), PHONE);
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
        directory.claim(&"alice".into(), session(0), PHONE);
        let pushing = directory.clone();
        let other = loom::thread::spawn(move || sessions_of(&pushing));
        directory.claim(&"alice".into(), session(1), PHONE);
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
                directory.claim(&"alice".into(), session(0), PHONE);
                revocations.is_revoked("alice", 5, TokenHash::NONE)
            })
        };
        revocations.revoke_user(5, "alice").unwrap();
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
                directory.claim(&"alice".into(), session(0), PHONE);
                refused
            })
        };
        revocations.revoke_user(5, "alice").unwrap();
        directory.kick_user("alice", &Kick::Revoked);
        let refused = shard.join().unwrap();
        assert!(refused || directory.has_orders(ShardId(0)), "it slips in");
    });
}
