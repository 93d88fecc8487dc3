//! One client that loses its connections and comes back: the client kit's core, the books beside it, and the socket. A
//! raw one speaks to a bare echo server, and its first frame is all of its Hello.
//!
//! ```text
//!   Down ── open ──► Connecting ── connected: Hello ──► Up
//!    ▲                   │                               │
//!    └───────────────────┴── cut, or lost ◄──────────────┘
//! ```

use crate::books::{Books, REQUEST, Read};
use crate::connection::put_raw_frame;
use crate::dice::Dice;
use crate::pattern::Pattern;
use crate::schedule::Schedule;
use mio::net::TcpStream;
use moorgate_client::core::{ClientCore, End, Event, RequestId, RequestOptions};
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{Reason, ResumeResult};
use std::io::{self, Write};

/// The socket.
#[derive(Debug)]
pub(crate) enum Link {
    Down,
    Connecting(TcpStream),
    Up(TcpStream),
}

/// Bytes of a raw client's first frame: as a Hello with an access token has them.
const RAW_HELLO_BYTES: usize = 300;

/// How the client speaks.
#[derive(Debug)]
pub(crate) enum Voice {
    Protocol(Box<ClientCore>),
    Raw {
        output: Vec<u8>,
        /// The first frame has come back.
        is_open: bool,
        /// Requests are numbered as the protocol would.
        asked: u64,
    },
}

/// What the client's session tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A fresh session; why, if another one was asked for.
    Fresh(ResumeResult),
    Resumed,
    /// A request will have no answer.
    Unanswered(RequestId),
    /// The connection is over.
    Over(String),
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Roamer {
    voice: Voice,
    pub(crate) books: Books,
    pub(crate) link: Link,
    pub(crate) dice: Dice,
    /// When the connect began.
    pub(crate) began: Mono,
    /// The Hello of this connection has asked for the session before.
    pub(crate) asks_resume: bool,
    /// It is where the ramp wants it.
    pub(crate) is_ready: bool,
    /// Its requests, once the load begins.
    pub(crate) schedule: Option<Schedule>,
}

impl Roamer {
    pub(crate) fn new(voice: Voice, books: Books, dice: Dice) -> Roamer {
        let link = Link::Down;
        let (began, asks_resume, is_ready, schedule) = (Mono::ZERO, false, false, None);
        Roamer { voice, books, link, dice, began, asks_resume, is_ready, schedule }
    }

    /// The connection stands.
    pub(crate) fn connected(&mut self, now: Mono, token: &str) {
        self.link = match std::mem::replace(&mut self.link, Link::Down) {
            Link::Connecting(stream) => Link::Up(stream),
            other => other,
        };
        self.books.reconnected();
        match &mut self.voice {
            Voice::Protocol(core) => {
                self.asks_resume = core.is_detached();
                core.connected(now, token);
            }
            Voice::Raw { output, .. } => put_raw_frame(output, &[0; RAW_HELLO_BYTES]),
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.link, Link::Up(_))
    }

    /// Whether requests are taken.
    pub(crate) fn is_open(&self) -> bool {
        match &self.voice {
            Voice::Protocol(core) => core.is_open(),
            Voice::Raw { is_open, .. } => *is_open,
        }
    }

    /// When [`Roamer::timers`] has something to do.
    pub(crate) fn next_deadline(&self) -> Mono {
        match &self.voice {
            Voice::Protocol(core) => core.next_deadline(),
            Voice::Raw { .. } => Mono::NEVER,
        }
    }

    /// Bytes from the connection: to the session, and to the books, which do not rely on it.
    pub(crate) fn received(
        &mut self,
        (now, bytes): (Mono, &[u8]),
        patterns: (&Pattern, &Pattern),
        heard: &mut Vec<Heard>,
        visit: &mut impl FnMut(Read),
    ) {
        match &mut self.voice {
            Voice::Protocol(core) => {
                core.received(now, bytes, &mut |_, event| heard.extend(hear(event)));
                self.books.read(bytes, patterns, visit);
            }
            Voice::Raw { is_open, .. } => {
                if let Some(first) = self.books.read_raw(bytes, patterns.0, *is_open, visit) {
                    *is_open = true;
                    heard.push(first);
                }
            }
        }
    }

    pub(crate) fn timers(&mut self, now: Mono, heard: &mut Vec<Heard>) {
        if let Voice::Protocol(core) = &mut self.voice {
            core.timers(now, &mut |_, event| heard.extend(hear(event)));
        }
    }

    /// The connection is gone; its socket.
    pub(crate) fn disconnected(&mut self, heard: &mut Vec<Heard>) -> Option<TcpStream> {
        match &mut self.voice {
            Voice::Protocol(core) => core.disconnected(&mut |_, event| heard.extend(hear(event))),
            Voice::Raw { output, is_open, .. } => {
                output.clear();
                *is_open = false;
            }
        }
        match std::mem::replace(&mut self.link, Link::Down) {
            Link::Down => None,
            Link::Connecting(stream) | Link::Up(stream) => Some(stream),
        }
    }

    /// Makes a request, which counts from `at`; `false`: it is not taken.
    pub(crate) fn ask(&mut self, now: Mono, at: Mono, pattern: &mut Pattern) -> bool {
        let payload = self.books.request(pattern);
        let id = match &mut self.voice {
            Voice::Protocol(core) => core.request(now, &RequestOptions::command(REQUEST), payload).ok(),
            Voice::Raw { output, asked, .. } => {
                put_raw_frame(output, payload);
                *asked = asked.saturating_add(1);
                Some(RequestId(*asked))
            }
        };
        id.map(|id| self.books.made(id, at)).is_some()
    }

    /// Makes the requests of the schedule that are due, as far as the connection and the bound of requests without an
    /// answer allow; whether all of them.
    pub(crate) fn ask_due(
        &mut self,
        now: Mono,
        (until, in_flight): (Mono, usize),
        pattern: &mut Pattern,
    ) -> bool {
        let Some(mut schedule) = self.schedule else { return true };
        while schedule.due() <= until {
            if !self.is_open() || self.books.open() >= in_flight || !self.ask(now, schedule.due(), pattern) {
                return false;
            }
            let _ = schedule.take(until);
            self.schedule = Some(schedule);
        }
        true
    }

    /// Asks to be put into its group; `false`: that is not taken.
    pub(crate) fn join(&mut self, now: Mono) -> bool {
        let Voice::Protocol(core) = &mut self.voice else { return false };
        let (command, payload) = self.books.join();
        let id = core.request(now, &RequestOptions::command(command), &payload);
        id.map(|id| self.books.joins(id)).is_ok()
    }

    /// Bytes to send.
    pub(crate) fn output(&mut self) -> &mut Vec<u8> {
        match &mut self.voice {
            Voice::Protocol(core) => core.output(),
            Voice::Raw { output, .. } => output,
        }
    }

    /// Writes what there is to say.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        let len = self.output().len();
        self.write_part(len)
    }

    /// Writes no more than so many bytes of it.
    pub(crate) fn write_part(&mut self, len: usize) -> io::Result<()> {
        let Roamer { link: Link::Up(stream), voice, .. } = self else { return Ok(()) };
        let output = match voice {
            Voice::Protocol(core) => core.output(),
            Voice::Raw { output, .. } => output,
        };
        let part = output.get(..len).unwrap_or_default();
        if part.is_empty() {
            return Ok(());
        }
        match stream.write(part) {
            Ok(count) => drop(output.drain(..count)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn hear(event: Event<'_>) -> Option<Heard> {
    match event {
        Event::Welcomed(welcome) => Some(Heard::Fresh(welcome.resume_result())),
        Event::Resumed(_) => Some(Heard::Resumed),
        Event::Unanswered(id, _) => Some(Heard::Unanswered(id)),
        Event::Detached(end) | Event::Ended(end) => Some(Heard::Over(words(&end))),
        // The books read these, and the rest is nothing to them.
        _ => None,
    }
}

/// Why a connection is over; the same words for the same reason.
fn words(end: &End) -> String {
    match end {
        End::Error(error) => {
            let reason = Reason::try_from(error.reason).unwrap_or_default();
            format!("the gateway ends it: {}", reason.as_str_name())
        }
        End::Lost => "the connection was lost".to_owned(),
        other => other.to_string(),
    }
}
