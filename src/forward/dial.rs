//! Links come and go: dialled, dialled again after a delay, lost with what was on them.

use super::link::{Link, State};
use super::place::Place;
use super::{Forwarder, LinkCommand};
use crate::base::counters::Count;
use crate::base::ids::{CallKey, LinkKey, ServiceId};
use log::Level;
use moorgate_proto::proof::NONCE_BYTES;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::Reason;

impl Forwarder {
    pub(super) fn dial(&mut self, now: Mono, place: Place) {
        let Some(address) = self.endpoint(place).map(|endpoint| endpoint.address) else { return };
        let is_taken = self.slot_mut(place).is_none_or(|slot| slot.link.is_some());
        if self.stopping || is_taken {
            return;
        }
        let deadline = now + self.settings.connect_timeout;
        let key = self.links.insert(Link::new(place, deadline));
        if let Some(slot) = self.slot_mut(place) {
            slot.link = Some(key);
        }
        self.commands.push_back(LinkCommand::Dial(key, address));
        self.arm_link(key, deadline);
    }

    /// A link's connection stands. `nonce` is random, and used once.
    pub fn connected(&mut self, now: Mono, key: LinkKey, nonce: [u8; NONCE_BYTES]) {
        let deadline = now + self.settings.connect_timeout;
        let Some(link) = self.links.get_mut(key) else { return };
        let Some(service) = self.services.get(link.place.service.index()) else { return };
        let identity = service.identity(&self.settings, self.boot_id);
        link.hello(now, deadline, identity, nonce);
        self.list(key);
        self.arm_link(key, deadline);
    }

    /// A link's connection failed or ended, or must: settles or sends elsewhere what was on it, and dials again
    /// later.
    pub fn link_lost(&mut self, now: Mono, key: LinkKey, why: &dyn std::fmt::Display) {
        let Some(link) = self.links.remove(key) else { return };
        self.commands.push_back(LinkCommand::Close(key));
        let place = link.place;
        let was_open = matches!(link.state, State::Ready | State::Draining);
        self.cells.count(if was_open { Count::LinksLost } else { Count::LinksFailed });
        self.unready(now, &link);
        self.say_lost(place, was_open, why);
        let is_told = self.settle_link(now, key, &link);
        if link.checks > 0 {
            self.unanswered_checks(now, key, is_told);
        }
        self.elect_another(key, place);
        self.settle_stranded(now, place.service);
        // What kept to this link is free to take another.
        self.send_waiting(now, place.service);
        self.redial(now, place, was_open);
    }

    /// For the operator.
    fn say_lost(&mut self, place: Place, was_open: bool, why: &dyn std::fmt::Display) {
        let attempts = self.slot_mut(place).map_or(0, |slot| slot.failures);
        let name = self.service(place.service).map_or("", |service| &service.settings.name);
        let Some(endpoint) = self.endpoint(place) else { return };
        let address = endpoint.address;
        let level = level(was_open, attempts, endpoint.is_leaving);
        match was_open {
            _ if self.stopping => {}
            true => log::log!(level, "service {name}: link to {address} ended: {why}"),
            false if level == Level::Warn => {
                log::warn!("service {name}: no link to {address}: {why}; it is tried until there is one");
            }
            false => log::log!(level, "service {name}: no link to {address}: {why}"),
        }
    }

    /// The delay doubles with each failure; half of it is random, so that gateways do not beat in step.
    fn redial(&mut self, now: Mono, place: Place, was_open: bool) {
        let (min, max) = (self.settings.reconnect_min, self.settings.reconnect_max);
        let is_leaving = self.endpoint(place).is_none_or(|endpoint| endpoint.is_leaving);
        let Some(slot) = self.slot_mut(place) else { return };
        slot.link = None;
        if is_leaving {
            return self.remove_if_gone(place);
        }
        slot.failures = if was_open { 0 } else { slot.failures.saturating_add(1) };
        let doubled = slot.failures.saturating_sub(1).min(16);
        let delay = min.saturating_mul(1 << doubled).min(max);
        let due = now + delay / 2 + self.rng.up_to(delay / 2);
        self.arm_redial(place, due);
    }

    /// Settles what waits for a service that has no ready link left.
    pub(super) fn settle_stranded(&mut self, now: Mono, service: ServiceId) {
        if self.has_ready_link(service) {
            return;
        }
        let stranded: Vec<CallKey> = self
            .calls
            .keys()
            .filter(|key| {
                self.calls.get(*key).is_some_and(|call| call.service == service && call.state.is_waiting())
            })
            .collect();
        for call in stranded {
            // The end of one lets another come to its turn, which may have ended it too.
            if self.calls.get(call).is_some() {
                self.refuse(now, call, Reason::NoEndpoint);
            }
        }
    }

    /// Closes every link, and dials no more.
    pub fn stop(&mut self, now: Mono) {
        self.stopping = true;
        let links: Vec<LinkKey> = self.links.keys().collect();
        for link in links {
            self.link_lost(now, link, &"the gateway stops");
        }
    }
}

/// How loudly the loss of a link is told: an endpoint that leaves is expected to lose its links, and one that is down is
/// told once, not at every attempt.
fn level(was_open: bool, attempts: u32, is_leaving: bool) -> Level {
    if is_leaving || (!was_open && attempts > 0) { Level::Debug } else { Level::Warn }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_expected_is_a_warning() {
        for (was_open, attempts, is_leaving, expected) in [
            (true, 0, false, Level::Warn),
            (true, 3, false, Level::Warn),
            (false, 0, false, Level::Warn),
            (false, 1, false, Level::Debug),
            (true, 0, true, Level::Debug),
            (false, 0, true, Level::Debug),
        ] {
            assert_eq!(level(was_open, attempts, is_leaving), expected);
        }
    }
}
