//! The downward stream: what the client gets, numbered as it enters the connection's output, and kept until the
//! client has acknowledged it.
//!
//! ```text
//!   answer ─► waiting (no number; the output is full) ─┐
//!      └────────────────────────────────────────────────┴─► output, as down_seq n ─► window ─► acknowledged: gone
//! ```
//!
//! A Response is never dropped: its slot was reserved when its request was admitted. Over the byte bound only the
//! kept copy's payload goes, or that of a Response that waits, and it says so.

use super::Fault;
use moorgate_proto::codec::put_frame;
use moorgate_proto::envelope::{Numbers, member::gateway::RESPONSE};
use moorgate_proto::view::{Body, ResponseView};
use std::collections::VecDeque;

/// Bytes of sent frames kept for one session; of those beyond it the payloads are not kept.
const KEPT_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of Responses that wait for room in the output: the default limits' requests in flight, each with the largest
/// payload. Beyond it payloads go.
const WAITING_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Whether a Response may be held with its payload, as far as all sessions together go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// It may.
    Whole,
    /// All sessions hold too much already.
    Bare,
}

/// What became of a Response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Responded {
    /// Numbered and written.
    Written,
    /// It waits for room in the output.
    Waiting,
    /// The same, without its payload: too much waits.
    WaitingBare,
}

#[derive(Debug, Default)]
struct Queues {
    /// Encoded Responses without a number, in the order of their answers.
    waiting: VecDeque<Box<[u8]>>,
    waiting_bytes: usize,
    /// Lengths of the frames that are numbered and unacknowledged; the first has the number `acked + 1`.
    window: VecDeque<u32>,
    /// Those frames as they were written, one after the other: a ring, so that none needs an allocation.
    frames: VecDeque<u8>,
}

impl Queues {
    fn bytes(&self) -> usize {
        self.waiting_bytes.saturating_add(self.frames.len())
    }

    /// Keeps a frame that was written, within the bound.
    fn keep(&mut self, numbers: Numbers, frame: &[u8], response: &ResponseView<'_>, room: Room) {
        let mut bare = Vec::new();
        let over = self.frames.len().saturating_add(frame.len()) > KEPT_BYTES_MAX;
        let kept = if over || room == Room::Bare {
            put_frame(&mut bare, numbers, RESPONSE, &without_payload(response));
            &bare
        } else {
            frame
        };
        self.window.push_back(u32::try_from(kept.len()).unwrap_or(u32::MAX));
        self.frames.extend(kept);
    }
}

/// The numbers of what one session's client gets.
#[derive(Debug, Default)]
pub struct Down {
    sent: u64,
    acked: u64,
    /// Made on use: an idle session has none.
    queues: Option<Box<Queues>>,
}

/// An encoded message, passed on as it is.
struct Encoded<'a>(&'a [u8]);

impl Body for Encoded<'_> {
    fn body_len(&self) -> usize {
        self.0.len()
    }
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0);
    }
}

impl Down {
    /// The highest number given.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Responses that the client has not acknowledged, sent or not.
    pub fn responses(&self) -> usize {
        self.queues.as_ref().map_or(0, |queues| queues.waiting.len().saturating_add(queues.window.len()))
    }

    /// Whether Responses wait for room in the output.
    pub fn is_waiting(&self) -> bool {
        self.queues.as_ref().is_some_and(|queues| !queues.waiting.is_empty())
    }

    /// Bytes kept.
    pub fn kept_bytes(&self) -> usize {
        self.queues.as_ref().map_or(0, |queues| queues.bytes())
    }

    /// Applies a cumulative acknowledgement; lower ones change nothing.
    ///
    /// # Errors
    /// [`Fault::AckBeyondSent`] for a number that was never given.
    pub fn acknowledge(&mut self, ack: u64) -> Result<(), Fault> {
        if ack > self.sent {
            return Err(Fault::AckBeyondSent { sent: self.sent, got: ack });
        }
        if let Some(queues) = &mut self.queues {
            while self.acked < ack {
                self.acked = self.acked.saturating_add(1);
                if let Some(len) = queues.window.pop_front() {
                    queues.frames.drain(..queues.frames.len().min(len as usize));
                }
            }
        }
        Ok(())
    }

    /// Takes a Response. With `out` it is numbered, written and kept; without (the output is full) it waits.
    pub fn respond(
        &mut self,
        response: &ResponseView<'_>,
        admitted: u64,
        out: Option<&mut Vec<u8>>,
        room: Room,
    ) -> Responded {
        let queues = self.queues.get_or_insert_default();
        if let Some(out) = out
            && queues.waiting.is_empty()
        {
            self.sent = self.sent.saturating_add(1);
            let numbers = Numbers { seq: self.sent, ack: admitted };
            let start = out.len();
            put_frame(out, numbers, RESPONSE, response);
            queues.keep(numbers, out.get(start..).unwrap_or_default(), response, room);
            return Responded::Written;
        }
        let over = queues.waiting_bytes.saturating_add(response.payload.len()) > WAITING_BYTES_MAX;
        let full = over || room == Room::Bare;
        let waits = if full { without_payload(response) } else { *response };
        let mut body = Vec::with_capacity(waits.body_len());
        waits.put(&mut body);
        queues.waiting_bytes = queues.waiting_bytes.saturating_add(body.len());
        queues.waiting.push_back(body.into_boxed_slice());
        let dropped = full && !response.payload.is_empty();
        if dropped { Responded::WaitingBare } else { Responded::Waiting }
    }

    /// Numbers and writes what waits, until `out` holds `high` bytes; how many frames were written.
    pub fn pump(&mut self, admitted: u64, out: &mut Vec<u8>, high: usize) -> usize {
        let Some(queues) = &mut self.queues else { return 0 };
        let mut written = 0usize;
        while out.len() < high {
            let Some(body) = queues.waiting.pop_front() else {
                break;
            };
            self.sent = self.sent.saturating_add(1);
            let numbers = Numbers { seq: self.sent, ack: admitted };
            let start = out.len();
            put_frame(out, numbers, RESPONSE, &Encoded(&body));
            queues.waiting_bytes = queues.waiting_bytes.saturating_sub(body.len());
            // It was encoded here: it can be read.
            let response = ResponseView::decode(&body).unwrap_or_default();
            // Its bytes are held already: kept or waiting, they are the same.
            queues.keep(numbers, out.get(start..).unwrap_or_default(), &response, Room::Whole);
            written = written.saturating_add(1);
        }
        written
    }

    /// Gives back the memory of empty queues.
    pub fn shrink(&mut self) {
        if self.queues.as_ref().is_some_and(|queues| queues.waiting.is_empty() && queues.window.is_empty()) {
            self.queues = None;
        }
    }

    /// Whether it holds no memory but its own.
    #[cfg(test)]
    pub(super) fn is_bare(&self) -> bool {
        self.queues.is_none()
    }
}

fn without_payload<'a>(response: &ResponseView<'a>) -> ResponseView<'a> {
    ResponseView { payload: &[], payload_dropped: !response.payload.is_empty(), ..*response }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moorgate_proto::codec::Assembler;
    use moorgate_proto::envelope::Envelope;

    fn response(up_seq: u64, payload: &[u8]) -> ResponseView<'_> {
        ResponseView { up_seq, payload, ..Default::default() }
    }

    fn frames(mut bytes: &[u8]) -> Vec<(u64, u64)> {
        let mut assembler = Assembler::default();
        let mut found = Vec::new();
        while let Some(frame) = assembler.next(&mut bytes, 1 << 24).unwrap() {
            let envelope = Envelope::decode(frame).unwrap();
            let up_seq = ResponseView::decode(envelope.member.unwrap().1).unwrap().up_seq;
            found.push((envelope.numbers.seq, up_seq));
        }
        found
    }

    // spec: D-1, D-4, W-5, W-6
    #[test]
    fn numbers_are_given_at_the_output_and_kept_until_acknowledged() {
        let mut down = Down::default();
        let mut out = Vec::new();
        assert_eq!(down.respond(&response(7, b"a"), 7, Some(&mut out), Room::Whole), Responded::Written);
        assert_eq!(
            down.respond(&response(8, b"b"), 8, None, Room::Whole),
            Responded::Waiting,
            "the output is full"
        );
        let became = down.respond(&response(9, b"c"), 9, Some(&mut out), Room::Whole);
        assert_eq!(became, Responded::Waiting, "it must not overtake");
        assert_eq!((down.sent(), down.responses()), (1, 3));
        assert_eq!(down.acknowledge(2), Err(Fault::AckBeyondSent { sent: 1, got: 2 }));
        assert_eq!(down.pump(9, &mut out, usize::MAX), 2);
        assert_eq!(frames(&out), [(1, 7), (2, 8), (3, 9)]);
        assert_eq!(down.acknowledge(2), Ok(()));
        assert_eq!(down.acknowledge(1), Ok(()), "lower ones change nothing");
        assert_eq!(down.responses(), 1);
        assert_eq!(down.acknowledge(3), Ok(()));
        assert_eq!((down.responses(), down.kept_bytes()), (0, 0));
        down.shrink();
        assert!(down.queues.is_none());
    }

    #[test]
    fn pump_stops_at_the_bound() {
        let mut down = Down::default();
        let mut out = Vec::new();
        for up_seq in 1..=3 {
            down.respond(&response(up_seq, &[0; 100]), up_seq, None, Room::Whole);
        }
        assert_eq!(down.pump(3, &mut out, 150), 2);
        assert!(down.is_waiting());
    }

    // spec: D-4, D-6
    #[test]
    fn over_the_byte_bound_only_payloads_go() {
        let mut down = Down::default();
        let payload = vec![1; KEPT_BYTES_MAX / 2];
        let mut out = Vec::new();
        for up_seq in 1..=4 {
            assert_eq!(
                down.respond(&response(up_seq, &payload), up_seq, Some(&mut out), Room::Whole),
                Responded::Written
            );
        }
        assert_eq!(frames(&out).len(), 4, "this connection gets them whole");
        assert!(down.kept_bytes() <= KEPT_BYTES_MAX);
        assert_eq!(down.responses(), 4);
        for up_seq in 5..=12 {
            let became = down.respond(&response(up_seq, &payload), up_seq, None, Room::Whole);
            let fits = up_seq <= 11;
            assert_eq!(became, if fits { Responded::Waiting } else { Responded::WaitingBare }, "{up_seq}");
        }
        let last = down.queues.as_ref().unwrap().waiting.back().unwrap();
        assert!(ResponseView::decode(last).unwrap().payload_dropped);
        out.clear();
        assert_eq!(down.pump(12, &mut out, usize::MAX), 8);
        assert!(down.kept_bytes() <= KEPT_BYTES_MAX, "what is pumped is kept within the bound too");
    }
}
