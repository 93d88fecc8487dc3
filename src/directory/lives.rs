//! Whether the sessions of one shard have a connection, live without one, or have ended: written by the shard, read by
//! all.

use crate::base::ids::SessionKey;
use parking_lot::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Sessions for which room is made at once.
const PAGE: usize = 4096;

/// How far a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Life {
    /// It has a connection.
    Attached,
    /// It has none, and waits for its client to come back.
    Detached,
    /// It is over, or never was.
    Ended,
}

const ATTACHED: u64 = 1;
const DETACHED: u64 = 2;

/// By the index of their keys: the generation in the upper half, and the life.
#[derive(Debug, Default)]
pub(super) struct Lives {
    /// Grows by pages, which never move; the lock is held for that alone, and to find one.
    pages: RwLock<Vec<Box<[AtomicU64; PAGE]>>>,
}

fn generation(number: u64) -> u64 {
    number >> 32
}

impl Lives {
    pub(super) fn note(&self, key: SessionKey, life: Life) {
        let life = match life {
            Life::Attached => ATTACHED,
            Life::Detached => DETACHED,
            Life::Ended => 0,
        };
        let number = generation(key.to_u64()) << 32 | life;
        let page = key.index() / PAGE;
        if self.pages.read().len() <= page {
            let mut pages = self.pages.write();
            while pages.len() <= page {
                pages.push(Box::new([const { AtomicU64::new(0) }; PAGE]));
            }
        }
        if let Some(entry) = self.pages.read().get(page).and_then(|page| page.get(key.index() % PAGE)) {
            entry.store(number, Ordering::Release);
        }
    }

    pub(super) fn of(&self, key: SessionKey) -> Life {
        let pages = self.pages.read();
        let entry = pages.get(key.index() / PAGE).and_then(|page| page.get(key.index() % PAGE));
        let number = entry.map_or(0, |entry| entry.load(Ordering::Acquire));
        match number & u64::from(u32::MAX) {
            _ if generation(number) != generation(key.to_u64()) => Life::Ended,
            ATTACHED => Life::Attached,
            DETACHED => Life::Detached,
            _ => Life::Ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_that_of_one_session() {
        let lives = Lives::default();
        let far = u32::try_from(2 * PAGE + 7).unwrap();
        let [old, new] = [SessionKey::new(far, 1), SessionKey::new(far, 2)];
        assert_eq!(lives.of(old), Life::Ended, "nobody has heard of it");
        for life in [Life::Attached, Life::Detached, Life::Attached, Life::Ended] {
            lives.note(old, life);
            assert_eq!((lives.of(old), lives.of(new)), (life, Life::Ended));
        }
        lives.note(new, Life::Attached);
        assert_eq!((lives.of(old), lives.of(new)), (Life::Ended, Life::Attached));
        assert_eq!(lives.of(SessionKey::new(7, 1)), Life::Ended);
    }
}
