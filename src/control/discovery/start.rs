//! Puts the parts of the discovery together and starts their threads.

use super::dns::{self, Names};
use super::event::{EVENTS_MAX, Events};
use super::file::{self, Watched};
use super::hub::{AllTracked, Asked, Hub, Tracked};
use super::prober::Prober;
use super::state::{Keeper, State, check_state_file};
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
use std::net::SocketAddr;
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
    /// The state file would replace what is not ours.
    StateFile(io::Error),
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
            DiscoveryError::StateFile(error) => write!(f, "discovery.state_file: {error}"),
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

/// A discovery that is checked and can be started; only the system can still refuse.
pub struct PreparedDiscovery {
    settings: Settings,
    parts: Parts,
    clock: Clock,
}

pub(super) fn prepare(settings: Settings, clock: Clock) -> Result<PreparedDiscovery, DiscoveryError> {
    check(&settings)?;
    settings.state_file.as_deref().map_or(Ok(()), check_state_file).map_err(DiscoveryError::StateFile)?;
    let parts = parts(&settings, clock)?;
    Ok(PreparedDiscovery { settings, parts, clock })
}

impl PreparedDiscovery {
    /// Begins: the endpoints that the configuration names and those of the state file are published before this returns.
    /// `own` are the gateway's listeners: sources that list them are not obeyed. `bell` is rung, on a thread of its own,
    /// after each publication.
    ///
    /// # Errors
    /// [`DiscoveryError`], of the system; nothing is left running.
    pub fn start(
        self,
        pools: Arc<Pools>,
        own: Vec<SocketAddr>,
        bell: impl Fn() + Send + 'static,
    ) -> Result<Discovery, DiscoveryError> {
        start(self, pools, own, Box::new(bell))
    }
}

fn start(
    prepared: PreparedDiscovery,
    pools: Arc<Pools>,
    own: Vec<SocketAddr>,
    bell: Box<dyn Fn() + Send>,
) -> Result<Discovery, DiscoveryError> {
    let PreparedDiscovery { settings, parts: Parts { tracked, watches, names, files }, clock } = prepared;
    let tracked: AllTracked = Arc::new(Mutex::new(tracked));
    let (events, received) = bounded(EVENTS_MAX);
    let (rounds, asked) = bounded(1);
    let prober = Prober::new(settings.probe.timeout, clock, events.clone())?;
    let (stop, mut running) = (Stop::new(), Running::default());
    let keeper = settings.state_file.map(|path| Keeper::start(path, &mut running, &stop)).transpose()?;
    let mut hub = Hub {
        tracked: tracked.clone(),
        pools,
        own: own.clone(),
        clock,
        bell,
        rounds,
        interval: settings.probe.interval,
        keeper,
        rng: Rng::new(random_u64()?),
        due: HashMap::new(),
        is_probing: false,
        has_news: false,
        kept: Mono::ZERO,
    };
    hub.turn();
    let mut threads = Threads { stop, running, events };
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
            let followed = watches::Followed { at, source, watch, own: own.clone() };
            threads.add(source.name(), move |stop, events| followed.run(stop, events))?;
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
    let rejected = Arc::default();
    for _ in 0..in_dns.min(dns::THREADS_MAX) {
        let names = Names::new(settings.dns.clone(), clock, random_u64()?, Arc::clone(&rejected));
        parts.names.push(names);
    }
    let mut thread = 0usize;
    for (at, service) in settings.services.iter().enumerate() {
        let tracked = track(settings, service, state.as_ref(), clock);
        let recalled = tracked.catalog.to_keep();
        parts.tracked.push(tracked);
        if let Some(path) = &service.file {
            parts.files.push(Watched::new(at, path.clone()));
        }
        if let Some(query) = &service.dns
            && let Some(names) = parts.names.get_mut(thread % dns::THREADS_MAX)
        {
            thread = thread.wrapping_add(1);
            let last = recalled.iter().find(|(source, ..)| *source == Source::Dns);
            let named = names.add(at, query, last.map_or(&[], |(.., list)| list));
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
    let asked = asked(settings, service);
    let mut sources: Vec<Source> = asked.iter().map(|asked| asked.source).collect();
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
        catalog.answer(clock.read(), Source::Fixed, Ok(service.fixed.clone().into()));
    }
    for Asked { source, key, .. } in &asked {
        let kept = state.into_iter().flat_map(|state| &state.lists);
        if let Some(kept) = kept.into_iter().find(|kept| kept.is_of(&service.name, *source, key)) {
            let list = kept.endpoints.iter().map(Instance::from).collect();
            catalog.recall(*source, list, kept.heard_unix_ms);
        }
    }
    Tracked {
        service: service.service,
        name: service.name.clone(),
        catalog,
        asked,
        due: Mono::ZERO,
        settled: Mono::ZERO,
    }
}

/// What each source of a service is asked for, and of whom: an answer to another question, or of another registry, is of
/// no use.
fn asked(settings: &Settings, service: &ServiceSources) -> Vec<Asked> {
    let mut asked = Vec::new();
    if let Some(path) = &service.file {
        let name = path.display().to_string();
        asked.push(Asked { source: Source::File, key: name.clone(), name });
    }
    if let Some(query) = &service.dns {
        let what = match query {
            DnsQuery::Host { name, port } => format!("{name}:{port}"),
            DnsQuery::Srv { name } => name.clone(),
        };
        let key = format!("{what} at={}", together(&settings.dns.servers));
        asked.push(Asked { source: Source::Dns, name: what, key });
    }
    if let Some(query) = &service.consul {
        let moorgate_registry::ConsulQuery { name, tags, filter, datacenter, .. } = query;
        let consul = settings.consul.clone().unwrap_or_default();
        let datacenter = if datacenter.is_empty() { &consul.datacenter } else { datacenter };
        let (tags, at) = (tags.join(","), &consul.address);
        asked.push(Asked {
            source: Source::Consul,
            name: narrowed(name, &[("tags", &tags), ("filter", filter), ("datacenter", datacenter)]),
            key: format!("{name} tags={tags} filter={filter} in={datacenter} at={at}"),
        });
    }
    if let Some(query) = &service.nacos {
        let moorgate_registry::NacosQuery { name, group, namespace, clusters, .. } = query;
        let clusters = clusters.join(",");
        let nacos = settings.nacos.clone().unwrap_or_default();
        let (at, user) = (together(&nacos.servers), &nacos.username);
        asked.push(Asked {
            source: Source::Nacos,
            name: narrowed(name, &[("group", group), ("namespace", namespace), ("clusters", &clusters)]),
            key: format!("{name} group={group} in={namespace} clusters={clusters} at={at} as={user}"),
        });
    }
    asked
}

/// A name, and what it is narrowed by.
fn narrowed(name: &str, by: &[(&str, &str)]) -> String {
    let by = by.iter().filter(|(_, value)| !value.is_empty());
    by.fold(name.to_owned(), |name, (key, value)| format!("{name} {key}={value}"))
}

/// In any order: they are servers of one registry.
fn together(servers: &[impl ToString]) -> String {
    let mut servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    servers.sort_unstable();
    servers.join(",")
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

#[cfg(test)]
mod tests {
    use super::*;
    use moorgate_registry::{ConsulQuery, ConsulSettings, NacosQuery, NacosSettings};

    #[test]
    fn name_asked_for_has_only_what_narrows_it() {
        let consul = ConsulQuery { name: "chat".to_owned(), ..ConsulQuery::default() };
        let name = |consul| {
            let service = ServiceSources { consul: Some(consul), ..ServiceSources::default() };
            asked(&Settings::default(), &service).remove(0).name
        };
        assert_eq!(name(consul.clone()), "chat");
        assert_eq!(
            name(ConsulQuery { tags: vec!["a".to_owned(), "b".to_owned()], ..consul }),
            "chat tags=a,b"
        );
    }

    #[test]
    fn what_another_registry_has_said_is_not_recalled() {
        let of = |consul: &str, nacos: &[&str], user: &str, dns: &[&str]| {
            let servers = nacos.iter().map(|&server| server.to_owned()).collect();
            let mut settings = Settings {
                consul: Some(ConsulSettings { address: consul.to_owned(), ..ConsulSettings::default() }),
                nacos: Some(NacosSettings { servers, username: user.to_owned(), ..NacosSettings::default() }),
                ..Settings::default()
            };
            settings.dns.servers = dns.iter().map(|server| server.parse().unwrap()).collect();
            let service = ServiceSources {
                dns: Some(DnsQuery::Srv { name: "_chat._tcp.internal".to_owned() }),
                consul: Some(ConsulQuery::default()),
                nacos: Some(NacosQuery::default()),
                ..ServiceSources::default()
            };
            asked(&settings, &service)
        };
        let one = of("http://a", &["http://n1", "http://n2"], "u", &["192.0.2.1:53"]);
        assert_eq!(of("http://a", &["http://n2", "http://n1"], "u", &["192.0.2.1:53"]), one);
        let others = [
            (Source::Consul, of("http://b", &["http://n1", "http://n2"], "u", &["192.0.2.1:53"])),
            (Source::Nacos, of("http://a", &["http://n3"], "u", &["192.0.2.1:53"])),
            (Source::Nacos, of("http://a", &["http://n1", "http://n2"], "v", &["192.0.2.1:53"])),
            (Source::Dns, of("http://a", &["http://n1", "http://n2"], "u", &["192.0.2.2:53"])),
        ];
        for (source, other) in others {
            let changed: Vec<Source> =
                one.iter().zip(&other).filter(|(a, b)| a != b).map(|(one, _)| one.source).collect();
            assert_eq!(changed, [source]);
        }
    }
}
