//! `moorgate check`.

use crate::loopback::nobody;
use crate::mutations::mutated;
use crate::running::Running;
use crate::{Directory, done, ended, moorgate, refused, run};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

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
[limits]
connections = 200
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
        ":1: 0.0.0.0:7100 is an unspecified address; write the address that the service listens on",
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
         {path}:6: gateway.shard: there is no such key here; there are: drain_delay, drain_timeout, id, reconnect_spread, shards, \
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

/// What standard error has beside lines of the log.
fn without_log(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with("[20")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn what_serve_refuses_before_it_listens_check_refuses_too() {
    let directory = Directory::new("check-refuses");
    let both = |more: &str, message: &str| {
        let path = directory.file("gate.toml", &format!("{BARE}{more}"));
        refused(&["check", &path], 1, message);
        let served = run(&["serve", "-c", &path]);
        assert_eq!((served.code, without_log(&served.err)), (Some(1), message.to_owned()));
    };
    let at = directory.0.display();
    let line = BARE.lines().count() + 2;
    both(
        "[log]\naccess = \"missing/access.log\"\n",
        &format!(
            "{at}/gate.toml:{line}: log.access: {at}/missing/access.log cannot be written: No such file or directory (os \
             error 2); make the directory {at}/missing, or write another path\n"
        ),
    );
    both(
        "[log]\naccess = \".\"\n",
        &format!(
            "{at}/gate.toml:{line}: log.access: {at}/. cannot be written: Is a directory (os error 21); write the path of a \
             file in it\n"
        ),
    );
    directory.file("notes", "dear diary");
    both(
        "[log]\naccess = \"notes\"\n",
        &format!(
            "{at}/gate.toml:{line}: log.access: {at}/notes cannot be written: it is no access log; write the path of one, or \
             of a file that is new or empty\n"
        ),
    );
    std::fs::remove_file(directory.0.join("notes")).unwrap();
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

/// An endpoint in a file, so that the lists are kept.
const FOUND: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\n[[service]]\nname = \"echo\"\nendpoints_file = \"echo.endpoints\"\n\
                     without_proofs = true\n[[route]]\ncommands = 7\nservice = \"echo\"\n";

#[test]
fn state_file_that_is_not_ours_is_refused_by_both_commands() {
    let directory = Directory::new("check-state");
    directory.file("echo.endpoints", "127.0.0.1:1\n");
    let (ours, diary) =
        (directory.file("ours.json", "{\"version\":1,\"lists\":[]}"), directory.file("diary", "dear diary"));
    let at = |name: &str| directory.0.join(name).display().to_string();
    std::os::unix::fs::symlink(&ours, at("link")).unwrap();
    std::os::unix::fs::symlink("/dev/null", at("device")).unwrap();
    let kinds = [
        ("/dev/null".to_owned(), "is no regular file"),
        (directory.0.display().to_string(), "is no regular file"),
        (at("link"), "is a symbolic link"),
        (at("device"), "is a symbolic link"),
    ];
    let replaced = "and would be replaced; name one that only this gateway writes, or \"off\"";
    let kinds = kinds.map(|(state, what)| (state.clone(), format!("{state} {what} {replaced}")));
    let damaged = |state: String| {
        let why = "it does not begin with `{\"version\":`: it is damaged or no state file, and would be replaced; if it is \
                   this gateway's, remove it (a start while a registry is down then lacks the endpoints that it lists; \
                   nothing else is in it), else name another path, or \"off\"";
        (state.clone(), format!("{state}:1: {why}"))
    };
    let missing = at("missing/state.json");
    let why = format!(
        "{missing} cannot be written, its directory {}: No such file or directory (os error 2); make it, or write another \
         path, or \"off\"",
        at("missing")
    );
    let more = [
        damaged(diary.clone()),
        damaged(directory.file("nuls", &"\0".repeat(64))),
        // The name that it has without the key.
        damaged(directory.file("endpoints.json", "[]")),
        (missing, why),
    ];
    let line = FOUND.lines().count() + 2;
    for (state, why) in kinds.into_iter().chain(more) {
        let key = format!("[discovery]\nstate_file = \"{state}\"\n");
        let (key, line) = match state.ends_with("/endpoints.json") {
            true => ("", String::new()),
            false => (key.as_str(), format!(":{line}")),
        };
        let path = directory.file("gate.toml", &format!("{FOUND}{key}"));
        let message = format!("{path}{line}: discovery.state_file: {why}\n");
        refused(&["check", &path], 1, &message);
        refused(&["serve", "-c", &path], 1, &message);
    }
    assert_eq!(std::fs::read_to_string(&diary).unwrap(), "dear diary");
    let path = directory.file("gate.toml", &format!("{FOUND}[discovery]\nstate_file = \"ours.json\"\n"));
    done(&["check", &path]);
    // What a process that was killed has left beside it, and what an editor makes of it.
    directory.file("ours.json.moorgate-new", "\0\0\0\0");
    directory.file("ours.json.new", "dear diary");
    directory.file("ours.json", "\u{feff}{\r\n  \"version\": 1,\r\n  \"lists\": []\r\n}\r\n");
    done(&["check", &path]);
    let mut gateway = Running::start(&["serve", "-c", &path]);
    gateway.err_until("clients connect to ");
    gateway.signal("-TERM");
    assert_eq!(gateway.ended().code, Some(0));
    assert_eq!(std::fs::read_to_string(at("ours.json.new")).unwrap(), "dear diary");
    assert!(!directory.0.join("ours.json.moorgate-new").exists());
    let unused = FOUND.replace("endpoints_file = \"echo.endpoints\"", "endpoints = [\"127.0.0.1:1\"]");
    done(&["check", &directory.file("gate.toml", &unused)]);
}

#[test]
fn what_may_be_a_mistake_is_a_warning_of_both_commands() {
    let directory = Directory::new("check-warnings");
    let secret = directory.file("access.secret", SECRET);
    let text = GOOD
        .replace("127.0.0.1:7000", "127.0.0.1:0")
        .replace("127.0.0.1:7001", "0.0.0.0:0")
        .replace("key_env = \"MOORGATE_SECRET\"", "without_proofs = true")
        .replace("connections = 200", "connections = 100000000");
    let path = directory.file("gate.toml", &text);
    let of_mode = |mode: u32| {
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(mode)).unwrap();
        done(&["check", &path])
    };
    for mode in [0o400, 0o600, 0o640] {
        assert!(!of_mode(mode).contains("access.secret"), "{mode:o}");
    }
    for mode in [0o644, 0o660, 0o666, 0o604] {
        let out = of_mode(mode);
        let expected = format!(
            "  warning   {path}:9: auth.key.secret_file: {secret} has mode {mode:04o}: others than its owner and group can use \
             it; chmod 0600 {secret}\n"
        );
        assert!(out.contains(&expected), "{out}");
        assert!(out.contains("  warning   admin.address: 0.0.0.0:0 is not on loopback: "), "{out}");
        assert!(
            out.contains(" and limits.connections allows 200000000 connections; raise the limit"),
            "{out}"
        );
    }
    let mut gateway = crate::running::Running::start(&["serve", "-c", &path]);
    gateway.err_until("limits.connections allows 200000000");
    gateway.addresses();
    gateway.signal("-TERM");
    let ended = gateway.ended();
    assert!(ended.err.contains("has mode 0604") && ended.err.contains(" is not on loopback: "), "{ended:?}");
}

#[test]
fn workers_that_cannot_run_are_a_warning() {
    let directory = Directory::new("check-workers");
    let with = |keys: &str| directory.file("gate.toml", &format!("[gateway]\n{keys}\n{BARE}"));
    for keys in ["shards = 4\nworkers = 4", "shards = 4\nworkers = 0", "workers = 1"] {
        let out = done(&["check", &with(keys)]);
        assert!(!out.contains("gateway.workers"), "{keys}: {out}");
    }
    // As many as no machine has cores.
    assert!(
        done(&["check", &with("workers = 1024")]).contains("  warning   gateway.workers: 1024 workers are ")
    );
    let path = with("shards = 1\nworkers = 4");
    let warning = "gateway.workers: 4 workers are more than the 1 of gateway.shards, and a worker needs a shard; 1 will \
                   run; ";
    let out = done(&["check", &path]);
    assert!(out.contains("  threads   1 shard, 1 worker\n") && out.contains(warning), "{out}");
    let mut gateway = Running::start(&["serve", "-c", &path]);
    gateway.err_until(warning);
    gateway.err_until("clients connect to ");
    gateway.signal("-TERM");
    assert_eq!(gateway.ended().code, Some(0));
}

#[test]
fn small_room_for_descriptors_is_a_warning() {
    let directory = Directory::new("check-descriptors");
    directory.file("echo.endpoints", "127.0.0.1:1\n");
    let path = directory.file("gate.toml", FOUND);
    let check = |limit: &str| {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            &format!("{limit} exec \"$0\" check \"$1\""),
            env!("CARGO_BIN_EXE_moorgate"),
            &path,
        ]);
        ended(&mut command).out
    };
    let hard = check("ulimit -n 256;");
    let expected = "  warning   limits.connections: this process may have 256 descriptors (RLIMIT_NOFILE), and a gateway usually has \
                    10000 connections; raise the limit: LimitNOFILE= in a unit, ulimit -n in a shell\n";
    assert!(hard.ends_with(expected), "{hard}");
    // Only the soft one is small, and `serve` raises it.
    assert_eq!(check("ulimit -S -n 256;"), check(""));
}

#[test]
fn files_without_an_end_are_no_configuration_and_no_secret() {
    let directory = Directory::new("check-devices");
    directory.file("access.secret", SECRET);
    let pipe = directory.0.join("pipe").display().to_string();
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let long = directory.file("long", &"#".repeat(9 * 1024 * 1024));
    for (path, why) in [
        ("/dev/zero", "it is a device; write the path of a regular file"),
        (&pipe, "it is a pipe; write the path of a regular file"),
        (&directory.0.display().to_string(), "it is a directory; write the path of a regular file"),
        (&long, "it has more than 8388608 bytes; is it the right file?"),
    ] {
        refused(&["check", path], 1, &format!("{path}: cannot be read: {why}\n"));
        refused(&["serve", "-c", path], 1, &format!("{path}: cannot be read: {why}\n"));
        let text = GOOD.replace("access.secret", path).replace("MOORGATE_SECRET", "PATH");
        let with_secret = directory.file("gate.toml", &text);
        let ended = run(&["check", &with_secret]);
        let why = why.replace("8388608", "65536");
        assert!(
            ended.err.contains(&format!("auth.key.secret_file: {path} cannot be read: {why}")),
            "{ended:?}"
        );
        let text = format!("{GOOD}[consul]\naddress = \"https://a\"\nca_file = \"{path}\"\n");
        let with_certificates = directory.file("gate.toml", &text);
        let ended = run(&["check", &with_certificates]);
        let why = why.replace("65536", "4194304");
        assert!(ended.err.contains(&format!("consul.ca_file: {path} cannot be read: {why}")), "{ended:?}");
    }
    let issue = run(&["token", "issue", "--user", "a", "--secret-file", "/dev/zero"]);
    assert_eq!(
        (issue.code, issue.err.as_str()),
        (Some(1), "moorgate: /dev/zero cannot be read: it is too long for a secret\n")
    );
}

#[test]
fn check_and_serve_have_one_verdict_on_mutated_files() {
    let directory = Directory::new("check-verdict");
    directory.file("access.secret", SECRET);
    let base = format!("{GOOD}[log]\naccess = \"access.log\"\n[links]\nheartbeat = \"5s\"\n")
        .replace("key_env = \"MOORGATE_SECRET\"", "key_file = \"access.secret\"")
        .replace("10.0.0.", "127.0.0.");
    let (mut good, mut bad) = (0, 0);
    for seed in 0..60 {
        let path = directory.file("gate.toml", &mutated(&base, seed));
        let check = run(&["check", &path]);
        // Where it listens is no part of the verdict.
        let serve = ["serve", "-c", &path, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        match check.code {
            Some(0) => {
                good += 1;
                Running::start(&serve).err_until("clients connect to ");
            }
            _ => {
                bad += 1;
                let served = run(&serve);
                assert_eq!((served.code, without_log(&served.err)), (check.code, check.err), "seed {seed}");
            }
        }
    }
    assert!(good > 2 && bad > 20, "{good} {bad}");
}

#[test]
fn a_listener_of_the_command_line_is_no_endpoint_either() {
    let directory = Directory::new("check-own");
    let at = nobody();
    let path = directory.file("gate.toml", &BARE.replace("127.0.0.1:7200", &at.to_string()));
    done(&["check", &path]);
    let served = run(&["serve", "-c", &path, "--listen", &at.to_string()]);
    let message = format!(
        "moorgate: service echo: its endpoint {at} is {at}, where this gateway itself listens; write the address of the \
         service\n"
    );
    assert_eq!((served.code, without_log(&served.err)), (Some(1), message));
    let text = BARE.replace("127.0.0.1:7200", &at.to_string()).replace("127.0.0.1:0", &at.to_string());
    let path = directory.file("gate.toml", &text);
    let message = format!(
        "{path}:5: service.endpoints: {at} is {at}, where this gateway itself listens; write the address of the service\n"
    );
    refused(&["check", &path], 1, &message);
    refused(&["serve", "-c", &path], 1, &message);
}
