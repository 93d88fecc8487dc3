//! What a `[[service]]` says of the pool of its endpoints: how one is chosen, when one is left alone, what may be
//! outstanding, what is tried again, and who goes to the canary.

use super::report::Report;
use super::section::{Section, list, string};
use super::text;
use crate::base::share::parse_share;
use crate::routing::{
    AdaptiveSettings, Balance, Bounds, CanarySettings, EjectionSettings, HashBy, HelloField, Instance,
    PoolSettings, Prefer, RetrySettings, SlowStart,
};
use moorgate_proto::limits::NAME_BYTES;
use std::ops::RangeInclusive;
use std::time::Duration;

/// What anybody could ask for.
const COUNT_MAX: u32 = 1_000_000;
/// Roles that lead to the canary.
const ROLES_MAX: usize = 64;
/// Times that a call is sent.
const ATTEMPTS_MAX: u32 = 10;
const TIMES: RangeInclusive<Duration> = Duration::from_millis(1)..=text::TIME_MAX;
/// Zero: at once.
const SLOW_STARTS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
/// The window has ten buckets; each needs a moment.
const WINDOWS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);
/// Bytes for one purpose; 0: none.
const MEMORY: RangeInclusive<usize> = 0..=1 << 40;

/// Reads what there is of it in a service's table.
pub(super) fn pool(service: &mut Section<'_>, report: &mut Report<'_>) -> PoolSettings {
    let balances = [
        ("peak_ewma", Balance::PeakEwma),
        ("least_outstanding", Balance::LeastOutstanding),
        ("round_robin", Balance::RoundRobin),
        ("weighted_round_robin", Balance::WeightedRoundRobin),
        ("random", Balance::Random),
        ("consistent_hash", Balance::ConsistentHash),
    ];
    let balance = service.choice("balance", &balances, Balance::default());
    PoolSettings {
        balance,
        hash_by: hash_by(service, balance),
        prefer: prefer(service),
        ejection: ejection(service.table("ejection"), report),
        slow_start: slow_start(service.table("slow_start"), report),
        bounds: bounds(service.table("bounds"), report),
        retry: retry(service.table("retry"), report),
        canary: canary(service, report),
    }
}

fn hash_by(service: &mut Section<'_>, balance: Balance) -> HashBy {
    let choices = [
        ("user", HashBy::User),
        ("session", HashBy::Session),
        ("device", HashBy::Device),
        ("address", HashBy::Address),
        ("application", HashBy::Application),
    ];
    let hash_by = service.choice("hash_by", &choices, HashBy::default());
    if service.has("hash_by") && balance != Balance::ConsistentHash {
        let right = "only balance = \"consistent_hash\" goes by it; write that, or leave this out";
        service.wrong_once("hash_by", right);
    }
    hash_by
}

fn prefer(service: &mut Section<'_>) -> Option<Prefer> {
    let zone = word(service, "prefer_zone");
    let tag = word(service, "prefer_tag");
    if service.has("prefer_zone") && service.has("prefer_tag") {
        service.wrong_once("prefer_tag", "there is a prefer_zone too; leave one of them out");
    }
    zone.map(Prefer::Zone).or(tag.map(Prefer::Tag))
}

/// A role, as an access token can have it.
pub(super) fn role(text: &str) -> Result<String, String> {
    match text.len() {
        1..=NAME_BYTES => Ok(text.to_owned()),
        bytes => Err(format!("a role has {bytes} bytes; write 1 to {NAME_BYTES}")),
    }
}

/// A zone or a tag, as an endpoint can have it.
pub(super) fn word(section: &mut Section<'_>, key: &'static str) -> Option<String> {
    section.read(key, |value| parse_word(string(value, "a text in quotes")?))
}

/// The same, of a list.
pub(super) fn parse_word(text: &str) -> Result<String, String> {
    Instance::parse_word(text).map(str::to_owned)
}

fn ejection(mut table: Section<'_>, report: &mut Report<'_>) -> EjectionSettings {
    let default = EjectionSettings::default();
    let settings = EjectionSettings {
        failures_max: table.number("failures", 0..=COUNT_MAX, default.failures_max),
        success_percent_min: percent(&mut table, "success", default.success_percent_min),
        calls_min: table.number("calls", 1..=COUNT_MAX, default.calls_min),
        window: table.time("window", WINDOWS, default.window),
        term_min: table.time("first", TIMES, default.term_min),
        term_max: table.time("longest", TIMES, default.term_max),
        ejected_percent_max: percent(&mut table, "share", default.ejected_percent_max),
        panic_percent: percent(&mut table, "panic", default.panic_percent),
    };
    if settings.term_max < settings.term_min {
        let (first, longest) = (settings.term_min, settings.term_max);
        let [first, longest] = [first, longest].map(humantime::format_duration);
        let message = format!(
            "service.ejection.longest is {longest} and must not be below service.ejection.first, {first}; change \
             one of them"
        );
        table.wrong_first(&["longest", "first"], message);
    }
    table.close(report);
    settings
}

fn slow_start(mut table: Section<'_>, report: &mut Report<'_>) -> SlowStart {
    let default = SlowStart::default();
    let settings = SlowStart {
        time: table.time("time", SLOW_STARTS, default.time),
        first_percent: percent_of(&mut table, "first", 1..=100, default.first_percent),
    };
    table.close(report);
    settings
}

fn bounds(mut table: Section<'_>, report: &mut Report<'_>) -> Bounds {
    let (default, adaptive) = (Bounds::default(), AdaptiveSettings::default());
    let is_adaptive = table.flag("adaptive");
    let adaptive = AdaptiveSettings {
        outstanding_min: table.number("adaptive_min", 1..=COUNT_MAX, adaptive.outstanding_min),
        outstanding_max: table.number("adaptive_max", 1..=COUNT_MAX, adaptive.outstanding_max),
    };
    if adaptive.outstanding_max < adaptive.outstanding_min {
        let message = format!(
            "service.bounds.adaptive_max is {} and must not be below service.bounds.adaptive_min, {}; change one of \
             them",
            adaptive.outstanding_max, adaptive.outstanding_min
        );
        table.wrong_first(&["adaptive_max", "adaptive_min"], message);
    }
    let settings = Bounds {
        outstanding_max: table.number("outstanding", 1..=COUNT_MAX, default.outstanding_max),
        endpoint_outstanding_max: table.number(
            "per_endpoint",
            0..=COUNT_MAX,
            default.endpoint_outstanding_max,
        ),
        queue_max: table.number("queue", 0..=COUNT_MAX as usize, default.queue_max),
        queue_bytes_max: table.size("queue_bytes", MEMORY, default.queue_bytes_max),
        adaptive: is_adaptive.then_some(adaptive),
    };
    table.close(report);
    settings
}

fn retry(mut table: Section<'_>, report: &mut Report<'_>) -> RetrySettings {
    let default = RetrySettings::default();
    let settings = RetrySettings {
        attempts_max: table.number("attempts", 1..=ATTEMPTS_MAX, default.attempts_max),
        budget_percent: percent(&mut table, "budget", default.budget_percent),
        budget_per_s: table.number("budget_per_s", 0..=COUNT_MAX, default.budget_per_s),
        hedge_percent_max: percent(&mut table, "hedge", default.hedge_percent_max),
        kept_bytes_max: table.size("kept", MEMORY, default.kept_bytes_max),
    };
    table.close(report);
    settings
}

fn canary(service: &mut Section<'_>, report: &mut Report<'_>) -> Option<CanarySettings> {
    const KEY: &str = "canary";
    let is_there = service.has(KEY);
    let mut table = service.table(KEY);
    if is_there && !table.has("tag") {
        table.wrong("tag", "it is missing; write for example tag = \"canary\"");
    }
    let tag = word(&mut table, "tag");
    let share = table.read("share", |value| parse_share(string(value, "a share such as \"5%\"")?));
    let roles = table.read("roles", |value| {
        let roles = list(value, "a list such as [\"tester\"]", role)?;
        let count = roles.len();
        (count <= ROLES_MAX)
            .then_some(roles)
            .ok_or_else(|| format!("{count} roles; write {ROLES_MAX} or fewer"))
    });
    let fields = [
        ("application", HelloField::Application),
        ("app_version", HelloField::AppVersion),
        ("platform", HelloField::Platform),
    ];
    let hello = fields.into_iter().filter_map(|(key, field)| {
        let value = table.read(key, |value| match string(value, "a text in quotes")? {
            "" => Err("this is empty; write what clients say, or leave it out".to_owned()),
            text if text.len() > NAME_BYTES => {
                Err(format!("it has {} bytes, and clients say at most {NAME_BYTES}", text.len()))
            }
            text => Ok(text.to_owned()),
        });
        Some((field, value?))
    });
    let hello = hello.collect();
    table.close(report);
    Some(CanarySettings {
        tag: tag?,
        share: share.unwrap_or_default(),
        roles: roles.unwrap_or_default(),
        hello,
    })
}

fn percent(table: &mut Section<'_>, key: &'static str, default: u8) -> u8 {
    percent_of(table, key, 0..=100, default)
}

/// Whole percents, as `"50%"`.
fn percent_of(table: &mut Section<'_>, key: &'static str, bounds: RangeInclusive<u8>, default: u8) -> u8 {
    let read = |value: &toml::de::DeValue<'_>| {
        let (low, high) = (bounds.start(), bounds.end());
        let right = format!("\"{low}%\" to \"{high}%\"");
        let text = string(value, &right)?;
        let number = text.strip_suffix('%').and_then(|number| number.trim_end().parse().ok());
        let number = number.filter(|number| bounds.contains(number));
        let wrong = || format!("`{}` is no whole percentage within bounds; write {right}", text::echo(text));
        number.ok_or_else(wrong)
    };
    table.read(key, read).unwrap_or(default)
}
