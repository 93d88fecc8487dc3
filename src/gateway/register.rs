//! Lists the gateway itself where others look for it: once it can serve, until it drains.
//!
//! It can serve when one of its services can be reached by every worker. Not all of them: one broken service would keep
//! each gateway that is restarted out of the list, until none is left. And after [`PATIENCE_MAX`] it is listed in any
//! case, since clients are let in and told what is wrong.

use super::state::State;
use crate::admin::Pages;
use crate::config::{RegisterSettings, Settings};
use crate::control::discovery;
use crate::routing::Instance;
use moorgate_registry::{Check, IsHealthy, Registrar, Registration, Target};
use parking_lot::Mutex;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two looks whether the gateway can serve.
const LOOK: Duration = Duration::from_millis(100);
/// After this time without a service the log says what is waited for.
const TOLD_AFTER: Duration = Duration::from_secs(3);
/// After this time the gateway is listed whatever its services are.
const PATIENCE_MAX: Duration = Duration::from_secs(10);
/// Until a registry that does not answer is left as it is: its check finds out that the gateway is gone.
const PATIENCE: Duration = Duration::from_secs(2);
/// Consul asks three times within this time, and a TTL is renewed as often.
const LOOKS_PER_TTL: u32 = 3;

/// The gateway's own place in registries.
pub(super) struct Listing {
    ended: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<Vec<Registrar>>>>,
}

impl Listing {
    /// Registers as soon as the gateway can serve; its listeners are bound.
    pub(super) fn start(
        settings: &Settings,
        state: &Arc<State>,
        admin: Option<SocketAddr>,
    ) -> io::Result<Listing> {
        let ended = Arc::new(AtomicBool::new(false));
        let Some(register) = settings.register.clone() else {
            return Ok(Listing { ended, thread: Mutex::new(None) });
        };
        let registration = registration(&register, &settings.forward.gateway_id, admin);
        let targets = targets(&register, &settings.discovery);
        let (state, stop) = (state.clone(), ended.clone());
        let is_live = judge(&state);
        let thread = std::thread::Builder::new().name("register".to_owned()).spawn(move || {
            if !wait(&state, &stop) {
                return Vec::new();
            }
            targets.into_iter().filter_map(|target| registrar(target, &registration, &is_live)).collect()
        })?;
        Ok(Listing { ended, thread: Mutex::new(Some(thread)) })
    }

    /// Takes the gateway out of every registry; those that do not answer in time are left. Only the first call does
    /// something.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        let Some(thread) = self.thread.lock().take() else { return };
        thread.thread().unpark();
        let Ok(registrars) = thread.join() else { return };
        // All at once: one that does not answer takes no time from the others.
        let threads: Vec<_> = registrars
            .into_iter()
            .filter_map(|registrar| {
                let thread = std::thread::Builder::new().name("deregister".to_owned());
                thread.spawn(move || registrar.deregister(PATIENCE)).ok()
            })
            .collect();
        for thread in threads {
            if !thread.join().unwrap_or(false) {
                log::warn!("a registry has not confirmed that the gateway is gone; its check will find out");
            }
        }
    }
}

/// What a gateway that is not listed yet does next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// It can serve: it is listed.
    List,
    /// It is listed though it cannot, since it has waited long enough.
    ListAnyway,
    /// It waits, and says so.
    Tell,
    /// It waits.
    Wait,
}

/// `lacking` services of `all` cannot be reached.
fn next(waited: Duration, was_told: bool, (lacking, all): (usize, usize)) -> Next {
    match () {
        () if all == 0 || lacking < all => Next::List,
        () if waited >= PATIENCE_MAX => Next::ListAnyway,
        () if waited >= TOLD_AFTER && !was_told => Next::Tell,
        () => Next::Wait,
    }
}

/// Returns when the gateway is to be listed: false when it has ended before.
fn wait(state: &State, stop: &AtomicBool) -> bool {
    let (begun, mut was_told) = (state.clock.read().mono, false);
    loop {
        let all = state.services.len();
        let lacking: Vec<String> = (0..all).filter_map(|at| state.service_readiness(at).err()).collect();
        let waited = state.clock.read().mono.since(begun);
        if stop.load(Ordering::Acquire) {
            return false;
        }
        let what = lacking.join("; ");
        match next(waited, was_told, (lacking.len(), all)) {
            Next::List if lacking.is_empty() => return true,
            Next::List => {
                log::warn!("the gateway is listed without all of its services: {what}");
                return true;
            }
            Next::ListAnyway => {
                let after = humantime::format_duration(PATIENCE_MAX);
                log::warn!("the gateway is listed after {after}, though no service can be reached: {what}");
                return true;
            }
            Next::Tell => {
                let left = humantime::format_duration(PATIENCE_MAX.saturating_sub(TOLD_AFTER));
                log::warn!("the gateway waits with its registration, for at most {left} more: {what}");
                was_told = true;
            }
            Next::Wait => {}
        }
        std::thread::park_timeout(LOOK);
    }
}

/// What beats say: not whether the gateway is ready (see the module's page), but whether its threads make progress.
fn judge(state: &Arc<State>) -> IsHealthy {
    let state = state.clone();
    Arc::new(move || state.is_live())
}

fn registrar(target: Target, registration: &Registration, is_live: &IsHealthy) -> Option<Registrar> {
    Registrar::start_judged(target, registration.clone(), is_live.clone())
        .inspect_err(|error| log::error!("the gateway cannot be registered: {error}"))
        .ok()
}

/// The same at every start: one that was killed is not listed beside its successor.
fn id(register: &RegisterSettings, gateway_id: &str) -> String {
    let text = format!("{}-{gateway_id}-{}", register.name, register.address);
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    text.chars().map(plain).collect()
}

fn registration(register: &RegisterSettings, gateway_id: &str, admin: Option<SocketAddr>) -> Registration {
    let mut metadata = register.metadata.clone();
    metadata.entry("version".to_owned()).or_insert_with(|| env!("CARGO_PKG_VERSION").to_owned());
    metadata.entry("gateway".to_owned()).or_insert_with(|| gateway_id.to_owned());
    let check = match admin.filter(|_| register.is_asked) {
        Some(admin) => Check::Http {
            // Not whether it is ready: one broken service would take every gateway out of the list.
            url: format!("http://{}/livez", reachable(admin)),
            interval: register.ttl / LOOKS_PER_TTL,
        },
        None => Check::Ttl(register.ttl),
    };
    Registration {
        id: id(register, gateway_id),
        name: register.name.clone(),
        address: register.address,
        weight: Instance::WEIGHT,
        tags: register.tags.clone(),
        metadata,
        check,
        deregister_after: register.deregister_after,
    }
}

/// The agent that asks is on this machine: every address of it is also that of the loopback.
fn reachable(admin: SocketAddr) -> SocketAddr {
    match admin.ip() {
        ip if !ip.is_unspecified() => admin,
        IpAddr::V4(_) => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), admin.port()),
        IpAddr::V6(_) => SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), admin.port()),
    }
}

fn targets(register: &RegisterSettings, discovery: &discovery::Settings) -> Vec<Target> {
    let consul = register.consul.then(|| Target::Consul(discovery.consul.clone().unwrap_or_default()));
    let nacos = discovery.nacos.clone().filter(|_| register.nacos).map(|settings| Target::Nacos {
        settings,
        group: register.group.clone(),
        namespace: register.namespace.clone(),
        cluster: String::new(),
    });
    consul.into_iter().chain(nacos).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::ServiceId;
    use crate::gateway::Gateway;
    use moorgate_proto::time::Mono;

    fn settings() -> RegisterSettings {
        RegisterSettings {
            name: "moorgate".to_owned(),
            address: "[2001:db8::1]:7000".parse().unwrap(),
            tags: vec!["edge".to_owned()],
            metadata: [("zone".to_owned(), "eu-1".to_owned())].into(),
            consul: true,
            nacos: true,
            is_asked: false,
            ttl: Duration::from_secs(15),
            deregister_after: Duration::from_secs(600),
            group: "G".to_owned(),
            namespace: "im".to_owned(),
        }
    }

    #[test]
    fn it_is_listed_under_one_id_with_its_version() {
        let listed = registration(&settings(), "gate 1/a", None);
        assert_eq!(listed.id, "moorgate-gate-1-a--2001-db8--1--7000");
        assert_eq!(listed.metadata.get("version").map(String::as_str), Some(env!("CARGO_PKG_VERSION")));
        assert_eq!(listed.metadata.get("zone").map(String::as_str), Some("eu-1"));
        assert_eq!(listed.check, Check::Ttl(Duration::from_secs(15)));
    }

    #[test]
    fn consul_asks_an_address_that_it_can_reach() {
        let asked = RegisterSettings { is_asked: true, ..settings() };
        for (admin, url) in [
            ("0.0.0.0:7001", "http://127.0.0.1:7001/livez"),
            ("[::]:7001", "http://[::1]:7001/livez"),
            ("10.0.0.9:7001", "http://10.0.0.9:7001/livez"),
        ] {
            let listed = registration(&asked, "g", Some(admin.parse().unwrap()));
            assert_eq!(listed.check, Check::Http { url: url.to_owned(), interval: Duration::from_secs(5) });
        }
    }

    #[test]
    fn it_is_listed_where_the_settings_say() {
        let nacos = moorgate_registry::NacosSettings::default();
        let discovery = discovery::Settings { nacos: Some(nacos.clone()), ..discovery::Settings::default() };
        let (group, namespace) = ("G".to_owned(), "im".to_owned());
        let at_nacos = Target::Nacos { settings: nacos, group, namespace, cluster: String::new() };
        assert_eq!(targets(&settings(), &discovery), [Target::Consul(Default::default()), at_nacos]);
        let only = RegisterSettings { consul: false, nacos: false, ..settings() };
        assert_eq!(targets(&only, &discovery), []);
    }
    #[test]
    fn one_broken_service_keeps_no_gateway_out_of_the_list() {
        let second = Duration::from_secs(1);
        assert_eq!(next(Duration::ZERO, false, (1, 3)), Next::List);
        assert_eq!(next(Duration::ZERO, false, (0, 3)), Next::List);
        assert_eq!(next(Duration::ZERO, false, (0, 0)), Next::List, "there is nothing to wait for");
        assert_eq!(next(second, false, (3, 3)), Next::Wait);
        assert_eq!(next(TOLD_AFTER, false, (3, 3)), Next::Tell);
        assert_eq!(next(TOLD_AFTER + second, true, (3, 3)), Next::Wait, "it is told once");
        assert_eq!(next(PATIENCE_MAX, true, (3, 3)), Next::ListAnyway);
    }

    #[test]
    fn a_gateway_with_one_service_is_listed_and_one_without_any_waits() {
        let state = Arc::new(State::dev());
        let stop = AtomicBool::new(true);
        assert!(!wait(&state, &stop), "it has ended before it could serve");
        for worker in &state.readiness {
            worker.change(ServiceId(0), true);
        }
        assert!(state.readiness().is_err(), "others are missing");
        stop.store(false, Ordering::Release);
        assert!(wait(&state, &stop));
    }

    #[test]
    fn beats_stop_while_a_loop_is_stuck() {
        let state = Arc::new(State::dev());
        let at = |second: u64| Mono::ZERO + Duration::from_secs(second);
        let is_live = judge(&state);
        state.pulses.iter().for_each(|pulse| pulse.beat(at(1)));
        assert!(is_live(), "all have just turned");
        assert!(state.is_live_at(at(10)) && !state.is_live_at(at(11)), "they have not turned for too long");
        assert_eq!(Arc::strong_count(&state), 2, "the judge asks this state");
    }

    #[test]
    fn whoever_asks_is_told_of_the_drain_before_the_registry_has_answered() {
        let state = Arc::new(State::dev());
        let ended = Arc::new(AtomicBool::new(false));
        let (seen, sees) = crossbeam_channel::bounded(1);
        let (stop, of_thread) = (ended.clone(), state.clone());
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Acquire) {
                std::thread::park_timeout(LOOK);
            }
            seen.send(of_thread.readiness()).unwrap();
            Vec::new()
        });
        let gateway = Gateway {
            state,
            client_addresses: Vec::new(),
            admin: None,
            listing: Some(Listing { ended, thread: Mutex::new(Some(thread)) }),
            access_log: None,
            shards: Vec::new(),
            workers: Vec::new(),
            drain_timeout: Duration::ZERO,
            boot_id: 1,
        };
        gateway.drain();
        assert_eq!(sees.recv().unwrap(), Err("draining".to_owned()));
    }
}
