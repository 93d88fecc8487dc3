//! One service at one worker: its endpoints by their seats in the pool, and what waits for it.

use super::latency::Latencies;
use super::link::{Link, LinkIdentity};
use super::order::Orders;
use super::place::Place;
use super::queue::{Queue, Rank};
use super::{Settings, asking};
use crate::base::ids::{CallKey, LinkKey, LinkTag, ServiceId, WorkerId};
use crate::base::rng::Rng;
use crate::base::slab::GenSlab;
use crate::base::wheel::Alarm;
use crate::routing::{
    Ended, EndpointId, Pool, RetryBudget, RouteTable, ServiceSettings, Standing, Verdict, Vitals,
};
use moorgate_proto::time::Mono;
use std::net::SocketAddr;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Service {
    pub(super) settings: ServiceSettings,
    pub(super) pool: Pool,
    /// By their seats.
    pub(super) endpoints: Vec<Option<Endpoint>>,
    /// Unsent calls that may go, the heads of their lines among them. Settled ones are skipped.
    pub(super) queue: Queue,
    /// Large ones for which a bulk link was dialled.
    pub(super) large: Queue,
    pub(super) orders: Orders,
    /// Calls that wait behind another of their session, to be found when room is made. Those that are not behind any more
    /// are skipped.
    pub(super) behind: Queue,
    pub(super) budget: RetryBudget,
    /// How long calls take that may be hedged.
    pub(super) latencies: Latencies,
    /// Calls that wait, those behind another of their session counted.
    pub(super) waiting: usize,
    /// Bytes of their content.
    pub(super) waiting_bytes: usize,
    /// Bytes of sent calls that are kept so that they can be sent again.
    pub(super) kept_bytes: usize,
    /// Calls and questions that the pool counts as outstanding.
    pub(super) sent: u32,
    /// Links that take calls.
    pub(super) ready: u32,
    /// The seat of the only endpoint, where that leaves nothing to choose: the common case of a small deployment.
    pub(super) sole: Option<u16>,
    /// The pool looks at callers.
    pub(super) is_asking: bool,
    /// One of its routes is hedged.
    pub(super) has_hedges: bool,
    /// Sent calls may be sent again: there is more than one endpoint.
    pub(super) is_keeping: bool,
    /// No link has ever been ready: calls wait for the first one.
    pub(super) is_awaited: bool,
}

impl Service {
    pub(super) fn new(id: ServiceId, settings: ServiceSettings, pool: Pool, routes: &RouteTable) -> Service {
        let has_hedges = routes.iter().any(|route| route.service == id && route.hedge);
        Service {
            budget: RetryBudget::new(settings.pool.retry.clone()),
            is_asking: asking::is_asking(&settings.pool),
            has_hedges,
            settings,
            pool,
            endpoints: Vec::new(),
            queue: Queue::default(),
            large: Queue::default(),
            orders: Orders::default(),
            behind: Queue::default(),
            latencies: Latencies::default(),
            waiting: 0,
            waiting_bytes: 0,
            kept_bytes: 0,
            sent: 0,
            ready: 0,
            sole: None,
            is_keeping: false,
            is_awaited: true,
        }
    }

    /// What the gateway says of itself on a link to it.
    pub(super) fn identity<'a>(
        &'a self,
        settings: &'a Settings,
        (boot_id, worker): (u64, WorkerId),
    ) -> LinkIdentity<'a> {
        LinkIdentity {
            gateway_id: &settings.gateway_id,
            boot_id,
            worker,
            service: &self.settings.name,
            key: self.settings.key.as_ref(),
            frame_bytes_max: settings.frame_bytes_max,
            pushes_max: if self.settings.grants.may_push() { settings.pushes_max } else { 0 },
        }
    }

    /// The endpoint of a link, unless it has left.
    pub(super) fn endpoint(&self, place: Place) -> Option<&Endpoint> {
        self.at(place.seat).filter(|endpoint| endpoint.id == place.id)
    }

    pub(super) fn endpoint_mut(&mut self, place: Place) -> Option<&mut Endpoint> {
        let endpoint = self.endpoints.get_mut(usize::from(place.seat))?.as_mut();
        endpoint.filter(|endpoint| endpoint.id == place.id)
    }

    pub(super) fn at(&self, seat: u16) -> Option<&Endpoint> {
        self.endpoints.get(usize::from(seat))?.as_ref()
    }

    /// The next call to be sent, and whether it is one that waits for a bulk link: those only `with_large`. Among equals they
    /// have waited for longer.
    pub(super) fn pop_waiting(&mut self, with_large: bool) -> Option<(Rank, CallKey, bool)> {
        let is_large =
            with_large && self.large.first().is_some_and(|large| Some(large) >= self.queue.first());
        let (rank, key) = if is_large { self.large.pop()? } else { self.queue.pop()? };
        Some((rank, key, is_large))
    }

    /// A call or a question goes out there: it counts in the pool from now on.
    pub(super) fn started(&mut self, seat: u16) {
        let seat = usize::from(seat);
        self.pool.started(seat);
        self.sent = self.sent.saturating_add(1);
        if let Some(Some(endpoint)) = self.endpoints.get_mut(seat) {
            endpoint.sent = endpoint.sent.saturating_add(1);
        }
    }

    /// What became of what was started.
    pub(super) fn ended(&mut self, now: Mono, ended: Ended, rng: &mut Rng) {
        self.sent = self.sent.saturating_sub(1);
        if let Some(Some(endpoint)) = self.endpoints.get_mut(ended.seat) {
            endpoint.sent = endpoint.sent.saturating_sub(1);
        }
        if self.has_hedges && ended.verdict == Verdict::Good {
            self.latencies.record(now, ended.latency);
        }
        self.pool.finished(now, ended, rng);
    }

    /// Whether calls may go to another endpoint than that of this seat.
    pub(super) fn has_another(&mut self, now: Mono, seat: u16) -> bool {
        self.pool.has_another(now, usize::from(seat))
    }

    /// The only seat, unless the pool has more to look at than whether its link has room.
    fn sole(&self) -> Option<u16> {
        let bounds = &self.settings.pool.bounds;
        let is_plain = bounds.endpoint_outstanding_max == 0
            && bounds.adaptive.is_none()
            && self.settings.pool.canary.is_none();
        let mut seats = (0u16..).zip(&self.endpoints).filter(|(_, endpoint)| endpoint.is_some());
        let (seat, _) = seats.next()?;
        let instance = &self.pool.member(usize::from(seat))?.instance;
        let is_in = instance.standing == Standing::In && instance.weight > 0;
        (is_plain && is_in && seats.next().is_none()).then_some(seat)
    }

    /// Notes that there are more or fewer endpoints than before.
    pub(super) fn counted(&mut self) {
        let several = self.endpoints.iter().flatten().filter(|endpoint| !endpoint.is_leaving).count() > 1;
        self.sole = self.sole();
        self.is_keeping = several && (self.settings.pool.retry.attempts_max > 1 || self.has_hedges);
    }
}

#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) id: EndpointId,
    pub(super) address: SocketAddr,
    pub(super) vitals: Arc<Vitals>,
    pub(super) slots: Vec<Slot>,
    /// It gets no new calls; once the old ones are finished, its links are closed.
    pub(super) is_leaving: bool,
    /// Calls and questions that the pool counts as outstanding there.
    pub(super) sent: u32,
    /// Links that take calls.
    pub(super) ready: u32,
}

impl Endpoint {
    /// Its links, whatever they are about.
    pub(super) fn links<'a>(
        &'a self,
        links: &'a GenSlab<LinkTag, Link>,
    ) -> impl Iterator<Item = (LinkKey, &'a Link)> {
        self.slots.iter().filter_map(|slot| Some((slot.link?, links.get(slot.link?)?)))
    }

    /// The one of its links that can take one more call, or one more large call, and has the least to do.
    #[inline]
    pub(super) fn best(
        &self,
        links: &GenSlab<LinkTag, Link>,
        output_bytes_max: usize,
        is_large: bool,
    ) -> Option<LinkKey> {
        let has_room = |link: &Link| {
            link.has_room(output_bytes_max) && (!is_large || has_bulk(links, link, output_bytes_max))
        };
        if let [slot] = self.slots.as_slice() {
            let key = slot.link?;
            return has_room(links.get(key)?).then_some(key);
        }
        let able = self.links(links).filter(|(_, link)| has_room(link));
        able.min_by_key(|(_, link)| link.outstanding).map(|(key, _)| key)
    }
}

/// The bulk link of a main link, if it has room.
pub(super) fn bulk_with_room(
    links: &GenSlab<LinkTag, Link>,
    main: &Link,
    output_bytes_max: usize,
) -> Option<LinkKey> {
    let bulk = main.bulk.link?;
    links.get(bulk)?.is_bulk_with_room(output_bytes_max).then_some(bulk)
}

/// Whether a main link has a bulk link with room.
pub(super) fn has_bulk(links: &GenSlab<LinkTag, Link>, main: &Link, output_bytes_max: usize) -> bool {
    bulk_with_room(links, main, output_bytes_max).is_some()
}

/// One of an endpoint's links, there or not.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) link: Option<LinkKey>,
    /// The one before it, whose end is under way.
    pub(super) closing: Option<LinkKey>,
    /// Attempts in a row after which there was no link that lasted.
    pub(super) failures: u32,
    /// Of them, links that were ready and did not last.
    pub(super) short_lived: u32,
    pub(super) alarm: Alarm,
}
