//! A service confirms new sessions of users before they are welcomed: does the user exist, is it banned? What it says
//! may be kept for a while. The shard never waits: the connection does, with a deadline. What its client sends meanwhile
//! is held, and read right after Welcome.

use super::Shard;
use super::connection::State;
use crate::base::clock::Now;
use crate::base::counters::Count;
use crate::base::ids::ConnectionKey;
use crate::relay::{Check, Checked, Verdict};
use crate::session::{Fault, Opened};
use moorgate_proto::limits::FRAME_BYTES_OPENING;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::Reason;
use prost::Message;
use std::collections::HashMap;
use std::time::Duration;

/// Verdicts that are kept; beyond it the service is asked again.
const VERDICTS_MAX: usize = 64 * 1024;
/// How often a full memory is searched for verdicts that are over.
const FORGET_EVERY: Duration = Duration::from_secs(1);
/// The longest time for which one is kept, whatever a service says.
const KEPT_MAX: Duration = Duration::from_secs(3600);

/// What was said of a user of an application.
#[derive(Debug)]
struct Kept {
    until: Mono,
    refusal: Option<(Reason, Box<str>)>,
}

type Who = (Box<str>, Box<str>);

fn who(opened: &Opened) -> Who {
    (opened.who().user_id.as_str().into(), opened.who().application.as_str().into())
}

/// An opening that waits for its verdict.
#[derive(Debug)]
struct Waiting {
    opened: Opened,
    /// Bytes that have come behind the Hello, at most [`FRAME_BYTES_OPENING`].
    early: Vec<u8>,
}

/// Who waits, and what was said before.
#[derive(Debug, Default)]
pub(super) struct Confirmations {
    waiting: HashMap<ConnectionKey, Box<Waiting>, foldhash::fast::FixedState>,
    kept: HashMap<Who, Kept, foldhash::fast::RandomState>,
    /// Before that none of them is over: there is nothing to forget.
    full_until: Mono,
}

impl Confirmations {
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Drops an opening; how many bytes were held of it.
    pub(super) fn forget(&mut self, key: ConnectionKey) -> usize {
        self.waiting.remove(&key).map_or(0, |waiting| waiting.early.len())
    }

    /// Bytes held of an opening.
    pub(super) fn early_of(&self, key: ConnectionKey) -> usize {
        self.waiting.get(&key).map_or(0, |waiting| waiting.early.len())
    }

    /// Bytes held of all openings.
    pub(super) fn early_bytes(&self) -> usize {
        self.waiting.values().map(|waiting| waiting.early.len()).sum()
    }

    /// What is known already.
    fn recall(&self, now: Mono, opened: &Opened) -> Option<Result<(), Fault>> {
        let kept = self.kept.get(&who(opened)).filter(|kept| now < kept.until)?;
        Some(match &kept.refusal {
            None => Ok(()),
            Some((reason, message)) => {
                Err(Fault::SessionRefused { reason: *reason, message: message.clone() })
            }
        })
    }

    fn keep(&mut self, now: Mono, opened: &Opened, (refusal, time): (Option<(Reason, Box<str>)>, Duration)) {
        if time.is_zero() {
            self.kept.remove(&who(opened));
            return;
        }
        if self.kept.len() >= VERDICTS_MAX && now >= self.full_until {
            self.kept.retain(|_, kept| now < kept.until);
            let next = self.kept.values().map(|kept| kept.until).min();
            // Not for each one that is over: that would be a look at all of them each time.
            self.full_until = next.map_or(now, |next| next.max(now + FORGET_EVERY));
        }
        if self.kept.len() < VERDICTS_MAX {
            self.kept.insert(who(opened), Kept { until: now + time.min(KEPT_MAX), refusal });
        }
    }
}

impl Shard {
    /// Asks the service, unless its last word still holds.
    pub(super) fn confirm(&mut self, now: Now, key: ConnectionKey, opened: Opened) -> Result<(), Fault> {
        let Some(check) = &self.settings.check else { return self.welcome(now, key, &opened) };
        if let Some(known) = self.confirmations.recall(now.mono, &opened) {
            self.cells.count(Count::ChecksCached);
            known?;
            return self.welcome(now, key, &opened);
        }
        let deadline = now.mono + check.timeout;
        self.cells.count(Count::ChecksAsked);
        let caller = self.batch.arena.put(&opened.who().encode_to_vec());
        self.batch.checks.push(Check { connection: key, deadline, caller });
        if let Some(connection) = self.connections.get_mut(key) {
            connection.state = State::Confirming(deadline);
        }
        self.confirmations.waiting.insert(key, Box::new(Waiting { opened, early: Vec::new() }));
        self.arm(key, deadline);
        Ok(())
    }

    /// Holds what comes before the verdict, within the budget of unfinished frames. More than a client may send ends the
    /// connection.
    pub(super) fn hold_early(&mut self, key: ConnectionKey, bytes: &[u8]) -> Result<(), Fault> {
        let Some(waiting) = self.confirmations.waiting.get_mut(&key) else { return Ok(()) };
        if waiting.early.len().saturating_add(bytes.len()) > FRAME_BYTES_OPENING {
            return Err(Fault::EarlyExceeded);
        }
        waiting.early.extend_from_slice(bytes);
        self.partial_bytes = self.partial_bytes.saturating_add(bytes.len());
        Ok(())
    }

    /// The service has said something, or cannot.
    pub(super) fn checked(&mut self, now: Now, checked: Checked) {
        let Checked { connection: key, verdict } = checked;
        // It may have gone, or have waited too long.
        let Some(waiting) = self.confirmations.waiting.remove(&key) else { return };
        let Waiting { opened, early } = *waiting;
        self.partial_bytes = self.partial_bytes.saturating_sub(early.len());
        let result = match verdict {
            Verdict::Admitted(cache) => {
                self.cells.count(Count::ChecksAdmitted);
                self.confirmations.keep(now.mono, &opened, (None, cache));
                self.welcome(now, key, &opened)
            }
            Verdict::Refused { reason, message, cache } => {
                self.cells.count(Count::ChecksRefused);
                self.confirmations.keep(now.mono, &opened, (Some((reason, message.clone())), cache));
                Err(Fault::SessionRefused { reason, message })
            }
            Verdict::Unavailable => {
                self.cells.count(Count::ChecksFailed);
                match self.settings.check.as_ref().is_some_and(|check| check.fail_open) {
                    true => self.welcome(now, key, &opened),
                    false => Err(Fault::SessionUnconfirmed),
                }
            }
        };
        match result {
            Ok(()) if early.is_empty() => {}
            Ok(()) => {
                self.take_bytes(now, key, &early);
            }
            Err(fault) => self.fault(now, key, fault),
        }
    }

    /// Nothing was heard in time.
    pub(super) fn unconfirmed(&mut self, now: Now, key: ConnectionKey) {
        self.checked(now, Checked { connection: key, verdict: Verdict::Unavailable });
    }
}
