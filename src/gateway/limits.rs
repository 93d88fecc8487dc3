//! The limits that all shards share: made from the settings, and shown to the operator.

use super::random_u64;
use super::state::State;
use crate::base::ids::RouteId;
use crate::base::route_counts::{RouteCounts, Why};
use crate::config::Settings;
use crate::limit::{Bans, Limits, Shared, SharedRoom};
use crate::reactor::descriptors;
use crate::telemetry::{Kind, Sample};
use std::io;
use std::sync::Arc;

/// Descriptors for what is opened now and then: a log, a page of the operator's, the spare ones of the shards.
const DESCRIPTORS_ASIDE: usize = 32;
/// Endpoints that a service which is discovered may turn out to have; with more, clients have a little less room.
const FOUND_ENDPOINTS: usize = 32;
/// The part of all descriptors that this is at the most.
const ASIDE_PART: usize = 64;

/// Full buckets, nobody banned.
pub(super) fn shared(settings: &Settings) -> io::Result<Shared> {
    let (shards, workers) = settings.threads();
    let room = room(settings, usize::from(shards), usize::from(workers));
    Ok(Shared {
        requests: Arc::new(Limits::new(settings.limits.clone(), shards, random_u64()?)),
        bans: Arc::new(Bans::new(settings.bans.clone(), random_u64()?)),
        room: Arc::new(SharedRoom::new(room)),
    })
}

/// Connections of clients for which there are descriptors.
fn room(settings: &Settings, shards: usize, workers: usize) -> usize {
    let Some((max, open)) = descriptors() else { return usize::MAX };
    // A poll and a waker for each thread, a spare descriptor for each shard: they are opened later.
    let threads = shards.saturating_mul(3).saturating_add(workers.saturating_mul(2));
    let named: usize = settings.services.iter().map(|service| service.endpoints.len()).sum();
    let found = settings.discovery.services.iter().filter(|service| service.is_found()).count();
    let endpoints = named.saturating_add(found.saturating_mul(FOUND_ENDPOINTS));
    let links =
        endpoints.saturating_mul(usize::from(settings.forward.links_per_endpoint)).saturating_mul(workers);
    let aside = DESCRIPTORS_ASIDE.min(max / ASIDE_PART);
    [open, threads, links, aside].into_iter().fold(max, usize::saturating_sub)
}

/// How the metrics call each route, by its id.
pub(super) fn route_names(settings: &Settings) -> Vec<String> {
    let routes = (0u16..).map_while(|id| settings.routes.route(RouteId(id)));
    routes
        .map(|route| match (route.versions.first, route.versions.last) {
            (1, 1) => route.commands.to_string(),
            (first, last) if first == last => format!("{} v{first}", route.commands),
            (first, last) => format!("{} v{first}-{last}", route.commands),
        })
        .collect()
}

impl State {
    /// What the threads' counters do not have.
    pub(super) fn limit_samples(&self) -> Vec<Sample> {
        let Shared { requests, bans, room } = &self.limits;
        let sample = |kind, metric, help, value| Sample { kind, metric, label: String::new(), help, value };
        let now = self.clock.read().mono;
        let banned = bans.list(now).len() as u64;
        let mut samples = vec![
            sample(
                Kind::Gauge,
                "moorgate_connections_room",
                "Connections for which there are descriptors.",
                room.room().max as u64,
            ),
            sample(
                Kind::Gauge,
                "moorgate_limit_accounts",
                "Users, addresses and applications whose requests are counted now.",
                requests.accounts() as u64,
            ),
            sample(
                Kind::Counter,
                "moorgate_limit_uncounted_total",
                "Times somebody went without limits since too many were counted.",
                requests.uncounted(),
            ),
            sample(Kind::Gauge, "moorgate_bans", "Addresses and users that are banned now.", banned),
            sample(Kind::Counter, "moorgate_bans_given_total", "Bans given for offences.", bans.given()),
            sample(
                Kind::Counter,
                "moorgate_offences_unrecorded_total",
                "Offences not counted since too many were watched.",
                bans.unrecorded(),
            ),
        ];
        for (id, name) in (0u16..).zip(&self.routes) {
            for why in Why::ALL {
                let counts = self.cells.iter().map(|cells| &cells.routes);
                let value = RouteCounts::sum(counts, RouteId(id), why);
                // Most routes never refuse for most reasons: the page has what there was.
                if value > 0 {
                    samples.push(Sample {
                        kind: Kind::Counter,
                        metric: "moorgate_route_refused_total",
                        label: format!("route=\"{name}\",why=\"{}\"", why.name()),
                        help: "Requests refused before they were handed to a worker, by their route.",
                        value,
                    });
                }
            }
        }
        samples
    }
}
