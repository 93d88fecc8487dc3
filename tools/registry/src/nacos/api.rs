//! The two HTTP interfaces of Nacos: what is asked where, and what the answers look like.
//!
//! | | v1 | v3 |
//! | --- | --- | --- |
//! | instance | `/nacos/v1/ns/instance`, beats by `PUT .../beat` | `/nacos/v3/client/ns/instance`, beats by `?heartBeat=true` |
//! | answer | the thing itself | `{code, message, data}`, code 0 is good |
//! | unknown to a beat | code 20404 | code 21003 |
//! | list | `{cacheMillis, hosts, reachProtectionThreshold}` | the hosts alone |

use crate::elements::Element;
use crate::http::Method;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::BTreeMap;

/// An interface that a server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    V1,
    V3,
}

/// What is asked of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    List,
    Register,
    Beat,
    Deregister,
}

impl Api {
    /// Where it is asked, and how.
    pub(crate) fn place(self, op: Op) -> (Method, &'static str) {
        match (self, op) {
            (Api::V1, Op::List) => (Method::GET, "/nacos/v1/ns/instance/list"),
            (Api::V1, Op::Register) => (Method::POST, "/nacos/v1/ns/instance"),
            (Api::V1, Op::Beat) => (Method::PUT, "/nacos/v1/ns/instance/beat"),
            (Api::V1, Op::Deregister) => (Method::DELETE, "/nacos/v1/ns/instance"),
            (Api::V3, Op::List) => (Method::GET, "/nacos/v3/client/ns/instance/list"),
            (Api::V3, Op::Register | Op::Beat) => (Method::POST, "/nacos/v3/client/ns/instance"),
            (Api::V3, Op::Deregister) => (Method::DELETE, "/nacos/v3/client/ns/instance"),
        }
    }

    pub(crate) fn login(self) -> &'static str {
        match self {
            Api::V1 => "/nacos/v1/auth/login",
            Api::V3 => "/nacos/v3/auth/user/login",
        }
    }
}

/// Whether an answer says that this server does not have the interface: a plain 404, not one of Nacos' own.
pub(crate) fn is_elsewhere(status: u16, body: &[u8]) -> bool {
    let own = || {
        let value: Option<Value> = serde_json::from_slice(body).ok();
        value.and_then(|value| value.get("code")?.as_i64()).is_some_and(|code| code >= 10_000)
    };
    matches!(status, 404 | 405 | 501) && !own()
}

/// The envelope of v3.
#[derive(Debug, Deserialize)]
pub(crate) struct Envelope {
    pub(crate) code: i64,
    pub(crate) message: Option<String>,
    #[serde(default)]
    pub(crate) data: Value,
}

/// The answer to a beat in v1.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BeatAnswer {
    #[serde(default)]
    pub(crate) code: u32,
    pub(crate) client_beat_interval: Option<u64>,
}

impl BeatAnswer {
    /// All is well, as servers that know no codes say with 0.
    pub(crate) fn is_good(&self) -> bool {
        matches!(self.code, 0 | 200 | 10_200)
    }
}

/// The answer to a login.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LoginAnswer {
    pub(crate) access_token: String,
    /// In seconds.
    #[serde(default)]
    pub(crate) token_ttl: u64,
}

/// Instances of a service, in v1.
#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(crate) struct List {
    /// What is no number is none: it says nothing of the hosts.
    #[serde(default, deserialize_with = "number")]
    pub(crate) cache_millis: Option<u64>,
    pub(crate) hosts: Option<Vec<Element<Host>>>,
    #[serde(default, deserialize_with = "flag")]
    pub(crate) reach_protection_threshold: Option<bool>,
}

/// An instance.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Host {
    /// What is no text is of no use here.
    pub(crate) instance_id: Option<Value>,
    #[serde(default)]
    pub(crate) ip: String,
    #[serde(default)]
    pub(crate) port: i64,
    pub(crate) cluster_name: Option<String>,
    pub(crate) weight: Option<f64>,
    pub(crate) healthy: Option<bool>,
    pub(crate) enabled: Option<bool>,
    /// Values that are no texts are of no use here.
    pub(crate) metadata: Option<BTreeMap<String, Value>>,
}

impl List {
    /// From what a server of this kind answers.
    pub(crate) fn read(api: Api, body: &[u8]) -> Result<List, serde_json::Error> {
        match api {
            Api::V1 => serde_json::from_slice(body),
            Api::V3 => {
                let data = serde_json::from_slice::<Envelope>(body)?.data;
                // The hosts alone; a server that says more says it as v1 does.
                if data.is_object() {
                    return own(data);
                }
                Ok(List { hosts: own(data)?, ..List::default() })
            }
        }
    }
}

fn number<'de, D: Deserializer<'de>>(value: D) -> Result<Option<u64>, D::Error> {
    Value::deserialize(value).map(|value| value.as_u64())
}

fn flag<'de, D: Deserializer<'de>>(value: D) -> Result<Option<bool>, D::Error> {
    Value::deserialize(value).map(|value| value.as_bool())
}

fn own<T: DeserializeOwned>(value: Value) -> Result<T, serde_json::Error> {
    serde_json::from_value(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_v3_is_told_from_one_that_knows_no_such_thing() {
        let own = br#"{"code": 20004, "message": "service not found", "data": null}"#;
        let spring = br#"{"timestamp": "x", "status": 404, "error": "Not Found", "path": "/"}"#;
        assert!(is_elsewhere(404, b"") && is_elsewhere(404, spring) && is_elsewhere(405, b"<html>"));
        assert!(!is_elsewhere(404, own) && !is_elsewhere(200, b"") && !is_elsewhere(403, b""));
    }

    #[test]
    fn lists_come_in_two_shapes() {
        let host = r#"{"ip": "10.0.0.1", "port": 80, "weight": 1.5, "healthy": true, "enabled": true, "metadata": {}}"#;
        let v1 = format!(r#"{{"cacheMillis": 3000, "hosts": [{host}], "reachProtectionThreshold": true}}"#);
        let list = List::read(Api::V1, v1.as_bytes()).unwrap();
        assert_eq!((list.cache_millis, list.reach_protection_threshold), (Some(3000), Some(true)));
        assert_eq!(list.hosts.unwrap().len(), 1);
        let v3 = format!(r#"{{"code": 0, "message": "success", "data": [{host}, {host}]}}"#);
        let list = List::read(Api::V3, v3.as_bytes()).unwrap();
        assert_eq!((list.cache_millis, list.hosts.unwrap().len()), (None, 2));
        let v3 = format!(r#"{{"code": 0, "message": "success", "data": {v1}}}"#);
        assert_eq!(List::read(Api::V3, v3.as_bytes()).unwrap().cache_millis, Some(3000));
        let none = r#"{"code": 0, "message": "success", "data": null}"#;
        assert!(List::read(Api::V3, none.as_bytes()).unwrap().hosts.is_none());
        assert!(List::read(Api::V1, b"caused: no leader").is_err());
    }

    #[test]
    fn a_beat_says_whether_the_instance_is_known() {
        let read = |text: &str| serde_json::from_str::<BeatAnswer>(text).unwrap();
        let good = read(r#"{"code": 10200, "clientBeatInterval": 5000, "lightBeatEnabled": true}"#);
        assert_eq!((good.is_good(), good.client_beat_interval), (true, Some(5000)));
        assert!(read("{}").is_good() && !read(r#"{"code": 20404}"#).is_good());
    }
}
