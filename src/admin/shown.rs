//! What the operator is shown of endpoints, and of the ways that a call would go: gathered by the gateway, written here.

use crate::routing::{Calls, Fault};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// One endpoint of a service, as all workers see it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EndpointShown {
    /// Whose.
    pub service: String,
    /// The number that the gateway knows it by.
    pub id: u32,
    /// Where it listens.
    pub address: String,
    /// Its weight.
    pub weight: u32,
    /// Its zone; empty: not told.
    pub zone: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// `in`, `doubted` or `leaving`.
    pub standing: &'static str,
    /// Ready links, of all workers.
    pub links: u32,
    /// For how much longer it is ejected; `None`: it is not.
    pub ejected: Option<Duration>,
    /// The calls that it has had.
    pub calls: Calls,
    /// What each source says of it, as `consul: listed`.
    pub sources: Vec<String>,
}

/// Why a call would go where it would go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Explained {
    /// The route, as the metrics call it.
    pub route: String,
    /// What the route says of calls, in words.
    pub terms: Vec<String>,
    /// The service.
    pub service: String,
    /// Why a caller like this would get no further than the shard; `None`: they would.
    pub refused: Option<String>,
    /// The share of users that the canary gets, as `5%`; `None`: there is none.
    pub canary_share: Option<String>,
    /// What each worker would do.
    pub workers: Vec<WorkerShown>,
    /// Workers that did not answer in time.
    pub silent: Vec<u16>,
    /// The endpoints, as all workers see them.
    pub endpoints: Vec<EndpointShown>,
    /// What each source says of the service as a whole.
    pub sources: Vec<String>,
}

/// What one worker would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerShown {
    /// Its number.
    pub worker: u16,
    /// The address of the endpoint; or why there is none.
    pub chosen: Result<String, &'static str>,
    /// The decision, as the access log has it.
    pub why: String,
    /// Whether the caller goes to the canary.
    pub canary: bool,
    /// What is tried again, in words.
    pub retry: String,
    /// The endpoints as this worker sees them.
    pub candidates: Vec<CandidateShown>,
}

/// An endpoint, as one worker sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CandidateShown {
    /// Where it listens.
    pub address: String,
    /// Whether it could be chosen.
    pub usable: bool,
    /// Why not, or what is special.
    pub notes: Vec<String>,
    /// Calls that it has and has not answered, from this worker.
    pub outstanding: u32,
    /// Its part in the choice, in percent of its weight.
    pub weight_percent: u32,
    /// Its smoothed latency, in microseconds.
    pub latency_us: u32,
    /// What a call would cost, in microseconds.
    pub cost_us: u32,
}

impl EndpointShown {
    pub(super) fn json(&self) -> Value {
        // One that is ejected for another moment still is.
        let ejected_ms = self.ejected.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1));
        let failed = Fault::ALL.iter().zip(self.calls.failed);
        let failed: Map<String, Value> =
            failed.map(|((_, name), count)| ((*name).to_owned(), count.into())).collect();
        json!({
            "service": self.service, "id": self.id, "address": self.address, "weight": self.weight,
            "zone": self.zone, "tags": self.tags, "standing": self.standing, "links": self.links,
            "ejected_ms": ejected_ms, "calls": self.calls.sent, "failed": failed, "sources": self.sources,
        })
    }
}

impl Explained {
    pub(super) fn json(&self) -> Value {
        let workers: Vec<Value> = self.workers.iter().map(WorkerShown::json).collect();
        let endpoints: Vec<Value> = self.endpoints.iter().map(EndpointShown::json).collect();
        json!({
            "route": self.route, "terms": self.terms, "service": self.service, "refused": self.refused,
            "canary_share": self.canary_share, "workers": workers, "silent": self.silent,
            "endpoints": endpoints, "sources": self.sources,
        })
    }
}

impl WorkerShown {
    fn json(&self) -> Value {
        let candidates: Vec<Value> = self.candidates.iter().map(CandidateShown::json).collect();
        json!({
            "worker": self.worker, "chosen": self.chosen.as_ref().ok(), "none": self.chosen.as_ref().err(),
            "why": self.why, "canary": self.canary, "retry": self.retry, "candidates": candidates,
        })
    }
}

impl CandidateShown {
    fn json(&self) -> Value {
        json!({
            "address": self.address, "usable": self.usable, "notes": self.notes,
            "outstanding": self.outstanding, "weight_percent": self.weight_percent,
            "latency_us": self.latency_us,
            "cost_us": self.cost_us,
        })
    }
}
