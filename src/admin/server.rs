//! The thread that answers: sockets, and whole requests and whole answers within bounds.
//!
//! One event loop has all peers, so that none of them waits for another one. Each has one deadline for its whole request
//! and one for its whole answer. When there are too many, those end first that have waited longest for their own end.
//!
//! ```text
//! Reading ── head complete, or wrong ──► Writing ── all sent ──► Closing ── the peer's end ──► gone
//!    └── deadline ──► gone                  └── deadline ──► gone   └── deadline ──► gone
//! ```

use super::Pages;
use super::answer::{Answer, Request, answer, not_a_request};
use super::host::is_own;
use crate::base::clock::Clock;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use moorgate_proto::time::Mono;
use slab::Slab;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A request above this size is refused.
const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// A request with more headers is refused.
const HEADERS_MAX: usize = 64;
/// Between two tries to accept when the system refuses.
const PAUSE: Duration = Duration::from_millis(100);
/// Without anything to do the loop turns this often.
const IDLE: Duration = Duration::from_secs(60);
const EVENTS_PER_TURN: usize = 128;
const ACCEPTS_PER_TURN: usize = 64;
const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

/// What one peer may take.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// From the connection to the end of the request's head.
    request: Duration,
    /// From there until the peer has taken the whole answer.
    answer: Duration,
    /// From there to the peer's own end.
    closing: Duration,
    /// Peers at once.
    peers: usize,
}

const BOUNDS: Bounds = Bounds {
    request: Duration::from_secs(2),
    answer: Duration::from_secs(10),
    closing: Duration::from_secs(2),
    peers: 64,
};

/// The thread that answers.
pub struct Admin {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    waker: Waker,
    thread: JoinHandle<()>,
}

impl Admin {
    /// Answers those who connect to a listening socket, until [`Admin::stop`]. `hosts`: names in a request's `Host` that are
    /// good, besides IP addresses and `localhost`.
    ///
    /// # Errors
    /// When the socket has no address, or there is no thread or descriptor left.
    pub fn start(
        listener: std::net::TcpListener,
        hosts: Vec<String>,
        pages: Arc<dyn Pages>,
    ) -> io::Result<Admin> {
        Admin::start_within(BOUNDS, listener, hosts, pages)
    }

    fn start_within(
        bounds: Bounds,
        listener: std::net::TcpListener,
        hosts: Vec<String>,
        pages: Arc<dyn Pages>,
    ) -> io::Result<Admin> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let mut listener = TcpListener::from_std(listener);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let stopping = Arc::new(AtomicBool::new(false));
        let server = Server {
            poll,
            listener,
            is_acceptable: true,
            paused_until: None,
            peers: Slab::new(),
            bounds,
            clock: Clock::start(),
            responder: Responder { hosts, pages },
        };
        let stop = stopping.clone();
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(move || server.run(&stop))?;
        Ok(Admin { address, stopping, waker, thread })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the thread.
    pub fn stop(self) {
        self.stopping.store(true, Ordering::Release);
        // It fails only when the poll is gone, and the thread with it.
        let _ = self.waker.wake();
        if self.thread.join().is_err() {
            log::error!("the admin thread has failed");
        }
    }
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    /// There may be connections to accept.
    is_acceptable: bool,
    /// The system refused to accept.
    paused_until: Option<Mono>,
    peers: Slab<Peer>,
    bounds: Bounds,
    clock: Clock,
    responder: Responder,
}

impl Server {
    fn run(mut self, stop: &AtomicBool) {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        while !stop.load(Ordering::Acquire) {
            let wait = self.wait(self.clock.read().mono);
            match self.poll.poll(&mut events, Some(wait)) {
                Ok(()) => {}
                // As after a pause of the whole process: what has arrived meanwhile goes before any deadline.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    log::error!("admin: {error}");
                    std::thread::park_timeout(PAUSE);
                }
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.is_acceptable = true,
                    WAKER => {}
                    Token(at) => self.advance(at),
                }
            }
            self.accept();
            let now = self.clock.read().mono;
            let is_late = |(at, peer): (usize, &Peer)| (peer.until <= now).then_some(at);
            let late: Vec<usize> = self.peers.iter().filter_map(is_late).collect();
            late.into_iter().for_each(|at| self.remove(at));
        }
    }

    /// Until the next deadline.
    fn wait(&self, now: Mono) -> Duration {
        if self.is_acceptable && self.paused_until.is_none() {
            return Duration::ZERO;
        }
        let deadlines = self.peers.iter().map(|(_, peer)| peer.until).chain(self.paused_until);
        deadlines.min().map_or(IDLE, |until| until.since(now).min(IDLE))
    }

    fn accept(&mut self) {
        let now = self.clock.read().mono;
        if !self.is_acceptable || self.paused_until.is_some_and(|until| until > now) {
            return;
        }
        self.paused_until = None;
        for _ in 0..ACCEPTS_PER_TURN {
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(now, stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_acceptable = false;
                    return;
                }
                // Without descriptors accept fails at once, and would again: it must not spin meanwhile.
                Err(error) => {
                    log::warn!("admin: {error}");
                    self.paused_until = Some(now + PAUSE);
                    return;
                }
            }
        }
    }

    fn admit(&mut self, now: Mono, stream: TcpStream) {
        if self.peers.len() >= self.bounds.peers {
            // Those that have been answered first, then those that say nothing.
            let oldest = self.peers.iter().min_by_key(|(_, peer)| (peer.phase.rank(), peer.until));
            if let Some(at) = oldest.map(|(at, _)| at) {
                log::warn!("admin: {} peers at once; the oldest one is closed", self.bounds.peers);
                self.remove(at);
            }
        }
        let until = now + self.bounds.request;
        let at = self.peers.insert(Peer { stream, phase: Phase::Reading(Vec::new()), until });
        let Some(peer) = self.peers.get_mut(at) else { return };
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self.poll.registry().register(&mut peer.stream, Token(at), interest) {
            Ok(()) => self.advance(at),
            Err(error) => {
                log::warn!("admin: {error}");
                self.remove(at);
            }
        }
    }

    /// Does for a peer what can be done now.
    fn advance(&mut self, at: usize) {
        let Some(peer) = self.peers.get_mut(at) else { return };
        match peer.advance(&self.responder, (self.clock, self.bounds)) {
            Ok(true) => {}
            Ok(false) => self.remove(at),
            Err(error) => {
                log::debug!("admin: {error}");
                self.remove(at);
            }
        }
    }

    fn remove(&mut self, at: usize) {
        if let Some(mut peer) = self.peers.try_remove(at) {
            // It fails when it was never registered.
            let _ = self.poll.registry().deregister(&mut peer.stream);
        }
    }
}

struct Peer {
    stream: TcpStream,
    phase: Phase,
    /// The end of its phase.
    until: Mono,
}

enum Phase {
    /// The head of the request, as far as it has come.
    Reading(Vec<u8>),
    /// The answer, and how much of it was sent.
    Writing(Vec<u8>, usize),
    /// How much is read until the peer's end: closing with something unread would be a reset, which may overtake the
    /// answer.
    Closing(usize),
}

impl Phase {
    /// The lowest ends first when there are too many.
    fn rank(&self) -> u8 {
        match self {
            Phase::Closing(_) => 0,
            Phase::Reading(_) => 1,
            Phase::Writing(..) => 2,
        }
    }
}

impl Peer {
    /// Proceeds until the socket blocks; `false`: the peer is finished.
    fn advance(&mut self, responder: &Responder, (clock, bounds): (Clock, Bounds)) -> io::Result<bool> {
        let mut chunk = [0; 1024];
        loop {
            match &mut self.phase {
                Phase::Reading(head) => {
                    let Some(count) = unblocked(self.stream.read(&mut chunk))? else { return Ok(true) };
                    head.extend_from_slice(chunk.get(..count).unwrap_or_default());
                    if let Some(bytes) = responder.answer(head, count == 0) {
                        self.phase = Phase::Writing(bytes, 0);
                        self.until = clock.read().mono + bounds.answer;
                    }
                }
                Phase::Writing(bytes, sent) => {
                    let rest = bytes.get(*sent..).unwrap_or_default();
                    if rest.is_empty() {
                        self.stream.shutdown(Shutdown::Write)?;
                        self.phase = Phase::Closing(REQUEST_BYTES_MAX);
                        self.until = clock.read().mono + bounds.closing;
                        continue;
                    }
                    let Some(count) = unblocked(self.stream.write(rest))? else { return Ok(true) };
                    *sent = sent.saturating_add(count);
                }
                Phase::Closing(rest) => {
                    let Some(count) = unblocked(self.stream.read(&mut chunk))? else { return Ok(true) };
                    *rest = rest.saturating_sub(count);
                    if count == 0 || *rest == 0 {
                        return Ok(false);
                    }
                }
            }
        }
    }
}

/// `None`: the socket would block.
fn unblocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What requests are answered from.
struct Responder {
    hosts: Vec<String>,
    pages: Arc<dyn Pages>,
}

impl Responder {
    /// The bytes of the answer; `None`: the head is not complete.
    fn answer(&self, head: &[u8], is_end: bool) -> Option<Vec<u8>> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut headers);
        let (answer, is_head) = match parsed.parse(head) {
            Ok(httparse::Status::Complete(_)) => {
                let request = self.request(&parsed);
                (answer(request, self.pages.as_ref()), request.method == "HEAD")
            }
            Ok(httparse::Status::Partial) if !is_end && head.len() < REQUEST_BYTES_MAX => return None,
            Ok(httparse::Status::Partial) | Err(_) => (not_a_request(), false),
        };
        Some(bytes(&answer, is_head))
    }

    fn request<'a>(&self, parsed: &httparse::Request<'_, 'a>) -> Request<'a> {
        let all = |name: &'static str| {
            let of_name = move |header: &&httparse::Header<'a>| header.name.eq_ignore_ascii_case(name);
            parsed.headers.iter().filter(of_name).map(|header| header.value)
        };
        let has_length = all("Content-Length").any(|length| length != b"0");
        Request {
            method: parsed.method.unwrap_or_default(),
            target: parsed.path.unwrap_or_default(),
            foreign_host: all("Host").find(|host| !is_own(host, &self.hosts)),
            has_origin: all("Origin").next().is_some(),
            has_body: has_length || all("Transfer-Encoding").next().is_some(),
        }
    }
}

/// An answer as it is sent; that to HEAD has the length and no body.
fn bytes(answer: &Answer, is_head: bool) -> Vec<u8> {
    let Answer { status, content_type, allow, body } = answer;
    let length = body.len();
    let allow = if allow.is_empty() { String::new() } else { format!("Allow: {allow}\r\n") };
    let body = if is_head { "" } else { body.as_str() };
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n{allow}Content-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    text.into_bytes()
}

#[cfg(test)]
mod tests;
