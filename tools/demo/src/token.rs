//! Access tokens for development and load: JWT, HS256.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::json;

/// Known to everybody; a gateway accepts it under `--dev` only.
pub const DEV_SECRET: &[u8] = b"moorgate-development-secret-not-for-production!!";
/// The id of its key.
pub const DEV_KEY_ID: &str = "dev";

/// Mints tokens with one secret.
#[derive(Debug, Clone)]
pub struct Mint {
    key: hmac::Key,
    header: String,
}

impl Mint {
    /// For a secret, and the id of its key.
    pub fn new(secret: &[u8], key_id: &str) -> Mint {
        let header = json!({"alg": "HS256", "typ": "JWT", "kid": key_id}).to_string();
        Mint { key: hmac::Key::new(hmac::HMAC_SHA256, secret), header: URL_SAFE_NO_PAD.encode(header) }
    }

    /// For the development secret.
    pub fn dev() -> Mint {
        Mint::new(DEV_SECRET, DEV_KEY_ID)
    }

    /// A token for a user, good until a moment in seconds since the Unix epoch.
    pub fn token(&self, user_id: &str, expires_unix_s: u64) -> String {
        let claims = json!({"sub": user_id, "exp": expires_unix_s, "aud": "moorgate"}).to_string();
        let signed = format!("{}.{}", self.header, URL_SAFE_NO_PAD.encode(claims));
        let signature = hmac::sign(&self.key, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}
