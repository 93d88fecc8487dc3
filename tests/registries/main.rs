//! Discovery as a whole, against real registries and name servers that the tests start, with real listeners as endpoints.
//!
//! Needs (packages, for `run` beside this file and for CI): `dnsmasq-base` for DNS, and Consul, which `MOORGATE_CONSUL`
//! names or the PATH has. What is missing is told loudly and left out; `MOORGATE_REQUIRE=consul,dnsmasq` makes it a failure.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

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
mod programs;
