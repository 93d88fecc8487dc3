//! The shard's credit at its worker: how many calls may be out, and how many of one service.
//!
//! A service may have twice as many out as places are free. Alone it gets two thirds of all; two that are saturated get two
//! fifths each; and however many are, a part is left for the others: a service that answers nothing costs them nothing
//! (dynamic thresholds, Choudhury and Hahne 1998). Where there is one service only, it has all.

use crate::base::ids::ServiceId;
use crate::routing::RouteTable;

/// Times as many as there are free places.
const SHARE: usize = 2;

/// Whether one more may go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// It may.
    Yes,
    /// All of the credit is used.
    NoneLeft,
    /// The service has its share.
    ShareUsed,
}

/// See the module's page.
#[derive(Debug)]
pub(super) struct Credit {
    max: usize,
    used: usize,
    /// By service.
    of: Vec<usize>,
    has_several: bool,
}

impl Credit {
    /// A credit of which nothing is used.
    pub(super) fn new(max: usize, routes: &RouteTable) -> Credit {
        let services = || routes.iter().map(|route| route.service.index());
        let count = services().max().map_or(0, |last| last.saturating_add(1));
        let first = services().next();
        Credit { max, used: 0, of: vec![0; count], has_several: services().any(|it| Some(it) != first) }
    }

    /// Whether one more call of this service may go out.
    pub(super) fn room(&self, service: ServiceId) -> Room {
        let free = self.max.saturating_sub(self.used);
        let own = self.of.get(service.index()).copied().unwrap_or_default();
        match free {
            0 => Room::NoneLeft,
            _ if self.has_several && own >= free.saturating_mul(SHARE) => Room::ShareUsed,
            _ => Room::Yes,
        }
    }

    /// A call goes out.
    pub(super) fn take(&mut self, service: ServiceId) {
        self.used = self.used.saturating_add(1);
        if let Some(of) = self.of.get_mut(service.index()) {
            *of = of.saturating_add(1);
        }
    }

    /// A call is settled.
    pub(super) fn give_back(&mut self, service: ServiceId) {
        self.used = self.used.saturating_sub(1);
        if let Some(of) = self.of.get_mut(service.index()) {
            *of = of.saturating_sub(1);
        }
    }

    /// Calls that are out.
    pub(super) fn used(&self) -> usize {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::{RouteSettings, Span};

    fn credit(max: usize, services: u16) -> Credit {
        let route = |at: u16| RouteSettings::new(Span { first: at.into(), last: at.into() }, ServiceId(at));
        let routes: Vec<RouteSettings> = (0..services).map(route).collect();
        Credit::new(max, &RouteTable::build(&routes).unwrap())
    }

    /// Takes as much as there is for a service.
    fn fill(credit: &mut Credit, service: u16) -> usize {
        let mut taken = 0;
        while credit.room(ServiceId(service)) == Room::Yes {
            credit.take(ServiceId(service));
            taken += 1;
        }
        taken
    }

    #[test]
    fn the_only_service_has_all_and_one_of_several_two_thirds() {
        assert_eq!(fill(&mut credit(300, 1), 0), 300);
        let mut credit = credit(300, 3);
        assert_eq!(fill(&mut credit, 1), 200);
        assert_eq!((credit.room(ServiceId(1)), credit.room(ServiceId(2))), (Room::ShareUsed, Room::Yes));
        (0..200).for_each(|_| credit.give_back(ServiceId(1)));
        assert_eq!(credit.used(), 0);
    }

    #[test]
    fn whoever_is_saturated_something_is_left() {
        let mut credit = credit(32 * 1024, 5);
        let taken: Vec<usize> = (0..4).map(|service| fill(&mut credit, service)).collect();
        assert!(credit.room(ServiceId(4)) == Room::Yes, "{taken:?}");
        assert!(fill(&mut credit, 4) > 200, "{taken:?}");
        let total = credit.used();
        assert!(total < 32 * 1024);
    }

    #[test]
    fn the_smallest_credit_is_good_for_one() {
        for max in 1..5 {
            assert!(fill(&mut credit(max, 2), 0) >= 1, "{max}");
        }
        assert_eq!(credit(0, 2).room(ServiceId(0)), Room::NoneLeft);
    }
}
