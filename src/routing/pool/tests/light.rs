//! Open loops at light load: equal endpoints share the calls, also after a hiccup and beside a slow one.

use super::*;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

const RUN: Duration = Duration::from_secs(10);
/// An endpoint may be left alone for so long after a hiccup.
const EXCLUDED: Duration = Duration::from_secs(2);
const HICCUP: Duration = Duration::from_millis(60);

/// What is not as always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    /// One answer of the second endpoint takes 60 ms.
    Hiccup,
    /// The first endpoint is twice as slow.
    Slow,
}

#[derive(Debug, Clone, Copy)]
struct Load {
    endpoints: u16,
    per_s: u64,
    trouble: Trouble,
    seed: u64,
}

/// About 2 ms, and one answer in 50 takes three times as long.
fn latency(draw: &mut Rng) -> Duration {
    let usual = Duration::from_micros(1600) + Duration::from_nanos(draw.below(800_000));
    if draw.below(50) == 0 { usual * 3 } else { usual }
}

/// The calls that each endpoint had; those while one may be left alone are not counted.
fn calls(load: Load) -> Vec<u32> {
    let mut scene = Scene::new(quick(), load.endpoints);
    scene.rng = Rng::new(load.seed);
    let mut draw = Rng::new(load.seed ^ 0x5eed);
    let mut calls = vec![0; load.endpoints.into()];
    let mut answers: BinaryHeap<Reverse<(Mono, usize, Duration)>> = BinaryHeap::new();
    let (begin, step) = (scene.now, Duration::from_secs(1) / load.per_s as u32);
    let mut hiccup = (load.trouble == Trouble::Hiccup).then_some(begin + RUN / 4);
    let mut excluded_until = Mono::ZERO;
    for call in 0..load.per_s * RUN.as_secs() {
        let now = begin + step * call as u32 + Duration::from_nanos(draw.below(step.as_nanos() as u64));
        while let Some(Reverse((at, seat, latency))) = answers.peek().copied()
            && at <= now
        {
            answers.pop();
            let ended = Ended { seat, latency, verdict: Verdict::Good, fault: None, origin: None };
            scene.pools[0].finished(at, ended, &mut scene.rng);
        }
        let (seat, _) = scene.pools[0].choose(now, Ask::default(), &mut scene.rng, |_| true).unwrap();
        scene.pools[0].started(seat);
        let mut time = latency(&mut draw);
        if load.trouble == Trouble::Slow && seat == 0 {
            time *= 2;
        }
        if seat == 1 && hiccup.is_some_and(|at| now >= at) {
            (hiccup, excluded_until, time) = (None, now + HICCUP + EXCLUDED, HICCUP);
        }
        answers.push(Reverse((now + time, seat, time)));
        calls[seat] += u32::from(now >= excluded_until);
    }
    assert!(hiccup.is_none(), "{load:?}: the endpoint had calls");
    calls
}

#[test]
fn busiest_of_equal_endpoints_has_little_more_than_its_share() {
    for seed in 0..1000 {
        let endpoints = [2, 3, 10][seed % 3];
        let per_s = [100, 100, 1000][seed / 3 % 3];
        let trouble = [Trouble::None, Trouble::Hiccup, Trouble::Slow][seed / 9 % 3];
        let load = Load { endpoints, per_s, trouble, seed: seed as u64 };
        let calls = calls(load);
        let equal = &calls[usize::from(trouble == Trouble::Slow)..];
        let (most, sum): (u32, u32) = (*equal.iter().max().unwrap(), equal.iter().sum());
        let mean = f64::from(sum) / equal.len() as f64;
        assert!(f64::from(most) <= 1.3 * mean, "{load:?}: {calls:?}");
    }
}

#[test]
fn twice_as_slow_endpoint_has_at_most_the_share_of_others() {
    for seed in 0..50 {
        let calls = calls(Load { endpoints: 3, per_s: 1000, trouble: Trouble::Slow, seed });
        assert!(calls[0] <= calls[1].max(calls[2]), "{calls:?}");
    }
}
