//! The kit's client of the chat.

use crate::app::{Asked, Request};
use crate::happening::{Generation, Happening};
use moorgate_client::{Backoff, Client, ClientError, Options, Policy, RequestOptions, fresh_key};
use std::io;
use std::sync::mpsc::Sender;
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
    happenings: Sender<Happening>,
    client: Option<Client>,
    generation: Generation,
}

impl Link {
    pub(crate) fn new(gateways: Vec<String>, happenings: Sender<Happening>) -> Link {
        let device_id = fresh_key().iter().map(|byte| format!("{byte:02x}")).collect();
        Link { gateways, device_id, happenings, client: None, generation: Generation::default() }
    }

    /// A new client, in place of the one before.
    pub(crate) fn connect(&mut self) -> io::Result<()> {
        self.client = None;
        self.generation = Generation(self.generation.0 + 1);
        let (happenings, generation) = (self.happenings.clone(), self.generation);
        let options = Options {
            application: env!("CARGO_PKG_NAME").to_owned(),
            device_id: self.device_id.clone(),
            ..Options::default()
        };
        let client = Client::builder("")
            .addresses(self.gateways.iter().cloned())
            .policy(Policy::Failover)
            .options(options)
            .backoff(BACKOFF)
            .request_timeout(REQUEST_TIMEOUT)
            // Nobody listens any more only at the end.
            .on_event(move |event| drop(happenings.send(Happening::Kit(generation, event))))
            .start()?;
        self.client = Some(client);
        Ok(())
    }

    /// Whether this comes from the client of now.
    pub(crate) fn is_current(&self, generation: Generation) -> bool {
        self.generation == generation
    }

    /// Asks; the answer is a happening.
    pub(crate) fn ask(&self, asked: Asked, request: &Request) {
        let Some(client) = &self.client else { return };
        let (happenings, generation) = (self.happenings.clone(), self.generation);
        let options =
            RequestOptions { idempotency_key: &request.key, ..RequestOptions::command(request.command) };
        let (then, of) = (happenings.clone(), asked.clone());
        let tell = move |result| drop(then.send(Happening::Answered(generation, of, result)));
        if let Err(error) = client.start_with(&options, &request.payload, tell) {
            let _ = happenings.send(Happening::Answered(generation, asked, Err(error)));
        }
    }

    /// Says Bye.
    pub(crate) fn leave(&mut self) -> Result<(), ClientError> {
        self.client.take().map_or(Ok(()), |client| client.leave(FAREWELL))
    }
}
