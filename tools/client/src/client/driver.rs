//! The client's thread: does what the session says, and moves bytes.

use super::answer;
use super::builder::Addresses;
use super::endpoints::Endpoints;
use super::errand::{Brought, Errands, Lookup, TokenSource};
use super::events::Inbox;
use super::shared::{Inner, Shared, Sink};
use crate::ambient::application_proof;
use crate::core::{Options, Resumption};
use crate::session::{Attempt, ClientSession, Delivery, Event, Outcome, Output, State, Ticket, TokenError};
use crate::store::{Store, encode};
use mio::net::TcpStream;
use mio::{Interest, Poll, Token, Waker};
use moorgate_proto::time::Mono;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

const WAKER: Token = Token(0);
const STREAM: Token = Token(1);
const READ_BYTES: usize = 64 * 1024;
/// Reads in one go; then deadlines and other threads have their turn.
const READS_MAX: usize = 16;
/// A gateway that takes nothing for this long is lost.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// The connection.
struct Stream {
    socket: TcpStream,
    /// There may be something to read.
    is_readable: bool,
    /// `NEVER`: it takes bytes; else since when it does not.
    blocked: Mono,
}

/// See the module's page.
pub(super) struct Driver {
    shared: Arc<Shared>,
    poll: Poll,
    events: mio::Events,
    errands: Errands,
    brought: Receiver<Brought>,
    options: Options,
    store: Option<Box<dyn Store>>,
    stream: Option<Stream>,
    endpoints: Endpoints,
    /// The name that is connected to.
    connecting: String,
    /// Events are for a callback.
    calls_events: bool,
    buffer: Box<[u8]>,
}

/// What the application has given.
struct Given {
    addresses: Addresses,
    source: Option<TokenSource>,
}

/// Settles everything when the thread ends, however it does.
struct Last(Arc<Shared>);

impl Drop for Last {
    fn drop(&mut self) {
        let now = self.0.now();
        let mut inner = self.0.lock();
        inner.session.abandon();
        while let Some(output) = inner.session.poll() {
            if let Output::Event(event, delivery) = output {
                let Inner { inbox, session, .. } = &mut *inner;
                inbox.put(now, session, event, delivery);
            }
        }
        inner.calls.close();
        let sinks = std::mem::take(&mut inner.sinks);
        drop(inner);
        self.0.notify();
        // Whoever waits for an answer sees that nobody will send it.
        drop(sinks);
    }
}

impl Driver {
    pub(super) fn new(
        session: ClientSession,
        inbox: Inbox,
        options: Options,
        store: Option<Box<dyn Store>>,
    ) -> io::Result<(Driver, Arc<Shared>)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let shared = Arc::new(Shared::new(session, inbox, waker));
        let (results, brought) = channel();
        let driver = Driver {
            errands: Errands::new(Arc::clone(&shared), results),
            shared: Arc::clone(&shared),
            poll,
            events: mio::Events::with_capacity(8),
            brought,
            options,
            store,
            stream: None,
            endpoints: Endpoints::default(),
            connecting: String::new(),
            calls_events: false,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
        };
        Ok((driver, shared))
    }

    /// By which names are resolved.
    pub(super) fn looking_up_by(mut self, lookup: Lookup) -> Driver {
        self.errands.lookup = lookup;
        self
    }

    /// Whether events are for a callback.
    pub(super) fn calling(mut self, calls_events: bool) -> Driver {
        self.calls_events = calls_events;
        self
    }

    /// Starts the thread.
    pub(super) fn spawn(mut self, addresses: Addresses, source: Option<TokenSource>) -> io::Result<()> {
        let given = Given { addresses, source };
        let last = Last(Arc::clone(&self.shared));
        thread::Builder::new().name("moorgate-client".to_owned()).spawn(move || {
            let _last = last;
            self.act(ClientSession::start);
            while self.turn(&given) {}
        })?;
        Ok(())
    }

    /// Does something to the session; this thread is awake.
    fn act<T>(&self, act: impl FnOnce(&mut ClientSession, Mono) -> T) -> T {
        act(&mut self.shared.lock().session, self.shared.now())
    }

    /// Works off what is there, then sleeps until there is more. Whether the client goes on.
    fn turn(&mut self, given: &Given) -> bool {
        while let Ok(brought) = self.brought.try_recv() {
            self.take(brought);
        }
        for _ in 0..READS_MAX {
            self.work(given);
            self.flush();
            if !self.read() {
                break;
            }
        }
        self.act(ClientSession::timers);
        self.work(given);
        self.flush();
        self.sleep()
    }

    fn take(&mut self, brought: Brought) {
        match brought {
            Brought::Addresses(addresses) => self.act(|session, now| session.listed(now, addresses)),
            Brought::Token(token) => self.act(|session, now| session.token(now, token)),
            Brought::Connection(attempt, Ok(socket)) => self.connected(attempt, socket),
            Brought::Connection(attempt, Err(error)) => self.failed(attempt, &error),
        }
    }

    fn failed(&self, attempt: Attempt, error: &io::Error) {
        self.act(|session, now| session.connect_failed(now, attempt, error.to_string()));
    }

    fn connected(&mut self, attempt: Attempt, socket: std::net::TcpStream) {
        if let Ok(endpoint) = socket.peer_addr() {
            self.endpoints.connected(std::mem::take(&mut self.connecting), endpoint);
        }
        let mut socket = TcpStream::from_std(socket);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut socket, STREAM, interest) {
            return self.failed(attempt, &error);
        }
        let proof = application_proof(&self.options);
        if self.act(|session, now| session.connected(now, attempt, proof)) {
            self.stream = Some(Stream { socket, is_readable: true, blocked: Mono::NEVER });
        }
    }

    /// Does what the session says.
    fn work(&mut self, given: &Given) {
        loop {
            let output = self.shared.lock().session.poll();
            match output {
                None => return,
                Some(Output::List) => match &given.addresses {
                    Addresses::List(list) => self.act(|session, now| session.listed(now, Ok(list.clone()))),
                    Addresses::Asked(resolver) => self.errands.list(resolver),
                },
                Some(Output::FetchToken(need)) => match &given.source {
                    Some(source) => self.errands.fetch(source, need),
                    None => {
                        let denied = Err(TokenError::Denied("there is no source of tokens".to_owned()));
                        self.act(|session, now| session.token(now, denied));
                    }
                },
                Some(Output::Connect(attempt, address)) => {
                    let last = self.endpoints.last(&address);
                    self.connecting.clone_from(&address);
                    self.errands.connect(attempt, (address, last), self.options.opening_timeout);
                }
                Some(Output::Disconnect) => self.stream = None,
                Some(Output::Save(resumption)) => self.save(resumption.as_deref()),
                Some(Output::Settled(ticket, outcome)) => self.settle(ticket, outcome),
                Some(Output::Event(event, delivery)) => self.tell(event, delivery),
            }
        }
    }

    fn settle(&self, ticket: Ticket, outcome: Outcome) {
        let mut inner = self.shared.lock();
        match inner.sinks.remove(&ticket) {
            // Who does not wait any more has no need of it.
            Some(Sink::Waiter(tell)) => drop(tell.try_send(answer(outcome))),
            Some(Sink::Callback(then)) => inner.calls.answer(then, outcome),
            None => {}
        }
        drop(inner);
        self.shared.notify();
    }

    /// Writes the session down; it takes as long as it takes, and nothing is sent meanwhile.
    fn save(&mut self, resumption: Option<&Resumption>) {
        let Some(store) = &mut self.store else { return };
        let state = resumption.map(encode).unwrap_or_default();
        let result = store.save(&state).map_err(|error| error.to_string());
        self.act(|session, now| session.saved(now, result));
    }

    fn tell(&self, event: Event, delivery: Option<Delivery>) {
        let mut inner = self.shared.lock();
        let Inner { inbox, calls, session, .. } = &mut *inner;
        match self.calls_events {
            true => calls.event(event, delivery),
            false => inbox.put(self.shared.now(), session, event, delivery),
        }
        drop(inner);
        self.shared.notify();
    }

    /// Reads once. Whether there may be more.
    fn read(&mut self) -> bool {
        let Some(stream) = self.stream.as_mut().filter(|stream| stream.is_readable) else { return false };
        match stream.socket.read(&mut self.buffer) {
            Ok(0) => self.lost(),
            Ok(count) => {
                let bytes = self.buffer.get(..count).unwrap_or_default();
                let is_open = self.act(|session, now| {
                    session.received(now, bytes);
                    matches!(session.state(), State::Open { .. } | State::GoingAway)
                });
                if is_open {
                    self.endpoints.opened();
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                stream.is_readable = false;
                return false;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.lost(),
        }
        true
    }

    fn lost(&mut self) {
        self.stream = None;
        self.act(ClientSession::disconnected);
    }

    /// Writes what there is. What fails is found out by reading: the gateway may have said why before.
    fn flush(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        let now = self.shared.now();
        let mut inner = self.shared.lock();
        let Some(output) = inner.session.output() else { return };
        while !output.is_empty() {
            match stream.socket.write(output) {
                Ok(0) => break,
                Ok(count) => {
                    output.drain(..count);
                    stream.blocked = Mono::NEVER;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    stream.blocked = stream.blocked.min(now);
                    break;
                }
                Err(_) => {
                    output.clear();
                    stream.is_readable = true;
                }
            }
        }
        let is_stalled = stream.blocked + WRITE_TIMEOUT <= now;
        drop(inner);
        if is_stalled {
            self.lost();
        }
    }

    /// Waits for something to do. Whether the client goes on.
    fn sleep(&mut self) -> bool {
        let mut inner = self.shared.lock();
        if matches!(inner.session.state(), State::Ended(_)) && !inner.session.has_outputs() {
            return false;
        }
        let now = self.shared.now();
        let stall = self.stream.as_ref().map_or(Mono::NEVER, |stream| stream.blocked + WRITE_TIMEOUT);
        let deadline = inner.session.next_deadline().min(stall);
        let is_busy =
            inner.session.has_outputs() || self.stream.as_ref().is_some_and(|stream| stream.is_readable);
        let timeout = if is_busy { Duration::ZERO } else { deadline.since(now) };
        inner.asleep_until = deadline;
        drop(inner);
        // What ends the wait early is looked at all the same.
        let _ = self.poll.poll(&mut self.events, (deadline != Mono::NEVER || is_busy).then_some(timeout));
        self.shared.lock().asleep_until = Mono::ZERO;
        if let Some(stream) = &mut self.stream {
            stream.is_readable |= self.events.iter().any(|event| event.token() == STREAM && is_read(event));
        }
        true
    }
}

/// Whether reading brings something, if only the end.
fn is_read(event: &mio::event::Event) -> bool {
    event.is_readable() || event.is_read_closed() || event.is_error()
}
