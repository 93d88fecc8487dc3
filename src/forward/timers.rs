//! What happens when nothing happens: deadlines of calls, silent links, links to dial again; and the output.

use super::link::State;
use super::{CallState, Forwarder, Timer};
use crate::base::counters::Count;
use crate::base::ids::LinkKey;
use crate::relay::Outcome;
use moorgate_proto::envelope::member::to_service;
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{self, Reason};

impl Forwarder {
    /// When [`Forwarder::timers`] has something to do.
    pub fn next_deadline(&self) -> Option<Mono> {
        self.wheel.next_due()
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
                Timer::Check(key) => self.check_is_late(now, key),
                Timer::Redial(place) => {
                    if self.slot_mut(place).is_some_and(|slot| slot.alarm.rings(due)) {
                        self.dial(now, place);
                    }
                }
            }
        }
        self.check_invariants();
    }

    fn call_deadline(&mut self, now: Mono, index: u32) {
        let Some(key) = self.calls.key_at(index as usize) else { return };
        let Some(call) = self.calls.get_mut(key) else { return };
        let due = match call.state {
            CallState::Waiting { .. } | CallState::Sent(_) => call.deadline,
            CallState::Abandoned(_, until) => until,
        };
        if due > now {
            return self.rearm_call(key, due);
        }
        match call.state {
            CallState::Waiting { .. } => self.expire_unsent(now, key),
            CallState::Sent(link) => {
                let until = now + self.settings.late_reply_grace;
                call.state = CallState::Abandoned(link, until);
                self.cells.count(Count::CallsExpired);
                let endpoint = self.number_of(link);
                self.settle(key, Outcome::unknown(Code::DeadlineExceeded, Reason::Timeout), &[], endpoint);
                self.send_cancel(key, link);
                self.rearm_call(key, until);
            }
            CallState::Abandoned(..) => self.finish(now, key),
        }
    }

    fn link_deadline(&mut self, now: Mono, key: LinkKey) {
        let Some(link) = self.links.get_mut(key) else { return };
        let due = link.deadline(self.settings.heartbeat);
        if due > now {
            return self.arm_link(key, due);
        }
        match link.state {
            State::Connecting(_) => self.link_lost(now, key, &"no connection in time"),
            State::Opening { .. } => self.link_lost(now, key, &"no HelloAck in time"),
            State::Ready | State::Draining if link.pinged => {
                self.link_lost(now, key, &"silence for twice the heartbeat interval");
            }
            State::Ready | State::Draining => {
                link.pinged = true;
                link.put(to_service::PING, &v1::LinkPing { nonce: now.as_nanos(), view: None });
                let due = link.deadline(self.settings.heartbeat);
                self.list(key);
                self.arm_link(key, due);
            }
        }
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
            && !link.output.listed
            && !link.output.is_empty()
            && !link.output.is_stalled()
        {
            link.output.listed = true;
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
        if let Some(buffer) = link.output.took(now, count)
            && buffer.capacity() <= OUTPUT_BYTES_KEPT
        {
            link.output.bytes = buffer;
        }
        if was_above {
            self.send_waiting(now, service);
        }
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
