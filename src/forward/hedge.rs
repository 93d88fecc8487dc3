//! A second attempt beside one that is slow: sent to another endpoint after the time in which nineteen of twenty calls of
//! the service are answered. The first answer that is not to be tried again counts, and the other attempt is cancelled.
//!
//! ```text
//! one attempt ── slow, and within the budget ──► two ── an answer ──► settled; the other is abandoned
//!                                                 └── one is lost, or is to be tried again ──► one attempt, the last
//! ```

use super::Forwarder;
use super::call::{Call, CallState, Detour};
use super::choose::Wish;
use crate::base::counters::Count;
use crate::base::ids::CallKey;
use crate::relay::Outcome;
use crate::routing::Marks;
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
        let Some(service) = self.services.get_mut(service_id.index()) else { return };
        if !service.has_another(seat) || !service.budget.take_hedge(now) {
            return self.cells.count(Count::HedgesRefused);
        }
        // Lent, so that nothing is copied.
        let Some(content) = kept.take() else { return };
        let ask = self.ask(service_id, content.parts().0, Some(seat));
        let wish = Wish { pinned: None, not: Some(seat) };
        let hedged = match self.choose(now, service_id, ask, wish) {
            Ok(choice) => {
                let decision = choice.decision;
                let marks = decision.marks.with(Marks::HEDGE);
                let choice = super::choose::Choice {
                    decision: crate::routing::Decision { marks, ..decision },
                    ..choice
                };
                let twin = self.twin_of(key);
                twin.filter(|twin| {
                    self.dispatch(now, *twin, choice, content.parts()) || self.drop_twin(*twin)
                })
            }
            Err(_) => None,
        };
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

    /// An entry for the second attempt of a call.
    fn twin_of(&mut self, key: CallKey) -> Option<CallKey> {
        let call = self.calls.get(key)?;
        let detour = Detour { twin: Some(key), before: None, ..call.known() };
        let twin =
            Call { detour: Some(Box::new(detour)), is_unjudged: false, state: CallState::empty(), ..*call };
        Some(self.calls.insert(twin))
    }

    /// The service takes no frame as large there: it is as if it had not been tried.
    fn drop_twin(&mut self, twin: CallKey) -> bool {
        self.calls.remove(twin);
        false
    }

    /// One of two attempts has failed, the other one is what is left of the call.
    pub(super) fn leave_to(&mut self, now: Mono, key: CallKey, twin: CallKey, outcome: &Outcome) {
        let Some(call) = self.calls.get(key) else { return };
        let may_have_run = call.known().may_have_run || outcome.execution != Execution::NotExecuted;
        if let Some(left) = self.calls.get_mut(twin) {
            let detour = left.detour_mut();
            detour.twin = None;
            detour.may_have_run |= may_have_run;
            // Both count.
            left.attempts = left.attempts.max(2);
            let (shard, ticket) = (left.shard, left.ticket);
            self.remember(shard, ticket, Some(twin));
        }
        self.finish(now, key);
    }
}
