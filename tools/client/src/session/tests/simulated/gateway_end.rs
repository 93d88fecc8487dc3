//! The gateway's end: it keeps sessions, loses connections and Welcomes, refuses, goes away, pushes and renews. It
//! keeps the contract, and checks that the client does.

use super::*;

/// How long it keeps a session without a connection.
const KEPT_FOR: Duration = Duration::from_secs(8);

/// A connection as the gateway has it.
pub(super) struct Conn {
    pub(super) attempt: Attempt,
    assembler: Assembler,
    is_open: bool,
    goes_away: bool,
    is_over: bool,
    /// Of its Welcome; 0: it has spoken since, or is not welcome yet.
    unproven: u64,
}

impl Conn {
    pub(super) fn new(attempt: Attempt) -> Conn {
        Conn {
            attempt,
            assembler: Assembler::default(),
            is_open: false,
            goes_away: false,
            is_over: false,
            unproven: 0,
        }
    }
}

/// What has a number, or waits for one.
struct Down {
    member: u32,
    body: Vec<u8>,
    push: Option<u64>,
}

/// A session as the gateway has it.
pub(super) struct Kept {
    name: u64,
    /// Which tokens resume it.
    proven: u64,
    current: u64,
    attempt: u64,
    admitted: u64,
    /// Admitted and unanswered: what they ask for.
    open: BTreeMap<u64, v1::Request>,
    sent: u64,
    acked: u64,
    /// Numbered and not acknowledged.
    window: BTreeMap<u64, Down>,
    /// Not numbered yet.
    queue: VecDeque<Down>,
    /// Since when it has no connection; `NEVER`: it has one, or does not know yet.
    lost: Mono,
}

impl Kept {
    fn responses(&self) -> usize {
        self.window.values().chain(&self.queue).filter(|down| down.member == gateway::RESPONSE).count()
    }

    /// The ids of pushes that were numbered above this.
    pub(super) fn pushes_above(&self, seq: u64) -> impl Iterator<Item = u64> {
        self.window.range(seq + 1..).filter_map(|(_, down)| down.push)
    }

    pub(super) fn is_all_taken(&self) -> bool {
        self.acked == self.sent && self.queue.is_empty()
    }
}

fn token(name: u64, generation: u64) -> Vec<u8> {
    [name.to_be_bytes(), generation.to_be_bytes()].concat()
}

fn read_token(token: &[u8]) -> (u64, u64) {
    let number = |at: usize| u64::from_be_bytes(token[at..at + 8].try_into().unwrap());
    (number(0), number(8))
}

impl World {
    pub(super) fn gateway_hears(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        let mut frames = VecDeque::new();
        let conn = self.conn.as_mut().unwrap();
        while let Some(frame) = conn.assembler.next(&mut rest, 1 << 20).unwrap() {
            frames.push_back(v1::ClientFrame::decode(frame).unwrap());
        }
        for frame in frames {
            let Some(conn) = self.conn.as_mut().filter(|conn| !conn.is_over) else { return };
            let unproven = std::mem::take(&mut conn.unproven);
            if unproven > 0 {
                let kept = self.kept.as_mut().unwrap();
                if unproven > 1 && kept.current == unproven {
                    let is_first = matches!(frame.member, None | Some(Member::Ping(_)));
                    assert!(is_first, "no acknowledgement right after a resume, but {frame:?}");
                }
                kept.proven = unproven;
                self.refused_last = false;
            }
            self.acknowledged(frame.ack);
            match frame.member {
                Some(Member::Hello(hello)) => self.hello(hello),
                Some(Member::Request(request)) => self.admits(frame.up_seq, request),
                Some(Member::Cancel(cancel)) => self.cancels(cancel.up_seq),
                Some(Member::Authenticate(shown)) => self.authenticates(&shown.access_token),
                Some(Member::Ping(ping)) => {
                    self.say(0, gateway::PONG, &v1::Pong { nonce: ping.nonce }, Told::Nothing);
                }
                Some(Member::Bye(bye)) => {
                    self.conn.as_mut().unwrap().is_over = true;
                    match bye.keep_for_ms {
                        0 => self.session_ends(),
                        _ => self.kept.as_mut().unwrap().lost = self.now,
                    }
                    self.say(0, gateway::BYE_ACK, &v1::ByeAck {}, Told::Nothing);
                }
                _ => {}
            }
        }
    }

    fn acknowledged(&mut self, ack: u64) {
        let Some(kept) = &mut self.kept else { return };
        assert!(ack <= kept.sent, "an ack beyond what was sent");
        kept.acked = kept.acked.max(ack);
        let rest = kept.window.split_off(&(ack + 1));
        for down in std::mem::replace(&mut kept.window, rest).into_values() {
            assert!(down.push.is_none_or(|id| self.taken.contains(&id)), "an ack before it was taken");
        }
        self.numbers();
    }

    /// Gives numbers to what waits, as far as the window goes.
    fn numbers(&mut self) {
        loop {
            let Some(kept) = self.kept.as_mut().filter(|kept| kept.lost == Mono::NEVER) else { return };
            if kept.window.len() >= WINDOW as usize {
                self.reached.insert("a full window");
                return;
            }
            let Some(down) = kept.queue.pop_front() else { return };
            kept.sent += 1;
            let seq = kept.sent;
            let frame = (down.member, down.body.clone());
            kept.window.insert(seq, down);
            self.say(seq, frame.0, &Encoded(&frame.1), Told::Nothing);
        }
    }

    fn hello(&mut self, hello: v1::Hello) {
        assert!(!self.refused.contains(&hello.access_token), "a refused token is shown again");
        if !self.refused_last && self.chance(10) {
            self.refused_last = true;
            self.reached.insert("a token refused");
            let told = Told::Refused(hello.access_token.clone());
            return self.error(Reason::TokenExpired, v1::Reconnect::default(), told);
        }
        if self.chance(10) {
            return self.sheds();
        }
        match hello.resume {
            Some(resume) if self.chance(2) && !self.is_kind => {
                self.tried(&resume);
                self.reached.insert("a session of somebody else");
                self.error(Reason::IdentityMismatch, v1::Reconnect::default(), Told::Nothing);
                self.session_ends();
            }
            Some(resume) if self.chance(2) && !self.is_kind => {
                self.tried(&resume);
                self.reached.insert("a resume refused");
                let reason = if self.dice.bool() { Reason::ResumeStale } else { Reason::ResumeInvalid };
                let reconnect = v1::Reconnect { allowed: true, ..v1::Reconnect::default() };
                self.error(reason, reconnect, Told::Nothing);
                self.session_ends();
            }
            Some(resume) => match self.judges(&resume) {
                ResumeResult::Resumed => self.resumes(&resume),
                result => self.opens(result),
            },
            None => self.opens(ResumeResult::None),
        }
    }

    /// Whatever becomes of it: no attempt has a number twice.
    fn tried(&mut self, resume: &v1::Resume) -> bool {
        let (name, generation) = read_token(&resume.resume_token);
        let number = (name, resume.attempt);
        assert!(self.attempts.insert(number), "an attempt number is used again");
        match &mut self.kept {
            Some(kept) if kept.name == name => {
                assert!(resume.attempt > kept.attempt);
                assert!((kept.proven..=kept.current).contains(&generation), "an old token");
                kept.attempt = resume.attempt;
                true
            }
            _ => false,
        }
    }

    fn judges(&mut self, resume: &v1::Resume) -> ResumeResult {
        if !self.tried(resume) {
            return ResumeResult::UnknownSession;
        }
        let lost = self.kept.as_ref().unwrap().lost;
        let is_over = lost != Mono::NEVER && lost + KEPT_FOR < self.now;
        match self.dice.u32(0..100) {
            2 if !self.calm && !self.is_kind => ResumeResult::Ended,
            3 if !self.calm && !self.is_kind => ResumeResult::NotSupported,
            _ if is_over && !self.is_kind => ResumeResult::UnknownSession,
            _ => ResumeResult::Resumed,
        }
    }

    fn resumes(&mut self, resume: &v1::Resume) {
        self.acknowledged(resume.down_seq);
        let kept = self.kept.as_mut().unwrap();
        if std::mem::replace(&mut kept.lost, Mono::NEVER) == Mono::NEVER {
            self.reached.insert("a takeover");
        }
        kept.current += 1;
        self.reached.insert("a resume");
        self.welcomes(ResumeResult::Resumed);
        let kept = self.kept.as_ref().unwrap();
        let replayed: Vec<_> =
            kept.window.iter().map(|(seq, down)| (*seq, down.member, down.body.clone())).collect();
        for (seq, member, body) in replayed {
            self.reached.insert("a replay");
            self.say(seq, member, &Encoded(&body), Told::Nothing);
        }
        self.numbers();
    }

    /// A fresh session.
    fn opens(&mut self, result: ResumeResult) {
        self.session_ends();
        self.sessions += 1;
        let name = self.sessions;
        self.kept = Some(Kept {
            name,
            proven: 1,
            current: 1,
            attempt: 0,
            admitted: 0,
            open: BTreeMap::new(),
            sent: 0,
            acked: 0,
            window: BTreeMap::new(),
            queue: VecDeque::new(),
            lost: Mono::NEVER,
        });
        if !matches!(result, ResumeResult::None) {
            self.reached.insert("a session that was gone");
        }
        self.welcomes(result);
    }

    fn welcomes(&mut self, result: ResumeResult) {
        let kept = self.kept.as_ref().unwrap();
        let limits = v1::Limits { frame_bytes_max: 65_536, in_flight_max: IN_FLIGHT, window_max: WINDOW };
        let welcome = v1::Welcome {
            version: 1,
            heartbeat_ms: 2_000,
            limits: Some(limits),
            user_id: "alice".to_owned(),
            server_time_ms: SERVER_TIME_MS,
            access_expires_ms: SERVER_TIME_MS + self.dice.u64(500..20_000),
            resume_result: result.into(),
            resume_token: token(kept.name, kept.current).into(),
            detached_ttl_ms: 8_000,
            admitted: kept.admitted,
            ..v1::Welcome::default()
        };
        let generation = kept.current;
        let conn = self.conn.as_mut().unwrap();
        (conn.is_open, conn.unproven) = (true, generation);
        let attempt = conn.attempt;
        if self.chance(15) {
            self.reached.insert("a Welcome that was lost");
            self.at(Duration::from_millis(2), Happens::Lost(attempt));
        }
        let told = if result == ResumeResult::Resumed { Told::Nothing } else { Told::Fresh };
        self.say(0, gateway::WELCOME, &welcome, told);
        self.at(Duration::from_millis(100), Happens::GatewayActs(attempt));
    }

    fn authenticates(&mut self, token: &str) {
        assert!(!self.refused.contains(token));
        let mut answer = v1::Authenticated {
            access_expires_ms: SERVER_TIME_MS + 3_600_000,
            ..v1::Authenticated::default()
        };
        match self.dice.u32(0..4) {
            0 if !self.calm => return,
            1 if !self.calm => {
                (answer.status, answer.reason) = (Code::Unimplemented.to_wire(), Reason::NotSupported.into());
            }
            _ => {}
        }
        self.say(0, gateway::AUTHENTICATED, &answer, Told::Nothing);
    }

    /// The next number is admitted; which session that is.
    fn admitted(&mut self, up_seq: u64) -> u64 {
        assert!(self.conn.as_ref().unwrap().is_open);
        let kept = self.kept.as_mut().unwrap();
        assert_eq!(up_seq, kept.admitted + 1);
        assert!(kept.open.len() + kept.responses() < IN_FLIGHT as usize, "too much in flight");
        kept.admitted = up_seq;
        kept.name
    }

    fn admits(&mut self, up_seq: u64, request: v1::Request) {
        let name = self.admitted(up_seq);
        self.kept.as_mut().unwrap().open.insert(up_seq, request);
        let after = self.millis(1..400);
        self.at(after, Happens::Runs(name, up_seq));
    }

    fn cancels(&mut self, up_seq: u64) {
        let kept = self.kept.as_mut().unwrap();
        if up_seq > kept.admitted {
            self.reached.insert("a number that is only consumed");
            self.admitted(up_seq);
        } else if self.dice.bool() || self.kept.as_mut().unwrap().open.remove(&up_seq).is_none() {
            return;
        }
        let response = v1::Response {
            up_seq,
            status: Code::Cancelled.to_wire(),
            reason: Reason::Cancelled.into(),
            execution: Execution::NotExecuted.into(),
            ..v1::Response::default()
        };
        self.gives(gateway::RESPONSE, &response, None);
    }

    /// The service has the call; its reply, if the session is there.
    pub(super) fn runs(&mut self, name: u64, up_seq: u64) {
        let Some(kept) = self.kept.as_mut().filter(|kept| kept.name == name) else { return };
        let Some(request) = kept.open.remove(&up_seq) else { return };
        let id = u64::from_be_bytes(request.payload[..].try_into().unwrap());
        let (status, reason, execution, runs) = match self.dice.u32(0..20) {
            0 if !self.calm => (Code::Unavailable, Reason::NoEndpoint, Execution::NotExecuted, false),
            1 if !self.calm => (Code::Aborted, Reason::EndpointLost, Execution::Unknown, true),
            2 if !self.calm => (Code::Aborted, Reason::EndpointLost, Execution::Unknown, false),
            3 if !self.calm => (Code::Unauthenticated, Reason::TokenExpired, Execution::NotExecuted, false),
            _ => (Code::Ok, Reason::Unspecified, Execution::Executed, true),
        };
        if runs {
            self.run_once(id);
        }
        let response = v1::Response {
            up_seq,
            status: status.to_wire(),
            reason: reason.into(),
            execution: execution.into(),
            retry_after_ms: if self.dice.u32(0..4) == 0 { 300 } else { 0 },
            ..v1::Response::default()
        };
        self.gives(gateway::RESPONSE, &response, None);
    }

    pub(super) fn gateway_acts(&mut self, attempt: Attempt) {
        let Some(conn) = self.conn.as_ref() else { return };
        if conn.attempt != attempt || conn.is_over {
            return;
        }
        let goes_away = conn.goes_away;
        let again = self.millis(50..400);
        self.at(again, Happens::GatewayActs(attempt));
        match if self.calm { 99 } else { self.dice.u32(0..100) } {
            0..4 => {
                let after = self.millis(0..100);
                self.at(after, Happens::Lost(attempt));
            }
            4..6 if !self.is_kind => {
                let reconnect = self.come_back();
                let told = Told::ComeBackAfter(Duration::from_millis(reconnect.after_ms.into()));
                self.error(Reason::Shutdown, reconnect, told);
                self.session_ends();
            }
            6..9 => {
                let reconnect = v1::Reconnect { resumable: true, ..self.come_back() };
                let told = Told::ComeBackAfter(Duration::from_millis(reconnect.after_ms.into()));
                self.error(Reason::HeartbeatTimeout, reconnect, told);
                self.kept.as_mut().unwrap().lost = self.now;
            }
            9..11 if !goes_away => {
                self.conn.as_mut().unwrap().goes_away = true;
                let reconnect_after_ms = self.dice.u32(0..3_000);
                let resumable = self.is_kind || self.dice.bool();
                let go_away = v1::GoAway { reconnect_after_ms, resumable, ..v1::GoAway::default() };
                let told = Told::ComeBackAfter(Duration::from_millis(reconnect_after_ms.into()));
                self.say(0, gateway::GO_AWAY, &go_away, told);
            }
            11..60 => self.pushes(),
            _ => {}
        }
    }

    /// The connection is gone. The session is kept, and the gateway may learn of it late. Whether there was one.
    pub(super) fn gone(&mut self) -> bool {
        if self.conn.take().is_none() {
            return false;
        }
        let is_noticed = self.dice.bool();
        if let Some(kept) = &mut self.kept
            && is_noticed
            && kept.lost == Mono::NEVER
        {
            kept.lost = self.now;
        }
        true
    }

    /// The session is over; what was admitted may run on.
    fn session_ends(&mut self) {
        let Some(kept) = self.kept.take() else { return };
        for (_, request) in kept.open {
            if self.dice.bool() {
                self.reached.insert("a run that nobody hears of");
                self.run_once(u64::from_be_bytes(request.payload[..].try_into().unwrap()));
            }
        }
    }

    fn come_back(&mut self) -> v1::Reconnect {
        allowed(self.dice.u32(0..4_000))
    }

    /// There are too many at the door; whoever has a session keeps it.
    fn sheds(&mut self) {
        let reconnect = self.come_back();
        let told = Told::ComeBackAfter(Duration::from_millis(reconnect.after_ms.into()));
        self.error(Reason::ConnectionLimit, reconnect, told);
    }

    fn pushes(&mut self) {
        let again = self.pushed > 0 && self.dice.u32(0..5) == 0;
        let id = if again { self.pushed - 1 } else { self.pushed };
        if self.kept.as_ref().unwrap().queue.len() > 4 {
            return;
        }
        if !again {
            self.pushed += 1;
        }
        let push = v1::Push { push_id: id.to_be_bytes().to_vec().into(), ..v1::Push::default() };
        self.gives(gateway::PUSH, &push, (!again).then_some(id));
    }

    fn error(&mut self, reason: Reason, reconnect: v1::Reconnect, told: Told) {
        let conn = self.conn.as_mut().unwrap();
        let admitted = if conn.is_open { self.kept.as_ref().unwrap().admitted } else { 0 };
        conn.is_over = true;
        let error =
            v1::Error { reason: reason.into(), admitted, reconnect: Some(reconnect), ..v1::Error::default() };
        self.say(0, gateway::ERROR, &error, told);
    }

    fn gives(&mut self, member: u32, body: &impl Message, push: Option<u64>) {
        let body = body.encode_to_vec();
        self.kept.as_mut().unwrap().queue.push_back(Down { member, body, push });
        self.numbers();
    }

    /// To the connection, if there is one that is welcome; a gateway that does not know yet speaks to nobody.
    fn say(&mut self, seq: u64, member: u32, body: &impl Body, told: Told) {
        let Some(conn) = self.conn.as_ref().filter(|conn| seq == 0 || conn.is_open && !conn.is_over) else {
            return;
        };
        let ack = self.kept.as_ref().filter(|_| conn.is_open).map_or(0, |kept| kept.admitted);
        let mut bytes = Vec::new();
        put_frame(&mut bytes, Numbers { seq, ack }, member, body);
        let attempt = conn.attempt;
        self.at(Duration::from_millis(5), Happens::ToClient(attempt, bytes, told));
    }
}
