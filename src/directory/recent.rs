//! Pushes of one service that were carried lately: a repeat is answered as the first was, and not carried again.

use moorgate_proto::time::Mono;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// How long a push id is remembered.
const AGE_MAX: Duration = Duration::from_secs(120);
/// Push ids remembered, and bytes of their results.
const IDS_MAX: usize = 64 * 1024;
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// What is known of a push id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recall {
    /// Nothing: it is noted now, and to be carried.
    New,
    /// Another worker is carrying it at this moment.
    UnderWay,
    /// It was carried, with this encoded `v1::PushResult`.
    Done(Arc<[u8]>),
}

type Bytes = Arc<[u8]>;

#[derive(Debug, Default)]
struct Memory {
    /// By push id; `None`: it is being carried.
    results: HashMap<Bytes, Option<Bytes>, foldhash::fast::RandomState>,
    /// In the order in which they came.
    order: VecDeque<(Mono, Bytes)>,
    bytes: usize,
}

impl Memory {
    fn forget(&mut self, now: Mono) {
        while let Some((came, _)) = self.order.front() {
            let old = now.since(*came) > AGE_MAX;
            if !old && self.order.len() < IDS_MAX && self.bytes < BYTES_MAX {
                return;
            }
            let Some((_, id)) = self.order.pop_front() else { return };
            let result = self.results.remove(&id).flatten();
            let bytes = result.map_or(0, |result| result.len());
            self.bytes = self.bytes.saturating_sub(bytes.saturating_add(id.len()));
        }
    }
}

/// The memory of one service's pushes, shared by all workers.
#[derive(Debug, Default)]
pub struct RecentPushes {
    memory: Mutex<Memory>,
}

impl RecentPushes {
    /// What is known of this push; a new one is noted.
    pub fn recall(&self, now: Mono, push_id: &[u8]) -> Recall {
        let mut memory = self.memory.lock();
        memory.forget(now);
        match memory.results.get(push_id) {
            Some(Some(result)) => Recall::Done(result.clone()),
            Some(None) => Recall::UnderWay,
            None => {
                let id: Arc<[u8]> = push_id.into();
                memory.bytes = memory.bytes.saturating_add(id.len());
                memory.order.push_back((now, id.clone()));
                memory.results.insert(id, None);
                Recall::New
            }
        }
    }

    /// Notes the result of a push.
    pub fn done(&self, push_id: &[u8], result: &[u8]) {
        let mut memory = self.memory.lock();
        let Some(entry) = memory.results.get_mut(push_id) else { return };
        if entry.replace(result.into()).is_none() {
            memory.bytes = memory.bytes.saturating_add(result.len());
        }
    }

    /// A push was refused for a moment: its repeat is to be tried again.
    pub fn retract(&self, push_id: &[u8]) {
        let mut memory = self.memory.lock();
        if let Some(entry) = memory.results.remove(push_id) {
            let bytes = entry.map_or(0, |result| result.len());
            memory.bytes = memory.bytes.saturating_sub(bytes.saturating_add(push_id.len()));
            // It is mostly the last one.
            if let Some(at) = memory.order.iter().rposition(|(_, id)| **id == *push_id) {
                memory.order.remove(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: L-51
    #[test]
    fn a_repeat_is_answered_from_memory_until_it_is_forgotten() {
        let recent = RecentPushes::default();
        let now = Mono::ZERO + Duration::from_secs(9);
        assert_eq!(recent.recall(now, b"a"), Recall::New);
        assert_eq!(recent.recall(now, b"a"), Recall::UnderWay);
        recent.done(b"a", b"result");
        assert_eq!(recent.recall(now + AGE_MAX, b"a"), Recall::Done(b"result"[..].into()));
        assert_eq!(recent.recall(now + AGE_MAX + Duration::from_secs(1), b"a"), Recall::New);
        recent.retract(b"a");
        assert_eq!(recent.recall(now + AGE_MAX + Duration::from_secs(1), b"a"), Recall::New);
    }

    #[test]
    fn the_memory_is_bounded_by_number_and_bytes() {
        let recent = RecentPushes::default();
        for id in 0..2 * IDS_MAX as u64 {
            recent.recall(Mono::ZERO, &id.to_be_bytes());
        }
        assert_eq!(recent.memory.lock().order.len(), IDS_MAX);
        let large = vec![0; BYTES_MAX / 4];
        for id in [b"a", b"b", b"c", b"d", b"e", b"f"] {
            recent.recall(Mono::ZERO, id);
            recent.done(id, &large);
        }
        let memory = recent.memory.lock();
        assert!(memory.bytes <= BYTES_MAX + large.len());
        assert_eq!(memory.order.len(), memory.results.len());
        drop(memory);
        recent.memory.lock().forget(Mono::NEVER);
        let memory = recent.memory.lock();
        assert_eq!((memory.bytes, memory.order.len(), memory.results.len()), (0, 0, 0));
    }
}
