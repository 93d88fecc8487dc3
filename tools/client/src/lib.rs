//! The client kit that applications embed: connect, ask, be answered once.
//!
//! ```no_run
//! use moorgate_client::{Client, Options};
//! use std::time::Duration;
//! let mut client = Client::connect("127.0.0.1:7000".parse().unwrap(), Options::default(), "")?;
//! let answer = client.request(0x0001, b"hello", Duration::from_secs(5))?;
//! assert_eq!(answer.payload, b"hello");
//! client.bye()?;
//! # Ok::<(), moorgate_client::ClientError>(())
//! ```
//!
//! [`Client`] is a blocking driver over one TCP connection. What decides is [`core`], which has no I/O: any event
//! loop can drive it, and the simulator does.
//!
//! Guarantees of the core: a request gets exactly one answer or one [`core::Event::Unanswered`] that says whether it
//! may have run; the gateway's limits are never exceeded; what came is acknowledged within a second, mostly for free.

mod action;
mod blocking;
pub mod core;

pub use action::{Action, action};
pub use blocking::{Answer, Client, ClientError};
pub use core::{Options, RequestOptions};
pub use moorgate_proto::status::Code;
pub use moorgate_proto::v1::{Execution, Reason, Source};
