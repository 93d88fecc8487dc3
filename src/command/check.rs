//! `moorgate check`.

use super::{Failure, help, print, usage};
use lexopt::Arg;
use moorgate::config::{self, Settings};
use moorgate::reactor::ListenAt;
use std::fmt::Write;
use std::path::{Path, PathBuf};

pub(super) fn run(mut words: lexopt::Parser) -> Result<(), Failure> {
    let mut path: Option<PathBuf> = None;
    while let Some(word) = words.next()? {
        match word {
            Arg::Short('h') | Arg::Long("help") => {
                return print(help::CHECK);
            }
            Arg::Value(value) if path.is_none() => path = Some(value.into()),
            other => return Err(other.unexpected().into()),
        }
    }
    let Some(path) = path else { return usage("say which file to check") };
    let settings = config::load(&path).map_err(|error| Failure::Failed(error.to_string()))?;
    print(&summary(&path, &settings))
}

/// What the file asks for.
fn summary(path: &Path, settings: &Settings) -> String {
    let mut text = format!("{}: good\n", path.display());
    // Writing to a text does not fail.
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<10}{value}");
    };
    for listener in &settings.reactor.listeners {
        line("clients", listener.at.to_string());
    }
    match &settings.admin {
        Some(ListenAt::Address(address)) => line("operator", format!("http://{address}")),
        Some(socket) => line("operator", socket.to_string()),
        None => line("operator", "no pages".to_owned()),
    }
    let keys: Vec<&str> = settings.authority.keys.ids().collect();
    match keys.as_slice() {
        [] => line("keys", "none: only anonymous sessions are let in".to_owned()),
        keys => line("keys", keys.join(", ")),
    }
    for service in &settings.services {
        let proofs = if service.key.is_some() { "with proofs" } else { "WITHOUT PROOFS" };
        let endpoints: Vec<String> = service.endpoints.iter().map(ToString::to_string).collect();
        line("service", format!("{} at {}, {proofs}", service.name, endpoints.join(", ")));
    }
    line("routes", settings.routes.len().to_string());
    let (shards, workers) = settings.threads();
    line("threads", format!("{}, {}", counted(shards, "shard"), counted(workers, "worker")));
    text
}

fn counted(count: u16, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
