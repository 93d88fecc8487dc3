//! How an application pushes, from any thread, and learns what became of it.

use super::{EncodedPush, Push, PushId, PushReport, TargetState};
use crate::post::{Mail, Post};
use moorgate_proto::limits::FRAME_BYTES_CEILING;
use parking_lot::{Condvar, Mutex};
use ring::rand::{SecureRandom, SystemRandom};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Pushes without a report, at the most.
const PUSHES_MAX: usize = 16 * 1024;
/// Bytes of the pushes without a report, at the most.
const PUSH_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of an id that the pusher chooses.
const PUSH_ID_BYTES: usize = 16;

/// Why nothing is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushError {
    /// Too many pushes have no report yet, or too large ones: later, or never.
    Full,
    /// The service has ended.
    Ended,
    /// No gateway may take a frame of this size.
    TooLarge,
    /// More than [`DIRECTIVES`](moorgate_proto::limits::DIRECTIVES).
    TooManyDirectives,
    /// A directive about the calling session, which a push does not have: name the session.
    NoCaller,
    /// The system gives no random id.
    Random,
}

impl std::fmt::Display for PushError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            PushError::Full => "too many pushes have no result yet",
            PushError::Ended => "the service has ended",
            PushError::TooLarge => "a push above the largest frame",
            PushError::TooManyDirectives => "a push with too many directives",
            PushError::NoCaller => "a directive about the calling session, in a push",
            PushError::Random => "the system gives no random bytes",
        })
    }
}

impl std::error::Error for PushError {}

/// Room that is taken by the pushes without a report.
#[derive(Debug, Default)]
struct Room {
    taken: Mutex<(usize, usize)>,
}

impl Room {
    fn take(&self, bytes: usize) -> bool {
        let mut taken = self.taken.lock();
        let (pushes, bytes) = (taken.0 + 1, taken.1.saturating_add(bytes));
        let fits = pushes <= PUSHES_MAX && bytes <= PUSH_BYTES_MAX;
        if fits {
            *taken = (pushes, bytes);
        }
        fits
    }

    fn free(&self, bytes: usize) {
        let mut taken = self.taken.lock();
        *taken = (taken.0.saturating_sub(1), taken.1.saturating_sub(bytes));
    }
}

/// Sends pushes to all gateways that are connected. Cheap to clone, for any thread.
#[derive(Debug, Clone)]
pub struct Pusher {
    post: Arc<Post>,
    room: Arc<Room>,
}

impl Pusher {
    pub(crate) fn new(post: Arc<Post>) -> Pusher {
        Pusher { post, room: Arc::default() }
    }

    /// Sends a push, whose report comes to the [`PendingPush`] that is returned; nobody needs to look at it.
    ///
    /// # Errors
    /// [`PushError`]: nothing is sent.
    pub fn send(&self, push: Push) -> Result<PendingPush, PushError> {
        let slot = Arc::new(Slot::default());
        let push = self.prepare(push)?;
        let id = push.id.clone();
        self.submit(push, Listener::Slot(slot.clone())).map_err(|_| PushError::Ended)?;
        Ok(PendingPush { id, slot })
    }

    /// Sends a push and calls back exactly once: with its report, on the loop's thread, so briefly; or, when nothing is
    /// sent, with the reason, here and now.
    pub fn send_then(
        &self,
        push: Push,
        listener: impl FnOnce(Result<PushReport, PushError>) + Send + 'static,
    ) {
        match self.prepare(push) {
            Ok(push) => {
                if let Err(Listener::Callback(listener)) =
                    self.submit(push, Listener::Callback(Box::new(listener)))
                {
                    listener(Err(PushError::Ended));
                }
            }
            Err(error) => listener(Err(error)),
        }
    }

    /// Checks a push, gives it an id if it has none, and takes room for it.
    fn prepare(&self, mut push: Push) -> Result<EncodedPush, PushError> {
        push.check()?;
        if push.message.push_id.is_empty() {
            let mut id = [0; PUSH_ID_BYTES];
            SystemRandom::new().fill(&mut id).map_err(|_| PushError::Random)?;
            push.message.push_id = id.to_vec().into();
        }
        let push = push.encode();
        if push.body.len() > FRAME_BYTES_CEILING {
            return Err(PushError::TooLarge);
        }
        if !self.room.take(push.body.len()) {
            return Err(PushError::Full);
        }
        Ok(push)
    }

    /// `Err`: the service has ended.
    fn submit(&self, push: EncodedPush, listener: Listener) -> Result<(), Listener> {
        let reporter = Reporter {
            listener: Some(listener),
            id: push.id.clone(),
            targets: push.targets,
            bytes: push.body.len(),
            room: self.room.clone(),
        };
        match self.post.send(Mail::Push(Box::new(Submission { push, reporter }))) {
            Err(Mail::Push(mut submission)) => submission.reporter.take_listener().map_or(Ok(()), Err),
            _ => Ok(()),
        }
    }
}

/// A push on its way to the loop.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) push: EncodedPush,
    pub(crate) reporter: Reporter,
}

enum Listener {
    Callback(Box<dyn FnOnce(Result<PushReport, PushError>) + Send>),
    Slot(Arc<Slot>),
}

impl Listener {
    fn tell(self, report: PushReport) {
        match self {
            Listener::Slot(slot) => slot.fill(report),
            Listener::Callback(listener) => {
                if catch_unwind(AssertUnwindSafe(|| listener(Ok(report)))).is_err() {
                    log::error!("who was told of a push has panicked");
                }
            }
        }
    }
}

/// Who waits for the report of a push. Dropped without one, it says that nobody was asked.
pub(crate) struct Reporter {
    listener: Option<Listener>,
    id: PushId,
    targets: usize,
    bytes: usize,
    room: Arc<Room>,
}

impl Reporter {
    pub(crate) fn report(mut self, report: PushReport) {
        if let Some(listener) = self.take_listener() {
            listener.tell(report);
        }
    }

    /// There is room for another push before anybody is told of this one.
    fn take_listener(&mut self) -> Option<Listener> {
        let listener = self.listener.take();
        if listener.is_some() {
            self.room.free(self.bytes);
        }
        listener
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        if let Some(listener) = self.take_listener() {
            let targets = vec![TargetState::Refused; self.targets];
            let report = PushReport { push_id: self.id.clone(), targets, gateways: Vec::new() };
            listener.tell(report);
        }
    }
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter").field("id", &self.id).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Slot {
    content: Mutex<Content>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Content {
    report: Option<PushReport>,
    waker: Option<Waker>,
}

impl Slot {
    fn fill(&self, report: PushReport) {
        let waker = {
            let mut content = self.content.lock();
            content.report = Some(report);
            content.waker.take()
        };
        self.filled.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A push whose report is to come. It is also a future, for whoever has an executor.
#[derive(Debug)]
pub struct PendingPush {
    id: PushId,
    slot: Arc<Slot>,
}

impl PendingPush {
    /// The push's id.
    pub fn id(&self) -> &PushId {
        &self.id
    }

    /// Waits for the report, for so long at the most. Not for handlers on the loop's thread: the report comes from there.
    pub fn wait(&self, timeout: Duration) -> Option<PushReport> {
        let mut content = self.slot.content.lock();
        self.slot.filled.wait_while_for(&mut content, |content| content.report.is_none(), timeout);
        content.report.clone()
    }

    /// The report, if it has come.
    pub fn report(&self) -> Option<PushReport> {
        self.slot.content.lock().report.clone()
    }
}

impl Future for PendingPush {
    type Output = PushReport;

    fn poll(self: Pin<&mut PendingPush>, context: &mut Context<'_>) -> Poll<PushReport> {
        let mut content = self.slot.content.lock();
        if let Some(report) = &content.report {
            return Poll::Ready(report.clone());
        }
        content.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
