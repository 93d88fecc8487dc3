//! `moorgate token`.

use crate::{Directory, done, ended, moorgate, refused, run};
use moorgate::auth::{KeyRing, SigningKey};
use std::io::Write;
use std::process::Stdio;

const SECRET: &str = "correct-horse-battery-staple-and-some-more";

/// Issues a token with the secret of a file.
fn issued(directory: &Directory, more: &[&str]) -> String {
    let path = directory.file("access.secret", &format!("{SECRET}\r\n"));
    let mut words = vec!["token", "issue", "--user", "alice", "--secret-file", &path];
    words.extend(more);
    let out = done(&words);
    assert!(!out.contains(SECRET));
    out.strip_suffix('\n').unwrap().to_owned()
}

fn usage(words: &[&str], message: &str) {
    refused(words, 2, &format!("moorgate token: {message}\nTry `moorgate token --help`.\n"));
}

#[test]
fn a_token_says_what_was_asked_for_and_a_gateway_takes_it() {
    let directory = Directory::new("token-issue");
    let token = issued(
        &directory,
        &[
            "--role",
            "admin",
            "--role",
            "staff",
            "--device",
            "phone-1",
            "--ttl",
            "90s",
            "--issuer",
            "accounts",
            "--audience",
            "moorgate",
            "--key-id",
            "2026-01",
        ],
    );
    let key = SigningKey::new("2026-01", SECRET.as_bytes()).unwrap();
    let ring = KeyRing::new(vec![key], Some("accounts".into()), Some("moorgate".into()), 0).unwrap();
    let (header, claims) = moorgate::auth::unverified_parts(&token).unwrap();
    assert_eq!(header["kid"], "2026-01");
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 90);
    let claims = ring.verify(&token, claims["iat"].as_u64().unwrap()).unwrap();
    assert_eq!(claims.user_id, "alice");
    assert_eq!(claims.roles, ["admin", "staff"]);
    assert_eq!(claims.device.as_deref(), Some("phone-1"));
}

// spec
#[test]
fn issued_token_has_an_id_of_its_own() {
    let directory = Directory::new("token-id");
    let id = |()| {
        let (_, claims) = moorgate::auth::unverified_parts(&issued(&directory, &[])).unwrap();
        claims["jti"].as_str().unwrap().to_owned()
    };
    let ids = [(), ()].map(id);
    assert!(ids.iter().all(|id| id.len() == 32), "{ids:?}");
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn without_more_words_it_is_good_for_an_hour_under_the_default_key() {
    let directory = Directory::new("token-default");
    let (header, claims) = moorgate::auth::unverified_parts(&issued(&directory, &[])).unwrap();
    assert_eq!(header["kid"], "default");
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 3600);
}

#[test]
fn a_token_is_inspected_with_and_without_its_secret() {
    let directory = Directory::new("token-inspect");
    let token = issued(&directory, &[]);
    let path = directory.file("access.secret", SECRET);
    let other = directory.file("other.secret", "another-secret-that-is-just-as-long-as-it-must");
    let unchecked = done(&["token", "inspect", &token]);
    assert!(unchecked.contains("\"sub\":\"alice\""), "{unchecked}");
    assert!(unchecked.contains("\nexpires in "), "{unchecked}");
    assert!(unchecked.ends_with("not checked: no secret given\n"), "{unchecked}");
    let checked = done(&["token", "inspect", &token, "--secret-file", &path]);
    assert!(checked.ends_with("good: its signature holds, and its times are right\n"), "{checked}");
    let forged = run(&["token", "inspect", &token, "--secret-file", &other]);
    assert_eq!(forged.code, Some(1));
    assert_eq!(forged.err, "moorgate: the signature of the access token does not hold\n");
    for shown in [unchecked, checked, forged.out] {
        let signature = token.rsplit('.').next().unwrap();
        assert!(!shown.contains(SECRET) && !shown.contains(signature), "{shown}");
    }
}

#[test]
fn an_old_token_is_told_from_a_good_one() {
    let directory = Directory::new("token-old");
    let path = directory.file("access.secret", SECRET);
    let key = SigningKey::new("default", SECRET.as_bytes()).unwrap();
    let token = moorgate::auth::mint(&key, &serde_json::json!({"sub": "alice", "exp": 1_000_000_000}));
    let ended = run(&["token", "inspect", &token, "--secret-file", &path]);
    assert_eq!((ended.code, ended.err.as_str()), (Some(1), "moorgate: the access token has expired\n"));
    assert!(ended.out.contains("\nexpired ") && ended.out.ends_with(" ago\n"), "{}", ended.out);
}

#[test]
fn secrets_come_from_the_environment_and_tokens_from_standard_input() {
    let issue = ended(
        moorgate(&["token", "issue", "--user", "bob", "--secret-env", "MOORGATE_SECRET"])
            .env("MOORGATE_SECRET", SECRET),
    );
    assert_eq!(issue.code, Some(0), "{}", issue.err);
    let mut child = moorgate(&["token", "inspect", "-", "--secret-env", "MOORGATE_SECRET"])
        .env("MOORGATE_SECRET", SECRET)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(issue.out.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().contains("\"sub\":\"bob\""));
}

#[test]
fn the_development_secret_is_known_and_not_shown() {
    let out = done(&["token", "issue", "--dev", "--user", "alice"]);
    let token = out.trim_end();
    let shown = done(&["token", "inspect", token, "--dev"]);
    assert!(shown.contains("\"kid\":\"dev\"") && shown.contains("\ngood: "), "{shown}");
    assert!(!shown.contains("not-for-production") && !out.contains("not-for-production"));
}

#[test]
fn what_is_missing_or_too_much_is_told() {
    let which = "say with which secret: --dev, --secret-file or --secret-env";
    usage(&["token", "issue", "--dev"], "say for whom: --user ID");
    usage(&["token", "issue", "--user", "alice"], which);
    usage(&["token", "issue", "--user"], "missing argument for option '--user'");
    usage(&["token", "issue", "--dev", "--user", "alice", "extra"], "unexpected argument \"extra\"");
    usage(&["token", "issue", "--secret", SECRET], "invalid option '--secret'");
    let one = "one secret is enough: --dev, --secret-file or --secret-env";
    usage(&["token", "issue", "--user", "alice", "--dev", "--dev"], one);
    let time = "--ttl: `soon` is not a time; write for example 90s, 1h or 7days";
    usage(&["token", "issue", "--dev", "--user", "alice", "--ttl", "soon"], time);
    usage(&["token", "issue", "--dev", "--user", "alice", "--ttl", "10ms"], "--ttl: write 1s or more");
    for (option, max) in [
        ("--user", 128),
        ("--role", 64),
        ("--device", 64),
        ("--key-id", 64),
        ("--issuer", 1024),
        ("--audience", 1024),
    ] {
        for len in [0, max + 1] {
            let words = ["token", "issue", "--dev", "--user", "alice", option, &"x".repeat(len)];
            usage(&words, &format!("{option} has {len} bytes; write 1 to {max}"));
        }
    }
    usage(&["token", "inspect"], "say which token to look into, or - to read one");
    usage(&["token", "inspect", "a.b.c", "--user", "alice"], "invalid option '--user'");
    usage(&["token", "inspect", "a.b.c", "d.e.f"], "unexpected argument \"d.e.f\"");
}

#[test]
fn what_cannot_be_done_is_told() {
    let directory = Directory::new("token-fails");
    let short = directory.file("short.secret", "tooshort\n");
    let none = directory.0.join("none").display().to_string();
    let issue = |more: &[&str], message: &str| {
        let mut words = vec!["token", "issue", "--user", "alice"];
        words.extend(more);
        refused(&words, 1, &format!("moorgate: {message}\n"));
    };
    let message = "the secret of key `default` has 8 bytes; HS256 needs at least 32";
    issue(&["--secret-file", &short], message);
    issue(
        &["--secret-file", &none],
        &format!("{none} cannot be read: No such file or directory (os error 2)"),
    );
    let message = "the environment has no variable MOORGATE_SECRET with a text; set it";
    issue(&["--secret-env", "MOORGATE_SECRET"], message);
    refused(&["token", "inspect", "garbage"], 1, "moorgate: the access token is not a well-formed JWT\n");
}

#[test]
fn secret_that_fits_once_decoded_is_a_hint() {
    use base64::Engine;
    let directory = Directory::new("token-base64");
    let raw = directory.file("raw.secret", "the issuer's own bytes, which it keeps in base64");
    let signed = done(&["token", "issue", "--user", "alice", "--secret-file", &raw]);
    let token = signed.trim_end();
    let text = |engine: base64::engine::GeneralPurpose| engine.encode(std::fs::read(&raw).unwrap());
    for encoded in [
        text(base64::engine::general_purpose::STANDARD),
        text(base64::engine::general_purpose::URL_SAFE_NO_PAD),
    ] {
        let path = directory.file("encoded.secret", &format!("{encoded}\n"));
        let ended = run(&["token", "inspect", token, "--secret-file", &path]);
        assert_eq!(ended.code, Some(1));
        let hint =
            "the signature of the access token does not hold; it holds with what the secret is in base64: ";
        assert!(ended.err.contains(hint), "{ended:?}");
    }
    for other in [
        "another secret of at least thirty-two bytes",
        "YW5vdGhlciBzZWNyZXQgb2YgYXQgbGVhc3QgdGhpcnR5LXR3byBieXRlcw==",
    ] {
        let path = directory.file("other.secret", other);
        let ended = run(&["token", "inspect", token, "--secret-file", &path]);
        assert!(ended.code == Some(1) && !ended.err.contains("base64"), "{ended:?}");
    }
}
