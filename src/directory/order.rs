//! What a shard is told to do about its sessions, and why.

use crate::base::ids::SessionKey;
use std::sync::Arc;

/// Why a session may not be where it claims to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Conflict {
    /// Another device of its user is there.
    Device,
    /// Its user has as many sessions as one may have.
    Limit,
}

/// Why a session has to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kick {
    /// A newer session of the same user, application and device.
    Superseded,
    /// A service or an operator said so, and what to tell the client.
    Kicked(Arc<str>),
    /// Tokens of its user were revoked: it has to end if the one that it lives by is among them.
    Revoked,
    /// Another session of its user has taken its place, or there were too many.
    Conflict(Conflict),
}

/// What a shard has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// End this session, if it still lives.
    Kick(SessionKey, Kick),
    /// End every session whose token is revoked.
    Sweep,
}
