//! Who waits when not all can: what is refused, and for whom.
//!
//! Each service has a queue of its own, bounded in calls and in bytes, so that one that is saturated fills only that. When
//! it is full, a call of a higher priority takes the place of the youngest of the lowest. All queues together have a bound
//! too; when that is reached, the service with the most makes room for those with less: none can be kept from waiting by
//! others that wait for more.

use super::Forwarder;
use super::service::Service;
use crate::base::ids::{CallKey, ServiceId};
use crate::routing::Priority;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::Reason;

impl Forwarder {
    /// Refuses calls until those that wait are within their bounds, a call that was queued just now last.
    pub(super) fn make_room(&mut self, now: Mono, key: CallKey) {
        while let Some(call) = self.calls.get(key).filter(|call| call.state.is_waiting()) {
            let (service, priority) = (call.service, call.priority);
            let Some(entry) = self.service(service) else { return };
            let bounds = &entry.settings.pool.bounds;
            let is_full = entry.waiting > bounds.queue_max || entry.waiting_bytes > bounds.queue_bytes_max;
            let too_many = self.waiting > self.settings.waiting_max;
            let too_large = self.waiting_bytes > self.settings.waiting_bytes_max;
            if !is_full && !too_many && !too_large {
                return;
            }
            let measure = |service: &Service| if too_many { service.waiting } else { service.waiting_bytes };
            let other = if is_full { None } else { self.fullest(service, measure) };
            let victim = match other {
                Some(other) => self.youngest(other, None),
                None => self.youngest(service, Some(priority)),
            };
            self.refuse(now, victim.unwrap_or(key), Reason::ServiceOverloaded);
        }
    }

    /// The service that has more waiting than all others, if that is not this one.
    fn fullest(&self, than: ServiceId, measure: impl Fn(&Service) -> usize) -> Option<ServiceId> {
        let own = self.service(than).map_or(0, &measure);
        let others = (0u16..).map(ServiceId).zip(&self.services);
        let able = others.filter(|(id, service)| *id != than && service.waiting > 0);
        let (id, most) = able.map(|(id, service)| (id, measure(service))).max_by_key(|(_, most)| *most)?;
        (most > own).then_some(id)
    }

    /// The youngest call of the lowest priority that waits for a service, of those below `below`, if that is given. Among
    /// equals it is one behind another of its session, or one that waits for a bulk link: they would be sent last. It is
    /// taken out of its queue.
    fn youngest(&mut self, service: ServiceId, below: Option<Priority>) -> Option<CallKey> {
        loop {
            let entry = self.services.get_mut(service.index())?;
            let queues = [&mut entry.behind, &mut entry.large, &mut entry.queue].into_iter().enumerate();
            let of_queues = queues.filter_map(|(at, queue)| Some((queue.lowest()?, at, queue)));
            let (lowest, at, queue) = of_queues.min_by_key(|(lowest, ..)| *lowest)?;
            let is_behind = at == 0;
            if below.is_some_and(|below| lowest >= below) {
                return None;
            }
            let key = queue.pop_youngest(lowest)?;
            let is_waiting = self.calls.get(key).is_some_and(|call| call.state.is_waiting());
            if is_waiting && is_behind != self.is_head(key) {
                return Some(key);
            }
        }
    }
}
