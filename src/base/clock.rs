//! The one place where the gateway reads a clock: once per turn of a loop, for everything in that turn.
//!
//! The clock of the loops does not count pauses of the process (SIGSTOP, the migration of its virtual machine, a
//! suspended host): what did not run for a minute must not find a minute of deadlines expired when it runs again. Each
//! loop reads the clock at least once a second, so an interval in which nobody has read it is a pause:
//!
//! ```text
//! raw      ──┼──┼───┼──┤      paused       ├──┼───┼──►      reading = raw - skipped
//! reading  ──┼──┼───┼──┤├──┼───┼──►                         skipped grows by the gap, up to PAUSE_MAX
//! ```

use moorgate_proto::time::Mono;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// An interval without a reading that is longer than this is a pause. Loops read the clock more often, which
/// `reactor` asserts.
pub const PAUSE_MIN: Duration = Duration::from_millis(1500);
/// Of one longer pause, this much is not counted: a minute, and the interval between two readings of an idle gateway.
pub const PAUSE_MAX: Duration = Duration::from_secs(62);
/// Readings that are closer than this to the latest published one are not published: threads share a cache line only
/// so often.
const GRAIN: Duration = Duration::from_millis(1);

/// The time of one turn, as every core is given it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// For lengths and deadlines.
    pub mono: Mono,
    /// Milliseconds since the Unix epoch, for tokens and logs; counts pauses, and may jump.
    pub unix_ms: u64,
}

impl Now {
    /// An earlier time, by the same difference of the clocks.
    pub fn back_to(self, mono: Mono) -> Now {
        let since_ms = u64::try_from(self.mono.since(mono).as_millis()).unwrap_or(u64::MAX);
        Now { mono, unix_ms: self.unix_ms.saturating_sub(since_ms) }
    }

    /// Seconds since the Unix epoch.
    pub fn unix_s(self) -> u64 {
        self.unix_ms / 1000
    }
}

/// Reads the clocks. Copies share one origin and one sum of pauses, so their [`Mono`]s can be compared.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
    /// `None`: pauses count like any other time.
    pauses: Option<&'static Pauses>,
}

impl Clock {
    /// A clock that counts pauses, for threads that read it seldom. Its origin is one second ago: points before now
    /// must exist.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    pub fn start() -> Clock {
        let now = Instant::now();
        Clock { origin: now.checked_sub(Duration::from_secs(1)).unwrap_or(now), pauses: None }
    }

    /// The clock of a gateway's loops: it does not count pauses, and has to be read more often than [`PAUSE_MIN`]. It is
    /// never freed: a process starts one gateway.
    pub fn of_loops() -> Clock {
        let clock = Clock::start();
        let pauses = Pauses::new(Mono::ZERO + clock.origin.elapsed());
        Clock { pauses: Some(Box::leak(Box::new(pauses))), ..clock }
    }

    /// The time now. Never earlier than an earlier reading, on whichever thread.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    pub fn read(&self) -> Now {
        let raw = || Mono::ZERO + self.origin.elapsed();
        let (mono, paused) = self.pauses.map_or_else(|| (raw(), None), |pauses| pauses.read(raw));
        if let Some(paused) = paused {
            log::warn!(
                "process_paused duration={:.1}s counted={:.1}s: deadlines are extended by the difference",
                paused.gap.as_secs_f64(),
                paused.gap.saturating_sub(paused.skipped).as_secs_f64()
            );
        }
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now { mono, unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX) }
    }

    /// Pauses so far, and the time that was not counted because of them.
    pub fn paused(&self) -> (u64, Duration) {
        self.pauses.map_or((0, Duration::ZERO), |pauses| {
            (
                pauses.count.load(Ordering::Relaxed),
                Duration::from_nanos(pauses.skipped.load(Ordering::Relaxed)),
            )
        })
    }
}

/// A pause that a reading has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paused {
    /// From the latest reading before it to the first one after it.
    pub gap: Duration,
    /// How much of that is not counted.
    pub skipped: Duration,
}

/// The pauses of a process, shared by its threads.
#[derive(Debug)]
pub struct Pauses {
    /// Nanoseconds that are not counted.
    skipped: AtomicU64,
    /// A recent reading, in nanoseconds; at most [`GRAIN`] before the latest one.
    latest: AtomicU64,
    /// Pauses so far.
    count: AtomicU64,
    /// Held while a pause is taken out.
    lock: Mutex<()>,
}

impl Pauses {
    /// No pause so far; `raw` is now.
    pub fn new(raw: Mono) -> Pauses {
        Pauses {
            skipped: AtomicU64::new(0),
            latest: AtomicU64::new(raw.as_nanos()),
            count: AtomicU64::new(0),
            lock: Mutex::new(()),
        }
    }

    /// A reading of the time without pauses, from the raw time; and the pause that ended just now, for one reader only.
    pub fn read(&self, mut raw: impl FnMut() -> Mono) -> (Mono, Option<Paused>) {
        let mut counted = || {
            // In this order: with a sum of before a pause, a raw time of after it shows a gap, and is looked at again.
            let skipped = self.skipped.load(Ordering::Acquire);
            let raw = raw().as_nanos().saturating_sub(skipped);
            let latest = self.latest.load(Ordering::Acquire);
            (skipped, latest, raw, Duration::from_nanos(raw.saturating_sub(latest)))
        };
        let (_, latest, reading, gap) = counted();
        if gap <= GRAIN {
            return (Mono::from_nanos(reading.max(latest)), None);
        }
        if gap <= PAUSE_MIN {
            return (self.publish(reading), None);
        }
        let _guard = self.lock.lock();
        // Another thread may have taken the pause out meanwhile.
        let (skipped, _, reading, gap) = counted();
        if gap <= PAUSE_MIN {
            return (self.publish(reading), None);
        }
        // Unpublished readings may be later than the published one by the grain.
        let taken = gap.min(PAUSE_MAX).saturating_sub(GRAIN);
        let nanos = u64::try_from(taken.as_nanos()).unwrap_or(0);
        self.skipped.store(skipped.saturating_add(nanos), Ordering::Release);
        self.count.fetch_add(1, Ordering::Relaxed);
        (self.publish(reading.saturating_sub(nanos)), Some(Paused { gap, skipped: taken }))
    }

    fn publish(&self, reading: u64) -> Mono {
        Mono::from_nanos(self.latest.fetch_max(reading, Ordering::AcqRel).max(reading))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn read(pauses: &Pauses, raw: Duration) -> (Duration, Option<Duration>) {
        let (reading, paused) = pauses.read(|| Mono::ZERO + raw);
        (reading.since(Mono::ZERO), paused.map(|paused| paused.skipped))
    }

    #[test]
    fn pause_is_skipped_once_up_to_the_maximum() {
        let pauses = Pauses::new(Mono::ZERO + SECOND);
        assert_eq!(read(&pauses, 2 * SECOND), (2 * SECOND, None));
        let grain = GRAIN;
        assert_eq!(read(&pauses, 14 * SECOND), (2 * SECOND + grain, Some(12 * SECOND - grain)));
        assert_eq!(read(&pauses, 15 * SECOND), (3 * SECOND + grain, None));
        let (reading, skipped) = read(&pauses, 15 * SECOND + 3600 * SECOND);
        assert_eq!(skipped, Some(PAUSE_MAX - grain));
        assert_eq!(reading, 3 * SECOND + 3600 * SECOND + 2 * grain - PAUSE_MAX);
        assert_eq!(read(&pauses, 16 * SECOND + 3600 * SECOND), (reading + SECOND, None));
    }

    #[test]
    fn interval_of_idle_loops_is_no_pause() {
        let pauses = Pauses::new(Mono::ZERO);
        for seconds in 1..100u32 {
            let raw = PAUSE_MIN * seconds;
            assert_eq!(read(&pauses, raw), (raw, None));
        }
    }

    proptest! {
        /// Readings of several threads, some with a raw time that was taken before a pause of that thread.
        #[test]
        fn readings_never_decrease_on_a_thread(
            steps in proptest::collection::vec((0usize..3, 0u64..5_000_000_000, any::<bool>()), 1..200),
        ) {
            let pauses = Pauses::new(Mono::ZERO);
            let (mut raw, mut last) = (0, [Mono::ZERO; 3]);
            for (thread, nanos, nested) in steps {
                raw += nanos;
                let mut other = None;
                let mut first = true;
                let (reading, _) = pauses.read(|| {
                    if std::mem::take(&mut first) && nested {
                        // The thread stops between its look at the sum of pauses and its look at the clock.
                        raw += nanos;
                        let at = Mono::from_nanos(raw);
                        other = Some(pauses.read(|| at).0);
                    }
                    Mono::from_nanos(raw)
                });
                let neighbour = (thread + 1) % 3;
                if let Some(other) = other {
                    prop_assert!(other >= last[neighbour], "{other:?} after {:?}", last[neighbour]);
                    last[neighbour] = other;
                }
                prop_assert!(reading >= last[thread], "{reading:?} after {:?}", last[thread]);
                last[thread] = reading;
            }
        }
    }

    #[test]
    fn readings_never_decrease_across_threads_with_pauses() {
        let pauses = Pauses::new(Mono::ZERO);
        let raw = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut last = Mono::ZERO;
                    for turn in 0..20_000u64 {
                        let step = if turn % 64 == 0 { 2_000_000_000 } else { 100_000 };
                        let (reading, _) =
                            pauses.read(|| Mono::from_nanos(raw.fetch_add(step, Ordering::SeqCst)));
                        assert!(reading >= last);
                        last = reading;
                    }
                });
            }
        });
        assert!(pauses.count.load(Ordering::Relaxed) > 0);
    }
}
