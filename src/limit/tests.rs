//! What the limits promise, held against models that are as simple as they can be.

mod bans;
mod buckets;
mod keyed;
mod model;
mod shares;
mod sizes;

use super::Rate;
use moorgate_proto::time::Mono;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// A moment that is not the origin.
fn noon() -> Mono {
    Mono::ZERO + 12 * 3600 * SECOND
}

fn per_second(count: u32, burst: u32) -> Rate {
    Rate::new(count, SECOND, burst).unwrap()
}
