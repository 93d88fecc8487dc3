//! One session, without I/O: over one connection, or over as many as it outlives.
//!
//! ```text
//! Idle ── connected: Hello ──► Opening ── Welcome ──► Open ── GoAway ──► GoingAway (no new requests)
//!                              ▲  │                     │ bye              │
//!                    connected │  ▼                     ▼                  ▼
//!                         Detached ◄── the connection's end, if it leaves the session alone
//!                            Ended ◄── any other: Error, ByeAck, disconnected, silence, a broken contract
//! ```
//!
//! The caller passes `now`, the bytes that arrived, and a visitor for the [`Event`]s; it writes out
//! [`ClientCore::output`]. An event that was visited counts as taken by the application, and is acknowledged: with the
//! next request for free, else within [`ACK_DELAY`]. A visitor that hands a push on for later [holds](ClientCore::hold)
//! it, and nothing from there on is acknowledged until it is [released](ClientCore::release).
//!
//! Requests are numbered as they are made and sent in that order, never more at once than the gateway allows; those
//! that have to wait are kept, up to [`Options::waiting_max`].
//!
//! # Resuming
//!
//! A core that was made with [`ClientCore::new`] ends with its connection. One of [`ClientCore::resuming`] keeps its
//! session when the gateway does: at the end of the connection comes [`Event::Detached`] in place of `Unanswered` and
//! `Ended`, all is kept that is open, and the next [`ClientCore::connected`] asks to resume. Then comes
//! [`Event::Resumed`], and the streams go on; or, when the gateway has no such session any more, [`Event::Unanswered`]
//! for each open request and [`Event::Welcomed`] for a fresh session. Request ids begin again at 1 with that.
//!
//! Who writes the session down for another process calls [`ClientCore::write_down`] first; then nothing is acknowledged
//! before [`ClientCore::saved`] has said that it is written.

mod downward;
mod event;
mod opening;
mod options;
mod pulse;
mod resume;
#[cfg(test)]
mod tests;
mod upward;
mod writing;

pub use downward::{ACK_DELAY, Held};
pub use event::{End, Event, Fault, Refused, RequestId};
pub use options::{Options, RequestOptions};
pub use pulse::{BEAT_MAX, BEAT_MIN};
pub(crate) use resume::denies_resume;
pub use resume::{RESUME_TOKEN_BYTES_MAX, ResumeToken, Resumption};

use downward::Downward;
use moorgate_proto::bounded;
use moorgate_proto::codec::{Assembler, put_bare_frame, put_frame};
use moorgate_proto::envelope::member::{client, gateway};
use moorgate_proto::envelope::{Envelope, Numbers};
use moorgate_proto::limits::{FRAME_BYTES_OPENING, FRAME_OVERHEAD};
use moorgate_proto::time::Mono;
use moorgate_proto::v1;
use moorgate_proto::view::{Body, PushView, RequestView, ResponseView};
use prost::Message;
use pulse::Pulse;
use resume::Resume;
use std::sync::Arc;
use std::time::Duration;
use upward::{Cancels, Upward, Waiting, millis};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Opening,
    Open,
    GoingAway,
    /// After Bye; the session is to be kept, or not.
    Leaving {
        keeps: bool,
    },
    Detached,
    Ended,
}

/// One session. See the module's page.
#[derive(Debug)]
pub struct ClientCore {
    options: Arc<Options>,
    state: State,
    assembler: Assembler,
    output: Vec<u8>,
    upward: Upward,
    downward: Downward,
    resume: Resume,
    frame_bytes_max: usize,
    pulse: Pulse,
}

impl ClientCore {
    /// A session to be, that ends with its connection.
    pub fn new(options: Arc<Options>) -> ClientCore {
        ClientCore::with(options, Resume::new(false))
    }

    /// A session to be, that outlives its connections where the gateway keeps it.
    pub fn resuming(options: Arc<Options>) -> ClientCore {
        ClientCore::with(options, Resume::new(true))
    }

    /// The session of an earlier process. Its requests are not known here: Responses to them are told all the same, and
    /// whoever gets them ignores ids that it has not asked with.
    pub fn restored(options: Arc<Options>, resumption: &Resumption) -> ClientCore {
        let upward = Upward::restored(resumption.up_seq, resumption.in_flight as usize);
        let downward = Downward::restored(resumption.down_seq);
        let state = State::Detached;
        let resume = Resume::restored(resumption);
        ClientCore { state, upward, downward, ..ClientCore::with(options, resume) }
    }

    fn with(options: Arc<Options>, resume: Resume) -> ClientCore {
        ClientCore {
            options,
            state: State::Idle,
            assembler: Assembler::default(),
            output: Vec::new(),
            upward: Upward::new(resume.is_wanted()),
            downward: Downward::new(0),
            resume,
            frame_bytes_max: 0,
            pulse: Pulse::new(),
        }
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
        if self.places() > 0 {
            let id = self.upward.send(now, options, payload);
            let view = RequestView {
                command: options.command,
                version: options.version,
                timeout_ms: millis(options.timeout),
                idempotency_key: options.idempotency_key,
                payload,
                ..RequestView::default()
            };
            self.put(now, id, client::REQUEST, &view);
            Ok(RequestId(id))
        } else if self.upward.waiting() < self.options.waiting_max {
            Ok(RequestId(self.upward.wait(options, payload)))
        } else {
            Err(Refused::Full)
        }
    }

    /// Requests that would be sent at once.
    pub fn places(&self) -> usize {
        if self.state == State::Open && self.upward.waiting() == 0 { self.free_places() } else { 0 }
    }

    /// A Response that is not acknowledged keeps its place, and only one that cannot be acknowledged yet still is not
    /// when the next request has come.
    fn free_places(&self) -> usize {
        self.upward.free_places(self.downward.kept_places())
    }

    /// Writes a frame; every frame acknowledges what was taken.
    fn put(&mut self, now: Mono, up_seq: u64, member: u32, body: &impl Body) {
        put_frame(&mut self.output, Numbers { seq: up_seq, ack: self.downward.ack() }, member, body);
        self.spoken(now);
    }

    fn spoken(&mut self, now: Mono) {
        self.pulse.spoken(now);
        self.downward.acknowledged();
    }

    fn ping(&mut self, now: Mono) {
        let next_ms = self.pulse.next_ms();
        self.put(now, 0, client::PING, &v1::Ping { nonce: now.as_nanos(), next_ms });
        self.pulse.pinged(now);
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
        let is_open = matches!(self.state, State::Open | State::GoingAway);
        if self.upward.cancel(id.0) == Cancels::Sent && is_open {
            self.put(now, 0, client::CANCEL, &v1::Cancel { up_seq: id.0 });
        }
    }

    /// Leaves: the session is to be kept for `keep_for`, or ended now.
    pub fn bye(&mut self, now: Mono, keep_for: Duration) {
        if matches!(self.state, State::Open | State::GoingAway) {
            self.put(now, 0, client::BYE, &v1::Bye { keep_for_ms: millis(keep_for) });
            self.state = State::Leaving { keeps: !keep_for.is_zero() };
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
        self.is_connected()
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
                State::Open | State::GoingAway | State::Leaving { .. } => self.frame_bytes_max,
                State::Idle | State::Detached | State::Ended => return Ok(()),
            };
            let Some(frame) = assembler.next(bytes, max)? else { return Ok(()) };
            self.pulse.heard(now);
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
                let login = (!response.login.is_empty()).then(|| v1::LoginResult::decode(response.login));
                let login = login.transpose().map_err(malformed)?;
                let answered = self.upward.answered(response.up_seq)?;
                self.downward.response_came();
                self.logged_in(answered, login);
                visit(self, Event::Response(RequestId(response.up_seq), response));
            }
            gateway::WELCOME => {
                let welcome = v1::Welcome::decode(body).map_err(malformed)?;
                self.welcomed(now, welcome, visit)?;
            }
            gateway::PUSH => {
                visit(self, Event::Push(PushView::decode(body).map_err(|_| Fault::Malformed(member))?))
            }
            gateway::GAP => {
                let mut gap = v1::Gap::decode(body).map_err(malformed)?;
                if gap.first > 0 {
                    // Of what is replayed some may have come before.
                    gap.first = gap.first.max(self.downward.first());
                }
                visit(self, Event::Gap(gap));
            }
            gateway::PING => {
                let ping = v1::Ping::decode(body).map_err(malformed)?;
                self.put(now, 0, client::PONG, &v1::Pong { nonce: ping.nonce });
            }
            gateway::PONG => v1::Pong::decode(body).map(|_| ()).map_err(malformed)?,
            gateway::GO_AWAY => {
                let go_away = bounded::decode::<v1::GoAway>(body).map_err(|_| Fault::Malformed(member))?;
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
                self.resume.renew(&authenticated.resume_token);
                visit(self, Event::Authenticated(Box::new(authenticated)));
            }
            gateway::ERROR => {
                let error = bounded::decode::<v1::Error>(body).map_err(|_| Fault::Malformed(member))?;
                self.end(End::Error(error), visit);
            }
            gateway::BYE_ACK if matches!(self.state, State::Leaving { .. }) => self.end(End::Bye, visit),
            gateway::BYE_ACK => return Err(Fault::Unexpected(member)),
            // A newer gateway's: counted if it has a number, and never answered.
            _ => {}
        }
        Ok(())
    }

    /// Sends what waits and may go, and an acknowledgement that is due.
    fn pump(&mut self, now: Mono) {
        if !matches!(self.state, State::Open | State::GoingAway) {
            return;
        }
        while self.free_places() > 0 {
            let Some((id, waiting)) = self.upward.next_waiting() else { break };
            match waiting {
                Waiting::Request(request) => {
                    self.put(now, id, client::REQUEST, &request.view(request.timeout()));
                    self.upward.opened(now, id, Some(request));
                }
                Waiting::Cancelled => {
                    self.put(now, 0, client::CANCEL, &v1::Cancel { up_seq: id });
                    self.upward.opened(now, id, None);
                }
            }
        }
        if self.downward.is_ack_due(now) {
            self.acknowledge(now);
        }
    }

    /// Acknowledges by a frame of its own: a bare one would end what is announced.
    fn acknowledge(&mut self, now: Mono) {
        if self.pulse.has_own() {
            self.ping(now);
        } else {
            put_bare_frame(&mut self.output, Numbers { seq: 0, ack: self.downward.ack() });
            self.spoken(now);
        }
    }

    /// The connection is gone.
    pub fn disconnected(&mut self, visit: &mut impl FnMut(&mut ClientCore, Event<'_>)) {
        self.end(End::Lost, visit);
    }

    fn end(&mut self, end: End, visit: &mut impl FnMut(&mut ClientCore, Event<'_>)) {
        if !self.is_connected() {
            return;
        }
        let is_opening = self.state == State::Opening;
        if let End::Error(error) = &end
            && !is_opening
        {
            // An Error freezes the highest number admitted: above it nothing ran.
            self.upward.set_admitted_max(error.admitted);
        }
        let keeps = match self.state {
            State::Leaving { keeps } => keeps,
            _ => !matches!(end, End::Bye),
        };
        if keeps && self.resume.outlives(&end, is_opening) {
            self.state = State::Detached;
            visit(self, Event::Detached(end));
            return;
        }
        self.state = State::Ended;
        self.resume.forget();
        self.settle(visit);
        visit(self, Event::Ended(end));
    }

    /// Gives the session up, whatever its state: its open requests are [`Event::Unanswered`]. The next connection opens
    /// a fresh one.
    pub fn give_up(&mut self, visit: &mut impl FnMut(&mut ClientCore, Event<'_>)) {
        self.state = State::Ended;
        self.resume.forget();
        self.settle(visit);
    }

    fn settle(&mut self, visit: &mut impl FnMut(&mut ClientCore, Event<'_>)) {
        for (id, execution) in self.upward.settle() {
            visit(self, Event::Unanswered(RequestId(id), execution));
        }
    }

    /// When [`ClientCore::timers`] has something to do.
    pub fn next_deadline(&self) -> Mono {
        match self.state {
            State::Idle | State::Detached | State::Ended => Mono::NEVER,
            State::Opening => self.pulse.spoke() + self.options.opening_timeout,
            State::Open | State::GoingAway => {
                self.downward.ack_due().min(self.pulse.silence_due()).min(self.pulse.ping_due())
            }
            // Its Bye was its last frame that counts: nothing is acknowledged any more.
            State::Leaving { .. } => self.pulse.silence_due().min(self.pulse.ping_due()),
        }
    }

    /// Looks at the deadlines. Whether the connection goes on.
    pub fn timers(&mut self, now: Mono, visit: &mut impl FnMut(&mut ClientCore, Event<'_>)) -> bool {
        match self.state {
            State::Idle | State::Detached | State::Ended => return false,
            State::Opening if self.pulse.spoke() + self.options.opening_timeout <= now => {
                self.end(End::OpeningTimeout, visit)
            }
            State::Opening => {}
            State::Open | State::GoingAway | State::Leaving { .. } => {
                if self.pulse.silence_due() <= now {
                    self.end(End::Silence, visit);
                } else if self.pulse.ping_due() <= now {
                    self.ping(now);
                }
                self.pump(now);
            }
        }
        self.is_connected()
    }

    /// Bytes to send; whoever has sent some drains them from the front.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Requests without an answer, those that wait included.
    pub fn unanswered(&self) -> usize {
        self.upward.unanswered()
    }

    /// Whether requests are taken.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether there is a connection.
    fn is_connected(&self) -> bool {
        !matches!(self.state, State::Idle | State::Detached | State::Ended)
    }

    /// Whether it is over.
    pub fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Whether there is no connection, and a session that the next one asks for.
    pub fn is_detached(&self) -> bool {
        self.state == State::Detached
    }

    /// Whether the session could be resumed if the connection were lost now.
    pub fn can_resume(&self) -> bool {
        self.resume.is_possible()
    }

    /// How long the gateway keeps the session without a connection; zero: not at all.
    pub fn kept_for(&self) -> Duration {
        if self.can_resume() { self.resume.kept_for() } else { Duration::ZERO }
    }
}
