//! The faults of the fault-injection proxy. The plan of a connection follows from the seed and the connection's number
//! alone, so that a run can be repeated.

use crate::cutting::Cut;
use crate::dice::Dice;
use std::time::Duration;

/// Which connections end with a fault, and how.
#[derive(Debug, Clone)]
pub(crate) struct Faults {
    pub(crate) seed: u64,
    /// Of all connections.
    pub(crate) percent: u8,
    /// A fault happens after at most so many bytes, both directions counted.
    pub(crate) bytes: u64,
    /// And at most so long after the connect.
    pub(crate) within: Duration,
    /// Equally likely; without any there is no fault.
    pub(crate) kinds: Vec<Cut>,
}

/// How and when one connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) cut: Cut,
    /// After so many bytes, both directions counted.
    pub(crate) bytes: u64,
    /// Or so long after the connect.
    pub(crate) after: Duration,
}

impl Faults {
    /// The fault of the connection with this number, if it has one, and the connection's randomness for the rest.
    pub(crate) fn plan(&self, number: u64) -> (Option<Fault>, Dice) {
        let mut dice = Dice::new(self.seed, number);
        let is_faulty = dice.below(100) < u64::from(self.percent);
        let cut = self.kinds.get(dice.index(self.kinds.len())).copied();
        let (bytes, after) = (dice.below(self.bytes), dice.within(self.within));
        (cut.filter(|_| is_faulty).map(|cut| Fault { cut, bytes, after }), dice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(seed: u64) -> Faults {
        let kinds = vec![Cut::Close, Cut::Reset, Cut::HalfOpen];
        Faults { seed, percent: 50, bytes: 1000, within: Duration::from_secs(1), kinds }
    }

    #[test]
    fn plans_follow_from_the_seed_and_stay_within_bounds() {
        let plans =
            |seed| -> Vec<Option<Fault>> { (0..600).map(|number| faults(seed).plan(number).0).collect() };
        assert_eq!(plans(7), plans(7));
        assert_ne!(plans(7), plans(8));
        let happen: Vec<Fault> = plans(7).into_iter().flatten().collect();
        assert!((250..350).contains(&happen.len()), "{}", happen.len());
        assert!(happen.iter().all(|fault| fault.bytes < 1000 && fault.after < Duration::from_secs(1)));
        for cut in [Cut::Close, Cut::Reset, Cut::HalfOpen] {
            let count = happen.iter().filter(|fault| fault.cut == cut).count();
            assert!((60..140).contains(&count), "{cut:?}: {count}");
        }
    }

    #[test]
    fn no_kinds_or_no_percentage_is_no_fault() {
        let without = [Faults { kinds: Vec::new(), ..faults(1) }, Faults { percent: 0, ..faults(1) }];
        assert!(without.iter().all(|faults| (0..100).all(|number| faults.plan(number).0.is_none())));
    }
}
