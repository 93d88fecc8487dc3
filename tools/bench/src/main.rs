//! `moorgate-bench`: loads a gateway, a bare server or a proxy, and checks every reply.
//!
//! | module | what it is for |
//! | --- | --- |
//! | `options` | the command line |
//! | `run` | `requests`, `idle` and `connect`: ramp, warm-up, window, end; figures of the watched processes |
//! | `crew` | the threads of a run |
//! | `plan` | what the threads are told, and what they tell |
//! | `engine` | one thread's event loop over its connections |
//! | `connection` | one connection: the protocol by the client kit's core, or raw frames; what a task is |
//! | `echo` | the task of a connection that asks, and compares the replies |
//! | `pattern` | payloads that name their request or push, and are compared whole |
//! | `push` | `push`: this process as the service that pushes, and as all receivers |
//! | `audience` | whom each push is for |
//! | `pusher` | the thread that pushes, and the reports of what it has pushed |
//! | `receiver` | the task of a connection that gets pushes |
//! | `ledger` | what one connection has got: lost, duplicated, reordered |
//! | `deliveries` | the figures of pushes |
//! | `resume`, `verdict` | `resume`: connections are cut while requests and pushes go on; what that has cost |
//! | `storm` | `storm`: all connections are cut at once, and come back |
//! | `fleet` | one thread's event loop over clients that are cut and come back |
//! | `roamer`, `books` | one such client; what it has asked and had, read from the wire |
//! | `cutting`, `dice` | how connections are cut, and when, from a seed |
//! | `streams` | the pushes to everyone, groups and users beside it |
//! | `backend` | the service behind it, which knows what it has run |
//! | `roaming` | what a thread has found of these clients |
//! | `bare_push`, `bare_control` | `bare-push`, and the tester's end of its control connection |
//! | `login` | `login`, and the task of a connection that logs in |
//! | `watch` | CPU time and memory of a process |
//! | `report` | the figures of requests, for people and as JSON |
//! | `schedule` | open loops: what is due, and what was not sent |
//! | `cut` | `cut`: a fault-injection proxy |
//! | `faults`, `pipe` | its faults, drawn from a seed; one direction of a connection through it |
//! | `servers` | `echo-service` and `bare-echo` |

mod audience;
mod backend;
mod bare_control;
mod bare_push;
mod books;
mod clock;
mod connection;
mod crew;
mod cut;
mod cutting;
mod deliveries;
mod dice;
mod echo;
mod engine;
mod faults;
mod fleet;
mod ledger;
mod login;
mod options;
mod pattern;
mod pipe;
mod plan;
mod push;
mod pusher;
mod receiver;
mod report;
mod resume;
mod roamer;
mod roaming;
mod run;
mod schedule;
mod servers;
mod storm;
mod streams;
mod verdict;
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
        Command::Push(options) => push::push(options),
        Command::Login(options) => login::login(options),
        Command::Resume(options) => resume::resume(options),
        Command::Storm(options) => storm::storm(options),
        Command::Cut(options) => cut::cut(options).map(|()| true),
        Command::EchoService(options) => servers::echo_service(options).map(|()| true),
        Command::BareEcho { listen } => servers::bare_echo(*listen).map(|()| true),
        Command::BarePush { listen, control } => bare_push::bare_push(*listen, *control).map(|()| true),
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
