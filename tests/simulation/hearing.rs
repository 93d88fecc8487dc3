//! What clients hear, and what becomes of their sessions.

use crate::client::Identity;
use crate::network::Side;
use crate::oracle::{Asked, Heard};
use crate::reached::Path;
use crate::world::{Event, World};
use moorgate_client::core::{self as kit, ClientCore, End, RequestId};
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Execution, Reason, Source};
use prost::Message;

/// What the core said, to be looked at once it is free.
pub enum Said {
    /// Its payload, unless the gateway says that it gave it up.
    Answer(u64, Heard, Option<Vec<u8>>),
    Welcomed(Box<v1::Welcome>),
    Resumed(Box<v1::Welcome>),
    LoggedIn(String),
    /// Its id and its group.
    Pushed(Vec<u8>, String),
    Gap(u64),
    Detached(End),
    Ended(End),
}

pub fn say(said: &mut Vec<Said>, event: kit::Event<'_>) {
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
        kit::Event::Resumed(welcome) => said.push(Said::Resumed(welcome)),
        kit::Event::Push(push) => said.push(Said::Pushed(push.push_id.to_vec(), push.group.to_owned())),
        kit::Event::Gap(gap) if gap.first > 0 => said.push(Said::Gap(gap.last + 1 - gap.first)),
        kit::Event::Gap(gap) => said.push(Said::Gap(gap.count)),
        kit::Event::Detached(end) => said.push(Said::Detached(end)),
        kit::Event::Ended(end) => said.push(Said::Ended(end)),
        _ => {}
    }
}

impl World {
    pub fn client_said(&mut self, at: usize, said: Vec<Said>) {
        for said in said {
            let incarnation = self.clients[at].incarnation;
            match said {
                Said::Answer(up_seq, heard, payload) => self.client_answered(at, up_seq, heard, payload),
                Said::Welcomed(welcome) => self.client_welcomed(at, &welcome),
                Said::Resumed(welcome) => self.client_resumed(at, &welcome),
                Said::LoggedIn(user) => self.note_login(at, &user),
                Said::Pushed(push_id, group) => self.note_push(at, &push_id, &group),
                Said::Gap(count) => self.pushes.gap(incarnation, count),
                Said::Detached(end) => self.client_gone(at, &end),
                Said::Ended(end) => {
                    self.pushes.over(incarnation);
                    self.client_gone(at, &end);
                }
            }
        }
        self.client_flush(at);
    }

    fn client_answered(&mut self, at: usize, up_seq: u64, heard: Heard, payload: Option<Vec<u8>>) {
        let host = &mut self.clients[at];
        let asked = Asked { incarnation: host.incarnation, up_seq };
        if !host.open.remove(&up_seq) {
            // An earlier start of the application has asked.
            return;
        }
        self.trace.note(self.now, "heard", (u64::from(asked.incarnation), up_seq), || {
            format!("{asked:?}: {heard:?}")
        });
        let ok = heard.code == Some(Code::Ok);
        let host = &mut self.clients[at];
        if let Some(key) = host.keys.remove(&up_seq).filter(|_| heard.code.is_none()) {
            host.again.push(key);
        }
        host.probed |= host.probe == Some(up_seq) && ok;
        if (heard.code, heard.source) == (Some(Code::DeadlineExceeded), Source::Gateway) {
            self.judge_timeout(at, asked);
        }
        self.note_answer(at, up_seq, heard.code);
        self.oracle.heard(asked, heard, payload.as_deref().filter(|_| ok));
    }

    fn client_welcomed(&mut self, at: usize, welcome: &v1::Welcome) {
        self.pushes.over(self.clients[at].incarnation);
        self.incarnations += 1;
        let incarnation = self.incarnations;
        self.rates.connects(self.clients[at].since, incarnation);
        let host = &mut self.clients[at];
        host.begin(incarnation);
        host.session_id = welcome.session_id.to_vec();
        (host.gave_way, host.is_restored) = (false, false);
        self.trace.note(self.now, "open", (at as u64, u64::from(incarnation)), || {
            format!("client {at} is {incarnation}, {:?}", welcome.resume_result())
        });
        self.note_welcome(at, welcome);
    }

    fn client_resumed(&mut self, at: usize, welcome: &v1::Welcome) {
        let host = &mut self.clients[at];
        if std::mem::take(&mut host.is_restored) {
            host.goes_on_from(welcome.admitted);
        }
        if host.open.first().is_some_and(|up_seq| *up_seq <= welcome.admitted) {
            self.reached.note(Path::RequestKnown);
        }
        self.trace.note(self.now, "resume", (at as u64, welcome.admitted), || {
            format!("client {at} is {} again, {} admitted", host.incarnation, welcome.admitted)
        });
    }

    /// The application is killed, and a new process goes on with the session. Nobody waits for the answers any more.
    pub fn application_restarts(&mut self, at: usize) {
        let Some(resumption) = self.clients[at].core.resumption() else { return };
        self.reach(Path::ApplicationRestarted);
        for up_seq in self.clients[at].open.clone() {
            let heard = Heard { code: None, source: Source::Unspecified, execution: Execution::Unknown };
            self.client_answered(at, up_seq, heard, None);
        }
        self.incarnations += 1;
        let (before, incarnation) = (self.clients[at].incarnation, self.incarnations);
        self.pushes.goes_on(before, incarnation);
        self.rates.connects(self.clients[at].since, incarnation);
        let host = &mut self.clients[at];
        host.core = ClientCore::restored(host.options.clone(), &resumption);
        host.begin(incarnation);
        host.is_restored = true;
    }

    /// Its connection is gone, and perhaps its session.
    fn client_gone(&mut self, at: usize, end: &End) {
        self.trace.note(self.now, "ended", (at as u64, 0), || format!("client {at}: {end:?}"));
        match end {
            End::Fault(_) if self.sessions.was_robbed(&self.clients[at].session_id) => {}
            End::Fault(fault) => self.oracle.violated(format!("the gateway broke the contract: {fault:?}")),
            End::Error(error) => self.client_refused(at, error),
            End::Bye | End::Lost | End::OpeningTimeout | End::Silence => {}
        }
        if let Some(conn) = self.clients[at].conn.take() {
            self.net.close(conn, Side::Dialler);
        }
        let again =
            if self.dice.chance(15) { self.dice.millis(1_000, 6_000) } else { self.dice.millis(0, 1_500) };
        self.schedule(again, Event::ClientConnects(at));
    }

    fn client_refused(&mut self, at: usize, error: &v1::Error) {
        if error.reconnect.as_ref().is_some_and(|reconnect| !reconnect.allowed) {
            self.clients[at].token = None;
        }
        // Whom a service had logged in comes back as nobody.
        let is_user = self.clients[at].identity != Identity::Anonymous;
        let gives_way = is_user && matches!(error.reason(), Reason::DeviceConflict | Reason::SessionLimit);
        self.clients[at].gave_way = gives_way || self.clients[at].gave_way;
        // The kit keeps the contract: the gateway must not find it broken.
        let is_blamed = matches!(
            error.reason(),
            Reason::ProtocolViolation
                | Reason::FrameTooLarge
                | Reason::FrameMalformed
                | Reason::SequenceGap
                | Reason::AckBeyondSent
                | Reason::InFlightExceeded
                | Reason::TokenInvalid
        );
        let was_robbed = self.sessions.was_robbed(&self.clients[at].session_id);
        if is_blamed && !was_robbed {
            self.oracle.violated(format!("the client was blamed: {error:?}"));
        }
    }
}
