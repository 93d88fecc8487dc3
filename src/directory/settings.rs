//! What a deployment chooses for its users.

use super::DevicePolicy;

/// How many devices and sessions a user may have, and how much of presence may wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Which devices of a user may be here at once.
    pub devices: DevicePolicy,
    /// Sessions of one user, on whatever devices; at least 1, and `usize::MAX` for no bound.
    pub sessions_per_user: usize,
    /// Users whose change of presence may wait to be told; beyond it services get everybody anew.
    pub presence_changes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { devices: DevicePolicy::default(), sessions_per_user: 16, presence_changes_max: 64 * 1024 }
    }
}
