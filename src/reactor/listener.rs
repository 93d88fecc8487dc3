//! Sockets that listen: bound here, or inherited from the service manager.

use super::AcceptMode;
use crate::base::ids::ListenerId;
use crate::limit::TokenBucket;
use socket2::{Domain, Protocol, Socket, Type};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};

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
    /// Which of the configuration it is.
    pub(super) id: ListenerId,
    /// What may be accepted; `None`: as much as comes.
    pub(super) tokens: Option<TokenBucket>,
    /// The service manager holds the socket too: what waits in its queue is for the next process.
    pub(super) is_inherited: bool,
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

impl Listener {
    fn new(socket: TcpListener, accept: AcceptMode) -> Listener {
        let socket = mio::net::TcpListener::from_std(socket);
        Listener {
            socket,
            accept,
            is_ready: true,
            paused_until: None,
            id: ListenerId::default(),
            tokens: None,
            is_inherited: false,
        }
    }

    /// The same, as this one of the configuration.
    #[must_use]
    pub fn with_id(self, id: ListenerId) -> Listener {
        Listener { id, ..self }
    }

    /// Closes it. Whoever else holds the socket, as a service manager does, goes on listening: the poll would go on
    /// telling about it if it were only dropped.
    pub(super) fn close(mut self, registry: &mio::Registry) {
        if let Err(error) = registry.deregister(&mut self.socket) {
            log::debug!("a listener is closed: {error}");
        }
    }
}

/// Takes sockets that listen already, and do not block, for all shards: the first one accepts and hands out. The
/// sockets of each shard, and their addresses.
///
/// # Errors
/// When a socket has no address.
pub fn adopt(inherited: Vec<TcpListener>, shards: u16) -> io::Result<(Vec<Vec<Listener>>, Vec<SocketAddr>)> {
    let mut sockets: Vec<Vec<Listener>> = (0..shards).map(|_| Vec::new()).collect();
    let addresses = inherited.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
    let listeners = inherited
        .into_iter()
        .map(|socket| Listener { is_inherited: true, ..Listener::new(socket, AcceptMode::Shared) });
    if let Some(first) = sockets.first_mut() {
        first.extend(listeners);
    }
    Ok((sockets, addresses))
}

/// The address of a client as everything above knows it. An inherited socket may be for both families, and gives IPv4
/// clients addresses like `::ffff:10.0.0.1`: all of them in one /64, which has the limit of one address.
pub(super) fn canonical(peer: SocketAddr) -> SocketAddr {
    match peer {
        SocketAddr::V6(v6) => {
            v6.ip().to_ipv4_mapped().map_or(peer, |v4| SocketAddr::new(v4.into(), v6.port()))
        }
        SocketAddr::V4(_) => peer,
    }
}

/// Binds one address for all shards: the sockets of each shard, and the address with its port.
///
/// # Errors
/// [`BindError`], also when another process listens there with `SO_REUSEPORT`: two gateways must not share clients
/// without anybody's knowing.
pub fn bind(
    at: SocketAddr,
    accept: AcceptMode,
    shards: u16,
    backlog: u16,
) -> Result<(Vec<Vec<Listener>>, SocketAddr), BindError> {
    let fail = |error| BindError { address: at, error };
    // Without SO_REUSEPORT until it listens: this fails if anybody else is there, and from then on nobody else can be. To
    // let it go in between would be long enough for another to come. With port 0 it also finds the port.
    let first = open(at, false).map_err(fail)?;
    first.listen(i32::from(backlog)).map_err(fail)?;
    let address = first.local_addr().map_err(fail)?.as_socket().unwrap_or(at);
    let mut all = vec![first];
    if accept == AcceptMode::ReusePort {
        share(&mut all, (address, backlog), shards).map_err(fail)?;
    }
    let mut all = all.into_iter().map(|socket| Listener::new(socket.into(), accept));
    Ok(((0..shards).map(|_| all.next().into_iter().collect()).collect(), address))
}

/// One more socket for each further shard, beside the first one.
fn share(all: &mut Vec<Socket>, (address, backlog): (SocketAddr, u16), shards: u16) -> io::Result<()> {
    for first in all.iter() {
        first.set_reuse_port(true)?;
    }
    for _ in 1..shards {
        let socket = open(address, true)?;
        socket.listen(i32::from(backlog))?;
        all.push(socket);
    }
    Ok(())
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

    fn any_port() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[test]
    fn each_shard_has_a_socket_on_the_same_port() {
        let (sockets, address) = bind(any_port(), AcceptMode::ReusePort, 3, 16).unwrap();
        assert_ne!(address.port(), 0);
        assert_eq!(sockets.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1]);
        assert!(sockets.iter().flatten().all(|listener| listener.socket.local_addr().unwrap() == address));
    }

    #[test]
    fn a_shared_listener_belongs_to_the_first_shard() {
        let (sockets, _) = bind("[::1]:0".parse().unwrap(), AcceptMode::Shared, 2, 16).unwrap();
        assert_eq!(sockets.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn a_port_in_use_is_an_error_also_behind_reuse_port() {
        for accept in [AcceptMode::ReusePort, AcceptMode::Shared] {
            let (_held, address) = bind(any_port(), accept, 1, 16).unwrap();
            let again = bind(address, AcceptMode::ReusePort, 1, 16);
            assert!(again.unwrap_err().to_string().contains("in use"));
        }
    }

    #[test]
    fn of_two_that_bind_at_once_one_has_the_address() {
        for round in 0..400 {
            let accept = [AcceptMode::ReusePort, AcceptMode::Shared][round % 2];
            // An address that nobody else is given.
            let at = bind("127.0.0.79:0".parse().unwrap(), accept, 1, 16).unwrap().1;
            let start = std::sync::Barrier::new(2);
            let try_it = || {
                start.wait();
                bind(at, AcceptMode::ReusePort, 2, 16)
            };
            let bound = std::thread::scope(|threads| {
                [(); 2].map(|()| threads.spawn(try_it)).map(|thread| thread.join().unwrap())
            });
            assert!(bound.iter().filter(|bound| bound.is_ok()).count() < 2, "they share the clients of {at}");
        }
    }

    #[test]
    fn all_that_bind_any_port_at_once_have_one_of_their_own() {
        let bind_some = || [(); 40].map(|()| bind(any_port(), AcceptMode::ReusePort, 2, 16).unwrap());
        let bound = std::thread::scope(|threads| {
            [(); 4].map(|()| threads.spawn(bind_some)).map(|thread| thread.join().unwrap())
        });
        let ports: std::collections::BTreeSet<u16> =
            bound.iter().flatten().map(|(_, address)| address.port()).collect();
        assert_eq!(ports.len(), 160);
    }

    #[test]
    fn inherited_sockets_belong_to_the_first_shard() {
        let inherited = [any_port(), "[::1]:0".parse().unwrap()].map(|at| TcpListener::bind(at).unwrap());
        let expected: Vec<SocketAddr> = inherited.iter().map(|socket| socket.local_addr().unwrap()).collect();
        let (sockets, addresses) = adopt(inherited.into(), 3).unwrap();
        assert_eq!(sockets.iter().map(Vec::len).collect::<Vec<_>>(), [2, 0, 0]);
        assert!(sockets.iter().flatten().all(|listener| listener.accept == AcceptMode::Shared));
        assert_eq!(addresses, expected);
    }

    #[test]
    fn a_client_has_one_address_whatever_the_socket() {
        let plain: SocketAddr = "10.0.0.1:700".parse().unwrap();
        assert_eq!(canonical("[::ffff:10.0.0.1]:700".parse().unwrap()), plain);
        assert_eq!(canonical(plain), plain);
        for v6 in ["[2001:db8::1]:700", "[fe80::1%3]:700"] {
            let v6: SocketAddr = v6.parse().unwrap();
            assert_eq!(canonical(v6), v6);
        }
    }
}
