//! Sessions that a service has to confirm before they open. A question that finds no link, loses its link, or is
//! answered by nobody, is answered as such; the shard that asked keeps the time.

use super::choose::Wish;
use super::place::Place;
use super::{Forwarder, Timer};
use crate::base::clock::Now;
use crate::base::ids::{CheckKey, ConnectionKey, LinkKey, ServiceId, ShardId};
use crate::base::text::cut;
use crate::base::wheel::Alarm;
use crate::relay::{Check, Checked, Delivery, Verdict};
use crate::routing::{self, Ended, Fault};
use moorgate_proto::envelope::member::to_service;
use moorgate_proto::limits::MESSAGE_BYTES;
use moorgate_proto::time::Mono;
use moorgate_proto::v1;
use prost::Message;
use std::time::Duration;

/// Questions without an answer at one worker; beyond it they are answered at once, by nobody.
const CHECKS_MAX: usize = 64 * 1024;

/// A question that was asked.
#[derive(Debug)]
pub(super) struct Asked {
    shard: ShardId,
    connection: ConnectionKey,
    link: LinkKey,
    place: Place,
    at: Mono,
}

/// A question that waits for the first link to its service.
#[derive(Debug)]
pub(super) struct Parked {
    shard: ShardId,
    connection: ConnectionKey,
    deadline: Mono,
    caller: Box<[u8]>,
}

impl Forwarder {
    /// A shard asks about a session that is to open.
    pub(super) fn check(&mut self, now: Mono, shard: ShardId, check: &Check, caller: &[u8]) {
        let (connection, deadline) = (check.connection, check.deadline);
        let is_awaited = self.check_service.and_then(|id| self.service(id)).is_some_and(|it| it.is_awaited);
        if !is_awaited {
            return self.ask_check(now, (shard, connection, deadline), caller);
        }
        // The shard keeps the time of those that are late.
        while self.parked.front().is_some_and(|parked| parked.deadline <= now) {
            self.parked.pop_front();
        }
        if self.parked.len() < CHECKS_MAX {
            self.parked.push_back(Parked { shard, connection, deadline, caller: caller.into() });
        } else {
            self.checked(shard, connection, Verdict::Unavailable);
        }
    }

    /// There is a first link: asks what has waited for it.
    pub(super) fn ask_parked_checks(&mut self, now: Mono) {
        if self.parked.is_empty() {
            return;
        }
        let is_awaited = self.check_service.and_then(|id| self.service(id)).is_some_and(|it| it.is_awaited);
        if is_awaited {
            return;
        }
        for Parked { shard, connection, deadline, caller } in std::mem::take(&mut self.parked) {
            self.ask_check(now, (shard, connection, deadline), &caller);
        }
    }

    /// There will be no link.
    pub(super) fn answer_parked_checks(&mut self) {
        for Parked { shard, connection, .. } in std::mem::take(&mut self.parked) {
            self.checked(shard, connection, Verdict::Unavailable);
        }
    }

    fn ask_check(
        &mut self,
        now: Mono,
        (shard, connection, deadline): (ShardId, ConnectionKey, Mono),
        caller: &[u8],
    ) {
        let choice = match self.check_service {
            Some(service) if deadline > now && self.checks.len() < CHECKS_MAX => {
                let ask = self.ask_about(service, || caller);
                self.choose(now, service, ask, Wish::default()).ok()
            }
            _ => None,
        };
        let place = choice.and_then(|choice| Some((choice, self.links.get(choice.link)?.place)));
        let Some((choice, place)) = place else {
            return self.checked(shard, connection, Verdict::Unavailable);
        };
        let link_key = choice.link;
        let asked = Asked { shard, connection, link: link_key, place, at: now };
        let key = self.checks.insert(asked);
        self.started(choice);
        let question = v1::SessionCheck {
            check_id: key.to_u64(),
            // It was encoded by the shard: it can be read.
            caller: Some(v1::Caller::decode(caller).unwrap_or_default()),
        };
        if let Some(link) = self.links.get_mut(link_key) {
            link.checks = link.checks.saturating_add(1);
            link.put(to_service::SESSION_CHECK, &question);
        }
        self.list(link_key);
        // Nothing is kept but this entry, and nobody moves its deadline: an alarm of its own would be never used again.
        self.wheel.arm(&mut Alarm::default(), Timer::Check(key), deadline);
    }

    /// A service has answered.
    pub(super) fn verdict(&mut self, now: Now, link: LinkKey, said: &v1::SessionVerdict) {
        let key = CheckKey::from_u64(said.check_id);
        // One that is not known, or was asked elsewhere, is late or made up.
        if self.checks.get(key).is_none_or(|asked| asked.link != link) {
            return;
        }
        let Some(asked) = self.answered(now.mono, key, (routing::Verdict::Good, None)) else { return };
        let cache = Duration::from_millis(u64::from(said.cache_ms));
        let verdict = if said.admitted {
            Verdict::Admitted(cache)
        } else {
            let message = cut(&said.message, MESSAGE_BYTES).into();
            Verdict::Refused { reason: said.reason(), message, cache }
        };
        self.checked(asked.shard, asked.connection, verdict);
        self.end_finished(now.mono, link);
        self.send_waiting(now.mono, asked.place.service);
    }

    /// Takes a question out that is over, and tells the pool what it says of the endpoint. Its place is free: the queue is
    /// to be looked at.
    fn answered(
        &mut self,
        now: Mono,
        key: CheckKey,
        (verdict, fault): (routing::Verdict, Option<Fault>),
    ) -> Option<Asked> {
        let asked = self.checks.remove(key)?;
        if let Some(link) = self.links.get_mut(asked.link) {
            link.checks = link.checks.saturating_sub(1);
        }
        let ended = Ended {
            seat: usize::from(asked.place.seat),
            latency: now.since(asked.at),
            verdict,
            fault,
            origin: None,
        };
        self.ended(now, asked.place.service, ended);
        Some(asked)
    }

    /// A question was not answered in time.
    pub(super) fn check_is_late(&mut self, now: Mono, key: CheckKey) {
        if let Some(asked) = self.answered(now, key, (routing::Verdict::Failed, Some(Fault::Timeout))) {
            self.end_finished(now, asked.link);
            self.send_waiting(now, asked.place.service);
        }
    }

    /// Questions that are out on a link.
    pub(super) fn checks_on(&self, link: LinkKey) -> impl Iterator<Item = CheckKey> + '_ {
        self.checks.keys().filter(move |key| self.checks.get(*key).is_some_and(|asked| asked.link == link))
    }

    /// Questions to a service that are out.
    pub(super) fn checks_of(&self, service: ServiceId) -> usize {
        self.checks.values().filter(|asked| asked.place.service == service).count()
    }

    /// Of them, those at the endpoint of this seat.
    pub(super) fn checks_at(&self, service: ServiceId, seat: u16) -> usize {
        let there = |asked: &&Asked| (asked.place.service, asked.place.seat) == (service, seat);
        self.checks.values().filter(there).count()
    }

    /// A link is lost: nobody will answer what was asked on it. The pool is told of the loss once, unless it `is_told`.
    pub(super) fn unanswered_checks(&mut self, now: Mono, link: LinkKey, mut is_told: bool) {
        let mut lost: Vec<CheckKey> = self.checks_on(link).collect();
        lost.sort_unstable_by_key(|key| std::cmp::Reverse(self.checks.get(*key).map(|asked| asked.at)));
        for key in lost {
            let verdict = if is_told { routing::Verdict::Nothing } else { routing::Verdict::Failed };
            is_told = true;
            if let Some(asked) = self.answered(now, key, (verdict, Some(Fault::Lost))) {
                self.checked(asked.shard, asked.connection, Verdict::Unavailable);
            }
        }
    }

    fn checked(&mut self, shard: ShardId, connection: ConnectionKey, verdict: Verdict) {
        self.deliver(shard, Delivery::Checked(Checked { connection, verdict }));
    }
}
