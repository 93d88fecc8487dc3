//! What a pool has to know of a caller: looked up only where its settings need it.

use crate::base::rng::mix;
use crate::routing::{Ask, Balance, HashBy, PoolSettings, Who};
use moorgate_proto::v1;
use prost::Message;

/// Whether a pool looks at callers at all.
pub(super) fn is_asking(settings: &PoolSettings) -> bool {
    settings.balance == Balance::ConsistentHash || settings.canary.is_some()
}

/// What a pool asks about a caller, who is encoded as `v1::Caller`; `share`: of users who go to the canary.
pub(super) fn ask(settings: &PoolSettings, share: u32, caller: &[u8]) -> Ask {
    // The shard has encoded it: it can be read.
    let caller = v1::Caller::decode(caller).unwrap_or_default();
    let roles = caller.roles.iter().map(String::as_str);
    ask_for(settings, share, &who(&caller), roles)
}

fn who(caller: &v1::Caller) -> Who<'_> {
    Who {
        user_id: &caller.user_id,
        session_id: &caller.session_id,
        application: &caller.application,
        app_version: &caller.app_version,
        platform: &caller.platform,
        device_id: &caller.device_id,
        client_address: &caller.client_address,
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
        Balance::ConsistentHash => key_of(settings.hash_by, who),
        _ => 0,
    };
    let canary = settings.canary.as_ref().is_some_and(|canary| canary.takes(share, who, roles));
    Ask { key, canary, avoid: None }
}

fn key_of(by: HashBy, who: &Who<'_>) -> u64 {
    let named = match by {
        HashBy::User => who.user_id.as_bytes(),
        HashBy::Session => who.session_id,
        HashBy::Device => who.device_id.as_bytes(),
        HashBy::Address => {
            who.client_address.rsplit_once(':').map_or(who.client_address, |(host, _)| host).as_bytes()
        }
        HashBy::Application => who.application.as_bytes(),
    };
    // Who has no such name goes by the session.
    hash(if named.is_empty() { who.session_id } else { named })
}

/// FNV-1a, mixed: the same in every worker, gateway and version.
fn hash(bytes: &[u8]) -> u64 {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fnv))
}

#[cfg(test)]
mod tests {
    use super::*;

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
