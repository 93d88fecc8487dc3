//! One worker's view of a service's endpoints, and the choice among them. Pure: readiness, room, time and random numbers
//! come from outside.
//!
//! An endpoint has a seat: a small number, its own from when it joins until [`Pool::remove`]. Who can be chosen is worked
//! out when something changes ([`slate`]); a choice draws from that.
//!
//! Guarantees: a choice is never an endpoint that leaves, has no ready link, drains or is down. At one that is half open
//! there is one call at a time, over all workers. Never more endpoints are ejected than the settings say, over all
//! workers.

mod choose;
mod explain;
mod judge;
mod seat;
mod slate;
#[cfg(test)]
mod tests;

use super::ewma::Typical;
use super::load::Load;
use super::tally::Tally;
use super::{Ask, EndpointId, Explanation, Fault, Member, Origin, PoolSettings, Pools, Standing, Verdict};
use crate::base::ids::ServiceId;
use crate::base::rng::Rng;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::service_view;
use seat::{Came, Probe, Seat};
use slate::{Census, Slate};
use std::sync::Arc;
use std::time::Duration;

/// Loads are told apart by so many ten thousandths.
const LOAD_STEP: u32 = 500;

/// What a publication changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A new endpoint has this seat, or one that was leaving is back.
    Joined(usize),
    /// The endpoint of this seat leaves: no new calls; [`Pool::remove`] it when the old ones are finished.
    Left(usize),
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Where it was sent.
    pub seat: usize,
    /// From sending to the answer, or to what came instead.
    pub latency: Duration,
    /// What it tells of the endpoint.
    pub verdict: Verdict,
    /// How it failed there, if it did; for the operator.
    pub fault: Option<Fault>,
    /// Caller and route of the call; `None`: it has none, or its failure is not due to them.
    pub origin: Option<Origin>,
}

/// See the module's page.
#[derive(Debug)]
pub struct Pool {
    service: ServiceId,
    settings: PoolSettings,
    shared: Arc<Pools>,
    seats: Vec<Option<Seat>>,
    /// Beside the seats.
    loads: Vec<Load>,
    /// Beside the seats, too.
    tallies: Vec<Arc<Tally>>,
    slate: Slate,
    /// The slate is out of date.
    is_stale: bool,
    /// Ejections are known up to this change of them.
    ejections_seen: u64,
    outstanding: u32,
    /// Calls that were sent since it began.
    calls: u64,
    typical: Typical,
    /// Who was chosen last, and when.
    chosen: Option<(usize, Mono)>,
    /// Who was chosen for the one call to an endpoint that is half open, until that is sent.
    probing: Option<usize>,
    /// It has had a list: those that come later are newcomers.
    has_begun: bool,
}

impl Pool {
    /// An empty pool.
    pub fn new(service: ServiceId, settings: PoolSettings, shared: Arc<Pools>) -> Pool {
        Pool {
            service,
            settings,
            shared,
            seats: Vec::new(),
            loads: Vec::new(),
            tallies: Vec::new(),
            slate: Slate::default(),
            is_stale: false,
            ejections_seen: 0,
            outstanding: 0,
            calls: 0,
            typical: Typical::default(),
            chosen: None,
            probing: None,
            has_begun: false,
        }
    }

    /// Takes in what is published, by difference: who stays keeps its seat, its counts and its scores.
    pub fn update(&mut self, now: Mono) -> Vec<Change> {
        let members = self.shared.members(self.service);
        let mut places = self.places();
        let mut changes = Vec::new();
        for member in members.iter() {
            let stays = member.instance.standing != Standing::Leaving;
            let place = places.remove(&member.id);
            match place.and_then(|at| Some((at, self.seats.get_mut(at)?.as_mut()?))) {
                Some((at, seat)) => {
                    let stayed = !seat.is_leaving();
                    seat.member = member.clone();
                    match (stayed, stays) {
                        (true, false) => changes.push(Change::Left(at)),
                        (false, true) => changes.push(Change::Joined(at)),
                        _ => {}
                    }
                }
                None if stays => changes.push(Change::Joined(self.seat(member))),
                None => {}
            }
        }
        let mut left: Vec<usize> = places.into_values().collect();
        left.sort_unstable();
        for at in left {
            if let Some(Some(seat)) = self.seats.get_mut(at)
                && !seat.is_leaving()
            {
                seat.member.instance.standing = Standing::Leaving;
                changes.push(Change::Left(at));
            }
        }
        self.has_begun |= !members.is_empty();
        self.is_stale = true;
        self.free_places();
        self.notice(now);
        changes
    }

    /// Frees the seat of an endpoint that has left and has nothing outstanding.
    pub fn remove(&mut self, seat: usize) {
        if let Some(mut gone) = self.seats.get_mut(seat).and_then(Option::take) {
            gone.release();
            self.is_stale = true;
        }
        if let Some((load, tally)) = self.loads.get_mut(seat).zip(self.tallies.get_mut(seat)) {
            (*load, *tally) = (Load::new(0), Arc::default());
        }
    }

    /// The endpoint of a seat.
    pub fn member(&self, seat: usize) -> Option<&Member> {
        Some(&self.seats.get(seat)?.as_ref()?.member)
    }

    /// Number of seats, free ones counted.
    pub fn seats(&self) -> usize {
        self.seats.len()
    }

    /// Notes whether the endpoint has a ready link.
    pub fn set_ready(&mut self, now: Mono, seat: usize, ready: bool) {
        let slow = !self.settings.slow_start.time.is_zero();
        if let Some(Some(seat)) = self.seats.get_mut(seat)
            && seat.ready != ready
        {
            seat.ready = ready;
            match seat.came {
                Came::Next if ready => seat.came = if slow { Came::At(now) } else { Came::Before },
                _ if !ready => seat.came = Came::Next,
                _ => {}
            }
            self.is_stale = true;
        }
    }

    /// Notes what the service says of itself there; `load` in ten thousandths.
    pub fn set_view(&mut self, seat: usize, state: service_view::State, load: u32) {
        // Coarse: not every ping is to change who is drawn.
        let load = load.min(10_000) / LOAD_STEP * LOAD_STEP;
        if let Some(Some(seat)) = self.seats.get_mut(seat)
            && (seat.view, seat.load) != (state, load)
        {
            (seat.view, seat.load) = (state, load);
            self.is_stale = true;
        }
    }

    /// Whether any endpoint has a ready link and may get calls.
    pub fn has_ready(&self) -> bool {
        if !self.is_stale {
            return !self.slate.is_empty()
                || !self.slate.others.probes.is_empty()
                || !self.slate.canary.probes.is_empty();
        }
        let census = Census::of(self.seats.iter().flatten(), Mono::NEVER);
        census.good > 0 || census.half_open > 0 || census.is_panic(self.settings.ejection.panic_percent)
    }

    /// A call was sent to an endpoint. Every one of them is followed by one [`Pool::finished`].
    #[inline]
    pub fn started(&mut self, seat: usize) {
        self.outstanding = self.outstanding.saturating_add(1);
        let chosen = self.chosen.take();
        if let Some(tally) = self.tallies.get(seat) {
            tally.sent();
        }
        if let Some(load) = self.loads.get_mut(seat) {
            load.outstanding = load.outstanding.saturating_add(1);
            // Whoever was not chosen here was chosen by the caller, at a time that is not known.
            if load.quiet == Mono::NEVER
                && let Some((_, at)) = chosen.filter(|(chosen, _)| *chosen == seat)
            {
                load.quiet = at;
            }
            self.calls = self.calls.saturating_add(1);
            load.last = self.calls;
            if let Some(spot) = load.spot {
                self.slate.lot_mut(spot).note(spot.at, load, true);
            }
        }
        if self.probing == Some(seat) {
            self.probing = None;
            if let Some(Some(seat)) = self.seats.get_mut(seat)
                && let Probe::Chosen(at) = seat.probe
            {
                seat.probe = Probe::Sent(at);
            }
        }
    }

    /// The call for which this endpoint was just chosen is not sent: if it was to show whether the endpoint is back,
    /// another one may.
    pub fn unsent(&mut self, seat: usize) {
        if self.probing == Some(seat) {
            self.probing = None;
            if let Some(Some(seat)) = self.seats.get_mut(seat) {
                seat.release();
            }
        }
    }

    /// Whether another endpoint than that of this seat could be chosen, if it has room.
    pub fn has_another(&mut self, now: Mono, seat: usize) -> bool {
        self.catch_up(now);
        let mut sides = [&self.slate.others, &self.slate.canary].into_iter();
        let is_free = |at: &usize| {
            *at != seat && self.member(*at).is_some_and(|member| !member.vitals.ejection.is_probed())
        };
        let drawn = |at: usize, load: &Load| at != seat && load.spot.is_some();
        self.loads.iter().enumerate().any(|(at, load)| drawn(at, load))
            || sides.any(|side| side.probes.iter().any(is_free))
    }

    /// What became of a call: its slot is free, and its endpoint is judged.
    pub fn finished(&mut self, now: Mono, ended: Ended, rng: &mut Rng) {
        self.outstanding = self.outstanding.saturating_sub(1);
        if let Some(fault) = ended.fault
            && let Some(tally) = self.tallies.get(ended.seat)
        {
            tally.failed(fault);
        }
        if let Some(load) = self.loads.get_mut(ended.seat) {
            load.outstanding = load.outstanding.saturating_sub(1);
            load.quiet = if load.outstanding > 0 { now } else { Mono::NEVER };
            if let Some(spot) = load.spot {
                self.slate.lot_mut(spot).note(spot.at, load, false);
            }
        }
        self.score(now, ended);
        self.judge(now, ended, rng);
    }

    /// When [`Pool::tick`] has something to do: an ejection ends, a slow start goes on.
    pub fn next_deadline(&self) -> Option<Mono> {
        if self.is_stale { Some(Mono::ZERO) } else { self.slate.next }
    }

    /// Looks at what time has changed.
    pub fn tick(&mut self, now: Mono) {
        self.catch_up(now);
    }

    /// Why a call like this would go where it would go; changes nothing.
    pub fn explain(&self, now: Mono, ask: Ask) -> Explanation {
        explain::explain(self, now, ask)
    }

    /// What it was built from.
    pub fn settings(&self) -> &PoolSettings {
        &self.settings
    }

    /// The id at a seat; 0 when nobody sits there.
    pub fn id(&self, seat: usize) -> EndpointId {
        self.member(seat).map_or(EndpointId::default(), |member| member.id)
    }

    /// Everybody's place.
    fn places(&self) -> std::collections::HashMap<EndpointId, usize> {
        let seats = self.seats.iter().enumerate();
        seats.filter_map(|(at, seat)| Some((seat.as_ref()?.member.id, at))).collect()
    }

    /// Gives a newcomer a seat.
    fn seat(&mut self, member: &Member) -> usize {
        let came = if self.has_begun { Came::Next } else { Came::Before };
        let tally = member.vitals.tallies.join();
        let seat = Seat::new(member.clone(), came, &self.settings);
        let load = Load::new(seat.bound(&self.settings));
        let at = self.seats.iter().position(Option::is_none).unwrap_or(self.seats.len());
        if at == self.seats.len() {
            self.seats.push(None);
            self.loads.push(load);
            self.tallies.push(tally.clone());
        }
        let beside = self.loads.get_mut(at).zip(self.tallies.get_mut(at));
        if let Some((place, (own, counts))) = self.seats.get_mut(at).zip(beside) {
            (*place, *own, *counts) = (Some(seat), load, tally);
        }
        at
    }

    /// Brings everything up to date: what other workers did, what time did, what changed here.
    #[inline]
    fn catch_up(&mut self, now: Mono) {
        if let Some(seat) = self.probing.take()
            && let Some(Some(seat)) = self.seats.get_mut(seat)
        {
            // It was chosen and never sent.
            seat.release();
        }
        if self.shared.ejections(self.service) != self.ejections_seen {
            self.notice(now);
        }
        if self.is_stale || self.slate.next.is_some_and(|next| next <= now) {
            self.renew(now);
        }
    }

    #[inline(never)]
    fn renew(&mut self, now: Mono) {
        let old = std::mem::take(&mut self.slate);
        self.slate = Slate::new(&self.seats, &mut self.loads, &self.settings, now, old);
        self.is_stale = false;
    }
}
