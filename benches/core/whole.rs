//! The whole way of a request, through both cores.

use crate::forwarder::Mill;
use crate::now;
use crate::shard::{House, flush};
use divan::Bencher;
use divan::counter::ItemsCount;

/// Decoded, admitted, routed, an endpoint chosen, encoded; replied, settled, numbered, encoded. The client's and the
/// service's parts are within.
#[divan::bench(args = [(64, 1), (64, 32), (15_000, 32), (15_000, 256)])]
fn request(bencher: Bencher<'_, '_>, (sessions, turn): (usize, usize)) {
    let (mut house, mut mill) = (House::new(sessions), Mill::new(4));
    bencher.counter(ItemsCount::new(turn)).bench_local(|| {
        for _ in 0..turn {
            house.request();
        }
        let batch = house.shard.forwards().unwrap();
        let settled = mill.turn(&batch);
        house.shard.delivered(now(), settled);
        assert_eq!(house.shard.outstanding(), 0);
        flush(&mut house.shard)
    });
}
