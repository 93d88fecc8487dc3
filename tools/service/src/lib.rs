//! The kit that backend services embed: listen for gateways, handle commands, reply, push.
//!
//! ```no_run
//! use moorgate_service::{Reply, Service};
//! let service = Service::named("greeter")
//!     .handle(0x0300..=0x0300, |call, responder| {
//!         let user = call.caller().user_id;
//!         responder.reply(Reply::ok(format!("hello, {user}").as_bytes()));
//!     })
//!     .listen("127.0.0.1:7100".parse().unwrap())?;
//! service.run();
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! | for | there is |
//! | --- | --- |
//! | calls, now, later, or on a thread | [`Service::handle`], [`Responder::later`], [`Service::handle_blocking`] |
//! | requests that must not run twice | [`Service::deduplicate`] |
//! | login, logout, groups, kicks, revocation | [`Reply::with_login`], [`Reply::with_logout`], [`Directive`] |
//! | pushes to users, sessions, groups, everyone | [`Service::pusher`], [`Push`], [`PushReport`], [`Service::on_receipt`] |
//! | who is online | [`Service::presence`] |
//! | letting sessions in or not | [`Service::check_sessions`] |
//! | state, load, bounds at run time | [`Service::health`] |
//! | being found | `Service::register`, with the feature `registry` |
//! | the end | [`Handle::drain`], [`Handle::stop`] |
//!
//! With the feature `registry` a service lists itself in Consul or Nacos, and leaves it first thing when it ends:
//!
//! ```no_run
//! # #[cfg(feature = "registry")]
//! # fn main() -> std::io::Result<()> {
//! use moorgate_service::registry::{ConsulSettings, Registration, Target};
//! use moorgate_service::{Reply, Service};
//! let agent = Target::Consul(ConsulSettings::default());
//! let service = Service::named("greeter")
//!     .handle(0x0300..=0x0300, |_, responder| responder.reply(Reply::ok(b"hello")))
//!     .register(agent, |address| Registration {
//!         tags: vec!["canary".to_owned()],
//!         ..Registration::new("greeter", address)
//!     })
//!     .listen("10.0.0.9:7100".parse().unwrap())?;
//! service.run();
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "registry"))]
//! # fn main() {}
//! ```
//!
//! Directives, pushes and presence need grants in the gateways' configuration.
//!
//! [`Listening`] is the driver: one thread with a loop, any number of links from any number of gateways, and a pool of
//! threads if handlers block. What decides has no I/O and can be driven by any loop: [`core`] for one link, and
//! [`push::Pushes`] and [`presence::Presence`] for pushes and presence over all of them.
//!
//! Guarantees: exactly one Reply for each call, whatever the handler does (one that forgets, or panics, answers
//! INTERNAL); no call is run before the gateway has proved itself, if a key is set; calls beyond a bound are answered
//! RESOURCE_EXHAUSTED and never run; each push has one report; every queue is bounded.

mod call;
mod clock;
pub mod core;
mod dedup;
mod directive;
mod dispatch;
mod driver;
mod handle;
mod health;
mod listings;
mod pool;
mod post;
pub mod presence;
pub mod push;
mod queue;
mod reply;
mod service;
mod verdict;

pub use call::{Call, Later, Responder};
pub use dedup::DedupSettings;
pub use directive::Directive;
pub use driver::Listening;
pub use handle::Handle;
pub use health::Health;
pub use moorgate_proto::proof::LinkKey;
pub use moorgate_proto::status::Code;
pub use moorgate_proto::v1::{Caller, Execution, Priority, Reason, ServiceView, service_view::State};
pub use presence::PresenceChange;
pub use push::{PendingPush, Push, PushError, PushId, PushReport, Pusher, Receipt, TargetState};
pub use reply::Reply;
pub use service::Service;
pub use verdict::Verdict;

/// What [`Service::register`] takes.
#[cfg(feature = "registry")]
pub mod registry {
    pub use moorgate_registry::{Check, ConsulSettings, NacosSettings, Registration, Target};
}
