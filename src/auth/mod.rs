//! Who somebody is: the key ring, and access tokens (JWT, HS256) checked inline.

mod claims;
mod error;
mod key_ring;
mod token;

pub use claims::Claims;
pub use error::TokenError;
pub use key_ring::{KeyRing, KeyRingError, LEEWAY_DEFAULT, SECRET_BYTES_MIN, SigningKey};
pub use token::{mint, unverified_parts};
