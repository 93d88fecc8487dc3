//! Where clients and the operator connect: addresses, or sockets of the service manager.

use super::report::Report;
use super::section::{Section, list, string};
use super::text;
use crate::reactor::{AcceptMode, ListenAt, ListenerSettings};
use crate::session;
use moorgate_proto::limits::NAME_BYTES;
use std::ops::RangeInclusive;
use std::time::Duration;

const ADDRESS: &str = "an address such as \"0.0.0.0:7000\"";
/// Zero: the deployment's own.
const HEARTBEATS: RangeInclusive<Duration> = Duration::ZERO..=text::TIME_MAX;
const SOCKET: &str = "socket_name";
/// Each is a socket of every shard.
const LISTENERS_MAX: usize = 256;

/// Names in `admin.hosts`, and bytes of each: a name of DNS.
const HOSTS_MAX: usize = 16;
const HOST_BYTES: usize = 253;

/// Where clients and the operator connect.
pub(super) struct Listeners {
    pub(super) clients: Vec<ListenerSettings>,
    pub(super) admin: Option<ListenAt>,
    pub(super) admin_hosts: Vec<String>,
}

/// Reads `[[listener]]` and `[admin]`.
pub(super) fn listeners(
    root: &mut Section<'_>,
    report: &mut Report<'_>,
    session: &session::Settings,
) -> Listeners {
    let mut listeners: Vec<ListenerSettings> = Vec::new();
    let sections = root.tables("listener");
    if sections.is_empty() && !root.has("listener") {
        report.whole(
            "no [[listener]]: clients cannot connect; write\n  [[listener]]\n  address = \"0.0.0.0:7000\"",
        );
    }
    if sections.len() > LISTENERS_MAX {
        report.whole(format!("{} of [[listener]]; write {LISTENERS_MAX} or fewer", sections.len()));
    }
    for mut section in sections {
        let at = place(&mut section, "\"0.0.0.0:7000\"");
        let modes = [("reuse_port", AcceptMode::ReusePort), ("shared", AcceptMode::Shared)];
        let mut accept = section.choice("accept", &modes, AcceptMode::default());
        if let Some(ListenAt::Inherited(_)) = at {
            if section.has("accept") && accept == AcceptMode::ReusePort {
                section.wrong("accept", "a socket of the service manager is always shared; leave this out");
            }
            accept = AcceptMode::Shared;
        }
        let has_own = section.has("heartbeat");
        let heartbeat = section.time("heartbeat", HEARTBEATS, Duration::ZERO);
        let heartbeat = (has_own && !heartbeat.is_zero()).then_some(heartbeat);
        let (low, high) = (session.heartbeat_min, session.heartbeat_max);
        if let Some(heartbeat) = heartbeat
            && !(low..=high).contains(&heartbeat)
        {
            let [heartbeat, low, high] = [heartbeat, low, high].map(humantime::format_duration);
            let bounds = format!("session.heartbeat_min, {low}, and session.heartbeat_max, {high}");
            section.wrong("heartbeat", format!("it is {heartbeat} and must lie between {bounds}"));
        }
        if let Some(at) = at {
            // Beyond the bound nothing is compared: it is a mistake already.
            if listeners.len() < LISTENERS_MAX {
                collision(&mut section, &at, &listeners, "another listener");
            }
            listeners.push(ListenerSettings { at, accept, heartbeat });
        }
        section.close(report);
    }
    let mut section = root.table("admin");
    let admin = root.has("admin").then(|| place(&mut section, "\"127.0.0.1:7001\"")).flatten();
    if let Some(at) = &admin {
        collision(&mut section, at, &listeners, "a listener");
    }
    let admin_hosts = hosts(&mut section);
    section.close(report);
    Listeners { clients: listeners, admin, admin_hosts }
}

/// Names of this gateway.
fn hosts(section: &mut Section<'_>) -> Vec<String> {
    const RIGHT: &str = "a list such as [\"gw1.internal\"]";
    let host = |text: &str| {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        match is_plain && (1..=HOST_BYTES).contains(&text.len()) {
            true => Ok(text.to_owned()),
            false => Err(format!("`{}` is no host name; write {RIGHT}, without ports", text.escape_debug())),
        }
    };
    let read = |value: &_| {
        let hosts = list(value, RIGHT, host)?;
        let count = hosts.len();
        (count <= HOSTS_MAX)
            .then_some(hosts)
            .ok_or_else(|| format!("{count} names; write {HOSTS_MAX} or fewer"))
    };
    section.read("hosts", read).unwrap_or_default()
}

/// An address or a socket's name, one of the two.
fn place(section: &mut Section<'_>, example: &str) -> Option<ListenAt> {
    let read = |value: &_| text::parse_address(string(value, ADDRESS)?).map(ListenAt::Address);
    let Some(name) = section.text(SOCKET) else {
        // One that could not be read has told its own mistake.
        return if section.has(SOCKET) {
            section.read("address", read)
        } else {
            section.required("address", example, read)
        };
    };
    if section.has("address") {
        section.wrong(SOCKET, "there is an address too; leave one of them out");
    }
    // It stands in a list with colons, and in logs.
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !is_plain || !(1..=NAME_BYTES).contains(&name.len()) {
        section.wrong(SOCKET, format!("write 1 to {NAME_BYTES} letters, digits and -_."));
    }
    section.read("address", read);
    Some(ListenAt::Inherited(name))
}

/// Notes it when two places cannot both be listened on.
fn collision(section: &mut Section<'_>, at: &ListenAt, others: &[ListenerSettings], whose: &str) {
    let Some(other) = others.iter().map(|other| &other.at).find(|other| at.collides(other)) else { return };
    match at {
        ListenAt::Address(address) => {
            let message = format!("{address} collides with {other} of {whose}; choose another port");
            section.wrong("address", message);
        }
        ListenAt::Inherited(name) => {
            let name = text::echo(name);
            section.wrong(SOCKET, format!("{whose} takes `{name}` already; choose another socket"));
        }
    }
}
