//! `moorgate serve`.

use super::{Failure, address, complain, failed, help, print, usage};
use lexopt::Arg;
use moorgate::base::clock::Clock;
use moorgate::config::{self, Settings};
use moorgate::control::{Inherited, Reports, SignalRequest, Signals};
use moorgate::gateway::Gateway;
use moorgate::reactor::{ListenAt, ListenerSettings, descriptors, raise_descriptors};
use moorgate::telemetry::{flush_diagnostics, init_diagnostics, within};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// For output at the start and at the end: its pipe may have no reader.
const PRINT_TIMEOUT: Duration = Duration::from_secs(2);
/// For the last lines when a second signal ends the process.
const END_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Options {
    config: Option<PathBuf>,
    dev: bool,
    listen: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    bench: Option<SocketAddr>,
}

pub(super) fn run(words: lexopt::Parser) -> Result<(), Failure> {
    let result = run_in_time(words);
    // The caller prints the failure, behind these lines.
    flush_diagnostics(PRINT_TIMEOUT);
    result.map_err(|failure| Failure::Serve(Box::new(failure)))
}

fn run_in_time(mut words: lexopt::Parser) -> Result<(), Failure> {
    let mut options = Options::default();
    while let Some(word) = words.next()? {
        match word {
            Arg::Short('h') | Arg::Long("help") => {
                return print(help::SERVE);
            }
            Arg::Short('c') | Arg::Long("config") => options.config = Some(words.value()?.into()),
            Arg::Long("dev") => options.dev = true,
            Arg::Long("listen") => options.listen = Some(address(&mut words, "--listen")?),
            Arg::Long("admin-listen") => options.admin = Some(address(&mut words, "--admin-listen")?),
            Arg::Long("bench-listen") => options.bench = Some(address(&mut words, "--bench-listen")?),
            other => return Err(other.unexpected().into()),
        }
    }
    // Before any thread, and before any other descriptor.
    let inherited = Inherited::take(&environment).map_err(failed)?;
    // Before anything that may take its time: from here on no signal ends the process without a word.
    let signals = Signals::start(end_at_once).map_err(failed)?;
    let process = Process { inherited, signals };
    match (&options.config, options.dev) {
        (Some(_), true) => usage("--dev needs no file: leave -c or --dev out"),
        (_, false) if options.bench.is_some() => {
            usage("--bench-listen is for --dev; a configuration file lists the load tester as a service")
        }
        (None, false) => usage("say what to serve: -c FILE, or --dev to try it out without one"),
        (Some(path), false) => {
            let mut settings = config::load(path).map_err(|error| Failure::Failed(error.to_string()))?;
            if let Some(address) = options.listen {
                let accept =
                    settings.reactor.listeners.first().map(|listener| listener.accept).unwrap_or_default();
                settings.reactor.listeners =
                    vec![ListenerSettings { at: ListenAt::Address(address), accept, heartbeat: None }];
            }
            settings.admin = options.admin.map(ListenAt::Address).or(settings.admin);
            serve(settings, process, |_| {})
        }
        (None, true) => serve_dev(&options, process),
    }
}

/// What the process is given by the system, taken before everything else.
struct Process {
    inherited: Inherited,
    signals: Signals,
}

/// Ends the process, whatever blocks the other threads.
fn end_at_once() {
    flush_diagnostics(END_TIMEOUT);
    let _ = within(END_TIMEOUT, || complain("moorgate: ended by a second signal"));
    std::process::exit(1);
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(feature = "dev")]
fn serve_dev(options: &Options, process: Process) -> Result<(), Failure> {
    use moorgate_demo::{accounts, chat, echo, token};
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let echo = echo::listen(any_port).map_err(failed)?;
    let accounts = accounts::listen(any_port, None).map_err(failed)?;
    let chat = chat::listen(any_port, None).map_err(failed)?;
    let bench = options.bench.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 7003)));
    let bench = Reserved::new(bench).map_err(|error| Failure::Failed(format!("{bench}: {error}")))?;
    let settings = config::dev(&config::DevOptions {
        listen: options.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 7000))),
        admin: options.admin.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 7001))),
        services: config::DevServices {
            echo: echo.address(),
            accounts: accounts.address(),
            chat: chat.address(),
        },
        bench: bench.address,
        key_id: token::DEV_KEY_ID,
        secret: token::DEV_SECRET,
    })
    .map_err(failed)?;
    let mut services = Vec::new();
    for listening in [echo, accounts, chat] {
        services.push(listening.spawn().map_err(failed)?);
    }
    let result = serve(settings, process, |gateway| print_what_next(gateway, bench.address));
    services.iter().for_each(|service| service.stop());
    result
}

#[cfg(not(feature = "dev"))]
fn serve_dev(_options: &Options, _process: Process) -> Result<(), Failure> {
    Err(Failure::Failed("moorgate: this binary was built without the feature `dev`".to_owned()))
}

/// The address on which the load tester is to listen as a service. A port that the system has chosen is bound for as long
/// as this lives, and not listened on: the tester can bind it too, and the system gives it to no other program.
#[cfg(feature = "dev")]
struct Reserved {
    address: SocketAddr,
    _socket: Option<socket2::Socket>,
}

#[cfg(feature = "dev")]
impl Reserved {
    fn new(address: SocketAddr) -> std::io::Result<Reserved> {
        use socket2::{Domain, Protocol, Socket, Type};
        // Beyond loopback it is refused soon.
        if address.port() != 0 || !address.ip().is_loopback() {
            return Ok(Reserved { address, _socket: None });
        }
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        let chosen = socket.local_addr()?.as_socket();
        Ok(Reserved { address: chosen.unwrap_or(address), _socket: Some(socket) })
    }
}

#[cfg(feature = "dev")]
fn print_what_next(gateway: &Gateway, bench: SocketAddr) {
    let Some(client) = gateway.client_addresses().first() else { return };
    let admin = gateway.admin_address().map(|address| address.to_string()).unwrap_or_default();
    // The tester listens on port 7003 by itself.
    let service = if bench.port() == 7003 { String::new() } else { format!(" --service-listen {bench}") };
    say(format!(
        "moorgate --dev: for trying out, on this machine only\n\
         \n\
         clients    {client}\n\
         services   echo       0x0001-0x00ff   answers what it is sent\n\
         \x20          accounts   0x0200-0x0202   register, log in, log out; in memory\n\
         \x20          chat       0x0210-0x0214   send to users and groups, join, leave, who is there\n\
         \x20          bench      0x0100-0x01ff   the load tester, while it listens on {bench}\n\
         operator   http://{admin}/readyz  /livez  /metrics\n\
         access     anonymous sessions, users who register, and tokens of the development secret\n\
         limits     no rates, no bans, no bound of connections per client address\n\
         \n\
         From another terminal:\n\
         \x20 cargo run --release -p moorgate-client --example echo -- {client}\n\
         \x20 cargo run --release -p moorgate-bench -- requests --target {client} --connections 64 --duration 5s\n\
         \x20 cargo run --release -p moorgate-bench -- push --target {client}{service} --connections 100\n\
         \x20 cargo run --release -- token issue --dev --user alice\n\
         \x20 curl http://{admin}/metrics\n\
         \n\
         Ctrl-C drains and ends; twice ends at once.\n"
    ));
}

fn serve(settings: Settings, process: Process, started: impl FnOnce(&Gateway)) -> Result<(), Failure> {
    let Process { inherited, signals } = process;
    init_diagnostics(settings.log_level);
    let raised = raise_descriptors();
    let asked = settings.clone();
    let (delay, timeout) = (settings.reactor.drain_delay, settings.reactor.drain_timeout);
    let gateway = Gateway::start_with(settings, inherited).map_err(failed)?;
    match raised {
        Ok((before, now)) if before < now => log::info!("limit of descriptors raised from {before} to {now}"),
        Ok(_) => {}
        Err(error) => log::warn!("the limit of descriptors cannot be raised to the hard one: {error}"),
    }
    for warning in asked.all_warnings(descriptors().map(|(limit, _)| limit), gateway.admin_address()) {
        log::warn!("{warning}");
    }
    if asked.authority.keys.ids().next().is_none() {
        log::warn!("there is no key for access tokens: only anonymous sessions are let in");
    }
    for address in gateway.client_addresses() {
        log::info!("clients connect to {address}");
    }
    if let Some(address) = gateway.admin_address() {
        log::info!("operator's pages on http://{address}");
    }
    started(&gateway);
    // Without a service manager the gateway runs all the same.
    let reports = Reports::start(&environment, gateway.vitals());
    let reports = reports.inspect_err(|error| log::error!("{error}")).unwrap_or_default();
    while signals.next() == SignalRequest::ReopenLogs {
        gateway.reopen_logs();
    }
    log::info!("draining; a second signal ends at once");
    reports.drain(delay.saturating_add(timeout));
    gateway.withdraw();
    serve_on(&gateway, &signals, delay);
    gateway.drain();
    let summary = gateway.join();
    reports.end();
    flush_diagnostics(PRINT_TIMEOUT);
    say(format!("{summary}\n"));
    Ok(())
}

/// Serves for this long before the drain: balancers that ask `/readyz` learn of it meanwhile.
fn serve_on(gateway: &Gateway, signals: &Signals, delay: Duration) {
    let clock = Clock::start();
    let until = clock.read().mono + delay;
    loop {
        let left = until.since(clock.read().mono);
        if left.is_zero() {
            return;
        }
        if signals.next_within(left) == Some(SignalRequest::ReopenLogs) {
            gateway.reopen_logs();
        }
    }
}

/// Prints. Without a reader a gateway neither fails nor waits.
fn say(text: String) {
    let _ = within(PRINT_TIMEOUT, move || print(&text));
}
