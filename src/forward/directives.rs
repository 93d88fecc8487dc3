//! What services ask about users and sessions, beside answering: each needs a right.
//!
//! What concerns one session's state travels to its shard, in the order of the link. Kicks and revocations are orders
//! in the directory: at once, for all shards.

use super::Forwarder;
use super::notices::About;
use crate::base::clock::Now;
use crate::base::counters::Count;
use crate::base::ids::{ServiceId, SessionId, ShardId};
use crate::base::text::cut;
use crate::directory::{Kick, SessionRef};
use crate::relay::{Delivery, Directive, MemberOrder, Membership};
use crate::routing::Right;
use moorgate_proto::limits::{MESSAGE_BYTES, NAME_BYTES, is_name};
use moorgate_proto::time::Mono;
use moorgate_proto::v1;
use moorgate_proto::v1::directive::Action;
use moorgate_proto::v1::link_notice::Kind;
use std::sync::Arc;
use std::time::Duration;

/// Why a directive is not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undirected {
    /// The service has no right to it.
    NotGranted,
    /// It says nothing that can be done.
    Invalid,
    /// It names a session that is gone, or one of another gateway.
    Stale,
}

/// The right that a directive needs.
fn right_of(action: &Action) -> Right {
    match action {
        Action::Login(_) | Action::Logout(_) => Right::Login,
        Action::KickUser(_) | Action::KickSession(_) | Action::Revoke(_) => Right::Kick,
        Action::JoinGroup(_) | Action::LeaveGroup(_) => Right::Groups,
    }
}

/// Whether it is about the session that has called.
fn is_callers(action: &Action) -> bool {
    match action {
        Action::Login(_) | Action::Logout(_) => true,
        Action::JoinGroup(join) => join.session_id.is_empty(),
        Action::LeaveGroup(leave) => leave.session_id.is_empty(),
        Action::KickUser(_) | Action::KickSession(_) | Action::Revoke(_) => false,
    }
}

/// A session's id, as it stands in a message.
pub(super) fn session_id(bytes: &[u8]) -> Option<SessionId> {
    bytes.try_into().ok().map(SessionId)
}

fn kicked(message: &str) -> Kick {
    Kick::Kicked(cut(message, MESSAGE_BYTES).into())
}

impl Forwarder {
    /// Whether a service may ask for all of this.
    pub(super) fn may_direct(&self, service: ServiceId, directives: &[v1::Directive]) -> bool {
        let mut actions = directives.iter().filter_map(|directive| directive.action.as_ref());
        actions.all(|action| self.is_granted(service, action))
    }

    /// Carries out the directives of a Reply to a call from `shard`; what that shard has to do is returned.
    pub(super) fn direct(
        &mut self,
        now: Now,
        about: About<'_>,
        (service, shard): (ServiceId, ShardId),
        directives: Vec<v1::Directive>,
    ) -> Option<Box<[Directive]>> {
        let mut own = Vec::new();
        let mut login_failed = false;
        for directive in directives {
            let is_login = matches!(directive.action, Some(Action::Login(_)));
            let done = match directive.action {
                Some(action) if !self.is_granted(service, &action) => Err(Undirected::NotGranted),
                // What stands behind a login is for nobody but whom it was to log in.
                Some(action) if login_failed && is_callers(&action) => Err(Undirected::Stale),
                Some(action) => self.act(now, Some(shard), action),
                None => Err(Undirected::Invalid),
            };
            match done {
                Ok(directive) => own.extend(directive),
                Err(why) => {
                    login_failed |= is_login;
                    self.undirected(now.mono, about, why);
                }
            }
        }
        (!own.is_empty()).then(|| own.into_boxed_slice())
    }

    /// Carries out the directives of a push, all of which are granted; there is no session that has called.
    pub(super) fn direct_push(&mut self, now: Now, about: About<'_>, directives: Vec<v1::Directive>) {
        for directive in directives {
            let done = directive.action.ok_or(Undirected::Invalid).and_then(|it| self.act(now, None, it));
            if let Err(why) = done {
                self.undirected(now.mono, about, why);
            }
        }
    }

    fn is_granted(&self, service: ServiceId, action: &Action) -> bool {
        self.service(service).is_some_and(|service| service.settings.grants.has(right_of(action)))
    }

    fn undirected(&mut self, now: Mono, about: About<'_>, why: Undirected) {
        let (count, kind) = match why {
            Undirected::NotGranted => (Count::DirectivesRefused, Some(Kind::DirectiveRefused)),
            Undirected::Invalid => (Count::DirectivesInvalid, Some(Kind::DirectiveInvalid)),
            // That a session has ended is no mistake of the service.
            Undirected::Stale => (Count::DirectivesStale, None),
        };
        self.cells.count(count);
        if let Some(kind) = kind {
            self.notice(now, about, kind);
        }
    }

    /// Carries one out; `shard` is the caller's, who has the rest to do.
    fn act(
        &mut self,
        now: Now,
        shard: Option<ShardId>,
        action: Action,
    ) -> Result<Option<Directive>, Undirected> {
        match action {
            Action::Login(login) if shard.is_some() => {
                return Ok(Some(Directive::Login {
                    user_id: login.user_id.into(),
                    roles: login.roles.into(),
                    ttl: Duration::from_millis(u64::from(login.access_ttl_ms)),
                }));
            }
            Action::Logout(_) if shard.is_some() => return Ok(Some(Directive::Logout)),
            Action::Login(_) | Action::Logout(_) => return Err(Undirected::Invalid),
            Action::KickUser(kick) => {
                self.directory.kick_user(&kick.user_id, &kicked(&kick.message));
            }
            Action::KickSession(kick) => {
                let id = session_id(&kick.session_id).ok_or(Undirected::Invalid)?;
                if !self.directory.kick_session(id, kicked(&kick.message)) {
                    return Err(Undirected::Stale);
                }
            }
            Action::Revoke(revoke) if revoke.token_id.len() > NAME_BYTES => return Err(Undirected::Invalid),
            Action::Revoke(revoke) if !revoke.token_id.is_empty() => {
                let user_id = Some(revoke.user_id.as_str()).filter(|user_id| !user_id.is_empty());
                self.authority.revoke_token(now.unix_s(), user_id, &revoke.token_id);
                match user_id {
                    None => self.directory.sweep(),
                    Some(user_id) => {
                        self.directory.kick_user(user_id, &Kick::Revoked);
                    }
                }
            }
            Action::Revoke(revoke) if is_name(&revoke.user_id) => {
                self.authority.revocations.revoke_user(now.unix_s(), &revoke.user_id);
                self.directory.kick_user(&revoke.user_id, &Kick::Revoked);
            }
            Action::Revoke(_) => return Err(Undirected::Invalid),
            Action::JoinGroup(join) => {
                return self.member(shard, (join.group, join.session_id), Membership::Join);
            }
            Action::LeaveGroup(leave) => {
                return self.member(shard, (leave.group, leave.session_id), Membership::Leave);
            }
        }
        self.cells.count(Count::DirectivesDone);
        Ok(None)
    }

    /// A change of a group: of the caller, whose shard does it, or of a session that is named.
    fn member(
        &mut self,
        caller: Option<ShardId>,
        (group, named): (String, bytes::Bytes),
        membership: fn(Arc<str>) -> Membership,
    ) -> Result<Option<Directive>, Undirected> {
        if !is_name(&group) {
            return Err(Undirected::Invalid);
        }
        let membership = membership(group.into());
        if named.is_empty() {
            let shard = caller.ok_or(Undirected::Invalid)?;
            self.register(shard, &membership);
            self.cells.count(Count::DirectivesDone);
            return Ok(Some(Directive::Membership(membership)));
        }
        let id = session_id(&named).ok_or(Undirected::Invalid)?;
        let SessionRef { shard, key } = self.directory.session_of(id).ok_or(Undirected::Stale)?;
        self.register(shard, &membership);
        self.deliver(shard, Delivery::Member(MemberOrder { session: key, membership }));
        self.cells.count(Count::DirectivesDone);
        Ok(None)
    }

    /// From now on pushes to the group go to that shard too.
    fn register(&self, shard: ShardId, membership: &Membership) {
        if let Membership::Join(group) = membership {
            self.directory.join(group, shard);
        }
    }

    pub(super) fn deliver(&mut self, shard: ShardId, delivery: Delivery) {
        if let Some(batch) = self.outbound.get_mut(shard.index()) {
            batch.deliveries.push(delivery);
        }
    }
}
