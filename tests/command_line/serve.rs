//! `moorgate serve`: it starts, says where, serves, and ends as asked.

use crate::loopback::nobody;
use crate::running::{PATIENCE, Running, page, page_until, ready};
use crate::{Directory, done, ended, moorgate, refused, run};
use moorgate_client::{Connection, ConnectionError, Options};
use moorgate_demo::wire::{self, accounts, chat};
use moorgate_service::{LinkKey, Reply, Service};
use prost::Message;
use std::io::Read;
use std::net::{SocketAddr, TcpStream, UdpSocket};

const SECRET: &str = "correct-horse-battery-staple-and-some-more";

fn echo(address: SocketAddr, token: &str) -> Result<(), ConnectionError> {
    let mut client = Connection::connect(address, Options::default(), token)?;
    let answer = client.request(0x0001, b"hello", PATIENCE)?;
    assert_eq!((answer.code.name(), answer.payload.as_slice()), ("OK", &b"hello"[..]));
    client.bye()
}

#[test]
fn dev_says_where_it_listens_serves_and_ends_on_sigterm() {
    let mut gateway = Running::dev();
    let (clients, operator) = gateway.addresses();
    assert!(gateway.out_until("clients ").ends_with(&format!(" {clients}")));
    assert!(gateway.out_until("operator ").contains(&format!("http://{operator}/readyz")));
    gateway.out_until("users who register");
    gateway.out_until("limits ");
    gateway.out_until(&format!("--example echo -- {clients}"));
    gateway.out_until(&format!("--target {clients}"));
    gateway.out_until("Ctrl-C");
    ready(operator);
    echo(clients, "").unwrap();
    echo(clients, done(&["token", "issue", "--dev", "--user", "alice"]).trim()).unwrap();
    assert!(matches!(echo(clients, "a.b.c"), Err(ConnectionError::Refused(_))));
    assert!(page(operator, "/metrics").contains("moorgate_"));
    gateway.signal("-TERM");
    let ended = gateway.ended();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let summary = "drained: 3 connections, 2 sessions, 2 requests, 2 of them OK";
    assert_eq!(ended.out.lines().last(), Some(summary));
    assert!(!ended.err.contains("not-for-production") && !ended.out.contains("not-for-production"));
}

/// Registers, and is logged in; a session without a token.
fn registered(address: SocketAddr, user: &str) -> Connection {
    let mut client = Connection::connect(address, Options::default(), "").unwrap();
    let credentials = wire::Credentials { user: user.to_owned(), password: "correct horse".to_owned() };
    ask(&mut client, accounts::REGISTER, &credentials);
    client
}

fn ask(client: &mut Connection, command: u32, payload: &impl Message) -> Vec<u8> {
    let answer = client.request(command, &payload.encode_to_vec(), PATIENCE).unwrap();
    assert_eq!(answer.code.name(), "OK", "{answer}");
    answer.payload
}

fn push(client: &mut Connection) -> (u32, Vec<u8>) {
    let push = client.push(PATIENCE).unwrap().expect("a push");
    (push.command, push.payload.to_vec())
}

#[test]
fn dev_has_accounts_and_chat_inside() {
    let mut gateway = Running::dev();
    for service in ["echo       0x0001-0x00ff", "accounts   0x0200-0x0202", "chat       0x0210-0x0214"] {
        gateway.out_until(service);
    }
    let (clients, operator) = gateway.addresses();
    ready(operator);
    let [mut alice, mut bob] = ["alice", "bob"].map(|user| registered(clients, user));
    let lobby = wire::Group { group: "lobby".to_owned() };
    ask(&mut alice, chat::JOIN, &lobby);
    ask(&mut bob, chat::JOIN, &lobby);
    // Of her own joining she may be told or not.
    let mut notice = wire::Notice::default();
    while notice.user != "bob" {
        let (command, payload) = push(&mut alice);
        assert_eq!(command, chat::NOTICE);
        notice = wire::Notice::decode(&payload[..]).unwrap();
    }
    let text = wire::Send { to: "bob".to_owned(), text: "hello, bob".to_owned(), reference: 1 };
    let sent = wire::Sent::decode(&ask(&mut alice, chat::SEND, &text)[..]).unwrap();
    assert_eq!(sent.receiver(), wire::sent::Receiver::Online);
    let (command, payload) =
        std::iter::repeat_with(|| push(&mut bob)).find(|(command, _)| *command != chat::NOTICE).unwrap();
    let message = wire::Message::decode(&payload[..]).unwrap();
    assert_eq!((command, &message.from[..], &message.text[..]), (chat::MESSAGE, "alice", "hello, bob"));
    assert_eq!(message.id, sent.id);
    drop((alice, bob));
    gateway.signal("-TERM");
    let ended = gateway.ended();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.err.contains("correct horse") && !ended.out.contains("correct horse"));
}

#[test]
fn ctrl_c_ends_it_too_and_nobody_who_has_not_said_hello_is_waited_for() {
    let mut gateway = Running::dev();
    let (clients, operator) = gateway.addresses();
    ready(operator);
    let mut silent = TcpStream::connect(clients).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    page_until(operator, "/metrics", |answer| answer.contains("\nmoorgate_connections 1\n"));
    gateway.signal("-INT");
    let mut last_words = Vec::new();
    silent.read_to_end(&mut last_words).unwrap();
    let last_words = String::from_utf8_lossy(&last_words).into_owned();
    assert!(last_words.contains("the gateway goes away"), "{last_words:?}");
    drop(silent);
    assert_eq!(gateway.ended().code, Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut gateway = Running::dev();
    let (clients, operator) = gateway.addresses();
    ready(operator);
    let _stays = Connection::connect(clients, Options::default(), "").unwrap();
    gateway.signal("-TERM");
    gateway.err_until("draining; a second signal ends at once");
    gateway.signal("-TERM");
    let ended = gateway.ended();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.ends_with("moorgate: ended by a second signal\n"), "{ended:?}");
}

#[test]
fn dev_does_not_listen_beyond_loopback() {
    for flag in ["--listen", "--admin-listen", "--bench-listen"] {
        for address in ["0.0.0.0:0", "[::]:0", "10.0.0.1:7000"] {
            let message = format!(
                "moorgate: --dev listens on loopback only, not on {address}: everybody knows its signing secret; \
                 write a configuration file to listen there\n"
            );
            refused(&["serve", "--dev", flag, address], 1, &message);
        }
    }
}

#[test]
fn a_port_in_use_is_told_and_the_first_gateway_goes_on() {
    let mut gateway = Running::dev();
    let (clients, operator) = gateway.addresses();
    let second = |listen: SocketAddr, admin: &str| {
        let listen = listen.to_string();
        run(&[
            "serve",
            "--dev",
            "--listen",
            &listen,
            "--admin-listen",
            admin,
            "--bench-listen",
            "127.0.0.1:0",
        ])
    };
    let message = format!("moorgate: {clients} is in use by another process; stop it, or listen elsewhere\n");
    let ended = second(clients, "127.0.0.1:0");
    assert_eq!((ended.code, ended.err), (Some(1), message));
    let ended = second("127.0.0.1:0".parse().unwrap(), &operator.to_string());
    assert_eq!(ended.code, Some(1));
    let message = format!("moorgate: {operator}, for the operator, is in use by another process");
    assert!(ended.err.starts_with(&message), "{ended:?}");
    ready(operator);
    echo(clients, "").unwrap();
}

#[test]
fn address_of_the_operator_and_of_clients_is_refused() {
    let directory = Directory::new("serve-collision");
    let port = nobody().port();
    let (clients, wide) = (&format!("127.0.0.1:{port}"), &format!("0.0.0.0:{port}"));
    let path = directory.file(
        "gate.toml",
        &"[[listener]]\naddress = \"LISTEN\"\n[[service]]\nname = \"echo\"\nendpoints = [\"192.0.2.1:7100\"]\n\
          without_proofs = true\n[[route]]\ncommands = 7\nservice = \"echo\"\n"
            .replace("LISTEN", wide),
    );
    let cases: [(&[&str], &str, &str); 3] = [
        (&["serve", "--dev", "--listen", clients, "--admin-listen", clients], clients, clients),
        (&["serve", "-c", &path, "--admin-listen", clients], clients, wide),
        (&["serve", "-c", &path, "--listen", clients, "--admin-listen", wide], wide, clients),
    ];
    for (words, operator, clients) in cases {
        let message = format!(
            "moorgate: {operator}, for the operator, collides with {clients}, for clients; choose another port \
             (admin.address or --admin-listen; listener.address or --listen)\n"
        );
        refused(words, 1, &message);
    }
}

#[test]
fn filter_of_the_log_that_has_no_level_is_a_warning() {
    // It ends at once: both cannot listen there.
    let same = nobody().to_string();
    let words = ["serve", "--dev", "--listen", &same, "--admin-listen", &same];
    let ended = ended(moorgate(&words).env("RUST_LOG", "chatty"));
    let warning = "RUST_LOG is not used, log.level is: `chatty` is no level; write one of off, error, warn, info, debug, trace";
    assert!(ended.code == Some(1) && ended.err.contains(warning), "{ended:?}");
}

#[test]
fn a_configuration_is_served_with_keys_and_proofs() {
    let directory = Directory::new("serve");
    let secret = directory.file("access.secret", SECRET);
    directory.file("echo.key", &format!("{SECRET}\n"));
    let service = Service::named("echo")
        .key(LinkKey::new(SECRET.as_bytes()).unwrap())
        .handle(0x0001..=0x00ff, |call, responder| responder.reply(Reply::ok(call.payload())))
        .listen("127.0.0.1:0".parse().unwrap())
        .unwrap();
    let sample = include_str!("../../moorgate.toml")
        .replace("127.0.0.1:7100", &service.address().to_string())
        .replace("127.0.0.1:7001", "127.0.0.1:0")
        .replace("# access = \"off\"", "access = \"access.log\"");
    let path = directory.file("moorgate.toml", &sample);
    let service = service.spawn().unwrap();
    // The address of the command line stands in for the sample's, which is everybody's.
    let mut gateway = Running::start(&["serve", "-c", &path, "--listen", "127.0.0.1:0"]);
    let (clients, operator) = gateway.addresses();
    ready(operator);
    let token = done(&["token", "issue", "--user", "alice", "--secret-file", &secret]);
    echo(clients, token.trim()).unwrap();
    gateway.signal("-TERM");
    let ended = gateway.ended();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.err.contains(SECRET) && !ended.out.contains(SECRET));
    service.stop();
    // A path in the file begins at the file's directory.
    let log = std::fs::read_to_string(directory.0.join("access.log")).unwrap();
    assert!(log.contains(" user=alice ") && log.contains(" status=OK "), "{log}");
}

/// A name server that knows no name, until it gets an empty message.
fn server_of_no_names() -> (SocketAddr, std::thread::JoinHandle<()>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let mut message = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut message).unwrap();
            if length == 0 {
                return;
            }
            // It is an answer: NXDOMAIN.
            message[2] |= 0x80;
            message[3] = message[3] & 0xf0 | 3;
            socket.send_to(&message[..length], from).unwrap();
        }
    });
    (at, thread)
}

#[test]
fn service_without_instances_is_logged_with_what_was_asked() {
    let directory = Directory::new("serve-nobody");
    let (dns, thread) = server_of_no_names();
    let file = directory.file("echo.endpoints", "# none yet\n");
    let path = directory.file(
        "gate.toml",
        &format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\n[[service]]\nname = \"chat\"\nwithout_proofs = true\n\
             [service.dns]\nname = \"chta.internal\"\nport = 7100\n[[service]]\nname = \"echo\"\n\
             endpoints_file = \"echo.endpoints\"\nwithout_proofs = true\n[[route]]\ncommands = 7\n\
             service = \"echo\"\n[[route]]\ncommands = 8\nservice = \"chat\"\n[dns]\nservers = [\"{dns}\"]\n\
             [discovery]\nstate_file = \"off\"\n"
        ),
    );
    let mut gateway = Running::start(&["serve", "-c", &path]);
    // In whatever order they come.
    let mut told = [gateway.err_until("no usable endpoint"), gateway.err_until("no usable endpoint")];
    told.sort_by_key(|line| line.contains("of echo"));
    assert!(told.iter().all(|line| line.contains("WARN")), "{told:?}");
    assert!(
        told[0].contains("endpoints of chat: ") && told[0].contains("dns for chta.internal:7100"),
        "{told:?}"
    );
    assert!(
        told[1].contains("endpoints of echo: ") && told[1].contains(&format!("file for {file}")),
        "{told:?}"
    );
    std::fs::write(&file, "192.0.2.1:7100\n").unwrap();
    let line = gateway.err_until("usable endpoints are listed: 1");
    assert!(line.contains("INFO") && line.contains("endpoints of echo: "), "{line}");
    gateway.signal("-TERM");
    let ended = gateway.ended();
    assert_eq!((ended.code, ended.err.matches("no usable endpoint").count()), (Some(0), 2), "{ended:?}");
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&[], dns).unwrap();
    thread.join().unwrap();
}

#[test]
fn a_configuration_without_keys_is_served_with_a_warning() {
    let directory = Directory::new("serve-keyless");
    let path = directory.file(
        "gate.toml",
        "[[listener]]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n[[service]]\nname = \"echo\"\n\
         endpoints = [\"127.0.0.1:1\"]\nwithout_proofs = true\n[[route]]\ncommands = 7\nservice = \"echo\"\n",
    );
    let mut gateway = Running::start(&["serve", "-c", &path]);
    gateway.err_until("no key for access tokens");
    let (_, operator) = gateway.addresses();
    let answer = page(operator, "/readyz");
    assert!(answer.ends_with("not ready: service echo has no ready link\n"), "{answer}");
    gateway.signal("-TERM");
    assert_eq!(gateway.ended().code, Some(0));
}
