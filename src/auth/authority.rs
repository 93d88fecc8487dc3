//! Everything that says who somebody is, in one place for all shards.

use super::{Applications, Claims, IssueError, Issued, Issuer, KeyRing, Revocations, TokenError};
use super::{issuer::Bearer, revocation};

/// Keys, the issuer, applications and revocations.
#[derive(Debug)]
pub struct Authority {
    /// Whose tokens are good.
    pub keys: KeyRing,
    /// Mints tokens after a login; `None`: no service can log anybody in.
    pub issuer: Option<Issuer>,
    /// Which applications are let in.
    pub applications: Applications,
    /// Which tokens are no longer good.
    pub revocations: Revocations,
}

impl Authority {
    /// Tokens of these keys, and nothing else: no logins, no applications.
    pub fn of_keys(keys: KeyRing) -> Authority {
        Authority {
            keys,
            issuer: None,
            applications: Applications::default(),
            revocations: Revocations::new(revocation::KEEP_DEFAULT),
        }
    }

    /// Checks a token, whether it was revoked included. A session that is found by its user only after this has to
    /// ask [`Revocations::is_revoked`] again: a revocation may have come between.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn verify(&self, token: &str, unix_s: u64) -> Result<Claims, TokenError> {
        let claims = self.keys.verify(token, unix_s)?;
        let token = self.revocations.hash_of(&claims.key_id, claims.token_id.as_deref());
        if self.revocations.is_revoked(&claims.user_id, claims.issued_unix_s, token) {
            return Err(TokenError::Revoked);
        }
        Ok(claims)
    }

    /// Revokes the token of this id, whichever key has signed it: one of a user, or without a user any.
    pub fn revoke_token(&self, unix_s: u64, user_id: Option<&str>, token_id: &str) {
        for key_id in self.keys.ids() {
            let token = self.revocations.hash_of(key_id, Some(token_id));
            self.revocations.revoke_token(unix_s, user_id, token);
        }
    }

    /// A token for somebody who has just logged in; `None`: this gateway mints none.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn issue(&self, unix_s: u64, bearer: &Bearer<'_>) -> Option<Result<Issued, IssueError>> {
        let issuer = self.issuer.as_ref()?;
        Some(issuer.issue(self.revocations.issue_from(unix_s, bearer.user_id), bearer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{SigningKey, mint};

    // spec: A-26
    #[test]
    fn a_revoked_token_is_told_from_a_bad_one() {
        let key = SigningKey::new("k", &[7; 32]).unwrap();
        let authority = Authority::of_keys(KeyRing::new(vec![key.clone()], None, None, 0).unwrap());
        let token = mint(&key, &serde_json::json!({"sub": "alice", "exp": 900, "iat": 100, "jti": "t"}));
        assert_eq!(authority.verify(&token, 500).unwrap().issued_unix_s, 100);
        authority.revocations.revoke_user(99, "alice");
        assert!(authority.verify(&token, 500).is_ok(), "it is younger than the revocation");
        authority.revoke_token(500, Some("bob"), "t");
        assert!(authority.verify(&token, 500).is_ok(), "it is another user's");
        authority.revoke_token(500, Some("alice"), "t");
        assert_eq!(authority.verify(&token, 500), Err(TokenError::Revoked));
        assert!(authority.issuer.is_none());
    }
}
