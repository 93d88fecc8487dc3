//! One call: what it is, where it stands, what is kept of it.

use crate::base::ids::{CallKey, LinkKey, RouteId, ServiceId, SessionKey, ShardId, Ticket};
use crate::relay::{Outcome, Settled};
use crate::routing::{Decision, Ended, EndpointId, Fault, Origin, Priority, Verdict};
use moorgate_proto::time::Mono;
use moorgate_proto::v1::Execution;

/// What is sent: the encoded `v1::Call` as its shard has made it, in one exact allocation.
#[derive(Debug, Default)]
pub(super) struct Content(Box<[u8]>);

impl Content {
    pub(super) fn new(call: &[u8]) -> Content {
        Content(call.into())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A call on its way, or on its second attempt beside the first: then each of the two names the other as its twin, and
/// both have the same ticket. One for every request under way: what only a few have is in its [`Detour`].
#[derive(Debug)]
pub(super) struct Call {
    pub(super) shard: ShardId,
    pub(super) ticket: Ticket,
    pub(super) session: SessionKey,
    pub(super) route: RouteId,
    /// A hash of whose call it is.
    pub(super) caller: u8,
    pub(super) service: ServiceId,
    pub(super) deadline: Mono,
    /// One at a time within its session.
    pub(super) is_ordered: bool,
    pub(super) priority: Priority,
    /// The client does not want it any more.
    pub(super) is_cancelled: bool,
    /// It counts as outstanding in its pool, which has not heard yet what became of it.
    pub(super) is_unjudged: bool,
    /// Times that a service may have got it.
    pub(super) attempts: u8,
    /// The seat where it is, or was last.
    pub(super) tried: Option<u16>,
    /// The endpoint that had it last.
    pub(super) endpoint: EndpointId,
    pub(super) decision: Decision,
    pub(super) detour: Option<Box<Detour>>,
    pub(super) state: CallState,
}

/// What is to be known of a call that did not simply go to one endpoint.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Detour {
    /// How the attempt before ended.
    pub(super) before: Option<Outcome>,
    pub(super) twin: Option<CallKey>,
    /// An earlier attempt may have run.
    pub(super) may_have_run: bool,
    /// The budget has paid for the attempt that comes or is under way.
    pub(super) is_paid: bool,
    /// The main link whose bulk link was dialled for it.
    pub(super) asked: Option<LinkKey>,
    /// Times that it was taken back from a link that had not sent it.
    pub(super) moves: u8,
}

impl Call {
    /// What is to be known of its detours; nothing of one that made none.
    pub(super) fn known(&self) -> Detour {
        self.detour.as_deref().copied().unwrap_or_default()
    }

    /// The same, to be changed.
    pub(super) fn detour_mut(&mut self) -> &mut Detour {
        self.detour.get_or_insert_default()
    }

    pub(super) fn twin(&self) -> Option<CallKey> {
        self.detour.as_ref()?.twin
    }

    /// Whether it is a large one for which a bulk link was dialled.
    pub(super) fn awaits_bulk(&self) -> bool {
        self.detour.as_ref().is_some_and(|detour| detour.asked.is_some())
    }

    /// It has no twin any more; which one it had.
    pub(super) fn take_twin(&mut self) -> Option<CallKey> {
        self.detour.as_mut()?.twin.take()
    }

    /// Its one outcome, for its shard.
    pub(super) fn settled(&self, mut outcome: Outcome) -> Settled {
        // What this attempt says is not all that there is to say.
        if outcome.execution == Execution::NotExecuted
            && self.detour.as_ref().is_some_and(|detour| detour.may_have_run || detour.twin.is_some())
        {
            outcome.execution = Execution::Unknown;
        }
        let (endpoint, decision) = (self.endpoint.0, self.decision);
        Settled { endpoint, decision, ..Settled::bare(self.ticket, outcome) }
    }

    /// What its pool is told of it, once for each time that it was sent.
    pub(super) fn judged(&mut self, now: Mono, verdict: Verdict, fault: Option<Fault>) -> Option<Ended> {
        let (flight, seat) = (self.state.flight()?, self.tried?);
        // A broken link is not due to the caller.
        let origin =
            (fault != Some(Fault::Lost)).then_some(Origin { caller: self.caller, route: self.route });
        let ended = Ended { seat: usize::from(seat), latency: now.since(flight.at), verdict, fault, origin };
        std::mem::take(&mut self.is_unjudged).then_some(ended)
    }
}

/// Where a call is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight {
    pub(super) link: LinkKey,
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
