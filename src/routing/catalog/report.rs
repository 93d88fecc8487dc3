//! How a catalog stands, for metrics and for whoever asks.

use super::said::{Said, State};
use super::{Catalog, Source, Sources};
use crate::base::clock::Now;
use crate::routing::Instance;
use std::time::Duration;

/// How one service's endpoints stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogReport {
    /// In the order of precedence.
    pub sources: Vec<SourceReport>,
    /// What is published, by address.
    pub endpoints: Vec<EndpointReport>,
    /// Listed and not published: they are too many.
    pub left_out: usize,
}

/// How one source stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceReport {
    /// Which.
    pub source: Source,
    /// Whether its last answer was a list.
    pub is_up: bool,
    /// Endpoints in its last list.
    pub endpoints: usize,
    /// Elements of its last list that are left out, because they are not usable.
    pub rejected: usize,
    /// Endpoints that it does not list any more and that are kept, because they answer.
    pub held: usize,
    /// Since its last list; `None`: it never gave one.
    pub age: Option<Duration>,
    /// Why its last answer was no list.
    pub error: Option<String>,
}

/// How one endpoint stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointReport {
    /// As it is published.
    pub instance: Instance,
    /// Who lists it; who did, if it is held.
    pub sources: Sources,
    /// Since when it is kept as it was though nobody lists it, or not for calls.
    pub held: Option<Duration>,
    /// Whether it answers; `None`: it is not known yet.
    pub answers: Option<bool>,
}

impl Catalog {
    /// How it all stands.
    pub fn report(&self, now: Now) -> CatalogReport {
        let sources = self.said.iter().map(|said| self.source_report(now, said)).collect();
        let endpoints = self.published.values().map(|instance| {
            let held = self.held.get(&instance.address);
            let listing = self.listed.get(&instance.address);
            EndpointReport {
                instance: instance.clone(),
                sources: held
                    .map(|held| held.by)
                    .or(listing.map(|listing| listing.by))
                    .unwrap_or(Sources::NONE),
                held: held.map(|held| now.mono.since(held.since)),
                answers: self.health.get(&instance.address).and_then(|health| health.view()),
            }
        });
        CatalogReport { sources, endpoints: endpoints.collect(), left_out: self.over }
    }

    fn source_report(&self, now: Now, said: &Said) -> SourceReport {
        let age = match (said.heard, said.heard_unix_ms) {
            (Some(heard), _) => Some(now.mono.since(heard)),
            (None, 0) => None,
            (None, unix_ms) => Some(Duration::from_millis(now.unix_ms.saturating_sub(unix_ms))),
        };
        SourceReport {
            source: said.source,
            is_up: said.is_up(),
            endpoints: said.list.len(),
            rejected: said.rejected.count(),
            held: self.held.values().filter(|held| held.by.contains(said.source)).count(),
            age,
            error: match &said.state {
                State::Down(error) => Some(error.clone()),
                State::Up | State::Awaited => None,
            },
        }
    }
}
