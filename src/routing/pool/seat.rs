//! One endpoint in a pool, and what is to be thought of it.

use crate::routing::breaker::Record;
use crate::routing::gradient::Gradient;
use crate::routing::{Balance, Instance, Member, PoolSettings, SlowStart, Standing};
use moorgate_proto::time::Mono;
use moorgate_proto::v1::service_view::State;
use std::time::Duration;

/// How often the share of a newcomer is looked at.
pub(super) const STEP: Duration = Duration::from_secs(1);
/// Of a share that is all of it; parts are in thousandths.
const WHOLE: u64 = 1000;

/// See the module's page.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    pub(super) member: Member,
    /// Whether it has a ready link.
    pub(super) ready: bool,
    /// What it says of itself.
    pub(super) view: State,
    /// In ten thousandths.
    pub(super) load: u32,
    /// When it came, or came back, for as long as that matters.
    pub(super) came: Came,
    /// It is ejected.
    pub(super) open: Option<Open>,
    /// The call that is to show whether it is back, if this worker has it.
    pub(super) probe: Probe,
    pub(super) record: Record,
    /// The caller whose call failed when it was the probe, until it is back.
    pub(super) probe_failed_for: Option<u8>,
    pub(super) gradient: Option<Gradient>,
}

/// When an endpoint began to get calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// With the first list, or long ago: it has its whole share.
    Before,
    /// It will with its first ready link.
    Next,
    /// Then.
    At(Mono),
}

/// An ejection, as this worker knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) until: Mono,
}

/// The one call to an endpoint that is half open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    /// Not with this worker.
    None,
    /// It was chosen for it, then.
    Chosen(Mono),
    /// It was sent, then.
    Sent(Mono),
}

/// Whether calls go to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// They do.
    Good,
    /// In a panic: its source doubts it.
    Doubted,
    /// In a panic: it is ejected.
    Open,
    /// One does; in a panic, others too.
    HalfOpen,
    /// They do not.
    Unfit(Unfit),
}

/// Why no calls go to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    Leaving,
    NoLink,
    Weightless,
    Draining,
    Down,
}

impl Seat {
    /// Somebody new. `came` says whether it is spared at first.
    pub(super) fn new(member: Member, came: Came, settings: &PoolSettings) -> Seat {
        Seat {
            member,
            ready: false,
            view: State::Up,
            load: 0,
            came,
            open: None,
            probe: Probe::None,
            record: Record::default(),
            probe_failed_for: None,
            gradient: settings.bounds.adaptive.map(Gradient::new),
        }
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.member.instance.standing == Standing::Leaving
    }

    /// Calls that may be outstanding there.
    pub(super) fn bound(&self, settings: &PoolSettings) -> u32 {
        let fixed = match settings.bounds.endpoint_outstanding_max {
            0 => u32::MAX,
            bound => bound,
        };
        self.gradient.as_ref().map_or(fixed, |gradient| gradient.bound().min(fixed))
    }

    /// Why it can take no calls, by itself.
    fn unfit(&self) -> Option<Unfit> {
        if self.is_leaving() {
            Some(Unfit::Leaving)
        } else if !self.ready {
            Some(Unfit::NoLink)
        } else if self.view == State::Draining {
            Some(Unfit::Draining)
        } else if self.view == State::Down {
            Some(Unfit::Down)
        } else {
            None
        }
    }

    /// Whether it could take calls, ejected or doubted as it may be.
    pub(super) fn is_able(&self) -> bool {
        self.unfit().is_none()
    }

    pub(super) fn has_weight(&self) -> bool {
        self.member.instance.weight > 0
    }

    /// `weights` tells whether a weight of 0 means what it says.
    pub(super) fn fit(&self, now: Mono, weights: bool) -> Fit {
        let weightless = (weights && !self.has_weight()).then_some(Unfit::Weightless);
        match (self.unfit().or(weightless), self.open) {
            (Some(unfit), _) => Fit::Unfit(unfit),
            (None, Some(open)) if open.until > now => Fit::Open,
            (None, Some(_)) => Fit::HalfOpen,
            (None, None) if self.member.instance.standing == Standing::Doubted => Fit::Doubted,
            (None, None) => Fit::Good,
        }
    }

    /// Takes over what the vitals say of ejections; whether something changed, and whether it is back.
    pub(super) fn notice(&mut self, now: Mono, slow_start: &SlowStart) -> Option<Noticed> {
        match (self.member.vitals.ejection.until(), self.open) {
            (None, None) => None,
            (None, Some(_)) => {
                self.close(now, slow_start);
                Some(Noticed::Back)
            }
            (Some(until), Some(open)) if open.until == until => None,
            (Some(until), _) => {
                self.open = Some(Open { until });
                Some(Noticed::Ejected)
            }
        }
    }

    /// It is back: what it did before counts no more, and it is given load slowly.
    pub(super) fn close(&mut self, now: Mono, slow_start: &SlowStart) {
        self.open = None;
        self.record = Record::default();
        self.probe_failed_for = None;
        self.release();
        if !slow_start.time.is_zero() {
            self.came = Came::At(now);
        }
    }

    /// The one call to it is another worker's, or the next one's.
    pub(super) fn release(&mut self) {
        if self.probe != Probe::None {
            self.probe = Probe::None;
            self.member.vitals.ejection.release();
        }
    }

    /// Its share as long as it is new, in percent; `None`: all.
    pub(super) fn slow_percent(&self, now: Mono, slow_start: &SlowStart) -> Option<u64> {
        let Came::At(came) = self.came else { return None };
        let (passed, whole) = (now.since(came).as_nanos(), slow_start.time.as_nanos());
        if passed >= whole {
            return None;
        }
        let first = u128::from(slow_start.first_percent.clamp(1, 100));
        let grown =
            100u128.saturating_sub(first).saturating_mul(passed).checked_div(whole).unwrap_or_default();
        u64::try_from(first.saturating_add(grown)).ok()
    }

    /// What it counts in a draw, in thousandths of a hundredth of the usual weight.
    pub(super) fn weight(&self, now: Mono, settings: &PoolSettings) -> u32 {
        let free = WHOLE.saturating_sub(u64::from(self.load.min(10_000)).saturating_mul(900) / 10_000);
        let slow = self.slow_percent(now, &settings.slow_start).unwrap_or(100);
        let view = if self.view == State::Degraded { 4 } else { 1 };
        let lasting = u64::from(self.lasting_weight(settings));
        let weight = lasting.saturating_mul(free).saturating_mul(slow) / 100_000 / view;
        u32::try_from(weight).unwrap_or(u32::MAX).max(1)
    }

    /// The same without what changes by the second.
    pub(super) fn lasting_weight(&self, settings: &PoolSettings) -> u32 {
        // Without a weight it is drawn only where nobody has one.
        let base = if settings.balance == Balance::RoundRobin || !self.has_weight() {
            Instance::WEIGHT
        } else {
            self.member.instance.weight.min(Instance::WEIGHT_MAX)
        };
        base.saturating_mul(1000)
    }
}

/// What became of an ejection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noticed {
    Ejected,
    Back,
}
