//! The kit's client of the chat.

use crate::app::{Asked, Request};
use crate::happening::{Bringer, Generation, Happening};
use moorgate_client::{Backoff, Client, ClientError, Options, Policy, RequestOptions, fresh_key};
use std::io;
use std::thread;
use std::time::Duration;

/// A person waits: no longer than this between two tries.
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(500), max: Duration::from_secs(10) };
/// What is sent and not answered for so long is looked at again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Who leaves waits so long for answers.
const FAREWELL: Duration = Duration::from_secs(1);

/// See the module's page.
pub(crate) struct Link {
    gateways: Vec<String>,
    /// This program while it runs: a session of it that the gateway still has makes room for its next.
    device_id: String,
    bringer: Bringer,
    client: Option<Client>,
    generation: Generation,
}

impl Link {
    pub(crate) fn new(gateways: Vec<String>, bringer: Bringer) -> Link {
        let device_id = fresh_key().iter().map(|byte| format!("{byte:02x}")).collect();
        Link { gateways, device_id, bringer, client: None, generation: Generation::default() }
    }

    /// A new client, in place of the one before.
    pub(crate) fn connect(&mut self) -> io::Result<()> {
        self.client = None;
        self.generation = Generation(self.generation.0 + 1);
        let options = Options {
            application: env!("CARGO_PKG_NAME").to_owned(),
            device_id: self.device_id.clone(),
            ..Options::default()
        };
        let (client, events) = Client::builder("")
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

    /// Says Bye.
    pub(crate) fn leave(&mut self) -> Result<(), ClientError> {
        self.client.take().map_or(Ok(()), |client| client.leave(FAREWELL))
    }
}
