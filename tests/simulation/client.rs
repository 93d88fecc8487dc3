//! Clients: the client kit's core, asking at random, cancelling, leaving, coming back.

use crate::dice::Dice;
use crate::network::{ConnId, Side};
use crate::oracle::{Asked, Heard};
use crate::scenario::{ABSENT, ADMINS, NOBODYS, ORDERED, PLAIN};
use crate::world::{Event, Owner, Phase, World};
use moorgate_client::Options;
use moorgate_client::core::{self as kit, ClientCore, End, RequestId, RequestOptions};
use moorgate_proto::limits::FRAME_OVERHEAD;
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{self, Execution, Reason, Source};
use prost::Message;
use std::sync::Arc;
use std::time::Duration;

/// Who a client says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Identity {
    Anonymous,
    User,
    Admin,
    /// Its token expires while it is connected.
    Brief,
}

pub struct ClientHost {
    core: ClientCore,
    conn: Option<ConnId>,
    incarnation: u32,
    asked: u64,
    identity: Identity,
    /// The socket is full.
    blocked: bool,
    probe: Option<u64>,
    probed: bool,
}

/// What the core said, to be looked at once it is free.
enum Said {
    /// Its payload, unless the gateway says that it gave it up.
    Answer(u64, Heard, Option<Vec<u8>>),
    Welcomed(Box<v1::Welcome>),
    LoggedIn(String),
    /// Its id and its group.
    Pushed(Vec<u8>, String),
    Gap(u64),
    Ended(End),
}

impl ClientHost {
    pub fn new(dice: &mut Dice) -> ClientHost {
        let identity = match dice.below(5) {
            0 | 1 => Identity::Anonymous,
            2 => Identity::User,
            3 => Identity::Admin,
            _ => Identity::Brief,
        };
        ClientHost {
            core: ClientCore::new(Arc::new(Options::default())),
            conn: None,
            incarnation: 0,
            asked: 0,
            identity,
            blocked: false,
            probe: None,
            probed: false,
        }
    }

    pub fn incarnation(&self) -> u32 {
        self.incarnation
    }

    pub fn next_deadline(&self) -> Mono {
        self.core.next_deadline()
    }

    /// What is wrong with a client after a long calm.
    pub fn problem(&self) -> Option<String> {
        match (self.conn, self.core.is_open(), self.probed) {
            (Some(_), true, true) => None,
            (Some(_), true, false) => Some("its last request was not served".to_owned()),
            _ => Some("it has no session".to_owned()),
        }
    }
}

fn say(said: &mut Vec<Said>, event: kit::Event<'_>) {
    match event {
        kit::Event::Response(RequestId(id), view) => {
            let heard = Heard {
                code: Some(Code::from_wire(view.status)),
                source: Source::try_from(view.source).unwrap_or_default(),
                execution: Execution::try_from(view.execution).unwrap_or_default(),
            };
            let payload = (!view.payload_dropped).then(|| view.payload.to_vec());
            if !view.login.is_empty() {
                let login = v1::LoginResult::decode(view.login).unwrap();
                said.push(Said::LoggedIn(login.user_id));
            }
            said.push(Said::Answer(id, heard, payload));
        }
        kit::Event::Unanswered(RequestId(id), execution) => {
            let heard = Heard { code: None, source: Source::Unspecified, execution };
            said.push(Said::Answer(id, heard, None));
        }
        kit::Event::Welcomed(welcome) => said.push(Said::Welcomed(welcome)),
        kit::Event::Push(push) => said.push(Said::Pushed(push.push_id.to_vec(), push.group.to_owned())),
        kit::Event::Gap(gap) => said.push(Said::Gap(gap.count)),
        kit::Event::Ended(end) => said.push(Said::Ended(end)),
        _ => {}
    }
}

impl World {
    pub fn client_connects(&mut self, at: usize) {
        if self.phase == Phase::Draining || self.clients[at].conn.is_some() {
            return;
        }
        self.incarnations += 1;
        let shard = self.dice.index(self.shards.len());
        let conn = self.connect(Owner::Client(at), Owner::Backlog);
        let accept = self.dice.millis(0, 20);
        self.schedule(accept, Event::Accept(conn, shard));
        let token = self.token(self.clients[at].identity, at);
        // In the calm nobody takes another's place any more.
        let device_id = match self.phase {
            Phase::Faults if self.dice.chance(30) => "shared".to_owned(),
            _ => format!("device-{at}"),
        };
        let options = Options {
            opening_timeout: Duration::from_secs(6),
            waiting_max: 6,
            device_id,
            ..Options::default()
        };
        let mut core = ClientCore::new(Arc::new(options));
        core.connected(self.now, &token);
        let incarnation = self.incarnations;
        self.rates.connects(self.now, incarnation);
        self.trace.note(self.now, "connect", (at as u64, u64::from(incarnation)), || {
            format!("client {at} connects as {incarnation}, connection {conn}")
        });
        let host = &mut self.clients[at];
        (host.core, host.conn, host.incarnation) = (core, Some(conn), incarnation);
        (host.asked, host.blocked, host.probe) = (0, false, None);
        self.client_flush(at);
    }

    fn token(&mut self, identity: Identity, at: usize) -> String {
        let roles: &[&str] = if identity == Identity::Admin { &["admin"] } else { &[] };
        // In the calm even a brief one lasts.
        let life = if identity == Identity::Brief && self.phase == Phase::Faults { 3 } else { 3_600 };
        let expires = self.clock().unix_s() + life;
        match identity {
            Identity::Anonymous => String::new(),
            _ => moorgate::auth::mint(
                &self.scenario.signing_key,
                &serde_json::json!({
                    "sub": crate::pushes::user(at), "exp": expires, "roles": roles, "iat": self.clock().unix_s()
                }),
            ),
        }
    }

    pub fn client_acts(&mut self, at: usize) {
        if self.phase != Phase::Faults {
            return;
        }
        let again = self.dice.millis(1, 300);
        self.schedule(again, Event::ClientActs(at));
        if !self.clients[at].core.is_open() {
            return;
        }
        for _ in 0..self.dice.between(0, 3) {
            let command =
                [PLAIN, PLAIN, PLAIN, ORDERED, ORDERED, ADMINS, ABSENT, NOBODYS][self.dice.index(8)];
            let len = match self.dice.below(20) {
                0 => 2_500,
                1..=3 => self.dice.between(500, 2_000),
                _ => self.dice.between(0, 100),
            };
            let timeout = if self.dice.chance(70) { Duration::ZERO } else { self.dice.millis(20, 1_000) };
            self.ask(at, command, len as usize, timeout);
        }
        if self.dice.chance(15) {
            let asked = self.clients[at].asked;
            let id = asked.saturating_sub(self.dice.below(4)).max(1);
            self.clients[at].core.cancel(self.now, RequestId(id));
        }
        if self.dice.chance(1) {
            self.clients[at].core.bye(self.now, Duration::ZERO);
        }
        self.client_flush(at);
    }

    fn ask(&mut self, at: usize, command: u32, filler: usize, timeout: Duration) -> Option<u64> {
        let host = &mut self.clients[at];
        let asked = Asked { incarnation: host.incarnation, up_seq: host.asked + 1 };
        let mut payload = asked.to_bytes().to_vec();
        payload.resize(Asked::BYTES + filler, command as u8);
        assert!(payload.len() + FRAME_OVERHEAD <= 4_096, "a request fits into any frame");
        let options = RequestOptions { timeout, ..RequestOptions::command(command) };
        let id = host.core.request(self.now, &options, &payload).ok()?;
        assert_eq!(id.0, asked.up_seq);
        host.asked = asked.up_seq;
        self.oracle.asked(asked, &payload);
        self.trace.note(self.now, "ask", (u64::from(asked.incarnation), asked.up_seq), || {
            format!("{asked:?} command {command}, {} bytes", payload.len())
        });
        Some(id.0)
    }

    /// One last request that must be served.
    pub fn probe(&mut self, at: usize) {
        if !self.clients[at].core.is_open() {
            return self.oracle.violated(format!("client {at} has no session in the calm"));
        }
        self.clients[at].probe = self.ask(at, PLAIN, 10, Duration::ZERO);
        self.client_flush(at);
    }

    pub fn client_flush(&mut self, at: usize) {
        let Some(conn) = self.clients[at].conn else { return };
        if self.clients[at].blocked || self.clients[at].core.output().is_empty() {
            return;
        }
        let most = self.appetite();
        let output = self.clients[at].core.output();
        match self.net.write(conn, Side::Dialler, output, most) {
            Some(count) => {
                output.drain(..count);
                let blocked = !output.is_empty();
                self.clients[at].blocked = blocked;
            }
            None => self.client_lost(at),
        }
    }

    pub fn client_writable(&mut self, at: usize, conn: ConnId) {
        if self.clients[at].conn == Some(conn) {
            self.clients[at].blocked = false;
            self.client_flush(at);
        }
    }

    pub fn client_received(&mut self, at: usize, bytes: &[u8]) {
        let mut said = Vec::new();
        self.clients[at].core.received(self.now, bytes, &mut |_, event| say(&mut said, event));
        self.client_said(at, said);
    }

    pub fn client_timers(&mut self, at: usize) {
        let mut said = Vec::new();
        self.clients[at].core.timers(self.now, &mut |_, event| say(&mut said, event));
        self.client_said(at, said);
    }

    pub fn client_lost(&mut self, at: usize) {
        let mut said = Vec::new();
        self.clients[at].core.disconnected(&mut |_, event| say(&mut said, event));
        self.client_said(at, said);
    }

    fn client_said(&mut self, at: usize, said: Vec<Said>) {
        let incarnation = self.clients[at].incarnation;
        for said in said {
            match said {
                Said::Answer(up_seq, heard, payload) => {
                    let asked = Asked { incarnation, up_seq };
                    self.trace.note(self.now, "heard", (u64::from(incarnation), up_seq), || {
                        format!("{asked:?}: {heard:?}")
                    });
                    let ok = heard.code == Some(Code::Ok);
                    self.note_answer(at, up_seq, heard.code);
                    self.oracle.heard(asked, heard, payload.as_deref().filter(|_| ok));
                    if self.clients[at].probe == Some(up_seq) && ok {
                        self.clients[at].probed = true;
                    }
                }
                Said::Welcomed(welcome) => self.note_welcome(at, &welcome),
                Said::LoggedIn(user) => self.note_login(at, &user),
                Said::Pushed(push_id, group) => self.note_push(at, &push_id, &group),
                Said::Gap(count) => self.pushes.gap(incarnation, count),
                Said::Ended(end) => self.client_ended(at, &end),
            }
        }
        self.client_flush(at);
    }

    fn client_ended(&mut self, at: usize, end: &End) {
        self.trace.note(self.now, "ended", (at as u64, 0), || format!("client {at}: {end:?}"));
        match end {
            End::Fault(fault) => self.oracle.violated(format!("the gateway broke the contract: {fault:?}")),
            End::Error(error) => {
                // The kit keeps the contract: the gateway must not find it broken.
                let blamed = matches!(
                    Reason::try_from(error.reason),
                    Ok(Reason::ProtocolViolation
                        | Reason::FrameTooLarge
                        | Reason::FrameEmpty
                        | Reason::FrameMalformed
                        | Reason::SequenceGap
                        | Reason::AckBeyondSent
                        | Reason::InFlightExceeded
                        | Reason::TokenInvalid)
                );
                if blamed {
                    self.oracle.violated(format!("the client was blamed: {error:?}"));
                }
            }
            End::Bye | End::Lost | End::OpeningTimeout | End::Silence => {}
        }
        let incarnation = self.clients[at].incarnation;
        self.pushes.over(incarnation);
        if let Some(conn) = self.clients[at].conn.take() {
            self.net.close(conn, Side::Dialler);
        }
        let again = self.dice.millis(10, 1_500);
        self.schedule(again, Event::ClientConnects(at));
    }
}
