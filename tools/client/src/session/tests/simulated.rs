//! Sessions against a gateway that loses connections, refuses, goes away, pushes and renews, at random from a seed.
//! What must hold is judged from outside: by what the gateway has run, and by what the application was told.

use super::*;
use fastrand::Rng;
use std::collections::{BTreeSet, HashMap, VecDeque};

const SEEDS: u64 = 400;
const IN_FLIGHT: u32 = 3;
const WINDOW: u32 = 6;

/// What happens at a time.
enum Happens {
    Listed,
    Token,
    Connected(Attempt),
    ToGateway(Attempt, Vec<u8>),
    ToClient(Attempt, Vec<u8>, Told),
    Lost(Attempt),
    Runs(Attempt, u64),
    GatewayActs(Attempt),
    Asks,
    Takes(Delivery, u64),
}

/// What the client must keep to once it has heard it.
enum Told {
    Nothing,
    ComeBackAfter(Duration),
    Refused(String),
}

/// A connection as the gateway has it.
struct Conn {
    attempt: Attempt,
    assembler: Assembler,
    is_open: bool,
    goes_away: bool,
    is_over: bool,
    admitted: u64,
    /// Admitted and unanswered: what they ask for.
    open: BTreeMap<u64, v1::Request>,
    sent: u64,
    acked: u64,
    responses: BTreeSet<u64>,
    /// The numbers of pushes, with their ids.
    pushes: BTreeMap<u64, u64>,
}

#[derive(Default)]
struct Asked {
    keyed: bool,
    runs: u32,
    outcome: Option<Outcome>,
}

struct World {
    dice: Rng,
    session: ClientSession,
    now: Mono,
    calm: bool,
    agenda: BTreeMap<(Mono, u64), Happens>,
    noted: u64,
    conn: Option<Conn>,
    asked: HashMap<u64, Asked>,
    tickets: HashMap<Ticket, u64>,
    asks: u64,
    pushed: u64,
    taken: BTreeSet<u64>,
    tokens: u64,
    refused: BTreeSet<String>,
    refused_last: bool,
    /// The client was told not to come back before.
    not_before: Mono,
    reached: BTreeSet<&'static str>,
}

impl World {
    fn new(seed: u64) -> World {
        let backoff = Backoff { base: Duration::from_millis(200), max: Duration::from_secs(5) };
        let settings = Settings { backoff, request_timeout: 5 * SECOND, ..Settings::default() };
        World {
            dice: Rng::with_seed(seed),
            session: ClientSession::new(settings, Credentials::Asked, seed),
            now: Mono::ZERO + SECOND,
            calm: false,
            agenda: BTreeMap::new(),
            noted: 0,
            conn: None,
            asked: HashMap::new(),
            tickets: HashMap::new(),
            asks: 0,
            pushed: 0,
            taken: BTreeSet::new(),
            tokens: 0,
            refused: BTreeSet::new(),
            refused_last: false,
            not_before: Mono::ZERO,
            reached: BTreeSet::new(),
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        !self.calm && self.dice.u32(0..100) < percent
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.dice.u64(range))
    }

    fn at(&mut self, after: Duration, happens: Happens) {
        self.noted += 1;
        self.agenda.insert((self.now + after, self.noted), happens);
    }

    fn run(&mut self) {
        let asks = self.dice.u64(20..60);
        for at in 0..asks {
            self.at(Duration::from_millis(at * 300), Happens::Asks);
        }
        self.session.start(self.now);
        self.until(Mono::ZERO + 60 * SECOND);
        self.calm = true;
        self.until(Mono::ZERO + 200 * SECOND);
        self.judge();
    }

    fn until(&mut self, end: Mono) {
        loop {
            self.settle();
            let first = self.agenda.first_key_value().map_or(Mono::NEVER, |((at, _), _)| *at);
            let next = first.min(self.session.next_deadline());
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            match self.agenda.first_entry() {
                Some(entry) if entry.key().0 <= self.now => {
                    let happens = entry.remove();
                    self.happens(happens);
                }
                _ => self.session.timers(self.now),
            }
        }
    }

    /// Does what the session says.
    fn settle(&mut self) {
        while let Some(output) = self.session.poll() {
            let soon = self.millis(1..20);
            match output {
                Output::List => self.at(soon, Happens::Listed),
                Output::FetchToken(_) => self.at(soon, Happens::Token),
                Output::Connect(attempt, _) => {
                    assert!(self.now >= self.not_before, "it comes back before it may");
                    self.at(soon, Happens::Connected(attempt));
                }
                Output::Disconnect => drop(self.gone()),
                Output::Save(_) => panic!("there is nothing to save it in"),
                Output::Settled(ticket, outcome) => {
                    let asked = self.asked.get_mut(&self.tickets[&ticket]).unwrap();
                    assert!(asked.outcome.replace(outcome).is_none(), "two outcomes");
                }
                Output::Event(event, delivery) => self.told(event, delivery),
            }
        }
        if let (Some(output), Some(conn)) = (self.session.output(), &self.conn)
            && !output.is_empty()
        {
            let (bytes, attempt) = (std::mem::take(output), conn.attempt);
            self.at(Duration::from_millis(5), Happens::ToGateway(attempt, bytes));
        }
    }

    fn told(&mut self, event: Event, delivery: Option<Delivery>) {
        match event {
            Event::Push(push) => {
                let id = u64::from_be_bytes(push.push_id.try_into().unwrap());
                let after = if self.chance(10) { 3 * SECOND } else { self.millis(0..50) };
                self.at(after, Happens::Takes(delivery.unwrap(), id));
            }
            Event::State(State::Ended(ending)) => panic!("it ends: {ending}"),
            Event::TokenRenewed => drop(self.reached.insert("a token renewed")),
            _ => {}
        }
    }

    fn happens(&mut self, happens: Happens) {
        match happens {
            Happens::Listed => {
                let addresses = if self.chance(10) { vec![] } else { vec!["a".to_owned(), "b".to_owned()] };
                self.session.listed(self.now, Ok(addresses));
            }
            Happens::Token => {
                self.tokens += 1;
                let token = format!("token {}", self.tokens);
                let later = self.chance(20).then(|| TokenError::Later("away".to_owned()));
                self.session.token(self.now, later.map_or(Ok(token), Err));
            }
            Happens::Connected(attempt) => self.connects(attempt),
            Happens::ToGateway(attempt, bytes) => {
                if self.conn.as_ref().is_some_and(|conn| conn.attempt == attempt) {
                    self.gateway_hears(&bytes);
                }
            }
            Happens::ToClient(attempt, bytes, told) => {
                if self.conn.as_ref().is_some_and(|conn| conn.attempt == attempt) {
                    match told {
                        Told::Nothing => {}
                        Told::ComeBackAfter(after) => self.not_before = self.not_before.max(self.now + after),
                        Told::Refused(token) => drop(self.refused.insert(token)),
                    }
                    self.session.received(self.now, &bytes);
                }
            }
            Happens::Lost(attempt) => {
                if self.conn.as_ref().is_some_and(|conn| conn.attempt == attempt) && self.gone() {
                    self.session.disconnected(self.now);
                }
            }
            Happens::Runs(attempt, up_seq) => self.runs(attempt, up_seq),
            Happens::GatewayActs(attempt) => self.gateway_acts(attempt),
            Happens::Asks => self.asks(),
            Happens::Takes(delivery, id) => {
                assert!(self.taken.insert(id), "push {id} is given twice");
                self.session.taken(self.now, delivery);
            }
        }
    }

    fn connects(&mut self, attempt: Attempt) {
        if self.chance(20) {
            return self.session.connect_failed(self.now, attempt, "refused".to_owned());
        }
        if self.session.connected(self.now, attempt, None) {
            self.conn = Some(Conn {
                attempt,
                assembler: Assembler::default(),
                is_open: false,
                goes_away: false,
                is_over: false,
                admitted: 0,
                open: BTreeMap::new(),
                sent: 0,
                acked: 0,
                responses: BTreeSet::new(),
                pushes: BTreeMap::new(),
            });
        }
    }

    fn asks(&mut self) {
        let id = self.asks;
        self.asks += 1;
        let keyed = self.dice.bool();
        let key = id.to_be_bytes();
        let timeout = if self.dice.bool() { Duration::ZERO } else { self.millis(50..9_000) };
        let idempotency_key = if keyed { &key[..] } else { &[] };
        let options = RequestOptions { idempotency_key, timeout, ..RequestOptions::command(1) };
        let ticket = self.session.request(self.now, &options, &key).unwrap();
        self.tickets.insert(ticket, id);
        self.asked.insert(id, Asked { keyed, ..Asked::default() });
        if self.chance(10) {
            self.session.cancel(self.now, ticket);
        }
    }

    fn gateway_hears(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        let mut frames = VecDeque::new();
        let conn = self.conn.as_mut().unwrap();
        while let Some(frame) = conn.assembler.next(&mut rest, 1 << 20).unwrap() {
            frames.push_back(v1::ClientFrame::decode(frame).unwrap());
        }
        for frame in frames {
            let Some(conn) = self.conn.as_mut().filter(|conn| !conn.is_over) else { return };
            assert!(frame.ack <= conn.sent, "an ack beyond what was sent");
            conn.acked = conn.acked.max(frame.ack);
            conn.responses.retain(|seq| *seq > frame.ack);
            let acked = conn.pushes.range(..=frame.ack).map(|(_, id)| *id);
            assert!(acked.into_iter().all(|id| self.taken.contains(&id)), "an ack before it was taken");
            conn.pushes.retain(|seq, _| *seq > frame.ack);
            match frame.member {
                Some(Member::Hello(hello)) => self.hello(&hello),
                Some(Member::Request(request)) => self.admits(frame.up_seq, request),
                Some(Member::Authenticate(shown)) => self.authenticates(&shown.access_token),
                Some(Member::Ping(ping)) => {
                    self.say(0, gateway::PONG, &v1::Pong { nonce: ping.nonce }, Told::Nothing);
                }
                Some(Member::Bye(_)) => {
                    conn.is_over = true;
                    self.say(0, gateway::BYE_ACK, &v1::ByeAck {}, Told::Nothing);
                }
                _ => {}
            }
        }
    }

    fn hello(&mut self, hello: &v1::Hello) {
        assert!(!self.refused.contains(&hello.access_token), "a refused token is shown again");
        if !self.refused_last && self.chance(10) {
            self.refused_last = true;
            self.reached.insert("a token refused");
            let told = Told::Refused(hello.access_token.clone());
            return self.error(Reason::TokenExpired, v1::Reconnect::default(), told);
        }
        if self.chance(10) {
            return self.ends(Reason::ConnectionLimit);
        }
        self.refused_last = false;
        let limits = v1::Limits { frame_bytes_max: 65_536, in_flight_max: IN_FLIGHT, window_max: WINDOW };
        let welcome = v1::Welcome {
            version: 1,
            heartbeat_ms: 2_000,
            limits: Some(limits),
            user_id: "alice".to_owned(),
            server_time_ms: SERVER_TIME_MS,
            access_expires_ms: SERVER_TIME_MS + self.dice.u64(500..20_000),
            ..v1::Welcome::default()
        };
        let conn = self.conn.as_mut().unwrap();
        conn.is_open = true;
        let attempt = conn.attempt;
        self.say(0, gateway::WELCOME, &welcome, Told::Nothing);
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

    fn admits(&mut self, up_seq: u64, request: v1::Request) {
        let conn = self.conn.as_mut().unwrap();
        assert!(conn.is_open);
        assert_eq!(up_seq, conn.admitted + 1);
        assert!(conn.open.len() + conn.responses.len() < IN_FLIGHT as usize, "too much in flight");
        conn.admitted = up_seq;
        conn.open.insert(up_seq, request);
        let attempt = conn.attempt;
        let after = self.millis(1..400);
        self.at(after, Happens::Runs(attempt, up_seq));
    }

    /// The service has the call; its reply, if the connection is there.
    fn runs(&mut self, attempt: Attempt, up_seq: u64) {
        let Some(conn) = self.conn.as_mut().filter(|conn| conn.attempt == attempt && !conn.is_over) else {
            return;
        };
        let Some(request) = conn.open.remove(&up_seq) else { return };
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
        self.numbered(gateway::RESPONSE, &response, None);
    }

    fn run_once(&mut self, id: u64) {
        let asked = self.asked.get_mut(&id).unwrap();
        if asked.keyed && asked.runs > 0 {
            self.reached.insert("a repetition by its key");
            return;
        }
        asked.runs += 1;
    }

    fn gateway_acts(&mut self, attempt: Attempt) {
        let Some(conn) = self.conn.as_ref() else { return };
        if conn.attempt != attempt || conn.is_over {
            return;
        }
        let goes_away = conn.goes_away;
        let again = self.millis(50..400);
        self.at(again, Happens::GatewayActs(attempt));
        match if self.calm { 99 } else { self.dice.u32(0..100) } {
            0..3 => {
                let after = self.millis(0..100);
                self.at(after, Happens::Lost(attempt));
            }
            3..6 => self.ends(Reason::Shutdown),
            6..8 if !goes_away => {
                self.conn.as_mut().unwrap().goes_away = true;
                let reconnect_after_ms = self.dice.u32(0..3_000);
                let go_away = v1::GoAway { reconnect_after_ms, ..v1::GoAway::default() };
                let told = Told::ComeBackAfter(Duration::from_millis(reconnect_after_ms.into()));
                self.say(0, gateway::GO_AWAY, &go_away, told);
            }
            8..60 => self.pushes(),
            _ => {}
        }
    }

    /// The connection is gone; what was admitted may run on. Whether there was one.
    fn gone(&mut self) -> bool {
        let Some(conn) = self.conn.take() else { return false };
        for (_, request) in conn.open {
            if self.dice.bool() {
                self.reached.insert("a run that nobody hears of");
                self.run_once(u64::from_be_bytes(request.payload[..].try_into().unwrap()));
            }
        }
        true
    }

    fn ends(&mut self, reason: Reason) {
        let after_ms = self.dice.u32(0..4_000);
        let told = Told::ComeBackAfter(Duration::from_millis(after_ms.into()));
        self.error(reason, allowed(after_ms), told);
    }

    fn pushes(&mut self) {
        let again = self.pushed > 0 && self.dice.u32(0..5) == 0;
        let id = if again { self.pushed - 1 } else { self.pushed };
        let conn = self.conn.as_mut().unwrap();
        if conn.sent - conn.acked >= u64::from(WINDOW) {
            self.reached.insert("a full window");
            return;
        }
        if !again {
            self.pushed += 1;
        }
        let push = v1::Push { push_id: id.to_be_bytes().to_vec().into(), ..v1::Push::default() };
        self.numbered(gateway::PUSH, &push, (!again).then_some(id));
    }

    fn error(&mut self, reason: Reason, reconnect: v1::Reconnect, told: Told) {
        let conn = self.conn.as_mut().unwrap();
        conn.is_over = true;
        let error = v1::Error {
            reason: reason.into(),
            admitted: conn.admitted,
            reconnect: Some(reconnect),
            ..v1::Error::default()
        };
        self.say(0, gateway::ERROR, &error, told);
    }

    fn numbered(&mut self, member: u32, body: &impl Body, push: Option<u64>) {
        let conn = self.conn.as_mut().unwrap();
        conn.sent += 1;
        let seq = conn.sent;
        if member == gateway::RESPONSE {
            conn.responses.insert(seq);
        }
        if let Some(id) = push {
            conn.pushes.insert(seq, id);
        }
        self.say(seq, member, body, Told::Nothing);
    }

    fn say(&mut self, seq: u64, member: u32, body: &impl Body, told: Told) {
        let conn = self.conn.as_ref().unwrap();
        let mut bytes = Vec::new();
        put_frame(&mut bytes, Numbers { seq, ack: conn.admitted }, member, body);
        let attempt = conn.attempt;
        self.at(Duration::from_millis(5), Happens::ToClient(attempt, bytes, told));
    }

    /// After the calm.
    fn judge(&mut self) {
        assert!(matches!(self.session.state(), State::Open { .. }), "{:?}", self.session.state());
        assert_eq!(self.session.open_requests(), 0);
        for (id, asked) in &self.asked {
            let outcome = asked.outcome.as_ref().unwrap_or_else(|| panic!("request {id} has no outcome"));
            assert!(asked.runs <= 1, "request {id} is run {} times", asked.runs);
            let says = match outcome {
                Outcome::Answer(answer) => answer.execution,
                Outcome::Unanswered(execution) | Outcome::TimedOut(execution) => *execution,
                Outcome::TooLarge => panic!("nothing is too large"),
            };
            match says {
                Execution::NotExecuted => assert_eq!(asked.runs, 0, "request {id}: {outcome:?}"),
                Execution::Executed => assert_eq!(asked.runs, 1, "request {id}: {outcome:?}"),
                Execution::Unknown => drop(self.reached.insert("an unknown execution")),
                Execution::Unspecified => panic!("request {id}: {outcome:?}"),
            }
        }
        let conn = self.conn.as_ref().unwrap();
        assert_eq!(conn.acked, conn.sent, "everything is taken, and acknowledged");
    }
}

// spec: D-14, S-15, S-16, U-1, W-1, W-4, X-5, X-6
#[test]
fn whatever_happens_each_request_has_one_honest_outcome_and_each_push_is_given_once() {
    let mut reached = BTreeSet::new();
    for seed in 0..SEEDS {
        let result = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            world.run();
            world.reached
        });
        match result {
            Ok(found) => reached.extend(found),
            Err(_) => panic!("seed {seed}"),
        }
    }
    let expected = [
        "a full window",
        "a repetition by its key",
        "a run that nobody hears of",
        "a token refused",
        "a token renewed",
        "an unknown execution",
    ];
    assert!(reached.iter().eq(expected.iter()), "{reached:?}");
}
