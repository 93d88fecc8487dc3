//! Who a session belongs to: refreshed, bound by a login, ended by a logout, a kick or a revocation.

use super::Shard;
use super::asked::{Asked, Effect};
use super::detached::Removed;
use super::limits::user;
use crate::auth::{Bearer, Issued, RevokedToken};
use crate::base::clock::Now;
use crate::base::counters::Count;
use crate::base::ids::{ConnectionKey, SessionKey};
use crate::base::text::cut;
use crate::directory::{Kick, Order, Place, SessionRef};
use crate::limit::LogLine;
use crate::relay::{Caller, Directive, Outcome};
use crate::session::{Expiry, Fault, Session, TokenMark, expiry_of, refresh, whole_ms};
use moorgate_proto::action;
use moorgate_proto::envelope::member::gateway;
use moorgate_proto::limits::USER_ID_BYTES;
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Execution, Reason, Source};
use prost::Message;
use std::sync::Arc;
use std::time::Duration;

/// How long the answer to a logout may wait for room.
const LOGOUT_WAIT: Duration = Duration::from_secs(10);

/// An outcome of the gateway's own for a call that the service has run.
fn spoilt(code: Code, reason: Reason) -> Outcome {
    Outcome { source: Source::Gateway, execution: Execution::Executed, ..Outcome::refused(code, reason) }
}

impl Shard {
    pub(super) fn session_ref(&self, key: SessionKey) -> SessionRef {
        SessionRef { shard: self.batch.shard, key }
    }

    /// A session with a user is there: others find it. Whether it may be where it is, and its token is still good, now
    /// that they can.
    pub(super) fn claim(&mut self, session_key: SessionKey, who: &v1::Caller) -> Result<(), Fault> {
        let Some(session) = self.sessions.get(session_key) else { return Ok(()) };
        let place =
            Place { application: &who.application, device_id: &who.device_id, platform: &who.platform };
        let claimed = self.directory.claim(&session.caller.user_id, self.session_ref(session_key), place);
        claimed.map_err(Fault::Conflict)?;
        let TokenMark { issued_unix_s, token, .. } = session.token;
        if self.authority.revocations.is_revoked(&who.user_id, issued_unix_s.into(), token) {
            return Err(Fault::TokenRevoked);
        }
        Ok(())
    }

    /// A new access token on a live session.
    pub(super) fn authenticate(
        &mut self,
        now: Now,
        key: ConnectionKey,
        session_key: SessionKey,
        authenticate: &v1::Authenticate,
    ) -> Result<(), Fault> {
        let Some(session) = self.sessions.get_mut(session_key) else { return Ok(()) };
        if session.is_leaving() {
            return Ok(());
        }
        let answer = match refresh(now, &authenticate.access_token, &session.caller, &self.authority) {
            Ok(refreshed) => {
                let caller = Caller::new(session.caller.session_id, session.caller.peer, &refreshed.caller);
                // The same user: one name for all who hold it.
                let caller = Caller { user_id: session.caller.user_id.clone(), ..caller };
                let roles = self.routes.role_mask(refreshed.caller.roles.iter().map(String::as_str));
                session.identify(Arc::new(caller), roles, (refreshed.expiry, refreshed.token));
                self.cells.count(Count::RefreshesDone);
                v1::Authenticated {
                    access_expires_ms: refreshed.expires_unix_ms,
                    ..v1::Authenticated::default()
                }
            }
            Err(refusal) => {
                self.cells.count(Count::RefreshesRefused);
                let caller = session.caller.clone();
                if let Some(until) = self.token_refused(now, &caller, refusal) {
                    return Err(Fault::Banned(until.since(now.mono)));
                }
                let (code, reason) = refusal.wire();
                v1::Authenticated {
                    status: code.to_wire(),
                    reason: reason.into(),
                    message: refusal.to_string(),
                    action: action::of(reason, Execution::Unspecified).into(),
                    ..v1::Authenticated::default()
                }
            }
        };
        self.arm_session(now, key);
        self.put_optional(key, gateway::AUTHENTICATED, &answer);
        Ok(())
    }

    /// Does what a service asks about the session that called, before it gets its answer.
    pub(super) fn directed(
        &mut self,
        now: Now,
        session_key: SessionKey,
        asked: &Asked,
        directives: &[Directive],
    ) -> Effect {
        let mut effect = Effect::default();
        let mut login_failed = false;
        for directive in directives {
            let user = self.sessions.get(session_key).map(|session| &session.caller.user_id);
            // Somebody has logged in since this was asked, and not by this very answer: it was not asked by them. (A login
            // then finds them.)
            let is_stale = effect.login.is_empty() && user.is_none_or(|user| *user != asked.caller.user_id);
            match directive {
                // What stands behind a login is for nobody but whom it was to log in.
                _ if login_failed => self.discard(std::slice::from_ref(directive)),
                Directive::Login { user_id, roles, ttl } if asked.outcome.code == Code::Ok => {
                    match self.login(now, session_key, (user_id, roles), *ttl) {
                        Ok(login) => effect.login = login.encode_to_vec(),
                        Err(outcome) => {
                            self.cells.count(Count::LoginsRefused);
                            effect.refused = Some(outcome);
                            login_failed = true;
                        }
                    }
                }
                // The service says that it went wrong: its answer says how.
                Directive::Login { .. } => {
                    self.cells.count(Count::DirectivesInvalid);
                    login_failed = true;
                }
                _ if is_stale => self.discard(std::slice::from_ref(directive)),
                Directive::Logout => {
                    effect.logout = true;
                    self.forget_token(now, session_key);
                    self.cells.count(Count::DirectivesDone);
                }
                Directive::Membership(membership) => self.change(session_key, membership),
            }
        }
        effect
    }

    /// Directives for a session that is gone, or another's now.
    pub(super) fn discard(&mut self, directives: &[Directive]) {
        for directive in directives {
            self.cells.count(Count::DirectivesStale);
            if let Directive::Membership(membership) = directive {
                self.unregister(membership);
            }
        }
    }

    /// Binds an anonymous session to a user, for whom a token is minted.
    fn login(
        &mut self,
        now: Now,
        session_key: SessionKey,
        (user_id, roles): (&str, &[String]),
        ttl: Duration,
    ) -> Result<v1::LoginResult, Outcome> {
        let Some(session) = self.sessions.get(session_key) else {
            return Err(spoilt(Code::Internal, Reason::Internal));
        };
        if !session.caller.is_anonymous() {
            return Err(spoilt(Code::FailedPrecondition, Reason::AlreadyAuthenticated));
        }
        let peer = session.caller.peer;
        let who = v1::Caller { user_id: user_id.to_owned(), roles: roles.to_vec(), ..session.caller.who() };
        self.may_log_in(now, &who)?;
        // Not a secret, only unlike any other.
        let token_id = format!("{:016x}{:016x}", self.rng.next_u64(), session_key.to_u64());
        let bearer = Bearer { user_id, roles, device_id: &who.device_id, ttl, token_id: &token_id };
        match self.authority.issue(now.unix_s(), &bearer) {
            Some(Ok(issued)) => {
                let token = self.authority.revocations.hash_of(&issued.key_id, Some(&token_id));
                let mark = TokenMark::new(issued.issued_unix_s, issued.expires_unix_s, token);
                Ok(self.bind(now, session_key, &who, (issued, mark)))
            }
            Some(Err(error)) => {
                if let Some(left_out) = self.log_lines.is_due(now.mono, LogLine::Login, peer) {
                    // It may be as long as a frame.
                    let user_id = cut(user_id, USER_ID_BYTES).escape_debug();
                    log::warn!("user {user_id} cannot be logged in: {error}{}", left_out);
                }
                Err(spoilt(Code::Internal, Reason::ReplyInvalid))
            }
            // The configuration grants logins only where tokens can be minted.
            None => Err(spoilt(Code::Internal, Reason::ReplyInvalid)),
        }
    }

    fn bind(
        &mut self,
        now: Now,
        session_key: SessionKey,
        who: &v1::Caller,
        (issued, mark): (Issued, TokenMark),
    ) -> v1::LoginResult {
        let (expiry, access_expires_ms) = expiry_of(issued.expires_unix_s, &self.authority);
        let roles = self.routes.role_mask(who.roles.iter().map(String::as_str));
        let detached = self.forget_detached(session_key);
        if let Some(session) = self.sessions.get_mut(session_key) {
            let caller = Caller::new(session.caller.session_id, session.caller.peer, who);
            // From now on it is counted as this user.
            self.limits.leave(now.mono, &mut session.standing);
            session.identify(Arc::new(caller), roles, (expiry, mark));
            session.renew_generation();
        }
        if let Some(Removed { until, .. }) = detached {
            self.list_detached(now, session_key, until.since(now.mono));
        }
        self.cells.count(Count::LoginsDone);
        self.cells.count(Count::DirectivesDone);
        let resume_token = self.resume_token(session_key);
        if let Err(fault) = self.claim(session_key, who) {
            self.expel(now, session_key, fault);
        } else if let Some(key) = self.sessions.get(session_key).and_then(Session::connection) {
            self.arm_session(now, key);
        }
        v1::LoginResult {
            user_id: who.user_id.clone(),
            access_token: issued.token,
            access_expires_ms,
            resume_token: resume_token.into(),
        }
    }

    /// Whether a user may be given one more access token.
    fn may_log_in(&self, now: Now, who: &v1::Caller) -> Result<(), Outcome> {
        let Some(user) = user(who, &self.authority) else { return Ok(()) };
        self.logins.charge(now.mono, &user).map_err(|wait| {
            self.cells.count(Count::LimitedLogins);
            Outcome { retry_after_ms: whole_ms(wait), ..spoilt(Code::ResourceExhausted, Reason::RateLimited) }
        })
    }

    /// The token of a session that logs out is good no more: others that live by it end too.
    fn forget_token(&mut self, now: Now, session_key: SessionKey) {
        let Some(session) = self.sessions.get(session_key) else { return };
        let TokenMark { token, issued_unix_s, expires_unix_s } = session.token;
        let revoked = RevokedToken {
            user_id: &session.caller.user_id,
            token,
            issued_unix_s: issued_unix_s.into(),
            ends_unix_s: expires_unix_s.saturating_add(self.authority.keys.leeway().as_secs()),
        };
        self.authority.revocations.revoke_known(now.unix_s(), revoked);
        self.directory.kick_user(&session.caller.user_id, &Kick::Revoked);
    }

    /// Ends a session whose user has logged out, after the answer to that: it may wait for room.
    pub(super) fn log_out(&mut self, now: Now, session_key: SessionKey) {
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        match session.connection() {
            Some(key) if session.down.has_response_waiting() => {
                session.expiry = Expiry::LoggedOut(now.mono + LOGOUT_WAIT);
                self.arm_session(now, key);
            }
            _ => self.expel(now, session_key, Fault::LoggedOut),
        }
    }

    /// Carries out what others have ordered.
    pub fn orders(&mut self, now: Now) {
        for order in self.directory.take_orders(self.batch.shard) {
            match order {
                Order::Kick(session, kick) => self.kick(now, session, kick),
                Order::Sweep => {
                    let sessions: Vec<SessionKey> = self.sessions.keys().collect();
                    sessions.into_iter().for_each(|key| self.kick(now, key, Kick::Revoked));
                }
            }
        }
    }

    /// Whether [`Shard::orders`] has something to do.
    pub fn has_orders(&self) -> bool {
        self.directory.has_orders(self.batch.shard)
    }

    fn kick(&mut self, now: Now, session_key: SessionKey, kick: Kick) {
        let Some(session) = self.sessions.get(session_key) else { return };
        let TokenMark { issued_unix_s, token, .. } = session.token;
        let revocations = &self.authority.revocations;
        let fault = match kick {
            Kick::Superseded => Fault::Superseded,
            Kick::Kicked(message) => Fault::Kicked(message),
            Kick::Conflict(conflict) => Fault::Conflict(conflict),
            // It is about to end, and has more to say.
            Kick::Revoked if session.is_leaving() => return,
            // A session that lives by another token, or a newer one, stays.
            Kick::Revoked if revocations.is_revoked(&session.caller.user_id, issued_unix_s.into(), token) => {
                Fault::TokenRevoked
            }
            Kick::Revoked => return,
        };
        self.expel(now, session_key, fault);
    }
}
