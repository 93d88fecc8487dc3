//! What a service may ask about sessions, as far as a shard carries it out.

use crate::base::ids::SessionKey;
use std::sync::Arc;
use std::time::Duration;

/// About the session that called. Carried out before the Reply is delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Directive {
    /// It is now this user's.
    Login {
        /// Who.
        user_id: Box<str>,
        /// What they may do.
        roles: Box<[String]>,
        /// Wished life of the access token; zero: the gateway's own.
        ttl: Duration,
    },
    /// It ends, and its access token is no longer good.
    Logout,
    /// It joins a group, or leaves one.
    Membership(Membership),
}

/// A change of a group. The directory counts a member from the moment that its worker has heard of it; the shard takes
/// that back when there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Membership {
    /// In.
    Join(Arc<str>),
    /// Out.
    Leave(Arc<str>),
}

/// The same for a session that is named by a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberOrder {
    /// Which session.
    pub session: SessionKey,
    /// What is to be done.
    pub membership: Membership,
}
