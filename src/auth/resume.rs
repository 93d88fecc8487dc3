//! Resume tokens: which session a client comes back to, sealed by the gateway and opaque to everybody else.
//!
//! ```text
//! format 1 | boot 8 | shard 2 | session 8 | generation 4 | MAC 16
//! ```
//!
//! The MAC is the first half of an HMAC-SHA256 with a key that lives as long as the process, over all before it, the
//! application, the device and whether the connection was secure: a token that was copied to another device, or from
//! TLS into the clear, is no good. A token says nothing of when it ends: that its session knows.

use crate::base::ids::{SessionKey, ShardId};
use ring::hmac;

const FORMAT: u8 = 1;
const MAC_AT: usize = 1 + 8 + 2 + 8 + 4;
const MAC_BYTES: usize = 16;
/// Bytes of a resume token.
pub const RESUME_TOKEN_BYTES: usize = MAC_AT + MAC_BYTES;

/// What a resume token names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumeClaims {
    /// Where the session lives.
    pub shard: ShardId,
    /// Which session.
    pub session: SessionKey,
    /// Which of its tokens: they are counted.
    pub generation: u32,
}

/// Who holds a resume token, and how; it is good for nobody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder<'a> {
    /// Which application.
    pub application: &'a str,
    /// Which device.
    pub device_id: &'a str,
    /// Whether the connection is encrypted.
    pub is_secure: bool,
}

/// Why a resume token names nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResumeError {
    /// It is of another gateway, or of another start of this one: whoever it named is gone.
    OtherBoot,
    /// It is no token, was tampered with, or is somebody else's.
    Invalid,
}

/// Seals and opens the resume tokens of one start of the gateway.
pub struct ResumeTokens {
    boot: u64,
    key: hmac::Key,
}

impl std::fmt::Debug for ResumeTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResumeTokens").field("boot", &self.boot).finish_non_exhaustive()
    }
}

impl ResumeTokens {
    /// For one start: `boot` names it, `secret` is random and never leaves it.
    pub fn new(boot: u64, secret: &[u8; 32]) -> ResumeTokens {
        ResumeTokens { boot, key: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }

    /// A token for whoever holds the session.
    pub fn seal(&self, claims: ResumeClaims, holder: Holder<'_>) -> [u8; RESUME_TOKEN_BYTES] {
        let mut token = [0; RESUME_TOKEN_BYTES];
        let ResumeClaims { shard, session, generation } = claims;
        let fields = [FORMAT]
            .into_iter()
            .chain(self.boot.to_be_bytes())
            .chain(shard.0.to_be_bytes())
            .chain(session.to_u64().to_be_bytes())
            .chain(generation.to_be_bytes());
        token.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
        let (body, mac) = token.split_at_mut(MAC_AT);
        let sealed = self.mac(body, holder);
        mac.iter_mut().zip(sealed.as_ref()).for_each(|(to, from)| *to = *from);
        token
    }

    /// What a token names.
    ///
    /// # Errors
    /// [`ResumeError`].
    pub fn open(&self, token: &[u8], holder: Holder<'_>) -> Result<ResumeClaims, ResumeError> {
        let token: &[u8; RESUME_TOKEN_BYTES] = token.try_into().map_err(|_| ResumeError::Invalid)?;
        let (body, mac) = token.split_at(MAC_AT);
        let mut rest = body;
        if number(&mut rest, 1) != u64::from(FORMAT) {
            return Err(ResumeError::Invalid);
        }
        if number(&mut rest, 8) != self.boot {
            return Err(ResumeError::OtherBoot);
        }
        let sealed = self.mac(body, holder);
        let same = sealed.as_ref().iter().zip(mac).fold(0, |differs, (one, other)| differs | (one ^ other));
        if same != 0 {
            return Err(ResumeError::Invalid);
        }
        let invalid = |_| ResumeError::Invalid;
        Ok(ResumeClaims {
            shard: ShardId(u16::try_from(number(&mut rest, 2)).map_err(invalid)?),
            session: SessionKey::from_u64(number(&mut rest, 8)),
            generation: u32::try_from(number(&mut rest, 4)).map_err(invalid)?,
        })
    }

    fn mac(&self, body: &[u8], holder: Holder<'_>) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(body);
        for text in [holder.application, holder.device_id] {
            // Names are bounded far below; with its length none can be mistaken for a part of the next.
            context.update(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
            context.update(text.as_bytes());
        }
        context.update(&[u8::from(holder.is_secure)]);
        context.sign()
    }
}

/// The next `len` bytes, at most eight, as a number.
fn number(bytes: &mut &[u8], len: usize) -> u64 {
    let (number, rest) = bytes.split_at_checked(len).unwrap_or((bytes, &[]));
    *bytes = rest;
    number.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHONE: Holder<'static> = Holder { application: "im", device_id: "phone", is_secure: false };

    fn claims() -> ResumeClaims {
        ResumeClaims { shard: ShardId(3), session: SessionKey::new(70_000, 9), generation: 12 }
    }

    // spec: R-6, R-7
    #[test]
    fn a_token_is_good_for_its_holder_only() {
        let tokens = ResumeTokens::new(1, &[7; 32]);
        let token = tokens.seal(claims(), PHONE);
        assert_eq!(tokens.open(&token, PHONE), Ok(claims()));
        for other in [
            Holder { application: "chat", ..PHONE },
            Holder { device_id: "", ..PHONE },
            Holder { application: "imp", device_id: "hone", ..PHONE },
            Holder { is_secure: true, ..PHONE },
        ] {
            assert_eq!(tokens.open(&token, other), Err(ResumeError::Invalid), "{other:?}");
        }
    }

    #[test]
    fn whatever_is_changed_is_found() {
        let tokens = ResumeTokens::new(1, &[7; 32]);
        let token = tokens.seal(claims(), PHONE);
        for at in 0..RESUME_TOKEN_BYTES {
            let mut forged = token;
            forged[at] ^= 1;
            let expected = if (1..9).contains(&at) { ResumeError::OtherBoot } else { ResumeError::Invalid };
            assert_eq!(tokens.open(&forged, PHONE), Err(expected), "{at}");
        }
        for wrong in [&token[..0], &token[1..], &[token.as_slice(), &[0]].concat()] {
            assert_eq!(tokens.open(wrong, PHONE), Err(ResumeError::Invalid));
        }
        assert_eq!(ResumeTokens::new(2, &[7; 32]).open(&token, PHONE), Err(ResumeError::OtherBoot));
        assert_eq!(ResumeTokens::new(1, &[8; 32]).open(&token, PHONE), Err(ResumeError::Invalid));
    }
}
