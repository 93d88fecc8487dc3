//! Moorgate: the front door of an instant-messaging system.
//!
//! Everything that decides is pure; everything that touches the world is thin. The map of the house, from the
//! bottom to the top; a module uses only what stands above it in this table (`tests/tidy` has the order in force):
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`base`] | ids, slabs with generations, time, the timer wheel, counters, the mailbox |
//! | [`auth`] | the key ring and access tokens |
//! | [`limit`] | limits that all shards share |
//! | [`routing`] | which service owns a command; which endpoint takes a call |
//! | [`relay`] | what shards and workers say to each other |
//! | [`directory`] | who is here: users, groups, orders to shards; shared by all threads |
//! | [`session`] | one client's session: opening, the two numbered streams |
//! | [`forward`] | one worker's calls and its links to services |
//! | [`shard`] | all connections and sessions of one thread |
//! | [`telemetry`] | access log, diagnostics, metrics |
//! | [`reactor`] | event loops: bytes between sockets and cores |
//! | [`control`] | the service manager: what it is told, sockets that it hands over |
//! | [`admin`] | the operator's HTTP |
//! | [`config`] | TOML to valid settings |
//! | [`gateway`] | assembles the parts, starts the threads, drains |

pub mod admin;
pub mod auth;
pub mod base;
pub mod config;
pub mod control;
pub mod directory;
pub mod forward;
pub mod gateway;
pub mod limit;
pub mod reactor;
pub mod relay;
pub mod routing;
pub mod session;
pub mod shard;
pub mod telemetry;
