//! Where the endpoints of services come from: each service's sources, and `[discovery]`, `[dns]`, `[consul]`,
//! `[nacos]`, which say how these are asked.

use super::pool::parse_word;
use super::report::Report;
use super::secrets::Secrets;
use super::section::{Section, list, string};
use super::text;
use crate::control::discovery::{self, DnsQuery, DnsSettings, ProbeSettings, own_listener};
use crate::control::read_regular;
use crate::routing::{Catalog, Instance};
use moorgate_registry::{
    ConsulQuery, ConsulSettings, DEFAULT_GROUP, NacosQuery, NacosSettings, RegistryError,
};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

const ENDPOINTS: &str = "[\"10.0.0.1:7100\"]";
const SOURCES: &str = "endpoints = [\"10.0.0.1:7100\"], endpoints_file = \"PATH\", [service.dns], [service.consul] or \
                       [service.nacos]";
/// Where the service manager lets a service write.
const STATE_DIRECTORY: &str = "STATE_DIRECTORY";
const STATE_FILE: &str = "endpoints.json";
/// Certificates of a registry.
const CA_BYTES_MAX: u64 = 4 * 1024 * 1024;
const DNS_PORT: u16 = 53;
const SERVERS_MAX: usize = 16;
/// A name in DNS, as it is written with dots.
const HOST_BYTES: usize = 253;
/// What is sent to a registry: names, filters, tags.
const WORDS_BYTES: usize = 1024;
const LIST_MAX: usize = 32;
const PROBES: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);
const TIMES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
const CONFIRMS: RangeInclusive<Duration> = Duration::from_secs(1)..=text::TIME_MAX;
const TTLS: RangeInclusive<Duration> = Duration::from_secs(1)..=text::TIME_MAX;
const TRIES: RangeInclusive<u32> = 1..=100;

/// The sources that one service names.
#[derive(Debug, Clone, Default)]
pub(super) struct Sources {
    pub(super) fixed: Vec<Instance>,
    file: Option<PathBuf>,
    dns: Option<DnsQuery>,
    consul: Option<ConsulQuery>,
    nacos: Option<NacosQuery>,
}

impl Sources {
    /// As discovery takes them.
    pub(super) fn of(self, id: crate::base::ids::ServiceId, name: &str) -> discovery::ServiceSources {
        let Sources { fixed, file, dns, consul, nacos } = self;
        discovery::ServiceSources { service: id, name: name.to_owned(), fixed, file, dns, consul, nacos }
    }
}

/// What the rest of the file says that a service is held against.
pub(super) struct Around<'a> {
    pub(super) secrets: &'a Secrets<'a>,
    /// Services may be looked up in Nacos.
    pub(super) has_nacos: bool,
    /// Where the gateway listens.
    pub(super) own: &'a [SocketAddr],
}

/// Reads the sources in a service's table.
pub(super) fn sources(
    service: &mut Section<'_>,
    name: &str,
    around: &Around<'_>,
    report: &mut Report<'_>,
) -> Sources {
    let others = ["endpoints_file", "dns", "consul", "nacos"];
    if !service.has("endpoints") && others.iter().all(|key| !service.has(key)) {
        service.wrong("endpoints", format!("nothing says where its instances are; write {SOURCES}"));
    }
    let sources = Sources {
        fixed: fixed(service, around.own),
        file: service.read("endpoints_file", |value| {
            path(around.secrets.directory, string(value, "a path in quotes")?)
        }),
        dns: dns_query(service, report),
        consul: consul_query(service, name, report),
        nacos: nacos_query(service, name, report),
    };
    if service.has("nacos") && !around.has_nacos {
        let right = "there is no [nacos] that says where Nacos is; write\n  [nacos]\n  servers = \
                     [\"http://10.0.0.5:8848\"]";
        service.wrong_once("nacos", right);
    }
    sources
}

fn fixed(service: &mut Section<'_>, own: &[SocketAddr]) -> Vec<Instance> {
    const KEY: &str = "endpoints";
    let right = format!("a list such as {ENDPOINTS}");
    let read = |value: &_| list(value, &right, text::parse_instance);
    let Some(instances) = service.read(KEY, read) else { return Vec::new() };
    if instances.is_empty() {
        service.wrong_once(KEY, format!("there are none; write for example {KEY} = {ENDPOINTS}"));
    }
    let (count, max) = (instances.len(), Catalog::ENDPOINTS_MAX);
    if count > max {
        service.wrong(KEY, format!("{count} of them; write {max} or fewer"));
    }
    let mut known = BTreeSet::new();
    for Instance { address, .. } in &instances {
        if !known.insert(address) {
            service.wrong(KEY, format!("{address} stands here twice; leave one out"));
        }
        if let Some(listener) = own_listener(own, *address) {
            let message = format!("{address} is {listener}, where this gateway itself listens");
            service.wrong(KEY, format!("{message}; write the address of the service"));
        }
    }
    instances
}

fn path(directory: &Path, text: &str) -> Result<PathBuf, String> {
    match text {
        "" => Err("this is empty; write the path of a file".to_owned()),
        text => Ok(directory.join(text)),
    }
}

fn dns_query(service: &mut Section<'_>, report: &mut Report<'_>) -> Option<DnsQuery> {
    let is_there = service.has("dns");
    let mut table = service.table("dns");
    let host = |value: &_| host_name(string(value, "a name in quotes")?);
    let (name, srv) = (table.read("name", host), table.read("srv", host));
    let port = table.number("port", 1..=u16::MAX, 0);
    match (table.has("name"), table.has("srv"), table.has("port")) {
        _ if !is_there => {}
        (true, true, _) => table.wrong("srv", "there is a name too; leave one of them out"),
        (_, true, true) => table.wrong("port", "the SRV records say the port; leave this out"),
        (true, _, false) => table.wrong("port", "it is missing; write for example port = 7100"),
        (false, false, _) => table.wrong(
            "name",
            "it is missing; write name = \"chat.internal\" and port = 7100, or srv = \"_chat._tcp.internal\"",
        ),
        _ => {}
    }
    table.close(report);
    match (name, srv) {
        (Some(name), None) => Some(DnsQuery::Host { name, port }),
        (_, Some(name)) => Some(DnsQuery::Srv { name }),
        (None, None) => None,
    }
}

fn host_name(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        let is_plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        is_plain && (1..=63).contains(&label.len())
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.len() <= HOST_BYTES && name.split('.').all(label) && name.parse::<IpAddr>().is_err() {
        return Ok(text.to_owned());
    }
    Err(format!("`{}` is no name of DNS; write one such as \"chat.internal\"", text::echo(text)))
}

fn consul_query(service: &mut Section<'_>, name: &str, report: &mut Report<'_>) -> Option<ConsulQuery> {
    let is_there = service.has("consul");
    let mut table = service.table("consul");
    let query = ConsulQuery {
        name: words(&mut table, "name").unwrap_or_else(|| name.to_owned()),
        tags: word_list(&mut table, "tags"),
        filter: words(&mut table, "filter").unwrap_or_default(),
        datacenter: words(&mut table, "datacenter").unwrap_or_default(),
        zone_meta: words(&mut table, "zone_meta").unwrap_or_else(|| "zone".to_owned()),
    };
    table.close(report);
    is_there.then_some(query)
}

fn nacos_query(service: &mut Section<'_>, name: &str, report: &mut Report<'_>) -> Option<NacosQuery> {
    let is_there = service.has("nacos");
    let mut table = service.table("nacos");
    let query = NacosQuery {
        name: words(&mut table, "name").unwrap_or_else(|| name.to_owned()),
        group: words(&mut table, "group").unwrap_or_else(|| DEFAULT_GROUP.to_owned()),
        namespace: words(&mut table, "namespace").unwrap_or_default(),
        clusters: word_list(&mut table, "clusters"),
        zone_meta: words(&mut table, "zone_meta").unwrap_or_else(|| "zone".to_owned()),
    };
    table.close(report);
    is_there.then_some(query)
}

/// A text that is sent on; the registry judges what it means.
pub(super) fn words(table: &mut Section<'_>, key: &'static str) -> Option<String> {
    table.read(key, |value| {
        let text = string(value, "a text in quotes")?;
        if (1..=WORDS_BYTES).contains(&text.len()) && !text.contains(char::is_control) {
            return Ok(text.to_owned());
        }
        Err(format!("it has {} bytes or is no line of text; write 1 to {WORDS_BYTES}", text.len()))
    })
}

/// Tags, clusters.
pub(super) fn word_list(table: &mut Section<'_>, key: &'static str) -> Vec<String> {
    let words = table.read(key, |value| {
        let words = list(value, "a list such as [\"blue\"]", parse_word)?;
        let count = words.len();
        (count <= LIST_MAX)
            .then_some(words)
            .ok_or_else(|| format!("{count} of them; write {LIST_MAX} or fewer"))
    });
    words.unwrap_or_default()
}

/// `[discovery]`, `[dns]`, `[consul]` and `[nacos]`; the services come later. `own` is where the gateway listens.
pub(super) fn discovery(
    root: &mut Section<'_>,
    secrets: &Secrets<'_>,
    own: &[SocketAddr],
    report: &mut Report<'_>,
) -> discovery::Settings {
    let mut table = root.table("discovery");
    let probe = ProbeSettings::default();
    let default = discovery::Settings::default();
    let settings = discovery::Settings {
        services: Vec::new(),
        state_file: state_file(&mut table, secrets),
        probe: ProbeSettings {
            interval: table.time("probe_interval", PROBES, probe.interval),
            timeout: table.time("probe_timeout", TIMES, probe.timeout),
            fall: table.number("probe_fall", TRIES, probe.fall),
            rise: table.number("probe_rise", TRIES, probe.rise),
        },
        confirm: table.time("confirm", CONFIRMS, default.confirm),
        dns: dns(root.table("dns"), report),
        consul: consul(root, secrets, own, report),
        nacos: nacos(root, secrets, own, report),
    };
    table.close(report);
    settings
}

/// Where the last good lists are kept: in the directory that the service manager has made for it, or beside the file.
fn state_file(table: &mut Section<'_>, secrets: &Secrets<'_>) -> Option<PathBuf> {
    let name = table.read("state_file", |value| match string(value, "a path in quotes, or \"off\"")? {
        "" => Err("this is empty; write the path of a file, or \"off\"".to_owned()),
        text => Ok(text.to_owned()),
    });
    let name = name.unwrap_or_else(|| STATE_FILE.to_owned());
    // The first of several, as systemd separates them.
    let state = (secrets.environment)(STATE_DIRECTORY);
    let state = state.as_deref().and_then(|paths| paths.split(':').next()).filter(|path| !path.is_empty());
    (name != "off").then(|| state.map_or(secrets.directory, Path::new).join(name))
}

fn dns(mut table: Section<'_>, report: &mut Report<'_>) -> DnsSettings {
    const RIGHT: &str = "a list such as [\"10.0.0.2\"] or [\"10.0.0.2:5353\"]";
    let default = DnsSettings::default();
    let server = |text: &str| match (text.parse::<SocketAddr>(), text.parse::<IpAddr>()) {
        (Ok(address), _) if address.port() != 0 => Ok(address),
        (_, Ok(ip)) => Ok(SocketAddr::new(ip, DNS_PORT)),
        _ => Err(format!("`{}` is no address of a name server; write {RIGHT}", text::echo(text))),
    };
    let servers = table.read("servers", |value| {
        let servers = list(value, RIGHT, server)?;
        let count = servers.len();
        (count <= SERVERS_MAX)
            .then_some(servers)
            .ok_or_else(|| format!("{count} servers; write {SERVERS_MAX} or fewer"))
    });
    let settings = DnsSettings {
        servers: servers.unwrap_or_default(),
        timeout: table.time("timeout", TIMES, default.timeout),
        ttl_min: table.time("ttl_min", TTLS, default.ttl_min),
        ttl_max: table.time("ttl_max", TTLS, default.ttl_max),
    };
    if settings.ttl_max < settings.ttl_min {
        let [low, high] = [settings.ttl_min, settings.ttl_max].map(humantime::format_duration);
        let message =
            format!("dns.ttl_max is {high} and must not be below dns.ttl_min, {low}; change one of them");
        table.wrong_first(&["ttl_max", "ttl_min"], message);
    }
    table.close(report);
    settings
}

fn consul(
    root: &mut Section<'_>,
    secrets: &Secrets<'_>,
    own: &[SocketAddr],
    report: &mut Report<'_>,
) -> Option<ConsulSettings> {
    let is_there = root.has("consul");
    let mut table = root.table("consul");
    let default = ConsulSettings::default();
    let address = table.read("address", |value| server_url(string(value, "a text in quotes")?, own));
    let settings = ConsulSettings {
        address: address.unwrap_or(default.address),
        token: secrets.consul_token(&mut table),
        ca_file: ca_file(&mut table, secrets.directory),
        datacenter: words(&mut table, "datacenter").unwrap_or_default(),
    };
    let bare = ConsulSettings { token: None, ..settings.clone() };
    works(&mut table, "address", bare.check());
    if let (Ok(()), Err(error)) = (bare.check(), settings.check()) {
        let keys = ["token_file", "token_env", "token_credential"];
        table.wrong_first(&keys, format!("consul.token: {error}; write the token alone, without blanks"));
    }
    table.close(report);
    is_there.then_some(settings)
}

/// What a client of a registry would refuse later is told now, at the key that is wrong; `server` says where it is.
fn works(table: &mut Section<'_>, server: &'static str, checked: Result<(), RegistryError>) {
    let key = if table.has("ca_file") { "ca_file" } else { server };
    if let Err(error) = checked {
        table.wrong_once(key, error);
    }
}

fn nacos(
    root: &mut Section<'_>,
    secrets: &Secrets<'_>,
    own: &[SocketAddr],
    report: &mut Report<'_>,
) -> Option<NacosSettings> {
    let is_there = root.has("nacos");
    let mut table = root.table("nacos");
    let default = NacosSettings::default();
    let servers = table.read("servers", |value| {
        let right = "a list such as [\"http://10.0.0.5:8848\"]";
        let servers = list(value, right, |server| server_url(server, own))?;
        match servers.len() {
            1..=SERVERS_MAX => Ok(servers),
            count => Err(format!("{count} servers; write 1 to {SERVERS_MAX}")),
        }
    });
    let settings = NacosSettings {
        servers: servers.unwrap_or(default.servers),
        username: words(&mut table, "username").unwrap_or_default(),
        password: secrets.nacos_password(&mut table),
        ca_file: ca_file(&mut table, secrets.directory),
    };
    let bare = NacosSettings { username: String::new(), password: None, ..settings.clone() };
    works(&mut table, "servers", bare.check());
    let has_password =
        ["password_file", "password_env", "password_credential"].iter().any(|key| table.has(key));
    if table.has("username") && !has_password {
        table.wrong_once("username", "there is no password; write password_file = \"PATH\" too");
    } else if has_password && !table.has("username") {
        let keys = ["password_file", "password_env", "password_credential"];
        table.wrong_first(
            &keys,
            "nacos.username: it is missing; write for example username = \"moorgate\"".to_owned(),
        );
    }
    table.close(report);
    is_there.then_some(settings)
}

/// PEM; looked into here, so that a wrong path is known before a registry is needed.
fn ca_file(table: &mut Section<'_>, directory: &Path) -> Option<PathBuf> {
    table.read("ca_file", |value| {
        let path = path(directory, string(value, "a path in quotes")?)?;
        let told = |error: &dyn std::fmt::Display| format!("{} cannot be read: {error}", path.display());
        let text = read_regular(&path, CA_BYTES_MAX).map_err(|error| match error.kind() {
            ErrorKind::NotFound => told(&format_args!("{error}; write the path of a PEM file")),
            _ => told(&error),
        })?;
        match text.windows(PEM.len()).any(|window| window == PEM) {
            true => Ok(path),
            false => Err(told(&"there is no certificate in it; write the path of a PEM file")),
        }
    })
}

const PEM: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// `http://host:port` or `https://host:port`.
fn server_url(text: &str, own: &[SocketAddr]) -> Result<String, String> {
    let wrong = || {
        format!(
            "`{}` is no address of a registry; write one such as \"http://10.0.0.5:8500\"",
            text::echo(text)
        )
    };
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).ok_or_else(wrong)?;
    let (host, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
    let is_address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = is_address.map_or_else(
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()) || host_name(host).is_ok(),
        |ip| ip.parse::<std::net::Ipv6Addr>().is_ok(),
    );
    let is_port = port.parse::<u16>().is_ok_and(|port| port != 0);
    if !is_host || !is_port {
        return Err(wrong());
    }
    match rest.parse().ok().and_then(|address| own_listener(own, address)) {
        None => Ok(text.to_owned()),
        Some(listener) => Err(format!(
            "{rest} is {listener}, where this gateway itself listens; write the address of the registry"
        )),
    }
}
