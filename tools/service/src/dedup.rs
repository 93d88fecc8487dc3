//! Which requests were run before, and what they were answered: a bounded, timed memory.
//!
//! ```text
//!            begin: First              finish                  ttl over, or the oldest when there is no room
//!  unknown ───────────────► running ───────────► finished ───────────────────────────────────────────────► unknown
//!                             │ begin: Waits        begin: Known
//!                             │ finish, not executed
//!                             └──────────────────────────────────────────────────────────────────────────► unknown
//! ```

use crate::reply::{EncodedReply, Reply};
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{Caller, Execution, Reason};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Bounds of the memory of answered requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DedupSettings {
    /// How long a reply is remembered.
    pub ttl: Duration,
    /// Requests that run or are remembered. The oldest is forgotten for a new one; those that run are not.
    pub entries_max: usize,
    /// Bytes of the replies that are remembered.
    pub bytes_max: usize,
    /// A larger reply is remembered without its payload: a repeat is told that it was executed, and REPLY_TOO_LARGE.
    pub reply_bytes_max: usize,
}

impl Default for DedupSettings {
    fn default() -> DedupSettings {
        DedupSettings {
            ttl: Duration::from_secs(600),
            entries_max: 16 * 1024,
            bytes_max: 16 * 1024 * 1024,
            reply_bytes_max: 64 * 1024,
        }
    }
}

/// Repeats that wait for the reply of one that runs; more are refused.
const WAITERS_MAX: usize = 8;

/// Who asks: keys of different users, and of different anonymous sessions, have nothing to do with each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Owner {
    User(String),
    Session(Vec<u8>),
}

/// Names a request, however often it comes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct DedupKey(Arc<(Owner, u32, Box<[u8]>)>);

impl DedupKey {
    /// `None`: the request has no idempotency key.
    pub(crate) fn new(caller: Caller, command: u32, idempotency_key: &[u8]) -> Option<DedupKey> {
        let owner = match caller.user_id.is_empty() {
            true => Owner::Session(caller.session_id.to_vec()),
            false => Owner::User(caller.user_id),
        };
        (!idempotency_key.is_empty()).then(|| DedupKey(Arc::new((owner, command, idempotency_key.into()))))
    }
}

/// What to do with a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    /// It is new: run it, and tell [`Dedup::finish`].
    First,
    /// It runs already: [`Dedup::finish`] hands out who waits.
    Waits,
    /// It was answered so.
    Known(Arc<EncodedReply>),
    /// There is no room: refuse it.
    Full,
}

#[derive(Debug)]
enum Request<W> {
    Running { waiters: Vec<W> },
    Finished { reply: Arc<EncodedReply>, until: Mono },
}

/// See the module's page. A `W` is a repeat that waits.
#[derive(Debug)]
pub(crate) struct Dedup<W> {
    settings: DedupSettings,
    requests: HashMap<DedupKey, Request<W>>,
    /// Those that are finished, the oldest first.
    finished: VecDeque<DedupKey>,
    bytes: usize,
}

impl<W> Dedup<W> {
    pub(crate) fn new(settings: DedupSettings) -> Dedup<W> {
        Dedup { settings, requests: HashMap::new(), finished: VecDeque::new(), bytes: 0 }
    }

    /// A request has come.
    pub(crate) fn begin(&mut self, now: Mono, key: &DedupKey, waiter: impl FnOnce() -> W) -> Begun {
        self.expire(now);
        match self.requests.get_mut(key) {
            Some(Request::Finished { reply, .. }) => return Begun::Known(reply.clone()),
            Some(Request::Running { waiters }) if waiters.len() >= WAITERS_MAX => return Begun::Full,
            Some(Request::Running { waiters }) => {
                waiters.push(waiter());
                return Begun::Waits;
            }
            None => {}
        }
        if self.requests.len() >= self.settings.entries_max && !self.forget_oldest() {
            return Begun::Full;
        }
        self.requests.insert(key.clone(), Request::Running { waiters: Vec::new() });
        Begun::First
    }

    /// The first has its reply, which those who waited are to get too. One that was not executed is forgotten: a repeat
    /// may run.
    pub(crate) fn finish(&mut self, now: Mono, key: &DedupKey, reply: &EncodedReply) -> Vec<W> {
        self.expire(now);
        let Entry::Occupied(mut entry) = self.requests.entry(key.clone()) else { return Vec::new() };
        if matches!(entry.get(), Request::Finished { .. }) {
            return Vec::new();
        }
        let executed = reply.execution != i32::from(Execution::NotExecuted);
        let kept = executed.then(|| self.settings.kept(reply));
        let request = match kept {
            None => entry.remove(),
            Some(reply) => {
                self.bytes += reply.body.len();
                self.finished.push_back(key.clone());
                entry.insert(Request::Finished { reply: Arc::new(reply), until: now + self.settings.ttl })
            }
        };
        while self.bytes > self.settings.bytes_max && self.forget_oldest() {}
        match request {
            Request::Running { waiters } => waiters,
            Request::Finished { .. } => Vec::new(),
        }
    }

    fn expire(&mut self, now: Mono) {
        while let Some(Request::Finished { until, .. }) =
            self.finished.front().and_then(|key| self.requests.get(key))
            && *until <= now
        {
            self.forget_oldest();
        }
    }

    /// `false`: nothing is finished.
    fn forget_oldest(&mut self) -> bool {
        let Some(key) = self.finished.pop_front() else { return false };
        if let Some(Request::Finished { reply, .. }) = self.requests.remove(&key) {
            self.bytes -= reply.body.len();
        }
        true
    }
}

impl DedupSettings {
    fn kept(&self, reply: &EncodedReply) -> EncodedReply {
        if reply.body.len() <= self.reply_bytes_max {
            return reply.clone();
        }
        let too_large = Reply::error(Code::ResourceExhausted, "a repeat: the reply was too large to be kept");
        let execution = Execution::try_from(reply.execution).unwrap_or_default();
        too_large.with_reason(Reason::ReplyTooLarge).with_execution(execution).encode()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Mono = Mono::from_nanos(1_000_000_000);

    fn settings() -> DedupSettings {
        let ttl = Duration::from_secs(10);
        DedupSettings { ttl, entries_max: 3, bytes_max: 100, reply_bytes_max: 60 }
    }

    fn key(name: &str) -> DedupKey {
        DedupKey::new(Caller { user_id: "alice".to_owned(), ..Caller::default() }, 1, name.as_bytes())
            .unwrap()
    }

    fn reply(payload: &[u8]) -> EncodedReply {
        Reply::ok(payload).encode()
    }

    #[test]
    fn a_repeat_waits_for_the_first_and_later_gets_its_reply() {
        let mut dedup = Dedup::new(settings());
        assert_eq!(dedup.begin(NOW, &key("a"), || 0), Begun::First);
        assert_eq!(dedup.begin(NOW, &key("a"), || 1), Begun::Waits);
        assert_eq!(dedup.begin(NOW, &key("a"), || 2), Begun::Waits);
        assert_eq!(dedup.begin(NOW, &key("b"), || 3), Begun::First);
        let answer = reply(b"done");
        assert_eq!(dedup.finish(NOW, &key("a"), &answer), [1, 2]);
        assert_eq!(dedup.begin(NOW, &key("a"), || 4), Begun::Known(Arc::new(answer.clone())));
        assert!(dedup.finish(NOW, &key("a"), &reply(b"again")).is_empty(), "the first reply counts");
        let almost = NOW + Duration::from_millis(9_999);
        assert_eq!(dedup.begin(almost, &key("a"), || 5), Begun::Known(Arc::new(answer)));
        assert_eq!(dedup.begin(NOW + settings().ttl, &key("a"), || 6), Begun::First);
    }

    #[test]
    fn what_was_not_executed_may_run_again() {
        let mut dedup = Dedup::new(settings());
        assert_eq!(dedup.begin(NOW, &key("a"), || 0), Begun::First);
        assert_eq!(dedup.begin(NOW, &key("a"), || 1), Begun::Waits);
        let refused = Reply::refused(Code::Unavailable, Reason::Draining, "").encode();
        assert_eq!(dedup.finish(NOW, &key("a"), &refused), [1], "who waited knows it too");
        assert_eq!(dedup.begin(NOW, &key("a"), || 2), Begun::First);
    }

    #[test]
    fn keys_belong_to_a_user_or_an_anonymous_session_and_to_a_command() {
        let of = |user: &str, session: &[u8], command| {
            let caller =
                Caller { user_id: user.to_owned(), session_id: session.to_vec().into(), ..Caller::default() };
            DedupKey::new(caller, command, b"k").unwrap()
        };
        assert_eq!(of("alice", b"1", 1), of("alice", b"2", 1), "from another device");
        assert_ne!(of("alice", b"1", 1), of("bob", b"1", 1));
        assert_ne!(of("", b"1", 1), of("", b"2", 1), "nobody gets what another anonymous session was told");
        assert_ne!(of("alice", b"1", 1), of("alice", b"1", 2));
        assert_eq!(DedupKey::new(Caller::default(), 1, b""), None);
    }

    #[test]
    fn entries_bytes_and_waiters_are_bounded() {
        let mut dedup = Dedup::new(settings());
        for name in ["a", "b", "c"] {
            assert_eq!(dedup.begin(NOW, &key(name), || 0), Begun::First);
        }
        assert_eq!(dedup.begin(NOW, &key("d"), || 0), Begun::Full, "what runs is not forgotten");
        for waiter in 0..WAITERS_MAX {
            assert_eq!(dedup.begin(NOW, &key("a"), || waiter), Begun::Waits);
        }
        assert_eq!(dedup.begin(NOW, &key("a"), || 99), Begun::Full);
        assert_eq!(dedup.finish(NOW, &key("a"), &reply(&[1; 50])).len(), WAITERS_MAX);
        dedup.finish(NOW, &key("b"), &reply(&[2; 50]));
        assert!(matches!(dedup.begin(NOW, &key("b"), || 0), Begun::Known(_)));
        assert_eq!(dedup.begin(NOW, &key("a"), || 0), Begun::First, "the oldest went for the bytes");
        assert_eq!(dedup.begin(NOW, &key("d"), || 0), Begun::First, "the next went for the room");
        assert_eq!((dedup.finished.len(), dedup.bytes), (0, 0));
    }

    #[test]
    fn a_large_reply_is_remembered_as_such() {
        let mut dedup = Dedup::new(settings());
        dedup.begin(NOW, &key("a"), || 0);
        let large = Reply::ok(&[7; 61]).with_execution(Execution::Executed).encode();
        dedup.finish(NOW, &key("a"), &large);
        let Begun::Known(reply) = dedup.begin(NOW, &key("a"), || 0) else { panic!("forgotten") };
        assert_eq!(reply.execution, i32::from(Execution::Executed));
        assert!(reply.body.len() <= 60);
    }
}
