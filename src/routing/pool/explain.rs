//! Why a call would go where it would go, for people. Works on a copy; the pool and what workers share stay as they are.

use super::Pool;
use super::seat::{Fit, Probe, Seat, Unfit};
use super::slate::{Census, Slate, is_canary, is_near};
use crate::routing::draw::Moment;
use crate::routing::ewma::micros;
use crate::routing::{Ask, Decision, EndpointId, Explanation, How, Marks, Miss, Standings};
use moorgate_proto::time::Mono;
use moorgate_proto::v1::service_view::State;
use std::sync::atomic::Ordering;

pub(super) fn explain(pool: &Pool, now: Mono, ask: Ask) -> Explanation {
    let mut copy = copy(pool);
    copy.notice(now);
    copy.renew(now);
    let canary = side(&copy, ask);
    let chosen = chosen(&copy, now, ask, canary);
    let census = Census::of(copy.seats.iter().flatten(), now);
    let seats = copy.seats.iter().enumerate();
    let endpoints = seats.filter_map(|(at, seat)| {
        let seat = seat.as_ref()?;
        let mut standings = standings(&copy, &census, now, (at, seat));
        // It stays on its own side, whatever it could do there; but for a call that has nobody on its own.
        let is_own_side = canary.is_none_or(|side| side == wanted(&copy, ask));
        match (is_canary(seat, copy.settings.canary.as_ref()), wanted(&copy, ask)) {
            (true, false) if is_own_side => set_aside(&mut standings, "of the canary; this caller is not"),
            (false, true) if is_own_side => set_aside(&mut standings, "not of the canary; this caller is"),
            (true, _) => standings.notes.push("canary".to_owned()),
            (false, _) => {}
        }
        Some(standings)
    });
    Explanation { chosen, endpoints: endpoints.collect() }
}

/// A pool that can be changed without any effect: it has no probe that it could give back.
fn copy(pool: &Pool) -> Pool {
    let mut seats = pool.seats.clone();
    seats.iter_mut().flatten().for_each(|seat| seat.probe = Probe::None);
    Pool {
        service: pool.service,
        settings: pool.settings.clone(),
        shared: pool.shared.clone(),
        seats,
        loads: pool.loads.clone(),
        slate: Slate { next: None, ..pool.slate.clone() },
        probing: None,
        tallies: Vec::new(),
        ..*pool
    }
}

fn set_aside(standings: &mut Standings, why: &str) {
    standings.usable = false;
    standings.weight = 0;
    standings.notes.insert(0, why.to_owned());
}

/// A seat that is half open, and that nobody tries yet.
fn probe(pool: &Pool, ask: Ask, canary: bool) -> Option<usize> {
    let mut probes = pool.slate.side(canary).probes.iter().copied().filter(|at| ask.avoid != Some(*at));
    probes.find(|at| pool.member(*at).is_some_and(|member| !member.vitals.ejection.is_probed()))
}

/// Where the caller belongs: with the canary, or not.
fn wanted(pool: &Pool, ask: Ask) -> bool {
    ask.canary && pool.settings.canary.is_some()
}

/// On which side somebody can take the call: where the caller belongs, or else the other.
fn side(pool: &Pool, ask: Ask) -> Option<bool> {
    let wanted = wanted(pool, ask);
    let can = |canary: &bool| probe(pool, ask, *canary).is_some() || !pool.slate.side(*canary).is_empty();
    [wanted, !wanted].into_iter().find(can)
}

fn chosen(pool: &Pool, now: Mono, ask: Ask, side: Option<bool>) -> Result<(EndpointId, Decision), Miss> {
    if pool.outstanding >= pool.settings.bounds.outstanding_max {
        return Err(if pool.has_ready() { Miss::NoRoom } else { Miss::NoEndpoint });
    }
    let wanted = wanted(pool, ask);
    let canary = side.ok_or(Miss::NoEndpoint)?;
    let side = pool.slate.side(canary);
    let mut marks = Marks::default();
    for (is, mark) in [(wanted, Marks::CANARY), (canary != wanted, Marks::FALLBACK)] {
        marks = if is { marks.with(mark) } else { marks };
    }
    if let Some(at) = probe(pool, ask, canary) {
        return Ok((pool.id(at), pool.decision(How::Probe, marks, canary)));
    }
    marks = if pool.slate.panic { marks.with(Marks::PANIC) } else { marks };
    let loads = pool.loads.as_slice();
    let moment = Moment { now, loads, typical: pool.typical.nanos(), key: ask.key, avoid: ask.avoid };
    let first = side.is_mostly_near();
    let has_room = |_: usize| true;
    let ways = [ask.avoid, None].into_iter().flat_map(|avoid| [(avoid, first), (avoid, !first)]);
    let (near, drawn) = ways
        .filter(|(_, near)| !side.lot(*near).is_empty())
        .find_map(|(avoid, near)| Some((near, side.lot(near).peek(&Moment { avoid, ..moment }, &has_room)?)))
        .ok_or(pool.full(canary))?;
    let marks = if near { marks } else { marks.with(Marks::SPILLED) };
    let marks = if drawn.full { marks.with(Marks::FULL) } else { marks };
    Ok((pool.id(drawn.seat), pool.decided(drawn, marks, canary)))
}

fn standings(pool: &Pool, census: &Census, now: Mono, (at, seat): (usize, &Seat)) -> Standings {
    let load = pool.loads.get(at);
    let loads = pool.loads.as_slice();
    let moment = Moment { now, loads, typical: pool.typical.nanos(), key: 0, avoid: None };
    let outstanding = load.map_or(0, |load| load.outstanding);
    let usable = load.is_some_and(|load| load.spot.is_some());
    let own = u64::from(seat.lasting_weight(&pool.settings)) / 100;
    let part = u64::from(seat.weight(now, &pool.settings)).checked_div(own);
    Standings {
        id: seat.member.id,
        usable,
        notes: notes(pool, census, now, (at, seat)),
        outstanding,
        weight: if usable { part.and_then(|part| u32::try_from(part).ok()).unwrap_or_default() } else { 0 },
        latency_us: load.map_or(0, |load| micros(load.nanos(now, moment.typical))),
        cost_us: micros(moment.cost(at)),
    }
}

fn notes(pool: &Pool, census: &Census, now: Mono, (at, seat): (usize, &Seat)) -> Vec<String> {
    let mut notes = Vec::new();
    let settings = &pool.settings;
    if let Some(open) = seat.open {
        let strikes = seat.member.vitals.strikes.load(Ordering::Relaxed);
        let left = open.until.since(now);
        notes.push(match seat.fit(now, census.weights) {
            _ if left.is_zero() && seat.member.vitals.ejection.is_probed() => {
                format!("half open: one call is under way to see whether it is back ({strikes} ejections in a row)")
            }
            _ if left.is_zero() => {
                format!("half open: the next call tries it ({strikes} ejections in a row)")
            }
            _ => format!("ejected for {} ms more ({strikes} in a row)", left.as_millis()),
        });
    }
    match seat.fit(now, census.weights) {
        Fit::Unfit(Unfit::Leaving) => notes.push("leaving".to_owned()),
        Fit::Unfit(Unfit::Weightless) => notes.push("weight 0".to_owned()),
        Fit::Unfit(Unfit::NoLink) => notes.push("no link".to_owned()),
        Fit::Unfit(Unfit::Draining) => notes.push("draining".to_owned()),
        Fit::Unfit(Unfit::Down) => notes.push("it says that it is down".to_owned()),
        Fit::Doubted if census.doubts => notes.push("doubted by its source".to_owned()),
        Fit::Doubted => notes.push("doubted by its source, as all are".to_owned()),
        Fit::Good | Fit::Open | Fit::HalfOpen => {}
    }
    if seat.view == State::Degraded {
        notes.push("degraded: a quarter of its weight".to_owned());
    }
    if seat.load > 0 {
        notes.push(format!("it says that it is loaded to {} %", seat.load.min(10_000) / 100));
    }
    if let Some(percent) = seat.slow_percent(now, &settings.slow_start) {
        notes.push(format!("slow start {percent} %"));
    }
    if settings.prefer.is_some() && is_near(seat, settings.prefer.as_ref()) {
        notes.push("preferred".to_owned());
    }
    if let Some(load) = pool.loads.get(at)
        && load.outstanding >= load.bound
    {
        notes.push(format!("full: its bound is {}", load.bound));
    }
    if pool.loads.get(at).is_some_and(|load| !load.ewma.is_known()) {
        notes.push("how fast it is nobody knows yet".to_owned());
    }
    if seat.record.in_a_row() > 0 {
        notes.push(format!("{} failures in a row", seat.record.in_a_row()));
    }
    notes
}
