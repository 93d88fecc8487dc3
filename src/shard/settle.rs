//! From a settlement to its answer: what the service asks is done first, then the one Response is queued.

use super::Shard;
use super::asked::{Asked, Effect};
use crate::base::clock::Now;
use crate::base::counters::Count;
use crate::base::ids::SessionKey;
use crate::base::output::Output;
use crate::base::text::cut;
use crate::relay::{AccessRecord, Arena, Delivery, DeliveryBatch, Outcome, Settled};
use crate::session::{Responded, Room, Sending};
use moorgate_proto::action;
use moorgate_proto::limits::{FRAME_OVERHEAD, MESSAGE_BYTES, NAME_BYTES};
use moorgate_proto::status::Code;
use moorgate_proto::v1::{Execution, Reason};
use moorgate_proto::view::{ReplyView, ResponseView};

/// Access records kept within one turn; beyond it lines are lost, and counted.
const ACCESS_RECORDS_MAX: usize = 16 * 1024;

impl Shard {
    /// What a worker has to say, in its order.
    pub fn delivered(&mut self, now: Now, batch: DeliveryBatch) {
        // A worker orders a kick before it posts what comes after it.
        self.orders(now);
        let DeliveryBatch { arena, deliveries } = batch;
        for delivery in deliveries {
            match delivery {
                Delivery::Settled(settled) => self.settle(now, &settled, &arena),
                Delivery::Push(order) => self.push_ordered(order),
                Delivery::Member(order) => self.member_ordered(&order),
                Delivery::Checked(checked) => self.checked(now, checked),
            }
        }
        self.check_invariants();
    }

    fn settle(&mut self, now: Now, settled: &Settled, arena: &Arena) {
        let Some(outstanding) = self.outstanding.remove(settled.ticket) else {
            debug_assert!(false, "a call was settled twice");
            return;
        };
        self.limits.settled(now.mono, &outstanding.charge);
        self.credit.give_back(outstanding.service);
        let mut asked = Asked {
            outcome: settled.outcome,
            up_seq: outstanding.up_seq,
            command: outstanding.command,
            route: Some((outstanding.route, outstanding.service)),
            endpoint: settled.endpoint,
            decision: settled.decision,
            latency: now.mono.since(outstanding.received),
            request_bytes: outstanding.request_bytes,
            caller: outstanding.caller,
        };
        let directives = settled.directives.as_deref().unwrap_or_default();
        let mut reply = settled.reply(arena);
        let Some(session) = self.sessions.get_mut(outstanding.session) else {
            self.cells.count(Count::RepliesOrphaned);
            self.discard(directives);
            self.note(now, &asked, 0);
            return;
        };
        session.up.answered(asked.up_seq);
        let key = session.connection();
        if directives.is_empty() {
            self.answer(now, outstanding.session, &asked, (&reply, &[]));
            if asked.outcome.code == Code::Unauthenticated {
                self.login_refused(now, key, &asked);
            }
            return;
        }
        let Effect { login, logout, refused } = self.directed(now, outstanding.session, &asked, directives);
        if let Some(outcome) = refused {
            asked.outcome = outcome;
            reply = ReplyView::default();
        }
        self.answer(now, outstanding.session, &asked, (&reply, &login));
        if logout {
            self.log_out(now, outstanding.session);
        }
    }

    /// Queues the one Response of a request. Beside the reply stands an encoded `v1::LoginResult`, or nothing.
    pub(super) fn answer(
        &mut self,
        now: Now,
        session_key: SessionKey,
        asked: &Asked,
        (reply, login): (&ReplyView<'_>, &[u8]),
    ) {
        let Some(session) = self.sessions.get(session_key) else {
            // It was ended by what was asked with this very answer.
            self.cells.count(Count::RepliesOrphaned);
            return self.note(now, asked, 0);
        };
        let frame_bytes_max = session.frame_bytes_max();
        let mut response = ResponseView { login, ..response(asked.up_seq, asked.outcome, reply) };
        let bytes = response.payload.len().saturating_add(login.len());
        if bytes.saturating_add(FRAME_OVERHEAD) > frame_bytes_max && !response.payload.is_empty() {
            self.cells.count(Count::PayloadsDropped);
            response.payload = &[];
            response.payload_dropped = true;
            response.reason = Reason::ReplyTooLarge.into();
            response.action = action::of(Reason::ReplyTooLarge, asked.outcome.execution).into();
        }
        let mut response_bytes = u32::try_from(response.payload.len()).unwrap_or(u32::MAX);
        if self.respond(now, session_key, &response) == Some(Responded::WaitingBare) {
            self.cells.count(Count::PayloadsDropped);
            response_bytes = 0;
        }
        self.note(now, asked, response_bytes);
    }

    /// Without a connection it waits for one.
    fn respond(
        &mut self,
        now: Now,
        session_key: SessionKey,
        response: &ResponseView<'_>,
    ) -> Option<Responded> {
        if self.owed_bytes >= self.settings.owed_bytes_max {
            self.shed_owed(now);
        }
        let high = self.settings.output_bytes_high;
        let session = self.sessions.get_mut(session_key)?;
        let key = session.connection();
        let output = key.and_then(|key| self.connections.get_mut(key)).map(|it| &mut it.output);
        let mut output = output.filter(|output| !output.is_above(high));
        if let Some(output) = &mut output {
            self.spare_buffers.lend(output);
        }
        let held = session.down.kept_bytes();
        let sending = Sending {
            admitted: session.up.admitted(),
            window_max: self.session_settings.window_max as usize,
            out: output.as_deref_mut().map(|output| &mut output.bytes),
            room: match self.owed_bytes < self.settings.owed_bytes_max {
                true => Room::Whole,
                false => Room::Bare,
            },
            bounds: self.session_settings.bounds(),
        };
        let became = session.down.respond(response, sending);
        self.owed_bytes = self.owed_bytes.saturating_sub(held).saturating_add(session.down.kept_bytes());
        if became == Responded::Written {
            self.cells.count(Count::FramesSent);
            if output.is_some_and(Output::is_new_on_list) {
                self.flushes.extend(key);
            }
        }
        Some(became)
    }

    fn note(&mut self, now: Now, asked: &Asked, response_bytes: u32) {
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
            caller: asked.caller.clone(),
            up_seq: asked.up_seq,
            command: asked.command,
            route: asked.route,
            endpoint: asked.endpoint,
            decision: asked.decision,
            outcome: asked.outcome,
            latency: asked.latency,
            request_bytes: asked.request_bytes,
            response_bytes,
        });
    }
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
        action: action::of_outcome(outcome.code, outcome.reason, outcome.execution).into(),
        message: cut(reply.message, MESSAGE_BYTES),
        content_encoding: cut(reply.content_encoding, NAME_BYTES),
        payload: reply.payload,
        ..ResponseView::default()
    }
}
