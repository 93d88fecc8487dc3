//! A pool as its user sees it. Properties draw the settings from the seed as well.

#![expect(clippy::cast_possible_truncation, reason = "small numbers, drawn below a bound")]

mod ejecting;
mod light;
mod loops;
mod sharing;

use super::*;
use crate::routing::{Ask, Balance, Decision, EjectionSettings, How, Instance, Marks, Miss, SlowStart};
use std::net::SocketAddr;

const SERVICE: ServiceId = ServiceId(0);

/// Two workers' pools of one service.
struct Scene {
    shared: Arc<Pools>,
    pools: [Pool; 2],
    rng: Rng,
    now: Mono,
}

fn at(port: u16) -> Instance {
    Instance::at(SocketAddr::from(([192, 0, 2, 1], port)))
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn quick() -> PoolSettings {
    PoolSettings {
        slow_start: SlowStart { time: Duration::ZERO, first_percent: 10 },
        ..PoolSettings::default()
    }
}

impl Scene {
    /// Endpoints with the ports from 1 on, all ready.
    fn new(settings: PoolSettings, endpoints: u16) -> Scene {
        Scene::of(settings, &(1..=endpoints).map(at).collect::<Vec<_>>())
    }

    fn of(settings: PoolSettings, instances: &[Instance]) -> Scene {
        let shared = Arc::new(Pools::new(1));
        let pool = || Pool::new(SERVICE, settings.clone(), shared.clone());
        let pools = [pool(), pool()];
        let mut scene = Scene { shared, pools, rng: Rng::new(7), now: Mono::ZERO + ms(1000) };
        scene.publish(instances);
        scene
    }

    /// Puts a list in force, and makes who is new ready.
    fn publish(&mut self, instances: &[Instance]) {
        self.shared.publish(SERVICE, instances);
        for pool in &mut self.pools {
            for change in pool.update(self.now) {
                match change {
                    Change::Joined(seat) => pool.set_ready(self.now, seat, true),
                    Change::Left(seat) => pool.remove(seat),
                }
            }
        }
    }

    fn after(&mut self, passed: Duration) -> &mut Scene {
        self.now = self.now + passed;
        self
    }

    fn ask(&mut self, ask: Ask) -> Result<(usize, Decision), Miss> {
        self.pools[0].choose(self.now, ask, &mut self.rng, |_| true)
    }

    /// One whole call of the first worker.
    fn call(&mut self, verdict: Verdict) -> (usize, Decision) {
        let (seat, decision) = self.ask(Ask::default()).unwrap();
        self.pools[0].started(seat);
        self.end(0, seat, verdict);
        (seat, decision)
    }

    /// One call of a worker to this seat, whoever would be chosen.
    fn call_to(&mut self, worker: usize, seat: usize, verdict: Verdict) {
        self.pools[worker].started(seat);
        self.end(worker, seat, verdict);
    }

    fn end(&mut self, worker: usize, seat: usize, verdict: Verdict) {
        let ended = Ended { seat, latency: ms(1), verdict, fault: None, origin: None };
        self.now = self.now + ms(1);
        self.pools[worker].finished(self.now, ended, &mut self.rng);
    }

    fn fail(&mut self, worker: usize, seat: usize, times: usize) {
        (0..times).for_each(|_| self.call_to(worker, seat, Verdict::Failed));
    }

    /// How often each of the first seats is chosen.
    fn counts(&mut self, asks: usize, ask: Ask) -> Vec<usize> {
        let mut counts = vec![0; self.pools[0].seats()];
        for _ in 0..asks {
            let (seat, _) = self.ask(ask).unwrap();
            counts[seat] += 1;
        }
        counts
    }
}

#[test]
fn nobody_and_no_room_are_told_apart() {
    let mut scene = Scene::new(quick(), 2);
    let bounds =
        crate::routing::Bounds { outstanding_max: 2, endpoint_outstanding_max: 1, ..Default::default() };
    let mut tight = Scene::new(PoolSettings { bounds, ..quick() }, 3);
    assert_eq!(
        scene.pools[0].choose(scene.now, Ask::default(), &mut scene.rng, |_| false),
        Err(Miss::NoRoom)
    );
    let (seat, decision) =
        scene.pools[0].choose(scene.now, Ask::default(), &mut scene.rng, |seat| seat == 1).unwrap();
    assert!(seat == 1 && decision.marks.has(Marks::FULL) && decision.candidates == 2);
    [0, 1].into_iter().for_each(|seat| scene.pools[0].set_ready(scene.now, seat, false));
    assert!(!scene.pools[0].has_ready());
    assert_eq!(scene.ask(Ask::default()), Err(Miss::NoEndpoint));

    let mut had = Vec::new();
    for _ in 0..2 {
        let (seat, _) = tight.ask(Ask::default()).unwrap();
        tight.pools[0].started(seat);
        had.push(seat);
    }
    assert_ne!(had[0], had[1], "one each");
    assert_eq!(tight.ask(Ask::default()), Err(Miss::NoRoom), "the service is at its bound");
    tight.end(0, had[0], Verdict::Good);
    assert_ne!(tight.ask(Ask::default()).unwrap().0, had[1]);
}

#[test]
fn an_adaptive_bound_is_obeyed_and_grows() {
    let adaptive = Some(crate::routing::AdaptiveSettings { outstanding_min: 2, outstanding_max: 4 });
    let bounds = crate::routing::Bounds { adaptive, ..Default::default() };
    let mut scene = Scene::new(PoolSettings { bounds, ..quick() }, 1);
    let room = |scene: &mut Scene| {
        let taken = (0..10).take_while(|_| {
            let chosen = scene.ask(Ask::default());
            chosen.iter().for_each(|(seat, _)| scene.pools[0].started(*seat));
            chosen.is_ok()
        });
        taken.count()
    };
    assert_eq!(room(&mut scene), 2);
    assert_eq!(scene.ask(Ask::default()), Err(Miss::NoRoom));
    (0..2).for_each(|_| scene.end(0, 0, Verdict::Good));
    for _ in 0..20 {
        let used = room(&mut scene);
        (0..used).for_each(|_| scene.end(0, 0, Verdict::Good));
    }
    assert_eq!(room(&mut scene), 4);
}

#[test]
fn another_endpoint_if_there_is_one() {
    for balance in BALANCES {
        let mut scene = Scene::new(PoolSettings { balance, ..quick() }, 3);
        for key in 0..100 {
            let (seat, _) = scene.ask(Ask { key, avoid: Some(1), ..Ask::default() }).unwrap();
            assert_ne!(seat, 1, "{balance:?}");
        }
        let mut one = Scene::new(PoolSettings { balance, ..quick() }, 1);
        let (seat, decision) = one.ask(Ask { avoid: Some(0), ..Ask::default() }).unwrap();
        assert_eq!((seat, decision.how), (0, How::Only));
    }
}

const BALANCES: [Balance; 6] = [
    Balance::RoundRobin,
    Balance::WeightedRoundRobin,
    Balance::Random,
    Balance::LeastOutstanding,
    Balance::PeakEwma,
    Balance::ConsistentHash,
];

#[test]
fn a_list_is_taken_in_by_difference() {
    let mut scene = Scene::new(quick(), 3);
    scene.pools[0].started(1);
    scene.shared.publish(SERVICE, &[at(3), at(2), at(4)]);
    let (now, pool) = (scene.now, &mut scene.pools[0]);
    assert_eq!(pool.update(now), [Change::Joined(3), Change::Left(0)]);
    assert_eq!(pool.update(now), []);
    pool.remove(0);
    scene.shared.publish(SERVICE, &[at(3), at(4), at(5)]);
    assert_eq!(pool.update(now), [Change::Joined(0), Change::Left(1)], "the free seat is taken");
    scene.shared.publish(SERVICE, &[at(3), at(4), at(5), at(2)]);
    assert_eq!(pool.update(now), [Change::Joined(1)], "back before it was gone");
    assert_eq!(pool.loads[1].outstanding, 1, "and its call is still counted");
}

#[test]
fn explaining_changes_nothing() {
    for balance in BALANCES {
        let mut scene = Scene::new(PoolSettings { balance, ..PoolSettings::default() }, 4);
        scene.publish(&[at(1), at(2), at(3), at(4), at(5)]);
        scene.fail(0, 2, 5);
        scene.pools[0].set_view(1, service_view::State::Draining, 0);
        scene.after(ms(1600));
        scene.pools[0].tick(scene.now);
        let before = format!("{:?}", scene.pools[0]);
        let told = scene.pools[0].explain(scene.now, Ask::default());
        assert_eq!(format!("{:?}", scene.pools[0]), before);
        let tried = told.chosen.unwrap();
        assert_eq!(
            (tried.0, tried.1.how),
            (scene.pools[0].id(2), How::Probe),
            "it says so, and does not do it"
        );
        assert_eq!(
            scene.ask(Ask::default()).map(|(seat, decision)| (seat, decision.how)),
            Ok((2, How::Probe))
        );
        scene.pools[0].started(2);
        let told = scene.pools[0].explain(scene.now, Ask::default());
        let (chosen, decision) = told.chosen.unwrap();
        assert!(
            told.endpoints.iter().any(|endpoint| endpoint.id == chosen && endpoint.usable),
            "{balance:?}"
        );
        assert_eq!((decision.ejected, decision.candidates), (1, 3));
        let notes: Vec<String> = told.endpoints.iter().map(|endpoint| endpoint.notes.join("; ")).collect();
        assert!(notes[1].contains("draining") && notes[2].contains("half open"), "{notes:?}");
        assert!(notes[4].contains("slow start 1"), "{notes:?}");
        if balance == Balance::PeakEwma {
            let usable = told.endpoints.iter().filter(|endpoint| endpoint.usable);
            assert_eq!(usable.map(|endpoint| endpoint.cost_us).min(), Some(decision.cost_us));
        }
    }
}
