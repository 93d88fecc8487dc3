//! What the threads of a client share.

use super::ClientError;
use super::calls::{Callback, Calls};
use super::events::Inbox;
use crate::ambient::origin;
use crate::answer::Answer;
use crate::session::{ClientSession, Ending, State, Ticket};
use moorgate_proto::time::Mono;
use std::collections::HashMap;
use std::fmt;
use std::sync::mpsc::SyncSender;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// Whoever waits looks again after this time: not every system can wait for ever.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// Where the outcome of a request goes.
pub(super) enum Sink {
    /// A thread of the application that waits for it, or will.
    Waiter(SyncSender<Result<Answer, ClientError>>),
    /// On the thread of callbacks.
    Callback(Callback),
}

/// What the lock guards.
pub(super) struct Inner {
    pub(super) session: ClientSession,
    /// Who waits for which request.
    pub(super) sinks: HashMap<Ticket, Sink>,
    pub(super) inbox: Inbox,
    pub(super) calls: Calls,
    /// The kit's thread looks again at this time; zero: it is awake.
    pub(super) asleep_until: Mono,
    /// Both threads have done all they had to do: nothing is written to the store, and no callback called, any more.
    pub(super) is_over: bool,
}

/// See the module's page.
pub(super) struct Shared {
    inner: Mutex<Inner>,
    /// The state has changed, or something is in the inbox.
    changed: Condvar,
    /// A callback is to be called.
    called: Condvar,
    waker: mio::Waker,
    origin: Instant,
    /// The thread of callbacks.
    callbacks: OnceLock<ThreadId>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("session", self.lock().session.state()).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(session: ClientSession, inbox: Inbox, waker: mio::Waker) -> Shared {
        let inner = Inner {
            session,
            sinks: HashMap::new(),
            inbox,
            calls: Calls::default(),
            asleep_until: Mono::ZERO,
            is_over: false,
        };
        Shared {
            inner: Mutex::new(inner),
            changed: Condvar::new(),
            called: Condvar::new(),
            waker,
            origin: origin(),
            callbacks: OnceLock::new(),
        }
    }

    pub(super) fn now(&self) -> Mono {
        Mono::ZERO + self.origin.elapsed()
    }

    /// No application code runs under the lock, so a panic leaves nothing half done.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the session, and wakes the kit's thread if that leaves it something to do.
    pub(super) fn act<T>(&self, act: impl FnOnce(&mut Inner, Mono) -> T) -> T {
        let mut inner = self.lock();
        let result = act(&mut inner, self.now());
        let is_needed = inner.session.has_work() || inner.session.next_deadline() < inner.asleep_until;
        drop(inner);
        if is_needed {
            self.wake();
        }
        result
    }

    pub(super) fn wake(&self) {
        // It fails only when the system is out of memory; the next deadline wakes the thread then.
        let _ = self.waker.wake();
    }

    pub(super) fn notify(&self) {
        self.changed.notify_all();
        self.called.notify_all();
    }

    /// Waits until `found` finds something, or the time is over.
    pub(super) fn wait<T>(
        &self,
        timeout: Duration,
        mut found: impl FnMut(&mut Inner) -> Option<Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let until = self.now() + timeout;
        let mut inner = self.lock();
        loop {
            if let Some(result) = found(&mut inner) {
                return result;
            }
            let left = until.since(self.now());
            if left.is_zero() {
                return Err(ClientError::NoSession(inner.session.state().clone()));
            }
            inner = self.wait_change(inner, left);
        }
    }

    /// Waits until something may have changed, for this time at the most.
    pub(super) fn wait_change<'a>(
        &self,
        inner: MutexGuard<'a, Inner>,
        time: Duration,
    ) -> MutexGuard<'a, Inner> {
        self.changed.wait_timeout(inner, time.min(WAIT_MAX)).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits for a callback to be called.
    pub(super) fn wait_call<'a>(&self, inner: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
        self.called.wait_timeout(inner, WAIT_MAX).unwrap_or_else(PoisonError::into_inner).0
    }

    /// The calling thread is that of callbacks.
    pub(super) fn adopt(&self) {
        self.callbacks.get_or_init(|| thread::current().id());
    }

    /// Whether the calling thread is that of callbacks.
    pub(super) fn is_callback(&self) -> bool {
        self.callbacks.get().is_some_and(|thread| *thread == thread::current().id())
    }

    /// How it ended.
    pub(super) fn ending(&self) -> Ending {
        match self.lock().session.state() {
            State::Ended(ending) => ending.clone(),
            _ => Ending::Broken,
        }
    }
}
