//! Links that are dialled, and dialled again after a delay.

use super::link::Link;
use super::place::Place;
use super::{Forwarder, LinkCommand};
use crate::base::ids::{CallKey, LinkKey, ServiceId};
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
        let main = self.links.get(key).filter(|link| link.is_bulk()).and_then(Link::partner);
        let main_nonce = main.and_then(|main| self.links.get(main)).map(|main| main.nonce);
        let Some(link) = self.links.get_mut(key) else { return };
        let Some(service) = self.services.get(link.place.service.index()) else { return };
        let identity = service.identity(&self.settings, (self.boot_id, self.worker));
        link.hello(now, deadline, identity, (nonce, main_nonce));
        self.list(key);
        self.arm_link(key, deadline);
    }

    /// The delay doubles with each attempt that brought no link that lasted; half of it is random, so that gateways do not beat
    /// in step.
    pub(super) fn redial(&mut self, now: Mono, gone: &Link, has_lasted: bool) {
        let (min, max, place) = (self.settings.reconnect_min, self.settings.reconnect_max, gone.place);
        let is_leaving = self.endpoint(place).is_none_or(|endpoint| endpoint.is_leaving);
        let Some(slot) = self.slot_mut(place) else { return };
        slot.link = None;
        if has_lasted {
            (slot.failures, slot.short_lived) = (0, 0);
        } else {
            slot.failures = slot.failures.saturating_add(1);
            slot.short_lived = slot.short_lived.saturating_add(gone.is_open().into());
        }
        let doubled = slot.failures.saturating_sub(1).min(16);
        if is_leaving {
            return self.remove_if_gone(place);
        }
        let delay = min.saturating_mul(1 << doubled).min(max);
        let due = now + delay / 2 + self.rng.up_to(delay / 2);
        self.arm_redial(place, due);
    }

    /// A link that has lasted is logged again, if those before it were not, and the delays begin anew.
    pub(super) fn note_lasting(&mut self, now: Mono, key: LinkKey) {
        let Some(link) = self.links.get(key).filter(|link| link.has_lasted(now, self.settings.reconnect_max))
        else {
            return;
        };
        if link.is_bulk() {
            return;
        }
        let place = link.place;
        let Some(slot) = self.slot_mut(place) else { return };
        slot.failures = 0;
        if std::mem::take(&mut slot.short_lived) > 0
            && let (Some(service), Some(endpoint)) = (self.service(place.service), self.endpoint(place))
        {
            log::info!("service {}: link to {} lasts", service.settings.name, endpoint.address);
        }
    }

    /// Settles what waits for a service that has no ready link left. What waits for its first one waits on.
    pub(super) fn settle_stranded(&mut self, now: Mono, service: ServiceId) {
        if self.may_wait(service) {
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
        for id in (0u16..).map(ServiceId).take(self.services.len()) {
            if let Some(service) = self.services.get_mut(id.index()) {
                service.is_awaited = false;
            }
            self.settle_stranded(now, id);
        }
        self.answer_parked_checks();
    }
}
