//! Calls that go elsewhere: moved before anything of them was sent, or tried again after an attempt that failed.
//!
//! | what became of the attempt | what is done |
//! | --- | --- |
//! | the link is lost, no byte of the frame was taken by its socket | moved at once, without a budget, a few times |
//! | the link is lost, some or all of it was taken | tried again, on an idempotent route |
//! | a Reply says that it was not executed, for a reason that another endpoint may not have | tried again, on any route |
//! | a Reply says that it may have been executed, and failed | tried again, on an idempotent route |
//! | a Reply says that it was executed; the deadline is over; the client has cancelled | that is the end |
//!
//! Trying again needs the content, which was kept, and something out of the service's budget at this worker, which is taken
//! when the call is about to be sent: one that waits in vain costs nothing. One that must wait goes before those that were
//! never sent. What cannot be done ends the call as the attempt ended. A worker that stops moves and tries nothing.

use super::Forwarder;
use super::call::{CallState, Content};
use super::choose::Unsendable;
use super::link::Link;
use super::verdict::may_try_again;
use crate::base::counters::Count;
use crate::base::ids::{CallKey, LinkKey, ServiceId};
use crate::relay::Outcome;
use crate::routing::{EndpointId, Fault, Verdict};
use moorgate_proto::codec::Assembler;
use moorgate_proto::envelope::Envelope;
use moorgate_proto::limits::FRAME_BYTES_CEILING;
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{Execution, Reason};
use moorgate_proto::view::{Body, CallView};

/// Times that a call may be moved beyond the attempts that it has: links that are lost before they send anything could
/// go on for ever.
const MOVES_MORE: u8 = 2;

impl Forwarder {
    /// Keeps the content of a call that was sent, for a second attempt, if there may be one and there is room.
    pub(super) fn keep(&mut self, key: CallKey, content: impl FnOnce() -> Content, bytes: usize) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let Some(service) = self.services.get_mut(call.service.index()) else { return };
        if !service.is_keeping {
            return;
        }
        let CallState::Sent { kept, .. } = &mut call.state else { return };
        let sum = service.kept_bytes.saturating_add(bytes);
        if sum > service.settings.pool.retry.kept_bytes_max {
            return self.cells.count(Count::CallsNotKept);
        }
        service.kept_bytes = sum;
        *kept = Some(content());
    }

    pub(super) fn count_kept(&mut self, service: ServiceId, bytes: usize, more: bool) {
        if let Some(service) = self.services.get_mut(service.index()) {
            let sum = service.kept_bytes;
            service.kept_bytes = if more { sum.saturating_add(bytes) } else { sum.saturating_sub(bytes) };
        }
    }

    /// Settles, moves or tries again what was sent on a link that is gone, in the order in which it was sent.
    /// However many they were, the loss says one thing of the endpoint: it is told with the one that was sent last. Whether
    /// it was told.
    pub(super) fn settle_link(&mut self, now: Mono, key: LinkKey, link: &Link) -> bool {
        if link.outstanding == 0 {
            return false;
        }
        let on_link = |call: &CallKey| {
            let flight = self.calls.get(*call).and_then(|call| call.state.flight());
            flight.filter(|flight| flight.link == key).map(|flight| flight.offset)
        };
        let mut lost: Vec<(u64, CallKey)> =
            self.calls.keys().filter_map(|call| Some((on_link(&call)?, call))).collect();
        lost.sort_unstable_by_key(|(offset, _)| *offset);
        let is_out = |key: &CallKey| {
            let call = self.calls.get(*key);
            call.is_some_and(|call| call.is_unjudged && matches!(call.state, CallState::Sent { .. }))
        };
        let sent = lost.iter().rev().filter(|(offset, _)| *offset < link.taken());
        let last = sent.map(|(_, key)| *key).find(is_out);
        for (offset, call) in lost {
            match self.calls.get(call).map(|call| &call.state) {
                Some(CallState::Sent { .. }) if offset >= link.taken() => {
                    self.judge_call(now, call, Verdict::Nothing, None);
                    self.move_on(now, call, link.frame_at(offset));
                }
                Some(CallState::Sent { .. }) => {
                    let is_last = Some(call) == last;
                    let verdict = if is_last { Verdict::Failed } else { Verdict::Nothing };
                    self.judge_call(now, call, verdict, Some(Fault::Lost));
                    let outcome = Outcome::unknown(Code::Aborted, Reason::EndpointLost);
                    if !self.goes_on(now, call, &outcome) {
                        self.cells.count(Count::CallsLost);
                        self.end(now, call, outcome);
                    }
                }
                Some(CallState::Abandoned { .. }) => self.finish(now, call),
                Some(CallState::Waiting(_)) | None => {}
            }
        }
        last.is_some()
    }

    /// A call of which nothing was sent goes to another link, or waits for one.
    fn move_on(&mut self, now: Mono, key: CallKey, frame: &[u8]) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let moves_max = self
            .services
            .get(call.service.index())
            .map_or(0, |service| service.settings.pool.retry.attempts_max)
            .saturating_add(MOVES_MORE.into());
        call.attempts = call.attempts.saturating_sub(1);
        if let Some(twin) = call.twin() {
            // The other one is out: this one was never there.
            return self.leave_to(now, key, twin, None);
        }
        if call.attempts == 0 {
            call.endpoint = EndpointId::default();
        }
        if call.is_cancelled {
            return self.end(now, key, Outcome::refused(Code::Cancelled, Reason::Cancelled));
        }
        let detour = call.detour_mut();
        // When it stops, the other links are closed next.
        if self.stopping || u32::from(detour.moves) >= moves_max {
            return self.refuse(now, key, Reason::NoEndpoint);
        }
        detour.moves = detour.moves.saturating_add(1);
        let kept = match &mut call.state {
            CallState::Sent { kept, .. } => kept.take(),
            CallState::Waiting(_) | CallState::Abandoned { .. } => None,
        };
        if let Some(kept) = &kept {
            let (service, bytes) = (call.service, kept.len());
            self.count_kept(service, bytes, false);
        }
        let Some(content) = kept.or_else(|| recovered(frame)) else {
            debug_assert!(false, "a frame that was put on a link is there until it is sent");
            return self.refuse(now, key, Reason::NoEndpoint);
        };
        self.cells.count(Count::CallsMoved);
        self.send_again(now, key, content);
    }

    /// Whether a call goes on after an attempt that ended like this: its twin is still out, or it is tried again.
    pub(super) fn goes_on(&mut self, now: Mono, key: CallKey, outcome: &Outcome) -> bool {
        let Some(call) = self.calls.get(key) else { return false };
        let is_idempotent = self.routes.route(call.route).is_some_and(|route| route.idempotent);
        if self.stopping || call.is_cancelled || !may_try_again(outcome, is_idempotent) {
            return false;
        }
        if let Some(twin) = call.twin() {
            self.leave_to(now, key, twin, Some(outcome));
            return true;
        }
        if !self.may_send_again(now, key, outcome) {
            return false;
        }
        let Some(call) = self.calls.get_mut(key) else { return false };
        let CallState::Sent { kept, .. } = &mut call.state else { return false };
        let Some(content) = kept.take() else { return false };
        let detour = call.detour_mut();
        detour.may_have_run |= outcome.execution != Execution::NotExecuted;
        detour.before = Some(*outcome);
        detour.is_paid = false;
        let (service, line) = (call.service, call.line());
        self.count_kept(service, content.len(), false);
        if let Some(line) = line
            && let Some(service) = self.services.get_mut(service.index())
        {
            service.orders.unpin(line);
        }
        self.send_again(now, key, content);
        true
    }

    /// Whether there is a second attempt to be made, and the means for it.
    fn may_send_again(&mut self, now: Mono, key: CallKey, outcome: &Outcome) -> bool {
        let Some(call) = self.calls.get(key) else { return false };
        let CallState::Sent { kept, .. } = &call.state else { return false };
        let Some(service) = self.services.get_mut(call.service.index()) else { return false };
        let attempts_max = service.settings.pool.retry.attempts_max;
        if u32::from(call.attempts) >= attempts_max || call.deadline <= now {
            return false;
        }
        // An endpoint that has just said no says it again.
        let has_place = match outcome.reason {
            Reason::EndpointLost => service.pool.has_ready(),
            _ => call.tried.is_some_and(|seat| service.has_another(now, seat)),
        };
        let why = if !has_place {
            Count::RetriesNoEndpoint
        } else if kept.is_none() {
            Count::RetriesNotKept
        } else if !service.budget.has_retry(now) {
            Count::RetriesNoBudget
        } else {
            return true;
        };
        self.cells.count(why);
        false
    }

    /// Pays for an attempt after one that failed, once, when it is about to be sent; whether there was a budget for it.
    /// Attempts that are the first, or were taken back unsent, cost nothing.
    pub(super) fn pay(&mut self, now: Mono, key: CallKey) -> bool {
        let Some(call) = self.calls.get_mut(key) else { return false };
        let Some(detour) = call.detour.as_mut().filter(|detour| detour.before.is_some() && !detour.is_paid)
        else {
            return true;
        };
        let Some(service) = self.services.get_mut(call.service.index()) else { return false };
        detour.is_paid = service.budget.take_retry(now);
        let count = if detour.is_paid { Count::RetriesTried } else { Count::RetriesNoBudget };
        self.cells.count(count);
        detour.is_paid
    }

    /// Takes a call off the link that had it, and sends it on another or lets it wait. On the wire it is a new one: a second
    /// Reply to the old one is not taken for its own.
    fn send_again(&mut self, now: Mono, key: CallKey, content: Content) {
        let Some(call) = self.calls.remove(key) else { return };
        let (shard, ticket, service, line) = (call.shard, call.ticket, call.service, call.line());
        let (deadline, link) = (call.deadline, call.state.flight().map(|flight| flight.link));
        let key_before = key;
        let key = self.calls.insert(super::Call { state: CallState::empty(), ..call });
        self.count_waiting(service, true);
        self.remember(shard, ticket, Some(key));
        if let Some(line) = line
            && let Some(service) = self.services.get_mut(service.index())
        {
            service.orders.replace(line, key_before, key);
        }
        if let Some(link) = link {
            self.off_link(now, link);
        }
        if deadline <= now {
            return self.expire_unsent(now, key);
        }
        match self.send(now, key, content.bytes()) {
            Ok(()) => {
                let bytes = content.len();
                self.keep(key, || content, bytes);
                self.arm_sent(now, key);
            }
            Err(Unsendable::NoLink | Unsendable::NoBudget) => self.refuse(now, key, Reason::NoEndpoint),
            Err(Unsendable::NoRoom | Unsendable::LinkFull | Unsendable::NoBulk { .. }) => {
                self.wait(now, key, content, true);
            }
        }
    }
}

/// What was to be sent, out of its frame.
fn recovered(mut bytes: &[u8]) -> Option<Content> {
    let mut assembler = Assembler::default();
    let frame = assembler.next(&mut bytes, FRAME_BYTES_CEILING).ok()??;
    let (_, body) = Envelope::decode(frame).ok()?.member?;
    let call = CallView::decode(body).ok()?;
    let call = CallView { call_id: 0, remaining_ms: 0, attempt: 0, ordering_key: &[], ..call };
    let mut content = Vec::with_capacity(call.body_len());
    call.put(&mut content);
    Some(Content::new(&content))
}
