//! Who counts as one user.

use std::fmt;
use std::sync::Arc;

/// A user of an application: the same id in another application is somebody else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct User {
    /// As its Hello named it.
    pub application: Arc<str>,
    /// As the access token or the login named it; never empty.
    pub user_id: Arc<str>,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Both come from outside, and this goes into logs.
        write!(f, "{}/{}", self.application.escape_debug(), self.user_id.escape_debug())
    }
}
