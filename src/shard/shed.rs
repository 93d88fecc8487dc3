//! Eviction when a shared bound is full: from the owner that holds most of it, not from the next client.
//!
//! Holdings are summed by owner, the user of a session or else the client's address. Of the owner that holds most the
//! oldest or largest holding goes, until an eighth of the bound is free again: each pass over the tables is paid for by an
//! eighth of the bound that was filled.

use super::connection::{Connection, State};
use super::limits::user_of;
use super::{CloseReason, Shard};
use crate::auth::Authority;
use crate::base::clock::Now;
use crate::base::counters::Count;
use crate::base::ids::{ConnectionKey, SessionKey};
use crate::limit::{User, network};
use crate::session::{Fault, Session};
use moorgate_proto::time::Mono;
use std::collections::{BinaryHeap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

/// What is held for less counts as held for this long: a newcomer's holding weighs something too.
const AGE_MIN: Duration = Duration::from_millis(10);
/// Clients send Hello at once: connections that are silent for longer make room for others. Until when they are, what was
/// read of them says, not the time: their Hellos may have arrived, and wait to be read.
const OPENING_GRACE: Duration = Duration::from_secs(1);
/// Between two passes over silent connections, for each connection of the shard: several times what a pass takes.
const OPENINGS_PAUSE: Duration = Duration::from_nanos(100);
/// When a pass over Responses has not freed enough there is no other one before this time.
const OWED_PAUSE: Duration = Duration::from_secs(1);

/// How far a pass brings a bound down.
pub(super) fn relieved(max: usize) -> usize {
    max.saturating_sub(max / 8)
}

/// Whose holding it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    User(User),
    Address(IpAddr),
}

impl Owner {
    pub(super) fn of(session: Option<&Session>, address: IpAddr, authority: &Authority) -> Owner {
        let user = session.and_then(|session| user_of(&session.caller, authority));
        user.map_or_else(|| Owner::Address(network(address)), Owner::User)
    }
}

/// Holdings, those of the heaviest owner first, of one owner the heaviest first.
pub(super) struct Holdings<K> {
    owners: BinaryHeap<(u128, usize)>,
    /// Weight of each holding and what it is, in ascending order.
    held: Vec<Vec<(u128, K)>>,
}

impl<K: Copy> Holdings<K> {
    pub(super) fn new(holdings: impl Iterator<Item = (Owner, u128, K)>) -> Holdings<K> {
        let mut held: Vec<Vec<(u128, K)>> = Vec::new();
        // By the place of the owner's holdings: among equals the order is that of the tables, not of the hashes.
        let mut known: HashMap<Owner, usize, foldhash::fast::RandomState> = HashMap::default();
        for (owner, weight, key) in holdings {
            let at = *known.entry(owner).or_insert(held.len());
            match held.get_mut(at) {
                Some(held) => held.push((weight, key)),
                None => held.push(vec![(weight, key)]),
            }
        }
        held.iter_mut().for_each(|held| held.sort_by_key(|(weight, _)| *weight));
        let weight = |held: &Vec<(u128, K)>| held.iter().map(|(weight, _)| *weight).sum();
        let owners = held.iter().enumerate().map(|(at, held)| (weight(held), at)).collect();
        Holdings { owners, held }
    }
}

impl<K: Copy> Iterator for Holdings<K> {
    type Item = K;

    fn next(&mut self) -> Option<K> {
        let (weight, at) = self.owners.pop()?;
        let held = self.held.get_mut(at)?;
        let (of_key, key) = held.pop()?;
        if !held.is_empty() {
            self.owners.push((weight.saturating_sub(of_key), at));
        }
        Some(key)
    }
}

fn byte_milliseconds(bytes: usize, age: Duration) -> u128 {
    (bytes as u128).saturating_mul(age.max(AGE_MIN).as_millis())
}

impl Shard {
    /// Unfinished frames hold more than they may: ends the connections of those who hold most for longest.
    #[cold]
    pub(super) fn shed_partials(&mut self, now: Now) {
        let holding = |key: ConnectionKey| {
            let connection = self.connections.get(key)?;
            let (early, began) = match connection.state {
                // Its bytes arrived behind its Hello.
                State::Confirming(_) => (self.confirmations.early_of(key), connection.heard),
                _ => (0, connection.frame_began),
            };
            let bytes = connection.assembler.held_bytes().saturating_add(early);
            if bytes == 0 {
                return None;
            }
            let session = self.session_of(key).and_then(|session| self.sessions.get(session));
            let owner = Owner::of(session, connection.peer().ip(), &self.authority);
            Some((owner, byte_milliseconds(bytes, now.mono.since(began)), key))
        };
        let mut holdings = Holdings::new(self.connections.keys().filter_map(holding));
        while self.partial_bytes > relieved(self.settings.partial_bytes_max)
            && let Some(key) = holdings.next()
        {
            self.cells.count(Count::PartialBudgetExceeded);
            self.fault(now, key, Fault::Overloaded);
        }
    }

    /// Responses hold more than they may: those who are owed most lose the payloads of theirs. How many sessions did.
    pub(super) fn shed_owed(&mut self, now: Now) {
        if now.mono < self.owed_shed_from {
            return;
        }
        let holding = |key: SessionKey| {
            let session = self.sessions.get(key)?;
            let bytes = session.down.kept_bytes();
            let owner = || Owner::of(Some(session), session.caller.peer, &self.authority);
            (bytes > 0).then(|| (owner(), bytes as u128, key))
        };
        let mut holdings = Holdings::new(self.sessions.keys().filter_map(holding));
        while self.owed_bytes > relieved(self.settings.owed_bytes_max)
            && let Some(key) = holdings.next()
        {
            let Some(session) = self.sessions.get_mut(key) else { continue };
            let held = session.down.kept_bytes();
            let given_up = session.down.give_up_payloads();
            self.owed_bytes = self.owed_bytes.saturating_sub(held).saturating_add(session.down.kept_bytes());
            self.cells.add(Count::PayloadsDropped, given_up as u64);
            self.cells.count(Count::OwedShed);
        }
        if self.owed_bytes > relieved(self.settings.owed_bytes_max) {
            self.owed_shed_from = now.mono + OWED_PAUSE;
        }
    }

    /// All input that arrived before this time has been read. Without, that is so at any time.
    pub fn set_read_until(&mut self, until: Mono) {
        self.read_until = until;
    }

    /// An address has as many connections as it may have: its silent ones are closed. The next connection from there
    /// finds room.
    pub fn shed_openings_of(&mut self, now: Now, address: IpAddr) {
        if now.mono < self.own_openings_shed_from {
            return;
        }
        // A pass for one address is no pass for all, and may not be bought often by one that has no silent ones.
        self.own_openings_shed_from = now.mono + self.openings_pause().saturating_mul(10);
        let address = network(address);
        self.oust_silent(now, true, |peer| network(peer) == address);
    }

    /// There is no room for another connection without a session: those that are silent for a while make room, first of
    /// the addresses that have most of them. `at_once`: their sockets are closed without an Error, because it is
    /// descriptors that are short.
    pub(super) fn shed_openings(&mut self, now: Now, at_once: bool) {
        if now.mono < self.openings_shed_from {
            return;
        }
        self.openings_shed_from = now.mono + self.openings_pause();
        self.oust_silent(now, at_once, |_| true);
    }

    fn openings_pause(&self) -> Duration {
        OPENINGS_PAUSE.saturating_mul(u32::try_from(self.connections.len()).unwrap_or(u32::MAX))
    }

    fn oust_silent(&mut self, now: Now, at_once: bool, is_meant: impl Fn(IpAddr) -> bool) {
        if self.handshakes == 0 {
            return;
        }
        let (timeout, until) = (self.settings.handshake_timeout, now.mono.min(self.read_until));
        let age = |connection: &Connection| match connection.state {
            State::Opening(deadline, _) => (until + timeout).since(deadline),
            _ => Duration::ZERO,
        };
        let holding = |key: ConnectionKey| {
            let connection = self.connections.get(key)?;
            let age = age(connection);
            let address = connection.peer().ip();
            let owner = Owner::Address(network(address));
            (age >= OPENING_GRACE && is_meant(address)).then_some((owner, age.as_nanos(), key))
        };
        let silent: Vec<_> = self.connections.keys().filter_map(holding).collect();
        let count = silent.len().div_ceil(8);
        for key in Holdings::new(silent.into_iter()).take(count) {
            self.cells.count(Count::OpeningsOusted);
            if at_once {
                self.oust(key);
            } else {
                self.close(now, key, CloseReason::Fault(Fault::ConnectionLimit));
            }
        }
    }

    /// Ends a connection that has said nothing, without a word.
    fn oust(&mut self, key: ConnectionKey) {
        self.cells.count(Fault::ConnectionLimit.count());
        self.handshakes = self.handshakes.saturating_sub(1);
        self.drop_partial(key);
        self.forget(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> Owner {
        Owner::Address([192, 0, 2, last].into())
    }

    #[test]
    fn the_heaviest_owner_pays_first_until_another_is_heavier() {
        let held = [(1, 10, 'a'), (2, 4, 'b'), (2, 3, 'c'), (2, 5, 'd'), (3, 1, 'e')];
        let holdings =
            Holdings::new(held.into_iter().map(|(owner, weight, key)| (address(owner), weight, key)));
        // The second has twelve and pays five, then the first is heavier.
        assert_eq!(holdings.collect::<String>(), "dabce");
    }

    #[test]
    fn what_is_held_longer_weighs_more() {
        let second = Duration::from_secs(1);
        assert!(byte_milliseconds(100, second) > byte_milliseconds(9_000, Duration::ZERO));
        assert!(byte_milliseconds(2, Duration::ZERO) > byte_milliseconds(1, Duration::ZERO));
        assert_eq!((relieved(0), relieved(1), relieved(64)), (0, 1, 56));
    }
}
