//! Which pushes were given to the application: a push may come again, and is taken once.

use moorgate_proto::limits::NAME_BYTES;
use std::collections::{HashSet, VecDeque};

/// So many ids are remembered; then the oldest go.
pub const PUSHES_REMEMBERED: usize = 1024;

/// The ids of recent pushes, over all connections.
#[derive(Debug, Default)]
pub(super) struct RecentPushes {
    known: HashSet<Box<[u8]>>,
    order: VecDeque<Box<[u8]>>,
}

impl RecentPushes {
    /// Whether this one is new; it is not any more then. A push without an id, or with one that no service may give, is
    /// always new.
    pub(super) fn is_new(&mut self, push_id: &[u8]) -> bool {
        if push_id.is_empty() || push_id.len() > NAME_BYTES {
            return true;
        }
        if self.known.contains(push_id) {
            return false;
        }
        if self.order.len() >= PUSHES_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.known.insert(push_id.into());
        self.order.push_back(push_id.into());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: D-14
    #[test]
    fn a_push_is_new_once_as_far_as_is_remembered() {
        let mut recent = RecentPushes::default();
        for id in 0..PUSHES_REMEMBERED as u64 {
            assert!(recent.is_new(&id.to_be_bytes()));
            assert!(!recent.is_new(&id.to_be_bytes()));
        }
        assert!(!recent.is_new(&0_u64.to_be_bytes()));
        assert!(recent.is_new(b"one more"));
        assert!(recent.is_new(&0_u64.to_be_bytes()), "the oldest is forgotten");
        assert_eq!(recent.known.len(), PUSHES_REMEMBERED);
        assert!(recent.is_new(b"") && recent.is_new(b""), "without an id");
        assert!(recent.is_new(&[0; 65]) && recent.is_new(&[0; 65]), "too long to be kept");
    }
}
