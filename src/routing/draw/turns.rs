//! Taking turns by weight, smoothly: one with five times the weight has five times the turns, spread evenly between the
//! others'. nginx's smooth weighted round robin looks at every endpoint for each turn; here whose turn comes next
//! stands on a heap by the time it is due, which gives the same evenness in O(log n).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What the time between two turns is counted in: a weight of one waits for so long.
const STRIDE: u64 = 1 << 40;
/// Times are set back when they get here.
const HIGH: u64 = 1 << 62;

/// Whose turn it is.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns {
    /// When each is due, and who it is.
    due: BinaryHeap<Reverse<(u64, u32)>>,
    strides: Vec<u64>,
    /// The time of the last turn.
    now: u64,
}

impl Turns {
    /// `phases` says for each what part of its wait, in 65536ths, is still before it.
    pub(super) fn new(weights: &[u32], phases: impl Iterator<Item = u16>) -> Turns {
        let strides: Vec<u64> =
            weights.iter().map(|weight| STRIDE.checked_div(u64::from(*weight)).unwrap_or(STRIDE)).collect();
        let due = (0u32..).zip(strides.iter().zip(phases)).map(|(at, (stride, phase))| {
            let wait = u128::from(*stride).wrapping_mul(u128::from(phase)) >> 16;
            Reverse((u64::try_from(wait).unwrap_or(*stride), at))
        });
        Turns { due: due.collect(), strides, now: 0 }
    }

    /// Whose turn it is; the next call gives the next one.
    pub(super) fn next(&mut self) -> Option<usize> {
        let mut first = self.due.peek_mut()?;
        let Reverse((due, at)) = *first;
        let at = usize::try_from(at).ok()?;
        self.now = due;
        let stride = self.strides.get(at).copied().unwrap_or(STRIDE);
        first.0.0 = due.saturating_add(stride);
        drop(first);
        if due >= HIGH {
            self.set_back();
        }
        Some(at)
    }

    /// What [`Turns::new`] is to be given so that everybody's turn comes when it would have come.
    pub(super) fn phases(&self) -> Vec<u16> {
        let mut phases = vec![u16::MAX / 2; self.strides.len()];
        for Reverse((due, at)) in &self.due {
            let at = usize::try_from(*at).unwrap_or(usize::MAX);
            let Some(stride) = self.strides.get(at) else { continue };
            let wait = u128::from(due.saturating_sub(self.now));
            let phase = (wait << 16).checked_div(u128::from(*stride)).unwrap_or_default();
            if let Some(place) = phases.get_mut(at) {
                *place = u16::try_from(phase).unwrap_or(u16::MAX);
            }
        }
        phases
    }

    fn set_back(&mut self) {
        let now = std::mem::take(&mut self.now);
        let due = self.due.drain().map(|Reverse((due, at))| Reverse((due.saturating_sub(now), at)));
        self.due = due.collect::<Vec<_>>().into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn turns(weights: &[u32], phases: &[u16]) -> Turns {
        Turns::new(weights, phases.iter().copied())
    }

    #[test]
    fn the_heavy_one_does_not_have_all_its_turns_at_once() {
        let mut turns = turns(&[5, 1, 1], &[u16::MAX / 2; 3]);
        let order: Vec<usize> = (0..14).filter_map(|_| turns.next()).collect();
        for turn in order.chunks(7) {
            assert_eq!(turn.iter().filter(|at| **at == 0).count(), 5);
            assert!(!turn.starts_with(&[0, 0, 0, 0]) && !turn.ends_with(&[0, 0, 0, 0]), "{order:?}");
        }
        assert_eq!(Turns::default().next(), None);
    }

    #[test]
    fn setting_back_changes_nothing() {
        let mut turns = turns(&[3, 2], &[0, 0]);
        let mut other = turns.clone();
        for _ in 0..100 {
            other.set_back();
            assert_eq!(turns.next(), other.next());
        }
    }

    proptest! {
        /// However long one looks, nobody is ahead or behind by more than the turns that the others can owe each other.
        #[test]
        fn turns_are_smooth(weights in proptest::collection::vec(1u32..200, 1..12), cut in 1usize..400) {
            let mut turns = turns(&weights, &vec![u16::MAX / 2; weights.len()]);
            let total: u32 = weights.iter().sum();
            let mut had = vec![0u32; weights.len()];
            for turn in 1..=800u32 {
                had[turns.next().unwrap()] += 1;
                if turn as usize == cut {
                    // A new table with the old phases goes on where the old one was.
                    turns = Turns::new(&weights, turns.phases().into_iter());
                }
                for (had, weight) in had.iter().zip(&weights) {
                    let share = f64::from(*weight) / f64::from(total);
                    let due = f64::from(turn) * share;
                    let slack = 1.5 + share * (weights.len() as f64) / 2.0;
                    prop_assert!((f64::from(*had) - due).abs() <= slack, "{had} turns, {due} due, {weights:?}");
                }
            }
        }
    }
}
