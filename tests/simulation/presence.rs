//! Presence: each instance of the service learns who is online, and after a long calm it knows it.

use crate::world::{Plant, World};
use moorgate_service::core::GatewayKey;
use std::collections::BTreeSet;

impl World {
    /// The worker tells, a little at a time. A turn follows while it has more to tell.
    pub fn tell_presence(&mut self) {
        if self.plant == Some(Plant::LostPresence) && self.dice.chance(30) {
            self.scenario.directory.take_changed(1);
        }
        self.worker.forwarder.tell_presence();
    }

    /// Whoever tells is woken when somebody has come or gone.
    pub fn wake_teller(&mut self) {
        if self.worker.forwarder.has_presence() {
            self.wake_worker();
        }
    }

    /// Takes in what the kit has found out of who is online.
    pub fn note_presence(&mut self, at: usize) {
        while let Some(change) = self.endpoints[at].presence.poll_change() {
            let user = change.user_id.to_string();
            let is_news = match change.online {
                true => self.endpoints[at].online.insert(user),
                false => self.endpoints[at].online.remove(&user),
            };
            if !is_news {
                self.oracle.violated(format!("instance {at} was told twice: {change:?}"));
            }
        }
    }

    /// Gateways that were silent for too long are asked anew.
    pub fn presence_timers(&mut self, at: usize) {
        let over: Vec<GatewayKey> = self.endpoints[at].presence.timers(self.now);
        self.note_presence(at);
        for link in 0..self.endpoints[at].links.len() {
            let Some(service) = self.endpoints[at].links[link].as_mut() else { continue };
            if service.core.peer().is_some_and(|peer| over.contains(&peer.gateway)) {
                service.core.subscribe_presence();
                self.service_flush(at, link);
            }
        }
    }

    /// After a long calm: who is online, as the clients know themselves, and as each instance was told.
    pub fn judge_presence(&mut self) {
        let sessions = self.clients.iter().filter_map(|client| self.pushes.user_of(client.incarnation()));
        let here: BTreeSet<String> = sessions.map(str::to_owned).collect();
        for at in 0..self.endpoints.len() {
            if self.endpoints[at].online != here {
                let told = &self.endpoints[at].online;
                let what = format!("{here:?} are online, and instance {at} was told of {told:?}");
                self.oracle.violated(what);
            }
        }
    }
}
