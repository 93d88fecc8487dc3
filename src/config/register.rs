//! `[register]`: where the gateway lists itself.

use super::discovery::{word_list, words};
use super::report::Report;
use super::section::{Section, kind, string};
use super::text;
use crate::control::discovery::Settings as Discovery;
use crate::reactor::ListenAt;
use moorgate_registry::DEFAULT_GROUP;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;
use toml::de::DeValue;

/// The registries ask or forget no faster, and nobody waits longer.
const TTLS: RangeInclusive<Duration> = Duration::from_secs(3)..=Duration::from_secs(3600);
/// Consul takes no less than a minute.
const FORGETS: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(7 * 24 * 3600);
const TTL: Duration = Duration::from_secs(15);
const DEREGISTER_AFTER: Duration = Duration::from_secs(10 * 60);
/// Pairs of metadata, and bytes of each half; Consul's own bounds are higher and about these.
const METADATA_MAX: usize = 32;
const METADATA_BYTES: usize = 128;
const EXAMPLE: &str = "{ zone = \"eu-1\" }";

/// How the gateway is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterSettings {
    /// As a service of this name.
    pub name: String,
    /// Where clients reach it.
    pub address: SocketAddr,
    /// Tags.
    pub tags: Vec<String>,
    /// What others want to know; the gateway adds its version and its id.
    pub metadata: BTreeMap<String, String>,
    /// Whether at the agent of Consul.
    pub consul: bool,
    /// Whether at Nacos.
    pub nacos: bool,
    /// Whether Consul asks `/livez`, in place of being told.
    pub is_asked: bool,
    /// Without a word for this long it counts as failed; asked three times as often.
    pub ttl: Duration,
    /// Consul forgets a failed one after this time.
    pub deregister_after: Duration,
    /// Group in Nacos.
    pub group: String,
    /// Namespace in Nacos.
    pub namespace: String,
}

/// Reads `[register]`.
pub(super) fn register(
    root: &mut Section<'_>,
    discovery: &Discovery,
    admin: Option<&ListenAt>,
    report: &mut Report<'_>,
) -> Option<RegisterSettings> {
    let is_there = root.has("register");
    let mut table = root.table("register");
    let read = |value: &_| {
        let address = text::parse_address(string(value, "an address such as \"10.0.0.9:7000\"")?)?;
        if address.port() == 0 || address.ip().is_unspecified() {
            return Err(format!("nobody can connect to {address}; write the address that clients use"));
        }
        Ok(address)
    };
    if is_there && !table.has("address") {
        table.wrong(
            "address",
            "it is missing; write the address that clients use, as address = \"10.0.0.9:7000\"",
        );
    }
    let address = table.read("address", read);
    let settings = RegisterSettings {
        name: words(&mut table, "name").unwrap_or_else(|| "moorgate".to_owned()),
        address: address.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0))),
        tags: word_list(&mut table, "tags"),
        metadata: table.read("metadata", metadata).unwrap_or_default(),
        consul: table.flag("consul"),
        nacos: table.flag("nacos"),
        is_asked: table.choice("check", &[("ttl", false), ("http", true)], false),
        ttl: table.time("ttl", TTLS, TTL),
        deregister_after: table.time("deregister_after", FORGETS, DEREGISTER_AFTER),
        group: words(&mut table, "group").unwrap_or_else(|| DEFAULT_GROUP.to_owned()),
        namespace: words(&mut table, "namespace").unwrap_or_default(),
    };
    if is_there {
        relations(&mut table, &settings, discovery, admin);
    }
    table.close(report);
    (is_there && address.is_some()).then_some(settings)
}

fn relations(
    table: &mut Section<'_>,
    settings: &RegisterSettings,
    discovery: &Discovery,
    admin: Option<&ListenAt>,
) {
    if !settings.consul && !settings.nacos {
        table.wrong_once("consul", "nothing says where; write consul = true or nacos = true");
    }
    if settings.nacos && discovery.nacos.is_none() {
        table.wrong_once("nacos", "there is no [nacos] that says where Nacos is; write one");
    }
    if settings.is_asked && !settings.consul {
        table.wrong_once("check", "only Consul asks; write consul = true, or leave this out");
    }
    if settings.is_asked && admin.is_none() {
        table.wrong_once("check", "Consul asks /livez, and there is no [admin] that answers; write one");
    }
    for key in ["group", "namespace"] {
        if table.has(key) && !settings.nacos {
            table.wrong_once(key, "only Nacos has it; write nacos = true, or leave this out");
        }
    }
}

fn metadata(value: &DeValue<'_>) -> Result<BTreeMap<String, String>, String> {
    let DeValue::Table(table) = value else {
        return Err(format!("this is {}; write for example {EXAMPLE}", kind(value)));
    };
    if table.len() > METADATA_MAX {
        return Err(format!("{} of them; write {METADATA_MAX} or fewer", table.len()));
    }
    let pairs = table.iter().map(|(key, value)| {
        let key = key.get_ref().to_string();
        let is_plain = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if !is_plain || !(1..=METADATA_BYTES).contains(&key.len()) {
            let key = text::echo(&key);
            return Err(format!(
                "`{key}` cannot be a key of it; write 1 to {METADATA_BYTES} letters, digits and -_"
            ));
        }
        let text = string(value.get_ref(), &format!("a text for `{key}`"))?;
        if text.len() > METADATA_BYTES || text.contains(char::is_control) {
            return Err(format!("`{key}` is no line of text of at most {METADATA_BYTES} bytes"));
        }
        Ok((key, text.to_owned()))
    });
    pairs.collect()
}
