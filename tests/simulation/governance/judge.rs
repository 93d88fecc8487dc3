//! Who looks on and knows what is right, from what callers and instances saw; it never asks the core.

use crate::governance::backend::State;
use crate::governance::blame::Failing;
use crate::governance::scenario::{Kind, Scenario};
use crate::governance::sides::{Sides, Split};
use moorgate::relay::Outcome;
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::Execution;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Names a call in its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);

impl CallId {
    pub fn read(payload: &[u8]) -> CallId {
        CallId(u64::from_le_bytes(payload[..8].try_into().unwrap()))
    }
}

#[derive(Debug)]
struct Call {
    kind: Kind,
    session: u32,
    asked: Mono,
    deadline: Mono,
    /// One side of its service is well, all the time.
    is_safe: bool,
    runs: Vec<usize>,
    outcome: Option<Outcome>,
}

/// What one worker was asked within one second, and attempts beyond the first that reached instances.
#[derive(Debug, Default, Clone, Copy)]
struct Attempts {
    asked: u64,
    more: u64,
}

/// Seconds that a budget looks back.
const MEMORY_S: u64 = 10;

#[derive(Debug, Default)]
pub struct Judge {
    pub violations: Vec<String>,
    calls: BTreeMap<CallId, Call>,
    /// The latest call of a session that ran.
    latest: BTreeMap<u32, CallId>,
    /// By worker and second.
    attempts: BTreeMap<(usize, u64), Attempts>,
    states: BTreeMap<usize, (State, Mono)>,
    /// Calls that reached an instance since it is as it is.
    reached: BTreeMap<usize, u64>,
    /// Instances that had a call since the calm.
    pub fed: BTreeSet<usize>,
    pub settled: u64,
    pub ok: u64,
    pub retried: u64,
    /// Callers keep to their instances: one with few of them may wait long for a call.
    hashes: bool,
    pub split: Split,
    pub sides: Sides,
    one_side_is_well: bool,
    healed: bool,
    calm: bool,
    slack: Duration,
}

impl Judge {
    pub fn new(scenario: &Scenario) -> Judge {
        Judge {
            slack: scenario.silence_max(),
            hashes: scenario.hashes(),
            split: scenario.split.clone(),
            ..Judge::default()
        }
    }

    pub fn violated(&mut self, what: String) {
        self.violations.push(what);
    }

    pub fn asked(
        &mut self,
        (now, deadline): (Mono, Mono),
        worker: usize,
        id: CallId,
        (kind, session): (Kind, u32),
    ) {
        if kind != Kind::Bystander {
            self.attempts.entry((worker, second(now))).or_default().asked += 1;
        }
        let is_safe = self.one_side_is_well && kind != Kind::Bystander;
        let call = Call { kind, session, asked: now, deadline, is_safe, runs: Vec::new(), outcome: None };
        self.calls.insert(id, call);
    }

    /// A call has reached an instance, whatever that makes of it.
    pub fn arrived(&mut self, now: Mono, (id, attempt): (CallId, u32), (worker, at): (usize, usize)) {
        match attempt {
            0 => self.violations.push(format!("{id:?} came as attempt 0")),
            1 => {}
            _ => {
                self.attempts.entry((worker, second(now))).or_default().more += 1;
                self.retried += 1;
            }
        }
        *self.reached.entry(at).or_default() += 1;
        if attempt == 1
            && self.calm
            && let Some(call) = self.calls.get(&id)
        {
            self.sided((call.kind, call.session), call.asked, at);
        }
        let some_wait = self.hashes || matches!(self.split, Split::Canary(_));
        if self.calm || some_wait && self.healed {
            self.fed.insert(at);
        }
        if let Some((State::Stalled | State::Vanished, since)) = self.states.get(&at)
            && now.since(*since) > self.slack
        {
            self.violations.push(format!("{id:?} reached {at}, which has been silent since {since:?}"));
        }
    }

    /// A call was run.
    pub fn ran(&mut self, now: Mono, id: CallId, at: usize) {
        let Some(call) = self.calls.get_mut(&id) else {
            return self.violations.push(format!("{id:?} ran, and nobody has asked for it"));
        };
        call.runs.push(at);
        if call.runs.len() > 1 && !call.kind.may_run_twice() {
            self.violations.push(format!("{id:?}, {:?}, ran at {:?}", call.kind, call.runs));
        }
        if let Some(outcome) = call.outcome
            && outcome.execution == Execution::NotExecuted
        {
            self.violations.push(format!("{id:?} ran at {at} after its caller heard NOT_EXECUTED"));
        }
        // One that was given up may run when its instance goes on.
        if call.kind.is_ordered() && call.outcome.is_none() {
            let latest = self.latest.entry(call.session).or_insert(id);
            if *latest > id {
                self.violations.push(format!("{id:?} ran at {now:?} after {latest:?} of the same session"));
            }
            *latest = (*latest).max(id);
        }
    }

    pub fn settled(&mut self, now: Mono, id: CallId, outcome: Outcome) {
        let Some(call) = self.calls.get_mut(&id) else {
            return self.violations.push(format!("{id:?} was settled, and nobody has asked for it"));
        };
        if let Some(before) = call.outcome.replace(outcome) {
            self.violations.push(format!("{id:?} was settled twice: {before:?}, {outcome:?}"));
        }
        self.settled += 1;
        self.ok += u64::from(outcome.code == Code::Ok);
        if now > call.deadline + Duration::from_millis(20) {
            self.violations.push(format!("{id:?} was settled {:?} late", now.since(call.deadline)));
        }
        if outcome.execution == Execution::NotExecuted && !call.runs.is_empty() {
            self.violations.push(format!("{id:?} ran at {:?}, and its caller heard {outcome:?}", call.runs));
        }
        if outcome.code == Code::Ok && call.runs.is_empty() {
            self.violations.push(format!("{id:?} never ran, and its caller heard OK"));
        }
        if call.kind == Kind::Bystander && outcome.code != Code::Ok {
            self.violations
                .push(format!("{id:?} to the service beside the one that suffers heard {outcome:?}"));
        }
        if call.is_safe && outcome.code != Code::Ok {
            self.violations.push(format!(
                "{id:?}, {:?}, could have been served by the other side, and heard {outcome:?}",
                call.kind
            ));
        }
        if self.calm && outcome.code != Code::Ok {
            self.violations.push(format!("{id:?}, {:?}, all being well, heard {outcome:?}", call.kind));
        }
    }

    pub fn changed(&mut self, now: Mono, at: usize, state: State) {
        self.states.insert(at, (state, now));
        self.reached.insert(at, 0);
    }

    /// An instance that answered every call with a failure for this long, all others being well, has had this many.
    pub fn suffered(&mut self, at: usize, time: Duration, scenario: &Scenario) {
        // Each worker sees its own failures, and what is under way is not called back.
        let mut most = (u64::from(scenario.ejection.failures_max) + 4) * scenario.workers as u64 + 2;
        // Then there is one probe after each term, of which half may be random.
        let (mut term, mut passed) = (scenario.ejection.term_min, Duration::ZERO);
        while passed < time {
            most += 1;
            passed += term / 2;
            term = term.saturating_mul(2).min(scenario.ejection.term_max);
        }
        let had = self.reached.get(&at).copied().unwrap_or_default();
        if had > most {
            self.violations
                .push(format!("{at}, which failed each for {time:?}, had {had} calls; {most} are right"));
        }
    }

    /// Whether it is one of the calls that fail.
    pub fn is_of(&self, id: CallId, failing: Option<Failing>) -> bool {
        let call = self.calls.get(&id);
        failing.zip(call).is_some_and(|(failing, call)| failing.has(call.kind, call.session))
    }

    /// From now on, or no more, one side of the service is well.
    pub fn one_side_is_well(&mut self, is: bool) {
        self.one_side_is_well = is;
    }

    /// Whether its caller waits for it, and it goes wherever there is room.
    pub fn is_unordered_and_open(&self, id: CallId) -> bool {
        self.calls.get(&id).is_some_and(|call| call.outcome.is_none() && !call.kind.is_ordered())
    }

    /// Nothing goes wrong from now on.
    pub fn heal(&mut self) {
        self.healed = true;
    }

    pub fn is_healed(&self) -> bool {
        self.healed
    }

    /// From now on everything is well.
    pub fn calm(&mut self) {
        self.calm = true;
    }

    /// After all has ended.
    pub fn end(&mut self, scenario: &Scenario, time: Duration) {
        self.zone_was_kept_to();
        for (id, call) in &self.calls {
            if call.outcome.is_none() {
                self.violations.push(format!("{id:?}, {:?}, was never settled", call.kind));
            }
        }
        for worker in 0..scenario.workers {
            for end in MEMORY_S..second(Mono::ZERO + time) + 2 {
                self.is_within_budget(worker, end, scenario);
            }
        }
    }

    /// Looks at the retries of the ten seconds before `end`.
    fn is_within_budget(&mut self, worker: usize, end: u64, scenario: &Scenario) {
        let sum = |from: u64, of: fn(&Attempts) -> u64| -> u64 {
            self.attempts.range((worker, from)..(worker, end)).map(|(_, attempts)| of(attempts)).sum()
        };
        let begin = end.saturating_sub(MEMORY_S);
        let more = sum(begin, |attempts| attempts.more);
        // What arrives in a second was sent in it or shortly before, beside what was asked in its own ten seconds.
        let asked = sum(begin.saturating_sub(MEMORY_S), |attempts| attempts.asked);
        let per_s = u64::from(scenario.retry.budget_per_s) * (MEMORY_S + 1);
        let most = (asked * u64::from(scenario.retry.budget_percent)).div_ceil(100) + per_s + 1;
        if more > most {
            self.violations.push(format!(
                "worker {worker}: {more} retries in ten seconds, {asked} calls in twenty; {most} are right"
            ));
        }
    }
}

fn second(now: Mono) -> u64 {
    now.as_nanos() / 1_000_000_000
}
