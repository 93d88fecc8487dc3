//! What a pool has to know of a caller: looked up only where its settings need it.

use crate::routing::{Ask, Balance, PoolSettings, Who};

/// Whether a pool looks at callers at all.
pub(super) fn is_asking(settings: &PoolSettings) -> bool {
    settings.balance == Balance::ConsistentHash || settings.canary.is_some()
}

/// What a pool asks about a caller, who is encoded as `v1::Caller`; `share`: of users who go to the canary.
pub(super) fn ask(settings: &PoolSettings, share: u32, caller: &[u8]) -> Ask {
    match Who::read(caller) {
        Ok((who, roles)) => ask_for(settings, share, &who, roles),
        // The shard has encoded it: it can be read.
        Err(_) => Ask::default(),
    }
}

/// The same for one whose fields are known.
pub(super) fn ask_for<'a>(
    settings: &PoolSettings,
    share: u32,
    who: &Who<'_>,
    roles: impl Iterator<Item = &'a str>,
) -> Ask {
    let key = match settings.balance {
        Balance::ConsistentHash => who.key(settings.hash_by),
        _ => 0,
    };
    let canary = settings.canary.as_ref().is_some_and(|canary| canary.takes(share, who, roles));
    Ask { key, canary, avoid: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::HashBy;
    use moorgate_proto::v1;
    use prost::Message;

    fn caller(user_id: &str, session: u8, client_address: &str) -> Vec<u8> {
        let caller = v1::Caller {
            user_id: user_id.to_owned(),
            session_id: vec![session; 16].into(),
            client_address: client_address.to_owned(),
            ..v1::Caller::default()
        };
        caller.encode_to_vec()
    }

    fn key(hash_by: HashBy, caller: &[u8]) -> u64 {
        let settings = PoolSettings { balance: Balance::ConsistentHash, hash_by, ..PoolSettings::default() };
        assert!(is_asking(&settings));
        ask(&settings, 0, caller).key
    }

    #[test]
    fn the_same_user_has_the_same_key_and_an_anonymous_one_that_of_the_session() {
        let (one, other) = (caller("alice", 1, "192.0.2.1:5"), caller("alice", 2, "192.0.2.9:6"));
        assert_eq!(key(HashBy::User, &one), key(HashBy::User, &other));
        assert_ne!(key(HashBy::Session, &one), key(HashBy::Session, &other));
        assert_ne!(key(HashBy::User, &caller("", 1, "")), key(HashBy::User, &caller("", 2, "")));
        assert_eq!(key(HashBy::Device, &one), key(HashBy::Session, &one), "it has not named a device");
    }

    #[test]
    fn callers_have_the_key_that_routing_gives_them() {
        let who = Who { user_id: "alice", session_id: &[1; 16], ..Who::default() };
        assert_eq!(key(HashBy::User, &caller("alice", 1, "")), who.key(HashBy::User));
    }

    #[test]
    fn an_address_is_taken_without_its_port() {
        let key = |address| key(HashBy::Address, &caller("", 1, address));
        assert_eq!(key("192.0.2.1:5"), key("192.0.2.1:6"));
        assert_eq!(key("[2001:db8::1]:5"), key("[2001:db8::1]:6"));
        assert_ne!(key("192.0.2.1:5"), key("192.0.2.2:5"));
    }

    #[test]
    fn a_pool_that_does_not_look_is_told_nothing() {
        let settings = PoolSettings::default();
        assert!(!is_asking(&settings));
        let ask = ask(&settings, 0, &caller("alice", 1, ""));
        assert_eq!((ask.key, ask.canary), (0, false));
    }
}
