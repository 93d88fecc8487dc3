//! Closed loops: callers who call again when they are answered, and endpoints of different speed.

use super::*;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What became of the calls of a loop.
struct Outcome {
    calls: Vec<usize>,
    failed: usize,
    latencies_us: Vec<u64>,
}

impl Outcome {
    fn share(&self, seat: usize) -> f64 {
        self.calls[seat] as f64 / self.calls.iter().sum::<usize>() as f64
    }

    fn p99_us(&self) -> u64 {
        self.latencies_us[self.latencies_us.len() * 99 / 100]
    }
}

/// When a caller calls next, and what became of its last call: where it went, how long it took, and whether it succeeded.
type Due = Reverse<(Mono, u64, Option<(usize, u64, bool)>)>;

/// So many callers, for so long; `serve` says what an endpoint makes of a call: how long it takes, and what it tells.
fn run(
    scene: &mut Scene,
    callers: usize,
    time: Duration,
    serve: impl Fn(usize, Mono, &mut Rng) -> (Duration, Verdict),
) -> Outcome {
    let mut outcome = Outcome { calls: vec![0; scene.pools[0].seats()], failed: 0, latencies_us: Vec::new() };
    let end = scene.now + time;
    let mut draw = Rng::new(5);
    let mut due: BinaryHeap<Due> =
        (0..callers as u64).map(|caller| Reverse((scene.now, caller, None))).collect();
    while let Some(Reverse((now, caller, ended))) = due.pop()
        && now < end
    {
        scene.now = now;
        if let Some((seat, nanos, good)) = ended {
            let verdict = if good { Verdict::Good } else { Verdict::Failed };
            outcome.failed += usize::from(!good);
            outcome.latencies_us.push(nanos / 1000);
            let ended =
                Ended { seat, latency: Duration::from_nanos(nanos), verdict, fault: None, origin: None };
            scene.pools[0].finished(now, ended, &mut scene.rng);
        }
        let (seat, _) = scene.pools[0].choose(now, Ask::default(), &mut scene.rng, |_| true).unwrap();
        scene.pools[0].started(seat);
        outcome.calls[seat] += 1;
        let (latency, verdict) = serve(seat, now, &mut draw);
        let latency = latency + Duration::from_nanos(draw.below(100_000));
        let nanos = latency.as_nanos() as u64;
        due.push(Reverse((now + latency, caller, Some((seat, nanos, verdict == Verdict::Good)))));
    }
    outcome.latencies_us.sort_unstable();
    outcome
}

#[test]
fn a_slow_endpoint_gets_next_to_nothing() {
    let serve = |seat, _, _: &mut Rng| (ms(if seat == 0 { 10 } else { 1 }), Verdict::Good);
    let mut scene = Scene::new(quick(), 10);
    let outcome = run(&mut scene, 20, Duration::from_secs(20), serve);
    assert!(outcome.share(0) < 0.01, "{:?}", outcome.calls);
    let mut without = Scene::new(quick(), 9);
    let even = |_, _, _: &mut Rng| (ms(1), Verdict::Good);
    let without = run(&mut without, 20, Duration::from_secs(5), even);
    assert!(outcome.p99_us() * 2 <= without.p99_us() * 3, "{} for {}", outcome.p99_us(), without.p99_us());
    let mut turns = Scene::new(PoolSettings { balance: Balance::RoundRobin, ..quick() }, 10);
    let turns = run(&mut turns, 20, Duration::from_secs(5), serve);
    assert!(turns.p99_us() > 5 * outcome.p99_us(), "where turns give it a tenth: {}", turns.p99_us());
}

#[test]
fn an_endpoint_that_fails_fast_attracts_nothing() {
    let serve = |seat: usize, _: Mono, _: &mut Rng| match seat {
        0 => (Duration::from_micros(10), Verdict::Failed),
        _ => (ms(5), Verdict::Good),
    };
    // Nobody is ejected: the cost alone must do it.
    let ejection = EjectionSettings { ejected_percent_max: 0, ..Default::default() };
    let mut scene = Scene::new(PoolSettings { ejection, ..quick() }, 4);
    let outcome = run(&mut scene, 8, Duration::from_secs(20), serve);
    assert!(outcome.failed < 10, "{} of {:?}", outcome.failed, outcome.calls);
    let mut ejecting = Scene::new(PoolSettings { balance: Balance::Random, ..quick() }, 4);
    let outcome = run(&mut ejecting, 8, Duration::from_secs(20), serve);
    assert!(outcome.failed < 40, "by chance, but ejected: {} of {:?}", outcome.failed, outcome.calls);
}

#[test]
fn one_that_has_recovered_gets_load_again() {
    let well_again = Mono::ZERO + Duration::from_secs(21);
    let serve = |seat: usize, now: Mono, _: &mut Rng| {
        if seat == 0 && now < well_again { (ms(1), Verdict::Failed) } else { (ms(1), Verdict::Good) }
    };
    for balance in BALANCES {
        let mut scene = Scene::new(PoolSettings { balance, ..PoolSettings::default() }, 3);
        run(&mut scene, 6, Duration::from_secs(20), serve);
        assert_eq!(scene.now.since(Mono::ZERO).as_secs(), 20, "the loop ends before");
        // Its term has not grown above a minute, and then it is spared for half a minute.
        scene.now = well_again + Duration::from_secs(60);
        scene.pools[0] = restarted(&scene);
        run(&mut scene, 6, Duration::from_secs(31), serve);
        let outcome = run(&mut scene, 6, Duration::from_secs(5), serve);
        assert!(
            outcome.share(0) > 0.2 || balance == Balance::ConsistentHash,
            "{balance:?}: {:?}",
            outcome.calls
        );
        assert_eq!((outcome.failed, scene.shared.ejected(SERVICE)), (0, 0));
    }
}

/// One that was not asked for long and then hangs.
#[test]
fn an_idle_endpoint_that_hangs_is_no_black_hole() {
    let mut scene = Scene::new(quick(), 2);
    (0..200).for_each(|_| _ = scene.call(Verdict::Good));
    for _ in 0..300 {
        scene.call_to(0, 0, Verdict::Good);
        scene.after(Duration::from_secs(1));
    }
    // All at once: what is not known yet cannot be held against it.
    let mut had = Vec::new();
    for _ in 0..100 {
        let (seat, _) = scene.ask(Ask::default()).unwrap();
        scene.pools[0].started(seat);
        had.push(seat);
    }
    let busy = had.iter().filter(|seat| **seat == 0).count();
    assert!(busy >= 15, "{busy} of 100 to the one that is known");
    for seat in had {
        let ended = Ended { seat, latency: ms(1), verdict: Verdict::Nothing, fault: None, origin: None };
        scene.pools[0].finished(scene.now, ended, &mut scene.rng);
    }
    let mut there = 0;
    for _ in 0..1000 {
        let (seat, _) = scene.ask(Ask::default()).unwrap();
        scene.pools[0].started(seat);
        there += usize::from(seat == 1);
        if seat == 0 {
            scene.end(0, 0, Verdict::Good);
        } else {
            scene.after(ms(1));
        }
    }
    assert!(there <= 5, "{there} of 1000 calls hang");
}

/// The same pool with nothing outstanding: what the loop left behind is not answered.
fn restarted(scene: &Scene) -> Pool {
    let mut pool = Pool::new(SERVICE, scene.pools[0].settings().clone(), scene.shared.clone());
    for change in pool.update(scene.now) {
        if let Change::Joined(seat) = change {
            pool.set_ready(scene.now, seat, true);
        }
    }
    pool
}
