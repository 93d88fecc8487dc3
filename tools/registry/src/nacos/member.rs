//! An instance in Nacos: registered, and kept alive by beats.
//!
//! Beats are light: address and port. A server that has forgotten the instance says so, or makes one up of what the beat
//! has, without weight and metadata: so it is registered anew once a minute, too.

use super::api::{Api, BeatAnswer, Op};
use super::cluster::{Cluster, Values};
use crate::error::RegistryError;
use crate::registration::Registration;
use crate::registry::Registry;
use crate::settings::{DEFAULT_GROUP, NacosSettings};
use crate::stop::Stop;
use std::time::Duration;

/// Unless the server says another time.
const BEAT_EVERY: Duration = Duration::from_secs(5);
const BEAT_EVERY_MIN: Duration = Duration::from_secs(1);
/// An instance is unhealthy after 15 s without one.
const BEAT_EVERY_MAX: Duration = Duration::from_secs(10);
const RENEW_EVERY: Duration = Duration::from_secs(60);
const WEIGHT_MAX: f64 = 10_000.0;
const DEFAULT_CLUSTER: &str = "DEFAULT";

/// A cluster, and who registers with it.
#[derive(Debug)]
pub(crate) struct Member {
    cluster: Cluster,
    group: String,
    namespace: String,
    /// Nacos' word for a part of a service's instances.
    part: String,
    registration: Registration,
}

impl Member {
    /// Group, namespace and cluster may be empty.
    pub(crate) fn new(
        settings: &NacosSettings,
        [group, namespace, part]: [String; 3],
        registration: Registration,
    ) -> Member {
        let or = |text: String, default: &str| if text.is_empty() { default.to_owned() } else { text };
        Member {
            cluster: Cluster::new(settings),
            group: or(group, DEFAULT_GROUP),
            namespace,
            part: or(part, DEFAULT_CLUSTER),
            registration,
        }
    }

    fn values(&self, api: Api, op: Op) -> Values {
        let registration = &self.registration;
        let mut values = vec![
            ("serviceName", registration.name.clone()),
            ("groupName", self.group.clone()),
            ("namespaceId", self.namespace.clone()),
            ("clusterName", self.part.clone()),
            ("ip", registration.address.ip().to_string()),
            ("port", registration.address.port().to_string()),
            ("ephemeral", "true".to_owned()),
        ];
        match (api, op) {
            (Api::V3, Op::Beat) => values.push(("heartBeat", "true".to_owned())),
            (_, Op::Register) => values.extend([
                ("weight", (f64::from(registration.weight) / 100.0).min(WEIGHT_MAX).to_string()),
                ("healthy", "true".to_owned()),
                ("enabled", "true".to_owned()),
                ("metadata", self.metadata()),
            ]),
            _ => {}
        }
        values
    }

    /// With the tags, for which Nacos has no place of its own, and the instance's id.
    fn metadata(&self) -> String {
        let mut metadata = self.registration.metadata.clone();
        metadata.entry("id".to_owned()).or_insert_with(|| self.registration.id.clone());
        if !self.registration.tags.is_empty() {
            metadata.insert("tags".to_owned(), self.registration.tags.join(","));
        }
        serde_json::to_string(&metadata).unwrap_or_default()
    }

    fn ask(&mut self, op: Op, stop: &Stop) -> Result<(Api, Vec<u8>), RegistryError> {
        let values = [Api::V1, Api::V3].map(|api| self.values(api, op));
        let [v1, v3] = values;
        let chosen = |api| if api == Api::V1 { v1.clone() } else { v3.clone() };
        let good = self.cluster.ask(op, &chosen, stop)?;
        Ok((good.api, good.body))
    }
}

impl Registry for Member {
    fn place(&self) -> String {
        format!("Nacos at {}", self.cluster.place())
    }

    fn register(&mut self, stop: &Stop) -> Result<Duration, RegistryError> {
        self.ask(Op::Register, stop)?;
        Ok(BEAT_EVERY)
    }

    /// There is no beat that says that something is wrong: none says it.
    fn beat(&mut self, is_healthy: bool, stop: &Stop) -> Result<Option<Duration>, RegistryError> {
        if !is_healthy {
            return Ok(None);
        }
        let (api, body) = self.ask(Op::Beat, stop)?;
        if api == Api::V3 {
            return Ok(None);
        }
        let answer: BeatAnswer =
            serde_json::from_slice(&body).map_err(|error| self.cluster.unexpected(error))?;
        if !answer.is_good() {
            return Err(RegistryError::refused(&self.cluster.place(), answer.code, "to a beat"));
        }
        let every = answer.client_beat_interval.map(Duration::from_millis);
        Ok(every.map(|every| every.clamp(BEAT_EVERY_MIN, BEAT_EVERY_MAX)))
    }

    fn deregister(&mut self, stop: &Stop) -> Result<(), RegistryError> {
        self.cluster.hurry();
        match self.ask(Op::Deregister, stop) {
            // What is not there need not go.
            Err(RegistryError::Refused { code: 21_003 | 20_404 | 20_004, .. }) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    fn renew_every(&self) -> Option<Duration> {
        Some(RENEW_EVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registration::Check;

    #[test]
    fn a_registration_has_its_weight_and_tags_and_a_beat_is_light() {
        let registration = Registration {
            id: "chat-1".to_owned(),
            name: "chat".to_owned(),
            address: "10.0.0.1:7100".parse().unwrap(),
            weight: 150,
            tags: vec!["canary".to_owned(), "fast".to_owned()],
            metadata: [("zone".to_owned(), "eu".to_owned())].into(),
            check: Check::Ttl(Duration::from_secs(15)),
            deregister_after: Duration::from_secs(60),
        };
        let settings = NacosSettings::default();
        let member = Member::new(&settings, [String::new(), "ns".to_owned(), String::new()], registration);
        let values = member.values(Api::V1, Op::Register);
        let value = |name| values.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str());
        assert_eq!(value("serviceName"), Some("chat"), "without the group");
        assert_eq!((value("groupName"), value("namespaceId")), (Some("DEFAULT_GROUP"), Some("ns")));
        assert_eq!((value("clusterName"), value("weight")), (Some("DEFAULT"), Some("1.5")));
        assert_eq!(value("metadata"), Some(r#"{"id":"chat-1","tags":"canary,fast","zone":"eu"}"#));
        let beat = member.values(Api::V3, Op::Beat);
        assert!(beat.contains(&("heartBeat", "true".to_owned())));
        assert!(beat.iter().all(|(name, _)| !["beat", "metadata", "weight"].contains(name)));
    }
}
