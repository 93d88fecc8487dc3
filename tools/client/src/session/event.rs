//! What a session tells its application, and what it asks of its driver.

use crate::answer::{Answer, Push, reason_name};
use crate::core::{End, Held, Resumption};
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Action, Execution, Reason};
use std::fmt;
use std::time::Duration;

/// Names a request over all connections, in the order in which they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(super) u64);

/// Names one attempt to connect, and the connection that came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(pub(super) u64);

/// What the application must say that it has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery(pub(super) Held);

/// What a driver has to do, in order, and all of it before it writes what [`ClientSession::output`] has then.
///
/// [`ClientSession::output`]: super::ClientSession::output
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Find the addresses, and say them with [`ClientSession::listed`](super::ClientSession::listed).
    List,
    /// Ask the application for an access token, and pass it on with
    /// [`ClientSession::token`](super::ClientSession::token).
    FetchToken(TokenNeed),
    /// Connect, and say how it went; a later attempt makes this one void.
    Connect(Attempt, String),
    /// Close the connection, or give up the attempt: whatever comes from it is of no use.
    Disconnect,
    /// Write this down for the next start of the application, in place of what was written before; or, when it is
    /// `None`, erase that. Once it is safe, or has failed, tell
    /// [`ClientSession::saved`](super::ClientSession::saved).
    Save(Option<Box<Resumption>>),
    /// A request has come to its one end.
    Settled(Ticket, Outcome),
    /// For the application. With a delivery, tell [`ClientSession::taken`](super::ClientSession::taken) once it has it.
    Event(Event, Option<Delivery>),
}

/// What an access token is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenNeed {
    /// To open a session: there is none.
    Open,
    /// The last one expires soon, or has. The session goes on meanwhile, if there is one.
    Renew,
    /// The last one was refused.
    Refused(Reason),
}

/// Why an application gives no access token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenError {
    /// Not now: whoever issues them cannot be reached. It is asked for again.
    Later(String),
    /// There will be none: the user must log in. The client ends.
    Denied(String),
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenError::Later(why) => write!(f, "no access token now: {why}"),
            TokenError::Denied(why) => write!(f, "no access token: {why}"),
        }
    }
}

impl std::error::Error for TokenError {}

/// How a request ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It was answered.
    Answer(Box<Answer>),
    /// No answer will come; what is known of the execution.
    Unanswered(Execution),
    /// No answer came in time; what is known of the execution.
    TimedOut(Execution),
    /// Its payload fits into no frame that the gateway takes.
    TooLarge,
}

/// What happens, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The state has changed.
    State(State),
    /// A push.
    Push(Push),
    /// Something may have been missed: fetch anew what the application shows.
    Resync(Missed),
    /// The session's access token is a new one.
    TokenRenewed,
    /// The session's access token could not be renewed; it is tried again, if that is of use.
    TokenNotRenewed(String),
    /// The session could not be written down, and is not any more: the next start of the application does not resume
    /// it. This one goes on.
    NotSaved(String),
    /// The gateway says something for the log.
    Notice {
        /// What it is about.
        code: Code,
        /// What it is about, closer.
        reason: Reason,
        /// In words, never for users.
        message: String,
    },
}

/// What may have been missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// The session before was lost and could not be resumed, and with it the pushes of the time between are lost.
    Session,
    /// The gateway gave up so many pushes.
    Pushes(u64, Reason),
    /// The application did not take what came; the oldest was given up.
    Events,
}

/// Where a client stands.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// It looks for an address, or an access token, for the first time.
    Starting,
    /// It connects.
    Connecting {
        /// Where to.
        address: String,
    },
    /// There is a session: the one before, resumed, unless an [`Event::Resync`] of [`Missed::Session`] has just said that
    /// that was lost.
    Open {
        /// With whom.
        address: String,
        /// Whose; empty: it is anonymous.
        user_id: String,
    },
    /// The gateway goes away: requests wait for the next session.
    GoingAway,
    /// There is no connection, and soon another try. Requests wait meanwhile, those that were sent as well when the
    /// gateway keeps the session.
    Away {
        /// How soon, from this event on.
        retry_in: Duration,
        /// Why.
        why: Setback,
    },
    /// It is over: this client does not connect again.
    Ended(Ending),
}

/// What stands in the way of a session.
#[derive(Debug, Clone, PartialEq)]
pub enum Setback {
    /// There is no address.
    NoAddress(String),
    /// It did not connect.
    NotConnected(String),
    /// There is no access token.
    NoToken(String),
    /// The session before has ended.
    Ended(End),
    /// The gateway went away.
    GoneAway(Reason),
    /// Another access token needs another session.
    TokenChanged,
}

impl fmt::Display for Setback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setback::NoAddress(why) => write!(f, "no address: {why}"),
            Setback::NotConnected(why) => write!(f, "not connected: {why}"),
            Setback::NoToken(why) => write!(f, "no access token: {why}"),
            Setback::Ended(end) => write!(f, "{end}"),
            Setback::GoneAway(reason) => write!(f, "the gateway went away: {}", reason_name(*reason)),
            Setback::TokenChanged => f.write_str("another access token"),
        }
    }
}

/// Why a client does not connect again.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// Its application has left.
    Left,
    /// The gateway has ended it, and the same again would give the same.
    Refused(Box<v1::Error>, Action),
    /// There is no access token.
    NoToken(String),
    /// A callback has panicked.
    Broken,
}

impl Ending {
    /// What is left for the application to do.
    pub fn action(&self) -> Action {
        match self {
            Ending::Left | Ending::Broken => Action::GiveUp,
            Ending::Refused(_, action) => *action,
            Ending::NoToken(_) => Action::Reauthenticate,
        }
    }

    /// The gateway's reason, if it was the gateway.
    pub fn reason(&self) -> Reason {
        match self {
            Ending::Refused(error, _) => error.reason(),
            Ending::Left | Ending::NoToken(_) | Ending::Broken => Reason::Unspecified,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Left => f.write_str("left"),
            Ending::Refused(error, _) => write!(f, "{}", End::Error((**error).clone())),
            Ending::NoToken(why) => write!(f, "no access token: {why}"),
            Ending::Broken => f.write_str("a callback of the application has panicked"),
        }
    }
}
