//! Services that are found, drained, shifted and remembered: the binary, its files, and services that say who they are.

use crate::running::{PATIENCE, Running, page, page_until, ready};
use crate::{Directory, done};
use moorgate_client::{Connection, Options, RequestOptions};
use moorgate_service::{Handle, Reply, Service};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

const SECRET: &str = "correct-horse-battery-staple-and-some-more";
/// The command that is answered with the name of who answers.
const NAME: u32 = 0x0001;

/// An instance of the service `name` that answers with this word.
fn instance(word: &'static str) -> Handle {
    let service = Service::named("name").handle(0..=u32::MAX, move |_, responder| {
        responder.reply(Reply::ok(word.as_bytes()));
    });
    service.listen("127.0.0.1:0".parse().unwrap()).unwrap().spawn().unwrap()
}

/// A configuration with the service `name`; `service` stands in its table.
fn configuration(service: &str) -> String {
    format!(
        "[gateway]\nshards = 2\nworkers = 2\n[[listener]]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \
         \"127.0.0.1:0\"\n[log]\naccess = \"access.log\"\n[discovery]\nprobe_interval = \"100ms\"\nconfirm = \"1s\"\n[[auth.key]]\n\
         id = \"default\"\nsecret_file = \"access.secret\"\n[[route]]\ncommands = \"0x0001-0x00ff\"\nservice = \
         \"name\"\nanonymous = true\n[[service]]\nname = \"name\"\nwithout_proofs = true\n{service}\n"
    )
}

struct Gateway {
    process: Running,
    clients: SocketAddr,
    admin: SocketAddr,
}

impl Gateway {
    fn start(path: &str) -> Gateway {
        let mut process = Running::start(&["serve", "-c", path]);
        let (clients, admin) = process.addresses();
        Gateway { process, clients, admin }
    }

    fn ends(self) {
        self.process.signal("-TERM");
        let ended = self.process.ended();
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }

    /// Who answers a new session, and its id.
    fn asked(&self, token: &str) -> (String, String) {
        let mut client = Connection::connect(self.clients, Options::default(), token).unwrap();
        let session = client.welcome().session_id.iter().map(|byte| format!("{byte:02x}")).collect();
        let answer = client.request(NAME, b"", PATIENCE).unwrap();
        client.bye().unwrap();
        (String::from_utf8(answer.payload.to_vec()).unwrap(), session)
    }

    fn who_answers(&self, token: &str) -> String {
        self.asked(token).0
    }

    /// What is explained of a call of this user, with the answers of both workers: on a busy machine one may not answer
    /// within the gateway's second.
    fn explained(&self, user: &str) -> String {
        let admin = self.admin.to_string();
        let explain = || done(&["explain", "--command", "1", "--user", user, "--admin", &admin]);
        std::iter::repeat_with(explain).find(|told| !told.contains("did not answer")).unwrap()
    }

    fn operator(&self, words: &[&str]) -> String {
        done(&[&["operator"], words, &["--admin", &self.admin.to_string()]].concat())
    }
}

/// Puts another file in the place of one that is watched, in one step.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

fn endpoint_line(address: SocketAddr, rest: &str) -> String {
    format!("{address}{rest}\n")
}

#[test]
fn a_file_says_where_the_service_is_and_a_rename_moves_its_calls() {
    let directory = Directory::new("governed-file");
    directory.file("access.secret", SECRET);
    let (one, two) = (instance("one"), instance("two"));
    let file = directory.0.join("name.endpoints");
    std::fs::write(&file, format!("# the first\n{}", endpoint_line(one.address(), " zone=eu-1"))).unwrap();
    let path = directory.file("gate.toml", &configuration("endpoints_file = \"name.endpoints\""));
    let gateway = Gateway::start(&path);
    ready(gateway.admin);
    assert_eq!(gateway.who_answers(""), "one");
    let listed = gateway.operator(&["endpoints"]);
    let row: Vec<&str> = listed.lines().nth(1).unwrap().split_whitespace().collect();
    let address = one.address().to_string();
    assert_eq!(row[..7], ["name", "1", address.as_str(), "100", "eu-1", "-", "in"], "{listed}");
    let rest = (row[7], row[8], row[9], row[10], row[11].trim_end_matches(','));
    assert_eq!(rest, ("2", "-", "1", "-", "file"), "{listed}");
    let counted = format!("moorgate_endpoint_calls_total{{service=\"name\",endpoint=\"{address}\"}} 1\n");
    assert!(page(gateway.admin, "/metrics").contains(&counted));

    replace(&file, &endpoint_line(two.address(), ""));
    let moved = format!("endpoint=\"{}\"}} 2\n", two.address());
    page_until(gateway.admin, "/metrics", |page| {
        page.contains(&format!("moorgate_endpoint_links{{service=\"name\",{moved}"))
    });
    // The old one still answers, so it may be held until the new list is confirmed; then it drains.
    page_until(gateway.admin, "/metrics", |page| !page.contains(&format!("endpoint=\"{}\"", one.address())));
    page_until(gateway.admin, "/readyz", |page| page.ends_with("\r\n\r\nready\n"));
    for _ in 0..8 {
        assert_eq!(gateway.who_answers(""), "two");
    }
    let listed = gateway.operator(&["endpoints"]);
    assert!(listed.contains(&two.address().to_string()) && !listed.contains(&address), "{listed}");
    let metrics = page(gateway.admin, "/metrics");
    assert!(metrics.contains("moorgate_source_up{service=\"name\",source=\"file\"} 1\n"), "{metrics}");
    assert!(
        metrics.contains("moorgate_service_endpoints{service=\"name\",standing=\"in\"} 1\n"),
        "{metrics}"
    );
    gateway.ends();
    for service in [one, two] {
        service.stop();
        assert!(service.join());
    }
}

#[test]
fn after_a_kill_the_last_list_is_on_disk() {
    let directory = Directory::new("governed-kill");
    directory.file("access.secret", SECRET);
    let one = instance("one");
    let file = directory.0.join("name.endpoints");
    std::fs::write(&file, endpoint_line(one.address(), "")).unwrap();
    let text = configuration("endpoints_file = \"name.endpoints\"");
    let path =
        directory.file("gate.toml", &text.replace("[discovery]", "[discovery]\nstate_file = \"lists.json\""));
    let gateway = Gateway::start(&path);
    ready(gateway.admin);
    let lists = directory.0.join("lists.json");
    let kept = || std::fs::read_to_string(&lists).is_ok_and(|text| text.contains(&one.address().to_string()));
    page_until(gateway.admin, "/livez", |_| kept());
    gateway.process.signal("-KILL");
    assert_eq!(gateway.process.ended().code, None);
    // The source is gone, as a registry that is down would be.
    std::fs::remove_file(&file).unwrap();
    let again = Gateway::start(&path);
    ready(again.admin);
    assert_eq!(again.who_answers(""), "one");
    page_until(again.admin, "/metrics", |page| {
        page.contains("moorgate_source_up{service=\"name\",source=\"file\"} 0\n")
    });
    let explained = done(&["explain", "--command", "1", "--admin", &again.admin.to_string()]);
    assert!(explained.contains("  sources    file fails: "), "{explained}");
    again.ends();
    // Without any list the gateway starts all the same, and says what it lacks.
    std::fs::remove_file(&lists).unwrap();
    let bare = Gateway::start(&path);
    page_until(bare.admin, "/readyz", |page| page.ends_with("not ready: service name has no endpoints\n"));
    let mut client = Connection::connect(bare.clients, Options::default(), "").unwrap();
    let options = RequestOptions { timeout: Duration::from_millis(10), ..RequestOptions::command(NAME) };
    let id = client.start(&options, b"").unwrap();
    let answer = client.answer(id, PATIENCE).unwrap();
    assert_eq!((answer.code.name(), answer.reason.as_str_name()), ("DEADLINE_EXCEEDED", "REASON_TIMEOUT"));
    client.bye().unwrap();
    bare.ends();
    one.stop();
    assert!(one.join());
}

#[test]
fn a_canary_takes_exactly_those_users_that_its_share_says() {
    let directory = Directory::new("governed-canary");
    let secret = directory.file("access.secret", SECRET);
    let (stable, canary) = (instance("stable"), instance("canary"));
    let endpoints = format!(
        "endpoints = [\"{}\", \"{} tags=canary\"]\n[service.canary]\ntag = \"canary\"",
        stable.address(),
        canary.address()
    );
    let gateway = Gateway::start(&directory.file("gate.toml", &configuration(&endpoints)));
    let linked = |page: &str| {
        let links = page.lines().filter(|line| line.starts_with("moorgate_endpoint_links{"));
        links.filter(|line| line.ends_with(" 2")).count() == 2
    };
    page_until(gateway.admin, "/metrics", linked);
    let users: Vec<String> = (0..16).map(|number| format!("user-{number}")).collect();
    let token =
        |user: &String| done(&["token", "issue", "--user", user, "--secret-file", &secret]).trim().to_owned();
    let tokens: Vec<String> = users.iter().map(token).collect();
    let of_canary =
        || -> Vec<bool> { tokens.iter().map(|token| gateway.who_answers(token) == "canary").collect() };
    assert_eq!(of_canary(), [false; 16]);
    let mut before = vec![false; 16];
    let mut told = "0%".to_owned();
    for share in ["25%", "50.5%", "100%"] {
        let answer = gateway.operator(&["canary", "name", share]);
        assert_eq!(answer, format!("{{\"before\":\"{told}\",\"now\":\"{share}\"}}\n"));
        told = share.to_owned();
        let now = of_canary();
        // Who was there stays there, and what explain says is what happens.
        assert!(before.iter().zip(&now).all(|(before, now)| *now || !before), "{before:?} {now:?}");
        for (user, is_there) in users.iter().zip(&now) {
            let explained = gateway.explained(user);
            let address = if *is_there { canary.address() } else { stable.address() };
            assert!(explained.contains(&format!("  worker 0   {address}\n")), "{user}: {explained}");
            assert!(explained.contains(&format!("  canary     {share} of users\n")), "{explained}");
        }
        before = now;
    }
    assert_eq!(before, [true; 16]);
    assert!(
        page(gateway.admin, "/metrics")
            .contains("moorgate_canary_share_basis_points{service=\"name\"} 10000\n")
    );
    gateway.operator(&["canary", "name", "0%"]);
    assert_eq!(of_canary(), [false; 16]);
    gateway.ends();
    for service in [stable, canary] {
        service.stop();
        assert!(service.join());
    }
}

#[test]
fn a_request_of_a_real_access_log_is_explained() {
    let directory = Directory::new("governed-log");
    directory.file("access.secret", SECRET);
    let one = instance("one");
    let endpoints = format!("endpoints = [\"{}\"]", one.address());
    let gateway = Gateway::start(&directory.file("gate.toml", &configuration(&endpoints)));
    ready(gateway.admin);
    let (_, session) = gateway.asked("");
    gateway.ends();
    let log = directory.0.join("access.log").display().to_string();
    let told = done(&["explain", "--log", &log, "--request", &format!("{session}:1")]);
    assert!(
        told.starts_with(&format!("request 1 of session {session}, of an anonymous session from 127.0.0.1")),
        "{told}"
    );
    assert!(told.contains(&format!("  endpoint   {}\n", one.address())), "{told}");
    assert!(told.contains("  outcome    OK, said by the service; it ran\n"), "{told}");
    assert!(told.contains("  why        by only: it was the only one\n"), "{told}");
    one.stop();
    assert!(one.join());
}
