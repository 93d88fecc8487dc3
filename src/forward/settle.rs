//! How calls end: each is settled once, and leaves the tables when nothing more can come of it.

use super::Forwarder;
use super::call::{Call, CallState};
use crate::base::counters::Count;
use crate::base::ids::{CallKey, LinkKey, ShardId, Ticket};
use crate::relay::{Arena, Delivery, Outcome, Settled};
use crate::routing::{Priority, Verdict};
use moorgate_proto::envelope::member::to_service;
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{self, Reason};

impl Forwarder {
    /// Gives up a call that waits. One that was sent before ends as that attempt did.
    pub(super) fn refuse(&mut self, now: Mono, key: CallKey, reason: Reason) {
        let Some(call) = self.calls.get(key) else { return };
        let (before, priority) = (call.known().before, call.priority);
        let outcome = match (before, reason) {
            (Some(before), _) => {
                if before.reason == Reason::EndpointLost {
                    self.cells.count(Count::CallsLost);
                }
                before
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
        self.end(now, key, outcome);
    }

    /// A call's client no longer wants it.
    pub(super) fn cancel(&mut self, now: Mono, shard: ShardId, ticket: Ticket) {
        let known = self.tickets.get(shard.index()).and_then(|tickets| tickets.get(ticket.index()));
        let Some(key) = known.copied().flatten() else { return };
        let Some(call) = self.calls.get_mut(key).filter(|call| call.ticket == ticket) else { return };
        call.is_cancelled = true;
        let twin = call.twin();
        match call.state {
            CallState::Waiting(_) => {
                self.end(now, key, Outcome::refused(Code::Cancelled, Reason::Cancelled));
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

    /// Hands a call's one outcome to its shard, and takes the call out of the tables.
    pub(super) fn end(&mut self, now: Mono, key: CallKey, outcome: Outcome) {
        self.end_with(now, key, outcome, |settled, _| settled);
    }

    /// The same, with what the service says beside.
    pub(super) fn end_with(
        &mut self,
        now: Mono,
        key: CallKey,
        outcome: Outcome,
        complete: impl FnOnce(Settled, &mut Arena) -> Settled,
    ) {
        let Some(mut call) = self.calls.remove(key) else { return };
        if let Some(batch) = self.outbound.get_mut(call.shard.index()) {
            let settled = complete(call.settled(outcome), &mut batch.arena);
            batch.deliveries.push(Delivery::Settled(settled));
        }
        self.remember(call.shard, call.ticket, None);
        if let Some(twin) = call.take_twin() {
            self.abandon(now, twin);
        }
        self.leave(now, key, &mut call);
    }

    /// Hands a call's one outcome to its shard. Its twin, if it has one, is not wanted any more.
    pub(super) fn settle(&mut self, now: Mono, key: CallKey, outcome: Outcome) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let settled = call.settled(outcome);
        let (shard, ticket, twin) = (call.shard, call.ticket, call.take_twin());
        self.deliver(shard, Delivery::Settled(settled));
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
        call.take_twin();
        let (service, kept) = (call.service, call.state.kept_bytes());
        call.state = CallState::Abandoned { flight, until };
        self.count_kept(service, kept, false);
        self.send_cancel(key, flight.link);
        self.arm_call(key, until);
    }

    /// Takes a settled call out of the tables.
    pub(super) fn finish(&mut self, now: Mono, key: CallKey) {
        if let Some(mut call) = self.calls.remove(key) {
            self.leave(now, key, &mut call);
        }
    }

    /// A call is out of the tables: lets the next one go.
    fn leave(&mut self, now: Mono, key: CallKey, call: &mut Call) {
        let service = call.service;
        if let Some(ended) = call.judged(now, Verdict::Nothing, None) {
            self.ended(now, service, ended);
        }
        if let Some(twin) = call.twin().and_then(|twin| self.calls.get_mut(twin)) {
            twin.take_twin();
        }
        let line = call.line();
        match &call.state {
            CallState::Waiting(content) => {
                self.count_waiting(service, false);
                self.count_waiting_bytes(service, content.len(), false);
            }
            CallState::Sent { flight, kept, .. } => {
                if let Some(kept) = kept {
                    self.count_kept(service, kept.len(), false);
                }
                self.off_link(now, flight.link);
            }
            CallState::Abandoned { flight, .. } => self.off_link(now, flight.link),
        }
        if let Some(line) = line {
            let service = self.services.get_mut(service.index());
            if let Some(head) = service.and_then(|service| service.orders.leave(line, key)) {
                self.stand_in_line(head, false);
            }
        }
        self.send_waiting(now, service);
    }

    /// A call is no longer on this link.
    pub(super) fn off_link(&mut self, now: Mono, key: LinkKey) {
        let Some(link) = self.links.get_mut(key) else { return };
        link.outstanding = link.outstanding.saturating_sub(1);
        let main = link.partner().filter(|_| link.is_bulk() && !link.is_closing());
        if link.is_ending() {
            self.end_finished(now, key);
        }
        if let Some(main_key) = main
            && let Some(main) = self.links.get_mut(main_key)
        {
            main.bulk.outstanding = main.bulk.outstanding.saturating_sub(1);
            if main.is_ending() {
                self.end_finished(now, main_key);
            }
        }
    }

    pub(super) fn expire_unsent(&mut self, now: Mono, key: CallKey) {
        // One that was sent before, and waited to be tried again, was counted as such.
        let was_sent = self.calls.get(key).is_some_and(|call| call.known().before.is_some());
        self.cells.count(if was_sent { Count::CallsExpired } else { Count::CallsExpiredUnsent });
        self.end(now, key, Outcome::refused(Code::DeadlineExceeded, Reason::Timeout));
    }
}
