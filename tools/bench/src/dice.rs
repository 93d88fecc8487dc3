//! Randomness from a seed: the same seed, the same run, as far as the machine lets it.
//!
//! Source: SplitMix64, Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.

use std::time::Duration;

/// See the module's page.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    /// One of many: each number has dice of its own.
    pub(crate) fn new(seed: u64, number: u64) -> Dice {
        let mut dice = Dice(seed);
        Dice(dice.roll() ^ number.wrapping_mul(0xd134_2543_de82_ef95))
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below this number; 0 when there is none.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.roll().checked_rem(bound).unwrap_or_default()
    }

    /// An index of so many; 0 when there is none.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or_default()
    }

    /// Whether one in so many falls.
    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// A time below this one.
    pub(crate) fn within(&mut self, time: Duration) -> Duration {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.below(nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_says_it_all_and_numbers_differ() {
        let rolls = |seed, number| {
            let mut dice = Dice::new(seed, number);
            [(); 4].map(|()| dice.roll())
        };
        assert_eq!(rolls(7, 3), rolls(7, 3));
        assert_ne!(rolls(7, 3), rolls(7, 4));
        assert_ne!(rolls(7, 3), rolls(8, 3));
    }

    #[test]
    fn bounds_hold() {
        let mut dice = Dice::new(1, 1);
        assert!((0..1000).all(|_| dice.below(10) < 10));
        assert_eq!(dice.below(0), 0);
        assert!(dice.within(Duration::from_millis(5)) < Duration::from_millis(5));
        let ones = (0..4000).filter(|_| dice.one_in(4)).count();
        assert!((800..1200).contains(&ones), "{ones}");
    }
}
