//! The kit's client of the chat.

use crate::app::{Asked, Request};
use crate::happening::{Bringer, Generation, Happening};
use moorgate_client::{Backoff, Client, ClientError, FileStore, Options, Policy, RequestOptions, fresh_key};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// A person waits: no longer than this between two tries.
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(500), max: Duration::from_secs(10) };
/// What is sent and not answered for so long is looked at again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Who leaves waits so long for answers.
const FAREWELL: Duration = Duration::from_secs(1);
/// A chat with a state may come again so much later, if the gateway has that much patience.
const KEEP_FOR: Duration = Duration::from_secs(24 * 3600);
/// More is read of no file that should have a device's id.
const DEVICE_ID_BYTES_MAX: u64 = 256;

/// See the module's page.
pub(crate) struct Link {
    gateways: Vec<String>,
    /// Where the session is written down.
    state: Option<PathBuf>,
    /// This program while it runs, or as long as its state is there: a session of it that the gateway still has makes
    /// room for its next.
    device_id: String,
    bringer: Bringer,
    client: Option<Client>,
    generation: Generation,
}

impl Link {
    /// # Errors
    /// The device's name cannot be read or written beside the state.
    pub(crate) fn new(gateways: Vec<String>, state: Option<PathBuf>, bringer: Bringer) -> io::Result<Link> {
        let device_id = match &state {
            Some(state) => kept_device_id(state)?,
            None => fresh_device_id(),
        };
        Ok(Link { gateways, state, device_id, bringer, client: None, generation: Generation::default() })
    }

    /// Where it connects, for people.
    pub(crate) fn addresses(&self) -> String {
        self.gateways.join(", ")
    }

    /// A new client, in place of the one before.
    pub(crate) fn connect(&mut self) -> io::Result<()> {
        match self.client.take() {
            // The next one must not find the session of this one, so that is ended first.
            Some(client) if self.state.is_some() => drop(client.leave(Duration::ZERO)),
            client => drop(client),
        }
        self.generation = Generation(self.generation.0 + 1);
        let options = Options {
            application: env!("CARGO_PKG_NAME").to_owned(),
            device_id: self.device_id.clone(),
            ..Options::default()
        };
        let mut builder = Client::builder("");
        if let Some(state) = &self.state {
            builder = builder.store(FileStore::new(state));
        }
        let (client, events) = builder
            .addresses(self.gateways.iter().cloned())
            .policy(Policy::Failover)
            .options(options)
            .backoff(BACKOFF)
            .request_timeout(REQUEST_TIMEOUT)
            .start_with_events()?;
        self.client = Some(client);
        let (bringer, generation) = (self.bringer.clone(), self.generation);
        thread::Builder::new().name("events".to_owned()).spawn(move || {
            for event in events {
                if !bringer.bring(Happening::Kit(generation, event)) {
                    return;
                }
            }
        })?;
        Ok(())
    }

    /// Whether this comes from the client of now.
    pub(crate) fn is_current(&self, generation: Generation) -> bool {
        self.generation == generation
    }

    /// Asks; the answer is a happening.
    pub(crate) fn ask(&self, asked: Asked, request: &Request) {
        let Some(client) = &self.client else { return };
        let options =
            RequestOptions { idempotency_key: &request.key, ..RequestOptions::command(request.command) };
        let (bringer, generation, of) = (self.bringer.clone(), self.generation, asked.clone());
        let tell = move |result| bringer.answer(generation, of, result);
        if let Err(error) = client.start_with(&options, &request.payload, tell) {
            self.bringer.answer(generation, asked, Err(error));
        }
    }

    /// Says Bye; with a state the session waits for the next start.
    pub(crate) fn leave(&mut self) -> Result<(), ClientError> {
        let keep_for = if self.state.is_some() { KEEP_FOR } else { Duration::ZERO };
        self.client.take().map_or(Ok(()), |client| client.leave_keeping(FAREWELL, keep_for))
    }
}

fn fresh_device_id() -> String {
    fresh_key().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The one in the file beside the state, or a fresh one that is written there.
fn kept_device_id(state: &Path) -> io::Result<String> {
    let mut name = state.as_os_str().to_owned();
    name.push(".device");
    // A pipe would block, and a device need not end.
    let is_regular = fs::metadata(&name).map_or(true, |metadata| metadata.is_file());
    if !is_regular {
        return Err(io::Error::other(format!("{} is no regular file", Path::new(&name).display())));
    }
    let mut kept = String::new();
    let read =
        fs::File::open(&name).and_then(|file| file.take(DEVICE_ID_BYTES_MAX).read_to_string(&mut kept));
    let kept = match read {
        Ok(_) => kept,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let fresh = fresh_device_id();
    if kept.len() == fresh.len() && kept.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(kept);
    }
    fs::write(&name, &fresh)?;
    Ok(fresh)
}
