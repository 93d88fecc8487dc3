//! Descriptors that clients leave to links, discovery and the operator.

use crate::config::Settings;
use crate::reactor::descriptors;

/// Descriptors for what is opened now and then: logs, files that are read again.
const DESCRIPTORS_ASIDE: usize = 8;
/// For the operator's connections, and for those of the discovery of each service: watches, questions and probes.
const DESCRIPTORS_OF_ADMIN: usize = 8;
const DESCRIPTORS_OF_DISCOVERY: usize = 4;
/// For a link, its bulk link, and the end of one of each that is under way.
const DESCRIPTORS_OF_LINK: usize = 4;
/// Endpoints for which a service which is discovered has descriptors from the start.
const FOUND_ENDPOINTS: usize = 32;

/// Descriptors that clients leave to others: beyond them no connection is accepted, so that a link that is lost can be
/// dialled again, and registries and the operator are answered, however many clients there are.
#[derive(Debug)]
pub(super) struct Reservation {
    /// Descriptors that were free at the start; `None`: the system does not say.
    free: Option<usize>,
    /// Endpoints of each service, by its id, as many as it may have from the start.
    endpoints: Vec<usize>,
    /// Descriptors of one endpoint.
    of_endpoint: usize,
    /// Descriptors of everything that is no link.
    others: usize,
}

impl Reservation {
    /// Before the threads run, whose descriptors are opened later.
    pub(super) fn new(settings: &Settings) -> Reservation {
        let (shards, workers) = settings.threads();
        let (shards, workers) = (usize::from(shards), usize::from(workers));
        // A poll and a waker for each thread, a spare descriptor for each shard.
        let threads = shards.saturating_mul(3).saturating_add(workers.saturating_mul(2));
        let free = descriptors().map(|(max, open)| max.saturating_sub(open).saturating_sub(threads));
        let mut endpoints: Vec<usize> =
            settings.services.iter().map(|service| service.endpoints.len()).collect();
        let found = settings.discovery.services.iter().filter(|service| service.is_found());
        for service in found.clone() {
            if let Some(endpoints) = endpoints.get_mut(service.service.index()) {
                *endpoints = endpoints.saturating_add(FOUND_ENDPOINTS);
            }
        }
        let links = [usize::from(settings.forward.links_per_endpoint), workers];
        let of_endpoint = links.into_iter().fold(DESCRIPTORS_OF_LINK, usize::saturating_mul);
        let discovery = found.count().saturating_mul(DESCRIPTORS_OF_DISCOVERY);
        let admin = if settings.admin.is_some() { DESCRIPTORS_OF_ADMIN } else { 0 };
        let others = discovery.saturating_add(admin).saturating_add(DESCRIPTORS_ASIDE);
        Reservation { free, endpoints, of_endpoint, others }
    }

    /// Descriptors for what may be opened at any time, when so many endpoints of each service are `published`.
    fn reserved(&self, published: impl Fn(usize) -> usize) -> usize {
        let endpoints = self.endpoints.iter().enumerate().map(|(at, least)| published(at).max(*least));
        endpoints.fold(0, usize::saturating_add).saturating_mul(self.of_endpoint).saturating_add(self.others)
    }

    /// Connections of clients for which there are descriptors.
    pub(super) fn room(&self, published: impl Fn(usize) -> usize) -> usize {
        self.free.map_or(usize::MAX, |free| room_of(free, self.reserved(published)))
    }
}

/// Of `free` descriptors those for clients, when so many are to be reserved: clients have at least half.
fn room_of(free: usize, reserved: usize) -> usize {
    free.saturating_sub(reserved.min(free / 2))
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
                "[gateway]\nshards = 3\nworkers = 3\n[links]\nper_endpoint = 2\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
                 [[route]]\ncommands = \"1\"\nservice = \"a\"\nanonymous = true\n\
                 [[service]]\nname = \"a\"\nwithout_proofs = true\n{service}\n"
            );
            let settings = config::parse("test.toml", &text, Path::new(""), &|_: &str| None).unwrap();
            let reservation = Reservation::new(&settings);
            [0, 32, 100].map(|published| reservation.reserved(|_| published))
        };
        let one = 2 * 3 * 4;
        let [found, still, more] = reserved("endpoints_file = \"none\"");
        let none = found - 32 * one - DESCRIPTORS_OF_DISCOVERY;
        assert_eq!((still, more), (found, found + 68 * one), "as many as are published");
        assert_eq!(reserved("endpoints = [\"127.0.0.1:1\", \"127.0.0.1:2\"]")[0], none + 2 * one);
    }
}
