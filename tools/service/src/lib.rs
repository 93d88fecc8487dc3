//! The kit that backend services embed: listen for gateways, handle commands, reply.
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
//! [`Service`] is the driver: one thread, any number of links from any number of gateways. What decides is
//! [`core`], which has no I/O and can be driven by any loop.
//!
//! Guarantees: exactly one Reply for each call, whatever the handler does (one that forgets, or panics, answers
//! INTERNAL); no call is run before the gateway has proved itself, if a key is set; calls beyond the announced bound
//! are answered RESOURCE_EXHAUSTED and never run.

pub mod core;
mod handler;
mod server;

pub use handler::{Call, Later, Reply, Responder};
pub use moorgate_proto::proof::LinkKey;
pub use moorgate_proto::status::Code;
pub use moorgate_proto::v1::{Execution, Reason};
pub use server::{Handle, Listening, Service};
