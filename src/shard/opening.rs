//! From a connection to a session: the first frame.

use super::connection::State;
use super::greeting::protocol_of;
use super::limits::offence;
use super::resume::Resumption;
use super::{CloseReason, Drain, Shard};
use crate::base::clock::Now;
use crate::base::counters::Count;
use crate::base::ids::ConnectionKey;
use crate::directory::Life;
use crate::limit::LogLine;
use crate::session::{self, Fault, Opened, OpeningContext, Session};
use moorgate_proto::codec::FrameError;
use moorgate_proto::envelope::Envelope;
use moorgate_proto::envelope::member::client;
use moorgate_proto::v1;
use prost::Message;
use std::time::Duration;

impl Shard {
    /// The first frame of a connection: a Hello, or its end.
    pub(super) fn first_frame(
        &mut self,
        now: Now,
        key: ConnectionKey,
        envelope: Envelope<'_>,
    ) -> Result<(), Fault> {
        let Some((state, peer)) = self.connections.get(key).map(|it| (it.state, it.peer())) else {
            return Ok(());
        };
        let State::Opening(deadline, _) = state else {
            // Nothing may come between a Hello that resumes and its Welcome.
            return Err(Fault::UnexpectedFrame(envelope.member.map_or(0, |(member, _)| member)));
        };
        let (mut hello, body) = match envelope.member {
            Some((client::HELLO, body)) => {
                (v1::Hello::decode(body).map_err(|_| Fault::Malformed(client::HELLO))?, body)
            }
            Some((member, _)) => return Err(Fault::UnexpectedFrame(member)),
            None => return Err(Fault::UnexpectedFrame(0)),
        };
        if envelope.numbers.seq != 0 {
            return Err(Fault::NumberUnexpected(client::HELLO));
        }
        if envelope.numbers.ack != 0 {
            return Err(Fault::AckBeyondSent { sent: 0, got: envelope.numbers.ack });
        }
        if self.drain != Drain::No {
            return Err(Fault::Shutdown);
        }
        let heartbeat = self.heartbeat_hint(key);
        let settings = &self.session_settings;
        let context = OpeningContext { authority: &self.authority, settings, peer, heartbeat };
        let resume = hello.resume.take();
        let opened = session::open(now, hello, context);
        let ban = self.ban_of_address(now, peer.ip())?;
        // One more violation during a ban changes nothing.
        let mut opened = opened.map_err(|fault| match &ban {
            Some(ban) if offence(&fault).is_some() => self.banned(now, ban),
            _ => fault,
        })?;
        let accepted = deadline - self.settings.handshake_timeout;
        if let Some(resume) = resume {
            match self.resume(now, key, (&opened, &resume), body)? {
                Resumption::Done => {
                    self.has_proved(ban.as_ref(), accepted);
                    return Ok(());
                }
                Resumption::Moved => return Ok(()),
                Resumption::Fresh(result) => opened.resume_result = result,
            }
        }
        self.may_open_in_ban(now, ban.as_ref(), opened.who())?;
        self.has_proved(ban.as_ref(), accepted);
        self.has_turn(now)?;
        self.may_open(now, opened.who())?;
        if self.settings.check.is_some() && !opened.who().user_id.is_empty() {
            return self.confirm(now, key, opened);
        }
        self.welcome(now, key, &opened)
    }

    /// The interval for a client that wishes none: up to a tenth below what its listener hints at, so that those who have
    /// come together do not beat together for ever.
    fn heartbeat_hint(&mut self, key: ConnectionKey) -> Duration {
        let listener = match self.connections.get(key).map(|connection| connection.state) {
            Some(State::Opening(_, listener)) => listener.index(),
            _ => 0,
        };
        let hint = self.settings.heartbeats.get(listener).copied().flatten();
        let hint = hint.unwrap_or(self.session_settings.heartbeat);
        let early = self.rng.up_to(hint / 10);
        hint.saturating_sub(Duration::from_millis(u64::try_from(early.as_millis()).unwrap_or_default()))
    }

    /// Whether one more fresh session may open now. Those who come back do not ask.
    fn has_turn(&mut self, now: Now) -> Result<(), Fault> {
        let Some(openings) = &mut self.openings else { return Ok(()) };
        match openings.wait(now.mono) {
            None => {
                openings.take(now.mono);
                Ok(())
            }
            Some(wait) => {
                self.cells.count(Count::OpeningsShed);
                // Each at a moment of its own, or the next storm is the same.
                Err(Fault::OpeningsLimited(wait + self.rng.up_to(self.settings.reconnect_spread)))
            }
        }
    }

    /// Opens the session that was agreed.
    pub(super) fn welcome(&mut self, now: Now, key: ConnectionKey, opened: &Opened) -> Result<(), Fault> {
        let session_key = self.sessions.next_key();
        let id = self.directory.id_of(self.session_ref(session_key));
        let caller = opened.caller(id);
        let is_anonymous = caller.is_anonymous();
        let roles = self.routes.role_mask(opened.roles.iter().map(String::as_str));
        self.cells.count(Count::SessionsOpened);
        let session = self.sessions.insert(Session::new(key, opened, roles, caller));
        debug_assert_eq!(session, session_key, "the id names this session");
        self.directory.set_sessions(self.batch.shard, self.sessions.len());
        self.directory.note(self.session_ref(session), Life::Attached);
        if let Some(connection) = self.connections.get_mut(key) {
            connection.state = State::Open(session);
            self.handshakes = self.handshakes.saturating_sub(1);
        }
        if is_anonymous {
            self.cells.count(Count::SessionsAnonymous);
        } else {
            self.claim(session, opened.who())?;
        }
        self.greet(now, key, session, opened.resume_result);
        Ok(())
    }

    /// Ends a connection for what its peer has done.
    pub(super) fn fault(&mut self, now: Now, key: ConnectionKey, fault: Fault) {
        let fault = self.recognized(now, key, fault);
        self.offence_of(now, key, &fault);
        self.close(now, key, CloseReason::Fault(fault));
    }

    /// The greeting of another protocol is not a violation of this one.
    fn recognized(&mut self, now: Now, key: ConnectionKey, fault: Fault) -> Fault {
        let Fault::Frame(FrameError::TooLarge { announced, .. }) = fault else { return fault };
        let Some(connection) = self.connections.get(key) else { return fault };
        let (State::Opening(..), Some(protocol)) = (connection.state, protocol_of(announced)) else {
            return fault;
        };
        let peer = connection.peer();
        if let Some(left_out) = self.log_lines.is_due(now.mono, LogLine::ForeignProtocol, peer.ip()) {
            log::info!("{peer}: speaks {protocol}, not this protocol{}", left_out);
        }
        Fault::ForeignProtocol(protocol)
    }
}
