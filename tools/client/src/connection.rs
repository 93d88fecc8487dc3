//! The simplest driver: one session over one connection, no thread of its own, simple calls.

use crate::ambient::{application_proof, origin};
use crate::answer::{Answer, Push};
use crate::core::{ClientCore, End, Event, Options, Refused, RequestId, RequestOptions};
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{self, Execution};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

const READ_BYTES: usize = 64 * 1024;
/// Pushes that nobody has asked for are kept up to this many, and as many answers beyond those of the requests that can
/// be open at once; then the oldest go.
const EVENTS_MAX: usize = 1024;
/// A gateway that takes nothing for this long is lost.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a call of the driver failed.
#[derive(Debug)]
pub enum ConnectionError {
    /// The connection.
    Io(io::Error),
    /// The gateway ended the session, and said why.
    Refused(Box<v1::Error>),
    /// The session ended otherwise.
    Ended(End),
    /// The session ended before the answer came; what is known of the execution.
    Unanswered(Execution),
    /// No answer in time; the request was cancelled.
    TimedOut,
    /// The request was not taken.
    NotTaken(Refused),
}

impl std::fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ConnectionError::Io(error) => write!(f, "connection: {error}"),
            ConnectionError::Refused(error) => write!(f, "the gateway refused: {}", error.message),
            ConnectionError::Ended(end) => write!(f, "the session has ended: {end}"),
            ConnectionError::Unanswered(Execution::NotExecuted) => {
                f.write_str("the session ended before the request ran")
            }
            ConnectionError::Unanswered(_) => {
                f.write_str("the session ended before the answer; the request may have run")
            }
            ConnectionError::TimedOut => f.write_str("no answer in time"),
            ConnectionError::NotTaken(refused) => write!(f, "the request was not taken: {refused}"),
        }
    }
}

impl std::error::Error for ConnectionError {}

impl From<End> for ConnectionError {
    fn from(end: End) -> ConnectionError {
        match end {
            End::Error(error) => ConnectionError::Refused(Box::new(error)),
            end => ConnectionError::Ended(end),
        }
    }
}

impl From<io::Error> for ConnectionError {
    fn from(error: io::Error) -> ConnectionError {
        ConnectionError::Io(error)
    }
}

/// What has happened and was not asked for yet.
#[derive(Debug, Default)]
struct Seen {
    answers: VecDeque<(RequestId, Result<Answer, Execution>)>,
    answers_max: usize,
    pushes: VecDeque<Push>,
    welcomed: Option<v1::Welcome>,
    going_away: Option<v1::GoAway>,
    ended: Option<End>,
}

/// A session over one connection, for programs that want no more: what is lost stays lost. Applications that live
/// longer than a connection use a [`Client`](crate::Client).
///
/// It reads, and shows that it is there, only while one of its calls waits. A client that rests for longer than
/// the heartbeat interval of its [`Connection::welcome`] waits for a [`Connection::push`] meanwhile. The end of a session is told
/// by every call after it.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// The connection takes nothing more; what the gateway has said before may still be read.
    broken: bool,
    core: ClientCore,
    origin: Instant,
    seen: Seen,
    welcome: v1::Welcome,
}

impl Connection {
    /// Connects and opens a session; an empty token opens an anonymous one.
    ///
    /// # Errors
    /// [`ConnectionError::Refused`] when the gateway does not take the client.
    pub fn connect(
        address: SocketAddr,
        options: Options,
        access_token: &str,
    ) -> Result<Connection, ConnectionError> {
        let timeout = options.opening_timeout;
        let stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let proof = application_proof(&options);
        let waiting_max = options.waiting_max;
        let mut client = Connection {
            stream,
            broken: false,
            core: ClientCore::new(Arc::new(options)),
            origin: origin(),
            seen: Seen::default(),
            welcome: v1::Welcome::default(),
        };
        client.core.connected_with_proof(client.now(), access_token, proof);
        let until = client.now() + timeout;
        client.wait(until, &mut |seen| seen.welcomed.take())?.map_or(
            Err(ConnectionError::TimedOut),
            |welcome| {
                let in_flight = welcome.limits.unwrap_or_default().in_flight_max as usize;
                client.seen.answers_max = waiting_max.saturating_add(in_flight).saturating_add(EVENTS_MAX);
                client.welcome = welcome;
                Ok(client)
            },
        )
    }

    /// What the gateway granted.
    pub fn welcome(&self) -> &v1::Welcome {
        &self.welcome
    }

    /// What the gateway said when it began to go away: no new requests are taken, and whoever connects again waits for
    /// its `reconnect_after_ms` first.
    pub fn going_away(&self) -> Option<&v1::GoAway> {
        self.seen.going_away.as_ref()
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// [`ConnectionError`] when no answer came; an answer that is no success is not an error here.
    pub fn request(
        &mut self,
        command: u32,
        payload: &[u8],
        timeout: Duration,
    ) -> Result<Answer, ConnectionError> {
        let id = self.start(&RequestOptions { timeout, ..RequestOptions::command(command) }, payload)?;
        self.answer(id, timeout)
    }

    /// Makes a request without waiting.
    ///
    /// # Errors
    /// [`ConnectionError::NotTaken`], or how the session has ended.
    pub fn start(
        &mut self,
        options: &RequestOptions<'_>,
        payload: &[u8],
    ) -> Result<RequestId, ConnectionError> {
        if let Some(end) = self.seen.ended.clone() {
            return Err(end.into());
        }
        let now = self.now();
        let id = self.core.request(now, options, payload).map_err(ConnectionError::NotTaken)?;
        self.flush();
        Ok(id)
    }

    /// Waits for the answer to a request.
    ///
    /// # Errors
    /// As [`Connection::request`].
    pub fn answer(&mut self, id: RequestId, timeout: Duration) -> Result<Answer, ConnectionError> {
        // The gateway answers by its own deadline; what it says is better than a guess of ours.
        let until = self.now() + timeout + GATEWAY_GRACE;
        let answer = self.wait(until, &mut |seen| {
            let at = seen.answers.iter().position(|(answered, _)| *answered == id)?;
            seen.answers.remove(at)
        })?;
        match answer {
            Some((_, Ok(answer))) => Ok(answer),
            Some((_, Err(execution))) => Err(ConnectionError::Unanswered(execution)),
            None => {
                self.cancel(id);
                Err(ConnectionError::TimedOut)
            }
        }
    }

    /// Asks for a request not to be run; its answer still comes.
    pub fn cancel(&mut self, id: RequestId) {
        self.core.cancel(self.now(), id);
        self.flush();
    }

    /// Waits for a push; `None`: none in time.
    ///
    /// # Errors
    /// When the session has ended.
    pub fn push(&mut self, timeout: Duration) -> Result<Option<Push>, ConnectionError> {
        let until = self.now() + timeout;
        self.wait(until, &mut |seen| seen.pushes.pop_front())
    }

    /// Leaves, and waits for the gateway's word.
    ///
    /// # Errors
    /// When the connection fails before it.
    pub fn bye(mut self) -> Result<(), ConnectionError> {
        self.core.bye(self.now(), Duration::ZERO);
        let until = self.now() + GATEWAY_GRACE;
        match self.wait(until, &mut |seen| seen.ended.clone()) {
            Ok(Some(End::Bye)) => Ok(()),
            Ok(Some(end)) => Err(ConnectionError::Ended(end)),
            Ok(None) => Err(ConnectionError::TimedOut),
            Err(error) => Err(error),
        }
    }

    fn now(&self) -> Mono {
        Mono::ZERO + self.origin.elapsed()
    }

    /// What was not written may lack its beginning, so nothing more is; the reader finds out why.
    fn flush(&mut self) {
        self.broken |= !self.broken && self.stream.write_all(self.core.output()).is_err();
        self.core.output().clear();
    }

    /// Works until `found` finds something, or the time is over.
    fn wait<T>(
        &mut self,
        until: Mono,
        found: &mut impl FnMut(&mut Seen) -> Option<T>,
    ) -> Result<Option<T>, ConnectionError> {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            self.flush();
            if let Some(value) = found(&mut self.seen) {
                return Ok(Some(value));
            }
            if let Some(end) = self.seen.ended.clone() {
                return Err(end.into());
            }
            let now = self.now();
            if now >= until {
                return Ok(None);
            }
            let next = if self.broken { now } else { until.min(self.core.next_deadline()) };
            let pause = next.since(now).max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(pause))?;
            let result = self.stream.read(&mut buffer);
            let now = self.now();
            let (core, seen) = (&mut self.core, &mut self.seen);
            let mut visit = |_: &mut ClientCore, event: Event<'_>| seen.note(event);
            match result {
                Ok(0) => core.disconnected(&mut visit),
                Ok(count) => {
                    core.received(now, buffer.get(..count).unwrap_or_default(), &mut visit);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) && !self.broken => {
                    core.timers(now, &mut visit);
                }
                Err(_) => core.disconnected(&mut visit),
            }
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// How much longer than asked the driver waits for the gateway's own word.
const GATEWAY_GRACE: Duration = Duration::from_secs(2);

impl Seen {
    fn note(&mut self, event: Event<'_>) {
        match event {
            Event::Welcomed(welcome) => self.welcomed = Some(*welcome),
            Event::Response(id, view) => self.answers.push_back((id, Ok(view.into()))),
            Event::Unanswered(id, execution) => self.answers.push_back((id, Err(execution))),
            Event::Push(view) => self.pushes.push_back(view.into()),
            Event::GoingAway(go_away) => self.going_away = Some(*go_away),
            Event::Ended(end) => self.ended = Some(end),
            // A session over one connection is not resumed.
            Event::Resumed(_) | Event::Detached(_) => {}
            Event::Gap(_) | Event::Notice(_) | Event::Authenticated(_) => {}
        }
        while self.pushes.len() > EVENTS_MAX {
            self.pushes.pop_front();
        }
        while self.answers.len() > self.answers_max {
            self.answers.pop_front();
        }
    }
}
