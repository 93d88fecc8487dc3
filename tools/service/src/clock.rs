//! The kit's one clock.

use moorgate_proto::time::Mono;
use std::time::{Duration, Instant};

/// Tells the time since it was started, the same for all threads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the kit's one clock")]
    pub(crate) fn start() -> Clock {
        Clock(Instant::now())
    }

    pub(crate) fn now(self) -> Mono {
        Mono::ZERO + self.0.elapsed() + Duration::from_secs(1)
    }
}
