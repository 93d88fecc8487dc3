//! Which address comes next.
//!
//! A *round* tries each address of the application's list once. The list is asked for again before each round; an empty
//! answer leaves the one before in force, for those who keep such lists answer empty when they restart. Addresses that
//! a gateway has named come first, once each.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Addresses of a list, and named by a gateway, beyond this are left out.
pub const ADDRESSES_MAX: usize = 64;

/// In which order the addresses of a round are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// One after the other, going on where it stopped; the first one is drawn.
    #[default]
    RoundRobin,
    /// By a hash of the device id and each address: a device comes back to the same gateway as long as it is there.
    DeviceHash,
    /// In the order of the list, always from its start: the first is the favourite.
    Failover,
}

/// See the module's page.
#[derive(Debug)]
pub(super) struct Addresses {
    policy: Policy,
    device_id: String,
    list: Vec<String>,
    /// What the round still has to try.
    round: VecDeque<String>,
    /// What a gateway has named.
    named: VecDeque<String>,
    turn: usize,
}

impl Addresses {
    /// `turn` is drawn, so that not every client begins with the first.
    pub(super) fn new(policy: Policy, device_id: String, turn: usize) -> Addresses {
        Addresses {
            policy,
            device_id,
            list: Vec::new(),
            round: VecDeque::new(),
            named: VecDeque::new(),
            turn,
        }
    }

    /// Whether the next round needs the list first.
    pub(super) fn is_round_over(&self) -> bool {
        self.round.is_empty() && self.named.is_empty()
    }

    /// The list has come; a round begins.
    pub(super) fn listed(&mut self, mut list: Vec<String>) {
        list.truncate(ADDRESSES_MAX);
        if !list.is_empty() {
            self.list = list;
        }
        let mut order = self.list.clone();
        match self.policy {
            Policy::Failover => {}
            Policy::RoundRobin if order.is_empty() => {}
            Policy::RoundRobin => {
                let turn = self.turn % order.len();
                order.rotate_left(turn);
            }
            Policy::DeviceHash => order.sort_by_key(|address| self.rank(address)),
        }
        self.round = order.into();
    }

    /// Rendezvous hashing: who leaves the list moves only those that were with it.
    fn rank(&self, address: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.device_id, address).hash(&mut hasher);
        hasher.finish()
    }

    /// A gateway has said where to go.
    pub(super) fn name(&mut self, addresses: &[String]) {
        if !addresses.is_empty() {
            self.named = addresses.iter().take(ADDRESSES_MAX).cloned().collect();
        }
    }

    /// The next one to try; `None`: the list is empty.
    pub(super) fn next(&mut self) -> Option<String> {
        if let Some(address) = self.named.pop_front() {
            return Some(address);
        }
        let address = self.round.pop_front()?;
        self.turn = self.turn.wrapping_add(1);
        Some(address)
    }

    /// A session has stood: what the round has left is too old.
    pub(super) fn end_round(&mut self) {
        self.round.clear();
        self.named.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &str) -> Vec<String> {
        names.chars().map(String::from).collect()
    }

    fn round(addresses: &mut Addresses, names: &str) -> String {
        addresses.listed(list(names));
        std::iter::from_fn(|| addresses.next()).collect()
    }

    #[test]
    fn round_robin_goes_on_where_it_stopped() {
        let mut addresses = Addresses::new(Policy::RoundRobin, String::new(), 1);
        assert_eq!(round(&mut addresses, "abc"), "bca");
        addresses.listed(list("abc"));
        assert_eq!(addresses.next().as_deref(), Some("b"));
        addresses.end_round();
        assert!(addresses.is_round_over());
        assert_eq!(round(&mut addresses, "abc"), "cab");
    }

    #[test]
    fn failover_begins_with_the_favourite() {
        let mut addresses = Addresses::new(Policy::Failover, String::new(), 1);
        assert_eq!(round(&mut addresses, "abc"), "abc");
        assert_eq!(round(&mut addresses, "abc"), "abc");
    }

    #[test]
    fn a_device_keeps_its_order_when_others_come_and_go() {
        let order = |device: &str, names: &str| {
            round(&mut Addresses::new(Policy::DeviceHash, device.to_owned(), 5), names)
        };
        let firsts: std::collections::BTreeSet<_> =
            (0..50).filter_map(|device| order(&device.to_string(), "abcd").chars().next()).collect();
        assert_eq!(firsts.len(), 4, "devices spread");
        for device in 0..50 {
            let (all, fewer) = (order(&device.to_string(), "abcd"), order(&device.to_string(), "dba"));
            assert_eq!(all.replace('c', ""), fewer);
        }
    }

    // spec: X-7
    #[test]
    fn what_a_gateway_names_comes_first_and_once() {
        let mut addresses = Addresses::new(Policy::Failover, String::new(), 0);
        addresses.listed(list("ab"));
        addresses.name(&list("xy"));
        addresses.name(&[]);
        let all: String = std::iter::from_fn(|| addresses.next()).collect();
        assert_eq!(all, "xyab");
        assert!(addresses.is_round_over());
    }

    #[test]
    fn an_empty_list_leaves_the_one_before_and_long_ones_are_cut() {
        let mut addresses = Addresses::new(Policy::Failover, String::new(), 0);
        assert_eq!(round(&mut addresses, ""), "");
        assert_eq!(round(&mut addresses, "ab"), "ab");
        assert_eq!(round(&mut addresses, ""), "ab");
        assert_eq!(round(&mut addresses, &"a".repeat(1000)).len(), ADDRESSES_MAX);
        addresses.name(&list(&"b".repeat(1000)));
        assert_eq!(addresses.named.len(), ADDRESSES_MAX);
    }
}
