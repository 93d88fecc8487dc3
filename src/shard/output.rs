//! What goes out: frames into a connection's buffer, the buffer to the socket, once a turn.

use super::closing::CloseReason;
use super::connection::State;
use super::{End, Shard};
use crate::base::clock::Now;
use crate::base::counters::Count;
use crate::base::ids::ConnectionKey;
use crate::session::{Expiry, Lost, Sending};
use moorgate_proto::codec::put_frame;
use moorgate_proto::envelope::Numbers;
use moorgate_proto::view::Body;

/// Buffers kept for the next connection that has something to say.
const SPARE_BUFFERS: usize = 256;
/// Larger buffers are given back to the allocator.
const SPARE_BUFFER_BYTES: usize = 64 * 1024;

impl Shard {
    /// The next connection with something to write.
    pub fn next_flush(&mut self) -> Option<ConnectionKey> {
        let key = self.flushes.pop()?;
        if let Some(connection) = self.connections.get_mut(key) {
            connection.output.listed = false;
        }
        Some(key)
    }

    /// What is to be written to a connection's socket.
    pub fn unsent(&self, key: ConnectionKey) -> &[u8] {
        self.connections.get(key).map_or(&[], |connection| connection.output.unsent())
    }

    /// The socket took `count` bytes of [`Shard::unsent`]; fewer than offered: it takes no more for now.
    pub fn sent(&mut self, now: Now, key: ConnectionKey, count: usize) {
        self.cells.add(Count::BytesSent, count as u64);
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if let Some(buffer) = connection.output.took(now.mono, count) {
            if buffer.capacity() <= SPARE_BUFFER_BYTES && self.spare_buffers.len() < SPARE_BUFFERS {
                self.spare_buffers.push(buffer);
            }
            if let State::Closing(deadline) = connection.state {
                connection.state = State::HalfClosed(deadline);
                self.ended.push((key, End::ShutdownWrite));
            }
        } else {
            let due = connection.write_deadline(self.settings.write_timeout);
            self.arm(key, due);
        }
        self.pump(now, key);
    }

    /// The socket takes bytes again.
    pub fn writable(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connections.get_mut(key)
            && connection.output.is_stalled()
            && !std::mem::replace(&mut connection.output.listed, true)
        {
            self.flushes.push(key);
        }
    }

    /// Numbers and writes what waits for room.
    pub(super) fn pump(&mut self, now: Now, key: ConnectionKey) {
        let Some(session_key) = self.session_of(key) else { return };
        if !self.sessions.get(session_key).is_some_and(|session| session.down.is_waiting()) {
            return;
        }
        self.buffer(key);
        let room = self.push_room();
        let high = self.settings.output_bytes_high;
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.output.is_above(high) {
            return;
        }
        let sending = Sending {
            admitted: session.up.admitted(),
            window_max: self.session_settings.window_max as usize,
            out: Some(&mut connection.output.bytes),
            room,
        };
        let held = session.down.kept_bytes();
        let mut lost = Lost::default();
        let frames = session.down.pump(now.mono, sending, high, &mut lost);
        self.owed_bytes = self.owed_bytes.saturating_sub(held).saturating_add(session.down.kept_bytes());
        self.cells.add(Count::FramesSent, frames as u64);
        let has_left = session.is_leaving() && !session.down.has_response_waiting();
        if has_left {
            session.expiry = Expiry::LoggedOut(now.mono);
        }
        self.lose(session_key, lost);
        self.list(key);
        if has_left {
            self.arm_session(key);
        }
    }

    /// Puts a connection on the list of those to be flushed, unless it is there, or has nothing
    /// to flush, or its socket takes nothing.
    pub(super) fn list(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.output.listed
            && !connection.output.is_empty()
            && !connection.output.is_stalled()
        {
            connection.output.listed = true;
            self.flushes.push(key);
        }
    }

    /// The connection's output, with a buffer.
    pub(super) fn buffer(&mut self, key: ConnectionKey) -> Option<&mut Vec<u8>> {
        let connection = self.connections.get_mut(key)?;
        if connection.output.bytes.capacity() == 0
            && let Some(spare) = self.spare_buffers.pop()
        {
            connection.output.bytes = spare;
        }
        Some(&mut connection.output.bytes)
    }

    /// Writes an unnumbered frame.
    pub(super) fn put(&mut self, key: ConnectionKey, member: u32, body: &impl Body) {
        let ack = self
            .session_of(key)
            .and_then(|session| self.sessions.get(session))
            .map_or(0, |s| s.up.admitted());
        let Some(out) = self.buffer(key) else { return };
        put_frame(out, Numbers { seq: 0, ack }, member, body);
        self.cells.count(Count::FramesSent);
        self.list(key);
    }

    /// Writes a frame that the client can do without: left out when the client does not read.
    pub(super) fn put_optional(&mut self, key: ConnectionKey, member: u32, body: &impl Body) {
        let above =
            |connection: &super::Connection| connection.output.is_above(self.settings.output_bytes_high);
        if self.connections.get(key).is_none_or(above) {
            self.cells.count(Count::ControlFramesShed);
        } else {
            self.put(key, member, body);
        }
    }

    /// The end of the peer's stream, or an error of its socket.
    pub fn peer_closed(&mut self, now: Now, key: ConnectionKey) {
        self.close(now, key, CloseReason::Peer);
    }
}
