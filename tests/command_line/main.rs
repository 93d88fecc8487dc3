//! The command line as people and service managers use it: the real binary, its words, its exit codes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod check;
mod explain;
mod governed;
#[path = "../loopback/mod.rs"]
mod loopback;
#[path = "../config/mutations.rs"]
mod mutations;
mod operator;
mod pages;
mod running;
mod serve;
mod token;
mod words;

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The binary, with an environment that does not change what it says.
fn moorgate(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moorgate"));
    command.args(words).stdin(Stdio::null()).env_remove("RUST_LOG").env_remove("MOORGATE_SECRET");
    command
}

/// How a command ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

fn ended(command: &mut Command) -> Ended {
    let output = command.output().unwrap();
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn run(words: &[&str]) -> Ended {
    ended(&mut moorgate(words))
}

/// It did what was asked, and complained of nothing; what it printed.
#[track_caller]
fn done(words: &[&str]) -> String {
    let ended = run(words);
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{words:?}");
    ended.out
}

/// It failed with this code, said this, and printed nothing else.
#[track_caller]
fn refused(words: &[&str], code: i32, message: &str) {
    let ended = run(words);
    assert_eq!((ended.code, ended.err.as_str()), (Some(code), message), "{words:?}");
    assert_eq!(ended.out, "", "{words:?}");
}

/// A directory of its own, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(test: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("moorgate-command-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    /// Writes a file; its path.
    fn file(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        // Not written in place: the rights that it had would stay.
        let _ = std::fs::remove_file(&path);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.write_all(content.as_bytes()).unwrap();
        path.display().to_string()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What is left in a directory for temporary files harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
