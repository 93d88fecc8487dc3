//! `moorgate check`.

use super::{Failure, help, print};
use lexopt::Arg;
use moorgate::config;
use std::fmt::Write;
use std::path::PathBuf;

pub(super) fn run(mut words: lexopt::Parser) -> Result<(), Failure> {
    let mut path: Option<PathBuf> = None;
    while let Some(word) = words.next()? {
        match word {
            Arg::Short('h') | Arg::Long("help") => {
                print(help::CHECK);
                return Ok(());
            }
            Arg::Value(value) if path.is_none() => path = Some(value.into()),
            other => return Err(other.unexpected().into()),
        }
    }
    let path = path.ok_or_else(|| Failure::Usage("say which file to check".to_owned()))?;
    let settings = config::load(&path).map_err(|error| Failure::Failed(error.to_string()))?;
    let (shards, workers) = settings.threads();
    let mut text = format!("{}: good\n  {shards} shards, {workers} workers\n", path.display());
    for listener in &settings.reactor.listeners {
        let _ = writeln!(text, "  clients on {} ({:?})", listener.address, listener.accept);
    }
    if let Some(address) = settings.admin {
        let _ = writeln!(text, "  operator on http://{address}");
    }
    for service in &settings.services {
        let proofs = if service.key.is_some() { "with proofs" } else { "WITHOUT PROOFS" };
        let _ = writeln!(text, "  service {}: {} endpoints, {proofs}", service.name, service.endpoints.len());
    }
    let _ = writeln!(text, "  {} routes", settings.routes.len());
    print(&text);
    Ok(())
}
