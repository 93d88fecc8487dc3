//! What happens when nothing happens: deadlines of calls, silent links, links to dial again; and the output.

use super::call::CallState;
use super::ending::LinkEnd;
use super::link::State;
use super::{Forwarder, Timer};
use crate::base::counters::Count;
use crate::base::ids::{CallKey, LinkKey, ServiceId};
use crate::relay::Outcome;
use crate::routing::{Fault, Verdict};
use moorgate_proto::envelope::member::to_service;
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{self, Reason};
use std::time::Duration;

/// An endpoint that has not answered after so many times the usual time has failed, whatever the route's timeout.
const USUAL_TIMES: u32 = 4;

impl Forwarder {
    /// When [`Forwarder::timers`] has something to do.
    pub fn next_deadline(&self) -> Option<Mono> {
        let pools = self.services.iter().filter_map(|service| service.pool.next_deadline());
        pools.chain(self.wheel.next_due()).min()
    }

    /// Looks at every deadline that has come.
    pub fn timers(&mut self, now: Mono) {
        while let Some((timer, due)) = self.wheel.expire(now) {
            match timer {
                Timer::Call(index) => {
                    let rings = self.alarms.get_mut(index as usize).is_some_and(|alarm| alarm.rings(due));
                    if rings {
                        self.call_deadline(now, index);
                    }
                }
                Timer::Link(key) => {
                    if self.links.get_mut(key).is_some_and(|link| link.alarm.rings(due)) {
                        self.link_deadline(now, key);
                    }
                }
                Timer::Bulk(main) => {
                    if self.links.get_mut(main).is_some_and(|link| link.bulk.alarm.rings(due)) {
                        self.redial_bulk(now, main);
                    }
                }
                Timer::Check(key) => self.check_is_late(now, key),
                Timer::Redial(place) => {
                    if self.slot_mut(place).is_some_and(|slot| slot.alarm.rings(due)) {
                        self.dial(now, place);
                    }
                }
            }
        }
        self.tick(now);
        self.check_invariants();
    }

    /// Tells the pools the time: an endpoint that was left alone may take calls again.
    fn tick(&mut self, now: Mono) {
        let services = u16::try_from(self.services.len()).unwrap_or(u16::MAX);
        for id in (0..services).map(ServiceId) {
            let Some(service) = self.services.get_mut(id.index()) else { return };
            if service.pool.next_deadline().is_some_and(|due| due <= now) {
                service.pool.tick(now);
                self.send_waiting(now, id);
            }
        }
    }

    fn call_deadline(&mut self, now: Mono, index: u32) {
        let Some(key) = self.calls.key_at(index as usize) else { return };
        let Some(call) = self.calls.get(key) else { return };
        let (deadline, service) = (call.deadline, call.service);
        let due = match call.state {
            CallState::Waiting(_) => deadline,
            CallState::Sent { hedge_at, .. } => deadline.min(hedge_at),
            CallState::Abandoned { until, .. } => until,
        };
        if due > now {
            return self.arm_call(key, due);
        }
        match call.state {
            CallState::Waiting(_) => self.expire_unsent(now, key),
            CallState::Sent { .. } if deadline > now => {
                self.arm_call(key, deadline);
                self.hedge(now, key);
            }
            CallState::Sent { .. } => {
                // It did not answer in time, whatever it does later; so did its twin.
                let twin = call.twin();
                for late in [Some(key), twin].into_iter().flatten() {
                    let verdict = self.verdict_late(late);
                    let is_cancelled = self.calls.get(late).is_some_and(|call| call.is_cancelled);
                    self.judge_call(now, late, verdict, (!is_cancelled).then_some(Fault::Timeout));
                }
                self.cells.count(Count::CallsExpired);
                self.settle(now, key, Outcome::unknown(Code::DeadlineExceeded, Reason::Timeout));
                self.abandon(now, key);
                // Its place in the pool is free, if not the one on its link.
                self.send_waiting(now, service);
            }
            CallState::Abandoned { .. } => {
                self.judge_call(now, key, Verdict::Failed, Some(Fault::Timeout));
                self.finish(now, key);
            }
        }
    }

    /// What it tells of an endpoint that it has not answered a call by its deadline: that it failed, if it had the time for
    /// it. How long that is, the client must not decide, else it could have any endpoint ejected.
    fn verdict_late(&self, key: CallKey) -> Verdict {
        let Some(call) = self.calls.get(key) else { return Verdict::Nothing };
        let Some(flight) = call.state.flight().filter(|_| !call.is_cancelled) else {
            return Verdict::Nothing;
        };
        let Some(timeout) = self.routes.route(call.route).map(|route| route.timeout) else {
            return Verdict::Nothing;
        };
        let p95 = self.service(call.service).and_then(|service| service.latencies.p95());
        let usual = p95.map_or(Duration::MAX, |p95| p95.saturating_mul(USUAL_TIMES));
        let had = call.deadline.since(flight.at);
        if had >= (timeout / 2).min(usual) { Verdict::Failed } else { Verdict::Nothing }
    }

    fn link_deadline(&mut self, now: Mono, key: LinkKey) {
        let heartbeat = self.settings.heartbeat;
        let Some(link) = self.links.get_mut(key) else { return };
        let due = link.deadline(heartbeat);
        if due > now {
            return self.arm_link(key, due);
        }
        match link.state {
            State::Connecting(_) => self.link_lost(now, key, &"no connection in time"),
            State::Closing(_) | State::Finishing(_) => {
                self.link_lost(now, key, &"the service has not ended it in time")
            }
            State::Opening { .. } => self.end_link(now, key, &LinkEnd::OpeningTimeout),
            State::Ready | State::Draining if link.silent_at(heartbeat) <= now => {
                self.end_link(now, key, &LinkEnd::Silence);
            }
            State::Ready | State::Draining if link.last_ping_until() <= now => {
                self.answered_ping(now, key, None);
            }
            State::Ready | State::Draining => {
                link.unanswered_ping = link.unanswered_ping.min(now);
                link.put(to_service::PING, &v1::LinkPing { nonce: now.as_nanos(), view: None });
                self.list(key);
                self.arm_ping(now, key);
                self.note_lasting(now, key);
                self.end_idle_bulk(now, key);
            }
        }
    }

    /// The next ping comes after the interval, a tenth more or less: links that were opened together are not asked
    /// together for ever.
    pub(super) fn arm_ping(&mut self, now: Mono, key: LinkKey) {
        let heartbeat = self.settings.heartbeat;
        let tenth = heartbeat / 10;
        let Some(link) = self.links.get_mut(key) else { return };
        link.ping_at = now + heartbeat.saturating_sub(tenth) + self.rng.up_to(tenth.saturating_mul(2));
        let due = link.deadline(heartbeat);
        self.arm_link(key, due);
    }

    pub(super) fn arm_link(&mut self, key: LinkKey, due: Mono) {
        if let Some(link) = self.links.get_mut(key) {
            self.wheel.arm(&mut link.alarm, Timer::Link(key), due);
        }
    }

    /// Puts a link on the list of those to be flushed, unless it is there, or has nothing to flush, or
    /// its socket takes nothing.
    pub(super) fn list(&mut self, key: LinkKey) {
        if let Some(link) = self.links.get_mut(key)
            && link.output.is_new_on_list()
        {
            self.flushes.push(key);
        }
    }

    /// The next link with something to write.
    pub fn next_flush(&mut self) -> Option<LinkKey> {
        let key = self.flushes.pop()?;
        if let Some(link) = self.links.get_mut(key) {
            link.output.listed = false;
        }
        Some(key)
    }

    /// What is to be written to a link's socket.
    pub fn unsent(&self, key: LinkKey) -> &[u8] {
        self.links.get(key).map_or(&[], |link| link.output.unsent())
    }

    /// The socket took `count` bytes of [`Forwarder::unsent`]; fewer than offered: it takes no more for now.
    pub fn sent(&mut self, now: Mono, key: LinkKey, count: usize) {
        let Some(link) = self.links.get_mut(key) else { return };
        let service = link.place.service;
        let was_above = link.output.is_above(self.settings.output_bytes_max);
        if let Some(buffer) = link.took(now, count)
            && buffer.capacity() <= OUTPUT_BYTES_KEPT
        {
            link.output.bytes = buffer;
        }
        if was_above {
            self.send_waiting(now, service);
        }
        self.end_written(now, key);
    }

    /// The socket takes bytes again.
    pub fn writable(&mut self, key: LinkKey) {
        if let Some(link) = self.links.get_mut(key)
            && link.output.is_stalled()
            && !std::mem::replace(&mut link.output.listed, true)
        {
            self.flushes.push(key);
        }
    }
}

/// A link keeps its output buffer up to this size; links are few.
const OUTPUT_BYTES_KEPT: usize = 1024 * 1024;
