//! `bare-push`: the physical floor of a fan-out. One thread accepts connections, and writes each push as a
//! length-prefixed frame to all of its target in a plain loop of write(2) calls.
//!
//! A client's first frame is the number of its target, or [`NO_TARGET`], which is repeated to it. On a control
//! connection each frame is a target's number and the payload to push; it is answered by the target's number and to how
//! many connections it was written.

use crate::bare_control::ANSWER_BYTES;
use crate::connection::put_raw_frame;
use crate::receiver::NO_TARGET;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use moorgate_proto::codec::Assembler;
use std::io::{self, Read, Write};
use std::net::SocketAddr;

const CLIENTS: Token = Token(usize::MAX);
const CONTROLS: Token = Token(usize::MAX - 1);
const READ_BYTES: usize = 64 * 1024;
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A connection that does not read this much is closed.
const UNSENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Targets at the most.
const TARGETS_MAX: u32 = 1 << 20;

/// `moorgate-bench bare-push`.
pub(crate) fn bare_push(listen: SocketAddr, control: SocketAddr) -> Result<(), String> {
    let server = Server::bind(listen, control).map_err(|error| format!("{listen}, {control}: {error}"))?;
    server.run().map_err(|error| error.to_string())
}

enum Role {
    Client { target: Option<u32> },
    Control,
}

struct Peer {
    stream: TcpStream,
    role: Role,
    assembler: Assembler,
    unsent: Vec<u8>,
    closing: bool,
}

struct Server {
    poll: Poll,
    clients: TcpListener,
    controls: TcpListener,
    peers: Vec<Option<Peer>>,
    free: Vec<usize>,
    /// The connections of each target.
    targets: Vec<Vec<usize>>,
    frame: Vec<u8>,
}

impl Server {
    fn bind(listen: SocketAddr, control: SocketAddr) -> io::Result<Server> {
        let poll = Poll::new()?;
        let (mut clients, mut controls) = (TcpListener::bind(listen)?, TcpListener::bind(control)?);
        poll.registry().register(&mut clients, CLIENTS, Interest::READABLE)?;
        poll.registry().register(&mut controls, CONTROLS, Interest::READABLE)?;
        println!("bare push listens on {}, control on {}", clients.local_addr()?, controls.local_addr()?);
        let (peers, free, targets, frame) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Ok(Server { poll, clients, controls, peers, free, targets, frame })
    }

    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            if let Err(error) = self.poll.poll(&mut events, None)
                && error.kind() != io::ErrorKind::Interrupted
            {
                return Err(error);
            }
            for event in &events {
                match event.token() {
                    CLIENTS | CONTROLS => self.accept(event.token())?,
                    Token(index) => {
                        let Some(Some(peer)) = self.peers.get_mut(index) else { continue };
                        peer.closing |= event.is_read_closed() || event.is_error();
                        if peer.flush().is_err() || !self.read(index, &mut buffer) {
                            self.close(index);
                        }
                    }
                }
            }
        }
    }

    fn accept(&mut self, listener: Token) -> io::Result<()> {
        loop {
            let (accepted, role) = match listener {
                CONTROLS => (self.controls.accept(), Role::Control),
                _ => (self.clients.accept(), Role::Client { target: None }),
            };
            let Ok((mut stream, _)) = accepted else { return Ok(()) };
            stream.set_nodelay(true)?;
            let index = self.free.pop().unwrap_or(self.peers.len());
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(index), interest)?;
            if index == self.peers.len() {
                self.peers.push(None);
            }
            if let Some(entry) = self.peers.get_mut(index) {
                let assembler = Assembler::default();
                *entry = Some(Peer { stream, role, assembler, unsent: Vec::new(), closing: false });
            }
        }
    }

    /// Reads until there is nothing; whether the connection goes on.
    fn read(&mut self, index: usize, buffer: &mut [u8]) -> bool {
        loop {
            let Some(Some(peer)) = self.peers.get_mut(index) else { return true };
            let count = match peer.stream.read(buffer) {
                Ok(0) => return false,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return false,
            };
            let more = count == buffer.len() || peer.closing;
            let mut bytes = buffer.get(..count).unwrap_or_default();
            // It goes to and fro: a push needs all the others.
            let mut assembler = std::mem::take(&mut peer.assembler);
            let goes_on = loop {
                match assembler.next(&mut bytes, FRAME_BYTES_MAX) {
                    Ok(Some(frame)) => {
                        if !self.frame(index, frame) {
                            break false;
                        }
                    }
                    Ok(None) => break true,
                    Err(_) => break false,
                }
            };
            if let Some(Some(peer)) = self.peers.get_mut(index) {
                peer.assembler = assembler;
            }
            if !goes_on || !more {
                return goes_on;
            }
        }
    }

    /// `false`: the connection is no good.
    fn frame(&mut self, index: usize, frame: &[u8]) -> bool {
        let Some((target, payload)) = frame.split_first_chunk() else { return false };
        let target = u32::from_be_bytes(*target);
        let Some(Some(peer)) = self.peers.get_mut(index) else { return false };
        match &mut peer.role {
            Role::Control => self.push(index, target, payload),
            Role::Client { target: place @ None } if target < TARGETS_MAX || target == NO_TARGET => {
                *place = Some(target);
                if target != NO_TARGET {
                    let at = target as usize;
                    if self.targets.len() <= at {
                        self.targets.resize_with(at.saturating_add(1), Vec::new);
                    }
                    self.targets.get_mut(at).into_iter().for_each(|target| target.push(index));
                }
                self.frame.clear();
                put_raw_frame(&mut self.frame, frame);
                peer.write(&self.frame).is_ok()
            }
            Role::Client { .. } => false,
        }
    }

    /// The loop that everything is compared with.
    fn push(&mut self, control: usize, target: u32, payload: &[u8]) -> bool {
        self.frame.clear();
        put_raw_frame(&mut self.frame, payload);
        let (mut written, mut broken) = (0u32, Vec::new());
        for &index in self.targets.get(target as usize).into_iter().flatten() {
            let Some(Some(peer)) = self.peers.get_mut(index) else { continue };
            match peer.write(&self.frame) {
                Ok(()) => written = written.saturating_add(1),
                Err(_) => broken.push(index),
            }
        }
        broken.into_iter().for_each(|index| self.close(index));
        let mut answer = [0; ANSWER_BYTES];
        for (byte, value) in
            answer.iter_mut().zip(target.to_be_bytes().into_iter().chain(written.to_be_bytes()))
        {
            *byte = value;
        }
        let Some(Some(peer)) = self.peers.get_mut(control) else { return false };
        peer.write(&answer).is_ok()
    }

    fn close(&mut self, index: usize) {
        let Some(peer) = self.peers.get_mut(index).and_then(Option::take) else { return };
        self.free.push(index);
        if let Role::Client { target: Some(target) } = peer.role
            && let Some(connections) = self.targets.get_mut(target as usize)
            && let Some(at) = connections.iter().position(|connection| *connection == index)
        {
            connections.swap_remove(at);
        }
    }
}

impl Peer {
    /// Writes, and keeps what the socket does not take.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut written = 0;
        if self.unsent.is_empty() {
            written = match self.stream.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                written => written?,
            };
        }
        self.unsent.extend_from_slice(bytes.get(written..).unwrap_or_default());
        match self.unsent.len() > UNSENT_BYTES_MAX {
            true => Err(io::ErrorKind::OutOfMemory.into()),
            false => Ok(()),
        }
    }

    /// Writes what was kept.
    fn flush(&mut self) -> io::Result<()> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        match self.stream.write(&self.unsent) {
            Ok(count) => {
                self.unsent.drain(..count);
                Ok(())
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
