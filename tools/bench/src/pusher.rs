//! The thread that pushes: one push to each target, so that every connection is reached once; then on a schedule, or the
//! next one when those before it have arrived everywhere.

use crate::audience::{Audience, PUSH};
use crate::bare_control::BareControl;
use crate::clock::Clock;
use crate::pattern::{Pattern, Stamp};
use crate::plan::{Phase, Shared};
use crate::receiver::Reception;
use crate::schedule::Schedule;
use crossbeam_channel::{Receiver, Sender, bounded};
use moorgate_proto::time::Mono;
use moorgate_service::push::GatewayAnswer;
use moorgate_service::{PushError, PushReport, Pusher, TargetState};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// For a push to arrive everywhere, before the run is given up.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(10);
/// The thread looks at its orders at least this often.
const LOOK: Duration = Duration::from_millis(20);
/// After the end of the load, for what was due before it.
pub(crate) const FINISH_GRACE: Duration = Duration::from_secs(1);
/// In the first round, where all targets have one push, at least so many are in flight.
const ROUND_IN_FLIGHT_MIN: usize = 16;

/// Deliveries so far, and who waits for them.
#[derive(Debug)]
pub(crate) struct Arrivals {
    count: AtomicU64,
    wanted: AtomicU64,
    bell: Sender<()>,
    rung: Receiver<()>,
}

impl Default for Arrivals {
    fn default() -> Arrivals {
        let (bell, rung) = bounded(1);
        Arrivals { count: AtomicU64::new(0), wanted: AtomicU64::new(u64::MAX), bell, rung }
    }
}

impl Arrivals {
    /// So many deliveries have come, or will not come, as it was said.
    pub(crate) fn add(&self, count: u64) {
        let arrived = self.count.fetch_add(count, Ordering::SeqCst).saturating_add(count);
        if arrived >= self.wanted.load(Ordering::SeqCst) {
            // It is full: somebody is woken already.
            let _ = self.bell.try_send(());
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Waits until so many have come, for so long at the most; whether they have.
    fn wait(&self, wanted: u64, time: Duration) -> bool {
        self.wanted.store(wanted, Ordering::SeqCst);
        if self.count() < wanted {
            // A bell that was rung for an earlier wish, or the time: the caller looks again.
            let _ = self.rung.recv_timeout(time);
        }
        self.wanted.store(u64::MAX, Ordering::SeqCst);
        self.count() >= wanted
    }
}

/// What became of the pushes, as the other side has reported.
#[derive(Debug)]
pub(crate) struct Reports {
    /// Those that were taken, for each target.
    accepted: Box<[AtomicU64]>,
    /// Pushes with a report.
    reported: AtomicU64,
    errors: Mutex<BTreeMap<String, u64>>,
}

impl Reports {
    pub(crate) fn new(targets: u32) -> Reports {
        let accepted = (0..targets).map(|_| AtomicU64::new(0)).collect();
        Reports { accepted, reported: AtomicU64::new(0), errors: Mutex::default() }
    }

    /// The pushes to a target that were taken.
    pub(crate) fn accepted(&self, target: u32) -> u64 {
        self.accepted.get(target as usize).map_or(0, |count| count.load(Ordering::Acquire))
    }

    pub(crate) fn reported(&self) -> u64 {
        self.reported.load(Ordering::Acquire)
    }

    pub(crate) fn fail(&self, why: String) {
        *self.errors.lock().entry(why).or_default() += 1;
    }

    pub(crate) fn errors(&self) -> BTreeMap<String, u64> {
        self.errors.lock().clone()
    }

    /// A report of a push to a target: whether it was taken.
    pub(crate) fn note(&self, target: u32, was_taken: Result<(), String>) -> bool {
        let is_good = was_taken.is_ok();
        match was_taken {
            Ok(()) => {
                if let Some(count) = self.accepted.get(target as usize) {
                    count.fetch_add(1, Ordering::AcqRel);
                }
            }
            Err(why) => self.fail(why),
        }
        self.reported.fetch_add(1, Ordering::AcqRel);
        is_good
    }

    /// What the gateways say of a push to a target: whether it was taken.
    pub(crate) fn judge(&self, target: u32, report: Result<PushReport, PushError>) -> bool {
        let report = match report {
            Ok(report) => report,
            Err(error) => return self.note(target, Err(format!("a push was not sent: {error}"))),
        };
        let failures: Vec<String> = report.failures().map(|failure| words(&failure.answer)).collect();
        if !report.is_accepted() {
            let why =
                if failures.is_empty() { "no gateway is connected".to_owned() } else { failures.join("; ") };
            return self.note(target, Err(format!("a push: {why}")));
        }
        failures.into_iter().for_each(|why| self.fail(format!("a push, at one of several gateways: {why}")));
        if report.targets.iter().any(|state| !matches!(state, TargetState::Queued | TargetState::Waiting)) {
            self.fail("a push to a user who has no session".to_owned());
        }
        self.note(target, Ok(()))
    }
}

fn words(answer: &GatewayAnswer) -> String {
    match answer {
        GatewayAnswer::Accepted => "taken".to_owned(),
        GatewayAnswer::Refused { code, reason, message } => {
            format!("{} {}: {message}", code.name(), reason.as_str_name())
        }
        GatewayAnswer::Unknown => "the gateway did not answer".to_owned(),
        GatewayAnswer::NotSent => "not sent".to_owned(),
    }
}

/// What takes the pushes.
pub(crate) enum Carrier {
    Gateway(Pusher),
    Bare(BareControl),
}

/// How to push.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// Pushes a second; `None`: each when those before it have arrived.
    pub(crate) rate: Option<f64>,
    /// Without a rate: pushes that have not arrived everywhere.
    pub(crate) in_flight: usize,
    pub(crate) receipts: bool,
}

/// See the module's page.
pub(crate) struct Pushing {
    pub(crate) clock: Clock,
    pub(crate) shared: Arc<Shared>,
    pub(crate) reception: Arc<Reception>,
    pub(crate) reports: Arc<Reports>,
    pub(crate) carrier: Carrier,
    pub(crate) manner: Manner,
    pub(crate) pattern: Pattern,
    pub(crate) pushed: Pushed,
}

/// What was pushed.
#[derive(Debug, Default)]
pub(crate) struct Pushed {
    /// Pushes, which is the next one's number.
    pub(crate) pushes: u64,
    /// Their deliveries, when they have arrived everywhere.
    pub(crate) deliveries: u64,
    /// Pushes of the schedule that were due and not made.
    pub(crate) not_sent: u64,
    /// The deliveries when each of the latest pushes has arrived: those in flight.
    in_flight: VecDeque<u64>,
}

impl Pushing {
    fn audience(&self) -> &Audience {
        &self.reception.audience
    }

    /// Pushes until the run finishes.
    pub(crate) fn run(mut self) -> Pushed {
        let in_flight = self.manner.in_flight.max(ROUND_IN_FLIGHT_MIN);
        for _ in 0..self.audience().targets() {
            if !self.wait_for_room(in_flight) {
                return self.pushed;
            }
            self.push(self.clock.now());
        }
        if !self.wait_for_room(1) {
            return self.pushed;
        }
        while self.shared.phase() == Phase::Ramp {
            self.reception.arrivals.wait(u64::MAX, LOOK);
        }
        match self.manner.rate {
            Some(rate) => self.on_schedule(rate),
            None => {
                while self.wait_for_room(self.manner.in_flight) && self.is_on() {
                    self.push(self.clock.now());
                }
            }
        }
        self.pushed
    }

    /// Whether the run is not over.
    fn is_on(&self) -> bool {
        matches!(self.shared.phase(), Phase::Ramp | Phase::Warm | Phase::Window)
    }

    fn on_schedule(&mut self, rate: f64) {
        let mut schedule = Schedule::new(self.clock.now(), rate);
        let shared = self.shared.clone();
        // What is due before the end of the load still goes out shortly after it.
        while schedule.due() < shared.load_end()
            && self.clock.now() < shared.load_end() + FINISH_GRACE
            && !self.is_stopped()
        {
            match schedule.take(self.clock.now()) {
                Some(at) => self.push(at),
                None => {
                    let time = schedule.due().since(self.clock.now()).min(LOOK);
                    self.reception.arrivals.wait(u64::MAX, time);
                }
            }
        }
        if !self.is_stopped() {
            self.pushed.not_sent = schedule.left(shared.load_end());
        }
    }

    /// Whether the run was given up.
    fn is_stopped(&self) -> bool {
        self.shared.phase() == Phase::Stop
    }

    /// Waits until fewer than so many pushes are in flight; `false`: the run is over, or they do not arrive.
    fn wait_for_room(&mut self, in_flight: usize) -> bool {
        let arrivals = &self.reception.arrivals;
        let until = self.clock.now() + ARRIVAL_TIMEOUT;
        while self.pushed.in_flight.len() >= in_flight.max(1) {
            let Some(wanted) = self.pushed.in_flight.front().copied() else { break };
            if arrivals.wait(wanted, LOOK) {
                self.pushed.in_flight.pop_front();
            } else if !self.is_on() {
                return false;
            } else if self.clock.now() >= until {
                let seconds = ARRIVAL_TIMEOUT.as_secs();
                self.reports.fail(format!("a push has not arrived everywhere within {seconds} s"));
                return false;
            }
        }
        true
    }

    /// Makes the next push, which counts from `at`.
    fn push(&mut self, at: Mono) {
        let number = self.pushed.pushes;
        let (target, _) = self.audience().place(number);
        let size = u64::from(self.audience().size(target));
        self.pushed.pushes = number.saturating_add(1);
        self.pushed.deliveries = self.pushed.deliveries.saturating_add(size);
        if self.manner.rate.is_none() {
            self.pushed.in_flight.push_back(self.pushed.deliveries);
        }
        self.shared.pushed.fetch_add(1, Ordering::Relaxed);
        let payload = self.pattern.stamp(Stamp { number, at });
        match &mut self.carrier {
            Carrier::Gateway(pusher) => {
                let push = self.reception.audience.push(PUSH, target, payload.to_vec());
                let push = if self.manner.receipts { push.with_receipt() } else { push };
                let (reports, reception) = (self.reports.clone(), self.reception.clone());
                pusher.send_then(push, move |report| {
                    if !reports.judge(target, report) {
                        // Nobody gets it.
                        reception.arrivals.add(size);
                    }
                });
            }
            Carrier::Bare(control) => {
                if let Err(error) = control.push(target, payload) {
                    self.reports.note(target, Err(format!("the control connection: {error}")));
                    self.reception.arrivals.add(size);
                }
            }
        }
    }
}
