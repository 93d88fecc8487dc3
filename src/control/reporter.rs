//! Decides what the service manager is told, and when. Pure: what is observed and what time it is come in.
//!
//! ```text
//!   ready ---> Serving ---- drain ----> Draining, until a deadline
//!             READY=1                   STOPPING=1
//!             WATCHDOG=1, STATUS=       WATCHDOG=1, STATUS=, EXTEND_TIMEOUT_USEC=
//! ```
//!
//! The watchdog is fed at every look at which every loop makes progress, and at no other: a loop that hangs stops the
//! feeding, and the service manager ends the process. While the gateway drains it may take longer than the unit's
//! TimeoutStopSec allows, so more time is asked for until the drain's own deadline and a little more, and not while a
//! loop hangs.

use super::Environment;
use super::notify::Notice;
use moorgate_proto::time::Mono;
use std::time::Duration;

/// Between two looks, at the most.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// Between two looks, at the least, however short the watchdog's time is.
const LOOK_MIN: Duration = Duration::from_millis(10);
/// What is asked for at each look while the gateway drains; the next look comes long before it is over.
const EXTENSION: Duration = Duration::from_secs(10);
/// From the deadline of the drain to the end of everything else: last frames, links, the access log.
const END_MAX: Duration = Duration::from_secs(10);

/// What a look at the gateway has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Whether every loop makes progress.
    pub is_live: bool,
    /// Connections now.
    pub connections: u64,
    /// Whether clients should be sent here; if not, why.
    pub readiness: Result<(), String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// More time is asked for until then.
    Draining(Mono),
}

/// Decides what the service manager is told.
#[derive(Debug)]
pub struct Reporter {
    /// It has to be fed this often; `None`: there is no watchdog.
    watchdog: Option<Duration>,
    phase: Phase,
    /// The last status: it is told again only when it has changed.
    status: String,
}

impl Reporter {
    /// With the watchdog that the environment asks for, if it does: `WATCHDOG_USEC`, meant for the process
    /// `WATCHDOG_PID`.
    pub fn new(environment: Environment<'_>, pid: u32) -> Reporter {
        let number = |name: &str| environment(name)?.parse::<u64>().ok();
        let is_meant = environment("WATCHDOG_PID").is_none_or(|meant| meant == pid.to_string());
        let watchdog = number("WATCHDOG_USEC").filter(|micros| is_meant && *micros > 0);
        Reporter {
            watchdog: watchdog.map(Duration::from_micros),
            phase: Phase::Serving,
            status: String::new(),
        }
    }

    /// The gateway has started: its listeners stand and its threads run. Whether it has links to its services is
    /// told in the status only; a service that starts after the gateway must not hold its start up.
    pub fn ready(&mut self, now: Mono, observed: &Observed) -> Vec<Notice> {
        let mut notices = vec![Notice::Ready];
        notices.extend(self.look(now, observed));
        notices
    }

    /// The gateway begins to drain, for `timeout` at the most.
    pub fn drain(&mut self, now: Mono, timeout: Duration, observed: &Observed) -> Vec<Notice> {
        self.phase = Phase::Draining(now + timeout + END_MAX);
        let mut notices = vec![Notice::Stopping];
        notices.extend(self.look(now, observed));
        notices
    }

    /// What there is to tell at a look.
    pub fn look(&mut self, now: Mono, observed: &Observed) -> Vec<Notice> {
        let mut notices = Vec::new();
        if self.watchdog.is_some() && observed.is_live {
            notices.push(Notice::Watchdog);
        }
        if let Phase::Draining(until) = self.phase
            && observed.is_live
            && now < until
        {
            notices.push(Notice::ExtendTimeout(EXTENSION));
        }
        let status = status(self.phase, observed);
        if status != self.status {
            notices.push(Notice::Status(status.clone()));
            self.status = status;
        }
        notices
    }

    /// How long to wait for the next look: twice within the watchdog's time, as sd_watchdog_enabled(3) asks for.
    pub fn pause(&self) -> Duration {
        self.watchdog.map_or(LOOK_MAX, |time| (time / 2).clamp(LOOK_MIN, LOOK_MAX))
    }
}

fn status(phase: Phase, observed: &Observed) -> String {
    let Observed { is_live, connections, readiness } = observed;
    let what = match (phase, is_live, readiness) {
        (_, false, _) => "a loop makes no progress".to_owned(),
        (Phase::Draining(_), true, _) => "draining".to_owned(),
        (Phase::Serving, true, Ok(())) => "ready".to_owned(),
        (Phase::Serving, true, Err(why)) => format!("not ready: {why}"),
    };
    let plural = if *connections == 1 { "" } else { "s" };
    format!("{what}; {connections} connection{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn reporter(variables: &[(&str, &str)]) -> Reporter {
        let environment = |name: &str| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
        };
        Reporter::new(&environment, 42)
    }

    fn fed() -> Reporter {
        reporter(&[("WATCHDOG_USEC", "600000"), ("WATCHDOG_PID", "42")])
    }

    fn observed(is_live: bool, connections: u64) -> Observed {
        Observed { is_live, connections, readiness: Ok(()) }
    }

    fn status(text: &str) -> Notice {
        Notice::Status(text.to_owned())
    }

    #[test]
    fn the_watchdog_is_the_environments_and_only_for_whom_it_is_meant() {
        let is_fed = |variables: &[(&str, &str)]| reporter(variables).watchdog.is_some();
        assert!(is_fed(&[("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "42")]));
        assert!(is_fed(&[("WATCHDOG_USEC", "1000")]));
        assert!(!is_fed(&[("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "43")]));
        assert!(!is_fed(&[("WATCHDOG_USEC", "0")]) && !is_fed(&[("WATCHDOG_USEC", "soon")]) && !is_fed(&[]));
    }

    #[test]
    fn looks_come_twice_within_the_watchdogs_time_and_within_bounds() {
        let pause = |micros| reporter(&[("WATCHDOG_USEC", micros)]).pause();
        assert_eq!(reporter(&[]).pause(), LOOK_MAX);
        assert_eq!(pause("600000"), Duration::from_millis(300));
        assert_eq!(pause("30000000"), LOOK_MAX);
        assert_eq!(pause("1"), LOOK_MIN);
    }

    #[test]
    fn the_watchdog_is_fed_while_all_loops_turn_and_never_while_one_hangs() {
        let mut reporter = fed();
        let now = Mono::ZERO;
        let first = [Notice::Ready, Notice::Watchdog, status("ready; 0 connections")];
        assert_eq!(reporter.ready(now, &observed(true, 0)), first);
        assert_eq!(reporter.look(now, &observed(true, 0)), [Notice::Watchdog]);
        let stuck = status("a loop makes no progress; 0 connections");
        assert_eq!(reporter.look(now, &observed(false, 0)), [stuck]);
        assert_eq!(reporter.look(now, &observed(false, 0)), []);
        let again = [Notice::Watchdog, status("ready; 0 connections")];
        assert_eq!(reporter.look(now, &observed(true, 0)), again, "it was only slow");
        // Nor while it drains.
        let stuck = status("a loop makes no progress; 0 connections");
        assert_eq!(reporter.drain(now, SECOND, &observed(false, 0)), [Notice::Stopping, stuck]);
    }

    #[test]
    fn without_a_watchdog_only_changes_are_told() {
        let mut reporter = reporter(&[]);
        let now = Mono::ZERO;
        let not_ready =
            Observed { readiness: Err("service chat has no ready link".to_owned()), ..observed(true, 0) };
        let first = [Notice::Ready, status("not ready: service chat has no ready link; 0 connections")];
        assert_eq!(reporter.ready(now, &not_ready), first);
        assert_eq!(reporter.look(now, &not_ready), []);
        assert_eq!(reporter.look(now, &observed(true, 1)), [status("ready; 1 connection")]);
        assert_eq!(reporter.look(now, &observed(true, 2)), [status("ready; 2 connections")]);
    }

    #[test]
    fn a_drain_asks_for_time_until_a_little_after_its_deadline() {
        let mut reporter = reporter(&[]);
        let begun = Mono::ZERO + SECOND;
        let extend = Notice::ExtendTimeout(EXTENSION);
        let first = [Notice::Stopping, extend.clone(), status("draining; 5 connections")];
        assert_eq!(reporter.drain(begun, 20 * SECOND, &observed(true, 5)), first);
        let last = begun + 20 * SECOND + END_MAX;
        assert_eq!(reporter.look(last - Duration::from_nanos(1), &observed(true, 5)), [extend]);
        assert_eq!(reporter.look(last, &observed(true, 5)), []);
        // Each extension lasts until the next look.
        assert!(reporter.pause() * 2 < EXTENSION);
    }
}
