//! The client that applications embed: one session over many connections, on a thread of its own, for any number of
//! threads to use.
//!
//! ```text
//!  any thread                          the client's thread                      errands, one thread each
//!  Client::request ──┐              ┌─► session: what to do next ─┐
//!  Client::start   ──┼─► session ◄──┤   socket: read, write       ├─► list of addresses, access token,
//!  Events::next    ──┘    (lock)    └─► answers, calls ─┐         ┘   name resolution, connecting
//!                                                       └─► callbacks, on a thread of their own
//! ```
//!
//! What decides is the [`session`](crate::session), behind a lock that is never held while application code runs or
//! something blocks. Application code that may take its time (a resolver, a source of tokens) runs on a thread of its
//! own, so that the session goes on meanwhile.

mod builder;
mod calls;
mod driver;
mod endpoints;
mod errand;
mod events;
mod shared;
#[cfg(test)]
mod tests;

pub use builder::Builder;
pub use events::{EVENTS_MAX, Events};

use crate::answer::Answer;
use crate::core::{Refused, RequestOptions};
use crate::session::{Ending, Outcome, State, Ticket, TokenError};
use moorgate_proto::v1::{Execution, Reason};
use shared::{Shared, Sink};
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientError {
    /// The request was not taken.
    NotTaken(Refused),
    /// No answer will come, for the session was lost; what is known of the execution.
    Unanswered(Execution),
    /// No answer came in time; what is known of the execution.
    TimedOut(Execution),
    /// There is an answer, and it is no success.
    Answered(Box<Answer>),
    /// There is no session in time; where the client stands.
    NoSession(State),
    /// The client has ended.
    Ended(Ending),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ran = |execution: &Execution| match execution {
            Execution::NotExecuted => "it was not executed",
            _ => "it may have been executed",
        };
        match self {
            ClientError::NotTaken(Refused::Full) => f.write_str("too many requests wait"),
            ClientError::NotTaken(Refused::TooLarge) => f.write_str("the payload fits into no frame"),
            ClientError::NotTaken(Refused::NotOpen) => f.write_str("the client leaves"),
            ClientError::Unanswered(execution) => write!(f, "no answer will come; {}", ran(execution)),
            ClientError::TimedOut(execution) => write!(f, "no answer in time; {}", ran(execution)),
            ClientError::Answered(answer) => write!(f, "{answer}"),
            ClientError::NoSession(State::Away { why, .. }) => write!(f, "no session: {why}"),
            ClientError::NoSession(_) => f.write_str("no session in time"),
            ClientError::Ended(ending) => write!(f, "the client has ended: {ending}"),
        }
    }
}

impl std::error::Error for ClientError {}

fn answer(outcome: Outcome) -> Result<Answer, ClientError> {
    match outcome {
        Outcome::Answer(answer) => Ok(*answer),
        Outcome::Unanswered(execution) => Err(ClientError::Unanswered(execution)),
        Outcome::TimedOut(execution) => Err(ClientError::TimedOut(execution)),
        Outcome::TooLarge => Err(ClientError::NotTaken(Refused::TooLarge)),
    }
}

/// A client. Clones are the same client; when the last one is dropped it says Bye, by itself and a little later: who
/// wants to be sure of it calls [`Client::leave`].
///
/// Every answer is delivered, whatever it says: [`Answer::is_ok`] and [`Answer::action`] tell. A request that is made
/// while there is no session waits for one, within its time.
#[derive(Debug, Clone)]
pub struct Client {
    handle: Arc<Handle>,
}

/// What all clones have in common.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.act(|inner, now| inner.session.leave(now, Duration::ZERO));
    }
}

/// A request under way. Dropping it does not take the request back.
#[derive(Debug)]
pub struct Pending {
    shared: Arc<Shared>,
    ticket: Ticket,
    answer: Receiver<Result<Answer, ClientError>>,
}

impl Pending {
    /// Waits for the answer; a request has a time, so this ends.
    ///
    /// # Errors
    /// [`ClientError`] when no answer came.
    pub fn wait(self) -> Result<Answer, ClientError> {
        self.answer.recv().unwrap_or_else(|_| Err(ClientError::Ended(self.shared.ending())))
    }

    /// The answer, if it is there.
    pub fn poll(&self) -> Option<Result<Answer, ClientError>> {
        self.answer.try_recv().ok()
    }

    /// Names the request, for [`Client::cancel`].
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// Asks for the request not to be run, or to be stopped; its answer still comes.
    pub fn cancel(&self) {
        self.shared.act(|inner, now| inner.session.cancel(now, self.ticket));
    }
}

impl Client {
    /// A client of the gateway at this address, `host:port`.
    pub fn builder(address: &str) -> Builder {
        Builder::new(address)
    }

    /// Asks, and waits for the answer for `timeout` at the most (and a little longer once the gateway has it, for what
    /// it says is better than a guess). A `timeout` of zero is the settings' own.
    ///
    /// # Errors
    /// [`ClientError`] when no answer came.
    pub fn request(&self, command: u32, payload: &[u8], timeout: Duration) -> Result<Answer, ClientError> {
        self.start(&RequestOptions { timeout, ..RequestOptions::command(command) }, payload)?.wait()
    }

    /// Asks without waiting.
    ///
    /// # Errors
    /// [`ClientError`] when the request is not taken.
    pub fn start(&self, options: &RequestOptions<'_>, payload: &[u8]) -> Result<Pending, ClientError> {
        let (tell, answer) = sync_channel(1);
        let ticket = self.make(options, payload, Sink::Waiter(tell))?;
        Ok(Pending { shared: Arc::clone(&self.handle.shared), ticket, answer })
    }

    /// Asks; `then` is called once with the answer, on the thread of callbacks. Events and other answers wait meanwhile. It
    /// is dropped without a call only if a callback has panicked.
    ///
    /// # Errors
    /// [`ClientError`] when the request is not taken.
    pub fn start_with(
        &self,
        options: &RequestOptions<'_>,
        payload: &[u8],
        then: impl FnOnce(Result<Answer, ClientError>) + Send + 'static,
    ) -> Result<Ticket, ClientError> {
        self.make(options, payload, Sink::Callback(Box::new(|outcome| then(answer(outcome)))))
    }

    fn make(&self, options: &RequestOptions<'_>, payload: &[u8], sink: Sink) -> Result<Ticket, ClientError> {
        self.handle.shared.act(|inner, now| {
            if matches!(sink, Sink::Callback(_)) && inner.calls.is_full() {
                return Err(ClientError::NotTaken(Refused::Full));
            }
            let ticket = inner.session.request(now, options, payload).map_err(|refused| {
                match (refused, inner.session.state()) {
                    (Refused::NotOpen, State::Ended(ending)) => ClientError::Ended(ending.clone()),
                    (refused, _) => ClientError::NotTaken(refused),
                }
            })?;
            inner.sinks.insert(ticket, sink);
            Ok(ticket)
        })
    }

    /// Asks for a request not to be run, or to be stopped; its answer still comes.
    pub fn cancel(&self, ticket: Ticket) {
        self.handle.shared.act(|inner, now| inner.session.cancel(now, ticket));
    }

    /// Where the client stands.
    pub fn state(&self) -> State {
        self.handle.shared.lock().session.state().clone()
    }

    /// Waits for a session; whose it is (empty: anonymous).
    ///
    /// # Errors
    /// [`ClientError::NoSession`], or [`ClientError::Ended`].
    pub fn opened(&self, timeout: Duration) -> Result<String, ClientError> {
        self.handle.shared.wait(timeout, |inner| match inner.session.state() {
            State::Open { user_id, .. } => Some(Ok(user_id.clone())),
            State::Ended(ending) => Some(Err(ClientError::Ended(ending.clone()))),
            _ => None,
        })
    }

    /// The application has another access token: it is shown at once, and to the sessions to come. For applications
    /// that know by themselves when it is time; others give a [`Builder::token_source`].
    ///
    /// # Errors
    /// It cannot be used: it is too long, was refused before, or is the one in use.
    pub fn use_token(&self, access_token: &str) -> Result<(), TokenError> {
        self.handle.shared.act(|inner, now| inner.session.use_token(now, access_token.to_owned()))
    }

    /// For an application that goes to the background: a sign of life goes out at once, and from then on one each
    /// `interval` (from a second to ten minutes) in place of the negotiated one, so that the radio may sleep. The
    /// gateway is told, and waits for it. Zero: the negotiated interval again, for when the application comes back.
    ///
    /// It stays so over reconnects. Whatever else is sent costs one more sign of life within the negotiated interval,
    /// and a lost gateway is noticed later. The deployment's `session.heartbeat_max` bounds what the gateway waits for,
    /// and no client can see it: an `interval` above it loses the connection.
    pub fn beat_every(&self, interval: Duration) {
        self.handle.shared.act(|inner, now| inner.session.beat_every(now, interval));
    }

    /// Makes the request by which the user logs out, and leaves. The client has ended then, and its token is forgotten.
    ///
    /// # Errors
    /// [`ClientError::Answered`] when the service refuses; or no answer came. The client goes on then.
    pub fn logout(&self, command: u32, payload: &[u8], timeout: Duration) -> Result<(), ClientError> {
        match self.request(command, payload, timeout) {
            Ok(answer) if answer.is_ok() => self.leave(Duration::ZERO),
            _ if self.is_logged_out() => Ok(()),
            Ok(answer) => Err(ClientError::Answered(Box::new(answer))),
            Err(error) => Err(error),
        }
    }

    /// The gateway may end the session before it has passed on the answer.
    fn is_logged_out(&self) -> bool {
        matches!(self.state(), State::Ended(ending) if ending.reason() == Reason::LoggedOut)
    }

    /// Leaves: answers that are open are awaited for `patience`, then the client says Bye, and its session ends. Returns when it is over;
    /// in a callback at once.
    ///
    /// # Errors
    /// [`ClientError::Ended`] when the gateway has ended it before, for a reason of its own.
    pub fn leave(&self, patience: Duration) -> Result<(), ClientError> {
        self.leave_keeping(patience, Duration::ZERO)
    }

    /// As [`Client::leave`], but asks the gateway to keep the session for `keep_for` (it may keep it for less), so that
    /// the next start of the application resumes it. For that it must have a [`Builder::store`].
    ///
    /// # Errors
    /// As [`Client::leave`].
    pub fn leave_keeping(&self, patience: Duration, keep_for: Duration) -> Result<(), ClientError> {
        let shared = &self.handle.shared;
        shared.act(|inner, now| inner.session.leave_keeping(now, patience, keep_for));
        if shared.is_callback() {
            return Ok(());
        }
        // The session bounds its own farewell.
        let ending = shared.wait(Duration::MAX, |inner| match inner.session.state() {
            // The next start may read what this one has still to write.
            State::Ended(ending) if inner.is_over => Some(Ok(ending.clone())),
            _ => None,
        })?;
        match ending {
            Ending::Left => Ok(()),
            ending if ending.reason() == Reason::LoggedOut => Ok(()),
            ending => Err(ClientError::Ended(ending)),
        }
    }
}
