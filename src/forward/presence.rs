//! Who is online, told to the services that want to know: on one link to each instance, by one worker for all.
//!
//! ```text
//!                                  ┌── changes are told between ──┐
//! elected ──► behind ── it has room: a snapshot begins ──► in a snapshot ── everybody was told: it ends ──► live
//!               ▲                                               │                                            │
//!               └──────── it does not read, or more has changed than can be kept ────────────────────────────┘
//! ```
//!
//! A change is told as it is when it is told: a user that changes often meanwhile is told once. Nothing is kept for a link
//! but where its snapshot stands, so one that does not read costs nothing, and later gets everybody anew.

use super::Forwarder;
use super::link::Link;
use super::notices::About;
use super::place::Place;
use crate::base::counters::Count;
use crate::base::ids::{LinkKey, WorkerId};
use crate::directory::Changed;
use crate::routing::Right;
use moorgate_proto::envelope::member::to_service;
use moorgate_proto::time::Mono;
use moorgate_proto::v1;
use moorgate_proto::v1::link_notice::Kind;
use prost::Message;
use std::sync::Arc;
use std::time::Duration;

/// The worker that tells.
const TELLER: WorkerId = WorkerId(0);
/// Changed users that are told in a turn.
const CHANGES_PER_TURN: usize = 1024;
/// Steps of a link's snapshot in a turn: a user that is told, or a part of the table that is looked at.
const STEPS_PER_TURN: usize = 2048;
/// Unsent bytes above which a snapshot waits: what comes between has room above.
const SNAPSHOT_BYTES_MAX: usize = 256 * 1024;

/// What the instance at the end of a link knows.
#[derive(Debug)]
enum Told {
    /// Not what it should: everybody is to be told.
    Behind,
    /// Everybody before this part of the table, but for these of the last one.
    Snapshot { next_part: usize, left: Vec<Arc<str>> },
    /// Everything.
    Live,
}

/// An elected link.
#[derive(Debug)]
struct Listener {
    link: LinkKey,
    told: Told,
}

/// Who listens.
#[derive(Debug, Default)]
pub(super) struct Presence {
    listeners: Vec<Listener>,
    /// Of the last event or bracket: one count for all.
    version: u64,
}

impl Forwarder {
    /// A service wants to know who is here.
    pub(super) fn subscribed(&mut self, now: Mono, key: LinkKey) {
        // Of a pair it is the main link that carries presence.
        let Some(link) = self.links.get_mut(key).filter(|link| !link.is_bulk()) else { return };
        let place = link.place;
        let grants = self.services.get(place.service.index()).map(|service| service.settings.grants);
        if !grants.is_some_and(|grants| grants.has(Right::Presence)) {
            self.cells.count(Count::PresenceRefused);
            let about = About { link: key, call_id: 0, push_id: &[] };
            return self.notice(now, about, Kind::PresenceRefused);
        }
        link.is_subscribed = true;
        if let Some(listener) = self.presence.listeners.iter_mut().find(|listener| listener.link == key) {
            // It has lost what it was told.
            listener.told = Told::Behind;
        } else if self.worker == TELLER && !self.has_listener(place) {
            self.elect(key);
        }
    }

    /// Begins every snapshot anew: services may have dropped the users of a gateway that was paused for longer than their
    /// lease.
    pub fn renew_presence(&mut self) {
        for listener in &mut self.presence.listeners {
            listener.told = Told::Behind;
        }
    }

    fn has_listener(&self, place: Place) -> bool {
        let is_same = |link: &Link| link.place.is_beside(place);
        self.presence.listeners.iter().any(|listener| self.links.get(listener.link).is_some_and(is_same))
    }

    fn elect(&mut self, link: LinkKey) {
        if self.presence.listeners.is_empty() {
            self.directory.watch_presence(true);
        }
        self.presence.listeners.push(Listener { link, told: Told::Behind });
    }

    /// A link is lost: if it was elected, another one to the same instance is.
    pub(super) fn elect_another(&mut self, lost: LinkKey, place: Place) {
        let Some(at) = self.presence.listeners.iter().position(|listener| listener.link == lost) else {
            return;
        };
        self.presence.listeners.swap_remove(at);
        let links = self.endpoint(place).into_iter().flat_map(|endpoint| endpoint.links(&self.links));
        let candidates = links.filter(|(_, link)| link.is_subscribed && link.is_open());
        // One that drains is about to be lost too.
        if let Some((key, _)) = candidates.max_by_key(|(_, link)| link.is_ready()) {
            self.elect(key);
        } else if self.presence.listeners.is_empty() {
            self.directory.watch_presence(false);
        }
    }

    /// Whether [`Forwarder::tell_presence`] has something to do.
    pub fn has_presence(&self) -> bool {
        let is_due = |listener: &Listener| {
            !matches!(listener.told, Told::Live) && self.has_room_for_snapshot(listener.link)
        };
        !self.presence.listeners.is_empty()
            && (self.directory.has_changed() || self.presence.listeners.iter().any(is_due))
    }

    fn has_room_for_snapshot(&self, key: LinkKey) -> bool {
        let bytes_max = SNAPSHOT_BYTES_MAX.min(self.settings.output_bytes_max / 2);
        self.links.get(key).is_some_and(|link| !link.output.is_above(bytes_max))
    }

    /// Tells who has come and gone since the last call, and goes on with snapshots, within a budget.
    pub fn tell_presence(&mut self) {
        if !self.has_presence() {
            return;
        }
        let mut listeners = std::mem::take(&mut self.presence.listeners);
        self.tell_changes(&mut listeners);
        for listener in &mut listeners {
            self.tell_everybody(listener);
            self.list(listener.link);
        }
        self.presence.listeners = listeners;
    }

    fn tell_changes(&mut self, listeners: &mut [Listener]) {
        if !self.directory.has_changed() {
            return;
        }
        let Changed { users, coalesced, overflowed } = self.directory.take_changed(CHANGES_PER_TURN);
        self.cells.add(Count::PresenceCoalesced, coalesced);
        if overflowed {
            self.cells.count(Count::PresenceOverflowed);
            listeners.iter_mut().for_each(|listener| listener.told = Told::Behind);
        }
        for user in users {
            if listeners.iter().all(|listener| matches!(listener.told, Told::Behind)) {
                return;
            }
            let event = self.event(&user).encode_to_vec();
            for listener in listeners.iter_mut() {
                let Some(link) = self.links.get_mut(listener.link) else { continue };
                if matches!(listener.told, Told::Behind) {
                    continue;
                }
                if link.output.is_above(self.settings.output_bytes_max) {
                    self.cells.count(Count::PresenceOverflowed);
                    listener.told = Told::Behind;
                } else {
                    link.put_encoded(to_service::PRESENCE_EVENT, &event);
                    self.cells.count(Count::PresenceEvents);
                }
            }
        }
    }

    /// Goes on with a link's snapshot.
    fn tell_everybody(&mut self, listener: &mut Listener) {
        for _ in 0..STEPS_PER_TURN {
            if matches!(listener.told, Told::Live) || !self.has_room_for_snapshot(listener.link) {
                return;
            }
            self.tell_next(listener);
        }
    }

    fn tell_next(&mut self, listener: &mut Listener) {
        let (next_part, left) = match &mut listener.told {
            Told::Live => return,
            Told::Behind => {
                self.bracket(listener.link, false);
                listener.told = Told::Snapshot { next_part: 0, left: Vec::new() };
                return;
            }
            Told::Snapshot { next_part, left } => (next_part, left),
        };
        if let Some(user) = left.pop() {
            let event = self.event(&user);
            // Whoever has gone meanwhile is told as a change.
            if event.online
                && let Some(link) = self.links.get_mut(listener.link)
            {
                link.put(to_service::PRESENCE_EVENT, &event);
                self.cells.count(Count::PresenceEvents);
            }
        } else if let Some(users) = self.directory.present_in(*next_part) {
            *left = users;
            *next_part = next_part.saturating_add(1);
        } else {
            self.bracket(listener.link, true);
            self.cells.count(Count::PresenceSnapshots);
            listener.told = Told::Live;
        }
    }

    fn bracket(&mut self, key: LinkKey, end: bool) {
        if let Some(link) = self.links.get_mut(key) {
            self.presence.version = self.presence.version.saturating_add(1);
            let bracket = v1::PresenceSnapshot { end, version: self.presence.version };
            link.put(to_service::PRESENCE_SNAPSHOT, &bracket);
        }
    }

    /// How a user is now.
    fn event(&mut self, user_id: &str) -> v1::PresenceEvent {
        self.presence.version = self.presence.version.saturating_add(1);
        let sessions = u32::try_from(self.directory.presence_of(user_id)).unwrap_or(u32::MAX);
        v1::PresenceEvent {
            gateway_id: self.settings.gateway_id.clone(),
            boot_id: self.boot_id,
            user_id: user_id.to_owned(),
            version: self.presence.version,
            online: sessions > 0,
            sessions,
            lease_ms: whole_ms(self.settings.presence_lease),
        }
    }
}

fn whole_ms(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}
