//! The instances of an answer on their way to a list: one for each address, sorted, and bounded.

use crate::watch::{Listed, Listing};
use crate::words::fit;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Of one service, in one answer; those with the highest addresses are left out. Far more than anybody follows, so that
/// it is they who choose.
const INSTANCES_MAX: usize = 16 * 1024;

/// The instances of one answer.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    listed: BTreeMap<SocketAddr, Listed>,
    rejected: usize,
    reasons: Vec<String>,
}

impl Gathered {
    /// Of two at one address, the one with the better health counts: the other was left behind.
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

    /// Leaves out an element of the answer: which, and why.
    pub(crate) fn reject(&mut self, which: &str, why: &str) {
        self.rejected = self.rejected.saturating_add(1);
        if self.reasons.len() < Listing::REASONS_MAX {
            // Both halves are within bounds, so that a long name leaves room for the reason.
            self.reasons.push(format!("{}: {}", fit(which), fit(why)));
        }
    }

    /// Instances by address, and what is left out.
    pub(crate) fn listing(mut self) -> Listing {
        let over = self.listed.len().saturating_sub(INSTANCES_MAX);
        if over > 0 {
            self.reject("the highest addresses", &format!("more than {INSTANCES_MAX} instances are listed"));
            self.rejected = self.rejected.saturating_add(over).saturating_sub(1);
        }
        let instances = self.listed.into_values().take(INSTANCES_MAX).collect();
        Listing { instances, rejected: self.rejected, reasons: self.reasons }
    }
}

/// Where one can connect to; a name is none: registries list addresses, and DNS is a source of its own.
pub(crate) fn usable_address(host: &str, port: i64) -> Option<SocketAddr> {
    let ip: IpAddr = host.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    let port = u16::try_from(port).ok().filter(|port| *port > 0)?;
    (!ip.is_unspecified() && !ip.is_multicast()).then(|| SocketAddr::new(ip, port))
}

/// Why [`usable_address`] finds none.
pub(crate) const NO_ADDRESS: &str = "no IP address and port to connect to";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::Health;

    fn listed(address: SocketAddr) -> Listed {
        Listed { address, weight: 1, zone: String::new(), tags: vec![], health: Health::Good }
    }

    #[test]
    fn a_list_is_sorted_and_has_a_bound() {
        let at = |number: usize| {
            let ip = std::net::Ipv4Addr::from(0x0a00_0000 + u32::try_from(number).unwrap());
            listed(SocketAddr::new(ip.into(), 80))
        };
        let gathered = |count: usize| {
            let mut gathered = Gathered::default();
            (0..count).rev().for_each(|number| gathered.add(at(number)));
            gathered.add(at(1));
            gathered.listing()
        };
        let full = gathered(INSTANCES_MAX);
        assert!(full.instances.len() == INSTANCES_MAX && full.rejected == 0);
        assert!(full.instances.is_sorted_by_key(|listed| listed.address));
        let over = gathered(INSTANCES_MAX + 3);
        assert_eq!((over.instances, over.rejected), (full.instances, 3), "the rest is a list");
        assert_eq!(over.reasons, ["the highest addresses: more than 16384 instances are listed"]);
    }

    #[test]
    fn reasons_have_a_bound_and_are_fit_for_a_line() {
        let mut gathered = Gathered::default();
        let long = "x".repeat(100_000);
        (0..1000).for_each(|number| gathered.reject(&format!("{number}\x1b[2J{long}"), &long));
        let listing = gathered.listing();
        assert_eq!((listing.rejected, listing.reasons.len()), (1000, Listing::REASONS_MAX));
        assert!(listing.reasons.iter().all(|reason| reason.len() < 500 && !reason.contains('\x1b')));
    }

    #[test]
    fn addresses_are_ip_and_port() {
        assert_eq!(usable_address("[::1]", 80), Some("[::1]:80".parse().unwrap()));
        let bad =
            [("", 80), ("web", 80), ("10.0.0.1", 0), ("10.0.0.1", -1), ("10.0.0.1", 70_000), ("::", 80)];
        for (host, port) in bad {
            assert_eq!(usable_address(host, port), None, "{host} {port}");
        }
    }
}
