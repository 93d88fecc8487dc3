//! Nacos: a service is polled, and an instance is registered and beats.
//!
//! Nacos has no subscription over HTTP. A server says how long its list is good (`cacheMillis`), and is asked again after
//! that; v3 does not say, and is asked every 5 s. A list may be empty because a server has just begun: what it says is
//! handed on, and who follows it decides.

pub(crate) mod api;
pub(crate) mod cluster;
pub(crate) mod login;
pub(crate) mod member;

use crate::ambient::{now, random_u64};
use crate::elements::{Element, text_at, why_not};
use crate::error::RegistryError;
use crate::gathered::{Gathered, usable_address};
use crate::pace::{Backoff, share};
use crate::settings::{DEFAULT_GROUP, NacosQuery, NacosSettings};
use crate::stop::Stop;
use crate::watch::{Health, Listed, Listing, Watch};
use api::{Api, Host, List, Op};
use cluster::{Cluster, Values};
use serde_json::Value;
use std::time::{Duration, Instant};

const POLL_EVERY: Duration = Duration::from_secs(5);
const POLL_EVERY_MIN: Duration = Duration::from_secs(1);
const POLL_EVERY_MAX: Duration = Duration::from_secs(60);
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// Nacos weighs with 1.0, we with whole numbers.
const WEIGHT_OF_ONE: f64 = 100.0;
/// The largest weight that Nacos takes is 10,000.
const WEIGHT_MAX: f64 = 10_000.0 * WEIGHT_OF_ONE;
/// The metadata with the tags, with commas: Nacos has no other place for them.
const TAGS: &str = "tags";

/// Follows a service in Nacos.
#[derive(Debug)]
pub struct NacosWatch {
    cluster: Cluster,
    query: NacosQuery,
    /// When to ask again.
    at: Option<Instant>,
    poll_max: Duration,
    backoff: Backoff,
}

impl NacosWatch {
    /// One that has not asked yet. What is wrong with the settings, its answers say.
    pub fn new(settings: &NacosSettings, query: NacosQuery) -> NacosWatch {
        NacosWatch::with_poll_max(settings, query, POLL_EVERY_MAX)
    }

    /// One that asks at least this often, whatever the server says.
    pub fn with_poll_max(settings: &NacosSettings, mut query: NacosQuery, poll_max: Duration) -> NacosWatch {
        if query.group.is_empty() {
            DEFAULT_GROUP.clone_into(&mut query.group);
        }
        NacosWatch {
            cluster: Cluster::new(settings),
            query,
            at: None,
            poll_max: poll_max.clamp(POLL_EVERY_MIN, POLL_EVERY_MAX),
            backoff: Backoff::new(FIRST_DELAY, LONGEST_DELAY),
        }
    }

    /// The list, and how long it is good.
    fn ask(&mut self, stop: &Stop) -> Result<(Listing, Duration), RegistryError> {
        let query = &self.query;
        let good = self.cluster.ask(Op::List, &|api| values(query, api), stop)?;
        let list = List::read(good.api, &good.body).map_err(|error| self.cluster.unexpected(error))?;
        let every = list.cache_millis.map_or(POLL_EVERY, Duration::from_millis);
        Ok((listed(list, &self.query).listing(), every.clamp(POLL_EVERY_MIN, self.poll_max)))
    }
}

impl Watch for NacosWatch {
    fn next(&mut self, stop: &Stop) -> Option<Result<Listing, RegistryError>> {
        let pause = self.at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now()));
        if stop.wait(pause) {
            return None;
        }
        let result = self.ask(stop);
        if stop.is_set() {
            return None;
        }
        let (result, pause) = match result {
            Ok((listing, every)) => {
                self.backoff.succeeded();
                (Ok(listing), share(every, 90, 110, random_u64()))
            }
            Err(error) => (Err(error), self.backoff.failed(random_u64())),
        };
        self.at = Some(now() + pause);
        Some(result)
    }
}

fn values(query: &NacosQuery, api: Api) -> Values {
    let mut values = vec![
        ("serviceName", query.name.clone()),
        ("groupName", query.group.clone()),
        ("namespaceId", query.namespace.clone()),
    ];
    match api {
        Api::V1 => values.extend([
            ("clusters", query.clusters.join(",")),
            // What is unhealthy is judged here, too.
            ("healthyOnly", "false".to_owned()),
        ]),
        Api::V3 => values.push(("clusterName", query.clusters.join(","))),
    }
    values
}

/// All of them, judged. When the server protects itself, it no longer tells the healthy from others.
fn listed(list: List, query: &NacosQuery) -> Gathered {
    let protects = list.reach_protection_threshold == Some(true);
    let mut gathered = Gathered::default();
    for host in list.hosts.unwrap_or_default() {
        let host = match host {
            Element::Good(host) => host,
            Element::Bad(value) => {
                let [id, ip, port] = ["instanceId", "ip", "port"].map(|key| text_at(&value, &[key]));
                gathered.reject(&format!("instance {id:?} at {ip:?} port {port}"), &why_not::<Host>(value));
                continue;
            }
        };
        // Not every server leaves out the others when it is asked for some.
        let of = host.cluster_name.unwrap_or_default();
        if !(of.is_empty() || query.clusters.is_empty() || query.clusters.contains(&of)) {
            continue;
        }
        let id = host.instance_id.as_ref().and_then(Value::as_str).unwrap_or_default();
        let address = match usable_address(&host.ip, host.port) {
            Ok(address) => address,
            Err(why) => {
                gathered.reject(&format!("instance {id:?} at {:?} port {}", host.ip, host.port), why);
                continue;
            }
        };
        let metadata = host.metadata.unwrap_or_default();
        let text = |key: &str| metadata.get(key).and_then(Value::as_str).unwrap_or_default();
        let tags = text(TAGS);
        let health = match (host.enabled, host.healthy) {
            (Some(false), _) => Health::Leaving,
            (_, Some(false)) if !protects => Health::Doubted,
            _ => Health::Good,
        };
        gathered.add(Listed {
            id: id.to_owned(),
            address,
            weight: weight(host.weight.unwrap_or(1.0)),
            zone: text(&query.zone_meta).to_owned(),
            tags: tags.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
            health,
        });
    }
    gathered
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within the bounds")]
fn weight(registered: f64) -> u32 {
    // What is no number stays none, and becomes 0.
    (registered * WEIGHT_OF_ONE).round().clamp(0.0, WEIGHT_MAX) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elements::mutated;
    use serde_json::json;

    fn query(clusters: &[&str]) -> NacosQuery {
        let clusters = clusters.iter().map(|&cluster| cluster.to_owned()).collect();
        NacosQuery {
            name: "chat".to_owned(),
            zone_meta: "zone".to_owned(),
            clusters,
            ..NacosQuery::default()
        }
    }

    fn list(hosts: &str, protects: bool) -> Vec<Listed> {
        let json = format!(r#"{{"hosts": [{hosts}], "reachProtectionThreshold": {protects}}}"#);
        listed(serde_json::from_str(&json).unwrap(), &query(&[])).listing().instances
    }

    fn health(flags: &str, protects: bool) -> Health {
        list(&format!(r#"{{"ip": "10.0.0.1", "port": 80, {flags}}}"#), protects)[0].health
    }

    #[test]
    fn instances_are_judged() {
        assert_eq!(health(r#""healthy": true, "enabled": true"#, false), Health::Good);
        assert_eq!(health(r#""healthy": false"#, false), Health::Doubted);
        assert_eq!(health(r#""healthy": true, "enabled": false"#, false), Health::Leaving);
    }

    #[test]
    fn under_its_protection_threshold_all_are_good() {
        assert_eq!(health(r#""healthy": false"#, true), Health::Good);
        assert_eq!(health(r#""healthy": false, "enabled": false"#, true), Health::Leaving, "who goes, goes");
    }

    #[test]
    fn an_instance_has_weight_zone_and_tags() {
        let host = r#"{"ip": "10.0.0.1", "port": 80, "weight": 0.5,
                       "metadata": {"zone": "eu", "tags": "fast, canary,,fast"}}"#;
        let list = list(host, false);
        assert_eq!((list[0].weight, list[0].zone.as_str()), (50, "eu"));
        assert_eq!(list[0].tags, ["canary", "fast"]);
        for (registered, expected) in [(1.0, 100), (0.0, 0), (-1.0, 0), (f64::NAN, 0), (1e300, 1_000_000)] {
            assert_eq!(weight(registered), expected);
        }
    }

    #[test]
    fn a_host_without_an_address_is_left_out_by_name() {
        let json = r#"{"hosts": [{"ip": "web.internal", "port": 80, "instanceId": 1},
                                 {"ip": "224.0.0.1", "port": 80, "instanceId": "224.0.0.1#80#a#chat"}]}"#;
        let listing = listed(serde_json::from_str(json).unwrap(), &query(&[])).listing();
        assert_eq!((listing.instances.len(), listing.rejected), (0, 2));
        let expected = [("", "web.internal"), ("224.0.0.1#80#a#chat", "224.0.0.1")].map(|(id, host)| {
            let why = usable_address(host, 80).unwrap_err();
            format!("instance {id:?} at {host:?} port 80: {why}")
        });
        assert_eq!(listing.reasons, expected);
    }

    #[test]
    fn one_mutated_element_leaves_the_others_as_they_are() {
        let element = |host: u8| {
            json!({
                "instanceId": format!("i-{host}"), "ip": format!("10.0.0.{host}"), "port": 80, "clusterName": "a", "weight": 1.5, "healthy": true,
                "enabled": true, "metadata": {"zone": "eu", "tags": "x,y"}
            })
        };
        let listing = |hosts: &[Value], api| {
            let body = match api {
                Api::V1 => json!({"hosts": hosts, "cacheMillis": 3000, "reachProtectionThreshold": false}),
                Api::V3 => json!({"code": 0, "message": "success", "data": hosts}),
            };
            listed(List::read(api, body.to_string().as_bytes()).unwrap(), &query(&[])).listing()
        };
        let others: Vec<Value> = [1, 2, 4, 5].map(element).into();
        let expected = listing(&others, Api::V1).instances;
        assert_eq!(expected.len(), 4);
        let mut rejected = 0;
        for changed in mutated::all(&element(3)) {
            let mut hosts = others.clone();
            hosts.insert(2, changed.clone());
            for api in [Api::V1, Api::V3] {
                let mut listing = listing(&hosts, api);
                assert_eq!(listing.instances.len() + listing.rejected, 5, "{changed}");
                assert_eq!(listing.reasons.len(), listing.rejected, "it is named: {changed}");
                listing
                    .instances
                    .retain(|listed| expected.iter().any(|other| other.address == listed.address));
                assert_eq!(listing.instances, expected, "{changed}");
                rejected += listing.rejected;
            }
        }
        assert!(rejected > 100, "{rejected}");
    }

    #[test]
    fn the_two_interfaces_name_clusters_differently() {
        let query = query(&["a", "b"]);
        assert!(values(&query, Api::V1).contains(&("clusters", "a,b".to_owned())));
        assert!(values(&query, Api::V3).contains(&("clusterName", "a,b".to_owned())));
    }

    #[test]
    fn instances_of_other_clusters_are_left_out() {
        let json = r#"{"hosts": [{"ip": "10.0.0.1", "port": 80, "clusterName": "a"},
                                 {"ip": "10.0.0.2", "port": 80, "clusterName": "b"},
                                 {"ip": "10.0.0.3", "port": 80}]}"#;
        let count = |clusters: &[&str]| {
            listed(serde_json::from_str(json).unwrap(), &query(clusters)).listing().instances.len()
        };
        assert_eq!((count(&["a"]), count(&["a", "b"]), count(&["c"]), count(&[])), (2, 3, 1, 3));
    }
}
