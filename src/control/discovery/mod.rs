//! Finds the endpoints of the services.

mod settings;

pub use settings::{DnsQuery, DnsSettings, ProbeSettings, ServiceSources, Settings};
