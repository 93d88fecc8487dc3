//! Who is online: what services were told of it, against who is there.

use crate::plant::Plant;
use crate::world::World;
use moorgate_proto::v1;
use moorgate_service::core::GatewayKey;
use std::collections::{BTreeMap, BTreeSet};

/// What one instance of a service knows.
#[derive(Debug, Default)]
struct View {
    /// The start of the gateway that it is about.
    boot: Option<GatewayKey>,
    /// Sessions by user.
    online: BTreeMap<String, u32>,
    /// Named since the last snapshot began.
    named: BTreeSet<String>,
    version: u64,
    is_whole: bool,
}

/// Judges presence by what services were told and which clients are there.
#[derive(Debug, Default)]
pub struct PresenceOracle {
    views: BTreeMap<String, View>,
}

/// What came of presence.
#[derive(Debug)]
pub enum Told {
    Event(v1::PresenceEvent),
    Bracket(v1::PresenceSnapshot),
}

impl PresenceOracle {
    /// An instance is told something by a link of this start of the gateway; what is wrong with it.
    fn told(&mut self, instance: &str, boot: &GatewayKey, told: Told) -> Option<String> {
        let view = self.views.entry(instance.to_owned()).or_default();
        if view.boot.as_ref() != Some(boot) {
            // What was known of an earlier start is known until the new one has told everything.
            (view.boot, view.version, view.is_whole) = (Some(boot.clone()), 0, false);
        }
        let version = match &told {
            Told::Event(event) => event.version,
            Told::Bracket(bracket) => bracket.version,
        };
        if version <= view.version {
            // Of a link that is lost, and was not the elected one any more.
            return None;
        }
        view.version = version;
        match told {
            Told::Bracket(bracket) if bracket.end => {
                let named = std::mem::take(&mut view.named);
                view.online.retain(|user, _| named.contains(user));
                view.is_whole = true;
            }
            Told::Bracket(_) => view.named.clear(),
            Told::Event(event) => {
                if event.online != (event.sessions > 0) {
                    return Some(format!("{instance} was told {event:?}"));
                }
                view.named.insert(event.user_id.clone());
                view.online.remove(&event.user_id);
                if event.online {
                    view.online.insert(event.user_id, event.sessions);
                }
            }
        }
        None
    }
}

impl World {
    pub fn note_presence(&mut self, at: usize, link: usize, told: Vec<Told>) {
        for told in told {
            if self.plant == Some(Plant::PresenceLost) && self.dice.chance(30) {
                continue;
            }
            let Some((instance, boot)) = self.link_peer(at, link) else { return };
            self.trace.note(self.now, "presence", (at as u64, link as u64), || {
                format!("endpoint {at} is told {told:?}")
            });
            let kit = &mut self.endpoints[at].presence;
            match &told {
                Told::Event(event) => kit.event(&boot, event),
                Told::Bracket(bracket) => kit.snapshot(self.now, &boot, bracket),
            }
            self.note_online(at);
            if let Some(problem) = self.presence.told(&instance, &boot, told) {
                self.oracle.violated(problem);
            }
        }
    }

    /// Takes in what the kit has found out of who is online.
    fn note_online(&mut self, at: usize) {
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
        self.note_online(at);
        for link in 0..self.endpoints[at].links.len() {
            let Some(service) = self.endpoints[at].links[link].as_mut() else { continue };
            if service.core.peer().is_some_and(|peer| over.contains(&peer.gateway)) {
                service.core.subscribe_presence();
                self.service_flush(at, link);
            }
        }
    }

    /// After a long calm every service knows who is there.
    pub fn presence_is_true(&mut self) {
        let mut online: BTreeMap<String, u32> = BTreeMap::new();
        let incarnations = self.clients.iter().filter(|client| client.is_here());
        for user in incarnations.filter_map(|client| self.pushes.user_of(client.incarnation)) {
            *online.entry(user).or_default() += 1;
        }
        for at in 0..self.endpoints.len() {
            let instance = self.endpoints[at].instance();
            if !self.scenario.presence || !self.endpoints[at].is_linked() {
                continue;
            }
            let (told, here) = (&self.endpoints[at].online, online.keys().cloned().collect::<BTreeSet<_>>());
            if *told != here {
                let what = format!("{instance}'s kit knows of {told:?}, and there are {here:?}");
                self.oracle.violated(what);
            }
            let known = self.presence.views.get(&instance).filter(|view| view.is_whole);
            let known = known.map(|view| view.online.clone());
            if known.as_ref() != Some(&online) {
                self.oracle.violated(format!("{instance} knows of {known:?}, and there are {online:?}"));
            }
        }
    }

    /// When everybody has left, and the grace is over, nobody is online.
    pub fn nobody_is_online(&mut self) {
        for at in 0..self.endpoints.len() {
            let instance = self.endpoints[at].instance();
            let known =
                self.presence.views.get(&instance).map(|view| view.online.clone()).unwrap_or_default();
            if self.endpoints[at].is_linked() && !known.is_empty() {
                self.oracle.violated(format!("all have left, and {instance} knows of {known:?}"));
            }
        }
    }
}
