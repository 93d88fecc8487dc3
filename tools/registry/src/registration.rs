//! Who registers, and where.

use crate::settings::{ConsulSettings, NacosSettings};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// One instance of a service, as it wants to be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Unique among all instances of all services of an agent; [`Registration::unique_id`] makes one. Nacos makes its own.
    pub id: String,
    /// Of the service.
    pub name: String,
    /// Where others reach it.
    pub address: SocketAddr,
    /// Relative to its peers'. Registries get a hundredth of it; Consul, which has whole numbers, at least 1.
    pub weight: u32,
    /// Consul has tags; Nacos gets them as the metadata `tags`, with commas.
    pub tags: Vec<String>,
    /// Whatever others want to know.
    pub metadata: BTreeMap<String, String>,
    /// How the registry knows that it lives.
    pub check: Check,
    /// Until the registry forgets an instance whose check is critical; Consul takes no less than a minute.
    pub deregister_after: Duration,
}

/// Beats three times within it.
const TTL: Duration = Duration::from_secs(15);
const DEREGISTER_AFTER: Duration = Duration::from_secs(60);
/// Of an instance that nobody has weighed.
const WEIGHT: u32 = 100;

impl Registration {
    /// One with an id of its own, a weight of 100, no tags and no metadata, that says itself that it lives, at least every
    /// 15 s, and is forgotten a minute after it has not.
    pub fn new(name: &str, address: SocketAddr) -> Registration {
        Registration {
            id: Registration::unique_id(name, address),
            name: name.to_owned(),
            address,
            weight: WEIGHT,
            tags: Vec::new(),
            metadata: BTreeMap::new(),
            check: Check::Ttl(TTL),
            deregister_after: DEREGISTER_AFTER,
        }
    }

    /// Name, address and a random part: a restart at the same address is another instance.
    pub fn unique_id(name: &str, address: SocketAddr) -> String {
        format!("{name}-{address}-{:016x}", crate::ambient::random_u64()).replace(['[', ']', ':', '/'], "-")
    }
}

/// How a registry knows that an instance lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// We say so, three times within this time. Nacos wants a beat when it says, and gets it.
    Ttl(Duration),
    /// The registry asks. Nacos does not: it gets beats all the same.
    Http {
        /// Answers 200 while all is well.
        url: String,
        /// How often it asks.
        interval: Duration,
    },
}

/// A registry to register with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The agent of this machine.
    Consul(ConsulSettings),
    /// A cluster.
    Nacos {
        /// Where it is.
        settings: NacosSettings,
        /// Empty: [`crate::DEFAULT_GROUP`].
        group: String,
        /// The id of the namespace; empty: `public`.
        namespace: String,
        /// Empty: `DEFAULT`.
        cluster: String,
    },
}
