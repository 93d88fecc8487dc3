//! What shards and workers say to each other: plain data, in batches, over bounded mailboxes.
//!
//! A batch owns one arena, into which every request or reply is copied once; its entries are small and refer
//! into it. A shard never has more calls outstanding at its worker than its credit, so a worker always has
//! room to hand the settlement back: exactly one [`Settled`] for every [`Forward`]. For pushes room is reserved in the
//! directory before they are sent; what has none is refused there and then.

mod access;
mod arena;
mod caller;
mod check;
mod directive;
mod gauge;
mod outcome;
mod push;

pub use access::AccessRecord;
pub use arena::{Arena, Body, Joined};
pub use caller::Caller;
pub use check::{Check, Checked, Verdict};
pub use directive::{Directive, MemberOrder, Membership};
pub use gauge::Gauge;
pub use outcome::Outcome;
pub use push::{Audience, Push, PushGauge, PushOrder, PushRoom, Receipt, ReceiptTo};

use crate::base::ids::{RouteId, SessionId, SessionKey, ShardId, Ticket};
use crate::routing::Decision;
use moorgate_proto::time::Mono;
use moorgate_proto::view::{Body as _, ReplyView};

/// One admitted request on its way to a service.
#[derive(Debug)]
pub struct Forward {
    /// The shard's claim on the settlement.
    pub ticket: Ticket,
    /// Whose request it is: calls of an ordered route queue up by it.
    pub session: SessionKey,
    /// The same for services: the ordering key of an ordered route.
    pub session_id: SessionId,
    /// Where the shard routed it.
    pub route: RouteId,
    /// A hash of whose request it is.
    pub caller: u8,
    /// When it must be settled.
    pub deadline: Mono,
    /// The encoded `v1::Call`, but for what its worker adds: id, time left, attempt and ordering key.
    pub call: Body,
}

/// What a shard tells its worker in one turn.
#[derive(Debug, Default)]
pub struct ForwardBatch {
    /// From which shard.
    pub shard: ShardId,
    /// Holds the bodies.
    pub arena: Arena,
    /// New calls, in the order of their admission.
    pub forwards: Vec<Forward>,
    /// Calls that their clients no longer want; they came before or are among `forwards`.
    pub cancels: Vec<Ticket>,
    /// Sessions to be confirmed.
    pub checks: Vec<Check>,
}

/// A batch begins with as much room as the last one took, or with half of what that one had, up to this many bytes of
/// bodies and as many entries as go with them: it grows seldom, though busy turns differ much, and a burst is forgotten
/// after a few turns.
const ARENA_BYTES_AHEAD: usize = 4 * 1024 * 1024;
const ENTRIES_AHEAD: usize = 16 * 1024;

fn room(len: usize, capacity: usize, max: usize) -> usize {
    len.max(capacity / 2).min(max)
}

impl ForwardBatch {
    /// Takes what there is, and leaves a batch of the same shard with room for about as much.
    pub fn take(&mut self) -> ForwardBatch {
        let next = ForwardBatch {
            shard: self.shard,
            arena: Arena::with_capacity(room(self.arena.len(), self.arena.capacity(), ARENA_BYTES_AHEAD)),
            forwards: Vec::with_capacity(room(self.forwards.len(), self.forwards.capacity(), ENTRIES_AHEAD)),
            cancels: Vec::new(),
            checks: Vec::new(),
        };
        std::mem::replace(self, next)
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How much it says.
    pub fn len(&self) -> usize {
        self.forwards.len().saturating_add(self.cancels.len()).saturating_add(self.checks.len())
    }
}

/// The one terminal outcome of a call.
#[derive(Debug)]
pub struct Settled {
    /// Whose call it was.
    pub ticket: Ticket,
    /// How it ended.
    pub outcome: Outcome,
    /// What the client gets of the Reply, as [`Settled::with_reply`] puts it; empty when the gateway made the outcome.
    pub reply: Body,
    /// Bytes of its texts, which stand encoded before its payload.
    pub texts_bytes: u32,
    /// The endpoint that had it, as the access log names it; 0: none.
    pub endpoint: u32,
    /// Why it went there.
    pub decision: Decision,
    /// What the service asks about the session that called; to be done before the answer is delivered.
    pub directives: Option<Box<[Directive]>>,
}

impl Settled {
    /// An outcome without a reply.
    pub fn bare(ticket: Ticket, outcome: Outcome) -> Settled {
        Settled {
            ticket,
            outcome,
            reply: Body::EMPTY,
            texts_bytes: 0,
            endpoint: 0,
            decision: Decision::default(),
            directives: None,
        }
    }

    /// The same with what a client gets of a Reply beside its outcome: texts, which are rare, and the payload.
    #[must_use]
    pub fn with_reply(self, reply: &ReplyView<'_>, arena: &mut Arena) -> Settled {
        let (message, content_encoding) = (reply.message, reply.content_encoding);
        if message.is_empty() && content_encoding.is_empty() {
            return Settled { reply: arena.put(reply.payload), texts_bytes: 0, ..self };
        }
        let texts = ReplyView { message, content_encoding, ..ReplyView::default() };
        // They lie in a frame, which is far below 4 GiB.
        let texts_bytes = u32::try_from(texts.body_len()).unwrap_or(u32::MAX);
        Settled { reply: arena.encode(&Joined(texts, reply.payload)), texts_bytes, ..self }
    }

    /// What the client gets of the Reply.
    pub fn reply<'a>(&'a self, arena: &'a Arena) -> ReplyView<'a> {
        let reply = arena.read(&self.reply);
        if self.texts_bytes == 0 {
            return ReplyView { payload: reply, ..ReplyView::default() };
        }
        let (texts, payload) = reply.split_at_checked(self.texts_bytes as usize).unwrap_or_default();
        ReplyView { payload, ..ReplyView::decode(texts).unwrap_or_default() }
    }
}

/// One thing that a worker tells a shard.
#[derive(Debug)]
pub enum Delivery {
    /// A call has ended.
    Settled(Settled),
    /// A push.
    Push(PushOrder),
    /// A group has one member more or less.
    Member(MemberOrder),
    /// A session is confirmed, or not.
    Checked(Checked),
}

/// What a worker tells a shard in one turn, in the order in which the services said it: who joins a group gets what is
/// pushed to it afterwards on the same link.
#[derive(Debug, Default)]
pub struct DeliveryBatch {
    /// Holds the bodies.
    pub arena: Arena,
    /// What there is to do.
    pub deliveries: Vec<Delivery>,
}

impl DeliveryBatch {
    /// Calls that have ended.
    pub fn settled(&self) -> impl Iterator<Item = &Settled> {
        self.deliveries.iter().filter_map(|delivery| match delivery {
            Delivery::Settled(settled) => Some(settled),
            Delivery::Push(_) | Delivery::Member(_) | Delivery::Checked(_) => None,
        })
    }

    /// How much there is to do: a push counts as often as it has receivers.
    pub fn len(&self) -> usize {
        let pushes = self.deliveries.iter().map(|delivery| match delivery {
            Delivery::Push(order) => order.reserved.saturating_sub(1),
            Delivery::Settled(_) | Delivery::Member(_) | Delivery::Checked(_) => 0,
        });
        pushes.fold(self.deliveries.len(), usize::saturating_add)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }

    /// Takes what there is, and leaves a batch with room for about as much.
    pub fn take(&mut self) -> DeliveryBatch {
        let next = DeliveryBatch {
            arena: Arena::with_capacity(room(self.arena.len(), self.arena.capacity(), ARENA_BYTES_AHEAD)),
            deliveries: Vec::with_capacity(room(
                self.deliveries.len(),
                self.deliveries.capacity(),
                ENTRIES_AHEAD,
            )),
        };
        std::mem::replace(self, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moorgate_proto::status::Code;
    use moorgate_proto::v1::Reason;

    #[test]
    fn a_client_gets_a_reply_as_it_was() {
        let mut arena = Arena::default();
        let replies = [
            ReplyView { payload: b"hi", ..ReplyView::default() },
            ReplyView { message: "no", content_encoding: "zstd", payload: b"hi", ..ReplyView::default() },
            ReplyView::default(),
        ];
        for reply in replies {
            let outcome = Outcome::refused(Code::Ok, Reason::Unspecified);
            let settled = Settled::bare(Ticket::new(0, 0), outcome).with_reply(&reply, &mut arena);
            assert_eq!(settled.reply(&arena), reply);
        }
    }

    #[test]
    fn a_batch_leaves_room_for_another_like_it_within_bounds() {
        let mut batch = ForwardBatch { shard: ShardId(3), ..ForwardBatch::default() };
        batch.arena.put(&[0; 100]);
        batch.cancels.push(Ticket::new(0, 0));
        let taken = batch.take();
        assert_eq!((taken.arena.len(), taken.cancels.len(), taken.shard), (100, 1, ShardId(3)));
        assert!(batch.is_empty() && batch.arena.is_empty());
        assert_eq!((batch.shard, batch.arena.capacity() >= 100), (ShardId(3), true));
        for _ in 0..ARENA_BYTES_AHEAD / 1024 + 1 {
            batch.arena.put(&[0; 1024]);
        }
        batch.take();
        assert!(batch.arena.capacity() <= ARENA_BYTES_AHEAD, "a burst is over");
        (0..16).for_each(|_| drop(batch.take()));
        assert!(batch.arena.capacity() < 1024, "and forgotten");
    }
}
