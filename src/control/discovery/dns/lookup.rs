//! From a name to a list of endpoints, and when to look again.

use super::hosts::{Ask, Hosts, Ttl};
use super::message::{Host, Question, Records, Target};
use super::resolver::DnsError;
use crate::control::discovery::{DnsQuery, DnsSettings};
use crate::routing::{Instance, Standing};
use domain::base::iana::Rtype;
use domain::base::name::FromStrError;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Hosts of one answer that are looked up because their addresses did not come along.
const TARGETS_MAX: usize = 256;
/// After a failure a name is looked up again no later than this.
const FAILED_MAX: Duration = Duration::from_secs(30);

/// A list, and how long it holds by what the servers say.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) list: Vec<Instance>,
    pub(super) ttl: Duration,
    /// Why some of it is as it was before.
    pub(super) stale: Option<DnsError>,
}

/// One name that is looked up again and again.
#[derive(Debug)]
pub(super) struct Lookup {
    what: What,
    ttl_min: Duration,
    ttl_max: Duration,
    hosts: Hosts,
    /// Look-ups in a row that failed.
    failures: u32,
}

#[derive(Debug)]
enum What {
    Host(Host, u16),
    Srv(Host),
}

impl Lookup {
    /// # Errors
    /// The name is none.
    pub(super) fn new(query: &DnsQuery, settings: &DnsSettings) -> Result<Lookup, FromStrError> {
        let what = match query {
            DnsQuery::Host { name, port } => What::Host(name.parse()?, *port),
            DnsQuery::Srv { name } => What::Srv(name.parse()?),
        };
        let ttl_min = settings.ttl_min.max(Duration::from_millis(100));
        let ttl_max = settings.ttl_max.max(ttl_min);
        Ok(Lookup { what, ttl_min, ttl_max, hosts: Hosts::default(), failures: 0 })
    }

    /// The last list of an earlier process: what it has of a family that fails is not lost. The hosts of SRV records are
    /// not to be told from it.
    pub(super) fn recall(&mut self, list: &[Instance]) {
        if let What::Host(name, port) = &self.what {
            let ips = list.iter().map(|one| one.address).filter(|at| at.port() == *port).map(|at| at.ip());
            self.hosts.recall(name.clone(), ips);
        }
    }

    /// Looks it up. Nothing found is a list, too; an error is none.
    pub(super) fn look(&mut self, ask: &dyn Ask) -> Result<Found, DnsError> {
        let mut found = Found { list: Vec::new(), ttl: Duration::ZERO, stale: None };
        let mut ttl = Ttl(None);
        match &self.what {
            What::Host(name, port) => {
                let (name, port) = (name.clone(), *port);
                let addresses = self.hosts.addresses(ask, &[name], (&mut ttl, &mut found.stale))?;
                let ips = addresses.into_values().flatten();
                found.list = ips.map(|ip| Instance::at(SocketAddr::new(ip, port))).collect();
            }
            What::Srv(name) => {
                let records = ask.ask(&Question { name: name.clone(), rtype: Rtype::SRV })?;
                ttl.note(records.ttl);
                found.list = self.targets(ask, records, (&mut ttl, &mut found.stale))?;
            }
        }
        found.ttl = ttl.0.unwrap_or_default();
        Ok(found)
    }

    /// How long to wait after a look; `spread` is a random number below 256, for what is added to it.
    pub(super) fn pause(&mut self, found: Option<Duration>, spread: u8) -> Duration {
        let base = match found {
            Some(ttl) => {
                self.failures = 0;
                ttl.clamp(self.ttl_min, self.ttl_max)
            }
            None => {
                let doublings = self.failures.min(16);
                self.failures = self.failures.saturating_add(1);
                self.ttl_min.saturating_mul(1 << doublings).min(self.ttl_max).min(FAILED_MAX)
            }
        };
        // Up to an eighth later, never earlier: the answer holds.
        base.saturating_add(base.saturating_mul(spread.into()) / (8 * 256))
    }

    /// RFC 2782: the lowest priority is for use, the others for need.
    fn targets(
        &mut self,
        ask: &dyn Ask,
        records: Records,
        (ttl, stale): (&mut Ttl, &mut Option<DnsError>),
    ) -> Result<Vec<Instance>, DnsError> {
        let Records { targets, beside, .. } = records;
        // One target that is the root: the service is decidedly not there.
        let targets: Vec<Target> = targets.into_iter().filter(|target| !target.host.is_root()).collect();
        let best = targets.iter().map(|target| target.priority).min();
        let mut hosts: BTreeMap<Host, Vec<IpAddr>> = BTreeMap::new();
        let mut unknown: Vec<Host> = Vec::new();
        for Target { host, .. } in &targets {
            match beside.get(host) {
                Some((addresses, least)) => {
                    ttl.note(Some(*least));
                    hosts.insert(host.clone(), addresses.clone());
                }
                None if unknown.contains(host) => {}
                None if unknown.len() >= TARGETS_MAX => return Err(DnsError::TooManyTargets(TARGETS_MAX)),
                None => unknown.push(host.clone()),
            }
        }
        hosts.extend(self.hosts.addresses(ask, &unknown, (ttl, stale))?);
        let weights = Weights::of(&targets);
        let mut list = Vec::new();
        for target in &targets {
            for ip in hosts.get(&target.host).into_iter().flatten() {
                list.push(Instance {
                    weight: weights.of_target(target),
                    standing: if Some(target.priority) == best { Standing::In } else { Standing::Doubted },
                    ..Instance::at(SocketAddr::new(*ip, target.port))
                });
            }
        }
        Ok(list)
    }
}

/// How the weights of SRV records become ours: as they are, scaled when one of them is larger than we have them. All
/// equal, they say nothing. 0 beside others is a very small share (RFC 2782), not none.
struct Weights {
    is_plain: bool,
    largest: u16,
}

impl Weights {
    fn of(targets: &[Target]) -> Weights {
        let weights = || targets.iter().map(|target| target.weight);
        let largest = weights().max().unwrap_or_default();
        Weights { is_plain: weights().all(|weight| weight == largest), largest }
    }

    fn of_target(&self, target: &Target) -> u32 {
        let (weight, largest) = (u32::from(target.weight), u32::from(self.largest));
        if self.is_plain {
            Instance::WEIGHT
        } else if largest > Instance::WEIGHT_MAX {
            (weight.saturating_mul(Instance::WEIGHT_MAX) / largest).max(1)
        } else {
            weight.max(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::hosts::LOOKS_WITHOUT;
    use super::*;
    use domain::base::iana::Rcode;
    use parking_lot::{Condvar, Mutex};

    /// Answers by name and type; what is not there fails.
    #[derive(Default)]
    struct Zone {
        records: Vec<(&'static str, Rtype, Records)>,
        asked: Mutex<Vec<String>>,
    }

    impl Zone {
        fn with(mut self, name: &'static str, rtype: Rtype, addresses: &[&str], ttl: u64) -> Zone {
            self.records.push((name, rtype, records(name, addresses, ttl)));
            self
        }

        fn without(mut self, name: &'static str, rtype: Rtype) -> Zone {
            self.records.retain(|(owner, of, _)| !(*owner == name && *of == rtype));
            self
        }
    }

    fn records(name: &str, addresses: &[&str], ttl: u64) -> Records {
        Records {
            name: name.parse().unwrap(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            targets: Vec::new(),
            ttl: Some(Duration::from_secs(ttl)),
            beside: BTreeMap::new(),
        }
    }

    fn target(priority: u16, weight: u16, host: &str) -> Target {
        Target { priority, weight, port: 7100, host: host.parse().unwrap() }
    }

    impl Ask for Zone {
        fn ask(&self, question: &Question) -> Result<Records, DnsError> {
            self.asked.lock().push(format!("{} {}", question.name, question.rtype));
            let has = |(name, rtype, _): &&(&str, Rtype, Records)| {
                name.parse::<Host>().unwrap() == question.name && *rtype == question.rtype
            };
            let server = SocketAddr::from(([192, 0, 2, 53], 53));
            let found = self.records.iter().find(has).map(|(.., records)| records.clone());
            found.ok_or(DnsError::Failed(server, Rcode::SERVFAIL))
        }
    }

    fn lookup(query: DnsQuery) -> Lookup {
        Lookup::new(&query, &DnsSettings::default()).unwrap()
    }

    fn host() -> Lookup {
        lookup(DnsQuery::Host { name: "chat.internal".to_owned(), port: 7100 })
    }

    fn lines(found: &Found) -> Vec<String> {
        found.list.iter().map(|one| format!("{one} {:?}", one.standing)).collect()
    }

    #[test]
    fn a_host_has_the_addresses_of_both_families_and_the_shorter_life() {
        let zone = Zone::default().with("chat.internal", Rtype::A, &["192.0.2.1"], 30).with(
            "chat.internal",
            Rtype::AAAA,
            &["2001:db8::1"],
            10,
        );
        let found = host().look(&zone).unwrap();
        assert_eq!(lines(&found), ["192.0.2.1:7100 In", "[2001:db8::1]:7100 In"]);
        assert_eq!(found.ttl, Duration::from_secs(10));
    }

    #[test]
    fn a_family_that_fails_takes_nothing_away() {
        let both = Zone::default().with("chat.internal", Rtype::A, &["192.0.2.1"], 30).with(
            "chat.internal",
            Rtype::AAAA,
            &["2001:db8::1"],
            10,
        );
        let mut known = host();
        assert!(known.look(&both).unwrap().stale.is_none());
        let four = both.without("chat.internal", Rtype::AAAA).without("chat.internal", Rtype::A).with(
            "chat.internal",
            Rtype::A,
            &["192.0.2.2"],
            30,
        );
        for _ in 0..2 {
            let found = known.look(&four).unwrap();
            assert_eq!(
                lines(&found),
                ["192.0.2.2:7100 In", "[2001:db8::1]:7100 In"],
                "the other one is heard"
            );
            assert_eq!(found.ttl, Duration::from_secs(30));
            assert!(matches!(found.stale, Some(DnsError::Failed(..))));
        }
        let six = Zone::default().with("chat.internal", Rtype::AAAA, &["2001:db8::2"], 10);
        assert_eq!(lines(&known.look(&six).unwrap()), ["192.0.2.2:7100 In", "[2001:db8::2]:7100 In"]);
        let mut restarted = host();
        restarted.recall(&known.look(&six).unwrap().list);
        assert_eq!(restarted.look(&six).unwrap().list.len(), 2);
        let gone = six.with("chat.internal", Rtype::A, &[], 30);
        assert_eq!(
            lines(&restarted.look(&gone).unwrap()),
            ["[2001:db8::2]:7100 In"],
            "it is said that there are none"
        );

        let never = host().look(&four).unwrap();
        assert!(never.list.len() == 1 && never.stale.is_none(), "it never had any");
        let none = Zone::default().with("chat.internal", Rtype::A, &[], 30);
        assert!(host().look(&none).is_err(), "nobody knows whether there are any");
        assert!(known.look(&none).is_err());
        let none = none.with("chat.internal", Rtype::AAAA, &[], 30);
        assert_eq!(host().look(&none).unwrap().list, [], "everybody says that there are none");
    }

    /// Answers when two questions are there.
    #[derive(Default)]
    struct Together(Mutex<usize>, Condvar);

    impl Ask for Together {
        fn ask(&self, question: &Question) -> Result<Records, DnsError> {
            let mut waiting = self.0.lock();
            *waiting += 1;
            self.1.notify_all();
            let patience = Duration::from_secs(60);
            let missed = self.1.wait_while_for(&mut waiting, |waiting| *waiting < 2, patience);
            assert!(!missed.timed_out(), "asked alone: {question:?}");
            let address = if question.rtype == Rtype::A { "192.0.2.1" } else { "2001:db8::1" };
            Ok(Records { name: question.name.clone(), ..records("any", &[address], 30) })
        }
    }

    #[test]
    fn both_families_are_asked_for_at_once() {
        let found = host().look(&Together::default()).unwrap();
        assert_eq!(lines(&found), ["192.0.2.1:7100 In", "[2001:db8::1]:7100 In"]);
    }

    #[test]
    fn a_family_that_cannot_be_had_is_asked_for_once_in_a_while() {
        let mut srv = records("_chat._tcp.internal", &[], 60);
        srv.targets = vec![target(1, 1, "a.internal"), target(1, 1, "b.internal")];
        let mut zone = Zone::default().with("a.internal", Rtype::A, &["192.0.2.1"], 30).with(
            "b.internal",
            Rtype::A,
            &["192.0.2.2"],
            30,
        );
        zone.records.push(("_chat._tcp.internal", Rtype::SRV, srv));
        let mut look = lookup(DnsQuery::Srv { name: "_chat._tcp.internal".to_owned() });
        for _ in 0..=LOOKS_WITHOUT {
            assert_eq!(look.look(&zone).unwrap().list.len(), 2);
        }
        let sixes = zone.asked.lock().iter().filter(|asked| asked.ends_with("AAAA")).count();
        assert_eq!(sixes, 4, "for both hosts, in the first look and in the last");
    }

    #[test]
    fn an_alias_that_the_server_does_not_follow_is_followed() {
        let mut zone = Zone::default().with("lb.internal", Rtype::A, &["192.0.2.1"], 30);
        zone.records.push(("chat.internal", Rtype::A, records("lb.internal", &[], 5)));
        let found = host().look(&zone).unwrap();
        assert_eq!((found.list.len(), found.ttl), (1, Duration::from_secs(5)));
    }

    #[test]
    fn services_go_by_priority_and_weight() {
        let mut srv = records("_chat._tcp.internal", &[], 60);
        srv.targets =
            vec![target(1, 10, "a.internal"), target(1, 0, "b.internal"), target(2, 30, "a.internal")];
        let a = "a.internal".parse().unwrap();
        srv.beside.insert(a, (vec!["192.0.2.1".parse().unwrap()], Duration::from_secs(7)));
        let mut zone = Zone::default().with("b.internal", Rtype::A, &["192.0.2.2"], 30).with(
            "b.internal",
            Rtype::AAAA,
            &[],
            1,
        );
        zone.records.push(("_chat._tcp.internal", Rtype::SRV, srv));
        let mut look = lookup(DnsQuery::Srv { name: "_chat._tcp.internal".to_owned() });
        let found = look.look(&zone).unwrap();
        let expected =
            ["192.0.2.1:7100 weight=10 In", "192.0.2.2:7100 weight=1 In", "192.0.2.1:7100 weight=30 Doubted"];
        assert_eq!(lines(&found), expected);
        assert_eq!(found.ttl, Duration::from_secs(7));
        assert!(zone.asked.lock().iter().all(|asked| !asked.starts_with("a.internal")), "it came along");
        let lost = zone.without("b.internal", Rtype::A);
        assert!(look.look(&lost).is_err(), "half an answer is none");
    }

    #[test]
    fn weights_are_scaled_and_equal_ones_say_nothing() {
        let weights = |weights: &[u16]| {
            let targets: Vec<Target> = weights.iter().map(|weight| target(1, *weight, "a")).collect();
            let all = Weights::of(&targets);
            targets.iter().map(|target| all.of_target(target)).collect::<Vec<_>>()
        };
        assert_eq!(weights(&[0, 0]), [100, 100]);
        assert_eq!(weights(&[1, 1]), [100, 100]);
        assert_eq!(weights(&[1, 3, 0]), [1, 3, 1]);
        assert_eq!(weights(&[20_000, 10_000, 1]), [10_000, 5_000, 1]);
    }

    #[test]
    fn a_service_that_is_decidedly_not_there_is_an_empty_list() {
        let mut srv = records("_chat._tcp.internal", &[], 60);
        srv.targets = vec![target(0, 0, ".")];
        let mut zone = Zone::default();
        zone.records.push(("_chat._tcp.internal", Rtype::SRV, srv));
        let found = lookup(DnsQuery::Srv { name: "_chat._tcp.internal".to_owned() }).look(&zone).unwrap();
        assert_eq!(found.list, []);
    }

    #[test]
    fn the_next_look_comes_when_the_answer_ends_and_later_after_failures() {
        let mut look = host();
        let second = Duration::from_secs(1);
        assert_eq!(look.pause(Some(10 * second), 0), 10 * second);
        assert_eq!(look.pause(Some(8 * second), 128), Duration::from_millis(8_500));
        assert_eq!(look.pause(Some(Duration::ZERO), 0), second, "not more often");
        assert_eq!(look.pause(Some(9000 * second), 0), 300 * second, "not more rarely");
        let waits: Vec<u64> = (0..7).map(|_| look.pause(None, 0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        look.pause(Some(second), 0);
        assert_eq!(look.pause(None, 0), second);
    }
}
