//! What the file says, within bounds and held against itself.

use super::discovery::Around;
use super::limits::NewComers;
use super::listeners::{Listeners, listeners};
use super::register::register;
use super::report::{ConfigError, Report};
use super::secrets::Secrets;
use super::section::Section;
use super::services::{Ways, services_and_routes};
use super::{Settings, devices, identity, limits, text};
use crate::control::discovery::{self, ServiceSources, Settings as Discovery};
use crate::limit::Reserve;
use crate::reactor::ListenerSettings;
use crate::telemetry::AccessTarget;
use crate::{forward, reactor, session, shard};
use moorgate_proto::limits::{FRAME_BYTES_CEILING, FRAME_BYTES_OPENING, NAME_BYTES};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Zero: sessions end with their connections.
const DETACHED_TTLS: RangeInclusive<Duration> = Duration::ZERO..=text::TIME_MAX;
const TIMES: RangeInclusive<Duration> = Duration::from_millis(1)..=text::TIME_MAX;
/// Zero: the drain begins at once.
const DRAIN_DELAYS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(600);
/// What the kernel takes for the idle time before a keepalive probe.
const KEEPALIVES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(9 * 3600);
/// Threads of one kind.
pub(super) const THREADS_MAX: u16 = 1024;
/// Links from one worker to one endpoint.
const LINKS_MAX: u16 = 256;
/// Requests in flight and unacknowledged frames of one session.
const WINDOW_MAX: u32 = 65_536;
/// Groups of one session.
const GROUPS_MAX: usize = 65_536;
const FRAMES: RangeInclusive<usize> = FRAME_BYTES_OPENING..=FRAME_BYTES_CEILING;
/// Memory for one purpose; above the largest frame, below what any machine has.
const MEMORY: RangeInclusive<usize> = FRAME_BYTES_OPENING..=1 << 40;
/// Unsent output of one socket: with the frame that is above the bound it stays far below 4 GiB, as
/// [`Output`](crate::base::output::Output) counts it.
const OUTPUT: RangeInclusive<usize> = FRAME_BYTES_OPENING..=1 << 30;

/// The tables from which several settings are read.
struct Tables<'a> {
    gateway: Section<'a>,
    limits: Section<'a>,
    session: Section<'a>,
    links: Section<'a>,
    presence: Section<'a>,
    rates: Section<'a>,
    bans: Section<'a>,
}

pub(super) fn validate(
    mut root: Section<'_>,
    mut report: Report<'_>,
    secrets: &Secrets<'_>,
) -> Result<Settings, ConfigError> {
    let mut tables = Tables {
        gateway: root.table("gateway"),
        limits: root.table("limits"),
        session: root.table("session"),
        links: root.table("links"),
        presence: root.table("presence"),
        rates: root.table("rates"),
        bans: root.table("bans"),
    };
    let session = session_settings(&mut tables.session);
    let Listeners { clients, admin, admin_hosts } = listeners(&mut root, &mut report, &session);
    let (access_log, log_level) = log(root.table("log"), secrets.directory, &mut report);
    let mistakes = report.count();
    let authority = identity::authority(&mut root, secrets, &mut report);
    let own = clients.iter().map(|listener| &listener.at).chain(&admin);
    let own: Vec<SocketAddr> = own.filter_map(|at| at.address()).collect();
    let discovery = super::discovery::discovery(&mut root, secrets, &own, &mut report);
    let around = Around { secrets, has_nacos: discovery.nacos.is_some(), own: &own };
    let Ways { services, sources, routes, rates } = services_and_routes(&mut root, &around, &mut report);
    check_state_file(&mut root, &discovery, &sources, &mut report);
    let register = register(&mut root, &discovery, admin.as_ref(), &mut report);
    let (limits, NewComers { accepts, openings }) = limits::rates(&mut tables.rates, rates);
    if report.count() == mistakes {
        identity::check_logins(&authority, &services, &mut report);
    }
    let check = identity::session_check(&mut root, &services, &mut report);
    let forward = forward::Settings {
        client_frame_bytes_max: session.frame_bytes_max,
        ..forward_settings(&mut tables)
    };
    let heartbeats = clients.iter().map(|listener| listener.heartbeat).collect();
    let settings = Settings {
        reactor: reactor::Settings { accepts, ..reactor_settings(&mut tables, clients) },
        shard: shard::Settings {
            check: check.as_ref().map(|(_, settings)| settings.clone()),
            // What waits for clients that are slow is let go before new pushes are refused.
            push_bytes_soft: forward.push_bytes_max / 2,
            login_services: limits::login_services(&services),
            heartbeats,
            openings,
            ..shard_settings(&mut tables)
        },
        directory: devices::devices(&mut root, &mut report),
        forward,
        session,
        limits,
        bans: limits::bans(&mut tables.bans),
        authority: Arc::new(authority),
        routes: Arc::new(routes),
        services,
        discovery: with_services(discovery, sources),
        register,
        check_service: check.map(|(service, _)| service),
        admin,
        admin_hosts,
        access_log,
        log_level,
        warnings: Vec::new(),
    };
    relations(&settings, &mut tables);
    let Tables { gateway, limits, session, links, presence, rates, bans } = tables;
    for section in [root, gateway, limits, session, links, presence, rates, bans] {
        section.close(&mut report);
    }
    let settings = Settings { warnings: report.warnings(), ..settings };
    report.finish(settings)
}

/// Notes it when the lists that are found cannot be kept.
fn check_state_file(
    root: &mut Section<'_>,
    discovery: &Discovery,
    sources: &[ServiceSources],
    report: &mut Report<'_>,
) {
    let is_used = sources.iter().any(ServiceSources::is_found);
    let Some(path) = discovery.state_file.as_deref().filter(|_| is_used) else { return };
    if let Err(error) = discovery::check_state_file(path) {
        let message = format!("discovery.state_file: {error}");
        match root.table("discovery") {
            table if table.has("state_file") => report.at(table.place("state_file"), message),
            _ => report.whole(message),
        }
    }
}

/// The agent of Consul is where it always is, when nothing is said.
fn with_services(discovery: Discovery, services: Vec<ServiceSources>) -> Discovery {
    let asks_consul = services.iter().any(|service| service.consul.is_some());
    let consul = discovery.consul.or_else(|| asks_consul.then(Default::default));
    Discovery { services, consul, ..discovery }
}

fn log(
    mut section: Section<'_>,
    directory: &Path,
    report: &mut Report<'_>,
) -> (AccessTarget, log::LevelFilter) {
    use log::LevelFilter::{Debug, Error, Info, Trace, Warn};
    let access = match section.text("access").as_deref() {
        None | Some("off") => AccessTarget::Off,
        Some("stdout") => AccessTarget::Stdout,
        Some("") => {
            section.wrong("access", "this is empty; write \"off\", \"stdout\" or the path of a file");
            AccessTarget::Off
        }
        Some(path) => AccessTarget::File(directory.join(path)),
    };
    if let Err(error) = access.check() {
        section.wrong("access", error);
    }
    let levels = [("error", Error), ("warn", Warn), ("info", Info), ("debug", Debug), ("trace", Trace)];
    let level = section.choice("level", &levels, Info);
    section.close(report);
    (access, level)
}

fn reactor_settings(tables: &mut Tables<'_>, listeners: Vec<ListenerSettings>) -> reactor::Settings {
    let default = reactor::Settings::default();
    let Tables { gateway, limits, session, .. } = tables;
    let per_address =
        limits.number("connections_per_address", 0..=u32::MAX, default.connections_per_address.unwrap_or(0));
    reactor::Settings {
        shards: gateway.number("shards", 0..=THREADS_MAX, default.shards),
        workers: gateway.number("workers", 0..=THREADS_MAX, default.workers),
        listeners,
        backlog: limits.number("backlog", 1..=u16::MAX, default.backlog),
        accepts_per_turn: limits.number("accepts_per_turn", 1..=u16::MAX, default.accepts_per_turn),
        connections_per_address: (per_address != 0).then_some(per_address),
        keepalive: session.seconds("keepalive", KEEPALIVES, default.keepalive),
        user_timeout: session.time("user_timeout", TIMES, default.user_timeout),
        drain_timeout: gateway.time("drain_timeout", TIMES, default.drain_timeout),
        drain_delay: gateway.time("drain_delay", DRAIN_DELAYS, default.drain_delay),
        accepts: default.accepts,
    }
}

fn shard_settings(tables: &mut Tables<'_>) -> shard::Settings {
    let default = shard::Settings::default();
    let Tables { gateway, limits, session, presence, .. } = tables;
    let count_max = u32::MAX as usize;
    shard::Settings {
        connections_max: limits.number("connections", 1..=count_max, default.connections_max),
        handshakes_max: limits.number("handshakes", 1..=count_max, default.handshakes_max),
        reserve: Reserve { percent: limits.number("reserve", 0..=100, default.reserve.percent) },
        partial_bytes_max: limits.size("unfinished_frames", MEMORY, default.partial_bytes_max),
        owed_bytes_max: limits.size("unacknowledged", MEMORY, default.owed_bytes_max),
        output_bytes_high: limits.size("unsent_output", OUTPUT, default.output_bytes_high),
        outstanding_max: limits.number("outstanding", 1..=count_max, default.outstanding_max),
        handshake_timeout: session.time("handshake_timeout", TIMES, default.handshake_timeout),
        frame_timeout: session.time("frame_timeout", TIMES, default.frame_timeout),
        write_timeout: session.time("write_timeout", TIMES, default.write_timeout),
        linger: session.time("linger", TIMES, default.linger),
        expiry_grace: session.time("expiry_grace", TIMES, default.expiry_grace),
        reconnect_spread: gateway.time("reconnect_spread", TIMES, default.reconnect_spread),
        presence_grace: presence.time("grace", DETACHED_TTLS, default.presence_grace),
        detached: shard::DetachedCaps {
            total: limits.number("detached", 0..=count_max, default.detached.total),
            user: limits.number("detached_per_user", 0..=count_max, default.detached.user),
            address: limits.number("detached_per_address", 0..=count_max, default.detached.address),
            application: limits.number(
                "detached_per_application",
                0..=count_max,
                default.detached.application,
            ),
        },
        ..default
    }
}

fn session_settings(session: &mut Section<'_>) -> session::Settings {
    let default = session::Settings::default();
    session::Settings {
        in_flight_max: session.number("in_flight", 1..=WINDOW_MAX, default.in_flight_max),
        window_max: session.number("window", 1..=WINDOW_MAX, default.window_max),
        frame_bytes_max: session.size("frame", FRAMES, default.frame_bytes_max),
        pushes_max: session.number("pushes", 1..=WINDOW_MAX as usize, default.pushes_max),
        push_bytes_max: session.size("push_bytes", MEMORY, default.push_bytes_max),
        response_bytes_max: session.size("response_bytes", MEMORY, default.response_bytes_max),
        groups_max: session.number("groups", 0..=GROUPS_MAX, default.groups_max),
        heartbeat: session.time("heartbeat", TIMES, default.heartbeat),
        heartbeat_min: session.time("heartbeat_min", TIMES, default.heartbeat_min),
        heartbeat_max: session.time("heartbeat_max", TIMES, default.heartbeat_max),
        detached_ttl: session.time("detached_ttl", DETACHED_TTLS, default.detached_ttl),
    }
}

fn forward_settings(tables: &mut Tables<'_>) -> forward::Settings {
    let default = forward::Settings::default();
    let Tables { gateway, limits, links, presence, .. } = tables;
    let heartbeat = links.time("heartbeat", TIMES, default.heartbeat);
    let id = gateway.text("id").unwrap_or(default.gateway_id);
    if !(1..=NAME_BYTES).contains(&id.len()) {
        gateway.wrong("id", format!("it has {} bytes; write 1 to {NAME_BYTES}", id.len()));
    }
    forward::Settings {
        gateway_id: id,
        links_per_endpoint: links.number("per_endpoint", 1..=LINKS_MAX, default.links_per_endpoint),
        connect_timeout: links.time("connect_timeout", TIMES, default.connect_timeout),
        reconnect_min: links.time("reconnect_min", TIMES, default.reconnect_min),
        reconnect_max: links.time("reconnect_max", TIMES, default.reconnect_max),
        heartbeat,
        late_reply_grace: links.time("late_reply_grace", TIMES, default.late_reply_grace),
        frame_bytes_max: links.size("frame", FRAMES, default.frame_bytes_max),
        main_link_frame_bytes: default.main_link_frame_bytes,
        bulk_idle: default.bulk_idle,
        output_bytes_max: links.size("unsent_output", OUTPUT, default.output_bytes_max),
        waiting_bytes_max: links.size("waiting_bytes", MEMORY, default.waiting_bytes_max),
        waiting_max: links.number("waiting", 1..=u32::MAX as usize, default.waiting_max),
        pushes_max: links.number("pushes", 1..=u32::MAX, default.pushes_max),
        deliveries_max: limits.number("push_deliveries", 1..=u32::MAX as usize, default.deliveries_max),
        push_bytes_max: limits.size("push_memory", MEMORY, default.push_bytes_max),
        client_frame_bytes_max: default.client_frame_bytes_max,
        presence_lease: devices::lease(presence, default.presence_lease, heartbeat),
    }
}

/// One key bounds another. Told at the first of them that is written: a default is not the mistake.
fn relations(settings: &Settings, tables: &mut Tables<'_>) {
    let Tables { limits, session, links, .. } = tables;
    let time = humantime::format_duration;
    let Settings { shard, session: own, forward, .. } = settings;
    if own.window_max < own.in_flight_max {
        let (window, in_flight) = (own.window_max, own.in_flight_max);
        let message = format!(
            "session.window is {window} and must hold a Response to each of the {in_flight} requests of \
             session.in_flight; write window = {in_flight} or more"
        );
        session.wrong_first(&["window", "in_flight"], message);
    }
    if !(own.heartbeat_min..=own.heartbeat_max).contains(&own.heartbeat) {
        let (low, high) = (time(own.heartbeat_min), time(own.heartbeat_max));
        let message = format!(
            "session.heartbeat is {} and must lie between session.heartbeat_min, {low}, and \
             session.heartbeat_max, {high}; change one of them",
            time(own.heartbeat)
        );
        session.wrong_first(&["heartbeat", "heartbeat_min", "heartbeat_max"], message);
    }
    if forward.reconnect_max < forward.reconnect_min {
        let (low, high) = (time(forward.reconnect_min), time(forward.reconnect_max));
        let message = format!(
            "links.reconnect_max is {high} and must not be below links.reconnect_min, {low}; change one of them"
        );
        links.wrong_first(&["reconnect_max", "reconnect_min"], message);
    }
    if shard.partial_bytes_max < own.frame_bytes_max {
        let size = text::write_size;
        let (room, frame) = (size(shard.partial_bytes_max), size(own.frame_bytes_max));
        let message = format!(
            "limits.unfinished_frames is {room} and must hold at least one frame of session.frame, {frame}; write \
             unfinished_frames = \"{frame}\" or more"
        );
        let section = if limits.has("unfinished_frames") { limits } else { session };
        section.wrong_first(&["unfinished_frames", "frame"], message);
    }
}
