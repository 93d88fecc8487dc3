//! How many devices and sessions a user may have, and who has to go for whom.
//!
//! A claim is judged against the sessions that the user has:
//!
//! | session | what becomes of it |
//! | --- | --- |
//! | of the same application and device | superseded, whatever the policy |
//! | a rival: of the same application, and of the same class where that counts | displaced, or stays if the older wins and it is attached |
//! | another one, beyond the limit of a user's sessions | the oldest detached, then, if the newer wins, the oldest |
//!
//! Where one that stands in the way stays, the newcomer is refused and nobody goes. So it is for a newcomer whose client is
//! away by now, when anybody would have to go whose client is not.

use super::order::{Conflict, Kick};
use super::{Life, Place, SessionRef};
use std::collections::HashMap;
use std::hash::BuildHasher;

/// Which devices of a user may be here at once, for each application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Allowed {
    /// As many as come.
    #[default]
    Any,
    /// One of each class.
    OnePerClass,
    /// One.
    One,
}

/// Who stays when two sessions cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wins {
    /// The one that comes.
    #[default]
    Newer,
    /// The one that is there, while its client is.
    Older,
}

/// What a deployment allows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DevicePolicy {
    /// Which devices at once.
    pub allowed: Allowed,
    /// Who stays.
    pub wins: Wins,
    /// Which platforms are of one class.
    pub classes: DeviceClasses,
}

/// The class of each platform, without regard to case; one that is not listed is a class of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceClasses(HashMap<String, u16>);

impl DeviceClasses {
    /// Puts a platform into a class; whether it was in none before.
    pub fn insert(&mut self, platform: &str, class: u16) -> bool {
        self.0.insert(platform.to_lowercase(), class).is_none()
    }

    fn of(&self, platform: &str) -> Class {
        let platform = platform.to_lowercase();
        self.0.get(&platform).map_or(Class::Own(platform), |class| Class::Listed(*class))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Class {
    Listed(u16),
    Own(String),
}

/// A session that its user holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) session: SessionRef,
    /// Stands for application and device; 0: nobody knows the device.
    place: u32,
    /// Stands for what only one session may have; 0: nobody is in its way.
    seat: u32,
    /// Whether its user counts as online for it.
    pub(super) is_present: bool,
}

/// Never 0. A user has few sessions: half of a hash is enough to tell them apart.
fn mark(hash: u64) -> u32 {
    u32::try_from(hash >> 32).unwrap_or_default().max(1)
}

/// Whom a claim displaces.
pub(super) type Displaced = Vec<(SessionRef, Kick)>;

impl DevicePolicy {
    /// A session that claims to be in this place.
    pub(super) fn held(&self, hash: &impl BuildHasher, session: SessionRef, place: Place<'_>) -> Held {
        let Place { application, device_id, platform } = place;
        let seat = match self.allowed {
            Allowed::Any => 0,
            Allowed::OnePerClass => mark(hash.hash_one((application, self.classes.of(platform)))),
            Allowed::One => mark(hash.hash_one(application)),
        };
        let place = match device_id {
            "" => 0,
            device_id => mark(hash.hash_one((application, device_id))),
        };
        Held { session, place, seat, is_present: true }
    }

    /// Who has to go for `new`. `sessions` are those of its user, the oldest first.
    pub(super) fn judge(
        &self,
        sessions_max: usize,
        sessions: &[Held],
        new: &Held,
        life: impl Fn(SessionRef) -> Life,
    ) -> Result<Displaced, Conflict> {
        let is_attached = |held: &Held| life(held.session) == Life::Attached;
        let mut displaced = Displaced::new();
        let mut others = 0usize;
        for held in sessions {
            if held.is_in_place_of(new) {
                displaced.push((held.session, Kick::Superseded));
            } else if !held.is_rival_of(new) {
                others = others.saturating_add(1);
            } else if self.wins == Wins::Older && is_attached(held) {
                return Err(Conflict::Device);
            } else {
                displaced.push((held.session, Kick::Conflict(Conflict::Device)));
            }
        }
        let excess = others.saturating_add(1).saturating_sub(sessions_max.max(1));
        if excess > 0 {
            let stays = |held: &&Held| !held.is_in_place_of(new) && !held.is_rival_of(new);
            let mut others: Vec<&Held> = sessions.iter().filter(stays).collect();
            // The detached ones first, and of each kind the oldest.
            others.sort_by_cached_key(|held| is_attached(held));
            others.truncate(excess);
            if self.wins == Wins::Older && others.iter().any(|held| is_attached(held)) {
                return Err(Conflict::Limit);
            }
            displaced.extend(others.iter().map(|held| (held.session, Kick::Conflict(Conflict::Limit))));
        }
        // A login that was asked for before the connection was lost: its session does not win against who is here.
        let is_away = life(new.session) == Life::Detached;
        if is_away && displaced.iter().any(|(session, _)| life(*session) == Life::Attached) {
            return Err(Conflict::Device);
        }
        Ok(displaced)
    }
}

impl Held {
    /// Whether both are on one device, so that the later replaces the earlier.
    fn is_in_place_of(&self, new: &Held) -> bool {
        self.place != 0 && self.place == new.place
    }

    /// Whether one of the two has to go.
    fn is_rival_of(&self, new: &Held) -> bool {
        self.seat != 0 && self.seat == new.seat
    }
}
