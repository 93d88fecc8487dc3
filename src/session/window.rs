//! What was sent and is not acknowledged, kept for a replay.
//!
//! A Response and a Gap are kept as the bytes that were written, one after the other in a ring, so that none needs an
//! allocation. A push is kept as what all its receivers share.
//!
//! ```text
//!   entries:  n+1  n+2  n+3  n+4        after a resume: rewind(), then replay() in order, as far as the output takes
//!             └ sent on this connection ┘ └ still to be sent on it
//! ```

use super::push_queue::{Lost, PushBudget};
use crate::relay::{Push, ReceiptTo};
use moorgate_proto::codec::put_frame;
use moorgate_proto::envelope::Numbers;
use moorgate_proto::envelope::member::gateway::{GAP, PUSH};
use moorgate_proto::v1::{self, Reason};
use moorgate_proto::view::Encoded;
use std::collections::VecDeque;
use std::sync::Arc;

/// What a numbered frame is. Beside its length in one number: frames are bounded far below 2^30 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Response = 0,
    Gap = 1,
    Push = 2,
}

const KIND_SHIFT: u32 = 30;
const LENGTH_MASK: u32 = (1 << KIND_SHIFT) - 1;

/// A push that was sent.
#[derive(Debug)]
enum Kept {
    Whole(Arc<Push>),
    /// It was let go; a replay will have a Gap in its place.
    Gone(Option<Arc<ReceiptTo>>),
    /// A replay had a Gap in its place: whatever the client acknowledges, it has not got it.
    Missed,
}

impl Kept {
    /// What it takes of the pushes' budget.
    fn used(&self) -> PushBudget {
        match self {
            Kept::Whole(push) => PushBudget { count: 1, bytes: push.body.len() },
            Kept::Gone(_) | Kept::Missed => PushBudget::default(),
        }
    }

    fn receipt(self) -> Option<Arc<ReceiptTo>> {
        match self {
            Kept::Whole(push) => push.receipt.clone(),
            Kept::Gone(receipt) => receipt,
            Kept::Missed => None,
        }
    }
}

/// How much of a window: entries, bytes of frames, pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sent {
    entries: usize,
    bytes: usize,
    pushes: usize,
}

/// The frames that one client has not acknowledged, in the order of their numbers.
#[derive(Debug, Default)]
pub(super) struct Window {
    entries: VecDeque<u32>,
    frames: VecDeque<u8>,
    pushes: VecDeque<Kept>,
    /// Pushes that are kept whole.
    whole: PushBudget,
    /// Of `entries`, those that are Responses.
    responses: usize,
    /// What was sent on the connection that the session has.
    sent: Sent,
}

impl Window {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Responses among them.
    pub(super) fn responses(&self) -> usize {
        self.responses
    }

    /// Pushes that are kept whole.
    pub(super) fn used(&self) -> PushBudget {
        self.whole
    }

    /// Bytes of its own; what pushes share is not counted.
    pub(super) fn bytes(&self) -> usize {
        self.frames.len()
    }

    pub(super) fn fit(&mut self) {
        self.entries.shrink_to_fit();
        self.frames.shrink_to_fit();
        self.pushes.shrink_to_fit();
    }

    /// Whether something is still to be sent again on this connection.
    pub(super) fn is_replaying(&self) -> bool {
        self.sent.entries < self.entries.len()
    }

    /// There is a new connection, on which nothing was sent.
    pub(super) fn rewind(&mut self) {
        self.sent = Sent::default();
    }

    /// Sends the next frame again; `acked` is the number before the first that is kept, `admitted` what a frame that is
    /// made anew acknowledges. Pushes that were let go, as many as stand together, are one Gap with their range, and
    /// `lost`.
    pub(super) fn replay(&mut self, out: &mut Vec<u8>, (acked, admitted): (u64, u64), lost: &mut Lost) {
        let Some(entry) = self.entries.get(self.sent.entries).copied() else { return };
        let seq = acked.saturating_add(self.sent.entries as u64).saturating_add(1);
        let mut entries = 1usize;
        if entry >> KIND_SHIFT != Kind::Push as u32 {
            let len = (entry & LENGTH_MASK) as usize;
            let end = self.sent.bytes.saturating_add(len).min(self.frames.len());
            out.extend(self.frames.range(self.sent.bytes.min(end)..end));
            self.sent.bytes = end;
        } else if let Some(Kept::Whole(push)) = self.pushes.get(self.sent.pushes) {
            put_frame(out, Numbers { seq, ack: admitted }, PUSH, &Encoded(&push.body));
            self.sent.pushes = self.sent.pushes.saturating_add(1);
        } else {
            let kinds = self.entries.iter().skip(self.sent.entries).map(|entry| entry >> KIND_SHIFT);
            let pushes = self.pushes.iter().skip(self.sent.pushes);
            let gone = kinds.zip(pushes);
            let is_gone =
                |(kind, push): &(u32, &Kept)| *kind == Kind::Push as u32 && !matches!(push, Kept::Whole(_));
            entries = gone.take_while(is_gone).count().max(1);
            let last = seq.saturating_add(entries as u64).saturating_sub(1);
            let reason = Reason::PushOverflow.into();
            let gap = v1::Gap { first: seq, last, reason, ..v1::Gap::default() };
            put_frame(out, Numbers { seq: last, ack: admitted }, GAP, &gap);
            for kept in self.pushes.iter_mut().skip(self.sent.pushes).take(entries) {
                if let Kept::Gone(receipt) = std::mem::replace(kept, Kept::Missed) {
                    lost.note_sent(receipt);
                }
            }
            self.sent.pushes = self.sent.pushes.saturating_add(entries);
        }
        self.sent.entries = self.sent.entries.saturating_add(entries);
    }

    /// Keeps a frame as it was written.
    pub(super) fn keep(&mut self, kind: Kind, frame: &[u8]) {
        debug_assert_ne!(kind, Kind::Push, "a push is shared");
        self.note(kind, frame.len());
        self.frames.extend(frame);
        self.sent.bytes = self.frames.len();
        self.responses = self.responses.saturating_add(usize::from(kind == Kind::Response));
    }

    /// Keeps a push, whole if the budget is not empty, and of those beyond the budget the newest; of the others only who
    /// wants to know of it.
    pub(super) fn keep_push(&mut self, push: &Arc<Push>, budget: PushBudget) {
        self.note(Kind::Push, 0);
        let is_whole = budget.count > 0;
        let sent = if is_whole { Kept::Whole(push.clone()) } else { Kept::Gone(push.receipt.clone()) };
        let used = sent.used();
        self.whole.count = self.whole.count.saturating_add(used.count);
        self.whole.bytes = self.whole.bytes.saturating_add(used.bytes);
        self.pushes.push_back(sent);
        self.sent.pushes = self.pushes.len();
        let mut oldest = self.pushes.iter_mut();
        while is_whole && (self.whole.count > budget.count || self.whole.bytes > budget.bytes) {
            let Some(sent) = oldest.next() else { break };
            self.whole = self.whole.without(sent.used());
            if let Kept::Whole(push) = sent {
                *sent = Kept::Gone(push.receipt.clone());
            }
        }
    }

    /// Replaces each Response by what `shorten` makes of its frame; `None`: it stays as it is.
    pub(super) fn shorten(&mut self, mut shorten: impl FnMut(&[u8]) -> Option<Vec<u8>>) {
        let whole = Vec::from(std::mem::take(&mut self.frames));
        let mut rest = whole.as_slice();
        self.sent.bytes = 0;
        for (at, entry) in self.entries.iter_mut().enumerate() {
            let kind = *entry >> KIND_SHIFT;
            if kind == Kind::Push as u32 {
                continue;
            }
            let (frame, behind) =
                rest.split_at_checked((*entry & LENGTH_MASK) as usize).unwrap_or((rest, &[]));
            rest = behind;
            let shorter = if kind == Kind::Response as u32 { shorten(frame) } else { None };
            let frame = shorter.as_deref().unwrap_or(frame);
            self.frames.extend(frame);
            *entry = u32::try_from(frame.len()).unwrap_or(LENGTH_MASK).min(LENGTH_MASK) | kind << KIND_SHIFT;
            if at < self.sent.entries {
                self.sent.bytes = self.frames.len();
            }
        }
    }

    fn note(&mut self, kind: Kind, len: usize) {
        debug_assert!(!self.is_replaying(), "what is new comes after what is sent again");
        let len = u32::try_from(len).unwrap_or(LENGTH_MASK).min(LENGTH_MASK);
        self.entries.push_back(len | (kind as u32) << KIND_SHIFT);
        self.sent.entries = self.entries.len();
    }

    /// The oldest is acknowledged, or lost with its session; who wants to know of it.
    pub(super) fn pop(&mut self) -> Option<Arc<ReceiptTo>> {
        let entry = self.entries.pop_front()?;
        self.sent.entries = self.sent.entries.saturating_sub(1);
        if entry >> KIND_SHIFT == Kind::Push as u32 {
            let sent = self.pushes.pop_front()?;
            self.sent.pushes = self.sent.pushes.saturating_sub(1);
            self.whole = self.whole.without(sent.used());
            return sent.receipt();
        }
        let len = (entry & LENGTH_MASK) as usize;
        self.frames.drain(..self.frames.len().min(len));
        self.sent.bytes = self.sent.bytes.saturating_sub(len);
        let is_response = entry >> KIND_SHIFT == Kind::Response as u32;
        self.responses = self.responses.saturating_sub(usize::from(is_response));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::test_push::push;
    use moorgate_proto::codec::Assembler;
    use moorgate_proto::envelope::Envelope;
    use moorgate_proto::envelope::member::gateway::RESPONSE;
    use prost::Message;

    const ALL: PushBudget = PushBudget { count: usize::MAX, bytes: usize::MAX };
    const NONE: PushBudget = PushBudget { count: 0, bytes: 0 };

    #[test]
    fn frames_go_in_their_order_and_responses_are_counted() {
        let mut window = Window::default();
        window.keep(Kind::Response, b"response");
        window.keep_push(&push(b"push"), ALL);
        window.keep(Kind::Gap, b"gap");
        assert_eq!((window.len(), window.responses(), window.bytes()), (3, 1, 11));
        window.pop();
        assert_eq!((window.len(), window.responses(), window.bytes()), (2, 0, 3));
        window.pop();
        window.pop();
        assert!(window.is_empty() && window.frames.is_empty() && window.pushes.is_empty());
        assert_eq!((window.whole, window.pop()), (PushBudget::default(), None));
    }

    /// Kind and number of each frame, and of a gap its first.
    fn replayed(window: &mut Window, acked: u64) -> Vec<(u32, u64, u64)> {
        let (mut out, mut found) = (Vec::new(), Vec::new());
        while window.is_replaying() {
            window.replay(&mut out, (acked, 5), &mut Lost::default());
        }
        let (mut bytes, mut assembler) = (out.as_slice(), Assembler::default());
        while let Some(frame) = assembler.next(&mut bytes, 1 << 24).unwrap() {
            let envelope = Envelope::decode(frame).unwrap();
            let (member, body) = envelope.member.unwrap();
            let first = if member == GAP { v1::Gap::decode(body).unwrap().first } else { 0 };
            found.push((member, envelope.numbers.seq, first));
        }
        found
    }

    // spec: R-14, D-11
    #[test]
    fn a_replay_has_every_number_and_what_was_let_go_is_one_gap() {
        let mut window = Window::default();
        let response = |seq| {
            let mut frame = Vec::new();
            put_frame(&mut frame, Numbers { seq, ack: 0 }, RESPONSE, &v1::Response::default());
            frame
        };
        window.keep(Kind::Response, &response(1));
        window.keep_push(&push(b"\x08\x01"), ALL);
        window.keep_push(&push(b"\x08\x02"), NONE);
        window.keep_push(&push(b"\x08\x03"), NONE);
        window.keep(Kind::Response, &response(5));
        window.keep_push(&push(b"\x08\x04"), NONE);
        let all = [(RESPONSE, 1, 0), (PUSH, 2, 0), (GAP, 4, 3), (RESPONSE, 5, 0), (GAP, 6, 6)];
        assert!(!window.is_replaying());
        window.rewind();
        assert_eq!(replayed(&mut window, 0), all);
        window.rewind();
        let mut out = Vec::new();
        window.replay(&mut out, (0, 5), &mut Lost::default());
        window.pop();
        assert_eq!(replayed(&mut window, 1), all[1..], "an acknowledgement moves nothing");
        window.rewind();
        window.pop();
        window.pop();
        assert_eq!(
            replayed(&mut window, 3),
            [(GAP, 4, 4), (RESPONSE, 5, 0), (GAP, 6, 6)],
            "what is left of a gap"
        );
        window.keep(Kind::Response, &response(7));
        assert!(!window.is_replaying());
    }

    #[test]
    fn what_a_replay_had_a_gap_for_is_lost_once_and_never_acknowledged() {
        let mut window = Window::default();
        window.keep_push(&push(b"\x08\x01"), NONE);
        window.keep_push(&push(b"\x08\x02"), NONE);
        assert!(window.pop().is_some(), "it was sent, and the client has it");
        for (overflowed, receipts) in [(1, 1), (0, 0)] {
            let mut lost = Lost::default();
            window.rewind();
            window.replay(&mut Vec::new(), (1, 0), &mut lost);
            assert_eq!((lost.overflowed, lost.receipts.len()), (overflowed, receipts));
        }
        assert!(window.pop().is_none() && window.is_empty());
    }

    #[test]
    fn a_session_keeps_only_so_much_alive_and_forgets_no_receipt() {
        for budget in [PushBudget { bytes: 1000, ..ALL }, PushBudget { count: 4, ..ALL }] {
            let mut window = Window::default();
            let pushes: Vec<_> = (0..8).map(|_| push(&[0; 250])).collect();
            pushes.iter().for_each(|push| window.keep_push(push, budget));
            let alive: Vec<bool> = pushes.iter().map(|push| Arc::strong_count(push) > 1).collect();
            assert_eq!(alive, [false, false, false, false, true, true, true, true], "the newest stay");
            assert_eq!(window.used(), PushBudget { count: 4, bytes: 1000 });
            for _ in &pushes {
                assert!(window.pop().is_some());
            }
            assert_eq!(window.used(), PushBudget::default());
        }
    }
}
