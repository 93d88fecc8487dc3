//! What the limits cost: `cargo test sizes -- --nocapture` shows the table.

use crate::base::sizes::{Bound, check};
use crate::limit::requests::Charge;
use crate::limit::share::{Purse, Share};
use crate::limit::{Account, Gcra, Standing, Subject, TokenBucket, User};
use std::sync::Arc;

/// What the allocator adds to each allocation of its own, and the two counts of what is shared.
const SHARED: usize = 16 + 2 * size_of::<usize>();
/// A hash table keeps an eighth of its places free, and is half empty just after it has grown.
const HASH: usize = 2;

#[test]
fn sizes_of_what_limits_keep() {
    let user = SHARED + size_of::<User>();
    let account = SHARED + size_of::<Account>();
    // Key and place, and the list with its room to grow.
    let table = HASH * (size_of::<(Arc<User>, u32)>() + 1) + 2 * size_of::<(Arc<User>, Arc<Account>)>();
    let share =
        size_of::<Share<Arc<User>>>() + size_of::<Purse>() + HASH * (size_of::<(Arc<User>, u32)>() + 1);
    let bound = |name, bytes, bytes_max, why| Bound { name, bytes, bytes_max, why };
    check(
        "limits",
        &[
            bound("Gcra", size_of::<Gcra>(), 8, "frames: one for every connection"),
            bound("Standing", size_of::<Standing>(), 24, "one for every session, idle or not"),
            bound("Charge", size_of::<Charge>(), 12, "one for every request under way"),
            bound("TokenBucket", size_of::<TokenBucket>(), 32, "one for every listener of a shard"),
            bound("Account of a busy user", user + account + table, 200, "an idle user has none"),
            bound("Purse", size_of::<Purse>(), 16, "what a request touches of an owner"),
            bound(
                "Share of a user, its purse and place",
                share,
                80,
                "one for each shard where the user is busy",
            ),
            bound("Subject", size_of::<Subject>(), 24, "one for everybody who is watched or banned"),
        ],
    );
}
