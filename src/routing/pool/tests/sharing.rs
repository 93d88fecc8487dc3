//! Who gets which part of the calls.

use super::*;
use crate::base::rng::Rng;
use crate::routing::{CanarySettings, Prefer};
use proptest::prelude::*;
use service_view::State;

fn instances(lines: &[&str]) -> Vec<Instance> {
    lines.iter().map(|line| line.parse().unwrap()).collect()
}

fn scene(settings: PoolSettings, lines: &[&str]) -> Scene {
    Scene::of(settings, &instances(lines))
}

#[test]
fn each_rule_shares_by_weight_where_it_says_so() {
    let lines = ["192.0.2.1:1 weight=300", "192.0.2.1:2", "192.0.2.1:3 weight=0"];
    for (balance, first) in [
        (Balance::RoundRobin, 2000..=2000),
        (Balance::WeightedRoundRobin, 2999..=3001),
        (Balance::Random, 2850..=3150),
    ] {
        let counts = scene(PoolSettings { balance, ..quick() }, &lines).counts(4000, Ask::default());
        assert!(first.contains(&counts[0]) && counts[2] == 0, "{balance:?}: {counts:?}");
    }
    let balance = Balance::LeastOutstanding;
    let mut least = scene(PoolSettings { balance, ..quick() }, &lines);
    for _ in 0..400 {
        let (seat, _) = least.ask(Ask::default()).unwrap();
        least.pools[0].started(seat);
    }
    let outstanding: Vec<u32> = least.pools[0].loads.iter().map(|load| load.outstanding).collect();
    assert_eq!(outstanding, [300, 100, 0]);
}

#[test]
fn what_a_service_says_of_itself_counts() {
    let settings = PoolSettings { balance: Balance::Random, ..quick() };
    let mut scene = Scene::new(settings, 4);
    for (seat, state, load) in
        [(0, State::Degraded, 0), (1, State::Up, 10_000), (2, State::Draining, 0), (3, State::Up, 0)]
    {
        scene.pools[0].set_view(seat, state, load);
    }
    let counts = scene.counts(13_500, Ask::default());
    assert!(counts[0].abs_diff(2500) < 250 && counts[1].abs_diff(1000) < 200 && counts[2] == 0, "{counts:?}");
    for seat in 0..4 {
        scene.pools[0].set_view(seat, State::Down, 0);
    }
    assert_eq!(scene.ask(Ask::default()), Err(Miss::NoEndpoint));
    scene.pools[0].set_view(2, State::Up, 0);
    assert_eq!(scene.ask(Ask::default()).unwrap().0, 2);
}

#[test]
fn a_doubted_one_is_used_when_too_few_are_left() {
    let mut list = instances(&["192.0.2.1:1", "192.0.2.1:2", "192.0.2.1:3"]);
    list[0].standing = Standing::Doubted;
    let mut scene = Scene::of(quick(), &list);
    assert_eq!(scene.counts(100, Ask::default())[0], 0);
    scene.pools[0].set_ready(scene.now, 1, false);
    let (seat, decision) = scene.ask(Ask::default()).unwrap();
    assert!(seat == 2 && !decision.marks.has(Marks::PANIC), "half of those with a link is enough");
    scene.pools[0].set_ready(scene.now, 1, true);
    list[1].standing = Standing::Doubted;
    scene.publish(&list);
    let (_, decision) = scene.ask(Ask::default()).unwrap();
    assert!(decision.marks.has(Marks::PANIC) && decision.candidates == 3);
    scene.pools[0].set_ready(scene.now, 1, false);
    list.iter_mut().for_each(|instance| instance.standing = Standing::Doubted);
    scene.publish(&list);
    scene.pools[0].set_ready(scene.now, 1, true);
    let (_, decision) = scene.ask(Ask::default()).unwrap();
    assert!(
        !decision.marks.has(Marks::PANIC) && decision.candidates == 3,
        "a source that doubts all says nothing"
    );
}

#[test]
fn where_nobody_has_a_weight_all_are_used() {
    for balance in BALANCES {
        let lines = ["192.0.2.1:1 weight=0", "192.0.2.1:2 weight=0", "192.0.2.1:3"];
        let mut scene = scene(PoolSettings { balance, ..quick() }, &lines);
        let counts = |scene: &mut Scene| {
            let mut counts = [0; 3];
            for key in 0..600 {
                counts[scene.ask(Ask { key, ..Ask::default() }).unwrap().0] += 1;
            }
            counts
        };
        assert_eq!(counts(&mut scene), [0, 0, 600], "{balance:?}");
        scene.publish(&instances(&["192.0.2.1:1 weight=0", "192.0.2.1:2 weight=0", "192.0.2.1:3 weight=0"]));
        // Least outstanding asks the first for as long as nothing is sent.
        if balance != Balance::LeastOutstanding {
            assert!(counts(&mut scene).iter().all(|count| *count > 100), "{balance:?}");
        }
        scene.fail(0, 1, 5);
        assert!(scene.shared.ejected(SERVICE) == 1 && counts(&mut scene)[1] == 0, "and judged as any other");
    }
}

#[test]
fn a_degraded_one_keeps_its_callers_as_long_as_it_can_carry_them() {
    let mut scene = Scene::new(PoolSettings { balance: Balance::ConsistentHash, ..quick() }, 4);
    let homes = |scene: &mut Scene| -> Vec<usize> {
        (0..500).map(|key| scene.ask(Ask { key, ..Ask::default() }).unwrap().0).collect()
    };
    let before = homes(&mut scene);
    scene.pools[0].set_view(1, State::Degraded, 5000);
    assert_eq!(homes(&mut scene), before, "the ring is the same");
    for key in 0..400 {
        let (seat, _) = scene.ask(Ask { key, ..Ask::default() }).unwrap();
        scene.pools[0].started(seat);
    }
    let had = scene.pools[0].loads[1].outstanding;
    assert!((1..60).contains(&had), "its share is an eighth of another one's: {had}");
}

#[test]
fn a_full_pool_is_looked_over_once() {
    for balance in [Balance::RoundRobin, Balance::WeightedRoundRobin] {
        let mut scene = Scene::new(PoolSettings { balance, ..quick() }, 1000);
        let looks = std::cell::Cell::new(0);
        let full = |_: usize| {
            looks.set(looks.get() + 1);
            false
        };
        let chosen = scene.pools[0].choose(scene.now, Ask::default(), &mut scene.rng, full);
        assert!(chosen == Err(Miss::NoRoom) && looks.get() <= 1010, "{} looks", looks.get());
    }
}

#[test]
fn a_newcomer_gets_load_slowly() {
    let balance = Balance::WeightedRoundRobin;
    let mut scene = Scene::new(PoolSettings { balance, ..PoolSettings::default() }, 1);
    assert_eq!(scene.pools[0].next_deadline(), Some(Mono::ZERO), "there is something to work out");
    scene.ask(Ask::default()).unwrap();
    assert_eq!(scene.pools[0].next_deadline(), None);
    scene.publish(&[at(1), at(2)]);
    let counts = scene.counts(1100, Ask::default());
    assert!(counts[1].abs_diff(100) <= 2, "a tenth of the other's: {counts:?}");
    assert_eq!(scene.pools[0].next_deadline(), Some(scene.now + Duration::from_secs(1)));
    scene.after(ms(15_000));
    let counts = scene.counts(1550, Ask::default());
    assert!(counts[1].abs_diff(550) <= 2, "55 % after half of the time: {counts:?}");
    scene.after(ms(15_000));
    assert_eq!(scene.counts(1000, Ask::default()), [500, 500]);
    scene.publish(&[at(3), at(4)]);
    assert_eq!(scene.counts(1000, Ask::default())[2..], [500, 500], "all are new");
    // With few calls, those with a small share have their turns too, however often shares change.
    scene.publish(&[at(3), at(4), at(5)]);
    let mut had = [0; 4];
    for _ in 0..60 {
        had[scene.after(ms(500)).ask(Ask::default()).unwrap().0] += 1;
    }
    assert_eq!((had[1], had.iter().filter(|had| **had >= 8).count()), (0, 3), "{had:?}");
}

#[test]
fn the_preferred_carry_what_they_can() {
    let lines: Vec<String> =
        (1..=15).map(|at| format!("192.0.2.1:{at} zone={}", if at <= 10 { "near" } else { "far" })).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let prefer = Some(Prefer::Zone("near".to_owned()));
    let mut scene = scene(PoolSettings { prefer, balance: Balance::Random, ..quick() }, &lines);
    let near = |scene: &mut Scene| scene.counts(7000, Ask::default())[..10].iter().sum::<usize>();
    (0..3).for_each(|seat| scene.pools[0].set_ready(scene.now, seat, false));
    assert_eq!(near(&mut scene), 7000, "seven of ten carry it all");
    (3..6).for_each(|seat| scene.pools[0].set_ready(scene.now, seat, false));
    let part = near(&mut scene);
    assert!(part.abs_diff(4000) < 250, "four of ten carry 4/7: {part}");
    let (seat, decision) =
        scene.pools[0].choose(scene.now, Ask::default(), &mut scene.rng, |seat| seat >= 10).unwrap();
    assert!(seat >= 10 && decision.marks.has(Marks::SPILLED), "no room there");
    (6..10).for_each(|seat| scene.pools[0].set_ready(scene.now, seat, false));
    assert_eq!(near(&mut scene), 0);
}

#[test]
fn who_spills_over_is_decided_by_the_key() {
    let lines: Vec<String> =
        (1..=8).map(|at| format!("192.0.2.1:{at} tags={}", if at <= 4 { "near" } else { "far" })).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let prefer = Some(Prefer::Tag("near".to_owned()));
    let settings = PoolSettings { prefer, balance: Balance::ConsistentHash, ..quick() };
    let mut scene = scene(settings, &lines);
    let homes = |scene: &mut Scene| -> Vec<usize> {
        (0..2000).map(|key| scene.ask(Ask { key, ..Ask::default() }).unwrap().0).collect()
    };
    [0, 1].into_iter().for_each(|seat| scene.pools[0].set_ready(scene.now, seat, false));
    let first = homes(&mut scene);
    assert_eq!(homes(&mut scene), first, "the same caller, the same endpoint");
    let near = first.iter().filter(|seat| **seat < 4).count();
    assert!(near.abs_diff(2000 * 5 / 7) < 120, "two of four carry 5/7: {near}");
}

#[test]
fn the_canary_is_for_those_who_go_there() {
    let canary = CanarySettings { tag: "new".to_owned(), share: 0, roles: Vec::new(), hello: Vec::new() };
    let settings = PoolSettings { canary: Some(canary), ..quick() };
    let mut scene = scene(settings, &["192.0.2.1:1 tags=new", "192.0.2.1:2", "192.0.2.1:3"]);
    let (ours, theirs) = (Ask { canary: true, ..Ask::default() }, Ask::default());
    assert_eq!(scene.counts(100, ours), [100, 0, 0]);
    assert_eq!(scene.counts(100, theirs)[0], 0);
    let (_, decision) = scene.ask(ours).unwrap();
    assert!(decision.marks.has(Marks::CANARY) && !decision.marks.has(Marks::FALLBACK));
    scene.pools[0].set_ready(scene.now, 0, false);
    let (seat, decision) = scene.ask(ours).unwrap();
    assert!(seat != 0 && decision.marks.has(Marks::CANARY.with(Marks::FALLBACK)));
    scene.pools[0].set_ready(scene.now, 0, true);
    [1, 2].into_iter().for_each(|seat| scene.pools[0].set_ready(scene.now, seat, false));
    let (seat, decision) = scene.ask(theirs).unwrap();
    assert!(seat == 0 && decision.marks.has(Marks::FALLBACK) && !decision.marks.has(Marks::CANARY));
}

fn two_sides(bound: u32) -> PoolSettings {
    let canary = CanarySettings { tag: "new".to_owned(), share: 0, roles: Vec::new(), hello: Vec::new() };
    let bounds = crate::routing::Bounds { endpoint_outstanding_max: bound, ..Default::default() };
    PoolSettings { canary: Some(canary), bounds, ..quick() }
}

#[test]
fn a_retry_leaves_the_only_canary() {
    let mut scene = scene(two_sides(0), &["192.0.2.1:1 tags=new", "192.0.2.1:2"]);
    let (first, again) = (Ask { canary: true, ..Ask::default() }, Some::<usize>);
    let (seat, _) = scene.ask(first).unwrap();
    assert_eq!(seat, 0);
    let (seat, decision) = scene.ask(Ask { avoid: again(0), ..first }).unwrap();
    assert!(seat == 1 && decision.marks.has(Marks::CANARY.with(Marks::FALLBACK)));
    assert_eq!(scene.ask(Ask { avoid: again(1), ..first }).unwrap().0, 0);
    let (now, rng) = (scene.now, &mut scene.rng);
    let back = scene.pools[0].choose(now, Ask { avoid: again(0), ..first }, rng, |seat| seat == 0);
    assert_eq!(back.map(|(seat, _)| seat), Ok(0), "no room on the other side");
    assert!(scene.pools[0].has_another(now, 0) && scene.pools[0].has_another(now, 1));
    scene.pools[0].set_ready(now, 1, false);
    assert!(!scene.pools[0].has_another(now, 0) && scene.pools[0].has_another(now, 1));
}

#[test]
fn a_full_side_is_not_a_full_service() {
    let mut scene = scene(two_sides(1), &["192.0.2.1:1 tags=new", "192.0.2.1:2"]);
    let (ours, theirs) = (Ask { canary: true, ..Ask::default() }, Ask::default());
    scene.ask(ours).unwrap();
    scene.pools[0].started(0);
    assert_eq!(scene.ask(ours), Err(Miss::SideFull));
    assert_eq!(scene.ask(theirs).unwrap().0, 1);
    scene.pools[0].set_ready(scene.now, 1, false);
    assert_eq!(scene.ask(theirs), Err(Miss::NoRoom), "there is no other side any more");
}

#[test]
fn an_explanation_says_who_is_on_the_other_side() {
    let canary = CanarySettings { tag: "new".to_owned(), share: 0, roles: Vec::new(), hello: Vec::new() };
    let settings = PoolSettings { canary: Some(canary), balance: Balance::PeakEwma, ..quick() };
    let mut scene = scene(settings, &["192.0.2.1:1 tags=new", "192.0.2.1:2"]);
    let (ours, theirs) = (Ask { canary: true, ..Ask::default() }, Ask::default());
    let told = |scene: &Scene, ask| {
        let told = scene.pools[0].explain(scene.now, ask);
        told.endpoints.into_iter().map(|one| (one.usable, one.weight, one.notes)).collect::<Vec<_>>()
    };
    const UNKNOWN: &str = "how fast it is nobody knows yet";
    let note = |text: &str| vec![text.to_owned(), UNKNOWN.to_owned()];
    let plain = || (true, 100, vec![UNKNOWN.to_owned()]);
    let aside = |text: &str| (false, 0, note(text));
    // What rule chooses is said once, with the choice.
    assert_eq!(told(&scene, theirs), [aside("of the canary; this caller is not"), plain()]);
    let canary = (true, 100, vec![UNKNOWN.to_owned(), "canary".to_owned()]);
    assert_eq!(told(&scene, ours), [canary, aside("not of the canary; this caller is")]);
    scene.pools[0].set_ready(scene.now, 0, false);
    let fallback = told(&scene, ours);
    assert_eq!(fallback[0].2, ["no link", UNKNOWN, "canary"]);
    assert_eq!(fallback[1], plain(), "it takes the canary's calls");
    // Without a canary there are no sides.
    let scene = Scene::new(quick(), 1);
    assert_eq!(told(&scene, ours), [plain()]);
}

#[test]
fn a_caller_stays_where_it_is() {
    let settings = PoolSettings { balance: Balance::ConsistentHash, ..quick() };
    let mut scene = Scene::new(settings, 10);
    let ask = |key| Ask { key, ..Ask::default() };
    let homes: Vec<usize> = (0..1000).map(|key| scene.ask(ask(key)).unwrap().0).collect();
    scene.pools[0].set_ready(scene.now, 3, false);
    for (key, home) in homes.iter().enumerate() {
        let seat = scene.ask(ask(key as u64)).unwrap().0;
        assert!(seat == *home || *home == 3, "{key} moved for nothing");
    }
    scene.pools[0].set_ready(scene.now, 3, true);
    let back: Vec<usize> = (0..1000).map(|key| scene.ask(ask(key)).unwrap().0).collect();
    assert_eq!(back, homes);
}

proptest! {
    #[test]
    fn nobody_has_much_above_its_share(
        seed in any::<u64>(),
        weights in proptest::collection::vec(1u32..300, 1..20),
        keys in 1u64..50,
    ) {
        let list: Vec<Instance> = (1u16..)
            .zip(&weights)
            .map(|(port, weight)| Instance { weight: *weight, ..at(port) })
            .collect();
        let mut scene = Scene::of(PoolSettings { balance: Balance::ConsistentHash, ..quick() }, &list);
        let mut draw = Rng::new(seed);
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut out: Vec<u64> = vec![0; weights.len()];
        for _ in 0..500 {
            if draw.below(5) == 0 {
                let busy: Vec<usize> = (0..out.len()).filter(|seat| out[*seat] > 0).collect();
                if let Some(seat) = busy.get(draw.below(busy.len() as u64) as usize) {
                    out[*seat] -= 1;
                    scene.end(0, *seat, Verdict::Good);
                }
                continue;
            }
            let (seat, _) = scene.ask(Ask { key: draw.below(keys), ..Ask::default() }).unwrap();
            scene.pools[0].started(seat);
            out[seat] += 1;
            let all: u64 = out.iter().sum();
            let share = (all * u64::from(weights[seat]) * 5).div_ceil(total * 4);
            prop_assert!(out[seat] <= share, "{} of {all}, its share is {share}", out[seat]);
        }
    }

    /// Whatever happens, by whatever rule: who is chosen may be chosen, by a judge of its own.
    #[test]
    fn who_is_chosen_may_be(seed in any::<u64>(), rule in 0usize..6, bound in 0u32..4, all in 1u32..12) {
        let mut draw = Rng::new(seed);
        let bounds = crate::routing::Bounds {
            outstanding_max: all,
            endpoint_outstanding_max: bound,
            ..Default::default()
        };
        let settings = PoolSettings {
            balance: BALANCES[rule],
            bounds,
            prefer: (draw.below(2) == 0).then(|| Prefer::Zone("a".to_owned())),
            ..PoolSettings::default()
        };
        let mut scene = Scene::new(settings, 4);
        let mut ready = [true; 4];
        let mut down = [false; 4];
        let mut out: Vec<usize> = Vec::new();
        for _ in 0..300 {
            scene.after(ms(draw.below(100)));
            let seat = draw.below(4) as usize;
            match draw.below(8) {
                0 => {
                    ready[seat] = draw.below(3) > 0;
                    scene.pools[0].set_ready(scene.now, seat, ready[seat]);
                }
                1 => {
                    down[seat] = draw.below(3) == 0;
                    let state = if down[seat] { State::Down } else { State::Degraded };
                    scene.pools[0].set_view(seat, state, draw.below(12_000) as u32);
                }
                2 | 3 if !out.is_empty() => {
                    let seat = out.swap_remove(draw.below(out.len() as u64) as usize);
                    let verdicts = [Verdict::Good, Verdict::Good, Verdict::Failed, Verdict::Busy(5)];
                    scene.end(0, seat, verdicts[draw.below(4) as usize]);
                }
                _ => {
                    let has_room = draw.below(4) > 0;
                    let can = |seat: usize| ready[seat] && !down[seat];
                    let (now, key) = (scene.now, draw.next_u64());
                    let ask = Ask { key, avoid: (seat < 2).then_some(seat), ..Ask::default() };
                    let told = scene.pools[0].explain(now, ask);
                    match scene.pools[0].choose(now, ask, &mut scene.rng, |seat| has_room || seat == 0) {
                        Ok((seat, decision)) => {
                            prop_assert!(can(seat) && (has_room || seat == 0));
                            prop_assert!(out.len() < all as usize);
                            let own = out.iter().filter(|own| **own == seat).count();
                            prop_assert!(bound == 0 || own < bound as usize || decision.how == How::Probe);
                            prop_assert!(told.endpoints[seat].usable || decision.how == How::Probe);
                            scene.pools[0].started(seat);
                            out.push(seat);
                        }
                        Err(Miss::NoEndpoint) => prop_assert!((0..4).filter(|seat| can(*seat)).count() <= 2),
                        Err(Miss::SideFull) => prop_assert!(false, "there is one side"),
                        Err(Miss::NoRoom) => {
                            prop_assert!(!has_room || bound > 0 || out.len() >= all as usize);
                            prop_assert!(scene.pools[0].has_ready());
                        }
                    }
                }
            }
        }
    }
}
