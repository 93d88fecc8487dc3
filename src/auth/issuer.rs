//! Access tokens of the gateway's own: minted when a service has checked a password.

use super::claims::ROLES_MAX;
use super::token::TOKEN_BYTES_MAX;
use super::{SigningKey, mint};
use moorgate_proto::limits::{NAME_BYTES, is_name};
use std::sync::Arc;
use std::time::Duration;

/// How long a token lives where nobody wishes otherwise.
pub const ACCESS_TTL_DEFAULT: Duration = Duration::from_secs(3600);
/// The longest life that a service can wish for, where nothing else is said.
pub const ACCESS_TTL_MAX_DEFAULT: Duration = Duration::from_secs(24 * 3600);

/// Mints tokens that this gateway, and every other with the same key, takes.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// Signs them.
    pub key: SigningKey,
    /// Their `iss`.
    pub issuer: Option<String>,
    /// Their `aud`.
    pub audience: Option<String>,
    /// Their life when a service wishes none.
    pub ttl: Duration,
    /// Their longest life.
    pub ttl_max: Duration,
}

/// Who a token is for.
#[derive(Debug, Clone, Copy)]
pub struct Bearer<'a> {
    /// Who.
    pub user_id: &'a str,
    /// What they may do.
    pub roles: &'a [String],
    /// On which device only; empty: on any.
    pub device_id: &'a str,
    /// Wished life; zero: the default.
    pub ttl: Duration,
    /// Names the token; not used for another.
    pub token_id: &'a str,
}

/// A token that was minted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The token.
    pub token: String,
    /// Its `iat`, in seconds since the Unix epoch.
    pub issued_unix_s: u64,
    /// Its `exp`, likewise.
    pub expires_unix_s: u64,
    /// The key that has signed it.
    pub key_id: Arc<str>,
}

/// Why no token can say this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssueError {
    /// A user id that is empty or too long.
    UserId,
    /// Too many roles, or one that is too long.
    Roles,
    /// The token would be longer than any gateway takes.
    TooLong,
}

impl std::fmt::Display for IssueError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            IssueError::UserId => "a user id has 1 to 128 bytes",
            IssueError::Roles => "there are at most 32 roles, of at most 64 bytes each",
            IssueError::TooLong => "the roles make the access token too long",
        })
    }
}

impl std::error::Error for IssueError {}

impl Issuer {
    /// A token for `bearer`, issued at `unix_s`.
    ///
    /// # Errors
    /// [`IssueError`]: the service asks for what no token can say.
    pub fn issue(&self, unix_s: u64, bearer: &Bearer<'_>) -> Result<Issued, IssueError> {
        if !is_name(bearer.user_id) {
            return Err(IssueError::UserId);
        }
        if bearer.roles.len() > ROLES_MAX || bearer.roles.iter().any(|role| role.len() > NAME_BYTES) {
            return Err(IssueError::Roles);
        }
        let life = if bearer.ttl.is_zero() { self.ttl } else { bearer.ttl.min(self.ttl_max) };
        let expires_unix_s = unix_s.saturating_add(life.as_secs().max(1));
        let mut claims = serde_json::json!({
            "sub": bearer.user_id, "iat": unix_s, "exp": expires_unix_s, "jti": bearer.token_id,
        });
        let mut add = |name: &str, value: serde_json::Value| {
            if let Some(claims) = claims.as_object_mut() {
                claims.insert(name.to_owned(), value);
            }
        };
        if !bearer.roles.is_empty() {
            add("roles", bearer.roles.into());
        }
        if !bearer.device_id.is_empty() {
            add("device", bearer.device_id.into());
        }
        for (name, value) in [("iss", &self.issuer), ("aud", &self.audience)] {
            if let Some(value) = value {
                add(name, value.as_str().into());
            }
        }
        let token = mint(&self.key, &claims);
        if token.len() > TOKEN_BYTES_MAX {
            return Err(IssueError::TooLong);
        }
        Ok(Issued { token, issued_unix_s: unix_s, expires_unix_s, key_id: self.key.id.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::KeyRing;

    const NOW: u64 = 1_800_000_000;

    fn issuer() -> Issuer {
        Issuer {
            key: SigningKey::new("k", &[7; 32]).unwrap(),
            issuer: Some("moorgate".to_owned()),
            audience: Some("clients".to_owned()),
            ttl: Duration::from_secs(60),
            ttl_max: Duration::from_secs(600),
        }
    }

    fn bearer(roles: &[String]) -> Bearer<'_> {
        Bearer { user_id: "alice", roles, device_id: "phone", ttl: Duration::ZERO, token_id: "t-1" }
    }

    #[test]
    fn what_is_minted_is_taken_and_says_what_it_should() {
        let issuer = issuer();
        let ring = KeyRing::new(vec![issuer.key.clone()], issuer.issuer.clone(), issuer.audience.clone(), 0)
            .unwrap();
        let roles = ["admin".to_owned()];
        let issued = issuer.issue(NOW, &bearer(&roles)).unwrap();
        let claims = ring.verify(&issued.token, NOW).unwrap();
        assert_eq!((claims.user_id.as_str(), &claims.roles[..]), ("alice", &roles[..]));
        assert_eq!((claims.device.as_deref(), claims.token_id.as_deref()), (Some("phone"), Some("t-1")));
        assert_eq!((claims.issued_unix_s, claims.expires_unix_s), (NOW, NOW + 60));
    }

    #[test]
    fn a_wished_life_counts_up_to_the_longest() {
        let life = |ttl| {
            let issued = issuer().issue(NOW, &Bearer { ttl: Duration::from_millis(ttl), ..bearer(&[]) });
            issued.unwrap().expires_unix_s - NOW
        };
        assert_eq!([0, 1, 90_000, 9_000_000].map(life), [60, 1, 90, 600]);
    }

    #[test]
    fn what_no_token_can_say_is_refused() {
        let long = "x".repeat(129);
        for user_id in ["", &long] {
            let issued = issuer().issue(NOW, &Bearer { user_id, ..bearer(&[]) });
            assert_eq!(issued, Err(IssueError::UserId));
        }
        let roles = |count, len| vec!["r".repeat(len); count];
        assert_eq!(issuer().issue(NOW, &bearer(&roles(33, 1))), Err(IssueError::Roles));
        assert_eq!(issuer().issue(NOW, &bearer(&roles(1, 65))), Err(IssueError::Roles));
        assert_eq!(issuer().issue(NOW, &bearer(&roles(32, 64))), Err(IssueError::TooLong));
        assert!(issuer().issue(NOW, &bearer(&roles(32, 40))).is_ok());
    }
}
