//! Simulated TCP: two pipes a connection, each with a bounded room, delivered late and in pieces, and cut at any byte.
//!
//! A writer that gets a short write is told when there is room again, as epoll would tell it once, at the edge.

use std::collections::VecDeque;

pub type ConnId = usize;

/// The side of a connection: who dialled, and who accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Dialler,
    Accepter,
}

impl Side {
    pub fn other(self) -> Side {
        match self {
            Side::Dialler => Side::Accepter,
            Side::Accepter => Side::Dialler,
        }
    }
}

/// What the network wants to happen, some time later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NetEvent {
    /// Bytes, or the end, may be there for this side.
    Arrive(ConnId, Side),
    /// This side may write again.
    Writable(ConnId, Side),
    /// This side learns that the connection is dead.
    Broken(ConnId, Side),
}

#[derive(Debug, Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    fin: bool,
    /// The writer got a short write, and waits.
    waiting: bool,
}

#[derive(Debug)]
struct Conn {
    /// Towards the dialler, towards the accepter.
    pipes: [Pipe; 2],
    /// Which sides have closed their socket.
    closed: [bool; 2],
    room: usize,
    /// Nothing arrives any more, and nobody is told.
    silent: bool,
    dead: bool,
}

/// What a side finds when it reads.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrived {
    Bytes(Vec<u8>),
    End,
    Nothing,
}

#[derive(Debug, Default)]
pub struct Network {
    conns: Vec<Conn>,
    /// Wishes of the last call, for the world to schedule.
    pub wishes: Vec<NetEvent>,
}

fn at(side: Side) -> usize {
    side as usize
}

impl Network {
    pub fn connect(&mut self, room: usize) -> ConnId {
        self.conns.push(Conn {
            pipes: [Pipe::default(), Pipe::default()],
            closed: [false; 2],
            room,
            silent: false,
            dead: false,
        });
        self.conns.len() - 1
    }

    /// How many bytes of these the connection takes from this side; `None`: it is dead.
    pub fn write(&mut self, id: ConnId, from: Side, bytes: &[u8], most: usize) -> Option<usize> {
        let conn = &mut self.conns[id];
        if conn.dead || conn.closed[at(from)] {
            return None;
        }
        let pipe = &mut conn.pipes[at(from.other())];
        assert!(!pipe.fin, "a side writes no more after its end");
        let room = conn.room.saturating_sub(pipe.bytes.len());
        let count = bytes.len().min(room).min(most.max(1));
        pipe.bytes.extend(&bytes[..count]);
        if count > 0 {
            self.wishes.push(NetEvent::Arrive(id, from.other()));
        }
        if count < bytes.len() {
            pipe.waiting = true;
            if count < room {
                // The socket was full for a moment only.
                self.wishes.push(NetEvent::Writable(id, from));
            }
        }
        Some(count)
    }

    /// Takes at most `most` bytes of what has arrived.
    pub fn read(&mut self, id: ConnId, side: Side, most: usize) -> Arrived {
        let conn = &mut self.conns[id];
        if conn.dead || conn.silent || conn.closed[at(side)] {
            return Arrived::Nothing;
        }
        let pipe = &mut conn.pipes[at(side)];
        if pipe.bytes.is_empty() {
            return if std::mem::take(&mut pipe.fin) { Arrived::End } else { Arrived::Nothing };
        }
        let count = pipe.bytes.len().min(most.max(1));
        let bytes = pipe.bytes.drain(..count).collect();
        if std::mem::take(&mut pipe.waiting) {
            self.wishes.push(NetEvent::Writable(id, side.other()));
        }
        if !pipe.bytes.is_empty() || pipe.fin {
            self.wishes.push(NetEvent::Arrive(id, side));
        }
        Arrived::Bytes(bytes)
    }

    /// Whether bytes have arrived for this side.
    pub fn is_readable(&self, id: ConnId, side: Side) -> bool {
        let conn = &self.conns[id];
        !conn.dead && !conn.silent && !conn.closed[at(side)] && !conn.pipes[at(side)].bytes.is_empty()
    }

    /// This side sends its end; it still reads.
    pub fn shutdown(&mut self, id: ConnId, side: Side) {
        let conn = &mut self.conns[id];
        if !conn.dead && !conn.closed[at(side)] {
            conn.pipes[at(side.other())].fin = true;
            self.wishes.push(NetEvent::Arrive(id, side.other()));
        }
    }

    /// This side closes its socket. What it has not read makes the close a reset, which may overtake what it wrote.
    pub fn close(&mut self, id: ConnId, side: Side) {
        let conn = &mut self.conns[id];
        if conn.dead || conn.closed[at(side)] {
            return;
        }
        conn.closed[at(side)] = true;
        if conn.pipes[at(side)].bytes.is_empty() {
            self.conns[id].pipes[at(side.other())].fin = true;
            self.wishes.push(NetEvent::Arrive(id, side.other()));
        } else {
            conn.dead = true;
            if !conn.silent && !conn.closed[at(side.other())] {
                self.wishes.push(NetEvent::Broken(id, side.other()));
            }
        }
    }

    /// Drops what is under way; both sides learn of it.
    pub fn cut(&mut self, id: ConnId) {
        let conn = &mut self.conns[id];
        if conn.dead {
            return;
        }
        conn.dead = true;
        for side in [Side::Dialler, Side::Accepter] {
            if !conn.closed[at(side)] {
                self.wishes.push(NetEvent::Broken(id, side));
            }
        }
    }

    /// Nothing arrives any more, and nobody learns of it.
    pub fn silence(&mut self, id: ConnId) {
        self.conns[id].silent = true;
    }

    pub fn is_silent(&self, id: ConnId) -> bool {
        self.conns[id].silent
    }

    pub fn is_over(&self, id: ConnId) -> bool {
        let conn = &self.conns[id];
        conn.dead || conn.closed == [true, true]
    }

    pub fn len(&self) -> usize {
        self.conns.len()
    }
}
