//! Timers.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use moorgate::base::rng::Rng;
use moorgate::base::wheel::{Alarm, Wheel};
use moorgate_proto::time::Mono;
use std::time::Duration;

const TIMERS: [usize; 2] = [100, 10_000];
const MINUTE: Duration = Duration::from_secs(60);

/// Each timer at a moment of its own within a minute; then the minute passes.
#[divan::bench(args = TIMERS)]
fn arm_and_expire(bencher: Bencher<'_, '_>, timers: usize) {
    let mut wheel = Wheel::default();
    let mut alarms = vec![Alarm::default(); timers];
    let (mut rng, mut now) = (Rng::new(1), Mono::ZERO);
    bencher.counter(ItemsCount::new(timers)).bench_local(|| {
        for (key, alarm) in (0u32..).zip(&mut alarms) {
            wheel.arm(alarm, key, now + rng.up_to(MINUTE));
        }
        now = now + MINUTE + Duration::from_secs(1);
        let mut rung = 0;
        while let Some((key, due)) = wheel.expire(now) {
            rung += usize::from(alarms[key as usize].rings(due));
        }
        assert_eq!(rung, timers);
    });
}

/// What most frames do to their connection's timer: nothing.
#[divan::bench]
fn arm_later_than_before(bencher: Bencher<'_, '_>) {
    let mut wheel = Wheel::default();
    let mut alarm = Alarm::default();
    wheel.arm(&mut alarm, 1u32, Mono::ZERO + MINUTE);
    bencher.bench_local(|| wheel.arm(black_box(&mut alarm), 1, Mono::ZERO + 2 * MINUTE));
}
