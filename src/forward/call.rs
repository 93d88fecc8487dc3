//! One call: what it is, where it stands, what is kept of it.

use crate::base::ids::{CallKey, LinkKey, RouteId, ServiceId, SessionId, SessionKey, ShardId, Ticket};
use crate::relay::Outcome;
use crate::routing::{Decision, EndpointId, Priority};
use moorgate_proto::time::Mono;

/// What is sent: the encoded `v1::Caller` and the encoded `v1::Request`, in one exact allocation.
#[derive(Debug, Default)]
pub(super) struct Content {
    bytes: Box<[u8]>,
    caller_len: u32,
}

impl Content {
    pub(super) fn new(caller: &[u8], request: &[u8]) -> Content {
        let mut bytes = Vec::with_capacity(caller.len().saturating_add(request.len()));
        bytes.extend_from_slice(caller);
        bytes.extend_from_slice(request);
        // Both lie in frames, which are far below 4 GiB.
        let caller_len = u32::try_from(caller.len()).unwrap_or(u32::MAX);
        Content { bytes: bytes.into_boxed_slice(), caller_len }
    }

    /// The caller and the request.
    pub(super) fn parts(&self) -> (&[u8], &[u8]) {
        self.bytes.split_at_checked(self.caller_len as usize).unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// A call on its way, or on its second attempt beside the first: then each of the two names the other as its twin, and
/// both have the same ticket.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) shard: ShardId,
    pub(super) ticket: Ticket,
    pub(super) session: SessionKey,
    pub(super) session_id: SessionId,
    pub(super) route: RouteId,
    pub(super) service: ServiceId,
    pub(super) deadline: Mono,
    /// One at a time within its session.
    pub(super) is_ordered: bool,
    pub(super) priority: Priority,
    /// The client does not want it any more.
    pub(super) is_cancelled: bool,
    /// An earlier attempt may have run.
    pub(super) may_have_run: bool,
    /// It counts as outstanding in its pool, which has not heard yet what became of it.
    pub(super) is_unjudged: bool,
    /// Times that a service may have got it.
    pub(super) attempts: u8,
    /// Times that it was taken back from a link that had not sent it.
    pub(super) moves: u8,
    /// The seat where it went last.
    pub(super) tried: Option<u16>,
    /// The endpoint that had it last.
    pub(super) endpoint: EndpointId,
    pub(super) decision: Decision,
    /// How the attempt before ended.
    pub(super) before: Option<Box<Outcome>>,
    pub(super) twin: Option<CallKey>,
    pub(super) state: CallState,
}

/// Where a call is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight {
    pub(super) link: LinkKey,
    pub(super) seat: u16,
    /// Where its frame begins among all bytes of the link.
    pub(super) offset: u64,
    /// Since when.
    pub(super) at: Mono,
}

#[derive(Debug)]
pub(super) enum CallState {
    /// Not sent: holds what is to be sent.
    Waiting(Content),
    /// Sent, with no reply yet.
    Sent {
        flight: Flight,
        /// When a second attempt is made beside it; [`Mono::NEVER`]: none is.
        hedge_at: Mono,
        /// What is needed to send it again.
        kept: Option<Content>,
    },
    /// Settled without its reply, which may still come until then.
    Abandoned { flight: Flight, until: Mono },
}

impl CallState {
    /// Nothing yet.
    pub(super) fn empty() -> CallState {
        CallState::Waiting(Content::default())
    }

    /// Where it is, if it was sent.
    pub(super) fn flight(&self) -> Option<Flight> {
        match self {
            CallState::Waiting(_) => None,
            CallState::Sent { flight, .. } | CallState::Abandoned { flight, .. } => Some(*flight),
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(self, CallState::Waiting(_))
    }

    /// Bytes of content that a waiting call holds.
    pub(super) fn waiting_bytes(&self) -> usize {
        match self {
            CallState::Waiting(content) => content.len(),
            CallState::Sent { .. } | CallState::Abandoned { .. } => 0,
        }
    }

    /// Bytes that are kept of a sent one.
    pub(super) fn kept_bytes(&self) -> usize {
        match self {
            CallState::Sent { kept, .. } => kept.as_ref().map_or(0, Content::len),
            CallState::Waiting(_) | CallState::Abandoned { .. } => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_taken_apart_where_it_was_put_together() {
        let content = Content::new(b"caller", b"request");
        assert_eq!((content.parts(), content.len()), ((&b"caller"[..], &b"request"[..]), 13));
        assert_eq!(Content::default().parts(), (&b""[..], &b""[..]));
    }
}
