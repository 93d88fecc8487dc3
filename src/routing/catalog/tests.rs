//! Each rule of the catalog by itself.

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const SETTINGS: CatalogSettings = CatalogSettings { confirm: Duration::from_secs(30), fall: 3, rise: 2 };

fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], 7100))
}

fn list(hosts: &[u8]) -> Vec<Instance> {
    hosts.iter().map(|host| Instance::at(address(*host))).collect()
}

fn with(host: u8, standing: Standing) -> Instance {
    Instance { standing, ..Instance::at(address(host)) }
}

/// A catalog and its clock.
struct Bench {
    catalog: Catalog,
    now: Now,
    notes: Vec<Note>,
}

impl Bench {
    fn of(sources: &[Source]) -> Bench {
        let catalog = Catalog::new(SETTINGS, sources.iter().copied().collect());
        Bench { catalog, now: Now { mono: Mono::ZERO, unix_ms: 1_000_000 }, notes: Vec::new() }
    }

    /// One source that has listed these, all of which answer.
    fn listed(hosts: &[u8]) -> Bench {
        let mut bench = Bench::of(&[Source::Consul]);
        bench.says(Source::Consul, list(hosts));
        bench.answer(hosts);
        bench
    }

    fn says(&mut self, source: Source, list: Vec<Instance>) -> Vec<u8> {
        self.catalog.answer(self.now, source, Ok(list.into()));
        self.settle()
    }

    fn fails(&mut self, source: Source) -> Vec<u8> {
        self.catalog.answer(self.now, source, Err("no answer".to_owned()));
        self.settle()
    }

    fn answer(&mut self, hosts: &[u8]) {
        hosts.iter().for_each(|host| self.catalog.linked(address(*host), true));
        self.settle();
    }

    /// The links are gone and probes fail.
    fn fall_silent(&mut self, hosts: &[u8]) -> Vec<u8> {
        for host in hosts {
            self.catalog.linked(address(*host), false);
            (0..3).for_each(|_| self.catalog.probed(address(*host), false));
        }
        self.settle()
    }

    fn wait(&mut self, time: Duration) -> Vec<u8> {
        self.now.mono = self.now.mono + time;
        self.now.unix_ms += u64::try_from(time.as_millis()).unwrap();
        self.settle()
    }

    /// Who gets calls.
    fn settle(&mut self) -> Vec<u8> {
        let settled = self.catalog.settle(self.now);
        self.notes.extend(settled.notes);
        let last = |instance: &Instance| match instance.address {
            SocketAddr::V4(address) => address.ip().octets()[3],
            SocketAddr::V6(_) => 0,
        };
        let published = self.catalog.published.values();
        published.filter(|instance| instance.standing != Standing::Leaving).map(last).collect()
    }

    fn held(&mut self) -> usize {
        self.catalog.report(self.now).sources.iter().map(|source| source.held).sum()
    }
}

#[test]
fn lists_are_merged_again_only_when_a_source_says_something_else() {
    let mut bench = Bench::listed(&[1, 2, 3, 4]);
    assert!(bench.catalog.is_as_it_was());
    bench.catalog.answer(bench.now, Source::Consul, Ok(list(&[1, 2, 3, 4]).into()));
    bench.catalog.probed(address(1), false);
    bench.catalog.linked(address(2), false);
    assert!(bench.catalog.is_as_it_was(), "health alone changes nothing of what is listed");
    bench.catalog.answer(bench.now, Source::Consul, Ok(list(&[1]).into()));
    assert!(!bench.catalog.is_as_it_was());
    bench.settle();
    assert!(!bench.catalog.is_as_it_was(), "some are held, and time decides");
}

#[test]
fn an_ordinary_removal_is_obeyed_at_once() {
    let mut bench = Bench::listed(&[1, 2, 3]);
    assert_eq!(bench.says(Source::Consul, list(&[1, 3])), [1, 3]);
    bench.wait(30 * SECOND);
    assert_eq!(bench.says(Source::Consul, list(&[3])), [3], "half of them is enough");
    assert_eq!(bench.held(), 0);
}

#[test]
fn a_registry_does_not_empty_a_pool_by_halves() {
    let mut bench = Bench::listed(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    let mut left = Vec::new();
    for hosts in [&[1u8, 2, 3, 4, 5][..], &[1, 2, 3], &[1, 2], &[1], &[]] {
        bench.wait(SECOND);
        left.push(bench.says(Source::Consul, list(hosts)).len());
    }
    assert_eq!(left, [5; 5], "half of ten leave at once, the others are held");
    assert_eq!(bench.says(Source::Consul, list(&[1, 2])).len(), 5);
    assert_eq!(bench.wait(30 * SECOND), [1, 2], "it has stood");
    assert_eq!(bench.says(Source::Consul, list(&[1])), [1], "and is what is measured by now");
    // One at a time is no other matter.
    let mut bench = Bench::listed(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    for hosts in (0..10u8).rev() {
        bench.wait(SECOND);
        let left = bench.says(Source::Consul, list(&(1..=hosts).collect::<Vec<_>>()));
        assert_eq!(left.len(), usize::from(hosts.max(5)));
    }
}

#[test]
fn newcomers_do_not_leave_by_halves_while_others_are_held() {
    let mut bench = Bench::listed(&[1, 2]);
    bench.says(Source::Consul, vec![]);
    bench.says(Source::Consul, list(&[11, 12, 13, 14, 15, 16, 17, 18]));
    bench.answer(&[11, 12, 13, 14, 15, 16, 17, 18]);
    let left = [&[11u8, 12, 13, 14][..], &[11, 12], &[11], &[]]
        .map(|hosts| bench.says(Source::Consul, list(hosts)).len());
    assert_eq!(left, [6; 4], "two that are held, and half of eight");
}

#[test]
fn a_registry_cannot_take_all_weights_away_either() {
    let weighing = |weights: &[(u8, u32)]| -> Vec<Instance> {
        let one = |(host, weight): &(u8, u32)| Instance { weight: *weight, ..Instance::at(address(*host)) };
        weights.iter().map(one).collect()
    };
    let mut bench = Bench::of(&[Source::Nacos]);
    bench.says(Source::Nacos, weighing(&[(1, 70), (2, 70), (3, 0)]));
    bench.answer(&[1, 2, 3]);
    let weights = |bench: &Bench| -> Vec<u32> {
        bench.catalog.published.values().map(|instance| instance.weight).collect()
    };
    bench.says(Source::Nacos, weighing(&[(1, 0), (2, 0), (3, 0)]));
    assert_eq!((weights(&bench), bench.held()), (vec![70, 70, 0], 2), "the third never had one");
    bench.wait(60 * SECOND);
    assert_eq!(weights(&bench), [70, 70, 0], "nobody is left who would take the calls");
    bench.says(Source::Nacos, weighing(&[(1, 0), (2, 50), (3, 0)]));
    assert_eq!((weights(&bench), bench.held()), (vec![0, 50, 0], 0), "half of them may");
    bench.says(Source::Nacos, weighing(&[(1, 0), (2, 0), (3, 0)]));
    assert_eq!(weights(&bench), [0, 50, 0]);
    bench.fall_silent(&[2]);
    assert_eq!(weights(&bench), [0, 0, 0], "who does not answer is not held");
}

#[test]
fn an_empty_list_is_not_believed_while_anybody_answers() {
    let mut bench = Bench::listed(&[1, 2, 3]);
    assert_eq!(bench.says(Source::Consul, vec![]), [1, 2, 3]);
    assert_eq!(bench.held(), 3);
    assert!(
        bench.notes.iter().any(|note| matches!(note, Note::Held { endpoints, .. } if endpoints.len() == 3))
    );
    assert_eq!(bench.wait(3600 * SECOND), [1, 2, 3]);
    assert_eq!(bench.fall_silent(&[2]), [1, 3], "who does not answer goes");
    assert_eq!(bench.says(Source::Consul, list(&[1, 2, 3])), [1, 2, 3]);
    assert_eq!(bench.held(), 0);
    assert_eq!(bench.fall_silent(&[1, 2, 3]), [1, 2, 3], "listed ones are for the pool to judge");
    assert!(bench.says(Source::Consul, vec![]).is_empty());
}

#[test]
fn a_shrunken_list_is_believed_when_it_has_stood_and_answers() {
    let mut bench = Bench::listed(&[1, 2, 3, 4, 5]);
    assert_eq!(bench.says(Source::Consul, list(&[5])), [1, 2, 3, 4, 5]);
    assert_eq!(bench.wait(29 * SECOND), [1, 2, 3, 4, 5]);
    assert_eq!(bench.wait(SECOND), [5]);
    // And not, when none of it answers.
    let mut bench = Bench::listed(&[1, 2, 3, 4, 5]);
    assert_eq!(bench.says(Source::Consul, list(&[9])), [1, 2, 3, 4, 5, 9]);
    assert_eq!(bench.wait(60 * SECOND), [1, 2, 3, 4, 5, 9]);
    bench.answer(&[9]);
    assert_eq!(bench.settle(), [9]);
}

#[test]
fn a_list_does_not_stand_while_its_source_is_down_or_changes_its_mind() {
    let mut bench = Bench::listed(&[1, 2, 3, 4, 5]);
    bench.says(Source::Consul, list(&[5]));
    bench.wait(20 * SECOND);
    assert_eq!(bench.says(Source::Consul, list(&[1, 2, 5])), [1, 2, 5], "most of them are back");
    bench.says(Source::Consul, list(&[1, 2, 3, 4, 5]));
    bench.answer(&[3, 4]);
    bench.says(Source::Consul, list(&[5]));
    bench.fails(Source::Consul);
    assert_eq!(bench.wait(60 * SECOND), [1, 2, 3, 4, 5]);
    assert_eq!(bench.says(Source::Consul, list(&[5])), [5]);
}

#[test]
fn those_who_come_while_others_are_held_are_held_too() {
    let mut bench = Bench::listed(&[1, 2]);
    bench.says(Source::Consul, vec![]);
    assert_eq!(
        bench.says(Source::Consul, list(&[5, 6, 7])),
        [1, 2, 5, 6, 7],
        "other ones are no half of the list"
    );
    bench.answer(&[5, 6, 7]);
    assert_eq!(bench.says(Source::Consul, list(&[5, 6])), [1, 2, 5, 6], "an ordinary removal among them");
    assert_eq!(bench.says(Source::Consul, vec![]), [1, 2, 5, 6]);
    assert_eq!(bench.held(), 4);
}

#[test]
fn a_registry_cannot_send_all_endpoints_away_either() {
    let mut bench = Bench::listed(&[1, 2]);
    let first = vec![with(1, Standing::Leaving), with(2, Standing::In)];
    assert_eq!(bench.says(Source::Consul, first), [2]);
    let standing = bench.catalog.published.values().next().unwrap().standing;
    assert_eq!(standing, Standing::Leaving, "it is published, so that its calls are finished");
    let both = vec![with(1, Standing::Leaving), with(2, Standing::Leaving)];
    assert_eq!(bench.says(Source::Consul, both), [2]);
    assert!(bench.fall_silent(&[2]).is_empty());
    assert_eq!(bench.catalog.published.len(), 2, "listed as leaving");
}

#[test]
fn a_source_that_fails_changes_nothing() {
    let mut bench = Bench::listed(&[1, 2]);
    assert_eq!(bench.fails(Source::Consul), [1, 2]);
    assert_eq!(bench.fails(Source::Consul), [1, 2]);
    let failed = bench.notes.iter().filter(|note| matches!(note, Note::Failed { kept: 2, .. })).count();
    assert_eq!(failed, 1, "told once");
    bench.wait(5 * SECOND);
    let report = bench.catalog.report(bench.now);
    let source = &report.sources[0];
    assert!(!source.is_up && source.endpoints == 2 && source.age == Some(5 * SECOND));
    assert_eq!(source.error.as_deref(), Some("no answer"));
    bench.says(Source::Consul, list(&[1, 2]));
    assert!(bench.notes.contains(&Note::Recovered { source: Source::Consul }));
    assert!(bench.catalog.report(bench.now).sources[0].is_up);
}

#[test]
fn the_lists_of_the_life_before_count_until_their_source_answers() {
    let mut before = Bench::listed(&[1, 2, 3]);
    before.says(Source::Consul, vec![]);
    let kept = before.catalog.to_keep();
    assert_eq!(kept.len(), 1);
    let (source, unix_ms, held) = kept[0].clone();
    assert_eq!((source, unix_ms, held.len()), (Source::Consul, 1_000_000, 3), "held ones are kept");

    let mut bench = Bench::of(&[Source::Consul]);
    bench.now.unix_ms = 1_060_000;
    bench.catalog.recall(source, held, unix_ms);
    assert_eq!(bench.settle(), [1, 2, 3]);
    let report = bench.catalog.report(bench.now);
    assert!(!report.sources[0].is_up && report.sources[0].age == Some(60 * SECOND));
    assert_eq!(bench.fails(Source::Consul), [1, 2, 3]);
    assert_eq!(bench.says(Source::Consul, vec![]), [1, 2, 3], "nobody has been asked whether it answers");
    bench.catalog.probed(address(1), true);
    assert_eq!(bench.fall_silent(&[2, 3]), [1]);
    bench.catalog.recall(Source::Consul, list(&[7]), 1);
    assert_eq!(bench.settle(), [1], "too late");
}

#[test]
fn several_sources_are_one_list() {
    let mut bench = Bench::of(&[Source::Fixed, Source::Dns, Source::Nacos]);
    let told = |text: &str| text.parse::<Instance>().unwrap();
    bench.says(Source::Nacos, vec![told("192.0.2.1:7100 weight=7 zone=n"), told("192.0.2.2:7100 weight=8")]);
    bench.says(Source::Fixed, vec![told("192.0.2.1:7100 weight=5")]);
    bench.says(Source::Dns, list(&[3]));
    let lines = |bench: &Bench| bench.catalog.published.values().map(Instance::to_string).collect::<Vec<_>>();
    assert_eq!(lines(&bench), ["192.0.2.1:7100 weight=5", "192.0.2.2:7100 weight=8", "192.0.2.3:7100"]);
    bench.answer(&[1, 2, 3]);
    assert_eq!(bench.says(Source::Nacos, vec![]), [1, 3], "two of three answer, whoever lists them");
    let report = bench.catalog.report(bench.now);
    assert_eq!(report.endpoints[0].sources, Sources::NONE.with(Source::Fixed));
    assert_eq!(report.endpoints[0].answers, Some(true));
}

#[test]
fn one_good_word_is_enough() {
    let standing = |dns: Standing, nacos: Standing| {
        let mut bench = Bench::of(&[Source::Dns, Source::Nacos]);
        bench.catalog.answer(bench.now, Source::Dns, Ok(vec![with(1, dns)].into()));
        bench.says(Source::Nacos, vec![with(1, nacos)]);
        bench.catalog.published.values().next().unwrap().standing
    };
    use Standing::{Doubted, In, Leaving};
    assert_eq!(standing(Doubted, In), In);
    assert_eq!(standing(Doubted, Doubted), Doubted);
    assert_eq!(standing(Leaving, In), In);
    assert_eq!(standing(Doubted, Leaving), Leaving);
    assert_eq!(standing(Leaving, Leaving), Leaving);
}

#[test]
fn what_cannot_be_used_is_left_out() {
    let mut bench = Bench::of(&[Source::File]);
    let at = |text: &str| Instance::at(text.parse().unwrap());
    let mut heavy = at("192.0.2.1:7100");
    heavy.weight = u32::MAX;
    let odd = ["192.0.2.9:0", "0.0.0.0:7100", "[::]:7100", "224.0.0.1:7100", "[::ffff:192.0.2.1]:7100"];
    let list = std::iter::once(heavy).chain(odd.map(at)).collect();
    assert_eq!(bench.says(Source::File, list), [1]);
    assert_eq!(bench.catalog.published.values().next().unwrap().weight, Instance::WEIGHT_MAX);
    let told =
        |bench: &Bench| bench.notes.iter().filter(|note| matches!(note, Note::Rejected { .. })).count();
    assert_eq!((bench.catalog.report(bench.now).sources[0].rejected, told(&bench)), (4, 1));
    let line = bench.notes.iter().find(|note| note.is_warning()).unwrap().to_string();
    assert!(
        line.starts_with(
            "file: rejected elements: 4; the others are used: 0.0.0.0:7100 is an unspecified address; write"
        ) && line.contains("; 192.0.2.9:0 has port 0; ")
            && line.contains("; 224.0.0.1:7100 is a multicast"),
        "{line}"
    );
    assert!(bench.says(Source::Nacos, vec![at("192.0.2.2:7100")]) == [1], "not a source of this service");
}

#[test]
fn rejected_elements_are_logged_when_they_change() {
    let mut bench = Bench::listed(&[1, 2]);
    let mut answer = |reasons: &[&str]| {
        let mut rejected = Rejected::default();
        reasons.iter().for_each(|reason| rejected.add(reason));
        bench.catalog.answer(bench.now, Source::Consul, Ok(SourceList { rejected, ..list(&[1, 2]).into() }));
        let notes = bench.catalog.settle(bench.now).notes;
        let lines: Vec<String> = notes.iter().map(|note| format!("{} {note}", note.is_warning())).collect();
        lines.join("\n")
    };
    assert_eq!(answer(&["x: bad"]), "true consul: rejected elements: 1; the others are used: x: bad");
    assert_eq!(answer(&["x: bad"]), "", "once");
    assert_eq!(answer(&["y: bad"]), "true consul: rejected elements: 1; the others are used: y: bad");
    assert_eq!(answer(&[]), "false consul: every element of its answer is used again");
    assert_eq!(bench.catalog.report(bench.now).sources[0].rejected, 0);
}

#[test]
fn trimmed_endpoints_are_logged_when_they_change() {
    let mut bench = Bench::listed(&[1, 2]);
    let mut answer = |reasons: &[&str]| {
        let mut trimmed = Rejected::default();
        reasons.iter().for_each(|reason| trimmed.add(reason));
        bench.catalog.answer(bench.now, Source::Consul, Ok(SourceList { trimmed, ..list(&[1, 2]).into() }));
        let notes = bench.catalog.settle(bench.now).notes;
        notes.iter().map(|note| format!("{} {note}", note.is_warning())).collect::<Vec<_>>().join("\n")
    };
    let told = answer(&["x without tags"]);
    let start =
        "true consul: endpoints used without some zones or tags: 1: x without tags; these are 1 to 64 bytes";
    assert!(told.starts_with(start), "{told}");
    assert_eq!(answer(&["x without tags"]), "", "once");
    assert_eq!(answer(&[]), "false consul: zones and tags of all endpoints are used again");
}

/// What is noted of whether there are endpoints at all.
fn availability(bench: &mut Bench) -> Vec<Note> {
    let notes = std::mem::take(&mut bench.notes);
    let is_it = |note: &Note| matches!(note, Note::NoEndpoint | Note::HasEndpoints { .. });
    notes.into_iter().filter(is_it).collect()
}

#[test]
fn service_without_endpoints_is_logged_once_per_change() {
    let mut bench = Bench::of(&[Source::Dns]);
    bench.wait(SECOND);
    assert_eq!(availability(&mut bench), [], "nobody has answered yet");
    bench.says(Source::Dns, vec![]);
    assert_eq!(availability(&mut bench), [Note::NoEndpoint]);
    assert!(Note::NoEndpoint.is_warning() && !Note::HasEndpoints { endpoints: 1 }.is_warning());
    (0..3).for_each(|_| drop(bench.says(Source::Dns, vec![])));
    bench.fails(Source::Dns);
    bench.wait(SECOND);
    assert_eq!(availability(&mut bench), [], "once");
    bench.says(Source::Dns, list(&[1, 2]));
    assert_eq!(availability(&mut bench), [Note::HasEndpoints { endpoints: 2 }]);
    bench.says(Source::Dns, vec![]);
    assert_eq!(availability(&mut bench), [], "held as long as they may answer");
    bench.fall_silent(&[1, 2]);
    assert_eq!(availability(&mut bench), [Note::NoEndpoint]);
}

#[test]
fn service_lacks_endpoints_only_when_all_sources_have_none() {
    let mut bench = Bench::of(&[Source::Dns, Source::Consul]);
    bench.says(Source::Dns, vec![]);
    assert_eq!(availability(&mut bench), [], "the other one has yet to answer");
    bench.fails(Source::Consul);
    assert_eq!(availability(&mut bench), [Note::NoEndpoint]);
    bench.says(Source::Consul, vec![with(1, Standing::Leaving)]);
    assert_eq!(availability(&mut bench), [], "one that leaves takes no calls");
    bench.says(Source::Consul, list(&[1]));
    assert_eq!(availability(&mut bench), [Note::HasEndpoints { endpoints: 1 }]);
    // That all of them fail is logged as such.
    let mut failing = Bench::of(&[Source::Dns]);
    failing.fails(Source::Dns);
    assert_eq!(availability(&mut failing), []);
    // The list of the last process is used until it is replaced.
    let mut recalled = Bench::of(&[Source::Consul]);
    recalled.catalog.recall(Source::Consul, list(&[1]), 1);
    recalled.wait(SECOND);
    recalled.says(Source::Consul, vec![]);
    assert_eq!(availability(&mut recalled), []);
    recalled.fall_silent(&[1]);
    assert_eq!(availability(&mut recalled), [Note::NoEndpoint]);
}

#[test]
fn dead_endpoints_hold_no_removal_of_live_ones() {
    // As it is within seconds of a start: the dead have refused one probe each.
    let mut fresh = Bench::of(&[Source::Consul]);
    fresh.says(Source::Consul, list(&[1, 2, 3, 4, 5, 6, 7, 8]));
    fresh.answer(&[1, 2, 3]);
    (4..=8).for_each(|host| fresh.catalog.probed(address(host), false));
    assert_eq!(fresh.says(Source::Consul, list(&[2, 3, 4, 5, 6, 7, 8])), [2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(fresh.held(), 0);
    // Later, when they are silent: they leave, and are no measure afterwards.
    let mut bench = Bench::listed(&[1, 2, 3, 4, 5, 6, 7, 8]);
    bench.fall_silent(&[4, 5, 6, 7, 8]);
    bench.wait(60 * SECOND);
    assert_eq!(bench.says(Source::Consul, list(&[1, 2, 3])), [1, 2, 3]);
    assert_eq!(bench.says(Source::Consul, list(&[1, 2])), [1, 2]);
    assert_eq!(bench.says(Source::Consul, list(&[1])), [1, 2], "one of three live ones is less than half");
    // Endpoints that were neither linked nor probed yet count as live.
    let mut unknown = Bench::of(&[Source::Consul]);
    unknown.says(Source::Consul, list(&[1, 2, 3, 4]));
    unknown.answer(&[1]);
    assert_eq!(unknown.says(Source::Consul, list(&[1])), [1, 2, 3, 4], "links to them may be on their way");
}

#[test]
fn another_list_of_full_size_is_within_the_bound() {
    let many = |first: u32, count: usize| -> Vec<Instance> {
        let at = |host: u32| Instance::at((std::net::Ipv4Addr::from(0x0a00_0000 + host), 7100).into());
        (first..).take(count).map(at).collect()
    };
    let mut bench = Bench::of(&[Source::Dns]);
    let full = many(0, Catalog::ENDPOINTS_MAX);
    bench.says(Source::Dns, full.clone());
    full.iter().for_each(|instance| bench.catalog.linked(instance.address, true));
    for (first, count) in [(4, 4096), (0, 4100), (100_000, 4096), (200_000, 10), (50, 5000)] {
        bench.says(Source::Dns, many(first, count));
        assert!(bench.catalog.published.len() <= Catalog::ENDPOINTS_MAX, "{first} {count}");
        bench.wait(SECOND);
        assert!(bench.catalog.published.len() <= Catalog::ENDPOINTS_MAX, "{first} {count}");
    }
}

#[test]
fn a_list_without_end_is_bounded_and_those_who_were_there_stay() {
    let mut bench = Bench::of(&[Source::Dns]);
    let many = |hosts: std::ops::Range<u32>| -> Vec<Instance> {
        hosts.map(|host| Instance::at((std::net::Ipv4Addr::from(0x0a00_0000 + host), 7100).into())).collect()
    };
    bench.says(Source::Dns, many(10_000..10_010));
    bench.says(Source::Dns, many(1..10_010));
    assert_eq!(bench.catalog.published.len(), Catalog::ENDPOINTS_MAX);
    let last = many(10_009..10_010)[0].address;
    assert!(bench.catalog.published.contains_key(&last));
    assert_eq!(bench.catalog.report(bench.now).left_out, 10_009 - Catalog::ENDPOINTS_MAX);
    assert!(bench.notes.contains(&Note::Over { left_out: 10_009 - Catalog::ENDPOINTS_MAX }));
    bench.catalog.linked(last, true);
    bench.says(Source::Dns, vec![]);
    bench.says(Source::Dns, many(20_000..30_000));
    assert!(bench.catalog.published.contains_key(&last), "held");
    assert_eq!(bench.catalog.published.len(), Catalog::ENDPOINTS_MAX);
}

#[test]
fn only_what_has_changed_is_published() {
    let mut bench = Bench::listed(&[1, 2]);
    let settled = bench.catalog.settle(bench.now);
    assert_eq!(settled, Settled::default());
    bench.catalog.answer(bench.now, Source::Consul, Ok(list(&[2, 1]).into()));
    assert_eq!(bench.catalog.settle(bench.now), Settled::default(), "another order is no change");
    assert_eq!(bench.catalog.unlinked().count(), 0);
    bench.catalog.linked(address(2), false);
    assert_eq!(bench.catalog.unlinked().collect::<Vec<_>>(), [address(2)]);
}
