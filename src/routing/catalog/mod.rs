//! What the sources of one service say, merged into the list to publish. Pure: answers, own health and time come in.
//!
//! An endpoint is listed if any source lists it. No source can empty a pool:
//!
//! ```text
//!            listed                        missing, and at least half of the confirmed list is still
//!   (none) ----------> Listed ------------ listed and has links ---------------------------------> gone (drains)
//!                       ^  |
//!         listed again  |  | missing, and fewer are
//!                       |  v
//!                      Held --- it does not answer ----------------------------------------------> gone
//!                           --- for as long as `confirm`, and a listed endpoint has links -------> gone
//!                           --- at last half of the confirmed list is listed and has links ------> gone
//! ```
//!
//! The confirmed list has all that were listed within the last `confirm`: it grows at once, and shrinks when the smaller
//! list has stood, so that a registry that forgets its entries a few at a time does not empty a pool by halves. While
//! endpoints are held it stays as it is, and grows by those that are held later; newcomers of that time are measured by
//! themselves. Endpoints that do not answer count on neither side: half of those that are not known to be dead is enough. Leaving by maintenance is missing, too, and so is a weight that becomes 0: a registry that sends all
//! endpoints away is not obeyed while they answer. What a source cannot be asked for any more stays as it was
//! last told, and so does, after a restart, what it told before: see [`Catalog::recall`].

mod health;
mod list;
mod note;
#[cfg(test)]
mod properties;
mod report;
mod said;
mod source;
#[cfg(test)]
mod tests;

pub use list::{Rejected, SourceList};
pub use note::{Note, Why};
pub use report::{CatalogReport, EndpointReport, SourceReport};
pub use source::{Source, Sources};

use super::{Instance, Standing};
use crate::base::clock::Now;
use health::Health;
use moorgate_proto::time::Mono;
use said::{Listing, Said};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// Endpoints of the last while that are remembered; beyond it, only those that are listed.
const RECENT_MAX: usize = 2 * Catalog::ENDPOINTS_MAX;

/// What a catalog goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatalogSettings {
    /// A shrunken list is believed after this time, if one of the endpoints that it still has has a link.
    pub confirm: Duration,
    /// An endpoint without a link does not answer after this many probes in a row that failed.
    pub fall: u32,
    /// It answers again after this many that did not.
    pub rise: u32,
}

/// What came of it all.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// The list to publish, by address, when it is another one than before.
    pub publish: Option<Vec<Instance>>,
    /// What there is to tell.
    pub notes: Vec<Note>,
    /// Whether [`Catalog::to_keep`] has something new.
    pub is_news: bool,
}

/// An endpoint that no source lists any more, or not for calls, and that is published still.
#[derive(Debug, Clone)]
struct Held {
    /// As it was last published.
    instance: Instance,
    since: Mono,
    /// Those who listed it last.
    by: Sources,
}

/// See the module's page.
#[derive(Debug)]
pub struct Catalog {
    settings: CatalogSettings,
    /// In the order of precedence.
    said: Vec<Said>,
    /// A source lists something else than at the last [`Catalog::settle`].
    has_changed: bool,
    /// What all of them list together, as of the last [`Catalog::settle`].
    listed: BTreeMap<SocketAddr, Listing>,
    confirmed: BTreeSet<SocketAddr>,
    /// Listed within the last [`CatalogSettings::confirm`], and since when it is not.
    recent: BTreeMap<SocketAddr, Option<Mono>>,
    held: BTreeMap<SocketAddr, Held>,
    published: BTreeMap<SocketAddr, Instance>,
    /// Of those that are published.
    health: BTreeMap<SocketAddr, Health>,
    /// Listed and not published: they are too many.
    over: usize,
    /// [`Note::NoEndpoint`] holds.
    lacks_endpoints: bool,
    notes: Vec<Note>,
    is_news: bool,
}

impl Catalog {
    /// Most endpoints of one service. Beyond it those that come last are left out, told of and counted.
    pub const ENDPOINTS_MAX: usize = 4096;

    /// Of these sources, none of which has said anything yet.
    pub fn new(settings: CatalogSettings, sources: Sources) -> Catalog {
        Catalog {
            settings,
            said: sources.iter().map(Said::nothing).collect(),
            has_changed: true,
            listed: BTreeMap::new(),
            confirmed: BTreeSet::new(),
            recent: BTreeMap::new(),
            held: BTreeMap::new(),
            published: BTreeMap::new(),
            health: BTreeMap::new(),
            over: 0,
            lacks_endpoints: false,
            notes: Vec::new(),
            is_news: false,
        }
    }

    /// What a source said in the life before this one, and when. It counts until the source says something now.
    pub fn recall(&mut self, source: Source, list: Vec<Instance>, unix_ms: u64) {
        if let Some(said) = self.said.iter_mut().find(|said| said.source == source)
            && said.recall(list, unix_ms)
        {
            self.has_changed = true;
            self.notes.push(Note::Recalled { source, endpoints: said.list.len() });
        }
    }

    /// A source has answered, or failed to.
    pub fn answer(&mut self, now: Now, source: Source, answer: Result<SourceList, String>) {
        let Some(said) = self.said.iter_mut().find(|said| said.source == source) else { return };
        match answer {
            Ok(list) => {
                let is_new = said.answer(now, list, &mut self.notes);
                self.is_news |= is_new;
                self.has_changed |= is_new;
            }
            Err(error) => said.fail(error, &mut self.notes),
        }
    }

    /// Whether some worker has a ready link to an endpoint.
    pub fn linked(&mut self, address: SocketAddr, is_linked: bool) {
        if let Some(health) = self.health.get_mut(&address) {
            health.linked(is_linked);
        }
    }

    /// A probe of an endpoint has ended.
    pub fn probed(&mut self, address: SocketAddr, has_answered: bool) {
        if let Some(health) = self.health.get_mut(&address) {
            health.probed(has_answered, self.settings.fall, self.settings.rise);
        }
    }

    /// Endpoints that are to be probed: they have no link, and are not sent away.
    pub fn unlinked(&self) -> impl Iterator<Item = SocketAddr> {
        let stays = self.published.values().filter(|instance| instance.standing != Standing::Leaving);
        let unlinked = stays
            .filter(|instance| self.health.get(&instance.address).is_none_or(|health| !health.is_linked()));
        unlinked.map(|instance| instance.address)
    }

    /// Decides, by all that has come in. To be called after each batch of it, and every second or so.
    pub fn settle(&mut self, now: Now) -> Settled {
        if self.is_as_it_was() {
            self.forget_leaving();
            return self.settled();
        }
        self.has_changed = false;
        let mut listed = said::merge(&self.said);
        self.hold(now.mono, &listed);
        self.bound(&mut listed);
        self.remember(now.mono, &listed);
        if self.held.is_empty() {
            self.confirmed = self.recent.keys().copied().collect();
        }
        let mut published: BTreeMap<SocketAddr, Instance> =
            listed.iter().map(|(address, listing)| (*address, listing.instance.clone())).collect();
        published.extend(self.held.iter().map(|(address, held)| (*address, held.instance.clone())));
        self.listed = listed;
        self.health.retain(|address, _| published.contains_key(address));
        for address in published.keys() {
            self.health.entry(*address).or_default();
        }
        let mut publish = None;
        if published != self.published {
            publish = Some(published.values().cloned().collect());
            self.is_news = true;
            self.published = published;
        }
        self.forget_leaving();
        Settled { publish, ..self.settled() }
    }

    /// Whether there is nothing to decide: what is published is what is listed, no source lists anything else, and nobody
    /// who has left is remembered.
    fn is_as_it_was(&self) -> bool {
        let is_remembered = self.recent.values().any(Option::is_some);
        !self.has_changed && self.over == 0 && self.held.is_empty() && !is_remembered
    }

    /// Those that leave are not probed: what was known of them grows old.
    fn forget_leaving(&mut self) {
        for (address, instance) in &self.published {
            if instance.standing == Standing::Leaving
                && let Some(health) = self.health.get_mut(address).filter(|health| !health.is_linked())
            {
                *health = Health::default();
            }
        }
    }

    /// Notes when the service has no endpoint any more, or has some again.
    fn note_availability(&mut self) {
        let mut usable = self.published.values().filter(|instance| instance.standing != Standing::Leaving);
        let is_awaited = self.said.iter().any(|said| said.state == said::State::Awaited);
        // Where every source fails that is noted already.
        let is_answered = !is_awaited && self.said.iter().any(|said| said.heard.is_some());
        match (usable.next(), self.lacks_endpoints) {
            (None, false) if is_answered => {
                self.lacks_endpoints = true;
                self.notes.push(Note::NoEndpoint);
            }
            (Some(_), true) => {
                let endpoints = usable.count().saturating_add(1);
                self.lacks_endpoints = false;
                self.notes.push(Note::HasEndpoints { endpoints });
            }
            _ => {}
        }
    }

    fn settled(&mut self) -> Settled {
        self.note_availability();
        Settled {
            publish: None,
            notes: std::mem::take(&mut self.notes),
            is_news: std::mem::take(&mut self.is_news),
        }
    }

    /// What each source said last, for [`Catalog::recall`]; those that are held count as said, so that a restart does
    /// not lose them.
    pub fn to_keep(&self) -> Vec<(Source, u64, Vec<Instance>)> {
        let told = self.said.iter().filter(|said| said.source != Source::Fixed && said.heard_unix_ms > 0);
        let kept = told.map(|said| {
            let held = self.held.values().filter(|held| held.by.contains(said.source));
            let mut list: Vec<Instance> = held.map(|held| held.instance.clone()).collect();
            let rest = said.list.iter().filter(|instance| !self.held.contains_key(&instance.address));
            list.extend(rest.cloned());
            list.sort_unstable_by_key(|instance| instance.address);
            (said.source, said.heard_unix_ms, list)
        });
        kept.collect()
    }

    fn is_linked(&self, address: SocketAddr) -> bool {
        self.health.get(&address).is_some_and(Health::is_linked)
    }

    /// Leaves out what is too much, held ones counted. Those that were published before stay: they are never too many.
    fn bound(&mut self, listed: &mut BTreeMap<SocketAddr, Listing>) {
        let held = self.held.keys().filter(|address| !listed.contains_key(address)).count();
        let over = listed.len().saturating_add(held).saturating_sub(Catalog::ENDPOINTS_MAX);
        let new = listed.keys().rev().filter(|address| !self.published.contains_key(address));
        let out: Vec<SocketAddr> = new.copied().take(over).collect();
        for address in out {
            listed.remove(&address);
        }
        if over != std::mem::replace(&mut self.over, over) && over > 0 {
            self.notes.push(Note::Over { left_out: over });
        }
    }

    /// Notes who is listed, and forgets who is not and has not been for long.
    fn remember(&mut self, now: Mono, listed: &BTreeMap<SocketAddr, Listing>) {
        self.recent.extend(serving(listed).map(|address| (address, None)));
        let confirm = self.settings.confirm;
        self.recent.retain(|address, gone| {
            let is_listed = listed.get(address).is_some_and(Listing::is_serving);
            is_listed || now.since(*gone.get_or_insert(now)) < confirm
        });
        // Whoever lists others each time is not remembered without end.
        if self.recent.len() > RECENT_MAX {
            self.recent.retain(|_, gone| gone.is_none());
        }
    }

    /// Decides what becomes of the endpoints that are published and that nobody lists any more.
    fn hold(&mut self, now: Mono, listed: &BTreeMap<SocketAddr, Listing>) {
        let stays = |address: &SocketAddr| listed.get(address).is_some_and(Listing::is_serving);
        // To be believed a list must name endpoints with which we talk: a port that is open says little.
        let answering = serving(listed).filter(|address| self.is_linked(*address)).count();
        // Whether of those of a list that are not known to be dead at least half are still listed, and have links.
        let measure = |list: &mut dyn Iterator<Item = SocketAddr>| {
            let (mut all, mut kept) = (0usize, 0usize);
            for address in list.filter(|address| !self.health.get(address).is_some_and(Health::is_dead)) {
                all = all.saturating_add(1);
                kept = kept.saturating_add(usize::from(stays(&address) && self.is_linked(address)));
            }
            (all > 0 && kept.saturating_mul(2) >= all, all)
        };
        let (confirmed_is_kept, confirmed) = measure(&mut self.confirmed.iter().copied());
        // What came while others are held is measured by itself, and by what is listed beside it.
        let others = self.recent.keys().filter(|address| {
            !self.confirmed.contains(address) || self.listed.get(address).is_some_and(Listing::is_serving)
        });
        let (others_are_kept, _) = measure(&mut others.copied());
        let missing = self.published.values().filter(|one| said::is_serving(one) && !stays(&one.address));
        let missing: Vec<Instance> = missing.cloned().collect();
        self.held.retain(|address, _| !stays(address));
        let mut outcomes = Outcomes::default();
        for instance in missing {
            let address = instance.address;
            let was_confirmed = self.confirmed.contains(&address);
            let is_ordinary = if was_confirmed { confirmed_is_kept } else { others_are_kept };
            let held = self.held.get(&address);
            let is_silent = self.health.get(&address).is_some_and(Health::is_silent);
            let is_due = held.is_some_and(|held| {
                now.since(held.since) >= self.settings.confirm && answering > 0 && self.are_up(held.by)
            });
            let why = match (is_ordinary, is_silent, is_due) {
                (true, _, _) => Some(Why::Ordinary),
                (_, true, _) => Some(Why::Silent),
                (_, _, true) => Some(Why::Confirmed),
                _ => None,
            };
            match (why, held.is_some()) {
                (Some(why), was_held) => {
                    self.held.remove(&address);
                    if self.health.get(&address).is_some_and(Health::is_dead) {
                        // The next lists are not measured by it either.
                        self.recent.remove(&address);
                        self.confirmed.remove(&address);
                    }
                    outcomes.left(address, why, was_held);
                }
                (None, true) => {}
                (None, false) => {
                    let by = self.listed.get(&address).map_or(Sources::NONE, |listing| listing.by);
                    self.held.insert(address, Held { instance, since: now, by });
                    self.confirmed.insert(address);
                    outcomes.held.push(address);
                }
            }
        }
        outcomes.tell(answering, confirmed, &mut self.notes);
    }

    fn are_up(&self, sources: Sources) -> bool {
        self.said.iter().filter(|said| sources.contains(said.source)).all(Said::is_up)
    }
}

/// The endpoints that are listed, and for calls.
fn serving(listed: &BTreeMap<SocketAddr, Listing>) -> impl Iterator<Item = SocketAddr> {
    listed.iter().filter(|(_, listing)| listing.is_serving()).map(|(address, _)| *address)
}

/// What became of the endpoints that are missing.
#[derive(Default)]
struct Outcomes {
    held: Vec<SocketAddr>,
    left: BTreeMap<Why, Vec<SocketAddr>>,
}

impl Outcomes {
    fn left(&mut self, address: SocketAddr, why: Why, was_held: bool) {
        // That it left is in what its source said, unless it was held.
        if was_held || why != Why::Ordinary {
            self.left.entry(why).or_default().push(address);
        }
    }

    fn tell(self, answering: usize, confirmed: usize, notes: &mut Vec<Note>) {
        if !self.held.is_empty() {
            notes.push(Note::Held { endpoints: self.held, answering, confirmed });
        }
        notes.extend(self.left.into_iter().map(|(why, endpoints)| Note::Left { endpoints, why }));
    }
}
