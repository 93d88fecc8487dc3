//! What is counted of each route: how often a request for it was refused, and why. One table per thread, as
//! [`Cells`](super::counters::Cells) are.

use super::ids::RouteId;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a request for a route was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The access token has expired.
    Token,
    /// It is not open to anonymous sessions.
    Login,
    /// The user has none of its roles.
    Role,
    /// It asks for a higher version of the protocol.
    Version,
    /// The payload is too large.
    Payload,
    /// The request breaks the contract, or uses a feature that is not in force.
    Contract,
    /// A rate, or a bound of outstanding requests.
    Rate,
    /// The shard has too many calls outstanding.
    Overload,
}

impl Why {
    /// Every reason.
    pub const ALL: [Why; 8] = [
        Why::Token,
        Why::Login,
        Why::Role,
        Why::Version,
        Why::Payload,
        Why::Contract,
        Why::Rate,
        Why::Overload,
    ];

    /// Its name in the metrics.
    pub fn name(self) -> &'static str {
        match self {
            Why::Token => "token",
            Why::Login => "login",
            Why::Role => "role",
            Why::Version => "version",
            Why::Payload => "payload",
            Why::Contract => "contract",
            Why::Rate => "rate",
            Why::Overload => "overload",
        }
    }
}

/// Refusals by route and reason, written by one thread.
#[derive(Debug, Default)]
pub struct RouteCounts {
    cells: Box<[[AtomicU64; Why::ALL.len()]]>,
}

impl RouteCounts {
    /// Zeroes for so many routes.
    pub fn new(routes: usize) -> RouteCounts {
        RouteCounts { cells: (0..routes).map(|_| Default::default()).collect() }
    }

    /// Counts one. Only the thread that owns the cells calls this; a route that has no cells is not counted.
    pub fn count(&self, route: RouteId, why: Why) {
        if let Some(cell) = self.cells.get(route.index()).and_then(|cells| cells.get(why as usize)) {
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// The sum over threads of one route's refusals for this reason.
    pub fn sum<'a>(threads: impl IntoIterator<Item = &'a RouteCounts>, route: RouteId, why: Why) -> u64 {
        let of_thread = |counts: &RouteCounts| {
            let cell = counts.cells.get(route.index()).and_then(|cells| cells.get(why as usize));
            cell.map_or(0, |cell| cell.load(Ordering::Relaxed))
        };
        threads.into_iter().map(of_thread).fold(0, u64::wrapping_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_and_reasons_are_told_apart_and_threads_are_merged() {
        let (one, two) = (RouteCounts::new(2), RouteCounts::new(2));
        one.count(RouteId(1), Why::Rate);
        two.count(RouteId(1), Why::Rate);
        two.count(RouteId(1), Why::Role);
        two.count(RouteId(7), Why::Role);
        let sum = |route, why| RouteCounts::sum([&one, &two, &RouteCounts::default()], RouteId(route), why);
        assert_eq!(
            (sum(1, Why::Rate), sum(1, Why::Role), sum(0, Why::Rate), sum(7, Why::Role)),
            (2, 1, 0, 0)
        );
    }

    #[test]
    fn every_reason_has_a_cell_and_a_name_of_its_own() {
        for (at, why) in Why::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, at);
            assert!(Why::ALL.iter().filter(|other| other.name() == why.name()).count() == 1);
        }
    }
}
