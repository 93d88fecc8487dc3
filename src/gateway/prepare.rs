//! Everything that can be wrong with a configuration before a socket is bound. `moorgate check` ends here, `moorgate serve`
//! continues: both have the same verdict.

use super::{Gateway, GatewayError};
use crate::base::clock::Clock;
use crate::config::Settings;
use crate::control::discovery::{Discovery, PreparedDiscovery, ServiceSources, own_listener};
use std::net::SocketAddr;

/// A gateway that is checked and can be started; only the system and the addresses of its listeners can still refuse.
pub struct Prepared {
    pub(super) settings: Settings,
    pub(super) clock: Clock,
    /// `None`: all endpoints stand in the configuration.
    pub(super) discovery: Option<PreparedDiscovery>,
}

impl Gateway {
    /// Checks settings, and makes what needs no socket and no thread.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub fn prepare(settings: Settings) -> Result<Prepared, GatewayError> {
        let clock = Clock::of_loops();
        // The command line may have changed what the configuration has.
        let clients = settings.reactor.listeners.iter().map(|listener| &listener.at);
        if let Some(admin) = &settings.admin
            && let Some(clients) = clients.into_iter().find(|clients| admin.collides(clients))
        {
            return Err(GatewayError::Collision { admin: admin.clone(), clients: clients.clone() });
        }
        settings.access_log.check().map_err(GatewayError::AccessLog)?;
        let mut found = settings.discovery.clone();
        found.services.retain(ServiceSources::is_found);
        let discovery = match found.services.is_empty() {
            true => None,
            false => Some(Discovery::prepare(found, clock).map_err(GatewayError::Discovery)?),
        };
        Ok(Prepared { settings, clock, discovery })
    }
}

impl Prepared {
    /// What it was prepared from.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// No endpoint of the configuration is one of these listeners, of which all ports are known.
    pub(super) fn refuse_own(&self, listeners: &[SocketAddr]) -> Result<(), GatewayError> {
        for service in &self.settings.services {
            for endpoint in service.endpoints.iter().map(|instance| instance.address) {
                if let Some(listener) = own_listener(listeners, endpoint) {
                    let service = service.name.clone();
                    return Err(GatewayError::OwnListener { service, endpoint, listener });
                }
            }
        }
        Ok(())
    }
}
