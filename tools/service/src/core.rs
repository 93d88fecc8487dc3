//! One link from a gateway, without I/O.
//!
//! ```text
//! AwaitingHello ── Hello: HelloAck sent ──► AwaitingAuth ── Auth, proof good ──► Ready
//!       └── wrong service, no version, timeout ──┴── wrong proof, call before it, timeout ──► LinkFault
//! ```
//!
//! The caller passes `now` and the bytes that arrived, and writes out [`LinkCore::output`]. A [`LinkFault`] ends the
//! link: what is in the output (a final LinkError) is to be sent, then the connection closed.

mod calls;
mod fault;
mod view;

#[cfg(test)]
mod tests;

pub use calls::{Calls, CancelFlag, ReplyError};
pub use fault::LinkFault;
pub use view::LOAD_MAX;

use bytes::Bytes;
use moorgate_proto::VERSION;
use moorgate_proto::bounded;
use moorgate_proto::codec::Assembler;
use moorgate_proto::envelope::Envelope;
use moorgate_proto::envelope::member::{to_gateway, to_service};
use moorgate_proto::limits::{
    FRAME_BYTES_CEILING, FRAME_BYTES_MAIN_LINK, FRAME_BYTES_OPENING, FRAME_OVERHEAD, NAME_BYTES,
};
use moorgate_proto::proof::{LinkFacts, LinkKey, NONCE_BYTES, Prover};
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{self, LinkPurpose, Reason, service_view};
use moorgate_proto::view::{Body, CallView};
use prost::Message;
use std::sync::Arc;
use std::time::Duration;
use view::Bound;

/// What every link of a service shares.
#[derive(Debug, Clone)]
pub struct LinkSettings {
    /// The service's name; a gateway that expects another is refused.
    pub service: String,
    /// Names this instance, for logs.
    pub instance_id: String,
    /// Shared with the gateways; `None`: no proofs.
    pub key: Option<LinkKey>,
    /// The largest frame that is taken, in bytes.
    pub frame_bytes_max: usize,
    /// The most calls outstanding on one link; 0: no bound.
    pub outstanding_max: u32,
    /// From the connection to a good Auth.
    pub opening_timeout: Duration,
    /// Silence for twice this long ends a link; gateways ping well within.
    pub heartbeat: Duration,
    /// Each link asks to be told who is online, once it is ready.
    pub wants_presence: bool,
    /// The largest Reply, as a frame in bytes, that goes on a main link: larger ones go on its bulk link, if there is one.
    pub main_link_frame_bytes: usize,
}

impl LinkSettings {
    /// The defaults for a service of this name.
    pub fn new(service: &str) -> LinkSettings {
        LinkSettings {
            service: service.to_owned(),
            instance_id: service.to_owned(),
            key: None,
            frame_bytes_max: 16 * 1024 * 1024,
            outstanding_max: 0,
            opening_timeout: Duration::from_secs(5),
            heartbeat: Duration::from_secs(15),
            wants_presence: false,
            main_link_frame_bytes: FRAME_BYTES_MAIN_LINK,
        }
    }
}

/// What the gateway asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input<'a> {
    /// The link is open.
    Ready,
    /// Run this, and reply once.
    Call(CallView<'a>),
    /// Nobody waits for this call any more; it still wants its reply.
    Cancel(u64),
    /// The gateway closes this link once its calls are answered.
    Drain,
    /// What became of a push.
    PushResult(&'a v1::PushResult),
    /// A client has a push, or has lost it.
    PushReceipt(&'a v1::PushReceipt),
    /// May this session be? Wants one [`LinkCore::verdict`].
    SessionCheck(&'a v1::SessionCheck),
    /// A user has come or gone, or is named in a snapshot; with [`LinkSettings::wants_presence`].
    PresenceEvent(&'a v1::PresenceEvent),
    /// A snapshot of who is online begins or ends.
    PresenceSnapshot(&'a v1::PresenceSnapshot),
    /// The service did something wrong, and the gateway left it out.
    Notice(&'a v1::LinkNotice),
}

/// One start of one gateway: what a gateway knows of sessions, it knows for this long.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayKey {
    /// Its configured name.
    pub gateway_id: Arc<str>,
    /// Differs with each start.
    pub boot_id: u64,
}

/// What a gateway has said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Which gateway.
    pub gateway: GatewayKey,
    /// The most pushes on this link that have no result; 0: pushes are not granted.
    pub pushes_max: u32,
    /// The largest frame that it takes, in bytes.
    pub frame_bytes_max: usize,
    /// The nonce of its LinkHello, by which a bulk link names its main link.
    pub nonce: Bytes,
    /// Of a bulk link: the nonce of its main link.
    pub bulk_of: Option<Bytes>,
}

impl Peer {
    /// Whether `bulk` is the peer of a bulk link of this main link.
    pub fn is_main_of(&self, bulk: &Peer) -> bool {
        self.gateway == bulk.gateway && self.bulk_of.is_none() && bulk.bulk_of.as_ref() == Some(&self.nonce)
    }
}

#[derive(Debug)]
enum State {
    AwaitingHello,
    AwaitingAuth { hello: Box<v1::LinkHello>, nonce: [u8; NONCE_BYTES] },
    Ready,
    Ended,
}

/// One link. See the module's page.
#[derive(Debug)]
pub struct LinkCore {
    settings: Arc<LinkSettings>,
    state: State,
    nonce: [u8; NONCE_BYTES],
    opened: Mono,
    heard: Mono,
    assembler: Assembler,
    view: v1::ServiceView,
    /// What the gateway knows of it.
    told: v1::ServiceView,
    bound: Bound,
    /// Of the last LinkPing.
    ping: u64,
    draining: bool,
    peer: Option<Peer>,
    calls: Calls,
}

impl LinkCore {
    /// A link whose connection was just accepted. `nonce` is random, and used once.
    pub fn new(now: Mono, settings: Arc<LinkSettings>, nonce: [u8; NONCE_BYTES]) -> LinkCore {
        let view = v1::ServiceView {
            state: service_view::State::Up.into(),
            outstanding_max: settings.outstanding_max,
            load: 0,
        };
        LinkCore {
            state: State::AwaitingHello,
            nonce,
            opened: now,
            heard: now,
            assembler: Assembler::default(),
            view,
            told: view,
            bound: Bound::new(view.outstanding_max),
            ping: 0,
            draining: false,
            peer: None,
            calls: Calls::new(settings.main_link_frame_bytes),
            settings,
        }
    }

    /// Bytes from the gateway. `handle` gets what it asks for, in order, with the calls to reply to.
    ///
    /// # Errors
    /// [`LinkFault`]: send the output, then close.
    pub fn received(
        &mut self,
        now: Mono,
        mut bytes: &[u8],
        handle: &mut impl FnMut(&mut Calls, Input<'_>),
    ) -> Result<(), LinkFault> {
        // A large frame may take its time.
        self.heard = now;
        let mut assembler = std::mem::take(&mut self.assembler);
        let result = self.frames(&mut assembler, &mut bytes, handle);
        self.assembler = assembler;
        result.inspect_err(|fault| self.end(fault))
    }

    fn frames(
        &mut self,
        assembler: &mut Assembler,
        bytes: &mut &[u8],
        handle: &mut impl FnMut(&mut Calls, Input<'_>),
    ) -> Result<(), LinkFault> {
        loop {
            let max = match self.state {
                State::AwaitingHello | State::AwaitingAuth { .. } => FRAME_BYTES_OPENING,
                State::Ready => self.settings.frame_bytes_max,
                State::Ended => return Ok(()),
            };
            let Some(frame) = assembler.next(bytes, max)? else { return Ok(()) };
            let Some((member, body)) = Envelope::decode(frame)?.member else { continue };
            match (&self.state, member) {
                (State::AwaitingHello, to_service::HELLO) => self.hello(body)?,
                (State::AwaitingAuth { .. }, to_service::AUTH) => {
                    self.auth(body)?;
                    handle(&mut self.calls, Input::Ready);
                }
                (State::Ready, to_service::CALL) => self.call(body, handle)?,
                (State::Ready, _) => self.other(member, body, handle)?,
                (_, to_service::ERROR) => return Err(told(body)),
                _ => return Err(LinkFault::Unexpected(member)),
            }
        }
    }

    fn hello(&mut self, body: &[u8]) -> Result<(), LinkFault> {
        let hello = v1::LinkHello::decode(body).map_err(|_| LinkFault::Malformed(to_service::HELLO))?;
        if hello.version_min > VERSION || hello.version_max < VERSION {
            return Err(LinkFault::Version);
        }
        if hello.service != self.settings.service {
            return Err(LinkFault::WrongService(hello.service.chars().take(NAME_BYTES).collect()));
        }
        if hello.frame_bytes_max > 0 {
            self.calls.gateway_frame_max = (hello.frame_bytes_max as usize).min(FRAME_BYTES_CEILING);
        }
        let nonce = self.nonce;
        let proof = match &self.settings.key {
            Some(_) if hello.nonce.len() < NONCE_BYTES => return Err(LinkFault::Proof),
            Some(key) => facts(&self.settings, &hello, &nonce).prove(key, Prover::Service).to_vec(),
            None => Vec::new(),
        };
        let ack = v1::LinkHelloAck {
            version: VERSION,
            service: self.settings.service.clone(),
            instance_id: self.settings.instance_id.clone(),
            nonce: nonce.to_vec().into(),
            proof: proof.into(),
            frame_bytes_max: u32::try_from(self.settings.frame_bytes_max).unwrap_or(u32::MAX),
            view: Some(self.view),
        };
        self.calls.put(to_gateway::HELLO_ACK, &ack);
        self.told = self.view;
        self.bound = Bound::new(self.view.outstanding_max);
        self.state = State::AwaitingAuth { hello: Box::new(hello), nonce };
        Ok(())
    }

    fn auth(&mut self, body: &[u8]) -> Result<(), LinkFault> {
        let auth = v1::LinkAuth::decode(body).map_err(|_| LinkFault::Malformed(to_service::AUTH))?;
        if let (Some(key), State::AwaitingAuth { hello, nonce }) = (&self.settings.key, &self.state)
            && !facts(&self.settings, hello, nonce).verify(key, Prover::Gateway, &auth.proof)
        {
            return Err(LinkFault::Proof);
        }
        if let State::AwaitingAuth { hello, .. } = std::mem::replace(&mut self.state, State::Ready) {
            self.peer = Some(Peer {
                gateway: GatewayKey { gateway_id: hello.gateway_id.into(), boot_id: hello.boot_id },
                pushes_max: hello.pushes_max,
                frame_bytes_max: self.calls.gateway_frame_max,
                bulk_of: (hello.purpose == i32::from(LinkPurpose::Bulk)).then_some(hello.main_nonce),
                nonce: hello.nonce,
            });
        }
        if self.is_bulk() {
            // Its main link speaks for the pair.
            self.calls.main_frame_max = usize::MAX;
            // The gateway keeps the bound of the pair.
            self.bound = Bound::new(0);
            return Ok(());
        }
        self.tell_view();
        if self.settings.wants_presence {
            self.subscribe_presence();
        }
        Ok(())
    }

    fn call(&mut self, body: &[u8], handle: &mut impl FnMut(&mut Calls, Input<'_>)) -> Result<(), LinkFault> {
        let call = CallView::decode(body).map_err(|_| LinkFault::Malformed(to_service::CALL))?;
        if !self.bound.admits(self.calls.open()) {
            self.calls.refuse(call.call_id, Code::ResourceExhausted, Reason::ServiceOverloaded);
        } else if !self.calls.begin(call.call_id) {
            return Err(LinkFault::Unexpected(to_service::CALL));
        } else {
            handle(&mut self.calls, Input::Call(call));
        }
        Ok(())
    }

    fn other(
        &mut self,
        member: u32,
        body: &[u8],
        handle: &mut impl FnMut(&mut Calls, Input<'_>),
    ) -> Result<(), LinkFault> {
        let malformed = |_| LinkFault::Malformed(member);
        match member {
            to_service::CANCEL => {
                let cancel = v1::CancelCall::decode(body).map_err(malformed)?;
                if self.calls.cancel(cancel.call_id) {
                    handle(&mut self.calls, Input::Cancel(cancel.call_id));
                }
            }
            to_service::PING => {
                let ping = v1::LinkPing::decode(body).map_err(malformed)?;
                self.calls.put(to_gateway::PONG, &v1::LinkPong { nonce: ping.nonce, view: Some(self.view) });
            }
            to_service::PONG => {
                let pong = v1::LinkPong::decode(body).map_err(malformed)?;
                self.bound.heard(pong.nonce);
            }
            to_service::PUSH_RESULT => {
                let result =
                    bounded::decode::<v1::PushResult>(body).map_err(|_| LinkFault::Malformed(member))?;
                handle(&mut self.calls, Input::PushResult(&result));
            }
            to_service::PUSH_RECEIPT => {
                let receipt = v1::PushReceipt::decode(body).map_err(malformed)?;
                handle(&mut self.calls, Input::PushReceipt(&receipt));
            }
            to_service::SESSION_CHECK => {
                let check =
                    bounded::decode::<v1::SessionCheck>(body).map_err(|_| LinkFault::Malformed(member))?;
                handle(&mut self.calls, Input::SessionCheck(&check));
            }
            to_service::PRESENCE_EVENT => {
                let event = v1::PresenceEvent::decode(body).map_err(malformed)?;
                handle(&mut self.calls, Input::PresenceEvent(&event));
            }
            to_service::PRESENCE_SNAPSHOT => {
                let bracket = v1::PresenceSnapshot::decode(body).map_err(malformed)?;
                handle(&mut self.calls, Input::PresenceSnapshot(&bracket));
            }
            to_service::NOTICE => {
                let notice = v1::LinkNotice::decode(body).map_err(malformed)?;
                handle(&mut self.calls, Input::Notice(&notice));
            }
            to_service::DRAIN => {
                v1::LinkDrain::decode(body).map_err(malformed)?;
                handle(&mut self.calls, Input::Drain);
            }
            to_service::ERROR => return Err(told(body)),
            to_service::HELLO | to_service::AUTH => return Err(LinkFault::Unexpected(member)),
            // Answers to what this kit does not ask for, and members of newer gateways.
            _ => {}
        }
        Ok(())
    }

    /// Ends the link: the output has a final LinkError then, is to be sent, and the connection closed.
    pub fn end(&mut self, fault: &LinkFault) {
        self.state = State::Ended;
        // Nothing follows a final LinkError, and nobody waits for these any more.
        self.calls.forget_all();
        if !matches!(fault, LinkFault::Told(_)) {
            let (code, reason) = fault.wire();
            let message = fault.to_string();
            self.calls.put(
                to_gateway::ERROR,
                &v1::LinkError { status: code.to_wire(), reason: reason.into(), message },
            );
        }
    }

    /// Whether it is a bulk link, for the large frames of another one.
    pub fn is_bulk(&self) -> bool {
        self.peer.as_ref().is_some_and(|peer| peer.bulk_of.is_some())
    }

    /// Tells the gateway to send no new calls here. A bulk link ends with its main link.
    pub fn drain(&mut self, deadline: Duration) {
        self.draining = true;
        self.view = view::bounded(self.view, true);
        if self.is_ready() && !self.is_bulk() {
            // It says the same.
            self.told.state = self.view.state;
            let deadline_ms = u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX);
            self.calls.put(to_gateway::DRAIN, &v1::LinkDrain { deadline_ms });
        }
    }

    /// How the service sees itself from now on; the gateway is told at once, if that is news.
    pub fn set_view(&mut self, view: v1::ServiceView) {
        self.view = view::bounded(view, self.draining);
        self.tell_view();
    }

    fn tell_view(&mut self) {
        if self.is_ready() && self.view != self.told && !self.is_bulk() {
            self.told = self.view;
            self.ping = self.ping.wrapping_add(1);
            self.bound.told(self.view.outstanding_max, self.ping);
            let ping = v1::LinkPing { nonce: self.ping, view: Some(self.view) };
            self.calls.put(to_gateway::PING, &ping);
        }
    }

    /// Sends an encoded ServicePush; `false`: the link is not ready, or the push fits into no frame of the gateway's.
    pub fn push(&mut self, push: &[u8]) -> bool {
        let fits = self.is_ready() && self.calls.fits(to_gateway::PUSH, &Encoded(push));
        if fits {
            self.calls.put(to_gateway::PUSH, &Encoded(push));
        }
        fits
    }

    /// Answers an [`Input::SessionCheck`].
    pub fn verdict(&mut self, verdict: &v1::SessionVerdict) {
        if self.is_ready() {
            self.calls.put(to_gateway::SESSION_VERDICT, verdict);
        }
    }

    /// Asks anew to be told who is online; the gateway begins anew, if this is the link that it has chosen.
    pub fn subscribe_presence(&mut self) {
        if self.is_ready() && !self.is_bulk() {
            self.calls.put(to_gateway::PRESENCE_SUBSCRIBE, &v1::PresenceSubscribe {});
        }
    }

    /// Who is at the other end; `None` until calls can come.
    pub fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    /// When [`LinkCore::timers`] has something to do.
    pub fn next_deadline(&self) -> Mono {
        match self.state {
            State::AwaitingHello | State::AwaitingAuth { .. } => self.opened + self.settings.opening_timeout,
            State::Ready => self.heard + self.settings.heartbeat.saturating_mul(2),
            State::Ended => Mono::NEVER,
        }
    }

    /// Looks at the deadline.
    ///
    /// # Errors
    /// [`LinkFault`]: send the output, then close.
    pub fn timers(&mut self, now: Mono) -> Result<(), LinkFault> {
        if now < self.next_deadline() {
            return Ok(());
        }
        let fault = match self.state {
            State::Ready => LinkFault::Silence,
            _ => LinkFault::OpeningTimeout,
        };
        self.end(&fault);
        Err(fault)
    }

    /// The calls that have no reply.
    pub fn calls(&mut self) -> &mut Calls {
        &mut self.calls
    }

    /// Bytes to send; whoever has sent some drains them from the front.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.calls.output
    }

    /// The largest payload of a reply that the gateway takes, in bytes.
    pub fn reply_bytes_max(&self) -> usize {
        self.calls.gateway_frame_max.saturating_sub(FRAME_OVERHEAD)
    }

    /// Whether calls can come.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready)
    }
}

/// A message that was encoded before.
struct Encoded<'a>(&'a [u8]);

impl Body for Encoded<'_> {
    fn body_len(&self) -> usize {
        self.0.len()
    }
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0);
    }
}

fn told(body: &[u8]) -> LinkFault {
    match v1::LinkError::decode(body) {
        Ok(error) => LinkFault::Told(error.message.chars().take(256).collect()),
        Err(_) => LinkFault::Malformed(to_service::ERROR),
    }
}

fn facts<'a>(settings: &'a LinkSettings, hello: &'a v1::LinkHello, nonce: &'a [u8]) -> LinkFacts<'a> {
    LinkFacts {
        version: VERSION,
        gateway_id: &hello.gateway_id,
        boot_id: hello.boot_id,
        service: &settings.service,
        instance_id: &settings.instance_id,
        gateway_nonce: &hello.nonce,
        service_nonce: nonce,
        purpose: hello.purpose,
    }
}
