//! What is configured of a route and of a service.

use super::{Grants, Instance, PoolSettings, RoleMask};
use crate::base::ids::{RouteId, ServiceId};
use moorgate_proto::proof::LinkKey;
use std::net::SocketAddr;
use std::time::Duration;

/// An inclusive range of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First.
    pub first: u32,
    /// Last, not below the first.
    pub last: u32,
}

impl Span {
    /// Whether the number lies within.
    pub fn contains(self, number: u32) -> bool {
        (self.first..=self.last).contains(&number)
    }

    /// Whether the two share a number.
    pub fn meets(self, other: Span) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.first == self.last {
            write!(f, "{:#06x}", self.first)
        } else {
            write!(f, "{:#06x}-{:#06x}", self.first, self.last)
        }
    }
}

/// What a service may expect of the order in which its calls come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// No promise.
    #[default]
    None,
    /// Calls of one session go to one endpoint and link, one at a time.
    Session,
}

/// How much a route's calls matter beside those of other routes to the same service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Priority {
    /// Given up first.
    Low,
    /// As everything is.
    #[default]
    Normal,
    /// Given up last.
    High,
}

/// A route as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSettings {
    /// Commands that it takes.
    pub commands: Span,
    /// Versions of these commands.
    pub versions: Span,
    /// Who owns them.
    pub service: ServiceId,
    /// Whether sessions without a user may use it.
    pub anonymous: bool,
    /// Any one of these is needed; none: every user may.
    pub roles: Vec<String>,
    /// The lowest protocol version.
    pub protocol_min: u32,
    /// From receipt to answer, at the most.
    pub timeout: Duration,
    /// What is promised about order.
    pub order: Order,
    /// Whether running a call twice does no harm.
    pub idempotent: bool,
    /// Whether a slow call is sent to a second endpoint; only idempotent ones without an order are.
    pub hedge: bool,
    /// What is given up last when a service cannot take everything.
    pub priority: Priority,
    /// The largest payload, in bytes.
    pub payload_bytes_max: usize,
}

impl RouteSettings {
    /// A route with the defaults.
    pub fn new(commands: Span, service: ServiceId) -> RouteSettings {
        RouteSettings {
            commands,
            versions: Span { first: 1, last: 1 },
            service,
            anonymous: false,
            roles: Vec::new(),
            protocol_min: 1,
            timeout: Duration::from_secs(5),
            order: Order::None,
            idempotent: false,
            hedge: false,
            priority: Priority::Normal,
            payload_bytes_max: 16 * 1024 * 1024,
        }
    }
}

/// A route in force.
#[derive(Debug, Clone)]
pub struct Route {
    /// Which one.
    pub id: RouteId,
    /// Commands that it takes.
    pub commands: Span,
    /// Versions of these commands.
    pub versions: Span,
    /// Who owns its commands.
    pub service: ServiceId,
    /// Whether sessions without a user may use it.
    pub anonymous: bool,
    /// Any one of these is needed, if there are any.
    pub roles: RoleMask,
    /// The lowest protocol version.
    pub protocol_min: u32,
    /// From receipt to answer, at the most.
    pub timeout: Duration,
    /// What is promised about order.
    pub order: Order,
    /// Whether running a call twice does no harm.
    pub idempotent: bool,
    /// Whether a slow call is sent to a second endpoint; only idempotent ones without an order are.
    pub hedge: bool,
    /// What is given up last when a service cannot take everything.
    pub priority: Priority,
    /// The largest payload, in bytes.
    pub payload_bytes_max: usize,
}

impl Route {
    /// Whether a user with these roles may use it.
    pub fn allows(&self, roles: RoleMask) -> bool {
        self.roles.is_none() || self.roles.meets(roles)
    }
}

/// A service as it is configured.
#[derive(Debug, Clone)]
pub struct ServiceSettings {
    /// Its name, in the opening of every link.
    pub name: String,
    /// Instances that the configuration names; others may be discovered.
    pub endpoints: Vec<Instance>,
    /// How its calls are shared among them.
    pub pool: PoolSettings,
    /// What it may ask of the gateway.
    pub grants: Grants,
    /// Proves both ends of a link to each other; `None` only where the deployment says so.
    pub key: Option<LinkKey>,
    /// Whether the gateway is unready while it has no link to it.
    pub is_required: bool,
}

impl ServiceSettings {
    /// A service at these addresses, with the defaults: no grants, no key.
    pub fn new(name: impl Into<String>, endpoints: impl IntoIterator<Item = SocketAddr>) -> ServiceSettings {
        ServiceSettings {
            name: name.into(),
            endpoints: endpoints.into_iter().map(Instance::at).collect(),
            pool: PoolSettings::default(),
            grants: Grants::NONE,
            key: None,
            is_required: true,
        }
    }
}
