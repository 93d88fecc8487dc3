//! Judges resumes by what went over the wire: which tokens were given out, who showed which, and what came of it.
//!
//! What the gateway had read, or had decided and not yet written, when something happened is not always known here.
//! So there are two bounds of the proven generation and of the last attempt: what must have been, and what may.

use crate::lives::{Life, Loot, rank, refusal, replaced, shrunk};
use crate::network::ConnId;
use crate::reached::Path;
use crate::scenario::Scenario;
use crate::tap::{Carried, Down, Up};
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{self, Reason, ResumeResult};
use std::collections::BTreeMap;
use std::time::Duration;

/// How late a loss may be noticed, or a token arrive, without being late.
const SLACK: Duration = Duration::from_millis(100);

/// One connection.
#[derive(Debug, Default)]
struct Talk {
    client: Option<usize>,
    hello: Option<Box<v1::Hello>>,
    /// The session and the rank of its token.
    shown: Option<(usize, u128)>,
    /// It must be resumed.
    is_due: bool,
    since: Mono,
    life: Option<usize>,
    generation: u128,
    /// What Welcome said.
    admitted: u64,
    is_resumed: bool,
    replayed_bytes: usize,
    is_replay_long: bool,
    keep_ms: Option<u32>,
}

/// See the module's page.
#[derive(Debug)]
pub struct SessionOracle {
    boot: u32,
    ttl: Duration,
    /// Nothing but time and their own clients ends sessions.
    is_gentle: bool,
    output_bytes_high: usize,
    lives: Vec<Life>,
    talks: BTreeMap<ConnId, Talk>,
    /// Every token that was given out: of which session, and its rank.
    tokens: BTreeMap<Vec<u8>, (usize, u128)>,
    ids: BTreeMap<Vec<u8>, usize>,
    /// Whose access token this is.
    users: BTreeMap<String, String>,
    /// Paths that were taken, and are not yet counted.
    pub noted: Vec<Path>,
}

impl SessionOracle {
    pub fn new(scenario: &Scenario) -> SessionOracle {
        SessionOracle {
            boot: 1,
            ttl: scenario.detached_ttl,
            is_gentle: scenario.is_gentle,
            output_bytes_high: scenario.shard.output_bytes_high,
            lives: Vec::new(),
            talks: BTreeMap::new(),
            tokens: BTreeMap::new(),
            ids: BTreeMap::new(),
            users: BTreeMap::new(),
            noted: Vec::new(),
        }
    }

    pub fn restarted(&mut self) {
        self.boot += 1;
        for life in &mut self.lives {
            life.over.get_or_insert_with(|| "the gateway started again".to_owned());
        }
    }

    /// A client has a new connection.
    pub fn connects(&mut self, conn: ConnId, client: usize) {
        self.talks.entry(conn).or_default().client = Some(client);
    }

    pub fn minted(&mut self, token: &str, user: &str) {
        self.users.insert(token.to_owned(), user.to_owned());
    }

    /// Whether a thief has had it.
    pub fn was_robbed(&self, session_id: &[u8]) -> bool {
        self.ids.get(session_id).is_some_and(|at| self.lives[*at].is_robbed || self.lives[*at].is_tried)
    }

    /// The tokens of one session, the oldest first; of this start of the gateway, or of earlier ones.
    pub fn loot(&self, rank: u64, earlier: bool) -> Vec<Loot> {
        let fits = |life: &Life| life.tokens > 0 && (life.boot != self.boot) == earlier;
        let owners: Vec<usize> = (0..self.lives.len()).filter(|at| fits(&self.lives[*at])).collect();
        if owners.is_empty() {
            return Vec::new();
        }
        // Mostly of those that are new.
        let at = owners[owners.len() - 1 - rank as usize % owners.len()];
        let life = &self.lives[at];
        let mut tokens: Vec<(u128, &Vec<u8>)> =
            self.tokens.iter().filter(|(_, it)| it.0 == at).map(|(token, it)| (it.1, token)).collect();
        tokens.sort_unstable();
        let loot = |token: &Vec<u8>| Loot {
            token: token.clone(),
            application: life.application.clone(),
            device: life.device.clone(),
            attempt: u64::try_from(life.attempt.high).unwrap_or(u64::MAX),
            down_seq: life.numbers.last_key_value().map_or(0, |(seq, _)| *seq),
            user: life.user.clone(),
        };
        tokens.into_iter().map(|(_, token)| loot(token)).collect()
    }

    /// Whether this number was there before this connection was.
    pub fn is_replay(&self, conn: ConnId, seq: u64) -> bool {
        let life = self.talks.get(&conn).and_then(|talk| talk.life);
        life.is_some_and(|at| self.lives[at].numbers.contains_key(&seq))
    }

    /// The client, or a thief, has said this, and the gateway reads it.
    ///
    /// `is_clear`: nothing waits to be written to it, so all that was decided about it is known.
    pub fn said(&mut self, now: Mono, conn: ConnId, said: Up, is_clear: bool) {
        let talk = self.talks.entry(conn).or_default();
        if let Up::Hello(hello) = said {
            if talk.hello.is_none() {
                self.hello(now, conn, hello);
            }
            return;
        }
        let Some(at) = talk.life else { return };
        let life = &mut self.lives[at];
        let is_heard = life.attached == Some(conn) && is_clear;
        if is_heard {
            life.active = now;
        }
        life.proven.high = life.proven.high.max(life.newest);
        if is_heard && life.pending.is_empty() {
            life.proven.raise(now, talk.generation);
        }
        if let Up::Bye(keep_ms) = said {
            talk.keep_ms = Some(keep_ms);
            life.ttl = life.ttl.min(Duration::from_millis(u64::from(keep_ms)));
            life.is_kept = keep_ms > 0;
            life.attached = None;
        }
        if let Up::Cancel(up_seq) = said
            && *life.cancels.entry(up_seq).or_insert(conn) != conn
        {
            self.noted.push(Path::CancelRepeated);
        }
        if let Up::Request(up_seq) = said
            && up_seq <= talk.admitted
        {
            self.noted.push(Path::RequestRepeated);
        }
    }

    fn hello(&mut self, now: Mono, conn: ConnId, hello: Box<v1::Hello>) {
        let user = self.users.get(&hello.access_token).cloned().unwrap_or_default();
        let resume = hello.resume.clone().unwrap_or_default();
        let shown = self.tokens.get(&resume.resume_token[..]).copied();
        let Some(talk) = self.talks.get_mut(&conn) else { return };
        (talk.shown, talk.since) = (shown, now);
        // Two under way at once may reach the session in either order: over different shards, or after a pause.
        let mut overtaken = Vec::new();
        if let Some((at, generation)) = shown {
            let life = &mut self.lives[at];
            talk.is_due = life.boot == self.boot
                && life.over.is_none()
                && generation >= life.proven.high
                && u128::from(resume.attempt) > life.attempt.high
                && (&life.application, &life.device) == (&hello.application, &hello.device_id)
                && (hello.access_token.is_empty() || life.user == user)
                && life.pending.is_empty()
                && !life.is_tried
                && now.since(life.active) + SLACK < life.ttl
                && self.is_gentle;
            life.attempt.high = life.attempt.high.max(resume.attempt.into());
            life.is_tried |=
                (talk.client.is_none() || talk.client != life.client) && generation >= life.proven.low;
            let attempt = u128::from(resume.attempt);
            let not_newer = life.pending.iter().filter(|(_, earlier)| *earlier <= attempt);
            overtaken = not_newer.map(|(conn, _)| *conn).collect();
            life.pending.push((conn, attempt));
        }
        // Others in the same place have to go for it, unless it is a resume of one of them.
        if !user.is_empty() {
            let own = shown.map(|(at, _)| at);
            for (at, life) in self.lives.iter_mut().enumerate() {
                if life.user == user && life.device == hello.device_id && Some(at) != own {
                    life.excuse = Some("another session in the same place");
                }
            }
        }
        talk.hello = Some(hello);
        for conn in overtaken {
            if let Some(talk) = self.talks.get_mut(&conn) {
                talk.is_due = false;
            }
        }
    }

    /// The gateway has admitted all up to this.
    pub fn admitted(&mut self, conn: ConnId, ack: u64) {
        if let Some(at) = self.talks.get(&conn).and_then(|talk| talk.life) {
            self.lives[at].admitted = self.lives[at].admitted.max(ack);
        }
    }

    /// The gateway has said this; what is wrong with it.
    pub fn heard(&mut self, now: Mono, conn: ConnId, said: Down) -> Option<String> {
        let talk = self.talks.get(&conn)?;
        match said {
            Down::Welcome(welcome) if welcome.resume_result() == ResumeResult::Resumed => {
                self.resumed(now, conn, &welcome)
            }
            Down::Welcome(welcome) => self.opened(now, conn, &welcome),
            Down::Login(login) => {
                let (at, generation) = (talk.life?, talk.generation);
                self.lives[at].user.clone_from(&login.user_id);
                self.excuse_place(at);
                // It may be sent again.
                match self.tokens.get(&login.resume_token[..]) {
                    Some((owner, _)) if *owner == at => None,
                    _ => self.give(at, &login.resume_token, generation + 1),
                }
            }
            Down::Numbered(seq, carried, len) => self.numbered(conn, seq, carried, len),
            Down::Error(error) => self.failed(conn, &error),
            Down::ByeAck => {
                let life = &mut self.lives[talk.life?];
                if talk.keep_ms == Some(0) {
                    life.over = Some("its client has left".to_owned());
                }
                None
            }
        }
    }

    fn excuse_place(&mut self, but: usize) {
        let (user, device) = (self.lives[but].user.clone(), self.lives[but].device.clone());
        for (at, life) in self.lives.iter_mut().enumerate() {
            if at != but && life.user == user && life.device == device {
                life.excuse = Some("another session in the same place");
            }
        }
    }

    /// A token is given out.
    fn give(&mut self, at: usize, token: &[u8], rank: u128) -> Option<String> {
        if token.is_empty() {
            return None;
        }
        let life = &mut self.lives[at];
        if self.tokens.insert(token.to_vec(), (at, rank)).is_some() {
            return Some(format!("a token of session {at} was given out twice"));
        }
        life.tokens += 1;
        life.newest = life.newest.max(rank);
        None
    }

    fn resumed(&mut self, now: Mono, conn: ConnId, welcome: &v1::Welcome) -> Option<String> {
        let talk = &self.talks[&conn];
        let hello = talk.hello.as_ref()?;
        let resume = hello.resume.clone().unwrap_or_default();
        let Some((at, generation)) = talk.shown else {
            return Some(format!("connection {conn} has resumed by a token that was never given out"));
        };
        let life = &self.lives[at];
        let user = self.users.get(&hello.access_token);
        // The gateway may write what it has decided later before what it has decided first.
        let is_newest = life.attempt.low <= resume.attempt.into();
        let wrong = [
            (life.boot != self.boot, "by a token of an earlier start"),
            (life.over.is_some(), "after its end"),
            (life.session_id != welcome.session_id, "and it is another one"),
            (life.application != hello.application, "by another application"),
            (life.device != hello.device_id, "on another device"),
            (
                !life.may_log_in && life.proven.is_above(generation, talk.since),
                "by a token older than the proven one",
            ),
            (
                life.attempt.is_above(u128::from(resume.attempt).saturating_sub(1), talk.since),
                "by an attempt that is not new",
            ),
            (user.is_some_and(|user| life.is_of_another(user)), "with another user's access token"),
            (is_newest && welcome.admitted < life.admitted, "and has forgotten what it had admitted"),
            (is_newest && shrunk(&life.limits, &welcome.limits.unwrap_or_default()), "with smaller limits"),
        ];
        if let Some((_, what)) = wrong.iter().find(|(is_wrong, _)| *is_wrong) {
            return Some(format!("session {at} was resumed {what}, over {conn}: {life:?}"));
        }
        self.noted.push(match generation {
            _ if generation == life.newest => Path::ResumedNewest,
            _ if generation == life.proven.low => Path::ResumedProven,
            _ => Path::ResumedBetween,
        });
        let noted = [
            (life.is_kept, Path::ResumedKept),
            (now.since(life.active) >= Duration::from_secs(1), Path::ResumedAfterWait),
            (talk.client.is_none() && life.client.is_some(), Path::ThiefIn),
            (life.is_robbed && talk.client == life.client, Path::Robbed),
        ];
        noted.iter().filter(|(is_so, _)| *is_so).for_each(|(_, path)| self.noted.push(*path));
        self.attach(now, conn, at, welcome);
        self.give(at, &welcome.resume_token, rank(resume.attempt, false))
    }

    fn attach(&mut self, now: Mono, conn: ConnId, at: usize, welcome: &v1::Welcome) {
        let Some(talk) = self.talks.get_mut(&conn) else { return };
        let life = &mut self.lives[at];
        let attempt =
            talk.hello.as_ref().and_then(|hello| hello.resume.as_ref()).map_or(0, |resume| resume.attempt);
        let is_newest = life.attempt.low <= attempt.into();
        life.attempt.raise(now, attempt.into());
        life.pending.retain(|(_, other)| *other > attempt.into());
        life.is_robbed |= talk.client.is_none() || talk.client != life.client;
        if life.is_robbed {
            life.excuse = Some("a thief was in");
        }
        if is_newest {
            (life.attached, life.active, life.admitted) = (Some(conn), now, welcome.admitted);
            life.limits = welcome.limits.unwrap_or_default();
            (life.ttl, life.is_kept) = (self.ttl, false);
        }
        (talk.life, talk.generation) = (Some(at), rank(attempt, false));
        (talk.admitted, talk.is_resumed) = (welcome.admitted, true);
    }

    /// A service has decided to log this session in.
    pub fn may_log_in(&mut self, session_id: &[u8]) {
        if let Some(at) = self.ids.get(session_id) {
            self.lives[*at].may_log_in = true;
        }
    }

    fn opened(&mut self, now: Mono, conn: ConnId, welcome: &v1::Welcome) -> Option<String> {
        let talk = &self.talks[&conn];
        let hello = talk.hello.as_ref()?;
        let is_mine = |life: &Life| talk.client.is_some() && life.client == talk.client;
        if let Some((at, _)) = talk.shown {
            let life = &self.lives[at];
            // Its end may have been decided and not be known here yet.
            let result = welcome.resume_result();
            if talk.is_due && life.over.is_none() && life.excuse.is_none() {
                return Some(format!("session {at} was not resumed, {result:?} over {conn}: {life:?}"));
            }
            if let Some(path) = replaced(result, life, self.boot) {
                self.noted.push(path);
            }
        }
        if hello.resume.is_some() && talk.client.is_none() {
            self.noted.push(Path::ThiefRefused);
        }
        if self.lives.iter().any(|life| life.is_robbed && is_mine(life)) {
            self.noted.push(Path::Robbed);
        }
        let at = self.lives.len();
        if self.ids.insert(welcome.session_id.to_vec(), at).is_some() {
            return Some(format!("the id of session {at} had another one before"));
        }
        self.lives.push(Life {
            session_id: welcome.session_id.to_vec(),
            boot: self.boot,
            client: talk.client,
            user: welcome.user_id.clone(),
            application: hello.application.clone(),
            device: hello.device_id.clone(),
            attached: Some(conn),
            active: now,
            ttl: self.ttl,
            limits: welcome.limits.unwrap_or_default(),
            ..Life::default()
        });
        if let Some(talk) = self.talks.get_mut(&conn) {
            (talk.life, talk.generation) = (Some(at), 0);
        }
        if !welcome.user_id.is_empty() {
            self.excuse_place(at);
        }
        self.give(at, &welcome.resume_token, 0)
    }

    /// A resume was refused, and the session left alone.
    fn not_resumed(&mut self, conn: ConnId, reason: Reason) -> Option<String> {
        let talk = &self.talks[&conn];
        let hello = talk.hello.as_ref()?;
        if talk.client.is_none() {
            self.noted.push(Path::ThiefRefused);
        }
        let Some((at, generation)) = talk.shown else {
            self.noted.push(Path::RefusedForged);
            return None;
        };
        let life = &self.lives[at];
        let taken = hello.resume.as_ref().map_or(0, |resume| resume.down_seq);
        // What was never sent cannot be taken; and a thief may have taken less than its victim has acknowledged.
        let is_beyond = life.numbers.last_key_value().is_none_or(|(last, _)| taken > *last);
        let is_outside = reason == Reason::ResumeStale && (is_beyond || talk.client.is_none());
        if talk.is_due && life.over.is_none() && life.excuse.is_none() && !is_outside {
            return Some(format!("session {at} was not resumed, {reason:?} over {conn}: {life:?}"));
        }
        self.noted.extend(refusal(reason, life, hello, generation));
        None
    }

    fn failed(&mut self, conn: ConnId, error: &v1::Error) -> Option<String> {
        let talk = &self.talks[&conn];
        let is_resumable = error.reconnect.as_ref().is_some_and(|it| it.resumable);
        let Some(at) = talk.life else {
            match error.reason() {
                Reason::IdentityMismatch => self.noted.push(Path::RefusedIdentity),
                reason @ (Reason::ResumeStale | Reason::ResumeInvalid) => {
                    return self.not_resumed(conn, reason);
                }
                Reason::TokenExpired if is_resumable => self.noted.push(Path::RefusedExpired),
                Reason::TokenRevoked if talk.client.is_some() => self.noted.push(Path::Revoked),
                _ => {}
            }
            return None;
        };
        let life = &mut self.lives[at];
        if error.reason() == Reason::Superseded && (life.attached != Some(conn) || !life.pending.is_empty()) {
            self.noted.push(Path::TakenOver);
        } else if life.attached == Some(conn) {
            life.attached = None;
            if !is_resumable {
                life.over = Some(format!("{:?}", error.reason()));
            }
        }
        None
    }

    fn numbered(&mut self, conn: ConnId, seq: u64, carried: Carried, len: usize) -> Option<String> {
        let talk = self.talks.get_mut(&conn)?;
        let at = talk.life?;
        let life = &mut self.lives[at];
        let before = life.numbers.get(&seq);
        if let Carried::Response(up_seq) = carried
            && before.is_none()
            && up_seq <= talk.admitted
        {
            self.noted.push(Path::ResponseWaited);
        }
        if before.is_some() {
            talk.replayed_bytes += len;
            if talk.replayed_bytes > self.output_bytes_high + len && !talk.is_replay_long {
                talk.is_replay_long = true;
                self.noted.push(Path::ReplayLong);
            }
        }
        if let Carried::Gap(first @ 1.., last) = carried {
            self.noted.push(Path::ReplayGap);
            let mut named = life.numbers.range(first..=last);
            if last != seq || named.any(|(_, carried)| matches!(carried, Carried::Response(_))) {
                return Some(format!("session {at}: a Gap from {first} to {last} as {seq}: {life:?}"));
            }
        } else if matches!((before, &carried), (Some(Carried::Gap(1.., _)), Carried::Push(_))) {
            // What an old connection had still to write, behind the replay on a new one.
            return None;
        } else if let Some(before) = before.filter(|before| **before != carried) {
            return Some(format!("session {at}: {seq} was {before:?} and is {carried:?}"));
        }
        life.numbers.insert(seq, carried);
        None
    }
}
