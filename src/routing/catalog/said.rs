//! What a source says, and what all of them say together.

use super::{Note, Rejected, Source, SourceList, Sources};
use crate::base::clock::Now;
use crate::routing::{Instance, Standing};
use moorgate_proto::time::Mono;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Endpoints that one source may list; what is over is left out. Far above what is published of one service, so that
/// it is the catalog that chooses.
const LIST_MAX: usize = 16 * 1024;

/// How a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// It has said nothing yet.
    Awaited,
    /// Its last answer was a list.
    Up,
    /// Its last answer was this error.
    Down(String),
}

/// What one source says.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) source: Source,
    /// The last list, by address.
    pub(super) list: Vec<Instance>,
    /// Elements of that answer that are left out.
    pub(super) rejected: Rejected,
    /// Endpoints of that answer that are used without some of their zones and tags.
    trimmed: Rejected,
    pub(super) state: State,
    /// When it last gave a list, in this life.
    pub(super) heard: Option<Mono>,
    /// The same by the clock of the world; 0: never, in no life that we know of.
    pub(super) heard_unix_ms: u64,
}

impl Said {
    pub(super) fn nothing(source: Source) -> Said {
        Said {
            source,
            list: Vec::new(),
            rejected: Rejected::default(),
            trimmed: Rejected::default(),
            state: State::Awaited,
            heard: None,
            heard_unix_ms: 0,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// Whether it is of use: nothing was said in this life yet.
    pub(super) fn recall(&mut self, list: Vec<Instance>, unix_ms: u64) -> bool {
        let is_first = self.heard.is_none();
        if is_first {
            self.list = clean(list.into()).endpoints;
            self.heard_unix_ms = unix_ms.max(1);
        }
        is_first
    }

    /// Whether it says something new.
    pub(super) fn answer(&mut self, now: Now, list: SourceList, notes: &mut Vec<Note>) -> bool {
        let source = self.source;
        let SourceList { endpoints: list, rejected, trimmed } = clean(list);
        if let State::Down(_) = std::mem::replace(&mut self.state, State::Up) {
            notes.push(Note::Recovered { source });
        }
        let is_first = self.heard.replace(now.mono).is_none();
        self.heard_unix_ms = now.unix_ms.max(1);
        // The same reasons are logged once.
        if rejected != self.rejected {
            notes.push(Note::Rejected { source, rejected: rejected.clone() });
            self.rejected = rejected;
        }
        if trimmed != self.trimmed {
            notes.push(Note::Trimmed { source, trimmed: trimmed.clone() });
            self.trimmed = trimmed;
        }
        if list == self.list && !is_first {
            return false;
        }
        let (joined, left) = (beside(&list, &self.list), beside(&self.list, &list));
        notes.push(Note::Said { source, endpoints: list.len(), joined, left });
        self.list = list;
        true
    }

    pub(super) fn fail(&mut self, error: String, notes: &mut Vec<Note>) {
        // The same error again and again is told once.
        let state = State::Down(error);
        if self.state != state {
            if let State::Down(error) = &state {
                let (source, error, kept) = (self.source, error.clone(), self.list.len());
                notes.push(Note::Failed { source, error, kept });
            }
            self.state = state;
        }
    }
}

/// Addresses of one list that are not in another; both are sorted by address.
fn beside(list: &[Instance], other: &[Instance]) -> Vec<SocketAddr> {
    let is_new =
        |instance: &&Instance| other.binary_search_by_key(&instance.address, |other| other.address).is_err();
    list.iter().filter(is_new).map(|instance| instance.address).collect()
}

/// A list as a catalog has it: by address, each once, all of them usable. What is not, or is too much, is rejected.
fn clean(list: SourceList) -> SourceList {
    let SourceList { mut endpoints, mut rejected, trimmed } = list;
    for instance in &mut endpoints {
        instance.address = canonical(instance.address);
        instance.weight = instance.weight.min(Instance::WEIGHT_MAX);
    }
    // Stable: of those with one address the first one counts.
    endpoints.sort_by_key(|instance| instance.address);
    endpoints.dedup_by_key(|instance| instance.address);
    endpoints.retain(|Instance { address, .. }| {
        let why = Instance::why_unusable(*address);
        why.inspect(|why| rejected.add(format_args!("{address} {why}"))).is_none()
    });
    let over = endpoints.len().saturating_sub(LIST_MAX);
    if over > 0 {
        rejected.add_some(over, [format!("the highest addresses: more than {LIST_MAX} are listed")]);
        endpoints.truncate(LIST_MAX);
    }
    SourceList { endpoints, rejected, trimmed }
}

/// An IPv4 address within an IPv6 one is the same endpoint as without.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

/// An endpoint as all sources list it together.
#[derive(Debug, Clone)]
pub(super) struct Listing {
    pub(super) instance: Instance,
    pub(super) by: Sources,
}

impl Listing {
    pub(super) fn is_serving(&self) -> bool {
        is_serving(&self.instance)
    }
}

/// Whether calls are to go there.
pub(super) fn is_serving(instance: &Instance) -> bool {
    instance.standing != Standing::Leaving && instance.weight > 0
}

/// What all of them list: what an endpoint is like, by the first that lists it; how it stands, by the kindest.
pub(super) fn merge(said: &[Said]) -> BTreeMap<SocketAddr, Listing> {
    let mut listed: BTreeMap<SocketAddr, Listing> = BTreeMap::new();
    for said in said {
        for instance in &said.list {
            let first = || Listing { instance: instance.clone(), by: Sources::NONE };
            let listing = listed.entry(instance.address).or_insert_with(first);
            listing.by = listing.by.with(said.source);
            listing.instance.standing = kindest(listing.instance.standing, instance.standing);
        }
    }
    listed
}

/// One good word is enough; among the others, one that sends it away outweighs doubts.
fn kindest(one: Standing, other: Standing) -> Standing {
    match (one, other) {
        (Standing::In, _) | (_, Standing::In) => Standing::In,
        (Standing::Leaving, _) | (_, Standing::Leaving) => Standing::Leaving,
        (Standing::Doubted, Standing::Doubted) => Standing::Doubted,
    }
}
