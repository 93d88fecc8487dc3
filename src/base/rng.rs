//! Random numbers from a seed that the caller gives: for jitter and choices, never for secrets.

use std::time::Duration;

/// `SplitMix64` (Steele, Lea, Flood 2014): small, fast, good enough to spread load.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`, or 0 when the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.next_u64()).wrapping_mul(u128::from(bound));
        u64::try_from(wide >> 64).unwrap_or_default()
    }

    /// A length between zero and `max`.
    pub fn up_to(&mut self, max: Duration) -> Duration {
        let nanos = u64::try_from(max.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.below(nanos.saturating_add(1)))
    }
}

const MIX: [u64; 2] = [0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb];

/// The finalizer of `SplitMix64`: a bijection, after which near numbers are far from each other.
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(MIX[0]);
    z = (z ^ (z >> 27)).wrapping_mul(MIX[1]);
    z ^ (z >> 31)
}

/// [`mix`] undone.
pub fn unmix(mut z: u64) -> u64 {
    z = unshift(z, 31).wrapping_mul(inverse(MIX[1]));
    z = unshift(z, 27).wrapping_mul(inverse(MIX[0]));
    unshift(z, 30)
}

/// What `z ^ (z >> by)` was made of.
fn unshift(z: u64, by: u32) -> u64 {
    let mut undone = z;
    let mut shift = by;
    while shift < u64::BITS {
        undone ^= z >> shift;
        shift = shift.saturating_add(by);
    }
    undone
}

/// The number that multiplies an odd one to 1, by Newton's iteration: each step doubles the bits that are right.
fn inverse(odd: u64) -> u64 {
    let mut found = odd;
    for _ in 0..5 {
        found = found.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(found)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_stays_below_and_reaches_everything() {
        let mut rng = Rng::new(1);
        let mut seen = [false; 5];
        for _ in 0..200 {
            seen[usize::try_from(rng.below(5)).unwrap()] = true;
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(rng.below(0), 0);
        assert!(rng.up_to(Duration::from_millis(3)) <= Duration::from_millis(3));
    }
}
