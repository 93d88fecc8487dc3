//! What may block: the application's own answers, resolving names, connecting. Each runs on a thread of its own, so that
//! the session goes on meanwhile; the result goes to the client's thread.

use super::endpoints::{Last, order};
use super::shared::Shared;
use crate::session::{Attempt, TokenError, TokenNeed};
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

/// Gives the addresses to try, as `host:port`.
pub(super) type Resolver = Arc<dyn Fn() -> io::Result<Vec<String>> + Send + Sync>;
/// Gives the addresses of a name with a port.
pub(super) type Lookup = Arc<dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync>;
/// Gives an access token.
pub(super) type TokenSource = Arc<dyn Fn(TokenNeed) -> Result<String, TokenError> + Send + Sync>;

/// What an errand has brought.
#[derive(Debug)]
pub(super) enum Brought {
    Addresses(Result<Vec<String>, String>),
    Token(Result<String, TokenError>),
    Connection(Attempt, io::Result<TcpStream>),
}

/// Where errands bring their results.
#[derive(Clone)]
pub(super) struct Errands {
    shared: Arc<Shared>,
    results: Sender<Brought>,
    pub(super) lookup: Lookup,
}

impl Errands {
    pub(super) fn new(shared: Arc<Shared>, results: Sender<Brought>) -> Errands {
        Errands { shared, results, lookup: Arc::new(lookup) }
    }

    /// Runs this on a thread of its own. A panic in it, or no thread to be had, is what `failed` makes of it.
    fn run(
        &self,
        errand: impl FnOnce() -> Brought + Send + 'static,
        failed: impl Fn(&str) -> Brought + Send + 'static,
    ) {
        let here = self.clone();
        let no_thread = failed("no thread for it");
        let spawned = thread::Builder::new().name("moorgate-errand".to_owned()).spawn(move || {
            let brought = catch_unwind(AssertUnwindSafe(errand));
            here.bring(brought.unwrap_or_else(|_| failed("it panicked")));
        });
        if spawned.is_err() {
            self.bring(no_thread);
        }
    }

    fn bring(&self, brought: Brought) {
        // Nobody waits for it once the client has ended.
        let _ = self.results.send(brought);
        self.shared.wake();
    }

    pub(super) fn list(&self, resolver: &Resolver) {
        let resolver = Arc::clone(resolver);
        self.run(
            move || Brought::Addresses(resolver().map_err(|error| error.to_string())),
            |why| Brought::Addresses(Err(why.to_owned())),
        );
    }

    pub(super) fn fetch(&self, source: &TokenSource, need: TokenNeed) {
        let source = Arc::clone(source);
        self.run(
            move || Brought::Token(source(need)),
            |why| Brought::Token(Err(TokenError::Later(why.to_owned()))),
        );
    }

    /// Connects to an address of the name, beginning by what is known of the last one.
    pub(super) fn connect(&self, attempt: Attempt, (name, last): (String, Option<Last>), timeout: Duration) {
        let lookup = Arc::clone(&self.lookup);
        let endpoints = move || Ok(order(lookup(&name)?, last));
        self.run(
            move || Brought::Connection(attempt, endpoints().and_then(|found| connect(&found, timeout))),
            move |why| Brought::Connection(attempt, Err(io::Error::other(why.to_owned()))),
        );
    }
}

/// The system's answer.
pub(super) fn lookup(name: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(name.to_socket_addrs()?.collect())
}

/// Connects to the first of these that accepts.
fn connect(endpoints: &[SocketAddr], timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no such address");
    let each = timeout / u32::try_from(endpoints.len().max(1)).unwrap_or(u32::MAX);
    for endpoint in endpoints {
        match TcpStream::connect_timeout(endpoint, each) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
