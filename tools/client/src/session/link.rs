//! One connection of a session: what comes from it, and what its end means.

use super::Book;
use super::access::AccessToken;
use super::event::{Delivery, Ending, Event, Missed, Output, Setback, State, TokenNeed};
use super::requests::{Means, Next, RETRIES_NOW_MAX};
use super::verdict::{Verdict, after_of, verdict};
use crate::answer::{Answer, Push};
use crate::core::{self, ClientCore, End, RequestId, denies_resume};
use moorgate_proto::action;
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{self, Action, Execution, Reason};
use std::time::Duration;

/// After its Bye a client waits so long for the gateway's word.
const BYE_TIMEOUT: Duration = Duration::from_secs(2);
/// A session that has stood for so long was no failure.
const STEADY: Duration = Duration::from_secs(10);

/// A connection, and what the gateway has said on it.
#[derive(Debug)]
pub(super) struct Link {
    address: String,
    /// It was asked to resume.
    is_resuming: bool,
    /// Empty: anonymous.
    user_id: String,
    /// `NEVER`: there was no Welcome yet.
    opened: Mono,
    /// The gateway's time at `opened`, in milliseconds of Unix time; 0: it did not say.
    server_time_ms: u64,
    moving: Option<Moving>,
    /// `NEVER`: there was no Bye yet.
    bye_due: Mono,
    end: Option<End>,
}

/// This connection makes room for the next one: no new requests; Bye when all are answered.
#[derive(Debug)]
struct Moving {
    /// With the same session, if the gateway keeps it.
    keeps: bool,
    /// The next one may begin then.
    not_before: Mono,
    addresses: Vec<String>,
    why: Setback,
}

/// What comes after a session.
#[derive(Debug)]
pub(super) enum Over {
    /// Another try, after this time.
    Again(Duration, Setback),
    /// Nothing.
    Ended(Ending),
}

impl Link {
    /// The connection stands: says Hello.
    pub(super) fn new(
        now: Mono,
        core: &mut ClientCore,
        address: String,
        token: &AccessToken,
        proof: Option<v1::ApplicationProof>,
    ) -> Link {
        let is_resuming = core.can_resume();
        core.connected_with_proof(now, token.as_str(), proof);
        Link {
            address,
            is_resuming,
            user_id: String::new(),
            opened: Mono::NEVER,
            server_time_ms: 0,
            moving: None,
            bye_due: Mono::NEVER,
            end: None,
        }
    }

    /// Whether there was a Welcome.
    pub(super) fn is_open(&self) -> bool {
        self.opened != Mono::NEVER
    }

    pub(super) fn received(&mut self, now: Mono, bytes: &[u8], core: &mut ClientCore, book: &mut Book) {
        core.received(now, bytes, &mut |core, event| self.note(now, book, core, event));
    }

    pub(super) fn disconnected(&mut self, now: Mono, core: &mut ClientCore, book: &mut Book) {
        core.disconnected(&mut |core, event| self.note(now, book, core, event));
    }

    pub(super) fn timers(&mut self, now: Mono, core: &mut ClientCore, book: &mut Book) {
        core.timers(now, &mut |core, event| self.note(now, book, core, event));
        if self.bye_due <= now {
            self.disconnected(now, core, book);
        }
    }

    pub(super) fn next_deadline(&self, core: &ClientCore, book: &Book) -> Mono {
        let mut next = core.next_deadline();
        if self.is_open() && self.bye_due == Mono::NEVER {
            next = next.min(book.leaving.map_or(Mono::NEVER, |leaving| leaving.until));
            next = next.min(book.access.next_deadline());
        }
        next.min(self.bye_due)
    }

    /// The application has another access token. An anonymous session cannot take it: another session does.
    pub(super) fn token_changed(&mut self, now: Mono) {
        if self.is_open() && self.user_id.is_empty() {
            self.move_on(now, false);
        }
    }

    /// Does what can be done now; what comes after, if the session is over.
    pub(super) fn turn(&mut self, now: Mono, core: &mut ClientCore, book: &mut Book) -> Option<Over> {
        if let Some(end) = self.end.take() {
            return Some(self.over(now, core, book, end));
        }
        if !self.is_open() || self.bye_due != Mono::NEVER {
            return None;
        }
        if book.access.timers(now) {
            book.ask_for_token(TokenNeed::Renew);
        }
        if self.moving.is_none() {
            if let Some(token) = book.access.show_fresh(now) {
                core.authenticate(now, token.as_str());
            }
            let Book { requests, outputs, .. } = book;
            requests.send(now, core, &mut |ticket, outcome| {
                outputs.push_back(Output::Settled(ticket, outcome));
            });
        }
        let is_idle = core.unanswered() == 0;
        let leaves = match (book.leaving, &self.moving) {
            (Some(leaving), _) if leaving.until <= now => true,
            (_, Some(_)) => is_idle,
            (Some(_), None) => is_idle && book.requests.open() == 0,
            (None, None) => false,
        };
        if leaves {
            let keep_for = match (book.leaving, &self.moving) {
                (Some(leaving), _) => leaving.keep_for,
                (None, Some(moving)) if moving.keeps => core.kept_for(),
                (None, _) => Duration::ZERO,
            };
            core.bye(now, keep_for);
            self.bye_due = now + BYE_TIMEOUT;
        }
        None
    }

    fn note(&mut self, now: Mono, book: &mut Book, core: &mut ClientCore, event: core::Event<'_>) {
        match event {
            core::Event::Welcomed(welcome) => {
                if std::mem::replace(&mut book.was_open, true) {
                    book.tell(Event::Resync(Missed::Session), None);
                }
                self.welcomed(now, book, *welcome);
            }
            core::Event::Resumed(welcome) => self.welcomed(now, book, *welcome),
            core::Event::Response(id, view) => self.answered(now, book, id, view.into()),
            core::Event::Unanswered(id, execution) => {
                if let Some((ticket, outcome)) = book.requests.unanswered(id, execution) {
                    book.settle(ticket, outcome);
                }
            }
            core::Event::Push(view) => {
                if book.recent.is_new(view.push_id) {
                    let delivery = core.hold().map(Delivery);
                    book.tell(Event::Push(Push::from(view)), delivery);
                }
            }
            core::Event::Gap(gap) => {
                let delivery = core.hold().map(Delivery);
                book.tell(Event::Resync(missed(&gap)), delivery);
            }
            core::Event::GoingAway(go_away) => {
                let why = Setback::GoneAway(go_away.reason());
                let not_before = now + Duration::from_millis(u64::from(go_away.reconnect_after_ms));
                let (addresses, keeps) = (go_away.addresses, go_away.resumable);
                self.moving = Some(Moving { not_before, addresses, why, keeps });
                book.set_state(State::GoingAway);
            }
            core::Event::Notice(notice) => {
                let (code, reason) = (Code::from_wire(notice.status), notice.reason());
                if reason == Reason::TokenExpired {
                    book.access.is_expiring(now);
                }
                book.tell(Event::Notice { code, reason, message: notice.message }, None);
            }
            core::Event::Authenticated(answer) => self.authenticated(now, book, &answer),
            core::Event::Detached(end) | core::Event::Ended(end) => self.end = Some(end),
        }
    }

    fn welcomed(&mut self, now: Mono, book: &mut Book, welcome: v1::Welcome) {
        (self.opened, self.server_time_ms, self.user_id) = (now, welcome.server_time_ms, welcome.user_id);
        let life = self.life(now, welcome.access_expires_ms);
        book.access.accepted(now, life, &mut book.random);
        book.set_state(self.open_state());
    }

    fn open_state(&self) -> State {
        State::Open { address: self.address.clone(), user_id: self.user_id.clone() }
    }

    /// How long a token lives that expires then by the gateway's clock; ours may be wrong. `None`: it does not say.
    fn life(&self, now: Mono, expires_ms: u64) -> Option<Duration> {
        if expires_ms == 0 || self.server_time_ms == 0 {
            return None;
        }
        let at_opening = Duration::from_millis(expires_ms.saturating_sub(self.server_time_ms));
        Some(at_opening.saturating_sub(now.since(self.opened)))
    }

    fn answered(&mut self, now: Mono, book: &mut Book, id: RequestId, answer: Answer) {
        if let Some(login) = &answer.login {
            self.user_id.clone_from(&login.user_id);
            let life = self.life(now, login.access_expires_ms);
            book.access.logged_in(&login.access_token);
            book.access.accepted(now, life, &mut book.random);
            if self.moving.is_none() {
                book.set_state(self.open_state());
            }
        }
        let can_renew = !self.user_id.is_empty() && (book.access.can_ask() || book.access.is_renewing());
        match book.requests.answered(now, id, answer, Means { can_renew }) {
            Next::Settled(ticket, outcome) => book.settle(ticket, outcome),
            Next::NeedsToken => book.access.is_expiring(now),
            Next::Again | Next::Nobody => {}
        }
    }

    fn authenticated(&mut self, now: Mono, book: &mut Book, answer: &v1::Authenticated) {
        let (code, reason) = (Code::from_wire(answer.status), answer.reason());
        if code == Code::Ok {
            book.access.authenticated();
            let life = self.life(now, answer.access_expires_ms);
            book.access.accepted(now, life, &mut book.random);
            book.requests.token_renewed();
            return book.tell(Event::TokenRenewed, None);
        }
        if code == Code::Unimplemented {
            // This gateway takes a token only from a Hello.
            book.access.unjudged();
            return self.move_on(now, true);
        }
        let documented = || action::of(reason, Execution::Unspecified);
        let again = match action::on_wire(answer.action).unwrap_or_else(documented) {
            Action::RetryNow | Action::RetryAfter | Action::Reauthenticate => book.renewal_retry(now),
            Action::Unspecified | Action::Resync | Action::Update | Action::GiveUp => Mono::NEVER,
        };
        book.access.not_authenticated(reason, again);
        book.token_not_renewed(
            End::Error(v1::Error {
                status: answer.status,
                reason: answer.reason,
                action: answer.action,
                message: answer.message.clone(),
                ..v1::Error::default()
            })
            .to_string(),
        );
    }

    /// Another access token needs another connection, or another session.
    fn move_on(&mut self, now: Mono, keeps: bool) {
        if self.moving.is_none() {
            let (addresses, why) = (Vec::new(), Setback::TokenChanged);
            self.moving = Some(Moving { not_before: now, addresses, why, keeps });
        }
    }

    /// The session has ended: what comes next.
    fn over(&mut self, now: Mono, core: &mut ClientCore, book: &mut Book, end: End) -> Over {
        book.access.unjudged();
        book.requests.token_renewed();
        book.addresses.end_round();
        if self.opened != Mono::NEVER && self.opened + STEADY <= now {
            book.failures = 0;
        }
        let moving = self.moving.take();
        if let Some(moving) = &moving {
            book.addresses.name(&moving.addresses);
        }
        let not_before = moving.as_ref().map_or(Duration::ZERO, |moving| moving.not_before.since(now));
        let error = match end {
            _ if book.leaving.is_some() => return Over::Ended(Ending::Left),
            End::Error(error) => error,
            end => {
                let (wait, why) = match moving {
                    // What it was told has its own random part.
                    Some(moving) if moving.why == Setback::TokenChanged => (Duration::ZERO, moving.why),
                    Some(moving) if !not_before.is_zero() => (not_before, moving.why),
                    Some(moving) => (book.settings.backoff.wait(1, &mut book.random), moving.why),
                    None => (failure(book), Setback::Ended(end)),
                };
                return Over::Again(wait, why);
            }
        };
        let mut judged = verdict(&error, book.access.has_others());
        let needs_token = judged == Verdict::End(Action::Reauthenticate) && book.access.is_anonymous();
        let is_allowed = error.reconnect.as_ref().is_some_and(|reconnect| reconnect.allowed);
        let denies =
            denies_resume(error.reason()) && (is_allowed || error.reason() == Reason::IdentityMismatch);
        if self.is_resuming && !self.is_open() && (denies || needs_token) {
            // It is the session that is refused, not the client: the next Hello does not ask for it.
            core.give_up(&mut |core, event| self.note(now, book, core, event));
            judged = Verdict::Again { at_once: true, after: after_of(&error) };
        }
        let (at_once, after) = match judged {
            Verdict::Again { at_once, after } => (at_once, after),
            Verdict::Renew { after } if book.access.refused(error.reason()) => (true, after),
            Verdict::Renew { .. } => {
                return Over::Ended(Ending::Refused(Box::new(error), Action::Reauthenticate));
            }
            Verdict::End(action) => return Over::Ended(Ending::Refused(Box::new(error), action)),
        };
        if let Some(reconnect) = &error.reconnect {
            book.addresses.name(&reconnect.addresses);
        }
        let backoff = failure(book);
        let backoff = if at_once && book.failures <= RETRIES_NOW_MAX { Duration::ZERO } else { backoff };
        Over::Again(after.max(backoff).max(not_before), Setback::Ended(End::Error(error)))
    }
}

/// Counts a session that was none, and says how long to wait.
fn failure(book: &mut Book) -> Duration {
    book.failures = book.failures.saturating_add(1);
    book.settings.backoff.wait(book.failures, &mut book.random)
}

fn missed(gap: &v1::Gap) -> Missed {
    let of_range = if gap.first == 0 { 0 } else { gap.last.saturating_sub(gap.first).saturating_add(1) };
    Missed::Pushes(of_range.saturating_add(gap.count), gap.reason())
}
