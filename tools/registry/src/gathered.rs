//! The instances of an answer on their way to a list: one for each address, sorted, and bounded.

use crate::watch::{Listed, Listing};
use crate::words::fit;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Of one service, in one answer; those with the highest addresses are left out. Far more than anybody follows, so that
/// it is they who choose.
const INSTANCES_MAX: usize = 16 * 1024;

/// The instances of one answer.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    listed: BTreeMap<SocketAddr, Listed>,
    rejected: usize,
    /// The first by their text: the same set of elements has the same reasons, in whatever order it is listed.
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
        // Both halves are within bounds, so that a long name leaves room for the reason.
        let reason = format!("{}: {}", fit(which), fit(why));
        let at = self.reasons.partition_point(|other| *other <= reason);
        if at < Listing::REASONS_MAX {
            self.reasons.insert(at, reason);
            self.reasons.truncate(Listing::REASONS_MAX);
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
///
/// # Errors
/// There is none: why, and what to register instead.
pub(crate) fn usable_address(host: &str, port: i64) -> Result<SocketAddr, &'static str> {
    let ip: IpAddr = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .map_err(|_| "not an IP address; register the IP address that the instance listens on")?;
    let port = u16::try_from(port).ok().filter(|port| *port > 0);
    let port = port.ok_or("not a port; register the port that the instance listens on, 1 to 65535")?;
    if ip.is_unspecified() || ip.is_multicast() || ip == Ipv4Addr::BROADCAST {
        return Err("an unspecified, multicast or broadcast address; register the unicast address that the \
                    instance listens on");
    }
    Ok(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::Health;

    fn listed(address: SocketAddr) -> Listed {
        Listed {
            id: String::new(),
            address,
            weight: 1,
            zone: String::new(),
            tags: vec![],
            health: Health::Good,
        }
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
    fn reasons_do_not_depend_on_the_order_of_elements() {
        let reasons = |numbers: &mut dyn Iterator<Item = usize>| {
            let mut gathered = Gathered::default();
            numbers.for_each(|number| gathered.reject(&format!("instance {number}"), "bad"));
            gathered.listing().reasons
        };
        let all = reasons(&mut (10..40));
        assert_eq!(
            (all.len(), all.first().map(String::as_str)),
            (Listing::REASONS_MAX, Some("instance 10: bad"))
        );
        assert_eq!(reasons(&mut (10..40).rev()), all);
    }

    #[test]
    fn addresses_are_ip_and_port() {
        assert_eq!(usable_address("[::1]", 80), Ok("[::1]:80".parse().unwrap()));
        let bad = [
            ("", 80, "not an IP"),
            ("web", 80, "not an IP"),
            ("10.0.0.1", 0, "not a port"),
            ("10.0.0.1", -1, "not a port"),
            ("10.0.0.1", 70_000, "not a port"),
            ("::", 80, "unspecified"),
            ("224.0.0.1", 80, "multicast"),
            ("255.255.255.255", 80, "broadcast"),
        ];
        for (host, port, why) in bad {
            let told = usable_address(host, port).unwrap_err();
            assert!(told.contains(why) && told.contains("; register the "), "{host} {port}: {told}");
        }
    }
}
