//! `moorgate-bench`: loads a gateway, a bare server or a proxy, and checks every reply.
//!
//! | module | what it is for |
//! | --- | --- |
//! | `options` | the command line |
//! | `run` | one run: ramp, warm-up, window, end; figures of the watched processes |
//! | `engine` | one thread's event loop over its connections |
//! | `connection` | one connection: the protocol by the client kit's core, or raw frames |
//! | `pattern` | payloads that name their request, and are compared whole |
//! | `watch` | CPU time and memory of a process |
//! | `report` | the figures, for people and as JSON |
//! | `servers` | `echo-service` and `bare-echo` |

mod clock;
mod connection;
mod engine;
mod options;
mod pattern;
mod report;
mod run;
mod servers;
mod watch;

use clap::Parser;
use options::{Bench, Command};
use std::process::ExitCode;

fn main() -> ExitCode {
    let bench = Bench::parse();
    let result = match &bench.command {
        Command::Requests(options) => run::requests(options),
        Command::Idle(options) => run::idle(options),
        Command::Connect(options) => run::connect(options),
        Command::EchoService(options) => servers::echo_service(options).map(|()| true),
        Command::BareEcho { listen } => servers::bare_echo(*listen).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("moorgate-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
