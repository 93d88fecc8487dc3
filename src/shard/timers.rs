//! What happens when nothing happens: deadlines of connections, and the drain.

use super::connection::State;
use super::{CloseReason, Drain, Shard};
use crate::base::clock::Now;
use crate::base::ids::{ConnectionKey, SessionKey};
use crate::session::{Expiry, Fault};
use moorgate_proto::action;
use moorgate_proto::envelope::member::gateway;
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{self, Execution, Reason};
use std::time::Duration;

/// How far civil time may move against the time of deadlines before alarms are set anew.
const CLOCKS_APART_MAX_MS: u64 = 1000;

impl Shard {
    /// When [`Shard::timers`] has something to do.
    pub fn next_deadline(&self) -> Option<Mono> {
        let drain = match self.drain {
            Drain::Until(deadline) => Some(deadline),
            Drain::No | Drain::Over => None,
        };
        let others = self.detached.next_due().into_iter().chain(drain).chain(self.spare_buffers.next_due());
        self.wheel.next_due().into_iter().chain(others).min()
    }

    /// Whether a connection or a session has a deadline, or had one that is not looked at yet.
    pub fn has_deadlines(&self) -> bool {
        self.wheel.next_due().is_some() || self.detached.next_due().is_some()
    }

    /// Looks at every deadline that has come.
    pub fn timers(&mut self, now: Now) {
        while let Some((key, due)) = self.wheel.expire(now.mono) {
            if let Some(connection) = self.connections.get_mut(key)
                && connection.alarm.rings(due)
            {
                self.deadline(now, key);
            }
        }
        self.detached_timers(now);
        self.spare_buffers.trim(now.mono);
        if matches!(self.drain, Drain::Until(deadline) if deadline <= now.mono) {
            self.end_all(now);
        }
        self.check_invariants();
    }

    /// Access tokens expire by civil time, and alarms ring by the time without pauses: where one has moved against the
    /// other, alarms are set anew. Called before anything else of a turn.
    pub fn compare_clocks(&mut self, now: Now) {
        let apart_ms = now.unix_ms.wrapping_sub(now.mono.as_nanos() / 1_000_000);
        if apart_ms.abs_diff(self.clocks_apart_ms) >= CLOCKS_APART_MAX_MS {
            self.clocks_apart_ms = apart_ms;
            let keys: Vec<ConnectionKey> = self.connections.keys().collect();
            keys.into_iter().for_each(|key| self.arm_session(now, key));
        }
    }

    fn deadline(&mut self, now: Now, key: ConnectionKey) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        let frame_due = connection.frame_deadline(self.settings.frame_timeout);
        let write_due = connection.write_deadline(self.settings.write_timeout);
        let next = match connection.state {
            State::Opening(due, _) | State::Moving(due) if due <= now.mono => {
                return self.fault(now, key, Fault::HandshakeTimeout);
            }
            State::Confirming(due) if due <= now.mono => return self.unconfirmed(now, key),
            State::Closing(due) | State::HalfClosed(due) if due <= now.mono => return self.forget(key),
            State::Opening(due, _) => due.min(frame_due),
            State::Confirming(due) | State::Moving(due) | State::Closing(due) | State::HalfClosed(due) => due,
            State::Open(session) => {
                if write_due <= now.mono {
                    return self.close(now, key, CloseReason::Fault(Fault::WriteStalled));
                }
                if let Some(fault) = self.session_overdue(now, key, session) {
                    return self.fault(now, key, fault);
                }
                self.connections.get(key).map_or(Mono::NEVER, |c| self.session_deadline(now, c, session))
            }
        };
        if frame_due <= now.mono
            && matches!(self.connections.get(key), Some(c) if c.frame_began != Mono::NEVER)
        {
            return self.fault(now, key, Fault::FrameTimeout);
        }
        self.arm(key, next);
    }

    /// Silence and expiry. An idle session also gives back its queues here.
    fn session_overdue(&mut self, now: Now, key: ConnectionKey, session_key: SessionKey) -> Option<Fault> {
        let connection = self.connections.get(key)?;
        let session = self.sessions.get_mut(session_key)?;
        session.shrink();
        self.limits.leave(now.mono, &mut session.standing);
        if connection.silence_deadline(session.heartbeat()) <= now.mono {
            return Some(Fault::HeartbeatTimeout);
        }
        if session.expiry.due(now) > now.mono {
            return None;
        }
        match session.expiry {
            Expiry::Never => None,
            Expiry::At(_) => {
                session.expiry = Expiry::Grace(now.mono + self.settings.expiry_grace);
                let notice = v1::Notice {
                    status: Code::Unauthenticated.to_wire(),
                    reason: Reason::TokenExpired.into(),
                    message: "the access token has expired: the connection will close".to_owned(),
                    member: 0,
                    action: action::of(Reason::TokenExpired, Execution::Unspecified).into(),
                };
                self.put_optional(key, gateway::NOTICE, &notice);
                None
            }
            Expiry::Grace(_) => Some(Fault::TokenExpired),
            Expiry::LoggedOut(_) => Some(Fault::LoggedOut),
        }
    }

    /// Arms the alarm of a connection that has just got its session.
    pub(super) fn arm_session(&mut self, now: Now, key: ConnectionKey) {
        if let (Some(connection), Some(session)) = (self.connections.get(key), self.session_of(key)) {
            let due = self.session_deadline(now, connection, session);
            self.arm(key, due);
        }
    }

    /// Begins the drain: every client is told to go, requests are served for `timeout`, then all is closed.
    pub fn drain(&mut self, now: Now, timeout: Duration) {
        if self.drain != Drain::No {
            return;
        }
        self.drain = Drain::Until(now.mono + timeout);
        self.end_detached(now);
        let keys: Vec<ConnectionKey> = self.connections.keys().collect();
        for key in keys {
            if self.session_of(key).is_none() {
                // Whoever has not said Hello yet says it elsewhere; the drain does not wait for it.
                if self.connections.get(key).is_some_and(|it| it.state.is_opening()) {
                    self.close(now, key, CloseReason::Fault(Fault::Shutdown));
                }
                continue;
            }
            let go_away = v1::GoAway {
                reason: Reason::Shutdown.into(),
                deadline_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
                reconnect_after_ms: self.reconnect_after_ms(),
                addresses: Vec::new(),
                resumable: false,
                message: String::new(),
            };
            self.put(key, gateway::GO_AWAY, &go_away);
        }
    }

    fn end_all(&mut self, now: Now) {
        let keys: Vec<ConnectionKey> = self.connections.keys().collect();
        for key in keys {
            self.close(now, key, CloseReason::Fault(Fault::Shutdown));
        }
        // Nothing is left to end but what lingers, and that has deadlines of its own.
        self.drain = Drain::Over;
    }
}
