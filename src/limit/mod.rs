//! Limits that all shards share.

mod address;

pub use address::AddressTable;
