//! Who may do how much: limits that all shards share. Pure: time comes in, and nothing is waited for.
//!
//! | file | what it is for |
//! | --- | --- |
//! | `rate`, `gcra`, `token_bucket` | how often something may happen |
//! | `roster`, `keyed` | an account for each user, client address and application that is busy |
//! | `share`, `shares`, `requests`, `shared` | the limits of requests, as a shard applies them |
//! | `address` | connections at once from one address |
//! | `reserve` | who still gets in when room runs out |
//! | `logins` | access tokens given to one user |
//! | `log_lines` | log lines that clients can cause |
//! | `bans` | bans for violations and by an operator |

mod address;
mod bans;
mod gcra;
mod keyed;
mod log_lines;
mod logins;
mod rate;
mod requests;
mod reserve;
mod roster;
mod settings;
mod share;
mod shared;
mod shares;
#[cfg(test)]
mod tests;
mod token_bucket;
mod user;

pub use address::{AddressTable, network};
pub use bans::{Ban, BanSettings, Bans, OPERATOR_BANS_MAX, Offence, Sentence, Subject};
pub use gcra::{AtomicGcra, Gcra};
pub use keyed::{Account, Keyed, Outstanding};
pub use log_lines::{LeftOut, LogLine, LogLines};
pub use logins::Logins;
pub use rate::Rate;
pub use requests::{Asker, Charge, Limit, Limits, Refusal, ShardLimits, Standing};
pub use reserve::{Reserve, Room, SharedRoom};
pub use settings::{OwnerSettings, Settings};
pub use shared::Shared;
pub use token_bucket::TokenBucket;
pub use user::User;
