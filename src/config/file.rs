//! The file as it stands: its tables and keys. Unknown keys are refused.

use super::text::{Address, Numbers, Size, Time};
use serde::Deserialize;
use std::fmt;
use std::ops::Range;
use toml::Spanned;

/// Everything that is wrong with a configuration, a line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// `file:line: what, and what would be right`.
    pub lines: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) gateway: GatewayTable,
    #[serde(default)]
    pub(super) listener: Vec<ListenerTable>,
    pub(super) admin: Option<AdminTable>,
    #[serde(default)]
    pub(super) log: LogTable,
    #[serde(default)]
    pub(super) limits: LimitsTable,
    #[serde(default)]
    pub(super) session: SessionTable,
    #[serde(default)]
    pub(super) links: LinksTable,
    #[serde(default)]
    pub(super) auth: AuthTable,
    #[serde(default)]
    pub(super) service: Vec<Spanned<ServiceTable>>,
    #[serde(default)]
    pub(super) route: Vec<Spanned<RouteTable>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GatewayTable {
    pub(super) id: Option<Spanned<String>>,
    pub(super) shards: Option<u16>,
    pub(super) workers: Option<u16>,
    pub(super) drain_timeout: Option<Time>,
    pub(super) reconnect_spread: Option<Time>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListenerTable {
    pub(super) address: Spanned<Address>,
    pub(super) accept: Option<Accept>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Accept {
    ReusePort,
    Shared,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AdminTable {
    pub(super) address: Spanned<Address>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogTable {
    pub(super) access: Option<String>,
    pub(super) level: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsTable {
    pub(super) connections: Option<Spanned<u64>>,
    pub(super) connections_per_address: Option<u32>,
    pub(super) accepts_per_turn: Option<Spanned<u16>>,
    pub(super) backlog: Option<u16>,
    pub(super) unfinished_frames: Option<Size>,
    pub(super) unsent_output: Option<Spanned<Size>>,
    pub(super) outstanding: Option<Spanned<u32>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionTable {
    pub(super) in_flight: Option<Spanned<u32>>,
    pub(super) window: Option<Spanned<u32>>,
    pub(super) frame: Option<Spanned<Size>>,
    pub(super) heartbeat: Option<Time>,
    pub(super) heartbeat_min: Option<Time>,
    pub(super) heartbeat_max: Option<Time>,
    pub(super) handshake_timeout: Option<Time>,
    pub(super) frame_timeout: Option<Time>,
    pub(super) write_timeout: Option<Time>,
    pub(super) linger: Option<Time>,
    pub(super) expiry_grace: Option<Time>,
    pub(super) keepalive: Option<Time>,
    pub(super) user_timeout: Option<Time>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LinksTable {
    pub(super) per_endpoint: Option<Spanned<u16>>,
    pub(super) connect_timeout: Option<Time>,
    pub(super) reconnect_min: Option<Time>,
    pub(super) reconnect_max: Option<Time>,
    pub(super) heartbeat: Option<Time>,
    pub(super) late_reply_grace: Option<Time>,
    pub(super) frame: Option<Spanned<Size>>,
    pub(super) unsent_output: Option<Size>,
    pub(super) waiting: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuthTable {
    pub(super) issuer: Option<String>,
    pub(super) audience: Option<String>,
    pub(super) leeway: Option<String>,
    #[serde(default)]
    pub(super) key: Vec<Spanned<KeyTable>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyTable {
    pub(super) id: String,
    pub(super) secret_file: Option<String>,
    pub(super) secret_env: Option<String>,
    /// Known only to be refused with a good word.
    pub(super) secret: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServiceTable {
    pub(super) name: String,
    pub(super) endpoints: Vec<Address>,
    pub(super) balance: Option<Balance>,
    pub(super) key_file: Option<String>,
    pub(super) key_env: Option<String>,
    /// Known only to be refused with a good word.
    pub(super) key: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    pub(super) without_proofs: bool,
    pub(super) commands: Option<Numbers>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Balance {
    RoundRobin,
    LeastOutstanding,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RouteTable {
    pub(super) commands: Numbers,
    pub(super) versions: Option<Numbers>,
    pub(super) service: String,
    #[serde(default)]
    pub(super) anonymous: bool,
    #[serde(default)]
    pub(super) roles: Vec<String>,
    pub(super) protocol_min: Option<u32>,
    pub(super) timeout: Option<Time>,
    pub(super) order: Option<Order>,
    #[serde(default)]
    pub(super) idempotent: bool,
    pub(super) payload: Option<Size>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    None,
    Session,
}

/// Collects what is wrong, with the line it stands in.
pub(super) struct Report<'a> {
    name: &'a str,
    text: &'a str,
    lines: Vec<(usize, String)>,
}

impl<'a> Report<'a> {
    pub(super) fn new(name: &'a str, text: &'a str) -> Report<'a> {
        Report { name, text, lines: Vec::new() }
    }

    /// An error at a place of the file.
    pub(super) fn at(&mut self, span: Range<usize>, message: impl fmt::Display) {
        let before = self.text.get(..span.start).unwrap_or_default();
        let line = before.matches('\n').count().saturating_add(1);
        self.lines.push((line, format!("{}:{line}: {message}", self.name)));
    }

    /// An error of the whole file.
    pub(super) fn whole(&mut self, message: impl fmt::Display) {
        self.lines.push((usize::MAX, format!("{}: {message}", self.name)));
    }

    pub(super) fn finish<T>(mut self, value: T) -> Result<T, ConfigError> {
        if self.lines.is_empty() {
            return Ok(value);
        }
        self.lines.sort();
        Err(ConfigError { lines: self.lines.into_iter().map(|(_, line)| line).collect() })
    }
}
