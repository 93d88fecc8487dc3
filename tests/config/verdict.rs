//! `check` and `serve` have one verdict: what passes the check starts, and what does not, does not, with the same words.

use crate::mistakes::GOOD;
use crate::mutations::mutated;
use crate::{Directory, sample};
use moorgate::config::Settings;
use moorgate::gateway::Gateway;
use moorgate::reactor::ListenAt;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;

const CASES: u64 = 10_000;
const THREADS: u64 = 16;

/// Several of everything.
const SEVERAL: &str = r#"[[listener]]
address = "127.0.0.1:7000"
heartbeat = "10s"
[[listener]]
socket_name = "clients"
[admin]
address = "127.0.0.1:7001"
[log]
access = "access.log"
level = "error"
[[auth.key]]
id = "a"
secret_file = "access.secret"
[[auth.key]]
id = "b"
secret_env = "MOORGATE_ACCESS_SECRET"
[[service]]
name = "chat"
endpoints = ["127.0.0.1:7100", "127.0.0.2:7100 weight=7 zone=eu-1 tags=canary"]
key_file = "echo.key"
grants = ["push", "login"]
commands = "0x0100-0x01ff"
[service.canary]
tag = "canary"
share = "5%"
[[service]]
name = "echo"
endpoints_file = "echo.endpoints"
without_proofs = true
[service.dns]
srv = "_echo._tcp.internal"
[[service]]
name = "groups"
key_env = "MOORGATE_ECHO_KEY"
[service.consul]
name = "im-groups"
[[route]]
commands = "0x0100-0x01ff"
service = "chat"
roles = ["user"]
[[route]]
commands = 7
service = "echo"
anonymous = true
idempotent = true
hedge = true
[[route]]
commands = "8-9"
versions = "2-3"
service = "groups"
order = "session"
[dns]
servers = ["127.0.0.1:1"]
[consul]
address = "http://127.0.0.1:1"
"#;

/// Sockets are not part of the verdict: the same settings on free ports, with few threads, and nothing beyond loopback.
fn on_free_ports(mut settings: Settings) -> Settings {
    let free = || ListenAt::Address(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    settings.reactor.listeners.iter_mut().for_each(|listener| listener.at = free());
    settings.admin = settings.admin.map(|_| free());
    (settings.reactor.shards, settings.reactor.workers) = (1, 1);
    if settings.discovery.dns.servers.is_empty() {
        settings.discovery.dns.servers = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 1))];
    }
    // What the test itself needs is not written over.
    let is_ours = |path: &std::path::PathBuf| path.ends_with("endpoints.json") || !path.exists();
    settings.discovery.state_file = settings.discovery.state_file.filter(is_ours);
    settings
}

/// What became of some cases.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    /// By `check`, and so by `serve`.
    refused: usize,
    started: usize,
}

/// Judges one case; `known` has the settings that were started before.
fn judge(directory: &Directory, base: &str, seed: u64, known: &Mutex<BTreeSet<String>>) -> Tally {
    let text = mutated(base, seed);
    let Ok(settings) = directory.parse(&text) else { return Tally { refused: 1, ..Tally::default() } };
    let checked = Gateway::prepare(settings.clone()).map(|_| ()).map_err(|error| error.to_string());
    let settings = on_free_ports(settings);
    // Many mutants are the same: a gateway is started once for each.
    if !known.lock().unwrap().insert(format!("{settings:?}")) {
        return Tally::default();
    }
    let served = Gateway::start(settings).map(|gateway| {
        gateway.stop();
        gateway.join();
    });
    assert_eq!(served.map_err(|error| error.to_string()), checked, "seed {seed}:\n{text}");
    Tally { started: 1, refused: 0 }
}

#[test]
fn check_and_serve_agree_on_mutated_configurations() {
    let directory = Directory::new("verdict");
    let bases = [sample::whole(), GOOD.to_owned(), SEVERAL.to_owned()];
    for base in &bases {
        directory.parse(base).unwrap_or_else(|error| panic!("{error}\n{base}"));
    }
    let known = Mutex::new(BTreeSet::new());
    // A gateway takes its time to end, and no processor.
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let judge_some = |first: u64| {
            let (directory, bases, known) = (&directory, &bases, &known);
            let one =
                move |seed: u64| judge(directory, &bases[usize::try_from(seed % 3).unwrap()], seed, known);
            move || (first..CASES).step_by(usize::try_from(THREADS).unwrap()).map(one).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..THREADS).map(|first| scope.spawn(judge_some(first))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let sum = |of: fn(&Tally) -> usize| tallies.iter().map(of).sum::<usize>();
    let (refused, started) = (sum(|one| one.refused), sum(|one| one.started));
    assert_eq!(tallies.len() as u64, CASES);
    assert!(refused > 5000 && started > 500, "{refused} {started}");
}
