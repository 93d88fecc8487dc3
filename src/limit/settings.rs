//! What a deployment chooses of rates and of outstanding requests.

use super::Rate;
use std::time::Duration;

/// What one user, one client address or one application may do; `None`: as it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnerSettings {
    /// Requests.
    pub rate: Option<Rate>,
    /// Requests that are unanswered at once; at least 1.
    pub outstanding_max: Option<u32>,
}

impl OwnerSettings {
    /// Whether there is nothing to count.
    pub fn is_off(&self) -> bool {
        self.rate.is_none() && self.outstanding_max.is_none()
    }
}

/// Limits of requests. `None` is without a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Requests of one connection.
    pub connection: Option<Rate>,
    /// Frames of one connection, whatever is in them.
    pub frames: Option<Rate>,
    /// Logins of one user of one application, over all shards.
    pub logins: Option<Rate>,
    /// Of one user of one application, over all shards.
    pub user: OwnerSettings,
    /// Of one client address, over all shards; an IPv6 network of 64 bits counts as one.
    pub address: OwnerSettings,
    /// Of one application, over all shards.
    pub application: OwnerSettings,
    /// Requests of one route, over all shards; by its id, and shorter if the last routes have none.
    pub routes: Vec<Option<Rate>>,
    /// Users that are counted at once; as many addresses, and as many applications.
    pub accounts_max: usize,
}

impl Settings {
    /// No limit at all.
    pub fn unlimited() -> Settings {
        Settings {
            connection: None,
            frames: None,
            logins: None,
            user: OwnerSettings::default(),
            address: OwnerSettings::default(),
            application: OwnerSettings::default(),
            routes: Vec::new(),
            accounts_max: 1 << 20,
        }
    }
}

impl Default for Settings {
    /// A chat client sends a few requests a second, and more when it starts; an address may be a network of many
    /// thousand phones; the application is most often everybody, so its bound is the deployment's own choice.
    fn default() -> Self {
        let per_second = |count, burst| Rate::new(count, Duration::from_secs(1), burst);
        Settings {
            connection: per_second(50, 200),
            frames: per_second(500, 2_000),
            logins: Rate::new(30, Duration::from_secs(60), 30),
            user: OwnerSettings { rate: per_second(100, 400), outstanding_max: Some(256) },
            address: OwnerSettings { rate: per_second(5_000, 20_000), outstanding_max: Some(10_000) },
            ..Settings::unlimited()
        }
    }
}
