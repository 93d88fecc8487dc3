//! The instances of an answer on their way to a list: one for each address, sorted, and bounded.

use crate::watch::Listed;
use crate::words::fit;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// Of one service, in one answer; those with the highest addresses are left out. Far more than anybody follows, so that
/// it is they who choose.
const INSTANCES_MAX: usize = 16 * 1024;
/// Of one answer, told apart.
const SKIPS_MAX: usize = 32;

/// The instances of one answer.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    listed: BTreeMap<SocketAddr, Listed>,
    skipped: BTreeSet<String>,
}

impl Gathered {
    /// Of two at one address, the one that the registry thinks better of counts: the other was left behind.
    pub(crate) fn add(&mut self, mut listed: Listed) {
        listed.tags.sort_unstable();
        listed.tags.dedup();
        match self.listed.get_mut(&listed.address) {
            Some(other) if other.health <= listed.health => {}
            Some(other) => *other = listed,
            None => {
                self.listed.insert(listed.address, listed);
            }
        }
    }

    /// One that cannot be used, in words.
    pub(crate) fn skip(&mut self, what: &str) {
        if self.skipped.len() < SKIPS_MAX {
            self.skipped.insert(fit(what));
        }
    }

    pub(crate) fn skipped(&self) -> &BTreeSet<String> {
        &self.skipped
    }

    /// More than are taken.
    fn over(&self) -> usize {
        self.listed.len().saturating_sub(INSTANCES_MAX)
    }

    /// By address.
    pub(crate) fn list(self) -> Vec<Listed> {
        self.listed.into_values().take(INSTANCES_MAX).collect()
    }
}

/// Where one can connect to; a name is none: registries list addresses, and DNS is a source of its own.
pub(crate) fn usable_address(host: &str, port: u64) -> Option<SocketAddr> {
    let ip: IpAddr = host.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    let port = u16::try_from(port).ok().filter(|port| *port > 0)?;
    (!ip.is_unspecified() && !ip.is_multicast()).then(|| SocketAddr::new(ip, port))
}

/// Tells in the log what is skipped, each once, as long as it is listed.
#[derive(Debug, Default)]
pub(crate) struct Skips {
    told: BTreeSet<String>,
    over: usize,
}

impl Skips {
    pub(crate) fn tell(&mut self, service: &str, gathered: &Gathered) {
        for what in gathered.skipped().difference(&self.told) {
            log::warn!(
                "{service}: {what} is skipped: it has no IP address and port that can be connected to"
            );
        }
        self.told.clone_from(gathered.skipped());
        let over = gathered.over();
        if over > 0 && self.over == 0 {
            log::warn!("{service}: {over} instances are left out: more than {INSTANCES_MAX} are listed");
        }
        self.over = over;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::Health;

    #[test]
    fn a_list_is_sorted_and_has_a_bound() {
        let mut gathered = Gathered::default();
        let mut add = |number: usize| {
            let ip = std::net::Ipv4Addr::from(0x0a00_0000 + u32::try_from(number).unwrap());
            let address = SocketAddr::new(ip.into(), 80);
            gathered.add(Listed {
                address,
                weight: 1,
                zone: String::new(),
                tags: vec![],
                health: Health::Good,
            });
        };
        (0..INSTANCES_MAX).rev().for_each(&mut add);
        add(1);
        assert_eq!(gathered.over(), 0);
        let list = gathered.list();
        assert!(list.len() == INSTANCES_MAX && list.is_sorted_by_key(|listed| listed.address));
        let mut gathered =
            Gathered { listed: list.into_iter().map(|l| (l.address, l)).collect(), ..Gathered::default() };
        let mut one_more = gathered.listed.values().next().unwrap().clone();
        one_more.address = "10.1.0.0:80".parse().unwrap();
        gathered.add(one_more);
        assert_eq!((gathered.over(), gathered.list().len()), (1, INSTANCES_MAX), "the rest is a list");
    }

    #[test]
    fn what_is_skipped_has_a_bound_and_is_fit_for_a_line() {
        let mut gathered = Gathered::default();
        (0..1000).for_each(|number| gathered.skip(&format!("{number}\x1b[2J{}", "x".repeat(100_000))));
        assert_eq!(gathered.skipped().len(), SKIPS_MAX);
        assert!(gathered.skipped().iter().all(|what| what.len() < 300 && !what.contains('\x1b')));
    }

    #[test]
    fn addresses_are_ip_and_port() {
        assert_eq!(usable_address("[::1]", 80), Some("[::1]:80".parse().unwrap()));
        for (host, port) in [("", 80), ("web", 80), ("10.0.0.1", 0), ("10.0.0.1", 70_000), ("::", 80)] {
            assert_eq!(usable_address(host, port), None, "{host} {port}");
        }
    }
}
