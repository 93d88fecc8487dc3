//! Faults planted in small texts: each must be found, and what is right must not.

use crate::{Finding, Source, findings, modules, rules};

fn found(files: &[(&str, &str)]) -> Vec<(String, usize)> {
    let sources: Vec<Source> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
    findings(&sources).into_iter().map(|finding| (finding.path, finding.line)).collect()
}

/// The lines of one file with findings.
fn lines(path: &str, text: &str) -> Vec<usize> {
    let others = [("src/base/mod.rs", ""), ("src/shard/mod.rs", ""), ("src/relay/mod.rs", "")];
    let mut files: Vec<_> = others.into_iter().filter(|(other, _)| *other != path).collect();
    files.push((path, text));
    found(&files).into_iter().filter(|(at, _)| at == path).map(|(_, line)| line).collect()
}

#[test]
fn a_use_that_goes_up() {
    assert_eq!(lines("src/relay/caller.rs", "use crate::base::X;\nuse crate::shard::Shard;\n"), [2]);
    assert_eq!(
        lines("src/relay/caller.rs", "fn f() {\n    crate::shard::g();\n}\n"),
        [2],
        "in the middle of code"
    );
    assert_eq!(lines("src/relay/caller.rs", "use crate::{\n    base::X,\n    shard::{A, B},\n};\n"), [3]);
    assert_eq!(lines("src/relay/caller.rs", "use super::super::shard;\n"), [1]);
    assert_eq!(
        lines("src/relay/mod.rs", "#[cfg(test)]\nmod tests {\n    use super::super::shard::A;\n}\n"),
        [3]
    );
    assert!(lines("src/shard/mod.rs", "use crate::relay::Caller;\n").is_empty(), "down is the way");
}

#[test]
fn a_use_within_a_layer_and_of_strangers() {
    let both = |one: &'static str, text| {
        found(&[(one, text), ("src/telemetry/mod.rs", ""), ("src/forward/mod.rs", "")])
    };
    assert_eq!(both("src/reactor/mod.rs", "use crate::telemetry::T;").len(), 1);
    assert_eq!(both("src/admin/mod.rs", "\nuse crate::telemetry::T;"), [("src/admin/mod.rs".to_owned(), 2)]);
    assert_eq!(both("src/shard/mod.rs", "use crate::forward::F;").len(), 1, "they never know each other");
    assert!(both("src/gateway.rs", "use crate::{forward::F, telemetry::T};").is_empty());
}

#[test]
fn a_module_without_a_layer() {
    assert_eq!(lines("src/attic/mod.rs", "\n"), [1]);
}

#[test]
fn comments_and_strings_are_no_code() {
    let text = "// use crate::shard::A;\n/* crate::shard /* b */ */\n/// [`crate::shard::A`]\nconst A: &str = \"crate::shard::A\";\nconst B: &str = r#\"\" crate::shard::A\"#;\nconst C: (char, &'static str) = ('\"', \"crate::shard::A\");\n";
    assert!(lines("src/relay/mod.rs", text).is_empty());
}

#[test]
fn a_cycle_among_sisters() {
    let cycle = [
        ("src/shard/mod.rs", "mod one;\nmod two;\npub use one::One;\n"),
        ("src/shard/one.rs", "use super::two::Two;\n"),
        ("src/shard/two.rs", "\nuse super::One;\n"),
    ];
    let (one, two) = (("src/shard/one.rs".to_owned(), 1), ("src/shard/two.rs".to_owned(), 2));
    assert_eq!(found(&cycle), [one, two], "also by a name that the parent exports again");
}

#[test]
fn a_parent_and_its_children_are_no_cycle() {
    let files = [
        ("src/shard/mod.rs", "mod one;\nuse one::One;\nstruct Shard(One);\n"),
        ("src/shard/one.rs", "use super::Shard;\npub(super) struct One;\n"),
    ];
    assert!(found(&files).is_empty());
}

#[test]
fn the_world_in_a_pure_layer() {
    let pure = |text| lines("src/shard/mod.rs", text);
    for text in [
        "use mio::Poll;",
        "use std::net::TcpStream;",
        "use std::net::{IpAddr, UdpSocket};",
        "fn f() { Instant::now(); }",
        "fn f() { std::time::SystemTime::now(); }",
        "fn f() { rand::random(); }",
        "use ring::rand::SystemRandom;",
        "use std::{fmt, thread};",
        "fn f() { std::fs::read(p); }",
    ] {
        assert_eq!(pure(text), [1], "{text}");
        assert!(lines("src/reactor/mod.rs", text).is_empty(), "{text}");
    }
    assert!(lines("src/base/clock.rs", "fn f() { Instant::now(); }").is_empty(), "the one place");
    assert!(pure("use std::net::SocketAddr;\nuse std::time::Duration;\n").is_empty());
}

#[test]
fn files_and_functions_that_are_too_long() {
    let file = |lines: usize| "//\n".repeat(lines);
    assert_eq!(lines("src/base/mod.rs", &file(701)), [701]);
    assert!(lines("src/base/mod.rs", &file(700)).is_empty());
    let function =
        |body: usize| format!("\nfn f(a: [u8; 2]) -> u8 {{\n{}\n// why\n}}\n", "g();\n".repeat(body));
    assert_eq!(lines("src/base/mod.rs", &function(71)), [2]);
    assert!(lines("src/base/mod.rs", &function(70)).is_empty());
}

#[test]
fn names_that_say_nothing() {
    assert_eq!(lines("src/base/util.rs", ""), [1]);
    assert_eq!(lines("tests/common/mod.rs", ""), [1]);
    assert_eq!(lines("src/base/mod.rs", "\nmod helper {}\n"), [2]);
}

#[test]
fn a_lint_allowed_without_a_reason() {
    assert_eq!(lines("src/base/mod.rs", "#[allow(clippy::panic)]\nfn f() {}\n"), [1]);
    assert_eq!(lines("src/base/mod.rs", "\n#![expect(missing_docs, clippy::all)]\n"), [2]);
    assert!(lines("src/base/mod.rs", "#[allow(clippy::panic, reason = \"why\")]\nfn f() {}\n").is_empty());
}

#[test]
fn what_is_left_for_later() {
    assert_eq!(lines("src/base/mod.rs", concat!("\n// TO", "DO: more\n")), [2]);
    assert_eq!(lines("src/base/mod.rs", concat!("// FIX", "ME\n")), [1]);
}

#[test]
fn sleeping_in_hope() {
    assert_eq!(lines("tests/gateway.rs", "fn f() {\n    std::thread::sleep(d);\n}\n"), [2]);
    assert_eq!(lines("tests/gateway.rs", "fn f() { sleep(d); }\n"), [1]);
    assert!(lines("src/reactor/mod.rs", "fn sleep(&self) { self.bell.sleep(idle); }\n").is_empty());
}

#[test]
fn ports_that_somebody_else_may_have() {
    let text = |address: &str| format!("fn f() {{\n    TcpListener::bind(\"{address}\");\n}}\n");
    assert_eq!(lines("tests/gateway.rs", &text("127.0.0.1:7000")), [2]);
    assert_eq!(lines("tests/gateway.rs", &text("[::1]:7000")), [2]);
    assert!(lines("tests/gateway.rs", &text("127.0.0.1:0")).is_empty());
    assert!(lines("src/main.rs", &text("127.0.0.1:7000")).is_empty(), "no test");
    let pair = "fn f() {\n    TcpStream::connect(([127, 0, 0, 1], 80));\n}\n";
    assert_eq!(lines("tests/gateway.rs", pair), [2]);
    let inside = format!("fn g() {{}}\n#[cfg(test)]\nmod tests {{\n{}}}\n", text("0.0.0.0:80"));
    assert_eq!(lines("src/reactor/mod.rs", &inside), [5]);
    let bytes = "fn f() { TcpStream::connect(at); g(&[0, 0, 0, 0], &[127, 0, 0, 1], 7); }\n";
    assert!(lines("tests/gateway.rs", bytes).is_empty(), "bytes, and no address");
    let sample = "fn f() { TcpStream::connect(sample.replace(\"127.0.0.1:7000\", &address)); }\n";
    assert!(lines("tests/gateway.rs", sample).is_empty(), "replaced before it is opened");
    assert!(
        lines("tests/parse.rs", "fn f() { parse(\"127.0.0.1:7000\"); }\n").is_empty(),
        "nothing is opened"
    );
}

#[test]
fn a_tool_that_knows_the_gateway() {
    let finds = |text| !rules::manifest_findings("tools/x/Cargo.toml", text).is_empty();
    assert!(finds("moorgate = { path = \"../..\" }"));
    assert!(finds("moorgate.workspace = true"));
    assert!(finds("[dev-dependencies.moorgate]"));
    assert!(finds("gateway = { path = \"../..\", package = \"moorgate\" }"));
    assert!(!finds("[package]\nname = \"moorgate-bench\"\n[dependencies]\nmoorgate-proto.workspace = true"));
}

#[test]
fn rule_that_binds_nobody() {
    let lines = |text| rules::specification_findings(text).iter().map(|f| f.line).collect::<Vec<_>>();
    assert!(lines("- [F-1] (C, G, S) Each frame MUST be one.\n  And (so) on.\n- a list\n").is_empty());
    assert_eq!(lines("text\n- [F-1] Each frame MUST be one.\n"), [2]);
    assert_eq!(lines("- [F-1] (X) Each frame MUST be one.\n- [F-2] (G, C) N MAY be 0.\n"), [1, 2]);
    assert_eq!(lines("- [F-1] (later) N MAY be 0.\n"), [1]);
}

#[test]
fn a_readme_with_a_command_of_its_own() {
    let script = "stage \"tests\" cargo test --workspace --locked\n";
    let lines = |text| rules::readme_findings(text, script).iter().map(|f| f.line).collect::<Vec<_>>();
    assert_eq!(lines("# M\n\n    cargo test --all\n"), [3]);
    assert_eq!(lines("# M\n"), [1], "none at all");
    assert!(lines("# M\n\n    cargo test --workspace --locked  # all\n").is_empty());
    assert!(lines("```\nbash .ci/run\n```\n").is_empty());
}

#[test]
fn a_map_that_tells_another_order() {
    let found = |table: &str, modules: &str| -> Vec<Finding> {
        modules::map_findings(&Source::new("src/lib.rs", &format!("{table}\n{modules}")))
    };
    let modules = "pub mod base;\npub mod shard;\n";
    assert!(found("//! | [`base`] | a |\n//! | [`shard`] | b |", modules).is_empty());
    assert_eq!(found("//! | [`shard`] | b |\n//! | [`base`] | a |", modules).len(), 1);
    assert_eq!(found("//! | [`base`] | a |", modules).len(), 1, "one is missing");
    assert_eq!(found("//! | [`base`] | |\n//! | [`gone`] | |\n//! | [`shard`] | |", modules)[0].line, 2);
}
