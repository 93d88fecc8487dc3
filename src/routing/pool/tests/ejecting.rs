//! Who is left alone, and how it comes back.

use super::*;
use crate::base::rng::Rng;
use proptest::prelude::*;
use std::sync::atomic::Ordering;

/// Ejected endpoints by what all workers know.
fn ejected(scene: &Scene) -> u64 {
    let members = scene.shared.members(SERVICE);
    let ejected = members.iter().filter(|member| member.vitals.ejection.until().is_some());
    ejected.count() as u64
}

#[test]
fn five_failures_eject_for_all_workers() {
    let mut scene = Scene::new(quick(), 3);
    scene.fail(0, 0, 4);
    assert_eq!(scene.shared.ejected(SERVICE), 0);
    scene.fail(0, 0, 1);
    assert_eq!(scene.shared.ejected(SERVICE), 1);
    for worker in [0, 1] {
        for _ in 0..50 {
            let (now, rng) = (scene.now, &mut scene.rng);
            let (seat, decision) = scene.pools[worker].choose(now, Ask::default(), rng, |_| true).unwrap();
            assert!(seat != 0 && decision.ejected == 1 && !decision.marks.has(Marks::PANIC));
        }
    }
}

#[test]
fn one_call_over_all_workers_tries_it() {
    let mut scene = Scene::new(quick(), 3);
    scene.fail(0, 0, 5);
    scene.after(ms(1600));
    let choose = |scene: &mut Scene, worker: usize| {
        scene.pools[worker].choose(scene.now, Ask::default(), &mut scene.rng, |_| true).unwrap()
    };
    let (seat, decision) = choose(&mut scene, 1);
    assert_eq!((seat, decision.how), (0, How::Probe));
    assert_eq!(choose(&mut scene, 0).1.how, How::PeakEwma, "the other worker has it");
    // The second worker never sent it.
    assert_eq!(choose(&mut scene, 1).1.how, How::Probe);
    scene.pools[1].started(0);
    (0..20).for_each(|_| assert_ne!(choose(&mut scene, 0).0, 0));
    (0..20).for_each(|_| assert_ne!(choose(&mut scene, 1).0, 0));
    scene.end(1, 0, Verdict::Nothing);
    assert_eq!(choose(&mut scene, 0).1.how, How::Probe, "the call was cancelled: another one tries");
    scene.pools[0].started(0);
    scene.end(0, 0, Verdict::Failed);
    scene.after(ms(990));
    assert_ne!(choose(&mut scene, 0).1.how, How::Probe, "twice as long: a second and more");
    scene.after(ms(2100));
    assert_eq!(choose(&mut scene, 0).1.how, How::Probe);
    scene.pools[0].started(0);
    scene.end(0, 0, Verdict::Good);
    assert_eq!((scene.shared.ejected(SERVICE), ejected(&scene)), (0, 0));
    for worker in [0, 1] {
        let is_called = |_| {
            let seat = choose(&mut scene, worker).0;
            scene.call_to(worker, seat, Verdict::Good);
            seat == 0
        };
        assert!((0..100).any(is_called), "it gets load again");
    }
}

#[test]
fn calls_from_before_do_not_bring_it_back() {
    let mut scene = Scene::new(quick(), 2);
    (0..3).for_each(|_| scene.pools[0].started(0));
    scene.fail(0, 0, 5);
    let long_ago = |scene: &mut Scene| {
        let ended = Ended {
            seat: 0,
            latency: scene.now.since(Mono::ZERO),
            verdict: Verdict::Good,
            fault: None,
            origin: None,
        };
        scene.pools[0].finished(scene.now, ended, &mut scene.rng);
    };
    long_ago(&mut scene);
    scene.after(ms(1600));
    long_ago(&mut scene);
    assert_eq!(scene.shared.ejected(SERVICE), 1);
    assert_eq!(scene.ask(Ask::default()).unwrap().1.how, How::Probe);
    scene.pools[0].started(0);
    long_ago(&mut scene);
    assert_eq!(scene.shared.ejected(SERVICE), 1, "that was not the one");
    let unsent =
        Ended { seat: 0, latency: Duration::ZERO, verdict: Verdict::Nothing, fault: None, origin: None };
    scene.pools[0].started(0);
    scene.pools[0].finished(scene.now, unsent, &mut scene.rng);
    assert_eq!(scene.ask(Ask::default()).unwrap().1.how, How::Probe, "it was not sent after all");
    scene.pools[0].started(0);
    scene.after(ms(1));
    scene.pools[0].started(0);
    scene.pools[0].finished(scene.now, unsent, &mut scene.rng);
    assert_eq!(scene.ask(Ask::default()).unwrap().1.how, How::Only, "another one was not sent");
    scene.end(0, 0, Verdict::Good);
    assert_eq!(scene.shared.ejected(SERVICE), 0);
}

#[test]
fn a_busy_endpoint_is_spared_and_never_ejected() {
    let mut scene = Scene::new(quick(), 3);
    (0..50).for_each(|_| scene.call_to(0, 0, Verdict::Busy(0)));
    assert_eq!(scene.shared.ejected(SERVICE), 0);
    (0..50).for_each(|_| assert_ne!(scene.call(Verdict::Good).0, 0));
}

#[test]
fn a_minute_is_too_long_to_be_spared() {
    let mut scene = Scene::new(quick(), 2);
    scene.call_to(0, 0, Verdict::Good);
    scene.call_to(0, 0, Verdict::Busy(60_000));
    (0..50).for_each(|_| assert_ne!(scene.call(Verdict::Good).0, 0));
    scene.after(ms(5000));
    let there = (0..100).filter(|_| scene.call(Verdict::Good).0 == 0).count();
    assert!(there > 20, "{there} of 100 after five seconds");
}

#[test]
fn a_probe_that_is_not_sent_is_anybodys() {
    let mut scene = Scene::new(quick(), 3);
    scene.fail(0, 0, 5);
    scene.after(ms(1600));
    assert_eq!(scene.ask(Ask::default()).unwrap().1.how, How::Probe);
    scene.pools[0].unsent(1);
    let other = |scene: &mut Scene| {
        scene.pools[1].choose(scene.now, Ask::default(), &mut scene.rng, |_| true).unwrap().1.how
    };
    assert_ne!(other(&mut scene), How::Probe);
    scene.pools[0].unsent(0);
    assert_eq!(other(&mut scene), How::Probe);
}

#[test]
fn entries_without_links_do_not_spare_those_that_fail() {
    let mut scene = Scene::new(PoolSettings { balance: Balance::Random, ..quick() }, 7);
    for pool in &mut scene.pools {
        (3..7).for_each(|seat| pool.set_ready(scene.now, seat, false));
    }
    scene.fail(0, 0, 5);
    assert_eq!(scene.shared.ejected(SERVICE), 1);
    assert_eq!(scene.counts(100, Ask::default())[0], 0);
    assert!(!scene.ask(Ask::default()).unwrap().1.marks.has(Marks::PANIC));
    scene.fail(0, 1, 5);
    assert_eq!(scene.shared.ejected(SERVICE), 1, "of three that could take calls one may be");
}

#[test]
fn one_that_leaves_gives_its_place_back() {
    let mut scene = Scene::new(quick(), 4);
    scene.fail(0, 0, 5);
    scene.fail(1, 1, 5);
    scene.fail(1, 2, 5);
    assert_eq!((scene.shared.ejected(SERVICE), ejected(&scene)), (2, 2), "half of them, and no more");
    scene.publish(&[at(2), at(3), at(4), at(5)]);
    assert_eq!(scene.shared.ejected(SERVICE), 1);
    scene.fail(1, 2, 1);
    assert_eq!((scene.shared.ejected(SERVICE), ejected(&scene)), (2, 2));
    scene.publish(&[at(2), at(3)]);
    assert_eq!((scene.shared.ejected(SERVICE), ejected(&scene)), (1, 1), "of two only one may be");
    scene.publish(&[at(3)]);
    assert_eq!((scene.shared.ejected(SERVICE), ejected(&scene)), (0, 0));
    scene.fail(0, 2, 50);
    assert_eq!(scene.shared.ejected(SERVICE), 0, "the only one is never ejected");
}

#[test]
fn in_a_panic_all_are_used() {
    let mut scene = Scene::new(PoolSettings { balance: Balance::Random, ..quick() }, 4);
    scene.fail(0, 0, 5);
    scene.fail(0, 1, 5);
    let asks = Ask::default();
    assert!(!scene.ask(asks).unwrap().1.marks.has(Marks::PANIC), "half of them is enough");
    scene.pools[0].set_ready(scene.now, 2, false);
    let (_, decision) = scene.ask(asks).unwrap();
    assert!(decision.marks.has(Marks::PANIC) && decision.candidates == 3);
    scene.pools[0].set_ready(scene.now, 3, false);
    assert!(scene.pools[0].has_ready());
    let seats: Vec<usize> = (0..50).map(|_| scene.ask(asks).unwrap().0).collect();
    assert!(seats.contains(&0) && seats.contains(&1));
    let ejection = EjectionSettings { panic_percent: 0, ..Default::default() };
    let mut calm = Scene::new(PoolSettings { ejection, ..quick() }, 2);
    calm.fail(0, 0, 5);
    calm.pools[0].set_ready(calm.now, 1, false);
    assert_eq!(calm.ask(asks), Err(Miss::NoEndpoint));
    calm.after(ms(1600));
    calm.pools[0].tick(calm.now);
    assert!(calm.pools[0].has_ready());
    assert_eq!(calm.ask(asks).unwrap().1.how, How::Probe);
}

#[test]
fn terms_begin_anew_after_a_good_while() {
    let mut scene = Scene::new(quick(), 2);
    for strikes in [1, 2, 3] {
        scene.fail(0, 0, 5);
        let vitals = scene.shared.members(SERVICE)[0].vitals.clone();
        assert_eq!(vitals.strikes.load(Ordering::Relaxed), strikes);
        scene.after(ms(7000));
        assert_eq!(scene.call(Verdict::Good).1.how, How::Probe);
    }
    scene.after(ms(10_001)).fail(0, 0, 5);
    assert_eq!(scene.shared.members(SERVICE)[0].vitals.strikes.load(Ordering::Relaxed), 1);
}

proptest! {
    /// Whatever two workers see, and whoever comes and goes: never more are ejected than may be, the count is right, and an
    /// endpoint that is half open has one call.
    #[test]
    fn never_above_the_cap(seed in any::<u64>(), percent in 0u8..=100, failures_max in 1u32..4) {
        let ejection = EjectionSettings {
            ejected_percent_max: percent,
            failures_max,
            calls_min: 6,
            window: ms(1000),
            term_min: ms(50),
            term_max: ms(300),
            ..EjectionSettings::default()
        };
        let mut scene = Scene::new(PoolSettings { ejection: ejection.clone(), ..quick() }, 5);
        let mut draw = Rng::new(seed);
        let mut probes: Vec<(usize, usize)> = Vec::new();
        for _ in 0..400 {
            let worker = draw.below(2) as usize;
            match draw.below(40) {
                0 => {
                    let first = 1 + draw.below(4) as u16;
                    let list: Vec<Instance> = (first..first + 1 + draw.below(6) as u16).map(at).collect();
                    if probes.is_empty() {
                        scene.publish(&list);
                    }
                }
                1..5 => { scene.after(ms(draw.below(200))); }
                5..10 if !probes.is_empty() => {
                    let (worker, seat) = probes.swap_remove(draw.below(probes.len() as u64) as usize);
                    let verdicts = [Verdict::Good, Verdict::Failed, Verdict::Nothing, Verdict::Busy(3)];
                    scene.end(worker, seat, verdicts[draw.below(4) as usize]);
                }
                _ => {
                    let (now, rng) = (scene.now, &mut scene.rng);
                    let chosen = scene.pools[worker].choose(now, Ask::default(), rng, |_| true);
                    let Ok((seat, decision)) = chosen else { continue };
                    scene.pools[worker].started(seat);
                    if decision.how == How::Probe {
                        let id = scene.pools[worker].id(seat);
                        prop_assert!(probes.iter().all(|(other, seat)| scene.pools[*other].id(*seat) != id));
                        probes.push((worker, seat));
                    } else {
                        let bad = draw.below(3) > 0;
                        scene.end(worker, seat, if bad { Verdict::Failed } else { Verdict::Good });
                    }
                    // In a panic other calls go there too, and what they tell is taken: then the place is free.
                    let pools = &scene.pools;
                    let is_open = |(worker, seat): &(usize, usize)| {
                        pools[*worker].member(*seat).is_some_and(|m| m.vitals.ejection.is_probed())
                    };
                    let over: Vec<_> = probes.iter().copied().filter(|probe| !is_open(probe)).collect();
                    probes.retain(is_open);
                    for (worker, seat) in over {
                        scene.end(worker, seat, Verdict::Nothing);
                    }
                }
            }
            let members = scene.shared.members(SERVICE).len();
            let max = match members {
                0 | 1 => 0,
                _ if percent == 0 => 0,
                members => (members * usize::from(percent) / 100).max(1),
            };
            prop_assert!(ejected(&scene) as usize <= max, "{} of {members} at {percent} %", ejected(&scene));
            prop_assert_eq!(ejected(&scene), scene.shared.ejected(SERVICE));
        }
    }
}
