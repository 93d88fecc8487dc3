//! Keeps the house in order: reads the sources and fails, with file and line, on what the house rules forbid.
//!
//! | module | what it looks at |
//! | --- | --- |
//! | [`lexer`] | text to tokens: comments and strings cannot be mistaken for code |
//! | [`modules`] | the order of the layers, and cycles among modules |
//! | [`rules`] | what must not stand in a file |
//! | `planted` | faults planted in small texts, each of which must be found |

#![expect(clippy::indexing_slicing, reason = "a test: what panics has failed")]

mod lexer;
mod modules;
mod planted;
mod rules;

use lexer::Code;
use std::fmt;
use std::path::{Path, PathBuf};

/// A source file.
struct Source {
    /// From the top of the repository, with `/`.
    path: String,
    text: String,
    code: Code,
}

impl Source {
    fn new(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned(), code: lexer::code(text) }
    }
}

/// Something that the house does not want.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// Every finding of every rule that looks at Rust sources.
fn findings(sources: &[Source]) -> Vec<Finding> {
    let mut found = modules::findings(sources);
    for source in sources {
        found.extend(rules::findings(source));
    }
    found.sort();
    found.dedup();
    found
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// The files below a folder; none when it does not exist.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// The crates that stand beside the gateway.
fn tools() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(top().join("tools")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn sources() -> Vec<Source> {
    let mut crates = tools();
    crates.extend([top().to_owned(), top().join("proto")]);
    let folders = crates
        .iter()
        .flat_map(|at| ["src", "tests", "benches", "examples"].map(|folder| at.join(folder)))
        .flat_map(|folder| files(&folder));
    let rust = folders.filter(|path| path.extension().is_some_and(|end| end == "rs"));
    rust.filter_map(|path| {
        let name = path.strip_prefix(top()).ok()?.to_str()?.replace('\\', "/");
        Some(Source::new(&name, &read(&path)?))
    })
    .collect()
}

fn fail_on(found: &[Finding]) {
    let lines: Vec<String> = found.iter().map(Finding::to_string).collect();
    assert!(found.is_empty(), "the house is not tidy:\n{}", lines.join("\n"));
}

#[test]
fn sources_follow_the_rules_of_the_house() {
    let sources = sources();
    assert!(sources.iter().any(|source| source.path == "src/lib.rs"), "the sources are found");
    fail_on(&findings(&sources));
}

#[test]
fn the_map_in_lib_rs_is_the_order_in_force() {
    let text = read(&top().join("src/lib.rs")).unwrap();
    fail_on(&modules::map_findings(&Source::new("src/lib.rs", &text)));
}

#[test]
fn tools_do_not_depend_on_the_gateway() {
    for tool in tools() {
        let path = tool.join("Cargo.toml");
        if let Some(text) = read(&path) {
            fail_on(&rules::manifest_findings(&path.display().to_string(), &text));
        }
    }
}

#[test]
fn rules_of_the_specification_name_whom_they_bind() {
    let text = read(&top().join("protocol-spec.md")).unwrap();
    assert!(text.contains("\n- [F-1] ("), "the rules are found");
    fail_on(&rules::specification_findings(&text));
}

#[test]
fn the_readme_tests_as_the_checks_do() {
    let script = read(&top().join(".ci/run")).unwrap();
    if let Some(readme) = read(&top().join("README.md")) {
        fail_on(&rules::readme_findings(&readme, &script));
    }
}
