//! The draw of one endpoint out of a lot of them, by each rule. A lot is made when something changes; drawing from it
//! costs the same for ten endpoints and a thousand, or nearly.

mod alias;
mod least;
mod ring;
mod turns;

use super::Balance;
use super::ewma::{are_near, micros};
use super::load::Load;
use crate::base::rng::Rng;
use alias::Alias;
use least::Least;
use moorgate_proto::time::Mono;
use ring::Ring;
use std::net::SocketAddr;
use turns::Turns;

/// How often it is drawn again when the one drawn will not do; then all are looked at.
const DRAWS_MAX: usize = 3;
/// The same for turns, which cost less.
const TURNS_MAX: usize = 8;
/// Places of the ring that are looked at before all endpoints are.
const PLACES_MAX: usize = 256;

/// One endpoint of a lot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) seat: usize,
    pub(super) address: SocketAddr,
    /// Its part of the draw.
    pub(super) weight: u32,
    /// The same without what changes often: the ring must not.
    pub(super) lasting_weight: u32,
    pub(super) outstanding: u32,
    /// Which call of the pool was its last one.
    pub(super) last: u64,
    /// What is left of its wait for a turn, in 65536ths.
    pub(super) phase: u16,
}

/// Endpoints to draw from.
#[derive(Debug, Clone, Default)]
pub(super) struct Lot {
    seats: Vec<usize>,
    /// Calls outstanding at all of them.
    outstanding: u64,
    weights: u64,
    rule: Rule,
}

#[derive(Debug, Clone)]
enum Rule {
    Turns(Turns),
    Random(Alias, Vec<u32>),
    Least(Least),
    Ewma(Alias),
    /// Its places go by what lasts; how much more than its share one may have, by what it can carry now.
    Ring(Ring, Vec<u32>),
}

impl Default for Rule {
    fn default() -> Rule {
        Rule::Turns(Turns::default())
    }
}

/// What is known at the moment of a draw.
#[derive(Clone, Copy)]
pub(super) struct Moment<'a> {
    pub(super) now: Mono,
    pub(super) loads: &'a [Load],
    /// The latency of the pool, in nanoseconds.
    pub(super) typical: f64,
    /// Whose call it is, hashed.
    pub(super) key: u64,
    /// Not this one.
    pub(super) avoid: Option<usize>,
}

/// What was drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Drawn {
    pub(super) seat: usize,
    /// Another one came first and had no room.
    pub(super) full: bool,
    /// In microseconds; 0 where the rule knows no cost.
    pub(super) cost_us: u32,
    /// Whom it was compared with, and its cost.
    pub(super) rival: Option<(usize, u32)>,
}

impl Moment<'_> {
    fn load(&self, seat: usize) -> Option<&Load> {
        self.loads.get(seat)
    }

    /// What a call there is expected to wait, in nanoseconds.
    pub(super) fn cost(&self, seat: usize) -> f64 {
        self.expected(seat).cost()
    }

    /// What is expected of an endpoint.
    fn expected(&self, seat: usize) -> Expected {
        let of = |load: &Load| Expected {
            nanos: load.nanos(self.now, self.typical),
            outstanding: load.outstanding,
            last: load.last,
        };
        self.load(seat).map_or(Expected { nanos: f64::INFINITY, outstanding: u32::MAX, last: u64::MAX }, of)
    }

    pub(super) fn is_within_bound(&self, seat: usize) -> bool {
        self.load(seat).is_some_and(|load| load.outstanding < load.bound)
    }

    fn is_avoided(&self, seat: usize) -> bool {
        self.avoid == Some(seat)
    }
}

/// What is expected of an endpoint for one more call.
#[derive(Debug, Clone, Copy)]
struct Expected {
    /// Its latency.
    nanos: f64,
    outstanding: u32,
    /// Which call of the pool was its last one.
    last: u64,
}

impl Expected {
    /// The wait of one more call, in nanoseconds.
    fn cost(&self) -> f64 {
        self.nanos * (f64::from(self.outstanding) + 1.0)
    }

    /// Whether both latencies are near-equal.
    fn is_near(&self, other: &Expected) -> bool {
        are_near(self.nanos, other.nanos)
    }
}

/// A seat that was looked at.
enum Look {
    Fits,
    Full,
    Avoided,
}

impl Lot {
    /// The lot of these endpoints. `old` is the one that was in force: a ring that stays the same is not made again.
    pub(super) fn new(balance: Balance, entries: &[Entry], old: Lot) -> Lot {
        let weights: Vec<u32> = entries.iter().map(|entry| entry.weight.max(1)).collect();
        let rule = match balance {
            Balance::RoundRobin | Balance::WeightedRoundRobin => {
                Rule::Turns(Turns::new(&weights, entries.iter().map(|entry| entry.phase)))
            }
            Balance::Random => Rule::Random(Alias::new(&weights), weights),
            Balance::LeastOutstanding => {
                Rule::Least(Least::new(&weights, entries.iter().map(|entry| (entry.outstanding, entry.last))))
            }
            Balance::PeakEwma => Rule::Ewma(Alias::new(&weights)),
            Balance::ConsistentHash => {
                let member = |entry: &Entry| (entry.address, entry.lasting_weight.max(1));
                let members: Vec<_> = entries.iter().map(member).collect();
                let ring = match old.rule {
                    Rule::Ring(ring, _) if ring.is_of(&members) => ring,
                    _ => Ring::new(members),
                };
                Rule::Ring(ring, weights)
            }
        };
        Lot {
            seats: entries.iter().map(|entry| entry.seat).collect(),
            outstanding: entries.iter().map(|entry| u64::from(entry.outstanding)).sum(),
            weights: entries.iter().map(|entry| u64::from(entry.weight.max(1))).sum(),
            rule,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.seats.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// What is left of everybody's wait for a turn.
    pub(super) fn phases(&self) -> impl Iterator<Item = (usize, u16)> + '_ {
        let phases = match &self.rule {
            Rule::Turns(turns) => turns.phases(),
            _ => Vec::new(),
        };
        self.seats.iter().copied().zip(phases)
    }

    /// The endpoint at this place has this load now: one call more, or one less.
    pub(super) fn note(&mut self, at: usize, load: &Load, one_more: bool) {
        self.outstanding =
            if one_more { self.outstanding.saturating_add(1) } else { self.outstanding.saturating_sub(1) };
        if let Rule::Least(least) = &mut self.rule {
            least.set(at, load.outstanding, load.last);
        }
    }

    /// Draws one; `None` when there is none, or none has room.
    #[inline]
    pub(super) fn draw(
        &mut self,
        moment: &Moment<'_>,
        rng: &mut Rng,
        has_room: &impl Fn(usize) -> bool,
    ) -> Option<Drawn> {
        match &mut self.rule {
            Rule::Turns(turns) => {
                let mut full = false;
                // Where weights differ much it may be nobody's turn who fits for long: then all are looked at.
                for _ in 0..self.seats.len().saturating_mul(2).min(TURNS_MAX) {
                    let seat = turns.next().and_then(|at| self.seats.get(at).copied())?;
                    match look(moment, seat, has_room) {
                        Look::Fits => return Some(Drawn { seat, full, ..Drawn::default() }),
                        Look::Full => full = true,
                        Look::Avoided => {}
                    }
                }
                self.scan(moment, has_room, |seat| moment.load(seat).map(|load| load.outstanding))
                    .map(|drawn| Drawn { full, ..drawn })
            }
            Rule::Random(alias, _) => {
                let mut full = false;
                for _ in 0..DRAWS_MAX {
                    let seat = *self.seats.get(alias.draw(rng))?;
                    match look(moment, seat, has_room) {
                        Look::Fits => return Some(Drawn { seat, full, ..Drawn::default() }),
                        Look::Full => full = true,
                        Look::Avoided => {}
                    }
                }
                let salt = rng.next_u64();
                self.scan(moment, has_room, |seat| crate::base::rng::mix(salt ^ (seat as u64)))
                    .map(|drawn| Drawn { full, ..drawn })
            }
            Rule::Least(least) => {
                let seat = *self.seats.get(least.first()?)?;
                let full = match look(moment, seat, has_room) {
                    Look::Fits => return Some(Drawn { seat, ..Drawn::default() }),
                    Look::Full => true,
                    Look::Avoided => false,
                };
                let key = |at: usize| least.key(at);
                let fits = |at: &usize| {
                    self.seats
                        .get(*at)
                        .is_some_and(|seat| matches!(look(moment, *seat, has_room), Look::Fits))
                };
                let at = (0..self.seats.len()).filter(fits).min_by_key(|at| key(*at))?;
                self.seats.get(at).map(|seat| Drawn { seat: *seat, full, ..Drawn::default() })
            }
            Rule::Ewma(_) => self.draw_cheaper(moment, rng, has_room),
            Rule::Ring(..) => self.draw_on_ring(moment, has_room),
        }
    }

    /// What a draw would give, without a turn taken and without chance: the most likely one.
    pub(super) fn peek(&self, moment: &Moment<'_>, has_room: &impl Fn(usize) -> bool) -> Option<Drawn> {
        match &self.rule {
            Rule::Random(_, weights) => {
                let place = |seat: usize| self.seats.iter().position(|own| *own == seat);
                let weight = |seat: usize| place(seat).and_then(|at| weights.get(at).copied());
                self.scan(moment, has_room, |seat| std::cmp::Reverse(weight(seat)))
            }
            Rule::Ewma(_) => self.cheapest(moment, has_room),
            _ => self.clone().draw(moment, &mut Rng::new(0), has_room),
        }
    }

    /// The cheaper of two that are drawn; with near-equal latencies the one with fewer calls. Where weights differ, the second may be the first again: otherwise the lighter
    /// of two endpoints would be asked for every call.
    fn draw_cheaper(
        &self,
        moment: &Moment<'_>,
        rng: &mut Rng,
        has_room: &impl Fn(usize) -> bool,
    ) -> Option<Drawn> {
        let Rule::Ewma(alias) = &self.rule else { return None };
        let one = alias.draw(rng);
        let two = second(alias, one, self.seats.len(), rng);
        let (one, two) = (*self.seats.get(one)?, *self.seats.get(two)?);
        let (first, other) = (look(moment, one, has_room), look(moment, two, has_room));
        let (seat, full) = match (first, other) {
            (Look::Fits, Look::Fits) if one != two => {
                let (first, other) = (moment.expected(one), moment.expected(two));
                let (cost, rival) = (first.cost(), other.cost());
                let is_second = if first.is_near(&other) {
                    // Among equal weights the one whose last call is longer ago; with others that would halve the
                    // difference of the weights.
                    let last = |expected: &Expected| if alias.is_even() { expected.last } else { 0 };
                    (other.outstanding, last(&other)) < (first.outstanding, last(&first))
                } else {
                    rival < cost
                };
                let (seat, cost, two, rival) =
                    if is_second { (two, rival, one, cost) } else { (one, cost, two, rival) };
                let rival = Some((two, micros(rival)));
                return Some(Drawn { seat, full: false, cost_us: micros(cost), rival });
            }
            (Look::Fits, Look::Full) => (one, true),
            (Look::Full, Look::Fits) => (two, true),
            (Look::Fits, _) => (one, false),
            (_, Look::Fits) => (two, false),
            (first, other) => {
                let full = matches!(first, Look::Full) || matches!(other, Look::Full);
                let drawn = self.cheapest(moment, has_room)?;
                return Some(Drawn { full, ..drawn });
            }
        };
        Some(Drawn { seat, full, cost_us: micros(moment.cost(seat)), rival: None })
    }

    /// The cheapest of all.
    fn cheapest(&self, moment: &Moment<'_>, has_room: &impl Fn(usize) -> bool) -> Option<Drawn> {
        let fits = |seat: &&usize| matches!(look(moment, **seat, has_room), Look::Fits);
        let costs = self.seats.iter().filter(fits).map(|seat| (*seat, moment.cost(*seat)));
        let (mut best, mut rival) = (None, None);
        for (seat, cost) in costs {
            if best.is_none_or(|(_, lowest)| cost < lowest) {
                (best, rival) = (Some((seat, cost)), best);
            } else if rival.is_none_or(|(_, lower)| cost < lower) {
                rival = Some((seat, cost));
            }
        }
        let (seat, cost) = best?;
        let rival = rival.map(|(seat, cost)| (seat, micros(cost)));
        Some(Drawn { seat, full: false, cost_us: micros(cost), rival })
    }

    /// The first on the ring that has not more than a quarter above its share ("Consistent hashing with bounded loads",
    /// Mirrokni, Thorup, Zadimoghaddam 2016).
    fn draw_on_ring(&self, moment: &Moment<'_>, has_room: &impl Fn(usize) -> bool) -> Option<Drawn> {
        let Rule::Ring(ring, weights) = &self.rule else { return None };
        let mut full = false;
        for at in ring.from(moment.key).take(PLACES_MAX) {
            let Some(seat) = self.seats.get(at).copied() else { continue };
            match look(moment, seat, has_room) {
                Look::Fits if self.is_in_share(moment, seat, weights.get(at).copied()) => {
                    return Some(Drawn { seat, full, ..Drawn::default() });
                }
                Look::Fits | Look::Full => full = true,
                Look::Avoided => {}
            }
        }
        let place = |seat: usize| self.seats.iter().position(|own| *own == seat);
        let work = |seat: usize| {
            let weight = place(seat).and_then(|at| weights.get(at).copied()).unwrap_or(1);
            let outstanding = moment.load(seat).map_or(u32::MAX, |load| load.outstanding);
            (u64::from(outstanding) << 32).checked_div(u64::from(weight))
        };
        self.scan(moment, has_room, work).map(|drawn| Drawn { full, ..drawn })
    }

    fn is_in_share(&self, moment: &Moment<'_>, seat: usize, weight: Option<u32>) -> bool {
        let outstanding = moment.load(seat).map_or(u32::MAX, |load| load.outstanding);
        is_in_share(outstanding, self.outstanding, weight.unwrap_or(1), self.weights)
    }

    /// Looks at all: the one that fits and has the lowest key.
    fn scan<K: Ord>(
        &self,
        moment: &Moment<'_>,
        has_room: &impl Fn(usize) -> bool,
        key: impl Fn(usize) -> K,
    ) -> Option<Drawn> {
        let fits = |seat: &usize| matches!(look(moment, *seat, has_room), Look::Fits);
        let seat = self.seats.iter().copied().filter(fits).min_by_key(|seat| key(*seat))?;
        Some(Drawn { seat, full: true, ..Drawn::default() })
    }
}

/// Whether an endpoint may have one more call: its share of all, this one counted, and a quarter more, rounded up.
fn is_in_share(outstanding: u32, all: u64, weight: u32, weights: u64) -> bool {
    let own = u128::from(outstanding).saturating_mul(u128::from(weights)).saturating_mul(4);
    let share = u128::from(all).saturating_add(1).saturating_mul(u128::from(weight)).saturating_mul(5);
    own < share
}

#[inline]
fn look(moment: &Moment<'_>, seat: usize, has_room: &impl Fn(usize) -> bool) -> Look {
    if moment.is_avoided(seat) {
        Look::Avoided
    } else if moment.is_within_bound(seat) && has_room(seat) {
        Look::Fits
    } else {
        Look::Full
    }
}

/// A second place to compare with the first.
fn second(alias: &Alias, first: usize, len: usize, rng: &mut Rng) -> usize {
    if alias.is_even() {
        let others = u64::try_from(len.saturating_sub(1)).unwrap_or_default();
        let at = usize::try_from(rng.below(others)).unwrap_or_default();
        return if at >= first && len > 1 { at.saturating_add(1) } else { at };
    }
    let mut drawn = first;
    for _ in 0..DRAWS_MAX {
        drawn = alias.draw(rng);
        if drawn != first {
            break;
        }
    }
    drawn
}
