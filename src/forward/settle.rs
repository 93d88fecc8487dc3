//! How calls end: each is settled once, and leaves the tables when nothing more can come of it.

use super::Forwarder;
use super::call::CallState;
use crate::base::counters::Count;
use crate::base::ids::{CallKey, LinkKey, ShardId, Ticket};
use crate::relay::{Delivery, Directive, Outcome, Settled};
use crate::routing::{Priority, Verdict};
use moorgate_proto::envelope::member::to_service;
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{self, Execution, Reason};

impl Forwarder {
    /// Gives up a call that waits. One that was sent before ends as that attempt did.
    pub(super) fn refuse(&mut self, now: Mono, key: CallKey, reason: Reason) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let (before, priority) = (call.before.take(), call.priority);
        let outcome = match (before, reason) {
            (Some(before), _) => {
                if before.reason == Reason::EndpointLost {
                    self.cells.count(Count::CallsLost);
                }
                *before
            }
            (None, Reason::NoEndpoint) => {
                self.cells.count(Count::CallsUnavailable);
                Outcome::refused(Code::Unavailable, reason)
            }
            (None, _) => {
                self.cells.count(match priority {
                    Priority::Low => Count::CallsShedLow,
                    Priority::Normal => Count::CallsShedNormal,
                    Priority::High => Count::CallsShedHigh,
                });
                Outcome::refused(Code::ResourceExhausted, reason)
            }
        };
        self.settle(now, key, outcome, &[]);
        self.finish(now, key);
    }

    /// A call's client no longer wants it.
    pub(super) fn cancel(&mut self, now: Mono, shard: ShardId, ticket: Ticket) {
        let known = self.tickets.get(shard.index()).and_then(|tickets| tickets.get(ticket.index()));
        let Some(key) = known.copied().flatten() else { return };
        let Some(call) = self.calls.get_mut(key).filter(|call| call.ticket == ticket) else { return };
        call.is_cancelled = true;
        let twin = call.twin;
        match call.state {
            CallState::Waiting(_) => {
                self.settle(now, key, Outcome::refused(Code::Cancelled, Reason::Cancelled), &[]);
                self.finish(now, key);
            }
            CallState::Sent { flight, .. } => {
                self.send_cancel(key, flight.link);
                if let Some(twin) = twin
                    && let Some(call) = self.calls.get_mut(twin)
                {
                    call.is_cancelled = true;
                    if let Some(flight) = call.state.flight() {
                        self.send_cancel(twin, flight.link);
                    }
                }
            }
            CallState::Abandoned { .. } => {}
        }
    }

    pub(super) fn send_cancel(&mut self, key: CallKey, link_key: LinkKey) {
        if let Some(link) = self.links.get_mut(link_key) {
            link.put(to_service::CANCEL, &v1::CancelCall { call_id: key.to_u64() });
            self.cells.count(Count::CallsCancelled);
            self.list(link_key);
        }
    }

    /// Hands a call's one outcome to its shard. Its twin, if it has one, is not wanted any more.
    pub(super) fn settle(&mut self, now: Mono, key: CallKey, outcome: Outcome, reply: &[u8]) {
        self.settle_directed(now, key, (outcome, reply), None);
    }

    /// The same, with what the service asks beside.
    pub(super) fn settle_directed(
        &mut self,
        now: Mono,
        key: CallKey,
        (mut outcome, reply): (Outcome, &[u8]),
        directives: Option<Box<[Directive]>>,
    ) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let twin = call.twin.take();
        // What this attempt says is not all that there is to say.
        if outcome.execution == Execution::NotExecuted && (call.may_have_run || twin.is_some()) {
            outcome.execution = Execution::Unknown;
        }
        let (shard, ticket) = (call.shard, call.ticket);
        let (endpoint, decision) = (call.endpoint.0, call.decision);
        if let Some(batch) = self.outbound.get_mut(shard.index()) {
            let reply = batch.arena.put(reply);
            let settled = Settled { ticket, outcome, reply, endpoint, decision, directives };
            batch.deliveries.push(Delivery::Settled(settled));
        }
        self.remember(shard, ticket, None);
        if let Some(twin) = twin {
            self.abandon(now, twin);
        }
    }

    /// Nobody waits for a call that was sent any more: its service is told, and its Reply awaited for a while.
    pub(super) fn abandon(&mut self, now: Mono, key: CallKey) {
        let until = now + self.settings.late_reply_grace;
        let Some(call) = self.calls.get_mut(key) else { return };
        let CallState::Sent { flight, .. } = call.state else { return };
        call.twin = None;
        let (service, kept) = (call.service, call.state.kept_bytes());
        call.state = CallState::Abandoned { flight, until };
        self.count_kept(service, kept, false);
        self.send_cancel(key, flight.link);
        self.arm_call(key, until);
    }

    /// Takes a settled call out of the tables, and lets the next one go.
    pub(super) fn finish(&mut self, now: Mono, key: CallKey) {
        self.judge_call(now, key, Verdict::Nothing);
        let line = self.line_of(key);
        let Some(call) = self.calls.remove(key) else { return };
        let service = call.service;
        match call.state {
            CallState::Waiting(content) => {
                self.count_waiting(service, false);
                self.waiting_bytes = self.waiting_bytes.saturating_sub(content.len());
                if let Some(service) = self.services.get_mut(service.index()) {
                    service.waiting_bytes = service.waiting_bytes.saturating_sub(content.len());
                }
            }
            CallState::Sent { flight, kept, .. } => {
                if let Some(kept) = kept {
                    self.count_kept(service, kept.len(), false);
                }
                self.off_link(now, flight.link);
            }
            CallState::Abandoned { flight, .. } => self.off_link(now, flight.link),
        }
        if let Some(twin) = call.twin.and_then(|twin| self.calls.get_mut(twin)) {
            twin.twin = None;
        }
        if let Some(line) = line {
            let service = self.services.get_mut(service.index());
            if let Some(head) = service.and_then(|service| service.orders.leave(line, key)) {
                self.stand_in_line(head);
            }
        }
        self.send_waiting(now, service);
    }

    /// A call is no longer on this link.
    pub(super) fn off_link(&mut self, now: Mono, link: LinkKey) {
        if let Some(entry) = self.links.get_mut(link) {
            entry.outstanding = entry.outstanding.saturating_sub(1);
        }
        self.end_finished(now, link);
    }

    pub(super) fn expire_unsent(&mut self, now: Mono, key: CallKey) {
        self.cells.count(Count::CallsExpiredUnsent);
        self.settle(now, key, Outcome::refused(Code::DeadlineExceeded, Reason::Timeout), &[]);
        self.finish(now, key);
    }
}
