//! What drivers take from the world: clocks and randomness. Everything else is given them.

use crate::core::Options;
use moorgate_proto::v1;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Instant, SystemTime};

/// Where a driver's time begins.
#[expect(clippy::disallowed_methods, reason = "the kit's one clock")]
pub(crate) fn origin() -> Instant {
    Instant::now()
}

/// Unix time in milliseconds; a gateway may ask for it in an application's proof.
#[expect(clippy::disallowed_methods, reason = "the kit's one clock")]
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// From the seeds that the system gives to hash tables.
pub(crate) fn random_u64() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// An idempotency key that nobody else has: a service that is asked twice with the same key does it once.
pub fn fresh_key() -> [u8; 16] {
    let mut key = [0; 16];
    for half in key.chunks_exact_mut(8) {
        half.copy_from_slice(&random_u64().to_be_bytes());
    }
    key
}

/// The application's proof for one Hello, if it has a key.
pub(crate) fn application_proof(options: &Options) -> Option<v1::ApplicationProof> {
    options.application_proof(unix_ms(), &fresh_key())
}
