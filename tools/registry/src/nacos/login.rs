//! The access token of a Nacos user: when to fetch one.
//!
//! ```text
//!   none ── login ──► held ── 80 % of its time is over: login ──► held
//!    ▲                  │
//!    └── refused: 403 ──┘
//! ```

use std::fmt;
use std::time::{Duration, Instant};

/// Of tokens for which the server says no time.
const TTL_MIN: Duration = Duration::from_secs(1);

/// What is held of a token.
#[derive(Default)]
pub(crate) enum Login {
    #[default]
    None,
    Held {
        token: String,
        refresh_at: Instant,
        ends_at: Instant,
    },
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Login::None) { "None" } else { "Held" })
    }
}

impl Login {
    /// It is time to log in.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        match self {
            Login::None => true,
            Login::Held { refresh_at, .. } => *refresh_at <= now,
        }
    }

    /// One to use; also one that is due, if a new one cannot be had and it is not over.
    pub(crate) fn token(&self, now: Instant) -> Option<&str> {
        match self {
            Login::Held { token, ends_at, .. } if *ends_at > now => Some(token),
            _ => None,
        }
    }

    pub(crate) fn succeeded(&mut self, now: Instant, token: String, ttl: Duration) {
        let ttl = ttl.max(TTL_MIN);
        let ends_at = now.checked_add(ttl).unwrap_or(now + TTL_MIN);
        *self = Login::Held { token, refresh_at: now + (ends_at - now) * 4 / 5, ends_at };
    }

    /// The server does not take it.
    pub(crate) fn refused(&mut self) {
        *self = Login::None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient::now;

    #[test]
    fn a_token_is_fetched_early_and_anew_once_it_is_refused() {
        let (mut login, start) = (Login::default(), now());
        assert!(login.is_due(start) && login.token(start).is_none());
        login.succeeded(start, "t1".to_owned(), Duration::from_secs(100));
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!login.is_due(at(79)) && login.is_due(at(80)));
        assert_eq!((login.token(at(99)), login.token(at(100))), (Some("t1"), None));
        login.refused();
        assert!(login.is_due(start) && login.token(start).is_none());
        login.succeeded(start, "t2".to_owned(), Duration::ZERO);
        assert!(!login.is_due(start) && !format!("{login:?}").contains("t2"));
    }
}
