//! The `Host` of a request: whether it names this gateway.
//!
//! A web page can have a name of its own resolve to an address of this machine (DNS rebinding), and then read what is
//! answered there. Its requests carry that name, so only names that no page can choose are good: IP addresses,
//! `localhost`, and those of the configuration.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Whether the value of a `Host` header is good; a port in it does not matter.
pub(super) fn is_own(host: &[u8], names: &[String]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let host = host.trim();
    if let Some(v6) = host.strip_prefix('[') {
        return v6.split_once(']').is_some_and(|(v6, rest)| v6.parse::<Ipv6Addr>().is_ok() && is_port(rest));
    }
    let at = host.find(':').unwrap_or(host.len());
    let (name, port) = host.split_at(at);
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_named = |other: &str| name.eq_ignore_ascii_case(other.strip_suffix('.').unwrap_or(other));
    is_port(port)
        && (name.parse::<Ipv4Addr>().is_ok()
            || is_named("localhost")
            || names.iter().any(|other| is_named(other)))
}

fn is_port(text: &str) -> bool {
    text.is_empty()
        || text.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_no_page_can_choose_are_good() {
        let names = ["gw1.internal".to_owned()];
        for good in [
            "127.0.0.1",
            "10.0.0.9:7001",
            "[::1]",
            "[2001:db8::1]:80",
            "localhost",
            "LocalHost:7001",
            "localhost.",
            "gw1.internal",
            "GW1.internal.:7001",
            " localhost ",
        ] {
            assert!(is_own(good.as_bytes(), &names), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "evil.example:7001",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "[::1",
            "[evil]",
            "[::1]x",
            "[::1]:x",
            "2130706433",
            "127.1",
            "localhost:evil",
            "gw1",
            "::1",
            "127.0.0.1:7001:1",
        ] {
            assert!(!is_own(bad.as_bytes(), &names), "{bad}");
        }
        assert!(!is_own(b"local\xffhost", &names));
    }
}
