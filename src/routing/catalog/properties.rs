//! Whatever sources say and whoever crashes: the rules that a catalog keeps. The world knows which endpoints are up; the
//! catalog is told by probes and links alone, and the rules ask the world.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

const SETTINGS: CatalogSettings = CatalogSettings { confirm: Duration::from_secs(10), fall: 3, rise: 2 };
const HOSTS: usize = 6;
const SOURCES: [Source; 2] = [Source::Dns, Source::Consul];

#[derive(Debug, Clone)]
enum Event {
    /// A source lists the hosts of this mask; those of the second mask as doubted, of the third as leaving, of the fourth
    /// without a weight.
    Says(usize, u8, u8, u8, u8),
    Fails(usize),
    /// A host crashes, or comes up.
    Turns(usize),
    /// Workers can have links to a host as long as it is up, or its port is all that is open.
    Links(usize, bool),
    Waits(u8),
    /// The gateway starts again with what it has kept.
    Restarts,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..2usize, any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>())
            .prop_map(|(source, hosts, doubted, leaving, weightless)| {
                Event::Says(source, hosts, doubted, leaving & doubted, weightless & !doubted)
            }),
        2 => (0..2usize).prop_map(|source| Event::Says(source, 0, 0, 0, 0)),
        2 => (0..2usize).prop_map(Event::Fails),
        3 => (0..HOSTS).prop_map(Event::Turns),
        2 => (0..HOSTS, any::<bool>()).prop_map(|(host, linked)| Event::Links(host, linked)),
        3 => (1..20u8).prop_map(Event::Waits),
        1 => Just(Event::Restarts),
    ]
}

fn address(host: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, u8::try_from(host).unwrap()], 7100))
}

struct World {
    catalog: Catalog,
    now: Now,
    up: [bool; HOSTS],
    /// Whether a host that is up takes links.
    takes_links: [bool; HOSTS],
    listed: [u8; 2],
    /// Every list that was published, as text.
    trace: Vec<String>,
    reached: Reached,
}

/// Rare things that a sweep must have seen.
#[derive(Debug, Default, Clone, Copy)]
struct Reached {
    held: usize,
    silent: usize,
    confirmed: usize,
    ordinary: usize,
}

impl World {
    fn new() -> World {
        World {
            catalog: Catalog::new(SETTINGS, SOURCES.into_iter().collect()),
            now: Now { mono: Mono::ZERO, unix_ms: 1 },
            up: [true; HOSTS],
            takes_links: [true; HOSTS],
            listed: [0; 2],
            trace: Vec::new(),
            reached: Reached::default(),
        }
    }

    /// Hosts that get calls.
    fn serving(&self) -> Vec<usize> {
        let serves = |host: &usize| {
            let instance = self.catalog.published.get(&address(*host));
            instance.is_some_and(|instance| instance.standing != Standing::Leaving && instance.weight > 0)
        };
        (0..HOSTS).filter(serves).collect()
    }

    fn tell(&mut self, event: &Event) {
        match *event {
            Event::Says(source, hosts, doubted, leaving, weightless) => {
                let has = |mask: u8, host: usize| mask & (1 << host) != 0;
                let list = (0..HOSTS).filter(|host| has(hosts, *host)).map(|host| Instance {
                    standing: match (has(leaving, host), has(doubted, host)) {
                        (true, _) => Standing::Leaving,
                        (false, true) => Standing::Doubted,
                        (false, false) => Standing::In,
                    },
                    weight: if has(weightless, host) { 0 } else { Instance::WEIGHT },
                    ..Instance::at(address(host))
                });
                self.catalog.answer(self.now, SOURCES[source], Ok(list.collect::<Vec<_>>().into()));
                self.listed[source] = hosts;
            }
            Event::Fails(source) => self.catalog.answer(self.now, SOURCES[source], Err("down".to_owned())),
            Event::Turns(host) => self.up[host] = !self.up[host],
            Event::Links(host, takes) => self.takes_links[host] = takes,
            Event::Waits(seconds) => self.now.mono = self.now.mono + Duration::from_secs(seconds.into()),
            Event::Restarts => {
                let kept = self.catalog.to_keep();
                self.catalog = Catalog::new(SETTINGS, SOURCES.into_iter().collect());
                for (source, unix_ms, list) in kept {
                    // Held ones were kept: they count as listed until the source answers.
                    let hosts =
                        (0..HOSTS).filter(|host| list.iter().any(|one| one.address == address(*host)));
                    let at = SOURCES.iter().position(|one| *one == source).unwrap();
                    self.listed[at] = hosts.fold(0, |mask, host| mask | (1 << host));
                    self.catalog.recall(source, list, unix_ms);
                }
            }
        }
    }

    fn settle(&mut self) {
        let settled = self.catalog.settle(self.now);
        for note in &settled.notes {
            match note {
                Note::Held { .. } => self.reached.held += 1,
                Note::Left { why: Why::Silent, .. } => self.reached.silent += 1,
                Note::Left { why: Why::Confirmed, .. } => self.reached.confirmed += 1,
                Note::Left { why: Why::Ordinary, .. } => self.reached.ordinary += 1,
                _ => {}
            }
        }
        if let Some(list) = settled.publish {
            self.trace
                .push(list.iter().map(|instance| format!("{instance} {:?};", instance.standing)).collect());
            let mut addresses: Vec<SocketAddr> = list.iter().map(|instance| instance.address).collect();
            addresses.dedup();
            assert_eq!(addresses.len(), list.len(), "an endpoint is there twice");
        }
    }

    /// Probes and links are looked at until everything is known.
    fn look(&mut self) {
        for _ in 0..SETTINGS.fall.max(SETTINGS.rise) {
            for host in 0..HOSTS {
                self.catalog.linked(address(host), self.up[host] && self.takes_links[host]);
            }
            let unlinked: Vec<SocketAddr> = self.catalog.unlinked().collect();
            for host in (0..HOSTS).filter(|host| unlinked.contains(&address(*host))) {
                self.catalog.probed(address(host), self.up[host]);
            }
            self.settle();
        }
    }

    fn step(&mut self, event: &Event) {
        let before: Vec<usize> = self.serving();
        let answered = before.iter().any(|host| self.up[*host]);
        let crashes = matches!(event, Event::Turns(_));
        self.tell(event);
        self.settle();
        let still = |world: &World| world.serving().iter().any(|host| world.up[*host]);
        assert!(crashes || !answered || still(self), "{event:?} has emptied the pool {before:?}");
        let answered = still(self);
        self.look();
        assert!(!answered || still(self), "looking after {event:?} has emptied the pool");
        for host in self.serving() {
            let is_listed = self.listed.iter().any(|mask| mask & (1 << host) != 0);
            assert!(is_listed || self.up[host], "host {host} is down, nobody lists it, and it is there");
        }
    }
}

fn run(events: &[Event]) -> World {
    let mut world = World::new();
    events.iter().for_each(|event| world.step(event));
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_source_empties_a_pool_and_the_dead_go(events in vec(event(), 1..60)) {
        let world = run(&events);
        prop_assert_eq!(world.trace, run(&events).trace, "the same twice");
    }

    #[test]
    fn in_calm_the_list_is_what_the_sources_say(events in vec(event(), 1..40), last in 1..=63u8, alive in 0..HOSTS) {
        let mut world = run(&events);
        (world.up[alive], world.takes_links[alive]) = (true, true);
        world.step(&Event::Says(0, last | (1 << alive), 0, 0, 0));
        world.step(&Event::Says(1, last, 0, 0, 0));
        for _ in 0..3 {
            world.step(&Event::Waits(10));
        }
        let listed: Vec<usize> = (0..HOSTS).filter(|host| (last | (1 << alive)) & (1 << host) != 0).collect();
        prop_assert_eq!(world.serving(), listed);
        prop_assert!(world.catalog.held.is_empty());
    }

    #[test]
    fn one_of_many_leaves_at_once(leaves in 0..HOSTS, events in vec(event(), 0..20)) {
        let mut world = run(&events);
        (world.up, world.takes_links) = ([true; HOSTS], [true; HOSTS]);
        for source in 0..2 {
            world.step(&Event::Says(source, 63, 0, 0, 0));
        }
        world.step(&Event::Waits(1));
        for source in 0..2 {
            world.tell(&Event::Says(source, 63 & !(1 << leaves), 0, 0, 0));
        }
        world.settle();
        prop_assert!(!world.serving().contains(&leaves));
        prop_assert_eq!(world.serving().len(), HOSTS - 1);
    }
}

proptest! {
    #[test]
    fn a_live_endpoint_leaves_at_once_beside_dead_ones(dead in 0..=31u8, leaves in 0..HOSTS, events in vec(event(), 0..20)) {
        let mut world = run(&events);
        let is_dead = |host: usize| host != leaves && dead & (1 << host) != 0;
        for host in 0..HOSTS {
            (world.up[host], world.takes_links[host]) = (!is_dead(host), !is_dead(host));
        }
        for source in 0..2 {
            world.step(&Event::Says(source, 63, 0, 0, 0));
        }
        // Endpoints that left earlier are no measure any more.
        world.step(&Event::Waits(10));
        world.step(&Event::Waits(10));
        for source in 0..2 {
            world.tell(&Event::Says(source, 63 & !(1 << leaves), 0, 0, 0));
        }
        world.settle();
        let live = (0..HOSTS).filter(|host| !is_dead(*host)).count();
        // Without another live one it stays: no source empties a pool.
        prop_assert_eq!(world.serving().contains(&leaves), live < 2);
    }
}

#[test]
fn the_sweep_reaches_every_way_out() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut all = Reached::default();
    for _ in 0..200 {
        let events = vec(event(), 40).new_tree(&mut runner).unwrap().current();
        let Reached { held, silent, confirmed, ordinary } = run(&events).reached;
        all.held += held;
        all.silent += silent;
        all.confirmed += confirmed;
        all.ordinary += ordinary;
    }
    let Reached { held, silent, confirmed, ordinary } = all;
    assert!(held > 100 && silent > 100 && confirmed > 50 && ordinary > 20, "{all:?}");
}
