//! The access tokens of a client: which one the next connection shows, when to ask for another, and what became of it.
//!
//! ```text
//! given by the application, or by a login ─► fresh ─► shown (Hello, or Authenticate) ─► current ─► expires
//!                                                               └─ refused ─► asked for another, never shown again
//! ```

use super::event::TokenNeed;
use fastrand::Rng;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::Reason;
use std::fmt;
use std::time::Duration;

/// The longest token that a gateway takes, in bytes.
pub const TOKEN_BYTES_MAX: usize = 3072;
/// So many tokens may be refused one after the other; then the client ends.
const REFUSALS_MAX: u32 = 3;
/// An Authenticate without an answer is repeated after this time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A secret that says whose a session is; empty: nobody's. It does not show in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(String);

impl AccessToken {
    /// As it is written on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for AccessToken {
    fn from(text: String) -> AccessToken {
        AccessToken(text)
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(..)")
    }
}

/// Where a client's access tokens come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// There is none: sessions are anonymous until a login.
    Anonymous,
    /// The application has one.
    Token(AccessToken),
    /// The application is asked when one is needed.
    Asked,
}

/// What the next connection shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shows {
    /// This token.
    Token(AccessToken),
    /// A token that the application must be asked for.
    Needs(TokenNeed),
}

/// What became of the token that the application gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// It is shown next.
    Fresh,
    /// It cannot be used; why.
    Useless(&'static str),
}

#[derive(Debug)]
struct Authenticating {
    token: AccessToken,
    due: Mono,
}

/// See the module's page.
#[derive(Debug)]
pub(super) struct Access {
    can_ask: bool,
    asking: bool,
    current: Option<AccessToken>,
    fresh: Option<AccessToken>,
    authenticating: Option<Authenticating>,
    /// The last one that was refused, and why.
    refused: Option<(AccessToken, Reason)>,
    refusals: u32,
    /// Renewals that failed, one after the other.
    failures: u32,
    /// When `current` expires, and when to ask for the next.
    expires: Mono,
    renew_at: Mono,
}

impl Access {
    pub(super) fn new(credentials: Credentials) -> Access {
        let can_ask = credentials == Credentials::Asked;
        let fresh = match credentials {
            Credentials::Token(token) => Some(token),
            Credentials::Anonymous | Credentials::Asked => None,
        };
        Access {
            can_ask,
            asking: false,
            current: None,
            fresh,
            authenticating: None,
            refused: None,
            refusals: 0,
            failures: 0,
            expires: Mono::NEVER,
            renew_at: Mono::NEVER,
        }
    }

    /// What the next connection shows; a token that it shows is the current one from then on.
    pub(super) fn for_connection(&mut self, now: Mono) -> Shows {
        if let Some(fresh) = self.fresh.take() {
            (self.expires, self.renew_at) = (Mono::NEVER, Mono::NEVER);
            self.current = Some(fresh);
        }
        match &self.current {
            Some(token) if !self.can_ask || now < self.expires => Shows::Token(token.clone()),
            Some(_) => Shows::Needs(TokenNeed::Renew),
            None if !self.can_ask => Shows::Token(AccessToken(String::new())),
            None => Shows::Needs(match &self.refused {
                Some((_, reason)) => TokenNeed::Refused(*reason),
                None => TokenNeed::Open,
            }),
        }
    }

    /// The application is asked now. Whether it was not before.
    pub(super) fn ask(&mut self) -> bool {
        !std::mem::replace(&mut self.asking, true)
    }

    /// Whether the application can be asked.
    pub(super) fn can_ask(&self) -> bool {
        self.can_ask
    }

    /// The application has given a token.
    pub(super) fn given(&mut self, token: AccessToken) -> Given {
        self.asking = false;
        if token.0.len() > TOKEN_BYTES_MAX {
            return Given::Useless("it is too long");
        }
        if self.refused.as_ref().is_some_and(|(refused, _)| *refused == token) {
            self.refusals = self.refusals.saturating_add(1);
            return Given::Useless("it was refused before");
        }
        if self.current.as_ref() == Some(&token) && self.fresh.is_none() {
            return Given::Useless("it is the one in use");
        }
        self.fresh = Some(token);
        Given::Fresh
    }

    /// A renewal has failed. How many have, one after the other.
    pub(super) fn count_failure(&mut self) -> u32 {
        self.failures = self.failures.saturating_add(1);
        self.failures
    }

    /// The application has given none, and is asked again at `again`.
    pub(super) fn not_given(&mut self, again: Mono) {
        self.asking = false;
        self.renew_at = again;
    }

    /// The application gives none any more.
    pub(super) fn denied(&mut self) {
        (self.asking, self.can_ask, self.renew_at) = (false, false, Mono::NEVER);
    }

    /// A session is open with the current token, which lives on for so long; `None`: it does not expire.
    pub(super) fn accepted(&mut self, now: Mono, life: Option<Duration>, random: &mut Rng) {
        (self.refused, self.refusals, self.failures) = (None, 0, 0);
        self.expires = life.map_or(Mono::NEVER, |life| now + life);
        self.renew_at = match life {
            // Well before the end, and not all clients of a batch together.
            Some(life) if self.can_ask => now + life.mul_f64(random.f64().mul_add(0.15, 0.75)),
            _ => Mono::NEVER,
        };
    }

    /// A login has given the session this token.
    pub(super) fn logged_in(&mut self, token: &str) {
        self.current = (!token.is_empty()).then(|| AccessToken(token.to_owned()));
        (self.fresh, self.authenticating) = (None, None);
    }

    /// The fresh token, if there is one that the session can show now, to be written as an Authenticate.
    pub(super) fn show_fresh(&mut self, now: Mono) -> Option<AccessToken> {
        if self.authenticating.is_some() {
            return None;
        }
        let token = self.fresh.take()?;
        self.authenticating = Some(Authenticating { token: token.clone(), due: now + ANSWER_TIMEOUT });
        Some(token)
    }

    /// Whether a new token is on its way.
    pub(super) fn is_renewing(&self) -> bool {
        self.asking || self.authenticating.is_some() || self.fresh.is_some()
    }

    /// The answer to Authenticate is good: the token shown is the current one.
    pub(super) fn authenticated(&mut self) {
        if let Some(shown) = self.authenticating.take() {
            self.current = Some(shown.token);
        }
    }

    /// The token shown was not judged: it is shown again, on this session or the next one.
    pub(super) fn unjudged(&mut self) {
        if let Some(shown) = self.authenticating.take() {
            self.fresh.get_or_insert(shown.token);
        }
    }

    /// The token shown in Authenticate was refused; the current one stands. Another may be asked for at `again`.
    pub(super) fn not_authenticated(&mut self, reason: Reason, again: Mono) {
        if let Some(shown) = self.authenticating.take() {
            self.refused = Some((shown.token, reason));
        }
        self.renew_at = if self.can_ask { again } else { Mono::NEVER };
    }

    /// The current token was refused. Whether there may be another.
    pub(super) fn refused(&mut self, reason: Reason) -> bool {
        self.refused = self.current.take().map(|token| (token, reason)).or(self.refused.take());
        self.refusals = self.refusals.saturating_add(1);
        self.has_others()
    }

    /// Whether there may be another token than the current one.
    pub(super) fn has_others(&self) -> bool {
        self.fresh.is_some()
            || self.authenticating.is_some()
            || (self.can_ask && self.refusals < REFUSALS_MAX)
    }

    /// Whether there is none, and the application gives none.
    pub(super) fn is_exhausted(&self) -> bool {
        self.current.is_none() && !self.has_others()
    }

    /// Whether there is no token, and none to be had.
    pub(super) fn is_anonymous(&self) -> bool {
        self.current.is_none() && self.refused.is_none() && self.fresh.is_none() && !self.can_ask
    }

    /// The session with the current token is over for good.
    pub(super) fn forget(&mut self) {
        *self = Access::new(Credentials::Anonymous);
    }

    /// The current token needs a successor now, whatever was planned.
    pub(super) fn is_expiring(&mut self, now: Mono) {
        if self.can_ask {
            self.renew_at = now;
        }
    }

    /// Looks at the deadlines of an open session. Whether the application must be asked now.
    pub(super) fn timers(&mut self, now: Mono) -> bool {
        if self.authenticating.as_ref().is_some_and(|shown| shown.due <= now) {
            self.unjudged();
        }
        if self.renew_at > now || self.is_renewing() {
            return false;
        }
        self.renew_at = Mono::NEVER;
        self.can_ask
    }

    /// When [`Access::timers`] has something to do.
    pub(super) fn next_deadline(&self) -> Mono {
        let answer = self.authenticating.as_ref().map_or(Mono::NEVER, |shown| shown.due);
        if self.is_renewing() { answer } else { answer.min(self.renew_at) }
    }
}
