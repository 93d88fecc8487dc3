//! Whole gateways over real sockets: bad input, services that misbehave, listeners, descriptors, the end.
//!
//! Most tests start a gateway in this process ([`site`]) and speak to it byte by byte ([`wire`]), as a client or, by
//! hand, as a service ([`link`]); those about signals and descriptors run the binary ([`child`]).

#[cfg(test)]
mod bulk;
#[cfg(test)]
mod child;
#[cfg(test)]
mod link;
#[cfg(test)]
#[path = "../loopback/mod.rs"]
mod loopback;
#[cfg(test)]
mod site;
#[cfg(test)]
mod token;
#[cfg(test)]
mod wire;

#[cfg(test)]
mod abuse;
#[cfg(test)]
mod confirming;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod devices;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod exhaustion;
#[cfg(test)]
mod framing;
#[cfg(test)]
mod governance;
#[cfg(test)]
mod identity;
#[cfg(test)]
mod kit;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod linking;
#[cfg(test)]
mod listeners;
#[cfg(test)]
mod opening;
#[cfg(test)]
mod operator;
#[cfg(test)]
mod outputs;
#[cfg(test)]
mod pauses;
#[cfg(test)]
mod presence;
#[cfg(test)]
mod process;
#[cfg(test)]
mod pushes;
#[cfg(test)]
mod resume;
#[cfg(test)]
mod routes;
#[cfg(test)]
mod services;
#[cfg(test)]
mod signals;
#[cfg(test)]
mod states;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod visits;
#[cfg(test)]
mod waiting;
