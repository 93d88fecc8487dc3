//! One worker's calls and its links to the services, pure.
//!
//! | in | out |
//! | --- | --- |
//! | [`Forwarder::forward`]: a shard's batch; [`Forwarder::receipts`] | [`Forwarder::deliveries`]: settlements, pushes and more for a shard |
//! | [`Forwarder::connected`], [`Forwarder::received`], [`Forwarder::link_over`], [`Forwarder::link_lost`] | [`Forwarder::next_command`]: links to dial or close |
//! | [`Forwarder::sent`], [`Forwarder::writable`] | [`Forwarder::next_flush`], [`Forwarder::unsent`]: what to write |
//! | [`Forwarder::timers`], [`Forwarder::tell_presence`] | [`Forwarder::next_deadline`], [`Forwarder::has_presence`] |
//! | [`Forwarder::refresh`], once [`Forwarder::has_news`] | links to dial or close |
//!
//! ```text
//!             no link is ready, one was: settled sent ── Reply ──────────► settled, or tried again
//! Forward ─┬─ a link takes it ──────────────────►  │ ── link lost ───────► moved if unsent, tried again if that does
//!          │        ▲                              │                       no harm, else settled (UNKNOWN)
//!          │        └─ moved, tried again, hedged ─┤
//!          │                                       └─ deadline ──────────► settled (UNKNOWN), remembered for the
//!          └─ waits: every link is at its bound,      late Reply, or until the grace is over
//!             none has ever been ready, or an
//!             earlier call of its session has
//!             not been answered ── cancel, deadline, no link left ──► settled (NOT_EXECUTED)
//! ```
//!
//! Guarantees: every [`Forward`](crate::relay::Forward) is settled exactly once, by its deadline at the latest; a
//! call whose deadline has passed is never sent; a settlement says whether the service may have seen the call; a call that
//! may have run is sent again only on an idempotent route.

mod asking;
mod bulk;
mod call;
mod calls;
mod checks;
mod choose;
mod dial;
mod directives;
mod ending;
mod explain;
mod hedge;
mod invariants;
mod latency;
mod link;
mod members;
mod notices;
mod order;
mod place;
mod presence;
mod pushes;
mod queue;
mod readiness;
mod replies;
mod retry;
mod service;
mod settings;
mod settle;
mod shed;
#[cfg(test)]
mod tests;
mod timers;
mod verdict;

pub use explain::{ExplainAnswer, ExplainAsk};
pub use link::LinkIdentity;
pub use readiness::Readiness;
pub use settings::Settings;

use crate::auth::{Authority, KeyRing};
use crate::base::counters::Cells;
use crate::base::ids::{
    CallKey, CallTag, CheckKey, CheckTag, LinkKey, LinkTag, ServiceId, ShardId, WorkerId,
};
use crate::base::rng::Rng;
use crate::base::slab::GenSlab;
use crate::base::wheel::{Alarm, Wheel};
use crate::directory::{Directory, RecentPushes};
use crate::relay::{DeliveryBatch, PushGauge};
use crate::routing::{Pool, Pools, RouteTable, ServiceSettings};
use call::Call;
use link::Link;
use place::Place;
use service::{Endpoint, Service, Slot};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

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

/// What the reactor does for a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkCommand {
    /// Connect, then call [`Forwarder::connected`] or [`Forwarder::link_lost`].
    Dial(LinkKey, SocketAddr),
    /// End the stream towards the service, of which everything is written; the other direction is still read.
    EndStream(LinkKey),
    /// Close the socket; the key is dead.
    Close(LinkKey),
}

#[derive(Debug, Clone, Copy)]
enum Timer {
    /// The call that lies at this index.
    Call(u32),
    Link(LinkKey),
    /// A bulk link of this main link is to be dialled.
    Bulk(LinkKey),
    Redial(Place),
    /// Nobody waits for its answer any more.
    Check(CheckKey),
}

/// One worker's calls and links. See the module's page.
#[derive(Debug)]
pub struct Forwarder {
    worker: WorkerId,
    settings: Settings,
    boot_id: u64,
    routes: Arc<RouteTable>,
    pools: Arc<Pools>,
    /// The publication of `pools` that is taken in.
    pools_seen: u64,
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
    /// Questions that wait for the first link.
    parked: VecDeque<checks::Parked>,
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
        let pools = parts.pools;
        let services = (0u16..).map(ServiceId).zip(parts.services).map(|(id, settings)| {
            let pool = Pool::new(id, settings.pool.clone(), pools.clone());
            Service::new(id, settings, pool, &parts.routes)
        });
        let services = services.collect();
        Forwarder {
            worker: parts.id,
            settings: parts.settings,
            boot_id: parts.boot_id,
            routes: parts.routes,
            pools,
            pools_seen: 0,
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
            parked: VecDeque::new(),
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
        let endpoint = self.services.get_mut(place.service.index())?.endpoint_mut(place)?;
        endpoint.slots.get_mut(usize::from(place.slot))
    }

    fn endpoint(&self, place: Place) -> Option<&Endpoint> {
        self.service(place.service)?.endpoint(place)
    }
}
