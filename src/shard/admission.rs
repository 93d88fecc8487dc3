//! A request: admitted, routed, and handed to the worker, or refused.

use super::asked::Asked;
use super::credit::Room;
use super::limits::{charge, limited};
use super::{Outstanding, Shard};
use crate::base::clock::Now;
use crate::base::counters::Count;
use crate::base::ids::SessionKey;
use crate::relay::{Forward, Outcome};
use crate::routing::{Route, RouteMiss};
use crate::session::{Arrival, Fault, Session};
use moorgate_proto::envelope::member::client::REQUEST;
use moorgate_proto::limits::IDEMPOTENCY_KEY_BYTES;
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Reason};
use moorgate_proto::view::{CallView, ReplyView, RequestView};
use prost::Message;
use std::time::Duration;

impl Shard {
    /// A frame with a Request.
    pub(super) fn request(
        &mut self,
        now: Now,
        session_key: SessionKey,
        up_seq: u64,
        body: &[u8],
    ) -> Result<(), Fault> {
        if !self.arrives(session_key, up_seq)? {
            return Ok(());
        }
        let view = RequestView::decode(body).map_err(|_| Fault::Malformed(REQUEST))?;
        // It is passed on as it came: a service that decodes the whole call would end the link, for everybody on it.
        if !view.trace.is_empty() {
            v1::Trace::decode(view.trace).map_err(|_| Fault::Malformed(REQUEST))?;
        }
        let Some(session) = self.sessions.get_mut(session_key) else {
            return Ok(());
        };
        session.up.admit();
        self.cells.count(Count::RequestsAdmitted);
        let request_bytes = u32::try_from(view.payload.len()).unwrap_or(u32::MAX);
        let mut met = None;
        let admitted = match admit(session, &view, now, &self.routes) {
            Ok(route) if self.credit.room(route.service) != Room::Yes => {
                self.cells.count(Count::ForwardsRefused);
                let reason = match self.credit.room(route.service) {
                    Room::ShareUsed => Reason::ServiceOverloaded,
                    Room::Yes | Room::NoneLeft => Reason::GatewayOverloaded,
                };
                Err(Outcome::refused(Code::ResourceExhausted, reason))
            }
            Ok(route) => charge(&mut self.limits, now.mono, session, route, &self.authority)
                .map(|charge| (route.id, route.service, route.timeout, charge))
                .map_err(|refusal| {
                    met = Some(refusal.limit);
                    limited(&self.cells, refusal)
                }),
            Err(outcome) => Err(outcome),
        };
        match admitted {
            Ok((route, service, timeout, charge)) => {
                let timeout = match view.timeout_ms {
                    0 => timeout,
                    wished => timeout.min(Duration::from_millis(u64::from(wished))),
                };
                let outstanding = Outstanding {
                    session: session_key,
                    up_seq,
                    command: view.command,
                    route,
                    service,
                    received: now.mono,
                    request_bytes,
                    cancelled: false,
                    caller: session.caller.clone(),
                    charge,
                };
                self.forward(outstanding, timeout, &view);
            }
            Err(outcome) => {
                let caller = session.caller.clone();
                let asked = Asked { request_bytes, ..Asked::refused(up_seq, view.command, outcome, caller) };
                self.answer(now, session_key, &asked, (&ReplyView::default(), &[]));
                self.refused(now, session_key, &view, (outcome.reason, met))?;
            }
        }
        Ok(())
    }

    /// Whether a numbered frame is the next one, and within the in-flight limit.
    fn arrives(&mut self, session_key: SessionKey, up_seq: u64) -> Result<bool, Fault> {
        let Some(session) = self.sessions.get(session_key) else {
            return Ok(false);
        };
        match session.up.arrive(up_seq)? {
            Arrival::Repeated => {
                self.cells.count(Count::RequestsRepeated);
                Ok(false)
            }
            Arrival::Next if session.in_flight() >= self.session_settings.in_flight_max as usize => {
                Err(Fault::InFlightExceeded(self.session_settings.in_flight_max))
            }
            Arrival::Next => Ok(true),
        }
    }

    fn forward(&mut self, outstanding: Outstanding, timeout: Duration, request: &RequestView<'_>) {
        let (session_key, up_seq, route) = (outstanding.session, outstanding.up_seq, outstanding.route);
        let session_id = outstanding.caller.session_id;
        let deadline = outstanding.received + timeout;
        let caller = outstanding.caller.hash;
        let call = self.batch.arena.encode(&CallView {
            command: request.command,
            version: request.version.max(1),
            idempotency_key: request.idempotency_key,
            trace: request.trace,
            priority: request.priority,
            content_encoding: request.content_encoding,
            caller: &outstanding.caller.encoded,
            payload: request.payload,
            ..CallView::default()
        });
        self.credit.take(outstanding.service);
        let ticket = self.outstanding.insert(outstanding);
        if let Some(session) = self.sessions.get_mut(session_key) {
            session.up.forwarded(up_seq, ticket);
        }
        let session = session_key;
        self.batch.forwards.push(Forward { session_id, ticket, session, route, caller, deadline, call });
        self.cells.count(Count::RequestsForwarded);
    }

    /// A Cancel of the next number: consumes it.
    pub(super) fn cancel_next(&mut self, now: Now, session_key: SessionKey) -> Result<(), Fault> {
        let outcome = Outcome::refused(Code::Cancelled, Reason::Cancelled);
        self.consume(now, session_key, outcome)
    }

    /// A numbered frame of a newer protocol: it takes its number, and its Response says so.
    pub(super) fn unknown_numbered(
        &mut self,
        now: Now,
        session_key: SessionKey,
        up_seq: u64,
    ) -> Result<(), Fault> {
        if !self.arrives(session_key, up_seq)? {
            return Ok(());
        }
        self.take_number(now, session_key, Outcome::refused(Code::Unimplemented, Reason::UnsupportedFrame));
        Ok(())
    }

    fn consume(&mut self, now: Now, session_key: SessionKey, outcome: Outcome) -> Result<(), Fault> {
        let next =
            self.sessions.get(session_key).map_or(0, |session| session.up.admitted().saturating_add(1));
        if self.arrives(session_key, next)? {
            self.take_number(now, session_key, outcome);
        }
        Ok(())
    }

    fn take_number(&mut self, now: Now, session_key: SessionKey, outcome: Outcome) {
        let Some(session) = self.sessions.get_mut(session_key) else {
            return;
        };
        let up_seq = session.up.admit();
        self.cells.count(Count::RequestsAdmitted);
        let asked = Asked::refused(up_seq, 0, outcome, session.caller.clone());
        self.answer(now, session_key, &asked, (&ReplyView::default(), &[]));
    }
}

/// Whether, and by which route, a session may make this request.
fn admit<'r>(
    session: &Session,
    view: &RequestView<'_>,
    now: Now,
    routes: &'r crate::routing::RouteTable,
) -> Result<&'r Route, Outcome> {
    let refused = |code, reason| Err(Outcome::refused(code, reason));
    if !session.has_access(now) {
        return refused(Code::Unauthenticated, Reason::TokenExpired);
    }
    let route = match routes.find(view.command, view.version.max(1)) {
        Ok(route) => route,
        Err(RouteMiss::NoCommand | RouteMiss::NoVersion) => {
            return refused(Code::Unimplemented, Reason::NoRoute);
        }
        Err(RouteMiss::VersionTooLow) => return refused(Code::Unimplemented, Reason::VersionTooLow),
    };
    if u32::from(session.version) < route.protocol_min {
        return refused(Code::FailedPrecondition, Reason::VersionTooLow);
    }
    if session.caller.is_anonymous() {
        if !route.anonymous {
            return refused(Code::Unauthenticated, Reason::LoginRequired);
        }
    } else if !route.allows(session.roles) {
        return refused(Code::PermissionDenied, Reason::RoleRequired);
    }
    if view.payload.len() > route.payload_bytes_max {
        return refused(Code::InvalidArgument, Reason::PayloadTooLarge);
    }
    if view.idempotency_key.len() > IDEMPOTENCY_KEY_BYTES {
        return refused(Code::InvalidArgument, Reason::ProtocolViolation);
    }
    if view.fragment.is_some() {
        return refused(Code::Unimplemented, Reason::FeatureNotNegotiated);
    }
    Ok(route)
}
