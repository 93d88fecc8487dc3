//! Puts the parts of the discovery together and starts their threads.

use super::dns::{self, Names};
use super::event::{EVENTS_MAX, Events};
use super::file::{self, Watched};
use super::hub::{AllTracked, Hub, Tracked};
use super::prober::Prober;
use super::state::{Keeper, State};
use super::threads::Running;
use super::{Discovery, DnsQuery, ServiceSources, Settings, watches};
use crate::base::clock::Clock;
use crate::base::rng::Rng;
use crate::routing::{Catalog, CatalogSettings, Instance, Pools, Source};
use crossbeam_channel::bounded;
use moorgate_proto::time::Mono;
use moorgate_registry::{ConsulWatch, NacosWatch, Stop, Watch};
use parking_lot::Mutex;
use ring::rand::{SecureRandom, SystemRandom};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;

/// Services in one registry. Each holds a connection, and a Consul agent takes 200 of one client; some are left for
/// registration and for people.
const WATCHES_MAX: usize = 190;

/// Why discovery does not start.
#[derive(Debug)]
pub enum DiscoveryError {
    /// A service is to be found in a registry that is not configured.
    NoRegistry {
        /// The service.
        service: String,
        /// The table that is missing.
        registry: Source,
    },
    /// More services in one registry than it takes connections.
    TooMany {
        /// Which.
        registry: Source,
        /// Services.
        services: usize,
    },
    /// What DNS is to be asked for is no name.
    Name {
        /// The service.
        service: String,
        /// What is wrong.
        why: String,
    },
    /// Threads, descriptors, random numbers.
    System(io::Error),
}

impl fmt::Display for DiscoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiscoveryError::NoRegistry { service, registry } => write!(
                f,
                "service {service} is to be found in {registry}, and there is no [{registry}]; add one"
            ),
            DiscoveryError::TooMany { registry, services } => write!(
                f,
                "{services} services are to be found in {registry}, and {WATCHES_MAX} can be: each holds a \
                 connection, and an agent takes 200; name the others in a file or in DNS"
            ),
            DiscoveryError::Name { service, why } => write!(f, "service {service}: {why}"),
            DiscoveryError::System(error) => {
                write!(f, "the system refuses what discovery needs: {error}")
            }
        }
    }
}

impl std::error::Error for DiscoveryError {}

impl From<io::Error> for DiscoveryError {
    fn from(error: io::Error) -> DiscoveryError {
        DiscoveryError::System(error)
    }
}

/// Everything that has a thread to be.
struct Parts {
    tracked: Vec<Tracked>,
    watches: Vec<(usize, Source, Box<dyn Watch>)>,
    names: Vec<Names>,
    files: Vec<Watched>,
}

pub(super) fn start(
    settings: Settings,
    pools: Arc<Pools>,
    clock: Clock,
    bell: Box<dyn Fn() + Send>,
) -> Result<Discovery, DiscoveryError> {
    check(&settings)?;
    let Parts { tracked, watches, names, files } = parts(&settings, clock)?;
    let tracked: AllTracked = Arc::new(Mutex::new(tracked));
    let (events, received) = bounded(EVENTS_MAX);
    let (rounds, asked) = bounded(1);
    let prober = Prober::new(settings.probe.timeout, clock, events.clone())?;
    let mut hub = Hub {
        tracked: tracked.clone(),
        pools,
        clock,
        bell,
        rounds,
        interval: settings.probe.interval,
        keeper: settings.state_file.map(Keeper::start).transpose()?,
        rng: Rng::new(random_u64()?),
        due: HashMap::new(),
        is_probing: false,
        has_news: false,
        kept: Mono::ZERO,
    };
    hub.turn();
    let mut threads = Threads { stop: Stop::new(), running: Running::default(), events };
    let started = (|| {
        threads.running.add("discovery", &threads.stop, move |stop| hub.run(stop, &received))?;
        threads.add("prober", move |_, _| prober.run(&asked))?;
        if !files.is_empty() {
            threads.add("files", move |stop, events| file::run(files, stop, events))?;
        }
        for names in names {
            threads.add("dns", move |stop, events| names.run(stop, events))?;
        }
        for (at, source, watch) in watches {
            threads.add(source.name(), move |stop, events| watches::run(at, source, watch, stop, events))?;
        }
        io::Result::Ok(())
    })();
    // The hub ends when everybody who can tell it something has ended.
    let Threads { stop, running, events } = threads;
    drop(events);
    let discovery = Discovery { stop, clock, tracked, running };
    match started {
        Ok(()) => Ok(discovery),
        Err(error) => {
            discovery.stop();
            Err(error.into())
        }
    }
}

fn check(settings: &Settings) -> Result<(), DiscoveryError> {
    let in_registry =
        [(Source::Consul, settings.consul.is_some()), (Source::Nacos, settings.nacos.is_some())];
    for (registry, is_configured) in in_registry {
        let uses = |service: &&ServiceSources| match registry {
            Source::Consul => service.consul.is_some(),
            _ => service.nacos.is_some(),
        };
        let mut users = settings.services.iter().filter(uses);
        let services = users.clone().count();
        if services > WATCHES_MAX {
            return Err(DiscoveryError::TooMany { registry, services });
        }
        if let (false, Some(service)) = (is_configured, users.next()) {
            return Err(DiscoveryError::NoRegistry { service: service.name.clone(), registry });
        }
    }
    Ok(())
}

fn parts(settings: &Settings, clock: Clock) -> Result<Parts, DiscoveryError> {
    let state = settings.state_file.as_deref().map(State::load);
    let mut parts = Parts { tracked: Vec::new(), watches: Vec::new(), names: Vec::new(), files: Vec::new() };
    let in_dns = settings.services.iter().filter(|service| service.dns.is_some()).count();
    for _ in 0..in_dns.min(dns::THREADS_MAX) {
        parts.names.push(Names::new(settings.dns.clone(), clock, random_u64()?));
    }
    let mut thread = 0usize;
    for (at, service) in settings.services.iter().enumerate() {
        parts.tracked.push(track(settings, service, state.as_ref(), clock));
        if let Some(path) = &service.file {
            parts.files.push(Watched::new(at, path.clone()));
        }
        if let Some(query) = &service.dns
            && let Some(names) = parts.names.get_mut(thread % dns::THREADS_MAX)
        {
            thread = thread.wrapping_add(1);
            let named = names.add(at, query);
            named.map_err(|why| DiscoveryError::Name { service: service.name.clone(), why })?;
        }
        if let (Some(query), Some(consul)) = (&service.consul, &settings.consul) {
            parts.watches.push((at, Source::Consul, Box::new(ConsulWatch::new(consul, query.clone()))));
        }
        if let (Some(query), Some(nacos)) = (&service.nacos, &settings.nacos) {
            parts.watches.push((at, Source::Nacos, Box::new(NacosWatch::new(nacos, query.clone()))));
        }
    }
    Ok(parts)
}

/// A service's catalog, with what is known before anybody has been asked.
fn track(settings: &Settings, service: &ServiceSources, state: Option<&State>, clock: Clock) -> Tracked {
    let asked = asked(service);
    let mut sources: Vec<Source> = asked.iter().map(|(source, _)| *source).collect();
    if !service.fixed.is_empty() {
        sources.push(Source::Fixed);
    }
    let of = CatalogSettings {
        confirm: settings.confirm,
        fall: settings.probe.fall.max(1),
        rise: settings.probe.rise.max(1),
    };
    let mut catalog = Catalog::new(of, sources.into_iter().collect());
    if !service.fixed.is_empty() {
        catalog.answer(clock.read(), Source::Fixed, Ok(service.fixed.clone()));
    }
    for (source, asked) in &asked {
        let kept = state.into_iter().flat_map(|state| &state.lists);
        if let Some(kept) = kept.into_iter().find(|kept| kept.is_of(&service.name, *source, asked)) {
            let list = kept.endpoints.iter().map(Instance::from).collect();
            catalog.recall(*source, list, kept.heard_unix_ms);
        }
    }
    Tracked { service: service.service, name: service.name.clone(), catalog, asked, due: Mono::ZERO }
}

/// What each source of a service is asked for, in one line: an answer to another question is of no use.
fn asked(service: &ServiceSources) -> Vec<(Source, String)> {
    let mut asked = Vec::new();
    if let Some(path) = &service.file {
        asked.push((Source::File, path.display().to_string()));
    }
    if let Some(query) = &service.dns {
        asked.push((
            Source::Dns,
            match query {
                DnsQuery::Host { name, port } => format!("{name}:{port}"),
                DnsQuery::Srv { name } => name.clone(),
            },
        ));
    }
    if let Some(query) = &service.consul {
        let moorgate_registry::ConsulQuery { name, tags, filter, datacenter, .. } = query;
        asked.push((
            Source::Consul,
            format!("{name} tags={} filter={filter} in={datacenter}", tags.join(",")),
        ));
    }
    if let Some(query) = &service.nacos {
        let moorgate_registry::NacosQuery { name, group, namespace, clusters, .. } = query;
        let clusters = clusters.join(",");
        asked.push((Source::Nacos, format!("{name} group={group} in={namespace} clusters={clusters}")));
    }
    asked
}

/// The threads that run, and what each of them is given.
struct Threads {
    stop: Stop,
    running: Running,
    events: Events,
}

impl Threads {
    fn add(&mut self, name: &str, run: impl FnOnce(&Stop, &Events) + Send + 'static) -> io::Result<()> {
        let events = self.events.clone();
        self.running.add(name, &self.stop, move |stop| run(stop, &events))
    }
}

fn random_u64() -> io::Result<u64> {
    let mut bytes = [0; 8];
    let drawn = SystemRandom::new().fill(&mut bytes);
    drawn.map_err(|_| io::Error::other("the system gives no random numbers"))?;
    Ok(u64::from_ne_bytes(bytes))
}
