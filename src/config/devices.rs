//! `[devices]` and `[presence]`: how many devices and sessions a user may have, and how long services believe who is
//! here.

use super::report::Report;
use super::section::{Section, kind, list};
use super::text;
use crate::directory::{Allowed, DeviceClasses, DevicePolicy, Settings, Wins};
use moorgate_proto::limits::NAME_BYTES;
use std::ops::RangeInclusive;
use std::time::Duration;
use toml::de::DeValue;

/// Sessions of one user, where they are bounded.
const SESSIONS_MAX: usize = 65_536;
const TIMES: RangeInclusive<Duration> = Duration::from_millis(1)..=text::TIME_MAX;
/// Intervals of a link that a lease outlives, so that a late ping takes nobody offline.
const LEASE_INTERVALS: u32 = 3;

const CLASSES: &str = "{ phone = [\"android\", \"ios\"], computer = [\"windows\", \"macos\"] }";
const PLATFORMS: &str = "a list such as [\"android\", \"ios\"]";

/// Reads `[devices]`.
pub(super) fn devices(root: &mut Section<'_>, report: &mut Report<'_>) -> Settings {
    let default = Settings::default();
    let mut section = root.table("devices");
    let allowed = [("any", Allowed::Any), ("one_per_class", Allowed::OnePerClass), ("one", Allowed::One)];
    let wins = [("newer", Wins::Newer), ("older", Wins::Older)];
    let devices = DevicePolicy {
        allowed: section.choice("policy", &allowed, default.devices.allowed),
        wins: section.choice("wins", &wins, default.devices.wins),
        classes: section.read("classes", classes).unwrap_or_default(),
    };
    let sessions = section.number("sessions_per_user", 0..=SESSIONS_MAX, default.sessions_per_user);
    section.close(report);
    let sessions_per_user = if sessions == 0 { usize::MAX } else { sessions };
    Settings { devices, sessions_per_user, ..default }
}

fn classes(value: &DeValue<'_>) -> Result<DeviceClasses, String> {
    let DeValue::Table(table) = value else {
        return Err(format!("this is {}; write for example {CLASSES}", kind(value)));
    };
    let mut classes = DeviceClasses::default();
    for (number, (name, platforms)) in (0..).zip(table) {
        let name = text::echo(name.get_ref());
        let platform = |platform: &str| match platform.len() {
            1..=NAME_BYTES => Ok(platform.to_owned()),
            bytes => Err(format!("a platform of class `{name}` has {bytes} bytes; write 1 to {NAME_BYTES}")),
        };
        let platforms = list(platforms.get_ref(), &format!("{PLATFORMS} for class `{name}`"), platform)?;
        if platforms.is_empty() {
            return Err(format!("class `{name}` has no platforms; write {PLATFORMS}, or leave it out"));
        }
        for platform in platforms {
            if !classes.insert(&platform, number) {
                return Err(format!("`{platform}` is named twice; each platform is of one class"));
            }
        }
    }
    Ok(classes)
}

/// Reads `[presence]`; `heartbeat` is the interval of the links.
pub(super) fn lease(section: &mut Section<'_>, default: Duration, heartbeat: Duration) -> Duration {
    let least = heartbeat.saturating_mul(LEASE_INTERVALS);
    let lease = section.time("lease", TIMES, default.max(least));
    if lease < least {
        let time = humantime::format_duration;
        let message = format!(
            "it is {} and must be at least {LEASE_INTERVALS} times links.heartbeat, {}: one late ping would take \
             everybody offline; write lease = \"{}\" or more",
            time(lease),
            time(heartbeat),
            time(least)
        );
        section.wrong_once("lease", message);
    }
    lease
}
