//! Assembles the parts, starts the threads, drains them, joins them.

mod limits;
mod operate;

use crate::admin::{Admin, OperateError, Operation, Outcome, Pages};
use crate::auth::{Authority, ResumeTokens};
use crate::base::bell::Ring;
use crate::base::clock::Clock;
use crate::base::counters::{Cells, Count, Totals};
use crate::base::ids::{ListenerId, ServiceId, ShardId, WorkerId};
use crate::base::mailbox::mailbox;
use crate::base::pulse::Pulse;
use crate::config::Settings;
use crate::control::{InheritError, Inherited, Observed, Vitals};
use crate::directory::{Directory, RecentPushes};
use crate::forward::{self, Forwarder, Readiness};
use crate::limit::{self, AddressTable, Bans};
use crate::reactor::{
    BindError, Handed, Inbox, ListenAt, Listener, Outbox, ShardCommand, ShardLoop, ShardParts, SocketOptions,
    WorkerCommand, WorkerLoop, WorkerParts, adopt, bind, poll_with_bell,
};
use crate::relay::{DeliveryBatch, ForwardBatch, PushGauge, Receipt};
use crate::routing::Pools;
use crate::shard::{self, Shard};
use crate::telemetry::{AccessLog, AccessLogError, Kind, Names, Sample, render};
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

/// A loop that has not turned for this long is stuck.
const STUCK_AFTER: std::time::Duration = std::time::Duration::from_secs(10);
/// Messages that may wait in a mailbox; a message is one turn's batch.
const MAILBOX: usize = 256;

/// Why the gateway does not start.
#[derive(Debug)]
pub enum GatewayError {
    /// An address for clients.
    Listen(BindError),
    /// The operator's address.
    Admin(SocketAddr, io::Error),
    /// Sockets of the service manager.
    Inherit(InheritError),
    /// The access log.
    AccessLog(AccessLogError),
    /// Threads, descriptors, random numbers.
    System(io::Error),
}

impl fmt::Display for GatewayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GatewayError::Listen(error) => error.fmt(f),
            GatewayError::Admin(address, error) if error.kind() == io::ErrorKind::AddrInUse => {
                write!(
                    f,
                    "{address}, for the operator, is in use by another process; stop it, or listen elsewhere"
                )
            }
            GatewayError::Admin(address, error) => {
                write!(f, "cannot listen on {address} for the operator: {error}")
            }
            GatewayError::Inherit(error) => error.fmt(f),
            GatewayError::AccessLog(error) => error.fmt(f),
            GatewayError::System(error) => write!(f, "the system refuses what is needed: {error}"),
        }
    }
}

impl std::error::Error for GatewayError {}

impl From<InheritError> for GatewayError {
    fn from(error: InheritError) -> GatewayError {
        GatewayError::Inherit(error)
    }
}

impl From<io::Error> for GatewayError {
    fn from(error: io::Error) -> GatewayError {
        GatewayError::System(error)
    }
}

/// What a gateway has done when it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Connections accepted.
    pub connections: u64,
    /// Sessions opened.
    pub sessions: u64,
    /// Requests admitted.
    pub requests: u64,
    /// Of these, answered with OK.
    pub ok: u64,
    /// Whether every connection was closed and every request answered.
    pub is_clean: bool,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { connections, sessions, requests, ok, is_clean } = self;
        let how = if *is_clean { "drained" } else { "stopped before everything had ended" };
        write!(
            f,
            "{how}: {connections} connections, {sessions} sessions, {requests} requests, {ok} of them OK"
        )
    }
}

/// What the operator's pages read.
struct State {
    cells: Vec<Arc<Cells>>,
    readiness: Vec<Arc<Readiness>>,
    services: Vec<String>,
    /// Names of the routes, by their ids.
    routes: Vec<String>,
    limits: limit::Shared,
    draining: AtomicBool,
    clock: Clock,
    /// Of every shard, then of every worker, as `cells`.
    pulses: Vec<Arc<Pulse>>,
    authority: Arc<Authority>,
    /// Set once the threads can be told something.
    directory: OnceLock<Arc<Directory>>,
}

impl State {
    fn totals(&self) -> Totals {
        Totals::of(self.cells.iter().map(Arc::as_ref))
    }

    /// Something that the directory knows.
    fn here(&self, what: impl FnOnce(&Directory) -> usize) -> u64 {
        self.directory.get().map_or(0, |directory| what(directory) as u64)
    }

    fn links(&self, service: usize) -> u64 {
        let id = service_id(service);
        self.readiness.iter().map(|worker| u64::from(worker.links(id))).sum()
    }
}

fn service_id(at: usize) -> ServiceId {
    ServiceId(u16::try_from(at).unwrap_or(u16::MAX))
}

impl Vitals for State {
    fn observe(&self) -> Observed {
        let totals = self.totals();
        let (accepted, closed) = (Count::ConnectionsAccepted, Count::ConnectionsClosed);
        Observed {
            is_live: self.is_live(),
            connections: totals.value(accepted).saturating_sub(totals.value(closed)),
            readiness: self.readiness(),
        }
    }
}

impl Pages for State {
    fn is_live(&self) -> bool {
        let now = self.clock.read().mono;
        self.pulses.iter().all(|pulse| pulse.age(now) < STUCK_AFTER)
    }

    fn readiness(&self) -> Result<(), String> {
        if self.draining.load(Ordering::Relaxed) {
            return Err("draining".to_owned());
        }
        // Each shard reaches the services by its own worker alone: one worker without a link is clients without a
        // service.
        let workers = self.readiness.len();
        for (at, name) in self.services.iter().enumerate() {
            let id = service_id(at);
            match self.readiness.iter().filter(|worker| worker.links(id) > 0).count() {
                0 => return Err(format!("service {name} has no ready link")),
                linked if linked < workers => {
                    return Err(format!("service {name} has a ready link at {linked} of {workers} workers"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn metrics(&self) -> String {
        let totals = self.totals();
        let between = |opened, closed| totals.value(opened).saturating_sub(totals.value(closed));
        let gauge =
            |metric, help, value| Sample { kind: Kind::Gauge, metric, label: String::new(), help, value };
        let answered: u64 = Code::ALL.iter().map(|code| totals.outcomes(*code)).sum();
        let mut gauges = vec![
            gauge(
                "moorgate_connections",
                "Connections now.",
                between(Count::ConnectionsAccepted, Count::ConnectionsClosed),
            ),
            gauge("moorgate_sessions", "Sessions now.", between(Count::SessionsOpened, Count::SessionsEnded)),
            gauge("moorgate_sessions_detached", "Sessions without a connection now.", detached(&totals)),
            gauge("moorgate_users", "Users with a session now.", self.here(Directory::users)),
            gauge("moorgate_groups", "Groups with members now.", self.here(Directory::groups)),
            gauge(
                "moorgate_requests_outstanding",
                "Requests admitted and not answered.",
                totals.value(Count::RequestsAdmitted).saturating_sub(answered),
            ),
        ];
        gauges.extend(self.services.iter().enumerate().map(|(at, name)| Sample {
            kind: Kind::Gauge,
            metric: "moorgate_service_links",
            label: format!("service=\"{name}\""),
            help: "Ready links to a service, over all workers.",
            value: self.links(at),
        }));
        gauges.extend(limits::samples(self));
        render(&totals, &gauges)
    }

    fn operate(&self, operation: Operation) -> Result<Outcome, OperateError> {
        self.carry_out(operation)
    }
}

/// A running gateway.
pub struct Gateway {
    state: Arc<State>,
    client_addresses: Vec<SocketAddr>,
    admin: Option<Admin>,
    access_log: Option<AccessLog>,
    shards: Vec<(Outbox<ShardCommand>, JoinHandle<()>)>,
    workers: Vec<(Outbox<WorkerCommand>, JoinHandle<()>)>,
    drain_timeout: std::time::Duration,
    /// One for all links, so that a service knows which of them lead to the same gateway.
    boot_id: u64,
}

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
    pub fn start_with(settings: Settings, mut inherited: Inherited) -> Result<Gateway, GatewayError> {
        let (shards, workers) = settings.threads();
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
        let state = Arc::new(State {
            cells: (0..shards)
                .map(|_| Arc::new(Cells::with_routes(settings.routes.len())))
                .chain((0..workers).map(|_| Arc::default()))
                .collect(),
            readiness: (0..workers).map(|_| Arc::new(Readiness::new(settings.services.len()))).collect(),
            services: settings.services.iter().map(|service| service.name.clone()).collect(),
            routes: limits::route_names(&settings),
            limits: limits::shared(&settings)?,
            draining: AtomicBool::new(false),
            clock: Clock::start(),
            pulses: (0..shards.saturating_add(workers)).map(|_| Arc::default()).collect(),
            authority: settings.authority.clone(),
            directory: OnceLock::new(),
        });
        let names = Names {
            services: state.services.clone(),
            endpoints: settings
                .services
                .iter()
                .flat_map(|service| service.endpoints.iter().map(|at| at.address))
                .collect(),
        };
        let access_log = AccessLog::start(&settings.access_log, names).map_err(GatewayError::AccessLog)?;
        let pages: Arc<dyn Pages> = state.clone();
        let admin = admin_socket.map(|socket| Admin::start(socket, pages)).transpose()?;
        let mut gateway = Gateway {
            state,
            client_addresses,
            admin,
            access_log,
            shards: Vec::new(),
            workers: Vec::new(),
            drain_timeout: settings.reactor.drain_timeout,
            boot_id: random_u64()?,
        };
        if let Err(error) = gateway.start_threads(&settings, listeners) {
            gateway.stop();
            gateway.join();
            return Err(error);
        }
        Ok(gateway)
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
            },
            hand_out,
            deliveries,
            receipts,
            addresses: per_address.map(|max| Arc::new(AddressTable::new(max))),
            cells: self.state.cells.clone(),
            resume_tokens: Arc::new(ResumeTokens::new(self.boot_id, &random_bytes()?)),
            directory: Arc::new(Directory::new(doors, watcher, settings.directory.clone())),
            pools: Arc::new(Pools::of(&settings.services)),
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
            let Some((forwards, _)) = forwards.get(worker) else { continue };
            let ends = ShardEnds { listeners, handed, deliveries, forwards: forwards.clone() };
            self.start_shard(&wiring, ShardId(id), poll_and_bell, ends)?;
        }
        let worker_ends = worker_polls.into_iter().zip(forwards).zip(receipted);
        for (id, ((poll_and_bell, (_, forwards)), receipts)) in (0u16..).zip(worker_ends) {
            self.start_worker(&wiring, WorkerId(id), poll_and_bell, (forwards, receipts))?;
        }
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
            poll,
            bell,
            clock: wiring.clock,
            listeners: ends.listeners,
            accepts_per_turn: settings.reactor.accepts_per_turn,
            accepts: settings.reactor.accepts,
            options: wiring.options,
            forwards: ends.forwards,
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
        let thread =
            std::thread::Builder::new().name(format!("shard-{}", id.0)).spawn(move || shard_loop.run())?;
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
            poll,
            bell,
            clock: wiring.clock,
            options: wiring.options,
            forwards,
            deliveries: wiring.deliveries.clone(),
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
        let thread = thread.spawn(move || WorkerLoop::new(parts).run())?;
        self.workers.push((commands, thread));
        Ok(())
    }

    /// Where clients connect, in the order of the configuration.
    pub fn client_addresses(&self) -> &[SocketAddr] {
        &self.client_addresses
    }

    /// Where the operator's pages are.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    /// Whether every worker has a ready link to every service; if not, which service lacks one.
    ///
    /// # Errors
    /// The reason, for people.
    pub fn readiness(&self) -> Result<(), String> {
        self.state.readiness()
    }

    /// What the service manager is told about.
    pub fn vitals(&self) -> Arc<dyn Vitals> {
        self.state.clone()
    }

    /// The metrics page.
    pub fn metrics(&self) -> String {
        self.state.metrics()
    }

    /// Who is banned, to be looked at and changed by hand.
    pub fn bans(&self) -> &Bans {
        &self.state.limits.bans
    }

    /// The time of [`Gateway::bans`].
    pub fn now(&self) -> Mono {
        self.state.clock.read().mono
    }

    /// The counters of all threads.
    pub fn totals(&self) -> Totals {
        self.state.totals()
    }

    /// Begins the drain: accepts no more, tells the clients, serves what comes until the deadline.
    pub fn drain(&self) {
        self.state.draining.store(true, Ordering::Relaxed);
        for (outbox, _) in &self.shards {
            send(outbox, ShardCommand::Drain(self.drain_timeout));
        }
    }

    /// Ends every shard at once.
    pub fn stop(&self) {
        for (outbox, _) in &self.shards {
            send(outbox, ShardCommand::Stop);
        }
    }

    /// Whether every shard has ended.
    pub fn has_ended(&self) -> bool {
        self.shards.iter().all(|(_, thread)| thread.is_finished())
    }

    /// Waits for the shards to end, then ends everything else.
    pub fn join(mut self) -> Summary {
        let mut is_clean = true;
        for (_, thread) in self.shards.drain(..) {
            is_clean &= thread.join().is_ok();
        }
        for (outbox, _) in &self.workers {
            send(outbox, WorkerCommand::Stop);
        }
        is_clean = self
            .workers
            .drain(..)
            .map(|(_, thread)| thread.join().is_ok())
            .fold(is_clean, |all, one| all && one);
        if let Some(log) = self.access_log.take() {
            log.finish();
        }
        if let Some(admin) = self.admin.take() {
            admin.stop();
        }
        let totals = self.state.totals();
        let answered: u64 = Code::ALL.iter().map(|code| totals.outcomes(*code)).sum();
        is_clean &= totals.value(Count::ConnectionsAccepted) == totals.value(Count::ConnectionsClosed);
        is_clean &= totals.value(Count::RequestsAdmitted) == answered;
        Summary {
            connections: totals.value(Count::ConnectionsAccepted),
            sessions: totals.value(Count::SessionsOpened),
            requests: totals.value(Count::RequestsAdmitted),
            ok: totals.outcomes(Code::Ok),
            is_clean,
        }
    }
}

struct ShardEnds {
    listeners: Vec<Listener>,
    handed: Inbox<Handed>,
    deliveries: Inbox<DeliveryBatch>,
    forwards: Outbox<ForwardBatch>,
}

/// Sessions that have lost their connection, were not resumed, and have not ended.
fn detached(totals: &Totals) -> u64 {
    let resumed = totals.value(Count::SessionsResumed).saturating_sub(totals.value(Count::TakeOvers));
    let ended = [Count::DetachedExpired, Count::DetachedEvicted, Count::DetachedEnded];
    let gone = ended.into_iter().map(|count| totals.value(count)).fold(resumed, u64::saturating_add);
    totals.value(Count::SessionsDetached).saturating_sub(gone)
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

fn send<T>(outbox: &Outbox<T>, command: T) {
    // A full mailbox of commands means that the thread has plenty of them, or is gone.
    if outbox.post(command).is_ok() {
        outbox.ring();
    }
}

fn random_u64() -> io::Result<u64> {
    random_bytes().map(u64::from_ne_bytes)
}

fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("no random numbers"))?;
    Ok(bytes)
}
