//! From a name to a list of endpoints, and when to look again.
//!
//! One host of SRV records that fails takes nothing from the others: see [`super::hosts`].

use super::hosts::{self, Ask, Failure, Hosts, Ttl};
use super::message::{Host, Question, Records, Target};
use super::resolver::DnsError;
use crate::control::discovery::{DnsQuery, DnsSettings};
use crate::routing::{Instance, Rejected, SourceList, Standing};
use domain::base::iana::Rtype;
use domain::base::name::FromStrError;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Hosts of one answer that are looked up because their addresses did not come along.
const TARGETS_MAX: usize = 256;
/// After a failure a name is looked up again no later than this.
const FAILED_MAX: Duration = Duration::from_secs(30);

/// A list, and how long it holds by what the servers say.
#[derive(Debug)]
pub(super) struct Found {
    /// With the hosts that fail, of which it has what was known before.
    pub(super) list: SourceList,
    pub(super) ttl: Duration,
}

/// One name that is looked up again and again.
#[derive(Debug)]
pub(super) struct Lookup {
    what: What,
    ttl_min: Duration,
    ttl_max: Duration,
    hosts: Hosts,
    /// The list of an earlier process, of SRV records, until a look has all hosts.
    recalled: Vec<Instance>,
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
        Ok(Lookup { what, ttl_min, ttl_max, hosts: Hosts::default(), recalled: Vec::new(), failures: 0 })
    }

    /// The last list of an earlier process: what it has of a family or a host that fails is not lost.
    pub(super) fn recall(&mut self, list: &[Instance]) {
        match &self.what {
            What::Host(name, port) => {
                let ips =
                    list.iter().map(|one| one.address).filter(|at| at.port() == *port).map(|at| at.ip());
                self.hosts.recall(name.clone(), ips);
            }
            What::Srv(_) => self.recalled = list.to_vec(),
        }
    }

    /// Looks it up. Nothing found is a list, too; an error is none.
    pub(super) fn look(&mut self, ask: &dyn Ask) -> Result<Found, DnsError> {
        let (mut list, mut ttl) = (SourceList::default(), Ttl(None));
        match &self.what {
            What::Host(name, port) => {
                let (name, port) = (name.clone(), *port);
                let hosts::Found { addresses, mut failures } = self.hosts.addresses(ask, &[name], &mut ttl);
                if let Some(at) = failures.iter().position(|failure| !failure.is_found) {
                    return Err(failures.swap_remove(at).error);
                }
                let ips = addresses.into_values().flatten();
                list.endpoints = ips.map(|ip| Instance::at(SocketAddr::new(ip, port))).collect();
                failures.iter().for_each(|failure| list.rejected.add(failure));
            }
            What::Srv(name) => {
                let records = ask.ask(&Question { name: name.clone(), rtype: Rtype::SRV })?;
                ttl.note(records.ttl);
                if records.unreadable > 0 {
                    let reason = format!("records of {name}: their data cannot be read");
                    list.rejected.add_some(records.unreadable, [reason]);
                }
                list.endpoints = self.targets(ask, records, &mut ttl, &mut list.rejected)?;
            }
        }
        let ttl = ttl.0.unwrap_or_default();
        // What failed is asked for again before long, whatever the rest says.
        let ttl = if list.rejected.is_empty() { ttl } else { ttl.min(FAILED_MAX) };
        Ok(Found { list, ttl })
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

    /// RFC 2782: the lowest priority is for use, the others for need. When no host can be had, that is an error.
    fn targets(
        &mut self,
        ask: &dyn Ask,
        records: Records,
        ttl: &mut Ttl,
        rejected: &mut Rejected,
    ) -> Result<Vec<Instance>, DnsError> {
        let Records { targets, beside, .. } = records;
        // One target that is the root: the service is decidedly not there.
        let targets: Vec<Target> = targets.into_iter().filter(|target| !target.host.is_root()).collect();
        let best = targets.iter().map(|target| target.priority).min();
        let mut hosts: BTreeMap<Host, Vec<IpAddr>> = BTreeMap::new();
        let mut unknown: BTreeSet<&Host> = BTreeSet::new();
        let mut over: BTreeSet<&Host> = BTreeSet::new();
        for Target { host, .. } in &targets {
            match beside.get(host) {
                Some((addresses, least)) => {
                    ttl.note(Some(*least));
                    hosts.insert(host.clone(), addresses.clone());
                }
                None if unknown.len() < TARGETS_MAX || unknown.contains(host) => {
                    unknown.insert(host);
                }
                None => {
                    over.insert(host);
                }
            }
        }
        if let Some(first) = over.first() {
            let reason =
                format!("{first} and others: more than {TARGETS_MAX} hosts come without their addresses");
            rejected.add_some(over.len(), [reason]);
        }
        let unknown: Vec<Host> = unknown.into_iter().cloned().collect();
        let hosts::Found { addresses, mut failures } = self.hosts.addresses(ask, &unknown, ttl);
        let has_failed = |failure: &Failure| !failure.is_found;
        let failed: BTreeSet<Host> = failures
            .iter()
            .filter(|failure| has_failed(failure))
            .map(|failure| failure.host.clone())
            .collect();
        if hosts.is_empty() && failed.len() == unknown.len() && !failed.is_empty() {
            return Err(failures.swap_remove(0).error);
        }
        hosts.extend(addresses);
        failures.iter().for_each(|failure| rejected.add(failure));
        let is_dead = |&host: &&Host| {
            hosts.get(host).is_none_or(Vec::is_empty) && failures.iter().all(|failure| failure.host != *host)
        };
        for host in unknown.iter().filter(is_dead) {
            let target = "the target of an SRV record has no addresses; correct the record, or add the host";
            rejected.add(format_args!("{host}: {target}"));
        }
        let weights = Weights::of(&targets);
        let (mut list, mut unusable) = (Vec::new(), BTreeSet::new());
        for target in &targets {
            for ip in hosts.get(&target.host).into_iter().flatten() {
                let address = SocketAddr::new(*ip, target.port);
                if let Some(why) = Instance::why_unusable(address) {
                    unusable.insert(format!("{}: {address} {why}", target.host));
                    continue;
                }
                list.push(Instance {
                    weight: weights.of_target(target),
                    standing: if Some(target.priority) == best { Standing::In } else { Standing::Doubted },
                    ..Instance::at(address)
                });
            }
        }
        unusable.iter().for_each(|reason| rejected.add(reason));
        self.add_recalled(&mut list, &targets, &failed);
        Ok(list)
    }

    /// Which host had which address in the life before is not known; the port says where it can belong.
    fn add_recalled(&mut self, list: &mut Vec<Instance>, targets: &[Target], failed: &BTreeSet<Host>) {
        if failed.is_empty() {
            self.recalled.clear();
        }
        let listed: BTreeSet<SocketAddr> = list.iter().map(|one| one.address).collect();
        let can_belong = |address: SocketAddr| {
            targets.iter().any(|target| target.port == address.port() && failed.contains(&target.host))
        };
        let missing =
            self.recalled.iter().filter(|one| !listed.contains(&one.address) && can_belong(one.address));
        list.extend(missing.cloned());
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
        if self.is_plain { Instance::WEIGHT } else { Instance::scaled_weight(weight, largest).max(1) }
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
            unreadable: 0,
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
        found.list.endpoints.iter().map(|one| format!("{one} {:?}", one.standing)).collect()
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
        assert!(known.look(&both).unwrap().list.rejected.is_empty());
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
            let told = found.list.rejected.to_string();
            let expected = "chat.internal AAAA: the DNS server 192.0.2.53:53 says SERVFAIL; known addresses that stay: 1";
            assert_eq!(told, expected);
        }
        let six = Zone::default().with("chat.internal", Rtype::AAAA, &["2001:db8::2"], 10);
        assert_eq!(lines(&known.look(&six).unwrap()), ["192.0.2.2:7100 In", "[2001:db8::2]:7100 In"]);
        let mut restarted = host();
        restarted.recall(&known.look(&six).unwrap().list.endpoints);
        assert_eq!(lines(&restarted.look(&six).unwrap()).len(), 2);
        let gone = six.with("chat.internal", Rtype::A, &[], 30);
        assert_eq!(
            lines(&restarted.look(&gone).unwrap()),
            ["[2001:db8::2]:7100 In"],
            "it is said that there are none"
        );

        let never = host().look(&four).unwrap();
        assert!(lines(&never).len() == 1 && never.list.rejected.is_empty(), "it never had any");
        let none = Zone::default().with("chat.internal", Rtype::A, &[], 30);
        assert!(host().look(&none).is_err(), "nobody knows whether there are any");
        assert!(known.look(&none).is_err());
        let none = none.with("chat.internal", Rtype::AAAA, &[], 30);
        assert_eq!(lines(&host().look(&none).unwrap()), [""; 0], "everybody says that there are none");
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
            assert_eq!(lines(&look.look(&zone).unwrap()).len(), 2);
        }
        let sixes = zone.asked.lock().iter().filter(|asked| asked.ends_with("AAAA")).count();
        assert_eq!(sixes, 4, "for both hosts, in the first look and in the last");
    }

    #[test]
    fn an_alias_that_the_server_does_not_follow_is_followed() {
        let mut zone = Zone::default().with("lb.internal", Rtype::A, &["192.0.2.1"], 30);
        zone.records.push(("chat.internal", Rtype::A, records("lb.internal", &[], 5)));
        let found = host().look(&zone).unwrap();
        assert_eq!((lines(&found).len(), found.ttl), (1, Duration::from_secs(5)));
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
        assert_eq!(lines(&look.look(&lost).unwrap()), expected, "what was known of it stays");
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
        assert_eq!(found.list, SourceList::default());
    }

    #[test]
    fn srv_target_without_addresses_is_named_once() {
        let hosts = ["a.internal", "b.internal", "c.internal"];
        let mut zone = services(&hosts, &["a.internal", "c.internal"]);
        for dead in ["a.internal", "c.internal"] {
            zone = zone.with(dead, Rtype::A, &[], 60).with(dead, Rtype::AAAA, &[], 60);
        }
        let mut look = lookup(DnsQuery::Srv { name: "_chat._tcp.internal".to_owned() });
        let first = look.look(&zone).unwrap();
        assert_eq!(lines(&first), ["192.0.2.98:7100 In"]);
        assert_eq!(first.list.rejected.count(), 2);
        let told = first.list.rejected.to_string();
        assert!(told.starts_with("a.internal: the target of an SRV record has no addresses; "), "{told}");
        // Servers list records in another order each time.
        zone.records.iter_mut().for_each(|(.., records)| records.targets.reverse());
        assert_eq!(look.look(&zone).unwrap().list.rejected, first.list.rejected, "the same reasons");
        let mended = services(&hosts, &[]);
        assert!(look.look(&mended).unwrap().list.rejected.is_empty());
    }

    #[test]
    fn srv_target_with_an_unusable_address_is_named() {
        let srv = |hosts: &[&'static str]| services(hosts, hosts);
        let zone = srv(&["a.internal"]).with("a.internal", Rtype::A, &["224.0.0.1", "192.0.2.1"], 60).with(
            "a.internal",
            Rtype::AAAA,
            &[],
            60,
        );
        let found = lookup(DnsQuery::Srv { name: "_chat._tcp.internal".to_owned() }).look(&zone).unwrap();
        assert_eq!(lines(&found), ["192.0.2.1:7100 In"]);
        let told = found.list.rejected.to_string();
        assert!(
            told.starts_with("a.internal: 224.0.0.1:7100 is a multicast or broadcast address; "),
            "{told}"
        );
    }

    /// SRV records for these hosts, each with an address of its own but those that fail.
    fn services(hosts: &[&'static str], failing: &[&str]) -> Zone {
        let mut srv = records("_chat._tcp.internal", &[], 60);
        srv.targets = hosts.iter().map(|host| target(1, 1, host)).collect();
        let mut zone = Zone::default();
        zone.records.push(("_chat._tcp.internal", Rtype::SRV, srv));
        for host in hosts.iter().filter(|host| !failing.contains(host)) {
            let address = format!("192.0.2.{}", host.as_bytes()[0]);
            zone = zone.with(host, Rtype::A, &[&address], 60).with(host, Rtype::AAAA, &[], 60);
        }
        zone
    }

    #[test]
    fn one_target_that_fails_takes_nothing_from_the_others() {
        let hosts = ["a.internal", "b.internal", "c.internal", "d.internal"];
        let all = ["192.0.2.97:7100 In", "192.0.2.98:7100 In", "192.0.2.99:7100 In", "192.0.2.100:7100 In"];
        let srv = || lookup(DnsQuery::Srv { name: "_chat._tcp.internal".to_owned() });
        for (at, failing) in hosts.iter().enumerate() {
            let zone = services(&hosts, &[failing]);
            // At the first look there is nothing that could stay.
            let found = srv().look(&zone).unwrap();
            let others: Vec<&str> = all.iter().filter(|line| **line != all[at]).copied().collect();
            assert_eq!(lines(&found), others);
            let told = found.list.rejected.to_string();
            assert!(
                told.starts_with(&format!("{failing}: the DNS server 192.0.2.53:53 says SERVFAIL; ")),
                "{told}"
            );
            assert_eq!(found.ttl, FAILED_MAX, "it is asked for again before the others end");
            // Later what was known of it stays, as often as it fails; also over a restart.
            let mut look = srv();
            let before = look.look(&services(&hosts, &[])).unwrap();
            assert_eq!(
                (lines(&before), before.ttl),
                (all.map(str::to_owned).to_vec(), Duration::from_secs(60))
            );
            for _ in 0..3 {
                assert_eq!(lines(&look.look(&zone).unwrap()), all);
            }
            let mut restarted = srv();
            restarted.recall(&before.list.endpoints);
            let mut found = lines(&restarted.look(&zone).unwrap());
            found.sort_by_key(|line| all.iter().position(|one| one == line));
            assert_eq!(found, all);
            // A host that the service records no longer name is not kept.
            let rest: Vec<&str> = hosts.iter().filter(|host| *host != failing).copied().collect();
            assert_eq!(lines(&look.look(&services(&rest, &[])).unwrap()), others);
        }
        assert!(srv().look(&services(&hosts, &hosts)).is_err(), "nothing is known of any");
    }

    #[test]
    fn of_very_many_targets_the_first_ones_are_looked_up() {
        let names: Vec<&'static str> =
            (0..TARGETS_MAX + 3).map(|number| &*format!("n{number}.internal").leak()).collect();
        let found = lookup(DnsQuery::Srv { name: "_chat._tcp.internal".to_owned() });
        let found = { found }.look(&services(&names, &[])).unwrap();
        // All have one address here.
        assert_eq!((lines(&found).len(), found.list.rejected.count()), (TARGETS_MAX, 3));
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
