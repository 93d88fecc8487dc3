//! The time by which a loop judges its deadlines: all input that had arrived by then has been read.
//!
//! A process may be stopped at any instruction, and input arrives meanwhile. A poll returns every event of before its
//! beginning, unless there are more than it can return at once; so the time before a poll that was not full is safe, and
//! after full ones the time before the first of as many polls as all sockets need. A socket with more input than one
//! turn reads stays in the [`Backlog`], and what of it is unread arrived after its entry's time.

use super::EVENTS_PER_TURN;
use moorgate_proto::time::Mono;
use std::collections::VecDeque;

/// A socket's receive buffer is not larger (the last number of `net.ipv4.tcp_rmem`, 6 MiB by default): once so many bytes
/// were read, the unread input is newer than the first of these reads.
const RECEIVE_BUFFER_BYTES: usize = 8 * 1024 * 1024;
/// Listeners and the waker have events too.
const OTHER_SOURCES: usize = 257;

/// Since when input is unread.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unread {
    since: Mono,
    /// Read from the socket since then.
    bytes: usize,
}

impl Unread {
    /// Input that arrived after `since`.
    pub(super) fn since(since: Mono) -> Unread {
        Unread { since, bytes: 0 }
    }

    /// So many bytes later there is still more.
    pub(super) fn read(self, now: Mono, bytes: usize) -> Unread {
        match self.bytes.saturating_add(bytes) {
            RECEIVE_BUFFER_BYTES.. => Unread::since(now),
            bytes => Unread { bytes, ..self },
        }
    }
}

/// Sockets with more input than one turn reads, in the order in which they are read on.
#[derive(Debug)]
pub(super) struct Backlog<K>(VecDeque<(K, Unread)>);

impl<K> Default for Backlog<K> {
    fn default() -> Self {
        Backlog(VecDeque::new())
    }
}

impl<K> Backlog<K> {
    /// Sockets in it.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one at the end.
    pub(super) fn push(&mut self, key: K, unread: Unread) {
        self.0.push_back((key, unread));
    }

    /// Takes the first.
    pub(super) fn pop(&mut self) -> Option<(K, Unread)> {
        self.0.pop_front()
    }

    /// All unread input arrived after this time.
    pub(super) fn unread_since(&self) -> Mono {
        self.0.iter().map(|(_, unread)| unread.since).min().unwrap_or(Mono::NEVER)
    }
}

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct ReadUntil {
    /// When the turn before this one began: this turn's poll came after it.
    previous_turn: Mono,
    /// All input of before has been read.
    until: Mono,
    /// Full polls in a row.
    full_polls: usize,
    /// When the turn before the first of them began.
    before_full: Mono,
}

impl ReadUntil {
    /// Input of before this time has been read, except that of the backlog.
    pub(super) fn until(&self) -> Mono {
        self.until
    }

    /// A turn begins at `now`, with so many events from its poll, of so many sockets.
    pub(super) fn turn(&mut self, now: Mono, events: usize, sockets: usize) {
        let before_poll = std::mem::replace(&mut self.previous_turn, now);
        if events < EVENTS_PER_TURN {
            self.full_polls = 0;
            self.until = before_poll;
            return;
        }
        if self.full_polls == 0 {
            self.before_full = before_poll;
        }
        self.full_polls = self.full_polls.saturating_add(1);
        // Events are returned in the order of their arrival: each socket that was ready has had its turn now.
        if self.full_polls > sockets.saturating_add(OTHER_SOURCES) / EVENTS_PER_TURN {
            self.full_polls = 0;
            self.until = self.before_full;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64) -> Mono {
        Mono::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn backlog_entry_is_renewed_after_the_bytes_of_a_buffer() {
        let mut backlog = Backlog::default();
        assert_eq!(backlog.unread_since(), Mono::NEVER);
        backlog.push('a', Unread::since(at(3)));
        backlog.push('b', Unread::since(at(2)));
        assert_eq!((backlog.unread_since(), backlog.len()), (at(2), 2));
        let (_, mut unread) = backlog.pop().unwrap();
        for turn in 0..4 {
            assert_eq!(unread.since, at(3), "turn {turn}");
            unread = unread.read(at(100 + turn), RECEIVE_BUFFER_BYTES / 4);
        }
        assert_eq!(unread.since, at(103));
    }

    #[test]
    fn time_before_the_poll_is_safe() {
        let mut read = ReadUntil::default();
        read.turn(at(1), 0, 10);
        assert_eq!(read.until(), Mono::ZERO);
        read.turn(at(60), 3, 10);
        assert_eq!(read.until(), at(1), "what arrived while the process was stopped may be unread");
        read.turn(at(61), 0, 10);
        assert_eq!(read.until(), at(60));
    }

    #[test]
    fn full_polls_are_safe_once_every_socket_had_its_turn() {
        let mut read = ReadUntil::default();
        read.turn(at(1), 0, 3000);
        for (turn, until) in [(2, 0), (3, 0), (4, 0), (5, 1), (6, 1), (7, 1), (8, 1), (9, 5)] {
            read.turn(at(turn), EVENTS_PER_TURN, 3000);
            assert_eq!(read.until(), at(until), "turn {turn}");
        }
        read.turn(at(10), EVENTS_PER_TURN - 1, 3000);
        assert_eq!(read.until(), at(9));
    }
}
