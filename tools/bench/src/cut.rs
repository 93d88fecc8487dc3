//! `cut`: a fault-injection proxy. One thread forwards bytes between clients and a server, and ends connections as
//! [`faults`](crate::faults) plans it.
//!
//! ```text
//!   client ── read ──► pipe: split, delayed ── write ──► server        and the same back
//!                               └─ the planned byte or time: closed, reset or half open, on both sides
//! ```

use crate::clock::Clock;
use crate::cutting::{Abandoned, Cut};
use crate::dice::Dice;
use crate::faults::{Fault, Faults};
use crate::options::FaultProxy;
use crate::pipe::{Pipe, Shaping};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use moorgate_proto::time::Mono;
use serde_json::{Value, json};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const LISTENER: Token = Token(usize::MAX);
const END: Token = Token(usize::MAX - 1);
const READ_BYTES: usize = 16 * 1024;
/// The loop looks at its times at least this often.
const LOOK: Duration = Duration::from_millis(20);

/// What has happened.
#[derive(Debug, Default)]
struct Counts {
    accepted: u64,
    /// Above the bound of connections.
    refused: u64,
    /// The server could not be connected to.
    unconnected: u64,
    /// Ended by both peers in order.
    ended: u64,
    /// Ended by an error of a peer, and passed on as a reset.
    failed: u64,
    /// Ended by a fault.
    closed: u64,
    reset: u64,
    half_open: u64,
    /// Bytes and pieces that were forwarded, to the server and to the client.
    bytes: [u64; 2],
    writes: [u64; 2],
}

/// One of the two connections of a pair.
#[derive(Debug)]
struct Side {
    stream: TcpStream,
    is_connected: bool,
    can_read: bool,
    can_write: bool,
    /// Its peer sends nothing more.
    is_ended: bool,
    /// Its peer has the end of what is forwarded to it.
    is_shut: bool,
    /// For its peer.
    output: Pipe,
}

/// A client's connection and the one to the server.
#[derive(Debug)]
struct Pair {
    sides: [Side; 2],
    fault: Option<Fault>,
    began: Mono,
    bytes: u64,
    dice: Dice,
}

/// How a pair goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ended,
    Failed,
    Faulty(Cut),
}

struct Proxy<'a> {
    options: &'a FaultProxy,
    faults: Faults,
    shaping: Shaping,
    clock: Clock,
    poll: Poll,
    listener: TcpListener,
    pairs: Vec<Option<Pair>>,
    free: Vec<usize>,
    abandoned: Abandoned,
    buffer: Box<[u8]>,
    counts: Counts,
}

/// `moorgate-bench cut`.
pub(crate) fn cut(options: &FaultProxy) -> Result<(), String> {
    serve(options).map_err(|error| format!("{}: {error}", options.listen))
}

fn serve(options: &FaultProxy) -> io::Result<()> {
    let mut proxy = Proxy::new(options)?;
    println!("fault-injection proxy listens on {}", proxy.listener.local_addr()?);
    let is_over = Arc::new(AtomicBool::new(false));
    if options.until_eof {
        let (over, waker) = (is_over.clone(), Waker::new(proxy.poll.registry(), END)?);
        let wait = move || {
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
            over.store(true, Ordering::Release);
            // The loop looks soon anyway.
            let _ = waker.wake();
        };
        std::thread::Builder::new().name("end".to_owned()).spawn(wait)?;
    }
    let end = options.duration.map_or(Mono::NEVER, |time| proxy.clock.now() + time);
    let mut events = Events::with_capacity(1024);
    while !is_over.load(Ordering::Acquire) && proxy.clock.now() < end {
        proxy.turn(&mut events)?;
    }
    println!("{}", proxy.counts.json());
    Ok(())
}

impl Counts {
    fn json(&self) -> Value {
        let [to_server, to_client] = self.bytes;
        let [writes_to_server, writes_to_client] = self.writes;
        json!({
            "accepted": self.accepted,
            "refused": self.refused,
            "unconnected": self.unconnected,
            "ended": self.ended,
            "failed": self.failed,
            "closed": self.closed,
            "reset": self.reset,
            "half_open": self.half_open,
            "bytes_to_server": to_server,
            "bytes_to_client": to_client,
            "writes_to_server": writes_to_server,
            "writes_to_client": writes_to_client,
        })
    }

    fn faults(&self) -> u64 {
        self.closed.saturating_add(self.reset).saturating_add(self.half_open)
    }
}

impl Side {
    fn new(stream: TcpStream, is_connected: bool) -> Side {
        let output = Pipe::default();
        Side {
            stream,
            is_connected,
            can_read: false,
            can_write: false,
            is_ended: false,
            is_shut: false,
            output,
        }
    }
}

impl Pair {
    /// The fault that is due.
    fn due_fault(&self, now: Mono) -> Option<Cut> {
        let fault = self.fault?;
        (self.bytes >= fault.bytes || now >= self.began + fault.after).then_some(fault.cut)
    }

    /// When it is to be looked at again without an event.
    fn next_due(&self) -> Mono {
        let fault = self.fault.map_or(Mono::NEVER, |fault| self.began + fault.after);
        let [client, server] = &self.sides;
        let of = |side: &Side| if side.can_write { side.output.next_due() } else { Mono::NEVER };
        fault.min(of(client)).min(of(server))
    }

    /// Forwards what can be forwarded.
    fn forward(&mut self, now: Mono, shaping: Shaping, buffer: &mut [u8], counts: &mut Counts) -> State {
        loop {
            let mut is_moved = false;
            for (at, (bytes, writes)) in counts.bytes.iter_mut().zip(&mut counts.writes).enumerate() {
                if let Some(cut) = self.due_fault(now) {
                    return State::Faulty(cut);
                }
                let [client, server] = &mut self.sides;
                let (from, to) = if at == 0 { (client, server) } else { (server, client) };
                match read(from, to, (now, shaping), buffer, &mut self.dice) {
                    Ok(has_read) => is_moved |= has_read,
                    Err(_) => return State::Failed,
                }
                // No byte beyond that of the fault.
                let left = self.fault.map_or(u64::MAX, |fault| fault.bytes.saturating_sub(self.bytes));
                match write(to, now, left, writes) {
                    Ok(count) => {
                        is_moved |= count > 0;
                        self.bytes = self.bytes.saturating_add(count);
                        *bytes = bytes.saturating_add(count);
                    }
                    Err(_) => return State::Failed,
                }
                if from.is_ended && to.output.is_empty() && to.is_connected && !to.is_shut {
                    to.is_shut = true;
                    // Its peer may have gone: then that shows when it is read.
                    let _ = to.stream.shutdown(Shutdown::Write);
                }
            }
            if self.sides.iter().all(|side| side.is_shut) {
                return State::Ended;
            }
            if !is_moved {
                return State::Open;
            }
        }
    }
}

/// Reads as much as there is room for; whether anything was read.
fn read(
    from: &mut Side,
    to: &mut Side,
    (now, shaping): (Mono, Shaping),
    buffer: &mut [u8],
    dice: &mut Dice,
) -> io::Result<bool> {
    let mut has_read = false;
    while from.can_read && !from.is_ended {
        let room = to.output.room(shaping).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..room).filter(|buffer| !buffer.is_empty()) else { break };
        match from.stream.read(buffer) {
            Ok(0) => from.is_ended = true,
            Ok(count) => {
                to.output.push(now, buffer.get(..count).unwrap_or_default(), shaping, dice);
                has_read = true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => from.can_read = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(has_read)
}

/// Writes the pieces that are due, up to so many bytes; how many were written.
fn write(to: &mut Side, now: Mono, mut left: u64, writes: &mut u64) -> io::Result<u64> {
    let mut written = 0u64;
    while to.can_write
        && left > 0
        && let Some(piece) = to.output.due(now)
    {
        let len = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match to.stream.write(piece.get(..len).unwrap_or_default()) {
            Ok(count) => {
                to.output.sent(count);
                (left, written) = (left.saturating_sub(count as u64), written.saturating_add(count as u64));
                *writes = writes.saturating_add(1);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.can_write = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

impl<'a> Proxy<'a> {
    fn new(options: &'a FaultProxy) -> io::Result<Proxy<'a>> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(options.listen)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Proxy {
            faults: Faults {
                seed: options.seed,
                percent: options.fault_percent,
                bytes: options.fault_bytes,
                within: options.fault_within,
                kinds: options.faults.clone(),
            },
            shaping: Shaping { delay: options.delay, split: options.split },
            clock: Clock::start(),
            poll,
            listener,
            pairs: Vec::new(),
            free: Vec::new(),
            abandoned: Abandoned::new(options.half_open),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            counts: Counts::default(),
            options,
        })
    }

    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        let now = self.clock.now();
        let next = self.pairs.iter().flatten().map(Pair::next_due).min().unwrap_or(Mono::NEVER);
        match self.poll.poll(events, Some(next.since(now).min(LOOK))) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in events.iter() {
            match event.token() {
                LISTENER => self.accept()?,
                END => {}
                Token(token) => self.event(token, event),
            }
        }
        let now = self.clock.now();
        for index in 0..self.pairs.len() {
            if self.pairs.get(index).and_then(Option::as_ref).is_some_and(|pair| pair.next_due() <= now) {
                self.forward(index);
            }
        }
        self.abandoned.close(now);
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let client = match self.listener.accept() {
                Ok((client, _)) => client,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // The connection is gone, or there are no descriptors: the next event or turn tries again.
                Err(_) => return Ok(()),
            };
            let number = self.counts.accepted;
            self.counts.accepted = number.saturating_add(1);
            let open = self.pairs.len().saturating_sub(self.free.len());
            if open.saturating_add(self.abandoned.len() / 2) >= self.options.connections_max {
                self.counts.refused = self.counts.refused.saturating_add(1);
                continue;
            }
            if let Err(error) = self.open(number, client) {
                eprintln!("{}: {error}", self.options.target);
                self.counts.unconnected = self.counts.unconnected.saturating_add(1);
            }
        }
    }

    fn open(&mut self, number: u64, mut client: TcpStream) -> io::Result<()> {
        let mut server = TcpStream::connect(self.options.target)?;
        // Pieces are to stay apart.
        client.set_nodelay(true)?;
        let index = self.free.last().copied().unwrap_or(self.pairs.len());
        for (stream, side) in [(&mut client, 0), (&mut server, 1)] {
            let token = Token(index.saturating_mul(2).saturating_add(side));
            self.poll.registry().register(stream, token, Interest::READABLE | Interest::WRITABLE)?;
        }
        if self.free.pop().is_none() {
            self.pairs.push(None);
        }
        let bound = self.options.faults_max;
        let (fault, dice) = self.faults.plan(number);
        if let Some(place) = self.pairs.get_mut(index) {
            *place = Some(Pair {
                sides: [Side::new(client, true), Side::new(server, false)],
                fault: fault.filter(|_| bound == 0 || self.counts.faults() < bound),
                began: self.clock.now(),
                bytes: 0,
                dice,
            });
        }
        Ok(())
    }

    fn event(&mut self, token: usize, event: &mio::event::Event) {
        let index = token / 2;
        let Some(pair) = self.pairs.get_mut(index).and_then(Option::as_mut) else { return };
        let [client, server] = &mut pair.sides;
        let side = if token.is_multiple_of(2) { client } else { server };
        if !side.is_connected {
            match side.stream.take_error().and_then(|error| error.map_or(Ok(()), Err)) {
                Ok(()) if side.stream.peer_addr().is_ok() => {
                    side.is_connected = true;
                    let _ = side.stream.set_nodelay(true);
                }
                Ok(()) => return,
                Err(_) => {
                    self.counts.unconnected = self.counts.unconnected.saturating_add(1);
                    return self.end(index, Cut::Reset);
                }
            }
        }
        side.can_read |= event.is_readable() || event.is_read_closed() || event.is_error();
        side.can_write |= event.is_writable();
        self.forward(index);
    }

    fn forward(&mut self, index: usize) {
        let now = self.clock.now();
        let Some(pair) = self.pairs.get_mut(index).and_then(Option::as_mut) else { return };
        let counts = &mut self.counts;
        let bound = self.options.faults_max;
        if bound > 0 && counts.faults() >= bound {
            pair.fault = None;
        }
        let (count, cut) = match pair.forward(now, self.shaping, &mut self.buffer, counts) {
            State::Open => return,
            State::Ended => (&mut counts.ended, Cut::Close),
            State::Failed => (&mut counts.failed, Cut::Reset),
            State::Faulty(Cut::Close) => (&mut counts.closed, Cut::Close),
            State::Faulty(Cut::Reset) => (&mut counts.reset, Cut::Reset),
            State::Faulty(Cut::HalfOpen) => (&mut counts.half_open, Cut::HalfOpen),
        };
        *count = count.saturating_add(1);
        self.end(index, cut);
    }

    /// Ends both connections of a pair.
    fn end(&mut self, index: usize, cut: Cut) {
        let Some(pair) = self.pairs.get_mut(index).and_then(Option::take) else { return };
        self.free.push(index);
        let now = self.clock.now();
        for side in pair.sides {
            // A socket whose peer has reset it cannot be reset again.
            let _ = self.abandoned.cut(now, side.stream, cut, self.poll.registry());
        }
    }
}
