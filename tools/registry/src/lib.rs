//! Clients of service registries, Consul and Nacos: who runs a service is followed, and an instance keeps itself listed.
//!
//! ```no_run
//! use moorgate_registry::{ConsulQuery, ConsulSettings, ConsulWatch, Registrar, Registration, Stop, Target, Watch};
//! use std::time::Duration;
//!
//! let agent = ConsulSettings { address: "http://127.0.0.1:8500".to_owned(), ..ConsulSettings::default() };
//! let here = Registration::new("chat", "10.0.0.9:7100".parse().unwrap());
//! let registrar = Registrar::start(Target::Consul(agent.clone()), here)?;
//!
//! let chat = ConsulQuery { name: "chat".to_owned(), ..ConsulQuery::default() };
//! let (mut watch, stop) = (ConsulWatch::new(&agent, chat), Stop::new());
//! while let Some(answer) = watch.next(&stop) {
//!     match answer {
//!         Ok(listing) => println!("{} instances", listing.instances.len()),
//!         Err(error) => eprintln!("{error}: the last list stays good"),
//!     }
//! }
//! registrar.deregister(Duration::from_secs(2));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! | for | there is |
//! | --- | --- |
//! | who runs a service, and how they are | [`ConsulWatch`], [`NacosWatch`], both [`Watch`] |
//! | being listed | [`Registrar`], [`Registration`], [`Target`] |
//! | an end, also of what is under way | [`Stop`] |
//!
//! Everything blocks: a thread for each watch and each registrar, with HTTP through ureq, plain or with TLS (rustls with
//! ring) and the certificates of a file. What decides (indexes, tokens, delays, beats) is pure.
//!
//! Guarantees: an answer is a whole list or an error, never a part: what is above a bound (32 MiB), is no list, or is
//! empty for want of a right, is an [`RegistryError`]. An instance that is not usable (no IP address, no port, a field of
//! another type) takes nothing from the others: it is left out, counted, and named in [`Listing::reasons`], and so is what
//! is above 16,384 instances.
//! What a registry says in words is told on one line of at most 200 characters, without any that a terminal obeys.
//! What a registry doubts is listed all the same, and
//! said to be doubted. A registry is asked at most twice at once and then once a second, and less and less often while it
//! fails. A watch ends within two seconds of its [`Stop`]. What was registered is registered again when the registry has
//! forgotten it. Secrets are in no error, log line or `Debug` of this crate. (At the level `trace`, `ureq` and `ureq_proto` log
//! every byte that is sent, secrets too: keep these two at `debug` or above.)
//!
//! Weights are those of Moorgate, of which 100 is the usual one; Consul and Nacos have 1 for that. They are multiplied by 100
//! when they are read and divided when they are registered, so that instances of several registries can be mixed. They are
//! not bounded otherwise than by the registries (65,535 in Consul, 10,000 in Nacos): whoever has a smaller bound scales them.
//! Consul knows no parts: what is below 100 is registered with 1 there.
//!
//! Not guaranteed: that a list is right. A registry that has just begun says that nobody is there; who follows it has to
//! look for itself before it believes that.

#![forbid(unsafe_code)]

mod ambient;
mod consul;
mod elements;
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
mod words;

pub use consul::ConsulWatch;
pub use error::RegistryError;
pub use nacos::NacosWatch;
pub use registrar::{IsHealthy, Registrar};
pub use registration::{Check, Registration, Target};
pub use settings::{ConsulQuery, ConsulSettings, DEFAULT_GROUP, NacosQuery, NacosSettings};
pub use stop::Stop;
pub use watch::{Health, Listed, Listing, Watch};
