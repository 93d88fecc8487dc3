//! What the kit tells and answers: sessions that come and go, logins, messages.

use super::{
    App, Asked, Connection, Effect, Fate, Joins, LoginAttempt, Membership, Message, Moment, Phase, Reference,
    Target, What, words,
};
use crate::text::clean;
use moorgate_client::{
    Action, Answer, ClientError, Code, Ending, Event, Execution, Missed, Push, Reason, State,
};
use moorgate_demo::wire::{self, accounts, chat, message, sent::Receiver};
use moorgate_proto::time::Mono;
use prost::Message as _;

/// What becomes of a request that was not done.
enum Trouble {
    /// It may be done later.
    Again,
    /// Only with another login.
    Login,
    /// It will not be; why.
    Never(String),
}

fn trouble(result: Result<Answer, ClientError>) -> Result<Answer, Trouble> {
    match result {
        Ok(answer) if answer.is_ok() => Ok(answer),
        Ok(answer) => Err(match answer.action() {
            Action::RetryNow | Action::RetryAfter | Action::Resync => Trouble::Again,
            Action::Reauthenticate => Trouble::Login,
            Action::Unspecified | Action::Update | Action::GiveUp => Trouble::Never(words::refusal(&answer)),
        }),
        Err(ClientError::Ended(_)) => Err(Trouble::Login),
        Err(_) => Err(Trouble::Again),
    }
}

impl App {
    /// Something has happened with the kit's client.
    pub(crate) fn kit(&mut self, now: Moment, event: Event) {
        match event {
            Event::State(state) => self.state(now, state),
            Event::Push(push) => self.push(now, &push),
            Event::Resync(Missed::Session) => {
                self.groups.values_mut().for_each(Membership::lost);
                // Who was not logged in has missed nothing.
                if self.is_chatting() {
                    self.note(now, "connected again; what was said in between has not come here".to_owned());
                }
            }
            Event::Resync(Missed::Pushes(count, _)) => {
                let what = format!("there was too much at once: {count} messages have not come here");
                self.problem(now, what);
            }
            Event::Notice { reason: Reason::TokenExpired, .. } => {
                self.note(now, "your login expires; you will be asked for your password".to_owned());
            }
            Event::Resync(Missed::Events) => {
                self.problem(now, "there was too much at once: messages have not come here".to_owned());
            }
            Event::NotSaved(why) => {
                self.problem(
                    now,
                    format!("this session cannot be written down, and ends with this chat: {why}"),
                );
            }
            Event::Notice { .. } | Event::TokenRenewed | Event::TokenNotRenewed(_) => {}
        }
    }

    fn state(&mut self, now: Moment, state: State) {
        match state {
            State::Starting => self.connection = Connection::Starting,
            State::Connecting { address } => {
                // The reason why it is away is worth more, while it is tried again and again.
                if !matches!(self.connection, Connection::Away { .. }) {
                    self.connection = Connection::Connecting(address);
                }
            }
            State::Open { address, user_id } => self.opened(now, address, &user_id),
            State::GoingAway => self.connection = Connection::GoingAway,
            State::Away { retry_in, why } => {
                let why = words::setback(&why);
                let was_open = matches!(self.connection, Connection::Open(_) | Connection::GoingAway);
                if was_open && self.is_chatting() {
                    self.problem(now, format!("{why}; reconnecting ..."));
                }
                self.connection = Connection::Away { until: now.mono + retry_in, why };
            }
            State::Ended(ending) => self.ended(now, &ending),
        }
    }

    fn opened(&mut self, now: Moment, address: String, user_id: &str) {
        self.connection = Connection::Open(address);
        self.was_connected = true;
        match &self.phase {
            Phase::Chatting { user } if user == user_id => self.try_again(),
            Phase::Chatting { .. } => self.ask_password_again(now, "your login is not accepted any more"),
            // The login's own word comes with its answer.
            Phase::LoggingIn { is_asked: true, .. } => {}
            _ if !user_id.is_empty() => self.resumed(now, user_id),
            _ => self.try_log_in(),
        }
    }

    /// The session is that of a chat before.
    fn resumed(&mut self, now: Moment, user_id: &str) {
        let wanted = match &self.phase {
            Phase::AskPassword { user } | Phase::AskRegister { user, .. } => Some(user),
            Phase::LoggingIn { attempt, .. } => Some(&attempt.user),
            Phase::AskUser | Phase::Chatting { .. } => None,
        };
        match wanted {
            Some(wanted) if wanted != user_id => self.connect(),
            _ => self.logged_in(now, user_id.to_owned(), false),
        }
    }

    fn ended(&mut self, now: Moment, ending: &Ending) {
        self.connection = Connection::Ended;
        if *ending == Ending::Left {
            return;
        }
        let is_logged_out = ending.reason() == Reason::LoggedOut;
        match std::mem::replace(&mut self.phase, Phase::AskUser) {
            Phase::Chatting { .. } if is_logged_out => {
                self.note(now, words::ending(ending));
                self.connect();
            }
            Phase::Chatting { user } => {
                self.phase = Phase::Chatting { user };
                self.ask_password_again(now, &words::ending(ending));
            }
            phase => {
                self.phase = phase;
                self.problem(now, format!("the gateway ends it: {}", words::ending(ending)));
                // Nobody waits otherwise, and the next login connects.
                if let Phase::LoggingIn { attempt, .. } = &self.phase {
                    self.phase = Phase::AskPassword { user: attempt.user.clone() };
                    self.connect();
                }
            }
        }
    }

    /// The session of the user is over. What waits to be sent goes on waiting.
    fn ask_password_again(&mut self, now: Moment, why: &str) {
        self.problem(now, why.to_owned());
        if let Some(user) = self.user().map(str::to_owned) {
            self.phase = Phase::AskPassword { user };
        }
        self.connect();
    }

    /// Another client, which knows nothing of what the one before was asked.
    fn connect(&mut self) {
        self.connection = Connection::Starting;
        self.outbox.again();
        self.questions = 0;
        self.groups.values_mut().for_each(Membership::lost);
        self.retry_at = Mono::NEVER;
        self.effects.push_back(Effect::Connect);
    }

    pub(super) fn log_in(&mut self, attempt: LoginAttempt) {
        self.phase = Phase::LoggingIn { attempt, is_asked: false };
        if matches!(self.connection, Connection::Ended) {
            self.connect();
        }
        self.try_log_in();
    }

    /// Logs in, once there is a session.
    pub(super) fn try_log_in(&mut self) {
        let Phase::LoggingIn { attempt, is_asked: is_asked @ false } = &mut self.phase else { return };
        if !matches!(self.connection, Connection::Open(_)) {
            return;
        }
        *is_asked = true;
        let credentials =
            wire::Credentials { user: attempt.user.clone(), password: attempt.password.clone() };
        let (asked, command) = match attempt.registers {
            true => (Asked::Register, accounts::REGISTER),
            false => (Asked::Login, accounts::LOGIN),
        };
        self.ask(asked, command, credentials.encode_to_vec(), Vec::new());
    }

    pub(super) fn login_answered(&mut self, now: Moment, result: Result<Answer, ClientError>) {
        let Phase::LoggingIn { attempt, .. } = &self.phase else { return };
        let mut attempt = attempt.clone();
        match result {
            Ok(answer) if answer.is_ok() => match answer.login {
                Some(login) => self.logged_in(now, login.user_id, attempt.registers),
                None => {
                    self.problem(now, "the gateway does not let its accounts service log you in".to_owned());
                    self.phase = Phase::AskPassword { user: attempt.user };
                }
            },
            Ok(answer) => match answer.code {
                Code::Unauthenticated if !attempt.registers && answer.reason == Reason::Unspecified => {
                    self.problem(now, "no such user, or another password".to_owned());
                    self.phase = Phase::AskRegister { user: attempt.user, password: attempt.password };
                }
                Code::AlreadyExists if attempt.may_be_registered => {
                    attempt.registers = false;
                    self.log_in(attempt);
                }
                Code::AlreadyExists => {
                    self.problem(now, format!("{} is taken, with another password", attempt.user));
                    self.phase = Phase::AskPassword { user: attempt.user };
                }
                _ => match trouble(Ok(answer)) {
                    Err(Trouble::Again) => {
                        self.phase = Phase::LoggingIn { attempt, is_asked: false };
                        self.retry_later(now);
                    }
                    Err(Trouble::Never(why)) => {
                        self.problem(now, why);
                        self.phase = Phase::AskPassword { user: attempt.user };
                    }
                    Err(Trouble::Login) | Ok(_) => self.phase = Phase::AskPassword { user: attempt.user },
                },
            },
            Err(error) => {
                let unknown = ClientError::Unanswered(Execution::Unknown);
                attempt.may_be_registered |=
                    attempt.registers && (error == unknown || matches!(error, ClientError::TimedOut(_)));
                self.phase = Phase::LoggingIn { attempt, is_asked: false };
                self.retry_later(now);
            }
        }
    }

    fn logged_in(&mut self, now: Moment, user: String, is_new: bool) {
        let welcome = if is_new { "welcome" } else { "welcome back" };
        let next = if self.target.is_none() { "; /help tells what there is" } else { "" };
        self.note(now, format!("{welcome}, {user}{next}"));
        if self.last_user.as_ref() != Some(&user) {
            self.forget_another_user();
        }
        self.last_user = Some(user.clone());
        self.phase = Phase::Chatting { user };
        self.try_again();
    }

    /// What waits was not written by whoever has logged in now.
    fn forget_another_user(&mut self) {
        for unsent in self.outbox.clear() {
            if let Some(message) = self.entries.message_mut(unsent.entry) {
                message.fate = Fate::Failed("somebody else has logged in".to_owned());
            }
            self.effects.push_back(Effect::Show(unsent.entry));
        }
        self.groups.clear();
        self.target = None;
    }

    pub(super) fn send_answered(
        &mut self,
        now: Moment,
        reference: Reference,
        result: Result<Answer, ClientError>,
    ) {
        let fate = match trouble(result) {
            Ok(answer) => match wire::Sent::decode(&answer.payload[..]).unwrap_or_default().receiver() {
                Receiver::Offline => Fate::Missed,
                Receiver::Unknown | Receiver::Online | Receiver::Away => Fate::Sent,
            },
            Err(Trouble::Never(why)) => Fate::Failed(why),
            Err(Trouble::Again) => {
                self.outbox.again();
                return self.retry_later(now);
            }
            // The end of the session comes, and asks for the password.
            Err(Trouble::Login) => return self.outbox.again(),
        };
        if let Some(sent) = self.outbox.done(reference) {
            if let Some(message) = self.entries.message_mut(sent.entry) {
                message.fate = fate;
            }
            self.effects.push_back(Effect::Show(sent.entry));
        }
        self.flush();
    }

    pub(super) fn join_answered(&mut self, now: Moment, group: String, result: Result<Answer, ClientError>) {
        let Some(membership) = self.groups.get_mut(&group) else { return };
        match trouble(result) {
            Ok(_) => {
                let is_news = *membership == Membership::Asked(Joins::First);
                *membership = Membership::Joined;
                if is_news {
                    self.note(now, format!("you are in #{group}"));
                }
            }
            Err(Trouble::Never(why)) => {
                self.groups.remove(&group);
                self.problem(now, format!("#{group}: {why}"));
            }
            Err(Trouble::Again) => {
                membership.lost();
                self.retry_later(now);
            }
            Err(Trouble::Login) => membership.lost(),
        }
    }

    /// What is asked once: it is done, or it is told why not.
    pub(super) fn told(
        &mut self,
        now: Moment,
        what: &str,
        result: Result<Answer, ClientError>,
        done: impl FnOnce(&mut App, Answer),
    ) {
        match trouble(result) {
            Ok(answer) => done(self, answer),
            Err(Trouble::Never(why)) => self.problem(now, format!("{what}: {why}")),
            Err(Trouble::Again) => self.problem(now, format!("{what}: not now; try again in a while")),
            Err(Trouble::Login) => {}
        }
    }

    pub(super) fn who(&mut self, now: Moment, answer: &Answer) {
        let users = wire::Who::decode(&answer.payload[..]).unwrap_or_default().users;
        if users.is_empty() {
            return self.note(now, "nobody has said anything lately".to_owned());
        }
        let mut shown = Vec::new();
        for seen in users {
            let minutes = seen.ago_ms / 60_000;
            let name = clean(&seen.user);
            shown.push(if minutes == 0 { name.clone() } else { format!("{name} ({minutes} min ago)") });
            self.remember(name);
        }
        self.note(now, format!("online: {}", shown.join(", ")));
    }

    fn push(&mut self, now: Moment, push: &Push) {
        match push.command {
            chat::MESSAGE => {
                if let Ok(message) = wire::Message::decode(&push.payload[..]) {
                    self.message(message);
                }
            }
            chat::NOTICE => {
                if let Ok(notice) = wire::Notice::decode(&push.payload[..]) {
                    self.notice(now, &notice);
                }
            }
            chat::PRESENCE => {
                if let Ok(presence) = wire::Presence::decode(&push.payload[..]) {
                    self.presence(now, &presence);
                }
            }
            // A service that is newer than this client.
            _ => {}
        }
    }

    fn message(&mut self, message: wire::Message) {
        let target = match message.target {
            Some(message::Target::To(user)) => Target::User(clean(&user)),
            Some(message::Target::Group(group)) => Target::Group(clean(&group)),
            None => return,
        };
        let from = clean(&message.from);
        let is_own = self.user() == Some(&from);
        if is_own && self.is_made_here(message.reference) || !self.is_new(&from, message.reference) {
            return;
        }
        self.remember(from.clone());
        let what = Message { from, target, text: clean(&message.text), fate: Fate::Received };
        let id = self.entries.add(message.unix_ms, What::Message(what));
        self.effects.push_back(Effect::Show(id));
    }

    /// Whether a reference is one of ours; another device of the same user has others.
    fn is_made_here(&self, reference: u64) -> bool {
        (1..=self.made).contains(&reference.wrapping_sub(self.first_half()))
    }

    fn presence(&mut self, now: Moment, presence: &wire::Presence) {
        let user = clean(&presence.user);
        if self.user() == Some(&user) {
            return;
        }
        self.note(now, format!("{user} {}", if presence.online { "is here" } else { "has gone" }));
        self.remember(user);
    }

    fn notice(&mut self, now: Moment, notice: &wire::Notice) {
        let user = clean(&notice.user);
        if self.user() == Some(&user) {
            return;
        }
        let what = if notice.joined { "has joined" } else { "has left" };
        self.note(now, format!("{user} {what} #{}", clean(&notice.group)));
        self.remember(user);
    }
}
