//! How many links are ready: for the operator, for the other threads, and for the pools.

use super::Forwarder;
use super::link::Link;
use crate::base::ids::{LinkKey, ServiceId};
use moorgate_proto::time::Mono;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many links to each service are ready: written by one worker, read by the operator's page.
#[derive(Debug, Default)]
pub struct Readiness {
    ready: Vec<AtomicU32>,
}

impl Readiness {
    /// For this many services.
    pub fn new(services: usize) -> Readiness {
        Readiness { ready: (0..services).map(|_| AtomicU32::new(0)).collect() }
    }

    /// Ready links to a service.
    pub fn links(&self, service: ServiceId) -> u32 {
        self.ready.get(service.index()).map_or(0, |ready| ready.load(Ordering::Relaxed))
    }

    /// A link to a service is ready, or is no more.
    pub(crate) fn change(&self, service: ServiceId, up: bool) {
        if let Some(ready) = self.ready.get(service.index()) {
            let value = ready.load(Ordering::Relaxed);
            ready.store(step(value, up), Ordering::Relaxed);
        }
    }
}

fn step(value: u32, up: bool) -> u32 {
    if up { value.saturating_add(1) } else { value.saturating_sub(1) }
}

impl Forwarder {
    /// Notes that a link takes calls, or no longer does.
    pub(super) fn ready_changed(&mut self, now: Mono, key: LinkKey, was_ready: bool) {
        let Some(link) = self.links.get(key) else { return };
        let (place, is_ready) = (link.place, link.is_ready());
        if was_ready != is_ready {
            self.count_ready(now, place, is_ready);
        }
    }

    /// The same for one that is ready no more since it is gone.
    pub(super) fn unready(&mut self, now: Mono, link: &Link) {
        if link.is_ready() {
            self.count_ready(now, link.place, false);
        }
    }

    fn count_ready(&mut self, now: Mono, place: super::Place, up: bool) {
        self.readiness.change(place.service, up);
        let Some(service) = self.services.get_mut(place.service.index()) else { return };
        service.ready = step(service.ready, up);
        service.is_awaited &= !up;
        let Some(endpoint) = service.endpoint_mut(place) else { return };
        endpoint.ready = step(endpoint.ready, up);
        match up {
            true => endpoint.vitals.links.fetch_add(1, Ordering::Relaxed),
            false => endpoint.vitals.links.fetch_sub(1, Ordering::Relaxed),
        };
        let is_ready = endpoint.ready > 0;
        service.pool.set_ready(now, usize::from(place.seat), is_ready);
    }

    /// Whether a call may wait for a service: it has a ready link, or has never had one.
    pub(super) fn may_wait(&self, service: ServiceId) -> bool {
        self.service(service).is_some_and(|service| service.ready > 0 || service.is_awaited)
    }
}
