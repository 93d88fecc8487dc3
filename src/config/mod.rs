//! From a TOML file to valid settings; every error says where, which key, and what would be right.

mod dev;
mod devices;
mod discovery;
mod file;
mod identity;
mod limits;
mod listeners;
mod pool;
mod register;
mod report;
mod secrets;
mod section;
mod services;
mod text;
mod validate;

pub use dev::{DevOptions, DevServices, dev};
pub use file::{load, parse};
pub use register::RegisterSettings;
pub use report::ConfigError;

use crate::auth::Authority;
use crate::base::ids::ServiceId;
use crate::control::discovery::Settings as Discovery;
use crate::limit::{self, BanSettings};
use crate::reactor::{self, ListenAt};
use crate::routing::{RouteTable, ServiceSettings};
use crate::telemetry::AccessTarget;
use crate::{directory, forward, session, shard};
use std::net::SocketAddr;
use std::sync::Arc;

/// Everything that a gateway is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Threads and sockets.
    pub reactor: reactor::Settings,
    /// Each shard.
    pub shard: shard::Settings,
    /// Each session.
    pub session: session::Settings,
    /// Users' devices and sessions.
    pub directory: directory::Settings,
    /// Each worker.
    pub forward: forward::Settings,
    /// Rates, and requests outstanding.
    pub limits: limit::Settings,
    /// Who is shut out for a time.
    pub bans: BanSettings,
    /// Who is let in.
    pub authority: Arc<Authority>,
    /// Who owns which command.
    pub routes: Arc<RouteTable>,
    /// The services, by their ids.
    pub services: Vec<ServiceSettings>,
    /// Where their endpoints come from, and how that is asked.
    pub discovery: Discovery,
    /// Where the gateway lists itself; `None`: nowhere.
    pub register: Option<RegisterSettings>,
    /// Which of them confirms new sessions.
    pub check_service: Option<ServiceId>,
    /// Where the operator's pages are.
    pub admin: Option<ListenAt>,
    /// Names of this gateway that operators may ask for, besides its addresses.
    pub admin_hosts: Vec<String>,
    /// The access log.
    pub access_log: AccessTarget,
    /// Diagnostics.
    pub log_level: log::LevelFilter,
    /// What is allowed in the file and may be a mistake.
    pub warnings: Vec<String>,
}

/// Room for fewer clients is small, when the configuration does not say how many there will be.
const CONNECTIONS_EXPECTED: usize = 10_000;

impl Settings {
    /// What works and may be a mistake, for people; `descriptors`: how many this process may have, `admin`: where it listens
    /// for operators, as far as it is known.
    pub fn all_warnings(&self, descriptors: Option<usize>, admin: Option<SocketAddr>) -> Vec<String> {
        let mut warnings = self.warnings.clone();
        if let Some(address) = admin.filter(|address| !address.ip().is_loopback()) {
            warnings.push(format!(
                "admin.address: {address} is not on loopback: whoever reaches it can end sessions, without a password; \
                 write 127.0.0.1, or let only operators reach it"
            ));
        }
        let (shards, workers) = self.threads();
        if self.reactor.workers > workers {
            warnings.push(format!(
                "gateway.workers: {} workers are more than the {shards} of gateway.shards, and a worker needs a shard; \
                 {workers} will run; write {workers}, 0 for one for two shards, or more shards",
                self.reactor.workers
            ));
        }
        let (shards, per_shard) = (usize::from(shards), self.shard.connections_max);
        let is_default = per_shard == shard::Settings::default().connections_max;
        let expected = if is_default { CONNECTIONS_EXPECTED } else { per_shard.saturating_mul(shards) };
        if let Some(descriptors) = descriptors.filter(|descriptors| *descriptors < expected) {
            let whose = if is_default { "a gateway usually has" } else { "limits.connections allows" };
            warnings.push(format!(
                "limits.connections: this process may have {descriptors} descriptors (RLIMIT_NOFILE), and {whose} \
                 {expected} connections; raise the limit: LimitNOFILE= in a unit, ulimit -n in a shell"
            ));
        }
        warnings
    }

    /// Shards and workers, with their defaults for this machine.
    pub fn threads(&self) -> (u16, u16) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shards = match self.reactor.shards {
            0 => u16::try_from(cores).map_or(validate::THREADS_MAX, |cores| cores.min(validate::THREADS_MAX)),
            shards => shards,
        };
        let workers = match self.reactor.workers {
            0 => shards.div_ceil(2),
            workers => workers.min(shards),
        };
        (shards, workers)
    }
}
