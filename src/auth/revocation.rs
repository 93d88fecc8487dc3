//! Access tokens that are no longer good, although their time is not over: of a user, issued up to a moment; or one by
//! its id.
//!
//! Shared by all threads, asked once for each token that a client shows, never for a request. In memory: a gateway
//! that starts again has forgotten them, so whoever revokes keeps the lives of tokens short.

use crate::base::sync::{Lock, Native, Primitives, Signal};
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::time::Duration;

/// Revocations that are remembered, of users and tokens each.
const REVOCATIONS_MAX: usize = 1 << 20;
/// The least number of them that is worth a look for old ones.
const SWEEP_MIN: usize = 1024;

/// How long a revocation is remembered where nothing else is said: tokens that live longer come back to life.
pub const KEEP_DEFAULT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Stands for the id of a token: a hash that no two ids share, but for a chance of one in 2^64. So that a session, or a
/// revocation, need not keep a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TokenHash(u64);

impl TokenHash {
    /// Of a token without an id.
    pub const NONE: TokenHash = TokenHash(0);
}

/// Too many revocations are remembered already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyRevocations;

/// When a revocation is forgotten, and up to when tokens are revoked; in seconds since the Unix epoch.
#[derive(Debug, Clone, Copy)]
struct Entry {
    forget_unix_s: u64,
    issued_up_to_unix_s: u64,
}

type Entries<K> = HashMap<K, Entry, foldhash::fast::RandomState>;

#[derive(Debug, Default)]
struct Tables {
    users: Entries<Box<str>>,
    tokens: Entries<TokenHash>,
    sweep_at: usize,
}

impl Tables {
    fn len(&self) -> usize {
        self.users.len().saturating_add(self.tokens.len())
    }

    /// Forgets what is old, now and then.
    fn sweep(&mut self, unix_s: u64) {
        if self.len() >= self.sweep_at.max(SWEEP_MIN) {
            self.users.retain(|_, entry| entry.forget_unix_s > unix_s);
            self.tokens.retain(|_, entry| entry.forget_unix_s > unix_s);
            self.sweep_at = self.len().saturating_mul(2);
        }
    }
}

fn insert<K: std::hash::Hash + Eq>(
    entries: &mut Entries<K>,
    key: K,
    entry: Entry,
) -> Result<(), TooManyRevocations> {
    if entries.len() >= REVOCATIONS_MAX && !entries.contains_key(&key) {
        return Err(TooManyRevocations);
    }
    entries.insert(key, entry);
    Ok(())
}

/// What is revoked. See the module's page.
pub struct Revocations<P: Primitives = Native> {
    keep: Duration,
    tables: P::Mutex<Tables>,
    /// So that a gateway without any does not lock.
    has_any: P::Flag,
    hash: foldhash::quality::RandomState,
}

impl<P: Primitives> std::fmt::Debug for Revocations<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Revocations").field("keep", &self.keep).finish_non_exhaustive()
    }
}

impl Revocations {
    /// Nothing is revoked yet; each revocation is remembered for `keep`.
    pub fn new(keep: Duration) -> Revocations {
        Revocations::with_primitives(keep)
    }
}

impl<P: Primitives> Revocations<P> {
    /// The same with other locks.
    pub fn with_primitives(keep: Duration) -> Revocations<P> {
        let tables = P::Mutex::new(Tables::default());
        Revocations { keep, tables, has_any: P::Flag::new(), hash: Default::default() }
    }

    /// What stands for the id of a token.
    pub fn hash_of(&self, token_id: Option<&str>) -> TokenHash {
        token_id.map_or(TokenHash::NONE, |id| TokenHash(self.hash.hash_one(id).max(1)))
    }

    /// Revokes the tokens of a user that were issued up to now, those without a time of issue too.
    ///
    /// # Errors
    /// [`TooManyRevocations`].
    pub fn revoke_user(&self, unix_s: u64, user_id: &str) -> Result<(), TooManyRevocations> {
        self.revoke(unix_s, |tables, entry| insert(&mut tables.users, user_id.into(), entry))
    }

    /// Revokes one token.
    ///
    /// # Errors
    /// [`TooManyRevocations`].
    pub fn revoke_token(&self, unix_s: u64, token: TokenHash) -> Result<(), TooManyRevocations> {
        if token == TokenHash::NONE {
            return Ok(());
        }
        self.revoke(unix_s, |tables, entry| insert(&mut tables.tokens, token, entry))
    }

    fn revoke(
        &self,
        unix_s: u64,
        note: impl FnOnce(&mut Tables, Entry) -> Result<(), TooManyRevocations>,
    ) -> Result<(), TooManyRevocations> {
        let forget_unix_s = unix_s.saturating_add(self.keep.as_secs());
        self.tables.with(|tables| {
            tables.sweep(unix_s);
            let noted = note(tables, Entry { forget_unix_s, issued_up_to_unix_s: unix_s });
            self.has_any.set(tables.len() > 0);
            noted
        })
    }

    /// Whether a token is revoked. `issued_unix_s` is 0 when it does not say.
    pub fn is_revoked(&self, user_id: &str, issued_unix_s: u64, token: TokenHash) -> bool {
        if !self.has_any.is_set() {
            return false;
        }
        self.tables.with(|tables| {
            let by_user = tables.users.get(user_id).is_some_and(|it| issued_unix_s <= it.issued_up_to_unix_s);
            by_user || tables.tokens.contains_key(&token)
        })
    }

    /// The first second at which a token for this user can be issued that is not revoked.
    pub fn issue_from(&self, unix_s: u64, user_id: &str) -> u64 {
        if !self.has_any.is_set() {
            return unix_s;
        }
        let issued_up_to = |tables: &mut Tables| tables.users.get(user_id).map(|it| it.issued_up_to_unix_s);
        let revoked = self.tables.with(issued_up_to);
        revoked.map_or(unix_s, |last| unix_s.max(last.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const KEEP: Duration = Duration::from_secs(100);
    const NONE: TokenHash = TokenHash::NONE;

    // spec: A-26
    #[test]
    fn a_user_s_tokens_are_revoked_up_to_now_and_one_by_its_id() {
        let revocations = Revocations::new(KEEP);
        let (one, other) = (revocations.hash_of(Some("t")), revocations.hash_of(Some("u")));
        assert!(one != other && one != NONE && revocations.hash_of(None) == NONE);
        assert!(!revocations.is_revoked("alice", 0, one));
        revocations.revoke_user(NOW, "alice").unwrap();
        assert!(revocations.is_revoked("alice", NOW, NONE) && revocations.is_revoked("alice", 0, NONE));
        assert!(!revocations.is_revoked("alice", NOW + 1, NONE) && !revocations.is_revoked("bob", 0, NONE));
        assert_eq!(revocations.issue_from(NOW, "alice"), NOW + 1, "a new login is good at once");
        assert_eq!(revocations.issue_from(NOW, "bob"), NOW);
        assert_eq!(revocations.issue_from(NOW + 9, "alice"), NOW + 9);
        revocations.revoke_token(NOW, one).unwrap();
        assert!(revocations.is_revoked("bob", NOW + 5, one));
        assert!(!revocations.is_revoked("bob", NOW + 5, other));
        revocations.revoke_token(NOW, NONE).unwrap();
        assert!(!revocations.is_revoked("bob", NOW + 5, NONE), "a token without a name cannot be named");
    }

    #[test]
    fn old_ones_are_forgotten_and_their_number_is_bounded() {
        let revocations = Revocations::new(KEEP);
        for at in 0..4 * SWEEP_MIN as u64 {
            revocations.revoke_user(NOW + at, &format!("user-{at}")).unwrap();
        }
        assert!(
            revocations.tables.with(|tables| tables.users.len()) <= SWEEP_MIN + 100,
            "each is forgotten after its time"
        );
        let last = 4 * SWEEP_MIN as u64 - 1;
        assert!(revocations.is_revoked(&format!("user-{last}"), NOW, NONE));
    }

    #[test]
    fn beyond_the_bound_a_revocation_is_refused_not_forgotten() {
        let revocations = Revocations::new(KEEP);
        for at in 1..=REVOCATIONS_MAX as u64 {
            revocations.revoke_token(NOW, TokenHash(at)).unwrap();
        }
        assert_eq!(revocations.revoke_token(NOW, TokenHash(0x1000_0000)), Err(TooManyRevocations));
        assert_eq!(revocations.revoke_token(NOW, TokenHash(7)), Ok(()), "it is there already");
    }
}
