//! Clients: the client kit's core, asking at random, cancelling, leaving, coming back.

use crate::dice::Dice;
use crate::hearing::say;
use crate::network::{ConnId, Side};
use crate::oracle::Asked;
use crate::reached::Path;
use crate::scenario::{ABSENT, ACCESS_TTL, ADMINS, NOBODYS, ORDERED, PLAIN};
use crate::world::{Event, Owner, Phase, World};
use moorgate::directory::Wins;
use moorgate_client::Options;
use moorgate_client::core::{ClientCore, RequestId, RequestOptions};
use moorgate_proto::codec::Assembler;
use moorgate_proto::envelope::Envelope;
use moorgate_proto::envelope::member::client::REQUEST;
use moorgate_proto::limits::{FRAME_BYTES_CEILING, FRAME_OVERHEAD};
use moorgate_proto::time::Mono;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Who a client says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    Anonymous,
    User,
    Admin,
    /// Its token expires while it is connected.
    Brief,
}

pub struct ClientHost {
    pub core: ClientCore,
    pub options: Arc<Options>,
    pub conn: Option<ConnId>,
    /// Counts sessions, and starts of applications that go on with one.
    pub incarnation: u32,
    /// The last request of this incarnation, and those without an answer.
    pub asked: u64,
    pub open: BTreeSet<u64>,
    /// The last request that was written whole, and what listens to that.
    sent: u64,
    listener: Assembler,
    pub identity: Identity,
    platform: &'static str,
    /// It keeps its sessions.
    resumes: bool,
    /// An earlier process was in the session that it goes back to.
    pub is_restored: bool,
    /// The session that it is in, or goes back to.
    pub session_id: Vec<u8>,
    /// Since when this connection stands.
    pub since: Mono,
    /// The socket is full.
    pub blocked: bool,
    pub probe: Option<u64>,
    pub probed: bool,
    /// It may not be here beside others of its user, and does not insist.
    pub gave_way: bool,
    /// The keys of requests without an answer, and keys to ask by again.
    pub keys: BTreeMap<u64, Vec<u8>>,
    pub again: Vec<Vec<u8>>,
    /// The access token that it shows, as long as nobody minds.
    pub token: Option<String>,
    /// Its last Hello, as it was sent.
    pub last_hello: Vec<u8>,
}

/// By which services know a request that comes twice.
enum Key {
    New,
    Old(Vec<u8>),
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
            options: Arc::new(Options::default()),
            conn: None,
            incarnation: 0,
            asked: 0,
            open: BTreeSet::new(),
            sent: 0,
            listener: Assembler::default(),
            identity,
            platform: ["ios", "android", "web"][dice.index(3)],
            resumes: dice.chance(85),
            is_restored: false,
            session_id: Vec::new(),
            since: Mono::ZERO,
            blocked: false,
            probe: None,
            probed: false,
            gave_way: false,
            keys: BTreeMap::new(),
            again: Vec::new(),
            token: None,
            last_hello: Vec::new(),
        }
    }

    /// Whether it has a session, and a connection.
    pub fn is_here(&self) -> bool {
        self.conn.is_some() && self.core.is_open()
    }

    pub fn next_deadline(&self) -> Mono {
        self.core.next_deadline()
    }

    /// What is wrong with a client after a long calm.
    pub fn problem(&self) -> Option<String> {
        match (self.is_here(), self.probed) {
            (true, true) => None,
            (true, false) => Some("its last request was not served".to_owned()),
            _ => Some("it has no session".to_owned()),
        }
    }

    /// Another session, or another start of the application, has begun.
    pub fn begin(&mut self, incarnation: u32) {
        (self.incarnation, self.asked, self.sent) = (incarnation, 0, 0);
        self.open.clear();
    }

    /// A new process goes on after this request.
    pub fn goes_on_from(&mut self, up_seq: u64) {
        (self.asked, self.sent) = (up_seq, up_seq);
    }

    /// Looks at what was written; how many requests of it had been written before.
    fn wrote(&mut self, mut bytes: &[u8]) -> usize {
        let mut again = 0;
        while let Ok(Some(frame)) = self.listener.next(&mut bytes, FRAME_BYTES_CEILING) {
            let Ok(envelope) = Envelope::decode(frame) else { continue };
            if envelope.member.is_some_and(|(member, _)| member == REQUEST) {
                again += usize::from(envelope.numbers.seq <= self.sent);
                self.sent = self.sent.max(envelope.numbers.seq);
            }
        }
        again
    }
}

impl World {
    pub fn client_connects(&mut self, at: usize) {
        if self.phase == Phase::Draining || self.clients[at].conn.is_some() {
            return;
        }
        // Who was displaced would displace the other, and both for ever.
        let gives_way = self.phase == Phase::Calm && self.clients[at].gave_way;
        if gives_way && self.scenario.users.devices.wins == Wins::Newer && self.is_represented(at) {
            return self.schedule(Duration::from_secs(2), Event::ClientConnects(at));
        }
        let shard = self.dice.index(self.shards.len());
        let conn = self.connect(Owner::Client(at), Owner::Backlog);
        self.sessions.connects(conn, at);
        let accept = self.dice.millis(0, 20);
        self.schedule(accept, Event::Accept(conn, shard));
        self.choose_core(at);
        let token = self.shown_token(at);
        let now = self.now;
        let host = &mut self.clients[at];
        host.core.connected(now, &token);
        host.last_hello.clone_from(host.core.output());
        (host.conn, host.since, host.blocked) = (Some(conn), now, false);
        host.gave_way &= self.phase == Phase::Calm;
        host.listener = Assembler::default();
        self.trace.note(now, "connect", (at as u64, conn as u64), || {
            format!("client {at} connects over {conn}, token {}", !token.is_empty())
        });
        if self.delay_hello(conn) && self.dice.chance(50) {
            let delay = self.dice.millis(50, 2_000);
            self.schedule(delay, Event::Impatient(at, conn));
        }
        self.client_flush(at);
    }

    /// It goes on with what it has, or begins anew.
    fn choose_core(&mut self, at: usize) {
        let gives_up = self.phase == Phase::Faults && self.dice.chance(3);
        if self.clients[at].core.is_detached() && !gives_up {
            if self.phase == Phase::Faults && self.dice.chance(8) {
                self.application_restarts(at);
            }
            return;
        }
        if gives_up {
            self.client_gives_up(at);
        }
        let options = Arc::new(self.client_options(at));
        let host = &mut self.clients[at];
        host.options = options.clone();
        host.core = if host.resumes { ClientCore::resuming(options) } else { ClientCore::new(options) };
    }

    /// It does not want its session any more.
    pub fn client_gives_up(&mut self, at: usize) {
        let mut said = Vec::new();
        self.clients[at].core.give_up(&mut |_, event| say(&mut said, event));
        self.client_said(at, said);
        self.pushes.over(self.clients[at].incarnation);
    }

    fn client_options(&mut self, at: usize) -> Options {
        // In the calm nobody takes another's place any more.
        let device_id = match self.phase {
            Phase::Faults if !self.scenario.is_gentle && self.dice.chance(30) => "shared".to_owned(),
            _ => format!("device-{at}"),
        };
        Options {
            opening_timeout: Duration::from_secs(6),
            waiting_max: 6,
            device_id,
            platform: self.clients[at].platform.to_owned(),
            ..Options::default()
        }
    }

    /// The token of its Hello.
    fn shown_token(&mut self, at: usize) -> String {
        let host = &mut self.clients[at];
        let is_detached = host.core.is_detached();
        let token = match host.token.take() {
            // The session has its own access, for as long as that lasts.
            _ if is_detached && self.phase == Phase::Faults && self.dice.chance(40) => return String::new(),
            // It may be the one that was good before.
            Some(token) if self.phase == Phase::Faults => token,
            _ => self.token(self.clients[at].identity, at),
        };
        let keeps = self.dice.chance(70);
        self.clients[at].token = keeps.then(|| token.clone());
        token
    }

    fn token(&mut self, identity: Identity, at: usize) -> String {
        let roles: &[&str] = if identity == Identity::Admin { &["admin"] } else { &[] };
        // In the calm even a brief one lasts; and all others do, however far the clock jumps.
        let is_brief = identity == Identity::Brief && self.phase == Phase::Faults;
        let life = if is_brief { 3 } else { ACCESS_TTL.as_secs() };
        let expires = self.clock().unix_s() + life;
        if identity == Identity::Anonymous {
            return String::new();
        }
        let user = crate::pushes::user(at);
        self.mint(&user, roles, expires)
    }

    /// An access token that is good until then.
    pub fn mint(&mut self, user: &str, roles: &[&str], expires: u64) -> String {
        let claims =
            serde_json::json!({"sub": user, "exp": expires, "roles": roles, "iat": self.clock().unix_s()});
        let token = moorgate::auth::mint(&self.scenario.signing_key, &claims);
        self.sessions.minted(&token, user);
        token
    }

    /// Its Hello takes too long: the client comes again, and the Hello is still under way.
    pub fn impatient(&mut self, at: usize, conn: ConnId) {
        if self.clients[at].conn != Some(conn) || self.clients[at].core.is_open() {
            return;
        }
        self.reach(Path::HelloAbandoned);
        self.clients[at].conn = None;
        self.owners[conn][Side::Dialler as usize] = Owner::Nobody;
        let delay = self.dice.millis(1_000, 10_000);
        self.schedule(delay, Event::Cut(conn));
        self.client_lost(at);
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
            let key = if self.dice.chance(30) { Some(Key::New) } else { None };
            self.ask(at, command, (len as usize, timeout), key);
        }
        if let Some(key) = self.clients[at].again.pop() {
            self.reach(Path::Retried);
            self.ask(at, PLAIN, (0, Duration::ZERO), Some(Key::Old(key)));
        }
        if self.dice.chance(3) {
            let token = self.token(self.clients[at].identity, at);
            self.clients[at].core.authenticate(self.now, &token);
        }
        if self.dice.chance(15) {
            let asked = self.clients[at].asked;
            let id = asked.saturating_sub(self.dice.below(4)).max(1);
            self.clients[at].core.cancel(self.now, RequestId(id));
        }
        if self.dice.chance(2) {
            let keep_for = if self.dice.chance(70) { self.dice.millis(100, 10_000) } else { Duration::ZERO };
            self.clients[at].core.bye(self.now, keep_for);
        }
        self.client_flush(at);
    }

    fn ask(
        &mut self,
        at: usize,
        command: u32,
        (filler, timeout): (usize, Duration),
        key: Option<Key>,
    ) -> Option<u64> {
        let host = &mut self.clients[at];
        let asked = Asked { incarnation: host.incarnation, up_seq: host.asked + 1 };
        let mut payload = asked.to_bytes().to_vec();
        payload.resize(Asked::BYTES + filler, command as u8);
        assert!(payload.len() + FRAME_OVERHEAD <= 4_096, "a request fits into any frame");
        let key = match key {
            None => Vec::new(),
            Some(Key::New) => asked.to_bytes().to_vec(),
            Some(Key::Old(key)) => key,
        };
        let options = RequestOptions { timeout, idempotency_key: &key, ..RequestOptions::command(command) };
        let id = host.core.request(self.now, &options, &payload).ok()?;
        assert_eq!(id.0, asked.up_seq);
        host.asked = asked.up_seq;
        host.open.insert(asked.up_seq);
        self.oracle.asked(asked, &payload, &key);
        if let Some(conn) = self.clients[at].conn {
            self.note_asked(asked, conn, command, timeout);
        }
        if !key.is_empty() {
            self.clients[at].keys.insert(asked.up_seq, key);
        }
        self.trace.note(self.now, "ask", (u64::from(asked.incarnation), asked.up_seq), || {
            format!("{asked:?} command {command}, {} bytes", payload.len())
        });
        Some(id.0)
    }

    /// One last request that must be served.
    pub fn probe(&mut self, at: usize) {
        if self.clients[at].gave_way && !self.clients[at].core.is_open() {
            return;
        }
        if !self.clients[at].core.is_open() {
            return self.oracle.violated(format!("client {at} has no session in the calm"));
        }
        self.clients[at].probe = self.ask(at, PLAIN, (10, Duration::ZERO), None);
        self.client_flush(at);
    }

    /// Whether another client of the same user is here, as whom this one may not be.
    pub fn is_represented(&self, at: usize) -> bool {
        let user = crate::pushes::user(at);
        let mut here = self.clients.iter().filter(|client| client.is_here());
        here.any(|client| self.pushes.user_of(client.incarnation) == Some(user.clone()))
    }

    /// It goes for good: with a farewell, or without.
    pub fn client_leaves(&mut self, at: usize) {
        match self.dice.below(4) {
            _ if !self.clients[at].core.is_open() => self.client_lost(at),
            0 => self.client_lost(at),
            1 => self.clients[at].core.bye(self.now, Duration::from_secs(60)),
            _ => self.clients[at].core.bye(self.now, Duration::ZERO),
        }
        self.client_flush(at);
    }

    pub fn client_flush(&mut self, at: usize) {
        let Some(conn) = self.clients[at].conn else { return };
        if self.clients[at].blocked || self.clients[at].core.output().is_empty() {
            return;
        }
        let most = self.appetite();
        let host = &mut self.clients[at];
        match self.net.write(conn, Side::Dialler, host.core.output(), most) {
            Some(count) => {
                let written: Vec<u8> = host.core.output().drain(..count).collect();
                host.blocked = !host.core.output().is_empty();
                for _ in 0..host.wrote(&written) {
                    self.reached.note(Path::RequestResent);
                }
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
}
