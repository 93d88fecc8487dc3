//! Sessions over simulated time, with the gateway's frames written by hand.

mod access;
mod beat;
mod opening;
mod pushes;
mod reasons;
mod requests;
mod resume;
mod simulated;
mod writing;

use super::*;
use crate::answer::Answer;
use crate::core::End;
use moorgate_proto::codec::{Assembler, put_frame};
use moorgate_proto::envelope::{Numbers, member::gateway};
use moorgate_proto::status::Code;
use moorgate_proto::v1::client_frame::Member;
use moorgate_proto::v1::{Execution, Reason, ResumeResult};
use moorgate_proto::view::Body;
use prost::Message;
use std::collections::BTreeMap;

const SECOND: Duration = Duration::from_secs(1);
const IN_FLIGHT: u32 = 4;
const WINDOW: u32 = 8;
/// What the gateway's clock says at each Welcome, in milliseconds of Unix time.
const SERVER_TIME_MS: u64 = 1_700_000_000_000;

/// A session, its driver, and the gateway's end, all by hand.
struct Desk {
    session: ClientSession,
    now: Mono,
    /// What was asked of the driver, but for what follows.
    asked: Vec<Output>,
    events: Vec<(Event, Option<Delivery>)>,
    outcomes: BTreeMap<Ticket, Outcome>,
    /// The last number of the downward stream.
    numbered: u64,
    /// What Welcomes say beside what is known here.
    template: v1::Welcome,
}

impl Desk {
    fn with(settings: Settings, credentials: Credentials) -> Desk {
        let mut desk = Desk {
            session: ClientSession::new(settings, credentials, 1),
            now: Mono::ZERO + SECOND,
            asked: Vec::new(),
            events: Vec::new(),
            outcomes: BTreeMap::new(),
            numbered: 0,
            template: v1::Welcome::default(),
        };
        desk.session.start(desk.now);
        desk.collect();
        desk
    }

    fn new(credentials: Credentials) -> Desk {
        let policy = Policy::Failover;
        Desk::with(Settings { policy, ..Settings::default() }, credentials)
    }

    /// With an open session of alice that can be resumed by the token `first`.
    fn resumable(credentials: Credentials) -> Desk {
        let mut desk = Desk::new(credentials);
        desk.resumes(ResumeResult::None, b"first", 0);
        desk.listed(&["a"]);
        desk.accept("a");
        desk.welcome("alice", 0);
        desk.heard();
        desk.events.clear();
        desk
    }

    /// The connection is lost, and the session resumed by this token.
    fn resume(&mut self, token: &[u8], admitted: u64) -> v1::Hello {
        self.lose();
        self.reconnect("a");
        let hello = self.accept("a");
        self.resumes(ResumeResult::Resumed, token, admitted);
        self.welcome("alice", 0);
        hello
    }

    fn has_missed(&self) -> bool {
        self.events.iter().any(|(event, _)| *event == Event::Resync(Missed::Session))
    }

    /// With an open session of this user; empty: anonymous.
    fn open(credentials: Credentials, user_id: &str) -> Desk {
        let mut desk = Desk::new(credentials);
        desk.listed(&["a"]);
        desk.accept("a");
        desk.welcome(user_id, 0);
        desk.heard();
        desk.events.clear();
        desk
    }

    fn collect(&mut self) {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Settled(ticket, outcome) => {
                    assert!(self.outcomes.insert(ticket, outcome).is_none(), "{ticket:?} has two outcomes");
                }
                Output::Event(event, delivery) => self.events.push((event, delivery)),
                output => self.asked.push(output),
            }
        }
    }

    /// Does one thing to the session.
    fn act<T>(&mut self, act: impl FnOnce(&mut ClientSession, Mono) -> T) -> T {
        let result = act(&mut self.session, self.now);
        self.collect();
        result
    }

    /// What the driver was asked to do since.
    fn asked(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.asked)
    }

    fn listed(&mut self, addresses: &[&str]) {
        assert_eq!(self.asked(), [Output::List]);
        let list = addresses.iter().map(|address| (*address).to_owned()).collect();
        self.act(|session, now| session.listed(now, Ok(list)));
    }

    /// The attempt that is asked for, which must be with this address, and the last thing asked.
    fn attempt(&mut self, address: &str) -> Attempt {
        match self.asked().pop() {
            Some(Output::Connect(attempt, found)) => {
                assert_eq!(found, address);
                attempt
            }
            other => panic!("no attempt with {address}, but {other:?}"),
        }
    }

    /// The connection that is asked for stands; what it says in its Hello.
    fn accept(&mut self, address: &str) -> v1::Hello {
        let attempt = self.attempt(address);
        let numbered = std::mem::take(&mut self.numbered);
        assert!(self.act(|session, now| session.connected(now, attempt, None)));
        match self.heard().remove(0).member {
            Some(Member::Hello(hello)) => {
                if hello.resume.is_some() {
                    self.numbered = numbered;
                }
                hello
            }
            other => panic!("no Hello but {other:?}"),
        }
    }

    fn say(&mut self, seq: u64, member: u32, body: &impl Body) {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, Numbers { seq, ack: 0 }, member, body);
        self.act(|session, now| session.received(now, &bytes));
    }

    fn say_numbered(&mut self, member: u32, body: &impl Body) {
        self.numbered += 1;
        self.say(self.numbered, member, body);
    }

    /// Welcomes; `life_s` above 0: the token lives so long.
    fn welcome(&mut self, user_id: &str, life_s: u64) {
        let limits = v1::Limits { frame_bytes_max: 65_536, in_flight_max: IN_FLIGHT, window_max: WINDOW };
        let welcome = v1::Welcome {
            version: 1,
            heartbeat_ms: 3_600_000,
            limits: Some(limits),
            user_id: user_id.to_owned(),
            server_time_ms: SERVER_TIME_MS,
            access_expires_ms: if life_s == 0 { 0 } else { SERVER_TIME_MS + life_s * 1000 },
            ..self.template.clone()
        };
        self.say(0, gateway::WELCOME, &welcome);
    }

    /// Welcomes from now on say this of resuming, with this token.
    fn resumes(&mut self, result: ResumeResult, token: &[u8], admitted: u64) {
        self.template = v1::Welcome {
            resume_result: result.into(),
            resume_token: token.to_vec().into(),
            detached_ttl_ms: 60_000,
            admitted,
            ..v1::Welcome::default()
        };
    }

    fn answer(&mut self, up_seq: u64, response: v1::Response) {
        self.say_numbered(gateway::RESPONSE, &v1::Response { up_seq, ..response });
    }

    fn error(&mut self, reason: Reason, reconnect: v1::Reconnect) {
        let error = v1::Error { reason: reason.into(), reconnect: Some(reconnect), ..v1::Error::default() };
        self.say(0, gateway::ERROR, &error);
    }

    /// What the client has said since.
    fn heard(&mut self) -> Vec<v1::ClientFrame> {
        let output = self.session.output().map(std::mem::take).unwrap_or_default();
        let mut rest = &output[..];
        let mut assembler = Assembler::default();
        let mut frames = Vec::new();
        while let Some(frame) = assembler.next(&mut rest, 1 << 20).unwrap() {
            frames.push(v1::ClientFrame::decode(frame).unwrap());
        }
        frames
    }

    /// The requests among what was said: number and request.
    fn requests(&mut self) -> Vec<(u64, v1::Request)> {
        let frames = self.heard().into_iter();
        frames
            .filter_map(|frame| match frame.member {
                Some(Member::Request(request)) => Some((frame.up_seq, request)),
                _ => None,
            })
            .collect()
    }

    fn has_said_bye(&mut self) -> bool {
        self.heard().iter().any(|frame| matches!(frame.member, Some(Member::Bye(_))))
    }

    fn ask_with(&mut self, key: &[u8], timeout: Duration) -> Result<Ticket, Refused> {
        let options = RequestOptions { idempotency_key: key, timeout, ..RequestOptions::command(7) };
        self.act(|session, now| session.request(now, &options, b"content"))
    }

    fn ask(&mut self) -> Ticket {
        self.ask_with(b"", Duration::ZERO).unwrap()
    }

    fn lose(&mut self) {
        self.act(|session, now| session.disconnected(now));
    }

    /// Goes to the session's next deadline.
    fn wait(&mut self) -> Duration {
        let next = self.session.next_deadline();
        assert!(next != Mono::NEVER, "it waits for nothing");
        let waited = next.since(self.now);
        self.now = self.now.max(next);
        self.act(|session, now| session.timers(now));
        waited
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.act(|session, now| session.timers(now));
    }

    /// Goes to the next attempt with this address; how long that took.
    fn reconnect(&mut self, address: &str) -> Duration {
        let begun = self.now;
        while !matches!(self.asked.last(), Some(Output::Connect(..))) {
            self.wait();
            if self.asked.last() == Some(&Output::List) {
                self.asked.clear();
                self.act(|session, now| session.listed(now, Ok(vec![address.to_owned()])));
            }
        }
        self.now.since(begun)
    }

    /// An open session again after the one before was lost.
    fn reopen(&mut self, user_id: &str) {
        self.reconnect("a");
        self.accept("a");
        self.welcome(user_id, 0);
    }

    fn states(&self) -> Vec<&State> {
        let states = self.events.iter().filter_map(|(event, _)| match event {
            Event::State(state) => Some(state),
            _ => None,
        });
        states.collect()
    }

    fn ending(&self) -> Option<&Ending> {
        match self.session.state() {
            State::Ended(ending) => Some(ending),
            _ => None,
        }
    }
}

fn allowed(after_ms: u32) -> v1::Reconnect {
    v1::Reconnect { allowed: true, after_ms, ..v1::Reconnect::default() }
}

fn token(text: &str) -> Credentials {
    Credentials::Token(text.to_owned().into())
}

fn open_state(user_id: &str) -> State {
    State::Open { address: "a".to_owned(), user_id: user_id.to_owned() }
}

fn answered(outcome: &Outcome) -> &Answer {
    match outcome {
        Outcome::Answer(answer) => answer,
        other => panic!("no answer but {other:?}"),
    }
}
