//! The client kit that applications embed: log in, ask, be told, and stay connected.
//!
//! ```no_run
//! use moorgate_client::{Client, Event, State};
//! use std::time::Duration;
//!
//! let (client, events) = Client::builder("127.0.0.1:7000").start_with_events()?;
//! let login = client.request(0x0201, b"as the accounts service wants it", Duration::from_secs(5))?;
//! println!("login: {login}");
//! for event in events {
//!     match event {
//!         Event::Push(push) => println!("{:#06x}: {} bytes", push.command, push.payload.len()),
//!         Event::State(state) => println!("{state:?}"),
//!         _ => {}
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | layer | what it is | for whom |
//! | --- | --- | --- |
//! | [`Client`] | one session over many connections, on a thread of its own | applications |
//! | [`session`] | what decides in it, without I/O | other event loops, other languages |
//! | [`Connection`] | one session over one connection, simple calls | scripts, tests |
//! | [`core`] | what decides in that, without I/O | load testers, simulators |
//!
//! # What a `Client` does by itself
//!
//! - It connects, and connects again: the addresses by a [`Policy`], the waits by a [`Backoff`] with a random part and
//!   by what gateways ask for. It ends, with one clear [`Ending`], when the same again would give the same.
//! - It keeps the access token of a login for the next connection, asks the application for a new one before the old
//!   one expires, and shows none that was refused.
//! - Each request comes to exactly one answer or error. What was not executed is sent again by itself, and what carries
//!   an [idempotency key](fresh_key); never anything else.
//! - Pushes come in order, each once, and are acknowledged when the application has taken them. Where something may be
//!   missing there is an [`Event::Resync`].
//! - A session outlives its connections: the next one resumes it, as long as the gateway keeps it. The application sees
//!   that as a pause ([`State`]), and nothing else: requests stay open and get their answers, pushes go on where they
//!   were. Only where a session is really lost there is a [`Missed::Session`], and requests that may have been executed
//!   are [told so](ClientError::Unanswered).
//! - With a [`Builder::store`] it outlives the application, too. See [`Store`] for what is written there.
//! - It gives signs of life, a little before each is due and not in step with other clients. An application that goes
//!   to the background asks for fewer: `client.beat_every(Duration::from_secs(300))`, and when it comes back
//!   `client.beat_every(Duration::ZERO)`. See [`Client::beat_every`].
//! - It follows the [`Action`] that the gateway writes beside each [`Reason`], so it acts rightly on reasons that are newer
//!   than itself.

mod ambient;
mod answer;
mod client;
mod connection;
pub mod core;
pub mod session;
mod store;

pub use ambient::fresh_key;
pub use answer::{Answer, Login, Push};
pub use client::{Builder, Client, ClientError, EVENTS_MAX, Events, Pending};
pub use connection::{Connection, ConnectionError};
pub use core::{Options, RequestOptions};
pub use moorgate_proto::action;
pub use moorgate_proto::proof::ApplicationKey;
pub use moorgate_proto::status::Code;
pub use moorgate_proto::v1::{Action, Execution, Reason, Source};
pub use session::{
    Backoff, Ending, Event, Missed, Policy, Setback, Settings, State, Ticket, TokenError, TokenNeed,
};
pub use store::{FileStore, STORED_BYTES_MAX, Store};
