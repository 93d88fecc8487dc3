//! The limits that all shards share: made from the settings, and shown to the operator.

use super::random_u64;
use super::state::State;
use crate::base::ids::RouteId;
use crate::base::route_counts::{RouteCounts, Why};
use crate::config::Settings;
use crate::limit::{Bans, Limits, Logins, Shared, SharedRoom};
use crate::reactor::descriptors;
use crate::telemetry::{Kind, Sample};
use std::io;
use std::sync::Arc;

/// Descriptors for what is opened now and then: logs, files that are read again.
const DESCRIPTORS_ASIDE: usize = 8;
/// For the operator's connections, and for those of the discovery of each service: watches, questions and probes.
const DESCRIPTORS_OF_ADMIN: usize = 8;
const DESCRIPTORS_OF_DISCOVERY: usize = 4;
/// For a link, its bulk link, and the end of one of each that is under way.
const DESCRIPTORS_OF_LINK: usize = 4;
/// Endpoints that a service which is discovered may turn out to have; with more, clients have a little less room.
const FOUND_ENDPOINTS: usize = 32;

/// Full buckets, nobody banned.
pub(super) fn shared(settings: &Settings) -> io::Result<Shared> {
    let (shards, workers) = settings.threads();
    let room = room(settings, usize::from(shards), usize::from(workers));
    Ok(Shared {
        requests: Arc::new(Limits::new(settings.limits.clone(), shards, random_u64()?)),
        bans: Arc::new(Bans::new(settings.bans.clone(), random_u64()?)),
        logins: Arc::new(Logins::new(settings.limits.logins, random_u64()?)),
        room: Arc::new(SharedRoom::new(room)),
    })
}

/// Connections of clients for which there are descriptors: beyond it none is accepted, so that a link that is lost can be
/// dialled again, and registries and the operator are answered, however many clients there are.
fn room(settings: &Settings, shards: usize, workers: usize) -> usize {
    let Some((max, open)) = descriptors() else { return usize::MAX };
    // A poll and a waker for each thread, a spare descriptor for each shard: they are opened later.
    let threads = shards.saturating_mul(3).saturating_add(workers.saturating_mul(2));
    room_of(max.saturating_sub(open).saturating_sub(threads), reserved(settings, workers))
}

/// Descriptors for what may be opened at any time.
fn reserved(settings: &Settings, workers: usize) -> usize {
    let named: usize = settings.services.iter().map(|service| service.endpoints.len()).sum();
    let found = settings.discovery.services.iter().filter(|service| service.is_found()).count();
    let endpoints = named.saturating_add(found.saturating_mul(FOUND_ENDPOINTS));
    let links = [usize::from(settings.forward.links_per_endpoint), workers, DESCRIPTORS_OF_LINK];
    let links = links.into_iter().fold(endpoints, usize::saturating_mul);
    let discovery = found.saturating_mul(DESCRIPTORS_OF_DISCOVERY);
    let admin = if settings.admin.is_some() { DESCRIPTORS_OF_ADMIN } else { 0 };
    [links, discovery, admin, DESCRIPTORS_ASIDE].into_iter().fold(0, usize::saturating_add)
}

/// Of `free` descriptors those for clients, when so many are to be reserved: clients have at least half.
fn room_of(free: usize, reserved: usize) -> usize {
    free.saturating_sub(reserved.min(free / 2))
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
        let Shared { requests, bans, room, .. } = &self.limits;
        let sample = |kind, metric, help, value| Sample { kind, metric, label: String::new(), help, value };
        let now = self.clock.read().mono;
        let banned = bans.list(now).len() as u64;
        let (revoked, revocations_given_up) = self.authority.revocations.counts();
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
                "Records of offences given up, or not made, because the table was full.",
                bans.given_up(),
            ),
            sample(Kind::Gauge, "moorgate_revocations", "Revocations of tokens and users in force.", revoked),
            sample(
                Kind::Counter,
                "moorgate_revocations_given_up_total",
                "Revocations given up before their end because the table was full.",
                revocations_given_up,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::path::Path;

    #[test]
    fn links_have_their_descriptors_and_clients_at_least_half() {
        assert_eq!([1_000, 40, 30, 1, 0].map(|free| room_of(free, 20)), [980, 20, 15, 1, 0]);
    }

    /// Each link with its bulk link, twice: one may end while the next is dialled.
    #[test]
    fn bulk_links_and_found_endpoints_have_descriptors() {
        let reserved = |service: &str| {
            let text = format!(
                "[links]\nper_endpoint = 2\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
                 [[route]]\ncommands = \"1\"\nservice = \"a\"\nanonymous = true\n\
                 [[service]]\nname = \"a\"\nwithout_proofs = true\n{service}\n"
            );
            let settings = config::parse("test.toml", &text, Path::new(""), &|_: &str| None).unwrap();
            super::reserved(&settings, 3)
        };
        let none = reserved("endpoints_file = \"none\"") - 32 * 2 * 3 * 4 - DESCRIPTORS_OF_DISCOVERY;
        assert_eq!(reserved("endpoints = [\"127.0.0.1:1\", \"127.0.0.1:2\"]"), none + 2 * 2 * 3 * 4);
    }
}
