//! A registry with moods, and what the catalog makes of it.

use crate::governance::plant::Plant;
use crate::governance::scenario::{CHAT, address};
use crate::governance::world::{Event, World};
use moorgate::base::clock::Now;
use moorgate::routing::{Catalog, CatalogSettings, Instance, Source, Sources, Standing};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How the registry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// It tells what is so.
    Honest,
    /// It tells that there is nobody.
    Empty,
    /// It tells what was so when this began.
    Stale,
    /// It does not answer.
    Away,
    /// It has lost some, and they come back bit by bit: its index was reset.
    Reset,
    /// It names places where nobody is, and few who are.
    Lying,
}

impl Mood {
    pub const ALL: [Mood; 6] = [Mood::Honest, Mood::Empty, Mood::Stale, Mood::Away, Mood::Reset, Mood::Lying];
}

pub struct Registry {
    pub mood: Mood,
    /// Who is registered.
    pub truth: BTreeSet<usize>,
    stale: BTreeSet<usize>,
    reset: BTreeSet<usize>,
    pub catalog: Catalog,
    /// What was published last.
    pub published: Vec<Instance>,
    pub polls: u64,
}

impl Registry {
    pub fn new(truth: BTreeSet<usize>) -> Registry {
        let settings = CatalogSettings { confirm: Duration::from_secs(5), fall: 3, rise: 2 };
        Registry {
            mood: Mood::Honest,
            stale: truth.clone(),
            reset: BTreeSet::new(),
            truth,
            catalog: Catalog::new(settings, Sources::NONE.with(Source::Consul)),
            published: Vec::new(),
            polls: 0,
        }
    }

    pub fn turns(&mut self, mood: Mood) {
        self.mood = mood;
        self.stale = self.truth.clone();
        self.reset.clear();
    }
}

impl World {
    /// The registry is asked, its answer and the health of who is known are taken in, and what follows is published.
    pub fn poll(&mut self) {
        let now = Now { mono: self.now, unix_ms: 1_800_000_000_000 + self.now.as_nanos() / 1_000_000 };
        self.registry.polls += 1;
        let answer = self.registry_says();
        self.trace.note(self.now, "poll", (self.registry.mood as u64, 0), || {
            format!("the registry, {:?}: {answer:?}", self.registry.mood)
        });
        if self.plant == Some(Plant::RegistryBelieved) {
            if let Ok(list) = answer {
                self.publish(list);
            }
            return;
        }
        self.registry.catalog.answer(now, Source::Consul, answer.map(Into::into));
        for instance in self.registry.published.clone() {
            let links = self.links_to(instance.address);
            self.registry.catalog.linked(instance.address, links > 0);
        }
        let unlinked: Vec<SocketAddr> = self.registry.catalog.unlinked().collect();
        for address in unlinked {
            let answers = self.at(address).is_some_and(|at| self.backends[at].accepts());
            self.registry.catalog.probed(address, answers);
        }
        if let Some(list) = self.registry.catalog.settle(now).publish {
            self.publish(list);
        }
    }

    /// Which instance is at an address.
    pub fn at(&self, address: SocketAddr) -> Option<usize> {
        self.backends.iter().position(|backend| backend.address == address)
    }

    fn links_to(&self, address: SocketAddr) -> u32 {
        let members = self.pools.members(CHAT);
        let member = members.iter().find(|member| member.instance.address == address);
        member.map_or(0, |member| member.vitals.links.load(Ordering::Relaxed))
    }

    fn registry_says(&mut self) -> Result<Vec<Instance>, String> {
        let registry = &mut self.registry;
        let listed: Vec<usize> = match registry.mood {
            Mood::Honest => registry.truth.iter().copied().collect(),
            Mood::Empty => Vec::new(),
            Mood::Stale => registry.stale.iter().copied().collect(),
            Mood::Away => return Err("connection refused".to_owned()),
            Mood::Reset => {
                if let Some(one) = registry.truth.iter().find(|at| !registry.reset.contains(at)).copied()
                    && self.dice.chance(30)
                {
                    registry.reset.insert(one);
                }
                registry.reset.iter().copied().collect()
            }
            // Nobody is at these addresses.
            Mood::Lying => registry.truth.iter().take(1).copied().chain([50, 51]).collect(),
        };
        let instance = |at| match self.plant {
            Some(Plant::ZoneForgotten) => Instance::at(address(at)),
            _ => self.scenario.split.instance(at),
        };
        Ok(listed.into_iter().map(instance).collect())
    }

    fn publish(&mut self, list: Vec<Instance>) {
        let stays = |list: &[Instance]| {
            let stay = list.iter().filter(|instance| instance.standing != Standing::Leaving);
            stay.map(|instance| instance.address).collect::<BTreeSet<SocketAddr>>()
        };
        let (before, after) = (stays(&self.registry.published), stays(&list));
        // An instance that has links answers, as far as anybody can know.
        let answering = |address: &&SocketAddr| self.links_to(**address) > 0;
        let were: Vec<&SocketAddr> = before.iter().filter(answering).collect();
        if !were.is_empty() && !after.iter().any(|address| answering(&address)) {
            let mood = self.registry.mood;
            self.judge
                .violated(format!("the registry, {mood:?}, has emptied the pool of {were:?}: {list:?}"));
        }
        self.trace.note(self.now, "publish", (list.len() as u64, 0), || format!("{list:?}"));
        if self.plant != Some(Plant::Undying) || list.len() >= self.registry.published.len() {
            self.pools.publish(CHAT, &list);
        }
        self.registry.published = list;
        (0..self.workers.len()).for_each(|at| self.schedule(Duration::ZERO, Event::Turn(at)));
    }
}
