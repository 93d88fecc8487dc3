//! Bulk links: a large frame delays everything behind it, so each main link may have a second one for those.
//!
//! ```text
//!            a large call, or the service asks
//!   none ───────────────────────────────────────► dialled ── ready ──► carries large calls ── idle ──► ends behind a last ping
//!    ▲                                               │                        │                              │
//!    └── failed or lost: again after a delay, if there is still something large to send ─────────────────────┘
//! ```
//!
//! The two are a pair: credit, grants and the order of a session's calls are those of the pair, a Reply may come on either,
//! and a bulk link ends with its main link. Large calls wait in a queue of their own until there is a bulk link that takes
//! them; others pass them. Each has one bulk link dialled, and goes on the first that has room.

use super::ending::LinkEnd;
use super::link::{Link, Purpose};
use super::{Forwarder, LinkCommand, Timer};
use crate::base::counters::Count;
use crate::base::ids::LinkKey;
use moorgate_proto::time::Mono;

/// Bytes that a frame of a call needs beside its content: its envelope, and what the link adds to the call.
const CALL_HEAD_BYTES: usize = 64;

impl Forwarder {
    /// Whether a call goes on a bulk link.
    pub(super) fn is_large(&self, content: &[u8]) -> bool {
        content.len().saturating_add(CALL_HEAD_BYTES) > self.settings.main_link_frame_bytes
    }

    /// The service asks for a bulk link beside this main link.
    pub(super) fn want_bulk(&mut self, now: Mono, main: LinkKey) {
        let Some(link) = self.links.get(main).filter(|link| link.is_open() && !link.is_bulk()) else {
            return;
        };
        if link.bulk.link.and_then(|bulk| self.links.get(bulk)).is_some_and(Link::takes_large) {
            // It was opened meanwhile.
            return;
        }
        if let Some(link) = self.links.get_mut(main) {
            link.bulk.is_wanted = true;
        }
        self.dial_bulk(now, main);
    }

    /// Dials a bulk link again, if there is still something large to send.
    pub(super) fn redial_bulk(&mut self, now: Mono, main: LinkKey) {
        let Some(link) = self.links.get(main) else { return };
        let (is_wanted, is_ready, calls) = (link.bulk.is_wanted, link.is_ready(), &self.calls);
        let Some(service) = self.services.get_mut(link.place.service.index()) else { return };
        service.large.retain(|key| calls.get(*key).is_some_and(|call| call.state.is_waiting()));
        if is_wanted || is_ready && !service.large.is_empty() {
            self.dial_bulk(now, main);
        }
    }

    /// Dials the bulk link of a main link, unless it is there: now or when it is time.
    pub(super) fn dial_bulk(&mut self, now: Mono, main: LinkKey) {
        let deadline = now + self.settings.connect_timeout;
        let Some(link) = self.links.get_mut(main).filter(|link| link.is_open()) else { return };
        if link.bulk.link.is_some() || link.is_finished() || self.stopping {
            return;
        }
        let (place, due) = (link.place, link.bulk.not_before);
        if due > now {
            return self.wheel.arm(&mut link.bulk.alarm, Timer::Bulk(main), due);
        }
        let Some(address) = self.endpoint(place).map(|endpoint| endpoint.address) else { return };
        let mut bulk = Link::new(place, deadline);
        bulk.purpose = Purpose::Bulk(main);
        let key = self.links.insert(bulk);
        if let Some(link) = self.links.get_mut(main) {
            link.bulk.link = Some(key);
        }
        self.commands.push_back(LinkCommand::Dial(key, address));
        self.arm_link(key, deadline);
    }

    /// A bulk link is ready.
    pub(super) fn bulk_ready(&mut self, main: LinkKey) {
        self.cells.count(Count::BulkLinksOpened);
        if let Some(link) = self.links.get_mut(main) {
            link.bulk.is_wanted = false;
        }
    }

    /// Takes a bulk link that is gone out of everything.
    pub(super) fn part_bulk(
        &mut self,
        now: Mono,
        (key, main): (LinkKey, LinkKey),
        gone: &Link,
        why: &dyn std::fmt::Display,
    ) {
        let place = gone.place;
        self.cells.count(if gone.is_open() { Count::LinksLost } else { Count::LinksFailed });
        if let (Some(service), Some(endpoint)) = (self.service(place.service), self.endpoint(place)) {
            log::debug!("service {}: bulk link to {} ended: {why}", service.settings.name, endpoint.address);
        }
        let (min, max) = (self.settings.reconnect_min, self.settings.reconnect_max);
        let has_lasted = gone.has_lasted(now, max) || gone.is_leaving;
        if let Some(link) = self.links.get_mut(main) {
            let failures = if has_lasted { 0 } else { link.bulk.failures.saturating_add(1) };
            let delay = if has_lasted { min } else { min.saturating_mul(1 << failures.min(16)).min(max) };
            (link.bulk.link, link.bulk.outstanding, link.bulk.failures) = (None, 0, failures);
            link.bulk.not_before = now + delay / 2 + self.rng.up_to(delay / 2);
        }
        self.settle_link(now, key, gone);
        self.redial_bulk(now, main);
        self.settle_stranded(now, place.service);
        self.send_waiting(now, place.service);
        self.end_finished(now, main);
    }

    /// Ends a bulk link that has carried nothing large for a while.
    pub(super) fn end_idle_bulk(&mut self, now: Mono, key: LinkKey) {
        let idle = self.settings.bulk_idle;
        let Some(link) = self.links.get_mut(key).filter(|link| link.is_bulk()) else { return };
        // A frame that has begun is use.
        let is_between = link.assembler.held_bytes() == 0;
        if link.outstanding == 0 && is_between && now >= link.used + idle {
            link.is_leaving = true;
            self.end_finished(now, key);
        }
    }

    /// The bulk link of a main link ends with it.
    pub(super) fn end_bulk_of(&mut self, now: Mono, main: &Link) {
        if let Some(bulk) = main.bulk.link {
            match self.links.get(bulk).is_some_and(Link::is_open) {
                true => self.end_link(now, bulk, &LinkEnd::MainEnded),
                false => self.link_lost(now, bulk, &LinkEnd::MainEnded),
            }
        }
    }
}
