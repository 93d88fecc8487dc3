//! The chat, with the kit and the services by hand.

use super::*;
use moorgate_client::{Code, Ending, Event, Execution, Login, Missed, Push, Reason, Setback, Source, State};
use moorgate_demo::wire::sent::Receiver;
use moorgate_proto::v1;

const NOW: Moment = Moment { mono: Mono::ZERO, unix_ms: 1_000 };

fn answer(code: Code, reason: Reason, execution: Execution) -> Answer {
    Answer {
        code,
        reason,
        told_action: None,
        source: Source::Service,
        execution,
        retry_after: Duration::ZERO,
        message: "internals, for people who debug".to_owned(),
        login: None,
        payload_dropped: false,
        content_encoding: String::new(),
        payload: Vec::new(),
    }
}

fn ok() -> Answer {
    answer(Code::Ok, Reason::Unspecified, Execution::Executed)
}

fn refused(code: Code) -> Answer {
    answer(code, Reason::Unspecified, Execution::Executed)
}

/// A chat and what it wants.
struct Desk {
    app: App,
    effects: Vec<Effect>,
}

impl Desk {
    fn new(user: Option<&str>) -> Desk {
        let app = App::new([7; 16], user.map(str::to_owned));
        let mut desk = Desk { app, effects: Vec::new() };
        desk.collect();
        assert_eq!(desk.wanted(), [Effect::Connect]);
        desk
    }

    /// Logged in, and connected.
    fn chatting() -> Desk {
        let mut desk = Desk::new(Some("alice"));
        desk.opens("");
        desk.line("secret");
        desk.answers(Asked::Login, logged_in("alice"));
        desk
    }

    fn collect(&mut self) {
        let shown =
            std::iter::from_fn(|| self.app.poll()).filter(|effect| !matches!(effect, Effect::Show(_)));
        self.effects.extend(shown);
    }

    fn wanted(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The one request that is wanted.
    fn request(&mut self) -> (Asked, Request) {
        match &mut self.wanted()[..] {
            [Effect::Ask(asked, request)] => (
                asked.clone(),
                std::mem::replace(request, Request { command: 0, payload: vec![], key: vec![] }),
            ),
            other => panic!("no request but {other:?}"),
        }
    }

    fn line(&mut self, line: &str) {
        self.app.line(NOW, line);
        self.collect();
    }

    fn kit(&mut self, event: Event) {
        self.app.kit(NOW, event);
        self.collect();
    }

    /// A fresh session.
    fn opens_anew(&mut self, user_id: &str) {
        self.kit(Event::Resync(Missed::Session));
        self.opens(user_id);
    }

    fn opens(&mut self, user_id: &str) {
        let state = State::Open { address: "g:1".to_owned(), user_id: user_id.to_owned() };
        self.kit(Event::State(state));
    }

    fn is_lost(&mut self) {
        let why = Setback::GoneAway(Reason::Shutdown);
        self.kit(Event::State(State::Away { retry_in: Duration::from_secs(2), why }));
    }

    fn ends(&mut self, reason: Reason) {
        let error =
            v1::Error { reason: reason.into(), message: "internals".to_owned(), ..v1::Error::default() };
        let action = moorgate_client::action::of(reason, Execution::Unspecified);
        self.kit(Event::State(State::Ended(Ending::Refused(Box::new(error), action))));
    }

    /// The one request is of this kind, and gets this answer.
    fn answers(&mut self, expected: Asked, answer: Answer) {
        let (asked, _) = self.request();
        assert_eq!(asked, expected);
        self.result(asked, Ok(answer));
    }

    fn result(&mut self, asked: Asked, result: Result<Answer, ClientError>) {
        self.app.answered(NOW, asked, result);
        self.collect();
    }

    fn push(&mut self, command: u32, payload: &impl prost::Message) {
        let payload = payload.encode_to_vec();
        self.kit(Event::Push(Push { command, payload, ..Push::default() }));
    }

    fn receives(&mut self, from: &str, reference: u64) {
        let message = wire::Message {
            from: from.to_owned(),
            text: "hi\x1b[2J".to_owned(),
            unix_ms: 5,
            reference,
            target: Some(wire::message::Target::To("alice".to_owned())),
            ..wire::Message::default()
        };
        self.push(chat::MESSAGE, &message);
    }

    fn tick(&mut self) {
        self.app.tick(Moment { mono: self.app.retry_at, ..NOW });
        self.collect();
    }

    /// What is shown, from the first on.
    fn shown(&self) -> Vec<String> {
        let mut shown: Vec<String> =
            self.app.entries().latest_first().map(|entry| words_of(&entry.what)).collect();
        shown.reverse();
        assert!(shown.iter().all(|text| !text.contains("internals")), "{shown:?}");
        shown
    }

    fn last(&self) -> String {
        self.shown().pop().unwrap_or_default()
    }
}

fn words_of(what: &What) -> String {
    match what {
        What::Note(text) | What::Problem(text) => text.clone(),
        What::Message(Message { from, target, text, fate }) => format!("{from} to {target}: {text} {fate:?}"),
    }
}

fn logged_in(user: &str) -> Answer {
    let login = Login { user_id: user.to_owned(), access_token: "t".to_owned(), access_expires_ms: 0 };
    Answer { login: Some(login), ..ok() }
}

fn sent(receiver: Receiver) -> Answer {
    let sent = wire::Sent { receiver: receiver.into(), ..wire::Sent::default() };
    Answer { payload: sent.encode_to_vec(), ..ok() }
}

#[test]
fn a_user_logs_in_once_there_is_a_session() {
    let mut desk = Desk::new(None);
    assert_eq!(desk.app.prompt().text, "your name: ");
    desk.line("not a name");
    assert_eq!(desk.last(), NAMES);
    desk.line("alice");
    assert!(desk.app.prompt().is_secret);
    desk.line("/quit");
    assert_eq!(desk.wanted(), [], "a password may look like a command");
    assert!(!desk.app.takes_lines());
    desk.opens("");
    let (asked, request) = desk.request();
    assert_eq!((asked.clone(), request.command), (Asked::Login, accounts::LOGIN));
    let credentials = wire::Credentials::decode(&request.payload[..]).unwrap();
    assert_eq!((credentials.user.as_str(), credentials.password.as_str()), ("alice", "/quit"));
    desk.opens("alice");
    desk.result(asked, Ok(logged_in("alice")));
    assert_eq!(desk.app.user(), Some("alice"));
    assert_eq!(desk.app.status(NOW).text, "connected as alice to g:1");
}

#[test]
fn a_user_who_is_new_is_offered_to_register() {
    let mut desk = Desk::new(Some("alice"));
    desk.opens("");
    desk.line("secret");
    desk.answers(Asked::Login, refused(Code::Unauthenticated));
    assert!(desk.app.prompt().text.starts_with("register alice"));
    desk.line("perhaps");
    desk.line("n");
    assert!(desk.app.prompt().is_secret, "another password");
    desk.line("other");
    desk.answers(Asked::Login, refused(Code::Unauthenticated));
    desk.line("y");
    desk.answers(Asked::Register, logged_in("alice"));
    assert!(desk.last().starts_with("welcome, alice"));
}

#[test]
fn a_registration_that_may_have_been_done_becomes_a_login() {
    let mut desk = Desk::new(Some("alice"));
    desk.opens("");
    desk.line("secret");
    desk.answers(Asked::Login, refused(Code::Unauthenticated));
    desk.line("y");
    let (asked, _) = desk.request();
    desk.result(asked, Err(ClientError::Unanswered(Execution::Unknown)));
    desk.is_lost();
    desk.opens("");
    desk.answers(Asked::Register, refused(Code::AlreadyExists));
    desk.answers(Asked::Login, logged_in("alice"));
    assert_eq!(desk.app.user(), Some("alice"));
    let mut desk = Desk::new(Some("bob"));
    desk.opens("");
    desk.line("secret");
    desk.answers(Asked::Login, refused(Code::Unauthenticated));
    desk.line("y");
    desk.answers(Asked::Register, refused(Code::AlreadyExists));
    assert_eq!(desk.last(), "bob is taken, with another password");
    assert!(desk.app.prompt().is_secret);
}

#[test]
fn a_login_that_is_not_served_now_is_tried_again() {
    let mut desk = Desk::new(Some("alice"));
    desk.opens("");
    desk.line("secret");
    desk.answers(Asked::Login, answer(Code::Unavailable, Reason::NoEndpoint, Execution::NotExecuted));
    assert_eq!(desk.wanted(), []);
    desk.tick();
    desk.answers(Asked::Login, answer(Code::Unimplemented, Reason::NoRoute, Execution::NotExecuted));
    assert_eq!(desk.last(), "this gateway has no chat");
    desk.line("secret");
    desk.answers(Asked::Login, ok());
    assert!(desk.last().contains("does not let"), "a login that the gateway did not grant");
}

#[test]
fn messages_are_sent_one_by_one_and_shown_once() {
    let mut desk = Desk::chatting();
    desk.line("to nobody");
    assert!(desk.last().starts_with("say to whom"));
    desk.line("/to bob hello");
    desk.line("again");
    let (asked, request) = desk.request();
    assert_eq!(request.command, chat::SEND);
    let send = wire::Send::decode(&request.payload[..]).unwrap();
    assert_eq!((send.to.as_str(), send.text.as_str()), ("bob", "hello"));
    assert_eq!(desk.app.status(NOW).waiting, 2);
    assert_eq!(desk.last(), "alice to bob: again Waiting");
    desk.receives("alice", send.reference);
    desk.result(asked, Ok(sent(Receiver::Online)));
    let (second, other) = desk.request();
    assert_ne!(other.key, request.key);
    desk.result(second, Ok(sent(Receiver::Offline)));
    let shown = desk.shown();
    assert_eq!(shown[shown.len() - 2..], ["alice to bob: hello Sent", "alice to bob: again Missed"]);
}

#[test]
fn messages_wait_while_the_connection_is_away_and_keep_their_key() {
    let mut desk = Desk::chatting();
    desk.line("/to bob one");
    let (asked, request) = desk.request();
    desk.is_lost();
    desk.line("two");
    desk.result(asked.clone(), Err(ClientError::TimedOut(Execution::Unknown)));
    assert_eq!(desk.wanted(), []);
    assert_eq!(desk.app.status(NOW).text, "reconnecting in 2 s (the gateway went away)");
    desk.opens("alice");
    let (again, repeated) = desk.request();
    assert_eq!((again.clone(), &repeated.key), (asked, &request.key), "with the key it had");
    desk.result(again, Ok(answer(Code::Aborted, Reason::EndpointLost, Execution::Unknown)));
    desk.tick();
    let (third, repeated) = desk.request();
    assert_eq!(repeated.key, request.key);
    desk.result(third, Ok(sent(Receiver::Online)));
    let (_, next) = desk.request();
    assert_eq!(wire::Send::decode(&next.payload[..]).unwrap().text, "two");
}

#[test]
fn what_the_service_does_not_take_is_told() {
    let mut desk = Desk::chatting();
    desk.line("/to bob hello");
    let (asked, _) = desk.request();
    desk.result(asked, Ok(refused(Code::InvalidArgument)));
    assert_eq!(desk.last(), "alice to bob: hello Failed(\"it is not valid\")");
    desk.line(&"x".repeat(TEXT_BYTES_MAX + 1));
    assert_eq!(desk.last(), "that is too long for one message");
    desk.is_lost();
    (0..outbox::WAITING_MAX + 1).for_each(|_| desk.line("more"));
    assert!(desk.last().starts_with("too many messages wait"));
    assert!(!desk.app.takes_lines());
}

#[test]
fn groups_are_joined_again_in_a_new_session() {
    let mut desk = Desk::chatting();
    desk.line("/join team");
    desk.answers(Asked::Join("team".to_owned()), ok());
    assert_eq!((desk.last().as_str(), desk.app.prompt().text.as_str()), ("you are in #team", "#team> "));
    desk.line("hello");
    let (asked, request) = desk.request();
    assert_eq!(request.command, chat::SEND_GROUP);
    desk.result(asked, Ok(sent(Receiver::Unknown)));
    desk.is_lost();
    desk.opens("alice");
    assert_eq!(desk.wanted(), [], "it is the session before, and in its groups");
    assert!(!desk.last().starts_with("connected again"));
    desk.is_lost();
    desk.kit(Event::Resync(Missed::Session));
    desk.opens("alice");
    assert!(desk.last().starts_with("connected again"));
    let shown = desk.shown().len();
    desk.answers(
        Asked::Join("team".to_owned()),
        answer(Code::Unavailable, Reason::NoEndpoint, Execution::NotExecuted),
    );
    desk.tick();
    desk.answers(Asked::Join("team".to_owned()), ok());
    assert_eq!(desk.shown().len(), shown, "that goes without saying");
    desk.line("/leave");
    desk.answers(Asked::Leave("team".to_owned()), ok());
    assert_eq!(desk.last(), "you have left #team");
    desk.is_lost();
    desk.opens("alice");
    assert_eq!(desk.wanted(), []);
    desk.line("/leave team");
    assert_eq!(desk.last(), "you are not in #team");
}

#[test]
fn what_others_say_is_shown_once_and_cannot_steer_the_terminal() {
    let mut desk = Desk::chatting();
    desk.receives("bob", 7);
    desk.receives("bob", 7);
    assert_eq!(desk.last(), "bob to alice: hi\u{fffd}[2J Received");
    let shown = desk.shown().len();
    desk.receives("carol", 7);
    desk.receives("bob", 0);
    desk.receives("alice", 9);
    assert_eq!(desk.shown().len(), shown + 3, "of another sender, without a reference, of another device");
    let notice = |user: &str, joined| wire::Notice {
        group: "team".to_owned(),
        user: user.to_owned(),
        joined,
        unix_ms: 0,
    };
    desk.push(chat::NOTICE, &notice("bob", true));
    assert_eq!(desk.last(), "bob has joined #team");
    desk.push(chat::NOTICE, &notice("alice", true));
    desk.push(chat::NOTICE, &notice("carol", false));
    assert_eq!(desk.last(), "carol has left #team");
    assert_eq!(desk.shown().len(), shown + 5, "one's own joining is no news");
    desk.kit(Event::Push(Push { command: chat::MESSAGE, payload: vec![0xff], ..Push::default() }));
    desk.kit(Event::Push(Push { command: 9, ..Push::default() }));
    assert_eq!(desk.shown().len(), shown + 5);
    assert!(desk.app.completions().any(|name| name == "carol"));
}

#[test]
fn who_comes_and_goes_is_told() {
    let mut desk = Desk::chatting();
    let presence = |user: &str, online| wire::Presence { user: user.to_owned(), online, unix_ms: 0 };
    desk.push(chat::PRESENCE, &presence("bob", true));
    assert_eq!(desk.last(), "bob is here");
    desk.push(chat::PRESENCE, &presence("bob", false));
    assert_eq!(desk.last(), "bob has gone");
    desk.push(chat::PRESENCE, &presence("alice", true));
    assert_eq!(desk.last(), "bob has gone", "one's own is no news");
    assert!(desk.app.completions().any(|name| name == "bob"));
}

#[test]
fn who_is_online_is_listed() {
    let mut desk = Desk::chatting();
    let seen = |user: &str, ago_ms| wire::Seen { user: user.to_owned(), ago_ms };
    let who = wire::Who { users: vec![seen("alice", 10), seen("bob", 130_000)] };
    desk.line("/who");
    assert!(desk.app.is_busy());
    desk.answers(Asked::Who, Answer { payload: who.encode_to_vec(), ..ok() });
    assert_eq!(desk.last(), "online: alice, bob (2 min ago)");
    assert!(!desk.app.is_busy());
}

#[test]
fn a_login_that_is_not_accepted_any_more_asks_for_the_password_and_sends_what_waits() {
    let mut desk = Desk::chatting();
    desk.line("/join team");
    desk.answers(Asked::Join("team".to_owned()), ok());
    desk.is_lost();
    desk.line("/to bob still there?");
    desk.ends(Reason::TokenInvalid);
    assert_eq!(desk.wanted(), [Effect::Connect]);
    assert_eq!(desk.last(), "your login is not accepted any more");
    assert_eq!(desk.app.prompt().text, "password of alice: ");
    desk.opens("");
    desk.line("secret");
    desk.opens("alice");
    desk.answers(Asked::Login, logged_in("alice"));
    let wanted = desk.wanted();
    assert!(
        matches!(&wanted[..], [Effect::Ask(Asked::Join(_), _), Effect::Ask(Asked::Send(_), _)]),
        "{wanted:?}"
    );
}

#[test]
fn what_waits_is_not_sent_for_somebody_else() {
    let mut desk = Desk::chatting();
    desk.is_lost();
    desk.line("/to bob from alice");
    desk.ends(Reason::TokenExpired);
    desk.wanted();
    desk.opens("");
    desk.line("");
    desk.line("eve");
    desk.line("secret");
    desk.answers(Asked::Login, logged_in("eve"));
    assert_eq!(desk.wanted(), []);
    assert!(desk.shown().iter().any(|text| text.starts_with("alice to bob: from alice Failed")));
    assert_eq!(desk.app.prompt().text, "> ");
}

#[test]
fn a_logout_asks_who_comes_next() {
    let mut desk = Desk::chatting();
    desk.line("/logout");
    desk.answers(Asked::Logout, ok());
    desk.ends(Reason::LoggedOut);
    assert_eq!(desk.wanted(), [Effect::Connect]);
    assert_eq!(
        (desk.last().as_str(), desk.app.prompt().text.as_str()),
        ("you are logged out", "your name: ")
    );
}

#[test]
fn a_kick_says_so() {
    let mut desk = Desk::chatting();
    desk.ends(Reason::Kicked);
    assert_eq!(desk.last(), "you were put out");
    assert_eq!(desk.app.prompt().text, "password of alice: ");
    let mut desk = Desk::new(Some("alice"));
    desk.line("secret");
    desk.ends(Reason::VersionUnsupported);
    assert!(desk.last().contains("too old"));
    assert_eq!(desk.wanted(), [Effect::Connect]);
    desk.ends(Reason::VersionUnsupported);
    assert_eq!(desk.wanted(), [], "it does not connect for ever");
    desk.line("secret");
    assert_eq!(desk.wanted(), [Effect::Connect]);
}

#[test]
fn quitting_warns_once_of_what_waits() {
    let mut desk = Desk::chatting();
    desk.line("/quit");
    assert_eq!(desk.wanted(), [Effect::Quit]);
    desk.is_lost();
    desk.line("/to bob one");
    desk.line("/quit");
    assert_eq!(desk.last(), "a message waits to be sent; /quit again gives up on that");
    desk.line("two");
    desk.line("/quit");
    assert_eq!(desk.last(), "2 messages wait to be sent; /quit again gives up on that");
    assert_eq!(desk.wanted(), []);
    desk.line("/quit");
    assert_eq!(desk.wanted(), [Effect::Quit]);
}

#[test]
fn a_session_of_a_chat_before_needs_no_password() {
    for user in [None, Some("alice")] {
        let mut desk = Desk::new(user);
        desk.opens("alice");
        assert_eq!(
            (desk.app.user(), desk.last().as_str()),
            (Some("alice"), "welcome back, alice; /help tells what there is")
        );
        desk.line("/to bob hello");
        let (_, request) = desk.request();
        assert_eq!(request.command, chat::SEND);
    }
    let mut desk = Desk::new(Some("bob"));
    desk.line("secret");
    desk.opens("alice");
    assert_eq!(desk.wanted(), [Effect::Connect], "that is somebody else's");
    desk.opens_anew("");
    desk.answers(Asked::Login, logged_in("bob"));
    assert_eq!(desk.app.user(), Some("bob"));
}
