//! Who looks on and knows what is right, from what callers and instances saw; it never asks the core.

use crate::governance::backend::State;
use crate::governance::scenario::{Kind, Scenario};
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
    deadline: Mono,
    runs: Vec<usize>,
    outcome: Option<Outcome>,
}

/// First attempts and others that reached instances, by the second.
#[derive(Debug, Default, Clone, Copy)]
struct Attempts {
    first: u64,
    more: u64,
}

#[derive(Debug, Default)]
pub struct Judge {
    pub violations: Vec<String>,
    calls: BTreeMap<CallId, Call>,
    /// The latest call of a session that ran.
    latest: BTreeMap<u32, CallId>,
    /// By worker.
    attempts: BTreeMap<usize, Attempts>,
    states: BTreeMap<usize, (State, Mono)>,
    /// Calls that reached an instance since it is as it is.
    reached: BTreeMap<usize, u64>,
    /// Instances that had a call since the calm.
    pub fed: BTreeSet<usize>,
    pub settled: u64,
    pub ok: u64,
    pub retried: u64,
    healed: bool,
    calm: bool,
    slack: Duration,
}

impl Judge {
    pub fn new(scenario: &Scenario) -> Judge {
        Judge { slack: scenario.silence_max(), ..Judge::default() }
    }

    pub fn violated(&mut self, what: String) {
        self.violations.push(what);
    }

    pub fn asked(&mut self, id: CallId, kind: Kind, session: u32, deadline: Mono) {
        self.calls.insert(id, Call { kind, session, deadline, runs: Vec::new(), outcome: None });
    }

    /// A call has reached an instance, whatever that makes of it.
    pub fn arrived(&mut self, now: Mono, (id, attempt): (CallId, u32), (worker, at): (usize, usize)) {
        let attempts = self.attempts.entry(worker).or_default();
        match attempt {
            0 => self.violations.push(format!("{id:?} came as attempt 0")),
            1 => attempts.first += 1,
            _ => {
                attempts.more += 1;
                self.retried += 1;
            }
        }
        *self.reached.entry(at).or_default() += 1;
        if self.calm {
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
        let terms = time.as_secs_f64() / (scenario.ejection.term_min.as_secs_f64() / 2.0);
        // Each worker sees its own failures, and its calls under way are not called back; then there are probes.
        let under_way = scenario.calls_per_s as f64 * 6.0 * 0.05;
        let window = f64::from(scenario.ejection.failures_max.max(scenario.ejection.calls_min)) + under_way;
        let most = window * scenario.workers as f64 * 2.0 + terms;
        let had = self.reached.get(&at).copied().unwrap_or_default();
        if had as f64 > most {
            self.violations
                .push(format!("{at}, which failed each for {time:?}, had {had} calls; {most:.0} are right"));
        }
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
        for (id, call) in &self.calls {
            if call.outcome.is_none() {
                self.violations.push(format!("{id:?}, {:?}, was never settled", call.kind));
            }
        }
        for (worker, attempts) in &self.attempts {
            let per_s = f64::from(scenario.retry.budget_per_s);
            let share = f64::from(scenario.retry.budget_percent) / 100.0;
            // First attempts that never reached an instance count too.
            let first = self.calls.len() as f64;
            let most = first * share + per_s * (time.as_secs_f64() + 11.0) + 1.0;
            if attempts.more as f64 > most {
                let Attempts { first, more } = attempts;
                self.violations
                    .push(format!("worker {worker}: {more} retries beside {first}: {most:.0} are right"));
            }
        }
    }
}
