//! From a name to a list of endpoints, and when to look again.

use super::message::{Host, Question, Records, Target};
use super::resolver::{DnsError, Resolver};
use crate::control::discovery::{DnsQuery, DnsSettings};
use crate::routing::{Instance, Standing};
use domain::base::iana::Rtype;
use domain::base::name::FromStrError;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Hosts of one answer that are looked up because their addresses did not come along.
const TARGETS_MAX: usize = 256;
/// After a failure a name is looked up again no later than this.
const FAILED_MAX: Duration = Duration::from_secs(30);
/// Looks that do without a family that cannot be had: it takes a server's whole time to see that it is silent.
const LOOKS_WITHOUT: u32 = 10;

/// Who answers questions.
pub(super) trait Ask {
    fn ask(&self, question: &Question) -> Result<Records, DnsError>;
}

impl Ask for Resolver<'_> {
    fn ask(&self, question: &Question) -> Result<Records, DnsError> {
        Resolver::ask(self, question)
    }
}

/// A list, and how long it holds by what the servers say.
#[derive(Debug, PartialEq)]
pub(super) struct Found {
    pub(super) list: Vec<Instance>,
    pub(super) ttl: Duration,
}

/// One name that is looked up again and again.
#[derive(Debug)]
pub(super) struct Lookup {
    what: What,
    ttl_min: Duration,
    ttl_max: Duration,
    /// Hosts that had addresses of the second family.
    dual: BTreeSet<Host>,
    /// Look-ups in a row that failed.
    failures: u32,
    /// Looks until the second family is asked for again, where it was had before; it could not be had.
    without_six: u32,
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
        Ok(Lookup { what, ttl_min, ttl_max, dual: BTreeSet::new(), failures: 0, without_six: 0 })
    }

    /// Looks it up. Nothing found is a list, too; an error is none.
    pub(super) fn look(&mut self, ask: &dyn Ask) -> Result<Found, DnsError> {
        let mut ttl = Ttl(None);
        self.without_six = self.without_six.saturating_sub(1);
        let list = match &self.what {
            What::Host(name, port) => {
                let (name, port) = (name.clone(), *port);
                let addresses = self.addresses(ask, &name, &mut ttl)?;
                addresses.into_iter().map(|ip| Instance::at(SocketAddr::new(ip, port))).collect()
            }
            What::Srv(name) => {
                let records = ask.ask(&Question { name: name.clone(), rtype: Rtype::SRV })?;
                ttl.note(records.ttl);
                self.targets(ask, records, &mut ttl)?
            }
        };
        Ok(Found { list, ttl: ttl.0.unwrap_or_default() })
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

    /// All addresses of a host, of both families. One family that cannot be had is no reason to lose the other,
    /// unless there were addresses of it before.
    fn addresses(&mut self, ask: &dyn Ask, name: &Host, ttl: &mut Ttl) -> Result<Vec<IpAddr>, DnsError> {
        let four = follow(ask, name, Rtype::A)?;
        let can_do_without = !four.0.is_empty() && !self.dual.contains(name);
        let six = match can_do_without && self.without_six > 0 {
            true => (Vec::new(), None),
            false => match follow(ask, name, Rtype::AAAA) {
                Ok(six) => six,
                Err(_) if can_do_without => {
                    self.without_six = LOOKS_WITHOUT;
                    (Vec::new(), None)
                }
                Err(error) => return Err(error),
            },
        };
        if six.0.is_empty() {
            self.dual.remove(name);
        } else if self.dual.len() < TARGETS_MAX {
            self.dual.insert(name.clone());
        }
        let is_found = |family: &(Vec<IpAddr>, Option<Duration>)| !family.0.is_empty();
        // An empty family says little about how long the other holds.
        for family in [&four, &six] {
            if is_found(family) || !(is_found(&four) || is_found(&six)) {
                ttl.note(family.1);
            }
        }
        Ok(four.0.into_iter().chain(six.0).collect())
    }

    /// RFC 2782: the lowest priority is for use, the others for need.
    fn targets(&mut self, ask: &dyn Ask, records: Records, ttl: &mut Ttl) -> Result<Vec<Instance>, DnsError> {
        let Records { targets, beside, .. } = records;
        // One target that is the root: the service is decidedly not there.
        let targets: Vec<Target> = targets.into_iter().filter(|target| !target.host.is_root()).collect();
        let best = targets.iter().map(|target| target.priority).min();
        let mut hosts: BTreeMap<Host, Vec<IpAddr>> = BTreeMap::new();
        for target in &targets {
            if hosts.contains_key(&target.host) {
                continue;
            }
            let addresses = match beside.get(&target.host) {
                Some((addresses, least)) => {
                    ttl.note(Some(*least));
                    addresses.clone()
                }
                None if hosts.len() >= TARGETS_MAX => return Err(DnsError::TooManyTargets(TARGETS_MAX)),
                None => self.addresses(ask, &target.host, ttl)?,
            };
            hosts.insert(target.host.clone(), addresses);
        }
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

/// Addresses of one family, behind aliases that the server did not follow itself.
fn follow(ask: &dyn Ask, name: &Host, rtype: Rtype) -> Result<(Vec<IpAddr>, Option<Duration>), DnsError> {
    let (mut name, mut ttl) = (name.clone(), Ttl(None));
    for _ in 0..4 {
        let records = ask.ask(&Question { name: name.clone(), rtype })?;
        ttl.note(records.ttl);
        if !records.addresses.is_empty() || records.name == name {
            return Ok((records.addresses, ttl.0));
        }
        name = records.name;
    }
    Ok((Vec::new(), ttl.0))
}

/// The least of what all records say.
struct Ttl(Option<Duration>);

impl Ttl {
    fn note(&mut self, ttl: Option<Duration>) {
        self.0 = self.0.into_iter().chain(ttl).min();
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
    use super::*;
    use domain::base::iana::Rcode;
    use std::cell::RefCell;

    /// Answers by name and type; what is not there fails.
    #[derive(Default)]
    struct Zone {
        records: Vec<(&'static str, Rtype, Records)>,
        asked: RefCell<Vec<String>>,
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
            self.asked.borrow_mut().push(format!("{} {}", question.name, question.rtype));
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
        known.look(&both).unwrap();
        let four = both.without("chat.internal", Rtype::AAAA);
        assert!(known.look(&four).is_err(), "it had addresses before");
        assert_eq!(host().look(&four).unwrap().list.len(), 1, "it never had any");
        let none = Zone::default().with("chat.internal", Rtype::A, &[], 30);
        assert!(host().look(&none).is_err(), "nobody knows whether there are any");
        let none = none.with("chat.internal", Rtype::AAAA, &[], 30);
        assert_eq!(host().look(&none).unwrap().list, [], "everybody says that there are none");
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
        let sixes = zone.asked.borrow().iter().filter(|asked| asked.ends_with("AAAA")).count();
        assert_eq!(sixes, 2, "in the first look and in the last");
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
        assert!(zone.asked.borrow().iter().all(|asked| !asked.starts_with("a.internal")), "it came along");
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
