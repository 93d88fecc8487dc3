//! Binds, starts the threads, and joins them with mailboxes.

use super::descriptors::Reservation;
use super::register::Listing;
use super::state::State;
use super::{Gateway, GatewayError, Prepared, limits, random_bytes, random_u64};
use crate::admin::{Admin, Pages};
use crate::auth::ResumeTokens;
use crate::base::bell::Ring;
use crate::base::clock::Clock;
use crate::base::counters::Cells;
use crate::base::ids::{ListenerId, ShardId, WorkerId};
use crate::base::mailbox::mailbox;
use crate::base::seat::Seat;
use crate::config::Settings;
use crate::control::Inherited;
use crate::directory::{Directory, RecentPushes};
use crate::forward::{self, Forwarder, Readiness};
use crate::limit::AddressTable;
use crate::reactor::{
    Handed, Inbox, ListenAt, Listener, LoopSeat, Outbox, ShardLoop, ShardParts, SocketOptions, Visit,
    WorkerLoop, WorkerParts, adopt, bind, poll_with_bell,
};
use crate::relay::{DeliveryBatch, ForwardBatch, PushGauge, Receipt};
use crate::routing::Pools;
use crate::shard::{self, Shard};
use crate::telemetry::{AccessLog, Names};
use parking_lot::Mutex;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

/// Messages that may wait in a mailbox; a message is one turn's batch.
const MAILBOX: usize = 256;

/// Bytes of a client's output that the kernel takes before it has sent them: enough for a fast network, and little
/// beside `limits.unsent_output`.
const CLIENT_UNSENT_MAX: u32 = 128 * 1024;

/// Both ends of what joins the threads, before they are taken apart.
struct Wiring<'a> {
    settings: &'a Settings,
    clock: Clock,
    options: SocketOptions,
    hand_out: Vec<Outbox<Handed>>,
    /// To every shard, from any worker.
    deliveries: Vec<(ShardId, Outbox<DeliveryBatch>)>,
    /// To every worker, from any shard.
    receipts: Vec<Outbox<Vec<Receipt>>>,
    /// Where shards and workers sit.
    shards: Vec<Arc<LoopSeat<ShardLoop>>>,
    workers: Vec<Arc<LoopSeat<WorkerLoop>>>,
    addresses: Option<Arc<AddressTable>>,
    cells: Vec<Arc<Cells>>,
    resume_tokens: Arc<ResumeTokens>,
    directory: Arc<Directory>,
    recent: Arc<Vec<RecentPushes>>,
    pools: Arc<Pools>,
    pushes: PushGauge,
}

/// One shard's or worker's poll, and its mailboxes to be.
type PollAndBell = (mio::Poll, crate::reactor::LoopBell);

impl Gateway {
    /// Binds everything, then starts the threads.
    ///
    /// # Errors
    /// [`GatewayError`]; nothing is left running.
    pub fn start(settings: Settings) -> Result<Gateway, GatewayError> {
        Gateway::start_with(settings, Inherited::default())
    }

    /// The same, with sockets of the service manager.
    ///
    /// # Errors
    /// [`GatewayError`]; nothing is left running.
    pub fn start_with(settings: Settings, inherited: Inherited) -> Result<Gateway, GatewayError> {
        Gateway::bind(Gateway::prepare(settings)?, inherited)
    }

    fn bind(prepared: Prepared, mut inherited: Inherited) -> Result<Gateway, GatewayError> {
        let settings = &prepared.settings;
        let (shards, _) = settings.threads();
        let mut listeners: Vec<Vec<Listener>> = (0..shards).map(|_| Vec::new()).collect();
        let mut client_addresses = Vec::new();
        for (id, listener) in (0u16..).map(ListenerId).zip(&settings.reactor.listeners) {
            let (sockets, addresses) = match &listener.at {
                ListenAt::Inherited(name) => adopt(inherited.claim(name)?, shards)?,
                ListenAt::Address(address) => {
                    bind(*address, listener.accept, shards, settings.reactor.backlog)
                        .map(|(sockets, address)| (sockets, vec![address]))
                        .map_err(GatewayError::Listen)?
                }
            };
            let sockets = sockets.into_iter().map(|more| more.into_iter().map(|socket| socket.with_id(id)));
            listeners.iter_mut().zip(sockets).for_each(|(all, more)| all.extend(more));
            client_addresses.extend(addresses);
        }
        let admin_socket = admin_socket(settings.admin.as_ref(), &mut inherited)?;
        inherited.finish()?;
        let bound = admin_socket.iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;
        let own = [client_addresses.clone(), bound].concat();
        prepared.refuse_own(&own)?;
        let state = Arc::new(State::new(settings, prepared.clock)?);
        let names = Names { services: state.services.clone(), pools: state.pools.clone() };
        let cells = state.cells.last().cloned().unwrap_or_default();
        let access_log =
            AccessLog::start(&settings.access_log, names, cells).map_err(GatewayError::AccessLog)?;
        let pages: Arc<dyn Pages> = state.clone();
        let admin = admin_socket
            .map(|socket| Admin::start(socket, settings.admin_hosts.clone(), pages))
            .transpose()?;
        let mut gateway = Gateway {
            state,
            client_addresses,
            admin,
            listing: None,
            access_log,
            shards: Vec::new(),
            workers: Vec::new(),
            drain_timeout: settings.reactor.drain_timeout,
            boot_id: random_u64()?,
        };
        let started = gateway.start_threads(settings, listeners);
        if let Err(error) = started.and_then(|()| gateway.start_control(prepared, own)) {
            gateway.stop();
            gateway.join();
            return Err(error);
        }
        Ok(gateway)
    }

    /// What talks to registries, once everything stands that they are told of.
    fn start_control(&mut self, prepared: Prepared, own: Vec<SocketAddr>) -> Result<(), GatewayError> {
        // A gateway whose endpoints all stand in its configuration has nothing to find.
        if let Some(discovery) = prepared.discovery {
            let workers: Vec<_> = self.workers.iter().map(|(outbox, _)| outbox.clone()).collect();
            let state = Arc::downgrade(&self.state);
            let bell = move || {
                if let Some(state) = state.upgrade() {
                    state.reserve_for_links();
                }
                workers.iter().for_each(Outbox::ring);
            };
            let discovery = discovery.start(self.state.pools.clone(), own, bell);
            *self.state.discovery.lock() = Some(discovery.map_err(GatewayError::Discovery)?);
        }
        self.listing = Some(Listing::start(&prepared.settings, &self.state, self.admin_address())?);
        Ok(())
    }

    fn start_threads(
        &mut self,
        settings: &Settings,
        listeners: Vec<Vec<Listener>>,
    ) -> Result<(), GatewayError> {
        let (shards, workers) = settings.threads();
        let polls =
            |count: u16| (0..count).map(|_| poll_with_bell()).collect::<io::Result<Vec<PollAndBell>>>();
        let (shard_polls, worker_polls) = (polls(shards)?, polls(workers)?);
        let (mut hand_out, mut handed) = (Vec::new(), Vec::new());
        let (mut deliveries, mut delivered) = (Vec::new(), Vec::new());
        let mut doors: Vec<(Arc<dyn Ring>, u64)> = Vec::new();
        for (id, (_, bell)) in (0u16..).zip(&shard_polls) {
            let (outbox, inbox) = mailbox(MAILBOX, bell.clone());
            hand_out.push(outbox);
            handed.push(inbox);
            let (outbox, inbox) = mailbox(MAILBOX, bell.clone());
            deliveries.push((ShardId(id), outbox));
            delivered.push(inbox);
            doors.push((bell.clone(), random_u64()?));
        }
        let (mut receipts, mut receipted) = (Vec::new(), Vec::new());
        for (_, bell) in &worker_polls {
            let (outbox, inbox) = mailbox(MAILBOX, bell.clone());
            receipts.push(outbox);
            receipted.push(inbox);
        }
        let watcher: Arc<dyn Ring> = match worker_polls.first() {
            Some((_, bell)) => bell.clone(),
            None => Arc::new(()),
        };
        let per_address = settings.reactor.connections_per_address;
        let wiring = Wiring {
            settings,
            clock: self.state.clock,
            options: SocketOptions {
                keepalive: settings.reactor.keepalive,
                user_timeout: settings.reactor.user_timeout,
                unsent_max: None,
            },
            hand_out,
            deliveries,
            receipts,
            shards: shard_polls.iter().map(|(_, bell)| Arc::new(Seat::new(bell.clone()))).collect(),
            workers: worker_polls.iter().map(|(_, bell)| Arc::new(Seat::new(bell.clone()))).collect(),
            addresses: per_address.map(|max| Arc::new(AddressTable::new(max))),
            cells: self.state.cells.clone(),
            resume_tokens: Arc::new(ResumeTokens::new(self.boot_id, &random_bytes()?)),
            directory: Arc::new(Directory::new(doors, watcher, settings.directory.clone())),
            pools: self.state.pools.clone(),
            recent: Arc::new(settings.services.iter().map(|_| RecentPushes::default()).collect()),
            pushes: PushGauge::default(),
        };
        // Threads are started once.
        let _ = self.state.directory.set(wiring.directory.clone());
        let forwards: Vec<(Outbox<ForwardBatch>, Inbox<ForwardBatch>)> =
            worker_polls.iter().map(|(_, bell)| mailbox(MAILBOX, bell.clone())).collect();
        let shard_parts = shard_polls.into_iter().zip(listeners).zip(handed).zip(delivered);
        for (id, (((poll_and_bell, listeners), handed), deliveries)) in (0u16..).zip(shard_parts) {
            let worker = usize::from(id % workers.max(1));
            let (Some((forwards, _)), Some(seat)) = (forwards.get(worker), wiring.workers.get(worker)) else {
                continue;
            };
            let ends =
                ShardEnds { listeners, handed, deliveries, forwards: forwards.clone(), worker: seat.clone() };
            self.start_shard(&wiring, ShardId(id), poll_and_bell, ends)?;
        }
        let worker_ends = worker_polls.into_iter().zip(forwards).zip(receipted);
        for (id, ((poll_and_bell, (_, forwards)), receipts)) in (0u16..).zip(worker_ends) {
            self.start_worker(&wiring, WorkerId(id), poll_and_bell, (forwards, receipts))?;
        }
        // Threads are started once.
        let _ = self.state.workers.set(self.workers.iter().map(|(outbox, _)| outbox.clone()).collect());
        Ok(())
    }

    fn start_shard(
        &mut self,
        wiring: &Wiring<'_>,
        id: ShardId,
        (poll, bell): PollAndBell,
        ends: ShardEnds,
    ) -> Result<(), GatewayError> {
        let settings = wiring.settings;
        let cells = wiring.cells.get(id.index()).cloned().unwrap_or_default();
        let (commands, inbox) = mailbox(MAILBOX, bell.clone());
        let shard = Shard::new(shard::Parts {
            id,
            settings: settings.shard.clone(),
            session: settings.session.clone(),
            routes: settings.routes.clone(),
            limits: self.state.limits.clone(),
            authority: settings.authority.clone(),
            resume_tokens: wiring.resume_tokens.clone(),
            directory: wiring.directory.clone(),
            pushes: wiring.pushes.clone(),
            cells: cells.clone(),
            seed: random_u64()?,
            access_log: self.access_log.is_some(),
        });
        let parts = ShardParts {
            shard,
            registry: poll.registry().try_clone()?,
            clock: wiring.clock,
            listeners: ends.listeners,
            accepts_per_turn: settings.reactor.accepts_per_turn,
            accepts: settings.reactor.accepts,
            options: SocketOptions { unsent_max: Some(CLIENT_UNSENT_MAX), ..wiring.options },
            forwards: ends.forwards,
            worker: ends.worker,
            deliveries: ends.deliveries,
            receipts: wiring.receipts.clone(),
            commands: inbox,
            hand_out: wiring.hand_out.clone(),
            handed: ends.handed,
            addresses: wiring.addresses.clone(),
            pulse: self.state.pulses.get(id.index()).cloned().unwrap_or_default(),
            access: self.access_log.as_ref().map(AccessLog::sender),
            cells,
        };
        let shard_loop = ShardLoop::new(parts)?;
        let Some(seat) = wiring.shards.get(id.index()).cloned() else { return Ok(()) };
        let thread = std::thread::Builder::new().name(format!("shard-{}", id.0));
        let thread = thread.spawn(move || shard_loop.run(&seat, poll))?;
        self.shards.push((commands, thread));
        Ok(())
    }

    fn start_worker(
        &mut self,
        wiring: &Wiring<'_>,
        id: WorkerId,
        (poll, bell): PollAndBell,
        (forwards, receipts): (Inbox<ForwardBatch>, Inbox<Vec<Receipt>>),
    ) -> Result<(), GatewayError> {
        let settings = wiring.settings;
        let shards = settings.threads().0;
        let cells = wiring.cells.get(usize::from(shards.saturating_add(id.0))).cloned().unwrap_or_default();
        let (commands, inbox) = mailbox(MAILBOX, bell.clone());
        let forwarder = Forwarder::new(forward::Parts {
            id,
            settings: settings.forward.clone(),
            boot_id: self.boot_id,
            services: settings.services.clone(),
            pools: wiring.pools.clone(),
            routes: settings.routes.clone(),
            shards,
            authority: settings.authority.clone(),
            directory: wiring.directory.clone(),
            recent: wiring.recent.clone(),
            pushes: wiring.pushes.clone(),
            check_service: settings.check_service,
            cells: cells.clone(),
            readiness: self.state.readiness.get(id.index()).cloned().unwrap_or_default(),
            seed: random_u64()?,
        });
        let parts = WorkerParts {
            forwarder,
            registry: poll.registry().try_clone()?,
            clock: wiring.clock,
            options: wiring.options,
            forwards,
            deliveries: wiring.deliveries.clone(),
            shards: wiring.shards.iter().map(|seat| seat.clone() as Arc<dyn Visit>).collect(),
            receipts,
            commands: inbox,
            cells,
            pulse: self
                .state
                .pulses
                .get(usize::from(shards.saturating_add(id.0)))
                .cloned()
                .unwrap_or_default(),
        };
        let thread = std::thread::Builder::new().name(format!("worker-{}", id.0));
        let Some(seat) = wiring.workers.get(id.index()).cloned() else { return Ok(()) };
        let thread = thread.spawn(move || WorkerLoop::new(parts).run(&seat, poll))?;
        self.workers.push((commands, thread));
        Ok(())
    }
}

struct ShardEnds {
    listeners: Vec<Listener>,
    handed: Inbox<Handed>,
    deliveries: Inbox<DeliveryBatch>,
    forwards: Outbox<ForwardBatch>,
    worker: Arc<dyn Visit>,
}

impl State {
    /// As it is before any thread runs.
    pub(super) fn new(settings: &Settings, clock: Clock) -> io::Result<State> {
        let (shards, workers) = settings.threads();
        let of_shards = (0..shards).map(|_| Arc::new(Cells::with_routes(settings.routes.len())));
        let reservation = Reservation::new(settings);
        Ok(State {
            // The last one is the access log's.
            cells: of_shards.chain((0..=workers).map(|_| Arc::default())).collect(),
            readiness: (0..workers).map(|_| Arc::new(Readiness::new(settings.services.len()))).collect(),
            services: settings.services.iter().map(|service| service.name.clone()).collect(),
            is_required: settings.services.iter().map(|service| service.is_required).collect(),
            pools: Arc::new(Pools::of(&settings.services)),
            others_calls: Mutex::default(),
            has_canary: settings.services.iter().map(|service| service.pool.canary.is_some()).collect(),
            routing: settings.routes.clone(),
            routes: limits::route_names(settings),
            limits: limits::shared(settings, &reservation)?,
            reservation,
            draining: AtomicBool::new(false),
            clock,
            pulses: (0..shards.saturating_add(workers)).map(|_| Arc::default()).collect(),
            authority: settings.authority.clone(),
            workers: OnceLock::new(),
            discovery: Mutex::default(),
            directory: OnceLock::new(),
        })
    }
}

/// The socket of the operator's pages.
fn admin_socket(
    at: Option<&ListenAt>,
    inherited: &mut Inherited,
) -> Result<Option<TcpListener>, GatewayError> {
    match at {
        None => Ok(None),
        Some(ListenAt::Address(address)) => {
            TcpListener::bind(address).map(Some).map_err(|error| GatewayError::Admin(*address, error))
        }
        Some(ListenAt::Inherited(name)) => Ok(Some(inherited.claim_one(name)?)),
    }
}
