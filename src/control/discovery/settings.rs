//! What a deployment chooses for discovery.

use crate::base::ids::ServiceId;
use crate::routing::Instance;
use moorgate_registry::{ConsulQuery, ConsulSettings, NacosQuery, NacosSettings};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where the endpoints of all services are found.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// One for each service that has a source; those without a source but their fixed endpoints may be left out.
    pub services: Vec<ServiceSources>,
    /// Where the last lists are kept for the next start; `None`: nowhere.
    pub state_file: Option<PathBuf>,
    /// Endpoints without a ready link are probed.
    pub probe: ProbeSettings,
    /// A shrunken list is believed after this time, if one of the endpoints that it still has answers.
    pub confirm: Duration,
    /// Who is asked for names.
    pub dns: DnsSettings,
    /// Needed when a service is to be found in Consul.
    pub consul: Option<ConsulSettings>,
    /// Needed when a service is to be found in Nacos.
    pub nacos: Option<NacosSettings>,
}

impl Settings {
    /// How long a shrunken list has to stand, where nothing is said.
    pub const CONFIRM: Duration = Duration::from_secs(30);
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            services: Vec::new(),
            state_file: None,
            probe: ProbeSettings::default(),
            confirm: Settings::CONFIRM,
            dns: DnsSettings::default(),
            consul: None,
            nacos: None,
        }
    }
}

/// Where the endpoints of one service are found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ServiceSources {
    /// Which service.
    pub service: ServiceId,
    /// Its name, for the log, the metrics and the state file.
    pub name: String,
    /// Endpoints that the configuration names.
    pub fixed: Vec<Instance>,
    /// A file with one endpoint a line.
    pub file: Option<PathBuf>,
    /// A name in DNS.
    pub dns: Option<DnsQuery>,
    /// A service in Consul.
    pub consul: Option<ConsulQuery>,
    /// A service in Nacos.
    pub nacos: Option<NacosQuery>,
}

impl ServiceSources {
    /// Whether there is a source beside the configuration.
    pub fn is_found(&self) -> bool {
        self.file.is_some() || self.dns.is_some() || self.consul.is_some() || self.nacos.is_some()
    }
}

/// How endpoints without a ready link are probed: by a TCP connection that is closed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeSettings {
    /// Between two probes of an endpoint; each is up to a quarter earlier or later.
    pub interval: Duration,
    /// Until a connection counts as refused.
    pub timeout: Duration,
    /// This many failures in a row: it does not answer.
    pub fall: u32,
    /// This many successes in a row: it answers again.
    pub rise: u32,
}

impl Default for ProbeSettings {
    fn default() -> ProbeSettings {
        ProbeSettings { interval: Duration::from_secs(5), timeout: Duration::from_secs(1), fall: 3, rise: 2 }
    }
}

/// Who is asked for names, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsSettings {
    /// In this order; none: those of `/etc/resolv.conf`, as it stands.
    pub servers: Vec<SocketAddr>,
    /// Until a server counts as silent and the next one is asked.
    pub timeout: Duration,
    /// An answer is kept at least as long.
    pub ttl_min: Duration,
    /// An answer is kept at most as long.
    pub ttl_max: Duration,
}

impl Default for DnsSettings {
    fn default() -> DnsSettings {
        DnsSettings {
            servers: Vec::new(),
            timeout: Duration::from_secs(2),
            ttl_min: Duration::from_secs(1),
            ttl_max: Duration::from_secs(300),
        }
    }
}

/// What DNS is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsQuery {
    /// A and AAAA records; all endpoints listen on one port.
    Host {
        /// The whole name: no search list is used.
        name: String,
        /// Where they listen.
        port: u16,
    },
    /// SRV records, as `_chat._tcp.internal`.
    Srv {
        /// The whole name: no search list is used.
        name: String,
    },
}
