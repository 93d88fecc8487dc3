//! A new access token on a live session: the same user, the same device, nothing else changes.

use super::opening::{expiry_of, mark_of};
use super::{Expiry, TokenMark};
use crate::auth::{Authority, TokenError};
use crate::base::clock::Now;
use crate::relay::Caller;
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Reason};

/// What a good token changes.
#[derive(Debug)]
pub struct Refreshed {
    /// When access ends.
    pub expiry: Expiry,
    /// The same as the client is told: Unix time in milliseconds.
    pub expires_unix_ms: u64,
    /// What is kept of the token.
    pub token: TokenMark,
    /// Who asks from now on: the roles may be others.
    pub caller: v1::Caller,
}

/// Why a token changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRefresh {
    /// It is no good.
    Token(TokenError),
    /// It is another user's, or for another device.
    Mismatch,
}

impl NoRefresh {
    /// What the client is told.
    pub fn wire(self) -> (Code, Reason) {
        match self {
            NoRefresh::Token(error) => error.wire(),
            NoRefresh::Mismatch => (Code::PermissionDenied, Reason::IdentityMismatch),
        }
    }
}

impl std::fmt::Display for NoRefresh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NoRefresh::Token(error) => error.fmt(f),
            NoRefresh::Mismatch => f.write_str("the access token is another user's, or for another device"),
        }
    }
}

/// Judges a token that is shown on the session of `caller`.
///
/// # Errors
/// [`NoRefresh`]: the session stays as it is.
pub fn refresh(
    now: Now,
    access_token: &str,
    caller: &Caller,
    authority: &Authority,
) -> Result<Refreshed, NoRefresh> {
    let claims = authority.verify(access_token, now.unix_s()).map_err(NoRefresh::Token)?;
    let who = caller.who();
    let other_device = claims.device.as_ref().is_some_and(|device| *device != who.device_id);
    if claims.user_id != who.user_id || other_device {
        return Err(NoRefresh::Mismatch);
    }
    let (expiry, expires_unix_ms) = expiry_of(claims.expires_unix_s, authority);
    let token = mark_of(&claims, authority);
    Ok(Refreshed { expiry, expires_unix_ms, token, caller: v1::Caller { roles: claims.roles, ..who } })
}
