//! One link from a gateway, without I/O.
//!
//! ```text
//! AwaitingHello ── Hello: HelloAck sent ──► AwaitingAuth ── Auth, proof good ──► Ready
//!       └── wrong service, no version, timeout ──┴── wrong proof, call before it, timeout ──► LinkFault
//! ```
//!
//! The caller passes `now` and the bytes that arrived, and writes out [`LinkCore::output`]. A [`LinkFault`] ends the
//! link: what is in the output (a final LinkError) is to be sent, then the connection closed.

use moorgate_proto::VERSION;
use moorgate_proto::codec::{Assembler, FrameError, LENGTH_BYTES, frame_len, put_frame};
use moorgate_proto::envelope::member::{to_gateway, to_service};
use moorgate_proto::envelope::{Envelope, EnvelopeError, Numbers};
use moorgate_proto::limits::{FRAME_BYTES_CEILING, FRAME_BYTES_OPENING, FRAME_OVERHEAD, NAME_BYTES};
use moorgate_proto::proof::{LinkFacts, LinkKey, NONCE_BYTES, Prover};
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{self, Execution, Reason, service_view};
use moorgate_proto::view::{Body, CallView, ReplyView};
use prost::Message;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

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
        }
    }
}

/// Why a link ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkFault {
    /// No frame can be cut from what the gateway sends.
    Frame(FrameError),
    /// A frame that is no frame of ours.
    Envelope(EnvelopeError),
    /// A member that cannot be decoded, by its number.
    Malformed(u32),
    /// A member that is not legal now, by its number.
    Unexpected(u32),
    /// The gateway speaks no version that is spoken here.
    Version,
    /// The gateway expects another service.
    WrongService(String),
    /// The gateway's proof does not hold.
    Proof,
    /// The opening took too long.
    OpeningTimeout,
    /// Silence for twice the heartbeat.
    Silence,
    /// The gateway sent a final error.
    Told(String),
}

impl LinkFault {
    fn wire(&self) -> (Code, Reason) {
        match self {
            LinkFault::Proof => (Code::Unauthenticated, Reason::ProofInvalid),
            LinkFault::Version => (Code::FailedPrecondition, Reason::VersionUnsupported),
            LinkFault::WrongService(_) => (Code::FailedPrecondition, Reason::IdentityMismatch),
            LinkFault::OpeningTimeout => (Code::DeadlineExceeded, Reason::HandshakeTimeout),
            LinkFault::Silence => (Code::DeadlineExceeded, Reason::HeartbeatTimeout),
            LinkFault::Frame(FrameError::TooLarge { .. }) => (Code::InvalidArgument, Reason::FrameTooLarge),
            LinkFault::Frame(FrameError::Empty) => (Code::InvalidArgument, Reason::FrameEmpty),
            LinkFault::Envelope(_) | LinkFault::Malformed(_) => {
                (Code::InvalidArgument, Reason::FrameMalformed)
            }
            LinkFault::Unexpected(_) | LinkFault::Told(_) => {
                (Code::InvalidArgument, Reason::ProtocolViolation)
            }
        }
    }
}

impl std::fmt::Display for LinkFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LinkFault::Frame(error) => error.fmt(f),
            LinkFault::Envelope(error) => error.fmt(f),
            LinkFault::Malformed(member) => write!(f, "member {member} is not the message it should be"),
            LinkFault::Unexpected(member) => write!(f, "member {member} is not legal now"),
            LinkFault::Version => f.write_str("no version in common"),
            LinkFault::WrongService(service) => write!(f, "service `{}` is not here", service.escape_debug()),
            LinkFault::Proof => f.write_str("the gateway's proof does not hold: are the keys the same?"),
            LinkFault::OpeningTimeout => f.write_str("the opening took too long"),
            LinkFault::Silence => f.write_str("silence for twice the heartbeat interval"),
            LinkFault::Told(message) => write!(f, "the gateway says: {}", message.escape_debug()),
        }
    }
}

impl std::error::Error for LinkFault {}

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
}

/// Why a reply was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyError {
    /// The call has its reply, or was never given on this link.
    NotOpen,
}

/// The calls of one link that have no reply, and the bytes to send.
#[derive(Debug)]
pub struct Calls {
    open: HashSet<u64, foldhash::fast::FixedState>,
    output: Vec<u8>,
    /// The largest frame that the gateway takes, in bytes.
    gateway_frame_max: usize,
}

impl Calls {
    /// Answers a call. A reply that fits into no frame of the gateway's would cost the link: it is replaced by one that
    /// says so.
    ///
    /// # Errors
    /// [`ReplyError::NotOpen`] for a second reply.
    pub fn reply(&mut self, reply: &ReplyView<'_>) -> Result<(), ReplyError> {
        if !self.open.remove(&reply.call_id) {
            return Err(ReplyError::NotOpen);
        }
        let frame_bytes = frame_len(Numbers::NONE, to_gateway::REPLY, reply.body_len());
        if frame_bytes.saturating_sub(LENGTH_BYTES) <= self.gateway_frame_max {
            self.put(to_gateway::REPLY, reply);
        } else {
            let too_large = ReplyView {
                call_id: reply.call_id,
                status: Code::ResourceExhausted.to_wire(),
                reason: Reason::ReplyTooLarge.into(),
                execution: reply.execution,
                message: "the reply is larger than the gateway's largest frame",
                ..ReplyView::default()
            };
            self.put(to_gateway::REPLY, &too_large);
        }
        Ok(())
    }

    /// Calls without a reply.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Whether a call has no reply.
    pub fn is_open(&self, call_id: u64) -> bool {
        self.open.contains(&call_id)
    }

    fn put(&mut self, member: u32, body: &impl Body) {
        put_frame(&mut self.output, Numbers::NONE, member, body);
    }

    /// Refuses a call that was never run.
    fn refuse(&mut self, call_id: u64, code: Code, reason: Reason) {
        let reply = ReplyView {
            call_id,
            status: code.to_wire(),
            reason: reason.into(),
            execution: Execution::NotExecuted.into(),
            ..ReplyView::default()
        };
        self.put(to_gateway::REPLY, &reply);
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
            settings,
            state: State::AwaitingHello,
            nonce,
            opened: now,
            heard: now,
            assembler: Assembler::default(),
            view,
            calls: Calls {
                open: HashSet::default(),
                output: Vec::new(),
                gateway_frame_max: FRAME_BYTES_CEILING,
            },
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
        let mut assembler = std::mem::take(&mut self.assembler);
        let result = self.frames(now, &mut assembler, &mut bytes, handle);
        self.assembler = assembler;
        result.inspect_err(|fault| self.end(fault))
    }

    fn frames(
        &mut self,
        now: Mono,
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
            self.heard = now;
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
        self.state = State::Ready;
        Ok(())
    }

    fn call(&mut self, body: &[u8], handle: &mut impl FnMut(&mut Calls, Input<'_>)) -> Result<(), LinkFault> {
        let call = CallView::decode(body).map_err(|_| LinkFault::Malformed(to_service::CALL))?;
        let max = self.settings.outstanding_max as usize;
        if max > 0 && self.calls.open.len() >= max {
            self.calls.refuse(call.call_id, Code::ResourceExhausted, Reason::ServiceOverloaded);
        } else if !self.calls.open.insert(call.call_id) {
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
                if self.calls.is_open(cancel.call_id) {
                    handle(&mut self.calls, Input::Cancel(cancel.call_id));
                }
            }
            to_service::PING => {
                let ping = v1::LinkPing::decode(body).map_err(malformed)?;
                self.calls.put(to_gateway::PONG, &v1::LinkPong { nonce: ping.nonce, view: Some(self.view) });
            }
            to_service::DRAIN => {
                v1::LinkDrain::decode(body).map_err(malformed)?;
                handle(&mut self.calls, Input::Drain);
            }
            to_service::ERROR => return Err(told(body)),
            to_service::HELLO | to_service::AUTH => return Err(LinkFault::Unexpected(member)),
            // Answers to what this kit does not send, and members of newer gateways.
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, fault: &LinkFault) {
        self.state = State::Ended;
        // Nothing follows a final LinkError, and nobody waits for these any more.
        self.calls.open.clear();
        if !matches!(fault, LinkFault::Told(_)) {
            let (code, reason) = fault.wire();
            let message = fault.to_string();
            self.calls.put(
                to_gateway::ERROR,
                &v1::LinkError { status: code.to_wire(), reason: reason.into(), message },
            );
        }
    }

    /// Tells the gateway to send no new calls here.
    pub fn drain(&mut self, deadline: Duration) {
        self.view.state = service_view::State::Draining.into();
        if matches!(self.state, State::Ready) {
            let deadline_ms = u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX);
            self.calls.put(to_gateway::DRAIN, &v1::LinkDrain { deadline_ms });
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Mono = Mono::from_nanos(1_000_000_000);

    fn settings(key: bool) -> Arc<LinkSettings> {
        let key = key.then(|| LinkKey::new(&[5; 16]).unwrap());
        Arc::new(LinkSettings { key, outstanding_max: 2, ..LinkSettings::new("echo") })
    }

    fn frame(member: u32, body: &impl Body) -> Vec<u8> {
        let mut out = Vec::new();
        put_frame(&mut out, Numbers::NONE, member, body);
        out
    }

    fn hello(service: &str) -> v1::LinkHello {
        v1::LinkHello {
            version_min: 1,
            version_max: 1,
            gateway_id: "gw".into(),
            boot_id: 9,
            service: service.into(),
            nonce: vec![1; NONCE_BYTES].into(),
            ..Default::default()
        }
    }

    /// What the link says, as members.
    fn said(core: &mut LinkCore) -> Vec<(u32, Vec<u8>)> {
        let output = std::mem::take(core.output());
        let mut rest = &output[..];
        let mut assembler = Assembler::default();
        let mut found = Vec::new();
        while let Some(frame) = assembler.next(&mut rest, 1 << 20).unwrap() {
            let (member, body) = Envelope::decode(frame).unwrap().member.unwrap();
            found.push((member, body.to_vec()));
        }
        found
    }

    fn ready() -> LinkCore {
        let mut core = LinkCore::new(NOW, settings(false), [2; NONCE_BYTES]);
        let mut bytes = frame(to_service::HELLO, &hello("echo"));
        bytes.extend(frame(to_service::AUTH, &v1::LinkAuth::default()));
        core.received(NOW, &bytes, &mut |_, _| {}).unwrap();
        assert!(core.is_ready());
        core.output().clear();
        core
    }

    fn call(id: u64) -> Vec<u8> {
        frame(to_service::CALL, &CallView { call_id: id, command: 1, payload: b"hi", ..Default::default() })
    }

    // spec: L-5, L-6, L-8
    #[test]
    fn proofs_are_mutual() {
        let settings = settings(true);
        for good in [true, false] {
            let mut core = LinkCore::new(NOW, settings.clone(), [2; NONCE_BYTES]);
            let hello = hello("echo");
            core.received(NOW, &frame(to_service::HELLO, &hello), &mut |_, _| {}).unwrap();
            let ack = v1::LinkHelloAck::decode(&said(&mut core)[0].1[..]).unwrap();
            let facts = facts(&settings, &hello, &[2; NONCE_BYTES]);
            let key = settings.key.as_ref().unwrap();
            assert!(facts.verify(key, Prover::Service, &ack.proof));
            let mut proof = facts.prove(key, Prover::Gateway).to_vec();
            proof[0] ^= u8::from(!good);
            let auth = frame(to_service::AUTH, &v1::LinkAuth { proof: proof.into() });
            let result = core.received(NOW, &[auth, call(1)].concat(), &mut |_, _| {});
            assert_eq!(result, if good { Ok(()) } else { Err(LinkFault::Proof) });
            assert_eq!(core.calls().open(), usize::from(good), "no call runs without a proof");
        }
    }

    // spec: L-2, L-8, L-17
    #[test]
    fn a_call_before_auth_and_a_wrong_service_end_the_link() {
        let mut core = LinkCore::new(NOW, settings(true), [2; NONCE_BYTES]);
        assert_eq!(
            core.received(NOW, &call(1), &mut |_, _| {}),
            Err(LinkFault::Unexpected(to_service::CALL))
        );
        assert_eq!(said(&mut core)[0].0, to_gateway::ERROR);
        assert_eq!(core.received(NOW, &call(1), &mut |_, _| panic!("ended")), Ok(()));
        let mut core = LinkCore::new(NOW, settings(true), [2; NONCE_BYTES]);
        let result = core.received(NOW, &frame(to_service::HELLO, &hello("chat")), &mut |_, _| {});
        assert_eq!(result, Err(LinkFault::WrongService("chat".into())));
    }

    // spec: F-9, L-22, L-39, L-47
    #[test]
    fn each_call_is_answered_once() {
        let mut core = ready();
        let mut seen = Vec::new();
        let bytes = [call(1), call(2), call(3)].concat();
        for byte in bytes {
            let mut handle = |_: &mut Calls, input: Input<'_>| {
                if let Input::Call(call) = input {
                    seen.push(call.call_id);
                }
            };
            core.received(NOW, &[byte], &mut handle).unwrap();
        }
        assert_eq!(seen, [1, 2]);
        let refused = ReplyView::decode(&said(&mut core)[0].1).unwrap().call_id;
        assert_eq!(refused, 3, "beyond the bound");
        let reply = ReplyView { call_id: 1, ..Default::default() };
        assert_eq!(core.calls().reply(&reply), Ok(()));
        assert_eq!(core.calls().reply(&reply), Err(ReplyError::NotOpen));
        assert_eq!(core.calls().reply(&ReplyView { call_id: 77, ..reply }), Err(ReplyError::NotOpen));
        assert_eq!(said(&mut core).len(), 1);
    }

    // spec: L-18, L-33, L-42
    #[test]
    fn pings_cancels_and_drains_are_passed_on() {
        let mut core = ready();
        let mut bytes = [call(1), frame(to_service::CANCEL, &v1::CancelCall { call_id: 1 })].concat();
        bytes.extend(frame(to_service::CANCEL, &v1::CancelCall { call_id: 8 }));
        bytes.extend(frame(to_service::PING, &v1::LinkPing { nonce: 7, view: None }));
        bytes.extend(frame(to_service::DRAIN, &v1::LinkDrain { deadline_ms: 1 }));
        bytes.extend(frame(63, &v1::LinkDrain { deadline_ms: 1 }));
        let mut inputs = Vec::new();
        core.received(NOW, &bytes, &mut |_, input| inputs.push(format!("{input:?}"))).unwrap();
        assert_eq!(inputs[1..], ["Cancel(1)", "Drain"]);
        let (member, pong) = &said(&mut core)[0];
        assert_eq!((*member, v1::LinkPong::decode(&pong[..]).unwrap().nonce), (to_gateway::PONG, 7));
    }

    // spec: L-9, L-16, L-44
    #[test]
    fn garbage_and_silence_end_the_link() {
        let mut core = ready();
        assert!(core.received(NOW, &[0, 0, 0, 0], &mut |_, _| {}).is_err());
        let mut core = ready();
        assert_eq!(core.timers(NOW + Duration::from_secs(29)), Ok(()));
        assert_eq!(core.timers(NOW + Duration::from_secs(30)), Err(LinkFault::Silence));
        let mut core = LinkCore::new(NOW, settings(false), [2; NONCE_BYTES]);
        assert_eq!(core.timers(NOW + Duration::from_secs(5)), Err(LinkFault::OpeningTimeout));
    }
}
