//! Files as a whole: many mistakes at once, nothing in it, unreadable ones.

use crate::Directory;
use crate::mistakes::GOOD;
use moorgate::config::load;

/// Mistakes of every kind in one file: unknown keys, types, bounds, relations, secrets, routes.
const SEVERAL: &str = r#"[[listener]]
address = "nowhere"
[admin]
adress = "127.0.0.1:7001"
[[auth.key]]
id = "a"
secret_file = "missing.secret"
[session]
in_flight = 0
window = "many"
heartbeat = "soon"
[[route]]
commands = "0x0100-0x01ff"
service = "chat"
"#;

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_lines() {
    let directory = Directory::new("several");
    let lines = directory.parse(SEVERAL).unwrap_err().lines;
    let begins: Vec<String> =
        lines.iter().map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(": ")).collect();
    let expected = [
        "gate.toml:2: listener.address",
        "gate.toml:3: admin.address",
        "gate.toml:4: admin.adress",
        "gate.toml:7: auth.key.secret_file",
        "gate.toml:9: session.in_flight",
        "gate.toml:10: session.window",
        "gate.toml:11: session.heartbeat",
        "gate.toml:14: route.service",
        "gate.toml: no [[service]]",
    ];
    assert_eq!(begins, expected);
}

#[test]
fn an_empty_file_is_told_what_it_needs() {
    let lines = Directory::new("empty").parse("").unwrap_err().lines;
    let expected = [
        "gate.toml: no [[listener]]: clients cannot connect; write\n  [[listener]]\n  address = \"0.0.0.0:7000\"",
        "gate.toml: no [[route]]: no request reaches a service; write\n  [[route]]\n  commands = \"0x0100-0x01ff\"\n  \
         service = \"chat\"",
        "gate.toml: no [[service]]: there is nowhere to send requests to; write\n  [[service]]\n  name = \"chat\"\n  \
         endpoints = [\"10.0.0.1:7100\"]\n  key_file = \"chat.key\"",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let directory = Directory::new("unreadable");
    let told = |name: &str| {
        let path = directory.0.join(name);
        let lines = load(&path).unwrap_err().lines;
        assert_eq!(lines.len(), 1);
        lines[0].replace(&directory.0.display().to_string(), "DIR")
    };
    assert_eq!(told("gate.toml"), "DIR/gate.toml: cannot be read: No such file or directory (os error 2)");
    assert_eq!(told(""), "DIR/: cannot be read: it is a directory; write the path of a regular file");
    std::fs::write(directory.0.join("gate.toml"), [0xff, 0xfe, 0x00]).unwrap();
    assert_eq!(told("gate.toml"), "DIR/gate.toml: cannot be read: it is no text in UTF-8");
}

#[test]
fn secrets_are_found_beside_the_file_and_its_errors_name_it() {
    let directory = Directory::new("beside");
    let path = directory.0.join("gate.toml");
    std::fs::write(&path, GOOD).unwrap();
    assert_eq!(load(&path).unwrap().services.len(), 1);
    std::fs::write(&path, GOOD.replace("\"chat\"\n", "\"chat\"\nx = 1\n")).unwrap();
    let lines = load(&path).unwrap_err().lines;
    assert!(lines[0].starts_with(&format!("{}:10: service.x: ", path.display())), "{lines:?}");
}

#[test]
fn another_kind_of_file_is_not_told_line_by_line() {
    let lines = Directory::new("other").parse(&"# title\nSome prose.\n".repeat(50)).unwrap_err().lines;
    assert_eq!(lines.len(), 11, "{lines:#?}");
    assert!(lines[0].starts_with("gate.toml:2: this is no TOML "), "{lines:#?}");
    assert!(lines[10].ends_with(" more; is this the right file?"), "{lines:#?}");
}
