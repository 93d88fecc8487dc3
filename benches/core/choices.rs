//! Which route.

use divan::{Bencher, black_box};
use moorgate::base::ids::ServiceId;
use moorgate::base::rng::Rng;
use moorgate::routing::{RouteSettings, RouteTable, Span};

#[divan::bench(args = [1, 10_000])]
fn route(bencher: Bencher<'_, '_>, routes: u32) {
    let one = |at: u32| RouteSettings::new(Span { first: 4 * at, last: 4 * at + 3 }, ServiceId(0));
    let settings: Vec<RouteSettings> = (0..routes).map(one).collect();
    let table = RouteTable::build(&settings).unwrap();
    // As many commands as fit a cache, in no order.
    let mut rng = Rng::new(1);
    let command = |_| u32::try_from(rng.below(u64::from(4 * routes))).unwrap();
    let commands: Vec<u32> = (0..1024).map(command).collect();
    let mut at = 0;
    bencher.bench_local(|| {
        at = (at + 1) % commands.len();
        table.find(black_box(commands[at]), 1).unwrap().id
    });
}
