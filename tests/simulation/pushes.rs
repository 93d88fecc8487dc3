//! Pushes, groups, logins and kicks: what services ask for beside answering, and who judges what comes of it.

use crate::dice::Dice;
use crate::network::ConnId;
use crate::world::{Event, Phase, World};
use moorgate_proto::status::Code;
use moorgate_proto::v1::directive::Action;
use moorgate_proto::v1::service_push::Target as To;
use moorgate_proto::v1::{self, Priority};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const GROUPS: [&str; 2] = ["one", "two"];
const COMMAND: u32 = 0x1001;

/// Whom a service meant.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Meant {
    User(String),
    Session(Vec<u8>),
    Group(&'static str),
    Everyone,
}

#[derive(Debug)]
struct Pushed {
    meant: Meant,
    conn: ConnId,
    /// When the service has sent it.
    at: Duration,
    /// It may be replaced, or time out: whoever misses it is told only at times.
    fleeting: bool,
    /// How often it was sent, and how often it was refused.
    sent: u32,
    refused: u32,
    /// The gateway has said that it has taken it.
    is_taken: bool,
    /// Somebody has got it.
    came: bool,
}

/// What one session of a client has got.
#[derive(Debug, Default, Clone)]
struct Got {
    session_id: Vec<u8>,
    user: String,
    /// Since when, as the client knows, it is this user.
    since: Duration,
    is_over: bool,
    pushes: BTreeSet<u64>,
    last_by_link: BTreeMap<ConnId, u64>,
    /// Pushes that it was told it would miss.
    missed: u64,
    /// Groups that a service has put it into, and since when the client knows; `None`: it may be out again.
    groups: BTreeMap<&'static str, Option<Duration>>,
    ever_in: BTreeSet<&'static str>,
}

/// A request whose answer puts its session into a group, if it still belongs to the user who asked.
#[derive(Debug)]
pub struct Joining {
    pub group: &'static str,
    pub user: String,
}

/// Judges pushes by what services sent and clients got.
#[derive(Debug, Default)]
pub struct PushOracle {
    pushes: BTreeMap<u64, Pushed>,
    sessions: BTreeMap<u32, Got>,
    receipts: BTreeSet<(u64, Vec<u8>)>,
    pub delivered: u64,
    pub gaps: u64,
}

fn id_of(push_id: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(push_id.try_into().ok()?))
}

impl PushOracle {
    pub fn opened(&mut self, incarnation: u32, welcome: &v1::Welcome, now: Duration) {
        let session = self.sessions.entry(incarnation).or_default();
        session.session_id = welcome.session_id.to_vec();
        (session.user, session.since) = (welcome.user_id.clone(), now);
    }

    pub fn logged_in(&mut self, incarnation: u32, user: &str, now: Duration) {
        let session = self.sessions.entry(incarnation).or_default();
        (session.user, session.since) = (user.to_owned(), now);
    }

    /// Another start of the application goes on with a session.
    pub fn goes_on(&mut self, before: u32, now: u32) {
        let got = self.sessions.get(&before).cloned().unwrap_or_default();
        self.sessions.insert(now, got);
        self.over(before);
    }

    /// Whose session this is, as its client knows.
    pub fn user_of(&self, incarnation: u32) -> Option<String> {
        self.sessions.get(&incarnation).map(|session| session.user.clone()).filter(|user| !user.is_empty())
    }

    pub fn over(&mut self, incarnation: u32) {
        self.sessions.entry(incarnation).or_default().is_over = true;
    }

    /// A service asks for this in the Reply to a call of that session.
    fn directed(&mut self, incarnation: u32, action: &Action) {
        let session_id = self.sessions.entry(incarnation).or_default().session_id.clone();
        let group = |name: &str| GROUPS.into_iter().find(|group| *group == name);
        // Another start of its application may have gone on with it.
        let same = self.sessions.values_mut().filter(|session| session.session_id == session_id);
        same.for_each(|session| match action {
            Action::JoinGroup(join) => session.ever_in.extend(group(&join.group)),
            Action::LeaveGroup(leave) => {
                if let Some(group) = group(&leave.group) {
                    session.groups.insert(group, None);
                }
            }
            _ => {}
        });
    }

    /// The client has heard the answer that came with a group, to what it had asked as this user.
    fn joined(&mut self, incarnation: u32, joining: &Joining, now: Duration) {
        let session = self.sessions.entry(incarnation).or_default();
        // Somebody who has logged in since may not have joined.
        if session.user == joining.user {
            session.groups.entry(joining.group).or_insert(Some(now));
        }
    }

    fn result(&mut self, result: &v1::PushResult) {
        if let Some(pushed) = id_of(&result.push_id).and_then(|id| self.pushes.get_mut(&id)) {
            pushed.is_taken |= result.status == 0;
            pushed.refused += u32::from(result.status != 0);
        }
    }

    /// A client gets a push; what is wrong with that.
    pub fn got(&mut self, incarnation: u32, push_id: &[u8], group: &str) -> Option<String> {
        let id = id_of(push_id)?;
        let session = self.sessions.entry(incarnation).or_default();
        let Some(pushed) = self.pushes.get_mut(&id) else { return Some(format!("push {id} was never sent")) };
        self.delivered += 1;
        pushed.came = true;
        if !session.pushes.insert(id) {
            return Some(format!("push {id} came twice"));
        }
        let last = session.last_by_link.insert(pushed.conn, id);
        if let Some(last) = last.filter(|last| *last > id) {
            return Some(format!("push {id} came after {last} of the same link"));
        }
        let is_meant = match &pushed.meant {
            Meant::User(user) => *user == session.user,
            Meant::Session(session_id) => *session_id == session.session_id,
            Meant::Group(name) => session.ever_in.contains(name) && group == *name,
            Meant::Everyone => true,
        };
        (!is_meant).then(|| format!("push {id} for {:?} came to {session:?}", pushed.meant))
    }

    pub fn gap(&mut self, incarnation: u32, count: u64) {
        self.gaps += count;
        self.sessions.entry(incarnation).or_default().missed += count;
    }

    /// A service hears what became of a push.
    fn receipt(&mut self, receipt: &v1::PushReceipt) -> Option<String> {
        let id = id_of(&receipt.push_id)?;
        let session_id = receipt.session_id.to_vec();
        if !self.receipts.insert((id, session_id.clone())) {
            return Some(format!("two receipts for push {id} and one session"));
        }
        let mut sessions = self.sessions.values().filter(|session| session.session_id == session_id);
        let has_it = sessions.any(|session| session.pushes.contains(&id));
        (receipt.acknowledged && !has_it).then(|| format!("push {id} was acknowledged and never came"))
    }

    /// All is calm: whoever should have got a push has it, or was told that something is missing.
    pub fn complete(&self) -> Option<String> {
        let lied = |pushed: &Pushed| pushed.came && pushed.refused == pushed.sent;
        if let Some((id, _)) = self.pushes.iter().find(|(_, pushed)| lied(pushed)) {
            return Some(format!("push {id} was refused, and came"));
        }
        let living =
            self.sessions.iter().filter(|(_, session)| !session.is_over && !session.session_id.is_empty());
        for (incarnation, session) in living {
            let due = self.pushes.iter().filter(|(_, pushed)| pushed.is_taken && !pushed.fleeting);
            let due = due.filter(|(_, pushed)| {
                let known = |since: Duration| since <= pushed.at;
                known(session.since)
                    && match &pushed.meant {
                        Meant::User(user) => *user == session.user,
                        Meant::Session(session_id) => *session_id == session.session_id,
                        Meant::Group(name) => session.groups.get(name).copied().flatten().is_some_and(known),
                        Meant::Everyone => true,
                    }
            });
            let missing: Vec<u64> =
                due.map(|(id, _)| *id).filter(|id| !session.pushes.contains(id)).collect();
            if missing.len() as u64 > session.missed {
                return Some(format!(
                    "session {incarnation} misses {missing:?} and was told of {}",
                    session.missed
                ));
            }
        }
        None
    }
}

/// What a service asks for with some Reply.
pub fn some_action(dice: &mut Dice, clients: usize, session_id: &[u8], is_gentle: bool) -> Action {
    let group = GROUPS[dice.index(GROUPS.len())].to_owned();
    let user_id = user(dice.index(clients));
    let least = if is_gentle { 4 } else { 0 };
    match dice.between(least, 19) {
        _ if is_gentle && dice.chance(50) => {
            Action::JoinGroup(v1::JoinGroup { group, session_id: bytes::Bytes::new() })
        }
        0 => Action::KickUser(v1::KickUser { user_id, message: "out".to_owned() }),
        1 => Action::KickSession(v1::KickSession {
            session_id: session_id.to_vec().into(),
            message: "you".to_owned(),
        }),
        2 => Action::Revoke(v1::Revoke { user_id, token_id: String::new() }),
        3 => Action::Logout(v1::Logout {}),
        4..=6 => Action::LeaveGroup(v1::LeaveGroup { group, session_id: bytes::Bytes::new() }),
        7..=9 if !is_gentle => Action::Login(v1::Login { user_id, roles: Vec::new(), access_ttl_ms: 0 }),
        _ => Action::JoinGroup(v1::JoinGroup { group, session_id: bytes::Bytes::new() }),
    }
}

pub fn user(at: usize) -> String {
    // Two clients are one user.
    format!("user-{}", at / 2)
}

/// The group that an action puts its caller into.
pub fn joins(action: &Action) -> Option<&'static str> {
    match action {
        Action::JoinGroup(join) => GROUPS.into_iter().find(|group| *group == join.group),
        _ => None,
    }
}

impl World {
    fn since_zero(&self) -> Duration {
        self.now.since(moorgate_proto::time::Mono::ZERO)
    }

    /// Notes what a service asks for, before it is sent.
    pub fn note_action(&mut self, incarnation: u32, action: &Action) {
        self.pushes.directed(incarnation, action);
    }

    pub fn note_push_result(&mut self, result: &v1::PushResult) {
        self.trace.note(self.now, "result", (id_of(&result.push_id).unwrap_or(0), 0), || {
            format!("of push {:?}: {:?} {:?}", id_of(&result.push_id), result.reason(), result.targets)
        });
        self.pushes.result(result);
    }

    pub fn note_receipt(&mut self, receipt: &v1::PushReceipt) {
        // A thief may say that it has what its client never got.
        let is_robbed = self.sessions.was_robbed(&receipt.session_id);
        if let Some(problem) = self.pushes.receipt(receipt).filter(|_| !is_robbed) {
            self.oracle.violated(problem);
        }
    }

    pub fn note_push(&mut self, at: usize, push_id: &[u8], group: &str) {
        let incarnation = self.clients[at].incarnation;
        self.trace.note(self.now, "pushed", (u64::from(incarnation), id_of(push_id).unwrap_or(0)), || {
            format!("client {at} as {incarnation} gets push {:?}", id_of(push_id))
        });
        if let Some(problem) = self.pushes.got(incarnation, push_id, group) {
            self.oracle.violated(problem);
        }
    }

    pub fn note_welcome(&mut self, at: usize, welcome: &v1::Welcome) {
        let (incarnation, now) = (self.clients[at].incarnation, self.since_zero());
        self.pushes.opened(incarnation, welcome, now);
    }

    pub fn note_login(&mut self, at: usize, user: &str) {
        let (incarnation, now) = (self.clients[at].incarnation, self.since_zero());
        self.pushes.logged_in(incarnation, user, now);
    }

    /// The client hears that its request was answered, which may have put it into a group.
    pub fn note_answer(&mut self, at: usize, up_seq: u64, code: Option<Code>) {
        let (incarnation, now) = (self.clients[at].incarnation, self.since_zero());
        let joining = self.joining.remove(&(incarnation, up_seq));
        if let Some(joining) = joining.filter(|_| code == Some(Code::Ok)) {
            self.pushes.joined(incarnation, &joining, now);
        }
    }

    /// A service pushes something to somebody.
    pub fn endpoint_pushes(&mut self, at: usize) {
        let Some(link) = self.some_link(at) else { return };
        self.push_serial += 1;
        let id = self.push_serial;
        let clients = self.clients.len();
        let sessions: Vec<Vec<u8>> = self.pushes.sessions.values().map(|it| it.session_id.clone()).collect();
        let meant = match self.dice.below(4) {
            0 => Meant::User(user(self.dice.index(clients))),
            1 if !sessions.is_empty() => Meant::Session(sessions[self.dice.index(sessions.len())].clone()),
            2 => Meant::Group(GROUPS[self.dice.index(GROUPS.len())]),
            _ => Meant::Everyone,
        };
        let ttl_ms = if self.dice.chance(20) { self.dice.between(1, 500) as u32 } else { 0 };
        let collapse_key = if self.dice.chance(15) { "key".to_owned() } else { String::new() };
        let priority = [Priority::Normal, Priority::Low, Priority::High][self.dice.index(3)];
        let len = if self.dice.chance(10) { 3_500 } else { self.dice.between(0, 300) };
        let target = match &meant {
            Meant::User(user) => To::Users(v1::Users { user_ids: vec![user.clone()] }),
            Meant::Session(id) => To::Sessions(v1::Sessions { session_ids: vec![id.clone().into()] }),
            Meant::Group(name) => To::Group((*name).to_owned()),
            Meant::Everyone => To::Everyone(v1::Everyone {}),
        };
        let fleeting = ttl_ms > 0 || !collapse_key.is_empty();
        let push = v1::ServicePush {
            push_id: id.to_be_bytes().to_vec().into(),
            target: Some(target),
            command: COMMAND,
            priority: priority.into(),
            ttl_ms,
            collapse_key,
            want_receipt: self.dice.chance(40),
            payload: vec![7; len as usize].into(),
            ..v1::ServicePush::default()
        };
        // The same id again, as a service does that has had no answer.
        let times = if self.dice.chance(10) { 2 } else { 1 };
        self.trace.note(self.now, "pushes", (id, u64::from(push.want_receipt)), || {
            format!("endpoint {at} pushes {id} to {meant:?}, fleeting: {fleeting}, {len} bytes")
        });
        let (now, Some(conn)) = (self.since_zero(), self.link_conn(at, link)) else { return };
        let pushed =
            Pushed { meant, conn, at: now, fleeting, sent: times, refused: 0, is_taken: false, came: false };
        self.pushes.pushes.insert(id, pushed);
        for _ in 0..times {
            self.send_push(at, link, &push.encode_to_vec());
        }
        self.service_flush(at, link);
    }

    /// Services push now and then, several at once.
    pub fn some_pushes(&mut self) {
        if self.phase != Phase::Faults {
            return;
        }
        let again = self.dice.millis(50, 1_500);
        self.schedule(again, Event::Pushes);
        for _ in 0..self.dice.between(1, 12) {
            let endpoint = self.dice.index(self.endpoints.len());
            self.endpoint_pushes(endpoint);
        }
    }

    /// In the calm: something for everyone, that everyone must get.
    pub fn last_push(&mut self) {
        if self.phase == Phase::Calm {
            for at in 0..self.endpoints.len() {
                self.endpoint_pushes(at);
            }
        }
    }
}
