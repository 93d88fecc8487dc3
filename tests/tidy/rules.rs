//! What must not stand in a file.

use crate::lexer::{Code, Kind, Token};
use crate::modules::{is_pure, mentions, module_of};
use crate::{Finding, Source};
use std::collections::BTreeSet;

const FILE_LINES_MAX: usize = 700;
/// Lines with code; clippy counts the same, but not within macros.
const FUNCTION_LINES_MAX: usize = 70;

/// Names that say nothing of what is inside.
const EMPTY_NAMES: [&str; 8] =
    ["util", "utils", "common", "manager", "managers", "helper", "helpers", "misc"];

/// Where `base` touches the world: the clock, and the bell of a thread that sleeps.
const IMPURE: [&str; 3] = ["src/base/clock.rs", "src/base/bell.rs", "src/base/mailbox.rs"];

/// Every finding of the rules that look at one file.
pub(crate) fn findings(source: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |line: usize, what: String| found.push(Finding { path: source.path.clone(), line, what });
    names(source, &mut add);
    purity(source, &mut add);
    sizes(source, &mut add);
    allowances(&source.code, &mut add);
    unfinished(&source.text, &mut add);
    sleeps(&source.code, &mut add);
    fixed_ports(source, &mut add);
    found
}

fn names(source: &Source, add: &mut impl FnMut(usize, String)) {
    let empty = |name: &str| EMPTY_NAMES.contains(&name);
    let stems = source.path.split('/').map(|part| part.trim_end_matches(".rs"));
    for name in stems.filter(|name| empty(name)) {
        add(1, format!("a file or folder called `{name}`: name what it is for"));
    }
    for pair in source.code.tokens.windows(2).filter(|pair| pair[0].is("mod") && empty(&pair[1].text)) {
        add(pair[1].line, format!("a module called `{}`: name what it is for", pair[1].text));
    }
}

fn purity(source: &Source, add: &mut impl FnMut(usize, String)) {
    let pure = module_of(&source.path).is_some_and(|path| path.first().is_some_and(|top| is_pure(top)));
    if !pure || IMPURE.contains(&source.path.as_str()) {
        return;
    }
    for mention in mentions(&source.code) {
        let path: Vec<&str> = mention.path.iter().map(String::as_str).collect();
        let worldly = match path.as_slice() {
            ["mio" | "rand" | "socket2" | "getrandom", ..] => true,
            ["std", "thread" | "fs" | "process", ..] | ["thread" | "fs", ..] => true,
            ["std", "net", item, ..] | [item, ..] if item.starts_with("Tcp") || item.starts_with("Udp") => {
                true
            }
            [.., "Instant" | "SystemTime", "now"] => true,
            path => path.contains(&"SystemRandom"),
        };
        if worldly {
            add(
                mention.line,
                format!("`{}` in a pure layer: it decides, others touch the world", path.join("::")),
            );
        }
    }
}

fn sizes(source: &Source, add: &mut impl FnMut(usize, String)) {
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX {
        add(lines, format!("a file of {lines} lines, above {FILE_LINES_MAX}: split it"));
    }
    let code = &source.code;
    for (at, pair) in code.tokens.windows(2).enumerate() {
        if !pair[0].is("fn") || pair[1].kind != Kind::Word {
            continue;
        }
        let Some(open) = body(code, at) else { continue };
        let inside = &code.tokens[open + 1..code.after_closing(open) - 1];
        let lines: BTreeSet<usize> = inside.iter().map(|token| token.line).collect();
        if lines.len() > FUNCTION_LINES_MAX {
            let (name, lines) = (&pair[1].text, lines.len());
            add(pair[1].line, format!("`{name}` has {lines} lines, above {FUNCTION_LINES_MAX}: split it"));
        }
    }
}

/// The brace that opens a function's body; `None`: it has none.
fn body(code: &Code, function: usize) -> Option<usize> {
    let mut at = function;
    while let Some(token) = code.tokens.get(at) {
        match token.text.as_str() {
            "(" | "[" if token.kind == Kind::Sign => at = code.after_closing(at),
            "{" if token.kind == Kind::Sign => return Some(at),
            ";" if token.kind == Kind::Sign => return None,
            _ => at += 1,
        }
    }
    None
}

fn allowances(code: &Code, add: &mut impl FnMut(usize, String)) {
    for (at, token) in code.tokens.iter().enumerate() {
        let attribute = at > 0 && (code.is(at - 1, "[") || code.is(at - 1, ","));
        if !(attribute && (token.is("allow") || token.is("expect")) && code.is(at + 1, "(")) {
            continue;
        }
        let inside = &code.tokens[at + 1..code.after_closing(at + 1)];
        let names = |name| inside.iter().any(|token: &Token| token.is(name));
        if names("clippy") && !names("reason") {
            add(token.line, format!("`{}` of a clippy lint without a reason", token.text));
        }
    }
}

fn unfinished(text: &str, add: &mut impl FnMut(usize, String)) {
    for (line, text) in (1..).zip(text.lines()) {
        let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
        if let Some(word) = words.find(|word| [concat!("TO", "DO"), concat!("FIX", "ME")].contains(word)) {
            add(line, format!("{word}: finish it, or say in the report that it is missing"));
        }
    }
}

/// Nothing sleeps for a while in the hope that something has happened then; a method of that name may wait for
/// an event.
fn sleeps(code: &Code, add: &mut impl FnMut(usize, String)) {
    for (at, token) in code.tokens.iter().enumerate() {
        let called = token.is("sleep") && code.is(at + 1, "(");
        let free = at == 0 || !(code.is(at - 1, ".") || code.is(at - 1, "fn"));
        if called && free {
            add(token.line, "a sleep: wait for the event, or poll with a timeout".to_owned());
        }
    }
}

/// Test code that opens sockets may name no port of this machine but 0. Addresses elsewhere are documentation, and
/// so are those in test code that opens none.
fn fixed_ports(source: &Source, add: &mut impl FnMut(usize, String)) {
    let all = source.path.split('/').any(|part| part == "tests" || part == "tests.rs");
    let tests: Vec<&Token> = source.code.tokens.iter().filter(|token| all || token.in_test).collect();
    let opens = |pair: &[&Token]| {
        ["TcpListener", "TcpStream", "UdpSocket"].iter().any(|name| pair[1].is(name))
            || (pair[0].is("::") || pair[0].is("."))
                && ["bind", "connect", "listen"].iter().any(|n| pair[1].is(n))
    };
    if !tests.windows(2).any(opens) {
        return;
    }
    for triple in tests.windows(3).filter(|triple| triple[2].kind == Kind::Text && is_fixed(&triple[2].text))
    {
        // What is replaced in a sample is not opened.
        if !(triple[0].is("replace") || triple[0].is("replacen")) {
            add(triple[2].line, format!("\"{}\": a fixed port in a test; bind port 0", triple[2].text));
        }
    }
    for group in tests.windows(12) {
        let signs: String = group.iter().map(|token| token.text.as_str()).collect();
        let loopback = ["([127,0,0,1],", "([0,0,0,0],"].iter().find_map(|start| signs.strip_prefix(start));
        if loopback.is_some_and(|port| port != "0") {
            add(group[11].line, format!("port {}: a fixed port in a test; bind port 0", group[11].text));
        }
    }
}

fn is_fixed(text: &str) -> bool {
    let here = ["127.0.0.1:", "0.0.0.0:", "[::1]:", "[::]:", "localhost:"];
    let Some(at) = here.iter().find_map(|host| Some(text.find(host)? + host.len())) else { return false };
    let port: String = text[at..].chars().take_while(char::is_ascii_digit).collect();
    port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// Findings about a tool's `Cargo.toml`.
pub(crate) fn manifest_findings(path: &str, text: &str) -> Vec<Finding> {
    let names_the_gateway = |line: &str| {
        let line: String = line.chars().filter(|c| !c.is_whitespace() && *c != '"').collect();
        ["moorgate=", "moorgate."].iter().any(|start| line.starts_with(start))
            || line.ends_with("dependencies.moorgate]")
            || line.contains("package=moorgate,")
            || line.contains("package=moorgate}")
    };
    let lines = (1..).zip(text.lines()).filter(|(_, line)| names_the_gateway(line));
    lines
        .map(|(line, _)| Finding {
            path: path.to_owned(),
            line,
            what: "a tool depends on the gateway: tools know the contract and the kits".to_owned(),
        })
        .collect()
}

/// Whom a rule of the specification binds: client, gateway, service.
const BOUND: [&str; 7] = ["C", "G", "S", "C, G", "C, S", "G, S", "C, G, S"];

/// Rules of the specification that do not name whom they bind.
pub(crate) fn specification_findings(text: &str) -> Vec<Finding> {
    let unmarked = |line: &str| {
        let (number, rule) = line.strip_prefix("- [")?.split_once("] ")?;
        let marks = rule.strip_prefix('(').and_then(|rule| rule.split_once(") "));
        (!marks.is_some_and(|(marks, _)| BOUND.contains(&marks))).then(|| number.to_owned())
    };
    let found = (1..).zip(text.lines()).filter_map(|(line, text)| Some((line, unmarked(text)?)));
    found
        .map(|(line, number)| Finding {
            path: "protocol-spec.md".to_owned(),
            line,
            what: format!(
                "[{number}] does not name whom it binds; expected behind the number one of: ({})",
                BOUND.join("), (")
            ),
        })
        .collect()
}

/// Findings about the command in the README that tests the project: it is one that the checks run, or the checks.
pub(crate) fn readme_findings(readme: &str, script: &str) -> Vec<Finding> {
    let at = |line, what: &str| Finding { path: "README.md".to_owned(), line, what: what.to_owned() };
    let commands: Vec<(usize, &str)> = (1..)
        .zip(
            readme
                .lines()
                .map(|line| line.split(" #").next().unwrap_or_default().trim().trim_start_matches("$ ")),
        )
        .filter(|(_, line)| line.starts_with("cargo test") || line.ends_with(".ci/run"))
        .collect();
    if commands.is_empty() {
        return vec![at(1, "no command that tests the project")];
    }
    let runs = |command: &str| script.lines().any(|line| line.trim_end().ends_with(command));
    let unknown = commands.iter().filter(|(_, command)| !command.ends_with(".ci/run") && !runs(command));
    unknown.map(|(line, _)| at(*line, "a test command that .ci/run does not run")).collect()
}
