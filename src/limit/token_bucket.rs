//! The token bucket of one thread: for what is taken several at once, like the connections of a listener.

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

    /// Tokens that can be taken now. Time that goes backwards gives nothing.
    pub fn available(&mut self, now: Mono) -> u32 {
        let passed = now.as_nanos().saturating_sub(self.counted.as_nanos());
        self.level_ns = self.level_ns.saturating_add(passed).min(self.rate.window_ns());
        self.counted = self.counted.max(now);
        self.rate.fits(self.level_ns)
    }

    /// Takes one.
    ///
    /// # Errors
    /// How long until there is one, when there is none.
    pub fn take(&mut self, now: Mono) -> Result<(), Duration> {
        let interval = self.rate.interval_ns();
        if self.available(now) == 0 {
            return Err(Duration::from_nanos(interval.saturating_sub(self.level_ns)));
        }
        self.level_ns = self.level_ns.saturating_sub(interval);
        Ok(())
    }
}
