//! What one run is made of: services, routes, their settings; small limits, drawn from the seed.

use crate::dice::Dice;
use crate::governance::plant::Plant;
use crate::governance::sides::Split;
use moorgate::base::ids::ServiceId;
use moorgate::forward;
use moorgate::routing::{
    AdaptiveSettings, Balance, Bounds, EjectionSettings, Order, PoolSettings, Priority, RetrySettings,
    RouteSettings, RouteTable, ServiceSettings, SlowStart, Span,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The service that suffers, and one beside it that must not.
pub const CHAT: ServiceId = ServiceId(0);
pub const BYSTANDER: ServiceId = ServiceId(1);

/// What a call promises, by its command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Plain,
    Idempotent,
    Ordered,
    OrderedIdempotent,
    Hedged,
    Bystander,
}

impl Kind {
    pub const ALL: [Kind; 6] = [
        Kind::Plain,
        Kind::Idempotent,
        Kind::Ordered,
        Kind::OrderedIdempotent,
        Kind::Hedged,
        Kind::Bystander,
    ];

    pub fn command(self) -> u32 {
        self as u32 + 1
    }

    pub fn may_run_twice(self) -> bool {
        matches!(self, Kind::Idempotent | Kind::OrderedIdempotent | Kind::Hedged)
    }

    pub fn is_ordered(self) -> bool {
        matches!(self, Kind::Ordered | Kind::OrderedIdempotent)
    }
}

pub struct Scenario {
    pub services: Vec<ServiceSettings>,
    pub routes: Arc<RouteTable>,
    pub forward: forward::Settings,
    pub workers: usize,
    pub backends: usize,
    /// One way, between gateway and services.
    pub latency: Duration,
    /// What a service takes for a call when it is well.
    pub work: Duration,
    /// Calls a second of each kind but the bystander's.
    pub calls_per_s: u64,
    pub timeout: Duration,
    /// How long faults go on.
    pub faults: Duration,
    /// How often the registry tells what it thinks.
    pub poll: Duration,
    /// What the judge holds the core to.
    pub retry: RetrySettings,
    pub ejection: EjectionSettings,
    pub split: Split,
    /// Calls of one worker that an instance may have at the most.
    pub bound: Option<u32>,
}

pub fn address(backend: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 7100 + backend as u16))
}

/// Where the bystander's only instance listens.
pub const BYSTANDER_AT: usize = 100;

fn pool(dice: &mut Dice) -> PoolSettings {
    let balances = [
        Balance::PeakEwma,
        Balance::PeakEwma,
        Balance::PeakEwma,
        Balance::LeastOutstanding,
        Balance::RoundRobin,
        Balance::WeightedRoundRobin,
        Balance::Random,
        Balance::ConsistentHash,
    ];
    PoolSettings {
        balance: balances[dice.index(balances.len())],
        ejection: EjectionSettings {
            failures_max: dice.between(2, 5) as u32,
            calls_min: dice.between(5, 20) as u32,
            window: Duration::from_secs(dice.between(2, 10)),
            term_min: dice.millis(200, 1_000),
            term_max: dice.millis(2_000, 5_000),
            ..EjectionSettings::default()
        },
        slow_start: SlowStart { time: dice.millis(0, 3_000), first_percent: 10 },
        bounds: Bounds {
            outstanding_max: dice.between(64, 512) as u32,
            endpoint_outstanding_max: if dice.chance(30) { dice.between(32, 64) as u32 } else { 0 },
            queue_max: dice.between(8, 64) as usize,
            queue_bytes_max: 64 * 1024,
            adaptive: dice.chance(40).then(|| AdaptiveSettings {
                outstanding_min: dice.between(12, 20) as u32,
                outstanding_max: dice.between(20, 60) as u32,
            }),
        },
        retry: RetrySettings {
            attempts_max: dice.between(1, 3) as u32,
            budget_percent: dice.between(0, 20) as u8,
            budget_per_s: dice.between(0, 2) as u32,
            hedge_percent_max: dice.between(0, 10) as u8,
            kept_bytes_max: if dice.chance(20) { 2_000 } else { 1 << 20 },
        },
        ..PoolSettings::default()
    }
}

fn route(kind: Kind, timeout: Duration, dice: &mut Dice) -> RouteSettings {
    let commands = Span { first: kind.command(), last: kind.command() };
    let service = if kind == Kind::Bystander { BYSTANDER } else { CHAT };
    let priorities = [Priority::Low, Priority::Normal, Priority::High];
    RouteSettings {
        timeout,
        idempotent: kind.may_run_twice(),
        hedge: kind == Kind::Hedged,
        order: if kind.is_ordered() { Order::Session } else { Order::None },
        priority: priorities[dice.index(3)],
        ..RouteSettings::new(commands, service)
    }
}

impl Scenario {
    pub fn draw(dice: &mut Dice, plant: Option<Plant>) -> Scenario {
        let backends = dice.between(1, 6) as usize;
        let mut pool = pool(dice);
        let split = Split::draw(dice, backends, &mut pool);
        let bounds = &pool.bounds;
        let fixed = Some(bounds.endpoint_outstanding_max).filter(|max| *max > 0);
        let bound = fixed.into_iter().chain(bounds.adaptive.map(|adaptive| adaptive.outstanding_max)).min();
        let (retry, ejection) = (pool.retry.clone(), pool.ejection.clone());
        match plant {
            Some(Plant::RetryStorm) => {
                (pool.retry.budget_percent, pool.retry.budget_per_s, pool.retry.attempts_max) =
                    (100, 1000, 3);
            }
            Some(Plant::NeverEjected) => {
                (pool.ejection.failures_max, pool.ejection.success_percent_min) = (0, 0);
            }
            Some(Plant::NeverBack) => {
                (pool.ejection.term_min, pool.ejection.term_max) =
                    (Duration::from_secs(3600), Duration::from_secs(7200));
            }
            Some(Plant::Unbounded) => {
                (pool.bounds.adaptive, pool.bounds.endpoint_outstanding_max) = (None, 0)
            }
            _ => {}
        }
        let timeout = dice.millis(500, 3_000);
        let routes: Vec<RouteSettings> = Kind::ALL.map(|kind| route(kind, timeout, dice)).into();
        let first = split.instance(0);
        let chat = ServiceSettings { endpoints: vec![first], pool, ..ServiceSettings::new("chat", []) };
        Scenario {
            services: vec![chat, ServiceSettings::new("bystander", [address(BYSTANDER_AT)])],
            routes: Arc::new(RouteTable::build(&routes).unwrap()),
            forward: forward::Settings {
                links_per_endpoint: dice.between(1, 2) as u16,
                connect_timeout: dice.millis(500, 1_500),
                reconnect_max: dice.millis(500, 2_000),
                heartbeat: dice.millis(500, 2_000),
                late_reply_grace: dice.millis(100, 2_000),
                output_bytes_max: dice.between(2_000, 100_000) as usize,
                ..forward::Settings::default()
            },
            workers: dice.between(1, 2) as usize,
            backends,
            latency: dice.millis(0, 10),
            work: dice.millis(1, 10),
            calls_per_s: dice.between(4, 30),
            timeout,
            faults: dice.millis(5_000, 30_000),
            poll: dice.millis(100, 1_000),
            retry,
            ejection,
            split,
            bound,
        }
    }

    /// Whether callers keep to their instances.
    pub fn hashes(&self) -> bool {
        self.services.iter().any(|service| service.pool.balance == Balance::ConsistentHash)
    }

    /// A link that hears nothing is given up within this time.
    pub fn silence_max(&self) -> Duration {
        self.forward.heartbeat.saturating_mul(3) + self.forward.connect_timeout
    }

    /// An endpoint that is well gets load again within this time.
    pub fn recovery_max(&self) -> Duration {
        // What was ten times slower has its old latency when the smoothed one has aged for as long.
        let aging = Duration::from_secs(25);
        let term = self.ejection.term_max.saturating_mul(2);
        term + aging
            + self.forward.reconnect_max.saturating_mul(2)
            + self.silence_max()
            + self.timeout.saturating_mul(2)
    }
}
