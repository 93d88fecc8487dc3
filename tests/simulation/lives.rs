//! What is known of each session from outside, and in which order its tokens come.

use crate::network::ConnId;
use crate::reached::Path;
use crate::tap::Carried;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{self, Reason, ResumeResult};
use std::collections::BTreeMap;
use std::time::Duration;

/// Who is nobody's user.
/// As long as the name of a user: presence comes in no certain order, and its bytes are to be as many in each.
pub const THIEF: &str = "thief1";

/// One session, as long as it lives.
#[derive(Debug, Default)]
pub struct Life {
    pub session_id: Vec<u8>,
    pub boot: u32,
    /// Whose it was when it was opened; `None`: a thief's.
    pub client: Option<usize>,
    pub user: String,
    /// A service has decided to log it in. A login gives out a token that may cross a Welcome, so that older ones are good for
    /// longer: for how long cannot be told from outside.
    pub may_log_in: bool,
    pub application: String,
    pub device: String,
    /// How many were seen, and the rank of the newest.
    pub tokens: usize,
    pub newest: u128,
    pub attached: Option<ConnId>,
    pub proven: Bounds,
    pub attempt: Bounds,
    /// Hellos that wait for an answer, with their attempts.
    pub pending: Vec<(ConnId, u128)>,
    /// The last sign of life that the gateway has had, or given.
    pub active: Mono,
    pub ttl: Duration,
    pub is_kept: bool,
    /// Why it may end any time.
    pub excuse: Option<&'static str>,
    /// Why it has ended.
    pub over: Option<String>,
    pub admitted: u64,
    pub limits: v1::Limits,
    pub numbers: BTreeMap<u64, Carried>,
    pub cancels: BTreeMap<u64, ConnId>,
    /// A thief was in; or is about to be, for all that is known.
    pub is_robbed: bool,
    pub is_tried: bool,
}

impl Life {
    /// A login may have made it somebody's without anybody's knowledge, but not a thief's.
    pub fn is_of_another(&self, user: &str) -> bool {
        self.user != user && (!self.user.is_empty() || user == THIEF)
    }
}

/// Of something that only grows: it is at least, and at most.
#[derive(Debug, Default, Clone, Copy)]
pub struct Bounds {
    pub low: u128,
    /// Since when it is known to be as high.
    pub since: Mono,
    pub high: u128,
}

impl Bounds {
    pub fn raise(&mut self, now: Mono, low: u128) {
        if low > self.low {
            (self.low, self.since) = (low, now);
        }
        self.high = self.high.max(low);
    }

    /// Whether something is below, which came when that was known.
    pub fn is_above(&self, other: u128, came: Mono) -> bool {
        self.low > other && came > self.since
    }
}

/// The order of tokens: a later attempt has a newer one, and the Response to a login a newer one than its Welcome.
pub fn rank(attempt: u64, is_login: bool) -> u128 {
    u128::from(attempt) * 2 + u128::from(is_login)
}

/// A token that somebody might steal.
#[derive(Debug, Clone)]
pub struct Loot {
    pub token: Vec<u8>,
    pub application: String,
    pub device: String,
    pub attempt: u64,
    pub down_seq: u64,
    pub user: String,
}

/// Which path a fresh session in place of another is, as far as it can be told.
pub fn replaced(result: ResumeResult, life: &Life, boot: u32) -> Option<Path> {
    match result {
        _ if life.boot != boot => Some(Path::RefusedOtherBoot),
        ResumeResult::Ended => Some(Path::ToldEnded),
        ResumeResult::UnknownSession => Some(Path::ToldUnknown),
        _ => None,
    }
}

/// Which path the refusal of a resume is, as far as it can be told.
pub fn refusal(reason: Reason, life: &Life, hello: &v1::Hello, generation: u128) -> Option<Path> {
    let is_elsewhere = life.application != hello.application || life.device != hello.device_id;
    let attempt = hello.resume.as_ref().map_or(0, |resume| u128::from(resume.attempt));
    match reason {
        Reason::ResumeInvalid if is_elsewhere => Some(Path::RefusedElsewhere),
        Reason::ResumeStale if attempt == 0 => Some(Path::RefusedAttemptZero),
        Reason::ResumeStale if attempt <= life.attempt.low => Some(Path::RefusedAttempt),
        Reason::ResumeStale if generation < life.proven.low => Some(Path::RefusedGeneration),
        _ => None,
    }
}

pub fn shrunk(before: &v1::Limits, now: &v1::Limits) -> bool {
    now.frame_bytes_max < before.frame_bytes_max
        || now.in_flight_max < before.in_flight_max
        || now.window_max < before.window_max
}
