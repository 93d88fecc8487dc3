//! Files that others look after: credentials, and the access log.

use crate::unit::{SECRET, Site, client, echo, echo_service};
use std::fs::OpenOptions;
use std::process::Command;

const LISTENER: &str = "[[listener]]\naddress = \"127.0.0.1:0\"";

#[test]
fn secrets_come_from_credentials_and_are_never_shown() {
    let service = echo_service();
    let site = Site::new(LISTENER, service.address());
    let mut unit = site.start(&[("RUST_LOG", "trace")]);
    // The service has proved itself with the same key.
    site.notice_with("STATUS=ready");
    echo(&mut client(unit.address()));
    unit.signal("TERM");
    let (code, log) = unit.ended();
    assert_eq!(code, Some(0));
    assert!(!log.contains(SECRET), "{log}");
    service.stop();
    assert!(service.join());
    let check = |directory: Option<&std::path::Path>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moorgate"));
        command.arg("check").arg(site.path().join("moorgate.toml")).env_remove("CREDENTIALS_DIRECTORY");
        directory.map(|path| command.env("CREDENTIALS_DIRECTORY", path));
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(check(Some(&site.path().join("credentials"))), (Some(0), String::new()));
    let (code, said) = check(Some(site.path()));
    assert_eq!(code, Some(1));
    assert!(said.contains("there is no credential of this name; there are: credentials, "), "{said}");
    assert!(check(None).1.contains("CREDENTIALS_DIRECTORY is not set; write LoadCredential="));
}

/// logrotate's `copytruncate`: what comes after begins at the start of the file, without a hole before it.
#[test]
fn an_access_log_that_is_truncated_goes_on_from_its_start() {
    let service = echo_service();
    let site = Site::new(&format!("{LISTENER}\n[log]\naccess = \"access.log\""), service.address());
    let path = site.path().join("access.log");
    let mut unit = site.start(&[]);
    site.notice_with("STATUS=ready");
    let mut client = client(unit.address());
    let log_of = |requests: usize| loop {
        let log = std::fs::read(&path).unwrap();
        if log.iter().filter(|byte| **byte == b'\n').count() == requests {
            return String::from_utf8(log).unwrap();
        }
        std::thread::yield_now();
    };
    for _ in 0..3 {
        echo(&mut client);
    }
    let before = log_of(3);
    OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    echo(&mut client);
    let after = log_of(1);
    assert!(before.contains(" seq=3 ") && after.starts_with("time=") && after.contains(" seq=4 "), "{after}");
    client.bye().unwrap();
    unit.signal("TERM");
    assert_eq!(unit.ended().0, Some(0));
    service.stop();
    assert!(service.join());
}
