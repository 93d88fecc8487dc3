//! What a deployment chooses for its threads and sockets.

use crate::limit::Rate;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// One place that clients connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerSettings {
    /// Where it listens.
    pub at: ListenAt,
    /// How connections reach the shards. Inherited sockets are always shared.
    pub accept: AcceptMode,
    /// The heartbeat for its clients that wish none; `None`: the deployment's own.
    pub heartbeat: Option<Duration>,
}

/// Where connections come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAt {
    /// An address that the gateway binds; port 0 lets the system choose one.
    Address(SocketAddr),
    /// Sockets that the service manager hands over under this name.
    Inherited(String),
}

impl ListenAt {
    /// The address, where it is known before a socket is there.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            ListenAt::Address(address) => Some(*address),
            ListenAt::Inherited(_) => None,
        }
    }

    /// Whether only one of the two can be listened on.
    pub fn collides(&self, other: &ListenAt) -> bool {
        let (ListenAt::Address(one), ListenAt::Address(other)) = (self, other) else { return self == other };
        let is_wide = one.ip().is_unspecified() || other.ip().is_unspecified();
        let meets = one.ip() == other.ip() || is_wide && one.is_ipv4() == other.is_ipv4();
        one.port() != 0 && one.port() == other.port() && meets
    }
}

impl fmt::Display for ListenAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAt::Address(address) => address.fmt(f),
            ListenAt::Inherited(name) => write!(f, "socket {name} of the service manager"),
        }
    }
}

/// How connections reach the shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AcceptMode {
    /// Each shard has a socket of its own on the address (`SO_REUSEPORT`); the kernel spreads by addresses.
    #[default]
    ReusePort,
    /// Shard 0 accepts from one socket and hands every shard its share.
    Shared,
}

/// Threads and sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Shard threads; 0: one for each core.
    pub shards: u16,
    /// Worker threads; 0: one for two shards.
    pub workers: u16,
    /// Where clients connect.
    pub listeners: Vec<ListenerSettings>,
    /// Connections waiting to be accepted, per socket.
    pub backlog: u16,
    /// Connections that one turn of a shard accepts from one listener.
    pub accepts_per_turn: u16,
    /// New connections of one listener, for each shard that has it; `None`: no limit.
    pub accepts: Option<Rate>,
    /// Connections at once from one address, over all shards; `None`: no limit.
    pub connections_per_address: Option<u32>,
    /// Idle time before TCP's own keepalive probes.
    pub keepalive: Duration,
    /// Unacknowledged data for this long ends a connection (`TCP_USER_TIMEOUT`).
    pub user_timeout: Duration,
    /// How long a drain lets requests finish.
    pub drain_timeout: Duration,
    /// How long before it the gateway is not ready and still accepts.
    pub drain_delay: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            shards: 0,
            workers: 0,
            listeners: Vec::new(),
            backlog: 4096,
            accepts_per_turn: 64,
            accepts: Rate::new(10_000, Duration::from_secs(1), 20_000),
            connections_per_address: Some(1000),
            keepalive: Duration::from_secs(60),
            user_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(20),
            drain_delay: Duration::ZERO,
        }
    }
}
