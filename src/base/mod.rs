//! What everything else stands on: ids, slabs with generations, time, the timer wheel, counters, text,
//! and the mailbox between threads. Nothing here knows the protocol; only `clock` touches the world.

pub mod bell;
pub mod clock;
pub mod counters;
pub mod ids;
pub mod mailbox;
pub mod output;
pub mod pulse;
pub mod rng;
pub mod route_counts;
pub mod seat;
pub mod share;
#[cfg(test)]
pub(crate) mod sizes;
pub mod slab;
pub mod sync;
pub mod text;
pub mod wheel;
