//! `[rates]` and `[bans]`: how much each may do, and who is shut out for doing too much.

use super::section::{Section, string};
use super::text::{TIME_MAX, echo};
use crate::base::ids::ServiceId;
use crate::limit::{self, BanSettings, OwnerSettings, Rate};
use crate::routing::{Right, ServiceSettings};
use std::ops::RangeInclusive;
use std::time::Duration;
use toml::de::DeValue;

const RIGHT: &str = "\"100/s\", \"600/m, burst 50\" or \"off\"";
/// What anybody could ask for.
const COUNT_MAX: u32 = 1_000_000;
const TIMES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 3600);

/// What comes anew.
pub(super) struct NewComers {
    /// Connections of a listener.
    pub(super) accepts: Option<Rate>,
    /// Fresh sessions of a shard.
    pub(super) openings: Option<Rate>,
}

/// Reads `[rates]`; `routes` are the rates of the routes, by their ids.
pub(super) fn rates(section: &mut Section<'_>, routes: Vec<Option<Rate>>) -> (limit::Settings, NewComers) {
    let default = limit::Settings::default();
    let settings = limit::Settings {
        connection: rate(section, "connection", default.connection),
        frames: rate(section, "frames", default.frames),
        logins: rate(section, "logins", default.logins),
        user: owner(section, ("user", "outstanding_user"), default.user),
        address: owner(section, ("address", "outstanding_address"), default.address),
        application: owner(section, ("application", "outstanding_application"), default.application),
        routes,
        accounts_max: default.accounts_max,
    };
    let accepts = rate(section, "accepts", crate::reactor::Settings::default().accepts);
    let openings = rate(section, "openings", crate::shard::Settings::default().openings);
    if let (Some(requests), Some(frames)) = (settings.connection, settings.frames)
        && (frames.interval() > requests.interval() || frames.burst() < requests.burst())
    {
        let message = "rates.frames ends a connection where rates.connection only refuses a request, and must not be \
                       below it; write a higher rate and burst for frames, or lower ones for connection";
        section.wrong_first(&["frames", "connection"], message.to_owned());
    }
    (settings, NewComers { accepts, openings })
}

fn owner(
    section: &mut Section<'_>,
    (key, outstanding): (&'static str, &'static str),
    default: OwnerSettings,
) -> OwnerSettings {
    let max = section.number(outstanding, 0..=COUNT_MAX, default.outstanding_max.unwrap_or(0));
    OwnerSettings { rate: rate(section, key, default.rate), outstanding_max: (max != 0).then_some(max) }
}

/// A rate; `None`: off.
pub(super) fn rate(section: &mut Section<'_>, key: &'static str, default: Option<Rate>) -> Option<Rate> {
    let read = |value: &DeValue<'_>| parse_rate(string(value, &format!("a rate in quotes, as {RIGHT}"))?);
    section.read(key, read).unwrap_or(default)
}

/// `"100/s"`, `"600/m, burst 50"`, `"off"`.
fn parse_rate(text: &str) -> Result<Option<Rate>, String> {
    if text.trim() == "off" {
        return Ok(None);
    }
    let wrong = || format!("`{}` is not a rate; write for example {RIGHT}", echo(text));
    let (often, burst) = match text.split_once(',') {
        None => (text, None),
        Some((often, burst)) => (often, Some(burst.trim().strip_prefix("burst").ok_or_else(wrong)?)),
    };
    let (count, unit) = often.split_once('/').ok_or_else(wrong)?;
    let number = |text: &str| text.trim().parse::<u32>().map_err(|_| wrong());
    let count = number(count)?;
    let seconds = match unit.trim() {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    // Without a burst: what comes in a second, and at least one.
    let burst = burst.map_or(Ok((count / seconds).max(1)), number)?;
    let period = Duration::from_secs(u64::from(seconds));
    let bounds = 1..=COUNT_MAX;
    let rate = Rate::new(count, period, burst).filter(|_| bounds.contains(&count) && bounds.contains(&burst));
    rate.map(Some).ok_or_else(|| {
        format!(
            "`{}` is out of bounds; write 1 to {COUNT_MAX} for rate and burst, or \"off\" for no limit",
            echo(text)
        )
    })
}

/// Services whose refusals to anonymous sessions are failed logins: those that may log somebody in.
pub(super) fn login_services(services: &[ServiceSettings]) -> Vec<ServiceId> {
    let logs_in = services.iter().map(|service| service.grants.has(Right::Login));
    (0..).map(ServiceId).zip(logs_in).filter(|(_, logs_in)| *logs_in).map(|(id, _)| id).collect()
}

/// Reads `[bans]`.
pub(super) fn bans(section: &mut Section<'_>) -> BanSettings {
    let default = BanSettings::default();
    let settings = BanSettings {
        enabled: section.switch("enabled", default.enabled),
        offences: section.number("offences", 1..=COUNT_MAX, default.offences),
        window: section.time("window", Duration::from_secs(1)..=TIME_MAX, default.window),
        first: section.time("first", TIMES, default.first),
        longest: section.time("longest", TIMES, default.longest),
        subjects_max: default.subjects_max,
    };
    if settings.longest < settings.first {
        let time = humantime::format_duration;
        let message = format!(
            "bans.longest is {} and must not be below bans.first, {}; change one of them",
            time(settings.longest),
            time(settings.first)
        );
        section.wrong_first(&["longest", "first"], message);
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(count: u32, seconds: u64, burst: u32) -> Result<Option<Rate>, String> {
        Ok(Some(Rate::new(count, Duration::from_secs(seconds), burst).unwrap()))
    }

    #[test]
    fn rates_are_read_as_people_write_them() {
        assert_eq!(parse_rate("100/s"), rate(100, 1, 100));
        assert_eq!(parse_rate("600/m"), rate(600, 60, 10));
        assert_eq!(parse_rate("10/h"), rate(10, 3600, 1));
        assert_eq!(parse_rate(" 600 / m , burst 50 "), rate(600, 60, 50));
        assert_eq!(parse_rate("1000000/s, burst 1000000"), rate(1_000_000, 1, 1_000_000));
        assert_eq!(parse_rate("off"), Ok(None));
    }

    #[test]
    fn what_is_no_rate_is_told_with_what_is() {
        for text in
            ["", "100", "100/d", "/s", "many/s", "-1/s", "1.5/s", "100/s burst 5", "100/s, 5", "100/s, burst"]
        {
            let told = parse_rate(text).unwrap_err();
            assert_eq!(told, format!("`{text}` is not a rate; write for example {RIGHT}"));
        }
        for text in ["0/s", "100/s, burst 0", "1000001/s", "1/s, burst 1000001"] {
            let told = parse_rate(text).unwrap_err();
            assert!(told.contains("is out of bounds; write 1 to 1000000"), "{told}");
        }
    }
}
