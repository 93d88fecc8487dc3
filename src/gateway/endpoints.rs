//! The endpoints of the services, for the operator's pages: who they are, who tells of them, how they stand.

use super::state::{State, service_id};
use crate::admin::{EndpointShown, Outcome};
use crate::base::text::shown;
use crate::control::discovery::ServiceReport;
use crate::routing::{EndpointReport, Instance, Member, Source, SourceReport, Standing};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Endpoints that one answer lists; the rest is counted.
const SHOWN_MAX: usize = 10_000;

/// The text of one source's error, a zone, or a tag, as far as it is shown.
const ERROR_BYTES_MAX: usize = 256;
const WORD_BYTES_MAX: usize = 64;
/// Tags of one endpoint that are shown; of the rest it is told how many there are.
const TAGS_SHOWN_MAX: usize = 8;

/// What a standing is called.
pub(super) fn standing(member: &Member) -> &'static str {
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
                calls: member.vitals.calls(),
                sources: told.map_or_else(|| vec![Source::Fixed.to_string()], |told| said(told)),
            }
        });
        all.collect()
    }

    /// For how much longer an endpoint is ejected.
    pub(super) fn ejected(&self, member: &Member) -> Option<Duration> {
        let left = member.vitals.ejection.until()?.since(self.clock.read().mono);
        (!left.is_zero()).then_some(left)
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

/// What is told where endpoints are looked at, a sentence for each thread that has failed.
pub(super) fn failures(failed: &[String]) -> Vec<String> {
    let say = |name: &String| {
        format!(
            "the thread `{name}` of the discovery has failed, and what it did is not done any more; restart the gateway"
        )
    };
    failed.iter().map(say).collect()
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
    if source.rejected > 0 {
        said.push_str(&format!("; rejected elements: {}", source.rejected));
    }
    if source.held > 0 {
        said.push_str(&format!("; {} that it lists no more are kept, since they answer", source.held));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(is_up: bool, age: Option<u64>, error: Option<&str>) -> SourceReport {
        let (age, error) = (age.map(Duration::from_secs), error.map(str::to_owned));
        SourceReport { source: Source::Consul, is_up, endpoints: 3, rejected: 0, held: 0, age, error }
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
    }
}
