//! What was sent and is not acknowledged, kept for a replay.
//!
//! A Response and a Gap are kept as the bytes that were written, one after the other in a ring, so that none needs an
//! allocation. A push is kept as what all its receivers share.

use crate::relay::{Push, ReceiptTo};
use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes of pushes that one session may keep alive; of those beyond it the oldest are let go.
const PUSH_BYTES_MAX: usize = 256 * 1024;

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
enum Sent {
    Whole(Arc<Push>),
    /// It was let go; a replay has a Gap in its place.
    Gone(Option<Arc<ReceiptTo>>),
}

impl Sent {
    fn bytes(&self) -> usize {
        match self {
            Sent::Whole(push) => push.body.len(),
            Sent::Gone(_) => 0,
        }
    }

    fn receipt(self) -> Option<Arc<ReceiptTo>> {
        match self {
            Sent::Whole(push) => push.receipt.clone(),
            Sent::Gone(receipt) => receipt,
        }
    }
}

/// The frames that one client has not acknowledged, in the order of their numbers.
#[derive(Debug, Default)]
pub(super) struct Window {
    entries: VecDeque<u32>,
    frames: VecDeque<u8>,
    pushes: VecDeque<Sent>,
    push_bytes: usize,
    /// Of `entries`, those that are Responses.
    responses: usize,
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

    /// Bytes of its own; what pushes share is not counted.
    pub(super) fn bytes(&self) -> usize {
        self.frames.len()
    }

    /// Keeps a frame as it was written.
    pub(super) fn keep(&mut self, kind: Kind, frame: &[u8]) {
        debug_assert_ne!(kind, Kind::Push, "a push is shared");
        self.note(kind, frame.len());
        self.frames.extend(frame);
        self.responses = self.responses.saturating_add(usize::from(kind == Kind::Response));
    }

    /// Keeps a push, `whole` or only who wants to know of it.
    pub(super) fn keep_push(&mut self, push: &Arc<Push>, whole: bool) {
        self.note(Kind::Push, 0);
        let sent = if whole { Sent::Whole(push.clone()) } else { Sent::Gone(push.receipt.clone()) };
        self.push_bytes = self.push_bytes.saturating_add(sent.bytes());
        self.pushes.push_back(sent);
        let mut oldest = self.pushes.iter_mut();
        while self.push_bytes > PUSH_BYTES_MAX {
            let Some(sent) = oldest.next() else { break };
            self.push_bytes = self.push_bytes.saturating_sub(sent.bytes());
            if let Sent::Whole(push) = sent {
                *sent = Sent::Gone(push.receipt.clone());
            }
        }
    }

    fn note(&mut self, kind: Kind, len: usize) {
        let len = u32::try_from(len).unwrap_or(LENGTH_MASK).min(LENGTH_MASK);
        self.entries.push_back(len | (kind as u32) << KIND_SHIFT);
    }

    /// The oldest is acknowledged, or lost with its session; who wants to know of it.
    pub(super) fn pop(&mut self) -> Option<Arc<ReceiptTo>> {
        let entry = self.entries.pop_front()?;
        if entry >> KIND_SHIFT == Kind::Push as u32 {
            let sent = self.pushes.pop_front()?;
            self.push_bytes = self.push_bytes.saturating_sub(sent.bytes());
            return sent.receipt();
        }
        let len = (entry & LENGTH_MASK) as usize;
        self.frames.drain(..self.frames.len().min(len));
        let is_response = entry >> KIND_SHIFT == Kind::Response as u32;
        self.responses = self.responses.saturating_sub(usize::from(is_response));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::test_push::push;

    #[test]
    fn frames_go_in_their_order_and_responses_are_counted() {
        let mut window = Window::default();
        window.keep(Kind::Response, b"response");
        window.keep_push(&push(b"push"), true);
        window.keep(Kind::Gap, b"gap");
        assert_eq!((window.len(), window.responses(), window.bytes()), (3, 1, 11));
        window.pop();
        assert_eq!((window.len(), window.responses(), window.bytes()), (2, 0, 3));
        window.pop();
        window.pop();
        assert!(window.is_empty() && window.frames.is_empty() && window.pushes.is_empty());
        assert_eq!((window.push_bytes, window.pop()), (0, None));
    }

    #[test]
    fn a_session_keeps_only_so_much_alive_and_forgets_no_receipt() {
        let mut window = Window::default();
        let pushes: Vec<_> = (0..8).map(|_| push(&vec![0; PUSH_BYTES_MAX / 4])).collect();
        pushes.iter().for_each(|push| window.keep_push(push, true));
        let alive = pushes.iter().filter(|push| Arc::strong_count(push) > 1).count();
        assert!((2..=4).contains(&alive), "{alive}");
        assert!(window.push_bytes <= PUSH_BYTES_MAX);
        assert!(Arc::strong_count(&pushes[7]) > 1, "the newest stays");
        for _ in &pushes {
            assert!(window.pop().is_some());
        }
        assert_eq!(window.push_bytes, 0);
    }
}
