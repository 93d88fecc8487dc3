//! Words that are understood, and words that are not: exit code 2 and a hint to the help of what was meant.

use crate::{Ended, done, ended, moorgate, refused};

#[test]
fn the_version_is_the_packages() {
    let expected = format!("moorgate {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(done(&["--version"]), expected);
    assert_eq!(done(&["-V"]), expected);
}

/// What the help of each command has in it.
const FLAGS: [(&str, &[&str]); 5] = [
    (
        "explain",
        &[
            "--command",
            "--version",
            "--user",
            "--session",
            "--role",
            "--application",
            "--app-version",
            "--platform",
            "--device",
            "--address",
            "--admin",
            "--log",
            "--request",
            "xit code 1",
        ],
    ),
    ("serve", &["--config", "--dev", "--listen", "--admin-listen", "--bench-listen", "RUST_LOG", "SIGTERM"]),
    ("check", &["FILE", "exit code 1"]),
    (
        "operator",
        &[
            "kick",
            "revoke",
            "bans",
            "ban",
            "unban",
            "endpoints",
            "canary",
            "--user",
            "--session",
            "--message",
            "--token",
            "--address",
            "--for",
            "--admin",
        ],
    ),
    (
        "token",
        &[
            "issue",
            "inspect",
            "--user",
            "--role",
            "--device",
            "--ttl",
            "--key-id",
            "--issuer",
            "--audience",
            "--dev",
            "--secret-file",
            "--secret-env",
        ],
    ),
];

#[test]
fn help_names_every_command_and_every_command_has_its_own() {
    let main = done(&["--help"]);
    for word in [
        "serve --dev",
        "serve -c",
        "check",
        "token issue",
        "token inspect",
        "operator kick",
        "operator endpoints",
        "explain --command",
        "--version",
    ] {
        assert!(main.contains(word), "{word}");
    }
    assert_eq!(done(&["-h"]), main);
    assert_eq!(done(&["help"]), main);
    for (command, flags) in FLAGS {
        let help = done(&[command, "--help"]);
        assert!(help.starts_with(&format!("moorgate {command} - ")), "{help}");
        assert_eq!(done(&[command, "-h"]), help);
        for flag in flags {
            assert!(help.contains(flag), "{command} {flag}");
        }
        assert!(help.lines().chain(main.lines()).all(|line| line.len() <= 82), "{help}");
    }
    assert_eq!(done(&["token", "issue", "--help"]), done(&["token", "--help"]));
    assert_eq!(done(&["operator", "kick", "--help"]), done(&["operator", "--help"]));
}

#[test]
fn what_is_not_understood_is_told_with_exit_code_2() {
    let of_all = |message: &str| format!("moorgate: {message}\nTry `moorgate --help`.\n");
    refused(&[], 2, &of_all("say what to do: serve, check, token, operator or explain"));
    refused(
        &["srve"],
        2,
        &of_all("there is no command `srve`; there are serve, check, token, operator and explain"),
    );
    refused(&["--verbose"], 2, &of_all("invalid option '--verbose'"));
    refused(&[""], 2, &of_all("there is no command ``; there are serve, check, token, operator and explain"));
}

const BENCH_LISTEN: &str =
    "--bench-listen is for --dev; a configuration file lists the load tester as a service";

#[test]
fn what_a_command_does_not_understand_points_to_its_own_help() {
    let cases: &[(&[&str], &str)] = &[
        (&["serve"], "say what to serve: -c FILE, or --dev to try it out without one"),
        (
            &["serve", "--listen", "127.0.0.1:0"],
            "say what to serve: -c FILE, or --dev to try it out without one",
        ),
        (&["serve", "-c", "a.toml", "--bench-listen", "127.0.0.1:0"], BENCH_LISTEN),
        (&["serve", "-c", "a.toml", "--dev"], "--dev needs no file: leave -c or --dev out"),
        (&["serve", "-c"], "missing argument for option '-c'"),
        (&["serve", "--dev", "--listen"], "missing argument for option '--listen'"),
        (
            &["serve", "--dev", "--listen", "localhost:7000"],
            "--listen: `localhost:7000` is no address; write an IP address and a port, as 127.0.0.1:7000",
        ),
        (
            &["serve", "--dev", "--admin-listen", "7001"],
            "--admin-listen: `7001` is no address; write an IP address and a port, as 127.0.0.1:7000",
        ),
        (&["serve", "--dev", "now"], "unexpected argument \"now\""),
        (&["serve", "--deamon"], "invalid option '--deamon'"),
        (&["serve", "--dev=yes"], "unexpected argument for option '--dev': \"yes\""),
        (&["check"], "say which file to check"),
        (&["check", "a.toml", "b.toml"], "unexpected argument \"b.toml\""),
        (&["check", "-c", "a.toml"], "invalid option '-c'"),
        (&["token"], "say what to do with a token: issue or inspect"),
        (&["token", "make"], "there is no `token make`; there are issue and inspect"),
        (&["token", "--user", "alice"], "invalid option '--user'"),
        (&["operator"], "say what to do: there are kick, revoke, bans, ban, unban, endpoints and canary"),
        (
            &["operator", "kik"],
            "there is no `operator kik`; there are kick, revoke, bans, ban, unban, endpoints and canary",
        ),
        (&["operator", "--user", "alice"], "invalid option '--user'"),
        (&["operator", "kick", "--token", "t"], "invalid option '--token'"),
        (&["operator", "kick", "alice"], "unexpected argument \"alice\""),
        (&["operator", "endpoints", "chat"], "unexpected argument \"chat\""),
        (
            &["operator", "canary", "chat"],
            "write `moorgate operator canary SERVICE SHARE`, as `canary chat 5%`",
        ),
        (&["operator", "canary", "--service", "chat"], "invalid option '--service'"),
        (&["operator", "canary", "chat", "5%", "6%"], "unexpected argument \"6%\""),
        (&["explain"], "say which call: --command 0x0201, or --log FILE --request SESSION:SEQ"),
        (
            &["explain", "--user", "a"],
            "say which call: --command 0x0201, or --log FILE --request SESSION:SEQ",
        ),
        (&["explain", "0x0201"], "unexpected argument \"0x0201\""),
        (&["explain", "--colour", "red"], "invalid option '--colour'"),
        (&["explain", "--log", "a.log"], "say which request: --request SESSION:SEQ, as its line has them"),
        (&["explain", "--request", "7:7"], "say in which access log: --log FILE"),
        (
            &["explain", "--log", "a.log", "--request", "7:7"],
            "--request: `7:7` is no request; write SESSION:SEQ, 32 hexadecimal digits and a number",
        ),
        (
            &["explain", "--log", "a.log", "--user", "a"],
            "a line of the log needs no gateway: leave --log out, or the call and --admin",
        ),
        (&["operator", "kick", "--user"], "missing argument for option '--user'"),
        (
            &["operator", "bans", "--admin", "gate:7001"],
            "--admin: `gate:7001` is no address; write an IP address and a port, as 127.0.0.1:7000",
        ),
    ];
    for (words, message) in cases {
        let command = words[0];
        refused(words, 2, &format!("moorgate {command}: {message}\nTry `moorgate {command} --help`.\n"));
    }
}

#[test]
fn a_reader_that_has_gone_is_no_panic() {
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    for words in [&["--help"][..], &["token", "issue", "--dev", "--user", "alice"]] {
        let Ended { code, err, .. } = ended(moorgate(words).stdout(closed()));
        assert_eq!((code, err.as_str()), (Some(0), ""), "{words:?}");
    }
    let Ended { code, .. } = ended(moorgate(&["nonsense"]).stderr(closed()));
    assert_eq!(code, Some(2));
}

#[test]
#[cfg(target_os = "linux")]
fn an_output_that_cannot_be_written_is_a_failure() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let Ended { code, err, .. } =
        ended(moorgate(&["token", "issue", "--dev", "--user", "alice"]).stdout(full));
    assert_eq!(code, Some(1));
    assert!(err.starts_with("moorgate: standard output cannot be written: "), "{err}");
}
