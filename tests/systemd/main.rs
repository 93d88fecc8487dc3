//! The gateway under a service manager, which the tests play themselves: what it is told, the sockets and the secrets
//! that it hands over, the access log that somebody else rotates. `run` beside this file is the same with systemd.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[cfg(test)]
mod files;
#[cfg(test)]
mod notify;
#[cfg(test)]
mod sockets;
#[cfg(test)]
mod unit;
