//! Who runs what comes: the handler of a call, on the loop or on a thread, and the handlers of checks and receipts.

use crate::call::{Call, Later, Responder};
use crate::clock::Clock;
use crate::core::{Calls, CancelFlag};
use crate::dedup::{Begun, Dedup, DedupKey};
use crate::pool::{Job, Pool};
use crate::post::{CallPlace, Post};
use crate::presence::PresenceChange;
use crate::push::{LinkId, Receipt};
use crate::reply::{EncodedReply, Reply};
use crate::verdict::{Verdict, VerdictLater};
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{self, Reason};
use moorgate_proto::view::{Body, CallView};
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

pub(crate) type LoopHandler = Box<dyn Fn(&Call<'_>, Responder<'_>) + Send>;
pub(crate) type BlockingHandler = Arc<dyn Fn(&Call<'_>, Later) + Send + Sync>;
pub(crate) type CheckHandler = Arc<dyn Fn(&v1::Caller) -> Verdict + Send + Sync>;
pub(crate) type ReceiptHandler = Box<dyn Fn(&Receipt) + Send>;
pub(crate) type PresenceHandler = Box<dyn Fn(&PresenceChange) + Send>;
pub(crate) type NoticeHandler = Box<dyn Fn(&v1::LinkNotice) + Send>;

/// Where a handler runs.
pub(crate) enum Handler {
    Loop(LoopHandler),
    Blocking(BlockingHandler),
}

/// What an application wants to be asked and told.
#[derive(Default)]
pub(crate) struct Handlers {
    pub(crate) calls: Vec<(RangeInclusive<u32>, Handler)>,
    pub(crate) deduplicated: Vec<RangeInclusive<u32>>,
    pub(crate) check: Option<CheckHandler>,
    pub(crate) receipt: Option<ReceiptHandler>,
    pub(crate) presence: Option<PresenceHandler>,
    pub(crate) notice: Option<NoticeHandler>,
}

impl Handlers {
    /// Whether something is to run off the loop.
    pub(crate) fn block(&self) -> bool {
        self.check.is_some() || self.calls.iter().any(|(_, handler)| matches!(handler, Handler::Blocking(_)))
    }
}

pub(crate) struct Dispatch {
    pub(crate) handlers: Handlers,
    pub(crate) dedup: Dedup<CallPlace>,
    /// `None`: nothing blocks.
    pub(crate) pool: Option<Pool>,
    pub(crate) post: Arc<Post>,
    pub(crate) clock: Clock,
}

impl Dispatch {
    /// Runs a call, or has it run, or answers it as it was before.
    pub(crate) fn call(&mut self, now: Mono, calls: &mut Calls, view: CallView<'_>, link: LinkId) {
        let call = Call { view, cancel: None };
        let key = self.dedup_key(&call);
        let mut responder = Responder::new(calls, view.call_id, link, &self.post);
        let of_command = |(commands, _): &&(RangeInclusive<u32>, Handler)| commands.contains(&view.command);
        let Some((_, handler)) = self.handlers.calls.iter().find(of_command) else {
            let refused = Reply::refused(Code::Unimplemented, Reason::NoRoute, "no handler for this command");
            return responder.reply(refused);
        };
        if let Some(key) = key {
            let cancel = CancelFlag::default();
            let waiter = || CallPlace { link, call_id: view.call_id, cancel, dedup: None };
            match self.dedup.begin(now, &key, waiter) {
                Begun::First => responder.dedup = Some(key),
                Begun::Waits => return responder.held(),
                Begun::Known(reply) => return responder.repeat(&reply),
                Begun::Full => return responder.reply(overloaded("too many requests to remember")),
            }
        }
        match handler {
            // One that panics has given no answer, and its responder says so.
            Handler::Loop(handler) => {
                if catch_unwind(AssertUnwindSafe(|| handler(&call, responder))).is_err() {
                    log::error!("the handler of command {:#06x} has panicked", view.command);
                }
            }
            Handler::Blocking(handler) => {
                let job = CallJob::new(handler.clone(), view, responder.later(), now, self.clock);
                if let Some(pool) = &self.pool {
                    pool.run(view.ordering_key, job.body.len(), Box::new(job));
                }
            }
        }
    }

    fn dedup_key(&self, call: &Call<'_>) -> Option<DedupKey> {
        let is_deduplicated = || self.handlers.deduplicated.iter().any(|set| set.contains(&call.command()));
        if call.idempotency_key().is_empty() || !is_deduplicated() {
            return None;
        }
        DedupKey::new(call.caller(), call.command(), call.idempotency_key())
    }

    /// A reply was made on its way past the loop: all the calls that it answers.
    pub(crate) fn replied(&mut self, now: Mono, place: CallPlace, reply: &EncodedReply) -> Vec<CallPlace> {
        let mut places = match &place.dedup {
            Some(key) => self.dedup.finish(now, key, reply),
            None => Vec::new(),
        };
        places.push(place);
        places
    }

    /// Has a session checked.
    pub(crate) fn check(&self, check: &v1::SessionCheck, link: LinkId) {
        let later = VerdictLater::new(link, check.check_id, self.post.clone());
        let caller = check.caller.clone().unwrap_or_default();
        match (&self.handlers.check, &self.pool) {
            (Some(handler), Some(pool)) => {
                let job = CheckJob { handler: handler.clone(), caller, later };
                pool.run(&[], size_of::<CheckJob>(), Box::new(job));
            }
            _ => {
                log::warn!("a gateway asks whether a session may be, and this service checks none");
                later.give(Verdict::refuse(Reason::Unspecified, "the service checks no sessions"));
            }
        }
    }

    /// Passes on what a client did with a push.
    pub(crate) fn receipt(&self, receipt: &v1::PushReceipt) {
        if let Some(handler) = &self.handlers.receipt
            && catch_unwind(AssertUnwindSafe(|| handler(&Receipt::new(receipt)))).is_err()
        {
            log::error!("the handler of receipts has panicked");
        }
    }

    /// Logs what a gateway found wrong, and passes it on.
    pub(crate) fn notice(&self, notice: &v1::LinkNotice) {
        let count = notice.count.max(1);
        log::warn!("notice from a gateway, {count} times: {}", notice.message.escape_debug());
        if let Some(handler) = &self.handlers.notice
            && catch_unwind(AssertUnwindSafe(|| handler(notice))).is_err()
        {
            log::error!("the handler of notices has panicked");
        }
    }

    /// Passes on that a user has come or gone.
    pub(crate) fn presence(&self, change: &PresenceChange) {
        if let Some(handler) = &self.handlers.presence
            && catch_unwind(AssertUnwindSafe(|| handler(change))).is_err()
        {
            log::error!("the handler of presence has panicked");
        }
    }
}

fn overloaded(message: &str) -> Reply<'_> {
    Reply::refused(Code::ResourceExhausted, Reason::ServiceOverloaded, message)
}

/// A call that waits for a thread.
struct CallJob {
    handler: BlockingHandler,
    /// The encoded Call.
    body: Vec<u8>,
    deadline: Mono,
    clock: Clock,
    later: Later,
}

impl CallJob {
    fn new(handler: BlockingHandler, view: CallView<'_>, later: Later, now: Mono, clock: Clock) -> CallJob {
        let mut body = Vec::with_capacity(view.body_len());
        view.put(&mut body);
        // A gateway sends no call whose time is over: 0 is from one that does not say.
        let deadline = match view.remaining_ms {
            0 => Mono::NEVER,
            left => now + Duration::from_millis(left.into()),
        };
        CallJob { handler, body, deadline, clock, later }
    }
}

impl Job for CallJob {
    fn run(self: Box<CallJob>) {
        let CallJob { handler, body, deadline, clock, later } = *self;
        let now = clock.now();
        // It was encoded here.
        let Ok(mut view) = CallView::decode(&body) else { return };
        if later.is_cancelled() {
            let message = "cancelled before it was run";
            return later.reply(Reply::refused(Code::Cancelled, Reason::Cancelled, message));
        }
        if deadline <= now {
            let message = "its time was over before a thread was free";
            return later.reply(Reply::refused(Code::DeadlineExceeded, Reason::Timeout, message));
        }
        if deadline != Mono::NEVER {
            let left_ms = deadline.since(now).as_nanos().div_ceil(1_000_000);
            view.remaining_ms = u32::try_from(left_ms).unwrap_or(u32::MAX);
        }
        let flag = later.cancel_flag();
        handler(&Call { view, cancel: Some(&flag) }, later);
    }

    fn refuse(self: Box<CallJob>) {
        self.later.reply(overloaded("too many calls wait for a thread"));
    }
}

/// A check that waits for a thread.
struct CheckJob {
    handler: CheckHandler,
    caller: v1::Caller,
    later: VerdictLater,
}

impl Job for CheckJob {
    fn run(self: Box<CheckJob>) {
        let CheckJob { handler, caller, later } = *self;
        later.give(handler(&caller));
    }

    fn refuse(self: Box<CheckJob>) {
        self.later.give(Verdict::refuse(Reason::ServiceOverloaded, "too many checks wait for a thread"));
    }
}
