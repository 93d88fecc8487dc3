//! Endpoints from DNS: A and AAAA records of a host, or SRV records of a service, looked up again when they expire.
//!
//! | module | what it is for |
//! | --- | --- |
//! | `message` | questions and answers; pure |
//! | `resolver` | asks servers |
//! | `hosts` | the addresses of hosts, both families side by side |
//! | `lookup` | from a name to a list, and when to look again |

mod hosts;
mod lookup;
mod message;
mod resolver;

use super::event::{Event, Events};
use super::{DnsQuery, DnsSettings};
use crate::base::clock::Clock;
use crate::base::rng::Rng;
use crate::routing::{Instance, Source};
use lookup::Lookup;
use moorgate_proto::time::Mono;
use moorgate_registry::Stop;
use parking_lot::Mutex;
use resolver::{Resolver, SystemServers, system_servers};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

/// Threads that look names up: a slow server holds up those of one thread alone.
pub(super) const THREADS_MAX: usize = 8;
/// A look takes no longer than this many times what one server has for one question.
const LOOK_TIMEOUTS: u32 = 4;
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The names of one thread.
pub(super) struct Names {
    settings: DnsSettings,
    clock: Clock,
    rng: Rng,
    names: Vec<Named>,
    /// Lines of the system's configuration that are no servers, as the log has them; one for all threads.
    rejected: Arc<Mutex<Vec<String>>>,
}

struct Named {
    /// Of the hub's services.
    at: usize,
    lookup: Lookup,
    due: Mono,
}

impl Names {
    /// `rejected` is shared by all threads.
    pub(super) fn new(
        settings: DnsSettings,
        clock: Clock,
        seed: u64,
        rejected: Arc<Mutex<Vec<String>>>,
    ) -> Names {
        Names { settings, clock, rng: Rng::new(seed), names: Vec::new(), rejected }
    }

    fn servers(&self) -> Vec<SocketAddr> {
        if !self.settings.servers.is_empty() {
            return self.settings.servers.clone();
        }
        let SystemServers { servers, rejected } = system_servers(Path::new(RESOLV_CONF));
        let mut told = self.rejected.lock();
        if *told != rejected && !rejected.is_empty() {
            let lines = rejected.join("; ");
            log::warn!(
                "{RESOLV_CONF}: rejected lines: {}; the other servers are used: {lines}",
                rejected.len()
            );
        }
        *told = rejected;
        servers
    }

    /// `last` is the list of an earlier process.
    ///
    /// # Errors
    /// The name is none; the text says which.
    pub(super) fn add(&mut self, at: usize, query: &DnsQuery, last: &[Instance]) -> Result<(), String> {
        let (DnsQuery::Host { name, .. } | DnsQuery::Srv { name }) = query;
        let mut lookup = Lookup::new(query, &self.settings)
            .map_err(|error| format!("`{}` is no name for DNS: {error}", name.escape_debug()))?;
        lookup.recall(last);
        self.names.push(Named { at, lookup, due: Mono::ZERO });
        Ok(())
    }

    pub(super) fn run(mut self, stop: &Stop, events: &Events) {
        loop {
            let Some(due) = self.names.iter().map(|named| named.due).min() else { return };
            if stop.wait(due.since(self.clock.read().mono)) {
                return;
            }
            let servers = self.servers();
            let Some(next) = self.names.iter_mut().min_by_key(|named| named.due) else { return };
            let (timeout, clock) = (self.settings.timeout, self.clock);
            let until = clock.read().mono + timeout * LOOK_TIMEOUTS;
            let silent = Mutex::default();
            let resolver = Resolver { servers: &servers, timeout, clock, stop, until, silent };
            let found = next.lookup.look(&resolver);
            if stop.is_set() {
                return;
            }
            let [spread, ..] = self.rng.next_u64().to_le_bytes();
            let ttl = found.as_ref().ok().map(|found| found.ttl);
            next.due = self.clock.read().mono + next.lookup.pause(ttl, spread);
            let answer = found.map(|found| found.list).map_err(|error| error.to_string());
            if events.send(Event::Answer(next.at, Source::Dns, answer)).is_err() {
                return;
            }
        }
    }
}
