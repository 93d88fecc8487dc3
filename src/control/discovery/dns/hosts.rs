//! The addresses of hosts.
//!
//! Both families of a host are asked for side by side, and so are the hosts of one answer. A family or a host that fails
//! takes nothing from the others: they are used, and of the failing one the addresses that were known stay.

use super::message::{Host, Question, Records};
use super::resolver::{DnsError, Resolver};
use domain::base::iana::Rtype;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;
use std::{panic, thread};

/// Questions of one look that are under way at once.
const AT_ONCE_MAX: usize = 16;
/// Looks that do without a family that cannot be had: it takes a server's whole time to see that it is silent.
pub(super) const LOOKS_WITHOUT: u32 = 10;

/// Who answers questions.
pub(super) trait Ask: Sync {
    fn ask(&self, question: &Question) -> Result<Records, DnsError>;
}

impl Ask for Resolver<'_> {
    fn ask(&self, question: &Question) -> Result<Records, DnsError> {
        Resolver::ask(self, question)
    }
}

/// What is known of a host's addresses: of IPv4, and of IPv6.
type Known = [Vec<IpAddr>; 2];

/// What is said of one family of a host: its addresses, and how long they hold.
type Said = Result<(Vec<IpAddr>, Option<Duration>), DnsError>;

/// What some hosts have.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) addresses: BTreeMap<Host, Vec<IpAddr>>,
    /// What failed of them, in order.
    pub(super) failures: Vec<Failure>,
}

/// One host, or one family of its addresses, that cannot be had.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) host: Host,
    /// The family; `None`: both.
    rtype: Option<Rtype>,
    pub(super) error: DnsError,
    /// Addresses that were known of it, and stay.
    kept: usize,
    /// The other family has addresses.
    pub(super) is_found: bool,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { host, rtype, error, kept, .. } = self;
        match rtype {
            Some(rtype) => write!(f, "{host} {rtype}: {error}; ")?,
            None => write!(f, "{host}: {error}; ")?,
        }
        match kept {
            0 => f.write_str("no addresses are known of it"),
            kept => write!(f, "known addresses that stay: {kept}"),
        }
    }
}

/// What the hosts of the last look had.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    known: BTreeMap<Host, Known>,
    /// Looks until IPv6 is asked for again where nobody has it: it could not be had.
    without_six: u32,
}

impl Hosts {
    /// What an earlier process knew of a host.
    pub(super) fn recall(&mut self, host: Host, ips: impl Iterator<Item = IpAddr>) {
        let (four, six) = ips.partition(IpAddr::is_ipv4);
        self.known.insert(host, [four, six]);
    }

    /// All addresses of some hosts, of both families.
    pub(super) fn addresses(&mut self, ask: &dyn Ask, hosts: &[Host], ttl: &mut Ttl) -> Found {
        self.without_six = self.without_six.saturating_sub(1);
        let has_only_four =
            |host| matches!(self.known.get(host), Some([four, six]) if !four.is_empty() && six.is_empty());
        let questions = hosts.iter().flat_map(|host| {
            let six = self.without_six == 0 || !has_only_four(host);
            [Some((host, Rtype::A)), six.then_some((host, Rtype::AAAA))].into_iter().flatten()
        });
        let questions: Vec<(&Host, Rtype)> = questions.collect();
        let mut answers = side_by_side(&questions, |(host, rtype)| follow(ask, host, *rtype)).into_iter();
        let mut said: BTreeMap<&Host, Vec<Said>> = BTreeMap::new();
        for (host, _) in questions {
            said.entry(host).or_default().extend(answers.next());
        }
        let (mut known, mut failures, mut without_six) = (BTreeMap::new(), Vec::new(), false);
        for (host, said) in said {
            let mut said = said.into_iter();
            let four = said.next().unwrap_or(Ok((Vec::new(), None)));
            let six = match said.next() {
                Some(six) => six,
                // Nobody has asked; without addresses of the other family somebody has to.
                None if four.as_ref().is_ok_and(|(ips, _)| ips.is_empty()) => follow(ask, host, Rtype::AAAA),
                None => Ok((Vec::new(), None)),
            };
            let before = self.known.get(host).cloned().unwrap_or_default();
            without_six |= four.is_ok() && six.is_err() && before.get(1).is_none_or(Vec::is_empty);
            let (now, failure) = both(host, [four, six], before, ttl);
            failures.extend(failure);
            known.insert(host.clone(), now);
        }
        if without_six {
            self.without_six = LOOKS_WITHOUT;
        }
        self.known = known;
        let addresses = self.known.iter().map(|(host, known)| (host.clone(), known.concat())).collect();
        Found { addresses, failures }
    }
}

/// What both families of a host have, with what was known `before` of one that fails.
fn both(host: &Host, families: [Said; 2], before: Known, ttl: &mut Ttl) -> (Known, Option<Failure>) {
    let has_some = |said: &Said| said.as_ref().is_ok_and(|(ips, _)| !ips.is_empty());
    let is_found = families.iter().any(has_some);
    let (mut known, mut failure): (Known, Option<Failure>) = (before, None);
    for ((said, known), rtype) in families.into_iter().zip(&mut known).zip([Rtype::A, Rtype::AAAA]) {
        match said {
            Ok((ips, least)) => {
                // An empty family says little about how long the other holds.
                if !ips.is_empty() || !is_found {
                    ttl.note(least);
                }
                *known = ips;
            }
            // A family without addresses is often one that no server answers for.
            Err(_) if is_found && known.is_empty() => {}
            Err(error) => {
                let (rtype, before) = match &failure {
                    None => (Some(rtype), 0),
                    Some(failure) => (None, failure.kept),
                };
                let kept = known.len().saturating_add(before);
                failure = Some(Failure { host: host.clone(), rtype, error, kept, is_found });
            }
        }
    }
    (known, failure)
}

/// Does everything, some of it at once, each on a thread; what comes of it is in the same order.
fn side_by_side<T: Sync, R: Send>(all: &[T], act: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let act = &act;
    let some_at_once = |some: &[T]| {
        thread::scope(|scope| {
            let mut some = some.iter();
            let first = some.next();
            let begin = |one| {
                (one, thread::Builder::new().name("dns".to_owned()).spawn_scoped(scope, move || act(one)))
            };
            let begun: Vec<_> = some.map(begin).collect();
            let mut done: Vec<R> = first.map(act).into_iter().collect();
            for (one, thread) in begun {
                done.push(match thread {
                    Ok(thread) => thread.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked)),
                    // The system has no thread left.
                    Err(_) => act(one),
                });
            }
            done
        })
    };
    all.chunks(AT_ONCE_MAX).flat_map(some_at_once).collect()
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
pub(super) struct Ttl(pub(super) Option<Duration>);

impl Ttl {
    pub(super) fn note(&mut self, ttl: Option<Duration>) {
        self.0 = self.0.into_iter().chain(ttl).min();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_side_by_side_is_in_order_and_complete() {
        let all: Vec<usize> = (0..AT_ONCE_MAX * 2 + 1).collect();
        assert_eq!(side_by_side(&all, |at| *at), all);
        assert_eq!(side_by_side(&[], |(): &()| ()), []);
        let panicked = panic::catch_unwind(|| side_by_side(&[1, 2], |at| assert!(*at < 2, "on purpose")));
        assert!(panicked.is_err(), "it is not swallowed");
    }
}
