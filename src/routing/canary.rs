//! Who goes to the canary: a share of users, the same ones as long as it stands; users with a role; clients that say
//! something of themselves.

use super::CanarySettings;

/// Who asks, as far as routing looks at it: read out of an encoded `v1::Caller`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Who<'a> {
    /// Empty: anonymous.
    pub user_id: &'a str,
    /// The session.
    pub session_id: &'a [u8],
    /// The application.
    pub application: &'a str,
    /// Its version.
    pub app_version: &'a str,
    /// The platform.
    pub platform: &'a str,
    /// The device.
    pub device_id: &'a str,
    /// The client's address and port.
    pub client_address: &'a str,
}

impl CanarySettings {
    /// Whether this caller goes to the canary at this share, in hundredths of a percent.
    pub fn takes<'a>(&self, _share: u32, _who: &Who<'_>, _roles: impl Iterator<Item = &'a str>) -> bool {
        false
    }
}
