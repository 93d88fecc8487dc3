//! What the threads take from the world: the clock and randomness. Everything that decides is given them.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Instant;

/// Now.
#[expect(clippy::disallowed_methods, reason = "the crate's one clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// From the seeds that the system gives to hash tables.
pub(crate) fn random_u64() -> u64 {
    RandomState::new().build_hasher().finish()
}
