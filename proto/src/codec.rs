//! Length-prefixed frames: `u32` big-endian length N, then N bytes; N may be 0.
//!
//! [`Assembler`] cuts them from whatever a socket delivers. It copies nothing when a frame lies whole in what
//! was read, and never reserves more than has arrived asks for.

use crate::envelope::Numbers;
use crate::view::Body;
use crate::wire::{Field, bytes_field_len, put_bytes_header};

/// Bytes of the length in front of every frame.
pub const LENGTH_BYTES: usize = 4;

/// Why a stream of bytes holds no frame. The connection is of no use afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// A length above the maximum in force.
    TooLarge {
        /// What was announced, in bytes.
        announced: u32,
        /// What is allowed, in bytes.
        max: usize,
    },
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FrameError::TooLarge { announced, max } => {
                write!(f, "a frame of {announced} bytes, above the maximum of {max}")
            }
        }
    }
}

impl std::error::Error for FrameError {}

/// What a [`PassingAssembler`] finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A frame, without its length.
    Frame(&'a [u8]),
    /// The first [`HEAD_BYTES`] of a frame above the maximum, which is passed over.
    Head(&'a [u8]),
}

/// Bytes of a frame above the maximum that are looked at.
pub const HEAD_BYTES: usize = 256;

/// What stands at the start of some bytes.
enum Cut {
    /// A whole frame of this many bytes behind its length.
    Whole(usize),
    /// A frame that will be this long with its length, as far as is known yet.
    Part(usize),
}

fn cut(bytes: &[u8], max: usize) -> Result<Cut, FrameError> {
    let Some(prefix) = bytes.first_chunk::<LENGTH_BYTES>() else {
        return Ok(Cut::Part(LENGTH_BYTES));
    };
    let announced = u32::from_be_bytes(*prefix);
    let len = announced as usize;
    if len > max {
        return Err(FrameError::TooLarge { announced, max });
    }
    let total = len.saturating_add(LENGTH_BYTES);
    Ok(if bytes.len() >= total { Cut::Whole(len) } else { Cut::Part(total) })
}

/// Cuts frames from the bytes of one connection, whatever the sizes of the reads.
///
/// ```
/// use moorgate_proto::codec::Assembler;
/// let mut assembler = Assembler::default();
/// let mut read: &[u8] = &[0, 0, 0, 1, 42, 0, 0];
/// assert_eq!(assembler.next(&mut read, 100), Ok(Some(&[42][..])));
/// assert_eq!(assembler.next(&mut read, 100), Ok(None));
/// assert_eq!(assembler.held_bytes(), 2);
/// ```
#[derive(Debug, Default)]
pub struct Assembler {
    /// The beginning of a frame that has not arrived whole; or a whole one, which was handed out and is dropped at
    /// the next call.
    partial: Vec<u8>,
}

impl Assembler {
    /// The next frame (without its length), or `None` when `input` is used up; what is left of it is kept.
    /// `max` bounds the frame's length in bytes.
    ///
    /// # Errors
    /// [`FrameError`]: the stream cannot be read any further.
    pub fn next<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
        max: usize,
    ) -> Result<Option<&'a [u8]>, FrameError> {
        if self.is_handed_out() {
            self.clear();
        }
        if self.partial.is_empty() {
            return self.next_in_place(input, max);
        }
        loop {
            match cut(&self.partial, max)? {
                Cut::Whole(_) => return Ok(self.partial.get(LENGTH_BYTES..)),
                Cut::Part(total) => {
                    let missing = total.saturating_sub(self.partial.len());
                    let (head, rest) = input.split_at(missing.min(input.len()));
                    if head.is_empty() {
                        return Ok(None);
                    }
                    self.keep(head, total);
                    *input = rest;
                }
            }
        }
    }

    fn next_in_place<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
        max: usize,
    ) -> Result<Option<&'a [u8]>, FrameError> {
        if input.is_empty() {
            return Ok(None);
        }
        match cut(input, max)? {
            Cut::Whole(len) => {
                let (frame, rest) = input.split_at(LENGTH_BYTES.saturating_add(len));
                *input = rest;
                Ok(frame.get(LENGTH_BYTES..))
            }
            Cut::Part(total) => {
                self.keep(input, total);
                *input = &[];
                Ok(None)
            }
        }
    }

    /// Grows by what arrived, at most doubling, and never beyond the frame.
    fn keep(&mut self, bytes: &[u8], frame_total: usize) {
        let needed = self.partial.len().saturating_add(bytes.len());
        if needed > self.partial.capacity() {
            let wanted = self.partial.capacity().saturating_mul(2).max(needed).min(frame_total.max(needed));
            self.partial.reserve_exact(wanted.saturating_sub(self.partial.len()));
        }
        self.partial.extend_from_slice(bytes);
    }

    fn is_handed_out(&self) -> bool {
        matches!(cut(&self.partial, usize::MAX), Ok(Cut::Whole(_)))
    }

    /// Bytes of an unfinished frame held in memory; 0: between frames.
    pub fn held_bytes(&self) -> usize {
        if self.is_handed_out() { 0 } else { self.partial.len() }
    }

    /// Heap bytes in use.
    pub fn capacity_bytes(&self) -> usize {
        self.partial.capacity()
    }

    /// The first bytes of the unfinished frame, with its length.
    pub fn held(&self) -> &[u8] {
        if self.is_handed_out() { &[] } else { &self.partial }
    }

    /// Drops an unfinished frame and its memory.
    pub fn clear(&mut self) {
        self.partial = Vec::new();
    }
}

/// Cuts frames like an [`Assembler`], and passes over those above the maximum: of such a one the first bytes are returned, and
/// the rest is dropped as it comes.
#[derive(Debug, Default)]
pub struct PassingAssembler {
    frames: Assembler,
    /// Bytes to come of a frame that is passed over; above 0, its head was handed out.
    passed_over: usize,
}

impl PassingAssembler {
    /// The next frame, or the head of one above `max` bytes; `max` is at least [`HEAD_BYTES`].
    ///
    /// # Errors
    /// [`FrameError`], also for a frame above `ceiling` bytes: the stream cannot be read any further.
    pub fn next<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
        max: usize,
        ceiling: usize,
    ) -> Result<Option<Piece<'a>>, FrameError> {
        debug_assert!(max >= HEAD_BYTES, "what is passed over is longer than what is looked at");
        if self.passed_over > 0 {
            self.frames.clear();
            let (passed, rest) = input.split_at(self.passed_over.min(input.len()));
            self.passed_over = self.passed_over.saturating_sub(passed.len());
            *input = rest;
        }
        let announced = self.announced(input);
        let Some(announced) = announced.filter(|announced| *announced > max && *announced <= ceiling) else {
            return Ok(self.frames.next(input, max)?.map(Piece::Frame));
        };
        if self.frames.is_handed_out() {
            self.frames.clear();
        }
        let wanted = LENGTH_BYTES.saturating_add(HEAD_BYTES);
        let missing = wanted.saturating_sub(self.frames.partial.len());
        let (head, rest) = input.split_at(missing.min(input.len()));
        self.frames.keep(head, wanted);
        *input = rest;
        if self.frames.partial.len() < wanted {
            return Ok(None);
        }
        self.passed_over = announced.saturating_sub(HEAD_BYTES);
        Ok(self.frames.partial.get(LENGTH_BYTES..).map(Piece::Head))
    }

    /// The length of the frame that begins, or has begun, once it is there.
    fn announced(&self, input: &[u8]) -> Option<usize> {
        let held = self.frames.held();
        let prefix = if held.is_empty() {
            *input.first_chunk::<LENGTH_BYTES>()?
        } else {
            let mut bytes = held.iter().chain(input);
            let mut prefix = [0; LENGTH_BYTES];
            for byte in &mut prefix {
                *byte = *bytes.next()?;
            }
            prefix
        };
        Some(u32::from_be_bytes(prefix) as usize)
    }

    /// Bytes of an unfinished frame held in memory; 0: between frames, or one is passed over.
    pub fn held_bytes(&self) -> usize {
        if self.passed_over > 0 { 0 } else { self.frames.held_bytes() }
    }
}

/// Appends one frame to `out`: its length, the numbers that are not zero, and the member if there is one.
///
/// The length is computed first, so nothing is patched or moved afterwards. A body above the 32-bit length
/// cannot be written; callers bound it long before.
pub fn put_frame(out: &mut Vec<u8>, numbers: Numbers, member: u32, body: &impl Body) {
    let body_len = body.body_len();
    put_frame_header(out, numbers, member, body_len);
    body.put(out);
}

/// Appends the head of a frame whose member's `body_len` bytes must follow: a small header before bytes that
/// many receivers share.
pub fn put_frame_header(out: &mut Vec<u8>, numbers: Numbers, member: u32, body_len: usize) {
    let len = numbers_len(numbers) + bytes_field_len(member, body_len);
    out.reserve(len.saturating_add(LENGTH_BYTES));
    put_length(out, len);
    put_numbers(out, numbers);
    put_bytes_header(member, body_len, out);
}

/// Appends a frame without a member: a bare acknowledgement, of no bytes behind its length when both numbers are zero.
pub fn put_bare_frame(out: &mut Vec<u8>, numbers: Numbers) {
    put_length(out, numbers_len(numbers));
    put_numbers(out, numbers);
}

/// Bytes that [`put_frame`] appends for a body of `body_len` bytes, its length included.
pub fn frame_len(numbers: Numbers, member: u32, body_len: usize) -> usize {
    LENGTH_BYTES + numbers_len(numbers) + bytes_field_len(member, body_len)
}

fn numbers_len(numbers: Numbers) -> usize {
    numbers.seq.field_len(1) + numbers.ack.field_len(2)
}

fn put_numbers(out: &mut Vec<u8>, numbers: Numbers) {
    numbers.seq.put_field(1, out);
    numbers.ack.put_field(2, out);
}

fn put_length(out: &mut Vec<u8>, len: usize) {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{Envelope, member};
    use crate::v1;
    use proptest::prelude::*;
    use prost::Message;

    fn frames(reads: &[&[u8]], max: usize) -> Result<Vec<Vec<u8>>, FrameError> {
        let mut assembler = Assembler::default();
        let mut found = Vec::new();
        for read in reads {
            let mut input = *read;
            while let Some(frame) = assembler.next(&mut input, max)? {
                found.push(frame.to_vec());
            }
        }
        Ok(found)
    }

    // spec: F-2
    #[test]
    fn empty_frame_is_the_bare_acknowledgement() {
        for reads in [&[&[0, 0, 0, 0, 0, 0, 0, 0][..]][..], &[&[0], &[0, 0], &[0, 0], &[0, 0, 0]]] {
            assert_eq!(frames(reads, 10), Ok(vec![Vec::new(), Vec::new()]));
        }
        let mut out = Vec::new();
        put_bare_frame(&mut out, Numbers::NONE);
        assert_eq!(out, [0; LENGTH_BYTES]);
        assert_eq!(out[LENGTH_BYTES..], v1::ClientFrame::default().encode_to_vec());
        assert_eq!(Envelope::decode(&[]), Ok(Envelope { numbers: Numbers::NONE, member: None }));
    }

    // spec: F-5
    #[test]
    fn lengths_above_the_maximum_are_errors() {
        let error = FrameError::TooLarge { announced: 11, max: 10 };
        assert_eq!(frames(&[&[0, 0, 0, 11]], 10), Err(error));
        assert_eq!(frames(&[&[0, 0], &[0, 11]], 10), Err(error));
        assert!(frames(&[b"GET / HTTP/1.1"], 1 << 24).is_err());
    }

    #[test]
    fn memory_follows_what_arrived_not_what_was_announced() {
        let mut assembler = Assembler::default();
        let mut input: &[u8] = &[0, 255, 255, 255, 1, 2, 3];
        assert_eq!(assembler.next(&mut input, 1 << 24), Ok(None));
        assert!(assembler.capacity_bytes() < 64);
        assembler.clear();
        assert_eq!(assembler.capacity_bytes(), 0);
    }

    /// Each frame whole, and of those above the maximum the head.
    fn pieces(reads: &[&[u8]], max: usize, ceiling: usize) -> Result<Vec<(bool, Vec<u8>)>, FrameError> {
        let mut assembler = PassingAssembler::default();
        let mut found = Vec::new();
        for read in reads {
            let mut input = *read;
            while let Some(piece) = assembler.next(&mut input, max, ceiling)? {
                found.push(match piece {
                    Piece::Frame(frame) => (true, frame.to_vec()),
                    Piece::Head(head) => (false, head.to_vec()),
                });
            }
            assert!(input.is_empty());
            assert!(assembler.held_bytes() <= max.max(HEAD_BYTES) + LENGTH_BYTES, "the rest is not kept");
        }
        Ok(found)
    }

    #[test]
    fn a_frame_above_the_ceiling_ends_the_stream() {
        let error = FrameError::TooLarge { announced: 1001, max: 300 };
        assert_eq!(pieces(&[&[0, 0, 3], &[0xe9]], 300, 1000), Err(error));
    }

    // spec: F-1
    #[test]
    fn a_frame_is_what_prost_would_write() {
        let request = v1::Request { command: 1, payload: vec![9; 200].into(), ..Default::default() };
        let mut out = Vec::new();
        put_frame(&mut out, Numbers { seq: 300, ack: 7 }, member::client::REQUEST, &request);
        assert_eq!(
            out.len(),
            frame_len(Numbers { seq: 300, ack: 7 }, member::client::REQUEST, request.encoded_len())
        );
        let frame =
            v1::ClientFrame { up_seq: 300, ack: 7, member: Some(v1::client_frame::Member::Request(request)) };
        assert_eq!(out[LENGTH_BYTES..], frame.encode_to_vec());
    }

    /// A stream in pieces of these lengths, again and again.
    fn reads<'a>(mut stream: &'a [u8], lens: &[usize]) -> Vec<&'a [u8]> {
        let mut reads = Vec::new();
        for len in lens.iter().cycle() {
            if stream.is_empty() {
                break;
            }
            let (head, tail) = stream.split_at((*len).min(stream.len()));
            reads.push(head);
            stream = tail;
        }
        reads
    }

    proptest! {
        // spec: F-9
        #[test]
        fn any_split_gives_the_same_frames(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..12),
            cuts in proptest::collection::vec(1usize..20, 1..60),
        ) {
            let mut stream = Vec::new();
            for body in &bodies {
                put_length(&mut stream, body.len());
                stream.extend_from_slice(body);
            }
            let reads = reads(&stream, &cuts);
            prop_assert_eq!(frames(&reads, 64).unwrap(), bodies);
        }

        // spec: F-9
        #[test]
        fn any_split_passes_over_the_same_frames(
            lens in proptest::collection::vec(prop_oneof![0usize..40, 290..310usize, 800..1000usize], 1..12),
            cuts in proptest::collection::vec(1usize..300, 1..60),
        ) {
            let mut stream = Vec::new();
            let mut expected = Vec::new();
            for (at, len) in (0u8..).zip(&lens) {
                put_length(&mut stream, *len);
                let body = vec![at; *len];
                stream.extend_from_slice(&body);
                let is_whole = *len <= 300;
                expected.push((is_whole, if is_whole { body } else { vec![at; HEAD_BYTES] }));
            }
            let reads = reads(&stream, &cuts);
            prop_assert_eq!(pieces(&reads, 300, 1000).unwrap(), expected.clone());
            prop_assert_eq!(pieces(&[&stream], 300, 1000).unwrap(), expected);
        }
    }
}
