//! Where the limits take hold: who gets a connection, who a session, which request passes, what counts as an offence.

use super::Shard;
use super::asked::Asked;
use crate::auth::{ApplicationError, Authority};
use crate::base::clock::Now;
use crate::base::counters::{Cells, Count};
use crate::base::ids::{ConnectionKey, SessionKey};
use crate::base::route_counts::Why;
use crate::limit::{
    Asker, Ban, Charge, Limit, LogLine, Offence, Refusal, Room, Sentence, ShardLimits, Subject, User,
};
use crate::relay::{Caller, Outcome};
use crate::routing::Route;
use crate::session::{Fault, NoRefresh, Session, whole_ms};
use moorgate_proto::codec::FrameError;
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{self, Reason, Source};
use moorgate_proto::view::RequestView;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Charges a request that may be made otherwise.
#[inline]
pub(super) fn charge(
    limits: &mut ShardLimits,
    now: Mono,
    session: &mut Session,
    route: &Route,
    authority: &Authority,
) -> Result<Charge, Refusal> {
    let caller = &session.caller;
    limits.admit(now, &mut session.standing, route.id, || asker(caller, authority))
}

/// The answer to a request that was not charged.
#[cold]
pub(super) fn limited(cells: &Cells, refusal: Refusal) -> Outcome {
    cells.count(match refusal.limit {
        Limit::Connection => Count::LimitedConnection,
        Limit::User => Count::LimitedUser,
        Limit::Address => Count::LimitedAddress,
        Limit::Application => Count::LimitedApplication,
        Limit::Route => Count::LimitedRoute,
        Limit::OutstandingUser => Count::LimitedOutstandingUser,
        Limit::OutstandingAddress => Count::LimitedOutstandingAddress,
        Limit::OutstandingApplication => Count::LimitedOutstandingApplication,
    });
    Outcome {
        retry_after_ms: whole_ms(refusal.retry_after),
        ..Outcome::refused(Code::ResourceExhausted, Reason::RateLimited)
    }
}

/// Who asks. The application is looked up in what services are told: it is asked for once, when a session has been
/// idle, and not worth a place in every session.
fn asker(caller: &Caller, authority: &Authority) -> Asker {
    let who = caller.who();
    Asker { user: user(&who, authority), application: who.application.into(), address: caller.peer }
}

/// The application whose users these are: empty, unless applications prove themselves.
pub(super) fn user_application<'a>(who: &'a v1::Caller, authority: &Authority) -> &'a str {
    if authority.applications.are_proved() { &who.application } else { "" }
}

/// The user whose limits these are.
pub(super) fn user(who: &v1::Caller, authority: &Authority) -> Option<User> {
    let user = || User {
        application: user_application(who, authority).into(),
        user_id: who.user_id.as_str().into(),
    };
    (!who.user_id.is_empty()).then(user)
}

/// The same of a caller. It is decoded only where applications prove themselves.
pub(super) fn user_of(caller: &Caller, authority: &Authority) -> Option<User> {
    match authority.applications.are_proved() {
        true => user(&caller.who(), authority),
        false => {
            (!caller.is_anonymous()).then(|| User { application: "".into(), user_id: caller.user_id.clone() })
        }
    }
}

/// Who is banned for what a session does: its user, or its address when it has none. An address may be a whole
/// network, which is not to suffer for one of its users.
fn culprit(caller: &Caller, authority: &Authority) -> Subject {
    match user_of(caller, authority) {
        Some(user) => Subject::User(Arc::new(user)),
        None => Subject::address(caller.peer),
    }
}

/// Which violation a fault is, if it is one. Decided for each fault by itself: none is one by default.
///
/// A good signature never is one, whatever the claims say: behind it is an issuer, a rotation of keys or a build of an
/// application that is configured wrongly, not an attack. The same holds for the greeting of another protocol, for a clock
/// that differs, and for a client that is slow.
pub(super) fn offence(fault: &Fault) -> Option<Offence> {
    match fault {
        Fault::Token(error) => error.is_forgery().then_some(Offence::BadToken),
        Fault::Application(error) => match error {
            ApplicationError::WrongProof => Some(Offence::BadProof),
            ApplicationError::Unknown
            | ApplicationError::Revoked
            | ApplicationError::NoProof
            | ApplicationError::Stale => None,
        },
        Fault::Frame(FrameError::TooLarge { .. })
        | Fault::EarlyExceeded
        | Fault::Envelope(_)
        | Fault::Malformed(_)
        | Fault::UnexpectedFrame(_)
        | Fault::NumberMissing
        | Fault::NumberUnexpected(_)
        | Fault::SequenceGap { .. }
        | Fault::AckBeyondSent { .. }
        | Fault::InFlightExceeded(_)
        | Fault::HelloInvalid(_)
        | Fault::FramesLimited(_) => Some(Offence::Violation),
        Fault::ForeignProtocol { .. }
        | Fault::VersionUnsupported { .. }
        | Fault::TokenExpired
        | Fault::IdentityMismatch
        | Fault::NotResumed(_)
        | Fault::TokenRevoked
        | Fault::SessionRefused { .. }
        | Fault::SessionUnconfirmed
        | Fault::Superseded
        | Fault::Conflict(_)
        | Fault::Kicked(_)
        | Fault::LoggedOut
        | Fault::HandshakeTimeout
        | Fault::FrameTimeout
        | Fault::HeartbeatTimeout
        | Fault::WriteStalled
        | Fault::Overloaded
        | Fault::ConnectionLimit
        | Fault::OpeningsLimited(_)
        | Fault::Banned(_)
        | Fault::Shutdown => None,
    }
}

impl Shard {
    /// Why a new connection is turned away; `None`: it is not, and is counted in the room of all shards, where it may be
    /// `in_room` before.
    pub(super) fn refusal(&mut self, now: Now, peer: SocketAddr, in_room: bool) -> Option<Fault> {
        if let Err(wait) = self.bans.may_connect(now.mono, &Subject::address(peer.ip())) {
            self.cells.count(Count::RefusedBanned);
            return Some(Fault::Banned(wait));
        }
        if !in_room && self.room.is_full() {
            return Some(self.no_descriptor(now));
        }
        if self.is_full() {
            return Some(self.no_room(now, Count::RefusedLimit));
        }
        if !self.may_open_handshake(now) {
            return Some(Fault::ConnectionLimit);
        }
        // Another shard may have been faster.
        (!in_room && !self.room.enter()).then(|| self.no_descriptor(now))
    }

    /// Whether there may be one more connection without a session. If not, it is counted.
    pub(super) fn may_open_handshake(&mut self, now: Now) -> bool {
        if self.handshakes >= self.settings.handshakes_max {
            self.shed_openings(now, false);
        }
        let may_open = self.handshakes < self.settings.handshakes_max;
        if !may_open {
            self.cells.count(Count::RefusedHandshakes);
        }
        may_open
    }

    /// A connection comes too late; those who try again find the room that is made.
    fn no_room(&mut self, now: Now, count: Count) -> Fault {
        self.cells.count(count);
        self.shed_openings(now, true);
        Fault::ConnectionLimit
    }

    /// The same where it is the room of all shards that is full: the others make some too.
    fn no_descriptor(&mut self, now: Now) -> Fault {
        self.room.refuse();
        self.refusals_seen = self.refusals_seen.wrapping_add(1);
        self.no_room(now, Count::RefusedDescriptors)
    }

    /// Publishes how much of the room of all shards this one uses, and evicts silent connections when one was refused, also by
    /// another shard.
    pub fn share_room(&mut self, now: Now) {
        let refused = self.room.refused();
        if std::mem::replace(&mut self.refusals_seen, refused) != refused {
            self.shed_openings(now, true);
        }
        self.publish_served();
    }

    /// Publishes how many connections have a session, or have one agreed that is to be confirmed.
    fn publish_served(&mut self) -> usize {
        let attached = self.sessions.len().saturating_sub(self.detached.len());
        let served = attached.saturating_add(self.confirmations.waiting());
        self.room.serve(std::mem::replace(&mut self.served, served), served);
        served
    }

    /// The ban for violations of an address, if there is one.
    ///
    /// # Errors
    /// [`Fault::Banned`] for a ban by an operator.
    pub(super) fn ban_of_address(&self, now: Now, peer: IpAddr) -> Result<Option<Ban>, Fault> {
        match self.bans.ban_of(now.mono, &Subject::address(peer)) {
            Some(ban) if ban.by_hand => Err(self.banned(now, &ban)),
            ban => Ok(ban),
        }
    }

    /// Whether a Hello opens a fresh session in spite of the ban of its address: with a good access token.
    pub(super) fn may_open_in_ban(&self, now: Now, ban: Option<&Ban>, who: &v1::Caller) -> Result<(), Fault> {
        match ban {
            Some(ban) if who.user_id.is_empty() => Err(self.banned(now, ban)),
            _ => Ok(()),
        }
    }

    /// A client from an address with this ban, accepted then, has a good access token, or resumes a session.
    pub(super) fn has_proved(&self, ban: Option<&Ban>, accepted: Mono) {
        if let Some(ban) = ban {
            self.bans.has_proved(ban, accepted);
        }
    }

    pub(super) fn banned(&self, now: Now, ban: &Ban) -> Fault {
        self.cells.count(Count::RefusedBanned);
        Fault::Banned(ban.until.since(now.mono))
    }

    /// Whether a good Hello gets a session.
    pub(super) fn may_open(&mut self, now: Now, who: &v1::Caller) -> Result<(), Fault> {
        let Some(user) = user(who, &self.authority) else {
            let own = Room { served: self.publish_served(), max: self.settings.connections_max };
            if self.settings.reserve.admits_anonymous(&[own, self.room.room()]) {
                return Ok(());
            }
            self.cells.count(Count::RefusedReserve);
            return Err(Fault::ConnectionLimit);
        };
        self.may_enter(now, user)
    }

    /// Whether a session may have its client back.
    pub(super) fn may_resume(&self, now: Now, who: &v1::Caller) -> Result<(), Fault> {
        match user(who, &self.authority) {
            Some(user) => self.may_enter(now, user),
            None => Ok(()),
        }
    }

    fn may_enter(&self, now: Now, user: User) -> Result<(), Fault> {
        match self.bans.ban_of(now.mono, &Subject::User(Arc::new(user))) {
            Some(ban) => Err(self.banned(now, &ban)),
            None => Ok(()),
        }
    }

    /// Counts what ends a connection, where it is an offence.
    pub(super) fn offence_of(&mut self, now: Now, key: ConnectionKey, fault: &Fault) {
        if let Fault::FramesLimited(_) = fault {
            self.cells.count(Count::LimitedFrames);
        }
        let Some(offence) = offence(fault) else { return };
        let session = self.session_of(key).and_then(|session| self.sessions.get(session));
        let culprit = match (session, self.connections.get(key)) {
            (Some(session), _) => culprit(&session.caller, &self.authority),
            (None, Some(connection)) => Subject::address(connection.peer().ip()),
            (None, None) => return,
        };
        self.offend(now, &culprit, offence);
    }

    /// Counts a token that was shown on a session and is no good, where that is an offence; until when it has led to a ban.
    pub(super) fn token_refused(&mut self, now: Now, caller: &Caller, refusal: NoRefresh) -> Option<Mono> {
        let NoRefresh::Token(error) = refusal else { return None };
        let offence = offence(&Fault::Token(error))?;
        self.offend(now, &culprit(caller, &self.authority), offence)
    }

    /// Counts a request that was refused; the fault that ends its connection, when that was too much.
    ///
    /// `met` is the limit that it has met, if any.
    #[cold]
    pub(super) fn refused(
        &mut self,
        now: Now,
        session_key: SessionKey,
        view: &RequestView<'_>,
        (reason, met): (Reason, Option<Limit>),
    ) -> Result<(), Fault> {
        let why = match reason {
            Reason::TokenExpired => Why::Token,
            Reason::LoginRequired => Why::Login,
            Reason::RoleRequired => Why::Role,
            Reason::VersionTooLow => Why::Version,
            Reason::PayloadTooLarge => Why::Payload,
            Reason::RateLimited => Why::Rate,
            Reason::GatewayOverloaded => Why::Overload,
            _ => Why::Contract,
        };
        if let Ok(route) = self.routes.find(view.command, view.version.max(1)) {
            self.cells.routes.count(route.id, why);
        }
        let Some(session) = self.sessions.get(session_key) else { return Ok(()) };
        let is_own = match met {
            Some(Limit::Connection | Limit::User | Limit::OutstandingUser) => true,
            // Of a user's address somebody else may have used up what there was.
            Some(Limit::Address | Limit::OutstandingAddress) => session.caller.is_anonymous(),
            Some(Limit::Application | Limit::OutstandingApplication | Limit::Route) | None => false,
        };
        if !is_own {
            return Ok(());
        }
        let culprit = culprit(&session.caller, &self.authority);
        match self.offend(now, &culprit, Offence::RateLimited) {
            Some(until) => Err(Fault::Banned(until.since(now.mono))),
            None => Ok(()),
        }
    }

    /// A service does not know the one who has just asked: a failed login, if the service logs users in.
    #[cold]
    pub(super) fn login_refused(&mut self, now: Now, key: Option<ConnectionKey>, asked: &Asked) {
        let Some((_, service)) = asked.route else { return };
        let is_login = asked.outcome.source == Source::Service && asked.caller.is_anonymous();
        if !is_login || !self.settings.login_services.contains(&service) {
            return;
        }
        let address = Subject::address(asked.caller.peer);
        if let Some(until) = self.offend(now, &address, Offence::FailedLogin)
            && let Some(key) = key
        {
            self.fault(now, key, Fault::Banned(until.since(now.mono)));
        }
    }

    /// Counts an offence; until when it has led to a ban.
    fn offend(&mut self, now: Now, culprit: &Subject, offence: Offence) -> Option<Mono> {
        self.cells.count(match offence {
            Offence::BadToken => Count::OffencesToken,
            Offence::BadProof => Count::OffencesProof,
            Offence::FailedLogin => Count::OffencesLogin,
            Offence::Violation => Count::OffencesViolation,
            Offence::RateLimited => Count::OffencesRate,
        });
        let Sentence { until, is_new } = self.bans.offend(now.mono, culprit, offence)?;
        if is_new && let Some(left_out) = self.log_lines.is_due(now.mono, LogLine::Ban, culprit) {
            log::info!("{culprit}: banned for {:?}{}", until.since(now.mono), left_out);
        }
        Some(until)
    }
}
