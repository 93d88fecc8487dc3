//! Open requests, over all connections: each comes to exactly one [`Outcome`].
//!
//! ```text
//!              place in flight            answer
//! Ready ──────────────────────► Sent ───────────────────────────────────► settled
//!   ▲                            │ session lost, and not executed or with a key      ▲
//!   ├────────────────────────────┤                                           │ lost otherwise, deadline, cancelled
//!   └── Later, ForToken ◄────────┘ answer whose action is to repeat it       │
//!            └───────────────────────────────────────────────────────────────┘
//! ```
//!
//! A request is sent again by itself only when it was not executed, or carries an idempotency key by which its service
//! recognises it, and only within its own time. A session that is resumed is not lost: what is sent stays so.

use super::backoff::Backoff;
use super::event::{Outcome, Ticket};
use crate::answer::Answer;
use crate::core::{ClientCore, Refused, RequestId, RequestOptions};
use fastrand::Rng;
use moorgate_proto::action;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{Action, Execution, Reason};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The gateway answers by the same deadline, and what it says is better than a guess of ours: it is waited for so much
/// longer.
pub const ANSWER_GRACE: Duration = Duration::from_secs(2);
/// RETRY_NOW means now so often one after the other; then it is RETRY_AFTER.
pub(super) const RETRIES_NOW_MAX: u32 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It waits for a place in flight, or for a session.
    Ready,
    /// It is sent again then.
    Later(Mono),
    /// It is sent again with another access token.
    ForToken,
    /// The gateway has it.
    Sent(RequestId),
}

#[derive(Debug)]
struct Entry {
    command: u32,
    version: u32,
    idempotency_key: Box<[u8]>,
    payload: Box<[u8]>,
    due: Mono,
    place: Place,
    /// How often an answer had it sent again.
    repeats: u32,
    /// An earlier connection may have had it executed.
    may_have_run: bool,
    is_cancelled: bool,
    /// The answer that is to be bettered.
    answer: Option<Box<Answer>>,
}

impl Entry {
    /// What it comes to when no more is heard of it: the answer that was to be bettered, or what is known of the
    /// execution.
    fn closed(mut self, outcome: fn(Execution) -> Outcome) -> Outcome {
        if let Some(answer) = self.answer.take() {
            return self.answered(answer);
        }
        let is_sent = matches!(self.place, Place::Sent(_));
        outcome(if self.may_have_run || is_sent { Execution::Unknown } else { Execution::NotExecuted })
    }

    /// An answer speaks of one try; the application asks for all.
    fn answered(&self, mut answer: Box<Answer>) -> Outcome {
        if self.may_have_run && answer.execution != Execution::Executed {
            answer.execution = Execution::Unknown;
        }
        Outcome::Answer(answer)
    }

    /// Repeating it does no harm although it may have been executed.
    fn is_recognised(&self) -> bool {
        !self.idempotency_key.is_empty()
    }

    fn deadline(&self) -> Mono {
        match self.place {
            Place::Sent(_) => self.due + ANSWER_GRACE,
            Place::Later(then) => self.due.min(then),
            Place::Ready | Place::ForToken => self.due,
        }
    }
}

/// See the module's page.
#[derive(Debug)]
pub(super) struct Requests {
    backoff: Backoff,
    random: Rng,
    repeats_max: u32,
    waiting_max: usize,
    numbered: u64,
    entries: BTreeMap<Ticket, Entry>,
    /// Those in [`Place::Ready`].
    ready: BTreeSet<Ticket>,
    /// Those in [`Place::Sent`].
    sent: BTreeMap<RequestId, Ticket>,
    /// No deadline comes earlier.
    look_at: Mono,
}

/// What the session makes of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Means {
    /// Another access token can be had for this session.
    pub(super) can_renew: bool,
}

/// What an answer has led to.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// It is the outcome.
    Settled(Ticket, Outcome),
    /// The request is sent again.
    Again,
    /// The request is sent again once there is another access token.
    NeedsToken,
    /// Nobody waits for it any more.
    Nobody,
}

impl Requests {
    pub(super) fn new(backoff: Backoff, random: Rng, repeats_max: u32, waiting_max: usize) -> Requests {
        Requests {
            backoff,
            random,
            repeats_max,
            waiting_max,
            numbered: 0,
            entries: BTreeMap::new(),
            ready: BTreeSet::new(),
            sent: BTreeMap::new(),
            look_at: Mono::NEVER,
        }
    }

    /// Takes a request that is due then.
    pub(super) fn make(
        &mut self,
        due: Mono,
        options: &RequestOptions<'_>,
        payload: &[u8],
    ) -> Result<Ticket, Refused> {
        if self.entries.len().saturating_sub(self.sent.len()) >= self.waiting_max {
            return Err(Refused::Full);
        }
        self.numbered = self.numbered.saturating_add(1);
        let ticket = Ticket(self.numbered);
        let entry = Entry {
            command: options.command,
            version: options.version,
            idempotency_key: options.idempotency_key.into(),
            payload: payload.into(),
            due,
            place: Place::Ready,
            repeats: 0,
            may_have_run: false,
            is_cancelled: false,
            answer: None,
        };
        self.entries.insert(ticket, entry);
        self.ready.insert(ticket);
        self.look_at = self.look_at.min(due);
        Ok(ticket)
    }

    fn put(&mut self, ticket: Ticket, place: Place) {
        let Some(entry) = self.entries.get_mut(&ticket) else { return };
        if let Place::Sent(id) = entry.place {
            self.sent.remove(&id);
        }
        entry.place = place;
        self.look_at = self.look_at.min(entry.deadline());
        match place {
            Place::Ready => drop(self.ready.insert(ticket)),
            Place::Sent(id) => {
                self.ready.remove(&ticket);
                self.sent.insert(id, ticket);
            }
            Place::Later(_) | Place::ForToken => drop(self.ready.remove(&ticket)),
        }
    }

    fn remove(&mut self, ticket: Ticket) -> Option<Entry> {
        let entry = self.entries.remove(&ticket)?;
        self.ready.remove(&ticket);
        if let Place::Sent(id) = entry.place {
            self.sent.remove(&id);
        }
        Some(entry)
    }

    /// Sends what waits and has a place, in the order in which it was made.
    pub(super) fn send(
        &mut self,
        now: Mono,
        core: &mut ClientCore,
        settle: &mut impl FnMut(Ticket, Outcome),
    ) {
        while core.places() > 0
            && let Some(ticket) = self.ready.first().copied()
        {
            let Some(entry) = self.entries.get_mut(&ticket) else {
                self.ready.remove(&ticket);
                continue;
            };
            let timeout = entry.due.since(now);
            if timeout.is_zero() {
                // The timers settle it.
                self.ready.remove(&ticket);
                continue;
            }
            let options = RequestOptions {
                command: entry.command,
                version: entry.version,
                timeout,
                idempotency_key: &entry.idempotency_key,
            };
            match core.request(now, &options, &entry.payload) {
                Ok(id) => {
                    entry.answer = None;
                    self.put(ticket, Place::Sent(id));
                }
                Err(Refused::TooLarge) => {
                    self.remove(ticket);
                    settle(ticket, Outcome::TooLarge);
                }
                Err(Refused::NotOpen | Refused::Full) => return,
            }
        }
    }

    /// The answer has come.
    pub(super) fn answered(&mut self, now: Mono, id: RequestId, answer: Answer, means: Means) -> Next {
        let Some(ticket) = self.sent.get(&id).copied() else { return Next::Nobody };
        if self.is_late(now, ticket, &answer) {
            // Its time was over before it could be sent again after a resume, and so its number was cancelled.
            self.remove(ticket);
            return Next::Settled(ticket, Outcome::TimedOut(Execution::NotExecuted));
        }
        let place = self.judge(now, ticket, &answer, means);
        match place {
            Some(place) => {
                self.put(ticket, place);
                if let Some(entry) = self.entries.get_mut(&ticket) {
                    entry.repeats = entry.repeats.saturating_add(1);
                    entry.may_have_run |= may_have_run(answer.execution);
                    entry.answer = Some(Box::new(answer));
                }
                if place == Place::ForToken { Next::NeedsToken } else { Next::Again }
            }
            None => match self.remove(ticket) {
                Some(entry) => Next::Settled(ticket, entry.answered(Box::new(answer))),
                None => Next::Nobody,
            },
        }
    }

    fn is_late(&self, now: Mono, ticket: Ticket, answer: &Answer) -> bool {
        let is_cancel = answer.reason == Reason::Cancelled && answer.execution == Execution::NotExecuted;
        let entry = self.entries.get(&ticket);
        is_cancel && entry.is_some_and(|entry| !entry.is_cancelled && !entry.may_have_run && entry.due <= now)
    }

    /// Where an answered request waits for its repetition; `None`: the answer stands.
    fn judge(&mut self, now: Mono, ticket: Ticket, answer: &Answer, means: Means) -> Option<Place> {
        let entry = self.entries.get(&ticket)?;
        if answer.is_ok() || entry.is_cancelled || entry.repeats >= self.repeats_max {
            return None;
        }
        let documented = answer.action();
        let repeats = match documented {
            // It may have been executed. With a key, it is repeated as it would be had it not.
            Action::Resync if entry.is_recognised() => match answer.reason {
                Reason::Unspecified => Action::RetryAfter,
                reason => action::of(reason, Execution::NotExecuted),
            },
            documented => documented,
        };
        let wait = match repeats {
            Action::RetryNow if entry.repeats < RETRIES_NOW_MAX => answer.retry_after,
            Action::RetryNow | Action::RetryAfter => {
                let failures = entry.repeats.saturating_add(1);
                answer.retry_after.max(self.backoff.wait(failures, &mut self.random))
            }
            Action::Reauthenticate if means.can_renew && !may_have_run(answer.execution) => {
                return (now < entry.due).then_some(Place::ForToken);
            }
            Action::Unspecified
            | Action::Reauthenticate
            | Action::Resync
            | Action::Update
            | Action::GiveUp => return None,
        };
        let then = now + wait;
        match wait {
            _ if then >= entry.due => None,
            Duration::ZERO => Some(Place::Ready),
            _ => Some(Place::Later(then)),
        }
    }

    /// The session has ended before the answer. The outcome, unless the request is sent again on the next one.
    pub(super) fn unanswered(&mut self, id: RequestId, execution: Execution) -> Option<(Ticket, Outcome)> {
        let ticket = self.sent.get(&id).copied()?;
        let entry = self.entries.get_mut(&ticket)?;
        let is_safe = execution == Execution::NotExecuted || entry.is_recognised();
        if is_safe && !entry.is_cancelled {
            entry.may_have_run |= may_have_run(execution);
            self.put(ticket, Place::Ready);
            return None;
        }
        let execution = if entry.may_have_run { Execution::Unknown } else { execution };
        self.remove(ticket);
        Some((ticket, Outcome::Unanswered(execution)))
    }

    /// Takes a request back. What was sent is still answered; what was not has its outcome here.
    pub(super) fn cancel(&mut self, ticket: Ticket) -> Cancelled {
        let Some(entry) = self.entries.get_mut(&ticket) else { return Cancelled::Nobody };
        if let Place::Sent(id) = entry.place {
            entry.is_cancelled = true;
            return Cancelled::Sent(id);
        }
        match self.remove(ticket) {
            Some(entry) if entry.may_have_run || entry.answer.is_some() => {
                Cancelled::Unsent(entry.closed(Outcome::Unanswered))
            }
            Some(_) => Cancelled::Unsent(Outcome::Answer(Box::new(Answer::cancelled()))),
            None => Cancelled::Nobody,
        }
    }

    /// There is another access token, or another session: what waited for it is sent again.
    pub(super) fn token_renewed(&mut self) {
        for ticket in self.waiting_for_token() {
            self.put(ticket, Place::Ready);
        }
    }

    /// There is no other access token: what waited for it keeps the answer it has.
    pub(super) fn token_not_renewed(&mut self, settle: &mut impl FnMut(Ticket, Outcome)) {
        for ticket in self.waiting_for_token() {
            if let Some(entry) = self.remove(ticket) {
                settle(ticket, entry.closed(Outcome::Unanswered));
            }
        }
    }

    fn waiting_for_token(&self) -> Vec<Ticket> {
        let waiting = self.entries.iter().filter(|(_, entry)| entry.place == Place::ForToken);
        waiting.map(|(ticket, _)| *ticket).collect()
    }

    /// Looks at the deadlines. Requests that were sent and are given up are passed to `cancel`.
    pub(super) fn timers(
        &mut self,
        now: Mono,
        cancel: &mut impl FnMut(RequestId),
        settle: &mut impl FnMut(Ticket, Outcome),
    ) {
        if now < self.look_at {
            return;
        }
        let over: Vec<Ticket> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.deadline() <= now)
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in over {
            let Some(entry) = self.entries.get(&ticket) else { continue };
            if let Place::Later(_) = entry.place
                && now < entry.due
            {
                self.put(ticket, Place::Ready);
                continue;
            }
            if let Place::Sent(id) = entry.place {
                cancel(id);
            }
            if let Some(entry) = self.remove(ticket) {
                settle(ticket, entry.closed(Outcome::TimedOut));
            }
        }
        self.look_at = self.entries.values().map(Entry::deadline).min().unwrap_or(Mono::NEVER);
    }

    /// When [`Requests::timers`] has something to do, or earlier.
    pub(super) fn next_deadline(&self) -> Mono {
        self.look_at
    }

    /// There will be no other session: everything is settled.
    pub(super) fn end(&mut self, settle: &mut impl FnMut(Ticket, Outcome)) {
        for (ticket, entry) in std::mem::take(&mut self.entries) {
            settle(ticket, entry.closed(Outcome::Unanswered));
        }
        self.ready.clear();
        self.sent.clear();
        self.look_at = Mono::NEVER;
    }

    /// Whether one waits for a place in flight.
    pub(super) fn wants_place(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Requests without an outcome.
    pub(super) fn open(&self) -> usize {
        self.entries.len()
    }
}

/// What a cancelled request has led to.
#[derive(Debug, PartialEq)]
pub(super) enum Cancelled {
    /// The gateway has it, and answers.
    Sent(RequestId),
    /// It was not sent: its outcome.
    Unsent(Outcome),
    /// It has its outcome.
    Nobody,
}

fn may_have_run(execution: Execution) -> bool {
    matches!(execution, Execution::Unknown | Execution::Executed)
}
