//! Users and their sessions.

use super::devices::{Displaced, Held};
use super::{Conflict, Life, Place, SessionRef, Settings};
use crate::base::sync::{Lock, Primitives};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasher;
use std::sync::Arc;

/// Locks; each guards the users that hash to it. Many, so that their tables do not all grow at once.
pub(super) const STRIPES: usize = 256;

/// Most users have one session.
#[derive(Debug)]
pub(super) enum Sessions {
    One(Held),
    /// In the order in which they came.
    Several(Vec<Held>),
}

impl Sessions {
    fn as_slice(&self) -> &[Held] {
        match self {
            Sessions::One(held) => std::slice::from_ref(held),
            Sessions::Several(several) => several,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Held] {
        match self {
            Sessions::One(held) => std::slice::from_mut(held),
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

    fn present(&self) -> usize {
        self.as_slice().iter().filter(|held| held.is_present).count()
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

    /// Adds a session, unless it is refused; those that have to go for it, and whether fewer or more are present now.
    pub(super) fn claim(
        &self,
        settings: &Settings,
        user_id: &Arc<str>,
        (session, place): (SessionRef, Place<'_>),
        life: impl Fn(SessionRef) -> Life,
    ) -> Result<(Displaced, bool), Conflict> {
        let new = settings.devices.held(&self.hash, session, place);
        let Some(stripe) = self.stripe(user_id) else { return Ok((Displaced::new(), false)) };
        stripe.with(|stripe| match stripe.entry(user_id.clone()) {
            Entry::Vacant(vacant) => {
                vacant.insert(Sessions::One(new));
                Ok((Displaced::new(), true))
            }
            Entry::Occupied(mut occupied) => {
                let sessions = occupied.get_mut();
                let max = settings.sessions_per_user;
                let displaced = settings.devices.judge(max, sessions.as_slice(), &new, life)?;
                let before = sessions.present();
                let goes = |held: &Held| displaced.iter().any(|(session, _)| *session == held.session);
                match displaced.is_empty() || sessions.remove(goes) {
                    true => sessions.add(new),
                    false => *sessions = Sessions::One(new),
                }
                let is_changed = before != sessions.present();
                Ok((displaced, is_changed))
            }
        })
    }

    /// Takes a session out, if it is there; the user's name, if fewer are present now.
    pub(super) fn release(&self, user_id: &str, session: SessionRef) -> Option<Arc<str>> {
        self.stripe(user_id)?.with(|stripe| {
            let is_it = |held: &Held| held.session == session;
            let name = stripe.get_key_value(user_id).map(|(name, _)| name.clone())?;
            let sessions = stripe.get_mut(user_id)?;
            let was_present = sessions.as_slice().iter().any(|held| is_it(held) && held.is_present);
            if !sessions.remove(is_it) {
                stripe.remove(user_id);
            }
            was_present.then_some(name)
        })
    }

    /// A session counts as present, or no more; the user's name, if that was otherwise before.
    pub(super) fn set_present(
        &self,
        user_id: &str,
        session: SessionRef,
        is_present: bool,
    ) -> Option<Arc<str>> {
        self.stripe(user_id)?.with(|stripe| {
            let name = stripe.get_key_value(user_id).map(|(name, _)| name.clone())?;
            let sessions = stripe.get_mut(user_id)?;
            let held = sessions.as_mut_slice().iter_mut().find(|held| held.session == session)?;
            let was_present = std::mem::replace(&mut held.is_present, is_present);
            (was_present != is_present).then_some(name)
        })
    }

    pub(super) fn sessions_of(&self, user_id: &str, mut with: impl FnMut(SessionRef)) -> usize {
        let Some(stripe) = self.stripe(user_id) else { return 0 };
        stripe.with(|stripe| {
            let sessions = stripe.get(user_id).map(Sessions::as_slice).unwrap_or_default();
            sessions.iter().for_each(|held| with(held.session));
            sessions.len()
        })
    }

    /// How many sessions of a user are present.
    pub(super) fn present(&self, user_id: &str) -> usize {
        let Some(stripe) = self.stripe(user_id) else { return 0 };
        stripe.with(|stripe| stripe.get(user_id).map_or(0, Sessions::present))
    }

    /// The users of one stripe of whom a session is present; `None`: there are not as many stripes.
    pub(super) fn present_in(&self, stripe: usize) -> Option<Vec<Arc<str>>> {
        let stripe = self.stripes.get(stripe)?;
        Some(stripe.with(|stripe| {
            let present = stripe.iter().filter(|(_, sessions)| sessions.present() > 0);
            present.map(|(name, _)| name.clone()).collect()
        }))
    }

    pub(super) fn len(&self) -> usize {
        self.stripes.iter().map(|stripe| stripe.with(|stripe| stripe.len())).sum()
    }
}
