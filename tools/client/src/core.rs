//! One session over one connection, without I/O.
//!
//! ```text
//! Idle ── connected: Hello ──► Opening ── Welcome ──► Open ── GoAway ──► GoingAway (no new requests)
//!                                 │                     │ bye              │
//!                                 ▼                     ▼                  ▼
//!                               Ended ◄── Error, ByeAck, disconnected, silence, a broken contract
//! ```
//!
//! The caller passes `now`, the bytes that arrived, and a visitor for the [`Event`]s; it writes out
//! [`ClientCore::output`]. An event that was visited counts as taken by the application, and is acknowledged: with the
//! next request for free, else within [`ACK_DELAY`].
//!
//! Requests are numbered as they are made and sent in that order, never more at once than the gateway allows; those
//! that have to wait are kept, up to [`Options::waiting_max`].

use moorgate_proto::VERSION;
use moorgate_proto::codec::{Assembler, FrameError, put_bare_frame, put_frame};
use moorgate_proto::envelope::member::{client, gateway};
use moorgate_proto::envelope::{Envelope, EnvelopeError, Numbers};
use moorgate_proto::limits::{FRAME_BYTES_OPENING, FRAME_OVERHEAD};
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{self, Execution};
use moorgate_proto::view::{Body, PushView, RequestView, ResponseView};
use prost::Message;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// What came is acknowledged after this time at the latest.
pub const ACK_DELAY: Duration = Duration::from_millis(500);

/// What a client says of itself; shared by all its connections.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which application this is.
    pub application: String,
    /// Its version.
    pub app_version: String,
    /// For example `ios`, `linux`.
    pub platform: String,
    /// Stable for one installation.
    pub device_id: String,
    /// Wished heartbeat interval; zero: the gateway's.
    pub heartbeat: Duration,
    /// The largest frame that is taken, in bytes; 0: the gateway's.
    pub frame_bytes_max: u32,
    /// From the connection to Welcome.
    pub opening_timeout: Duration,
    /// Requests that may wait for a slot.
    pub waiting_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            application: String::new(),
            app_version: env!("CARGO_PKG_VERSION").to_owned(),
            platform: std::env::consts::OS.to_owned(),
            device_id: String::new(),
            heartbeat: Duration::ZERO,
            frame_bytes_max: 0,
            opening_timeout: Duration::from_secs(10),
            waiting_max: 1024,
        }
    }
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub struct RequestOptions<'a> {
    /// What is asked.
    pub command: u32,
    /// The command's version.
    pub version: u32,
    /// For the gateway to answer; zero: the route's own.
    pub timeout: Duration,
    /// Services deduplicate by it; at most 64 bytes.
    pub idempotency_key: &'a [u8],
}

impl RequestOptions<'_> {
    /// A request of this command, with the defaults.
    pub fn command(command: u32) -> RequestOptions<'static> {
        RequestOptions { command, version: 1, timeout: Duration::ZERO, idempotency_key: &[] }
    }
}

/// Names a request within its session: its number in the upward stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Why a request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There is no session (yet, or any more), or the gateway goes away.
    NotOpen,
    /// Too many requests wait for a slot.
    Full,
    /// The payload fits into no frame that the gateway takes.
    TooLarge,
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// The gateway said why.
    Error(v1::Error),
    /// After [`ClientCore::bye`].
    Bye,
    /// The connection was lost.
    Lost,
    /// No Welcome in time.
    OpeningTimeout,
    /// The gateway was silent for twice the heartbeat interval.
    Silence,
    /// The gateway broke the contract.
    Fault(Fault),
}

/// How a gateway broke the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No frame can be cut from what it sends.
    Frame(FrameError),
    /// A frame that is no frame of ours.
    Envelope(EnvelopeError),
    /// A member that cannot be decoded, by its number.
    Malformed(u32),
    /// A member that is not legal now, by its number.
    Unexpected(u32),
    /// A number is missing in the downward stream.
    SequenceGap {
        /// The next number.
        expected: u64,
        /// The number that came.
        got: u64,
    },
    /// It chose a version that was not offered.
    Version(u32),
    /// A Response to a request that is not open.
    UnknownRequest(u64),
}

impl From<FrameError> for Fault {
    fn from(error: FrameError) -> Fault {
        Fault::Frame(error)
    }
}

impl From<EnvelopeError> for Fault {
    fn from(error: EnvelopeError) -> Fault {
        Fault::Envelope(error)
    }
}

/// What happens to a session, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// The session is open.
    Welcomed(Box<v1::Welcome>),
    /// The answer to a request.
    Response(RequestId, ResponseView<'a>),
    /// The session ended before the answer came.
    Unanswered(RequestId, Execution),
    /// A push.
    Push(PushView<'a>),
    /// Pushes that will not come.
    Gap(v1::Gap),
    /// No new requests; reconnect as it says once all is answered.
    GoingAway(Box<v1::GoAway>),
    /// For the log.
    Notice(Box<v1::Notice>),
    /// The answer to an in-band refresh.
    Authenticated(Box<v1::Authenticated>),
    /// The end; nothing comes after it.
    Ended(End),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Opening,
    Open,
    GoingAway,
    Leaving,
    Ended,
}

/// What waits for a slot: its number is its place.
#[derive(Debug)]
enum Waiting {
    Request(Box<[u8]>),
    /// It was cancelled before it was sent.
    Cancelled,
}

/// One session. See the module's page.
#[derive(Debug)]
pub struct ClientCore {
    options: Arc<Options>,
    state: State,
    assembler: Assembler,
    output: Vec<u8>,
    /// The last number given to a request.
    numbered: u64,
    /// Sent and unanswered, by rising number.
    open: VecDeque<u64>,
    waiting: VecDeque<Waiting>,
    /// The highest down_seq that came, and that was acknowledged.
    taken: u64,
    acknowledged: u64,
    ack_due: Mono,
    in_flight_max: usize,
    window_max: u64,
    frame_bytes_max: usize,
    heartbeat: Duration,
    heard: Mono,
    /// When the first ping since then was sent; `NEVER`: none was.
    pinged: Mono,
    /// When something was last sent; in `Opening` the deadline's start.
    spoke: Mono,
}

impl ClientCore {
    /// A session to be.
    pub fn new(options: Arc<Options>) -> ClientCore {
        ClientCore {
            options,
            state: State::Idle,
            assembler: Assembler::default(),
            output: Vec::new(),
            numbered: 0,
            open: VecDeque::new(),
            waiting: VecDeque::new(),
            taken: 0,
            acknowledged: 0,
            ack_due: Mono::NEVER,
            in_flight_max: 0,
            window_max: 0,
            frame_bytes_max: 0,
            heartbeat: Duration::ZERO,
            heard: Mono::ZERO,
            pinged: Mono::NEVER,
            spoke: Mono::ZERO,
        }
    }

    /// The connection stands: says Hello. An empty token opens an anonymous session.
    pub fn connected(&mut self, now: Mono, access_token: &str) {
        let options = &self.options;
        let hello = v1::Hello {
            version_min: VERSION,
            version_max: VERSION,
            application: options.application.clone(),
            app_version: options.app_version.clone(),
            platform: options.platform.clone(),
            device_id: options.device_id.clone(),
            heartbeat_ms: millis(options.heartbeat),
            frame_bytes_max: options.frame_bytes_max,
            access_token: access_token.to_owned(),
            ..v1::Hello::default()
        };
        put_frame(&mut self.output, Numbers::NONE, client::HELLO, &hello);
        self.state = State::Opening;
        (self.heard, self.spoke) = (now, now);
    }

    /// Makes a request; it is sent as soon as there is a slot.
    ///
    /// # Errors
    /// [`Refused`]: it was not taken.
    pub fn request(
        &mut self,
        now: Mono,
        options: &RequestOptions<'_>,
        payload: &[u8],
    ) -> Result<RequestId, Refused> {
        if self.state != State::Open {
            return Err(Refused::NotOpen);
        }
        if payload.len().saturating_add(FRAME_OVERHEAD) > self.frame_bytes_max {
            return Err(Refused::TooLarge);
        }
        let view = RequestView {
            command: options.command,
            version: options.version,
            timeout_ms: millis(options.timeout),
            idempotency_key: options.idempotency_key,
            payload,
            ..RequestView::default()
        };
        let id = self.numbered.saturating_add(1);
        if self.waiting.is_empty() && self.open.len() < self.in_flight_max {
            self.numbered = id;
            self.send(now, id, &view);
        } else if self.waiting.len() < self.options.waiting_max {
            self.numbered = id;
            let mut body = Vec::with_capacity(view.body_len());
            view.put(&mut body);
            self.waiting.push_back(Waiting::Request(body.into_boxed_slice()));
        } else {
            return Err(Refused::Full);
        }
        Ok(RequestId(id))
    }

    fn send(&mut self, now: Mono, id: u64, body: &impl Body) {
        self.open.push_back(id);
        self.put(now, id, client::REQUEST, body);
    }

    /// Writes a frame; every frame acknowledges what was taken.
    fn put(&mut self, now: Mono, up_seq: u64, member: u32, body: &impl Body) {
        put_frame(&mut self.output, Numbers { seq: up_seq, ack: self.taken }, member, body);
        self.spoken(now);
    }

    fn spoken(&mut self, now: Mono) {
        self.spoke = now;
        self.acknowledged = self.taken;
        self.ack_due = Mono::NEVER;
    }

    /// Asks for a request not to be run, or to be stopped; its one answer still comes.
    pub fn cancel(&mut self, now: Mono, id: RequestId) {
        if self.state == State::Ended {
            return;
        }
        let sent = self.numbered.saturating_sub(self.waiting.len() as u64);
        if id.0 > sent {
            let at = usize::try_from(id.0.saturating_sub(sent).saturating_sub(1)).unwrap_or(usize::MAX);
            if let Some(waiting) = self.waiting.get_mut(at) {
                *waiting = Waiting::Cancelled;
            }
        } else if self.open.binary_search(&id.0).is_ok() {
            self.put(now, 0, client::CANCEL, &v1::Cancel { up_seq: id.0 });
        }
    }

    /// Leaves: the session is to be kept for `keep_for`, or ended now.
    pub fn bye(&mut self, now: Mono, keep_for: Duration) {
        if matches!(self.state, State::Open | State::GoingAway) {
            self.put(now, 0, client::BYE, &v1::Bye { keep_for_ms: millis(keep_for) });
            self.state = State::Leaving;
        }
    }

    /// Bytes from the connection; `visit` gets what happened. Whether the session goes on.
    pub fn received(
        &mut self,
        now: Mono,
        mut bytes: &[u8],
        visit: &mut impl FnMut(&mut ClientCore, Event<'_>),
    ) -> bool {
        let mut assembler = std::mem::take(&mut self.assembler);
        let result = self.frames(now, &mut assembler, &mut bytes, visit);
        self.assembler = assembler;
        if let Err(fault) = result {
            self.end(End::Fault(fault), visit);
        }
        self.pump(now);
        self.state != State::Ended
    }

    fn frames(
        &mut self,
        now: Mono,
        assembler: &mut Assembler,
        bytes: &mut &[u8],
        visit: &mut impl FnMut(&mut ClientCore, Event<'_>),
    ) -> Result<(), Fault> {
        loop {
            let max = match self.state {
                State::Opening => FRAME_BYTES_OPENING,
                State::Open | State::GoingAway | State::Leaving => self.frame_bytes_max,
                State::Idle | State::Ended => return Ok(()),
            };
            let Some(frame) = assembler.next(bytes, max)? else { return Ok(()) };
            (self.heard, self.pinged) = (now, Mono::NEVER);
            let envelope = Envelope::decode(frame)?;
            if envelope.numbers.seq != 0 {
                let expected = self.taken.saturating_add(1);
                match envelope.numbers.seq {
                    seq if seq < expected => continue,
                    seq if seq > expected => return Err(Fault::SequenceGap { expected, got: seq }),
                    seq => self.taken = seq,
                }
                self.ack_due = self.ack_due.min(now + ACK_DELAY);
            }
            if let Some((member, body)) = envelope.member {
                self.member(now, member, body, visit)?;
            }
        }
    }

    fn member(
        &mut self,
        now: Mono,
        member: u32,
        body: &[u8],
        visit: &mut impl FnMut(&mut ClientCore, Event<'_>),
    ) -> Result<(), Fault> {
        let malformed = |_| Fault::Malformed(member);
        if self.state == State::Opening && !matches!(member, gateway::WELCOME | gateway::ERROR) {
            return Err(Fault::Unexpected(member));
        }
        match member {
            gateway::RESPONSE => {
                let response = ResponseView::decode(body).map_err(|_| Fault::Malformed(member))?;
                let at = self
                    .open
                    .binary_search(&response.up_seq)
                    .map_err(|_| Fault::UnknownRequest(response.up_seq))?;
                self.open.remove(at);
                visit(self, Event::Response(RequestId(response.up_seq), response));
            }
            gateway::WELCOME => {
                let welcome = v1::Welcome::decode(body).map_err(malformed)?;
                self.welcomed(&welcome)?;
                visit(self, Event::Welcomed(Box::new(welcome)));
            }
            gateway::PUSH => {
                visit(self, Event::Push(PushView::decode(body).map_err(|_| Fault::Malformed(member))?))
            }
            gateway::GAP => visit(self, Event::Gap(v1::Gap::decode(body).map_err(malformed)?)),
            gateway::PING => {
                let ping = v1::Ping::decode(body).map_err(malformed)?;
                self.put(now, 0, client::PONG, &v1::Pong { nonce: ping.nonce });
            }
            gateway::PONG => v1::Pong::decode(body).map(|_| ()).map_err(malformed)?,
            gateway::GO_AWAY => {
                let go_away = v1::GoAway::decode(body).map_err(malformed)?;
                if self.state == State::Open {
                    self.state = State::GoingAway;
                }
                visit(self, Event::GoingAway(Box::new(go_away)));
            }
            gateway::NOTICE => {
                visit(self, Event::Notice(Box::new(v1::Notice::decode(body).map_err(malformed)?)))
            }
            gateway::AUTHENTICATED => {
                let authenticated = v1::Authenticated::decode(body).map_err(malformed)?;
                visit(self, Event::Authenticated(Box::new(authenticated)));
            }
            gateway::ERROR => {
                let error = v1::Error::decode(body).map_err(malformed)?;
                self.end(End::Error(error), visit);
            }
            gateway::BYE_ACK if self.state == State::Leaving => self.end(End::Bye, visit),
            gateway::BYE_ACK => return Err(Fault::Unexpected(member)),
            // A newer gateway's: counted if it has a number, and never answered.
            _ => {}
        }
        Ok(())
    }

    fn welcomed(&mut self, welcome: &v1::Welcome) -> Result<(), Fault> {
        if self.state != State::Opening {
            return Err(Fault::Unexpected(gateway::WELCOME));
        }
        if welcome.version != VERSION {
            return Err(Fault::Version(welcome.version));
        }
        let limits = welcome.limits.unwrap_or_default();
        self.in_flight_max = limits.in_flight_max.max(1) as usize;
        self.window_max = u64::from(limits.window_max.max(1));
        self.frame_bytes_max = (limits.frame_bytes_max as usize).max(FRAME_BYTES_OPENING);
        self.heartbeat = Duration::from_millis(u64::from(welcome.heartbeat_ms.max(1)));
        self.state = State::Open;
        Ok(())
    }

    /// Sends what waits and may go, and an acknowledgement that is due.
    fn pump(&mut self, now: Mono) {
        if !matches!(self.state, State::Open | State::GoingAway) {
            return;
        }
        while self.open.len() < self.in_flight_max {
            let id = self.numbered.saturating_sub(self.waiting.len() as u64).saturating_add(1);
            match self.waiting.pop_front() {
                Some(Waiting::Request(body)) => self.send(now, id, &Encoded(&body)),
                Some(Waiting::Cancelled) => {
                    self.open.push_back(id);
                    self.put(now, 0, client::CANCEL, &v1::Cancel { up_seq: id });
                }
                None => break,
            }
        }
        let behind = self.taken.saturating_sub(self.acknowledged);
        if behind > 0 && (behind.saturating_mul(2) >= self.window_max || now >= self.ack_due) {
            put_bare_frame(&mut self.output, Numbers { seq: 0, ack: self.taken });
            self.spoken(now);
        }
    }

    /// The connection is gone.
    pub fn disconnected(&mut self, visit: &mut impl FnMut(&mut ClientCore, Event<'_>)) {
        self.end(End::Lost, visit);
    }

    fn end(&mut self, end: End, visit: &mut impl FnMut(&mut ClientCore, Event<'_>)) {
        if matches!(self.state, State::Ended | State::Idle) {
            return;
        }
        self.state = State::Ended;
        // An Error freezes the highest number admitted: above it nothing ran.
        let admitted = match &end {
            End::Error(error) => error.admitted,
            _ => u64::MAX,
        };
        let waiting = u64::try_from(self.waiting.len()).unwrap_or(u64::MAX);
        let sent = self.numbered.saturating_sub(waiting);
        self.waiting.clear();
        for id in std::mem::take(&mut self.open).into_iter().chain(sent.saturating_add(1)..=self.numbered) {
            let execution = if id > admitted.min(sent) { Execution::NotExecuted } else { Execution::Unknown };
            visit(self, Event::Unanswered(RequestId(id), execution));
        }
        visit(self, Event::Ended(end));
    }

    /// When [`ClientCore::timers`] has something to do.
    pub fn next_deadline(&self) -> Mono {
        match self.state {
            State::Idle | State::Ended => Mono::NEVER,
            State::Opening => self.spoke + self.options.opening_timeout,
            State::Open | State::GoingAway => self.ack_due.min(self.silence_due()).min(self.ping_due()),
            // Its Bye was its last frame that counts: nothing is acknowledged any more.
            State::Leaving => self.silence_due().min(self.ping_due()),
        }
    }

    /// A gateway that has nothing to say is silent: it is lost only when it has not answered a ping.
    fn silence_due(&self) -> Mono {
        (self.heard + self.heartbeat.saturating_mul(2)).max(self.pinged + self.heartbeat)
    }

    fn ping_due(&self) -> Mono {
        let quiet_since = if self.pinged == Mono::NEVER { self.spoke.min(self.heard) } else { self.spoke };
        quiet_since + self.heartbeat
    }

    /// Looks at the deadlines. Whether the session goes on.
    pub fn timers(&mut self, now: Mono, visit: &mut impl FnMut(&mut ClientCore, Event<'_>)) -> bool {
        match self.state {
            State::Idle | State::Ended => return false,
            State::Opening if self.spoke + self.options.opening_timeout <= now => {
                self.end(End::OpeningTimeout, visit)
            }
            State::Opening => {}
            State::Open | State::GoingAway | State::Leaving => {
                if self.silence_due() <= now {
                    self.end(End::Silence, visit);
                } else if self.ping_due() <= now {
                    self.pinged = self.pinged.min(now);
                    self.put(now, 0, client::PING, &v1::Ping { nonce: now.as_nanos(), next_ms: 0 });
                }
                self.pump(now);
            }
        }
        self.state != State::Ended
    }

    /// Bytes to send; whoever has sent some drains them from the front.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Requests without an answer, those that wait included.
    pub fn unanswered(&self) -> usize {
        self.open.len().saturating_add(self.waiting.len())
    }

    /// Whether requests are taken.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether it is over.
    pub fn has_ended(&self) -> bool {
        self.state == State::Ended
    }
}

/// An encoded message, passed on as it is.
struct Encoded<'a>(&'a [u8]);

impl Body for Encoded<'_> {
    fn body_len(&self) -> usize {
        self.0.len()
    }
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0);
    }
}

/// Rounded up: zero means something else.
fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
