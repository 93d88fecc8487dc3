//! What the operator's pages read, and what the service manager is told.

use super::descriptors::Reservation;
use crate::admin::{OperateError, Operation, Outcome, Pages};
use crate::auth::Authority;
use crate::base::clock::Clock;
use crate::base::counters::{Cells, Count, Totals};
use crate::base::ids::ServiceId;
use crate::base::pulse::Pulse;
use crate::control::discovery::{Discovery, ServiceReport};
use crate::control::{Observed, Vitals};
use crate::directory::Directory;
use crate::forward::Readiness;
use crate::limit;
use crate::reactor::{Outbox, WorkerCommand};
use crate::routing::{Calls, Pools, RouteTable};
use crate::telemetry::{Kind, Sample, dropped_lines, render};
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A loop that has not turned for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// What the operator's pages read.
pub(super) struct State {
    /// Of every shard, then of every worker, then of the access log.
    pub(super) cells: Vec<Arc<Cells>>,
    pub(super) readiness: Vec<Arc<Readiness>>,
    pub(super) services: Vec<String>,
    /// Whether the gateway is unready without a link to it, by its id.
    pub(super) is_required: Vec<bool>,
    /// The services' endpoints as they stand.
    pub(super) pools: Arc<Pools>,
    /// The calls of the endpoints that have no lines of their own among the metrics, by service.
    pub(super) others_calls: Mutex<Vec<Calls>>,
    /// Whether a service has a canary, by its id.
    pub(super) has_canary: Vec<bool>,
    /// Who owns which command.
    pub(super) routing: Arc<RouteTable>,
    /// Names of the routes, by their ids.
    pub(super) routes: Vec<String>,
    pub(super) limits: limit::Shared,
    /// Descriptors that clients leave to others.
    pub(super) reservation: Reservation,
    pub(super) draining: AtomicBool,
    pub(super) clock: Clock,
    /// Of every shard, then of every worker.
    pub(super) pulses: Vec<Arc<Pulse>>,
    pub(super) authority: Arc<Authority>,
    /// Every worker, once there are any.
    pub(super) workers: OnceLock<Vec<Outbox<WorkerCommand>>>,
    /// While it runs.
    pub(super) discovery: Mutex<Option<Discovery>>,
    /// Set once the threads can be told something.
    pub(super) directory: OnceLock<Arc<Directory>>,
}

#[cfg(test)]
impl State {
    /// That of `serve --dev`, whose services are nowhere: for tests.
    pub(super) fn dev() -> State {
        use crate::config::{DevOptions, DevServices, dev};
        let nobody = "127.0.0.1:1".parse().unwrap();
        let options = DevOptions {
            listen: nobody,
            admin: nobody,
            services: DevServices { echo: nobody, accounts: nobody, chat: nobody },
            bench: nobody,
            key_id: "dev",
            secret: &[7; 32],
        };
        State::new(&dev(&options).unwrap(), Clock::start()).unwrap()
    }
}

impl State {
    pub(super) fn totals(&self) -> Totals {
        Totals::of(self.cells.iter().map(Arc::as_ref))
    }

    /// Something that the directory knows.
    fn here(&self, what: impl FnOnce(&Directory) -> usize) -> u64 {
        self.directory.get().map_or(0, |directory| what(directory) as u64)
    }

    /// How discovery sees those services that it finds endpoints for.
    pub(super) fn reports(&self) -> Vec<ServiceReport> {
        self.discovery.lock().as_ref().map(Discovery::report).unwrap_or_default()
    }

    /// Pauses of the process.
    fn pause_samples(&self) -> [Sample; 2] {
        let (count, skipped) = self.clock.paused();
        let counter =
            |metric, help, value| Sample { kind: Kind::Counter, metric, label: String::new(), help, value };
        [
            counter(
                "moorgate_process_pauses_total",
                "Pauses of the whole process: no thread ran for more than 1.5 seconds.",
                count,
            ),
            counter(
                "moorgate_process_pauses_skipped_seconds_total",
                "Time of these pauses that was counted against no deadline, in whole seconds.",
                skipped.as_secs(),
            ),
        ]
    }

    /// Whether every loop makes progress.
    pub(super) fn is_live_at(&self, now: Mono) -> bool {
        self.pulses.iter().all(|pulse| pulse.age(now) < STUCK_AFTER)
    }

    /// The threads of discovery that have failed, by name; `None`: there is no discovery.
    pub(super) fn failed_discovery(&self) -> Option<Vec<String>> {
        self.discovery.lock().as_ref().map(Discovery::failed)
    }

    /// Whether every worker has a ready link to a service; if not, what is missing.
    pub(super) fn service_readiness(&self, at: usize) -> Result<(), String> {
        let id = service_id(at);
        let name = self.services.get(at).map(String::as_str).unwrap_or_default();
        if self.pools.members(id).is_empty() {
            return Err(format!("service {name} has no endpoints"));
        }
        // Each shard reaches the services by its own worker alone: one worker without a link is clients without a
        // service.
        let workers = self.readiness.len();
        match self.readiness.iter().filter(|worker| worker.links(id) > 0).count() {
            0 => Err(format!("service {name} has no ready link")),
            linked if linked < workers => {
                Err(format!("service {name} has a ready link at {linked} of {workers} workers"))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn links(&self, service: usize) -> u64 {
        let id = service_id(service);
        self.readiness.iter().map(|worker| u64::from(worker.links(id))).sum()
    }
}

pub(super) fn service_id(at: usize) -> ServiceId {
    ServiceId(u16::try_from(at).unwrap_or(u16::MAX))
}

impl Vitals for State {
    fn observe(&self) -> Observed {
        let totals = self.totals();
        let (accepted, closed) = (Count::ConnectionsAccepted, Count::ConnectionsClosed);
        Observed {
            is_live: self.is_live(),
            connections: totals.value(accepted).saturating_sub(totals.value(closed)),
            readiness: self.readiness(),
        }
    }
}

impl Pages for State {
    fn is_live(&self) -> bool {
        self.is_live_at(self.clock.read().mono)
    }

    fn readiness(&self) -> Result<(), String> {
        if self.draining.load(Ordering::Relaxed) {
            return Err("draining".to_owned());
        }
        let required = self.is_required.iter().enumerate().filter(|(_, is_required)| **is_required);
        required.map(|(at, _)| at).try_for_each(|at| self.service_readiness(at))
    }

    fn metrics(&self) -> String {
        let totals = self.totals();
        let between = |opened, closed| totals.value(opened).saturating_sub(totals.value(closed));
        let gauge =
            |metric, help, value| Sample { kind: Kind::Gauge, metric, label: String::new(), help, value };
        let answered: u64 = Code::ALL.iter().map(|code| totals.outcomes(*code)).sum();
        let mut gauges = vec![
            gauge(
                "moorgate_connections",
                "Connections now.",
                between(Count::ConnectionsAccepted, Count::ConnectionsClosed),
            ),
            gauge("moorgate_sessions", "Sessions now.", between(Count::SessionsOpened, Count::SessionsEnded)),
            gauge("moorgate_sessions_detached", "Sessions without a connection now.", detached(&totals)),
            gauge("moorgate_users", "Users with a session now.", self.here(Directory::users)),
            gauge("moorgate_groups", "Groups with members now.", self.here(Directory::groups)),
            gauge(
                "moorgate_requests_outstanding",
                "Requests admitted and not answered.",
                totals.value(Count::RequestsAdmitted).saturating_sub(answered),
            ),
        ];
        gauges.push(Sample {
            kind: Kind::Counter,
            metric: "moorgate_log_lines_dropped_total",
            label: String::new(),
            help: "Lines of the diagnostics that were not written because standard error was full or failed.",
            value: dropped_lines(),
        });
        gauges.extend(self.services.iter().enumerate().map(|(at, name)| Sample {
            kind: Kind::Gauge,
            metric: "moorgate_service_links",
            label: format!("service=\"{name}\""),
            help: "Ready links to a service, over all workers.",
            value: self.links(at),
        }));
        gauges.extend(self.endpoint_samples());
        gauges.extend(self.limit_samples());
        gauges.extend(self.pause_samples());
        render(&totals, &gauges)
    }

    fn operate(&self, operation: Operation) -> Result<Outcome, OperateError> {
        self.carry_out(operation)
    }
}

/// Sessions that have lost their connection, were not resumed, and have not ended.
fn detached(totals: &Totals) -> u64 {
    let resumed = totals.value(Count::SessionsResumed).saturating_sub(totals.value(Count::TakeOvers));
    let ended = [Count::DetachedExpired, Count::DetachedEvicted, Count::DetachedEnded];
    let gone = ended.into_iter().map(|count| totals.value(count)).fold(resumed, u64::saturating_add);
    totals.value(Count::SessionsDetached).saturating_sub(gone)
}
