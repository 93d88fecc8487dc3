//! Access tokens, good and bad.

use crate::site::ACCESS_SECRET;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use moorgate::auth::{SigningKey, mint};
use moorgate::base::clock::Clock;
use serde_json::{Value, json};

/// Seconds since the Unix epoch.
pub(crate) fn unix_s() -> u64 {
    Clock::start().read().unix_s()
}

/// Milliseconds since the Unix epoch.
pub(crate) fn unix_ms() -> u64 {
    Clock::start().read().unix_ms
}

/// The key that the gateways of these tests know.
pub(crate) fn current_key() -> SigningKey {
    SigningKey::new("current", ACCESS_SECRET.as_bytes()).unwrap()
}

/// Claims of a user, good for an hour.
pub(crate) fn claims(user: &str) -> Value {
    json!({"sub": user, "exp": unix_s() + 3600, "iss": "accounts", "aud": "moorgate"})
}

/// A good token for a user with roles.
pub(crate) fn token(user: &str, roles: &[&str]) -> String {
    token_with(user, "roles", json!(roles))
}

/// A good token but for one claim.
pub(crate) fn token_with(user: &str, claim: &str, value: Value) -> String {
    let mut claims = claims(user);
    claims[claim] = value;
    mint(&current_key(), &claims)
}

/// A token whose header says that nobody signed it.
pub(crate) fn unsigned(user: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(&json!({"alg": "none", "kid": "current"})), part(&claims(user)))
}
