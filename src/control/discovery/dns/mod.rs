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
use resolver::{DnsError, Resolver, system_servers};
use std::path::Path;

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
}

struct Named {
    /// Of the hub's services.
    at: usize,
    name: String,
    /// It was told that a part of its list is as it was before.
    is_stale: bool,
    lookup: Lookup,
    due: Mono,
}

impl Names {
    pub(super) fn new(settings: DnsSettings, clock: Clock, seed: u64) -> Names {
        Names { settings, clock, rng: Rng::new(seed), names: Vec::new() }
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
        self.names.push(Named { at, name: name.clone(), is_stale: false, lookup, due: Mono::ZERO });
        Ok(())
    }

    pub(super) fn run(mut self, stop: &Stop, events: &Events) {
        loop {
            let Some(next) = self.names.iter_mut().min_by_key(|named| named.due) else { return };
            if stop.wait(next.due.since(self.clock.read().mono)) {
                return;
            }
            let servers = match self.settings.servers.as_slice() {
                [] => system_servers(Path::new(RESOLV_CONF)),
                servers => servers.to_vec(),
            };
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
            if let Ok(found) = &found {
                next.tell(found.stale.as_ref());
            }
            let answer = found.map(|found| found.list).map_err(|error| error.to_string());
            if events.send(Event::Answer(next.at, Source::Dns, answer)).is_err() {
                return;
            }
        }
    }
}

impl Named {
    /// Tells once that one family of addresses fails, and once that it is had again.
    fn tell(&mut self, stale: Option<&DnsError>) {
        let name = &self.name;
        match (stale, std::mem::replace(&mut self.is_stale, stale.is_some())) {
            (Some(error), false) => log::warn!(
                "{name}: one family of addresses cannot be had, and those that were known of it stay: {error}"
            ),
            (None, true) => log::info!("{name}: both families of addresses are had again"),
            _ => {}
        }
    }
}
