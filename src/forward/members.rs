//! Endpoints come and go while calls are under way.
//!
//! ```text
//! joined: dialled ──► in ── left ──► leaving: no new calls ── the old ones are finished ──► its links are closed; gone
//!                      ▲                 │
//!                      └──── is back ────┘ with the same links
//! ```

use super::place::Place;
use super::service::{Endpoint, Slot};
use super::{Forwarder, Timer};
use crate::base::counters::Count;
use crate::base::ids::{LinkKey, ServiceId};
use crate::base::wheel::Alarm;
use crate::routing::Change;
use moorgate_proto::time::Mono;

impl Forwarder {
    /// Dials every endpoint.
    pub fn start(&mut self, now: Mono) {
        self.refresh(now);
    }

    /// Whether endpoints were published that [`Forwarder::refresh`] has not taken in.
    pub fn has_news(&self) -> bool {
        self.pools.version() != self.pools_seen
    }

    /// Takes in what is published of the endpoints, by difference: who stays keeps its links and calls.
    pub fn refresh(&mut self, now: Mono) {
        // Before it is looked at: what comes meanwhile is looked at again.
        self.pools_seen = self.pools.version();
        let services = u16::try_from(self.services.len()).unwrap_or(u16::MAX);
        for service in (0..services).map(ServiceId) {
            let Some(entry) = self.services.get_mut(service.index()) else { return };
            for change in entry.pool.update(now) {
                match change {
                    Change::Joined(seat) => self.joined(now, service, seat),
                    Change::Left(seat) => self.left(now, service, seat),
                }
            }
            if let Some(entry) = self.services.get_mut(service.index()) {
                entry.counted();
            }
            self.settle_stranded(now, service);
            self.send_waiting(now, service);
        }
        self.check_invariants();
    }

    fn joined(&mut self, now: Mono, service: ServiceId, seat: usize) {
        let slots = self.settings.links_per_endpoint.max(1);
        let Some(entry) = self.services.get_mut(service.index()) else { return };
        let Ok(seat_number) = u16::try_from(seat) else { return };
        let Some(member) = entry.pool.member(seat) else { return };
        let (id, address, vitals) = (member.id, member.instance.address, member.vitals.clone());
        if entry.endpoints.len() <= seat {
            entry.endpoints.resize_with(seat.saturating_add(1), || None);
        }
        let Some(place) = entry.endpoints.get_mut(seat) else { return };
        match place {
            Some(endpoint) if endpoint.id == id => endpoint.is_leaving = false,
            _ => {
                debug_assert!(place.is_none(), "a seat is left before it is taken again");
                let slots = (0..slots).map(|_| Slot::default()).collect();
                *place = Some(Endpoint { id, address, vitals, slots, is_leaving: false, sent: 0, ready: 0 });
            }
        }
        self.cells.count(Count::EndpointsJoined);
        log::debug!("service {}: {address} has joined", entry.settings.name);
        for place in (0..slots).map(|slot| Place { id, service, seat: seat_number, slot }) {
            match self.slot_mut(place).and_then(|slot| slot.link) {
                Some(link) => self.set_leaving(now, link, false),
                None => self.dial(now, place),
            }
        }
    }

    fn left(&mut self, now: Mono, service: ServiceId, seat: usize) {
        let Some(entry) = self.services.get_mut(service.index()) else { return };
        let Some(Some(endpoint)) = entry.endpoints.get_mut(seat) else { return };
        endpoint.is_leaving = true;
        let (address, id) = (endpoint.address, endpoint.id);
        let links: Vec<LinkKey> = endpoint.slots.iter().filter_map(|slot| slot.link).collect();
        for slot in &mut endpoint.slots {
            // It is not dialled again.
            slot.alarm = Alarm::default();
        }
        log::debug!("service {}: {address} has left; its calls are finished", entry.settings.name);
        self.cells.count(Count::EndpointsLeft);
        for link in links {
            self.set_leaving(now, link, true);
        }
        let Ok(seat) = u16::try_from(seat) else { return };
        self.remove_if_gone(Place { id, service, seat, slot: 0 });
    }

    fn set_leaving(&mut self, now: Mono, key: LinkKey, leaving: bool) {
        let Some(link) = self.links.get_mut(key) else { return };
        let was_ready = link.is_ready();
        link.is_leaving = leaving;
        if !link.is_ending() {
            link.last_ping = None;
        }
        self.ready_changed(now, key, was_ready);
        self.end_finished(now, key);
    }

    /// Gives the seat of an endpoint that leaves free, once it has no links.
    pub(super) fn remove_if_gone(&mut self, place: Place) {
        let Some(service) = self.services.get_mut(place.service.index()) else { return };
        let is_gone = |endpoint: &Endpoint| {
            endpoint.is_leaving && endpoint.slots.iter().all(|slot| slot.link.is_none())
        };
        if service.endpoint(place).is_some_and(is_gone) {
            service.pool.remove(usize::from(place.seat));
            if let Some(endpoint) = service.endpoints.get_mut(usize::from(place.seat)) {
                debug_assert!(endpoint.as_ref().is_none_or(|it| it.sent == 0), "nothing is out there");
                *endpoint = None;
            }
            service.counted();
        }
    }

    pub(super) fn arm_redial(&mut self, place: Place, due: Mono) {
        let service = self.services.get_mut(place.service.index());
        let endpoint = service.and_then(|service| service.endpoint_mut(place));
        if let Some(slot) = endpoint.and_then(|endpoint| endpoint.slots.get_mut(usize::from(place.slot))) {
            self.wheel.arm(&mut slot.alarm, Timer::Redial(place), due);
        }
    }
}
