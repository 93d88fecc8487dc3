//! A newtype for every id, so that none is mistaken for another.

use crate::base::slab::Key;

macro_rules! small_id {
    ($(#[$meta:meta])* $name:ident($type:ty)) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $type);

        impl $name {
            /// For indexing a table with one entry per id.
            pub fn index(self) -> usize {
                usize::from(self.0)
            }
        }
    };
}

small_id!(
    /// A shard thread, counted from 0.
    ShardId(u16)
);
small_id!(
    /// A worker thread, counted from 0.
    WorkerId(u16)
);
small_id!(
    /// A listener of the configuration, in its order.
    ListenerId(u16)
);
small_id!(
    /// A backend service of the configuration, in its order.
    ServiceId(u16)
);
small_id!(
    /// A route of the configuration, in its order.
    RouteId(u16)
);

/// Marks the keys of a shard's connections.
#[derive(Debug)]
pub enum ConnectionTag {}
/// Marks the keys of a shard's sessions.
#[derive(Debug)]
pub enum SessionTag {}
/// Marks the keys of a shard's outstanding calls.
#[derive(Debug)]
pub enum TicketTag {}
/// Marks the keys of a worker's calls.
#[derive(Debug)]
pub enum CallTag {}
/// Marks the keys of a worker's questions about sessions.
#[derive(Debug)]
pub enum CheckTag {}
/// Marks the keys of a worker's links to endpoints.
#[derive(Debug)]
pub enum LinkTag {}

/// A connection on its shard.
pub type ConnectionKey = Key<ConnectionTag>;
/// A session on its shard.
pub type SessionKey = Key<SessionTag>;
/// A call that a shard has outstanding at its worker: the shard's claim on exactly one settlement.
pub type Ticket = Key<TicketTag>;
/// A call in a worker's in-flight table.
pub type CallKey = Key<CallTag>;
/// A question of a worker about a session that is to open.
pub type CheckKey = Key<CheckTag>;
/// A worker's connection to an endpoint.
pub type LinkKey = Key<LinkTag>;

/// 128 bits, opaque to clients, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SessionId(pub [u8; 16]);

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // One number, as every access-log line has one: sixteen small ones take ten times as long.
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::SessionId;

    #[test]
    fn session_ids_are_shown_in_hex() {
        let mut bytes = [0; 16];
        bytes[15] = 0xab;
        assert_eq!(SessionId(bytes).to_string(), "000000000000000000000000000000ab");
    }
}
