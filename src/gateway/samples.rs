//! What the metrics say of endpoints and of their sources.

use super::endpoints::standing;
use super::state::{State, service_id};
use crate::control::discovery::ServiceReport;
use crate::routing::{Calls, Decided, Fault, Member, SourceReport};
use crate::telemetry::{Kind, Sample};
use std::slice;
use std::sync::atomic::Ordering;

/// Endpoints of all services that have lines of their own among the metrics; the rest is summed for each service.
const SAMPLED_MAX: usize = 1_000;

const LINKS: (&str, &str) = ("moorgate_endpoint_links", "Ready links to an endpoint, over all workers.");
const EJECTED: (&str, &str) =
    ("moorgate_endpoint_ejected", "1 while the endpoint is ejected for its failures.");
const CALLS: (&str, &str) =
    ("moorgate_endpoint_calls_total", "Calls sent to an endpoint, each attempt counted.");
const FAILED: (&str, &str) = (
    "moorgate_endpoint_failed_total",
    "Of them those that failed: with an answer that says so, as it was busy, for want of an answer in time, or as the link \
     was lost.",
);

/// One endpoint, or the sum of some.
struct Line<'a> {
    label: String,
    members: &'a [Member],
    calls: Calls,
}

impl Line<'_> {
    fn sum(&self, of: impl Fn(&Member) -> u64) -> u64 {
        self.members.iter().map(of).sum()
    }

    fn failed(&self) -> impl Iterator<Item = Sample> + '_ {
        Fault::ALL
            .iter()
            .zip(self.calls.failed)
            .map(|((_, how), count)| counter(FAILED, format!("{},how=\"{how}\"", self.label), count))
    }
}

impl State {
    /// What the metrics say of endpoints and of their sources.
    pub(super) fn endpoint_samples(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        for at in 0..self.services.len() {
            samples.extend(self.standing_samples(at));
        }
        samples.extend(self.line_samples());
        samples.extend(self.decided_samples());
        samples.extend(self.canary_samples());
        samples.extend(self.failed_discovery().map(|failed| discovery_sample(&failed)));
        samples.extend(self.source_samples());
        samples
    }

    /// What is said of single endpoints.
    fn line_samples(&self) -> Vec<Sample> {
        let all: Vec<_> = (0..self.services.len()).map(|at| self.pools.members(service_id(at))).collect();
        let room = parts(SAMPLED_MAX, &all.iter().map(|members| members.len()).collect::<Vec<_>>());
        let mut lines = Vec::new();
        let mut others = self.others_calls.lock();
        others.resize(all.len(), Calls::default());
        for (((service, members), room), others) in
            self.services.iter().zip(&all).zip(room).zip(others.iter_mut())
        {
            let (own, summed) = members.split_at(room.min(members.len()));
            for member in own {
                // What is told here, those that are summed are not to tell again, should it be one of them next.
                member.vitals.new_calls();
                let label = format!("service=\"{service}\",endpoint=\"{}\"", member.instance.address);
                lines.push(Line { label, members: slice::from_ref(member), calls: member.vitals.calls() });
            }
            // A counter must not fall when somebody leaves: it is the sum of what came, not of what they have.
            summed.iter().for_each(|member| others.add(member.vitals.new_calls()));
            if !summed.is_empty() {
                // The same whatever their number, so that it stays one series.
                let label = format!("service=\"{service}\",endpoint=\"others\"");
                lines.push(Line { label, members: summed, calls: *others });
            }
        }
        let mut samples = Vec::new();
        let links = |member: &Member| u64::from(member.vitals.links.load(Ordering::Relaxed));
        let ejected = |member: &Member| u64::from(self.ejected(member).is_some());
        samples.extend(lines.iter().map(|line| gauge(LINKS, line.label.clone(), line.sum(links))));
        samples.extend(lines.iter().map(|line| gauge(EJECTED, line.label.clone(), line.sum(ejected))));
        samples.extend(lines.iter().map(|line| counter(CALLS, line.label.clone(), line.calls.sent)));
        samples.extend(lines.iter().flat_map(Line::failed));
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
        const VALUES: [((&str, &str), Value); 5] = [
            (
                ("moorgate_source_up", "1 when the last answer of a source of endpoints was a list."),
                |source| Some(u64::from(source.is_up)),
            ),
            (("moorgate_source_endpoints", "Endpoints in the last list of a source."), |source| {
                Some(source.endpoints as u64)
            }),
            (
                (
                    "moorgate_source_rejected_elements",
                    "Lines, records and instances in the last answer of a source that are left out: not usable.",
                ),
                |source| Some(source.rejected as u64),
            ),
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

fn discovery_sample(failed: &[String]) -> Sample {
    const WHAT: (&str, &str) = (
        "moorgate_discovery_up",
        "0 when a thread that looks for endpoints, or keeps their lists, has failed: restart the gateway.",
    );
    gauge(WHAT, String::new(), u64::from(failed.is_empty()))
}

fn gauge((metric, help): (&'static str, &'static str), label: String, value: u64) -> Sample {
    Sample { kind: Kind::Gauge, metric, label, help, value }
}

fn counter((metric, help): (&'static str, &'static str), label: String, value: u64) -> Sample {
    Sample { kind: Kind::Counter, metric, label, help, value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Outcome;
    use crate::base::counters::Totals;
    use crate::base::rng::Rng;
    use crate::routing::{Ended, Instance, Pool, PoolSettings, Verdict};
    use crate::telemetry::render;
    use moorgate_proto::time::Mono;
    use std::net::SocketAddr;
    use std::time::Duration;

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
        assert_eq!(links.len(), SAMPLED_MAX + 1, "echo has what the three others leave, and a sum");
        assert!(links.contains(&"moorgate_endpoint_links{service=\"echo\",endpoint=\"others\"} 1006"));
        assert!(links.contains(&"moorgate_endpoint_links{service=\"chat\",endpoint=\"127.0.0.1:1\"} 0"));
        assert!(page.contains("moorgate_service_endpoints{service=\"echo\",standing=\"in\"} 1500\n"));
        let Outcome::Endpoints { endpoints, total, .. } = state.list_endpoints() else {
            panic!("another outcome")
        };
        assert_eq!((endpoints.len(), total), (1503, 1503));
        assert_eq!(endpoints.first().unwrap().sources, ["config"]);
    }

    #[test]
    fn an_ejection_is_told_while_it_lasts() {
        let state = State::dev();
        let members = state.pools.members(service_id(0));
        let member = members.first().unwrap();
        assert_eq!(state.ejected(member), None);
        member.vitals.ejection.set(Mono::NEVER);
        assert!(state.ejected(member).is_some_and(|left| left > Duration::from_secs(3600)));
        let page = render(&Totals::default(), &state.endpoint_samples());
        assert!(page.contains("moorgate_endpoint_ejected{service=\"echo\",endpoint=\"127.0.0.1:1\"} 1\n"));
        assert!(page.contains("moorgate_endpoint_decisions_total{service=\"echo\",what=\"ejected\"} 0\n"));
        member.vitals.ejection.set(Mono::from_nanos(1));
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

    #[test]
    fn calls_are_counted_by_endpoint_and_the_sum_of_the_rest_never_falls() {
        let state = State::dev();
        let at = |number: u16| Instance::at(SocketAddr::from(([10, 0, 0, 1], number)));
        let many: Vec<Instance> = (1..=1500).map(at).collect();
        state.pools.publish(service_id(0), &many);
        let mut pool = Pool::new(service_id(0), PoolSettings::default(), state.pools.clone());
        pool.update(Mono::ZERO);
        let mut rng = Rng::new(1);
        let mut fails = |seat: usize| {
            pool.started(seat);
            let (latency, fault) = (Duration::from_millis(1), Some(Fault::Timeout));
            pool.finished(
                Mono::ZERO,
                Ended { seat, latency, verdict: Verdict::Nothing, fault, origin: None },
                &mut rng,
            );
        };
        [0, 1499, 1499, 1498].into_iter().for_each(&mut fails);
        let page = || render(&Totals::default(), &state.endpoint_samples());
        let (own, others) =
            ("service=\"echo\",endpoint=\"10.0.0.1:1\"", "service=\"echo\",endpoint=\"others\"");
        let says = |page: &str, label: &str, count: u64| {
            page.contains(&format!("moorgate_endpoint_calls_total{{{label}}} {count}\n"))
                && page
                    .contains(&format!("moorgate_endpoint_failed_total{{{label},how=\"timeout\"}} {count}\n"))
                && page.contains(&format!("moorgate_endpoint_failed_total{{{label},how=\"lost\"}} 0\n"))
        };
        let first = page();
        assert!(says(&first, own, 1) && says(&first, others, 3));
        state.pools.publish(service_id(0), &many[..1499]);
        let second = page();
        assert!(says(&second, others, 3), "who has left has had its calls");
        let listed = state.endpoints_of(0, &[]);
        assert_eq!(listed.first().unwrap().calls, Calls { sent: 1, failed: [0, 0, 1, 0] });
    }

    #[test]
    fn a_thread_that_has_failed_shows() {
        let failed = ["consul".to_owned()];
        let page = |failed: &[String]| render(&Totals::default(), &[discovery_sample(failed)]);
        assert!(page(&failed).contains("\nmoorgate_discovery_up 0\n"));
        assert!(page(&[]).contains("\nmoorgate_discovery_up 1\n"));
        let page = render(&Totals::default(), &State::dev().endpoint_samples());
        assert!(!page.contains("moorgate_discovery_up"), "nothing is looked for, nothing is said of it");
    }
}
