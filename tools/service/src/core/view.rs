//! How a service sees itself, and how many calls it takes on one link.

use moorgate_proto::v1::{self, service_view};

/// The bound on the calls of one link. A gateway goes by a lower one only once it has heard of it, so what crosses that
/// news is still taken.
#[derive(Debug)]
pub(super) struct Bound {
    in_force: usize,
    /// A lower one, and the nonce of the LinkPing that tells it.
    coming: Option<(usize, u64)>,
}

impl Bound {
    pub(super) fn new(calls: u32) -> Bound {
        Bound { in_force: calls_max(calls), coming: None }
    }

    /// Whether another call is within it.
    pub(super) fn admits(&self, open: usize) -> bool {
        open < self.in_force
    }

    /// Changed, and told with this nonce.
    pub(super) fn told(&mut self, calls: u32, nonce: u64) {
        let calls = calls_max(calls);
        if calls >= self.in_force {
            (self.in_force, self.coming) = (calls, None);
        } else {
            self.coming = Some((calls, nonce));
        }
    }

    /// The gateway has answered a LinkPing.
    pub(super) fn heard(&mut self, nonce: u64) {
        if let Some((calls, awaited)) = self.coming
            && nonce == awaited
        {
            (self.in_force, self.coming) = (calls, None);
        }
    }
}

fn calls_max(calls: u32) -> usize {
    if calls == 0 { usize::MAX } else { calls as usize }
}

/// What gateways are told; `load` is 0 to 10,000.
pub(super) fn bounded(view: v1::ServiceView, draining: bool) -> v1::ServiceView {
    let state = if draining { service_view::State::Draining } else { view.state() };
    v1::ServiceView { state: state.into(), load: view.load.min(LOAD_MAX), ..view }
}

/// Ten thousandths: everything in use.
pub const LOAD_MAX: u32 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    // spec: L-38, L-39
    #[test]
    fn a_lower_bound_holds_once_the_gateway_knows_it() {
        let mut bound = Bound::new(0);
        assert!(bound.admits(1_000_000));
        bound.told(5, 1);
        bound.told(3, 2);
        assert!(bound.admits(1_000_000));
        bound.heard(1);
        assert!(bound.admits(1_000_000), "the latest counts");
        bound.heard(2);
        assert!(bound.admits(2) && !bound.admits(3));
        bound.told(2, 3);
        bound.told(9, 4);
        assert!(bound.admits(8) && !bound.admits(9), "a higher one holds at once");
        bound.heard(3);
        assert!(bound.admits(8), "what was taken back does not come");
    }
}
