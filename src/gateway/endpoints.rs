//! The endpoints of the services, for the operator's pages: who they are, who tells of them, how they stand.

use super::state::{State, service_id};
use crate::admin::{EndpointShown, Outcome};
use crate::base::text::shown;
use crate::control::discovery::ServiceReport;
use crate::routing::{Decided, EndpointReport, Instance, Member, Source, SourceReport, Standing};
use crate::telemetry::{Kind, Sample};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Endpoints that one answer lists; the rest is counted.
const SHOWN_MAX: usize = 10_000;
/// Endpoints of all services that have lines of their own among the metrics; the rest is summed for each service.
const SAMPLED_MAX: usize = 1_000;

const LINKS: (&str, &str) = ("moorgate_endpoint_links", "Ready links to an endpoint, over all workers.");
const EJECTED: (&str, &str) =
    ("moorgate_endpoint_ejected", "1 while the endpoint is ejected for its failures.");

/// The text of one source's error, a zone, or a tag, as far as it is shown.
const ERROR_BYTES_MAX: usize = 256;
const WORD_BYTES_MAX: usize = 64;
/// Tags of one endpoint that are shown; of the rest it is told how many there are.
const TAGS_SHOWN_MAX: usize = 8;

/// What a standing is called.
fn standing(member: &Member) -> &'static str {
    match member.instance.standing {
        Standing::In => "in",
        Standing::Doubted => "doubted",
        Standing::Leaving => "leaving",
    }
}

impl State {
    /// What `/endpoints` lists.
    pub(super) fn list_endpoints(&self) -> Outcome {
        let (reports, services) = (self.reports(), 0..self.services.len());
        let all = services.flat_map(|at| self.endpoints_of(at, &reports));
        let mut endpoints: Vec<EndpointShown> = all.collect();
        let total = endpoints.len() as u64;
        endpoints.truncate(SHOWN_MAX);
        let notes = failures(&self.failed_discovery().unwrap_or_default());
        Outcome::Endpoints { endpoints, total, notes }
    }

    /// The endpoints of one service.
    pub(super) fn endpoints_of(&self, at: usize, reports: &[ServiceReport]) -> Vec<EndpointShown> {
        let service = self.services.get(at).cloned().unwrap_or_default();
        let members = self.pools.members(service_id(at));
        let known: HashMap<SocketAddr, &EndpointReport> = of_service(reports, at)
            .flat_map(|report| &report.catalog.endpoints)
            .map(|told| (told.instance.address, told))
            .collect();
        let all = members.iter().map(|member| {
            let instance = &member.instance;
            let told = known.get(&instance.address);
            EndpointShown {
                service: service.clone(),
                id: member.id.0,
                address: instance.address.to_string(),
                weight: instance.weight,
                zone: shown(&instance.zone, WORD_BYTES_MAX),
                tags: tags(instance),
                standing: standing(member),
                links: member.vitals.links.load(Ordering::Relaxed),
                ejected: self.ejected(member),
                sources: told.map_or_else(|| vec![Source::Fixed.to_string()], |told| said(told)),
            }
        });
        all.collect()
    }

    /// For how much longer an endpoint is ejected.
    fn ejected(&self, member: &Member) -> Option<Duration> {
        let until = member.vitals.ejected_until.load(Ordering::Relaxed);
        let now = self.clock.read().mono.since(moorgate_proto::time::Mono::ZERO);
        let left = Duration::from_nanos(until).saturating_sub(now);
        (!left.is_zero()).then_some(left)
    }

    /// What the metrics say of endpoints and of their sources.
    pub(super) fn endpoint_samples(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        for at in 0..self.services.len() {
            samples.extend(self.standing_samples(at));
        }
        let (mut links, mut ejected) = (Vec::new(), Vec::new());
        let all: Vec<_> = (0..self.services.len()).map(|at| self.pools.members(service_id(at))).collect();
        let room = parts(SAMPLED_MAX, &all.iter().map(|members| members.len()).collect::<Vec<_>>());
        for ((service, members), room) in self.services.iter().zip(&all).zip(room) {
            let (own, summed) = members.split_at(room.min(members.len()));
            for member in own {
                let label = format!("service=\"{service}\",endpoint=\"{}\"", member.instance.address);
                let count = u64::from(member.vitals.links.load(Ordering::Relaxed));
                links.push(gauge(LINKS, label.clone(), count));
                ejected.push(gauge(EJECTED, label, u64::from(self.ejected(member).is_some())));
            }
            if !summed.is_empty() {
                // The same whatever their number, so that it stays one series.
                let label = || format!("service=\"{service}\",endpoint=\"others\"");
                let count = |of: &dyn Fn(&Member) -> u64| summed.iter().map(of).sum();
                let all = count(&|member| u64::from(member.vitals.links.load(Ordering::Relaxed)));
                links.push(gauge(LINKS, label(), all));
                ejected.push(gauge(EJECTED, label(), count(&|one| u64::from(self.ejected(one).is_some()))));
            }
        }
        samples.extend(links);
        samples.extend(ejected);
        samples.extend(self.decided_samples());
        samples.extend(self.canary_samples());
        samples.extend(self.failed_discovery().map(|failed| discovery_sample(&failed)));
        samples.extend(self.source_samples());
        samples
    }

    fn standing_samples(&self, at: usize) -> Vec<Sample> {
        let members = self.pools.members(service_id(at));
        let service = self.services.get(at).map(String::as_str).unwrap_or_default();
        let counted = ["in", "doubted", "leaving"].map(|name| {
            let count = members.iter().filter(|member| standing(member) == name).count();
            let label = format!("service=\"{service}\",standing=\"{name}\"");
            gauge(
                ("moorgate_service_endpoints", "Endpoints of a service, by what its sources say."),
                label,
                count as u64,
            )
        });
        counted.into()
    }

    fn decided_samples(&self) -> Vec<Sample> {
        let of = |(at, service): (usize, &String)| {
            Decided::ALL.map(|(what, name)| Sample {
                kind: Kind::Counter,
                metric: "moorgate_endpoint_decisions_total",
                label: format!("service=\"{service}\",what=\"{name}\""),
                help: "Endpoints that were ejected, spared since too many were, kept out after a probe, or taken back; calls that \
                       found all at their bounds, where those follow the latency.",
                value: self.pools.decided(service_id(at), what),
            })
        };
        self.services.iter().enumerate().flat_map(of).collect()
    }

    fn canary_samples(&self) -> Vec<Sample> {
        let of = |(at, service): (usize, &String)| {
            let share = self.pools.canary_share(service_id(at));
            let what = (
                "moorgate_canary_share_basis_points",
                "Users who go to the canary, in hundredths of a percent.",
            );
            let label = format!("service=\"{service}\"");
            self.has_canary.get(at).is_some_and(|has| *has).then(|| gauge(what, label, u64::from(share)))
        };
        self.services.iter().enumerate().filter_map(of).collect()
    }

    fn source_samples(&self) -> Vec<Sample> {
        type Value = fn(&SourceReport) -> Option<u64>;
        const VALUES: [((&str, &str), Value); 4] = [
            (
                ("moorgate_source_up", "1 when the last answer of a source of endpoints was a list."),
                |source| Some(u64::from(source.is_up)),
            ),
            (("moorgate_source_endpoints", "Endpoints in the last list of a source."), |source| {
                Some(source.endpoints as u64)
            }),
            (
                (
                    "moorgate_source_held_endpoints",
                    "Endpoints that a source lists no more and that are kept, since they answer.",
                ),
                |source| Some(source.held as u64),
            ),
            (("moorgate_source_age_seconds", "Time since the last list of a source."), |source| {
                source.age.map(|age| age.as_secs())
            }),
        ];
        let reports = self.reports();
        let mut samples = Vec::new();
        for (what, value) in VALUES {
            for ServiceReport { name, catalog, .. } in &reports {
                for source in &catalog.sources {
                    let label = format!("service=\"{name}\",source=\"{}\"", source.source);
                    samples.extend(value(source).map(|value| gauge(what, label, value)));
                }
            }
        }
        samples
    }
}

/// Divides `room` among those that want so many each: evenly, and what some do not need goes to the others.
fn parts(room: usize, wanted: &[usize]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|at| wanted.get(*at).copied());
    let mut parts = vec![0; wanted.len()];
    let (mut room, mut takers) = (room, wanted.len());
    for at in order {
        let wants = wanted.get(at).copied().unwrap_or_default();
        let part = wants.min(room.checked_div(takers).unwrap_or_default());
        if let Some(place) = parts.get_mut(at) {
            *place = part;
        }
        room = room.saturating_sub(part);
        takers = takers.saturating_sub(1);
    }
    parts
}

/// What discovery says of one service: at most one report.
fn of_service(reports: &[ServiceReport], at: usize) -> impl Iterator<Item = &ServiceReport> {
    reports.iter().filter(move |report| report.service == service_id(at))
}

/// What each source says of a service, a sentence each.
pub(super) fn sources_of(reports: &[ServiceReport], at: usize) -> Vec<String> {
    of_service(reports, at).flat_map(|report| &report.catalog.sources).map(say).collect()
}

/// What is told where endpoints are looked at, a sentence for each thread that has failed.
pub(super) fn failures(failed: &[String]) -> Vec<String> {
    let say = |name: &String| {
        format!(
            "the thread `{name}` of the discovery has failed, and what it did is not done any more; restart the gateway"
        )
    };
    failed.iter().map(say).collect()
}

fn discovery_sample(failed: &[String]) -> Sample {
    const WHAT: (&str, &str) = (
        "moorgate_discovery_up",
        "0 when a thread that looks for endpoints has failed: restart the gateway.",
    );
    gauge(WHAT, String::new(), u64::from(failed.is_empty()))
}

fn gauge((metric, help): (&'static str, &'static str), label: String, value: u64) -> Sample {
    Sample { kind: Kind::Gauge, metric, label, help, value }
}

/// Who tells of an endpoint, and what is known of it beside that.
fn said(told: &EndpointReport) -> Vec<String> {
    let mut said: Vec<String> = told.sources.iter().map(|source| source.to_string()).collect();
    if let Some(held) = told.held {
        let time = humantime::format_duration(Duration::from_secs(held.as_secs()));
        said.push(format!("held for {time} though nobody lists it"));
    }
    match told.answers {
        Some(true) => said.push("answers".to_owned()),
        Some(false) => said.push("does not answer".to_owned()),
        None => {}
    }
    said
}

/// The first few tags, as they can be shown.
fn tags(instance: &Instance) -> Vec<String> {
    let more = instance.tags.len().saturating_sub(TAGS_SHOWN_MAX);
    let first = instance.tags.iter().take(TAGS_SHOWN_MAX).map(|tag| shown(tag, WORD_BYTES_MAX));
    first.chain((more > 0).then(|| format!("and {more} more"))).collect()
}

/// How a source is.
fn say(source: &SourceReport) -> String {
    let (name, count) = (source.source, source.endpoints);
    let time = |age: Duration| humantime::format_duration(Duration::from_secs(age.as_secs())).to_string();
    let error = source.error.as_ref().map(|error| shown(error, ERROR_BYTES_MAX));
    let mut said = match (error, source.age) {
        (Some(error), Some(age)) => {
            format!("{name} fails: {error}; its last list is {} old and has {count}", time(age))
        }
        (Some(error), None) => format!("{name} fails, and has never given a list: {error}"),
        (None, Some(_)) if source.is_up => format!("{name} lists {count}"),
        (None, Some(age)) => format!(
            "{name} has not answered yet; {count} from before the restart count, of a list that is {} old",
            time(age)
        ),
        (None, None) => format!("{name} has not answered yet"),
    };
    if source.held > 0 {
        said.push_str(&format!("; {} that it lists no more are kept, since they answer", source.held));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::counters::Totals;
    use crate::telemetry::render;

    #[test]
    fn very_many_endpoints_are_summed_and_that_is_told() {
        let state = State::dev();
        let at = |number: usize| {
            let [_, _, high, low] = u32::try_from(number).unwrap().to_be_bytes();
            Instance::at(SocketAddr::from(([10, 0, high, low], 7100)))
        };
        let many: Vec<Instance> = (0..SAMPLED_MAX + 500).map(at).collect();
        state.pools.publish(service_id(0), &many);
        for member in state.pools.members(service_id(0)).iter() {
            member.vitals.links.store(2, Ordering::Relaxed);
        }
        let page = render(&Totals::default(), &state.endpoint_samples());
        let links: Vec<&str> =
            page.lines().filter(|line| line.starts_with("moorgate_endpoint_links{")).collect();
        assert_eq!(links.len(), SAMPLED_MAX + 1, "echo has what the two others leave, and a sum");
        assert!(links.contains(&"moorgate_endpoint_links{service=\"echo\",endpoint=\"others\"} 1004"));
        assert!(links.contains(&"moorgate_endpoint_links{service=\"chat\",endpoint=\"127.0.0.1:1\"} 0"));
        assert!(page.contains("moorgate_service_endpoints{service=\"echo\",standing=\"in\"} 1500\n"));
        let Outcome::Endpoints { endpoints, total, .. } = state.list_endpoints() else {
            panic!("another outcome")
        };
        assert_eq!((endpoints.len(), total), (1502, 1502));
        assert_eq!(endpoints.first().unwrap().sources, ["config"]);
    }

    #[test]
    fn an_ejection_is_told_while_it_lasts() {
        let state = State::dev();
        let members = state.pools.members(service_id(0));
        let member = members.first().unwrap();
        assert_eq!(state.ejected(member), None);
        member.vitals.ejected_until.store(u64::MAX, Ordering::Relaxed);
        assert!(state.ejected(member).is_some_and(|left| left > Duration::from_secs(3600)));
        let page = render(&Totals::default(), &state.endpoint_samples());
        assert!(page.contains("moorgate_endpoint_ejected{service=\"echo\",endpoint=\"127.0.0.1:1\"} 1\n"));
        assert!(page.contains("moorgate_endpoint_decisions_total{service=\"echo\",what=\"ejected\"} 0\n"));
        member.vitals.ejected_until.store(1, Ordering::Relaxed);
        assert_eq!(state.ejected(member), None, "it is over");
    }
    #[test]
    fn a_service_with_very_many_takes_no_lines_from_the_others() {
        assert_eq!(parts(1000, &[5000, 1, 600, 700]), [333, 1, 333, 333]);
        assert_eq!(parts(1000, &[5000, 100, 500]), [450, 100, 450]);
        assert_eq!(parts(1000, &[3, 2]), [3, 2]);
        assert_eq!(parts(10, &[]), [0; 0]);
        assert_eq!(parts(1, &[5, 5, 5]).iter().sum::<usize>(), 1);
    }

    fn source(is_up: bool, age: Option<u64>, error: Option<&str>) -> SourceReport {
        let (age, error) = (age.map(Duration::from_secs), error.map(str::to_owned));
        SourceReport { source: Source::Consul, is_up, endpoints: 3, held: 0, age, error }
    }

    #[test]
    fn a_source_that_has_not_answered_is_not_said_to_list() {
        let cases = [
            (source(true, Some(5), None), "consul lists 3"),
            (
                source(false, Some(90), None),
                "consul has not answered yet; 3 from before the restart count, of a list that is 1m 30s old",
            ),
            (source(false, None, None), "consul has not answered yet"),
            (source(false, Some(5), Some("no")), "consul fails: no; its last list is 5s old and has 3"),
        ];
        for (source, expected) in cases {
            assert_eq!(say(&source), expected);
        }
    }

    #[test]
    fn what_others_wrote_is_escaped_and_bounded() {
        let state = State::dev();
        let (hostile, long) = ("\x1b[2J\n", "x".repeat(2 << 20));
        let tags = (0..100).map(|at| format!("{at}\r{long}").into()).collect();
        let at = Instance::at(SocketAddr::from(([10, 0, 0, 1], 7100)));
        state.pools.publish(service_id(0), &[Instance { zone: hostile.into(), tags, ..at }]);
        let listed = state.endpoints_of(0, &[]);
        let one = listed.first().unwrap();
        assert_eq!(one.zone, "\\u{1b}[2J\\n");
        assert!(one.tags.iter().all(|tag| tag.len() < 100 && !tag.contains(char::is_control)));
        assert_eq!((one.tags.len(), one.tags.last().unwrap().as_str()), (9, "and 92 more"));
        let failing = say(&source(false, None, Some(&format!("{hostile}{long}"))));
        assert!(failing.contains("\\u{1b}[2J\\n") && failing.len() < 400, "{} bytes", failing.len());
    }
    #[test]
    fn a_thread_that_has_failed_shows() {
        let failed = ["consul".to_owned()];
        assert_eq!(
            failures(&failed),
            [
                "the thread `consul` of the discovery has failed, and what it did is not done any more; restart the gateway"
            ]
        );
        let page = |failed: &[String]| render(&Totals::default(), &[discovery_sample(failed)]);
        assert!(page(&failed).contains("\nmoorgate_discovery_up 0\n"));
        assert!(page(&[]).contains("\nmoorgate_discovery_up 1\n"));
        let page = render(&Totals::default(), &State::dev().endpoint_samples());
        assert!(!page.contains("moorgate_discovery_up"), "nothing is looked for, nothing is said of it");
    }
}
