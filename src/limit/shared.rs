//! Everything that all shards share of the limits.

use super::bans::{BanSettings, Bans};
use super::logins::Logins;
use super::requests::Limits;
use super::reserve::SharedRoom;
use super::settings::Settings;
use std::sync::Arc;

/// Handed to every shard.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Rates, and requests outstanding.
    pub requests: Arc<Limits>,
    /// Who is shut out.
    pub bans: Arc<Bans>,
    /// Logins of each user.
    pub logins: Arc<Logins>,
    /// Connections, of which the process can hold only so many.
    pub room: Arc<SharedRoom>,
}

impl Shared {
    /// For tests and for a single shard: nothing is limited, and only a hand bans.
    pub fn unlimited() -> Shared {
        Shared {
            requests: Arc::new(Limits::new(Settings::unlimited(), 1, 0)),
            bans: Arc::new(Bans::new(BanSettings { enabled: false, ..BanSettings::default() }, 0)),
            logins: Arc::new(Logins::new(None, 0)),
            room: Arc::new(SharedRoom::new(usize::MAX)),
        }
    }
}
