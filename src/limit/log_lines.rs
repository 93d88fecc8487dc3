//! Bounds the log lines that clients can cause.

use super::Rate;
use super::gcra::Gcra;
use super::roster::Hasher;
use moorgate_proto::time::Mono;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

/// One line of each kind and client in this time.
const QUIET: Duration = Duration::from_secs(60);
/// Lines of one kind, of all clients.
const LINES_PER_MINUTE: u32 = 60;
const LINES_BURST: u32 = 20;

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogLine {
    /// The greeting of another protocol.
    ForeignProtocol,
    /// A login that no access token can hold.
    Login,
    /// A ban that was given.
    Ban,
}

const KINDS: usize = 3;

/// How many lines of the same kind were left out before one that is due; it is written behind that one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftOut(pub u64);

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " ({count} more lines of this kind were not logged)"),
        }
    }
}

/// Which lines are due, for one thread.
#[derive(Debug)]
pub struct LogLines {
    rate: Option<Rate>,
    kinds: [Kind; KINDS],
    hasher: Hasher,
}

#[derive(Debug, Default)]
struct Kind {
    budget: Gcra,
    /// When each client's last line was written. Bounded by the rate: at most those of the last [`QUIET`].
    written: HashMap<u64, Mono, Hasher>,
    left_out: u64,
}

impl LogLines {
    /// None was written yet. `seed` is random.
    pub fn new(seed: u64) -> LogLines {
        LogLines {
            rate: Rate::new(LINES_PER_MINUTE, Duration::from_secs(60), LINES_BURST),
            kinds: Default::default(),
            hasher: Hasher::with_seed(seed),
        }
    }

    /// Whether a line about this client is due: how many of its kind were left out since the last one, or `None`: this one
    /// is left out too.
    pub fn is_due(&mut self, now: Mono, line: LogLine, client: impl Hash) -> Option<LeftOut> {
        let client = self.hasher.hash_one(client);
        let (rate, kind) = (self.rate?, self.kinds.get_mut(line as usize)?);
        let is_recent = kind.written.get(&client).is_some_and(|written| now.since(*written) < QUIET);
        if is_recent || kind.budget.charge(now, rate).is_err() {
            kind.left_out = kind.left_out.saturating_add(1);
            return None;
        }
        kind.written.retain(|_, written| now.since(*written) < QUIET);
        kind.written.insert(client, now);
        Some(LeftOut(std::mem::take(&mut kind.left_out)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn one_line_of_each_kind_and_client_in_a_minute() {
        let mut lines = LogLines::new(1);
        assert_eq!(lines.is_due(at(1), LogLine::Login, "attacker"), Some(LeftOut(0)));
        for second in 1..61 {
            assert_eq!(lines.is_due(at(second), LogLine::Login, "attacker"), None);
        }
        assert_eq!(
            lines.is_due(at(60), LogLine::Login, "another"),
            Some(LeftOut(60)),
            "it counts what was left out"
        );
        assert_eq!(lines.is_due(at(60), LogLine::Ban, "attacker"), Some(LeftOut(0)), "another kind");
        assert_eq!(lines.is_due(at(61), LogLine::Login, "attacker"), Some(LeftOut(0)));
    }

    #[test]
    fn clients_that_are_many_have_a_rate_and_hold_bounded_memory() {
        let mut lines = LogLines::new(1);
        let written = (0..100_000u64).filter(|client| {
            lines.is_due(at(1) + Duration::from_millis(*client), LogLine::Login, client).is_some()
        });
        assert!((110..=125).contains(&written.count()), "100 seconds and a burst");
        assert!(lines.kinds.iter().all(|kind| kind.written.len() <= 80));
        assert!(lines.is_due(at(101), LogLine::ForeignProtocol, 7).is_some(), "another kind has its own");
    }
}
