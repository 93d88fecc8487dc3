//! How people write durations, sizes, ranges of commands, addresses.

use crate::routing::Span;
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// `"250ms"`, `"30s"`, `"5m"`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time(pub(super) Duration);

/// `"64 KiB"`, `"1MiB"`, or a number of bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size(pub(super) usize);

/// `"0x0100-0x01ff"`, `"0x0201"`, or a number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbers(pub(super) Span);

/// `"10.0.0.1:7000"`, `"[::1]:7000"`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Address(pub(super) SocketAddr);

pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err(format!("`{text}` is no time at all; write for example \"30s\"")),
        Ok(time) => Ok(time),
        Err(_) => Err(format!("`{text}` is not a time; write for example \"250ms\", \"30s\" or \"5m\"")),
    }
}

fn parse_size(text: &str) -> Result<usize, String> {
    let wrong = || format!("`{text}` is not a size; write for example \"64 KiB\" or \"1 MiB\"");
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let factor: usize = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        "GiB" => 1024 * 1024 * 1024,
        _ => return Err(wrong()),
    };
    number.parse::<usize>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(wrong)
}

fn parse_number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn parse_numbers(text: &str) -> Result<Span, String> {
    let wrong = || format!("`{text}` is not a range; write for example \"0x0100-0x01ff\", \"0x0201\" or 7");
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let first = parse_number(first.trim()).ok_or_else(wrong)?;
    let last = parse_number(last.trim()).ok_or_else(wrong)?;
    if last < first {
        return Err(format!("`{text}` ends before it begins"));
    }
    Ok(Span { first, last })
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let has_port = text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if has_port {
            format!("`{text}` is no address; write an IP address and a port, as \"10.0.0.1:7100\" or \"[::1]:7100\"")
        } else {
            format!("`{text}` has no port; write for example \"{text}:7100\"")
        }
    })
}

struct TextVisitor<T> {
    expecting: &'static str,
    parse: fn(&str) -> Result<T, String>,
}

impl<T> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

macro_rules! from_text {
    ($type:ident, $parse:expr, $expecting:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(TextVisitor { expecting: $expecting, parse: $parse }).map($type)
            }
        }
    };
}

from_text!(Time, parse_time, "a time such as \"30s\"");
from_text!(Size, parse_size, "a size such as \"64 KiB\"");
from_text!(Numbers, parse_numbers, "a range such as \"0x0100-0x01ff\"");
from_text!(Address, parse_address, "an address such as \"10.0.0.1:7100\"");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_sizes_ranges_and_addresses_are_read_as_people_write_them() {
        assert_eq!(parse_time("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_size("64 KiB"), Ok(65536));
        assert_eq!(parse_size("1MiB"), Ok(1 << 20));
        assert_eq!(parse_size("77"), Ok(77));
        assert_eq!(parse_numbers("0x0100-0x01ff"), Ok(Span { first: 256, last: 511 }));
        assert_eq!(parse_numbers("7"), Ok(Span { first: 7, last: 7 }));
        assert!(parse_address("[::1]:70").is_ok());
    }

    #[test]
    fn what_is_wrong_is_told_with_what_is_right() {
        assert!(parse_time("0s").unwrap_err().contains("no time at all"));
        assert!(parse_time("30").unwrap_err().contains("\"30s\""));
        assert!(parse_size("64 KB").unwrap_err().contains("KiB"));
        assert!(parse_size("99999999999 GiB").is_err());
        assert!(parse_numbers("9-7").unwrap_err().contains("ends before"));
        assert!(parse_numbers("0xZZ").is_err());
        assert!(parse_address("10.0.0.1").unwrap_err().contains("has no port"));
        assert!(parse_address("chat.internal:7100").unwrap_err().contains("IP address"));
    }
}
