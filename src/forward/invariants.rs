//! What holds after every call from outside.

use super::Forwarder;
use super::call::{Call, CallState};
use super::queue::Queue;
use super::service::Service;
use crate::base::ids::{CallKey, ServiceId};

/// Above so many calls a look at all of them takes too long for tests.
const CALLS_MAX: usize = 64;

impl Forwarder {
    /// Panics in tests and checked builds when the tables contradict each other.
    pub fn check_invariants(&self) {
        if !cfg!(debug_assertions) || self.calls.len() >= CALLS_MAX {
            return;
        }
        self.check_waiting();
        for key in self.links.keys() {
            let on_link = |call: &&Call| call.state.flight().is_some_and(|flight| flight.link == key);
            let calls = self.calls.values().filter(on_link).count();
            let outstanding = self.links.get(key).map(|link| link.outstanding as usize);
            debug_assert_eq!(outstanding, Some(calls), "a link counts its calls");
            let checks = self.links.get(key).map(|link| link.checks as usize);
            debug_assert_eq!(checks, Some(self.checks_on(key).count()), "and its questions");
            let Some(link) = self.links.get(key).filter(|link| !link.is_bulk()) else { continue };
            let bulk = link.bulk.link.and_then(|bulk| self.links.get(bulk));
            let on_bulk = bulk.map_or(0, |bulk| bulk.outstanding);
            debug_assert_eq!(link.bulk.outstanding, on_bulk, "a pair counts the calls of its bulk link");
        }
        for (id, service) in (0u16..).map(ServiceId).zip(&self.services) {
            self.check_service_counts(id, service);
            self.check_readiness(id, service);
        }
        for key in self.calls.keys() {
            let twin = self.calls.get(key).and_then(Call::twin);
            if let Some(twin) = twin {
                let other = self.calls.get(twin);
                debug_assert_eq!(other.and_then(Call::twin), Some(key), "twins know each other");
                debug_assert!(other.is_some_and(|call| matches!(call.state, CallState::Sent { .. })));
            }
        }
    }

    fn check_waiting(&self) {
        let waiting = || self.calls.values().filter(|call| call.state.is_waiting());
        debug_assert_eq!(waiting().count(), self.waiting, "waiting calls are counted");
        let bytes: usize = waiting().map(|call| call.state.waiting_bytes()).sum();
        debug_assert_eq!(bytes, self.waiting_bytes, "and so are their bytes");
        let may_wait = |call: &Call| self.may_wait(call.service);
        debug_assert!(waiting().all(may_wait), "nothing waits for no link at all");
    }

    fn check_service_counts(&self, id: ServiceId, service: &Service) {
        let own = || self.calls.values().filter(|call| call.service == id);
        let waiting = || own().filter(|call| call.state.is_waiting());
        debug_assert_eq!(waiting().count(), service.waiting, "what waits for a service is counted");
        let bytes: usize = waiting().map(|call| call.state.waiting_bytes()).sum();
        debug_assert_eq!(bytes, service.waiting_bytes, "and its bytes");
        let queued = |queue: &Queue, is_head| {
            let waits = |key: &&CallKey| self.calls.get(**key).is_some_and(|call| call.state.is_waiting());
            queue.keys().filter(waits).filter(|key| self.is_head(**key) == is_head).count()
        };
        let heads = queued(&service.queue, true).saturating_add(queued(&service.large, true));
        let queued = heads.saturating_add(queued(&service.behind, false));
        debug_assert_eq!(queued, service.waiting, "what waits for a service is in one of its queues");
        let kept: usize = own().map(|call| call.state.kept_bytes()).sum();
        debug_assert_eq!(kept, service.kept_bytes, "what is kept is counted");
        let unjudged = own().filter(|call| call.is_unjudged).count().saturating_add(self.checks_of(id));
        debug_assert_eq!(service.sent as usize, unjudged, "what is out is counted");
        for (seat, endpoint) in (0u16..).zip(&service.endpoints) {
            let Some(endpoint) = endpoint else { continue };
            let at = |call: &&Call| call.is_unjudged && call.tried == Some(seat);
            let sent = own().filter(at).count().saturating_add(self.checks_at(id, seat));
            debug_assert_eq!(endpoint.sent as usize, sent, "what is out at an endpoint is counted");
            let member = service.pool.member(usize::from(seat)).map(|member| member.id);
            debug_assert_eq!(member, Some(endpoint.id), "seats are those of the pool");
        }
    }

    /// What the operator is told is so.
    fn check_readiness(&self, id: ServiceId, service: &Service) {
        let mut ready: u32 = 0;
        for endpoint in service.endpoints.iter().flatten() {
            let links = endpoint.links(&self.links).filter(|(_, link)| link.is_ready()).count();
            debug_assert_eq!(endpoint.ready as usize, links, "an endpoint counts its ready links");
            debug_assert!(!endpoint.is_leaving || links == 0, "one that leaves is not ready");
            ready = ready.saturating_add(endpoint.ready);
        }
        debug_assert_eq!(
            (service.ready, self.readiness.links(id)),
            (ready, ready),
            "ready links are counted"
        );
    }
}
