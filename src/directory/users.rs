//! Users and their sessions.

use super::{Place, SessionRef};
use crate::base::sync::{Lock, Primitives};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasher;
use std::sync::Arc;

/// Locks; each guards the users that hash to it. Many, so that their tables do not all grow at once.
pub(super) const STRIPES: usize = 256;

/// A session, and where it says that its user is; 0: it does not say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    session: SessionRef,
    place: u64,
}

/// Most users have one session.
#[derive(Debug)]
pub(super) enum Sessions {
    One(Held),
    Several(Vec<Held>),
}

impl Sessions {
    fn as_slice(&self) -> &[Held] {
        match self {
            Sessions::One(held) => std::slice::from_ref(held),
            Sessions::Several(several) => several,
        }
    }

    fn add(&mut self, new: Held) {
        match self {
            Sessions::One(one) => *self = Sessions::Several(vec![*one, new]),
            Sessions::Several(several) => several.push(new),
        }
    }

    /// Takes out those that go; whether somebody is left.
    fn remove(&mut self, goes: impl Fn(&Held) -> bool) -> bool {
        match self {
            Sessions::One(one) => !goes(one),
            Sessions::Several(several) => {
                several.retain(|held| !goes(held));
                if let [one] = several.as_slice() {
                    *self = Sessions::One(*one);
                }
                !self.as_slice().is_empty()
            }
        }
    }
}

pub(super) type Stripe = HashMap<Arc<str>, Sessions, foldhash::fast::RandomState>;

pub(super) struct Users<P: Primitives> {
    stripes: Vec<P::Mutex<Stripe>>,
    hash: foldhash::quality::RandomState,
}

impl<P: Primitives> Users<P> {
    pub(super) fn new(stripes: usize) -> Users<P> {
        let stripes = (0..stripes.max(1)).map(|_| P::Mutex::new(Stripe::default())).collect();
        Users { stripes, hash: Default::default() }
    }

    fn stripe(&self, user_id: &str) -> Option<&P::Mutex<Stripe>> {
        let at = self.hash.hash_one(user_id) % (self.stripes.len().max(1) as u64);
        self.stripes.get(usize::try_from(at).unwrap_or_default())
    }

    fn place_of(&self, place: Place<'_>) -> u64 {
        if place.device_id.is_empty() {
            return 0;
        }
        self.hash.hash_one((place.application, place.device_id)).max(1)
    }

    /// Adds a session; those that have to go for it.
    pub(super) fn claim(&self, user_id: &Arc<str>, session: SessionRef, place: Place<'_>) -> Vec<SessionRef> {
        let place = self.place_of(place);
        let new = Held { session, place };
        let Some(stripe) = self.stripe(user_id) else { return Vec::new() };
        stripe.with(|stripe| match stripe.entry(user_id.clone()) {
            Entry::Vacant(vacant) => {
                vacant.insert(Sessions::One(new));
                Vec::new()
            }
            Entry::Occupied(mut occupied) => {
                let goes = |held: &Held| place != 0 && held.place == place;
                let sessions = occupied.get_mut();
                let displaced = sessions.as_slice().iter().filter(|held| goes(held));
                let displaced: Vec<SessionRef> = displaced.map(|held| held.session).collect();
                match displaced.is_empty() || sessions.remove(goes) {
                    true => sessions.add(new),
                    false => *sessions = Sessions::One(new),
                }
                displaced
            }
        })
    }

    /// Takes a session out, if it is there.
    pub(super) fn release(&self, user_id: &str, session: SessionRef) {
        let Some(stripe) = self.stripe(user_id) else { return };
        stripe.with(|stripe| {
            let Some(sessions) = stripe.get_mut(user_id) else { return };
            if !sessions.remove(|held| held.session == session) {
                stripe.remove(user_id);
            }
        });
    }

    pub(super) fn sessions_of(&self, user_id: &str, mut with: impl FnMut(SessionRef)) -> usize {
        let Some(stripe) = self.stripe(user_id) else { return 0 };
        stripe.with(|stripe| {
            let sessions = stripe.get(user_id).map(Sessions::as_slice).unwrap_or_default();
            sessions.iter().for_each(|held| with(held.session));
            sessions.len()
        })
    }

    pub(super) fn len(&self) -> usize {
        self.stripes.iter().map(|stripe| stripe.with(|stripe| stripe.len())).sum()
    }
}
