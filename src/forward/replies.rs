//! What services say on their links.

use super::Forwarder;
use super::call::{Call, CallState};
use super::ending::LinkEnd;
use super::link::{ANSWERS_BYTES_MAX, Link, Purpose, State};
use super::notices::About;
use super::verdict::{fault, verdict};
use crate::base::clock::Now;
use crate::base::counters::Count;
use crate::base::ids::{CallKey, LinkKey, ServiceId, ShardId};
use crate::relay::{Directive, Outcome, Settled};
use crate::routing::{Decision, Marks, Verdict};
use log::Level;
use moorgate_proto::bounded::{self, BoundedError};
use moorgate_proto::codec::{PassingAssembler, Piece};
use moorgate_proto::envelope::member::{to_gateway, to_service};
use moorgate_proto::envelope::{Envelope, EnvelopeError, FrameHead};
use moorgate_proto::limits::{DIRECTIVES, FRAME_BYTES_CEILING, FRAME_BYTES_OPENING};
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::link_notice::Kind;
use moorgate_proto::v1::{self, Execution, Reason, Source};
use moorgate_proto::view::{Malformed, PushHead, ReplyView};
use prost::Message;

impl Forwarder {
    /// Bytes from a link's socket. How many frames they completed: a turn takes a bounded number.
    pub fn received(&mut self, now: Now, key: LinkKey, bytes: &[u8]) -> usize {
        let Some(link) = self.links.get_mut(key).filter(|link| link.is_read()) else { return 0 };
        link.received_bytes(now.mono);
        let mut assembler = std::mem::take(&mut link.assembler);
        let mut frames = 0;
        let result = self.frames(now, key, (&mut assembler, &mut frames), bytes);
        if let Some(link) = self.links.get_mut(key).filter(|link| link.is_read()) {
            link.assembler = assembler;
        }
        if let Err(why) = result {
            self.end_link(now.mono, key, &why);
        }
        self.check_invariants();
        frames
    }

    fn frames(
        &mut self,
        now: Now,
        key: LinkKey,
        (assembler, frames): (&mut PassingAssembler, &mut usize),
        mut bytes: &[u8],
    ) -> Result<(), LinkEnd> {
        loop {
            let Some(link) = self.links.get(key) else { return Ok(()) };
            let (max, ceiling) = match link.state {
                State::Connecting(_) | State::Opening { .. } => (FRAME_BYTES_OPENING, FRAME_BYTES_OPENING),
                State::Ready | State::Draining | State::Finishing(_) => {
                    (self.settings.frame_bytes_max, FRAME_BYTES_CEILING)
                }
                State::Closing(_) => return Ok(()),
            };
            let (is_open, is_finishing) = (link.is_open(), link.is_closing());
            let Some(piece) = assembler.next(&mut bytes, max, ceiling)? else { return Ok(()) };
            *frames = frames.saturating_add(1);
            let frame = match piece {
                Piece::Frame(frame) => frame,
                Piece::Head(_) if is_finishing => continue,
                Piece::Head(head) => {
                    self.passed_over(now.mono, key, head)?;
                    continue;
                }
            };
            let Some((member, body)) = Envelope::decode(frame)?.member else { continue };
            match member {
                to_gateway::REPLY if is_open || is_finishing => self.reply(now, key, body)?,
                to_gateway::ERROR => {
                    let error = v1::LinkError::decode(body).map_err(|_| LinkEnd::Malformed(member))?;
                    return Err(LinkEnd::Told(error.message.chars().take(256).collect()));
                }
                _ if is_finishing => {}
                to_gateway::HELLO_ACK => self.hello_ack(now.mono, key, body)?,
                _ if is_open => self.other(now, key, member, body)?,
                _ => return Err(LinkEnd::Unexpected(member)),
            }
        }
    }

    /// A frame above the maximum, of which this is the beginning: its own call fails, or its push is refused.
    fn passed_over(&mut self, now: Mono, key: LinkKey, head: &[u8]) -> Result<(), LinkEnd> {
        self.cells.count(Count::LinkFramesPassedOver);
        let head = FrameHead::read(head).map_err(|Malformed| LinkEnd::Envelope(EnvelopeError::Malformed))?;
        match head.member {
            to_gateway::REPLY => self.reply_too_large(now, key, ReplyView::decode_head(head.body)),
            to_gateway::PUSH => self.push_too_large(key, PushHead::decode_head(head.body).push_id),
            // It is too large to be any other message of the contract; of members of a newer one nothing is known.
            _ => {}
        }
        Ok(())
    }

    /// The Reply to a call is above the largest frame: the call ends with that, and nothing else does.
    fn reply_too_large(&mut self, now: Mono, link: LinkKey, head: ReplyView<'_>) {
        let call = CallKey::from_u64(head.call_id);
        let pair = self.pair(link);
        let Some(known) = self.calls.get_mut(call).filter(|call| is_on(call, pair)) else {
            return self.cells.count(Count::RepliesUnknown);
        };
        let is_late = matches!(known.state, CallState::Abandoned { .. });
        let service = known.service;
        // The endpoint has answered, with more than is taken.
        if let Some(ended) = known.judged(now, Verdict::Good, None) {
            self.ended(now, service, ended);
        }
        self.cells.count(if is_late { Count::RepliesLate } else { Count::RepliesReceived });
        let about = About { link, call_id: head.call_id, push_id: &[] };
        self.notice(now, about, Kind::ReplyTooLarge);
        let outcome = Outcome {
            code: Code::ResourceExhausted,
            reason: Reason::ReplyTooLarge,
            source: Source::Gateway,
            execution: outcome(&head).execution,
            retry_after_ms: 0,
        };
        match is_late {
            true => self.finish(now, call),
            false => self.end(now, call, outcome),
        }
    }

    fn hello_ack(&mut self, now: Mono, key: LinkKey, body: &[u8]) -> Result<(), LinkEnd> {
        let Some(link) = self.links.get_mut(key) else { return Ok(()) };
        let State::Opening { nonce, .. } = link.state else {
            return Err(LinkEnd::Unexpected(to_gateway::HELLO_ACK));
        };
        let ack = v1::LinkHelloAck::decode(body).map_err(|_| LinkEnd::Malformed(to_gateway::HELLO_ACK))?;
        let place = link.place;
        let Some(service) = self.services.get(place.service.index()) else { return Ok(()) };
        let identity = service.identity(&self.settings, (self.boot_id, self.worker));
        link.acknowledged(&ack, identity, &nonce).map_err(LinkEnd::Refused)?;
        link.opened = now;
        if let Purpose::Bulk(main) = link.purpose {
            self.cells.count(Count::LinksOpened);
            self.bulk_ready(main);
            self.list(key);
            self.arm_ping(now, key);
            self.send_waiting(now, place.service);
            return Ok(());
        }
        let view = ack.view.unwrap_or_default();
        let slot = service.at(place.seat).and_then(|endpoint| endpoint.slots.get(usize::from(place.slot)));
        // One whose links do not last is not logged each time.
        let level = if slot.is_some_and(|slot| slot.short_lived > 0) { Level::Debug } else { Level::Info };
        let address = service.at(place.seat).map(|endpoint| endpoint.address.to_string()).unwrap_or_default();
        log::log!(
            level,
            "service {}: link to {address} is ready, instance {}",
            service.settings.name,
            ack.instance_id.escape_debug()
        );
        self.cells.count(Count::LinksOpened);
        self.viewed(key, &view);
        self.ready_changed(now, key, false);
        self.list(key);
        self.arm_ping(now, key);
        self.ask_parked_checks(now);
        self.send_waiting(now, place.service);
        Ok(())
    }

    fn reply(&mut self, now: Now, link: LinkKey, body: &[u8]) -> Result<(), LinkEnd> {
        let reply = ReplyView::decode(body).map_err(|_| LinkEnd::Malformed(to_gateway::REPLY))?;
        self.note_use(now.mono, link);
        let call = CallKey::from_u64(reply.call_id);
        let pair = self.pair(link);
        let Some(known) = self.calls.get_mut(call).filter(|call| is_on(call, pair)) else {
            self.cells.count(Count::RepliesUnknown);
            return Ok(());
        };
        let is_late = matches!(known.state, CallState::Abandoned { .. });
        let (service, shard, decision) = (known.service, known.shard, known.decision);
        let outcome = outcome(&reply);
        let verdict = verdict(&outcome);
        if let Some(ended) = known.judged(now.mono, verdict, fault(verdict)) {
            self.ended(now.mono, service, ended);
        }
        self.cells.count(if is_late { Count::RepliesLate } else { Count::RepliesReceived });
        if is_late || outcome.code != Code::Ok && self.goes_on(now.mono, call, &outcome) {
            // The call was settled without them, or will be.
            self.cells.add(Count::DirectivesStale, u64::from(reply.directives.0));
            if is_late {
                self.finish(now.mono, call);
            }
            return Ok(());
        }
        let directives = match self.directives(now, (link, service, shard), &reply, body) {
            Ok(directives) => directives,
            Err(BoundedError::Malformed) => return Err(LinkEnd::Malformed(to_gateway::REPLY)),
            // No token can hold as many roles (L-66).
            Err(BoundedError::TooMany) => {
                let outcome = Outcome { code: Code::Internal, reason: Reason::ReplyInvalid, ..outcome };
                let outcome = Outcome { source: Source::Gateway, execution: Execution::Executed, ..outcome };
                self.end(now.mono, call, outcome);
                return Ok(());
            }
        };
        if decision.marks != Marks::default() || decision.attempt > 1 {
            self.count_won(decision);
        }
        self.end_with(now.mono, call, outcome, |settled, arena| {
            Settled { directives, ..settled }.with_reply(&reply, arena)
        });
        Ok(())
    }

    /// Carries out the directives of a Reply; what its shard has to do is returned.
    fn directives(
        &mut self,
        now: Now,
        (link, service, shard): (LinkKey, ServiceId, ShardId),
        reply: &ReplyView<'_>,
        body: &[u8],
    ) -> Result<Option<Box<[Directive]>>, BoundedError> {
        let count = reply.directives.0;
        if count == 0 {
            return Ok(None);
        }
        let about = About { link, call_id: reply.call_id, push_id: &[] };
        if count as usize > DIRECTIVES {
            self.cells.add(Count::DirectivesInvalid, count.into());
            self.notice(now.mono, about, Kind::DirectivesTooMany);
            return Ok(None);
        }
        match bounded::decode::<v1::Reply>(body) {
            Ok(whole) => Ok(self.direct(now, about, (service, shard), whole.directives)),
            Err(error) => {
                self.cells.add(Count::DirectivesInvalid, count.into());
                self.notice(now.mono, about, Kind::DirectiveInvalid);
                Err(error)
            }
        }
    }

    /// A frame that is no ping came: a bulk link is not idle.
    fn note_use(&mut self, now: Mono, key: LinkKey) {
        if let Some(link) = self.links.get_mut(key) {
            link.used = now;
        }
    }

    /// A link and the other one of its pair, on either of which a Reply may come.
    fn pair(&self, link: LinkKey) -> (LinkKey, Option<LinkKey>) {
        let partner = self.links.get(link).and_then(Link::partner);
        (link, partner)
    }

    /// An attempt that was not the first has ended its call.
    fn count_won(&self, decision: Decision) {
        if decision.marks.has(Marks::HEDGE) {
            self.cells.count(Count::HedgesWon);
        } else if decision.marks.has(Marks::RETRY) {
            self.cells.count(Count::RetriesAnswered);
        }
    }

    /// What the service says of itself, for the pool.
    fn viewed(&mut self, key: LinkKey, view: &v1::ServiceView) {
        let Some(place) = self.links.get(key).map(|link| link.place) else { return };
        if let Some(service) = self.services.get_mut(place.service.index()) {
            service.pool.set_view(usize::from(place.seat), view.state(), view.load);
        }
    }

    fn other(&mut self, now: Now, key: LinkKey, member: u32, body: &[u8]) -> Result<(), LinkEnd> {
        let malformed = |_| LinkEnd::Malformed(member);
        let Some(link) = self.links.get_mut(key) else { return Ok(()) };
        let was_ready = link.is_ready();
        let service = link.place.service;
        let unsent_max = self.settings.output_bytes_max.saturating_add(ANSWERS_BYTES_MAX);
        if matches!(member, to_gateway::PING | to_gateway::PUSH) && link.output.is_above(unsent_max) {
            return Err(LinkEnd::Unread);
        }
        match member {
            to_gateway::PING => {
                let ping = v1::LinkPing::decode(body).map_err(malformed)?;
                link.view(ping.view.as_ref());
                link.put(to_service::PONG, &v1::LinkPong { nonce: ping.nonce, view: None });
                ping.view.iter().for_each(|view| self.viewed(key, view));
            }
            to_gateway::PONG => {
                let pong = v1::LinkPong::decode(body).map_err(malformed)?;
                link.view(pong.view.as_ref());
                pong.view.iter().for_each(|view| self.viewed(key, view));
                self.answered_ping(now.mono, key, Some(pong.nonce));
            }
            to_gateway::DRAIN => {
                v1::LinkDrain::decode(body).map_err(malformed)?;
                link.state = State::Draining;
            }
            to_gateway::PUSH => {
                self.note_use(now.mono, key);
                self.pushed(now, key, body).map_err(|Malformed| LinkEnd::Malformed(member))?;
                return Ok(());
            }
            to_gateway::SESSION_VERDICT => {
                let verdict = v1::SessionVerdict::decode(body).map_err(malformed)?;
                self.verdict(now, key, &verdict);
                return Ok(());
            }
            to_gateway::PRESENCE_SUBSCRIBE => {
                v1::PresenceSubscribe::decode(body).map_err(malformed)?;
                self.subscribed(now.mono, key);
                return Ok(());
            }
            to_gateway::NOTICE => {
                let notice = v1::LinkNotice::decode(body).map_err(malformed)?;
                if notice.kind() == Kind::BulkWanted {
                    self.want_bulk(now.mono, key);
                }
                return Ok(());
            }
            // Newer members are unknown.
            _ => {}
        }
        self.list(key);
        self.ready_changed(now.mono, key, was_ready);
        self.ask_parked_checks(now.mono);
        if was_ready {
            self.settle_stranded(now.mono, service);
        }
        // It may have come up, or grant more than before.
        self.send_waiting(now.mono, service);
        self.end_finished(now.mono, key);
        Ok(())
    }
}

/// Whether a call was sent on a link of this pair.
fn is_on(call: &Call, (link, partner): (LinkKey, Option<LinkKey>)) -> bool {
    call.state.flight().is_some_and(|flight| flight.link == link || Some(flight.link) == partner)
}

fn outcome(reply: &ReplyView<'_>) -> Outcome {
    let execution = match Execution::try_from(reply.execution) {
        Ok(Execution::Unspecified) | Err(_) => Execution::Executed,
        Ok(execution) => execution,
    };
    Outcome {
        code: Code::from_wire(reply.status),
        reason: Reason::try_from(reply.reason).unwrap_or_default(),
        source: Source::Service,
        execution,
        retry_after_ms: reply.retry_after_ms,
    }
}
