//! The endpoints of every service as they stand: published by whoever discovers them, read by every worker, shared by
//! all threads. A reader looks at one number to see whether there is something new.

use super::ejection::{NotEjected, Places};
use super::{EndpointId, Instance, Member, ServiceSettings, Vitals};
use crate::base::ids::ServiceId;
use moorgate_proto::time::Mono;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Endpoints of one service that are remembered after they have left, with their ids and what is known of them.
const GONE_MAX: usize = 1024;

/// The endpoints of one service as one publication has them.
pub type Members = Arc<[Member]>;

/// All services' endpoints.
#[derive(Debug, Default)]
pub struct Pools {
    /// Rises with every publication.
    version: AtomicU64,
    services: Vec<Cell>,
    book: Mutex<Book>,
}

/// What is published of one service.
#[derive(Debug, Default)]
struct Cell {
    members: Mutex<Members>,
    /// Of the endpoints that are ejected at the moment.
    places: Places,
    /// The share of users that the canary gets, in hundredths of a percent.
    canary_share: AtomicU32,
    /// What was decided so far, by [`Decided`].
    decided: [AtomicU64; Decided::ALL.len()],
}

/// What is decided of a service's endpoints by all workers together, and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decided {
    /// An endpoint was ejected.
    Ejected,
    /// It was to be, and as many as may be were ejected already.
    Spared,
    /// Its probe failed.
    Prolonged,
    /// It is back.
    Readmitted,
    /// A call found every endpoint at its bound, where bounds follow the latency.
    Bounded,
}

impl Decided {
    /// All of them, with their names among the metrics.
    pub const ALL: [(Decided, &'static str); 5] = [
        (Decided::Ejected, "ejected"),
        (Decided::Spared, "spared"),
        (Decided::Prolonged, "prolonged"),
        (Decided::Readmitted, "readmitted"),
        (Decided::Bounded, "bounded"),
    ];
}

/// Who has which id.
#[derive(Debug, Default)]
struct Book {
    last: u32,
    known: HashMap<(ServiceId, SocketAddr), (EndpointId, Arc<Vitals>)>,
    addresses: HashMap<EndpointId, (ServiceId, SocketAddr)>,
    /// Those that left, longest ago first; some of them may have come back.
    gone: VecDeque<(ServiceId, SocketAddr)>,
}

impl Pools {
    /// Pools of this many services, all of them empty.
    pub fn new(services: usize) -> Pools {
        Pools { services: (0..services).map(|_| Cell::default()).collect(), ..Pools::default() }
    }

    /// Pools of these services, with the endpoints that the configuration names.
    pub fn of(services: &[ServiceSettings]) -> Pools {
        let pools = Pools::new(services.len());
        for (id, service) in (0u16..).map(ServiceId).zip(services) {
            pools.publish(id, &service.endpoints);
            pools.set_canary_share(id, service.pool.canary.as_ref().map_or(0, |canary| canary.share));
        }
        pools
    }

    /// Puts a list in force. An endpoint that was known before keeps its id and what is known of it. An address that
    /// stands there twice counts once, as it stands first.
    pub fn publish(&self, service: ServiceId, instances: &[Instance]) {
        let Some(cell) = self.services.get(service.index()) else { return };
        let mut book = self.book.lock();
        let mut members: Vec<Member> = Vec::with_capacity(instances.len());
        let mut addresses = HashSet::with_capacity(instances.len());
        for instance in instances {
            if addresses.insert(instance.address) {
                let (id, vitals) = book.know(service, instance.address);
                members.push(Member { id, instance: instance.clone(), vitals });
            }
        }
        let members: Members = members.into();
        let before = std::mem::replace(&mut *cell.members.lock(), members.clone());
        // Ids are of addresses.
        for member in before.iter().filter(|old| !addresses.contains(&old.instance.address)) {
            book.forget_later(service, member.instance.address, |service, address| {
                self.members(service).iter().all(|member| member.instance.address != address)
            });
        }
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Rises with every publication.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The endpoints of a service as they stand.
    pub fn members(&self, service: ServiceId) -> Members {
        self.services.get(service.index()).map(|cell| cell.members.lock().clone()).unwrap_or_default()
    }

    /// Whose endpoint it is and where it listens; `None` when it left long ago.
    pub fn address(&self, id: EndpointId) -> Option<(ServiceId, SocketAddr)> {
        self.book.lock().addresses.get(&id).copied()
    }

    /// The share of users that the canary of a service gets, in hundredths of a percent.
    pub fn canary_share(&self, service: ServiceId) -> u32 {
        self.services.get(service.index()).map_or(0, |cell| cell.canary_share.load(Ordering::Relaxed))
    }

    /// Changes that share; at most 10,000.
    pub fn set_canary_share(&self, service: ServiceId, share: u32) {
        if let Some(cell) = self.services.get(service.index()) {
            cell.canary_share.store(share.min(10_000), Ordering::Relaxed);
        }
    }

    /// Rises with every change of an ejection of the service.
    pub fn ejections(&self, service: ServiceId) -> u64 {
        self.services.get(service.index()).map_or(0, |cell| cell.places.changes())
    }

    /// Endpoints of the service that are ejected at the moment.
    pub fn ejected(&self, service: ServiceId) -> u64 {
        self.services.get(service.index()).map_or(0, |cell| cell.places.taken())
    }

    /// How often something was decided of a service's endpoints.
    pub fn decided(&self, service: ServiceId, what: Decided) -> u64 {
        self.services.get(service.index()).map_or(0, |cell| cell.count_of(what).load(Ordering::Relaxed))
    }

    /// Notes that it was decided once more.
    pub(super) fn note(&self, service: ServiceId, what: Decided) {
        if let Some(cell) = self.services.get(service.index()) {
            cell.note(what);
        }
    }

    /// Ejects an endpoint for all workers; whether it was not yet, and there was a place: `places` may be ejected. An
    /// endpoint that is ejected holds a place until [`Pools::readmit`].
    pub(super) fn eject(&self, service: ServiceId, vitals: &Vitals, until: Mono, places: u32) -> bool {
        let Some(cell) = self.services.get(service.index()) else { return false };
        let ejected = cell.places.eject(&vitals.ejection, until, u64::from(places));
        match ejected {
            Ok(()) => cell.note(Decided::Ejected),
            Err(NotEjected::Full) => cell.note(Decided::Spared),
            Err(NotEjected::Already) => {}
        }
        ejected.is_ok()
    }

    /// Ejects an endpoint that is ejected for longer; whether nobody else has changed that meanwhile.
    pub(super) fn prolong(&self, service: ServiceId, vitals: &Vitals, from: Mono, until: Mono) -> bool {
        let Some(cell) = self.services.get(service.index()) else { return false };
        let is_done = cell.places.prolong(&vitals.ejection, from, until);
        if is_done {
            cell.note(Decided::Prolonged);
        }
        is_done
    }

    /// Takes an endpoint back; whether it was ejected. Its place is free again.
    pub(super) fn readmit(&self, service: ServiceId, vitals: &Vitals) -> bool {
        let Some(cell) = self.services.get(service.index()) else { return false };
        let was = cell.places.readmit(&vitals.ejection);
        if was {
            cell.note(Decided::Readmitted);
        }
        was
    }
}

impl Cell {
    fn count_of(&self, what: Decided) -> &AtomicU64 {
        let [ejected, spared, prolonged, readmitted, bounded] = &self.decided;
        match what {
            Decided::Ejected => ejected,
            Decided::Spared => spared,
            Decided::Prolonged => prolonged,
            Decided::Readmitted => readmitted,
            Decided::Bounded => bounded,
        }
    }

    fn note(&self, what: Decided) {
        self.count_of(what).fetch_add(1, Ordering::Relaxed);
    }
}

impl Book {
    fn know(&mut self, service: ServiceId, address: SocketAddr) -> (EndpointId, Arc<Vitals>) {
        if let Some(known) = self.known.get(&(service, address)) {
            return known.clone();
        }
        self.last = self.last.wrapping_add(1).max(1);
        let known = (EndpointId(self.last), Arc::new(Vitals::default()));
        self.known.insert((service, address), known.clone());
        self.addresses.insert(known.0, (service, address));
        known
    }

    /// Notes that an endpoint has left, and forgets those that left longest ago when they are too many.
    fn forget_later(
        &mut self,
        service: ServiceId,
        address: SocketAddr,
        is_gone: impl Fn(ServiceId, SocketAddr) -> bool,
    ) {
        self.gone.push_back((service, address));
        while self.gone.len() > GONE_MAX {
            let Some(oldest) = self.gone.pop_front() else { return };
            if !self.gone.contains(&oldest)
                && is_gone(oldest.0, oldest.1)
                && let Some((id, _)) = self.known.remove(&oldest)
            {
                self.addresses.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Instance {
        Instance::at(SocketAddr::from(([192, 0, 2, 1], port)))
    }

    #[test]
    fn an_endpoint_keeps_its_id_while_it_is_known() {
        let pools = Pools::new(2);
        let version = pools.version();
        pools.publish(ServiceId(0), &[at(1), at(2), at(1)]);
        pools.publish(ServiceId(1), &[at(1)]);
        assert!(pools.version() > version);
        let ids =
            |service| pools.members(ServiceId(service)).iter().map(|member| member.id.0).collect::<Vec<_>>();
        assert_eq!((ids(0), ids(1)), (vec![1, 2], vec![3]), "each service has its own");
        pools.publish(ServiceId(0), &[at(2), at(4)]);
        assert_eq!(ids(0), [2, 4]);
        assert_eq!(pools.address(EndpointId(1)), Some((ServiceId(0), at(1).address)), "known for a while");
        pools.publish(ServiceId(0), &[at(1)]);
        assert_eq!(ids(0), [1]);
        for port in 1000..3000 {
            pools.publish(ServiceId(0), &[at(1), at(port)]);
        }
        assert_eq!(pools.address(EndpointId(2)), None, "it left long ago");
        assert!(pools.address(EndpointId(1)).is_some(), "and this one is here");
        assert!(pools.book.lock().known.len() <= GONE_MAX + 8);
    }
}
