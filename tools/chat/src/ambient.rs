//! What comes from the world: clocks and the time zone.

use crate::app::Moment;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use moorgate_proto::time::Mono;
use std::time::Instant;

/// The clocks of this machine.
pub(crate) struct Clocks {
    origin: Instant,
}

impl Clocks {
    #[expect(clippy::disallowed_methods, reason = "the program's one clock")]
    pub(crate) fn new() -> Clocks {
        Clocks { origin: Instant::now() }
    }

    pub(crate) fn now(&self) -> Moment {
        let unix_ms = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
        Moment { mono: Mono::ZERO + self.origin.elapsed(), unix_ms }
    }
}

/// A time of day, here.
pub(crate) fn hours_and_minutes(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms).ok().and_then(|millis| Timestamp::from_millisecond(millis).ok());
    let Some(time) = time else { return "--:--".to_owned() };
    let here = time.to_zoned(TimeZone::system());
    format!("{:02}:{:02}", here.hour(), here.minute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_time_has_five_letters() {
        for time in [0, 1_700_000_000_000, u64::MAX] {
            assert_eq!(hours_and_minutes(time).len(), 5, "{time}");
        }
    }
}
