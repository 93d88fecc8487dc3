//! A worker's pool: a choice by each rule, what it pays to notice a publication, and what a publication costs.

use divan::{Bencher, black_box};
use moorgate::base::ids::ServiceId;
use moorgate::base::rng::Rng;
use moorgate::routing::{Ask, Balance, Change, Ended, Instance, Pool, PoolSettings, Pools, Verdict};
use moorgate_proto::time::Mono;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const SERVICE: ServiceId = ServiceId(0);
const ENDPOINTS: [u16; 4] = [1, 10, 100, 1000];

fn instances(endpoints: u16) -> Vec<Instance> {
    (1..=endpoints).map(|port| Instance::at(SocketAddr::from(([192, 0, 2, 1], port)))).collect()
}

/// A pool in use: every endpoint has answered, most have calls outstanding.
fn pool(balance: Balance, instances: &[Instance]) -> (Arc<Pools>, Pool, Mono, Rng) {
    let shared = Arc::new(Pools::new(1));
    shared.publish(SERVICE, instances);
    let mut pool = Pool::new(SERVICE, PoolSettings { balance, ..PoolSettings::default() }, shared.clone());
    let now = Mono::ZERO + Duration::from_secs(100);
    let mut rng = Rng::new(1);
    for change in pool.update(now) {
        let Change::Joined(seat) = change else { continue };
        pool.set_ready(now, seat, true);
        for _ in 0..1 + rng.below(10) {
            pool.started(seat);
        }
        let latency = Duration::from_micros(500 + rng.below(1000));
        pool.finished(
            now,
            Ended { seat, latency, verdict: Verdict::Good, fault: None, origin: None },
            &mut rng,
        );
    }
    pool.tick(now);
    (shared, pool, now + Duration::from_millis(3), rng)
}

fn choose(bencher: Bencher<'_, '_>, balance: Balance, instances: &[Instance]) {
    let (shared, mut pool, now, mut rng) = pool(balance, instances);
    let seen = shared.version();
    let mut key = 0u64;
    bencher.bench_local(|| {
        key = key.wrapping_add(1);
        // What a worker does each turn to notice a publication.
        assert_eq!(black_box(&shared).version(), seen);
        pool.choose(now, Ask { key, ..Ask::default() }, &mut rng, |_| true).unwrap()
    });
}

macro_rules! rules {
    ($($name:ident $balance:ident;)*) => {
        $(#[divan::bench(args = ENDPOINTS)]
        fn $name(bencher: Bencher<'_, '_>, endpoints: u16) {
            choose(bencher, Balance::$balance, &instances(endpoints));
        })*
    };
}

rules! {
    choose_round_robin RoundRobin;
    choose_weighted_round_robin WeightedRoundRobin;
    choose_random Random;
    choose_least_outstanding LeastOutstanding;
    choose_peak_ewma PeakEwma;
    choose_consistent_hash ConsistentHash;
}

/// Every endpoint has another weight.
#[divan::bench(args = ENDPOINTS)]
fn choose_peak_ewma_by_weight(bencher: Bencher<'_, '_>, endpoints: u16) {
    let mut instances = instances(endpoints);
    (50..).zip(&mut instances).for_each(|(weight, instance)| instance.weight = weight);
    choose(bencher, Balance::PeakEwma, &instances);
}

/// A call from its choice to its end.
#[divan::bench(args = [Balance::PeakEwma, Balance::LeastOutstanding])]
fn choose_start_finish(bencher: Bencher<'_, '_>, balance: Balance) {
    let (_shared, mut pool, now, mut rng) = pool(balance, &instances(100));
    bencher.bench_local(|| {
        let (seat, _) = pool.choose(now, Ask::default(), &mut rng, |_| true).unwrap();
        pool.started(seat);
        let ended = Ended {
            seat,
            latency: Duration::from_millis(1),
            verdict: Verdict::Good,
            fault: None,
            origin: None,
        };
        pool.finished(now, ended, &mut rng);
    });
}

/// A worker takes in a publication in which one of a hundred endpoints is another one, and chooses.
#[divan::bench(args = [Balance::PeakEwma, Balance::ConsistentHash])]
fn update_one_of_100(bencher: Bencher<'_, '_>, balance: Balance) {
    let (shared, mut pool, now, mut rng) = pool(balance, &instances(100));
    let mut lists = [instances(101), instances(101)];
    lists[0].remove(3);
    lists[1].remove(4);
    let mut at = 0;
    bencher
        .with_inputs(|| {
            at = (at + 1) % lists.len();
            shared.publish(SERVICE, &lists[at]);
        })
        .bench_local_values(|()| {
            for change in pool.update(now) {
                match change {
                    Change::Joined(seat) => pool.set_ready(now, seat, true),
                    Change::Left(seat) => pool.remove(seat),
                }
            }
            pool.choose(now, Ask::default(), &mut rng, |_| true).unwrap()
        });
}

/// What the thread pays that publishes.
#[divan::bench]
fn publish_100(bencher: Bencher<'_, '_>) {
    let shared = Pools::new(1);
    let list = instances(100);
    bencher.bench_local(|| shared.publish(SERVICE, black_box(&list)));
}
