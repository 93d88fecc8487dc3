//! The one with the least to do for its weight, kept as a knock-out tournament: O(1) to ask, O(log n) to change. Among
//! equals it is the one whose last call is longest ago.

/// A place's key: what it has to do, and when it was last given something.
type Key = (u64, u64);

/// See the module's page.
#[derive(Debug, Clone, Default)]
pub(super) struct Least {
    keys: Vec<Key>,
    weights: Vec<u32>,
    /// The winners, the final one at 1; the places themselves stand from `half` on.
    winners: Vec<u32>,
    half: usize,
}

impl Least {
    /// Places with these weights, calls outstanding, and last calls.
    pub(super) fn new(weights: &[u32], work: impl Iterator<Item = (u32, u64)>) -> Least {
        let half = weights.len().next_power_of_two();
        let mut winners = vec![u32::MAX; half.saturating_mul(2)];
        let places = winners.get_mut(half..).unwrap_or_default();
        places.iter_mut().zip(0u32..).take(weights.len()).for_each(|(place, at)| *place = at);
        let keys = weights.iter().zip(work).map(|(weight, (out, last))| (load(out, *weight), last)).collect();
        let mut least = Least { keys, weights: weights.to_vec(), winners, half };
        (1..half).rev().for_each(|node| least.play(node));
        least
    }

    /// The one with the least to do.
    pub(super) fn first(&self) -> Option<usize> {
        let winner = *self.winners.get(1)?;
        if winner == u32::MAX { None } else { usize::try_from(winner).ok() }
    }

    /// What to compare places by, when the first is not the one.
    pub(super) fn key(&self, at: usize) -> Key {
        self.keys.get(at).copied().unwrap_or((u64::MAX, u64::MAX))
    }

    /// A place has so many calls outstanding now; `last` tells when it had its last one.
    pub(super) fn set(&mut self, at: usize, outstanding: u32, last: u64) {
        let Some((key, weight)) = self.keys.get_mut(at).zip(self.weights.get(at)) else { return };
        *key = (load(outstanding, *weight), last);
        let mut node = self.half.saturating_add(at) / 2;
        while node >= 1 {
            self.play(node);
            node /= 2;
        }
    }

    fn play(&mut self, node: usize) {
        let side = |at: usize| self.winners.get(at).copied().unwrap_or(u32::MAX);
        let (left, right) = (side(node.wrapping_mul(2)), side(node.wrapping_mul(2).wrapping_add(1)));
        let key = |at: u32| self.key(usize::try_from(at).unwrap_or(usize::MAX));
        let winner = if key(right) < key(left) { right } else { left };
        if let Some(place) = self.winners.get_mut(node) {
            *place = winner;
        }
    }
}

/// What one more call would mean to an endpoint of this weight.
fn load(outstanding: u32, weight: u32) -> u64 {
    (u64::from(outstanding).saturating_add(1) << 28).checked_div(u64::from(weight)).unwrap_or(u64::MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equals_take_turns_and_weight_counts() {
        let mut least = Least::new(&[100, 100, 200], [(0, 0); 3].into_iter());
        let mut outstanding = [0, 0, 0];
        let order: Vec<usize> = (0..4)
            .map(|_| {
                let at = least.first().unwrap();
                outstanding[at] += 1;
                least.set(at, outstanding[at], 0);
                at
            })
            .collect();
        assert_eq!((order, outstanding), (vec![2, 0, 1, 2], [1, 1, 2]));
        let mut idle = Least::new(&[1, 1, 1], [(0, 0); 3].into_iter());
        let turn = (1..=6).map(|call| {
            let at = idle.first().unwrap();
            idle.set(at, 1, call);
            idle.set(at, 0, call);
            at
        });
        assert_eq!(turn.collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
        assert_eq!(Least::new(&[], std::iter::empty()).first(), None);
    }

    proptest! {
        #[test]
        fn the_first_is_the_least(
            weights in proptest::collection::vec(1u32..100, 1..40),
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), 0u32..50, 0u64..5), 1..60),
        ) {
            let mut least = Least::new(&weights, weights.iter().map(|_| (0, 0)));
            for (at, outstanding, last) in changes {
                least.set(at.index(weights.len()), outstanding, last);
                let lowest = (0..weights.len()).map(|at| least.key(at)).min();
                prop_assert_eq!(least.first().map(|at| least.key(at)), lowest);
            }
        }
    }
}
