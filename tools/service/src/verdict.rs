//! Session checks: whether a service lets a session be.

use crate::post::{Mail, Post};
use crate::push::LinkId;
use moorgate_proto::v1::{self, Reason};
use std::sync::Arc;
use std::time::Duration;

/// Whether a session may be.
///
/// ```
/// use moorgate_service::{Reason, Verdict};
/// use std::time::Duration;
/// let fine = Verdict::admit().with_cache(Duration::from_secs(60));
/// let banned = Verdict::refuse(Reason::Banned, "until Friday");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict(v1::SessionVerdict);

impl Verdict {
    /// It may.
    pub fn admit() -> Verdict {
        Verdict(v1::SessionVerdict { admitted: true, ..v1::SessionVerdict::default() })
    }

    /// It may not, and ends with this reason; UNSPECIFIED leaves SESSION_REFUSED.
    pub fn refuse(reason: Reason, message: &str) -> Verdict {
        let message = message.to_owned();
        Verdict(v1::SessionVerdict { reason: reason.into(), message, ..v1::SessionVerdict::default() })
    }

    /// The same, good for this long without being asked again.
    #[must_use]
    pub fn with_cache(mut self, time: Duration) -> Verdict {
        self.0.cache_ms = u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        self
    }

    pub(crate) fn for_check(self, check_id: u64) -> v1::SessionVerdict {
        v1::SessionVerdict { check_id, ..self.0 }
    }
}

/// Answers one check from any thread. Dropped without a verdict, it refuses: who is let in unchecked may be banned.
pub(crate) struct VerdictLater {
    link: LinkId,
    check_id: u64,
    post: Arc<Post>,
    answered: bool,
}

impl VerdictLater {
    pub(crate) fn new(link: LinkId, check_id: u64, post: Arc<Post>) -> VerdictLater {
        VerdictLater { link, check_id, post, answered: false }
    }

    pub(crate) fn give(mut self, verdict: Verdict) {
        self.send(verdict);
    }

    fn send(&mut self, verdict: Verdict) {
        self.answered = true;
        let verdict = verdict.for_check(self.check_id);
        let _ = self.post.send(Mail::Verdict { link: self.link, verdict });
    }
}

impl Drop for VerdictLater {
    fn drop(&mut self) {
        if !self.answered {
            self.send(Verdict::refuse(Reason::Internal, "the service's check has failed"));
        }
    }
}
