//! A second attempt beside one that is slow: sent to another endpoint after the time in which nineteen of twenty calls of
//! the service are answered. The first answer that is not to be tried again counts, and the other attempt is cancelled.
//!
//! ```text
//! one attempt ── slow, and within the budget ──► two ── an answer ──► settled; the other is abandoned
//!                                                 └── one is lost, or is to be tried again ──► one attempt, the last
//! ```

use super::Forwarder;
use super::call::{Call, CallState, Content, Detour};
use super::choose::{Choice, Wish};
use crate::base::counters::Count;
use crate::base::ids::CallKey;
use crate::relay::Outcome;
use crate::routing::{Decision, Marks};
use moorgate_proto::time::Mono;
use moorgate_proto::v1::Execution;

impl Forwarder {
    /// Arms the alarm of a call that was sent: for its deadline, or for its second attempt.
    pub(super) fn arm_sent(&mut self, now: Mono, key: CallKey) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let mut due = call.deadline;
        if let CallState::Sent { hedge_at, kept: Some(_), .. } = &mut call.state
            && call.attempts == 1
            && call.detour.as_ref().is_none_or(|detour| detour.twin.is_none())
            && let Some(service) = self.services.get(call.service.index())
            && service.has_hedges
            && let Some(route) = self.routes.route(call.route)
            && route.hedge
            && route.idempotent
            && !call.is_ordered
            && let Some(p95) = service.latencies.p95()
        {
            *hedge_at = now + p95;
            due = due.min(*hedge_at);
        }
        self.arm_call(key, due);
    }

    /// A call is slow: sends it to another endpoint too.
    pub(super) fn hedge(&mut self, now: Mono, key: CallKey) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let (service_id, is_alone) = (call.service, call.twin().is_none());
        let CallState::Sent { hedge_at, kept, .. } = &mut call.state else { return };
        *hedge_at = Mono::NEVER;
        let Some(seat) = call.tried else { return };
        if call.is_cancelled || !is_alone || kept.is_none() {
            return;
        }
        // Lent, so that nothing is copied.
        let Some(content) = kept.take() else { return };
        let ask = self.ask(service_id, content.bytes(), Some(seat));
        let wish = Wish { pinned: None, not: Some(seat), is_large: self.is_large(content.bytes()) };
        let choice = self.choose(now, service_id, ask, wish);
        let hedged = choice.ok().and_then(|choice| self.send_twin(now, key, choice, &content));
        if let Some(call) = self.calls.get_mut(key) {
            if hedged.is_some() {
                call.detour_mut().twin = hedged;
            }
            if let CallState::Sent { kept, .. } = &mut call.state {
                *kept = Some(content);
            }
        }
        match hedged {
            Some(twin) => {
                self.cells.count(Count::HedgesSent);
                self.arm_sent(now, twin);
            }
            None => self.cells.count(Count::HedgesRefused),
        }
    }

    /// Sends the second attempt of a call, if the budget has one.
    fn send_twin(&mut self, now: Mono, key: CallKey, choice: Choice, content: &Content) -> Option<CallKey> {
        let marks = choice.decision.marks.with(Marks::HEDGE);
        let choice = Choice { decision: Decision { marks, ..choice.decision }, ..choice };
        let service = self.calls.get(key)?.service;
        let is_paid = self.services.get_mut(service.index())?.budget.take_hedge(now);
        if is_paid && let Some(twin) = self.twin_of(key) {
            if self.dispatch(now, twin, choice, content.bytes()) {
                return Some(twin);
            }
            // The service takes no frame as large there: it is as if it had not been tried.
            self.calls.remove(twin);
        }
        self.take_back(choice);
        None
    }

    /// An entry for the second attempt of a call.
    fn twin_of(&mut self, key: CallKey) -> Option<CallKey> {
        let call = self.calls.get(key)?;
        let detour = Detour { twin: Some(key), before: None, ..call.known() };
        let twin =
            Call { detour: Some(Box::new(detour)), is_unjudged: false, state: CallState::empty(), ..*call };
        Some(self.calls.insert(twin))
    }

    /// One of two attempts has failed, the other one is what is left of the call. Without an `outcome` nothing of it was
    /// sent.
    pub(super) fn leave_to(&mut self, now: Mono, key: CallKey, twin: CallKey, outcome: Option<&Outcome>) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let ran = outcome.is_some_and(|outcome| outcome.execution != Execution::NotExecuted);
        let may_have_run = call.known().may_have_run || ran;
        // What is needed to send it again is with the first one.
        let content = match &mut call.state {
            CallState::Sent { kept, .. } => kept.take(),
            CallState::Waiting(_) | CallState::Abandoned { .. } => None,
        };
        let handed = content.as_ref().map_or(0, Content::len);
        let mut dropped = (call.service, handed);
        if let Some(left) = self.calls.get_mut(twin) {
            if let CallState::Sent { kept, .. } = &mut left.state
                && content.is_some()
            {
                dropped.1 = kept.as_ref().map_or(0, Content::len);
                *kept = content;
            }
            let detour = left.detour_mut();
            detour.twin = None;
            detour.may_have_run |= may_have_run;
            // Only first attempts are hedged; the second one counts if there was one.
            left.attempts = if outcome.is_some() { 2 } else { 1 };
            let (shard, ticket) = (left.shard, left.ticket);
            self.remember(shard, ticket, Some(twin));
        }
        self.count_kept(dropped.0, dropped.1, false);
        self.finish(now, key);
    }
}
