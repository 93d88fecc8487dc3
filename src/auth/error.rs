//! Why an access token is no good, and what the client is told of it.

use moorgate_proto::status::Code;
use moorgate_proto::v1::Reason;

/// Why a token is no good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// Not a JWT: not three parts of base64url, or a header that is not a JSON object with the right types.
    Malformed,
    /// Longer than any good one.
    TooLong,
    /// Its header says that it has no signature (`alg` is `none`).
    Unsigned,
    /// Its header names another algorithm than its key's.
    WrongAlgorithm,
    /// Its header asks for an extension (`crit`) that is not understood.
    CriticalExtension,
    /// No key of that name.
    UnknownKey,
    /// The signature does not hold.
    BadSignature,
    /// The signature holds; the payload is not a JSON object, or has one of the claims twice.
    BadPayload,
    /// The signature holds; a claim is missing or has another type.
    ClaimType {
        /// Its name.
        claim: &'static str,
        /// What it has to be.
        expected: &'static str,
    },
    /// `exp` has passed.
    Expired,
    /// `nbf` or `iat` lies in the future.
    NotYetValid,
    /// `iss` is another.
    WrongIssuer,
    /// `aud` does not name this gateway.
    WrongAudience,
    /// A claim out of its bounds, by name.
    BadClaim(&'static str),
    /// It was good once.
    Revoked,
}

impl TokenError {
    /// What the client is told.
    pub fn wire(self) -> (Code, Reason) {
        let reason = match self {
            TokenError::Expired => Reason::TokenExpired,
            TokenError::NotYetValid => Reason::TokenNotYetValid,
            TokenError::Revoked => Reason::TokenRevoked,
            TokenError::Malformed
            | TokenError::TooLong
            | TokenError::Unsigned
            | TokenError::WrongAlgorithm
            | TokenError::CriticalExtension
            | TokenError::UnknownKey
            | TokenError::BadSignature
            | TokenError::BadPayload
            | TokenError::ClaimType { .. }
            | TokenError::WrongIssuer
            | TokenError::WrongAudience
            | TokenError::BadClaim(_) => Reason::TokenInvalid,
        };
        (Code::Unauthenticated, reason)
    }

    /// Whether the token is an attempt at forgery: one without a signature that any key could have made. A good
    /// signature never is one, whatever the claims are, and neither is a token whose signature cannot be checked here.
    pub fn is_forgery(self) -> bool {
        match self {
            TokenError::Malformed | TokenError::Unsigned | TokenError::BadSignature => true,
            TokenError::TooLong
            | TokenError::WrongAlgorithm
            | TokenError::CriticalExtension
            | TokenError::UnknownKey
            | TokenError::BadPayload
            | TokenError::ClaimType { .. }
            | TokenError::Expired
            | TokenError::NotYetValid
            | TokenError::WrongIssuer
            | TokenError::WrongAudience
            | TokenError::BadClaim(_)
            | TokenError::Revoked => false,
        }
    }
}

impl std::fmt::Display for TokenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            TokenError::Malformed => "the access token is not a well-formed JWT",
            TokenError::TooLong => "the access token is too long",
            TokenError::Unsigned => "the access token is not signed",
            TokenError::WrongAlgorithm => "the access token names another algorithm than its key's",
            TokenError::CriticalExtension => "the access token asks for an extension that is not understood",
            TokenError::UnknownKey => "the access token names a key that is not known here",
            TokenError::BadSignature => "the signature of the access token does not hold",
            TokenError::BadPayload => {
                "the payload of the access token is not a JSON object in which each claim is there once"
            }
            TokenError::ClaimType { claim, expected } => {
                return write!(f, "claim `{claim}` of the access token is not {expected}");
            }
            TokenError::Expired => "the access token has expired",
            TokenError::NotYetValid => "the access token is from the future",
            TokenError::WrongIssuer => "the access token comes from another issuer",
            TokenError::WrongAudience => "the access token is meant for another audience",
            TokenError::Revoked => "the access token was revoked",
            TokenError::BadClaim(claim) => {
                return write!(f, "claim `{claim}` of the access token is out of bounds");
            }
        })
    }
}

impl std::error::Error for TokenError {}
