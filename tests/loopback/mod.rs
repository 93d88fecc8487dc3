//! Addresses of this machine that no other test has, nor any other program.
//!
//! A port that is let go is soon given to somebody else: to another test of the same program, or to another program. So
//! where nobody is to listen, where somebody comes back to an address, and where a gateway goes on dialling a service that
//! is gone, the whole address is the test's own.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

/// Addresses of one process before they come again.
const EACH_BITS: u32 = 10;

/// Any port of an address of its own.
pub(crate) fn own_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed) & ((1 << EACH_BITS) - 1);
    let [_, high, middle, low] = (std::process::id() << EACH_BITS | number).to_be_bytes();
    // 127.64.0.0/10: neither the address that everybody has, nor that for all.
    SocketAddr::from(([127, 64 | (high & 63), middle, low], 0))
}

/// An address where nobody listens.
pub(crate) fn nobody() -> SocketAddr {
    std::net::TcpListener::bind(own_address()).unwrap().local_addr().unwrap()
}
