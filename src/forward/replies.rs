//! What services say on their links.

use super::link::{LinkIdentity, State};
use super::{CallState, Forwarder};
use crate::base::counters::Count;
use crate::base::ids::{CallKey, LinkKey};
use crate::relay::Outcome;
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

/// Answers to pings and pushes that may wait on a link, in bytes, above what calls may hold. A service has more than
/// them to read only if it does not read.
const ANSWERS_BYTES_MAX: usize = 1024 * 1024;

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
    pub fn received(&mut self, now: Mono, key: LinkKey, bytes: &[u8]) {
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
            self.link_lost(now, key, &fault);
        }
        self.check_invariants();
    }

    fn frames(
        &mut self,
        now: Mono,
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
            link.heard = now;
            link.pinged = false;
            let state = link.state;
            let Some((member, body)) = Envelope::decode(frame)?.member else { continue };
            match (state, member) {
                (_, to_gateway::ERROR) => {
                    let error = v1::LinkError::decode(body).map_err(|_| LinkFault::Malformed(member))?;
                    return Err(LinkFault::Told(error.message.chars().take(256).collect()));
                }
                (State::Opening { nonce, .. }, to_gateway::HELLO_ACK) => {
                    self.hello_ack(now, key, &nonce, body)?
                }
                (State::Ready | State::Draining, to_gateway::REPLY) => self.reply(now, key, body)?,
                (State::Ready | State::Draining, _) => self.other(now, key, member, body)?,
                (State::Connecting(_) | State::Opening { .. }, _) => {
                    return Err(LinkFault::Unexpected(member));
                }
            }
        }
    }

    fn hello_ack(&mut self, now: Mono, key: LinkKey, nonce: &[u8], body: &[u8]) -> Result<(), LinkFault> {
        let ack = v1::LinkHelloAck::decode(body).map_err(|_| LinkFault::Malformed(to_gateway::HELLO_ACK))?;
        let Some(link) = self.links.get_mut(key) else { return Ok(()) };
        let place = link.place;
        let Some(service) = self.services.get(place.service.index()) else { return Ok(()) };
        let identity = LinkIdentity {
            gateway_id: &self.settings.gateway_id,
            boot_id: self.boot_id,
            service: &service.settings.name,
            key: service.settings.key.as_ref(),
            frame_bytes_max: self.settings.frame_bytes_max,
        };
        link.acknowledged(&ack, identity, nonce).map_err(LinkFault::Refused)?;
        let heartbeat_due = link.deadline(self.settings.heartbeat);
        log::info!(
            "service {}: link to instance {} is ready",
            service.settings.name,
            ack.instance_id.escape_debug()
        );
        self.cells.count(Count::LinksOpened);
        if let Some(slot) = self.slot_mut(place) {
            slot.failures = 0;
        }
        self.ready_changed(key, false);
        self.list(key);
        self.arm_link(key, heartbeat_due);
        self.send_waiting(now, place.service);
        Ok(())
    }

    fn reply(&mut self, now: Mono, link: LinkKey, body: &[u8]) -> Result<(), LinkFault> {
        let reply = ReplyView::decode(body).map_err(|_| LinkFault::Malformed(to_gateway::REPLY))?;
        let call = CallKey::from_u64(reply.call_id);
        match self.calls.get(call).map(|call| &call.state) {
            Some(CallState::Sent(sent_on)) if *sent_on == link => {
                self.cells.count(Count::RepliesReceived);
                self.cells.add(Count::DirectivesRefused, u64::from(reply.directives.0));
                let endpoint = self.number_of(link);
                self.settle(call, outcome(&reply), body, endpoint);
                self.finish(now, call);
            }
            Some(CallState::Abandoned(sent_on, _)) if *sent_on == link => {
                self.cells.count(Count::RepliesLate);
                self.finish(now, call);
            }
            _ => self.cells.count(Count::RepliesUnknown),
        }
        Ok(())
    }

    fn other(&mut self, now: Mono, key: LinkKey, member: u32, body: &[u8]) -> Result<(), LinkFault> {
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
            }
            to_gateway::PONG => {
                let pong = v1::LinkPong::decode(body).map_err(malformed)?;
                link.view(pong.view.as_ref());
            }
            to_gateway::DRAIN => {
                v1::LinkDrain::decode(body).map_err(malformed)?;
                link.state = State::Draining;
                if link.outstanding == 0 {
                    self.ready_changed(key, was_ready);
                    self.link_lost(now, key, &DRAINED);
                    return Ok(());
                }
            }
            to_gateway::PUSH => {
                let push = v1::ServicePush::decode(body).map_err(malformed)?;
                let result = v1::PushResult {
                    push_id: push.push_id,
                    status: Code::Unimplemented.to_wire(),
                    reason: Reason::NotSupported.into(),
                    message: "this gateway does not carry pushes".to_owned(),
                    targets: Vec::new(),
                };
                link.put(to_service::PUSH_RESULT, &result);
                self.cells.count(Count::PushesRefused);
            }
            to_gateway::HELLO_ACK => return Err(LinkFault::Unexpected(member)),
            // Session verdicts and presence subscriptions ask for nothing; newer members are unknown.
            _ => {}
        }
        self.list(key);
        self.ready_changed(key, was_ready);
        if was_ready {
            self.settle_stranded(now, service);
        }
        // It may have come up, or grant more than before.
        self.send_waiting(now, service);
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
