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
//! next request for free, else within [`ACK_DELAY`]. A visitor that hands a push on for later [holds](ClientCore::hold)
//! it, and nothing from there on is acknowledged until it is [released](ClientCore::release).
//!
//! Requests are numbered as they are made and sent in that order, never more at once than the gateway allows; those
//! that have to wait are kept, up to [`Options::waiting_max`].

mod downward;
mod event;
mod options;
#[cfg(test)]
mod tests;

pub use downward::{ACK_DELAY, Held};
pub use event::{End, Event, Fault, Refused, RequestId};
pub use options::{Options, RequestOptions};

use downward::Downward;
use moorgate_proto::VERSION;
use moorgate_proto::codec::{Assembler, put_bare_frame, put_frame};
use moorgate_proto::envelope::member::{client, gateway};
use moorgate_proto::envelope::{Envelope, Numbers};
use moorgate_proto::limits::{FRAME_BYTES_OPENING, FRAME_OVERHEAD};
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{self, Execution};
use moorgate_proto::view::{Body, PushView, RequestView, ResponseView};
use prost::Message;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

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
    downward: Downward,
    in_flight_max: usize,
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
            downward: Downward::new(),
            in_flight_max: 0,
            frame_bytes_max: 0,
            heartbeat: Duration::ZERO,
            heard: Mono::ZERO,
            pinged: Mono::NEVER,
            spoke: Mono::ZERO,
        }
    }

    /// The connection stands: says Hello. An empty token opens an anonymous session.
    pub fn connected(&mut self, now: Mono, access_token: &str) {
        self.connected_with_proof(now, access_token, None);
    }

    /// As [`ClientCore::connected`], with the [application's proof](Options::application_proof).
    pub fn connected_with_proof(
        &mut self,
        now: Mono,
        access_token: &str,
        application_proof: Option<v1::ApplicationProof>,
    ) {
        let options = &self.options;
        let hello = v1::Hello {
            version_min: VERSION,
            version_max: VERSION,
            application: options.application.clone(),
            application_proof,
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
        if self.places() > 0 {
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

    /// Requests that would be sent at once.
    pub fn places(&self) -> usize {
        if self.state == State::Open && self.waiting.is_empty() { self.free_places() } else { 0 }
    }

    /// A Response that is not acknowledged keeps its place, and only one behind a frame that is held still is not when
    /// the next request has come.
    fn free_places(&self) -> usize {
        let in_flight = self.open.len().saturating_add(self.downward.kept_places());
        self.in_flight_max.saturating_sub(in_flight)
    }

    fn send(&mut self, now: Mono, id: u64, body: &impl Body) {
        self.open.push_back(id);
        self.put(now, id, client::REQUEST, body);
    }

    /// Writes a frame; every frame acknowledges what was taken.
    fn put(&mut self, now: Mono, up_seq: u64, member: u32, body: &impl Body) {
        put_frame(&mut self.output, Numbers { seq: up_seq, ack: self.downward.ack() }, member, body);
        self.spoken(now);
    }

    fn spoken(&mut self, now: Mono) {
        self.spoke = now;
        self.downward.acknowledged();
    }

    /// For a visitor of [`Event::Push`] and [`Event::Gap`]: the application has not taken it yet. `None`: it has no
    /// number, so there is nothing to acknowledge.
    pub fn hold(&mut self) -> Option<Held> {
        self.downward.hold()
    }

    /// The application has taken what was held.
    pub fn release(&mut self, now: Mono, held: Held) {
        self.downward.release(now, held);
        self.pump(now);
    }

    /// Shows another access token of the same user; the answer is [`Event::Authenticated`]. Whether it was sent: it is
    /// while there is a session.
    pub fn authenticate(&mut self, now: Mono, access_token: &str) -> bool {
        let is_open = matches!(self.state, State::Open | State::GoingAway);
        if is_open {
            let authenticate = v1::Authenticate { access_token: access_token.to_owned() };
            self.put(now, 0, client::AUTHENTICATE, &authenticate);
        }
        is_open
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
            if !self.count(&envelope)? {
                continue;
            }
            if let Some((member, body)) = envelope.member {
                self.member(now, member, body, visit)?;
            }
            self.downward.judge(now);
            if self.downward.is_overrun() {
                return Err(Fault::WindowExceeded);
            }
        }
    }

    /// Counts a frame of the downward stream. Whether it is looked at: it was not had before.
    fn count(&mut self, envelope: &Envelope<'_>) -> Result<bool, Fault> {
        let (expected, got) = (self.downward.expected(), envelope.numbers.seq);
        match got {
            0 => self.downward.came_unnumbered(),
            got if got < expected => return Ok(false),
            got if got == expected => self.downward.came(got, got),
            got => match envelope.member {
                // Numbers that were given and will not come: the Gap's own is the last of them.
                Some((gateway::GAP, body)) => {
                    let gap = v1::Gap::decode(body).map_err(|_| Fault::Malformed(gateway::GAP))?;
                    if gap.first == 0 || gap.first > expected || gap.last != got {
                        return Err(Fault::SequenceGap { expected, got });
                    }
                    self.downward.came(expected, got);
                }
                _ => return Err(Fault::SequenceGap { expected, got }),
            },
        }
        Ok(true)
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
                if !response.login.is_empty() {
                    v1::LoginResult::decode(response.login).map_err(malformed)?;
                }
                let at = self
                    .open
                    .binary_search(&response.up_seq)
                    .map_err(|_| Fault::UnknownRequest(response.up_seq))?;
                self.open.remove(at);
                self.downward.response_came();
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
        self.downward.set_window(u64::from(limits.window_max.max(1)));
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
        while self.free_places() > 0 {
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
        if self.downward.is_ack_due(now) {
            put_bare_frame(&mut self.output, Numbers { seq: 0, ack: self.downward.ack() });
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
            State::Open | State::GoingAway => {
                self.downward.ack_due().min(self.silence_due()).min(self.ping_due())
            }
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
