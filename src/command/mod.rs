//! The command line.

mod check;
mod help;
mod serve;
mod token;

use lexopt::Arg;
use std::fmt::Display;

/// Why a command did not do what was asked.
pub(crate) enum Failure {
    /// The words of the command line are not understood.
    Usage(String),
    /// It was tried, and went wrong.
    Failed(String),
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Failure {
        Failure::Usage(error.to_string())
    }
}

/// Turns any error into a failure.
fn failed(error: impl Display) -> Failure {
    Failure::Failed(format!("moorgate: {error}"))
}

/// Runs the command that the words ask for.
pub(crate) fn run(mut words: lexopt::Parser) -> Result<(), Failure> {
    match words.next()? {
        None => Err(Failure::Usage("say what to do: serve, check or token".to_owned())),
        Some(Arg::Short('h') | Arg::Long("help")) => {
            print(help::MAIN);
            Ok(())
        }
        Some(Arg::Short('V') | Arg::Long("version")) => {
            print(&format!("moorgate {}\n", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
        Some(Arg::Value(command)) => match command.to_str() {
            Some("serve") => serve::run(words),
            Some("check") => check::run(words),
            Some("token") => token::run(words),
            _ => {
                let command = command.to_string_lossy();
                Err(Failure::Usage(format!(
                    "there is no command `{command}`; there are serve, check and token"
                )))
            }
        },
        Some(other) => Err(other.unexpected().into()),
    }
}

/// Prints to standard output; a reader that has gone is no error.
fn print(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
}
