//! How often one user is given an access token.

use super::Rate;
use super::gcra::Gcra;
use super::roster::{Hasher, Roster};
use super::user::User;
use moorgate_proto::time::Mono;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// Users whose last logins are counted; of more the one with the fewest is given up.
const USERS_MAX: usize = 1 << 16;

/// The logins of each user, over all shards.
#[derive(Debug)]
pub struct Logins {
    rate: Option<Rate>,
    users: Mutex<Roster<Arc<User>, Gcra>>,
}

impl Logins {
    /// Of each user so many; `None`: without a limit. `seed` is random.
    pub fn new(rate: Option<Rate>, seed: u64) -> Logins {
        Logins { rate, users: Mutex::new(Roster::new(USERS_MAX, Hasher::with_seed(seed))) }
    }

    /// Charges a login.
    ///
    /// # Errors
    /// How long until the user's next one passes.
    pub fn charge(&self, now: Mono, user: &User) -> Result<(), Duration> {
        let Some(rate) = self.rate else { return Ok(()) };
        let user = Arc::new(user.clone());
        let mut users = self.users.lock();
        let is_over = |bucket: &Gcra| bucket.is_full(now);
        match users.find_or_replace(&user, is_over, |bucket| bucket.full_at(), Gcra::default) {
            Some((bucket, _)) => bucket.charge(now, rate),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(user_id: &str) -> User {
        User { application: "im".into(), user_id: user_id.into() }
    }

    #[test]
    fn a_user_has_its_rate_and_others_have_theirs() {
        let logins = Logins::new(Rate::new(30, Duration::from_secs(60), 3), 1);
        let now = Mono::ZERO + Duration::from_secs(60);
        assert!((0..3).all(|_| logins.charge(now, &user("alice")).is_ok()));
        let wait = logins.charge(now, &user("alice")).unwrap_err();
        assert!(wait <= Duration::from_secs(2) && logins.charge(now, &user("bob")).is_ok());
        assert!(logins.charge(now + wait, &user("alice")).is_ok());
        assert!((0..1000).all(|_| Logins::new(None, 1).charge(now, &user("alice")).is_ok()));
    }

    #[test]
    fn a_full_table_keeps_those_who_log_in_most() {
        let logins = Logins::new(Rate::new(1, Duration::from_secs(3600), 3), 1);
        let now = Mono::ZERO + Duration::from_secs(60);
        for _ in 0..3 {
            assert!(logins.charge(now, &user("eve")).is_ok());
        }
        for number in 0..USERS_MAX + 1000 {
            assert!(logins.charge(now, &user(&number.to_string())).is_ok());
        }
        assert!(logins.charge(now, &user("eve")).is_err() && logins.users.lock().len() == USERS_MAX);
    }
}
