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

/// Bytes of one socket in one turn; the rest is read in the next.
const BYTES_PER_TURN: usize = 256 * 1024;
/// Frames of one socket in one turn: small ones cost more than their bytes.
const FRAMES_PER_TURN: usize = 1024;

/// What one socket may still take of a turn, so that others have their part of it.
#[derive(Debug)]
pub(super) struct ReadBudget {
    bytes: usize,
    frames: usize,
}

impl Default for ReadBudget {
    fn default() -> Self {
        ReadBudget { bytes: BYTES_PER_TURN, frames: FRAMES_PER_TURN }
    }
}

impl ReadBudget {
    /// Bytes that were read.
    pub(super) fn bytes_read(&self) -> usize {
        BYTES_PER_TURN.saturating_sub(self.bytes)
    }

    /// Whether the rest is for the next turn.
    pub(super) fn is_spent(&self) -> bool {
        self.bytes == 0 || self.frames == 0
    }

    /// So many bytes were read, which completed so many frames.
    pub(super) fn spend(&mut self, bytes: usize, frames: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.frames = self.frames.saturating_sub(frames);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_spent_by_bytes_and_by_frames() {
        for (bytes, frames, reads) in
            [(16 * 1024, 1, 16), (16 * 1024, 0, 16), (5, 1, 1024), (16 * 1024, 3276, 1), (16 * 1024, 512, 2)]
        {
            let mut budget = ReadBudget::default();
            let mut done = 0;
            while !budget.is_spent() {
                budget.spend(bytes, frames);
                done += 1;
            }
            assert_eq!(done, reads, "{frames} frames in {bytes} bytes");
        }
    }
}
