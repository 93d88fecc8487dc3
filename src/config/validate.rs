//! What the file says, held against itself: relations between keys, secrets, routes.

use super::file::{Accept, Balance, ConfigError, File, KeyTable, Order, Report, RouteTable, ServiceTable};
use super::{Settings, text};
use crate::auth::{KeyRing, SigningKey};
use crate::base::ids::ServiceId;
use crate::reactor::{AcceptMode, ListenerSettings};
use crate::routing::{self, RouteSettings, RoutingError, ServiceSettings, Span};
use crate::telemetry::AccessTarget;
use crate::{forward, reactor, session, shard};
use moorgate_proto::limits::{FRAME_BYTES_CEILING, FRAME_BYTES_OPENING, NAME_BYTES};
use moorgate_proto::proof::LinkKey;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use toml::Spanned;

/// Where secrets come from.
struct Secrets<'a> {
    directory: &'a Path,
    environment: &'a dyn Fn(&str) -> Option<String>,
}

impl Secrets<'_> {
    fn read(&self, file: Option<&str>, variable: Option<&str>) -> Result<Vec<u8>, String> {
        match (file, variable) {
            (Some(file), None) => {
                let path = self.directory.join(file);
                let mut secret =
                    std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                // Editors end a file with a line feed; it is no part of the secret.
                while secret.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
                    secret.pop();
                }
                Ok(secret)
            }
            (None, Some(variable)) => (self.environment)(variable)
                .map(String::into_bytes)
                .ok_or_else(|| format!("the environment has no variable {variable}")),
            (Some(_), Some(_)) => Err("a file and a variable: write only one of them".to_owned()),
            (None, None) => Err("there is no secret".to_owned()),
        }
    }
}

pub(super) fn validate(
    file: &File,
    mut report: Report<'_>,
    directory: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Settings, ConfigError> {
    let secrets = Secrets { directory, environment };
    let keys = keys(file, &secrets, &mut report);
    let services = services(file, &secrets, &mut report);
    let routes = routes(file, &mut report);
    let settings = Settings {
        reactor: reactor_settings(file, &mut report),
        shard: shard_settings(file, &mut report),
        session: session_settings(file, &mut report),
        forward: forward_settings(file, &mut report),
        keys: Arc::new(keys),
        routes: Arc::new(routes),
        services,
        admin: file.admin.as_ref().map(|admin| admin.address.get_ref().0),
        access_log: match file.log.access.as_deref() {
            None | Some("off") => AccessTarget::Off,
            Some("stdout") => AccessTarget::Stdout,
            Some(path) => AccessTarget::File(path.into()),
        },
        log_level: log_level(file, &mut report),
    };
    report.finish(settings)
}

fn log_level(file: &File, report: &mut Report<'_>) -> log::LevelFilter {
    let Some(level) = &file.log.level else { return log::LevelFilter::Info };
    level.get_ref().parse().unwrap_or_else(|_| {
        let message = "write \"error\", \"warn\", \"info\", \"debug\" or \"trace\"";
        report.at(level.span(), format!("log.level: `{}` is no level; {message}", level.get_ref()));
        log::LevelFilter::Info
    })
}

fn reactor_settings(file: &File, report: &mut Report<'_>) -> reactor::Settings {
    let default = reactor::Settings::default();
    let (gateway, limits, session) = (&file.gateway, &file.limits, &file.session);
    if file.listener.is_empty() {
        report.whole(
            "no [[listener]]: clients cannot connect; write\n  [[listener]]\n  address = \"0.0.0.0:7000\"",
        );
    }
    for (at, listener) in file.listener.iter().enumerate() {
        let address = listener.address.get_ref().0;
        let twice = file.listener.iter().take(at).any(|other| other.address.get_ref().0 == address);
        let operators = file.admin.as_ref().is_some_and(|admin| admin.address.get_ref().0 == address);
        if address.port() != 0 && (twice || operators) {
            report.at(listener.address.span(), format!("listener.address: {address} is used twice"));
        }
    }
    let accepts_per_turn = match &limits.accepts_per_turn {
        Some(zero) if *zero.get_ref() == 0 => {
            report.at(zero.span(), "limits.accepts_per_turn: 0 accepts nobody; write at least 1");
            1
        }
        Some(accepts) => *accepts.get_ref(),
        None => default.accepts_per_turn,
    };
    reactor::Settings {
        shards: gateway.shards.unwrap_or(default.shards),
        workers: gateway.workers.unwrap_or(default.workers),
        listeners: file
            .listener
            .iter()
            .map(|listener| ListenerSettings {
                address: listener.address.get_ref().0,
                accept: match listener.accept {
                    Some(Accept::Shared) => AcceptMode::Shared,
                    Some(Accept::ReusePort) | None => AcceptMode::ReusePort,
                },
            })
            .collect(),
        backlog: limits.backlog.unwrap_or(default.backlog),
        accepts_per_turn,
        connections_per_address: match limits.connections_per_address {
            None => default.connections_per_address,
            Some(0) => None,
            limit => limit,
        },
        keepalive: or(session.keepalive, default.keepalive),
        user_timeout: or(session.user_timeout, default.user_timeout),
        drain_timeout: or(gateway.drain_timeout, default.drain_timeout),
    }
}

fn or(time: Option<text::Time>, default: Duration) -> Duration {
    time.map_or(default, |time| time.0)
}

fn shard_settings(file: &File, report: &mut Report<'_>) -> shard::Settings {
    let default = shard::Settings::default();
    let (limits, session) = (&file.limits, &file.session);
    for (name, value) in [("connections", limits.connections.as_ref().map(|v| (v.span(), *v.get_ref())))]
        .into_iter()
        .chain([("outstanding", limits.outstanding.as_ref().map(|v| (v.span(), u64::from(*v.get_ref()))))])
    {
        if let Some((span, 0)) = value {
            report.at(span, format!("limits.{name}: 0 serves nobody; write at least 1"));
        }
    }
    shard::Settings {
        connections_max: limits
            .connections
            .as_ref()
            .map_or(default.connections_max, |max| usize::try_from(*max.get_ref()).unwrap_or(usize::MAX)),
        partial_bytes_max: limits.unfinished_frames.map_or(default.partial_bytes_max, |size| size.0),
        output_bytes_high: limits
            .unsent_output
            .as_ref()
            .map_or(default.output_bytes_high, |size| size.get_ref().0),
        outstanding_max: limits
            .outstanding
            .as_ref()
            .map_or(default.outstanding_max, |max| *max.get_ref() as usize),
        handshake_timeout: or(session.handshake_timeout, default.handshake_timeout),
        frame_timeout: or(session.frame_timeout, default.frame_timeout),
        write_timeout: or(session.write_timeout, default.write_timeout),
        linger: or(session.linger, default.linger),
        expiry_grace: or(session.expiry_grace, default.expiry_grace),
        reconnect_spread: or(file.gateway.reconnect_spread, default.reconnect_spread),
    }
}

fn session_settings(file: &File, report: &mut Report<'_>) -> session::Settings {
    let (table, default) = (&file.session, session::Settings::default());
    let settings = session::Settings {
        in_flight_max: table.in_flight.as_ref().map_or(default.in_flight_max, |max| *max.get_ref()),
        window_max: table.window.as_ref().map_or(default.window_max, |max| *max.get_ref()),
        frame_bytes_max: frame(table.frame.as_ref(), "session.frame", default.frame_bytes_max, report),
        heartbeat: or(table.heartbeat, default.heartbeat),
        heartbeat_min: or(table.heartbeat_min, default.heartbeat_min),
        heartbeat_max: or(table.heartbeat_max, default.heartbeat_max),
    };
    let span = |value: Option<&Spanned<u32>>| value.map_or(0..0, Spanned::span);
    if settings.in_flight_max == 0 {
        report.at(span(table.in_flight.as_ref()), "session.in_flight: 0 allows no request; write at least 1");
    }
    if settings.window_max < settings.in_flight_max {
        let message = "session.window: a Response to each request in flight must fit; write at least";
        report.at(span(table.window.as_ref()), format!("{message} {}", settings.in_flight_max));
    }
    if !(settings.heartbeat_min..=settings.heartbeat_max).contains(&settings.heartbeat) {
        report
            .whole("session.heartbeat: it must lie between session.heartbeat_min and session.heartbeat_max");
    }
    settings
}

fn frame(size: Option<&Spanned<text::Size>>, key: &str, default: usize, report: &mut Report<'_>) -> usize {
    let Some(size) = size else { return default };
    let bytes = size.get_ref().0;
    if !(FRAME_BYTES_OPENING..=FRAME_BYTES_CEILING).contains(&bytes) {
        report.at(size.span(), format!("{key}: it must lie between \"4 KiB\" and \"16 MiB\""));
    }
    bytes
}

fn forward_settings(file: &File, report: &mut Report<'_>) -> forward::Settings {
    let (table, default) = (&file.links, forward::Settings::default());
    if let Some(id) = &file.gateway.id
        && !(1..=NAME_BYTES).contains(&id.get_ref().len())
    {
        report.at(id.span(), format!("gateway.id: it must have 1 to {NAME_BYTES} bytes"));
    }
    if let Some(zero) = table.per_endpoint.as_ref().filter(|slots| *slots.get_ref() == 0) {
        report.at(zero.span(), "links.per_endpoint: 0 reaches no service; write at least 1");
    }
    let settings = forward::Settings {
        gateway_id: file.gateway.id.as_ref().map_or(default.gateway_id, |id| id.get_ref().clone()),
        links_per_endpoint: table
            .per_endpoint
            .as_ref()
            .map_or(default.links_per_endpoint, |slots| *slots.get_ref()),
        connect_timeout: or(table.connect_timeout, default.connect_timeout),
        reconnect_min: or(table.reconnect_min, default.reconnect_min),
        reconnect_max: or(table.reconnect_max, default.reconnect_max),
        heartbeat: or(table.heartbeat, default.heartbeat),
        late_reply_grace: or(table.late_reply_grace, default.late_reply_grace),
        frame_bytes_max: frame(table.frame.as_ref(), "links.frame", default.frame_bytes_max, report),
        output_bytes_max: table.unsent_output.map_or(default.output_bytes_max, |size| size.0),
        waiting_max: table.waiting.map_or(default.waiting_max, |max| max as usize),
    };
    if settings.reconnect_max < settings.reconnect_min {
        report.whole("links.reconnect_max: it must not be below links.reconnect_min");
    }
    settings
}

fn keys(file: &File, secrets: &Secrets<'_>, report: &mut Report<'_>) -> KeyRing {
    let mut keys = Vec::new();
    for table in &file.auth.key {
        match signing_key(table.get_ref(), secrets) {
            Ok(key) => keys.push(key),
            Err(message) => report.at(table.span(), format!("auth.key: {message}")),
        }
    }
    let leeway = match file.auth.leeway.as_deref() {
        None => Duration::from_secs(30),
        Some("0s") => Duration::ZERO,
        Some(leeway) => text::parse_time(leeway).unwrap_or_else(|message| {
            report.whole(format!("auth.leeway: {message}"));
            Duration::ZERO
        }),
    };
    let (issuer, audience) = (file.auth.issuer.clone(), file.auth.audience.clone());
    KeyRing::new(keys, issuer, audience, leeway.as_secs()).unwrap_or_else(|error| {
        report.whole(format!("auth.key: {error}"));
        KeyRing::default()
    })
}

fn signing_key(table: &KeyTable, secrets: &Secrets<'_>) -> Result<SigningKey, String> {
    if table.secret.is_some() {
        return Err(
            "secrets do not stand in this file; write secret_file = \"PATH\" or secret_env = \"NAME\""
                .to_owned(),
        );
    }
    let secret = secrets.read(table.secret_file.as_deref(), table.secret_env.as_deref()).map_err(|why| {
        format!("key `{}`: {why}; write secret_file = \"PATH\" or secret_env = \"NAME\"", table.id)
    })?;
    SigningKey::new(&table.id, &secret).map_err(|error| error.to_string())
}

fn services(file: &File, secrets: &Secrets<'_>, report: &mut Report<'_>) -> Vec<ServiceSettings> {
    if file.service.is_empty() {
        report.whole("no [[service]]: there is nowhere to send requests to");
    }
    let mut services: Vec<ServiceSettings> = Vec::new();
    for spanned in &file.service {
        let (table, span) = (spanned.get_ref(), spanned.span());
        if services.iter().any(|other| other.name == table.name) {
            report.at(span.clone(), format!("service `{}` stands here twice", table.name));
        }
        match service(table, secrets) {
            Ok(service) => services.push(service),
            Err(message) => report.at(span, format!("service `{}`: {message}", table.name)),
        }
        if !file.route.iter().any(|route| route.get_ref().service == table.name) {
            report.at(
                spanned.span(),
                format!("service `{}` has no route: write a [[route]] to it", table.name),
            );
        }
    }
    services
}

fn service(table: &ServiceTable, secrets: &Secrets<'_>) -> Result<ServiceSettings, String> {
    if !(1..=NAME_BYTES).contains(&table.name.len()) {
        return Err(format!("a name has 1 to {NAME_BYTES} bytes"));
    }
    if table.endpoints.is_empty() {
        return Err("endpoints: there are none; write for example endpoints = [\"10.0.0.1:7100\"]".to_owned());
    }
    if table.key.is_some() {
        return Err(
            "secrets do not stand in this file; write key_file = \"PATH\" or key_env = \"NAME\"".to_owned()
        );
    }
    let key = if table.without_proofs {
        None
    } else {
        let secret = secrets.read(table.key_file.as_deref(), table.key_env.as_deref()).map_err(|why| {
            format!(
                "{why}; write key_file = \"PATH\" or key_env = \"NAME\", or without_proofs = true where nobody else \
                 can reach its addresses"
            )
        })?;
        Some(LinkKey::new(&secret).ok_or("its key has fewer than 16 bytes")?)
    };
    Ok(ServiceSettings {
        name: table.name.clone(),
        endpoints: table.endpoints.iter().map(|address| address.0).collect(),
        balance: match table.balance {
            Some(Balance::RoundRobin) => routing::Balance::RoundRobin,
            Some(Balance::LeastOutstanding) | None => routing::Balance::LeastOutstanding,
        },
        key,
    })
}

fn routes(file: &File, report: &mut Report<'_>) -> routing::RouteTable {
    let mut settings = Vec::new();
    for spanned in &file.route {
        match route(spanned.get_ref(), file) {
            Ok(route) => settings.push(route),
            Err(message) => report.at(spanned.span(), format!("route: {message}")),
        }
    }
    if settings.len() < file.route.len() {
        return routing::RouteTable::default();
    }
    holes(file, report);
    routing::RouteTable::build(&settings).unwrap_or_else(|errors| {
        for error in errors {
            match error {
                RoutingError::Overlap(one, two) => {
                    let commands = |at: usize| file.route.get(at).map(|route| route.get_ref().commands.0);
                    let span = file.route.get(two).map_or(0..0, Spanned::span);
                    if let (Some(one), Some(two)) = (commands(one), commands(two)) {
                        report.at(span, format!("route: {two} overlaps with {one} in the same versions"));
                    }
                }
                RoutingError::TooManyRoles | RoutingError::TooManyRoutes => report.whole(error),
            }
        }
        routing::RouteTable::default()
    })
}

fn route(table: &RouteTable, file: &File) -> Result<RouteSettings, String> {
    let at = file.service.iter().position(|service| service.get_ref().name == table.service);
    let names =
        || file.service.iter().map(|service| service.get_ref().name.as_str()).collect::<Vec<_>>().join(", ");
    let Some(service) = at.and_then(|at| u16::try_from(at).ok()) else {
        return Err(format!("there is no service `{}`; there are: {}", table.service, names()));
    };
    if table.anonymous && !table.roles.is_empty() {
        return Err("anonymous sessions have no roles: write either `anonymous = true` or `roles`".to_owned());
    }
    let default = RouteSettings::new(table.commands.0, ServiceId(service));
    Ok(RouteSettings {
        versions: table.versions.map_or(default.versions, |versions| versions.0),
        anonymous: table.anonymous,
        roles: table.roles.clone(),
        protocol_min: table.protocol_min.unwrap_or(default.protocol_min),
        timeout: or(table.timeout, default.timeout),
        order: match table.order {
            Some(Order::Session) => routing::Order::Session,
            Some(Order::None) | None => routing::Order::None,
        },
        idempotent: table.idempotent,
        payload_bytes_max: table.payload.map_or(default.payload_bytes_max, |size| size.0),
        ..default
    })
}

/// Commands that a service says are its own, and no route leads to.
fn holes(file: &File, report: &mut Report<'_>) {
    for spanned in &file.service {
        let service = spanned.get_ref();
        let Some(declared) = service.commands else { continue };
        let own = file.route.iter().filter(|route| route.get_ref().service == service.name);
        let mut covered: Vec<Span> = own.map(|route| route.get_ref().commands.0).collect();
        covered.sort_by_key(|span| span.first);
        let mut next = u64::from(declared.0.first);
        let end = u64::from(declared.0.last);
        let mut hole = |first: u64, last: u64| {
            if let (Ok(first), Ok(last)) = (u32::try_from(first), u32::try_from(last)) {
                let hole = Span { first, last };
                report
                    .at(spanned.span(), format!("service `{}`: no route leads to its {hole}", service.name));
            }
        };
        for span in covered {
            if u64::from(span.first) > next && next <= end {
                hole(next, end.min(u64::from(span.first).saturating_sub(1)));
            }
            next = next.max(u64::from(span.last).saturating_add(1));
        }
        if next <= end {
            hole(next, end);
        }
    }
}
