//! Who is here: whom a gateway says to be online, or, where no gateway does, who was heard of lately: there a user who
//! only listens is not in it, and one who is in it may have left.

use std::collections::{HashMap, HashSet};

/// For so long a user counts as heard of.
pub(crate) const LATELY_MS: u64 = 5 * 60 * 1000;
/// More users are not remembered: the one that was silent the longest is forgotten.
const USERS_MAX: usize = 10_000;

/// When users were heard of, in milliseconds of one clock.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    last_ms: HashMap<String, u64>,
    /// Of these, who is online as a gateway says.
    online: HashSet<String>,
}

impl Seen {
    /// A user has asked for something.
    pub(crate) fn heard(&mut self, now_ms: u64, user: &str) {
        if let Some(last) = self.last_ms.get_mut(user) {
            *last = now_ms;
            return;
        }
        if self.last_ms.len() >= USERS_MAX {
            let online = &self.online;
            self.last_ms
                .retain(|user, last| now_ms.saturating_sub(*last) < LATELY_MS || online.contains(user));
        }
        if self.last_ms.len() >= USERS_MAX
            && let Some(silent) =
                self.last_ms.iter().min_by_key(|(_, last)| **last).map(|(user, _)| user.clone())
        {
            self.offline(&silent);
        }
        self.last_ms.insert(user.to_owned(), now_ms);
    }

    /// A gateway says that this user is online.
    pub(crate) fn online(&mut self, now_ms: u64, user: &str) {
        self.heard(now_ms, user);
        self.online.insert(user.to_owned());
    }

    /// No gateway has a session of this user.
    pub(crate) fn offline(&mut self, user: &str) {
        self.last_ms.remove(user);
        self.online.remove(user);
    }

    /// Whether a gateway says so, or the user has asked for something lately.
    pub(crate) fn is_here(&self, now_ms: u64, user: &str) -> bool {
        let is_lately = |last: &u64| now_ms.saturating_sub(*last) < LATELY_MS;
        self.online.contains(user) || self.last_ms.get(user).is_some_and(is_lately)
    }

    /// Those who are here, the latest first, with the milliseconds since: at most `max`.
    pub(crate) fn lately(&self, now_ms: u64, max: usize) -> Vec<(String, u64)> {
        let mut users: Vec<(String, u64)> = self
            .last_ms
            .iter()
            .filter(|(user, _)| self.is_here(now_ms, user))
            .map(|(user, last)| (user.clone(), now_ms.saturating_sub(*last)))
            .collect();
        users.sort_unstable_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        users.truncate(max);
        users
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_come_first_and_old_ones_go() {
        let mut seen = Seen::default();
        for (now_ms, user) in [(1000, "alice"), (2000, "bob"), (2000, "ann"), (3000, "alice")] {
            seen.heard(now_ms, user);
        }
        let of = |list: &[(&str, u64)]| {
            list.iter().map(|(user, ago)| ((*user).to_owned(), *ago)).collect::<Vec<_>>()
        };
        assert_eq!(seen.lately(3000, 9), of(&[("alice", 0), ("ann", 1000), ("bob", 1000)]));
        assert_eq!(seen.lately(3000, 1), of(&[("alice", 0)]));
        assert_eq!(seen.lately(2000 + LATELY_MS, 9), of(&[("alice", LATELY_MS - 1000)]));
        seen.offline("alice");
        assert_eq!(seen.lately(3000, 9), of(&[("ann", 1000), ("bob", 1000)]));
        assert!(seen.is_here(3000, "ann") && !seen.is_here(3000, "alice"));
    }

    #[test]
    fn whoever_is_online_stays_however_silent() {
        let mut seen = Seen::default();
        seen.online(1000, "alice");
        seen.heard(1000, "bob");
        let users =
            |seen: &Seen| seen.lately(1000 + LATELY_MS, 9).into_iter().map(|it| it.0).collect::<Vec<_>>();
        assert_eq!(users(&seen), ["alice"]);
        seen.offline("alice");
        assert_eq!(users(&seen), [""; 0]);
    }

    #[test]
    fn the_number_of_users_is_bounded() {
        let mut seen = Seen::default();
        for number in 0..=USERS_MAX {
            seen.heard(number as u64, &number.to_string());
        }
        assert_eq!(seen.last_ms.len(), USERS_MAX);
        assert!(!seen.last_ms.contains_key("0"));
        seen.heard(LATELY_MS + 10, "late");
        assert!(!seen.last_ms.contains_key("10") && seen.last_ms.contains_key("11"));
    }
}
