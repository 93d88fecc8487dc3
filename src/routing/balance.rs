//! Which endpoint takes the next call.

/// How an endpoint is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// One after the other.
    RoundRobin,
    /// Smooth weighted round robin: one after the other, as often as its weight says.
    WeightedRoundRobin,
    /// At random, by weight.
    Random,
    /// The one with the fewest calls outstanding for its weight.
    LeastOutstanding,
    /// Of two drawn by weight, the one with the lower latency times outstanding calls.
    #[default]
    PeakEwma,
    /// The caller's hash decides, with bounded loads.
    ConsistentHash,
}

/// An endpoint, as a balancer sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Calls that it has and has not answered.
    pub outstanding: u32,
    /// Whether it can take a call now.
    pub ready: bool,
}

/// Chooses among the endpoints of one service, for one worker.
#[derive(Debug, Clone)]
pub struct Balancer {
    balance: Balance,
    next: usize,
}

impl Balancer {
    /// A balancer that begins with the first endpoint.
    pub fn new(balance: Balance) -> Balancer {
        Balancer { balance, next: 0 }
    }

    /// The place of the chosen one; `None` when none is ready.
    pub fn pick(&mut self, candidates: impl ExactSizeIterator<Item = Candidate> + Clone) -> Option<usize> {
        let len = candidates.len();
        let start = if self.next < len { self.next } else { 0 };
        let turned = candidates.clone().enumerate().skip(start).chain(candidates.enumerate().take(start));
        let mut ready = turned.filter(|(_, candidate)| candidate.ready);
        let chosen = match self.balance {
            Balance::RoundRobin | Balance::WeightedRoundRobin | Balance::Random | Balance::ConsistentHash => {
                ready.next()
            }
            Balance::LeastOutstanding | Balance::PeakEwma => {
                ready.min_by_key(|(_, candidate)| candidate.outstanding)
            }
        };
        let at = chosen?.0;
        self.next = at.saturating_add(1);
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(balance: Balance, candidates: &[(u32, bool)], times: usize) -> Vec<Option<usize>> {
        let mut balancer = Balancer::new(balance);
        let all: Vec<_> = candidates
            .iter()
            .map(|(outstanding, ready)| Candidate { outstanding: *outstanding, ready: *ready })
            .collect();
        (0..times).map(|_| balancer.pick(all.iter().copied())).collect()
    }

    #[test]
    fn round_robin_goes_round_the_ready_ones() {
        let all = [(9, true), (0, false), (0, true)];
        assert_eq!(picks(Balance::RoundRobin, &all, 4), [Some(0), Some(2), Some(0), Some(2)]);
    }

    #[test]
    fn least_outstanding_takes_the_least_and_turns_among_equals() {
        let all = [(2, true), (1, true), (1, true), (0, false)];
        assert_eq!(picks(Balance::LeastOutstanding, &all, 3), [Some(1), Some(2), Some(1)]);
    }

    #[test]
    fn nobody_ready_is_nobody() {
        assert_eq!(picks(Balance::RoundRobin, &[(0, false)], 1), [None]);
        assert_eq!(picks(Balance::LeastOutstanding, &[], 1), [None]);
    }
}
