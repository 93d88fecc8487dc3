//! Sessions against a gateway that keeps and loses them, loses connections, refuses, goes away, pushes and renews, at
//! random from a seed; and with applications that are killed and started again. What must hold is judged from outside:
//! by what the gateway has run, and by what the application was told.

mod gateway_end;

use super::*;
use crate::core::Resumption;
use fastrand::Rng;
use gateway_end::{Conn, Kept};
use moorgate_proto::view::Encoded;
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
    Runs(u64, u64),
    GatewayActs(Attempt),
    Asks,
    Takes(u32, Delivery, u64),
    Killed,
}

/// What the client must keep to once it has heard it.
enum Told {
    Nothing,
    ComeBackAfter(Duration),
    Refused(String),
    /// A session that it did not have before.
    Fresh,
}

#[derive(Default)]
struct Asked {
    keyed: bool,
    runs: u32,
    outcome: Option<Outcome>,
    /// The process that asked is dead.
    is_orphan: bool,
}

struct World {
    dice: Rng,
    settings: Settings,
    session: ClientSession,
    now: Mono,
    calm: bool,
    agenda: BTreeMap<(Mono, u64), Happens>,
    noted: u64,
    conn: Option<Conn>,
    kept: Option<Kept>,
    /// The gateway ends no session.
    is_kind: bool,
    sessions: u64,
    /// Fresh sessions that the client has heard of.
    fresh: u64,
    attempts: BTreeSet<(u64, u64)>,
    /// How often the application was told that a session was lost.
    missed: u64,
    /// The application is written down, and may be killed.
    writes: bool,
    written: Option<Resumption>,
    process: u32,
    /// Pushes that this process was given.
    given: BTreeSet<u64>,
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
        let mut dice = Rng::with_seed(seed);
        World {
            is_kind: dice.bool(),
            writes: dice.bool(),
            kept: None,
            sessions: 0,
            fresh: 0,
            attempts: BTreeSet::new(),
            missed: 0,
            written: None,
            process: 0,
            given: BTreeSet::new(),
            settings: settings.clone(),
            dice,
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
        if self.writes {
            self.begins();
            for _ in 0..self.dice.u32(0..4) {
                let at = self.millis(0..50_000);
                self.at(at, Happens::Killed);
            }
        } else {
            self.session.start(self.now);
        }
        self.until(Mono::ZERO + 60 * SECOND);
        self.calm = true;
        self.until(Mono::ZERO + 200 * SECOND);
        self.judge();
    }

    /// The application starts, with what is written down.
    fn begins(&mut self) {
        self.process += 1;
        let session = ClientSession::new(self.settings.clone(), Credentials::Asked, self.dice.u64(..));
        self.session = session.writing_down(self.written.as_ref());
        self.session.start(self.now);
    }

    /// The application is killed and starts again: it knows what is written down, and nothing else.
    fn killed(&mut self) {
        self.reached.insert("a process that was killed");
        self.gone();
        // Attempts are counted anew: what was on its way is for nobody.
        let stays =
            |happens: &Happens| matches!(happens, Happens::Asks | Happens::Runs(..) | Happens::Killed);
        self.agenda.retain(|_, happens| stays(happens));
        self.not_before = Mono::ZERO;
        (self.refused_last, self.given) = (false, BTreeSet::new());
        for (_, id) in self.tickets.drain() {
            let asked = self.asked.get_mut(&id).unwrap();
            asked.is_orphan = asked.outcome.is_none();
        }
        let written = self.written.as_ref().map_or(0, |written| written.down_seq);
        if let Some(kept) = &self.kept {
            for id in kept.pushes_above(written) {
                self.taken.remove(&id);
            }
        }
        self.begins();
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
                Output::Save(resumption) => {
                    let is_killed = self.chance(1);
                    if !is_killed || self.dice.bool() {
                        self.written = resumption.map(|resumption| *resumption);
                    }
                    match is_killed {
                        true => self.killed(),
                        false => self.session.saved(self.now, Ok(())),
                    }
                }
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
                assert!(self.given.insert(id), "push {id} is given twice");
                self.at(after, Happens::Takes(self.process, delivery.unwrap(), id));
            }
            Event::Resync(Missed::Session) => self.missed += 1,
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
                        Told::Fresh => self.fresh += 1,
                    }
                    self.session.received(self.now, &bytes);
                }
            }
            Happens::Lost(attempt) => {
                if self.conn.as_ref().is_some_and(|conn| conn.attempt == attempt) && self.gone() {
                    self.session.disconnected(self.now);
                }
            }
            Happens::Runs(name, up_seq) => self.runs(name, up_seq),
            Happens::GatewayActs(attempt) => self.gateway_acts(attempt),
            Happens::Asks => self.asks(),
            Happens::Takes(process, delivery, id) => {
                if process == self.process {
                    self.taken.insert(id);
                    self.session.taken(self.now, delivery);
                }
            }
            Happens::Killed => self.killed(),
        }
    }

    fn connects(&mut self, attempt: Attempt) {
        if self.chance(20) {
            return self.session.connect_failed(self.now, attempt, "refused".to_owned());
        }
        if self.session.connected(self.now, attempt, None) {
            self.conn = Some(Conn::new(attempt));
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

    fn run_once(&mut self, id: u64) {
        let asked = self.asked.get_mut(&id).unwrap();
        if asked.keyed && asked.runs > 0 {
            self.reached.insert("a repetition by its key");
            return;
        }
        asked.runs += 1;
    }

    /// After the calm.
    fn judge(&mut self) {
        assert!(matches!(self.session.state(), State::Open { .. }), "{:?}", self.session.state());
        assert_eq!(self.session.open_requests(), 0);
        // With a store the first one counts, too: the processes before may have had others.
        assert_eq!(self.missed + u64::from(!self.writes), self.fresh, "each fresh session is told once");
        assert!(!self.is_kind || self.writes || self.missed == 0, "no session was lost");
        for (id, asked) in &self.asked {
            assert!(asked.runs <= 1, "request {id} is run {} times", asked.runs);
            if asked.is_orphan {
                continue;
            }
            let outcome = asked.outcome.as_ref().unwrap_or_else(|| panic!("request {id} has no outcome"));
            let is_unanswered = matches!(outcome, Outcome::Unanswered(_));
            assert!(!self.is_kind || !is_unanswered, "request {id}: no session was lost, but {outcome:?}");
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
        let kept = self.kept.as_ref().unwrap();
        assert!(kept.is_all_taken(), "everything is taken, and acknowledged");
    }
}

// spec: D-2, D-14, R-4, R-12, R-14, R-15, S-15, S-16, U-1, W-1, W-4, W-10, X-5, X-6
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
        "a Welcome that was lost",
        "a full window",
        "a number that is only consumed",
        "a process that was killed",
        "a repetition by its key",
        "a replay",
        "a resume",
        "a resume refused",
        "a run that nobody hears of",
        "a session of somebody else",
        "a session that was gone",
        "a takeover",
        "a token refused",
        "a token renewed",
        "an unknown execution",
    ];
    assert!(reached.iter().eq(expected.iter()), "{reached:?}");
}
