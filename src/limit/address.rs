//! Connections at once from one client address.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;

/// Counts connections by address. IPv6 clients own whole /64 networks, so those count as one address.
#[derive(Debug)]
pub struct AddressTable {
    max: u32,
    counts: Mutex<HashMap<IpAddr, u32, foldhash::fast::RandomState>>,
}

impl AddressTable {
    /// A table that allows `max` connections from each address.
    pub fn new(max: u32) -> AddressTable {
        AddressTable { max, counts: Mutex::default() }
    }

    /// Charges a connection to its address; `false`: the address has its share.
    pub fn charge(&self, address: IpAddr) -> bool {
        let mut counts = self.counts.lock();
        let count = counts.entry(network(address)).or_insert(0);
        let has_room = *count < self.max;
        if has_room {
            *count = count.saturating_add(1);
        }
        has_room
    }

    /// Gives a charge back.
    pub fn release(&self, address: IpAddr) {
        let mut counts = self.counts.lock();
        let address = network(address);
        if let Some(count) = counts.get_mut(&address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }
}

/// Whom an address stands for: itself, or the /64 network that an IPv6 client owns.
pub fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_and_gets_it_back() {
        let table = AddressTable::new(1);
        let (one, other): (IpAddr, IpAddr) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        assert!(table.charge(one) && !table.charge(one) && table.charge(other));
        table.release(one);
        assert!(table.charge(one));
        table.release(one);
        table.release(other);
        assert!(table.counts.lock().is_empty());
    }

    #[test]
    fn an_ipv6_network_is_one_owner() {
        let table = AddressTable::new(1);
        assert!(table.charge("2001:db8::1".parse().unwrap()));
        assert!(!table.charge("2001:db8::2".parse().unwrap()));
        assert!(table.charge("2001:db8:0:1::2".parse().unwrap()));
    }
}
