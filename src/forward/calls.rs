//! From a Forward to a call on a link.

use super::order::Line;
use super::{Call, CallState, Forwarder, Timer};
use crate::base::counters::Count;
use crate::base::ids::{CallKey, LinkKey, ServiceId, SessionId, ShardId, Ticket};
use crate::base::wheel::Alarm;
use crate::relay::{Delivery, Directive, Forward, ForwardBatch, Outcome, Settled};
use crate::routing::{Candidate, Decision, Order};
use moorgate_proto::codec::{LENGTH_BYTES, frame_len, put_frame};
use moorgate_proto::envelope::Numbers;
use moorgate_proto::envelope::member::to_service;
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{self, Reason};
use moorgate_proto::view::{Body, CallView, RequestView};

/// Settled calls that a line may hold before it is cleaned, beyond as many as wait.
const LINE_SLACK: usize = 64;

/// Why a call cannot be sent now.
pub(super) enum Unsendable {
    /// No link is ready.
    NoLink,
    /// Every ready link is at its bound.
    NoRoom,
    /// The link that the call's session is bound to is at its bound; others may have room.
    LinkFull,
}

/// Calls that wait for their own link are passed over, up to this many at once: the rest waits behind them.
const PASSED_OVER_MAX: usize = 64;

impl Forwarder {
    /// What a shard has decided in one turn.
    pub fn forward(&mut self, now: Mono, batch: &ForwardBatch) {
        for forward in &batch.forwards {
            let caller = batch.arena.read(&forward.caller);
            let request = batch.arena.read(&forward.request);
            self.take(now, batch.shard, forward, (caller, request));
        }
        for ticket in &batch.cancels {
            self.cancel(now, batch.shard, *ticket);
        }
        for check in &batch.checks {
            self.check(now, batch.shard, check, batch.arena.read(&check.caller));
        }
        self.check_invariants();
    }

    fn take(&mut self, now: Mono, shard: ShardId, forward: &Forward, content: (&[u8], &[u8])) {
        let Some(route) = self.routes.route(forward.route) else {
            debug_assert!(false, "a shard names only routes that are in force");
            return;
        };
        let (service, order) = (route.service, route.order);
        let call = Call {
            shard,
            ticket: forward.ticket,
            session: forward.session,
            session_id: forward.session_id,
            route: forward.route,
            service,
            deadline: forward.deadline,
            state: CallState::Waiting { caller: Box::default(), request: Box::default() },
        };
        let key = self.calls.insert(call);
        self.waiting = self.waiting.saturating_add(1);
        self.remember(shard, forward.ticket, Some(key));
        if forward.deadline <= now {
            return self.expire_unsent(now, key);
        }
        let line = Line { shard, session: forward.session };
        let is_head = match (order, self.services.get_mut(service.index())) {
            (Order::Session, Some(service)) => service.orders.join(line, key),
            _ => true,
        };
        let result = match is_head {
            true => self.send(now, key, content),
            false if self.has_ready_link(service) => Err(Unsendable::NoRoom),
            false => Err(Unsendable::NoLink),
        };
        match result {
            Ok(()) => self.arm_call(key, forward.deadline),
            Err(Unsendable::NoLink) => self.refuse(now, key, Reason::NoEndpoint),
            Err(Unsendable::NoRoom | Unsendable::LinkFull) => self.wait(now, key, order, content),
        }
    }

    /// Keeps a call until a link has room, or the call before it is answered.
    fn wait(&mut self, now: Mono, key: CallKey, order: Order, (caller, request): (&[u8], &[u8])) {
        let bytes = self.waiting_bytes.saturating_add(caller.len()).saturating_add(request.len());
        if self.waiting > self.settings.waiting_max || bytes > self.settings.waiting_bytes_max {
            return self.refuse(now, key, Reason::ServiceOverloaded);
        }
        let Some(call) = self.calls.get_mut(key) else { return };
        call.state = CallState::Waiting { caller: caller.into(), request: request.into() };
        self.waiting_bytes = bytes;
        let (service, deadline) = (call.service, call.deadline);
        if order == Order::None || self.is_head(key) {
            self.stand_in_line(service, key);
        }
        self.arm_call(key, deadline);
    }

    /// Puts a call at the end of its service's line, from which those that were settled meanwhile are taken out
    /// before they are as many as the others.
    fn stand_in_line(&mut self, service: ServiceId, key: CallKey) {
        let Some(service) = self.services.get_mut(service.index()) else { return };
        service.waiting.push_back(key);
        if service.waiting.len() > self.waiting.saturating_mul(2).saturating_add(LINE_SLACK) {
            let calls = &self.calls;
            let waits = |key: &CallKey| {
                calls.get(*key).is_some_and(|call| matches!(call.state, CallState::Waiting { .. }))
            };
            service.waiting.retain(waits);
        }
    }

    pub(super) fn refuse(&mut self, now: Mono, key: CallKey, reason: Reason) {
        let (code, count) = match reason {
            Reason::NoEndpoint => (Code::Unavailable, Count::CallsUnavailable),
            _ => (Code::ResourceExhausted, Count::CallsShed),
        };
        self.cells.count(count);
        self.settle(key, Outcome::refused(code, reason), &[], 0);
        self.finish(now, key);
    }

    /// Sends a call on the link of its line, or on one that the balancer picks.
    fn send(&mut self, now: Mono, key: CallKey, (caller, request): (&[u8], &[u8])) -> Result<(), Unsendable> {
        let Some(call) = self.calls.get(key) else { return Ok(()) };
        let link_key = self.choose(call.service, self.line_of(key))?;
        let Ok(view) = RequestView::decode(request) else {
            debug_assert!(false, "the shard has decoded it before");
            return Ok(());
        };
        let Some(call) = self.calls.get_mut(key) else { return Ok(()) };
        let Some(link) = self.links.get_mut(link_key) else { return Err(Unsendable::NoLink) };
        let ordered = self.routes.route(call.route).is_some_and(|route| route.order == Order::Session);
        let session_id = call.session_id;
        let frame = encode(key, call.deadline.since(now), &view, caller, ordered.then_some(&session_id));
        // Not the payload alone: what else a client may send (a trace) must not make the service end the link.
        let frame_bytes = frame_len(Numbers::NONE, to_service::CALL, frame.body_len());
        if frame_bytes.saturating_sub(LENGTH_BYTES) > link.frame_bytes_max {
            let outcome = Outcome::refused(Code::InvalidArgument, Reason::PayloadTooLarge);
            self.settle(key, outcome, &[], 0);
            self.finish(now, key);
            return Ok(());
        }
        put_frame(&mut link.output.bytes, Numbers::NONE, to_service::CALL, &frame);
        link.outstanding = link.outstanding.saturating_add(1);
        call.state = CallState::Sent(link_key);
        let (line, service) = (Line { shard: call.shard, session: call.session }, call.service);
        self.waiting = self.waiting.saturating_sub(1);
        self.cells.count(Count::CallsSent);
        if let Some(service) = self.services.get_mut(service.index())
            && ordered
        {
            service.orders.sent(line, link_key);
        }
        self.list(link_key);
        Ok(())
    }

    pub(super) fn choose(&mut self, service: ServiceId, line: Option<Line>) -> Result<LinkKey, Unsendable> {
        let Some(entry) = self.services.get_mut(service.index()) else { return Err(Unsendable::NoLink) };
        let output_max = self.settings.output_bytes_max;
        let pinned = line
            .and_then(|line| entry.orders.link(line))
            .and_then(|link| Some((link, self.links.get(link)?)));
        if let Some((key, link)) = pinned
            && link.is_ready()
        {
            return if link.has_room(output_max) { Ok(key) } else { Err(Unsendable::LinkFull) };
        }
        let links = &self.links;
        if let [endpoint] = entry.endpoints.as_slice()
            && let [slot] = endpoint.slots.as_slice()
        {
            // Nothing to choose from: the common case of a small deployment.
            let link = slot.link.and_then(|key| Some((key, links.get(key)?)));
            return match link {
                Some((key, link)) if link.has_room(output_max) => Ok(key),
                Some((_, link)) if link.is_ready() => Err(Unsendable::NoRoom),
                _ => Err(Unsendable::NoLink),
            };
        }
        let best = |endpoint: &super::Endpoint| {
            let links = endpoint.slots.iter().filter_map(|slot| Some((slot.link?, links.get(slot.link?)?)));
            links
                .filter(|(_, link)| link.has_room(output_max))
                .min_by_key(|(_, link)| link.outstanding)
                .map(|(key, _)| key)
        };
        let outstanding = |endpoint: &super::Endpoint| {
            let links = endpoint.slots.iter().filter_map(|slot| links.get(slot.link?));
            links.fold(0u32, |sum, link| sum.saturating_add(link.outstanding))
        };
        let candidates = entry.endpoints.iter().map(|endpoint| Candidate {
            outstanding: outstanding(endpoint),
            ready: best(endpoint).is_some(),
        });
        let picked = entry.balancer.pick(candidates);
        match picked.and_then(|at| entry.endpoints.get(at)).and_then(best) {
            Some(link) => Ok(link),
            None if self.has_ready_link(service) => Err(Unsendable::NoRoom),
            None => Err(Unsendable::NoLink),
        }
    }

    fn line_of(&self, key: CallKey) -> Option<Line> {
        let call = self.calls.get(key)?;
        let ordered = self.routes.route(call.route)?.order == Order::Session;
        ordered.then_some(Line { shard: call.shard, session: call.session })
    }

    fn is_head(&self, key: CallKey) -> bool {
        let service = self.calls.get(key).and_then(|call| self.service(call.service));
        service.zip(self.line_of(key)).is_some_and(|(service, line)| service.orders.is_head(line, key))
    }

    /// Sends what waits for a service, as far as there is room.
    pub(super) fn send_waiting(&mut self, now: Mono, service: ServiceId) {
        // What is finished on the way lets others go: once is enough, and the stack is not theirs to fill.
        if !std::mem::replace(&mut self.sending, true) {
            self.send_all_waiting(now, service);
            self.sending = false;
        }
    }

    fn send_all_waiting(&mut self, now: Mono, service: ServiceId) {
        let mut kept = Vec::new();
        while let Some(key) =
            self.services.get_mut(service.index()).and_then(|service| service.waiting.pop_front())
        {
            match self.send_kept(now, key) {
                Ok(()) => {}
                Err(Unsendable::NoLink) => self.refuse(now, key, Reason::NoEndpoint),
                Err(Unsendable::LinkFull) if kept.len() < PASSED_OVER_MAX => kept.push(key),
                Err(Unsendable::LinkFull | Unsendable::NoRoom) => {
                    kept.push(key);
                    break;
                }
            }
        }
        if let Some(service) = self.services.get_mut(service.index()) {
            kept.into_iter().rev().for_each(|key| service.waiting.push_front(key));
        }
    }

    /// Sends a call that waits, if it still does.
    fn send_kept(&mut self, now: Mono, key: CallKey) -> Result<(), Unsendable> {
        let Some(call) = self.calls.get_mut(key) else { return Ok(()) };
        let CallState::Waiting { caller, request } = &mut call.state else { return Ok(()) };
        if call.deadline <= now {
            self.expire_unsent(now, key);
            return Ok(());
        }
        let (caller, request) = (std::mem::take(caller), std::mem::take(request));
        let bytes = caller.len().saturating_add(request.len());
        self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes);
        let result = self.send(now, key, (&caller, &request));
        if result.is_err()
            && let Some(call) = self.calls.get_mut(key)
        {
            call.state = CallState::Waiting { caller, request };
            self.waiting_bytes = self.waiting_bytes.saturating_add(bytes);
        }
        result
    }

    /// A call's client no longer wants it.
    fn cancel(&mut self, now: Mono, shard: ShardId, ticket: Ticket) {
        let known = self.tickets.get(shard.index()).and_then(|tickets| tickets.get(ticket.index()));
        let Some(key) = known.copied().flatten() else { return };
        let Some(call) = self.calls.get(key).filter(|call| call.ticket == ticket) else { return };
        match call.state {
            CallState::Waiting { .. } => {
                self.settle(key, Outcome::refused(Code::Cancelled, Reason::Cancelled), &[], 0);
                self.finish(now, key);
            }
            CallState::Sent(link) => self.send_cancel(key, link),
            CallState::Abandoned(..) => {}
        }
    }

    pub(super) fn send_cancel(&mut self, key: CallKey, link_key: LinkKey) {
        if let Some(link) = self.links.get_mut(link_key) {
            link.put(to_service::CANCEL, &v1::CancelCall { call_id: key.to_u64() });
            self.cells.count(Count::CallsCancelled);
            self.list(link_key);
        }
    }

    /// Hands a call's one outcome to its shard.
    pub(super) fn settle(&mut self, key: CallKey, outcome: Outcome, reply: &[u8], endpoint: u32) {
        self.settle_directed(key, outcome, (reply, endpoint), None);
    }

    /// The same, with what the service asks beside.
    pub(super) fn settle_directed(
        &mut self,
        key: CallKey,
        outcome: Outcome,
        (reply, endpoint): (&[u8], u32),
        directives: Option<Box<[Directive]>>,
    ) {
        let Some(call) = self.calls.get(key) else { return };
        let (shard, ticket) = (call.shard, call.ticket);
        if let Some(batch) = self.outbound.get_mut(shard.index()) {
            let reply = batch.arena.put(reply);
            let decision = Decision::default();
            let settled = Settled { ticket, outcome, reply, endpoint, decision, directives };
            batch.deliveries.push(Delivery::Settled(settled));
        }
        self.remember(shard, ticket, None);
    }

    /// Takes a settled call out of the tables, and lets the next one go.
    pub(super) fn finish(&mut self, now: Mono, key: CallKey) {
        let line = self.line_of(key);
        let Some(call) = self.calls.remove(key) else { return };
        match call.state {
            CallState::Waiting { .. } => {
                self.waiting = self.waiting.saturating_sub(1);
                self.waiting_bytes = self.waiting_bytes.saturating_sub(call.state.held_bytes());
            }
            CallState::Sent(link) | CallState::Abandoned(link, _) => {
                if let Some(entry) = self.links.get_mut(link) {
                    entry.outstanding = entry.outstanding.saturating_sub(1);
                }
                self.end_drained(now, link);
            }
        }
        let Some(service) = self.services.get_mut(call.service.index()) else { return };
        if let Some(head) = line.and_then(|line| service.orders.leave(line, key)) {
            self.stand_in_line(call.service, head);
        }
        if self.service(call.service).is_some_and(|service| !service.waiting.is_empty()) {
            self.send_waiting(now, call.service);
        }
    }

    fn remember(&mut self, shard: ShardId, ticket: Ticket, call: Option<CallKey>) {
        let Some(tickets) = self.tickets.get_mut(shard.index()) else { return };
        if tickets.len() <= ticket.index() {
            tickets.resize(ticket.index().saturating_add(1), None);
        }
        if let Some(entry) = tickets.get_mut(ticket.index()) {
            *entry = call;
        }
    }

    pub(super) fn expire_unsent(&mut self, now: Mono, key: CallKey) {
        self.cells.count(Count::CallsExpiredUnsent);
        self.settle(key, Outcome::refused(Code::DeadlineExceeded, Reason::Timeout), &[], 0);
        self.finish(now, key);
    }

    fn arm_call(&mut self, key: CallKey, due: Mono) {
        let index = key.index();
        if self.alarms.len() <= index {
            self.alarms.resize(index.saturating_add(1), Alarm::default());
        }
        if let (Some(alarm), Ok(index)) = (self.alarms.get_mut(index), u32::try_from(index)) {
            self.wheel.arm(alarm, Timer::Call(index), due);
        }
    }

    /// Arms the alarm of whatever call lies at `index` now.
    pub(super) fn rearm_call(&mut self, key: CallKey, due: Mono) {
        self.arm_call(key, due);
    }
}

fn encode<'a>(
    key: CallKey,
    left: std::time::Duration,
    view: &RequestView<'a>,
    caller: &'a [u8],
    ordering_key: Option<&'a SessionId>,
) -> CallView<'a> {
    CallView {
        call_id: key.to_u64(),
        command: view.command,
        version: view.version.max(1),
        // Rounded up: a call that was sent has time left.
        remaining_ms: u32::try_from(left.as_millis().saturating_add(1)).unwrap_or(u32::MAX),
        attempt: 1,
        idempotency_key: view.idempotency_key,
        ordering_key: ordering_key.map_or(&[], |id| &id.0),
        trace: view.trace,
        priority: view.priority,
        content_encoding: view.content_encoding,
        caller,
        fragment: &[],
        payload: view.payload,
    }
}
