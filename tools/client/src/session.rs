//! A client's session as its application sees it: over as many connections as it takes, and without I/O.
//!
//! ```text
//!       start            addresses           token              connected              Welcome
//! Idle ──────► Listing ───────────► Fetching ─────► Connecting ───────────► Linked: opening ──────► open
//!                 ▲  none │             │ none           │ failed                  │ end               │ end, or GoAway
//!                 │       ▼             ▼                ▼                         ▼                   ▼ and Bye
//!                 └──── Pausing ◄──────────────────────────────────────────────────────────────────────┤
//!                   its time is over                                                                   ▼
//!                                             Ended: left, refused for good, no token for good ◄───────┘
//! ```
//!
//! The caller passes `now` with each input and then does what [`ClientSession::poll`] says, until there is nothing more;
//! it writes out [`ClientSession::output`] and calls [`ClientSession::timers`] at [`ClientSession::next_deadline`]. A
//! seed is the only source of randomness.
//!
//! What it guarantees: each request comes to exactly one [`Outcome`]; what was executed, or may have been, is not sent
//! again unless it carries an idempotency key; a gateway's word on when to come back is kept; no access token is shown
//! again once it was refused; a push is acknowledged when the application has taken it. Each [`Reason`] gets its
//! documented [`Action`]: those of a final Error are followed here; those of an answer are followed as far as repeating
//! and renewing tokens go, and the rest is the application's, which finds it in [`Answer::action`].
//!
//! A session outlives its connections where the gateway keeps it: the next connection resumes it. What is open stays
//! open then, what was not admitted is sent again under its number, and no push is missed or given twice, so there is no
//! [`Event::Resync`]. Where it cannot be resumed a fresh one is opened, and what was open is settled.
//!
//! With [`ClientSession::writing_down`] a session also outlives its process. What is written down is a [`Resumption`]:
//! before an attempt to resume is made with it, before a newer token is proven, and before what the application has
//! taken is acknowledged. A push that it had taken when the process died, and that was not written down yet, comes
//! again.
//!
//! [`Reason`]: moorgate_proto::v1::Reason
//! [`Action`]: crate::Action
//! [`Resumption`]: crate::core::Resumption
//! [`Answer::action`]: crate::Answer::action

mod access;
mod addresses;
mod backoff;
mod event;
mod link;
mod recent;
mod requests;
mod saving;
mod verdict;

#[cfg(test)]
mod tests;

pub use access::{AccessToken, Credentials, TOKEN_BYTES_MAX};
pub use addresses::{ADDRESSES_MAX, Policy};
pub use backoff::Backoff;
pub use event::{
    Attempt, Delivery, Ending, Event, Missed, Outcome, Output, Setback, State, Ticket, TokenError, TokenNeed,
};
pub use recent::PUSHES_REMEMBERED;
pub use requests::ANSWER_GRACE;

use crate::core::{ClientCore, Event as CoreEvent, Options, Refused, RequestOptions};
use access::{Access, Given, Shows};
use addresses::Addresses;
use fastrand::Rng;
use link::{Link, Over};
use moorgate_proto::time::Mono;
use moorgate_proto::v1;
use recent::RecentPushes;
use requests::{Cancelled, Requests};
use saving::Saving;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What it says of itself. [`Options::waiting_max`] bounds the requests that wait for a session or for a place in
    /// flight; [`Options::opening_timeout`] also bounds the time to connect.
    pub options: Options,
    /// In which order addresses are tried.
    pub policy: Policy,
    /// How long to wait before another try.
    pub backoff: Backoff,
    /// For requests that name no timeout of their own.
    pub request_timeout: Duration,
    /// How often a request is repeated because of its answer, at the most.
    pub repeats_max: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            options: Options::default(),
            policy: Policy::default(),
            backoff: Backoff::default(),
            request_timeout: Duration::from_secs(30),
            repeats_max: 3,
        }
    }
}

#[derive(Debug)]
enum Phase {
    Idle,
    Pausing(Mono),
    Listing,
    Fetching,
    Connecting { attempt: Attempt, due: Mono, address: String, token: AccessToken },
    Linked(Box<Link>),
    Ended,
}

/// What outlives a connection.
#[derive(Debug)]
struct Book {
    settings: Settings,
    options: Arc<Options>,
    random: Rng,
    access: Access,
    addresses: Addresses,
    requests: Requests,
    recent: RecentPushes,
    outputs: VecDeque<Output>,
    state: State,
    attempts: u64,
    /// Attempts, and sessions that did not last, one after the other.
    failures: u32,
    /// There was a session.
    was_open: bool,
    leaving: Option<Leaving>,
    saving: Saving,
}

/// The application leaves.
#[derive(Debug, Clone, Copy)]
struct Leaving {
    /// Until then answers are awaited.
    until: Mono,
    /// The session is to be kept for its next start; zero: it is to end.
    keep_for: Duration,
}

impl Book {
    fn tell(&mut self, event: Event, delivery: Option<Delivery>) {
        self.outputs.push_back(Output::Event(event, delivery));
    }

    fn set_state(&mut self, state: State) {
        self.state = state.clone();
        self.tell(Event::State(state), None);
    }

    fn settle(&mut self, ticket: Ticket, outcome: Outcome) {
        self.outputs.push_back(Output::Settled(ticket, outcome));
    }

    fn ask_for_token(&mut self, need: TokenNeed) {
        if self.access.ask() {
            self.outputs.push_back(Output::FetchToken(need));
        }
    }

    /// The session has no new access token, and goes on with its old one.
    fn token_not_renewed(&mut self, why: String) {
        let Book { requests, outputs, .. } = self;
        requests
            .token_not_renewed(&mut |ticket, outcome| outputs.push_back(Output::Settled(ticket, outcome)));
        self.tell(Event::TokenNotRenewed(why), None);
    }

    fn renewal_retry(&mut self, now: Mono) -> Mono {
        let failures = self.access.count_failure();
        now + self.settings.backoff.wait(failures, &mut self.random)
    }
}

/// See the module's page.
#[derive(Debug)]
pub struct ClientSession {
    phase: Phase,
    /// Over all connections.
    core: ClientCore,
    book: Book,
}

impl ClientSession {
    /// A client that does nothing yet.
    pub fn new(settings: Settings, credentials: Credentials, seed: u64) -> ClientSession {
        let mut random = Rng::with_seed(seed);
        let options = &settings.options;
        let turn = random.usize(..);
        let pings = random.fork();
        let book = Book {
            access: Access::new(credentials),
            addresses: Addresses::new(settings.policy, options.device_id.clone(), turn),
            requests: Requests::new(
                settings.backoff,
                random.fork(),
                settings.repeats_max,
                options.waiting_max,
            ),
            recent: RecentPushes::default(),
            outputs: VecDeque::new(),
            state: State::Starting,
            attempts: 0,
            failures: 0,
            was_open: false,
            leaving: None,
            saving: Saving::Never,
            options: Arc::new(options.clone()),
            random,
            settings,
        };
        let core = ClientCore::resuming(Arc::clone(&book.options)).with_random(pings);
        ClientSession { phase: Phase::Idle, core, book }
    }

    /// Begins.
    pub fn start(&mut self, now: Mono) {
        if matches!(self.phase, Phase::Idle) {
            self.proceed(now);
        }
    }

    /// What the driver has to do next; `None`: to wait.
    pub fn poll(&mut self) -> Option<Output> {
        self.book.outputs.pop_front()
    }

    /// Whether [`ClientSession::poll`] has something.
    pub fn has_outputs(&self) -> bool {
        !self.book.outputs.is_empty()
    }

    /// Whether there is something to do or to send.
    pub fn has_work(&mut self) -> bool {
        self.has_outputs() || self.output().is_some_and(|output| !output.is_empty())
    }

    /// Where it stands.
    pub fn state(&self) -> &State {
        &self.book.state
    }

    /// Requests that have no outcome yet.
    pub fn open_requests(&self) -> usize {
        self.book.requests.open()
    }

    /// Bytes to send; whoever has sent some drains them from the front. `None`: there is no connection.
    pub fn output(&mut self) -> Option<&mut Vec<u8>> {
        match &mut self.phase {
            Phase::Linked(_) => Some(self.core.output()),
            _ => None,
        }
    }

    /// The addresses, as `host:port`; or why there are none.
    pub fn listed(&mut self, now: Mono, addresses: Result<Vec<String>, String>) {
        if !matches!(self.phase, Phase::Listing) {
            return;
        }
        let (list, why) = match addresses {
            Ok(list) => (list, "the list is empty".to_owned()),
            Err(why) => (Vec::new(), why),
        };
        self.book.addresses.listed(list);
        if self.book.addresses.is_round_over() {
            self.set_back(now, Setback::NoAddress(why));
        } else {
            self.proceed(now);
        }
    }

    /// The access token that was asked for; an empty one opens an anonymous session.
    pub fn token(&mut self, now: Mono, token: Result<String, TokenError>) {
        match token.map(|token| self.book.access.given(token.into())) {
            Ok(Given::Fresh) => self.token_is_there(now),
            Ok(Given::Useless(why)) => self.no_token(now, why.to_owned()),
            Err(TokenError::Later(why)) => self.no_token(now, why),
            Err(TokenError::Denied(why)) => {
                self.book.access.denied();
                self.no_token(now, why);
            }
        }
    }

    fn token_is_there(&mut self, now: Mono) {
        match &mut self.phase {
            Phase::Fetching => self.proceed(now),
            Phase::Linked(_) => self.turn(now),
            _ => {}
        }
    }

    fn no_token(&mut self, now: Mono, why: String) {
        let again = self.book.renewal_retry(now);
        self.book.access.not_given(again);
        match &self.phase {
            Phase::Fetching if !self.book.access.has_others() => self.finish(Ending::NoToken(why)),
            Phase::Fetching => self.set_back(now, Setback::NoToken(why)),
            Phase::Linked(_) => {
                self.book.token_not_renewed(why);
                self.turn(now);
            }
            Phase::Idle | Phase::Ended => {}
            _ if self.book.access.is_exhausted() => self.finish(Ending::NoToken(why)),
            _ => {}
        }
    }

    /// The application has another access token, by itself.
    ///
    /// # Errors
    /// It cannot be used: why.
    pub fn use_token(&mut self, now: Mono, token: String) -> Result<(), TokenError> {
        match self.book.access.given(token.into()) {
            Given::Useless(why) => Err(TokenError::Denied(why.to_owned())),
            Given::Fresh => {
                if let Phase::Linked(link) = &mut self.phase {
                    link.token_changed(now);
                }
                self.token_is_there(now);
                Ok(())
            }
        }
    }

    /// The attempt has a connection. Whether it is wanted; if not, the driver closes it. The proof is
    /// [that of the options](Options::application_proof).
    pub fn connected(&mut self, now: Mono, attempt: Attempt, proof: Option<v1::ApplicationProof>) -> bool {
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Connecting { attempt: awaited, address, token, .. } if awaited == attempt => {
                let link = Link::new(now, &mut self.core, address, &token, proof);
                self.phase = Phase::Linked(Box::new(link));
                self.save(now);
                true
            }
            phase => {
                self.phase = phase;
                false
            }
        }
    }

    /// The attempt has failed.
    pub fn connect_failed(&mut self, now: Mono, attempt: Attempt, why: String) {
        if matches!(&self.phase, Phase::Connecting { attempt: awaited, .. } if *awaited == attempt) {
            self.set_back(now, Setback::NotConnected(why));
        }
    }

    /// Bytes from the connection.
    pub fn received(&mut self, now: Mono, bytes: &[u8]) {
        if let Phase::Linked(link) = &mut self.phase {
            link.received(now, bytes, &mut self.core, &mut self.book);
            self.turn(now);
        }
    }

    /// The connection is gone.
    pub fn disconnected(&mut self, now: Mono) {
        if let Phase::Linked(link) = &mut self.phase {
            link.disconnected(now, &mut self.core, &mut self.book);
            self.turn(now);
        }
    }

    /// Makes a request; it is sent as soon as there is a session with a place for it.
    ///
    /// # Errors
    /// [`Refused::Full`], or [`Refused::NotOpen`] when the client leaves or has ended.
    pub fn request(
        &mut self,
        now: Mono,
        options: &RequestOptions<'_>,
        payload: &[u8],
    ) -> Result<Ticket, Refused> {
        if matches!(self.phase, Phase::Ended) || self.book.leaving.is_some() {
            return Err(Refused::NotOpen);
        }
        let timeout =
            if options.timeout.is_zero() { self.book.settings.request_timeout } else { options.timeout };
        let ticket = self.book.requests.make(now + timeout, options, payload)?;
        self.turn(now);
        Ok(ticket)
    }

    /// Asks for a request not to be run, or to be stopped; it still has its one outcome.
    pub fn cancel(&mut self, now: Mono, ticket: Ticket) {
        match self.book.requests.cancel(ticket) {
            Cancelled::Unsent(outcome) => self.book.settle(ticket, outcome),
            Cancelled::Sent(id) => self.core.cancel(now, id),
            Cancelled::Nobody => {}
        }
    }

    /// As [`ClientCore::beat_every`], on this connection and all to come.
    pub fn beat_every(&mut self, now: Mono, interval: Duration) {
        self.core.beat_every(now, interval);
    }

    /// The application has taken what was delivered.
    pub fn taken(&mut self, now: Mono, delivery: Delivery) {
        self.core.release(now, delivery.0);
        self.turn(now);
    }

    /// Leaves: answers that are open are awaited for `patience`, then comes Bye, and the session ends.
    pub fn leave(&mut self, now: Mono, patience: Duration) {
        self.leave_keeping(now, patience, Duration::ZERO);
    }

    /// As [`ClientSession::leave`], but asks the gateway to keep the session for `keep_for`, so that the next start of
    /// the application resumes it: for that it must be [written down](ClientSession::writing_down).
    pub fn leave_keeping(&mut self, now: Mono, patience: Duration, keep_for: Duration) {
        if matches!(self.phase, Phase::Ended) {
            return;
        }
        self.book.leaving = Some(Leaving { until: now + patience, keep_for });
        match &self.phase {
            Phase::Linked(link) if link.is_open() => self.turn(now),
            _ => self.finish(Ending::Left),
        }
    }

    /// The driver is gone: nothing is sent or heard any more.
    pub fn abandon(&mut self) {
        if !matches!(self.phase, Phase::Ended) {
            self.finish(Ending::Broken);
        }
    }

    /// When [`ClientSession::timers`] has something to do.
    pub fn next_deadline(&self) -> Mono {
        let of_phase = match &self.phase {
            Phase::Pausing(until) => *until,
            Phase::Connecting { due, .. } => *due,
            Phase::Linked(link) => link.next_deadline(&self.core, &self.book),
            Phase::Idle | Phase::Listing | Phase::Fetching | Phase::Ended => Mono::NEVER,
        };
        of_phase.min(self.book.requests.next_deadline())
    }

    /// Looks at the deadlines.
    pub fn timers(&mut self, now: Mono) {
        let Book { requests, outputs, .. } = &mut self.book;
        let core = &mut self.core;
        requests.timers(now, &mut |id| core.cancel(now, id), &mut |ticket, outcome| {
            outputs.push_back(Output::Settled(ticket, outcome));
        });
        match &mut self.phase {
            Phase::Pausing(until) if *until <= now => self.proceed(now),
            Phase::Connecting { due, .. } if *due <= now => {
                self.book.outputs.push_back(Output::Disconnect);
                self.set_back(now, Setback::NotConnected("no answer in time".to_owned()));
            }
            Phase::Linked(link) => {
                link.timers(now, &mut self.core, &mut self.book);
                self.turn(now);
            }
            _ => {}
        }
    }

    /// Takes the next step towards a session.
    fn proceed(&mut self, now: Mono) {
        let book = &mut self.book;
        if book.addresses.is_round_over() {
            self.phase = Phase::Listing;
            book.outputs.push_back(Output::List);
            return;
        }
        let token = match book.access.for_connection(now) {
            Shows::Token(token) => token,
            Shows::Needs(need) => {
                self.phase = Phase::Fetching;
                book.ask_for_token(need);
                return;
            }
        };
        let Some(address) = book.addresses.next() else { return };
        book.attempts = book.attempts.saturating_add(1);
        let attempt = Attempt(book.attempts);
        book.set_state(State::Connecting { address: address.clone() });
        book.outputs.push_back(Output::Connect(attempt, address.clone()));
        let due = now + book.options.opening_timeout;
        self.phase = Phase::Connecting { attempt, due, address, token };
    }

    /// Another try has failed.
    fn set_back(&mut self, now: Mono, why: Setback) {
        let book = &mut self.book;
        book.failures = book.failures.saturating_add(1);
        let wait = book.settings.backoff.wait(book.failures, &mut book.random);
        self.pause(now, wait, why);
    }

    fn pause(&mut self, now: Mono, wait: Duration, why: Setback) {
        self.phase = Phase::Pausing(now + wait);
        self.book.set_state(State::Away { retry_in: wait, why });
    }

    /// After everything that may have changed something: what can be done now is done.
    fn turn(&mut self, now: Mono) {
        if let Phase::Linked(link) = &mut self.phase {
            match link.turn(now, &mut self.core, &mut self.book) {
                Some(Over::Again(wait, why)) => {
                    self.book.outputs.push_back(Output::Disconnect);
                    self.pause(now, wait, why);
                }
                Some(Over::Ended(ending)) => return self.finish(ending),
                None => {}
            }
        }
        self.save(now);
    }

    fn finish(&mut self, ending: Ending) {
        if matches!(self.phase, Phase::Connecting { .. } | Phase::Linked(_)) {
            self.book.outputs.push_back(Output::Disconnect);
        }
        self.phase = Phase::Ended;
        self.save_last(&ending);
        let book = &mut self.book;
        self.core.give_up(&mut |_, event| {
            if let CoreEvent::Unanswered(id, execution) = event
                && let Some((ticket, outcome)) = book.requests.unanswered(id, execution)
            {
                book.settle(ticket, outcome);
            }
        });
        let Book { requests, outputs, .. } = &mut self.book;
        requests.end(&mut |ticket, outcome| outputs.push_back(Output::Settled(ticket, outcome)));
        self.book.access.forget();
        self.book.set_state(State::Ended(ending));
    }
}
