//! What all threads share about who is here: users and their sessions, groups and the shards that have members, and a
//! lane of orders to each shard.
//!
//! | who | asks |
//! | --- | --- |
//! | a shard, for its sessions | [`Directory::claim`], [`Directory::release`], [`Directory::leave`], [`Directory::take_orders`] |
//! | a worker, for services | [`Directory::sessions_of`], [`Directory::join`], [`Directory::shards_of`], [`Directory::kick_user`] |
//! | the operator's thread | [`Directory::kick_user`], [`Directory::kick_session`], [`Directory::sweep`] |
//!
//! Everything here is decided under short locks, one for each stripe of users or groups; none is taken on the way of a
//! request. A session that the directory names may have ended meanwhile: its key then finds nobody.
//!
//! A user's sessions are decided on under one lock, so that of two sessions on one device, which open at the same time
//! on two shards, exactly one stays: the one that claims later. Whoever makes tokens worthless first says so in
//! [`crate::auth::Revocations`] and then looks for sessions here; a shard claims first and then asks there: one of the
//! two sees the other.

mod door;
mod groups;
#[cfg(test)]
mod races;
mod recent;
#[cfg(test)]
mod tests;
mod users;

pub use door::{Kick, Order};
pub use recent::{Recall, RecentPushes};

use crate::base::bell::Ring;
use crate::base::ids::{SessionId, SessionKey, ShardId};
use crate::base::sync::{Native, Primitives};
use door::Door;
use groups::Groups;
use std::sync::Arc;
use users::Users;

/// A session, wherever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionRef {
    /// On which shard.
    pub shard: ShardId,
    /// Which of its sessions.
    pub key: SessionKey,
}

/// Where a session claims its user to be: another session in the same place has to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// Which application.
    pub application: &'a str,
    /// Which device; empty: nobody knows, so it takes nobody's place.
    pub device_id: &'a str,
}

/// See the module's page.
pub struct Directory<P: Primitives = Native> {
    users: Users<P>,
    groups: Groups,
    doors: Vec<Door<P>>,
}

impl<P: Primitives> std::fmt::Debug for Directory<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory").field("doors", &self.doors.len()).finish_non_exhaustive()
    }
}

impl Directory {
    /// An empty one, for shards that wake by these bells; each with a seed of its own, random and secret.
    pub fn new(shards: Vec<(Arc<dyn Ring>, u64)>) -> Directory {
        Directory::with_stripes(shards, users::STRIPES)
    }

    /// The same for shards that look for themselves: a single thread in a test, a benchmark or a simulation.
    pub fn unrung(shards: u16, seed: u64) -> Directory {
        Directory::new(
            (0..shards).map(|at| (Arc::new(()) as Arc<dyn Ring>, seed ^ u64::from(at) << 32)).collect(),
        )
    }
}

impl<P: Primitives> Directory<P> {
    fn with_stripes(shards: Vec<(Arc<dyn Ring>, u64)>, stripes: usize) -> Directory<P> {
        let doors: Vec<Door<P>> = shards.into_iter().map(|(bell, seed)| Door::new(bell, seed)).collect();
        Directory { users: Users::new(stripes), groups: Groups::new(doors.len()), doors }
    }

    fn door(&self, shard: ShardId) -> Option<&Door<P>> {
        self.doors.get(shard.index())
    }

    /// All shards.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + '_ {
        (0u16..).map(ShardId).zip(&self.doors).map(|(shard, _)| shard)
    }

    // ---- ids of sessions ----

    /// The id of a session: 128 bits that no other session of any shard or start of a gateway has.
    pub fn id_of(&self, session: SessionRef) -> SessionId {
        self.door(session.shard).map(|door| door.id_of(session.key)).unwrap_or_default()
    }

    /// The session that has this id, if it is one of this gateway's; whether it still lives, its shard knows.
    pub fn session_of(&self, id: SessionId) -> Option<SessionRef> {
        self.shards().zip(&self.doors).find_map(|(shard, door)| {
            let key = door.key_of(id)?;
            Some(SessionRef { shard, key })
        })
    }

    // ---- users ----

    /// A session of `user_id` opens. Another one in the same place is ordered to end.
    pub fn claim(&self, user_id: &Arc<str>, session: SessionRef, place: Place<'_>) {
        for displaced in self.users.claim(user_id, session, place) {
            self.order(displaced, Kick::Superseded);
        }
    }

    /// A session of `user_id` has ended.
    pub fn release(&self, user_id: &str, session: SessionRef) {
        self.users.release(user_id, session);
    }

    /// Calls `with` for each session of a user; how many there are.
    pub fn sessions_of(&self, user_id: &str, with: impl FnMut(SessionRef)) -> usize {
        self.users.sessions_of(user_id, with)
    }

    /// Users with a session.
    pub fn users(&self) -> usize {
        self.users.len()
    }

    // ---- orders ----

    /// Orders every session of a user to end; how many there are.
    pub fn kick_user(&self, user_id: &str, kick: &Kick) -> usize {
        let mut sessions = Vec::new();
        self.users.sessions_of(user_id, |session| sessions.push(session));
        sessions.into_iter().filter(|session| self.order(*session, kick.clone())).count()
    }

    /// Orders a session to end; whether its id is one of this gateway's.
    pub fn kick_session(&self, id: SessionId, kick: Kick) -> bool {
        self.session_of(id).is_some_and(|session| self.order(session, kick))
    }

    /// Orders every session whose token is revoked to end; for a token whose user nobody knows.
    pub fn sweep(&self) {
        self.doors.iter().for_each(Door::sweep);
    }

    fn order(&self, session: SessionRef, kick: Kick) -> bool {
        self.door(session.shard).is_some_and(|door| door.order(session.key, kick))
    }

    /// Takes the orders to a shard.
    pub fn take_orders(&self, shard: ShardId) -> Vec<Order> {
        self.door(shard).map(Door::take).unwrap_or_default()
    }

    /// Whether a shard has orders to carry out.
    pub fn has_orders(&self, shard: ShardId) -> bool {
        self.door(shard).is_some_and(Door::has_orders)
    }

    // ---- groups ----

    /// A session on this shard is about to join a group; [`Directory::leave`] takes it back.
    pub fn join(&self, group: &str, shard: ShardId) {
        self.groups.join(group, shard);
    }

    /// A session on this shard has left a group, or has not joined it after all.
    pub fn leave(&self, group: &str, shard: ShardId) {
        self.groups.leave(group, shard);
    }

    /// Calls `with` for each shard with members of a group, with their number.
    pub fn shards_of(&self, group: &str, with: impl FnMut(ShardId, u32)) {
        self.groups.shards_of(group, with);
    }

    /// Groups with members.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    // ---- room for pushes ----

    /// Takes room for `targets` deliveries at a shard, of `max` in all; whether there was room.
    pub fn reserve(&self, shard: ShardId, targets: usize, max: usize) -> bool {
        self.door(shard).is_some_and(|door| door.reserve(targets, max))
    }

    /// Gives room back.
    pub fn unreserve(&self, shard: ShardId, targets: usize) {
        if let Some(door) = self.door(shard) {
            door.unreserve(targets);
        }
    }

    /// Deliveries for which room is taken.
    pub fn reserved(&self, shard: ShardId) -> usize {
        self.door(shard).map_or(0, Door::reserved)
    }

    /// A shard says how many sessions it has.
    pub fn set_sessions(&self, shard: ShardId, sessions: usize) {
        if let Some(door) = self.door(shard) {
            door.set_sessions(sessions);
        }
    }

    /// How many sessions a shard has.
    pub fn sessions(&self, shard: ShardId) -> usize {
        self.door(shard).map_or(0, Door::sessions)
    }
}
