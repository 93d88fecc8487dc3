//! The endpoints of the services, for the operator's pages: who they are, who tells of them, how they stand.

use super::state::{State, service_id};
use crate::admin::{EndpointShown, Outcome};
use crate::control::discovery::ServiceReport;
use crate::routing::{Decided, EndpointReport, Member, Source, SourceReport, Standing};
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
        let shown = services.flat_map(|at| self.endpoints_of(at, &reports));
        let mut endpoints: Vec<EndpointShown> = shown.collect();
        let total = endpoints.len() as u64;
        endpoints.truncate(SHOWN_MAX);
        Outcome::Endpoints { endpoints, total }
    }

    /// The endpoints of one service.
    pub(super) fn endpoints_of(&self, at: usize, reports: &[ServiceReport]) -> Vec<EndpointShown> {
        let service = self.services.get(at).cloned().unwrap_or_default();
        let members = self.pools.members(service_id(at));
        let known: HashMap<SocketAddr, &EndpointReport> = of_service(reports, at)
            .flat_map(|report| &report.catalog.endpoints)
            .map(|told| (told.instance.address, told))
            .collect();
        let shown = members.iter().map(|member| {
            let instance = &member.instance;
            let told = known.get(&instance.address);
            EndpointShown {
                service: service.clone(),
                id: member.id.0,
                address: instance.address.to_string(),
                weight: instance.weight,
                zone: instance.zone.to_string(),
                tags: instance.tags.iter().map(ToString::to_string).collect(),
                standing: standing(member),
                links: member.vitals.links.load(Ordering::Relaxed),
                ejected: self.ejected(member),
                sources: told.map_or_else(|| vec![Source::Fixed.to_string()], |told| said(told)),
            }
        });
        shown.collect()
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
        let (mut links, mut ejected, mut room) = (Vec::new(), Vec::new(), SAMPLED_MAX);
        for (at, service) in self.services.iter().enumerate() {
            let members = self.pools.members(service_id(at));
            let (own, summed) = members.split_at(room.min(members.len()));
            room = room.saturating_sub(own.len());
            for member in own {
                let label = format!("service=\"{service}\",endpoint=\"{}\"", member.instance.address);
                let count = u64::from(member.vitals.links.load(Ordering::Relaxed));
                links.push(gauge(LINKS, label.clone(), count));
                ejected.push(gauge(EJECTED, label, u64::from(self.ejected(member).is_some())));
            }
            if !summed.is_empty() {
                let label = || format!("service=\"{service}\",endpoint=\"{} others\"", summed.len());
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

/// What discovery says of one service: at most one report.
fn of_service(reports: &[ServiceReport], at: usize) -> impl Iterator<Item = &ServiceReport> {
    reports.iter().filter(move |report| report.service == service_id(at))
}

/// What each source says of a service, a sentence each.
pub(super) fn sources_of(reports: &[ServiceReport], at: usize) -> Vec<String> {
    of_service(reports, at).flat_map(|report| &report.catalog.sources).map(say).collect()
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

/// How a source is.
fn say(source: &SourceReport) -> String {
    let name = source.source;
    let time = |age: Duration| humantime::format_duration(Duration::from_secs(age.as_secs())).to_string();
    let mut said = match (&source.error, source.age) {
        (Some(error), Some(age)) => {
            format!("{name} fails: {error}; its last list is {} old and has {}", time(age), source.endpoints)
        }
        (Some(error), None) => format!("{name} fails, and has never given a list: {error}"),
        (None, Some(_)) => format!("{name} lists {}", source.endpoints),
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
    use crate::base::clock::Clock;
    use crate::base::counters::Totals;
    use crate::config::{self, DevOptions, DevServices};
    use crate::routing::Instance;
    use crate::telemetry::render;

    fn state() -> State {
        let nobody = "127.0.0.1:1".parse().unwrap();
        let options = DevOptions {
            listen: nobody,
            admin: nobody,
            services: DevServices { echo: nobody, accounts: nobody, chat: nobody },
            key_id: "dev",
            secret: &[7; 32],
        };
        State::new(&config::dev(&options).unwrap(), Clock::start()).unwrap()
    }

    #[test]
    fn very_many_endpoints_are_summed_and_that_is_told() {
        let state = state();
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
        assert_eq!(links.len(), SAMPLED_MAX + 3, "its own, and a sum for each of three services");
        assert!(links.contains(&"moorgate_endpoint_links{service=\"echo\",endpoint=\"500 others\"} 1000"));
        assert!(page.contains("moorgate_service_endpoints{service=\"echo\",standing=\"in\"} 1500\n"));
        let Outcome::Endpoints { endpoints, total } = state.list_endpoints() else {
            panic!("another outcome")
        };
        assert_eq!((endpoints.len(), total), (1502, 1502));
        assert_eq!(endpoints.first().unwrap().sources, ["config"]);
    }

    #[test]
    fn an_ejection_is_told_while_it_lasts() {
        let state = state();
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
}
