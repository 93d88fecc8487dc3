//! What others may ask of one shard at any time: its orders, its room for pushes, and the ids of its sessions.

use super::lives::Lives;
use super::order::{Kick, Order};
use crate::base::bell::Ring;
use crate::base::ids::{SessionId, SessionKey};
use crate::base::rng::{Rng, mix, unmix};
use crate::base::sync::{Lock, Primitives, Signal};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Orders that wait for one shard; more can only be for sessions that do not exist.
const ORDERS_MAX: usize = 1 << 20;

/// One for each session: the first order stands, unless a later one is sure where the first has a condition.
#[derive(Debug, Default)]
pub(super) struct Orders {
    kicks: HashMap<SessionKey, Kick, foldhash::fast::FixedState>,
    sweep: bool,
}

pub(super) struct Door<P: Primitives> {
    bell: Arc<dyn Ring>,
    orders: P::Mutex<Orders>,
    has_orders: P::Flag,
    reserved: AtomicUsize,
    sessions: AtomicUsize,
    pub(super) lives: Lives,
    /// First half of every id of a session here.
    id_prefix: u64,
    /// Makes the second half unlike the key that it stands for.
    id_mask: u64,
}

impl<P: Primitives> Door<P> {
    pub(super) fn new(bell: Arc<dyn Ring>, seed: u64) -> Door<P> {
        let mut rng = Rng::new(seed);
        Door {
            bell,
            orders: P::Mutex::new(Orders::default()),
            has_orders: P::Flag::new(),
            reserved: AtomicUsize::new(0),
            sessions: AtomicUsize::new(0),
            lives: Lives::default(),
            id_prefix: rng.next_u64(),
            id_mask: rng.next_u64(),
        }
    }

    pub(super) fn id_of(&self, key: SessionKey) -> SessionId {
        let number = u128::from(self.id_prefix) << 64 | u128::from(mix(key.to_u64() ^ self.id_mask));
        SessionId(number.to_be_bytes())
    }

    pub(super) fn key_of(&self, id: SessionId) -> Option<SessionKey> {
        let number = u128::from_be_bytes(id.0);
        let prefix = u64::try_from(number >> 64).unwrap_or_default();
        let rest = u64::try_from(number & u128::from(u64::MAX)).unwrap_or_default();
        (prefix == self.id_prefix).then(|| SessionKey::from_u64(unmix(rest) ^ self.id_mask))
    }

    /// Whether there was room for it.
    pub(super) fn order(&self, key: SessionKey, kick: Kick) -> bool {
        let has_room = self.orders.with(|orders| {
            if orders.kicks.len() >= ORDERS_MAX && !orders.kicks.contains_key(&key) {
                return false;
            }
            let standing = orders.kicks.entry(key).or_insert_with(|| kick.clone());
            if *standing == Kick::Revoked {
                *standing = kick;
            }
            self.has_orders.set(true);
            true
        });
        self.bell.ring();
        has_room
    }

    pub(super) fn sweep(&self) {
        self.orders.with(|orders| {
            orders.sweep = true;
            self.has_orders.set(true);
        });
        self.bell.ring();
    }

    pub(super) fn has_orders(&self) -> bool {
        self.has_orders.is_set()
    }

    /// All of them.
    pub(super) fn take(&self) -> Vec<Order> {
        if !self.has_orders() {
            return Vec::new();
        }
        let Orders { kicks, sweep } = self.orders.with(|orders| {
            self.has_orders.set(false);
            std::mem::take(orders)
        });
        let kicks = kicks.into_iter().map(|(key, kick)| Order::Kick(key, kick));
        kicks.chain(sweep.then_some(Order::Sweep)).collect()
    }

    pub(super) fn reserve(&self, targets: usize, max: usize) -> bool {
        let take = |taken: usize| taken.checked_add(targets).filter(|sum| *sum <= max);
        self.reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    pub(super) fn unreserve(&self, targets: usize) {
        let before = self.reserved.fetch_sub(targets, Ordering::Relaxed);
        debug_assert!(before >= targets, "only what was reserved is given back");
    }

    pub(super) fn reserved(&self) -> usize {
        self.reserved.load(Ordering::Relaxed)
    }

    pub(super) fn set_sessions(&self, sessions: usize) {
        self.sessions.store(sessions, Ordering::Relaxed);
    }

    pub(super) fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::sync::Native;
    use proptest::prelude::*;

    struct Deaf;
    impl Ring for Deaf {
        fn ring(&self) {}
    }

    proptest! {
        #[test]
        fn an_id_leads_back_to_its_key(seed: u64, number: u64) {
            let door = Door::<Native>::new(Arc::new(Deaf), seed);
            let key = SessionKey::from_u64(number);
            let id = door.id_of(key);
            prop_assert_eq!(door.key_of(id), Some(key));
            let other = Door::<Native>::new(Arc::new(Deaf), seed ^ 1);
            prop_assert_eq!(other.key_of(id), None);
        }
    }

    #[test]
    fn one_order_for_each_session_the_sure_one() {
        let door = Door::<Native>::new(Arc::new(Deaf), 1);
        let key = SessionKey::new(3, 1);
        assert!(!door.has_orders());
        assert!(door.order(key, Kick::Revoked));
        assert!(door.order(key, Kick::Kicked("why".into())));
        assert!(door.order(key, Kick::Superseded));
        door.sweep();
        door.sweep();
        assert!(door.has_orders());
        assert_eq!(door.take(), [Order::Kick(key, Kick::Kicked("why".into())), Order::Sweep]);
        assert!(!door.has_orders() && door.take().is_empty());
    }

    #[test]
    fn room_is_bounded() {
        let door = Door::<Native>::new(Arc::new(Deaf), 1);
        assert!(door.reserve(3, 5) && !door.reserve(3, 5) && door.reserve(2, 5));
        door.unreserve(3);
        assert_eq!(door.reserved(), 2);
    }
}
