//! The command line.

mod ask;
mod check;
mod endpoint;
mod explain;
mod help;
mod logged;
mod operator;
mod serve;
mod token;

use lexopt::Arg;
use moorgate::base::text::shown;
use moorgate::telemetry::within;
use std::fmt::{self, Write as _};
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::time::Duration;

/// One line of an explanation, at the most.
const LINE_BYTES_MAX: usize = 2 * 1024;
/// For the last words of `serve`.
const COMPLAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a command did not do what was asked.
pub(crate) enum Failure {
    /// The words of the command line are not understood.
    Usage(String),
    /// The same, and the command whose help would help.
    UsageOf(&'static str, String),
    /// It was tried, and went wrong.
    Failed(String),
    /// The same of `serve`, which waits for no reader of its output.
    Serve(Box<Failure>),
}

impl Failure {
    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) | Failure::UsageOf(..) => 2,
            Failure::Failed(_) => 1,
            Failure::Serve(failure) => failure.exit_code(),
        }
    }

    /// Prints it to standard error.
    pub(crate) fn complain(self) {
        match self {
            Failure::Serve(failure) => {
                let _ = within(COMPLAIN_TIMEOUT, move || complain(&failure.to_string()));
            }
            failure => complain(&failure.to_string()),
        }
    }

    fn of(self, command: &'static str) -> Failure {
        match self {
            Failure::Usage(message) => Failure::UsageOf(command, message),
            Failure::Serve(failure) => Failure::Serve(Box::new(failure.of(command))),
            other => other,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(message) => write!(f, "moorgate: {message}\nTry `moorgate --help`."),
            Failure::UsageOf(command, message) => {
                write!(f, "moorgate {command}: {message}\nTry `moorgate {command} --help`.")
            }
            Failure::Failed(message) => f.write_str(message),
            Failure::Serve(failure) => failure.fmt(f),
        }
    }
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Failure {
        Failure::Usage(error.to_string())
    }
}

/// Turns any error into a failure.
fn failed(error: impl fmt::Display) -> Failure {
    Failure::Failed(format!("moorgate: {error}"))
}

fn usage<T>(message: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Usage(message.into()))
}

/// Runs the command that the words ask for.
pub(crate) fn run(mut words: lexopt::Parser) -> Result<(), Failure> {
    const COMMANDS: &str = "serve, check, token, operator and explain";
    match words.next()? {
        None => usage("say what to do: serve, check, token, operator or explain"),
        Some(Arg::Short('h') | Arg::Long("help")) => print(help::MAIN),
        Some(Arg::Short('V') | Arg::Long("version")) => {
            print(&format!("moorgate {}\n", env!("CARGO_PKG_VERSION")))
        }
        Some(Arg::Value(command)) => match command.to_str() {
            Some("serve") => serve::run(words).map_err(|failure| failure.of("serve")),
            Some("check") => check::run(words).map_err(|failure| failure.of("check")),
            Some("token") => token::run(words).map_err(|failure| failure.of("token")),
            Some("operator") => operator::run(words).map_err(|failure| failure.of("operator")),
            Some("explain") => explain::run(words).map_err(|failure| failure.of("explain")),
            Some("help") => print(help::MAIN),
            _ => {
                let command = command.to_string_lossy();
                usage(format!("there is no command `{command}`; there are {COMMANDS}"))
            }
        },
        Some(other) => Err(other.unexpected().into()),
    }
}

/// The address behind a flag.
fn address(words: &mut lexopt::Parser, flag: &str) -> Result<SocketAddr, Failure> {
    let text = words.value()?.to_string_lossy().into_owned();
    let wrong = format!("{flag}: `{text}` is no address; write an IP address and a port, as 127.0.0.1:7000");
    text.parse().map_err(|_| Failure::Usage(wrong))
}

/// A line of an explanation; names stand in a column of their own.
fn line(text: &mut String, name: &str, value: &str) {
    // Others wrote some of it. Writing to a text does not fail.
    let _ = writeln!(text, "  {name:<10} {}", shown(value, LINE_BYTES_MAX));
}

/// Prints to standard output; a reader that has gone is no error.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(failed(format!("standard output cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints a line to standard error; there is nobody left to tell when that fails.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
