//! What a registry says of a service, and how one waits for it.

use crate::error::RegistryError;
use crate::stop::Stop;
use std::net::SocketAddr;

/// What a registry thinks of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// Consul: no check is critical; one that warns takes the weight for warnings. Nacos: healthy.
    Good,
    /// Consul: a check is critical. Nacos: unhealthy.
    Doubted,
    /// Consul: in maintenance. Nacos: not enabled.
    Leaving,
}

/// An instance, as a registry lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The registry's id of it, for messages; empty: none is known.
    pub id: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Relative to its peers'; 0 takes no calls. A hundred times what is registered: 100 where nothing was said.
    pub weight: u32,
    /// Empty: none is known.
    pub zone: String,
    /// Sorted, each once. Consul: its tags. Nacos: the words of the metadata `tags`.
    pub tags: Vec<String>,
    /// What the registry thinks of it.
    pub health: Health,
}

/// An answer of a registry: the instances that it lists, and how many of its elements are not usable.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// By address, each once.
    pub instances: Vec<Listed>,
    /// Elements of the answer that are left out: without an address to connect to, not readable, or too many.
    pub rejected: usize,
    /// Which some of them are, and why, sorted, each fit for a line of a log.
    pub reasons: Vec<String>,
}

impl Listing {
    /// Reasons of one answer; the other elements are only counted.
    pub const REASONS_MAX: usize = 8;
}

/// Follows one service in one registry.
pub trait Watch: Send {
    /// Blocks until there is an answer or an error worth telling, and does its own waiting between tries. An answer is
    /// always the whole list; it may be the same as the last one, which says that the registry is well. An element that is
    /// not usable is left out of it and counted.
    /// `None`: `stop` was set, which ends waits and requests under way at once, and one that is being connected within 2 s.
    fn next(&mut self, stop: &Stop) -> Option<Result<Listing, RegistryError>>;
}
