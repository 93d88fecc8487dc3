//! One worker's calls and its links to the services, pure.
//!
//! | in | out |
//! | --- | --- |
//! | [`Forwarder::forward`]: a shard's batch; [`Forwarder::receipts`] | [`Forwarder::deliveries`]: settlements, pushes and more for a shard |
//! | [`Forwarder::connected`], [`Forwarder::received`], [`Forwarder::link_lost`] | [`Forwarder::next_command`]: links to dial or close |
//! | [`Forwarder::sent`], [`Forwarder::writable`] | [`Forwarder::next_flush`], [`Forwarder::unsent`]: what to write |
//! | [`Forwarder::timers`], [`Forwarder::tell_presence`] | [`Forwarder::next_deadline`], [`Forwarder::has_presence`] |
//!
//! ```text
//!             no link is ready: settled          sent ── Reply ──────────► settled
//! Forward ─┬─ a link takes it ──────────────────►  │ ── link lost ───────► settled (UNKNOWN)
//!          │                                       └─ deadline ──────────► settled (UNKNOWN), remembered for the
//!          └─ waits: every link is at its bound,      late Reply, or until the grace is over
//!             or an earlier call of its session
//!             has not been answered ── cancel, deadline, no link left ──► settled (NOT_EXECUTED)
//! ```
//!
//! Guarantees: every [`Forward`](crate::relay::Forward) is settled exactly once, by its deadline at the latest; a
//! call whose deadline has passed is never sent; a settlement says whether the service may have seen the call.

mod calls;
mod checks;
mod dial;
mod directives;
mod link;
mod order;
mod presence;
mod pushes;
mod replies;
mod settings;
#[cfg(test)]
mod tests;
mod timers;

pub use link::LinkIdentity;
pub use settings::Settings;

use crate::auth::{Authority, KeyRing};
use crate::base::counters::Cells;
use crate::base::ids::{
    CallKey, CallTag, CheckKey, CheckTag, LinkKey, LinkTag, RouteId, ServiceId, SessionId, SessionKey,
    ShardId, Ticket, WorkerId,
};
use crate::base::rng::Rng;
use crate::base::slab::GenSlab;
use crate::base::wheel::{Alarm, Wheel};
use crate::directory::{Directory, RecentPushes};
use crate::relay::{DeliveryBatch, PushGauge};
use crate::routing::{Balancer, Pools, RouteTable, ServiceSettings};
use link::Link;
use moorgate_proto::time::Mono;
use order::Orders;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// What a worker is built from.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Which worker.
    pub id: WorkerId,
    /// Its limits and times.
    pub settings: Settings,
    /// A number of its own for each start of the gateway.
    pub boot_id: u64,
    /// The services of the configuration.
    pub services: Vec<ServiceSettings>,
    /// Their endpoints as they stand.
    pub pools: Arc<Pools>,
    /// The routes of the configuration.
    pub routes: Arc<RouteTable>,
    /// Number of shards: to each of them it may have something to say.
    pub shards: u16,
    /// Which tokens are revoked.
    pub authority: Arc<Authority>,
    /// Who is here.
    pub directory: Arc<Directory>,
    /// Pushes of each service that were carried lately, by any worker.
    pub recent: Arc<Vec<RecentPushes>>,
    /// Bytes of all pushes that live.
    pub pushes: PushGauge,
    /// Who confirms new sessions.
    pub check_service: Option<ServiceId>,
    /// Where it counts.
    pub cells: Arc<Cells>,
    /// What it tells the operator.
    pub readiness: Arc<Readiness>,
    /// For jitter.
    pub seed: u64,
}

impl Parts {
    /// A worker by itself, with the defaults and one shard: for tests, benchmarks and simulations.
    pub fn alone(services: Vec<ServiceSettings>, routes: RouteTable) -> Parts {
        Parts {
            id: WorkerId(0),
            pools: Arc::new(Pools::of(&services)),
            settings: Settings::default(),
            boot_id: 1,
            routes: Arc::new(routes),
            shards: 1,
            authority: Arc::new(Authority::of_keys(KeyRing::default())),
            directory: Arc::new(Directory::unrung(1, 1)),
            recent: Arc::new(services.iter().map(|_| RecentPushes::default()).collect()),
            pushes: PushGauge::default(),
            check_service: None,
            cells: Arc::default(),
            readiness: Arc::new(Readiness::new(services.len())),
            seed: 1,
            services,
        }
    }
}

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

    fn change(&self, service: ServiceId, up: bool) {
        if let Some(ready) = self.ready.get(service.index()) {
            let value = ready.load(Ordering::Relaxed);
            let value = if up { value.saturating_add(1) } else { value.saturating_sub(1) };
            ready.store(value, Ordering::Relaxed);
        }
    }
}

/// What the reactor does for a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkCommand {
    /// Connect, then call [`Forwarder::connected`] or [`Forwarder::link_lost`].
    Dial(LinkKey, SocketAddr),
    /// Close the socket; the key is dead.
    Close(LinkKey),
}

#[derive(Debug, Clone, Copy)]
enum Timer {
    /// The call that lies at this index.
    Call(u32),
    Link(LinkKey),
    Redial(Place),
    /// Nobody waits for its answer any more.
    Check(CheckKey),
}

/// Where a link belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    service: ServiceId,
    endpoint: u16,
    slot: u16,
}

#[derive(Debug)]
struct Service {
    settings: ServiceSettings,
    balancer: Balancer,
    endpoints: Vec<Endpoint>,
    /// Unsent calls of unordered routes, in the order of their arrival. Settled ones are skipped.
    waiting: VecDeque<CallKey>,
    orders: Orders,
}

impl Service {
    /// What the gateway says of itself on a link to it.
    fn identity<'a>(&'a self, settings: &'a Settings, boot_id: u64) -> LinkIdentity<'a> {
        LinkIdentity {
            gateway_id: &settings.gateway_id,
            boot_id,
            service: &self.settings.name,
            key: self.settings.key.as_ref(),
            frame_bytes_max: settings.frame_bytes_max,
            pushes_max: if self.settings.grants.may_push() { settings.pushes_max } else { 0 },
        }
    }
}

#[derive(Debug)]
struct Endpoint {
    address: SocketAddr,
    /// As the access log names it.
    number: u32,
    slots: Vec<Slot>,
}

/// One of an endpoint's links, there or not.
#[derive(Debug, Default)]
struct Slot {
    link: Option<LinkKey>,
    failures: u32,
    alarm: Alarm,
}

#[derive(Debug)]
struct Call {
    shard: ShardId,
    ticket: Ticket,
    session: SessionKey,
    session_id: SessionId,
    route: RouteId,
    service: ServiceId,
    deadline: Mono,
    state: CallState,
}

#[derive(Debug)]
enum CallState {
    /// Not sent: holds what is to be sent.
    Waiting { caller: Box<[u8]>, request: Box<[u8]> },
    /// Sent on this link, with no reply yet.
    Sent(LinkKey),
    /// Settled without its reply, which may still come until then.
    Abandoned(LinkKey, Mono),
}

impl CallState {
    /// Bytes of content that a waiting call holds.
    fn held_bytes(&self) -> usize {
        match self {
            CallState::Waiting { caller, request } => caller.len().saturating_add(request.len()),
            CallState::Sent(_) | CallState::Abandoned(..) => 0,
        }
    }
}

/// One worker's calls and links. See the module's page.
#[derive(Debug)]
pub struct Forwarder {
    worker: WorkerId,
    settings: Settings,
    boot_id: u64,
    routes: Arc<RouteTable>,
    cells: Arc<Cells>,
    readiness: Arc<Readiness>,
    authority: Arc<Authority>,
    directory: Arc<Directory>,
    recent: Arc<Vec<RecentPushes>>,
    pushes: PushGauge,
    check_service: Option<ServiceId>,
    presence: presence::Presence,
    rng: Rng,
    services: Vec<Service>,
    links: GenSlab<LinkTag, Link>,
    calls: GenSlab<CallTag, Call>,
    /// Calls that hold their content, waiting.
    waiting: usize,
    /// Bytes of that content.
    waiting_bytes: usize,
    /// One for each index of `calls`.
    alarms: Vec<Alarm>,
    /// For each shard, for each index of its tickets: the call.
    tickets: Vec<Vec<Option<CallKey>>>,
    wheel: Wheel<Timer>,
    checks: GenSlab<CheckTag, checks::Asked>,
    /// By shard.
    outbound: Vec<DeliveryBatch>,
    flushes: Vec<LinkKey>,
    commands: VecDeque<LinkCommand>,
    /// Within `send_waiting`.
    sending: bool,
    stopping: bool,
}

impl Forwarder {
    /// A worker without links; [`Forwarder::start`] dials them.
    pub fn new(parts: Parts) -> Forwarder {
        let mut number = 0;
        let slots = parts.settings.links_per_endpoint;
        let services =
            parts.services.into_iter().map(|settings| service(settings, slots, &mut number)).collect();
        Forwarder {
            worker: parts.id,
            settings: parts.settings,
            boot_id: parts.boot_id,
            routes: parts.routes,
            cells: parts.cells,
            readiness: parts.readiness,
            authority: parts.authority,
            directory: parts.directory,
            recent: parts.recent,
            pushes: parts.pushes,
            check_service: parts.check_service,
            presence: presence::Presence::default(),
            rng: Rng::new(parts.seed),
            services,
            links: GenSlab::default(),
            calls: GenSlab::default(),
            waiting: 0,
            waiting_bytes: 0,
            alarms: Vec::new(),
            tickets: (0..parts.shards).map(|_| Vec::new()).collect(),
            wheel: Wheel::default(),
            checks: GenSlab::default(),
            outbound: (0..parts.shards).map(|_| DeliveryBatch::default()).collect(),
            flushes: Vec::new(),
            commands: VecDeque::new(),
            sending: false,
            stopping: false,
        }
    }

    /// What there is to tell a shard since the last call; the reactor takes it when there is room in the mailbox.
    pub fn deliveries(&mut self, shard: ShardId) -> Option<DeliveryBatch> {
        let batch = self.outbound.get_mut(shard.index())?;
        (!batch.deliveries.is_empty()).then(|| batch.take())
    }

    /// Calls that are not settled, or whose late reply is still awaited.
    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    /// Questions about sessions that were asked and not answered.
    pub fn checks(&self) -> usize {
        self.checks.len()
    }

    /// Links at the moment, ready or not.
    pub fn links(&self) -> usize {
        self.links.len()
    }

    /// The next link to dial or close.
    pub fn next_command(&mut self) -> Option<LinkCommand> {
        self.commands.pop_front()
    }

    fn service(&self, id: ServiceId) -> Option<&Service> {
        self.services.get(id.index())
    }

    fn slot_mut(&mut self, place: Place) -> Option<&mut Slot> {
        let service = self.services.get_mut(place.service.index())?;
        service.endpoints.get_mut(usize::from(place.endpoint))?.slots.get_mut(usize::from(place.slot))
    }

    fn endpoint(&self, place: Place) -> Option<&Endpoint> {
        self.service(place.service)?.endpoints.get(usize::from(place.endpoint))
    }

    fn number_of(&self, link: LinkKey) -> u32 {
        let endpoint = self.links.get(link).and_then(|link| self.endpoint(link.place));
        endpoint.map_or(0, |endpoint| endpoint.number)
    }

    /// Panics in tests and checked builds when the tables contradict each other.
    pub fn check_invariants(&self) {
        if cfg!(debug_assertions) && self.calls.len() < 64 {
            let waiting =
                self.calls.values().filter(|call| matches!(call.state, CallState::Waiting { .. })).count();
            debug_assert_eq!(waiting, self.waiting, "waiting calls are counted");
            let bytes: usize = self.calls.values().map(|call| call.state.held_bytes()).sum();
            debug_assert_eq!(bytes, self.waiting_bytes, "and so are their bytes");
            for key in self.links.keys() {
                let on_link = |call: &&Call| match call.state {
                    CallState::Sent(link) | CallState::Abandoned(link, _) => link == key,
                    CallState::Waiting { .. } => false,
                };
                let calls = self.calls.values().filter(on_link).count();
                let outstanding = self.links.get(key).map(|link| link.outstanding as usize);
                debug_assert_eq!(outstanding, Some(calls), "a link counts its calls");
            }
            self.check_readiness();
            let waits = |call: &&Call| matches!(call.state, CallState::Waiting { .. });
            let has_link = |call: &Call| self.has_ready_link(call.service);
            debug_assert!(
                self.calls.values().filter(waits).all(has_link),
                "nothing waits for no link at all"
            );
        }
    }

    /// What the operator is told is so.
    fn check_readiness(&self) {
        for (id, service) in (0u16..).map(ServiceId).zip(&self.services) {
            let slots = service.endpoints.iter().flat_map(|endpoint| &endpoint.slots);
            let ready = slots.filter_map(|slot| self.links.get(slot.link?)).filter(|link| link.is_ready());
            debug_assert_eq!(self.readiness.links(id) as usize, ready.count(), "ready links are counted");
        }
    }
}

fn service(settings: ServiceSettings, slots: u16, number: &mut u32) -> Service {
    let endpoints = settings.endpoints.iter().map(|instance| {
        *number = number.saturating_add(1);
        Endpoint {
            address: instance.address,
            number: *number,
            slots: (0..slots.max(1)).map(|_| Slot::default()).collect(),
        }
    });
    Service {
        endpoints: endpoints.collect(),
        balancer: Balancer::new(settings.pool.balance),
        settings,
        waiting: VecDeque::new(),
        orders: Orders::default(),
    }
}
