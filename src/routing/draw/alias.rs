//! Drawing by weight in constant time (Walker's alias method, as Vose builds it).

use crate::base::rng::Rng;

/// Weights to draw by.
#[derive(Debug, Clone, Default)]
pub(super) struct Alias {
    len: u32,
    /// For each column what part of 2^32 is its own, and who has the rest; empty when all weigh the same.
    columns: Vec<(u32, u32)>,
}

impl Alias {
    pub(super) fn new(weights: &[u32]) -> Alias {
        let len = u32::try_from(weights.len()).unwrap_or(u32::MAX);
        let same = weights.windows(2).all(|pair| matches!(pair, [left, right] if left == right));
        Alias { len, columns: if same { Vec::new() } else { columns(weights) } }
    }

    /// Whether all weigh the same.
    pub(super) fn is_even(&self) -> bool {
        self.columns.is_empty()
    }

    /// One of them; 0 when there is none.
    pub(super) fn draw(&self, rng: &mut Rng) -> usize {
        let wide = u64::from(self.len);
        let random = rng.next_u64();
        // The upper half chooses the column, the lower one what part of it.
        let column = (random >> 32).wrapping_mul(wide) >> 32;
        let column = usize::try_from(column).unwrap_or_default();
        match self.columns.get(column) {
            None => column,
            Some((own, _)) if random & 0xffff_ffff <= u64::from(*own) => column,
            Some((_, other)) => *other as usize,
        }
    }
}

fn columns(weights: &[u32]) -> Vec<(u32, u32)> {
    let len = weights.len() as u64;
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    // In units in which every column holds `total`.
    let mut left: Vec<u64> = weights.iter().map(|weight| u64::from(*weight).saturating_mul(len)).collect();
    let mut columns = vec![(u32::MAX, 0); weights.len()];
    let (mut small, mut large): (Vec<usize>, Vec<usize>) =
        (0..weights.len()).partition(|at| left.get(*at).is_some_and(|left| *left < total));
    while let (Some(low), Some(high)) = (small.pop(), large.last().copied()) {
        let own = left.get(low).copied().unwrap_or_default();
        let part = (u128::from(own) << 32) / u128::from(total.max(1));
        if let Some(column) = columns.get_mut(low) {
            let part = u32::try_from(part).unwrap_or(u32::MAX);
            *column = (part, u32::try_from(high).unwrap_or_default());
        }
        if let Some(rest) = left.get_mut(high) {
            *rest = rest.saturating_sub(total.saturating_sub(own));
            if *rest < total {
                large.pop();
                small.push(high);
            }
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_is_drawn_as_often_as_it_weighs(
            weights in proptest::collection::vec(1u32..1000, 1..20),
            seed in any::<u64>(),
        ) {
            const DRAWS: u32 = 20_000;
            let alias = Alias::new(&weights);
            let mut rng = Rng::new(seed);
            let mut drawn = vec![0u32; weights.len()];
            (0..DRAWS).for_each(|_| drawn[alias.draw(&mut rng)] += 1);
            let total: u32 = weights.iter().sum();
            for (drawn, weight) in drawn.iter().zip(&weights) {
                let share = f64::from(*weight) / f64::from(total);
                let spread = (f64::from(DRAWS) * share * (1.0 - share)).sqrt();
                let off = (f64::from(*drawn) - f64::from(DRAWS) * share).abs();
                prop_assert!(off <= 6.0 * spread + 2.0, "{drawn} draws for {weight} of {total}");
            }
        }
    }

    #[test]
    fn nobody_is_the_first_place() {
        assert_eq!(Alias::new(&[]).draw(&mut Rng::new(1)), 0);
    }
}
