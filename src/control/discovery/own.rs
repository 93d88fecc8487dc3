//! The gateway's own listeners. An endpoint that is one of them would have the gateway call itself.

use std::net::{SocketAddr, UdpSocket};

/// The listener that an endpoint is; one of every address (`0.0.0.0`, `[::]`) is at each address of this machine.
pub fn own_listener(listeners: &[SocketAddr], endpoint: SocketAddr) -> Option<SocketAddr> {
    let endpoint = SocketAddr::new(endpoint.ip().to_canonical(), endpoint.port());
    let is_it = |listener: &&SocketAddr| {
        let listens_at = listener.ip() == endpoint.ip()
            || listener.ip().is_unspecified()
                && listener.is_ipv4() == endpoint.is_ipv4()
                && is_of_this_machine(endpoint);
        endpoint.port() != 0 && listener.port() == endpoint.port() && listens_at
    };
    listeners.iter().find(is_it).copied()
}

/// Why an endpoint cannot be used, where it is one of the gateway's own listeners.
pub(super) fn why_own(listeners: &[SocketAddr], endpoint: SocketAddr) -> Option<String> {
    let listener = own_listener(listeners, endpoint)?;
    Some(format!("is {listener}, where this gateway itself listens; list the address of the service"))
}

/// Only an address of its own lets a machine bind to it.
fn is_of_this_machine(address: SocketAddr) -> bool {
    address.ip().is_loopback() || UdpSocket::bind((address.ip(), 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_of_every_address_is_at_each_of_this_machine() {
        let own = |listener: &str, endpoint: &str| {
            own_listener(&[listener.parse().unwrap()], endpoint.parse().unwrap()).is_some()
        };
        assert!(own("10.0.0.9:7000", "10.0.0.9:7000") && own("10.0.0.9:7000", "[::ffff:10.0.0.9]:7000"));
        assert!(!own("10.0.0.9:7000", "10.0.0.9:7001") && !own("10.0.0.9:7000", "10.0.0.8:7000"));
        assert!(own("0.0.0.0:7000", "127.0.0.1:7000") && own("0.0.0.0:7000", "127.9.9.9:7000"));
        assert!(own("[::]:7000", "[::1]:7000") && !own("[::]:7000", "127.0.0.1:7000"));
        assert!(!own("0.0.0.0:7000", "[::1]:7000") && !own("0.0.0.0:7000", "192.0.2.1:7000"));
        assert!(!own("0.0.0.0:0", "127.0.0.1:0"), "the system has yet to choose a port");
    }
}
