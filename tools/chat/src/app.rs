//! The chat as a machine without a screen and without a network.
//!
//! ```text
//!  AskUser ──► AskPassword ──► LoggingIn ──── it is good ──► Chatting
//!     ▲             ▲           │  ▲ │                          │
//!     │             │  refused  │  │ yes                        │ the login is not accepted any more
//!     │             │           ▼  │                            │
//!     │             └──── no  AskRegister                       │
//!     │             └───────────────────────────────────────────┤
//!     └──────────────────────────────────── logged out ◄────────┘
//! ```
//!
//! Lines, what the kit tells and answers come in; [`Effect`]s go out. Messages wait in the outbox until the service has
//! taken them, over connections and logins; groups are joined again in each new session.

mod entries;
mod outbox;
mod sessions;
#[cfg(test)]
mod tests;
mod words;

pub(crate) use entries::{Entries, Entry, EntryId, Fate, Message, What};
pub(crate) use outbox::Reference;

use crate::command::{self, COMMANDS, Command, Line, NAMES, Target};
use moorgate_client::{Answer, ClientError};
use moorgate_demo::wire::{self, TEXT_BYTES_MAX, accounts, chat, is_name};
use moorgate_proto::time::Mono;
use outbox::{Outbox, Outgoing};
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// What a service cannot do now is tried again after this time.
const RETRY: Duration = Duration::from_secs(3);
/// Names that are remembered to complete what is written.
const NAMES_MAX: usize = 500;
/// References of others' messages that are remembered: the same message is shown once.
const REFERENCES_MAX: usize = 1000;

/// When something happens, by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) mono: Mono,
    /// Milliseconds of Unix time.
    pub(crate) unix_ms: u64,
}

/// What the chat wants done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// A new client of the kit, without a login, in place of the one before.
    Connect,
    /// This request; its answer goes to [`App::answered`].
    Ask(Asked, Request),
    /// An entry is new, or has changed.
    Show(EntryId),
    /// The end.
    Quit,
}

/// A request for the kit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) command: u32,
    pub(crate) payload: Vec<u8>,
    /// Empty: it has none.
    pub(crate) key: Vec<u8>,
}

/// What a request was for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    Login,
    Register,
    Send(Reference),
    Join(String),
    Leave(String),
    Who,
    Logout,
}

impl Asked {
    /// It is asked once, and its answer is told; what else is asked is asked until it is done.
    fn is_question(&self) -> bool {
        matches!(self, Asked::Leave(_) | Asked::Who | Asked::Logout)
    }
}

/// What the next line is taken for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Prompt {
    pub(crate) text: String,
    /// It is not shown while it is written.
    pub(crate) is_secret: bool,
}

/// How it stands with the gateway, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) text: String,
    pub(crate) is_connected: bool,
    /// Messages that wait.
    pub(crate) waiting: usize,
}

#[derive(Debug)]
enum Phase {
    AskUser,
    AskPassword { user: String },
    AskRegister { user: String, password: String },
    LoggingIn { attempt: LoginAttempt, is_asked: bool },
    Chatting { user: String },
}

#[derive(Debug, Clone)]
struct LoginAttempt {
    user: String,
    password: String,
    registers: bool,
    /// A registration before may have been done.
    may_be_registered: bool,
}

#[derive(Debug)]
enum Connection {
    Starting,
    Connecting(String),
    Open(String),
    GoingAway,
    Away { until: Mono, why: String },
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Membership {
    /// For the first time, or again in this session; only the first is told.
    Wanted(Joins),
    Asked(Joins),
    Joined,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Joins {
    First,
    Again,
}

impl Membership {
    /// A new session is in no group.
    fn lost(&mut self) {
        *self = Membership::Wanted(match self {
            Membership::Wanted(joins) | Membership::Asked(joins) => *joins,
            Membership::Joined => Joins::Again,
        });
    }
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct App {
    phase: Phase,
    connection: Connection,
    /// A gateway has answered.
    was_connected: bool,
    /// Who is spoken to.
    target: Option<Target>,
    groups: BTreeMap<String, Membership>,
    entries: Entries,
    outbox: Outbox,
    names: BTreeSet<String>,
    seen: VecDeque<(String, u64)>,
    /// What is asked once, and not answered.
    questions: usize,
    effects: VecDeque<Effect>,
    /// What a service could not do is tried again then.
    retry_at: Mono,
    /// It was told that messages wait, and asked to quit all the same.
    has_warned: bool,
    /// Who was logged in last: what waits is theirs.
    last_user: Option<String>,
    /// References and keys are made of it.
    base: [u8; 16],
    made: u64,
}

impl App {
    /// A chat of this user, or of whom it asks for; `base` is random.
    pub(crate) fn new(base: [u8; 16], user: Option<String>) -> App {
        let phase = user.map_or(Phase::AskUser, |user| Phase::AskPassword { user });
        App {
            phase,
            connection: Connection::Starting,
            was_connected: false,
            target: None,
            groups: BTreeMap::new(),
            entries: Entries::default(),
            outbox: Outbox::default(),
            names: BTreeSet::new(),
            seen: VecDeque::new(),
            questions: 0,
            effects: VecDeque::from([Effect::Connect]),
            retry_at: Mono::NEVER,
            has_warned: false,
            last_user: None,
            base,
            made: 0,
        }
    }

    /// The next thing to do.
    pub(crate) fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    pub(crate) fn entries(&self) -> &Entries {
        &self.entries
    }

    /// Who is logged in.
    pub(crate) fn user(&self) -> Option<&str> {
        match &self.phase {
            Phase::Chatting { user } => Some(user),
            _ => None,
        }
    }

    /// Whether something is on its way.
    pub(crate) fn is_busy(&self) -> bool {
        let is_joining = self.groups.values().any(|membership| *membership != Membership::Joined);
        let is_logging_in = matches!(self.phase, Phase::LoggingIn { .. });
        is_logging_in || self.is_chatting() && (self.outbox.len() > 0 || is_joining || self.questions > 0)
    }

    /// Whether a gateway has ever answered, or why none has; `None`: it is not known yet.
    pub(crate) fn reached(&self) -> Option<Result<(), &str>> {
        match &self.connection {
            _ if self.was_connected => Some(Ok(())),
            Connection::Away { why, .. } => Some(Err(why)),
            Connection::Ended => Some(Err("it takes no session")),
            _ => None,
        }
    }

    /// Whether a line would be answered, or taken.
    pub(crate) fn takes_lines(&self) -> bool {
        !matches!(self.phase, Phase::LoggingIn { .. }) && !self.outbox.is_full()
    }

    /// Whether lines are messages and commands, not answers to questions.
    pub(crate) fn is_chatting(&self) -> bool {
        matches!(self.phase, Phase::Chatting { .. })
    }

    pub(crate) fn prompt(&self) -> Prompt {
        let (text, is_secret) = match &self.phase {
            Phase::AskUser => ("your name: ".to_owned(), false),
            Phase::AskPassword { user } => (format!("password of {user}: "), true),
            Phase::AskRegister { user, .. } => (format!("register {user} as a new user? (y/n) "), false),
            Phase::LoggingIn { attempt, .. } => (format!("logging in as {} ...", attempt.user), false),
            Phase::Chatting { .. } => match &self.target {
                Some(target) => (format!("{target}> "), false),
                None => ("> ".to_owned(), false),
            },
        };
        Prompt { text, is_secret }
    }

    pub(crate) fn status(&self, now: Moment) -> Status {
        let text = match (&self.connection, self.user()) {
            (Connection::Starting, _) => "starting".to_owned(),
            (Connection::Connecting(address), _) => format!("connecting to {address}"),
            (Connection::Open(address), Some(user)) => format!("connected as {user} to {address}"),
            (Connection::Open(address), None) => format!("connected to {address}, not logged in"),
            (Connection::GoingAway, _) => "the gateway goes away, reconnecting soon".to_owned(),
            (Connection::Away { until, why }, _) => match until.since(now.mono).as_millis().div_ceil(1000) {
                0 => format!("reconnecting ({why})"),
                seconds => format!("reconnecting in {seconds} s ({why})"),
            },
            (Connection::Ended, _) => "not connected".to_owned(),
        };
        let is_connected = matches!(self.connection, Connection::Open(_));
        Status { text, is_connected, waiting: self.outbox.len() }
    }

    /// When the status changes by itself, or [`App::tick`] has something to do.
    pub(crate) fn next_deadline(&self, now: Mono) -> Mono {
        let countdown = match &self.connection {
            Connection::Away { until, .. } if *until > now => {
                let left = until.since(now);
                now + Duration::from_nanos(u64::from(left.subsec_nanos()).max(1_000_000))
            }
            _ => Mono::NEVER,
        };
        countdown.min(self.retry_at)
    }

    /// Words to complete what is written.
    pub(crate) fn completions(&self) -> impl Iterator<Item = &str> {
        let commands = COMMANDS.iter().map(|(word, _, _)| *word);
        commands.chain(self.names.iter().map(String::as_str))
    }

    /// The longest line that is of use, in bytes.
    pub(crate) fn line_bytes_max(&self) -> usize {
        TEXT_BYTES_MAX
    }

    /// A line was written.
    pub(crate) fn line(&mut self, now: Moment, line: &str) {
        match &self.phase {
            Phase::AskUser => match command::read(line) {
                Line::Command(command @ (Command::Quit | Command::Help)) => self.command(now, command),
                Line::Empty => {}
                _ if is_name(line.trim()) => self.phase = Phase::AskPassword { user: line.trim().to_owned() },
                _ => self.problem(now, NAMES.to_owned()),
            },
            // Any line may be a password, also one that looks like a command.
            Phase::AskPassword { .. } if line.is_empty() => self.phase = Phase::AskUser,
            Phase::AskPassword { user } => {
                let (user, password) = (user.clone(), line.to_owned());
                let attempt = LoginAttempt { user, password, registers: false, may_be_registered: false };
                self.log_in(attempt);
            }
            Phase::AskRegister { user, password } => {
                let (user, password) = (user.clone(), password.clone());
                match line.trim().to_lowercase().as_str() {
                    "y" | "yes" => {
                        let registers = true;
                        self.log_in(LoginAttempt { user, password, registers, may_be_registered: false });
                    }
                    "n" | "no" => self.phase = Phase::AskPassword { user },
                    _ => {}
                }
            }
            Phase::LoggingIn { .. } => {
                if let Line::Command(command @ (Command::Quit | Command::Help)) = command::read(line) {
                    self.command(now, command);
                }
            }
            Phase::Chatting { .. } => match command::read(line) {
                Line::Empty => {}
                Line::Text(text) => self.say(now, text),
                Line::Command(command) => self.command(now, command),
                Line::Wrong(what) => self.problem(now, what),
            },
        }
    }

    fn command(&mut self, now: Moment, command: Command) {
        match command {
            Command::Help => self.help(now),
            Command::To(target, text) => {
                if let Target::User(user) = &target {
                    self.remember(user.clone());
                }
                self.target = Some(target);
                if !text.is_empty() {
                    self.say(now, text);
                }
            }
            Command::Join(group) => self.join(now, group),
            Command::Leave(group) => self.leave(now, group),
            Command::Who => self.ask(Asked::Who, chat::WHO, Vec::new(), Vec::new()),
            Command::Logout => self.ask(Asked::Logout, accounts::LOGOUT, Vec::new(), Vec::new()),
            Command::Quit if self.outbox.len() > 0 && !std::mem::replace(&mut self.has_warned, true) => {
                let waiting = match self.outbox.len() {
                    1 => "a message waits".to_owned(),
                    many => format!("{many} messages wait"),
                };
                self.problem(now, format!("{waiting} to be sent; /quit again gives up on that"));
            }
            Command::Quit => self.effects.push_back(Effect::Quit),
        }
    }

    fn help(&mut self, now: Moment) {
        for (_, usage, what) in COMMANDS {
            self.note(now, format!("{usage:<24}{what}"));
        }
        self.note(now, "Tab completes names, the arrows bring back lines, PageUp scrolls back".to_owned());
    }

    /// Takes a message for whoever is spoken to.
    fn say(&mut self, now: Moment, text: String) {
        let (Some(target), Some(from)) = (self.target.clone(), self.user().map(str::to_owned)) else {
            return self.problem(now, "say to whom first: /to USER, or /join GROUP".to_owned());
        };
        if text.len() > TEXT_BYTES_MAX {
            return self.problem(now, "that is too long for one message".to_owned());
        }
        if self.outbox.is_full() {
            return self.problem(now, "too many messages wait to be sent; that one was not taken".to_owned());
        }
        self.made += 1;
        self.has_warned = false;
        let (from, fate) = (from, Fate::Waiting);
        let message = Message { from, target: target.clone(), text: text.clone(), fate };
        let entry = self.show(now, What::Message(message));
        let reference = Reference(self.first_half().wrapping_add(self.made).max(1));
        self.outbox.put(Outgoing { reference, target, text, entry });
        self.flush();
    }

    fn first_half(&self) -> u64 {
        self.base.first_chunk().map_or(0, |half| u64::from_be_bytes(*half))
    }

    /// The same for each repetition of one message, and for no other message of anybody.
    fn key(&self, reference: Reference) -> Vec<u8> {
        let mut key = self.base.to_vec();
        key.extend_from_slice(&reference.0.to_be_bytes());
        key
    }

    /// Sends what can be sent now.
    fn flush(&mut self) {
        if !self.is_ready() {
            return;
        }
        let Some(Outgoing { reference, target, text, .. }) = self.outbox.send() else { return };
        let (reference, text) = (*reference, text.clone());
        let (command, payload) = match target.clone() {
            Target::User(to) => (chat::SEND, wire::Send { to, text, reference: reference.0 }.encode_to_vec()),
            Target::Group(group) => {
                (chat::SEND_GROUP, wire::SendGroup { group, text, reference: reference.0 }.encode_to_vec())
            }
        };
        let key = self.key(reference);
        self.ask(Asked::Send(reference), command, payload, key);
    }

    /// Whether there is a session of the user.
    fn is_ready(&self) -> bool {
        self.is_chatting() && matches!(self.connection, Connection::Open(_))
    }

    fn join(&mut self, now: Moment, group: String) {
        self.remember(format!("#{group}"));
        self.target = Some(Target::Group(group.clone()));
        if self.groups.contains_key(&group) {
            return self.note(now, format!("you are in #{group}"));
        }
        self.groups.insert(group, Membership::Wanted(Joins::First));
        self.join_wanted();
    }

    /// Asks for the groups that this session is not in yet.
    fn join_wanted(&mut self) {
        if !self.is_ready() {
            return;
        }
        let mut asked = Vec::new();
        for (group, membership) in &mut self.groups {
            if let Membership::Wanted(joins) = *membership {
                *membership = Membership::Asked(joins);
                asked.push(group.clone());
            }
        }
        for group in asked {
            let payload = wire::Group { group: group.clone() }.encode_to_vec();
            self.ask(Asked::Join(group), chat::JOIN, payload, Vec::new());
        }
    }

    fn leave(&mut self, now: Moment, group: Option<String>) {
        let spoken_to = match &self.target {
            Some(Target::Group(group)) => Some(group.clone()),
            _ => None,
        };
        let Some(group) = group.or(spoken_to) else {
            return self.problem(now, "say which: /leave GROUP".to_owned());
        };
        if self.groups.remove(&group).is_none() {
            return self.problem(now, format!("you are not in #{group}"));
        }
        if self.target == Some(Target::Group(group.clone())) {
            self.target = None;
        }
        let payload = wire::Group { group: group.clone() }.encode_to_vec();
        self.ask(Asked::Leave(group), chat::LEAVE, payload, Vec::new());
    }

    /// The time of [`App::next_deadline`] has come.
    pub(crate) fn tick(&mut self, now: Moment) {
        if self.retry_at <= now.mono {
            self.retry_at = Mono::NEVER;
            self.try_again();
        }
    }

    /// Does what could not be done before.
    fn try_again(&mut self) {
        self.try_log_in();
        self.join_wanted();
        self.flush();
    }

    fn retry_later(&mut self, now: Moment) {
        self.retry_at = self.retry_at.min(now.mono + RETRY);
    }

    fn ask(&mut self, asked: Asked, command: u32, payload: Vec<u8>, key: Vec<u8>) {
        self.questions += usize::from(asked.is_question());
        self.effects.push_back(Effect::Ask(asked, Request { command, payload, key }));
    }

    fn show(&mut self, now: Moment, what: What) -> EntryId {
        let id = self.entries.add(now.unix_ms, what);
        self.effects.push_back(Effect::Show(id));
        id
    }

    fn note(&mut self, now: Moment, text: String) {
        self.show(now, What::Note(text));
    }

    fn problem(&mut self, now: Moment, text: String) {
        self.show(now, What::Problem(text));
    }

    fn remember(&mut self, name: String) {
        if self.names.len() < NAMES_MAX {
            self.names.insert(name);
        }
    }

    /// Whether a message of somebody else was not shown before. One without a reference always is new.
    fn is_new(&mut self, from: &str, reference: u64) -> bool {
        if reference == 0 {
            return true;
        }
        if self.seen.iter().any(|(sender, seen)| *seen == reference && sender == from) {
            return false;
        }
        if self.seen.len() >= REFERENCES_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back((from.to_owned(), reference));
        true
    }

    /// The answer to a request.
    pub(crate) fn answered(&mut self, now: Moment, asked: Asked, result: Result<Answer, ClientError>) {
        self.questions = self.questions.saturating_sub(asked.is_question().into());
        match asked {
            Asked::Login | Asked::Register => self.login_answered(now, result),
            Asked::Send(reference) => self.send_answered(now, reference, result),
            Asked::Join(group) => self.join_answered(now, group, result),
            Asked::Leave(group) => self.told(now, &format!("leaving #{group}"), result, |app, _| {
                app.note(now, format!("you have left #{group}"));
            }),
            Asked::Who => self.told(now, "/who", result, |app, answer| app.who(now, &answer)),
            Asked::Logout => self.told(now, "/logout", result, |_, _| {}),
        }
    }
}
