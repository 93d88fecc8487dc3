//! Sockets that listen.

use super::{AcceptMode, ListenerSettings};
use crate::limit::TokenBucket;
use socket2::{Domain, Protocol, Socket, Type};
use std::fmt;
use std::io;
use std::net::SocketAddr;

/// A listening socket of one shard.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub(super) socket: mio::net::TcpListener,
    /// How its connections reach the shards.
    pub(super) accept: AcceptMode,
    /// There may be connections to accept.
    pub(super) is_ready: bool,
    /// No accepting before then: descriptors ran out, or tokens.
    pub(super) paused_until: Option<moorgate_proto::time::Mono>,
    /// What may be accepted; `None`: as much as comes.
    pub(super) tokens: Option<TokenBucket>,
}

/// Why an address cannot be listened on.
#[derive(Debug)]
pub struct BindError {
    address: SocketAddr,
    error: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BindError { address, error } = self;
        match error.kind() {
            io::ErrorKind::AddrInUse => {
                write!(f, "{address} is in use by another process; stop it, or listen elsewhere")
            }
            io::ErrorKind::AddrNotAvailable => write!(f, "{address} is no address of this machine"),
            io::ErrorKind::PermissionDenied => write!(f, "not allowed to listen on {address}"),
            _ => write!(f, "cannot listen on {address}: {error}"),
        }
    }
}

impl std::error::Error for BindError {}

/// Binds one address for all shards: the sockets of each shard, and the address with its port.
///
/// # Errors
/// [`BindError`], also when another process listens there with `SO_REUSEPORT`: two gateways must not share clients
/// without anybody's knowing.
pub fn bind(
    settings: &ListenerSettings,
    shards: u16,
    backlog: u16,
) -> Result<(Vec<Vec<Listener>>, SocketAddr), BindError> {
    let fail = |error| BindError { address: settings.address, error };
    // Bound once without SO_REUSEPORT: this fails if anybody else is there. With port 0 it also finds the port.
    let probe = open(settings.address, false).map_err(fail)?;
    let address = probe.local_addr().map_err(fail)?.as_socket().unwrap_or(settings.address);
    let mut sockets: Vec<Vec<Listener>> = (0..shards).map(|_| Vec::new()).collect();
    let listener = |socket: Socket| -> io::Result<Listener> {
        socket.listen(i32::from(backlog))?;
        let socket = mio::net::TcpListener::from_std(socket.into());
        Ok(Listener { socket, accept: settings.accept, is_ready: true, paused_until: None, tokens: None })
    };
    match settings.accept {
        AcceptMode::Shared => {
            if let Some(first) = sockets.first_mut() {
                first.push(listener(probe).map_err(fail)?);
            }
        }
        AcceptMode::ReusePort => {
            drop(probe);
            for shard in &mut sockets {
                let socket = open(address, true).map_err(fail)?;
                shard.push(listener(socket).map_err(fail)?);
            }
        }
    }
    Ok((sockets, address))
}

fn open(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Connections of a gateway that has just stopped do not keep the port.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(address: &str, accept: AcceptMode) -> ListenerSettings {
        ListenerSettings { address: address.parse().unwrap(), accept }
    }

    #[test]
    fn each_shard_has_a_socket_on_the_same_port() {
        let (sockets, address) = bind(&settings("127.0.0.1:0", AcceptMode::ReusePort), 3, 16).unwrap();
        assert_ne!(address.port(), 0);
        assert_eq!(sockets.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1]);
        assert!(sockets.iter().flatten().all(|listener| listener.socket.local_addr().unwrap() == address));
    }

    #[test]
    fn a_shared_listener_belongs_to_the_first_shard() {
        let (sockets, _) = bind(&settings("[::1]:0", AcceptMode::Shared), 2, 16).unwrap();
        assert_eq!(sockets.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn a_port_in_use_is_an_error_also_behind_reuse_port() {
        for accept in [AcceptMode::ReusePort, AcceptMode::Shared] {
            let (_held, address) = bind(&settings("127.0.0.1:0", accept), 1, 16).unwrap();
            let again = ListenerSettings { address, accept: AcceptMode::ReusePort };
            assert!(bind(&again, 1, 16).unwrap_err().to_string().contains("in use"));
        }
    }
}
