//! A ring of hashes: a caller's calls go to the same endpoint for as long as it is there, and one that comes or goes moves
//! only the callers that must move. Every worker and every gateway that knows the same endpoints has the same ring.

use crate::base::rng::mix;
use std::net::{IpAddr, SocketAddr};

/// Places of an endpoint of the usual weight.
const PLACES: u32 = 128;
/// Places of the whole ring. Above it everybody has half as many, or a quarter: by halves, so that one more endpoint does
/// not change how many the others have.
const PLACES_MAX: u64 = 16 * 1024;

/// See the module's page.
#[derive(Debug, Clone, Default)]
pub(super) struct Ring {
    /// A hash and who has it, by hash.
    places: Vec<(u64, u32)>,
    /// Where hashes with these upper bits begin.
    starts: Vec<u32>,
    shift: u32,
    made_of: Vec<(SocketAddr, u32)>,
}

impl Ring {
    /// The ring of endpoints and their weights, in hundredths of the usual one.
    pub(super) fn new(members: Vec<(SocketAddr, u32)>) -> Ring {
        let wanted = |halvings: u32| -> u64 {
            members.iter().map(|(_, weight)| u64::from(count(*weight, halvings))).sum()
        };
        let halvings = (0..32).find(|halvings| wanted(*halvings) <= PLACES_MAX).unwrap_or(32);
        let mut places = Vec::new();
        for (at, (address, weight)) in (0u32..).zip(&members) {
            let own = hash(*address);
            let place = |n: u32| (mix(own ^ mix(u64::from(n).wrapping_add(1))), at);
            places.extend((0..count(*weight, halvings)).map(place));
        }
        places.sort_unstable();
        let bits = places.len().next_power_of_two().trailing_zeros().max(1);
        let shift = u64::BITS.saturating_sub(bits);
        let mut ring = Ring { places, starts: Vec::new(), shift, made_of: members };
        ring.index(bits);
        ring
    }

    /// Whether it is the ring of these.
    pub(super) fn is_of(&self, members: &[(SocketAddr, u32)]) -> bool {
        self.made_of == members
    }

    /// The places from a key's own on, once round.
    pub(super) fn from(&self, key: u64) -> impl Iterator<Item = usize> + '_ {
        // Keys may be near each other; the ring needs them far apart.
        let key = mix(key);
        let bucket = usize::try_from(key >> self.shift).unwrap_or_default();
        let start =
            self.starts.get(bucket).and_then(|start| usize::try_from(*start).ok()).unwrap_or_default();
        let later = self.places.get(start..).unwrap_or_default();
        let skipped = later.iter().take_while(|(hash, _)| *hash < key).count();
        let start = start.saturating_add(skipped);
        let (before, behind) = self.places.split_at_checked(start).unwrap_or_default();
        behind.iter().chain(before).filter_map(|(_, at)| usize::try_from(*at).ok())
    }

    fn index(&mut self, bits: u32) {
        let buckets = 1u64.checked_shl(bits).unwrap_or(1);
        let mut at = 0usize;
        for bucket in 0..buckets {
            while self.places.get(at).is_some_and(|(hash, _)| hash >> self.shift < bucket) {
                at = at.saturating_add(1);
            }
            self.starts.push(u32::try_from(at).unwrap_or(u32::MAX));
        }
    }
}

/// Places of one endpoint: at least one if it has a weight.
fn count(weight: u32, halvings: u32) -> u32 {
    let whole = u64::from(weight).saturating_mul(u64::from(PLACES)) / 100;
    let places = whole.checked_shr(halvings).unwrap_or_default().max(u64::from(weight > 0));
    u32::try_from(places).unwrap_or(u32::MAX)
}

/// The same in every process.
fn hash(address: SocketAddr) -> u64 {
    let ip = match address.ip() {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    };
    let [low, high] =
        [ip & u128::from(u64::MAX), ip >> 64].map(|half| u64::try_from(half).unwrap_or_default());
    mix(mix(mix(low).wrapping_add(high)).wrapping_add(u64::from(address.port())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn members(ports: impl Iterator<Item = u16>) -> Vec<(SocketAddr, u32)> {
        ports.map(|port| (SocketAddr::from(([192, 0, 2, 1], port)), 100)).collect()
    }

    fn owner(ring: &Ring, key: u64) -> SocketAddr {
        ring.made_of[ring.from(key).next().unwrap()].0
    }

    proptest! {
        #[test]
        fn one_that_goes_moves_only_its_own(count in 2u16..60, gone in any::<proptest::sample::Index>()) {
            let all = members(1..=count);
            let mut fewer = all.clone();
            let gone = fewer.remove(gone.index(all.len())).0;
            let (all, fewer) = (Ring::new(all), Ring::new(fewer));
            for key in 0..2000 {
                let before = owner(&all, key);
                prop_assert!(before == gone || owner(&fewer, key) == before, "key {key} moved for nothing");
            }
        }

        #[test]
        fn each_place_is_the_next_one(count in 1u16..40, key in any::<u64>()) {
            let ring = Ring::new(members(1..=count));
            let next = ring.places.iter().find(|(hash, _)| *hash >= mix(key)).or(ring.places.first());
            prop_assert_eq!(ring.from(key).next(), next.map(|(_, at)| *at as usize));
            prop_assert_eq!(ring.from(key).count(), ring.places.len(), "and once round");
        }
    }

    #[test]
    fn shares_follow_weights() {
        let mut all = members(1..=10);
        all[0].1 = 300;
        let ring = Ring::new(all.clone());
        let first = (0..100_000).filter(|key| owner(&ring, *key) == all[0].0).count();
        assert!((20_000..30_000).contains(&first), "300 of 1200: {first}");
    }

    #[test]
    fn the_ring_is_the_same_in_every_process() {
        let ring = Ring::new(members(1..=100));
        let owners: Vec<u16> = (0..8).map(|key| owner(&ring, key).port()).collect();
        assert_eq!(owners, [15, 89, 42, 38, 9, 27, 16, 5], "a change moves every user of every deployment");
        assert_eq!(Ring::new(Vec::new()).from(1).next(), None);
    }

    #[test]
    fn a_large_service_has_a_bounded_ring() {
        let ring = Ring::new(members(1..=3000));
        assert!(ring.places.len() as u64 <= PLACES_MAX);
        assert!((1..=3000u16).all(|at| ring.places.iter().any(|place| place.1 == u32::from(at) - 1)));
        let heavy = Ring::new(vec![(SocketAddr::from(([192, 0, 2, 1], 1)), 10_000_000); 3]);
        assert!(heavy.places.len() as u64 <= PLACES_MAX);
    }
}
