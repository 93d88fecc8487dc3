//! What a deployment chooses for the pool of one service's endpoints.

use super::Balance;
use std::time::Duration;

/// How the calls of a service are shared among its endpoints, and what is done when they fail.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PoolSettings {
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// What consistent hashing goes by.
    pub hash_by: HashBy,
    /// Who is taken before the others.
    pub prefer: Option<Prefer>,
    /// When an endpoint is left alone for a while.
    pub ejection: EjectionSettings,
    /// How newcomers and those who come back are given load.
    pub slow_start: SlowStart,
    /// What may be outstanding.
    pub bounds: Bounds,
    /// What is tried again.
    pub retry: RetrySettings,
    /// Who goes to the endpoints with a certain tag.
    pub canary: Option<CanarySettings>,
}

/// What of a caller consistent hashing goes by; without it, the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HashBy {
    /// The user.
    #[default]
    User,
    /// The session.
    Session,
    /// The device.
    Device,
    /// The client's address, without its port.
    Address,
    /// The application.
    Application,
}

/// Endpoints that are taken before the others, as long as they can carry it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prefer {
    /// Those of this zone.
    Zone(String),
    /// Those with this tag.
    Tag(String),
}

/// Passive health: what calls tell.
#[derive(Debug, Clone, PartialEq)]
pub struct EjectionSettings {
    /// This many failures in a row eject an endpoint; 0: none do.
    pub failures_max: u32,
    /// Below this success rate over the window an endpoint is ejected, in percent; 0: none is.
    pub success_percent_min: u8,
    /// In a window with fewer calls the rate says nothing.
    pub calls_min: u32,
    /// Over this time the rate is taken.
    pub window: Duration,
    /// The first term; it doubles with each that follows at once.
    pub term_min: Duration,
    /// The longest term.
    pub term_max: Duration,
    /// Most of the endpoints that could take calls that may be ejected, in percent; one may be, if there are two.
    pub ejected_percent_max: u8,
    /// When of those that could take calls fewer than this share are well, in percent, those that are ejected or doubted
    /// are used too.
    pub panic_percent: u8,
}

impl Default for EjectionSettings {
    fn default() -> Self {
        EjectionSettings {
            failures_max: 5,
            success_percent_min: 50,
            calls_min: 20,
            window: Duration::from_secs(10),
            term_min: Duration::from_secs(1),
            term_max: Duration::from_secs(60),
            ejected_percent_max: 50,
            panic_percent: 50,
        }
    }
}

/// How load grows on an endpoint that comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowStart {
    /// Until it has its whole share; zero: at once.
    pub time: Duration,
    /// What it begins with, in percent of its share.
    pub first_percent: u8,
}

impl Default for SlowStart {
    fn default() -> Self {
        SlowStart { time: Duration::from_secs(30), first_percent: 10 }
    }
}

/// What of a service's calls may be outstanding, and what may wait, at one worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Bounds {
    /// Calls of the service that are sent and not answered.
    pub outstanding_max: u32,
    /// The same for one endpoint; 0: no bound but the service's own grant.
    pub endpoint_outstanding_max: u32,
    /// Calls of the service that wait.
    pub queue_max: usize,
    /// Bytes that these may hold.
    pub queue_bytes_max: usize,
    /// The bound of an endpoint follows its latency; `None`: it does not.
    pub adaptive: Option<AdaptiveSettings>,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            outstanding_max: 16 * 1024,
            endpoint_outstanding_max: 0,
            queue_max: 4 * 1024,
            queue_bytes_max: 16 * 1024 * 1024,
            adaptive: None,
        }
    }
}

/// A bound that follows the gradient of the latency (Netflix concurrency-limits, Gradient2).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdaptiveSettings {
    /// Where it begins, and its lowest value.
    pub outstanding_min: u32,
    /// Its highest value.
    pub outstanding_max: u32,
}

impl Default for AdaptiveSettings {
    fn default() -> Self {
        AdaptiveSettings { outstanding_min: 20, outstanding_max: 200 }
    }
}

/// What is tried again, and how often.
#[derive(Debug, Clone, PartialEq)]
pub struct RetrySettings {
    /// Times that a call is sent, the first one counted; 1: never again.
    pub attempts_max: u32,
    /// Retries and hedges beside the first attempts of the last ten seconds, in percent.
    pub budget_percent: u8,
    /// Retries and hedges that are always allowed, a second.
    pub budget_per_s: u32,
    /// Hedges beside the first attempts of the last ten seconds, in percent.
    pub hedge_percent_max: u8,
    /// Bytes of calls, at one worker, that are kept so that they can be sent again; beyond it they are not.
    pub kept_bytes_max: usize,
}

impl Default for RetrySettings {
    fn default() -> Self {
        RetrySettings {
            attempts_max: 2,
            budget_percent: 20,
            budget_per_s: 10,
            hedge_percent_max: 5,
            kept_bytes_max: 16 * 1024 * 1024,
        }
    }
}

/// Some callers go to the endpoints with a certain tag, everybody else to those without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanarySettings {
    /// The tag.
    pub tag: String,
    /// The share of users who go there when the gateway starts, in hundredths of a percent.
    pub share: u32,
    /// Users with one of these roles go there whatever the share.
    pub roles: Vec<String>,
    /// Clients whose Hello says so go there whatever the share: a field of it, and its value.
    pub hello: Vec<(HelloField, String)>,
}

/// What a client tells of itself when it opens a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HelloField {
    /// The application.
    Application,
    /// Its version.
    AppVersion,
    /// The platform.
    Platform,
}
