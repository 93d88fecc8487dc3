//! From a Forward to a call on a link.

use super::call::{Call, CallState, Content, Flight};
use super::choose::{Choice, Unsendable, Wish};
use super::link::Link;
use super::order::Line;
use super::queue::Rank;
use super::service::{bulk_with_room, has_bulk};
use super::{Forwarder, Timer};
use crate::base::counters::Count;
use crate::base::ids::{CallKey, LinkKey, ServiceId, ShardId, Ticket};
use crate::base::wheel::Alarm;
use crate::relay::{Forward, ForwardBatch, Joined, Outcome};
use crate::routing::{Ask, Decision, EndpointId, Marks, Order};
use moorgate_proto::envelope::member::to_service;
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::Reason;
use moorgate_proto::view::CallView;

/// Settled calls that a queue may hold before it is cleaned, beyond as many as wait.
const QUEUE_SLACK: usize = 64;

/// Calls that wait for their own link, or for a canary that is full, are passed over, up to this many at once: the rest
/// waits behind them. Large ones have a queue of their own, where it is the same.
const PASSED_OVER_MAX: usize = 64;

impl Forwarder {
    /// What a shard has decided in one turn.
    pub fn forward(&mut self, now: Mono, batch: &ForwardBatch) {
        for forward in &batch.forwards {
            self.take(now, batch.shard, forward, batch.arena.read(&forward.call));
        }
        for ticket in &batch.cancels {
            self.cancel(now, batch.shard, *ticket);
        }
        for check in &batch.checks {
            self.check(now, batch.shard, check, batch.arena.read(&check.caller));
        }
        self.check_invariants();
    }

    fn take(&mut self, now: Mono, shard: ShardId, forward: &Forward, content: &[u8]) {
        let Some(route) = self.routes.route(forward.route) else {
            debug_assert!(false, "a shard names only routes that are in force");
            return;
        };
        let (service, is_ordered) = (route.service, route.order == Order::Session);
        let call = Call {
            shard,
            ticket: forward.ticket,
            session: forward.session,
            route: forward.route,
            caller: forward.caller,
            service,
            deadline: forward.deadline,
            is_ordered,
            priority: route.priority,
            is_cancelled: false,
            is_unjudged: false,
            attempts: 0,
            tried: None,
            endpoint: EndpointId::default(),
            decision: Decision::default(),
            detour: None,
            state: CallState::empty(),
        };
        let key = self.calls.insert(call);
        self.count_waiting(service, true);
        self.remember(shard, forward.ticket, Some(key));
        if forward.deadline <= now {
            return self.expire_unsent(now, key);
        }
        let is_head = match (is_ordered, self.services.get_mut(service.index())) {
            (true, Some(entry)) => {
                let line = Line { shard, session: forward.session };
                entry.orders.join(line, forward.session_id, key)
            }
            _ => true,
        };
        let result = match is_head {
            true => self.send(now, key, content),
            false if self.may_wait(service) => Err(Unsendable::NoRoom),
            false => Err(Unsendable::NoLink),
        };
        match result {
            Ok(()) => {
                self.keep(key, || Content::new(content), content.len());
                self.arm_sent(now, key);
            }
            Err(Unsendable::NoLink | Unsendable::NoBudget) => self.refuse(now, key, Reason::NoEndpoint),
            Err(Unsendable::NoRoom | Unsendable::LinkFull | Unsendable::NoBulk { .. }) => {
                self.wait(now, key, Content::new(content), false);
            }
        }
    }

    /// One call of the service waits more, or one less.
    pub(super) fn count_waiting(&mut self, service: ServiceId, more: bool) {
        let step = |count: usize| if more { count.saturating_add(1) } else { count.saturating_sub(1) };
        self.waiting = step(self.waiting);
        if let Some(service) = self.services.get_mut(service.index()) {
            service.waiting = step(service.waiting);
        }
    }

    pub(super) fn count_waiting_bytes(&mut self, service: ServiceId, bytes: usize, more: bool) {
        let step = |sum: usize| if more { sum.saturating_add(bytes) } else { sum.saturating_sub(bytes) };
        self.waiting_bytes = step(self.waiting_bytes);
        if let Some(service) = self.services.get_mut(service.index()) {
            service.waiting_bytes = step(service.waiting_bytes);
        }
    }

    /// Queues a call until a link has room, or the call before it is answered. One that was sent before (`is_again`) is older
    /// than those that were not. A full queue refuses others for it, or it: then the next of its session may be sent, which it
    /// may be itself.
    pub(super) fn wait(&mut self, now: Mono, key: CallKey, content: Content, is_again: bool) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let (service, deadline, bytes) = (call.service, call.deadline, content.len());
        debug_assert!(call.state.is_waiting() && call.state.waiting_bytes() == 0, "it is not queued yet");
        call.state = CallState::Waiting(content);
        self.count_waiting_bytes(service, bytes, true);
        self.stand_in_line(key, is_again);
        self.arm_call(key, deadline);
        self.make_room(now, key);
    }

    /// Takes a waiting call's content out.
    pub(super) fn take_content(&mut self, key: CallKey) -> Option<Content> {
        let call = self.calls.get_mut(key)?;
        let CallState::Waiting(content) = &mut call.state else { return None };
        let (service, content) = (call.service, std::mem::take(content));
        self.count_waiting_bytes(service, content.len(), false);
        Some(content)
    }

    /// Puts a call into its service's queue, or that for large ones, or among those that wait behind another of their
    /// session. Those that were settled meanwhile, or have come to their turn, are taken out before they are as many as the
    /// others.
    pub(super) fn stand_in_line(&mut self, key: CallKey, is_again: bool) {
        let is_head = self.is_head(key);
        let Some(call) = self.calls.get(key) else { return };
        let Some(service) = self.services.get_mut(call.service.index()) else { return };
        let len_max = service.waiting.saturating_mul(2).saturating_add(QUEUE_SLACK);
        let (calls, orders) = (&self.calls, &service.orders);
        let queue = match (is_head, call.awaits_bulk()) {
            (true, false) => &mut service.queue,
            (true, true) => &mut service.large,
            (false, _) => &mut service.behind,
        };
        queue.push(call.priority, is_again, key);
        if queue.len() > len_max {
            let is_first = |key, call: &Call| call.line().is_none_or(|line| orders.is_head(line, key));
            queue.retain(|key| {
                let waits = calls.get(*key).filter(|call| call.state.is_waiting());
                waits.is_some_and(|call| is_first(*key, call) == is_head)
            });
        }
    }

    /// Whether a call is the next of its session, or of a route without an order.
    pub(super) fn is_head(&self, key: CallKey) -> bool {
        let Some(call) = self.calls.get(key) else { return false };
        let Some(line) = call.line() else { return true };
        self.service(call.service).is_some_and(|service| service.orders.is_head(line, key))
    }

    /// Sends a call that waits on the link of its line, or on one that the pool chooses. When the service takes no
    /// frame as large as it, it is settled.
    pub(super) fn send(&mut self, now: Mono, key: CallKey, content: &[u8]) -> Result<(), Unsendable> {
        let Some(call) = self.calls.get(key) else { return Ok(()) };
        let service = call.service;
        let pinned = call.line().and_then(|line| self.service(service)?.orders.link(line));
        let ask = self.ask(service, content, call.tried);
        let choice = match self.is_large(content) {
            true => self.choose_bulk(now, key, (service, ask, pinned), content)?,
            false => self.choose(now, service, ask, Wish { pinned, not: None, is_large: false })?,
        };
        if !self.pay(now, key) {
            self.take_back(choice);
            return Err(Unsendable::NoBudget);
        }
        if self.dispatch(now, key, choice, content) {
            self.count_waiting(service, false);
        } else {
            self.take_back(choice);
            self.end(now, key, Outcome::refused(Code::InvalidArgument, Reason::PayloadTooLarge));
        }
        Ok(())
    }

    /// The choice of a small call where it has a bulk link, else another one that has. What is not there is dialled, so that it
    /// does not depend on which was first where large calls go from then on; once for each call, as long as its main link
    /// takes calls.
    fn choose_bulk(
        &mut self,
        now: Mono,
        key: CallKey,
        (service, ask, pinned): (ServiceId, Ask, Option<LinkKey>),
        content: &[u8],
    ) -> Result<Choice, Unsendable> {
        let output_max = self.settings.output_bytes_max;
        let asked = self.calls.get(key).and_then(|call| call.known().asked);
        let asked = asked.filter(|asked| self.links.get(*asked).is_some_and(Link::is_ready));
        let main = match asked {
            Some(asked) => asked,
            None => {
                let choice = self.choose(now, service, ask, Wish { pinned, not: None, is_large: false })?;
                let Some(main) = self.links.get(choice.link) else { return Ok(choice) };
                // One that fits into no frame of the service is settled as such at once.
                if content.len() > main.frame_bytes_max || has_bulk(&self.links, main, output_max) {
                    return Ok(choice);
                }
                self.take_back(choice);
                if let Some(call) = self.calls.get_mut(key) {
                    call.detour_mut().asked = Some(choice.link);
                }
                choice.link
            }
        };
        self.dial_bulk(now, main);
        let wish = Wish { pinned, not: None, is_large: true };
        self.choose(now, service, ask, wish).map_err(|why| match why {
            Unsendable::NoRoom => Unsendable::NoBulk { others_may: false },
            Unsendable::LinkFull => Unsendable::NoBulk { others_may: true },
            why => why,
        })
    }

    /// Puts a call on a link; false when the service takes no frame as large.
    pub(super) fn dispatch(&mut self, now: Mono, key: CallKey, choice: Choice, content: &[u8]) -> bool {
        let is_large = self.is_large(content);
        let via = match is_large {
            true => self
                .links
                .get(choice.link)
                .and_then(|main| bulk_with_room(&self.links, main, self.settings.output_bytes_max)),
            false => Some(choice.link),
        };
        let Some(via) = via else { return false };
        let (Some(call), Some(link)) = (self.calls.get_mut(key), self.links.get_mut(via)) else {
            debug_assert!(false, "a call that is sent is there, and the link that was chosen for it");
            return false;
        };
        let place = link.place;
        let Some(service) = self.services.get_mut(place.service.index()) else {
            debug_assert!(false, "the service of a link is there");
            return false;
        };
        let line = call.line();
        let ordering_key = line.and_then(|line| service.orders.session_id(line));
        let attempt = call.attempts.saturating_add(1);
        let left = call.deadline.since(now);
        let head = CallView {
            call_id: key.to_u64(),
            // Rounded up: a call that was sent has time left.
            remaining_ms: u32::try_from(left.as_millis().saturating_add(1)).unwrap_or(u32::MAX),
            attempt: attempt.into(),
            ordering_key: ordering_key.as_ref().map_or(&[], |id| &id.0),
            ..CallView::default()
        };
        let flight = Flight { link: via, offset: link.end(), at: now };
        if !link.put_within_bound(to_service::CALL, &Joined(head, content)) {
            return false;
        }
        link.outstanding = link.outstanding.saturating_add(1);
        if link.output.is_new_on_list() {
            self.flushes.push(via);
        }
        if is_large {
            link.used = now;
            if let Some(detour) = call.detour.as_mut() {
                detour.asked = None;
            }
            if let Some(main) = self.links.get_mut(choice.link) {
                main.bulk.outstanding = main.bulk.outstanding.saturating_add(1);
            }
        }
        let is_first = call.attempts == 0 && call.detour.as_ref().is_none_or(|detour| detour.moves == 0);
        let is_retry = call.detour.as_ref().is_some_and(|detour| detour.before.is_some());
        call.decision = Decision { attempt, ..choice.decision };
        if is_retry {
            call.decision.marks = call.decision.marks.with(Marks::RETRY);
        }
        call.is_unjudged = true;
        call.attempts = attempt;
        call.tried = Some(place.seat);
        call.endpoint = place.id;
        call.state = CallState::Sent { flight, hedge_at: Mono::NEVER, kept: None };
        if let Some(line) = line {
            service.orders.sent(line, choice.link);
        }
        if is_first && service.is_keeping {
            service.budget.first_attempt(now);
        }
        service.started(place.seat);
        self.cells.count(Count::CallsSent);
        self.count_marks(choice.decision.marks);
        true
    }

    /// Sends what waits for a service, as far as there is room.
    pub(super) fn send_waiting(&mut self, now: Mono, service: ServiceId) {
        // When it stops, the links that are left are closed next.
        if self.stopping || self.service(service).is_none_or(|service| service.waiting == 0) {
            return;
        }
        // What is finished on the way lets others go: once is enough, and the stack is not theirs to fill.
        if !std::mem::replace(&mut self.sending, true) {
            self.send_all_waiting(now, service);
            self.sending = false;
        }
    }

    fn send_all_waiting(&mut self, now: Mono, service: ServiceId) {
        // What is put back in its place, and large calls that are queued behind the others.
        let (mut kept, mut behind) = (Vec::new(), Vec::new());
        // As long as no large call has found none.
        let mut has_bulk = true;
        while let Some((rank, key, is_large)) =
            self.services.get_mut(service.index()).and_then(|service| service.pop_waiting(has_bulk))
        {
            match self.send_kept(now, key) {
                Ok(()) => {}
                Err(Unsendable::NoLink | Unsendable::NoBudget) => self.refuse(now, key, Reason::NoEndpoint),
                Err(Unsendable::NoBulk { others_may }) => {
                    has_bulk &= others_may && behind.len() < PASSED_OVER_MAX;
                    match is_large && !others_may {
                        true => kept.push((rank, key, true)),
                        false => behind.push((rank, key)),
                    }
                }
                Err(Unsendable::LinkFull) if kept.len() < PASSED_OVER_MAX => kept.push((rank, key, is_large)),
                Err(Unsendable::LinkFull | Unsendable::NoRoom) => {
                    kept.push((rank, key, is_large));
                    break;
                }
            }
        }
        if let Some(service) = self.services.get_mut(service.index()) {
            for (rank, key, is_large) in kept.into_iter().rev() {
                let queue = if is_large { &mut service.large } else { &mut service.queue };
                queue.put_back(rank, key);
            }
        }
        behind.into_iter().for_each(|(rank, key): (Rank, _)| self.stand_in_line(key, rank.is_again));
    }

    /// Sends a call that waits, if it still does.
    fn send_kept(&mut self, now: Mono, key: CallKey) -> Result<(), Unsendable> {
        let Some(call) = self.calls.get(key) else { return Ok(()) };
        if !call.state.is_waiting() {
            return Ok(());
        }
        let service = call.service;
        if call.deadline <= now {
            self.expire_unsent(now, key);
            return Ok(());
        }
        let Some(content) = self.take_content(key) else { return Ok(()) };
        let result = self.send(now, key, content.bytes());
        if result.is_ok() {
            let bytes = content.len();
            self.keep(key, || content, bytes);
            self.arm_sent(now, key);
        } else if let Some(call) = self.calls.get_mut(key) {
            let bytes = content.len();
            call.state = CallState::Waiting(content);
            self.count_waiting_bytes(service, bytes, true);
        }
        result
    }

    pub(super) fn remember(&mut self, shard: ShardId, ticket: Ticket, call: Option<CallKey>) {
        let Some(tickets) = self.tickets.get_mut(shard.index()) else { return };
        if tickets.len() <= ticket.index() {
            tickets.resize(ticket.index().saturating_add(1), None);
        }
        if let Some(entry) = tickets.get_mut(ticket.index()) {
            *entry = call;
        }
    }

    /// Makes sure that a call is looked at by then; it is whatever call lies at that index which is looked at.
    pub(super) fn arm_call(&mut self, key: CallKey, due: Mono) {
        let index = key.index();
        if self.alarms.len() <= index {
            self.alarms.resize(index.saturating_add(1), Alarm::default());
        }
        if let (Some(alarm), Ok(index)) = (self.alarms.get_mut(index), u32::try_from(index)) {
            self.wheel.arm(alarm, Timer::Call(index), due);
        }
    }
}
