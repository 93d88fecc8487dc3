//! `moorgate-demo` as a process.

use crate::gateway::Gateway;
use crate::{FINE, ask, outcome};
use moorgate_demo::wire::Credentials;
use moorgate_demo::wire::accounts::REGISTER;
use moorgate_demo::wire::{Group, chat::WHO};
use moorgate_service::LinkKey;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};

const SECRET: &str = "correct-horse-battery-staple";

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moorgate-demo"));
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(words: &[&str]) -> Output {
    command(words).output().unwrap()
}

/// Ends with the test.
struct Running(Child);

impl Running {
    fn start(words: &[&str]) -> (Running, SocketAddr) {
        let mut child = command(words).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listens on ").and_then(|text| text.parse().ok());
        let running = Running(child);
        (running, address.unwrap_or_else(|| panic!("no address in {line:?}")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

// spec: L-45, L-46
#[test]
fn a_service_proves_itself_serves_and_drains_on_sigterm() {
    let path = std::env::temp_dir().join(format!("moorgate-demo-{}.key", std::process::id()));
    std::fs::write(&path, format!("{SECRET}\n")).unwrap();
    let key_file = path.to_str().unwrap();
    let key = LinkKey::new(SECRET.as_bytes()).unwrap();
    let (mut accounts, address) =
        Running::start(&["accounts", "--listen", "127.0.0.1:0", "--key-file", key_file]);
    let mut gateway = Gateway::proven("gate", address, "accounts", &key);
    let alice = Credentials { user: "alice".to_owned(), password: "wonderland".to_owned() };
    assert_eq!(outcome(&ask(&mut gateway, REGISTER, "", &alice)), FINE);
    let kill = Command::new("kill").args(["-TERM", &accounts.0.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert!(matches!(gateway.next(), Some(moorgate_proto::v1::to_gateway::Member::Drain(_))));
    drop(gateway);
    assert!(accounts.0.wait().unwrap().success());
    let mut said = String::new();
    accounts.0.stderr.as_mut().unwrap().read_to_string(&mut said).unwrap();
    assert!(!said.contains(SECRET) && !said.contains("wonderland"), "{said}");
    let (_chat, address) = Running::start(&["chat", "--listen", "127.0.0.1:0", "--without-proofs"]);
    let mut gateway = Gateway::of("gate", 1, address, "chat");
    assert_eq!(outcome(&ask(&mut gateway, WHO, "alice", &Group::default())), FINE);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_wrong_command_line_says_what_is_wrong() {
    let listen = ["--listen", "127.0.0.1:0"];
    let cases: [(&[&str], &str); 6] = [
        (&["accounts", listen[0], listen[1]], "either --key-file or --without-proofs"),
        (&["games", listen[0], listen[1], "--without-proofs"], "there is no service games"),
        (&[listen[0], listen[1], "--without-proofs"], "a service is needed"),
        (&["chat", "--without-proofs"], "--listen is needed"),
        (&["chat", "--listen", "nowhere", "--without-proofs"], "nowhere"),
        (&["chat", listen[0], listen[1], "--key-file", "/nonexistent/key"], "/nonexistent/key"),
    ];
    for (words, part) in cases {
        let output = run(words);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(part) && said.starts_with("moorgate-demo: "), "{said}");
    }
    let help = run(&["--help"]);
    assert!(
        help.status.success() && String::from_utf8(help.stdout).unwrap().contains("usage: moorgate-demo")
    );
}
