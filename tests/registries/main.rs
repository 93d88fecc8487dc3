//! Discovery as a whole, against real registries and name servers that the tests start, with real listeners as endpoints.
//!
//! `run` beside this file gets what they need: `dnsmasq` (package dnsmasq-base), Consul, which `MOORGATE_CONSUL` names or
//! the PATH has, and rnacos in the same way. What is missing is told loudly and left out; `MOORGATE_REQUIRE=consul,dnsmasq`
//! makes it a failure.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[cfg(test)]
#[path = "../../tools/registry/tests/programs/mod.rs"]
mod asked;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod consul;
#[cfg(test)]
mod dns;
#[cfg(test)]
mod file;
#[cfg(test)]
mod gateway;
#[cfg(test)]
mod nacos;
#[cfg(test)]
mod programs;
