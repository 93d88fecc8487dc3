//! Which link takes a call.

use super::call::Call;
use super::order::Line;
use super::service::has_bulk;
use super::{Forwarder, asking};
use crate::base::counters::Count;
use crate::base::ids::{CallKey, LinkKey, ServiceId};
use crate::routing::{Ask, Decision, Ended, Fault, How, Marks, Miss, Verdict};
use moorgate_proto::time::Mono;
use moorgate_proto::view::CallView;

/// Why a call cannot be sent now.
pub(super) enum Unsendable {
    /// No link is ready, and one has been.
    NoLink,
    /// Every ready link is at its bound, or the service is; or none has ever been ready.
    NoRoom,
    /// The link that the call's session is bound to is at its bound, or all endpoints that it may go to are; other calls
    /// may find room.
    LinkFull,
    /// No bulk link that a large call may go on has room. `others_may`: those of other large calls could have.
    NoBulk { others_may: bool },
    /// There is room, but no budget for another attempt.
    NoBudget,
}

/// Where a call goes, and why.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    pub(super) link: LinkKey,
    pub(super) decision: Decision,
}

/// What is asked of a choice beside the pool's own questions.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wish {
    /// The session's other calls go there.
    pub(super) pinned: Option<LinkKey>,
    /// Not there.
    pub(super) not: Option<u16>,
    /// Only where there is a bulk link.
    pub(super) is_large: bool,
}

impl Forwarder {
    /// What the pool of a service asks about the caller of a call.
    pub(super) fn ask(&self, service: ServiceId, call: &[u8], avoid: Option<u16>) -> Ask {
        // The shard has encoded it: it can be read.
        let caller = || CallView::decode(call).unwrap_or_default().caller;
        Ask { avoid: avoid.map(usize::from), ..self.ask_about(service, caller) }
    }

    /// The same for a caller, who is looked at only where the pool does so.
    pub(super) fn ask_about<'a>(&self, service: ServiceId, caller: impl FnOnce() -> &'a [u8]) -> Ask {
        match self.service(service) {
            Some(entry) if entry.is_asking => {
                asking::ask(&entry.settings.pool, self.pools.canary_share(service), caller())
            }
            _ => Ask::default(),
        }
    }

    /// Chooses a link; whoever gets one tells the pool with [`Forwarder::started`].
    pub(super) fn choose(
        &mut self,
        now: Mono,
        service: ServiceId,
        ask: Ask,
        wish: Wish,
    ) -> Result<Choice, Unsendable> {
        let output_max = self.settings.output_bytes_max;
        let Some(entry) = self.services.get_mut(service.index()) else { return Err(Unsendable::NoLink) };
        let links = &self.links;
        if let Some(link) = wish.pinned
            && let Some(pinned) = links.get(link).filter(|link| link.is_ready())
        {
            let bound = entry.settings.pool.bounds.outstanding_max;
            return if entry.sent >= bound {
                Err(Unsendable::NoRoom)
            } else if pinned.has_room(output_max) && (!wish.is_large || has_bulk(links, pinned, output_max)) {
                Ok(Choice {
                    link,
                    decision: Decision { how: How::Pinned, candidates: 1, ..Decision::default() },
                })
            } else {
                Err(Unsendable::LinkFull)
            };
        }
        if entry.ready == 0 {
            return Err(if entry.is_awaited { Unsendable::NoRoom } else { Unsendable::NoLink });
        }
        let endpoints = &entry.endpoints;
        if let Some(seat) = entry.sole
            && wish.not.is_none()
        {
            let link = entry.at(seat).and_then(|endpoint| endpoint.best(links, output_max, wish.is_large));
            let link = link.filter(|_| entry.sent < entry.settings.pool.bounds.outstanding_max);
            let decision = Decision { how: How::Only, candidates: 1, ..Decision::default() };
            return link.map(|link| Choice { link, decision }).ok_or(Unsendable::NoRoom);
        }
        let best = |seat: usize| endpoints.get(seat)?.as_ref()?.best(links, output_max, wish.is_large);
        let not = wish.not.map(usize::from);
        let has_room = |seat: usize| Some(seat) != not && best(seat).is_some();
        match entry.pool.choose(now, ask, &mut self.rng, has_room) {
            Ok((seat, decision)) => match best(seat) {
                Some(link) => Ok(Choice { link, decision }),
                None => {
                    entry.pool.unsent(seat);
                    Err(Unsendable::NoRoom)
                }
            },
            Err(Miss::NoRoom) => Err(Unsendable::NoRoom),
            Err(Miss::SideFull) => Err(Unsendable::LinkFull),
            Err(Miss::NoEndpoint) => Err(Unsendable::NoLink),
        }
    }

    /// A call or a question goes out: it counts in the pool from now on. The seat and the endpoint are the link's.
    pub(super) fn started(&mut self, choice: Choice) {
        let Some(place) = self.links.get(choice.link).map(|link| link.place) else { return };
        if let Some(service) = self.services.get_mut(place.service.index()) {
            service.started(place.seat);
        }
        self.count_marks(choice.decision.marks);
    }

    /// What was chosen for a call that does not go out after all: another one may.
    pub(super) fn take_back(&mut self, choice: Choice) {
        let Some(place) = self.links.get(choice.link).map(|link| link.place) else { return };
        if let Some(service) = self.services.get_mut(place.service.index()) {
            service.pool.unsent(usize::from(place.seat));
        }
    }

    /// What became of what was started.
    pub(super) fn ended(&mut self, now: Mono, service: ServiceId, ended: Ended) {
        if let Some(service) = self.services.get_mut(service.index()) {
            service.ended(now, ended, &mut self.rng);
        }
    }

    /// Tells the pool what a call says of its endpoint, once for each time that it was sent.
    pub(super) fn judge_call(&mut self, now: Mono, key: CallKey, verdict: Verdict, fault: Option<Fault>) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let service = call.service;
        if let Some(ended) = call.judged(now, verdict, fault) {
            self.ended(now, service, ended);
        }
    }

    /// Counts what is special about a choice.
    pub(super) fn count_marks(&self, marks: Marks) {
        if marks == Marks::default() {
            return;
        }
        let counts = [
            (Marks::PANIC, Count::ChoicesPanic),
            (Marks::CANARY, Count::ChoicesCanary),
            (Marks::FALLBACK, Count::ChoicesFallback),
            (Marks::SPILLED, Count::ChoicesSpilled),
            (Marks::FULL, Count::ChoicesFull),
        ];
        for (mark, count) in counts {
            if marks.has(mark) {
                self.cells.count(count);
            }
        }
    }
}

impl Call {
    /// Where it stands in order, if its route has one.
    pub(super) fn line(&self) -> Option<Line> {
        self.is_ordered.then_some(Line { shard: self.shard, session: self.session })
    }
}
