//! The limits that all shards share: made from the settings, and shown to the operator.

use super::descriptors::Reservation;
use super::random_u64;
use super::state::{State, service_id};
use crate::base::ids::RouteId;
use crate::base::route_counts::{RouteCounts, Why};
use crate::config::Settings;
use crate::limit::{Bans, Limits, Logins, Shared, SharedRoom};
use crate::telemetry::{Kind, Sample};
use std::io;
use std::sync::Arc;

/// Full buckets, nobody banned.
pub(super) fn shared(settings: &Settings, reservation: &Reservation) -> io::Result<Shared> {
    let (shards, _) = settings.threads();
    Ok(Shared {
        requests: Arc::new(Limits::new(settings.limits.clone(), shards, random_u64()?)),
        bans: Arc::new(Bans::new(settings.bans.clone(), random_u64()?)),
        logins: Arc::new(Logins::new(settings.limits.logins, random_u64()?)),
        room: Arc::new(SharedRoom::new(reservation.room(|_| 0))),
    })
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
    /// Leaves room for links to all endpoints that are published now.
    pub(super) fn reserve_for_links(&self) {
        self.limits.room.set_max(self.reservation.room(|at| self.pools.members(service_id(at)).len()));
    }

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
    use crate::routing::Instance;

    /// A service that turns out to have many endpoints gets their descriptors from clients, not from other services.
    #[test]
    fn published_endpoints_take_room_from_clients() {
        let state = State::dev();
        state.reserve_for_links();
        let before = state.limits.room.room().max;
        let at = |port: u16| Instance::at(([127, 0, 0, 1], port).into());
        let list: Vec<Instance> = (1..=50).map(at).collect();
        state.pools.publish(service_id(0), &list);
        state.reserve_for_links();
        let room = state.limits.room.room().max;
        assert!(room < before && room >= before / 2, "{room} of {before}");
        state.pools.publish(service_id(0), &list[..1]);
        state.reserve_for_links();
        assert_eq!(state.limits.room.room().max, before, "and gives them back");
    }
}
