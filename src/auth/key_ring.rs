//! The keys that sign access tokens: several at once, so that one can replace another.

use ring::hmac;
use std::sync::Arc;
use std::time::Duration;

/// Shorter secrets are refused: HS256 wants a key as long as its hash (RFC 7518, 3.2).
pub const SECRET_BYTES_MIN: usize = 32;
/// How much clocks may differ where nothing else is said.
pub const LEEWAY_DEFAULT: Duration = Duration::from_secs(30);

/// One key. Its algorithm is pinned: HS256, whatever a token's header says.
#[derive(Clone)]
pub struct SigningKey {
    pub(super) id: Arc<str>,
    pub(super) key: hmac::Key,
}

impl SigningKey {
    /// A key from its secret.
    ///
    /// # Errors
    /// [`KeyRingError::ShortSecret`].
    pub fn new(id: &str, secret: &[u8]) -> Result<SigningKey, KeyRingError> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(KeyRingError::ShortSecret { id: id.to_owned(), bytes: secret.len() });
        }
        Ok(SigningKey { id: id.into(), key: hmac::Key::new(hmac::HMAC_SHA256, secret) })
    }

    /// What tokens call it.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({}, ..)", self.id)
    }
}

/// Why keys make no ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRingError {
    /// A secret below [`SECRET_BYTES_MIN`].
    ShortSecret {
        /// Whose.
        id: String,
        /// How long it is.
        bytes: usize,
    },
    /// Two keys with one id.
    SameId(String),
}

impl std::fmt::Display for KeyRingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeyRingError::ShortSecret { id, bytes } => {
                write!(
                    f,
                    "the secret of key `{id}` has {bytes} bytes; HS256 needs at least {SECRET_BYTES_MIN}"
                )
            }
            KeyRingError::SameId(id) => write!(f, "two keys are called `{id}`"),
        }
    }
}

impl std::error::Error for KeyRingError {}

/// Every key whose tokens are good, and what else is asked of a token.
#[derive(Debug, Clone, Default)]
pub struct KeyRing {
    pub(super) keys: Vec<SigningKey>,
    pub(super) issuer: Option<String>,
    pub(super) audience: Option<String>,
    pub(super) leeway_s: u64,
}

impl KeyRing {
    /// A ring. Without keys every token is refused. `leeway_s` forgives clocks that differ.
    ///
    /// # Errors
    /// [`KeyRingError::SameId`].
    pub fn new(
        keys: Vec<SigningKey>,
        issuer: Option<String>,
        audience: Option<String>,
        leeway_s: u64,
    ) -> Result<KeyRing, KeyRingError> {
        for (at, key) in keys.iter().enumerate() {
            if keys.iter().take(at).any(|other| other.id == key.id) {
                return Err(KeyRingError::SameId(key.id.to_string()));
            }
        }
        Ok(KeyRing { keys, issuer, audience, leeway_s })
    }

    /// The ids of its keys.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(SigningKey::id)
    }

    /// How long a token is good beyond its `exp`.
    pub fn leeway(&self) -> Duration {
        Duration::from_secs(self.leeway_s)
    }

    /// The key that a token names; a token may leave the name out when there is only one.
    pub(super) fn find(&self, id: Option<&str>) -> Option<&SigningKey> {
        match (id, self.keys.as_slice()) {
            (Some(id), keys) => keys.iter().find(|key| *key.id == *id),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }
}
