//! One link to an endpoint: its opening, and what the service has said of itself.
//!
//! ```text
//! Connecting ── connected: Hello sent ──► Opening ── HelloAck, proof good: Auth sent ──► Ready ── Drain ──► Draining
//!      └─ refused, timeout ─► gone             └─ wrong proof or name, timeout ─┐         │ broken, silent      │ calls answered,
//!                                                                               ▼         ▼                     ▼ last ping too
//!                              gone ◄── the peer has ended it too, timeout ── Closing: what is owed, the end of the stream
//! ```
//!
//! A bulk link that ends behind a last ping is Finishing in place of Closing: Replies are read until its peer has ended it.
//! A connection that fails or is reset is gone from every state.

use super::notices::Pending;
use super::place::Place;
use crate::base::ids::{LinkKey as Key, WorkerId};
use crate::base::output::Output;
use crate::base::wheel::Alarm;
use moorgate_proto::VERSION;
use moorgate_proto::codec::{LENGTH_BYTES, PassingAssembler, put_frame};
use moorgate_proto::envelope::member::to_service;
use moorgate_proto::envelope::{Envelope, Numbers};
use moorgate_proto::limits::FRAME_BYTES_CEILING;
use moorgate_proto::proof::{LinkFacts, LinkKey, NONCE_BYTES, Prover};
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{self, service_view};
use moorgate_proto::view::{Body, Encoded};
use std::time::Duration;

/// Who dials: what the gateway says of itself on every link.
#[derive(Debug, Clone, Copy)]
pub struct LinkIdentity<'a> {
    /// The gateway's name.
    pub gateway_id: &'a str,
    /// Of this start.
    pub boot_id: u64,
    /// The worker whose link it is.
    pub worker: WorkerId,
    /// The service that is expected.
    pub service: &'a str,
    /// Shared with the service; `None`: the deployment does without proofs.
    pub key: Option<&'a LinkKey>,
    /// The largest frame that is taken, in bytes.
    pub frame_bytes_max: usize,
    /// Pushes that the service may have unanswered; 0: none is granted.
    pub pushes_max: u32,
}

/// Answers to pings and pushes that may wait on a link, in bytes, above what calls may hold. A service has more than
/// them to read only if it does not read.
pub(super) const ANSWERS_BYTES_MAX: usize = 1024 * 1024;

/// For a service to take the last bytes of a link and to end its own stream, and between bytes of what is still read from it.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// For the transfer of frames that have begun when their link ends.
pub(super) const TRANSFER_MAX: Duration = Duration::from_secs(30);

/// Why a HelloAck is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Version,
    WrongService,
    Proof,
    ShortNonce,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Refusal::Version => "it chose a version that was not offered",
            Refusal::WrongService => "it is another service",
            Refusal::Proof => "its proof does not hold: are the keys the same?",
            Refusal::ShortNonce => "its nonce is too short",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Connecting(Mono),
    Opening {
        deadline: Mono,
        nonce: [u8; NONCE_BYTES],
    },
    Ready,
    Draining,
    /// It carries no calls. What is owed and the end of the stream are written, and the connection is closed once
    /// the peer has ended its stream too, by then at the latest: a reset would cost the peer what is under way to it.
    Closing(Mono),
    /// The same for a bulk link that ends behind a last ping: its Replies are read, as long as bytes arrive, until then at the
    /// latest.
    Finishing(Mono),
}

/// The ping behind which a link ends: all that its service sent before the answer has been read then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LastPing {
    pub(super) nonce: u64,
    /// It is not awaited any longer, unless a frame is arriving.
    until: Mono,
}

impl LastPing {
    pub(super) fn new(nonce: u64, until: Mono) -> LastPing {
        LastPing { nonce, until }
    }
}

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Main,
    /// For the large frames of this main link.
    Bulk(Key),
}

/// The bulk link of a main link, if there is one.
#[derive(Debug, Default)]
pub(super) struct Bulk {
    pub(super) link: Option<Key>,
    /// Calls that are outstanding there.
    pub(super) outstanding: u32,
    /// The service has asked for it, and has not got one.
    pub(super) is_wanted: bool,
    /// Attempts in a row that brought none that lasted.
    pub(super) failures: u32,
    /// It is not dialled before.
    pub(super) not_before: Mono,
    pub(super) alarm: Alarm,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) purpose: Purpose,
    pub(super) bulk: Bulk,
    /// Of its LinkHello.
    pub(super) nonce: [u8; NONCE_BYTES],
    /// When a large frame was sent or received last.
    pub(super) used: Mono,
    pub(super) place: Place,
    pub(super) state: State,
    pub(super) assembler: PassingAssembler,
    pub(super) output: Output,
    /// Bytes that its socket has taken.
    taken: u64,
    /// Unsent bytes of the frame of which it has taken the beginning.
    begun: usize,
    /// When it became ready.
    pub(super) opened: Mono,
    pub(super) last_ping: Option<LastPing>,
    /// The peer has ended its stream.
    pub(super) is_over: bool,
    pub(super) heard: Mono,
    /// When the next ping is due.
    pub(super) ping_at: Mono,
    /// When the first ping since the last frame was sent; `NEVER`: none was.
    pub(super) unanswered_ping: Mono,
    /// Calls that were sent and have no reply, those settled meanwhile included.
    pub(super) outstanding: u32,
    /// Questions about sessions that were asked and not answered.
    pub(super) checks: u32,
    /// The most that the service wants; 0: no bound.
    pub(super) outstanding_max: u32,
    /// Its endpoint leaves: no new calls.
    pub(super) is_leaving: bool,
    /// The service says that it takes calls.
    pub(super) is_up: bool,
    /// The largest frame that the service takes, in bytes.
    pub(super) frame_bytes_max: usize,
    /// The service wants to know of presence.
    pub(super) is_subscribed: bool,
    /// What its service did wrong, one for each kind.
    pub(super) notices: Vec<Pending>,
    pub(super) alarm: Alarm,
}

impl Link {
    pub(super) fn new(place: Place, deadline: Mono) -> Link {
        Link {
            purpose: Purpose::Main,
            bulk: Bulk::default(),
            nonce: [0; NONCE_BYTES],
            used: Mono::ZERO,
            place,
            state: State::Connecting(deadline),
            assembler: PassingAssembler::default(),
            output: Output::default(),
            taken: 0,
            begun: 0,
            opened: Mono::NEVER,
            last_ping: None,
            is_over: false,
            heard: Mono::ZERO,
            ping_at: Mono::ZERO,
            unanswered_ping: Mono::NEVER,
            outstanding: 0,
            checks: 0,
            outstanding_max: 0,
            is_leaving: false,
            is_up: true,
            frame_bytes_max: 0,
            is_subscribed: false,
            notices: Vec::new(),
            alarm: Alarm::default(),
        }
    }

    /// Whether it may take calls at all. A bulk link takes those that its main link may take.
    pub(super) fn is_ready(&self) -> bool {
        self.state == State::Ready && self.is_up && !self.is_leaving && self.purpose == Purpose::Main
    }

    pub(super) fn is_bulk(&self) -> bool {
        self.purpose != Purpose::Main
    }

    /// Whether it is a bulk link that is ready and stays.
    pub(super) fn takes_large(&self) -> bool {
        self.is_bulk() && self.state == State::Ready && !self.is_leaving
    }

    /// Whether it is a bulk link that takes one more large call now.
    pub(super) fn is_bulk_with_room(&self, output_bytes_max: usize) -> bool {
        self.takes_large() && !self.output.is_above(output_bytes_max)
    }

    /// The other link of its pair.
    pub(super) fn partner(&self) -> Option<Key> {
        match self.purpose {
            Purpose::Main => self.bulk.link,
            Purpose::Bulk(main) => Some(main),
        }
    }

    /// Whether it ends once nothing is asked on it any more.
    pub(super) fn is_ending(&self) -> bool {
        self.state == State::Draining || (self.is_leaving && !self.is_closing())
    }

    /// Whether it ends and has no outstanding call or check.
    pub(super) fn is_finished(&self) -> bool {
        self.is_ending() && self.outstanding == 0 && self.bulk.outstanding == 0 && self.checks == 0
    }

    /// Whether it was ready, for as long as the longest delay between attempts.
    pub(super) fn has_lasted(&self, now: Mono, least: Duration) -> bool {
        self.is_open() && now >= self.opened + least
    }

    pub(super) fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing(_) | State::Finishing(_))
    }

    /// Whether what arrives on it is read.
    pub(super) fn is_read(&self) -> bool {
        !matches!(self.state, State::Closing(_))
    }

    /// The link in its place while its stream ends, with the bytes that its service is still owed. `is_finishing`: Replies are
    /// read.
    pub(super) fn closing(&self, now: Mono, is_finishing: bool) -> Link {
        let mut link = Link::new(self.place, now);
        link.purpose = self.purpose;
        link.heard = now;
        link.state = match is_finishing {
            true => State::Finishing(now + TRANSFER_MAX),
            false => State::Closing(now + LINGER),
        };
        link.output.bytes = self.owed();
        link.output.listed = self.output.listed;
        link.alarm = self.alarm;
        link
    }

    /// The rest of a frame that was begun, and the unsent frames that answer the service. Requests to it are of no use, and
    /// calls of which nothing was sent go elsewhere.
    fn owed(&self) -> Vec<u8> {
        let (begun, mut rest) =
            self.output.unsent().split_at_checked(self.begun).unwrap_or((self.output.unsent(), &[]));
        let mut owed = begun.to_vec();
        while let Some((prefix, _)) = rest.split_first_chunk::<LENGTH_BYTES>() {
            let frame_bytes = LENGTH_BYTES.saturating_add(u32::from_be_bytes(*prefix) as usize);
            let Some((frame, behind)) = rest.split_at_checked(frame_bytes) else { break };
            let member = frame.get(LENGTH_BYTES..).and_then(|frame| Envelope::decode(frame).ok()?.member);
            if let Some((to_service::PONG | to_service::PUSH_RESULT | to_service::PUSH_RECEIPT, _)) = member {
                owed.extend_from_slice(frame);
            }
            rest = behind;
        }
        owed
    }

    /// Where the next frame begins among all bytes of the link.
    pub(super) fn end(&self) -> u64 {
        self.taken.saturating_add(self.output.unsent().len() as u64)
    }

    /// Bytes that its socket has taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// The socket took so many bytes more. Returns the buffer once it is used up.
    pub(super) fn took(&mut self, now: Mono, count: usize) -> Option<Vec<u8>> {
        if count > 0 && self.output.is_stalled() && self.unanswered_ping != Mono::NEVER {
            // A socket that was full takes more: its peer reads, and has not come to the ping.
            self.unanswered_ping = self.unanswered_ping.max(now);
        }
        self.taken = self.taken.saturating_add(count as u64);
        self.begun = self.begun_after(count);
        self.output.took(now, count)
    }

    /// What [`Link::begun`] is once so many bytes more are taken.
    fn begun_after(&self, count: usize) -> usize {
        let unsent = self.output.unsent();
        // The usual case: everything.
        let mut end = if count == unsent.len() { count } else { self.begun };
        while end < count {
            let prefix = unsent.get(end..).and_then(<[u8]>::first_chunk::<LENGTH_BYTES>);
            let frame_bytes = prefix.map_or(0, |prefix| u32::from_be_bytes(*prefix) as usize);
            end = end.saturating_add(LENGTH_BYTES).saturating_add(frame_bytes);
        }
        end.saturating_sub(count)
    }

    /// What is unsent from the frame on that begins there; nothing of it was taken by the socket.
    pub(super) fn frame_at(&self, offset: u64) -> &[u8] {
        let skipped = offset.checked_sub(self.taken).and_then(|skipped| usize::try_from(skipped).ok());
        skipped.and_then(|skipped| self.output.unsent().get(skipped..)).unwrap_or_default()
    }

    /// Whether its opening is over, and it is not yet lost.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Ready | State::Draining)
    }

    /// Whether it can take one more now.
    pub(super) fn has_room(&self, output_bytes_max: usize) -> bool {
        self.is_ready()
            && (self.outstanding_max == 0
                || self.outstanding.saturating_add(self.bulk.outstanding) < self.outstanding_max)
            && !self.output.is_above(output_bytes_max)
    }

    pub(super) fn put(&mut self, member: u32, body: &impl Body) {
        put_frame(&mut self.output.bytes, Numbers::NONE, member, body);
    }

    /// The same, unless the frame is larger than the service takes; whether it was put. Not the payload alone counts: what
    /// else a client may send (a trace) must not make the service end the link.
    pub(super) fn put_within_bound(&mut self, member: u32, body: &impl Body) -> bool {
        let begin = self.output.bytes.len();
        self.put(member, body);
        // Measured once it is there: to work its length out beforehand takes as long as to write a small one.
        let frame_bytes = self.output.bytes.len().saturating_sub(begin).saturating_sub(LENGTH_BYTES);
        let is_within = frame_bytes <= self.frame_bytes_max;
        if !is_within {
            self.output.bytes.truncate(begin);
        }
        is_within
    }

    /// The same for a message that is encoded already.
    pub(super) fn put_encoded(&mut self, member: u32, message: &[u8]) {
        put_frame(&mut self.output.bytes, Numbers::NONE, member, &Encoded(message));
    }

    /// The connection stands: says Hello.
    pub(super) fn hello(
        &mut self,
        now: Mono,
        deadline: Mono,
        identity: LinkIdentity<'_>,
        (nonce, main_nonce): ([u8; NONCE_BYTES], Option<[u8; NONCE_BYTES]>),
    ) {
        (self.nonce, self.used) = (nonce, now);
        self.received_bytes(now);
        self.state = State::Opening { deadline, nonce };
        let hello = v1::LinkHello {
            version_min: VERSION,
            version_max: VERSION,
            gateway_id: identity.gateway_id.to_owned(),
            boot_id: identity.boot_id,
            service: identity.service.to_owned(),
            nonce: nonce.to_vec().into(),
            purpose: self.wire_purpose().into(),
            frame_bytes_max: u32::try_from(identity.frame_bytes_max).unwrap_or(u32::MAX),
            pushes_max: identity.pushes_max,
            worker: identity.worker.0.into(),
            main_nonce: main_nonce.map(|nonce| nonce.to_vec().into()).unwrap_or_default(),
        };
        self.put(to_service::HELLO, &hello);
    }

    fn wire_purpose(&self) -> v1::LinkPurpose {
        match self.purpose {
            Purpose::Main => v1::LinkPurpose::Main,
            Purpose::Bulk(_) => v1::LinkPurpose::Bulk,
        }
    }

    /// Judges the service's answer, and proves the gateway to it.
    pub(super) fn acknowledged(
        &mut self,
        ack: &v1::LinkHelloAck,
        identity: LinkIdentity<'_>,
        nonce: &[u8],
    ) -> Result<(), Refusal> {
        if ack.version != VERSION {
            return Err(Refusal::Version);
        }
        if ack.service != identity.service {
            return Err(Refusal::WrongService);
        }
        let mut proof = Vec::new();
        if let Some(key) = identity.key {
            if ack.nonce.len() < NONCE_BYTES {
                return Err(Refusal::ShortNonce);
            }
            let facts = LinkFacts {
                version: VERSION,
                gateway_id: identity.gateway_id,
                boot_id: identity.boot_id,
                service: identity.service,
                instance_id: &ack.instance_id,
                gateway_nonce: nonce,
                service_nonce: &ack.nonce,
                purpose: self.wire_purpose().into(),
            };
            if !facts.verify(key, Prover::Service, &ack.proof) {
                return Err(Refusal::Proof);
            }
            proof = facts.prove(key, Prover::Gateway).to_vec();
        }
        self.put(to_service::AUTH, &v1::LinkAuth { proof: proof.into() });
        self.state = State::Ready;
        self.frame_bytes_max = match ack.frame_bytes_max {
            0 => FRAME_BYTES_CEILING,
            bytes => FRAME_BYTES_CEILING.min(bytes as usize),
        };
        self.view(ack.view.as_ref());
        Ok(())
    }

    /// What the service says of itself.
    pub(super) fn view(&mut self, view: Option<&v1::ServiceView>) {
        if let Some(view) = view {
            self.outstanding_max = view.outstanding_max;
            self.is_up = matches!(view.state(), service_view::State::Up | service_view::State::Degraded);
        }
    }

    /// Bytes have arrived: a large frame may take longer than an interval.
    pub(super) fn received_bytes(&mut self, now: Mono) {
        self.heard = now;
        self.unanswered_ping = Mono::NEVER;
    }

    /// When it is given up if nothing arrives: after two intervals without a byte, but never without a ping that had
    /// half an interval to be answered. What delays this worker delays its pings, and is no silence of the service.
    pub(super) fn silent_at(&self, heartbeat: Duration) -> Mono {
        let silent = self.heard + heartbeat.saturating_mul(2);
        silent.max(self.unanswered_ping + heartbeat / 2)
    }

    /// When the answer to a last ping is not awaited any longer: a frame that is arriving then, and what follows it, has some
    /// more time; [`Mono::NEVER`]: there is no such ping.
    pub(super) fn last_ping_until(&self) -> Mono {
        let Some(ping) = self.last_ping else { return Mono::NEVER };
        match self.assembler.held_bytes() {
            0 if self.heard <= ping.until => ping.until,
            _ => ping.until.max((self.heard + LINGER).min(ping.until + TRANSFER_MAX)),
        }
    }

    /// When something is to be done if nothing is heard.
    pub(super) fn deadline(&self, heartbeat: Duration) -> Mono {
        match self.state {
            State::Connecting(deadline) | State::Opening { deadline, .. } | State::Closing(deadline) => {
                deadline
            }
            State::Finishing(until) => until.min(self.heard + LINGER),
            State::Ready | State::Draining => {
                self.ping_at.min(self.silent_at(heartbeat)).min(self.last_ping_until())
            }
        }
    }
}
