//! Who somebody is: the key ring, access tokens (JWT, HS256) checked inline and minted after a login, revocations, resume
//! tokens, and applications that prove themselves.

mod application;
mod authority;
mod claims;
mod error;
mod issuer;
mod key_ring;
mod resume;
mod revocation;
mod token;

pub use application::{Application, ApplicationError, Applications, PROOF_AGE_MAX};
pub use authority::Authority;
pub use claims::Claims;
pub use error::TokenError;
pub use issuer::{ACCESS_TTL_DEFAULT, ACCESS_TTL_MAX_DEFAULT, Bearer, IssueError, Issued, Issuer};
pub use key_ring::{KeyRing, KeyRingError, LEEWAY_DEFAULT, SECRET_BYTES_MIN, SigningKey};
pub use resume::{Holder, RESUME_TOKEN_BYTES, ResumeClaims, ResumeError, ResumeTokens};
pub use revocation::{KEEP_DEFAULT, Revocations, RevokedToken, TokenHash};
pub use token::{mint, unverified_parts};
