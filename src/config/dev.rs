//! `serve --dev`: a gateway without a file, for one machine and nobody else.

use super::Settings;
use crate::auth::{
    ACCESS_TTL_DEFAULT, ACCESS_TTL_MAX_DEFAULT, Authority, Issuer, KeyRing, LEEWAY_DEFAULT, SigningKey,
};
use crate::base::ids::ServiceId;
use crate::control::discovery::{ServiceSources, Settings as Discovery};
use crate::limit::{self, BanSettings};
use crate::reactor::{self, ListenAt, ListenerSettings};
use crate::routing::{
    Bounds, Grants, Order, PoolSettings, Right, RouteSettings, RouteTable, ServiceSettings, Span,
};
use crate::telemetry::AccessTarget;
use crate::{directory, forward, session, shard};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What `--dev` still leaves open.
#[derive(Debug, Clone)]
pub struct DevOptions {
    /// For clients.
    pub listen: SocketAddr,
    /// For the operator.
    pub admin: SocketAddr,
    /// Where the embedded services listen.
    pub services: DevServices,
    /// Reserved for the load tester's own service.
    pub bench: SocketAddr,
    /// Id of the development key.
    pub key_id: &'static str,
    /// The development secret.
    pub secret: &'static [u8],
}

/// Where the services that a development gateway comes with listen.
#[derive(Debug, Clone, Copy)]
pub struct DevServices {
    /// Answers what it is sent.
    pub echo: SocketAddr,
    /// Registers users, and logs them in and out.
    pub accounts: SocketAddr,
    /// Messages to users and groups.
    pub chat: SocketAddr,
}

/// The settings of a development gateway.
///
/// # Errors
/// When it would listen beyond loopback: everybody knows its secret.
pub fn dev(options: &DevOptions) -> Result<Settings, String> {
    for address in [options.listen, options.admin, options.bench] {
        if !address.ip().is_loopback() {
            return Err(format!(
                "--dev listens on loopback only, not on {address}: everybody knows its signing secret; \
                 write a configuration file to listen there"
            ));
        }
    }
    let key = SigningKey::new(options.key_id, options.secret).map_err(|error| error.to_string())?;
    let issuer = Issuer {
        key: key.clone(),
        issuer: None,
        audience: None,
        ttl: ACCESS_TTL_DEFAULT,
        ttl_max: ACCESS_TTL_MAX_DEFAULT,
    };
    let keys =
        KeyRing::new(vec![key], None, None, LEEWAY_DEFAULT.as_secs()).map_err(|error| error.to_string())?;
    let (services, routes) = services(&options.services, options.bench);
    let routes = RouteTable::build(&routes).map_err(|_| "the routes of --dev overlap".to_owned())?;
    let at = ListenAt::Address(options.listen);
    let listener = ListenerSettings { at, accept: reactor::AcceptMode::default(), heartbeat: None };
    Ok(Settings {
        reactor: reactor::Settings {
            listeners: vec![listener],
            connections_per_address: None,
            accepts: None,
            // Whoever presses Ctrl-C waits.
            drain_timeout: Duration::from_secs(5),
            ..reactor::Settings::default()
        },
        // Room for 8,000 clients with 16 requests of 1 KiB each: whoever tries it out is to see figures, not limits.
        shard: shard::Settings { outstanding_max: 128 * 1024, ..shard::Settings::default() },
        session: session::Settings::default(),
        // Whoever measures has one user.
        directory: directory::Settings { sessions_per_user: usize::MAX, ..directory::Settings::default() },
        forward: forward::Settings {
            gateway_id: "dev".to_owned(),
            waiting_max: 256 * 1024,
            waiting_bytes_max: 512 * 1024 * 1024,
            ..forward::Settings::default()
        },
        // All clients share this machine's address.
        limits: limit::Settings::unlimited(),
        bans: BanSettings { enabled: false, ..BanSettings::default() },
        authority: Arc::new(Authority { issuer: Some(issuer), ..Authority::of_keys(keys) }),
        routes: Arc::new(routes),
        discovery: Discovery { services: fixed(&services), ..Discovery::default() },
        register: None,
        services,
        check_service: None,
        admin: Some(ListenAt::Address(options.admin)),
        admin_hosts: Vec::new(),
        warnings: Vec::new(),
        access_log: AccessTarget::Off,
        log_level: log::LevelFilter::Info,
    })
}

/// The services inside and the load tester's, with their grants, and the routes to them.
fn services(at: &DevServices, bench: SocketAddr) -> (Vec<ServiceSettings>, Vec<RouteSettings>) {
    let login = Grants::NONE.with(Right::Login);
    let chat = Grants::NONE.with(Right::Groups).with(Right::Push).with(Right::Presence);
    let pushing = Grants::NONE.with(Right::Groups).with(Right::Push).with(Right::PushAll);
    let services = [
        ("echo", at.echo, Grants::NONE),
        ("accounts", at.accounts, login),
        ("chat", at.chat, chat),
        ("bench", bench, pushing),
    ];
    // As much as waits in all: whoever tries it out is to see figures, not limits.
    let bounds = Bounds {
        outstanding_max: 256 * 1024,
        queue_max: 256 * 1024,
        queue_bytes_max: 512 * 1024 * 1024,
        ..Bounds::default()
    };
    let services = services.map(|(name, address, grants)| {
        let pool = PoolSettings { bounds: bounds.clone(), ..PoolSettings::default() };
        // The load tester is there while it runs.
        let is_required = name != "bench";
        ServiceSettings { grants, pool, is_required, ..ServiceSettings::new(name, [address]) }
    });
    let route = |first, last, service| RouteSettings::new(Span { first, last }, ServiceId(service));
    let routes = vec![
        RouteSettings { anonymous: true, idempotent: true, ..route(0x0001, 0x00ff, 0) },
        // To register, and to log in.
        RouteSettings { anonymous: true, ..route(0x0200, 0x0201, 1) },
        // To log out.
        route(0x0202, 0x0202, 1),
        RouteSettings { order: Order::Session, ..route(0x0210, 0x0214, 2) },
        // Its clients lose their connections and wait for their answers all the same.
        RouteSettings { anonymous: true, timeout: Duration::from_secs(60), ..route(0x0100, 0x01ff, 3) },
    ];
    (services.into(), routes)
}

/// The only sources that there are: what is said above.
fn fixed(services: &[ServiceSettings]) -> Vec<ServiceSources> {
    let of = |(id, service): (u16, &ServiceSettings)| ServiceSources {
        service: ServiceId(id),
        name: service.name.clone(),
        fixed: service.endpoints.clone(),
        file: None,
        dns: None,
        consul: None,
        nacos: None,
    };
    (0u16..).zip(services).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dev_stays_on_loopback() {
        let nobody = "127.0.0.1:1".parse().unwrap();
        let options = |listen: &str| DevOptions {
            listen: listen.parse().unwrap(),
            admin: "127.0.0.1:0".parse().unwrap(),
            bench: nobody,
            services: DevServices { echo: nobody, accounts: nobody, chat: nobody },
            key_id: "dev",
            secret: &[7; 32],
        };
        let settings = dev(&options("127.0.0.1:0")).unwrap();
        assert_eq!(settings.limits, limit::Settings::unlimited());
        assert!(!settings.bans.enabled && settings.reactor.accepts.is_none());
        assert_eq!(settings.reactor.connections_per_address, None);
        assert!(dev(&options("[::1]:0")).is_ok());
        assert!(dev(&options("0.0.0.0:7000")).unwrap_err().contains("loopback"));
    }
}
