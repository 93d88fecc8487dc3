//! What a finished call tells of its endpoint: its latency, and whether it is left alone for a while or is back.

use super::seat::{Noticed, Probe, Seat};
use super::{Ended, Pool};
use crate::base::rng::Rng;
use crate::routing::breaker::{ejected_max, term};
use crate::routing::ewma::{Ewma, PENALTY_MAX};
use crate::routing::{EjectionSettings, Verdict};
use moorgate_proto::time::Mono;
use std::sync::atomic::Ordering;
use std::time::Duration;

impl Pool {
    /// Takes the latency in.
    pub(super) fn score(&mut self, now: Mono, ended: Ended) {
        let Some(load) = self.loads.get_mut(ended.seat) else { return };
        match ended.verdict {
            Verdict::Good => {
                load.ewma.record(now, ended.latency, self.typical.nanos());
                self.typical.record(ended.latency);
                if self.settings.bounds.adaptive.is_some()
                    && let Some(Some(seat)) = self.seats.get_mut(ended.seat)
                    && let Some(gradient) = &mut seat.gradient
                {
                    gradient.record(ended.latency, load.outstanding.saturating_add(1));
                    load.bound = seat.bound(&self.settings);
                }
            }
            Verdict::Failed => load.ewma.penalise(now, None),
            Verdict::Busy(spare_ms) => load.ewma.penalise(now, spare(spare_ms)),
            Verdict::Nothing => {}
        }
    }

    /// Ejects the endpoint, or lets it come back.
    pub(super) fn judge(&mut self, now: Mono, ended: Ended, rng: &mut Rng) {
        if self.shared.ejections(self.service) != self.ejections_seen {
            self.notice(now);
        }
        let settings = &self.settings.ejection;
        let Some(Some(seat)) = self.seats.get_mut(ended.seat) else { return };
        if seat.open.is_some() {
            let is_last = self.loads.get(ended.seat).is_none_or(|load| load.outstanding == 0);
            if let Probe::Sent(at) = seat.probe
                && (is_since(now, ended, at) || is_last)
            {
                self.end_probe(now, ended, rng);
            }
            return;
        }
        if seat.is_leaving() {
            return;
        }
        match ended.verdict {
            Verdict::Good => seat.record.note(now, settings, ended.origin, true),
            Verdict::Failed => {
                seat.record.note(now, settings, ended.origin, false);
                if seat.record.is_bad(settings) {
                    self.eject(now, ended.seat, rng);
                }
            }
            Verdict::Busy(_) | Verdict::Nothing => {}
        }
    }

    /// Takes in what all workers did about ejections.
    pub(super) fn notice(&mut self, now: Mono) {
        self.ejections_seen = self.shared.ejections(self.service);
        for (seat, load) in self.seats.iter_mut().zip(self.loads.iter_mut()) {
            let Some(seat) = seat else { continue };
            match seat.notice(now, &self.settings.slow_start) {
                None => continue,
                Some(Noticed::Back) => load.ewma = Ewma::default(),
                Some(Noticed::Ejected) => seat.record = Default::default(),
            }
            self.is_stale = true;
        }
    }

    /// Those that leave are not ejected any more; and when fewer are left, fewer may be.
    pub(super) fn free_places(&mut self) {
        for seat in self.seats.iter().flatten().filter(|seat| seat.is_leaving()) {
            self.shared.readmit(self.service, &seat.member.vitals);
        }
        let until = |seat: &&Seat| seat.member.vitals.ejection.until();
        // Of all that stay: that a link is lost for a moment brings nobody back.
        let staying = self.seats.iter().flatten().filter(|seat| !seat.is_leaving()).count();
        let places = ejected_max(&self.settings.ejection, staying);
        while self.shared.ejected(self.service) > u64::from(places) {
            let ejected = self.seats.iter().flatten().filter(|seat| until(seat).is_some());
            let Some(first) = ejected.min_by_key(until) else { return };
            self.shared.readmit(self.service, &first.member.vitals);
        }
    }

    fn eject(&mut self, now: Mono, at: usize, rng: &mut Rng) {
        if self.is_stale {
            self.renew(now);
        }
        // Of those that could take calls: who has no link leaves nobody less to call.
        let places = ejected_max(&self.settings.ejection, self.slate.able);
        let Some(Some(seat)) = self.seats.get(at) else { return };
        let settings = &self.settings.ejection;
        let vitals = &seat.member.vitals;
        let back = vitals.back_at.load(Ordering::Acquire);
        // Once it has been well for as long as it is watched with suspicion, it begins anew.
        let watched = settings.window.max(self.settings.slow_start.time);
        let strikes = if back > 0 && now.since(Mono::from_nanos(back)) < watched {
            vitals.strikes.load(Ordering::Acquire)
        } else {
            0
        };
        if self.shared.eject(self.service, vitals, now + term(settings, strikes, rng), places) {
            vitals.strikes.store(strikes.saturating_add(1), Ordering::Release);
            self.notice(now);
        }
    }

    /// The one call to an endpoint that is half open has ended.
    fn end_probe(&mut self, now: Mono, ended: Ended, rng: &mut Rng) {
        let Some(Some(seat)) = self.seats.get_mut(ended.seat) else { return };
        let settings: &EjectionSettings = &self.settings.ejection;
        let vitals = seat.member.vitals.clone();
        let until = seat.open.map_or(Mono::ZERO, |open| open.until);
        match ended.verdict {
            Verdict::Good => {
                self.shared.readmit(self.service, &vitals);
                vitals.back_at.store(now.as_nanos().max(1), Ordering::Release);
                seat.close(now, &self.settings.slow_start);
                if let Some(load) = self.loads.get_mut(ended.seat) {
                    load.ewma = Ewma::default();
                    load.ewma.record(now, ended.latency, self.typical.nanos());
                }
                self.is_stale = true;
            }
            Verdict::Failed => {
                let strikes = vitals.strikes.load(Ordering::Acquire);
                // Twice by calls of one caller: that may be the caller's fault.
                let caller = ended.origin.map(|origin| origin.caller);
                let is_again =
                    caller.is_some() && std::mem::replace(&mut seat.probe_failed_for, caller) == caller;
                let more = if is_again { 0 } else { 1 };
                if self.shared.prolong(self.service, &vitals, until, now + term(settings, strikes, rng)) {
                    vitals.strikes.store(strikes.saturating_add(more), Ordering::Release);
                }
            }
            Verdict::Busy(spare_ms) => {
                // It answers, and wants to be left alone: that is no strike.
                let wait = spare(spare_ms).unwrap_or_default().min(PENALTY_MAX).max(term(settings, 0, rng));
                self.shared.prolong(self.service, &vitals, until, now + wait.min(settings.term_max));
            }
            Verdict::Nothing => {}
        }
        // Only now: who claims the next one must find what came of this one.
        if let Some(Some(seat)) = self.seats.get_mut(ended.seat) {
            seat.release();
        }
        self.notice(now);
    }
}

/// Whether a call was sent then, or later: one that ended unsent, and so took no time, only at that very moment.
fn is_since(now: Mono, ended: Ended, at: Mono) -> bool {
    let is_unsent = ended.latency.is_zero() && ended.verdict == Verdict::Nothing;
    now - ended.latency >= at && (!is_unsent || now == at)
}

/// For how long a peer asks to be spared, if it does.
fn spare(ms: u32) -> Option<Duration> {
    (ms > 0).then(|| Duration::from_millis(ms.into()))
}
