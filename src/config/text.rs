//! How people write durations, sizes, ranges of commands, addresses.

use crate::base::text::shown;
use crate::routing::{Instance, Span};
use std::net::SocketAddr;
use std::time::Duration;

/// Bytes of a value of the file that a mistake repeats.
const ECHO_BYTES_MAX: usize = 64;
/// Names that a mistake lists.
const NAMES_MAX: usize = 16;

/// A value of the file, as a mistake repeats it.
pub(super) fn echo(text: &str) -> String {
    shown(text, ECHO_BYTES_MAX)
}

/// The names that a mistake offers.
pub(super) fn names<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(NAMES_MAX);
    let mut list: Vec<String> = names.take(NAMES_MAX).map(echo).collect();
    match (list.is_empty(), more) {
        (true, _) => return "none".to_owned(),
        (false, 0) => {}
        (false, more) => list.push(format!("and {more} more")),
    }
    list.join(", ")
}

/// Longer than any timeout that makes sense.
pub(super) const TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// The unit of which a time is a multiple: a remainder would have no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grain {
    Milliseconds,
    Seconds,
}

/// `"250ms"`, `"30s"`, `"5m"`.
pub(super) fn parse_time(text: &str, grain: Grain) -> Result<Duration, String> {
    let wrong = |_| format!("`{}` is not a time; write for example \"250ms\", \"30s\" or \"5m\"", echo(text));
    let time = humantime::parse_duration(text).map_err(wrong)?;
    let (grain, right) = match grain {
        Grain::Milliseconds => (1_000_000, "whole milliseconds, as \"250ms\""),
        Grain::Seconds => (1_000_000_000, "whole seconds, as \"30s\""),
    };
    match time.subsec_nanos() % grain {
        0 => Ok(time),
        _ => Err(format!("`{}` is too fine; write {right}", echo(text))),
    }
}

/// `"64 KiB"`, `"1MiB"`, or a number of bytes.
pub(super) fn parse_size(text: &str) -> Result<usize, String> {
    let wrong = || format!("`{}` is not a size; write for example \"64 KiB\" or \"1 MiB\"", echo(text));
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
    let wrong =
        || format!("`{}` is not a range; write for example \"0x0100-0x01ff\", \"0x0201\" or 7", echo(text));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let first = parse_number(first.trim()).ok_or_else(wrong)?;
    let last = parse_number(last.trim()).ok_or_else(wrong)?;
    if last < first {
        return Err(format!("`{}` ends before it begins; write the lower number first", echo(text)));
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
        Err(_) => Err(format!("`{}` is no address; {EXAMPLE}", echo(text))),
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
    fn what_a_mistake_repeats_is_bounded() {
        let long = "x".repeat(5 << 20);
        let told = [
            parse_time(&long, Grain::Seconds).map(drop),
            parse_size(&long).map(drop),
            parse_numbers(&long).map(drop),
            parse_numbers(&format!("{long}-1")).map(drop),
            parse_address(&long).map(drop),
            parse_instance(&long).map(drop),
            parse_instance(&format!("10.0.0.1:7100 {long}")).map(drop),
            parse_instance(&format!("10.0.0.1:7100 weight={long}")).map(drop),
            parse_instance(&format!("10.0.0.1:7100 zone={long}")).map(drop),
            parse_instance(&format!("10.0.0.1:7100 tags={long}")).map(drop),
        ];
        for told in told {
            assert!(told.as_ref().is_err_and(|told| told.len() < 250), "{told:?}");
        }
        assert_eq!(names([long.as_str(); 20].into_iter()).len(), 16 * (64 + 5) + 10);
        assert_eq!(
            (names([].into_iter()), names(["a", "b"].into_iter())),
            ("none".to_owned(), "a, b".to_owned())
        );
    }

    #[test]
    fn times_sizes_ranges_and_addresses_are_read_as_people_write_them() {
        assert_eq!(parse_time("1m 30s", Grain::Seconds), Ok(Duration::from_secs(90)));
        assert_eq!(parse_time("1500ms", Grain::Milliseconds), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_size("64 KiB"), Ok(65536));
        assert_eq!(parse_size("1MiB"), Ok(1 << 20));
        assert_eq!(parse_size("77"), Ok(77));
        assert_eq!(parse_numbers("0x0100-0x01ff"), Ok(Span { first: 256, last: 511 }));
        assert_eq!(parse_numbers("7"), Ok(Span { first: 7, last: 7 }));
        assert!(parse_address("[::1]:70").is_ok());
    }

    #[test]
    fn what_is_wrong_is_told_with_what_is_right() {
        assert!(parse_time("30", Grain::Seconds).unwrap_err().contains("\"30s\""));
        assert!(parse_time("1500ms", Grain::Seconds).unwrap_err().contains("whole seconds"));
        assert!(parse_time("1500us", Grain::Milliseconds).unwrap_err().contains("whole milliseconds"));
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
