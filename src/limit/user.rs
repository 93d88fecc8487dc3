//! Who counts as one user.

use std::fmt;
use std::sync::Arc;

/// A user of an application: the same id in another application is somebody else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct User {
    /// Its application, where applications prove themselves; elsewhere empty, since anybody can say any name.
    pub application: Arc<str>,
    /// As the access token or the login named it; never empty.
    pub user_id: Arc<str>,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Both come from outside, and this goes into logs.
        if !self.application.is_empty() {
            write!(f, "{}/", self.application.escape_debug())?;
        }
        self.user_id.escape_debug().fmt(f)
    }
}
