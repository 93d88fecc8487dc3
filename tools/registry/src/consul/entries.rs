//! What Consul lists, judged: `GET /v1/health/service/NAME`, without `passing`.

use crate::elements::{Element, text_at, why_not};
use crate::gathered::{Gathered, usable_address};
use crate::watch::{Health, Listed};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Consul weighs with 1 what is weighed with this by us, and in [`Listed`].
pub(super) const WEIGHT_OF_ONE: u32 = 100;
/// The largest weight that Consul takes.
const REGISTERED_MAX: i64 = 65_535;

/// An element of the answer. What Consul has none of it leaves out, or calls `null`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry {
    node: Node,
    service: Service,
    checks: Option<Vec<Check>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(default)]
    address: String,
    meta: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: i64,
    tags: Option<Vec<String>>,
    meta: Option<BTreeMap<String, String>>,
    weights: Option<Weights>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    #[serde(default)]
    passing: i64,
    #[serde(default)]
    warning: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    #[serde(rename = "CheckID", default)]
    id: String,
    #[serde(default)]
    status: String,
}

/// The state of an instance's checks, the worst of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Passing,
    Warning,
    Critical,
    Maintenance,
}

/// All of them, judged.
pub(super) fn listed(entries: Vec<Element<Entry>>, zone_meta: &str) -> Gathered {
    let mut gathered = Gathered::default();
    for entry in entries {
        let entry = match entry {
            Element::Good(entry) => entry,
            Element::Bad(value) => {
                let which = format!("instance {:?}", text_at(&value, &["Service", "ID"]));
                gathered.reject(&which, &why_not::<Entry>(value));
                continue;
            }
        };
        let service = entry.service;
        let host = if service.address.is_empty() { &entry.node.address } else { &service.address };
        let address = match usable_address(host, service.port) {
            Ok(address) => address,
            Err(why) => {
                let which = format!("instance {:?} at {host:?} port {}", service.id, service.port);
                gathered.reject(&which, why);
                continue;
            }
        };
        let state = worst(entry.checks.as_deref().unwrap_or_default(), &service.id);
        let zone =
            [&service.meta, &entry.node.meta].into_iter().flatten().find_map(|meta| meta.get(zone_meta));
        gathered.add(Listed {
            id: service.id,
            address,
            weight: weight(service.weights.as_ref(), state),
            zone: zone.cloned().unwrap_or_default(),
            tags: service.tags.unwrap_or_default(),
            health: match state {
                State::Passing | State::Warning => Health::Good,
                State::Critical => Health::Doubted,
                State::Maintenance => Health::Leaving,
            },
        });
    }
    gathered
}

fn worst(checks: &[Check], service_id: &str) -> State {
    let one = |check: &Check| {
        if check.id == "_node_maintenance"
            || check.id.strip_prefix("_service_maintenance:") == Some(service_id)
        {
            return State::Maintenance;
        }
        match check.status.as_str() {
            "passing" => State::Passing,
            "warning" => State::Warning,
            "maintenance" => State::Maintenance,
            _ => State::Critical,
        }
    };
    checks.iter().map(one).max().unwrap_or(State::Passing)
}

/// Consul's 1 is our 100. One that is critical is weighed as when it passes: it is used when all are.
fn weight(weights: Option<&Weights>, state: State) -> u32 {
    let registered = match (weights, state) {
        (None, _) => 1,
        (Some(weights), State::Warning) => weights.warning,
        (Some(weights), _) => weights.passing,
    };
    u32::try_from(registered.clamp(0, REGISTERED_MAX)).unwrap_or_default().saturating_mul(WEIGHT_OF_ONE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elements::mutated;
    use crate::watch::Listing;
    use serde_json::{Value, json};

    fn gathered(json: &str) -> Gathered {
        listed(serde_json::from_str(json).unwrap(), "zone")
    }

    fn one(service: &str, checks: &str) -> Listing {
        gathered(&format!(
            r#"[{{"Node": {{"Address": "10.0.0.9", "Meta": {{"zone": "node-zone", "consul-x": ""}}}},
                 "Service": {{"ID": "web-1", "Port": 80, {service}}}, "Checks": {checks}}}]"#
        ))
        .listing()
    }

    #[test]
    fn an_empty_address_is_the_nodes_and_null_is_nothing() {
        let list = one(r#""Address": "", "Tags": null, "Meta": null, "Weights": null"#, "null").instances;
        let expected = Listed {
            id: "web-1".to_owned(),
            address: "10.0.0.9:80".parse().unwrap(),
            weight: 100,
            zone: "node-zone".to_owned(),
            tags: Vec::new(),
            health: Health::Good,
        };
        assert_eq!(list, [expected]);
    }

    #[test]
    fn the_service_says_its_zone_before_the_node_does() {
        let list =
            one(r#""Address": "::1", "Tags": ["b", "a", "b"], "Meta": {"zone": "eu-1"}"#, "[]").instances;
        assert_eq!((list[0].address, list[0].zone.as_str()), ("[::1]:80".parse().unwrap(), "eu-1"));
        assert_eq!(list[0].tags, ["a", "b"]);
    }

    #[test]
    fn checks_say_how_it_is_and_which_weight_counts() {
        let weights = r#""Weights": {"Passing": 10, "Warning": 3}"#;
        let check = |id: &str, status: &str| format!(r#"{{"CheckID": "{id}", "Status": "{status}"}}"#);
        let (good, warns) = (check("serfHealth", "passing"), check("a", "warning"));
        let critical = check("service:web-1", "critical");
        let cases = [
            (vec![&good], Health::Good, 1000),
            (vec![&good, &warns], Health::Good, 300),
            (vec![&critical, &warns], Health::Doubted, 1000),
            (vec![&good, &check("_node_maintenance", "critical")], Health::Leaving, 1000),
            (vec![&check("_service_maintenance:web-1", "critical"), &critical], Health::Leaving, 1000),
            // Another service's, on the same node.
            (vec![&check("_service_maintenance:web-2", "critical")], Health::Doubted, 1000),
        ]
        .map(|(checks, health, weight)| (checks.into_iter().cloned().collect::<Vec<_>>(), health, weight));
        for (checks, health, weight) in cases {
            let list = one(weights, &format!("[{}]", checks.join(","))).instances;
            assert_eq!((list[0].health, list[0].weight), (health, weight), "{checks:?}");
        }
        for (passing, expected) in [("-1", 0), ("1", 100), ("65535", 6_553_500), ("9000000000000", 6_553_500)]
        {
            let weights = format!(r#""Weights": {{"Passing": {passing}}}"#);
            assert_eq!(one(&weights, "[]").instances[0].weight, expected, "{passing}");
        }
    }

    #[test]
    fn an_instance_without_a_usable_address_is_left_out_by_name() {
        for host in ["web.internal", "0.0.0.0", "224.0.0.1"] {
            let listing = one(&format!(r#""Address": "{host}""#), "[]");
            assert_eq!((listing.instances.len(), listing.rejected), (0, 1), "{host}");
            let why = usable_address(host, 80).unwrap_err();
            assert_eq!(listing.reasons, [format!("instance \"web-1\" at \"{host}\" port 80: {why}")]);
        }
    }

    fn element(host: u8) -> Value {
        json!({
            "Node": {"Address": format!("10.0.1.{host}"), "Meta": {"zone": "z"}},
            "Service": {
                "ID": format!("web-{host}"), "Address": format!("10.0.0.{host}"), "Port": 80, "Tags": ["a", "b"],
                "Meta": {"zone": "eu-1"}, "Weights": {"Passing": 2, "Warning": 1}
            },
            "Checks": [{"CheckID": "c", "Status": "passing"}]
        })
    }

    #[test]
    fn one_mutated_element_leaves_the_others_as_they_are() {
        let listing = |elements: &[Value]| gathered(&Value::from(elements.to_vec()).to_string()).listing();
        let others: Vec<Value> = [1, 2, 4, 5].map(element).into();
        let expected = listing(&others).instances;
        assert_eq!(expected.len(), 4);
        let mutated = mutated::all(&element(3));
        assert!(mutated.len() > 200);
        let mut rejected = 0;
        for changed in mutated {
            let mut elements = others.clone();
            elements.insert(2, changed.clone());
            let mut listing = listing(&elements);
            assert_eq!(listing.instances.len() + listing.rejected, 5, "{changed}");
            assert_eq!(listing.reasons.len(), listing.rejected, "it is named: {changed}");
            listing.instances.retain(|listed| expected.iter().any(|other| other.address == listed.address));
            assert_eq!(listing.instances, expected, "{changed}");
            rejected += listing.rejected;
        }
        assert!(rejected > 100, "{rejected}");
    }

    #[test]
    fn the_better_of_two_at_one_address_counts() {
        let entry = |id: &str, status: &str| {
            format!(
                r#"{{"Node": {{"Address": "10.0.0.9"}}, "Service": {{"ID": "{id}", "Port": 80}},
                    "Checks": [{{"CheckID": "c", "Status": "{status}"}}]}}"#
            )
        };
        // An instance that restarted, and what it left behind.
        for (first, second) in [("critical", "passing"), ("passing", "critical")] {
            let json = format!("[{},{}]", entry("old", first), entry("new", second));
            let list = gathered(&json).listing().instances;
            assert_eq!((list.len(), list[0].health), (1, Health::Good));
        }
    }
}
