//! What an access token says, read strictly.

use super::TokenError;
use moorgate_proto::limits::{NAME_BYTES, is_name};
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// Most roles of one token.
pub(super) use moorgate_proto::limits::ROLES as ROLES_MAX;

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
    /// Names the token among those of its key, for revocation.
    pub token_id: Option<String>,
    /// The key that has signed it.
    pub key_id: Arc<str>,
}

/// A text, borrowed where it needs no unescaping.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// Whether a member is there, whatever its value: also `null`.
#[derive(Default)]
pub(super) struct Present(pub(super) bool);

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Present(true))
    }
}

/// Reads a member that may be absent, and is not `null` when it is there.
pub(super) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Reads a JSON object. A derived reader takes an array of its fields too.
pub(super) fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Option<T> {
    if json.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    serde_json::from_slice(json).ok()
}

/// The payload as it stands. Wrong types, and fields that stand twice, are refused by serde.
#[derive(Deserialize)]
pub(super) struct Payload<'a> {
    sub: String,
    exp: u64,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    iat: Option<u64>,
    #[serde(borrow, default, deserialize_with = "present")]
    iss: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    aud: Option<Audience<'a>>,
    #[serde(default, deserialize_with = "present")]
    jti: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default, deserialize_with = "present")]
    device: Option<String>,
}

const SECONDS: &str = "an integer of seconds since the Unix epoch";
/// Each claim, what it has to be, and whether it must be there.
const CLAIMS: [(&str, &str, bool); 9] = [
    ("sub", "a text", true),
    ("exp", SECONDS, true),
    ("nbf", SECONDS, false),
    ("iat", SECONDS, false),
    ("iss", "a text", false),
    ("aud", "a text or a list of texts", false),
    ("jti", "a text", false),
    ("roles", "a list of texts", false),
    ("device", "a text", false),
];

/// Why a payload that was signed cannot be read. Slow: it is read again, for the sake of the message.
#[cold]
fn unreadable(json: &[u8]) -> TokenError {
    let Some(payload) = object::<serde_json::Map<String, serde_json::Value>>(json) else {
        return TokenError::BadPayload;
    };
    let is_right = |name: &str, value: &serde_json::Value| match name {
        "exp" | "nbf" | "iat" => value.is_u64(),
        "roles" => is_list_of_texts(value),
        "aud" => value.is_string() || is_list_of_texts(value),
        _ => value.is_string(),
    };
    let wrong = CLAIMS.iter().find(|(name, _, must)| match payload.get(*name) {
        Some(value) => !is_right(name, value),
        None => *must,
    });
    // Every claim is right as it was read last: one of them is there twice.
    wrong.map_or(TokenError::BadPayload, |(claim, expected, _)| TokenError::ClaimType { claim, expected })
}

fn is_list_of_texts(value: &serde_json::Value) -> bool {
    value.as_array().is_some_and(|list| list.iter().all(serde_json::Value::is_string))
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

impl<'a> Payload<'a> {
    /// Reads the payload of a token whose signature holds.
    pub(super) fn read(json: &'a [u8]) -> Result<Payload<'a>, TokenError> {
        object(json).ok_or_else(|| unreadable(json))
    }
}

impl Payload<'_> {
    pub(super) fn check(
        self,
        unix_s: u64,
        expected: &Expected<'_>,
        key_id: &Arc<str>,
    ) -> Result<Claims, TokenError> {
        // Welcome has it in milliseconds.
        if self.exp.checked_mul(1000).is_none() {
            return Err(TokenError::BadClaim("exp"));
        }
        if self.exp.saturating_add(expected.leeway_s) <= unix_s {
            return Err(TokenError::Expired);
        }
        let latest_start = self.nbf.max(self.iat).unwrap_or(0);
        if latest_start > unix_s.saturating_add(expected.leeway_s) {
            return Err(TokenError::NotYetValid);
        }
        if expected.issuer.is_some() && expected.issuer != self.iss.as_ref().map(|issuer| &*issuer.0) {
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
            key_id: key_id.clone(),
        })
    }
}
