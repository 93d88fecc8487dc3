//! Servers to load: an echo service for a gateway, and a bare echo server.

use crate::clock::Clock;
use crate::options::EchoService;
use crossbeam_channel::bounded;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use moorgate_proto::time::Mono;
use moorgate_service::{Call, Later, LinkKey, Reply, Responder, Service};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

const LISTENER: Token = Token(usize::MAX);
const BACKLOG: i32 = 4096;
const READ_BYTES: usize = 64 * 1024;
/// Answers that wait for their time.
const DELAYED_MAX: usize = 1 << 16;

/// `moorgate-bench echo-service`.
pub(crate) fn echo_service(options: &EchoService) -> Result<(), String> {
    let mut service = Service::named(&options.service_name)
        .outstanding_max(options.capacity)
        .handle(0..=u32::MAX, echo(options.delay)?);
    if let Some(path) = &options.key_file {
        service = service.key(link_key(path)?);
    }
    let listening = service.listen(options.listen).map_err(|error| format!("{}: {error}", options.listen))?;
    println!("service {} listens on {}", options.service_name, listening.address());
    listening.run();
    Ok(())
}

type Handler = Box<dyn Fn(&Call<'_>, Responder<'_>) + Send>;

/// Answers with what was asked, at once or so much later.
fn echo(delay: Duration) -> Result<Handler, String> {
    if delay.is_zero() {
        return Ok(Box::new(|call, responder| responder.reply(Reply::ok(call.payload()))));
    }
    let clock = Clock::start();
    let (late, waiting) = bounded::<(Mono, Later, Box<[u8]>)>(DELAYED_MAX);
    // All wait equally long: first come, first answered.
    let answer = move || {
        let (_keep, pause) = bounded::<()>(0);
        for (due, later, payload) in waiting {
            let left = due.since(clock.now());
            if !left.is_zero() {
                let _ = pause.recv_timeout(left);
            }
            later.reply(Reply::ok(&payload));
        }
    };
    let thread = std::thread::Builder::new().name("delay".to_owned());
    thread.spawn(answer).map_err(|error| error.to_string())?;
    Ok(Box::new(move |call, responder| {
        let answer = (clock.now() + delay, responder.later(), call.payload().into());
        // One that does not fit is answered INTERNAL: the responder is dropped.
        let _ = late.try_send(answer);
    }))
}

/// The key that gateway and service hold.
pub(crate) fn link_key(path: &Path) -> Result<LinkKey, String> {
    let secret = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    LinkKey::new(secret.trim_ascii_end()).ok_or_else(|| format!("{}: fewer than 16 bytes", path.display()))
}

struct Echo {
    stream: TcpStream,
    unsent: Vec<u8>,
    closing: bool,
}

impl Echo {
    /// Writes back what is there; whether the connection goes on.
    fn serve(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        loop {
            if !self.unsent.is_empty() {
                let count = self.stream.write(&self.unsent)?;
                self.unsent.drain(..count);
                if !self.unsent.is_empty() {
                    return Ok(true);
                }
            }
            let count = self.stream.read(buffer)?;
            if count == 0 {
                return Ok(false);
            }
            let bytes = buffer.get(..count).unwrap_or_default();
            let written = match self.stream.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                written => written?,
            };
            self.unsent.extend_from_slice(bytes.get(written..).unwrap_or_default());
            if count < buffer.len() && !self.closing && self.unsent.is_empty() {
                return Ok(true);
            }
        }
    }
}

/// `moorgate-bench bare-echo`.
pub(crate) fn bare_echo(listen: SocketAddr) -> Result<(), String> {
    serve_bare_echo(listen).map_err(|error| format!("{listen}: {error}"))
}

fn serve_bare_echo(listen: SocketAddr) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(listen)?;
    // As many wait to be accepted as a gateway lets wait, by its default.
    rustix::net::listen(&listener, BACKLOG)?;
    println!("bare echo listens on {}", listener.local_addr()?);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut peers: Vec<Option<Echo>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        if let Err(error) = poll.poll(&mut events, None)
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    let index = free.pop().unwrap_or(peers.len());
                    poll.registry().register(
                        &mut stream,
                        Token(index),
                        Interest::READABLE | Interest::WRITABLE,
                    )?;
                    if index == peers.len() {
                        peers.push(None);
                    }
                    if let Some(peer) = peers.get_mut(index) {
                        *peer = Some(Echo { stream, unsent: Vec::new(), closing: false });
                    }
                }
                continue;
            }
            let index = event.token().0;
            let Some(entry) = peers.get_mut(index) else { continue };
            let Some(peer) = entry else { continue };
            peer.closing |= event.is_read_closed() || event.is_error();
            let goes_on = match peer.serve(&mut buffer) {
                Ok(goes_on) => goes_on,
                Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
            };
            if !goes_on {
                *entry = None;
                free.push(index);
            }
        }
    }
}
