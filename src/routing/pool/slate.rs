//! Who can be chosen: made anew when something changes, so that a choice only draws.

use super::seat::{Fit, STEP, Seat};
use crate::base::rng::{Rng, mix};
use crate::routing::draw::{Entry, Lot};
use crate::routing::load::{Load, Spot};
use crate::routing::{CanarySettings, PoolSettings, Prefer};
use moorgate_proto::time::Mono;
use std::collections::HashMap;

/// Of this share of the preferred ones, in percent, all calls can be carried; with fewer, some go elsewhere.
const NEAR_PERCENT: u64 = 70;
/// A share that is all of it.
const WHOLE: u64 = 1 << 16;

/// See the module's page.
#[derive(Debug, Clone, Default)]
pub(super) struct Slate {
    /// Everybody, or those without the canary's tag.
    pub(super) others: Side,
    /// Those with it.
    pub(super) canary: Side,
    /// Too few are good: ejected and doubted ones are used too.
    pub(super) panic: bool,
    pub(super) ejected: u16,
    /// Those that could take calls, ejected or doubted as they may be.
    pub(super) able: usize,
    /// When it is to be made anew.
    pub(super) next: Option<Mono>,
}

/// Those among whom the calls of some callers are shared.
#[derive(Debug, Clone, Default)]
pub(super) struct Side {
    /// Those that are preferred, or all.
    pub(super) near: Lot,
    /// The others.
    pub(super) far: Lot,
    /// What part of the calls goes to the first, in 65536ths.
    near_share: u64,
    /// Seats that are half open.
    pub(super) probes: Vec<usize>,
}

/// How many there are of each kind.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Census {
    /// Those that could take calls, ejected or doubted as they may be. The others do not count: entries that nobody
    /// answers behind must not make it look as if too few were good.
    pub(super) total: u64,
    /// Those that are good; all that can be, if all are doubted.
    pub(super) good: u64,
    /// Those that can be used in a panic.
    pub(super) spare: u64,
    pub(super) half_open: u64,
    pub(super) doubts: bool,
    /// A weight of 0 means what it says: somebody who could take calls has another one.
    pub(super) weights: bool,
}

impl Census {
    pub(super) fn of<'a>(seats: impl Iterator<Item = &'a Seat> + Clone, now: Mono) -> Census {
        let weights = seats.clone().any(|seat| seat.is_able() && seat.has_weight());
        let mut census = Census { weights, ..Census::default() };
        let (mut doubted, mut doubted_ready) = (0u64, 0u64);
        for seat in seats {
            let count = match seat.fit(now, weights) {
                Fit::Good => &mut census.good,
                Fit::Doubted => &mut doubted_ready,
                Fit::Open => &mut census.spare,
                Fit::HalfOpen => {
                    census.half_open = census.half_open.saturating_add(1);
                    &mut census.spare
                }
                Fit::Unfit(_) => continue,
            };
            *count = count.saturating_add(1);
            census.total = census.total.saturating_add(1);
            let is_doubted = seat.member.instance.standing == crate::routing::Standing::Doubted;
            doubted = doubted.saturating_add(u64::from(is_doubted));
        }
        // A source that doubts everybody says nothing.
        census.doubts = doubted < census.total;
        let count = if census.doubts { &mut census.spare } else { &mut census.good };
        *count = count.saturating_add(doubted_ready);
        census
    }

    /// Whether too few are good, and others can help.
    pub(super) fn is_panic(&self, panic_percent: u8) -> bool {
        let few = self.total.saturating_mul(u64::from(panic_percent));
        self.spare > 0 && self.good.saturating_mul(100) < few
    }
}

impl Slate {
    /// Who can be chosen now; `loads` are told where they stand. `old` was in force until now.
    pub(super) fn new(
        seats: &[Option<Seat>],
        loads: &mut [Load],
        settings: &PoolSettings,
        now: Mono,
        mut old: Slate,
    ) -> Slate {
        let census = Census::of(seats.iter().flatten(), now);
        let panic = census.is_panic(settings.ejection.panic_percent);
        let able = usize::try_from(census.total).unwrap_or(usize::MAX);
        let mut slate = Slate { panic, able, ..Slate::default() };
        let phases = old.phases();
        let mut sides = [Gathered::default(), Gathered::default()];
        let mut next = Mono::NEVER;
        for (at, (seat, load)) in seats.iter().zip(loads.iter_mut()).enumerate() {
            load.spot = None;
            let Some(seat) = seat else { continue };
            let fit = seat.fit(now, census.weights);
            if let Some(open) = seat.open {
                slate.ejected = slate.ejected.saturating_add(1);
                next = if open.until > now { next.min(open.until) } else { next };
            }
            let canary = is_canary(seat, settings.canary.as_ref());
            let [others, canaries] = &mut sides;
            let side = if canary { canaries } else { others };
            let near = is_near(seat, settings.prefer.as_ref());
            if !seat.is_leaving() && (seat.has_weight() || !census.weights) {
                side.near_total = side.near_total.saturating_add(u64::from(near));
            }
            if fit == Fit::HalfOpen {
                side.probes.push(at);
            }
            let used = match fit {
                Fit::Good => true,
                Fit::Doubted => slate.panic || !census.doubts,
                Fit::Open | Fit::HalfOpen => slate.panic,
                Fit::Unfit(_) => false,
            };
            if !used {
                continue;
            }
            if seat.slow_percent(now, &settings.slow_start).is_some() {
                next = next.min(now + STEP);
            }
            let lot = if near { &mut side.near } else { &mut side.far };
            load.spot = Some(Spot { canary, near, at: lot.len() });
            lot.push(Entry {
                seat: at,
                address: seat.member.instance.address,
                weight: seat.weight(now, settings),
                lasting_weight: seat.lasting_weight(settings) / 1000,
                outstanding: load.outstanding,
                last: load.last,
                phase: phases.get(&at).copied().unwrap_or(u16::MAX / 2),
            });
        }
        let [others, canaries] = sides;
        slate.others = others.side(settings, std::mem::take(&mut old.others));
        slate.canary = canaries.side(settings, std::mem::take(&mut old.canary));
        slate.next = (next != Mono::NEVER).then_some(next);
        slate
    }

    pub(super) fn side(&self, canary: bool) -> &Side {
        if canary { &self.canary } else { &self.others }
    }

    pub(super) fn lot_mut(&mut self, spot: Spot) -> &mut Lot {
        let side = if spot.canary { &mut self.canary } else { &mut self.others };
        side.lot_mut(spot.near)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.others.is_empty() && self.canary.is_empty()
    }

    fn phases(&self) -> HashMap<usize, u16> {
        let sides = [&self.others, &self.canary].into_iter();
        sides.flat_map(|side| side.near.phases().chain(side.far.phases())).collect()
    }
}

impl Side {
    /// Whether there is nobody to draw.
    pub(super) fn is_empty(&self) -> bool {
        self.near.is_empty() && self.far.is_empty()
    }

    /// Whether calls can go there, be it one.
    pub(super) fn has_anybody(&self) -> bool {
        !self.is_empty() || !self.probes.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.near.len().saturating_add(self.far.len())
    }

    pub(super) fn lot(&self, near: bool) -> &Lot {
        if near { &self.near } else { &self.far }
    }

    pub(super) fn lot_mut(&mut self, near: bool) -> &mut Lot {
        if near { &mut self.near } else { &mut self.far }
    }

    /// Whether a call goes to the preferred ones: by chance, or by its key where the same key goes to the same endpoint.
    pub(super) fn draws_near(&self, rng: &mut Rng, key: Option<u64>) -> bool {
        match (self.near_share, key) {
            (0, _) => false,
            (WHOLE, _) => true,
            (share, None) => rng.next_u64() >> 48 < share,
            // Mixed twice: the place on a ring comes of the key mixed once.
            (share, Some(key)) => mix(mix(key)) >> 48 < share,
        }
    }

    /// Whether most calls do.
    pub(super) fn is_mostly_near(&self) -> bool {
        self.near_share >= WHOLE / 2
    }
}

/// What becomes a side.
#[derive(Default)]
struct Gathered {
    near: Vec<Entry>,
    far: Vec<Entry>,
    near_total: u64,
    probes: Vec<usize>,
}

impl Gathered {
    fn side(self, settings: &PoolSettings, old: Side) -> Side {
        let usable = u64::try_from(self.near.len()).unwrap_or(u64::MAX);
        let share = if self.far.is_empty() && usable > 0 {
            WHOLE
        } else {
            let whole = self.near_total.saturating_mul(NEAR_PERCENT);
            let part = usable.saturating_mul(100).saturating_mul(WHOLE);
            part.checked_div(whole).unwrap_or_default().min(WHOLE)
        };
        Side {
            near: Lot::new(settings.balance, &self.near, old.near),
            far: Lot::new(settings.balance, &self.far, old.far),
            near_share: share,
            probes: self.probes,
        }
    }
}

pub(super) fn is_canary(seat: &Seat, canary: Option<&CanarySettings>) -> bool {
    canary.is_some_and(|canary| seat.member.instance.has_tag(&canary.tag))
}

/// Whether it is preferred; everybody is, where nobody is.
pub(super) fn is_near(seat: &Seat, prefer: Option<&Prefer>) -> bool {
    match prefer {
        None => true,
        Some(Prefer::Zone(zone)) => *seat.member.instance.zone == **zone,
        Some(Prefer::Tag(tag)) => seat.member.instance.has_tag(tag),
    }
}
