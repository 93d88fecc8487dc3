//! What services say on their links.

use super::Forwarder;
use super::call::{Call, CallState};
use super::link::{ANSWERS_BYTES_MAX, State};
use super::verdict::{fault, verdict};
use crate::base::clock::Now;
use crate::base::counters::Count;
use crate::base::ids::{CallKey, LinkKey};
use crate::relay::{Outcome, Settled};
use crate::routing::{Decision, Marks};
use moorgate_proto::codec::{Assembler, FrameError};
use moorgate_proto::envelope::member::{to_gateway, to_service};
use moorgate_proto::envelope::{Envelope, EnvelopeError};
use moorgate_proto::limits::FRAME_BYTES_OPENING;
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{self, Execution, Reason, Source};
use moorgate_proto::view::ReplyView;
use prost::Message;

/// Why a link is closed after its service has said Drain, and its calls have their replies.
pub(super) const DRAINED: &str = "the service drains";

/// Why a link is of no use any more.
#[derive(Debug)]
enum LinkFault {
    Frame(FrameError),
    Envelope(EnvelopeError),
    Malformed(u32),
    Unexpected(u32),
    Refused(super::link::Refusal),
    /// The service asks for answers and does not read them.
    Unread,
    /// The service sent an Error.
    Told(String),
}

impl std::fmt::Display for LinkFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LinkFault::Frame(error) => error.fmt(f),
            LinkFault::Envelope(error) => error.fmt(f),
            LinkFault::Malformed(member) => write!(f, "member {member} is not the message it should be"),
            LinkFault::Unexpected(member) => write!(f, "member {member} is not legal now"),
            LinkFault::Refused(refusal) => refusal.fmt(f),
            LinkFault::Unread => f.write_str("the service asks for answers and does not read them"),
            LinkFault::Told(message) => write!(f, "the service says: {}", message.escape_debug()),
        }
    }
}

impl From<FrameError> for LinkFault {
    fn from(error: FrameError) -> LinkFault {
        LinkFault::Frame(error)
    }
}

impl From<EnvelopeError> for LinkFault {
    fn from(error: EnvelopeError) -> LinkFault {
        LinkFault::Envelope(error)
    }
}

impl Forwarder {
    /// Bytes from a link's socket.
    pub fn received(&mut self, now: Now, key: LinkKey, bytes: &[u8]) {
        let Some(link) = self.links.get_mut(key) else { return };
        let mut assembler = std::mem::take(&mut link.assembler);
        let result = self.frames(now, key, &mut assembler, bytes);
        if let Some(link) = self.links.get_mut(key) {
            link.assembler = assembler;
        }
        if let Err(fault) = result {
            match fault {
                LinkFault::Refused(_) => self.cells.count(Count::LinkProofsRefused),
                LinkFault::Told(_) => {}
                _ => self.cells.count(Count::LinkGarbage),
            }
            self.link_lost(now.mono, key, &fault);
        }
        self.check_invariants();
    }

    fn frames(
        &mut self,
        now: Now,
        key: LinkKey,
        assembler: &mut Assembler,
        mut bytes: &[u8],
    ) -> Result<(), LinkFault> {
        loop {
            let Some(link) = self.links.get_mut(key) else { return Ok(()) };
            let max = match link.state {
                State::Connecting(_) | State::Opening { .. } => FRAME_BYTES_OPENING,
                State::Ready | State::Draining => self.settings.frame_bytes_max,
            };
            let Some(frame) = assembler.next(&mut bytes, max)? else { return Ok(()) };
            link.received_frame(now.mono);
            let is_open = link.is_open();
            let Some((member, body)) = Envelope::decode(frame)?.member else { continue };
            match member {
                to_gateway::REPLY if is_open => self.reply(now, key, body)?,
                to_gateway::ERROR => {
                    let error = v1::LinkError::decode(body).map_err(|_| LinkFault::Malformed(member))?;
                    return Err(LinkFault::Told(error.message.chars().take(256).collect()));
                }
                to_gateway::HELLO_ACK => self.hello_ack(now.mono, key, body)?,
                _ if is_open => self.other(now, key, member, body)?,
                _ => return Err(LinkFault::Unexpected(member)),
            }
        }
    }

    fn hello_ack(&mut self, now: Mono, key: LinkKey, body: &[u8]) -> Result<(), LinkFault> {
        let Some(link) = self.links.get_mut(key) else { return Ok(()) };
        let State::Opening { nonce, .. } = link.state else {
            return Err(LinkFault::Unexpected(to_gateway::HELLO_ACK));
        };
        let ack = v1::LinkHelloAck::decode(body).map_err(|_| LinkFault::Malformed(to_gateway::HELLO_ACK))?;
        let place = link.place;
        let Some(service) = self.services.get(place.service.index()) else { return Ok(()) };
        let identity = service.identity(&self.settings, self.boot_id);
        link.acknowledged(&ack, identity, &nonce).map_err(LinkFault::Refused)?;
        let view = ack.view.unwrap_or_default();
        let address = service.at(place.seat).map(|endpoint| endpoint.address.to_string()).unwrap_or_default();
        log::info!(
            "service {}: link to {address} is ready, instance {}",
            service.settings.name,
            ack.instance_id.escape_debug()
        );
        self.cells.count(Count::LinksOpened);
        if let Some(slot) = self.slot_mut(place) {
            slot.failures = 0;
        }
        self.viewed(key, &view);
        self.ready_changed(now, key, false);
        self.list(key);
        self.arm_ping(now, key);
        self.send_waiting(now, place.service);
        Ok(())
    }

    fn reply(&mut self, now: Now, link: LinkKey, body: &[u8]) -> Result<(), LinkFault> {
        let reply = ReplyView::decode(body).map_err(|_| LinkFault::Malformed(to_gateway::REPLY))?;
        let call = CallKey::from_u64(reply.call_id);
        let is_there = |call: &&mut Call| call.state.flight().is_some_and(|flight| flight.link == link);
        let Some(known) = self.calls.get_mut(call).filter(is_there) else {
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
        let directives = match reply.directives.0 {
            0 => None,
            _ => {
                let whole = v1::Reply::decode(body);
                let whole = whole.map_err(|_| LinkFault::Malformed(to_gateway::REPLY))?;
                self.direct(now, service, shard, whole.directives)
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

    fn other(&mut self, now: Now, key: LinkKey, member: u32, body: &[u8]) -> Result<(), LinkFault> {
        let malformed = |_| LinkFault::Malformed(member);
        let Some(link) = self.links.get_mut(key) else { return Ok(()) };
        let was_ready = link.is_ready();
        let service = link.place.service;
        let unsent_max = self.settings.output_bytes_max.saturating_add(ANSWERS_BYTES_MAX);
        if matches!(member, to_gateway::PING | to_gateway::PUSH) && link.output.is_above(unsent_max) {
            return Err(LinkFault::Unread);
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
            }
            to_gateway::DRAIN => {
                v1::LinkDrain::decode(body).map_err(malformed)?;
                link.state = State::Draining;
            }
            to_gateway::PUSH => {
                let push = v1::ServicePush::decode(body).map_err(malformed)?;
                self.pushed(now, key, push);
                return Ok(());
            }
            to_gateway::SESSION_VERDICT => {
                let verdict = v1::SessionVerdict::decode(body).map_err(malformed)?;
                self.verdict(now, key, &verdict);
                return Ok(());
            }
            to_gateway::PRESENCE_SUBSCRIBE => {
                v1::PresenceSubscribe::decode(body).map_err(malformed)?;
                self.subscribed(key);
                return Ok(());
            }
            // Newer members are unknown.
            _ => {}
        }
        self.list(key);
        self.ready_changed(now.mono, key, was_ready);
        if was_ready {
            self.settle_stranded(now.mono, service);
        }
        // It may have come up, or grant more than before.
        self.send_waiting(now.mono, service);
        self.end_finished(now.mono, key);
        Ok(())
    }
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
