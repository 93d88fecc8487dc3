//! From bytes to frames, and each frame to what it asks for.

use super::connection::{Connection, State};
use super::{CloseReason, Shard};
use crate::base::clock::Now;
use crate::base::counters::Count;
use crate::base::ids::{ConnectionKey, SessionKey};
use crate::session::{CancelTarget, Fault};
use moorgate_proto::action;
use moorgate_proto::codec::Assembler;
use moorgate_proto::envelope::Envelope;
use moorgate_proto::envelope::member::{client, gateway};
use moorgate_proto::limits::FRAME_BYTES_OPENING;
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{self, Execution, Reason};
use prost::Message;
use std::time::Duration;

impl Shard {
    /// Bytes from a connection's socket. How many frames they completed: a turn takes a bounded number.
    pub fn received(&mut self, now: Now, key: ConnectionKey, bytes: &[u8]) -> usize {
        self.cells.add(Count::BytesReceived, bytes.len() as u64);
        let frames = self.take_bytes(now, key, bytes);
        self.check_invariants();
        frames
    }

    /// Bytes of a connection, as they came or as they were held.
    pub(super) fn take_bytes(&mut self, now: Now, key: ConnectionKey, bytes: &[u8]) -> usize {
        let Some(connection) = self.connections.get_mut(key) else {
            return 0;
        };
        // Taken out, so that its frames can be looked at while the rest of the shard changes.
        let mut assembler = std::mem::take(&mut connection.assembler);
        let held_before = assembler.held_bytes();
        let mut frames = 0;
        let result = self.frames(now, key, (&mut assembler, &mut frames), bytes);
        self.partial_bytes = self.partial_bytes.saturating_sub(held_before);
        if let Err(fault) = result {
            self.fault(now, key, fault);
        } else if let Some(connection) = self.connections.get_mut(key)
            && !matches!(connection.state, State::Closing(_) | State::HalfClosed(_))
        {
            self.partial_bytes = self.partial_bytes.saturating_add(assembler.held_bytes());
            connection.assembler = assembler;
            self.watch_partial(now, key);
        }
        frames
    }

    fn frames(
        &mut self,
        now: Now,
        key: ConnectionKey,
        (assembler, frames): (&mut Assembler, &mut usize),
        mut bytes: &[u8],
    ) -> Result<(), Fault> {
        loop {
            let Some(connection) = self.connections.get_mut(key) else {
                return Ok(());
            };
            let (session, max) = match connection.state {
                State::Opening(..) | State::Moving(_) => (None, FRAME_BYTES_OPENING),
                State::Confirming(_) => return self.hold_early(key, bytes),
                State::Open(session) => (Some(session), self.session_settings.frame_bytes_max),
                State::Closing(_) | State::HalfClosed(_) => return Ok(()),
            };
            let Some(frame) = assembler.next(&mut bytes, max)? else {
                return Ok(());
            };
            *frames = frames.saturating_add(1);
            connection.heard = now.mono;
            connection.announced = Mono::NEVER;
            connection.frame_began = Mono::NEVER;
            self.cells.count(Count::FramesReceived);
            self.limits.frame(now.mono, &mut connection.frames).map_err(Fault::FramesLimited)?;
            let envelope = Envelope::decode(frame)?;
            match session {
                None => self.first_frame(now, key, envelope)?,
                Some(session) => self.frame(now, (key, session), envelope)?,
            }
        }
    }

    /// Starts the clock of an unfinished frame, and keeps all of them within the budget.
    fn watch_partial(&mut self, now: Now, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.assembler.held_bytes() > 0 && connection.frame_began == Mono::NEVER {
            connection.frame_began = now.mono;
            let due = connection.frame_deadline(self.settings.frame_timeout);
            self.wheel.arm(&mut connection.alarm, key, due);
        }
        if self.partial_bytes > self.settings.partial_bytes_max {
            self.shed_partials(now);
        }
    }

    /// One frame of an open session.
    fn frame(
        &mut self,
        now: Now,
        (key, session_key): (ConnectionKey, SessionKey),
        envelope: Envelope<'_>,
    ) -> Result<(), Fault> {
        let Some(session) = self.sessions.get_mut(session_key) else {
            return Ok(());
        };
        session.prove();
        // Before anything else: the freeing acknowledgement must not be stuck behind a request.
        let held = session.down.kept_bytes();
        let mut taken = Vec::new();
        session.down.acknowledge(envelope.numbers.ack, |to| taken.push(to))?;
        self.owed_bytes = self.owed_bytes.saturating_sub(held).saturating_add(session.down.kept_bytes());
        if session.down.is_waiting() {
            // The window may have been what they waited for.
            self.pump(now, key);
        }
        if !taken.is_empty() {
            self.taken(session_key, taken);
        }
        let up_seq = envelope.numbers.seq;
        let Some((member, body)) = envelope.member else {
            return if up_seq == 0 { Ok(()) } else { Err(Fault::UnexpectedFrame(0)) };
        };
        if member == client::REQUEST {
            return self.request(now, session_key, up_seq, body);
        }
        let known = (client::HELLO..=client::CLIENT_STATE).contains(&member);
        match (known, up_seq) {
            (true, 0) => self.unnumbered(now, key, session_key, (member, body)),
            (true, _) => Err(Fault::NumberUnexpected(member)),
            (false, 0) => {
                self.notice(key, Code::Unimplemented, Reason::UnsupportedFrame, member);
                Ok(())
            }
            (false, _) => self.unknown_numbered(now, session_key, up_seq),
        }
    }

    fn unnumbered(
        &mut self,
        now: Now,
        key: ConnectionKey,
        session_key: SessionKey,
        (member, body): (u32, &[u8]),
    ) -> Result<(), Fault> {
        let malformed = |_| Fault::Malformed(member);
        match member {
            client::CANCEL => {
                let cancel = v1::Cancel::decode(body).map_err(malformed)?;
                self.cancel(now, session_key, cancel.up_seq)
            }
            client::PING => {
                let ping = v1::Ping::decode(body).map_err(malformed)?;
                self.announce(now, key, ping.next_ms);
                self.put_optional(key, gateway::PONG, &v1::Pong { nonce: ping.nonce });
                Ok(())
            }
            client::PONG => v1::Pong::decode(body).map(|_| ()).map_err(malformed),
            client::AUTHENTICATE => {
                let authenticate = v1::Authenticate::decode(body).map_err(malformed)?;
                self.authenticate(now, key, session_key, &authenticate)
            }
            client::BYE => {
                let bye = v1::Bye::decode(body).map_err(malformed)?;
                let keep = Duration::from_millis(u64::from(bye.keep_for_ms));
                self.close(now, key, CloseReason::Bye(keep));
                Ok(())
            }
            client::CLIENT_STATE => {
                v1::ClientState::decode(body).map_err(malformed)?;
                self.notice(key, Code::Unimplemented, Reason::FeatureNotNegotiated, member);
                Ok(())
            }
            _ => Err(Fault::UnexpectedFrame(member)),
        }
    }

    /// A ping may say when the next one comes: silence until then is no loss, within the deployment's bounds.
    fn announce(&mut self, now: Now, key: ConnectionKey, next_ms: u32) {
        if next_ms > 0
            && let Some(connection) = self.connections.get_mut(key)
        {
            let next = Duration::from_millis(u64::from(next_ms)).min(self.session_settings.heartbeat_max);
            connection.announced = now.mono + next;
        }
    }

    fn cancel(&mut self, now: Now, session_key: SessionKey, up_seq: u64) -> Result<(), Fault> {
        let Some(session) = self.sessions.get(session_key) else {
            return Ok(());
        };
        match session.up.cancel(up_seq)? {
            CancelTarget::Answered => {}
            CancelTarget::Next => self.cancel_next(now, session_key)?,
            CancelTarget::Outstanding(ticket) => {
                if let Some(outstanding) = self.outstanding.get_mut(ticket)
                    && !outstanding.cancelled
                {
                    outstanding.cancelled = true;
                    self.cells.count(Count::RequestsCancelled);
                    self.batch.cancels.push(ticket);
                }
            }
        }
        Ok(())
    }

    fn notice(&mut self, key: ConnectionKey, code: Code, reason: Reason, member: u32) {
        let notice = v1::Notice {
            status: code.to_wire(),
            reason: reason.into(),
            message: format!("member {member} is not understood here"),
            member,
            action: action::of(reason, Execution::Unspecified).into(),
        };
        self.cells.count(Count::NoticesSent);
        self.put_optional(key, gateway::NOTICE, &notice);
    }

    /// The deadlines of an open connection, the earliest of them.
    pub(super) fn session_deadline(&self, now: Now, connection: &Connection, session: SessionKey) -> Mono {
        let silence = self.sessions.get(session).map_or(Mono::NEVER, |session| {
            connection.silence_deadline(session.heartbeat()).min(session.expiry.due(now))
        });
        silence
            .min(connection.frame_deadline(self.settings.frame_timeout))
            .min(connection.write_deadline(self.settings.write_timeout))
    }
}
