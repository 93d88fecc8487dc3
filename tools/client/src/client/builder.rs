//! How a client is made.

use super::calls;
use super::driver::Driver;
use super::errand::{Lookup, Resolver, TokenSource, lookup};
use super::events::{Events, Inbox};
use super::shared::Shared;
use super::{Client, Handle};
use crate::ambient::random_u64;
use crate::core::Options;
use crate::session::{Backoff, ClientSession, Credentials, Event, Policy, Settings, TokenError, TokenNeed};
use crate::store::{Store, decode};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Where a client finds gateways.
pub(super) enum Addresses {
    List(Vec<String>),
    Asked(Resolver),
}

/// Where a client's access tokens come from.
enum Tokens {
    None,
    One(String),
    Asked(TokenSource),
}

/// Takes events, on the thread of callbacks.
pub(super) type OnEvent = Box<dyn FnMut(Event) + Send>;

/// Makes a [`Client`].
///
/// ```no_run
/// use moorgate_client::{Client, Event, Options};
/// let client = Client::builder("gateway.example:7000")
///     .options(Options { application: "chat".to_owned(), ..Options::default() })
///     .on_event(|event| println!("{event:?}"))
///     .start()?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Builder {
    settings: Settings,
    addresses: Addresses,
    tokens: Tokens,
    on_event: Option<OnEvent>,
    store: Option<Box<dyn Store>>,
    pub(super) lookup: Lookup,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Builder {
    pub(super) fn new(address: &str) -> Builder {
        Builder {
            settings: Settings::default(),
            addresses: Addresses::List(vec![address.to_owned()]),
            tokens: Tokens::None,
            on_event: None,
            store: None,
            lookup: Arc::new(lookup),
        }
    }

    /// The gateways, each as `host:port`, in place of the one before.
    #[must_use]
    pub fn addresses<A: Into<String>>(mut self, addresses: impl IntoIterator<Item = A>) -> Builder {
        self.addresses = Addresses::List(addresses.into_iter().map(Into::into).collect());
        self
    }

    /// What gives the gateways, each as `host:port`. It is called before each round of attempts, on a thread of its
    /// own, and may take its time. An error, or an empty list, leaves the last list in force.
    #[must_use]
    pub fn resolver(
        mut self,
        resolver: impl Fn() -> io::Result<Vec<String>> + Send + Sync + 'static,
    ) -> Builder {
        self.addresses = Addresses::Asked(Arc::new(resolver));
        self
    }

    /// In which order gateways are tried.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Builder {
        self.settings.policy = policy;
        self
    }

    /// An access token. Once it is refused the client ends.
    #[must_use]
    pub fn access_token(mut self, token: impl Into<String>) -> Builder {
        self.tokens = Tokens::One(token.into());
        self
    }

    /// What gives access tokens: before the first session, before the one in use expires, and after it was refused. It
    /// is called on a thread of its own, and may take its time, but must return: nobody else is asked meanwhile. An empty
    /// token opens an anonymous session.
    #[must_use]
    pub fn token_source(
        mut self,
        source: impl Fn(TokenNeed) -> Result<String, TokenError> + Send + Sync + 'static,
    ) -> Builder {
        self.tokens = Tokens::Asked(Arc::new(source));
        self
    }

    /// What the client says of itself.
    #[must_use]
    pub fn options(mut self, options: Options) -> Builder {
        self.settings.options = options;
        self
    }

    /// How long to wait before another try.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Builder {
        self.settings.backoff = backoff;
        self
    }

    /// For requests that name no timeout of their own.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Builder {
        self.settings.request_timeout = timeout;
        self
    }

    /// How often a request is repeated because of its answer, at the most; 0: never.
    #[must_use]
    pub fn repeats_max(mut self, repeats_max: u32) -> Builder {
        self.settings.repeats_max = repeats_max;
        self
    }

    /// Writes the session down there, and resumes the one that is written there: so a session also outlives the
    /// application. One client at a time uses a store. For a file that is [`FileStore`](crate::FileStore).
    ///
    /// The [device id](Options::device_id) must be the same each time, and no other device's.
    ///
    /// Who only pauses leaves with [`Client::leave_keeping`]: [`Client::leave`], and dropping the last handle, end the
    /// session and erase what is written.
    ///
    /// What the application took just before it was killed may come again. Where its first session is not the one
    /// before, it is told to [resync](Event::Resync).
    #[must_use]
    pub fn store(mut self, store: impl Store + 'static) -> Builder {
        self.store = Some(Box::new(store));
        self
    }

    /// Takes the events, one after the other, on a thread for callbacks. A push is acknowledged when this returns. It may
    /// take its time: connection and session live on, and of pushes the gateway sends a window at the most.
    #[must_use]
    pub fn on_event(mut self, on_event: impl FnMut(Event) + Send + 'static) -> Builder {
        self.on_event = Some(Box::new(on_event));
        self
    }

    /// Starts. Without [`Builder::on_event`] nobody is told of events, and pushes count as taken.
    ///
    /// # Errors
    /// When the system has no thread or no descriptor left, or the [store](Builder::store) cannot be read.
    pub fn start(self) -> io::Result<Client> {
        self.build(false).map(|(client, _)| client)
    }

    /// Starts. The events are taken from the second value, in place of a callback.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub fn start_with_events(mut self) -> io::Result<(Client, Events)> {
        self.on_event = None;
        let (client, shared) = self.build(true)?;
        Ok((client, Events::new(shared)))
    }

    fn build(mut self, with_events: bool) -> io::Result<(Client, Arc<Shared>)> {
        let (credentials, source) = match self.tokens {
            Tokens::None => (Credentials::Anonymous, None),
            Tokens::One(token) => (Credentials::Token(token.into()), None),
            Tokens::Asked(source) => (Credentials::Asked, Some(source)),
        };
        let options = self.settings.options.clone();
        let mut session = ClientSession::new(self.settings, credentials, random_u64());
        if let Some(store) = &mut self.store {
            let restored = store.load()?;
            session = session.writing_down(decode(&restored).as_ref());
        }
        let inbox = Inbox::new(with_events);
        let (driver, shared) = Driver::new(session, inbox, options, self.store)?;
        let driver = driver.looking_up_by(self.lookup).calling(self.on_event.is_some());
        calls::spawn(Arc::clone(&shared), self.on_event)?;
        driver.spawn(self.addresses, source)?;
        let handle = Arc::new(Handle { shared: Arc::clone(&shared) });
        Ok((Client { handle }, shared))
    }
}
