//! An instance in Consul: registered with the agent of this machine, which asks after it or is told.

use super::entries::WEIGHT_OF_ONE;
use super::{refused, request};
use crate::error::RegistryError;
use crate::http::{Ask, Content, Http, Method, encoded};
use crate::registration::{Check, Registration};
use crate::registry::Registry;
use crate::settings::{ConsulSettings, Secret};
use crate::stop::Stop;
use serde_json::json;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(3);
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
/// What Consul takes at least.
const DEREGISTER_AFTER_MIN: Duration = Duration::from_secs(60);
/// Between looks whether the agent still knows an instance that it asks itself.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const WEIGHT_MAX: u32 = 65_535;

/// An agent, and who registers with it.
#[derive(Debug)]
pub(crate) struct Agent {
    http: Http,
    token: Option<Secret>,
    registration: Registration,
}

impl Agent {
    pub(crate) fn new(settings: &ConsulSettings, registration: Registration) -> Agent {
        let http = Http::new(&settings.address, settings.ca_file.as_deref(), TIMEOUT);
        Agent { http, token: settings.token.clone().map(Secret), registration }
    }

    fn send(&mut self, ask: &Ask<'_>, stop: &Stop) -> Result<u16, RegistryError> {
        let answer = request(&mut self.http, self.token.as_ref(), ask, stop)?;
        match answer.status {
            200 => Ok(200),
            _ => Err(refused(&self.http, &answer)),
        }
    }
}

impl Registry for Agent {
    fn place(&self) -> String {
        format!("Consul at {}", self.http.server())
    }

    /// What was registered under this id before may have left a critical check behind, which stays until the first beat.
    fn register(&mut self, stop: &Stop) -> Result<Duration, RegistryError> {
        let content = content(&self.registration);
        let path = "/v1/agent/service/register?replace-existing-checks=true";
        self.send(&Ask { content: Content::Json(&content), ..Ask::new(Method::PUT, path) }, stop)?;
        Ok(match self.registration.check {
            Check::Ttl(ttl) => {
                self.beat(true, stop)?;
                ttl / 3
            }
            Check::Http { .. } => LOOK_EVERY,
        })
    }

    fn beat(&mut self, is_healthy: bool, stop: &Stop) -> Result<Option<Duration>, RegistryError> {
        let id = encoded(&self.registration.id);
        match self.registration.check {
            Check::Ttl(_) => {
                let says = if is_healthy { "pass" } else { "fail" };
                self.send(&Ask::new(Method::PUT, &format!("/v1/agent/check/{says}/service:{id}")), stop)
            }
            // It sees for itself how the instance is.
            Check::Http { .. } => self.send(&Ask::new(Method::GET, &format!("/v1/agent/service/{id}")), stop),
        }?;
        Ok(None)
    }

    fn deregister(&mut self, stop: &Stop) -> Result<(), RegistryError> {
        let path = format!("/v1/agent/service/deregister/{}", encoded(&self.registration.id));
        let ask = Ask { timeout: Some(FAREWELL_TIMEOUT), ..Ask::new(Method::PUT, &path) };
        match self.send(&ask, stop) {
            // What is not there need not go; older agents say so with 500.
            Err(RegistryError::Refused { code: 404, .. }) => Ok(()),
            Err(RegistryError::Refused { words, .. }) if words.starts_with("Unknown service") => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

fn content(registration: &Registration) -> String {
    let after = registration.deregister_after.max(DEREGISTER_AFTER_MIN);
    // Checks are critical at first unless one says otherwise.
    let (status, after) = ("passing", milliseconds(after));
    let check = match &registration.check {
        Check::Ttl(ttl) => {
            json!({"TTL": milliseconds(*ttl), "Status": status, "DeregisterCriticalServiceAfter": after})
        }
        Check::Http { url, interval } => {
            let timeout = (*interval).clamp(Duration::from_secs(1), Duration::from_secs(10));
            json!({
                "HTTP": url, "Interval": milliseconds(*interval), "Timeout": milliseconds(timeout),
                "Status": status, "DeregisterCriticalServiceAfter": after
            })
        }
    };
    json!({
        "ID": registration.id,
        "Name": registration.name,
        "Address": registration.address.ip().to_string(),
        "Port": registration.address.port(),
        "Tags": registration.tags,
        "Meta": registration.metadata,
        "Weights": {"Passing": weight(registration.weight), "Warning": 1},
        "Check": check,
    })
    .to_string()
}

/// Our 100 is Consul's 1; it takes no 0, and no parts.
fn weight(ours: u32) -> u32 {
    ours.saturating_add(WEIGHT_OF_ONE / 2).checked_div(WEIGHT_OF_ONE).unwrap_or(1).clamp(1, WEIGHT_MAX)
}

fn milliseconds(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn registered(check: Check, deregister_after: u64) -> Value {
        let registration = Registration {
            id: "web-1".to_owned(),
            name: "web".to_owned(),
            address: "[::1]:7100".parse().unwrap(),
            weight: 0,
            tags: vec!["a".to_owned()],
            metadata: [("zone".to_owned(), "eu".to_owned())].into(),
            check,
            deregister_after: Duration::from_secs(deregister_after),
        };
        serde_json::from_str(&content(&registration)).unwrap()
    }

    #[test]
    fn a_registration_passes_from_the_start_and_is_forgotten_after_a_minute_at_least() {
        let content = registered(Check::Ttl(Duration::from_secs(15)), 5);
        let check =
            json!({"TTL": "15000ms", "Status": "passing", "DeregisterCriticalServiceAfter": "60000ms"});
        assert_eq!(content["Check"], check);
        assert_eq!((&content["Address"], &content["Port"]), (&json!("::1"), &json!(7100)));
        assert_eq!(content["Weights"]["Passing"], json!(1), "Consul takes no 0");
        assert_eq!((&content["Tags"], &content["Meta"]), (&json!(["a"]), &json!({"zone": "eu"})));
    }

    #[test]
    fn our_usual_weight_is_consuls() {
        for (ours, consuls) in [(0, 1), (40, 1), (100, 1), (149, 1), (150, 2), (1000, 10), (u32::MAX, 65_535)]
        {
            assert_eq!(weight(ours), consuls, "{ours}");
        }
    }

    #[test]
    fn consul_may_ask_itself() {
        let url = "http://10.0.0.1:9100/livez".to_owned();
        let content = registered(Check::Http { url: url.clone(), interval: Duration::from_secs(5) }, 120);
        let check = json!({
            "HTTP": url, "Interval": "5000ms", "Timeout": "5000ms", "Status": "passing",
            "DeregisterCriticalServiceAfter": "120000ms"
        });
        assert_eq!(content["Check"], check);
    }
}
