//! Assembles the parts, starts the threads, drains them, joins them.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`prepare`] | everything that can be wrong before a socket is bound: what `moorgate check` does |
//! | [`start`] | binds, starts the threads, and joins them with mailboxes |
//! | [`state`] | what the operator's pages read |
//! | [`limits`] | the limits that all shards share |
//! | [`operate`] | what the operator asks for, done |
//! | [`endpoints`] | the endpoints, as the operator's pages show them |
//! | [`samples`] | the metrics of endpoints and of their sources |
//! | [`register`] | lists the gateway itself in registries |
//! | [`explain`] | why a call would go where it would go |

mod descriptors;
mod endpoints;
mod explain;
mod limits;
mod operate;
mod prepare;
mod register;
mod samples;
mod start;
mod state;

use crate::admin::{Admin, Pages};
use crate::base::counters::{Count, Totals};
use crate::control::discovery::DiscoveryError;
use crate::control::{InheritError, Vitals};
use crate::limit::Bans;
use crate::reactor::{BindError, ListenAt, Outbox, ShardCommand, WorkerCommand};
use crate::telemetry::{AccessLog, AccessLogError};
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
pub use prepare::Prepared;
use register::Listing;
use ring::rand::{SecureRandom, SystemRandom};
use state::State;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

/// Why the gateway does not start.
#[derive(Debug)]
pub enum GatewayError {
    /// An address for clients.
    Listen(BindError),
    /// The operator's address is one for clients too.
    Collision {
        /// The operator's.
        admin: ListenAt,
        /// The clients'.
        clients: ListenAt,
    },
    /// The operator's address.
    Admin(SocketAddr, io::Error),
    /// Sockets of the service manager.
    Inherit(InheritError),
    /// The access log.
    AccessLog(AccessLogError),
    /// The sources of endpoints.
    Discovery(DiscoveryError),
    /// An endpoint of a service is where the gateway itself listens.
    OwnListener {
        /// The service.
        service: String,
        /// Its endpoint.
        endpoint: SocketAddr,
        /// Where the gateway listens.
        listener: SocketAddr,
    },
    /// Threads, descriptors, random numbers.
    System(io::Error),
}

impl fmt::Display for GatewayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GatewayError::Listen(error) => error.fmt(f),
            GatewayError::Collision { admin, clients } => write!(
                f,
                "{admin}, for the operator, collides with {clients}, for clients; choose another port (admin.address or \
                 --admin-listen; listener.address or --listen)"
            ),
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
            GatewayError::AccessLog(error) => write!(f, "access log: {error}"),
            GatewayError::Discovery(error) => error.fmt(f),
            GatewayError::OwnListener { service, endpoint, listener } => write!(
                f,
                "service {service}: its endpoint {endpoint} is {listener}, where this gateway itself listens; write the \
                 address of the service"
            ),
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

/// A running gateway.
pub struct Gateway {
    state: Arc<State>,
    client_addresses: Vec<SocketAddr>,
    admin: Option<Admin>,
    listing: Option<Listing>,
    access_log: Option<AccessLog>,
    shards: Vec<(Outbox<ShardCommand>, JoinHandle<()>)>,
    workers: Vec<(Outbox<WorkerCommand>, JoinHandle<()>)>,
    drain_timeout: std::time::Duration,
    /// One for all links, so that a service knows which of them lead to the same gateway.
    boot_id: u64,
}

impl Gateway {
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

    /// Opens the access log again, by its name.
    pub fn reopen_logs(&self) {
        match &self.access_log {
            Some(log) => log.reopen(),
            None => log::info!("there is no access log to reopen"),
        }
    }

    /// Is not ready from now on and leaves the registries, so that clients are sent elsewhere; accepts and serves as
    /// before.
    pub fn withdraw(&self) {
        // First of all: a registry may take its time to answer.
        self.state.draining.store(true, Ordering::Relaxed);
        if let Some(listing) = &self.listing {
            listing.end();
        }
    }

    /// Begins the drain: withdraws, refuses what waits to be accepted, sends GoAway, serves requests until the deadline.
    pub fn drain(&self) {
        self.withdraw();
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
        if let Some(listing) = self.listing.take() {
            listing.end();
        }
        for (_, thread) in self.shards.drain(..) {
            is_clean &= thread.join().is_ok();
        }
        // Nobody is left to be told.
        let discovery = self.state.discovery.lock().take();
        if let Some(discovery) = discovery {
            discovery.stop();
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
