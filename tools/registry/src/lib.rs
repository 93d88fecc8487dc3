//! Clients of service registries: Consul and Nacos.

#![forbid(unsafe_code)]

mod ambient;
mod consul;
mod error;
mod gathered;
mod http;
mod nacos;
mod pace;
mod registrar;
mod registration;
mod registry;
mod settings;
mod stop;
mod watch;

pub use consul::ConsulWatch;
pub use error::RegistryError;
pub use nacos::NacosWatch;
pub use registrar::Registrar;
pub use registration::{Check, Registration, Target};
pub use settings::{ConsulQuery, ConsulSettings, DEFAULT_GROUP, NacosQuery, NacosSettings};
pub use stop::Stop;
pub use watch::{Health, Listed, Watch};
