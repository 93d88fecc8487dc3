//! Access tokens that are no longer good, although their time is not over: of a user, issued up to a moment; or one by
//! its id.
//!
//! An entry ends with what it is about: that of a logout at the token's own end, every other after a time that
//! the deployment chooses, because the lives of the tokens are not known. One user has few entries of its own: beyond
//! them all its tokens are revoked by one entry. When the table is full, what ends first is given up.
//!
//! Shared by all threads, asked once for each token that a client shows, never for a request. In memory: a gateway
//! that starts again has forgotten them, so whoever revokes keeps the lives of tokens short.

use crate::base::sync::{Lock, Native, Primitives, Signal};
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::time::Duration;

/// Revocations that are remembered.
const REVOCATIONS_MAX: usize = 1 << 20;
/// Tokens of one user that are revoked one by one.
const TOKENS_OF_USER_MAX: usize = 64;
/// Entries that are over, and are looked for whenever one is added: more than are added.
const STEPS: usize = 8;

/// How long a revocation is remembered where the life of the token is not known and nothing else is said: tokens that
/// live longer are good again after it.
pub const KEEP_DEFAULT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Hash of the id of a token and the key that has signed it: one that no two share, but for a chance of one in
/// 2^64. So that a session, or a revocation, need not keep a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TokenHash(u64);

impl TokenHash {
    /// Of a token without an id.
    pub const NONE: TokenHash = TokenHash(0);
}

/// A token of which everything is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevokedToken<'a> {
    /// Its user.
    pub user_id: &'a str,
    /// Hash of its id and key.
    pub token: TokenHash,
    /// Its `iat`, in seconds since the Unix epoch; 0: it has none.
    pub issued_unix_s: u64,
    /// Its `exp` and the leeway, likewise.
    pub ends_unix_s: u64,
}

/// What an entry is called: a hash of what it is about.
type Name = u64;

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// When it ends, in seconds since the Unix epoch.
    ends_unix_s: u64,
    /// Of a user's: up to when tokens are revoked, likewise.
    issued_up_to_unix_s: u64,
    /// Of a token's: the user's name; 0: any user's.
    user: Name,
}

type Map<V> = HashMap<Name, V, foldhash::fast::RandomState>;

#[derive(Debug, Default)]
struct Tables {
    entries: Map<Entry>,
    /// Which ends when.
    ends: BTreeSet<(u64, Name)>,
    /// The entries of each user's tokens.
    tokens: Map<Vec<Name>>,
    given_up: u64,
}

impl Tables {
    /// Adds an entry, or adds to it. Its end never comes nearer.
    fn add(&mut self, name: Name, entry: Entry) {
        let before = self.entries.insert(name, entry);
        match before {
            Some(before) => {
                self.ends.remove(&(before.ends_unix_s, name));
                let ends_unix_s = before.ends_unix_s.max(entry.ends_unix_s);
                let issued_up_to_unix_s = before.issued_up_to_unix_s.max(entry.issued_up_to_unix_s);
                self.entries.insert(name, Entry { ends_unix_s, issued_up_to_unix_s, ..entry });
                self.ends.insert((ends_unix_s, name));
            }
            None => {
                self.ends.insert((entry.ends_unix_s, name));
                if entry.user != 0 {
                    self.tokens.entry(entry.user).or_default().push(name);
                }
            }
        }
    }

    fn remove(&mut self, name: Name) -> Option<Entry> {
        let entry = self.entries.remove(&name)?;
        self.ends.remove(&(entry.ends_unix_s, name));
        if let Some(tokens) = self.tokens.get_mut(&entry.user) {
            tokens.retain(|token| *token != name);
            if tokens.is_empty() {
                self.tokens.remove(&entry.user);
            }
        }
        Some(entry)
    }

    /// Forgets some of those that are over, and when there are too many what ends first.
    fn forget(&mut self, unix_s: u64, entries_max: usize) {
        for _ in 0..STEPS {
            let first = self.ends.first().copied();
            let Some((_, name)) = first.filter(|(ends, _)| *ends <= unix_s) else { break };
            self.remove(name);
        }
        while self.entries.len() > entries_max {
            let Some((_, name)) = self.ends.first().copied() else { break };
            self.remove(name);
            self.given_up = self.given_up.saturating_add(1);
        }
    }

    /// The entries of a user's tokens become one of the user's: until when it has to hold, at least `ends_unix_s`.
    fn merge(&mut self, user: Name, ends_unix_s: u64) -> u64 {
        let tokens = self.tokens.remove(&user).unwrap_or_default();
        let ends = tokens.into_iter().filter_map(|name| self.remove(name)).map(|entry| entry.ends_unix_s);
        ends.max().unwrap_or(0).max(ends_unix_s)
    }
}

/// What is revoked. See the module's page.
pub struct Revocations<P: Primitives = Native> {
    keep: Duration,
    entries_max: usize,
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
    /// Nothing is revoked yet; a revocation of tokens whose end is unknown is kept for `keep`.
    pub fn new(keep: Duration) -> Revocations {
        Revocations::with_primitives(keep)
    }
}

impl<P: Primitives> Revocations<P> {
    /// The same with other locks.
    pub fn with_primitives(keep: Duration) -> Revocations<P> {
        let tables = P::Mutex::new(Tables::default());
        let hash = Default::default();
        Revocations { keep, entries_max: REVOCATIONS_MAX, tables, has_any: P::Flag::new(), hash }
    }

    /// The hash of a token that this key has signed.
    pub fn hash_of(&self, key_id: &str, token_id: Option<&str>) -> TokenHash {
        token_id.map_or(TokenHash::NONE, |id| TokenHash(self.hash.hash_one((key_id, id)).max(1)))
    }

    fn name_of_user(&self, user_id: &str) -> Name {
        self.hash.hash_one((0u8, user_id)).max(1)
    }

    fn name_of_token(&self, user_id: Option<&str>, token: TokenHash) -> Name {
        self.hash.hash_one((1u8, user_id, token)).max(1)
    }

    /// Revokes the tokens of a user that were issued up to now, those without a time of issue too.
    pub fn revoke_user(&self, unix_s: u64, user_id: &str) {
        let ends_unix_s = unix_s.saturating_add(self.keep.as_secs());
        let name = self.name_of_user(user_id);
        self.change(unix_s, |tables| {
            tables.add(name, Entry { ends_unix_s, issued_up_to_unix_s: unix_s, user: 0 });
        });
    }

    /// Revokes one token of a user, or of whatever user.
    pub fn revoke_token(&self, unix_s: u64, user_id: Option<&str>, token: TokenHash) {
        let ends_unix_s = unix_s.saturating_add(self.keep.as_secs());
        let user = user_id.map_or(0, |user_id| self.name_of_user(user_id));
        self.revoke_one(unix_s, (user_id, user), token, (ends_unix_s, unix_s));
    }

    /// Revokes one token of which everything is known: until it would have ended by itself.
    pub fn revoke_known(&self, unix_s: u64, revoked: RevokedToken<'_>) {
        let RevokedToken { user_id, token, issued_unix_s, ends_unix_s } = revoked;
        let user = self.name_of_user(user_id);
        self.revoke_one(unix_s, (Some(user_id), user), token, (ends_unix_s, issued_unix_s.max(unix_s)));
    }

    fn revoke_one(
        &self,
        unix_s: u64,
        (user_id, user): (Option<&str>, Name),
        token: TokenHash,
        (ends_unix_s, issued_up_to_unix_s): (u64, u64),
    ) {
        if token == TokenHash::NONE {
            return;
        }
        let name = self.name_of_token(user_id, token);
        self.change(unix_s, |tables| {
            let is_there = tables.entries.contains_key(&name);
            let of_user = tables.tokens.get(&user).map_or(0, Vec::len);
            if is_there || of_user < TOKENS_OF_USER_MAX {
                return tables.add(name, Entry { ends_unix_s, issued_up_to_unix_s: 0, user });
            }
            let ends_unix_s = tables.merge(user, ends_unix_s);
            tables.add(user, Entry { ends_unix_s, issued_up_to_unix_s, user: 0 });
        });
    }

    fn change(&self, unix_s: u64, change: impl FnOnce(&mut Tables)) {
        self.tables.with(|tables| {
            change(tables);
            tables.forget(unix_s, self.entries_max);
            self.has_any.set(!tables.entries.is_empty());
        });
    }

    /// Whether a token is revoked. `issued_unix_s` is 0 when it does not say.
    pub fn is_revoked(&self, user_id: &str, issued_unix_s: u64, token: TokenHash) -> bool {
        if !self.has_any.is_set() {
            return false;
        }
        let user = self.name_of_user(user_id);
        let names = [self.name_of_token(Some(user_id), token), self.name_of_token(None, token)];
        self.tables.with(|tables| {
            let by_user = tables.entries.get(&user).is_some_and(|it| issued_unix_s <= it.issued_up_to_unix_s);
            by_user || names.iter().any(|name| tables.entries.contains_key(name))
        })
    }

    /// The first second at which a token for this user can be issued that is not revoked.
    pub fn issue_from(&self, unix_s: u64, user_id: &str) -> u64 {
        if !self.has_any.is_set() {
            return unix_s;
        }
        let user = self.name_of_user(user_id);
        let issued_up_to = |tables: &mut Tables| tables.entries.get(&user).map(|it| it.issued_up_to_unix_s);
        let revoked = self.tables.with(issued_up_to);
        revoked.map_or(unix_s, |last| unix_s.max(last.saturating_add(1)))
    }

    /// Revocations that are remembered, and those that were given up because there were too many.
    pub fn counts(&self) -> (u64, u64) {
        self.tables.with(|tables| (tables.entries.len() as u64, tables.given_up))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const KEEP: Duration = Duration::from_secs(100);
    const NONE: TokenHash = TokenHash::NONE;

    fn bounded(entries_max: usize) -> Revocations {
        Revocations { entries_max, ..Revocations::new(KEEP) }
    }

    fn of<'a>(revocations: &Revocations, user_id: &'a str, id: &str, ends_unix_s: u64) -> RevokedToken<'a> {
        let token = revocations.hash_of("k", Some(id));
        RevokedToken { user_id, token, issued_unix_s: NOW, ends_unix_s }
    }

    fn entries(revocations: &Revocations) -> usize {
        let (entries, _) = revocations.counts();
        revocations.tables.with(|tables| {
            assert_eq!(tables.ends.len(), tables.entries.len());
            let tokens = tables.entries.values().filter(|entry| entry.user != 0).count();
            assert_eq!(tables.tokens.values().map(Vec::len).sum::<usize>(), tokens);
        });
        usize::try_from(entries).unwrap()
    }

    // spec
    #[test]
    fn a_user_s_tokens_are_revoked_up_to_now_and_one_by_its_id() {
        let revocations = Revocations::new(KEEP);
        let (one, other) = (revocations.hash_of("k", Some("t")), revocations.hash_of("k", Some("u")));
        assert!(one != other && one != NONE && revocations.hash_of("k", None) == NONE);
        assert!(!revocations.is_revoked("alice", 0, one));
        revocations.revoke_user(NOW, "alice");
        assert!(revocations.is_revoked("alice", NOW, NONE) && revocations.is_revoked("alice", 0, NONE));
        assert!(!revocations.is_revoked("alice", NOW + 1, NONE) && !revocations.is_revoked("bob", 0, NONE));
        assert_eq!(revocations.issue_from(NOW, "alice"), NOW + 1, "a new login is good at once");
        assert_eq!(revocations.issue_from(NOW, "bob"), NOW);
        assert_eq!(revocations.issue_from(NOW + 9, "alice"), NOW + 9);
        revocations.revoke_token(NOW, None, one);
        assert!(revocations.is_revoked("bob", NOW + 5, one));
        assert!(!revocations.is_revoked("bob", NOW + 5, other));
        revocations.revoke_token(NOW, None, NONE);
        assert!(!revocations.is_revoked("bob", NOW + 5, NONE), "a token without a name cannot be named");
    }

    // spec: A-24
    #[test]
    fn a_token_of_the_same_id_by_another_key_or_of_another_user_is_not_revoked() {
        let revocations = Revocations::new(KEEP);
        let [one, other_key] = ["k", "l"].map(|key| revocations.hash_of(key, Some("1")));
        revocations.revoke_known(NOW, of(&revocations, "alice", "1", NOW + 60));
        revocations.revoke_token(NOW, Some("carol"), one);
        assert!(revocations.is_revoked("alice", NOW, one) && revocations.is_revoked("carol", NOW, one));
        assert!(!revocations.is_revoked("bob", NOW, one));
        assert!(!revocations.is_revoked("alice", NOW, other_key));
    }

    // spec: A-26
    #[test]
    fn an_entry_ends_with_its_token_and_the_others_after_their_time() {
        let revocations = Revocations::new(KEEP);
        for at in 0..10_000 {
            let user = format!("user-{at}");
            revocations.revoke_known(NOW + at, of(&revocations, &user, "t", NOW + at + 10));
            assert!(entries(&revocations) <= 12, "{at}");
        }
        let late = NOW + 10_000;
        revocations.revoke_user(late, "alice");
        revocations.revoke_token(late, None, revocations.hash_of("k", Some("any")));
        for _ in 0..3 {
            revocations.revoke_user(late + 99, "bob");
        }
        assert_eq!(entries(&revocations), 3);
        revocations.revoke_user(late + 100, "bob");
        assert_eq!(entries(&revocations), 1);
        assert!(!revocations.is_revoked("alice", late, NONE) && revocations.is_revoked("bob", late, NONE));
    }

    #[test]
    fn a_second_revocation_never_shortens_the_first() {
        let revocations = Revocations::new(KEEP);
        for ends in [NOW + 50, NOW + 20] {
            revocations.revoke_known(NOW, of(&revocations, "alice", "t", ends));
        }
        revocations.revoke_user(NOW + 30, "bob");
        assert!(revocations.is_revoked("alice", NOW, revocations.hash_of("k", Some("t"))));
        revocations.revoke_user(NOW + 50, "bob");
        assert!(!revocations.is_revoked("alice", NOW, revocations.hash_of("k", Some("t"))));
        assert_eq!(entries(&revocations), 1);
    }

    /// A user that logs in and out in a loop has a bounded share of the table, and none of its tokens is good again.
    #[test]
    fn one_user_s_many_tokens_become_one_entry() {
        let revocations = Revocations::new(KEEP);
        revocations.revoke_known(NOW, of(&revocations, "alice", "hers", NOW + 3600));
        let mut revoked = Vec::new();
        for at in 0..10_000 {
            let issued_unix_s = revocations.issue_from(NOW, "eve");
            let id = at.to_string();
            let token = RevokedToken { issued_unix_s, ..of(&revocations, "eve", &id, issued_unix_s + 3600) };
            revocations.revoke_known(NOW, token);
            revoked.push((issued_unix_s, token.token));
            assert!(entries(&revocations) <= TOKENS_OF_USER_MAX + 2);
        }
        assert!(revoked.iter().all(|(issued, token)| revocations.is_revoked("eve", *issued, *token)));
        let next = revocations.issue_from(NOW, "eve");
        assert!(!revocations.is_revoked("eve", next, revocations.hash_of("k", Some("next"))));
        assert!(next < NOW + 200, "{}", next - NOW);
        assert!(revocations.is_revoked("alice", NOW, revocations.hash_of("k", Some("hers"))));
        assert!(!revocations.is_revoked("alice", NOW, NONE) && revocations.counts().1 == 0);
    }

    /// Filled by many users, the table gives up what ends first: later revocations hold all the same.
    #[test]
    fn a_full_table_gives_up_what_ends_first() {
        let revocations = bounded(1000);
        revocations.revoke_user(NOW, "alice");
        for at in 0..5000 {
            let user = format!("user-{at}");
            revocations.revoke_known(NOW, of(&revocations, &user, "t", NOW + 10 + at % 50));
        }
        assert_eq!((entries(&revocations), revocations.counts().1), (1000, 4001));
        assert!(revocations.is_revoked("alice", NOW, NONE), "it ends last");
        revocations.revoke_known(NOW, of(&revocations, "bob", "t", NOW + 60));
        revocations.revoke_user(NOW, "carol");
        revocations.revoke_token(NOW, None, revocations.hash_of("k", Some("x")));
        assert!(revocations.is_revoked("bob", NOW, revocations.hash_of("k", Some("t"))));
        assert!(revocations.is_revoked("carol", NOW, NONE));
        assert!(revocations.is_revoked("dave", NOW, revocations.hash_of("k", Some("x"))));
    }
}
