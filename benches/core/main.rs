//! Micro benchmarks of the cores: `cargo bench --bench core`. Below the times stands what one iteration allocates.
//!
//! | module | what one iteration does |
//! | --- | --- |
//! | [`codec`] | writes or cuts one frame with a request |
//! | [`token`] | checks one access token of about 300 bytes |
//! | [`shard`] | takes requests both ways through session and shard, the worker's part left out |
//! | [`forwarder`] | takes calls both ways through a worker |
//! | [`whole`] | takes requests both ways through shard and worker |
//! | [`wheel`] | arms timers and lets them ring |
//! | [`choices`] | finds a route |
//! | [`pools`] | chooses an endpoint, takes in a publication |
//!
//! Where a turn has several requests, `items/s` counts them one by one.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark: what panics has failed")]

mod choices;
mod codec;
mod forwarder;
mod pools;
mod shard;
mod token;
mod wheel;
mod whole;

use moorgate::base::clock::Now;
use moorgate_proto::time::Mono;
use std::time::Duration;

#[global_allocator]
static ALLOCATIONS: divan::AllocProfiler = divan::AllocProfiler::system();

/// Bytes of a typical chat message.
const PAYLOAD: [u8; 64] = [7; 64];
const UNIX_S: u64 = 1_800_000_000;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// The time of everything here: it stands still.
fn now() -> Now {
    Now { mono: Mono::ZERO + Duration::from_secs(1), unix_ms: UNIX_S * 1000 }
}

fn main() {
    divan::main();
}
