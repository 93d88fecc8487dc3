//! What goes out: frames into a connection's buffer, the buffer to the socket, once a turn.

use super::closing::CloseReason;
use super::connection::State;
use super::{End, Shard};
use crate::base::clock::Now;
use crate::base::counters::Count;
use crate::base::ids::ConnectionKey;
use crate::base::output::Output;
use crate::session::{Expiry, Lost, Sending};
use moorgate_proto::codec::put_frame;
use moorgate_proto::envelope::Numbers;
use moorgate_proto::time::Mono;
use moorgate_proto::view::Body;
use std::time::Duration;

/// Buffers kept for the next connections that have something to say: as many as a busy turn has.
const SPARE_BUFFERS_MAX: usize = 1024;
/// Larger buffers are given back to the allocator.
const SPARE_BUFFER_BYTES: usize = 64 * 1024;
/// Bytes of all that are kept.
const SPARE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What was not used for this long is given back.
const SPARE_TIME: Duration = Duration::from_secs(15);

/// Output buffers between two uses.
#[derive(Debug)]
pub(super) struct SpareBuffers {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
    /// The fewest that there were since the last look: so many were not used.
    unused: usize,
    /// When it is looked next; `NEVER`: there are none.
    trim_at: Mono,
}

impl Default for SpareBuffers {
    fn default() -> Self {
        SpareBuffers { buffers: Vec::new(), bytes: 0, unused: 0, trim_at: Mono::NEVER }
    }
}

impl SpareBuffers {
    /// Gives an output a buffer that has none.
    pub(super) fn lend(&mut self, output: &mut Output) {
        if output.bytes.capacity() == 0
            && let Some(buffer) = self.buffers.pop()
        {
            self.bytes = self.bytes.saturating_sub(buffer.capacity());
            self.unused = self.unused.min(self.buffers.len());
            output.bytes = buffer;
        }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When [`SpareBuffers::trim`] has something to do.
    pub(super) fn next_due(&self) -> Option<Mono> {
        (self.trim_at != Mono::NEVER).then_some(self.trim_at)
    }

    /// Gives back what was not used since the last time.
    pub(super) fn trim(&mut self, now: Mono) {
        if now < self.trim_at {
            return;
        }
        // Those that were not lent are the first.
        let unused = self.unused.min(self.buffers.len());
        let freed: usize = self.buffers.drain(..unused).map(|buffer| buffer.capacity()).sum();
        self.bytes = self.bytes.saturating_sub(freed);
        self.buffers.shrink_to(self.buffers.len().saturating_mul(2));
        self.unused = self.buffers.len();
        self.trim_at = if self.buffers.is_empty() { Mono::NEVER } else { now + SPARE_TIME };
    }

    /// Keeps a buffer that is used up, unless there are enough.
    fn keep(&mut self, now: Mono, buffer: Vec<u8>) {
        let bytes = self.bytes.saturating_add(buffer.capacity());
        let is_wanted = self.buffers.len() < SPARE_BUFFERS_MAX && bytes <= SPARE_BYTES_MAX;
        if is_wanted && buffer.capacity() <= SPARE_BUFFER_BYTES {
            self.bytes = bytes;
            self.buffers.push(buffer);
            if self.trim_at == Mono::NEVER {
                self.trim_at = now + SPARE_TIME;
            }
        }
    }
}

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
            self.spare_buffers.keep(now.mono, buffer);
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
            bounds: self.session_settings.bounds(),
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
            self.arm_session(now, key);
        }
    }

    /// Puts a connection on the list of those to be flushed, unless it is there, or has nothing
    /// to flush, or its socket takes nothing.
    pub(super) fn list(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connections.get_mut(key)
            && connection.output.is_new_on_list()
        {
            self.flushes.push(key);
        }
    }

    /// The connection's output, with a buffer.
    pub(super) fn buffer(&mut self, key: ConnectionKey) -> Option<&mut Vec<u8>> {
        let connection = self.connections.get_mut(key)?;
        self.spare_buffers.lend(&mut connection.output);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spare_buffers_are_bounded_in_number_in_size_and_in_all() {
        let mut spare = SpareBuffers::default();
        spare.keep(Mono::ZERO, Vec::with_capacity(SPARE_BUFFER_BYTES + 1));
        assert_eq!((spare.buffers.len(), spare.bytes), (0, 0));
        (0..2 * SPARE_BUFFERS_MAX).for_each(|_| spare.keep(Mono::ZERO, Vec::with_capacity(1024)));
        assert_eq!((spare.buffers.len(), spare.bytes), (SPARE_BUFFERS_MAX, SPARE_BUFFERS_MAX * 1024));
        let mut outputs: Vec<Output> = (0..2 * SPARE_BUFFERS_MAX).map(|_| Output::default()).collect();
        outputs.iter_mut().for_each(|output| spare.lend(output));
        assert_eq!(outputs.iter().filter(|output| output.bytes.capacity() > 0).count(), SPARE_BUFFERS_MAX);
        assert_eq!((spare.buffers.len(), spare.bytes), (0, 0));
        (0..SPARE_BUFFERS_MAX).for_each(|_| spare.keep(Mono::ZERO, Vec::with_capacity(SPARE_BUFFER_BYTES)));
        assert_eq!(spare.bytes, SPARE_BYTES_MAX);
    }

    #[test]
    fn spare_buffers_that_are_not_used_are_given_back() {
        let at = |seconds| Mono::ZERO + Duration::from_secs(seconds);
        let mut spare = SpareBuffers::default();
        assert_eq!(spare.next_due(), None);
        (0..200).for_each(|_| spare.keep(at(0), Vec::with_capacity(SPARE_BUFFER_BYTES)));
        assert_eq!(spare.next_due(), Some(at(15)));
        // Ten are in use again and again.
        for second in 0..46 {
            let mut outputs: Vec<Output> = (0..10).map(|_| Output::default()).collect();
            outputs.iter_mut().for_each(|output| spare.lend(output));
            outputs.into_iter().for_each(|output| spare.keep(at(second), output.bytes));
            spare.trim(at(second));
        }
        assert_eq!((spare.buffers.len(), spare.bytes), (10, 10 * SPARE_BUFFER_BYTES));
        spare.trim(at(59));
        spare.trim(at(60));
        assert_eq!((spare.buffers.len(), spare.bytes, spare.buffers.capacity()), (0, 0, 0));
        assert_eq!(spare.next_due(), None);
    }
}
