//! What a call costs: `cargo test sizes -- --nocapture` shows the table.

use super::super::Timer;
use super::super::call::{Call, CallState};
use super::*;
use crate::base::sizes::{Bound, check, slab_entry_bytes};
use crate::base::wheel::Alarm;
use crate::forward::link::Link;
use crate::relay::Settled;

#[test]
fn sizes_of_a_worker_s_structures() {
    let world = World::new(1);
    let call_entry = slab_entry_bytes(&world.forwarder.calls);
    let bound = |name, bytes, bytes_max, why| Bound { name, bytes, bytes_max, why };
    check(
        "a worker",
        &[
            bound(
                "Call",
                size_of::<Call>(),
                128,
                "one for every request under way, with what was decided on it; moved without a call of memcpy",
            ),
            bound("its state", size_of::<CallState>(), 56, "what waits or is kept is boxed"),
            bound("its slab entry", call_entry, 132, "the tag of the slab hides in a niche"),
            bound("its alarm", size_of::<Alarm>(), 8, "one for every slot of the calls' slab"),
            bound(
                "its ticket",
                size_of::<Option<crate::base::ids::CallKey>>(),
                12,
                "one for every call of a shard",
            ),
            bound(
                "wheel entry",
                size_of::<(Timer, Mono)>(),
                24,
                "at most one for every slot: deadlines are lazy",
            ),
            bound("Settled", size_of::<Settled>(), 88, "moved once from worker to shard"),
            bound("Link", size_of::<Link>(), 352, "a few for every endpoint"),
        ],
    );
}
