//! Where a blocking query goes on: Consul's rules for its indexes.
//!
//! ```text
//!   0 (answers at once) ── X-Consul-Index: n ──► n (answers on a change) ── n' >= n ──► n'
//!   ▲                                            │
//!   └── n' < n: the server has begun anew ───────┤
//!   └── no index, or a failure ──────────────────┘      n' < 1 counts as 1, or the loop would spin
//! ```

/// The index of the next query.
#[derive(Debug, Default)]
pub(super) struct Cursor(u64);

impl Cursor {
    pub(super) fn index(&self) -> u64 {
        self.0
    }

    /// An answer had this index.
    pub(super) fn answered(&mut self, index: Option<u64>) {
        self.0 = match index {
            None => 0,
            Some(index) if index < self.0 => 0,
            Some(index) => index.max(1),
        };
    }

    /// There was no answer: what comes next may be another server, which would let us wait for the old one's index.
    pub(super) fn failed(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_and_begins_anew_when_the_server_does() {
        let mut cursor = Cursor::default();
        let steps = [
            (Some(16), 16),
            (Some(16), 16),
            (Some(40), 40),
            // A server that has lost its state.
            (Some(3), 0),
            (Some(3), 3),
            (None, 0),
            // An index of 0 would ask again and again without waiting.
            (Some(0), 1),
            (Some(0), 0),
        ];
        for (answered, next) in steps {
            cursor.answered(answered);
            assert_eq!(cursor.index(), next, "after {answered:?}");
        }
        cursor.answered(Some(9));
        cursor.failed();
        assert_eq!(cursor.index(), 0);
    }
}
