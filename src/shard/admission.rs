//! From a request to its answer: admitted, routed, handed to the worker, settled.

use super::limits::{charge, limited};
use super::{Outstanding, Shard};
use crate::base::clock::Now;
use crate::base::counters::Count;
use crate::base::ids::{RouteId, ServiceId, SessionKey};
use crate::relay::{AccessRecord, Arena, Caller, Forward, Outcome, Settled, SettledBatch};
use crate::routing::{Route, RouteMiss};
use crate::session::{Arrival, Fault, Responded, Room, Session};
use moorgate_proto::envelope::member::client::REQUEST;
use moorgate_proto::limits::{FRAME_OVERHEAD, IDEMPOTENCY_KEY_BYTES, MESSAGE_BYTES, NAME_BYTES};
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Execution, Reason};
use moorgate_proto::view::{ReplyView, RequestView, ResponseView};
use prost::Message;
use std::sync::Arc;
use std::time::Duration;

/// Access records kept within one turn; beyond it lines are lost, and counted.
const ACCESS_RECORDS_MAX: usize = 16 * 1024;

/// A request and its outcome, as its answer and the access log need them.
struct Asked {
    outcome: Outcome,
    up_seq: u64,
    command: u32,
    route: Option<(RouteId, ServiceId)>,
    endpoint: u32,
    latency: Duration,
    request_bytes: u32,
}

impl Asked {
    /// A request that no worker gets to see.
    fn refused(up_seq: u64, command: u32, outcome: Outcome) -> Asked {
        Asked {
            outcome,
            up_seq,
            command,
            route: None,
            endpoint: 0,
            latency: Duration::ZERO,
            request_bytes: 0,
        }
    }
}

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
        v1::Trace::decode(view.trace).map_err(|_| Fault::Malformed(REQUEST))?;
        let Some(session) = self.sessions.get_mut(session_key) else {
            return Ok(());
        };
        session.up.admit();
        self.cells.count(Count::RequestsAdmitted);
        let request_bytes = u32::try_from(view.payload.len()).unwrap_or(u32::MAX);
        let mut met = None;
        let admitted = match admit(session, &view, now, &self.routes) {
            Ok(_) if self.outstanding.len() >= self.settings.outstanding_max => {
                self.cells.count(Count::ForwardsRefused);
                Err(Outcome::refused(Code::ResourceExhausted, Reason::GatewayOverloaded))
            }
            Ok(route) => charge(&mut self.limits, now.mono, session, route)
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
                self.forward(outstanding, timeout, body);
            }
            Err(outcome) => {
                let asked = Asked { request_bytes, ..Asked::refused(up_seq, view.command, outcome) };
                self.answer(now, session_key, &asked, &ReplyView::default());
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

    fn forward(&mut self, outstanding: Outstanding, timeout: Duration, body: &[u8]) {
        let (session_key, up_seq, route) = (outstanding.session, outstanding.up_seq, outstanding.route);
        let session_id = outstanding.caller.session_id;
        let deadline = outstanding.received + timeout;
        let caller = self.batch.arena.put(&outstanding.caller.encoded);
        let request = self.batch.arena.put(body);
        let ticket = self.outstanding.insert(outstanding);
        if let Some(session) = self.sessions.get_mut(session_key) {
            session.up.forwarded(up_seq, ticket);
        }
        self.batch.forwards.push(Forward {
            session_id,
            ticket,
            session: session_key,
            route,
            deadline,
            caller,
            request,
        });
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
        self.answer(now, session_key, &Asked::refused(up_seq, 0, outcome), &ReplyView::default());
    }

    /// Answers from the worker.
    pub fn settled(&mut self, now: Now, batch: &SettledBatch) {
        for settled in &batch.settled {
            self.settle(now, settled, &batch.arena);
        }
        self.check_invariants();
    }

    fn settle(&mut self, now: Now, settled: &Settled, arena: &Arena) {
        let Some(outstanding) = self.outstanding.remove(settled.ticket) else {
            debug_assert!(false, "a call was settled twice");
            return;
        };
        self.limits.settled(now.mono, &outstanding.charge);
        let asked = Asked {
            outcome: settled.outcome,
            up_seq: outstanding.up_seq,
            command: outstanding.command,
            route: Some((outstanding.route, outstanding.service)),
            endpoint: settled.endpoint,
            latency: now.mono.since(outstanding.received),
            request_bytes: outstanding.request_bytes,
        };
        // The worker has looked at it before: a reply that cannot be read is settled as one of the gateway's own.
        let reply = ReplyView::decode(arena.read(&settled.reply)).unwrap_or_default();
        match self.sessions.get_mut(outstanding.session) {
            None => {
                self.cells.count(Count::RepliesOrphaned);
                self.note(now, outstanding.caller, &asked, 0);
            }
            Some(session) => {
                session.up.answered(asked.up_seq);
                self.answer(now, outstanding.session, &asked, &reply);
            }
        }
    }

    /// Queues the one Response of a request.
    fn answer(&mut self, now: Now, session_key: SessionKey, asked: &Asked, reply: &ReplyView<'_>) {
        let Some(session) = self.sessions.get(session_key) else {
            return;
        };
        let (key, caller) = (session.connection, session.caller.clone());
        let frame_bytes_max = session.frame_bytes_max();
        let mut response = response(asked.up_seq, asked.outcome, reply);
        if response.payload.len().saturating_add(FRAME_OVERHEAD) > frame_bytes_max {
            self.cells.count(Count::PayloadsDropped);
            response.payload = &[];
            response.payload_dropped = true;
            response.reason = Reason::ReplyTooLarge.into();
        }
        let mut response_bytes = u32::try_from(response.payload.len()).unwrap_or(u32::MAX);
        if self.respond(key, session_key, &response) == Some(Responded::WaitingBare) {
            self.cells.count(Count::PayloadsDropped);
            response_bytes = 0;
        }
        self.note(now, caller, asked, response_bytes);
    }

    fn respond(
        &mut self,
        key: crate::base::ids::ConnectionKey,
        session_key: SessionKey,
        response: &ResponseView<'_>,
    ) -> Option<Responded> {
        self.buffer(key);
        let connection = self.connections.get_mut(key)?;
        let session = self.sessions.get_mut(session_key)?;
        let full = connection.output.is_above(self.settings.output_bytes_high);
        let out = (!full).then_some(&mut connection.output.bytes);
        let held = session.down.kept_bytes();
        let room = match self.owed_bytes < self.settings.owed_bytes_max {
            true => Room::Whole,
            false => Room::Bare,
        };
        let became = session.down.respond(response, session.up.admitted(), out, room);
        self.owed_bytes = self.owed_bytes.saturating_sub(held).saturating_add(session.down.kept_bytes());
        if became == Responded::Written {
            self.cells.count(Count::FramesSent);
            self.list(key);
        }
        Some(became)
    }

    fn note(&mut self, now: Now, caller: Arc<Caller>, asked: &Asked, response_bytes: u32) {
        self.cells.outcome(asked.outcome.code, asked.latency);
        if !self.access_log {
            return;
        }
        if self.access.len() >= ACCESS_RECORDS_MAX {
            self.cells.count(Count::AccessLogDropped);
            return;
        }
        self.access.push(AccessRecord {
            unix_ms: now.unix_ms,
            caller,
            up_seq: asked.up_seq,
            command: asked.command,
            route: asked.route,
            endpoint: asked.endpoint,
            outcome: asked.outcome,
            latency: asked.latency,
            request_bytes: asked.request_bytes,
            response_bytes,
        });
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
    if !session.has_access(now.mono) {
        return refused(Code::Unauthenticated, Reason::TokenExpired);
    }
    let route = match routes.find(view.command, view.version.max(1)) {
        Ok(route) => route,
        Err(RouteMiss::NoCommand | RouteMiss::NoVersion) => {
            return refused(Code::Unimplemented, Reason::NoRoute);
        }
        Err(RouteMiss::VersionTooLow) => return refused(Code::Unimplemented, Reason::VersionTooLow),
    };
    if session.version < route.protocol_min {
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
    if !view.fragment.is_empty() {
        return refused(Code::Unimplemented, Reason::FeatureNotNegotiated);
    }
    Ok(route)
}

fn response<'a>(up_seq: u64, outcome: Outcome, reply: &ReplyView<'a>) -> ResponseView<'a> {
    debug_assert_ne!(outcome.execution, Execution::Unspecified);
    ResponseView {
        up_seq,
        status: outcome.code.to_wire(),
        reason: outcome.reason.into(),
        source: outcome.source.into(),
        execution: outcome.execution.into(),
        retry_after_ms: outcome.retry_after_ms,
        message: cut(reply.message, MESSAGE_BYTES),
        content_encoding: cut(reply.content_encoding, NAME_BYTES),
        payload: reply.payload,
        ..ResponseView::default()
    }
}

/// The longest start of `text` within `bytes_max` bytes that is whole characters.
fn cut(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or_default()
}
