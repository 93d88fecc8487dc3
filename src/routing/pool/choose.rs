//! The choice itself: from which side, and there a probe or a draw.

use super::Pool;
use super::seat::Probe;
use crate::base::rng::Rng;
use crate::routing::draw::{Drawn, Moment};
use crate::routing::{Ask, Balance, Decided, Decision, EndpointId, How, Marks, Miss};
use moorgate_proto::time::Mono;

impl Pool {
    /// Chooses an endpoint for a call; `has_room` tells whether a link of a seat can take one more. The call is sent, and
    /// [`Pool::started`] told, before the next choice, or not at all, and then [`Pool::unsent`] is told.
    ///
    /// # Errors
    /// [`Miss`] when none can.
    #[inline]
    pub fn choose(
        &mut self,
        now: Mono,
        ask: Ask,
        rng: &mut Rng,
        has_room: impl Fn(usize) -> bool,
    ) -> Result<(usize, Decision), Miss> {
        self.catch_up(now);
        let wanted = ask.canary && self.settings.canary.is_some();
        if self.outstanding >= self.settings.bounds.outstanding_max {
            return Err(if self.has_ready() { Miss::NoRoom } else { Miss::NoEndpoint });
        }
        // Where the call has been to the only one of its side, the other side is another endpoint.
        let is_alone = ask.avoid.is_some_and(|avoid| self.is_alone(avoid, wanted));
        let mut miss = Miss::NoEndpoint;
        for canary in [wanted != is_alone, wanted == is_alone] {
            let mut marks = if wanted { Marks::CANARY } else { Marks::default() };
            if canary != wanted {
                marks = marks.with(Marks::FALLBACK);
            }
            if !self.slate.side(canary).probes.is_empty()
                && let Some(seat) = self.take_probe(now, canary, ask.avoid, &has_room)
            {
                let decision = self.decision(How::Probe, marks, canary);
                self.chosen = Some((seat, now));
                return Ok((seat, decision));
            }
            if self.slate.side(canary).is_empty() {
                continue;
            }
            if let Some((seat, decision)) = self.draw(now, (ask, canary, marks), rng, &has_room) {
                self.chosen = Some((seat, now));
                return Ok((seat, decision));
            }
            miss = self.full(canary);
            if !is_alone {
                break;
            }
        }
        if miss != Miss::NoEndpoint && self.settings.bounds.adaptive.is_some() {
            self.shared.note(self.service, Decided::Bounded);
        }
        Err(miss)
    }

    /// Whether that endpoint is the only one of its side, and there are others on the other one.
    fn is_alone(&self, seat: usize, canary: bool) -> bool {
        let spot = self.loads.get(seat).and_then(|load| load.spot);
        spot.is_some_and(|spot| spot.canary == canary)
            && self.slate.side(canary).len() == 1
            && !self.slate.side(!canary).is_empty()
    }

    /// Claims the one call to an endpoint that is half open.
    #[inline(never)]
    fn take_probe(
        &mut self,
        now: Mono,
        canary: bool,
        avoid: Option<usize>,
        has_room: &impl Fn(usize) -> bool,
    ) -> Option<usize> {
        for at in &self.slate.side(canary).probes {
            let Some(Some(seat)) = self.seats.get_mut(*at) else { continue };
            let ejection = &seat.member.vitals.ejection;
            if avoid == Some(*at) || ejection.is_probed() || !has_room(*at) {
                continue;
            }
            if ejection.claim(now) {
                seat.probe = Probe::Chosen(now);
                self.probing = Some(*at);
                return Some(*at);
            }
        }
        None
    }

    /// Draws from one side: from the preferred ones or the others first, and not whom the call has been to, if there is
    /// anybody else.
    #[inline]
    fn draw(
        &mut self,
        now: Mono,
        (ask, canary, mut marks): (Ask, bool, Marks),
        rng: &mut Rng,
        has_room: &impl Fn(usize) -> bool,
    ) -> Option<(usize, Decision)> {
        if self.slate.panic {
            marks = marks.with(Marks::PANIC);
        }
        let (loads, typical) = (self.loads.as_slice(), self.typical.nanos());
        let mut moment = Moment { now, loads, typical, key: ask.key, avoid: ask.avoid };
        let side = if canary { &mut self.slate.canary } else { &mut self.slate.others };
        let key = (self.settings.balance == Balance::ConsistentHash).then_some(ask.key);
        let first = side.draws_near(rng, key);
        let mut full = false;
        for avoid in [ask.avoid, None] {
            moment.avoid = avoid;
            for near in [first, !first] {
                let lot = side.lot_mut(near);
                if lot.is_empty() {
                    continue;
                }
                if let Some(drawn) = lot.draw(&moment, rng, has_room) {
                    if full || drawn.full {
                        marks = marks.with(Marks::FULL);
                    }
                    if !near {
                        marks = marks.with(Marks::SPILLED);
                    }
                    return Some((drawn.seat, self.decided(drawn, marks, canary)));
                }
                full |= avoid.is_none();
            }
            if avoid.is_none() {
                break;
            }
        }
        None
    }

    /// What it means that one side is full.
    pub(super) fn full(&self, canary: bool) -> Miss {
        if self.slate.side(!canary).has_anybody() { Miss::SideFull } else { Miss::NoRoom }
    }

    pub(super) fn decided(&self, drawn: Drawn, marks: Marks, canary: bool) -> Decision {
        let how = match self.settings.balance {
            _ if self.slate.side(canary).len() == 1 => How::Only,
            Balance::RoundRobin => How::RoundRobin,
            Balance::WeightedRoundRobin => How::WeightedRoundRobin,
            Balance::Random => How::Random,
            Balance::LeastOutstanding => How::LeastOutstanding,
            Balance::PeakEwma => How::PeakEwma,
            Balance::ConsistentHash => How::ConsistentHash,
        };
        let (rival, rival_cost_us) =
            drawn.rival.map_or((EndpointId::default(), 0), |(seat, cost_us)| (self.id(seat), cost_us));
        Decision { cost_us: drawn.cost_us, rival, rival_cost_us, ..self.decision(how, marks, canary) }
    }

    pub(super) fn decision(&self, how: How, marks: Marks, canary: bool) -> Decision {
        let candidates = u16::try_from(self.slate.side(canary).len()).unwrap_or(u16::MAX);
        Decision { how, marks, candidates, ejected: self.slate.ejected, attempt: 1, ..Decision::default() }
    }
}
