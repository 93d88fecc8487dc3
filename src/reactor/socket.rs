//! What is done with a stream socket: its options, and reading it dry.

use socket2::{SockRef, TcpKeepalive};
use std::io::{self, Read, Write};
use std::time::Duration;

/// Options of every stream socket.
#[derive(Debug, Clone, Copy)]
pub struct SocketOptions {
    /// Idle time before TCP's own keepalive probes.
    pub keepalive: Duration,
    /// Unacknowledged data for this long ends the connection (`TCP_USER_TIMEOUT`).
    pub user_timeout: Duration,
    /// Bytes that the kernel takes and has not sent (`TCP_NOTSENT_LOWAT`): a peer that does not read is noticed by what it
    /// does not take. `None`: as many as its send buffer holds.
    pub unsent_max: Option<u32>,
}

impl SocketOptions {
    /// Sets them. A socket that its peer has reset meanwhile refuses some: the next read tells.
    pub(super) fn apply(&self, stream: &mio::net::TcpStream) {
        let socket = SockRef::from(stream);
        let result = socket
            .set_tcp_nodelay(true)
            .and_then(|()| socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(self.keepalive)))
            .and_then(|()| socket.set_tcp_user_timeout(Some(self.user_timeout)))
            .and_then(|()| self.unsent_max.map_or(Ok(()), |max| socket.set_tcp_notsent_lowat(max)));
        if let Err(error) = result {
            log::debug!("socket options: {error}");
        }
    }
}

/// What one read has found.
pub(super) enum Got {
    /// Bytes; whether there may be more.
    Bytes(usize, bool),
    /// Nothing for now.
    Nothing,
    /// The end of the peer's stream, or an error of the socket.
    End,
}

/// Reads once. `closing`: the event said that the peer has closed, so that only the end itself is the end.
pub(super) fn read(stream: &mut mio::net::TcpStream, buffer: &mut [u8], closing: bool) -> Got {
    loop {
        return match stream.read(buffer) {
            Ok(0) => Got::End,
            Ok(count) => Got::Bytes(count, closing || count == buffer.len()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Got::Nothing,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => Got::End,
        };
    }
}

/// Writes once; how many bytes the socket took, `None` when it failed.
pub(super) fn write(stream: &mut mio::net::TcpStream, bytes: &[u8]) -> Option<usize> {
    loop {
        return match stream.write(bytes) {
            Ok(count) => Some(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => None,
        };
    }
}
