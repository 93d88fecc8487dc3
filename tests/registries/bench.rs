//! A discovery, its pools, and endpoints that listen.

use crate::programs::Consul;
use moorgate::base::clock::Clock;
use moorgate::base::ids::ServiceId;
use moorgate::control::discovery::{Discovery, ProbeSettings, ServiceReport, ServiceSources, Settings};
use moorgate::routing::{Pools, Source, SourceReport};
use moorgate_registry::{ConsulQuery, ConsulSettings, Stop};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) use crate::asked::{PATIENCE, eventually};

const TICK: Duration = Duration::from_millis(20);

/// Between two looks.
pub(crate) fn wait_a_moment() {
    Stop::new().wait(TICK);
}

/// How long something takes.
#[expect(clippy::disallowed_methods, reason = "the tests' one clock")]
pub(crate) fn time_of(act: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    act();
    begun.elapsed()
}

/// An endpoint: it listens, and closes what comes.
pub(crate) struct Endpoint {
    pub(crate) at: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Endpoint {
    pub(crate) fn start() -> Endpoint {
        Endpoint::on(Ipv4Addr::LOCALHOST, 0).unwrap()
    }

    fn on(ip: Ipv4Addr, port: u16) -> std::io::Result<Endpoint> {
        let listener = TcpListener::bind((ip, port))?;
        let at = listener.local_addr()?;
        let is_over = Arc::new(AtomicBool::new(false));
        let flag = is_over.clone();
        let thread = std::thread::spawn(move || {
            while !flag.load(Ordering::Acquire) {
                drop(listener.accept());
            }
        });
        Ok(Endpoint { at, is_over, thread: Some(thread) })
    }

    /// This many, at addresses of their own and one port.
    pub(crate) fn on_one_port(count: u8) -> Vec<Endpoint> {
        let all = || -> std::io::Result<Vec<Endpoint>> {
            let first = Endpoint::start();
            let port = first.at.port();
            let others = (2..=count).map(|host| Endpoint::on(Ipv4Addr::new(127, 0, 0, host), port));
            std::iter::once(Ok(first)).chain(others).collect()
        };
        (0..20).find_map(|_| all().ok()).expect("a port that is free at all addresses")
    }

    /// It listens no more.
    pub(crate) fn kill(&mut self) {
        self.is_over.store(true, Ordering::Release);
        // Whoever waits for a connection gets one.
        let _ = TcpStream::connect(self.at);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Settings with probes that are quick, and shrunken lists that are never believed by time alone.
pub(crate) fn settings() -> Settings {
    let probe = ProbeSettings {
        interval: Duration::from_millis(200),
        timeout: Duration::from_secs(10),
        fall: 2,
        rise: 1,
    };
    Settings { probe, confirm: Duration::from_secs(3600), ..Settings::default() }
}

/// Settings with these services of a Consul.
pub(crate) fn in_consul(consul: &Consul, names: &[&str]) -> Settings {
    let services = names.iter().zip(0u16..).map(|(name, id)| ServiceSources {
        service: ServiceId(id),
        name: (*name).to_owned(),
        consul: Some(ConsulQuery {
            name: (*name).to_owned(),
            zone_meta: "zone".to_owned(),
            ..ConsulQuery::default()
        }),
        ..ServiceSources::default()
    });
    let consul = ConsulSettings { address: consul.address.clone(), ..ConsulSettings::default() };
    Settings { services: services.collect(), consul: Some(consul), ..settings() }
}

/// A discovery that runs.
pub(crate) struct Bench {
    discovery: Option<Discovery>,
    pools: Arc<Pools>,
    rung: Arc<AtomicUsize>,
}

impl Bench {
    pub(crate) fn start(settings: Settings) -> Bench {
        let pools = Arc::new(Pools::new(settings.services.len()));
        let rung = Arc::new(AtomicUsize::new(0));
        let bell = rung.clone();
        let ring = move || {
            bell.fetch_add(1, Ordering::Relaxed);
        };
        let prepared = Discovery::prepare(settings, Clock::start()).unwrap();
        let discovery = prepared.start(pools.clone(), Vec::new(), ring).unwrap();
        Bench { discovery: Some(discovery), pools, rung }
    }

    /// What is published of a service: endpoints, and `standing` where it is not `In`.
    pub(crate) fn published(&self, service: u16) -> Vec<String> {
        let members = self.pools.members(ServiceId(service));
        let line = |member: &moorgate::routing::Member| {
            format!("{} {:?}", member.instance, member.instance.standing).replace(" In", "")
        };
        members.iter().map(line).collect()
    }

    /// Waits until just these are published, by their addresses.
    pub(crate) fn until(&self, service: u16, what: &str, endpoints: &[SocketAddr]) {
        let mut wanted = endpoints.to_vec();
        wanted.sort_unstable();
        let now = || -> Vec<SocketAddr> {
            let members = self.pools.members(ServiceId(service));
            members.iter().map(|member| member.instance.address).collect()
        };
        eventually(&format!("{what}: {wanted:?}"), || now() == wanted);
        assert!(self.rung.load(Ordering::Relaxed) > 0, "the workers are told");
    }

    /// The same, and each of them answers.
    pub(crate) fn until_answering(&self, service: u16, what: &str, endpoints: &[SocketAddr]) {
        self.until(service, what, endpoints);
        eventually(&format!("{what}, and they answer"), || {
            self.report(service).catalog.endpoints.iter().all(|endpoint| endpoint.answers == Some(true))
        });
    }

    /// Plays the workers: they have links to all that are published.
    pub(crate) fn link(&self, service: u16) {
        let members = self.pools.members(ServiceId(service));
        members.iter().for_each(|member| member.vitals.links.store(1, Ordering::Relaxed));
    }

    /// The same, to some of them.
    pub(crate) fn link_to(&self, service: u16, endpoints: &[SocketAddr]) {
        for member in self.pools.members(ServiceId(service)).iter() {
            let has_link = endpoints.contains(&member.instance.address);
            member.vitals.links.store(u32::from(has_link), Ordering::Relaxed);
        }
    }

    pub(crate) fn report(&self, service: u16) -> ServiceReport {
        self.discovery.as_ref().unwrap().report().swap_remove(service.into())
    }

    pub(crate) fn source(&self, service: u16, source: Source) -> SourceReport {
        let sources = self.report(service).catalog.sources;
        sources.into_iter().find(|report| report.source == source).unwrap()
    }

    pub(crate) fn stop(&mut self) {
        if let Some(discovery) = self.discovery.take() {
            discovery.stop();
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The addresses of some endpoints.
pub(crate) fn addresses(endpoints: &[Endpoint]) -> Vec<SocketAddr> {
    endpoints.iter().map(|endpoint| endpoint.at).collect()
}

/// The lines of a hosts file that give a name these addresses.
pub(crate) fn hosts(name: &str, addresses: impl IntoIterator<Item = IpAddr>) -> String {
    addresses.into_iter().map(|address| format!("{address} {name}\n")).collect()
}
