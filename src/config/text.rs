//! How people write durations, sizes, ranges of commands, addresses.

use crate::routing::{Instance, Span};
use std::net::SocketAddr;
use std::time::Duration;

/// Longer than any timeout that makes sense.
pub(super) const TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// `"250ms"`, `"30s"`, `"5m"`.
pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    let wrong = |_| format!("`{text}` is not a time; write for example \"250ms\", \"30s\" or \"5m\"");
    humantime::parse_duration(text).map_err(wrong)
}

/// `"64 KiB"`, `"1MiB"`, or a number of bytes.
pub(super) fn parse_size(text: &str) -> Result<usize, String> {
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

/// A size as it is best written.
pub(super) fn write_size(bytes: usize) -> String {
    let units = [(1024 * 1024 * 1024, "GiB"), (1024 * 1024, "MiB"), (1024, "KiB")];
    let unit = units.into_iter().find(|(factor, _)| bytes >= *factor && bytes.is_multiple_of(*factor));
    unit.map_or_else(|| format!("{bytes} B"), |(factor, unit)| format!("{} {unit}", bytes / factor))
}

fn parse_number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `"0x0100-0x01ff"`, `"0x0201"`, or a number.
pub(super) fn parse_numbers(text: &str) -> Result<Span, String> {
    let wrong = || format!("`{text}` is not a range; write for example \"0x0100-0x01ff\", \"0x0201\" or 7");
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let first = parse_number(first.trim()).ok_or_else(wrong)?;
    let last = parse_number(last.trim()).ok_or_else(wrong)?;
    if last < first {
        return Err(format!("`{text}` ends before it begins; write the lower number first"));
    }
    Ok(Span { first, last })
}

/// `"10.0.0.1:7000"`, `"[::1]:7000"`.
pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    const EXAMPLE: &str = "write an IP address and a port, as \"10.0.0.1:7100\" or \"[::1]:7100\"";
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    match text.parse::<std::net::IpAddr>() {
        Ok(ip) => Err(format!("`{text}` has no port; write for example \"{}\"", SocketAddr::new(ip, 7100))),
        Err(_) => Err(format!("`{text}` is no address; {EXAMPLE}")),
    }
}

/// `"10.0.0.1:7100 weight=50 zone=eu-1 tags=canary"`.
pub(super) fn parse_instance(text: &str) -> Result<Instance, String> {
    let address = text.split_ascii_whitespace().next().unwrap_or_default();
    if parse_address(address)?.port() == 0 {
        return Err(format!("{address} has port 0; write the port that the service listens on"));
    }
    text.parse()
}

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
        assert!(parse_time("30").unwrap_err().contains("\"30s\""));
        assert!(parse_size("64 KB").unwrap_err().contains("KiB"));
        assert!(parse_size("99999999999 GiB").is_err());
        assert!(parse_numbers("9-7").unwrap_err().contains("ends before"));
        assert!(parse_numbers("0xZZ").is_err());
        assert!(parse_address("10.0.0.1").unwrap_err().contains("has no port"));
        assert!(parse_address("::1").unwrap_err().contains("\"[::1]:7100\""));
        assert!(parse_address("chat.internal:7100").unwrap_err().contains("IP address"));
        assert!(parse_address("10.0.0.1:70000").unwrap_err().contains("IP address"));
    }

    #[test]
    fn sizes_are_written_as_they_are_read() {
        for text in ["1 B", "1023 B", "4 KiB", "1025 B", "16 MiB", "3 GiB"] {
            assert_eq!(write_size(parse_size(text).unwrap()), text);
        }
    }
}
