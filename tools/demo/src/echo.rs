//! The echo service: answers each request with its own payload.

use moorgate_service::{Listening, Reply, Service};
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

/// The service's name.
pub const NAME: &str = "echo";
/// The commands that it owns.
pub const COMMANDS: RangeInclusive<u32> = 0x0001..=0x00ff;

/// The service, to be refined and told where to listen.
pub fn service() -> Service {
    Service::named(NAME).handle(COMMANDS, |call, responder| responder.reply(Reply::ok(call.payload())))
}

/// Listens without proofs; port 0 lets the system choose one.
///
/// # Errors
/// When the address cannot be listened on.
pub fn listen(address: SocketAddr) -> io::Result<Listening> {
    service().listen(address)
}
