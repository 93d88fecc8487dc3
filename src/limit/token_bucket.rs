//! The token bucket of one thread: for what is looked at before it is taken, like the connections of a listener.

use super::Rate;
use moorgate_proto::time::Mono;
use std::time::Duration;

/// Tokens that come at a [`Rate`] and wait for at most a burst. Begins with a whole burst.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBucket {
    rate: Rate,
    /// What there was at `counted`, in the nanoseconds that it takes to come.
    level_ns: u64,
    counted: Mono,
}

impl TokenBucket {
    /// A bucket with a whole burst in it.
    pub fn new(rate: Rate) -> TokenBucket {
        TokenBucket { rate, level_ns: rate.window_ns(), counted: Mono::ZERO }
    }

    /// How long until there is a token; `None`: there is one. Time that goes backwards gives nothing.
    pub fn wait(&mut self, now: Mono) -> Option<Duration> {
        let passed = now.as_nanos().saturating_sub(self.counted.as_nanos());
        self.level_ns = self.level_ns.saturating_add(passed).min(self.rate.window_ns());
        self.counted = self.counted.max(now);
        let missing = self.rate.interval_ns().checked_sub(self.level_ns).filter(|missing| *missing > 0);
        missing.map(Duration::from_nanos)
    }

    /// Takes a token; whether there was one.
    pub fn take(&mut self, now: Mono) -> bool {
        let has_one = self.wait(now).is_none();
        if has_one {
            self.level_ns = self.level_ns.saturating_sub(self.rate.interval_ns());
        }
        has_one
    }
}
