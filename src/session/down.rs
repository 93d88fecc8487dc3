//! The downward stream: what the client gets, numbered as it enters the connection's output, and kept until the
//! client has acknowledged it.
//!
//! ```text
//!   answer ─► waiting (no number; the output or the window is full) ─┐
//!      └──────────────────────────────────────────────────────────────┼─► output, as down_seq n ─► window ─► acknowledged: gone
//!   push ───► push queue (no number; likewise, or another is before) ─┘
//! ```
//!
//! A Response is never dropped: its slot was reserved when its request was admitted. Over the byte bound only the
//! kept copy's payload goes, or that of a Response that waits, and it says so. A Response may overtake pushes; pushes
//! keep their order among themselves, and what is given up of them is a Gap in its place.

use super::Fault;
use super::push_queue::{Lost, Next, PushBudget, PushQueue};
use super::window::{Kind, Window};
use crate::relay::{Push, ReceiptTo};
use moorgate_proto::codec::{LENGTH_BYTES, put_frame};
use moorgate_proto::envelope::member::gateway::{GAP, PUSH, RESPONSE};
use moorgate_proto::envelope::{Envelope, Numbers};
use moorgate_proto::time::Mono;
use moorgate_proto::v1;
use moorgate_proto::view::{Body, Encoded, ResponseView};
use std::collections::VecDeque;
use std::sync::Arc;

/// What a frame needs beside its body: length, numbers, and the member's tag and length.
const FRAME_HEAD_BYTES: usize = 64;

/// Whether a frame may be held with its payload, as far as all sessions together go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// It may.
    Whole,
    /// All sessions hold too much already.
    Bare,
}

/// What one session keeps for its client: what waits for its number, and what has one and is not acknowledged, together.
/// The same whether its client reads, does not read, or is not connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Pushes.
    pub pushes_max: usize,
    /// Bytes of them, as if each were its own.
    pub push_bytes_max: usize,
    /// Bytes of Responses; beyond it they are kept without their payloads.
    pub response_bytes_max: usize,
}

impl Bounds {
    fn pushes(&self) -> PushBudget {
        PushBudget { count: self.pushes_max, bytes: self.push_bytes_max }
    }
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

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// Numbered and written.
    Written,
    /// It waits for its turn.
    Waiting,
    /// It was given up: a Gap waits in its place.
    GivenUp,
}

/// How a frame is sent.
#[derive(Debug)]
pub struct Sending<'a> {
    /// The highest `up_seq` admitted: every frame acknowledges it.
    pub admitted: u64,
    /// Numbered frames that may be unacknowledged.
    pub window_max: usize,
    /// The connection's output; `None`: it is full.
    pub out: Option<&'a mut Vec<u8>>,
    /// Whether what is sent may be kept whole.
    pub room: Room,
    /// What may be kept.
    pub bounds: Bounds,
}

#[derive(Debug, Default)]
struct Queues {
    /// Encoded Responses without a number, in the order of their answers.
    waiting: VecDeque<Box<[u8]>>,
    waiting_bytes: usize,
    pushes: PushQueue,
    window: Window,
}

impl Queues {
    fn bytes(&self) -> usize {
        self.waiting_bytes.saturating_add(self.window.bytes())
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.pushes.is_empty() && self.window.is_empty()
    }

    /// Whether a frame may get a number, as far as what has one is concerned.
    fn is_flowing(&self, window_max: usize) -> bool {
        !self.window.is_replaying() && self.window.len() < window_max
    }

    /// What pushes with a number may take: what those that wait leave.
    fn push_budget(&self, bounds: Bounds, room: Room) -> PushBudget {
        match room {
            Room::Whole => bounds.pushes().without(self.pushes.used()),
            Room::Bare => PushBudget::default(),
        }
    }

    /// Keeps a Response that was written, within the bound.
    fn keep(&mut self, numbers: Numbers, frame: &[u8], response: &ResponseView<'_>, whole: bool) {
        if !whole {
            let mut bare = Vec::new();
            put_frame(&mut bare, numbers, RESPONSE, &without_payload(response));
            self.window.keep(Kind::Response, &bare);
        } else {
            self.window.keep(Kind::Response, frame);
        }
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

impl Down {
    /// The highest number given.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Responses that the client has not acknowledged, sent or not.
    pub fn responses(&self) -> usize {
        self.queues.as_ref().map_or(0, |it| it.waiting.len().saturating_add(it.window.responses()))
    }

    /// Numbered frames that the client has not acknowledged.
    pub fn in_window(&self) -> usize {
        self.queues.as_ref().map_or(0, |queues| queues.window.len())
    }

    /// The highest number acknowledged.
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// Whether something waits for its number, or to be sent again.
    pub fn is_waiting(&self) -> bool {
        self.queues.as_ref().is_some_and(|queues| {
            queues.window.is_replaying() || !queues.waiting.is_empty() || !queues.pushes.is_empty()
        })
    }

    /// Whether a Response waits for its number, or may have to be sent again.
    pub fn has_response_waiting(&self) -> bool {
        self.queues.as_ref().is_some_and(|queues| queues.window.is_replaying() || !queues.waiting.is_empty())
    }

    /// Whether the client has acknowledged every Response that there is.
    pub fn is_settled(&self) -> bool {
        self.responses() == 0
    }

    /// There is a new connection: what is not acknowledged is sent again, by [`Down::pump`].
    pub fn rewind(&mut self) {
        if let Some(queues) = &mut self.queues {
            queues.window.rewind();
        }
    }

    /// Bytes kept, but for those of pushes, which are shared.
    pub fn kept_bytes(&self) -> usize {
        self.queues.as_ref().map_or(0, |queues| queues.bytes())
    }

    /// Applies a cumulative acknowledgement; lower ones change nothing. `taken` is told who wants to know of a push that
    /// the client has taken.
    ///
    /// # Errors
    /// [`Fault::AckBeyondSent`] for a number that was never given.
    pub fn acknowledge(&mut self, ack: u64, mut taken: impl FnMut(Arc<ReceiptTo>)) -> Result<(), Fault> {
        if ack > self.sent {
            return Err(Fault::AckBeyondSent { sent: self.sent, got: ack });
        }
        if let Some(queues) = &mut self.queues {
            while self.acked < ack {
                self.acked = self.acked.saturating_add(1);
                queues.window.pop().into_iter().for_each(&mut taken);
            }
        }
        Ok(())
    }

    /// Takes a Response. It is numbered, written and kept, or it waits.
    pub fn respond(&mut self, response: &ResponseView<'_>, sending: Sending<'_>) -> Responded {
        let Sending { admitted, window_max, out, room, bounds } = sending;
        let queues = self.queues.get_or_insert_default();
        let added = FRAME_HEAD_BYTES.saturating_add(response.payload.len());
        let over = queues.bytes().saturating_add(added) > bounds.response_bytes_max;
        let full = over || room == Room::Bare;
        if let Some(out) = out
            && queues.is_flowing(window_max)
            && queues.waiting.is_empty()
        {
            self.sent = self.sent.saturating_add(1);
            let numbers = Numbers { seq: self.sent, ack: admitted };
            let start = out.len();
            put_frame(out, numbers, RESPONSE, response);
            queues.keep(numbers, out.get(start..).unwrap_or_default(), response, !full);
            return Responded::Written;
        }
        let waits = if full { without_payload(response) } else { *response };
        let mut body = Vec::with_capacity(waits.body_len());
        waits.put(&mut body);
        queues.waiting_bytes = queues.waiting_bytes.saturating_add(body.len());
        queues.waiting.push_back(body.into_boxed_slice());
        let dropped = full && !response.payload.is_empty();
        if dropped { Responded::WaitingBare } else { Responded::Waiting }
    }

    /// Takes a push, for a client that takes frames of `frame_bytes_max`. It is numbered, written and kept, or waits,
    /// or is given up; what was given up for it is noted in `lost`.
    pub fn push(
        &mut self,
        push: &Arc<Push>,
        sending: Sending<'_>,
        frame_bytes_max: usize,
        lost: &mut Lost,
    ) -> Pushed {
        let Sending { admitted, window_max, out, room, bounds } = sending;
        let queues = self.queues.get_or_insert_default();
        if push.body.len().saturating_add(FRAME_HEAD_BYTES) > frame_bytes_max {
            queues.pushes.skip(push, lost);
            return Pushed::GivenUp;
        }
        if let Some(out) = out
            && queues.is_flowing(window_max)
            && queues.waiting.is_empty()
            && queues.pushes.is_empty()
        {
            self.sent = self.sent.saturating_add(1);
            put_frame(out, Numbers { seq: self.sent, ack: admitted }, PUSH, &Encoded(&push.body));
            queues.window.keep_push(push, queues.push_budget(bounds, room));
            return Pushed::Written;
        }
        if room == Room::Bare {
            queues.pushes.skip(push, lost);
            return Pushed::GivenUp;
        }
        let overflowed = lost.overflowed;
        queues.pushes.offer(push, bounds.pushes().without(queues.window.used()), lost);
        if lost.overflowed > overflowed { Pushed::GivenUp } else { Pushed::Waiting }
    }

    /// Sends again what a new connection has not had; then numbers and writes what waits, until the output holds `high`
    /// bytes or the window is full; how many frames were written. Responses go first.
    pub fn pump(&mut self, now: Mono, sending: Sending<'_>, high: usize, lost: &mut Lost) -> usize {
        let Sending { admitted, window_max, out: Some(out), room, bounds } = sending else { return 0 };
        let Some(queues) = &mut self.queues else { return 0 };
        let mut written = 0usize;
        while out.len() < high && queues.window.is_replaying() {
            queues.window.replay(out, (self.acked, admitted), lost);
            written = written.saturating_add(1);
        }
        while out.len() < high && queues.is_flowing(window_max) {
            let numbers = Numbers { seq: self.sent.saturating_add(1), ack: admitted };
            let start = out.len();
            if let Some(body) = queues.waiting.pop_front() {
                put_frame(out, numbers, RESPONSE, &Encoded(&body));
                queues.waiting_bytes = queues.waiting_bytes.saturating_sub(body.len());
                // Its bytes are held already: kept or waiting, they are the same.
                queues.window.keep(Kind::Response, out.get(start..).unwrap_or_default());
            } else {
                match queues.pushes.next(now, lost) {
                    Some(Next::Push(push)) => {
                        put_frame(out, numbers, PUSH, &Encoded(&push.body));
                        queues.window.keep_push(&push, queues.push_budget(bounds, room));
                    }
                    Some(Next::Gap { count, reason }) => {
                        let gap = v1::Gap { count, reason: reason.into(), ..v1::Gap::default() };
                        put_frame(out, numbers, GAP, &gap);
                        queues.window.keep(Kind::Gap, out.get(start..).unwrap_or_default());
                    }
                    None => break,
                }
            }
            self.sent = numbers.seq;
            written = written.saturating_add(1);
        }
        written
    }

    /// Gives up the payloads of all Responses that are held, whether they wait or were sent; how many of those that wait
    /// had one.
    pub fn give_up_payloads(&mut self) -> usize {
        let Some(queues) = &mut self.queues else { return 0 };
        let mut given_up = 0usize;
        for body in &mut queues.waiting {
            let Some(response) = ResponseView::decode(body).ok().filter(|it| !it.payload.is_empty()) else {
                continue;
            };
            let mut bare = Vec::new();
            without_payload(&response).put(&mut bare);
            *body = bare.into_boxed_slice();
            given_up = given_up.saturating_add(1);
        }
        queues.waiting_bytes = queues.waiting.iter().map(|body| body.len()).sum();
        queues.window.shorten(|frame| {
            let envelope = Envelope::decode(frame.get(LENGTH_BYTES..)?).ok()?;
            let response = ResponseView::decode(envelope.member?.1).ok()?;
            let mut bare = Vec::new();
            put_frame(&mut bare, envelope.numbers, RESPONSE, &without_payload(&response));
            (!response.payload.is_empty()).then_some(bare)
        });
        given_up
    }

    /// The session ends: `lost` is told who wants to know of a push that the client has not acknowledged.
    pub fn end(&mut self, mut lost: impl FnMut(Arc<ReceiptTo>)) {
        let Some(mut queues) = self.queues.take() else { return };
        while !queues.window.is_empty() {
            queues.window.pop().into_iter().for_each(&mut lost);
        }
        queues.pushes.clear().for_each(lost);
    }

    /// Gives back what the queues do not need for what they hold.
    pub fn fit(&mut self) {
        if let Some(queues) = &mut self.queues {
            queues.waiting.shrink_to_fit();
            queues.pushes.fit();
            queues.window.fit();
        }
    }

    /// Gives back the memory of empty queues.
    pub fn shrink(&mut self) {
        if self.queues.as_ref().is_some_and(|queues| queues.is_empty()) {
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
    use crate::session::test_push::{PushDraft, push};
    use moorgate_proto::codec::Assembler;
    use moorgate_proto::v1::gateway_frame::Member;
    use prost::Message;
    use std::time::Duration;

    const BOUNDS: Bounds = Bounds { pushes_max: 4, push_bytes_max: 1 << 20, response_bytes_max: 1 << 20 };

    fn response(up_seq: u64, payload: &[u8]) -> ResponseView<'_> {
        ResponseView { up_seq, payload, ..Default::default() }
    }

    fn sending(out: Option<&mut Vec<u8>>) -> Sending<'_> {
        Sending { admitted: 9, window_max: 256, out, room: Room::Whole, bounds: BOUNDS }
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

    /// What came, in words, with its number.
    fn words(mut bytes: &[u8]) -> Vec<String> {
        let mut assembler = Assembler::default();
        let mut found = Vec::new();
        while let Some(frame) = assembler.next(&mut bytes, 1 << 24).unwrap() {
            let frame = v1::GatewayFrame::decode(frame).unwrap();
            let what = match frame.member.unwrap() {
                Member::Response(response) => format!("response {}", response.up_seq),
                Member::Push(push) => format!("push {}", push.command),
                Member::Gap(gap) => format!("gap of {} for {}", gap.count, gap.reason().as_str_name()),
                other => panic!("{other:?}"),
            };
            found.push(format!("{}: {what}", frame.down_seq));
        }
        found
    }

    // spec: D-6
    #[test]
    fn payloads_that_are_given_up_leave_everything_else() {
        let mut down = Down::default();
        let mut out = Vec::new();
        for up_seq in 1..=3 {
            down.respond(&response(up_seq, &[7; 100]), sending(Some(&mut out)));
            give(&mut down, &numbered(9), Some(&mut out));
        }
        down.respond(&ResponseView { reason: 60, ..response(4, b"") }, sending(Some(&mut out)));
        down.respond(&response(5, &[7; 100]), sending(None));
        down.rewind();
        let mut again = Vec::new();
        down.pump(Mono::ZERO, sending(Some(&mut again)), 1, &mut Lost::default());
        assert_eq!(frames(&again), [(1, 1)], "one was sent again with its payload");
        let held = down.kept_bytes();
        assert_eq!(down.give_up_payloads(), 1);
        assert!(down.kept_bytes() + 380 < held && down.give_up_payloads() == 0);
        let mut rest = Vec::new();
        while down.is_waiting() {
            down.pump(Mono::ZERO, sending(Some(&mut rest)), usize::MAX, &mut Lost::default());
        }
        let mut bytes = &rest[..];
        let (mut assembler, mut seqs) = (Assembler::default(), Vec::new());
        while let Some(frame) = assembler.next(&mut bytes, 1 << 24).unwrap() {
            let frame = v1::GatewayFrame::decode(frame).unwrap();
            if let Some(Member::Response(response)) = frame.member {
                assert!(response.payload.is_empty());
                assert_eq!(response.payload_dropped, response.up_seq != 4);
                assert_eq!(response.reason, if response.up_seq == 4 { 60 } else { 0 });
            }
            seqs.push(frame.down_seq);
        }
        assert_eq!(seqs, [2, 3, 4, 5, 6, 7, 8]);
        down.acknowledge(8, |_| ()).unwrap();
        assert_eq!((down.kept_bytes(), down.is_settled()), (0, true));
    }

    fn numbered(command: u32) -> Arc<Push> {
        push(&v1::Push { command, ..v1::Push::default() }.encode_to_vec())
    }

    fn give(down: &mut Down, push: &Arc<Push>, out: Option<&mut Vec<u8>>) -> Pushed {
        down.push(push, sending(out), 65_536, &mut Lost::default())
    }

    /// To a client that may have two frames unacknowledged.
    fn narrow(out: &mut Vec<u8>) -> Sending<'_> {
        Sending { window_max: 2, ..sending(Some(out)) }
    }

    fn pump_narrow(down: &mut Down, out: &mut Vec<u8>) -> usize {
        down.pump(Mono::ZERO, narrow(out), usize::MAX, &mut Lost::default())
    }

    // spec: D-1, D-4, W-5, W-6
    #[test]
    fn numbers_are_given_at_the_output_and_kept_until_acknowledged() {
        let mut down = Down::default();
        let mut out = Vec::new();
        assert_eq!(down.respond(&response(7, b"a"), sending(Some(&mut out))), Responded::Written);
        assert_eq!(down.respond(&response(8, b"b"), sending(None)), Responded::Waiting, "the output is full");
        let became = down.respond(&response(9, b"c"), sending(Some(&mut out)));
        assert_eq!(became, Responded::Waiting, "it must not overtake");
        assert_eq!((down.sent(), down.responses()), (1, 3));
        assert_eq!(down.acknowledge(2, |_| ()), Err(Fault::AckBeyondSent { sent: 1, got: 2 }));
        let pumped = down.pump(Mono::ZERO, sending(Some(&mut out)), usize::MAX, &mut Lost::default());
        assert_eq!(pumped, 2);
        assert_eq!(frames(&out), [(1, 7), (2, 8), (3, 9)]);
        assert_eq!(down.acknowledge(2, |_| ()), Ok(()));
        assert_eq!(down.acknowledge(1, |_| ()), Ok(()), "lower ones change nothing");
        assert_eq!(down.responses(), 1);
        assert_eq!(down.acknowledge(3, |_| ()), Ok(()));
        assert_eq!((down.responses(), down.kept_bytes()), (0, 0));
        down.shrink();
        assert!(down.queues.is_none());
    }

    #[test]
    fn pump_stops_at_the_bound() {
        let mut down = Down::default();
        let mut out = Vec::new();
        for up_seq in 1..=3 {
            down.respond(&response(up_seq, &[0; 100]), sending(None));
        }
        assert_eq!(down.pump(Mono::ZERO, sending(Some(&mut out)), 150, &mut Lost::default()), 2);
        assert!(down.is_waiting());
    }

    // spec: D-4, D-6, D-18
    #[test]
    fn over_the_byte_bound_only_payloads_go() {
        let mut down = Down::default();
        let payload = vec![1; BOUNDS.response_bytes_max / 5 - FRAME_HEAD_BYTES];
        let mut out = Vec::new();
        for up_seq in 1..=3 {
            let became = down.respond(&response(up_seq, &payload), sending(Some(&mut out)));
            assert_eq!(became, Responded::Written);
        }
        for up_seq in 4..=7 {
            let became = down.respond(&response(up_seq, &payload), sending(None));
            let fits = up_seq <= 5;
            assert_eq!(became, if fits { Responded::Waiting } else { Responded::WaitingBare }, "{up_seq}");
        }
        let last = down.queues.as_ref().unwrap().waiting.back().unwrap();
        assert!(ResponseView::decode(last).unwrap().payload_dropped);
        assert_eq!(down.pump(Mono::ZERO, sending(Some(&mut out)), usize::MAX, &mut Lost::default()), 4);
        assert!(down.kept_bytes() <= BOUNDS.response_bytes_max);
        let before = out.len();
        assert_eq!(down.respond(&response(8, &payload), sending(Some(&mut out))), Responded::Written);
        assert!(out.len() - before > payload.len(), "this connection gets it whole");
        assert!(down.kept_bytes() <= BOUNDS.response_bytes_max, "and a replay without its payload");
        assert_eq!(down.responses(), 8);
    }

    /// How many of these pushes a session gives up whose client has none of them before it resumes, if the output takes
    /// so many of them first.
    fn given_up(pushes: usize, taken: usize, bounds: Bounds) -> u64 {
        let (mut down, mut lost) = (Down::default(), Lost::default());
        for at in 0..pushes {
            let mut lost_with_connection = Vec::new();
            let out = (at < taken).then_some(&mut lost_with_connection);
            let one = push(&v1::Push { payload: vec![7; 90].into(), ..v1::Push::default() }.encode_to_vec());
            down.push(&one, Sending { bounds, ..sending(out) }, 65_536, &mut lost);
        }
        down.rewind();
        let mut out = Vec::new();
        down.pump(Mono::ZERO, Sending { bounds, ..sending(Some(&mut out)) }, usize::MAX, &mut lost);
        let mut assembler = Assembler::default();
        let (mut bytes, mut came, mut missed) = (out.as_slice(), 0, 0);
        while let Some(frame) = assembler.next(&mut bytes, 1 << 24).unwrap() {
            match v1::GatewayFrame::decode(frame).unwrap().member.unwrap() {
                Member::Push(_) => came += 1,
                Member::Gap(gap) if gap.first > 0 => missed += gap.last + 1 - gap.first,
                Member::Gap(gap) => missed += gap.count,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((came + missed, lost.overflowed), (pushes as u64, missed));
        missed
    }

    // spec: D-11, D-17, R-14
    #[test]
    fn session_keeps_the_same_pushes_attached_half_open_and_detached() {
        let one = push(&v1::Push { payload: vec![7; 90].into(), ..v1::Push::default() }.encode_to_vec());
        for bounds in [
            Bounds { pushes_max: 40, ..BOUNDS },
            Bounds { pushes_max: 400, push_bytes_max: 40 * one.body.len(), ..BOUNDS },
        ] {
            for pushes in [10, 40, 41, 100] {
                for taken in [0, 1, 7, 39, 40, 50, 100] {
                    let missed = pushes as u64 - 40.min(pushes as u64);
                    assert_eq!(given_up(pushes, taken, bounds), missed, "{taken} of {pushes} were written");
                }
            }
        }
    }

    // spec: D-10, D-11, D-16
    #[test]
    fn a_response_may_overtake_pushes_and_nothing_exceeds_the_window() {
        let mut down = Down::default();
        let mut out = Vec::new();
        assert_eq!(down.push(&numbered(1), narrow(&mut out), 4096, &mut Lost::default()), Pushed::Written);
        assert_eq!(give(&mut down, &numbered(2), None), Pushed::Waiting);
        assert_eq!(down.push(&numbered(3), narrow(&mut out), 4096, &mut Lost::default()), Pushed::Waiting);
        assert_eq!(down.respond(&response(7, b""), narrow(&mut out)), Responded::Written);
        assert_eq!(
            down.respond(&response(8, b""), narrow(&mut out)),
            Responded::Waiting,
            "the window is full"
        );
        assert_eq!(pump_narrow(&mut down, &mut out), 0);
        assert_eq!((down.in_window(), down.responses()), (2, 2));
        let mut taken = Vec::new();
        down.acknowledge(2, |receipt| taken.push(receipt)).unwrap();
        assert_eq!(taken.len(), 1, "of the push");
        assert_eq!(pump_narrow(&mut down, &mut out), 2);
        down.acknowledge(4, |_| ()).unwrap();
        assert_eq!(pump_narrow(&mut down, &mut out), 1);
        assert_eq!(words(&out), ["1: push 1", "2: response 7", "3: response 8", "4: push 2", "5: push 3"]);
    }

    // spec: D-11, D-12
    #[test]
    fn what_is_given_up_is_told_by_a_numbered_gap() {
        let mut down = Down::default();
        let mut out = Vec::new();
        for command in 1..=5 {
            give(&mut down, &numbered(command), None);
        }
        let expired = PushDraft { expires: Mono::ZERO + Duration::from_secs(1), ..PushDraft::of(b"") }.push();
        let mut lost = Lost::default();
        let bounds = Bounds { pushes_max: 99, ..BOUNDS };
        let roomy = || Sending { bounds, ..sending(None) };
        down.push(&expired, roomy(), 4096, &mut lost);
        assert_eq!(down.push(&push(&[0; 5000]), roomy(), 4096, &mut lost), Pushed::GivenUp);
        let bare = Sending { room: Room::Bare, ..roomy() };
        assert_eq!(down.push(&numbered(9), bare, 4096, &mut lost), Pushed::GivenUp);
        let sending = Sending { bounds, ..sending(Some(&mut out)) };
        down.pump(Mono::ZERO + Duration::from_secs(2), sending, usize::MAX, &mut lost);
        let gap = |count, why| format!("gap of {count} for REASON_PUSH_{why}");
        let expected = [
            format!("1: {}", gap(1, "OVERFLOW")),
            "2: push 2".to_owned(),
            "3: push 3".to_owned(),
            "4: push 4".to_owned(),
            "5: push 5".to_owned(),
            format!("6: {}", gap(1, "EXPIRED")),
            format!("7: {}", gap(2, "OVERFLOW")),
        ];
        assert_eq!(words(&out), expected);
        assert_eq!((lost.overflowed, lost.expired), (2, 1));
    }

    #[test]
    fn the_end_tells_who_wanted_to_know() {
        let mut down = Down::default();
        let mut out = Vec::new();
        give(&mut down, &numbered(1), Some(&mut out));
        give(&mut down, &numbered(2), None);
        let mut lost = 0;
        down.end(|_| lost += 1);
        assert_eq!((lost, down.kept_bytes()), (2, 0));
    }
}
