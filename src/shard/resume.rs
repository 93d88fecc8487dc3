//! Sessions that outlive their connections: detached, resumed here, handed to the shard that has them, remembered for
//! a while when they were ended.

use super::connection::State;
use super::detached::{Detaching, Due, Owner, Removed};
use super::limits::user_application;
use super::shed::{self, Holdings, relieved};
use super::{CloseReason, Drain, Shard};
use crate::auth::{Holder, ResumeClaims, ResumeError};
use crate::base::clock::Now;
use crate::base::counters::Count;
use crate::base::ids::{ConnectionKey, ListenerId, SessionKey, ShardId};
use crate::directory::Life;
use crate::limit::network;
use crate::relay::Caller;
use crate::session::{self, Attachment, Fault, NotResumed, Opened, Session, Welcoming};
use moorgate_proto::codec::put_frame;
use moorgate_proto::envelope::Numbers;
use moorgate_proto::envelope::member::{client, gateway};
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{self, ResumeResult};
use moorgate_proto::view::Encoded;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// Ended sessions that are remembered; of more the oldest of the owners with most of them are forgotten.
pub(super) const TOMBSTONES_MAX: usize = 64 * 1024;

/// A connection whose Hello resumes a session of another shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandOver {
    /// The connection; its key is dead.
    pub connection: ConnectionKey,
    /// Where the client is.
    pub peer: SocketAddr,
    /// Who has the session.
    pub to: ShardId,
    /// Where the client came in.
    pub listener: ListenerId,
    /// Until when it has to have a session.
    pub deadline: Mono,
    /// What the client has said: for [`Shard::taken_over`].
    pub hello: Vec<u8>,
}

/// Sessions that were ended by somebody else than their clients, so that these learn of it when they come back.
#[derive(Debug, Default)]
pub(super) struct Tombstones {
    why: HashMap<SessionKey, Fault, foldhash::fast::FixedState>,
    /// Whose they were, in the order of their ends.
    order: VecDeque<(shed::Owner, SessionKey)>,
}

impl Tombstones {
    fn add(&mut self, owner: shed::Owner, key: SessionKey, why: Fault) {
        if self.why.insert(key, why).is_none() {
            self.order.push_back((owner, key));
        }
        if self.order.len() > TOMBSTONES_MAX {
            self.shed();
        }
    }

    /// Forgets the oldest of those owners who have most, down to seven eighths: nobody else's are pushed out.
    fn shed(&mut self) {
        // Of equal holdings the last one goes first.
        let newest_first = self.order.iter().rev().map(|(owner, key)| (owner.clone(), 1, *key));
        let over = self.order.len().saturating_sub(relieved(TOMBSTONES_MAX));
        for key in Holdings::new(newest_first).take(over) {
            self.why.remove(&key);
        }
        self.order.retain(|(_, key)| self.why.contains_key(key));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// What becomes of a client that comes back to a session that is gone. Whoever had to give way to somebody does not
    /// get a fresh session, which would put out the other one in turn; whoever has logged out, or whose token was
    /// revoked, has shown a new one.
    fn result(&self, key: SessionKey) -> Result<ResumeResult, Fault> {
        match self.why.get(&key) {
            None => Ok(ResumeResult::UnknownSession),
            Some(why @ (Fault::Kicked(_) | Fault::Superseded | Fault::Conflict(_))) => Err(why.clone()),
            Some(_) => Ok(ResumeResult::Ended),
        }
    }
}

/// What became of a Hello that was to resume a session.
#[derive(Debug)]
pub(super) enum Resumption {
    /// It has its session back.
    Done,
    /// It goes to the shard that may have its session, which looks at it: nothing is proved yet.
    Moved,
    /// It gets a fresh one, and why.
    Fresh(ResumeResult),
}

impl Shard {
    /// Whose detached session it is.
    fn owner<'a>(&self, caller: &'a Caller, who: &'a v1::Caller) -> Owner<'a> {
        Owner {
            user_id: &caller.user_id,
            user_application: user_application(who, &self.authority),
            application: &who.application,
            address: network(caller.peer),
        }
    }

    /// Sessions without a connection.
    pub fn detached(&self) -> usize {
        self.detached.len()
    }

    /// Whether a session may be kept without its connection.
    pub(super) fn keeps_sessions(&self) -> bool {
        !self.session_settings.detached_ttl.is_zero() && self.drain == Drain::No
    }

    /// The token of the newest generation of a session; empty: it cannot be resumed.
    pub(super) fn resume_token(&self, session_key: SessionKey) -> Vec<u8> {
        if self.session_settings.detached_ttl.is_zero() {
            return Vec::new();
        }
        let Some(session) = self.sessions.get(session_key) else { return Vec::new() };
        let claims =
            ResumeClaims { shard: self.batch.shard, session: session_key, generation: session.generation() };
        let who = session.caller.who();
        self.resume_tokens.seal(claims, holder(&who)).to_vec()
    }

    /// Greets the client of a session that has just been attached.
    pub(super) fn greet(
        &mut self,
        now: Now,
        key: ConnectionKey,
        session_key: SessionKey,
        result: ResumeResult,
    ) {
        let token = self.resume_token(session_key);
        let Some(session) = self.sessions.get(session_key) else { return };
        let welcoming = Welcoming { result, resume_token: &token, settings: &self.session_settings };
        let welcome = session::welcome(now, session, welcoming);
        self.put(key, gateway::WELCOME, &welcome);
        self.arm_session(now, key);
    }

    /// A Hello that is to resume a session; `body` is the Hello as it came.
    pub(super) fn resume(
        &mut self,
        now: Now,
        key: ConnectionKey,
        (opened, resume): (&Opened, &v1::Resume),
        body: &[u8],
    ) -> Result<Resumption, Fault> {
        if self.session_settings.detached_ttl.is_zero() {
            return Ok(Resumption::Fresh(ResumeResult::NotSupported));
        }
        let claims = match self.resume_tokens.open(&resume.resume_token, holder(opened.who())) {
            Ok(claims) => claims,
            Err(ResumeError::OtherBoot) => return Ok(self.not_resumed(ResumeResult::UnknownSession)),
            Err(ResumeError::Invalid) => {
                self.cells.count(Count::ResumesInvalid);
                return Err(Fault::NotResumed(NotResumed::Invalid));
            }
        };
        if claims.shard != self.batch.shard && self.directory.shards().any(|shard| shard == claims.shard) {
            self.hand_over(key, claims.shard, body);
            return Ok(Resumption::Moved);
        }
        let Some(session) = self.sessions.get(claims.session) else {
            let result = self.tombstones.result(claims.session);
            if result.is_err() {
                self.cells.count(Count::ResumesEnded);
            }
            return Ok(self.not_resumed(result?));
        };
        let who = session.caller.who();
        let judged = session.judge(now, (claims.generation, resume), opened);
        match &judged {
            Err(Fault::NotResumed(NotResumed::Invalid)) => self.cells.count(Count::ResumesInvalid),
            Err(Fault::NotResumed(_)) => self.cells.count(Count::ResumesStale),
            _ => {}
        }
        if let Err(result) = judged? {
            return Ok(self.not_resumed(result));
        }
        self.may_resume(now, &who)?;
        self.take_back(now, (key, claims.session), (opened, resume))?;
        Ok(Resumption::Done)
    }

    fn not_resumed(&self, result: ResumeResult) -> Resumption {
        self.cells.count(match result {
            ResumeResult::Ended => Count::ResumesEnded,
            _ => Count::ResumesUnknown,
        });
        Resumption::Fresh(result)
    }

    /// The session gets the new connection, in one step: from here on nothing of the old one counts.
    fn take_back(
        &mut self,
        now: Now,
        (key, session_key): (ConnectionKey, SessionKey),
        (opened, resume): (&Opened, &v1::Resume),
    ) -> Result<(), Fault> {
        let Some(session) = self.sessions.get(session_key) else { return Ok(()) };
        match session.connection() {
            Some(old) => {
                self.cells.count(Count::TakeOvers);
                self.abandon(now, old, session_key);
            }
            None => {
                let caller = session.caller.clone();
                let removed = self.forget_detached(session_key);
                if removed.is_some_and(|it| !it.was_present) && !caller.is_anonymous() {
                    self.directory.back(&caller.user_id, self.session_ref(session_key));
                }
            }
        }
        let roles = self.routes.role_mask(opened.roles.iter().map(String::as_str));
        let Some(session) = self.sessions.get_mut(session_key) else { return Ok(()) };
        let held = session.down.kept_bytes();
        let mut taken = Vec::new();
        // Its address may be another one: what it is charged for, it is charged for there.
        self.limits.leave(now.mono, &mut session.standing);
        session.attach(key, resume, (opened, roles), |to| taken.push(to))?;
        self.owed_bytes = self.owed_bytes.saturating_sub(held).saturating_add(session.down.kept_bytes());
        if let Some(connection) = self.connections.get_mut(key) {
            connection.state = State::Open(session_key);
            self.handshakes = self.handshakes.saturating_sub(1);
        }
        self.cells.count(Count::SessionsResumed);
        self.directory.note(self.session_ref(session_key), Life::Attached);
        self.taken(session_key, taken);
        self.greet(now, key, session_key, ResumeResult::Resumed);
        self.pump(now, key);
        Ok(())
    }

    /// The connection that a session had is not its own any more.
    fn abandon(&mut self, now: Now, key: ConnectionKey, session_key: SessionKey) {
        let admitted = self.sessions.get(session_key).map_or(0, |session| session.up.admitted());
        self.cells.count(Count::CloseSuperseded);
        self.drop_partial(key);
        if self.connections.get(key).is_some_and(|connection| connection.output.is_stalled()) {
            // It would not get through, and what waits there would stay for nothing.
            return self.forget(key);
        }
        self.linger(now, key);
        self.put(key, gateway::ERROR, &Fault::Superseded.error(admitted, false));
    }

    /// A session has lost its connection: it stays for a while, unless there is no room.
    pub(super) fn detach(&mut self, now: Now, session_key: SessionKey, ttl: Duration) {
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        session.detach();
        self.limits.leave(now.mono, &mut session.standing);
        self.directory.note(self.session_ref(session_key), Life::Detached);
        // Behind it: who reads that it is away may rely on it.
        self.cells.count(Count::SessionsDetached);
        self.list_detached(now, session_key, ttl);
    }

    /// Puts a session without a connection on the list of those, whose time to live begins.
    pub(super) fn list_detached(&mut self, now: Now, session_key: SessionKey, ttl: Duration) {
        let Some(caller) = self.sessions.get(session_key).map(|session| session.caller.clone()) else {
            return;
        };
        let who = caller.who();
        let detaching =
            Detaching { owner: self.owner(&caller, &who), ttl, grace: self.settings.presence_grace };
        let (place, gone) = self.detached.add(now.mono, session_key, detaching, &self.settings.detached);
        if let Some(session) = self.sessions.get_mut(session_key) {
            session.attachment = Attachment::Detached(place);
        }
        for evicted in gone {
            self.cells.count(Count::DetachedEvicted);
            self.end(now, evicted);
        }
    }

    /// A session is detached no more: it was resumed, has ended, or is about to be somebody else's. Whether its user was
    /// still taken as present for it, and until when it would have lived; `None`: it was not detached.
    pub(super) fn forget_detached(&mut self, session_key: SessionKey) -> Option<Removed> {
        let session = self.sessions.get(session_key)?;
        let Attachment::Detached(place) = session.attachment else { return None };
        let who = session.caller.who();
        let owner = self.owner(&session.caller, &who);
        self.detached.remove(place, session_key, owner)
    }

    /// Ends a session that has no connection.
    pub(super) fn end(&mut self, now: Now, session_key: SessionKey) {
        self.forget_detached(session_key);
        if let Some(session) = self.sessions.remove(session_key) {
            self.end_session(now, session_key, session);
        }
    }

    /// Somebody has ended a session, which is still there: its client learns of it when it comes back.
    pub(super) fn remember_ended(&mut self, session_key: SessionKey, why: Fault) {
        let Some(session) = self.sessions.get(session_key) else { return };
        if !self.session_settings.detached_ttl.is_zero() {
            let owner = shed::Owner::of(Some(session), session.caller.peer, &self.authority);
            self.tombstones.add(owner, session_key, why);
        }
    }

    /// Looks at sessions whose clients are away.
    pub(super) fn detached_timers(&mut self, now: Now) {
        while let Some((session_key, due)) = self.detached.due(now.mono) {
            match due {
                Due::Away => {
                    if let Some(session) = self.sessions.get(session_key) {
                        self.directory.away(&session.caller.user_id, self.session_ref(session_key));
                    }
                }
                Due::Over => {
                    self.cells.count(Count::DetachedExpired);
                    self.end(now, session_key);
                }
            }
        }
    }

    /// The gateway goes away: nobody comes back to it.
    pub(super) fn end_detached(&mut self, now: Now) {
        let keys: Vec<SessionKey> = self.detached.keys().collect();
        self.cells.add(Count::DetachedEnded, keys.len() as u64);
        keys.into_iter().for_each(|key| self.end(now, key));
    }

    fn hand_over(&mut self, key: ConnectionKey, to: ShardId, body: &[u8]) {
        let mut hello = Vec::new();
        put_frame(&mut hello, Numbers::NONE, client::HELLO, &Encoded(body));
        if let Some(connection) = self.connections.get_mut(key)
            && let State::Opening(deadline, listener) = connection.state
        {
            connection.state = State::Moving(deadline);
            self.hand_overs.push_back(HandOver {
                connection: key,
                peer: connection.peer(),
                to,
                listener,
                deadline,
                hello,
            });
        }
    }

    /// The next connection that another shard is to have; the reactor takes it out of its poll, and takes care of it
    /// until that shard has it. It stays counted in the room of all shards.
    pub fn next_hand_over(&mut self) -> Option<HandOver> {
        while let Some(hand_over) = self.hand_overs.pop_front() {
            let key = hand_over.connection;
            if matches!(self.connections.get(key).map(|it| it.state), Some(State::Moving(_))) {
                self.drop_partial(key);
                self.handshakes = self.handshakes.saturating_sub(1);
                self.connections.remove(key);
                self.cells.count(Count::ConnectionsHandedOver);
                return Some(hand_over);
            }
        }
        None
    }

    /// Takes a connection that another shard has accepted, and which is to say its Hello again:
    /// [`Shard::received`] gets it next.
    ///
    /// # Errors
    /// The bytes to send before closing it, when it cannot be taken. It counts as closed then.
    pub fn taken_over(
        &mut self,
        now: Now,
        peer: SocketAddr,
        deadline: Mono,
    ) -> Result<ConnectionKey, Vec<u8>> {
        if self.drain != Drain::No {
            return Err(self.not_taken_over(&Fault::Shutdown));
        }
        if self.is_full() || !self.may_open_handshake(now) {
            return Err(self.not_taken_over(&Fault::ConnectionLimit));
        }
        let key = self.insert(now, peer, deadline);
        self.arm(key, deadline);
        Ok(key)
    }

    /// A connection that was to be handed over, and cannot be: what it is told. It counts as closed.
    pub fn not_taken_over(&self, why: &Fault) -> Vec<u8> {
        self.room.leave();
        self.cells.count(Count::ConnectionsClosed);
        self.cells.count(why.count());
        super::farewell(why)
    }

    /// Ends a session, attached or not, for a fault.
    pub(super) fn expel(&mut self, now: Now, session_key: SessionKey, fault: Fault) {
        self.remember_ended(session_key, fault.clone());
        match self.sessions.get(session_key).and_then(Session::connection) {
            Some(key) => self.close(now, key, CloseReason::Fault(fault)),
            None => {
                self.cells.count(Count::DetachedEnded);
                self.end(now, session_key);
            }
        }
    }
}

fn holder(who: &v1::Caller) -> Holder<'_> {
    Holder { application: &who.application, device_id: &who.device_id, is_secure: false }
}
