//! `moorgate check`.

use crate::{Directory, done, ended, moorgate, refused, run};

const GOOD: &str = r#"[[listener]]
address = "127.0.0.1:7000"
[admin]
address = "127.0.0.1:7001"
[gateway]
shards = 2
[[auth.key]]
id = "2026-01"
secret_file = "access.secret"
[[service]]
name = "chat"
endpoints = ["10.0.0.1:7100", "10.0.0.2:7100"]
key_env = "MOORGATE_SECRET"
[[service]]
name = "echo"
endpoints = ["127.0.0.1:7200"]
without_proofs = true
[[route]]
commands = "0x0100-0x01ff"
service = "chat"
[[route]]
commands = 7
service = "echo"
"#;
/// As little as there can be.
const BARE: &str = r#"[[listener]]
address = "127.0.0.1:0"
[[service]]
name = "echo"
endpoints = ["127.0.0.1:7200"]
without_proofs = true
[[route]]
commands = 7
service = "echo"
anonymous = true
"#;
const SECRET: &str = "correct-horse-battery-staple-and-some-more";

#[test]
fn a_good_file_is_summed_up() {
    let directory = Directory::new("check-good");
    directory.file("access.secret", SECRET);
    let path = directory.file("gate.toml", GOOD);
    let ended = ended(moorgate(&["check", &path]).env("MOORGATE_SECRET", SECRET));
    let expected = format!(
        "{path}: good\n  clients   127.0.0.1:7000\n  operator  http://127.0.0.1:7001\n  keys      2026-01\n  \
         service   chat at 10.0.0.1:7100, 10.0.0.2:7100, with proofs\n  \
         service   echo at 127.0.0.1:7200, WITHOUT PROOFS\n  routes    2\n  threads   2 shards, 1 worker\n"
    );
    assert_eq!((ended.code, ended.err.as_str(), ended.out), (Some(0), "", expected));
}

#[test]
fn the_sources_of_a_service_are_told() {
    let directory = Directory::new("check-sources");
    let path = directory.file(
        "gate.toml",
        r#"[[listener]]
address = "127.0.0.1:7000"
[[service]]
name = "chat"
endpoints = ["10.0.0.1:7100 weight=50 zone=eu-1"]
endpoints_file = "chat.endpoints"
without_proofs = true
[service.dns]
name = "chat.internal"
port = 7100
[service.consul]
name = "im-chat"
[service.nacos]
[service.canary]
tag = "canary"
share = "2.5%"
[[route]]
commands = 7
service = "chat"
[nacos]
servers = ["http://10.0.0.5:8848", "http://10.0.0.6:8848"]
[register]
address = "10.0.0.9:7000"
consul = true
nacos = true
"#,
    );
    directory.file("chat.endpoints", "10.0.0.2:7100\n10.0.0.3:7100 zone=eu-1\n");
    let out = done(&["check", &path]);
    let at = directory.0.display();
    let expected = format!(
        "  service   chat at 10.0.0.1:7100 weight=50 zone=eu-1, those in {at}/chat.endpoints (2 now), those of \
         chat.internal:7100 in DNS, those of im-chat in Consul at http://127.0.0.1:8500, those of chat in Nacos at \
         http://10.0.0.5:8848 and http://10.0.0.6:8848, WITHOUT PROOFS\n  \
         canary    of chat: 2.5% of users, to endpoints with tag canary\n  \
         lists     {at}/endpoints.json\n  \
         register  as moorgate at 10.0.0.9:7000, in Consul and Nacos\n"
    );
    assert!(out.contains(&expected), "{out}");
    std::fs::remove_file(directory.0.join("chat.endpoints")).unwrap();
    let expected = format!("those in {at}/chat.endpoints (no list now: {at}/chat.endpoints cannot be read: ");
    assert!(done(&["check", &path]).contains(&expected), "it may come later");
}

#[test]
fn a_bad_line_of_a_file_of_endpoints_is_a_mistake() {
    let directory = Directory::new("check-endpoints");
    let text = BARE.replace("endpoints = [\"127.0.0.1:7200\"]", "endpoints_file = \"chat.endpoints\"");
    let path = directory.file("gate.toml", &text);
    let at = directory.0.join("chat.endpoints").display().to_string();
    let wrong = |text: &str, why: &str| {
        directory.file("chat.endpoints", text);
        refused(&["check", &path], 1, &format!("{at}{why}\n"));
    };
    wrong(
        "10.0.0.2:7100\nchat\n10.0.0.3:7100\n",
        ":2: `chat` is no address; write an IP address and a port, such as 10.0.0.1:7100 or [::1]:7100",
    );
    wrong(
        "10.0.0.2:7100 zone=a,b\n",
        ":1: zone=`a,b` cannot be one; write 1 to 64 bytes without spaces and commas",
    );
    wrong(
        "10.0.0.2:7100\n10.0.0.3:71",
        ":2: it has no line feed at its end, and may be half written; add one",
    );
    wrong(
        "10.0.0.2:7100\n10.0.0.2:7100 weight=7\n",
        ":2: 10.0.0.2:7100: it stands above already; leave one out",
    );
    wrong(
        "0.0.0.0:7100\n",
        ":1: 0.0.0.0:7100 is no address to connect to; write the address that the service listens on",
    );
    let many: String = (0..4100).map(|host| format!("10.0.{}.{}:7100\n", host / 256, host % 256)).collect();
    wrong(&many, ": endpoints: 4100; at most 4096 of a service are used");
    let bad: String = (0..10).map(|number| format!("x{number}\n")).collect();
    directory.file("chat.endpoints", &bad);
    let ended = run(&["check", &path]);
    assert!(ended.code == Some(1) && ended.out.is_empty(), "{ended:?}");
    assert!(
        ended.err.lines().count() == 9 && ended.err.ends_with("wrong lines beside these: 2\n"),
        "{ended:?}"
    );
    directory.file("chat.endpoints", "10.0.0.2:7100\n");
    assert!(done(&["check", &path]).contains("(1 now)"));
}

#[test]
fn what_is_left_out_is_said() {
    let directory = Directory::new("check-bare");
    let path = directory.file("gate.toml", BARE);
    let out = done(&["check", &path]);
    assert!(out.contains("operator  no pages\n"), "{out}");
    assert!(out.contains("keys      none: only anonymous sessions are let in\n"), "{out}");
}

#[test]
fn sockets_of_the_service_manager_are_called_so() {
    let directory = Directory::new("check-sockets");
    directory.file("access.secret", SECRET);
    let text = GOOD
        .replace("address = \"127.0.0.1:7000\"", "socket_name = \"clients\"")
        .replace("address = \"127.0.0.1:7001\"", "socket_name = \"operator\"");
    let path = directory.file("gate.toml", &text);
    let ended = ended(moorgate(&["check", &path]).env("MOORGATE_SECRET", SECRET));
    let expected = "  clients   socket clients of the service manager\n  operator  socket operator of the service manager\n";
    assert!(ended.code == Some(0) && ended.out.contains(expected), "{ended:?}");
}

#[test]
fn every_mistake_is_a_line() {
    let directory = Directory::new("check-bad");
    directory.file("access.secret", SECRET);
    let path = directory.file("gate.toml", &GOOD.replace("7001", "7000").replace("shards", "shard"));
    let message = format!(
        "{path}:4: admin.address: 127.0.0.1:7000 collides with 127.0.0.1:7000 of a listener; choose another port\n\
         {path}:6: gateway.shard: there is no such key here; there are: drain_timeout, id, reconnect_spread, shards, \
         workers\n\
         {path}:13: service.key_env: the environment has no variable MOORGATE_SECRET with a text; set it\n"
    );
    refused(&["check", &path], 1, &message);
    refused(&["serve", "-c", &path], 1, &message);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let directory = Directory::new("check-none");
    let path = directory.0.join("gate.toml").display().to_string();
    let message = format!("{path}: cannot be read: No such file or directory (os error 2)\n");
    refused(&["check", &path], 1, &message);
    refused(&["serve", "-c", &path], 1, &message);
    refused(&["serve", &format!("--config={path}")], 1, &message);
}

#[test]
fn the_sample_is_good_with_the_secrets_that_it_tells_to_make() {
    let directory = Directory::new("check-sample");
    let path = directory.file("moorgate.toml", include_str!("../../moorgate.toml"));
    assert_eq!(run(&["check", &path]).code, Some(1));
    directory.file("access.secret", SECRET);
    directory.file("echo.key", SECRET);
    assert!(done(&["check", &path]).starts_with(&format!("{path}: good\n")));
}

#[test]
fn what_serve_refuses_before_it_listens_check_refuses_too() {
    let directory = Directory::new("check-refuses");
    let both = |more: &str, message: &str| {
        let path = directory.file("gate.toml", &format!("{BARE}{more}"));
        refused(&["check", &path], 1, message);
        refused(&["serve", "-c", &path], 1, message);
    };
    let at = directory.0.display();
    both(
        "[log]\naccess = \"missing/access.log\"\n",
        &format!("moorgate: access log {at}/missing/access.log: No such file or directory (os error 2)\n"),
    );
    both("[log]\naccess = \".\"\n", &format!("moorgate: access log {at}/.: Is a directory (os error 21)\n"));
    let mut many = String::new();
    for number in 0..191 {
        many += &format!("[[service]]\nname = \"s{number}\"\nwithout_proofs = true\n[service.consul]\n");
        many += &format!("[[route]]\ncommands = {}\nservice = \"s{number}\"\n", 100 + number);
    }
    let message = "moorgate: 191 services are to be found in consul, and 190 can be: each holds a connection, and an \
                   agent takes 200; name the others in a file or in DNS\n";
    both(&many, message);
    // A check leaves no file.
    let path = directory.file("gate.toml", &format!("{BARE}[log]\naccess = \"access.log\"\n"));
    done(&["check", &path]);
    assert_eq!(std::fs::read_dir(&directory.0).unwrap().count(), 1);
}
