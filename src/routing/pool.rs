//! One worker's view of a service's endpoints, and the choice among them. Pure: readiness, room, time and random numbers
//! come from outside.
//!
//! An endpoint has a seat: a small number, its own from when it joins until [`Pool::remove`].

use super::{
    Ask, Decision, EndpointId, Explanation, How, Member, Miss, PoolSettings, Pools, Standing, Standings,
    Verdict,
};
use crate::base::ids::ServiceId;
use crate::base::rng::Rng;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::service_view;
use std::sync::Arc;
use std::time::Duration;

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
}

/// See the module's page.
#[derive(Debug)]
pub struct Pool {
    service: ServiceId,
    settings: PoolSettings,
    shared: Arc<Pools>,
    seats: Vec<Option<Seat>>,
    outstanding: u32,
}

#[derive(Debug)]
struct Seat {
    member: Member,
    ready: bool,
    outstanding: u32,
}

impl Pool {
    /// An empty pool.
    pub fn new(service: ServiceId, settings: PoolSettings, shared: Arc<Pools>) -> Pool {
        Pool { service, settings, shared, seats: Vec::new(), outstanding: 0 }
    }

    /// Takes in what is published, by difference: who stays keeps its seat, its counts and its scores.
    pub fn update(&mut self, _now: Mono) -> Vec<Change> {
        let members = self.shared.members(self.service);
        let mut changes = Vec::new();
        for member in members.iter() {
            let stays = member.instance.standing != Standing::Leaving;
            let at =
                self.seats.iter().position(|seat| seat.as_ref().is_some_and(|s| s.member.id == member.id));
            match at.and_then(|at| Some((at, self.seats.get_mut(at)?.as_mut()?))) {
                Some((at, seat)) => {
                    let stayed = seat.member.instance.standing != Standing::Leaving;
                    seat.member = member.clone();
                    match (stayed, stays) {
                        (true, false) => changes.push(Change::Left(at)),
                        (false, true) => changes.push(Change::Joined(at)),
                        _ => {}
                    }
                }
                None if stays => {
                    let seat = Some(Seat { member: member.clone(), ready: false, outstanding: 0 });
                    let at = match self.seats.iter().position(Option::is_none) {
                        Some(free) => free,
                        None => {
                            self.seats.push(None);
                            self.seats.len().saturating_sub(1)
                        }
                    };
                    if let Some(place) = self.seats.get_mut(at) {
                        *place = seat;
                    }
                    changes.push(Change::Joined(at));
                }
                None => {}
            }
        }
        for (at, seat) in self.seats.iter_mut().enumerate() {
            if let Some(seat) = seat
                && seat.member.instance.standing != Standing::Leaving
                && members.iter().all(|member| member.id != seat.member.id)
            {
                seat.member.instance.standing = Standing::Leaving;
                changes.push(Change::Left(at));
            }
        }
        changes
    }

    /// Frees the seat of an endpoint that has left and has nothing outstanding.
    pub fn remove(&mut self, seat: usize) {
        if let Some(place) = self.seats.get_mut(seat) {
            *place = None;
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
    pub fn set_ready(&mut self, _now: Mono, seat: usize, ready: bool) {
        if let Some(Some(seat)) = self.seats.get_mut(seat) {
            seat.ready = ready;
        }
    }

    /// Notes what the service says of itself there; `load` in ten thousandths.
    pub fn set_view(&mut self, _now: Mono, _seat: usize, _state: service_view::State, _load: u32) {}

    /// Chooses an endpoint for a call; `has_room` tells whether a link of a seat can take one more.
    ///
    /// # Errors
    /// [`Miss`] when none can.
    pub fn choose(
        &mut self,
        _now: Mono,
        ask: Ask,
        _rng: &mut Rng,
        has_room: impl Fn(usize) -> bool,
    ) -> Result<(usize, Decision), Miss> {
        let ready = |seat: &Seat| seat.ready && seat.member.instance.standing != Standing::Leaving;
        let all = self.seats.iter().enumerate();
        let all = all.filter_map(|(at, seat)| Some((at, seat.as_ref().filter(|seat| ready(seat))?)));
        let candidates = all.clone().count();
        let rooms = all.filter(|(at, _)| has_room(*at));
        let best = rooms.min_by_key(|(at, seat)| (Some(*at) == ask.avoid, seat.outstanding));
        match best {
            Some((at, _)) => {
                let candidates = u16::try_from(candidates).unwrap_or(u16::MAX);
                let decision = Decision { how: How::LeastOutstanding, candidates, ..Decision::default() };
                Ok((at, decision))
            }
            None if candidates == 0 => Err(Miss::NoEndpoint),
            None => Err(Miss::NoRoom),
        }
    }

    /// Whether any endpoint has a ready link and may get calls.
    pub fn has_ready(&self) -> bool {
        let ready = |seat: &Seat| seat.ready && seat.member.instance.standing != Standing::Leaving;
        self.seats.iter().flatten().any(ready)
    }

    /// A call was sent to an endpoint. Every one of them is followed by one [`Pool::finished`].
    pub fn started(&mut self, seat: usize) {
        self.outstanding = self.outstanding.saturating_add(1);
        if let Some(Some(seat)) = self.seats.get_mut(seat) {
            seat.outstanding = seat.outstanding.saturating_add(1);
        }
    }

    /// What became of a call: its slot is free, and its endpoint is judged.
    pub fn finished(&mut self, _now: Mono, ended: Ended, _rng: &mut Rng) {
        self.outstanding = self.outstanding.saturating_sub(1);
        if let Some(Some(seat)) = self.seats.get_mut(ended.seat) {
            seat.outstanding = seat.outstanding.saturating_sub(1);
        }
    }

    /// When [`Pool::tick`] has something to do: an ejection ends, a slow start goes on.
    pub fn next_deadline(&self) -> Option<Mono> {
        None
    }

    /// Looks at what time has changed.
    pub fn tick(&mut self, _now: Mono) {}

    /// Why a call like this would go where it would go; changes nothing.
    pub fn explain(&self, _now: Mono, _ask: Ask) -> Explanation {
        let endpoints = self.seats.iter().flatten().map(|seat| Standings {
            id: seat.member.id,
            usable: seat.ready,
            notes: Vec::new(),
            outstanding: seat.outstanding,
            weight: seat.member.instance.weight,
            latency_us: 0,
            cost_us: 0,
        });
        Explanation { chosen: Err(Miss::NoEndpoint), endpoints: endpoints.collect() }
    }

    /// What it was built from.
    pub fn settings(&self) -> &PoolSettings {
        &self.settings
    }

    /// The id at a seat; 0 when nobody sits there.
    pub fn id(&self, seat: usize) -> EndpointId {
        self.member(seat).map_or(EndpointId::default(), |member| member.id)
    }
}
