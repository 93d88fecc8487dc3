//! How a shard accepts connections: from the listeners to itself or another shard, and what it does without descriptors.

use super::{Handed, ShardLoop, refuse};
use crate::base::clock::Now;
use crate::base::counters::Count;
use crate::base::ids::ListenerId;
use crate::reactor::AcceptMode;
use crate::reactor::listener::canonical;
use crate::session::Fault;
use crate::shard::farewell;
use mio::net::TcpStream;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// How long a listener rests when descriptors have run out.
const PAUSE: Duration = Duration::from_millis(100);
/// Error numbers of Linux: no descriptor is left in the system, or in the process, or no memory.
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENOMEM: i32 = 12;
const ENOBUFS: i32 = 105;

impl ShardLoop {
    pub(super) fn accept_all(&mut self, now: Now) {
        for at in 0..self.parts.listeners.len() {
            for _ in 0..self.parts.accepts_per_turn {
                if !self.accept(now, at) {
                    break;
                }
            }
        }
    }

    /// Accepts one connection; whether to go on.
    fn accept(&mut self, now: Now, at: usize) -> bool {
        let Some(listener) = self.parts.listeners.get_mut(at) else { return false };
        if listener.paused_until.is_some_and(|until| until > now.mono) || !listener.is_ready {
            return false;
        }
        listener.paused_until = None;
        if let Some(wait) = listener.tokens.as_mut().and_then(|tokens| tokens.wait(now.mono)) {
            // What comes meanwhile waits in the kernel's queue.
            listener.paused_until = Some(now.mono + wait);
            self.parts.cells.count(Count::AcceptRests);
            return false;
        }
        match listener.socket.accept() {
            Ok((stream, peer)) => {
                if let Some(tokens) = &mut listener.tokens {
                    tokens.take(now.mono);
                }
                let id = listener.id;
                let shared = listener.accept == AcceptMode::Shared;
                if self.spare.is_none() {
                    // Another thread had it, when it was given up.
                    self.spare = spare_descriptor();
                }
                self.admit(now, stream, canonical(peer), (id, shared));
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                listener.is_ready = false;
                false
            }
            Err(error) => self.accept_failed(now, at, &error),
        }
    }

    fn accept_failed(&mut self, now: Now, at: usize, error: &io::Error) -> bool {
        let Some(listener) = self.parts.listeners.get_mut(at) else { return false };
        let code = error.raw_os_error();
        if !is_exhaustion(error) {
            // The connection that was to be accepted has failed; the listener has not.
            self.parts.cells.count(Count::AcceptErrors);
            return true;
        }
        // With the spare descriptor given up there is one for a client to be told.
        if matches!(code, Some(EMFILE | ENFILE)) && self.spare.take().is_some() {
            if let Ok((stream, _)) = listener.socket.accept() {
                self.parts.cells.count(Count::RefusedDescriptors);
                refuse(stream, &farewell(&Fault::ConnectionLimit));
            }
            self.spare = spare_descriptor();
        }
        if let Some(listener) = self.parts.listeners.get_mut(at) {
            listener.paused_until = Some(now.mono + PAUSE);
        }
        self.parts.cells.count(Count::ListenerPauses);
        false
    }

    fn admit(
        &mut self,
        now: Now,
        stream: TcpStream,
        peer: SocketAddr,
        (listener, shared): (ListenerId, bool),
    ) {
        if let Some(addresses) = &self.parts.addresses
            && !addresses.charge(peer.ip())
        {
            self.parts.cells.count(Count::RefusedAddress);
            self.end();
            self.parts.shard.shed_openings_of(now, peer.ip());
            let taken = self.parts.shard.turned_away(now, peer, Fault::ConnectionLimit);
            return self.watch(now, taken, stream, (peer, false));
        }
        let mut handed = Handed { stream, peer, charged: true, in_room: false, listener, resume: None };
        // Without room it is refused here.
        if !shared || self.parts.hand_out.len() <= 1 || !self.parts.shard.enter_room() {
            return self.adopt(now, handed);
        }
        handed.in_room = true;
        self.next_shard = self.next_shard.saturating_add(1) % self.parts.hand_out.len();
        let Some(outbox) = self.parts.hand_out.get(self.next_shard) else { return };
        match outbox.post(handed) {
            Ok(()) => outbox.ring(),
            // That shard has more than it can take in: it is served here.
            Err(handed) => self.adopt(now, handed),
        }
    }

    /// Refuses the connections that wait to be accepted, whatever the rates are: the end of their socket would reset them.
    pub(super) fn close_listeners(&mut self, now: Now) {
        for listener in std::mem::take(&mut self.parts.listeners) {
            let waiting = if listener.is_inherited { 0 } else { usize::from(u16::MAX) };
            for _ in 0..waiting {
                match listener.socket.accept() {
                    Ok((stream, peer)) => {
                        self.end();
                        let peer = canonical(peer);
                        let refused = self.parts.shard.turned_away(now, peer, Fault::Shutdown);
                        self.watch(now, refused, stream, (peer, false));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // There is nothing left to refuse them with.
                    Err(error) if is_exhaustion(&error) => break,
                    Err(_) => self.parts.cells.count(Count::AcceptErrors),
                }
            }
            listener.close(&self.parts.registry);
        }
    }
}

/// No descriptor is left, or no memory.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOMEM | ENOBUFS))
}

pub(super) fn spare_descriptor() -> Option<File> {
    File::open("/dev/null").ok()
}
