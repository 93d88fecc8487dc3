//! Lines in, lines out.

use crate::peer::{Listener, PATIENCE, Peer, nobody};
use crate::{anonymous, asked, logs_in, program, pushes, refuses, takes, with_token};
use moorgate_demo::wire::{self, accounts, chat};
use moorgate_proto::envelope::member::gateway;
use moorgate_proto::v1::{self, Reason, ResumeResult, client_frame::Member};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// The program, its lines, and who gives it some.
struct Running {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Running {
    fn new(addresses: &[String], arguments: &[&str]) -> Running {
        let mut child = program()
            .args(["--gateway", &addresses.join(",")])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Running { input: child.stdin.take(), child, lines }
    }

    fn line(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Waits for a line that has this in it.
    fn shows(&self, text: &str) -> String {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => seen.push(line),
                Err(_) => panic!("no line with `{text}`, but {seen:#?}"),
            }
        }
    }

    /// It has no more lines: it says Bye, and ends well.
    fn ends(mut self, peer: &mut Peer) {
        drop(self.input.take());
        peer.bye();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_user_logs_in_talks_and_leaves() {
    let listener = Listener::new();
    let mut chat = Running::new(&[listener.address()], &[]);
    let mut peer = anonymous(&listener);
    chat.shows("? your name:");
    chat.line("alice");
    chat.shows("? password of alice:");
    chat.line("secret");
    logs_in(&mut peer, accounts::LOGIN, "secret");
    chat.shows("* welcome back, alice");
    chat.shows(&format!("* connected as alice to {}", listener.address()));
    chat.line("/to bob how are you?");
    let (up_seq, key, send) = asked::<wire::Send>(&mut peer, chat::SEND);
    assert_eq!((send.to.as_str(), send.text.as_str(), key.len()), ("bob", "how are you?", 24));
    pushes(&mut peer, "alice", "how are you?", send.reference);
    takes(&mut peer, up_seq);
    assert!(chat.shows("how are you?").ends_with(" you to bob: how are you?"));
    pushes(&mut peer, "bob", "fine\nand \x1b[31myou?", 5);
    pushes(&mut peer, "bob", "fine\nand you?", 5);
    assert_eq!(chat.shows("bob"), "12:34 bob: fine", "its own copy was not shown again");
    assert_eq!(chat.shows("and"), "      and \u{fffd}[31myou?");
    chat.line("/quit");
    chat.ends(&mut peer);
}

#[test]
fn a_new_user_registers() {
    let listener = Listener::new();
    let mut chat = Running::new(&[listener.address()], &["--user", "alice"]);
    let mut peer = anonymous(&listener);
    chat.line("secret");
    refuses(&mut peer);
    chat.shows("! no such user, or another password");
    chat.shows("? register alice as a new user? (y/n)");
    chat.line("y");
    logs_in(&mut peer, accounts::REGISTER, "secret");
    chat.shows("* welcome, alice");
    chat.ends(&mut peer);
}

#[test]
fn a_restart_of_the_gateway_loses_no_message_and_sends_none_twice() {
    let (first, second) = (Listener::new(), Listener::new());
    let mut chat = Running::new(&[first.address(), second.address()], &["--user", "alice"]);
    let mut peer = anonymous(&first);
    chat.line("secret");
    logs_in(&mut peer, accounts::LOGIN, "secret");
    chat.line("/join team");
    let (up_seq, _, group) = asked::<wire::Group>(&mut peer, chat::JOIN);
    assert_eq!(group.group, "team");
    peer.answer_with(v1::Response { up_seq, ..v1::Response::default() });
    chat.shows("* you are in #team");
    chat.line("one");
    let (_, key, one) = asked::<wire::SendGroup>(&mut peer, chat::SEND_GROUP);
    drop((first, peer));
    chat.shows("! the connection was lost; reconnecting ...");
    chat.line("two");
    chat.shows("* reconnecting");
    let mut peer = with_token(&second);
    chat.shows("* connected again");
    // What was not answered goes first, and as what it is; the group is joined before anything new is said.
    let (up_seq, again, repeated) = asked::<wire::SendGroup>(&mut peer, chat::SEND_GROUP);
    assert_eq!((again, &repeated), (key, &one));
    let (joined, _, group) = asked::<wire::Group>(&mut peer, chat::JOIN);
    assert_eq!(group.group, "team");
    peer.answer_with(v1::Response { up_seq: joined, ..v1::Response::default() });
    takes(&mut peer, up_seq);
    chat.shows("#team you: one");
    let (up_seq, other, two) = asked::<wire::SendGroup>(&mut peer, chat::SEND_GROUP);
    assert_eq!((two.text.as_str(), other.len()), ("two", 24));
    assert_ne!(two.reference, one.reference);
    takes(&mut peer, up_seq);
    chat.shows("#team you: two");
    chat.ends(&mut peer);
}

#[test]
fn a_login_that_is_not_accepted_any_more_asks_again_and_keeps_what_waits() {
    let listener = Listener::new();
    let mut chat = Running::new(&[listener.address()], &["--user", "alice"]);
    let mut peer = anonymous(&listener);
    chat.line("secret");
    logs_in(&mut peer, accounts::LOGIN, "secret");
    chat.line("/to bob first");
    asked::<wire::Send>(&mut peer, chat::SEND);
    drop(peer);
    let mut peer = listener.accept();
    assert_eq!(peer.hello().access_token, "token of alice");
    let error = v1::Error {
        reason: Reason::TokenInvalid.into(),
        message: "for people who debug".to_owned(),
        ..v1::Error::default()
    };
    peer.say(gateway::ERROR, &error);
    chat.shows("! your login is not accepted any more");
    chat.shows("? password of alice:");
    let mut peer = anonymous(&listener);
    chat.line("new secret");
    logs_in(&mut peer, accounts::LOGIN, "new secret");
    let (up_seq, _, send) = asked::<wire::Send>(&mut peer, chat::SEND);
    assert_eq!(send.text, "first");
    takes(&mut peer, up_seq);
    chat.shows("you to bob: first");
    chat.ends(&mut peer);
}

#[test]
fn lines_of_a_pipe_are_all_sent_before_it_ends() {
    let listener = Listener::new();
    let mut chat = Running::new(&[listener.address()], &["--user", "alice"]);
    let most = 300;
    chat.line("secret\n/to bob 0");
    (1..most).for_each(|number| chat.line(&number.to_string()));
    drop(chat.input.take());
    let mut peer = anonymous(&listener);
    logs_in(&mut peer, accounts::LOGIN, "secret");
    for number in 0..most {
        let (up_seq, _, send) = asked::<wire::Send>(&mut peer, chat::SEND);
        assert_eq!(send.text, number.to_string());
        takes(&mut peer, up_seq);
    }
    chat.ends(&mut peer);
}

#[test]
fn a_signal_ends_it_with_a_bye() {
    let listener = Listener::new();
    let mut chat = Running::new(&[listener.address()], &["--user", "alice"]);
    let mut peer = anonymous(&listener);
    chat.shows("not logged in");
    let pid = rustix::process::Pid::from_child(&chat.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    peer.bye();
    assert!(chat.child.wait().unwrap().success());
}

#[test]
fn a_lost_connection_is_a_pause_and_another_start_goes_on() {
    let folder = std::env::temp_dir().join(format!("moorgate-chat-{}-state", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("session");
    let arguments = ["--state", file.to_str().unwrap()];
    let listener = Listener::new();
    let mut chat = Running::new(&[listener.address()], &arguments);
    let mut peer = listener.accept();
    peer.resumes("", (ResumeResult::None, b"first"), 0, 0);
    chat.line("alice\nsecret");
    logs_in(&mut peer, accounts::LOGIN, "secret");
    chat.shows("* welcome back, alice");
    chat.line("/to bob one");
    let (up_seq, _, _) = asked::<wire::Send>(&mut peer, chat::SEND);
    drop(peer);
    chat.shows("! the connection was lost; reconnecting ...");
    let mut peer = listener.accept();
    let hello = peer.resumes("alice", (ResumeResult::Resumed, b"second"), up_seq, 1);
    assert_eq!(&hello.resume.unwrap().resume_token[..], b"first");
    takes(&mut peer, up_seq);
    chat.shows("you to bob: one");
    pushes(&mut peer, "bob", "two", 7);
    chat.shows("bob: two");
    drop(chat.input.take());
    while !matches!(peer.hear().unwrap().member, Some(Member::Bye(bye)) if bye.keep_for_ms > 0) {}
    peer.say(gateway::BYE_ACK, &v1::ByeAck {});
    assert!(chat.child.wait().unwrap().success());
    let device_id = hello.device_id;
    let mut chat = Running::new(&[listener.address()], &arguments);
    let mut peer = listener.accept();
    let hello = peer.resumes("alice", (ResumeResult::Resumed, b"third"), up_seq, 3);
    let resume = hello.resume.unwrap();
    assert_eq!((&resume.resume_token[..], resume.attempt, resume.down_seq), (&b"second"[..], 2, 3));
    assert_eq!((hello.device_id, hello.access_token.as_str()), (device_id, ""));
    chat.shows("* welcome back, alice");
    chat.line("/to bob three");
    let (up_seq, _, send) = asked::<wire::Send>(&mut peer, chat::SEND);
    assert_eq!((up_seq, send.text.as_str()), (3, "three"));
    takes(&mut peer, up_seq);
    drop(chat);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn the_command_line_explains_itself() {
    let help = program().arg("--help").output().unwrap();
    assert!(help.status.success());
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(text.contains("--gateway") && text.lines().all(|line| line.len() <= 80));
    let wrong = program().args(["--gateway", "here"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8(wrong.stderr).unwrap().contains("127.0.0.1:7000"));
}

#[test]
fn input_that_ends_with_no_gateway_is_a_failure() {
    let address = nobody().to_string();
    for arguments in [&["--user", "alice"][..], &[]] {
        let mut command = program();
        command.args(["--plain", "--gateway", &address]).args(arguments).stdin(Stdio::null());
        let output = command.output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert_eq!(error, format!("moorgate-chat: no gateway at {address}: connection refused\n"));
    }
}

#[test]
fn input_that_ends_at_once_waits_for_the_connection() {
    let listener = Listener::new();
    let mut chat = Running::new(&[listener.address()], &["--user", "alice"]);
    drop(chat.input.take());
    let mut peer = anonymous(&listener);
    chat.ends(&mut peer);
}
