//! Consul: a service is watched with blocking queries, and an instance is registered with the agent.
//!
//! | rule of Consul's | here |
//! | --- | --- |
//! | an index that goes back means a server that began anew; one below 1 is 1 | `cursor` |
//! | a wait has a unit, and the server adds up to a sixteenth | `wait=..ms`, and the client waits for that and some |
//! | a return is no change | the whole list is handed on each time: it says that Consul is well |
//! | a loop is slowed by a token bucket, not by a fixed time | two at once, then one a second |
//! | checks are judged here | no `passing`: what is critical is listed as doubted, in maintenance as leaving, and a warning has the weight for warnings |
//! | an agent accepts registrations without a usable address or port | such an element is left out and counted |
//! | a list may be empty because of a missing right | an error: `X-Consul-Results-Filtered-By-ACLs`, and older agents are asked |

pub(crate) mod agent;
mod cursor;
mod entries;

use crate::ambient::{now, random_u64};
use crate::elements::Element;
use crate::error::RegistryError;
use crate::http::{Answer, Ask, Content, Http, Method, encoded, pairs};
use crate::pace::{Backoff, Pace};
use crate::settings::{ConsulQuery, ConsulSettings, Secret};
use crate::stop::Stop;
use crate::watch::{Listing, Watch};
use cursor::Cursor;
use entries::Entry;
use std::time::Duration;

/// For the server to hold a query on which nothing changes.
const WAIT: Duration = Duration::from_secs(60);
/// Beyond what the server may take.
const SLACK: Duration = Duration::from_secs(5);
/// For what the server answers at once: a query without an index, or one about rights.
const PROMPT: Duration = Duration::from_secs(5);
const BURST: u32 = 2;
const EVERY: Duration = Duration::from_secs(1);
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// Follows a service in Consul.
#[derive(Debug)]
pub struct ConsulWatch {
    http: Http,
    token: Option<Secret>,
    query: ConsulQuery,
    wait: Duration,
    cursor: Cursor,
    pace: Pace,
    backoff: Backoff,
    /// Since the last failure.
    delay: Duration,
}

impl ConsulWatch {
    /// One that has not asked yet. What is wrong with the settings, its answers say.
    pub fn new(settings: &ConsulSettings, query: ConsulQuery) -> ConsulWatch {
        ConsulWatch::with_wait(settings, query, WAIT)
    }

    /// One whose queries the server holds this long when nothing changes.
    pub fn with_wait(settings: &ConsulSettings, mut query: ConsulQuery, wait: Duration) -> ConsulWatch {
        if query.datacenter.is_empty() {
            query.datacenter.clone_from(&settings.datacenter);
        }
        ConsulWatch {
            http: Http::new(&settings.address, settings.ca_file.as_deref(), patience(wait)),
            token: settings.token.clone().map(Secret),
            query,
            wait,
            cursor: Cursor::default(),
            pace: Pace::new(EVERY, BURST),
            backoff: Backoff::new(FIRST_DELAY, LONGEST_DELAY),
            delay: Duration::ZERO,
        }
    }

    fn ask(&mut self, stop: &Stop) -> Result<Listing, RegistryError> {
        let index = self.cursor.index();
        let path = path(&self.query, index, self.wait);
        let ask = Ask { timeout: (index == 0).then_some(PROMPT), ..Ask::new(Method::GET, &path) };
        let answer = self.request(&ask, stop)?;
        if answer.status != 200 {
            return Err(refused(&self.http, &answer));
        }
        let entries: Vec<Element<Entry>> =
            serde_json::from_slice(&answer.body).map_err(|error| self.http.unexpected(error))?;
        if entries.is_empty() {
            self.look_for_a_denial(&answer, stop)?;
        }
        let listing = entries::listed(entries, &self.query.zone_meta).listing();
        self.cursor.answered(answer.header("X-Consul-Index").and_then(|index| index.parse().ok()));
        Ok(listing)
    }

    /// An empty list may be one of which nothing may be seen. Agents before 1.11 do not say so, but can be asked.
    fn look_for_a_denial(&mut self, answer: &Answer, stop: &Stop) -> Result<(), RegistryError> {
        let denied = match answer.header("X-Consul-Results-Filtered-By-ACLs") {
            Some(filtered) => filtered == "true",
            None => {
                let right = serde_json::json!([
                    {"Resource": "service", "Access": "read", "Segment": self.query.name}
                ])
                .to_string();
                let dc = pairs([("dc", self.query.datacenter.clone())]);
                let path = format!("/v1/internal/acl/authorize?{dc}");
                let ask = Ask {
                    content: Content::Json(&right),
                    timeout: Some(PROMPT),
                    ..Ask::new(Method::POST, &path)
                };
                may_not(&self.request(&ask, stop)?)
            }
        };
        if denied {
            let words = format!("the list of {:?} is empty for want of `service:read`", self.query.name);
            return Err(RegistryError::denied(self.http.server(), &words));
        }
        Ok(())
    }

    fn request(&mut self, ask: &Ask<'_>, stop: &Stop) -> Result<Answer, RegistryError> {
        request(&mut self.http, self.token.as_ref(), ask, stop)
    }
}

impl Watch for ConsulWatch {
    fn next(&mut self, stop: &Stop) -> Option<Result<Listing, RegistryError>> {
        let pause = self.pace.take(now()).max(std::mem::take(&mut self.delay));
        if stop.wait(pause) {
            return None;
        }
        let result = self.ask(stop);
        if stop.is_set() {
            return None;
        }
        if result.is_ok() {
            self.backoff.succeeded();
        } else {
            self.cursor.failed();
            self.delay = self.backoff.failed(random_u64());
        }
        Some(result)
    }
}

/// For a query that may wait this long: the server adds up to a sixteenth.
fn patience(wait: Duration) -> Duration {
    wait * 17 / 16 + SLACK
}

fn path(query: &ConsulQuery, index: u64, wait: Duration) -> String {
    let values = [
        ("index", index.to_string()),
        ("wait", format!("{}ms", wait.as_millis())),
        ("dc", query.datacenter.clone()),
        ("filter", filter(query)),
    ];
    format!("/v1/health/service/{}?{}", encoded(&query.name), pairs(values))
}

/// The tags, and what else is wanted, in Consul's language.
fn filter(query: &ConsulQuery) -> String {
    // Older agents know no escapes, but raw strings.
    let quoted = |text: &str| match text.contains('`') {
        false => format!("`{text}`"),
        true => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
    };
    let tags = query.tags.iter().map(|tag| format!("{} in Service.Tags", quoted(tag)));
    let own = Some(query.filter.trim()).filter(|filter| !filter.is_empty());
    match (own, query.tags.is_empty()) {
        (Some(own), true) => own.to_owned(),
        (own, _) => tags.chain(own.map(|own| format!("({own})"))).collect::<Vec<_>>().join(" and "),
    }
}

fn request(
    http: &mut Http,
    token: Option<&Secret>,
    ask: &Ask<'_>,
    stop: &Stop,
) -> Result<Answer, RegistryError> {
    let token = token.map(|token| [("X-Consul-Token", token.0.as_str())]);
    let headers = token.as_ref().map(<[_; 1]>::as_slice).unwrap_or_default();
    http.ask(&Ask { headers, ..ask.clone() }, stop)
}

/// A denial in another datacenter comes as an internal error.
fn refused(http: &Http, answer: &Answer) -> RegistryError {
    let words = answer.words();
    if ["Permission denied", "ACL not found"].iter().any(|denial| words.contains(denial)) {
        return RegistryError::denied(http.server(), &words);
    }
    http.refused(answer)
}

/// Whether an answer of `acl/authorize` says no. An agent without ACLs, or that does not know the question, does not.
fn may_not(answer: &Answer) -> bool {
    let rights: Option<Vec<serde_json::Value>> = serde_json::from_slice(&answer.body).ok();
    let denies = |right: &serde_json::Value| right.get("Allow") == Some(&serde_json::Value::Bool(false));
    answer.status == 200 && rights.is_some_and(|rights| rights.iter().any(denies))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(tags: &[&str], filter: &str) -> ConsulQuery {
        ConsulQuery {
            name: "im chat".to_owned(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            filter: filter.to_owned(),
            ..ConsulQuery::default()
        }
    }

    #[test]
    fn a_query_waits_with_a_unit_and_does_not_ask_for_passing() {
        let query = ConsulQuery { datacenter: "dc2".to_owned(), ..query(&[], "") };
        assert_eq!(path(&query, 7, WAIT), "/v1/health/service/im%20chat?index=7&wait=60000ms&dc=dc2");
        assert!(patience(WAIT) > WAIT + WAIT / 16 + Duration::from_secs(1));
    }

    #[test]
    fn secrets_are_in_no_debug() {
        let settings = ConsulSettings { token: Some("t0ken".to_owned()), ..ConsulSettings::default() };
        let registration = crate::Registration::new("chat", "10.0.0.1:7100".parse().unwrap());
        let watch = ConsulWatch::new(&settings, query(&[], ""));
        let told = format!("{watch:?} {:?}", agent::Agent::new(&settings, registration));
        assert!(!told.contains("t0ken"), "{told}");
    }

    #[test]
    fn tags_are_a_filter() {
        let both = "`a\"` in Service.Tags and \"b`\\\"\" in Service.Tags";
        assert_eq!(filter(&query(&["a\"", "b`\""], "")), both);
        assert_eq!(
            filter(&query(&["a"], " x == 1 or y == 2 ")),
            "`a` in Service.Tags and (x == 1 or y == 2)"
        );
        assert_eq!(filter(&query(&[], "x == 1")), "x == 1");
        assert_eq!(filter(&query(&[], "")), "");
    }

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, headers: Default::default(), body: body.as_bytes().to_vec() }
    }

    #[test]
    fn denials_are_told_from_other_refusals() {
        let http = Http::new("http://consul", None, WAIT);
        let denials = [(403, "ACL not found"), (500, "rpc error making call: ACL not found"), (401, "no")];
        for (status, words) in denials {
            assert!(
                matches!(refused(&http, &answer(status, words)), RegistryError::Denied { .. }),
                "{words}"
            );
        }
        let error = refused(&http, &answer(500, "No cluster leader"));
        assert_eq!(error.to_string(), "http://consul says 500: No cluster leader");
    }

    #[test]
    fn only_a_plain_no_is_a_denial() {
        assert!(may_not(&answer(200, r#"[{"Resource": "service", "Allow": false}]"#)));
        for (status, body) in
            [(200, r#"[{"Allow": true}]"#), (401, "ACL support disabled"), (404, ""), (200, "{}")]
        {
            assert!(!may_not(&answer(status, body)), "{body}");
        }
    }
}
