//! The one way in which a connection ends.

use super::Shard;
use super::connection::State;
use crate::base::clock::Now;
use crate::base::counters::Count;
use crate::base::ids::{ConnectionKey, SessionKey};
use crate::directory::Life;
use crate::session::{Fault, Session};
use moorgate_proto::envelope::member::gateway::{BYE_ACK, ERROR};
use moorgate_proto::v1;
use std::net::SocketAddr;
use std::time::Duration;

/// Why a connection is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// The client gets a final Error.
    Fault(Fault),
    /// The client said Bye, and its session is to be kept for so long.
    Bye(Duration),
    /// The peer closed the connection, or its socket failed.
    Peer,
}

impl CloseReason {
    fn count(&self) -> Count {
        match self {
            CloseReason::Fault(fault) => fault.count(),
            CloseReason::Bye(_) => Count::CloseBye,
            CloseReason::Peer => Count::ClosePeer,
        }
    }

    /// Whether it ends an opening that was to resume a session, which may be tried again with a new access token.
    fn leaves_session(&self) -> bool {
        matches!(self, CloseReason::Fault(Fault::TokenExpired))
    }

    /// How long the session may live on, of at most `ttl`.
    fn keeps(&self, ttl: Duration) -> Duration {
        match self {
            CloseReason::Fault(fault) if fault.keeps_session() => ttl,
            CloseReason::Fault(_) => Duration::ZERO,
            CloseReason::Bye(wished) => ttl.min(*wished),
            CloseReason::Peer => ttl,
        }
    }
}

/// What the reactor does with the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Send the end of our stream; the peer's is still awaited, so that our last frame is not lost to a reset.
    ShutdownWrite,
    /// Close it. The key is dead. The peer that it was connected to.
    Close(SocketAddr),
}

impl Shard {
    /// The next socket to shut down or close, after everything was flushed.
    pub fn next_ended(&mut self) -> Option<(ConnectionKey, End)> {
        self.ended.pop()
    }

    /// Ends a connection. Its session is detached, or ends too: calls that were admitted run on then, and their answers
    /// find nobody.
    pub(super) fn close(&mut self, now: Now, key: ConnectionKey, reason: CloseReason) {
        let Some(state) = self.connections.get(key).map(|connection| connection.state) else {
            return;
        };
        let closed_before = match state {
            State::Opening(..) | State::Confirming(_) | State::Moving(_) | State::Open(_) => {
                self.cells.count(reason.count());
                false
            }
            State::Closing(_) | State::HalfClosed(_) => true,
        };
        let (mut admitted, mut resumable) = (0, state.is_opening() && reason.leaves_session());
        if state.is_opening() {
            self.handshakes = self.handshakes.saturating_sub(1);
            let early = self.confirmations.forget(key);
            self.partial_bytes = self.partial_bytes.saturating_sub(early);
        }
        if let State::Open(session_key) = state
            && let Some(session) = self.sessions.get(session_key)
        {
            admitted = session.up.admitted();
            let ttl = reason.keeps(self.session_settings.detached_ttl);
            resumable = !ttl.is_zero() && self.keeps_sessions() && !session.is_leaving();
            if resumable {
                self.detach(now, session_key, ttl);
                // There may have been no room for it.
                resumable = self.sessions.get(session_key).is_some();
            } else {
                if session.is_leaving() {
                    self.remember_ended(session_key, Fault::LoggedOut);
                }
                if let Some(session) = self.sessions.remove(session_key) {
                    self.end_session(now, session_key, session);
                }
            }
        }
        self.drop_partial(key);
        let stalled = self.connections.get(key).is_some_and(|connection| connection.output.is_stalled());
        match reason {
            CloseReason::Peer => self.forget(key),
            CloseReason::Fault(Fault::WriteStalled) if stalled => self.forget(key),
            CloseReason::Fault(_) | CloseReason::Bye(_) if closed_before => {}
            CloseReason::Fault(fault) => {
                let error = match fault {
                    Fault::Shutdown => fault.error_after(admitted, self.reconnect_after_ms()),
                    _ => fault.error(admitted, resumable),
                };
                log::debug!("{}: closed: {fault}", self.peer_name(key));
                self.linger(now, key);
                self.put(key, ERROR, &error);
            }
            CloseReason::Bye(_) => {
                self.linger(now, key);
                self.put(key, BYE_ACK, &v1::ByeAck {});
            }
        }
    }

    /// A session is gone: nobody finds it any more.
    pub(super) fn end_session(&mut self, now: Now, key: SessionKey, mut session: Session) {
        self.limits.leave(now.mono, &mut session.standing);
        self.owed_bytes = self.owed_bytes.saturating_sub(session.down.kept_bytes());
        self.leave_all(&mut session);
        self.lose_all(&mut session);
        self.directory.note(self.session_ref(key), Life::Ended);
        if !session.caller.is_anonymous() {
            self.directory.release(&session.caller.user_id, self.session_ref(key));
        }
        self.directory.set_sessions(self.batch.shard, self.sessions.len());
        // Last: who reads that it has ended may rely on it.
        self.cells.count(Count::SessionsEnded);
    }

    pub(super) fn linger(&mut self, now: Now, key: ConnectionKey) {
        let deadline = now.mono + self.settings.linger;
        if let Some(connection) = self.connections.get_mut(key) {
            connection.state = State::Closing(deadline);
        }
        self.arm(key, deadline);
    }

    /// Takes the connection out of the slab and has its socket closed.
    pub(super) fn forget(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connections.remove(key) {
            self.room.leave();
            self.cells.count(Count::ConnectionsClosed);
            self.ended.push((key, End::Close(connection.peer())));
        }
    }

    /// Drops the unfinished frame of a connection, and its share of the budget.
    pub(super) fn drop_partial(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connections.get_mut(key) {
            self.partial_bytes = self.partial_bytes.saturating_sub(connection.assembler.held_bytes());
            connection.assembler.clear();
            connection.frame_began = moorgate_proto::time::Mono::NEVER;
        }
    }

    fn peer_name(&self, key: ConnectionKey) -> String {
        self.connections.get(key).map(|connection| connection.peer().to_string()).unwrap_or_default()
    }

    /// A moment of its own for each client to come back.
    pub(super) fn reconnect_after_ms(&mut self) -> u32 {
        let delay = self.rng.up_to(self.settings.reconnect_spread);
        u32::try_from(delay.as_millis()).unwrap_or(u32::MAX)
    }
}
