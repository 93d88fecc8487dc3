//! `moorgate check`.

use super::{Failure, failed, help, print, usage};
use lexopt::Arg;
use moorgate::base::share::write_share;
use moorgate::config::{self, Settings};
use moorgate::control::discovery::{DnsQuery, ServiceSources, Settings as Discovery, read_endpoints};
use moorgate::gateway::Gateway;
use moorgate::reactor::{ListenAt, descriptors_max};
use moorgate::routing::Catalog;
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
    // As far as `serve` goes before it binds.
    let prepared = Gateway::prepare(settings).map_err(failed)?;
    let mut wrong = Vec::new();
    let text = summary(&path, prepared.settings(), &mut wrong);
    if wrong.is_empty() { print(&text) } else { Err(Failure::Failed(wrong.join("\n"))) }
}

/// What the file asks for; `wrong` gets what is wrong in the files of endpoints.
fn summary(path: &Path, settings: &Settings, wrong: &mut Vec<String>) -> String {
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
        let named = settings.discovery.services.iter().find(|sources| sources.name == service.name);
        let from = named.map(|named| sources(named, &settings.discovery, wrong)).unwrap_or_default();
        line("service", format!("{} at {}, {proofs}", service.name, from.join(", ")));
        if let Some(canary) = &service.pool.canary {
            let share = write_share(canary.share);
            line(
                "canary",
                format!("of {}: {share} of users, to endpoints with tag {}", service.name, canary.tag),
            );
        }
    }
    if settings.discovery.services.iter().any(ServiceSources::is_found) {
        let path = settings.discovery.state_file.as_ref().map(|path| path.display().to_string());
        line("lists", path.unwrap_or_else(|| "not kept for the next start".to_owned()));
    }
    if let Some(register) = &settings.register {
        let places = [(register.consul, "Consul"), (register.nacos, "Nacos")];
        let places: Vec<&str> = places.into_iter().filter(|(is, _)| *is).map(|(_, place)| place).collect();
        line(
            "register",
            format!("as {} at {}, in {}", register.name, register.address, places.join(" and ")),
        );
    }
    line("routes", settings.routes.len().to_string());
    let (shards, workers) = settings.threads();
    line("threads", format!("{}, {}", counted(shards, "shard"), counted(workers, "worker")));
    // `serve` raises the limit of descriptors first.
    let admin = match &settings.admin {
        Some(ListenAt::Address(address)) => Some(*address),
        Some(ListenAt::Inherited(_)) | None => None,
    };
    for warning in settings.all_warnings(Some(descriptors_max()), admin) {
        line("warning", warning);
    }
    text
}

/// Endpoints of the configuration that are shown.
const SHOWN_MAX: usize = 16;

/// Where the endpoints of a service come from.
fn sources(service: &ServiceSources, settings: &Discovery, wrong: &mut Vec<String>) -> Vec<String> {
    let mut sources: Vec<String> = service.fixed.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
    match service.fixed.len().saturating_sub(SHOWN_MAX) {
        0 => {}
        more => sources.push(format!("{more} more")),
    }
    if let Some(path) = &service.file {
        let now = in_file(path, wrong);
        sources.push(format!("those in {} ({now})", path.display()));
    }
    match &service.dns {
        Some(DnsQuery::Host { name, port }) => sources.push(format!("those of {name}:{port} in DNS")),
        Some(DnsQuery::Srv { name }) => sources.push(format!("those of {name} in DNS")),
        None => {}
    }
    if let Some(query) = &service.consul {
        let at = settings.consul.as_ref().map_or("", |consul| &consul.address);
        sources.push(format!("those of {} in Consul at {at}", query.name));
    }
    if let Some(query) = &service.nacos {
        let at = settings.nacos.as_ref().map_or_else(String::new, |nacos| nacos.servers.join(" and "));
        sources.push(format!("those of {} in Nacos at {at}", query.name));
    }
    sources
}

/// What a file has now. A line that is wrong is a mistake, though `serve` does without it; a file that is missing is none:
/// it may come later.
fn in_file(path: &Path, wrong: &mut Vec<String>) -> String {
    let list = match read_endpoints(path) {
        Ok(list) => list,
        Err(error) => return format!("no list now: {error}"),
    };
    wrong.extend_from_slice(list.rejected.reasons());
    match list.rejected.count().saturating_sub(list.rejected.reasons().len()) {
        0 => {}
        more => wrong.push(format!("{}: wrong lines beside these: {more}", path.display())),
    }
    let (count, max) = (list.endpoints.len(), Catalog::ENDPOINTS_MAX);
    if count > max {
        wrong.push(format!("{}: endpoints: {count}; at most {max} of a service are used", path.display()));
    }
    format!("{count} now")
}

fn counted(count: u16, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
