//! What a session can be resumed by, on its next connection or by the next start of its application.

use super::{End, Fault};
use moorgate_proto::v1::{self, Reason};
use std::fmt;
use std::time::Duration;

/// The longest resume token that is kept, in bytes: a Hello has to hold it. A session with a longer one ends with its
/// connection.
pub const RESUME_TOKEN_BYTES_MAX: usize = 512;

/// A secret by which a session can be taken over. It does not show in logs.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ResumeToken(Vec<u8>);

impl ResumeToken {
    /// As it is written on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether there is none: the session cannot be resumed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&[u8]> for ResumeToken {
    fn from(bytes: &[u8]) -> ResumeToken {
        ResumeToken(if bytes.len() > RESUME_TOKEN_BYTES_MAX { Vec::new() } else { bytes.to_vec() })
    }
}

impl fmt::Debug for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "ResumeToken()" } else { "ResumeToken(..)" })
    }
}

/// All that is needed to resume a session in another process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resumption {
    /// The newest one.
    pub resume_token: ResumeToken,
    /// The number of the last attempt to resume this session; none is used twice.
    pub attempt: u64,
    /// The application has taken everything up to this number.
    pub down_seq: u64,
    /// The last request that was sent.
    pub up_seq: u64,
    /// Requests up to `up_seq` that have no Response up to `down_seq`.
    pub in_flight: u32,
    /// Whose the session is; empty: nobody's.
    pub user_id: String,
}

/// What is known of resuming a core's session.
#[derive(Debug)]
pub(super) struct Resume {
    /// The core is one that resumes.
    is_wanted: bool,
    token: ResumeToken,
    /// Zero: the session ends with its connection.
    kept_for: Duration,
    /// The number of the last attempt.
    attempt: u64,
    /// The Hello of this connection has asked for it.
    is_asked: bool,
    /// A connection of this session was left for a broken contract.
    had_fault: bool,
    user_id: String,
    /// There is something to write down that must not wait.
    pub(super) is_news: bool,
}

impl Resume {
    pub(super) fn new(is_wanted: bool) -> Resume {
        Resume {
            is_wanted,
            token: ResumeToken::default(),
            kept_for: Duration::ZERO,
            attempt: 0,
            is_asked: false,
            had_fault: false,
            user_id: String::new(),
            is_news: false,
        }
    }

    pub(super) fn restored(resumption: &Resumption) -> Resume {
        Resume {
            token: resumption.resume_token.clone(),
            // It is not known here, and the gateway says whether it still is.
            kept_for: Duration::MAX,
            attempt: resumption.attempt,
            user_id: resumption.user_id.clone(),
            ..Resume::new(true)
        }
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    pub(super) fn is_asked(&self) -> bool {
        self.is_asked
    }

    pub(super) fn is_possible(&self) -> bool {
        self.is_wanted && !self.token.is_empty() && !self.kept_for.is_zero()
    }

    pub(super) fn kept_for(&self) -> Duration {
        self.kept_for
    }

    /// What the next Hello says: the session is wanted, and this much of it was taken.
    pub(super) fn ask(&mut self, down_seq: u64) -> Option<v1::Resume> {
        self.is_asked = self.is_possible();
        if !self.is_asked {
            return None;
        }
        self.attempt = self.attempt.saturating_add(1);
        self.is_news = true;
        let resume_token = self.token.0.clone().into();
        Some(v1::Resume { resume_token, attempt: self.attempt, down_seq })
    }

    /// There is no session, or another.
    pub(super) fn forget(&mut self) {
        let is_news = self.is_possible() || self.is_news;
        *self = Resume { is_news, ..Resume::new(self.is_wanted) };
    }

    pub(super) fn welcomed(&mut self, welcome: &v1::Welcome) {
        self.token = ResumeToken::from(&welcome.resume_token[..]);
        self.kept_for = Duration::from_millis(u64::from(welcome.detached_ttl_ms));
        self.user_id.clone_from(&welcome.user_id);
        self.is_news |= self.is_possible();
    }

    /// The same session has a newer token.
    pub(super) fn renew(&mut self, token: &[u8]) {
        let token = ResumeToken::from(token);
        if !token.is_empty() {
            self.token = token;
            self.is_news |= self.is_possible();
        }
    }

    pub(super) fn set_user(&mut self, user_id: String) {
        self.user_id = user_id;
    }

    /// Whether the session outlives this end of its connection.
    pub(super) fn outlives(&mut self, end: &End, is_opening: bool) -> bool {
        if !self.is_possible() {
            return false;
        }
        match end {
            // What is wrong with the session itself stays wrong.
            End::Fault(Fault::Version(_) | Fault::Admitted(_)) => false,
            End::Error(error) if is_opening => {
                !denies_resume(error.reason()) && !tells_of_end(error.reason())
            }
            _ if is_opening => true,
            // What breaks the contract may be replayed, for ever.
            End::Fault(_) => !std::mem::replace(&mut self.had_fault, true),
            End::Error(error) => error.reconnect.as_ref().is_some_and(|reconnect| reconnect.resumable),
            _ => true,
        }
    }

    pub(super) fn resumption(&self) -> Resumption {
        Resumption {
            resume_token: self.token.clone(),
            attempt: self.attempt,
            user_id: self.user_id.clone(),
            ..Resumption::default()
        }
    }
}

/// Whether a final Error in answer to a Hello is that of the session, which was ended while its client was away.
fn tells_of_end(reason: Reason) -> bool {
    matches!(reason, Reason::Kicked | Reason::Superseded | Reason::DeviceConflict | Reason::SessionLimit)
}

/// Whether a final Error in answer to a Hello means that it must not ask for this session again. All others leave the
/// session alone, and it may be asked for later.
pub(crate) fn denies_resume(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::IdentityMismatch | Reason::ResumeUnknownSession | Reason::ResumeStale | Reason::ResumeInvalid
    )
}
