//! Who goes to the canary: a share of users, the same ones as long as it stands; users with a role; clients that say
//! something of themselves.

use super::{CanarySettings, HashBy, HelloField};
use crate::base::rng::mix;
use moorgate_proto::view::{CallerView, Malformed};

/// All users, in hundredths of a percent.
const EVERYBODY: u32 = 10_000;

/// Who asks, as far as routing looks at it: read out of an encoded `v1::Caller`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Who<'a> {
    /// Empty: anonymous.
    pub user_id: &'a str,
    /// The session.
    pub session_id: &'a [u8],
    /// The application.
    pub application: &'a str,
    /// Its version.
    pub app_version: &'a str,
    /// The platform.
    pub platform: &'a str,
    /// The device.
    pub device_id: &'a str,
    /// The client's address and port.
    pub client_address: &'a str,
}

impl<'a> Who<'a> {
    /// Reads an encoded `v1::Caller`: who it is, and the roles. Nothing is copied.
    ///
    /// # Errors
    /// [`Malformed`] when the bytes are no caller.
    pub fn read(caller: &'a [u8]) -> Result<(Who<'a>, impl Iterator<Item = &'a str> + Clone), Malformed> {
        let view = CallerView::decode(caller)?;
        let who = Who {
            user_id: view.user_id,
            session_id: view.session_id,
            application: view.application,
            app_version: view.app_version,
            platform: view.platform,
            device_id: view.device_id,
            client_address: view.client_address,
        };
        Ok((who, CallerView::roles(caller)))
    }

    /// What consistent hashing goes by: the same for the same caller, in every process and every version.
    pub fn key(&self, hash_by: HashBy) -> u64 {
        let (kind, text) = match hash_by {
            HashBy::User => (Kind::User, self.user_id),
            HashBy::Session => (Kind::Session, ""),
            HashBy::Device => (Kind::Device, self.device_id),
            HashBy::Address => (Kind::Address, without_port(self.client_address)),
            HashBy::Application => (Kind::Application, self.application),
        };
        if text.is_empty() { hash(Kind::Session, &[self.session_id]) } else { hash(kind, &[text.as_bytes()]) }
    }
}

impl CanarySettings {
    /// Whether this caller goes to the canary at this share, in hundredths of a percent. A larger share takes those whom a
    /// smaller one takes, and more. Canaries with different tags take different users.
    pub fn takes<'a>(&self, share: u32, who: &Who<'_>, mut roles: impl Iterator<Item = &'a str>) -> bool {
        let says = |(field, value): &(HelloField, String)| match field {
            HelloField::Application => who.application == value,
            HelloField::AppVersion => who.app_version == value,
            HelloField::Platform => who.platform == value,
        };
        self.draw(who) < share
            || (!self.hello.is_empty() && self.hello.iter().any(says))
            || (!self.roles.is_empty() && roles.any(|role| self.roles.iter().any(|own| own == role)))
    }

    /// The share, in hundredths of a percent, above which this caller goes there: evenly spread over all users.
    fn draw(&self, who: &Who<'_>) -> u32 {
        let (kind, name) = if who.user_id.is_empty() {
            (Kind::Session, who.session_id)
        } else {
            (Kind::User, who.user_id.as_bytes())
        };
        let wide = u128::from(hash(kind, &[name, self.tag.as_bytes()])).wrapping_mul(u128::from(EVERYBODY));
        u32::try_from(wide >> 64).unwrap_or(EVERYBODY)
    }
}

/// What a name is: the same text is another one as another kind.
#[derive(Clone, Copy)]
enum Kind {
    User = 1,
    Session = 2,
    Device = 3,
    Address = 4,
    Application = 5,
}

/// FNV-1a of 64 bits over the kind, each part and its length, mixed. It must never change: users would move.
fn hash(kind: Kind, parts: &[&[u8]]) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    let mut state = step(BASIS, &(kind as u8));
    for part in parts {
        state = part.iter().fold(state, step);
        state = u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes().iter().fold(state, step);
    }
    mix(state)
}

/// The address of `address:port`, IPv6 in brackets.
fn without_port(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(address, _)| address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use moorgate_proto::v1;
    use proptest::prelude::*;
    use prost::Message;

    fn settings() -> CanarySettings {
        CanarySettings { tag: "canary".to_owned(), share: 0, roles: Vec::new(), hello: Vec::new() }
    }

    fn user(user_id: &str) -> Who<'_> {
        Who { user_id, ..Who::default() }
    }

    #[test]
    fn who_asks_is_read_as_it_was_written() {
        let caller = v1::Caller {
            user_id: "alice".to_owned(),
            session_id: vec![1; 16].into(),
            application: "chat".to_owned(),
            device_id: "phone".to_owned(),
            client_address: "[2001:db8::1]:4711".to_owned(),
            roles: vec!["tester".to_owned(), "staff".to_owned()],
            platform: "ios".to_owned(),
            app_version: "7.1".to_owned(),
            protocol_version: 1,
        };
        let bytes = caller.encode_to_vec();
        let (who, roles) = Who::read(&bytes).unwrap();
        assert_eq!(roles.collect::<Vec<_>>(), ["tester", "staff"]);
        let told =
            (who.user_id, who.session_id, who.application, who.app_version, who.platform, who.device_id);
        assert_eq!(told, ("alice", &[1u8; 16][..], "chat", "7.1", "ios", "phone"));
        assert_eq!(without_port(who.client_address), "[2001:db8::1]");
        assert!(Who::read(&bytes[..bytes.len() - 1]).is_err());
        assert_eq!(Who::read(&[]).unwrap().0, Who::default());
    }

    #[test]
    fn the_hash_never_changes() {
        let who = Who { session_id: &[1, 2, 3], device_id: "alice", ..user("alice") };
        let keys = [HashBy::User, HashBy::Session, HashBy::Device, HashBy::Address].map(|by| who.key(by));
        assert_eq!(
            keys,
            [
                7_286_454_618_971_393_046,
                10_652_166_652_025_912_202,
                1_854_746_199_724_986_719,
                10_652_166_652_025_912_202
            ],
            "a change moves every user of every deployment"
        );
        assert_eq!(keys[1], keys[3], "without an address the session counts");
        let draws = ["alice", "bob", ""].map(|name| settings().draw(&Who { session_id: &[9], ..user(name) }));
        assert_eq!(draws, [4734, 8355, 3505], "a change moves users to and from every canary");
    }

    #[test]
    fn a_port_is_nobody() {
        let key = |client_address| Who { client_address, ..Who::default() }.key(HashBy::Address);
        assert_eq!(key("192.0.2.1:1"), key("192.0.2.1:2"));
        assert_ne!(key("192.0.2.1:1"), key("192.0.2.2:1"));
    }

    #[test]
    fn shares_are_what_they_say() {
        let names: Vec<String> = (0..20_000).map(|at| format!("user-{at}")).collect();
        for share in [0, 100, 500, 5_000, 9_900, 10_000] {
            let taken =
                names.iter().filter(|name| settings().takes(share, &user(name), [].into_iter())).count();
            let due = share as usize * 2;
            assert!(taken.abs_diff(due) <= 300 && (share % 10_000 != 0 || taken == due), "{taken} for {due}");
        }
    }

    #[test]
    fn roles_and_hellos_count_whatever_the_share() {
        let canary = CanarySettings {
            roles: vec!["tester".to_owned()],
            hello: vec![(HelloField::AppVersion, "8".to_owned()), (HelloField::Platform, "qnx".to_owned())],
            ..settings()
        };
        let takes = |who: Who<'_>, roles: &[&str]| canary.takes(0, &who, roles.iter().copied());
        assert!(takes(user("a"), &["staff", "tester"]));
        assert!(!takes(user("a"), &["staff"]));
        assert!(takes(Who { app_version: "8", ..user("a") }, &[]));
        assert!(takes(Who { platform: "qnx", ..user("a") }, &[]));
        assert!(!takes(Who { application: "8", ..user("a") }, &[]));
        assert!(!settings().takes(0, &Who::default(), [""].into_iter()), "nothing asked for, nothing met");
    }

    proptest! {
        #[test]
        fn a_larger_share_only_adds(
            name in "[a-z]{0,12}", session in any::<[u8; 16]>(), low in 0u32..=10_000, high in 0u32..=10_000,
        ) {
            let (low, high) = (low.min(high), low.max(high));
            let who = Who { session_id: &session, ..user(&name) };
            let takes = |share| settings().takes(share, &who, [].into_iter());
            prop_assert!(!takes(low) || takes(high));
            prop_assert!(takes(10_000) && !takes(0));
        }
    }
}
