//! `moorgate-demo`: the demo services as processes of their own, beside a real gateway.

use lexopt::{Arg, Parser, ValueExt};
use moorgate_demo::{accounts, chat, echo};
use moorgate_service::{LinkKey, Listening};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const USAGE: &str = "\
usage: moorgate-demo accounts|chat|echo --listen ADDRESS (--key-file FILE | --without-proofs)

Runs a demo service. Gateways must expect it by this name, and prove that they hold the key of the file (at least 16
bytes; white space at its end does not count). SIGTERM and Ctrl-C drain it.
";

/// What the command line asks for.
struct Options {
    service: Service,
    listen: SocketAddr,
    /// `None`: without proofs.
    key_file: Option<PathBuf>,
}

enum Service {
    Accounts,
    Chat,
    Echo,
}

/// `None`: help was asked for.
fn options() -> Result<Option<Options>, String> {
    let mut words = Parser::from_env();
    let (mut service, mut listen, mut key_file, mut without_proofs) = (None, None, None, false);
    let text = |error: lexopt::Error| error.to_string();
    while let Some(word) = words.next().map_err(text)? {
        match word {
            Arg::Long("help") | Arg::Short('h') => return Ok(None),
            Arg::Long("listen") => {
                listen = Some(words.value().and_then(|value| value.parse()).map_err(text)?);
            }
            Arg::Long("key-file") => key_file = Some(PathBuf::from(words.value().map_err(text)?)),
            Arg::Long("without-proofs") => without_proofs = true,
            Arg::Value(name) if service.is_none() => {
                service = Some(match name.to_str() {
                    Some("accounts") => Service::Accounts,
                    Some("chat") => Service::Chat,
                    Some("echo") => Service::Echo,
                    _ => return Err(format!("there is no service {}", name.display())),
                });
            }
            other => return Err(other.unexpected().to_string()),
        }
    }
    if key_file.is_some() == without_proofs {
        return Err("either --key-file or --without-proofs is needed".to_owned());
    }
    let service = service.ok_or("a service is needed: accounts, chat or echo")?;
    Ok(Some(Options { service, listen: listen.ok_or("--listen is needed")?, key_file }))
}

fn listen(options: &Options) -> Result<Listening, String> {
    let key = match &options.key_file {
        Some(path) => {
            let secret = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
            let key = LinkKey::new(secret.trim_ascii_end());
            Some(key.ok_or_else(|| format!("{}: a key has at least 16 bytes", path.display()))?)
        }
        None => None,
    };
    let address = options.listen;
    let listening = match options.service {
        Service::Accounts => accounts::listen(address, key),
        Service::Chat => chat::listen(address, key),
        Service::Echo => match key {
            Some(key) => echo::service().key(key),
            None => echo::service(),
        }
        .listen(address),
    };
    listening.map_err(|error| format!("{address}: {error}"))
}

fn serve(options: &Options) -> Result<(), String> {
    // Before the threads: none of them is to die of a signal.
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(|error| error.to_string())?;
    let listening = listen(options)?;
    // Nobody has to read it.
    let _ = writeln!(io::stdout(), "listens on {}", listening.address());
    let handle = listening.spawn().map_err(|error| error.to_string())?;
    signals.forever().next();
    handle.drain();
    if handle.join() { Ok(()) } else { Err("the service has failed".to_owned()) }
}

fn main() -> ExitCode {
    env_logger::Builder::new().filter_level(log::LevelFilter::Info).parse_default_env().init();
    let result = match options() {
        Ok(Some(options)) => serve(&options),
        Ok(None) => {
            let _ = io::stdout().write_all(USAGE.as_bytes());
            Ok(())
        }
        Err(error) => Err(format!("{error}\n{}", USAGE.lines().next().unwrap_or_default())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "moorgate-demo: {error}");
            ExitCode::FAILURE
        }
    }
}
