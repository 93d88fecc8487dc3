//! What an access token says, read strictly.

use super::TokenError;
use moorgate_proto::limits::{NAME_BYTES, is_name};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// Most roles of one token.
pub(super) const ROLES_MAX: usize = 32;

/// What a good token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Who.
    pub user_id: String,
    /// What they may do.
    pub roles: Vec<String>,
    /// On which device only.
    pub device: Option<String>,
    /// Until when, in seconds since the Unix epoch.
    pub expires_unix_s: u64,
    /// When it was issued, in seconds since the Unix epoch; 0: it does not say.
    pub issued_unix_s: u64,
    /// Names the token, for revocation.
    pub token_id: Option<String>,
}

/// The payload as it stands. Wrong types, and fields that stand twice, are refused by serde.
#[derive(Deserialize)]
pub(super) struct Payload<'a> {
    sub: String,
    exp: u64,
    nbf: Option<u64>,
    iat: Option<u64>,
    #[serde(borrow)]
    iss: Option<Cow<'a, str>>,
    #[serde(borrow)]
    aud: Option<Audience<'a>>,
    jti: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    device: Option<String>,
}

/// One audience, or a list. Read by hand: serde's way of trying both first copies what it reads.
enum Audience<'a> {
    One(Cow<'a, str>),
    Several(Vec<Cow<'a, str>>),
}

impl<'de: 'a, 'a> Deserialize<'de> for Audience<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AudienceVisitor(PhantomData))
    }
}

struct AudienceVisitor<'a>(PhantomData<&'a str>);

impl<'de: 'a, 'a> Visitor<'de> for AudienceVisitor<'a> {
    type Value = Audience<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an audience, or a list of them")
    }

    fn visit_borrowed_str<E>(self, one: &'de str) -> Result<Self::Value, E> {
        Ok(Audience::One(Cow::Borrowed(one)))
    }

    fn visit_str<E>(self, one: &str) -> Result<Self::Value, E> {
        Ok(Audience::One(Cow::Owned(one.to_owned())))
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut several: S) -> Result<Self::Value, S::Error> {
        let mut audiences = Vec::new();
        while let Some(audience) = several.next_element()? {
            audiences.push(audience);
        }
        Ok(Audience::Several(audiences))
    }
}

/// What a token is held against.
pub(super) struct Expected<'a> {
    pub(super) issuer: Option<&'a str>,
    pub(super) audience: Option<&'a str>,
    pub(super) leeway_s: u64,
}

impl Payload<'_> {
    pub(super) fn check(self, unix_s: u64, expected: &Expected<'_>) -> Result<Claims, TokenError> {
        if self.exp.saturating_add(expected.leeway_s) <= unix_s {
            return Err(TokenError::Expired);
        }
        let latest_start = self.nbf.max(self.iat).unwrap_or(0);
        if latest_start > unix_s.saturating_add(expected.leeway_s) {
            return Err(TokenError::NotYetValid);
        }
        if expected.issuer.is_some() && expected.issuer != self.iss.as_deref() {
            return Err(TokenError::WrongIssuer);
        }
        let meant_for = |audience: &str| match &self.aud {
            Some(Audience::One(one)) => one == audience,
            Some(Audience::Several(several)) => several.iter().any(|one| one == audience),
            None => false,
        };
        if !expected.audience.is_none_or(meant_for) {
            return Err(TokenError::WrongAudience);
        }
        if !is_name(&self.sub) {
            return Err(TokenError::BadClaim("sub"));
        }
        if self.roles.len() > ROLES_MAX || self.roles.iter().any(|role| role.len() > NAME_BYTES) {
            return Err(TokenError::BadClaim("roles"));
        }
        let too_long = |claim: &Option<String>| claim.as_ref().is_some_and(|claim| claim.len() > NAME_BYTES);
        if too_long(&self.device) {
            return Err(TokenError::BadClaim("device"));
        }
        if too_long(&self.jti) {
            return Err(TokenError::BadClaim("jti"));
        }
        Ok(Claims {
            user_id: self.sub,
            roles: self.roles,
            device: self.device,
            expires_unix_s: self.exp,
            issued_unix_s: self.iat.unwrap_or(0),
            token_id: self.jti,
        })
    }
}
