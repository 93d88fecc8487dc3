//! What all threads share about who is here: users and their sessions, groups and the shards that have members, and a
//! lane of orders to each shard.
//!
//! | who | asks |
//! | --- | --- |
//! | a shard, for its sessions | [`Directory::note`], [`Directory::claim`], [`Directory::away`], [`Directory::back`], [`Directory::release`], [`Directory::leave`], [`Directory::take_orders`] |
//! | a worker, for services | [`Directory::sessions_of`], [`Directory::life`], [`Directory::join`], [`Directory::shards_of`], [`Directory::kick_user`] |
//! | one worker, for presence | [`Directory::watch_presence`], [`Directory::take_changed`], [`Directory::presence_of`], [`Directory::present_in`] |
//! | the operator's thread | [`Directory::kick_user`], [`Directory::kick_session`], [`Directory::sweep`] |
//!
//! Everything here is decided under short locks, one for each stripe of users or groups; none is taken on the way of a
//! request. A session that the directory names may have ended meanwhile: its key then finds nobody.
//!
//! A user's sessions are decided on under one lock, so that of two sessions on one device, which open at the same time
//! on two shards, exactly one stays: the one that claims later; and where a [`DevicePolicy`] lets only one of several
//! devices in, exactly one is. Whoever makes tokens worthless first says so in
//! [`crate::auth::Revocations`] and then looks for sessions here; a shard claims first and then asks there: one of the
//! two sees the other.
//!
//! A user is present from the claim of the first session on until the last has ended, or has been without a connection
//! for too long, which its shard says. What changes of it is noted only while somebody watches, after the change itself:
//! whoever first watches and then looks at everybody misses nobody.

mod devices;
mod door;
mod groups;
mod lives;
mod order;
mod presence;
#[cfg(test)]
mod races;
mod recent;
mod settings;
#[cfg(test)]
mod tests;
mod users;

pub use devices::{Allowed, DeviceClasses, DevicePolicy, Wins};
pub use lives::Life;
pub use order::{Conflict, Kick, Order};
pub use presence::Changed;
pub use recent::{Recall, RecentPushes};
pub use settings::Settings;

use crate::base::bell::Ring;
use crate::base::ids::{SessionId, SessionKey, ShardId};
use crate::base::sync::{Native, Primitives};
use door::Door;
use groups::Groups;
use presence::Presence;
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
    /// Of which platform the device is.
    pub platform: &'a str,
}

/// See the module's page.
pub struct Directory<P: Primitives = Native> {
    settings: Settings,
    presence: Presence<P>,
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
    /// An empty one, for shards that wake by these bells, each with a seed of its own, random and secret; `watcher`
    /// wakes whoever takes the changes of presence.
    pub fn new(shards: Vec<(Arc<dyn Ring>, u64)>, watcher: Arc<dyn Ring>, settings: Settings) -> Directory {
        Directory::with_stripes(shards, watcher, settings, users::STRIPES)
    }

    /// The same for shards that look for themselves, with the defaults: a single thread in a test, a benchmark or a
    /// simulation.
    pub fn unrung(shards: u16, seed: u64) -> Directory {
        Directory::unrung_with(shards, seed, Settings::default())
    }

    /// [`Directory::unrung`] with other settings.
    pub fn unrung_with(shards: u16, seed: u64, settings: Settings) -> Directory {
        let shards = (0..shards).map(|at| (Arc::new(()) as Arc<dyn Ring>, seed ^ u64::from(at) << 32));
        Directory::new(shards.collect(), Arc::new(()), settings)
    }
}

impl<P: Primitives> Directory<P> {
    fn with_stripes(
        shards: Vec<(Arc<dyn Ring>, u64)>,
        watcher: Arc<dyn Ring>,
        settings: Settings,
        stripes: usize,
    ) -> Directory<P> {
        let doors: Vec<Door<P>> = shards.into_iter().map(|(bell, seed)| Door::new(bell, seed)).collect();
        Directory {
            presence: Presence::new(watcher, settings.presence_changes_max),
            settings,
            users: Users::new(stripes),
            groups: Groups::new(doors.len()),
            doors,
        }
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

    // ---- lives of sessions ----

    /// A shard says of each of its sessions, those without a user too, that it has opened, lost its connection, been
    /// resumed, or ended.
    pub fn note(&self, session: SessionRef, life: Life) {
        if let Some(door) = self.door(session.shard) {
            door.lives.note(session.key, life);
        }
    }

    /// What was said of a session last.
    pub fn life(&self, session: SessionRef) -> Life {
        self.door(session.shard).map_or(Life::Ended, |door| door.lives.of(session.key))
    }

    // ---- users ----

    /// A session of `user_id` opens. Others that cannot stay beside it are ordered to end.
    ///
    /// # Errors
    /// Why it cannot open itself: it has to end, and nothing has changed.
    pub fn claim(&self, user_id: &Arc<str>, session: SessionRef, place: Place<'_>) -> Result<(), Conflict> {
        let life = |session| self.life(session);
        let (displaced, is_changed) = self.users.claim(&self.settings, user_id, (session, place), life)?;
        for (displaced, kick) in displaced {
            self.order(displaced, kick);
        }
        if is_changed {
            self.presence.note(user_id);
        }
        Ok(())
    }

    /// A session of `user_id` has ended.
    pub fn release(&self, user_id: &str, session: SessionRef) {
        if let Some(user_id) = self.users.release(user_id, session) {
            self.presence.note(&user_id);
        }
    }

    /// A session of `user_id` has been without a connection for too long for its user to count as present.
    pub fn away(&self, user_id: &str, session: SessionRef) {
        self.set_present(user_id, session, false);
    }

    /// A session of `user_id` that was away has a connection again.
    pub fn back(&self, user_id: &str, session: SessionRef) {
        self.set_present(user_id, session, true);
    }

    fn set_present(&self, user_id: &str, session: SessionRef, is_present: bool) {
        if let Some(user_id) = self.users.set_present(user_id, session, is_present) {
            self.presence.note(&user_id);
        }
    }

    /// Calls `with` for each session of a user; how many there are.
    pub fn sessions_of(&self, user_id: &str, with: impl FnMut(SessionRef)) -> usize {
        self.users.sessions_of(user_id, with)
    }

    /// Users with a session.
    pub fn users(&self) -> usize {
        self.users.len()
    }

    // ---- presence ----

    /// From now on changes of presence are kept to be taken, or no more. One thread watches for all.
    pub fn watch_presence(&self, watched: bool) {
        self.presence.watch(watched);
    }

    /// Whether [`Directory::take_changed`] has something to give.
    pub fn has_changed(&self) -> bool {
        self.presence.has_changes()
    }

    /// Takes the users whose presence has changed, at most `max` of them.
    pub fn take_changed(&self, max: usize) -> Changed {
        self.presence.take(max)
    }

    /// How many sessions of a user are present.
    pub fn presence_of(&self, user_id: &str) -> usize {
        self.users.present(user_id)
    }

    /// The users of one part of the table that are present, for parts from 0 on; `None`: that was the last.
    pub fn present_in(&self, part: usize) -> Option<Vec<Arc<str>>> {
        self.users.present_in(part)
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
