//! One direction of a connection through the fault-injection proxy: bytes that were read and are not forwarded yet, in
//! pieces that are due at random times.

use crate::dice::Dice;
use moorgate_proto::time::Mono;
use std::collections::VecDeque;
use std::time::Duration;

/// Bytes that one direction holds at most.
const HELD_MAX: usize = 64 * 1024;
/// Pieces that it holds at most.
const PIECES_MAX: usize = 4 * 1024;

/// How bytes are split and delayed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shaping {
    /// The longest delay of a piece.
    pub(crate) delay: Duration,
    /// The longest piece; 0: bytes are not split.
    pub(crate) split: usize,
}

/// Bounded in bytes and in pieces.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    pieces: VecDeque<(Mono, Vec<u8>)>,
    held: usize,
    /// When the last piece is due: none overtakes another.
    last: Mono,
}

impl Pipe {
    /// Bytes that may be pushed.
    pub(crate) fn room(&self, shaping: Shaping) -> usize {
        let pieces = PIECES_MAX.saturating_sub(self.pieces.len());
        let room = HELD_MAX.saturating_sub(self.held);
        // Pieces may be as short as one byte.
        if shaping.split == 0 && pieces > 0 { room } else { room.min(pieces) }
    }

    /// Takes what was read: no more than there is room for.
    pub(crate) fn push(&mut self, now: Mono, mut bytes: &[u8], shaping: Shaping, dice: &mut Dice) {
        while !bytes.is_empty() {
            let len = match shaping.split {
                0 => bytes.len(),
                longest => dice.index(longest).saturating_add(1).min(bytes.len()),
            };
            let (piece, rest) = bytes.split_at(len);
            bytes = rest;
            self.last = self.last.max(now + dice.within(shaping.delay));
            self.pieces.push_back((self.last, piece.to_vec()));
            self.held = self.held.saturating_add(len);
        }
    }

    /// The piece that is due now.
    pub(crate) fn due(&self, now: Mono) -> Option<&[u8]> {
        self.pieces.front().filter(|(at, _)| *at <= now).map(|(_, piece)| piece.as_slice())
    }

    /// When the next piece is due.
    pub(crate) fn next_due(&self) -> Mono {
        self.pieces.front().map_or(Mono::NEVER, |(at, _)| *at)
    }

    /// So many bytes of the first piece are forwarded.
    pub(crate) fn sent(&mut self, count: usize) {
        self.held = self.held.saturating_sub(count);
        if let Some((_, piece)) = self.pieces.front_mut() {
            piece.drain(..count.min(piece.len()));
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
    }

    /// Whether everything is forwarded.
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that comes out, and the longest piece.
    fn drained(pipe: &mut Pipe, dice: &mut Dice) -> (Vec<u8>, usize) {
        let (mut out, mut longest, mut now) = (Vec::new(), 0, Mono::ZERO);
        while !pipe.is_empty() {
            assert!(pipe.next_due() >= now, "none is overtaken");
            now = pipe.next_due();
            let piece = pipe.due(now).unwrap();
            longest = longest.max(piece.len());
            let count = dice.index(piece.len()) + 1;
            out.extend_from_slice(&piece[..count]);
            pipe.sent(count);
        }
        (out, longest)
    }

    #[test]
    fn bytes_come_out_as_they_went_in_however_they_are_split_and_delayed() {
        for (split, delay) in [(0, 0), (1, 0), (7, 5), (0, 5), (5000, 1)] {
            let shaping = Shaping { delay: Duration::from_millis(delay), split };
            let (mut pipe, mut dice) = (Pipe::default(), Dice::new(3, split as u64));
            let bytes: Vec<u8> = (0..3000u32).map(|at| at.to_le_bytes()[0]).collect();
            assert!(pipe.room(shaping) >= bytes.len());
            pipe.push(Mono::ZERO, &bytes, shaping, &mut dice);
            let (out, longest) = drained(&mut pipe, &mut dice);
            assert!(out == bytes && (split == 0 || longest <= split), "{shaping:?}: {longest}");
        }
    }

    #[test]
    fn bytes_and_pieces_are_bounded() {
        for split in [0, 1, 100] {
            let shaping = Shaping { delay: Duration::ZERO, split };
            let (mut pipe, mut dice) = (Pipe::default(), Dice::new(1, 1));
            for _ in 0..10_000 {
                let len = pipe.room(shaping).min(100);
                pipe.push(Mono::ZERO, &vec![0; len], shaping, &mut dice);
            }
            assert!(pipe.held <= HELD_MAX && pipe.pieces.len() <= PIECES_MAX);
            assert_eq!(pipe.room(shaping), 0);
        }
    }
}
