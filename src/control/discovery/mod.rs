//! Finds the endpoints of the services, and publishes them to the workers.
//!
//! | module | what it is for |
//! | --- | --- |
//! | `settings` | what a deployment chooses |
//! | `hub` | the thread with one [`Catalog`] for each service: it decides what is published |
//! | `event` | what the other threads tell it |
//! | `watches` | Consul and Nacos, a thread for each service in one of them |
//! | `dns` | A, AAAA and SRV records, looked up when they expire |
//! | `file` | files with one endpoint a line |
//! | `own` | the gateway's own listeners, which are no endpoints |
//! | `prober` | TCP connections to endpoints that have no link |
//! | `threads` | the threads themselves, and which of them have ended before their time |
//! | `state` | the last lists, on disk, for a start while a registry is down |
//!
//! Sources tell the hub lists or errors; the [`Catalog`] decides, and no source empties a pool. Everything here blocks
//! and waits; nothing of it is on the way of a request.

mod dns;
mod event;
mod file;
mod hub;
mod own;
mod prober;
mod settings;
mod start;
mod state;
mod threads;
mod watches;

pub use file::read_endpoints;
pub use own::own_listener;
pub use settings::{DnsQuery, DnsSettings, ProbeSettings, ServiceSources, Settings};
pub use start::{DiscoveryError, PreparedDiscovery};
pub use state::check_state_file;

use crate::base::clock::Clock;
use crate::base::ids::ServiceId;
use crate::routing::{Catalog, CatalogReport};
use hub::AllTracked;
use moorgate_registry::Stop;
use std::time::Duration;
use threads::Running;

/// For the threads to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// How the endpoints of one service stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceReport {
    /// Which service.
    pub service: ServiceId,
    /// Its name.
    pub name: String,
    /// What each source says, and what is published.
    pub catalog: CatalogReport,
}

/// Finds endpoints for as long as it lives.
pub struct Discovery {
    stop: Stop,
    clock: Clock,
    tracked: AllTracked,
    running: Running,
}

impl std::fmt::Debug for Discovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Discovery").field("running", &self.running).finish_non_exhaustive()
    }
}

impl Discovery {
    /// Checks everything that can be wrong, and makes everything but threads.
    ///
    /// # Errors
    /// [`DiscoveryError`].
    pub fn prepare(settings: Settings, clock: Clock) -> Result<PreparedDiscovery, DiscoveryError> {
        start::prepare(settings, clock)
    }

    /// How it all stands, now.
    pub fn report(&self) -> Vec<ServiceReport> {
        let now = self.clock.read();
        let tracked = self.tracked.lock();
        let reports = tracked.iter().map(|tracked| ServiceReport {
            service: tracked.service,
            name: tracked.name.clone(),
            catalog: Catalog::report(&tracked.catalog, now),
        });
        reports.collect()
    }

    /// The threads that have ended before their time, by name. Each was told in the log; what it did, nobody does any more.
    pub fn failed(&self) -> Vec<String> {
        self.running.failed()
    }

    /// Ends: the last lists are on disk, and no list is published any more. Waits at most five seconds for a disk or a name
    /// server.
    pub fn stop(self) {
        self.stop.set();
        // They were told when they failed.
        let _ = self.running.join(END_TIMEOUT);
    }
}
