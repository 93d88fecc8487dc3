//! Where a registry is, and what is asked of it.

use crate::error::RegistryError;
use crate::http::check_server;
use std::fmt;
use std::path::PathBuf;

/// A Consul agent.
#[derive(Clone, PartialEq, Eq)]
pub struct ConsulSettings {
    /// `http://host:port` or `https://host:port`, without a path.
    pub address: String,
    /// Sent as `X-Consul-Token`.
    pub token: Option<String>,
    /// PEM with the certificates that are trusted for `https`, instead of any others.
    pub ca_file: Option<PathBuf>,
    /// Empty: the agent's own.
    pub datacenter: String,
}

impl Default for ConsulSettings {
    fn default() -> ConsulSettings {
        ConsulSettings {
            address: "http://127.0.0.1:8500".to_owned(),
            token: None,
            ca_file: None,
            datacenter: String::new(),
        }
    }
}

impl ConsulSettings {
    /// Whether a request can be made with them; reads `ca_file` if there is one to be used.
    ///
    /// # Errors
    /// With what would be right.
    pub fn check(&self) -> Result<(), RegistryError> {
        check_server(&self.address, self.ca_file.as_deref())?;
        if self.token.as_ref().is_some_and(|token| !token.chars().all(|c| c.is_ascii_graphic())) {
            let what = "the token of Consul has characters that no token has".to_owned();
            return Err(RegistryError::Settings { what });
        }
        Ok(())
    }
}

impl fmt::Debug for ConsulSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsulSettings")
            .field("address", &self.address)
            .field("token", &self.token.as_ref().map(|_| Hidden))
            .field("ca_file", &self.ca_file)
            .field("datacenter", &self.datacenter)
            .finish()
    }
}

/// A service in Consul.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConsulQuery {
    /// What it is registered as.
    pub name: String,
    /// An instance must have all of them.
    pub tags: Vec<String>,
    /// In Consul's filter language, as `Service.Meta.version == "2"`; empty: none.
    pub filter: String,
    /// Empty: that of the settings.
    pub datacenter: String,
    /// The key in the service's metadata, else in the node's, under which the zone is; empty: no zones.
    pub zone_meta: String,
}

/// A Nacos cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct NacosSettings {
    /// `http://host:port` or `https://host:port`, without a path; the next one is asked when one fails.
    pub servers: Vec<String>,
    /// Empty: no login.
    pub username: String,
    /// The user's.
    pub password: Option<String>,
    /// PEM with the certificates that are trusted for `https`, instead of any others.
    pub ca_file: Option<PathBuf>,
}

impl Default for NacosSettings {
    fn default() -> NacosSettings {
        NacosSettings {
            servers: vec!["http://127.0.0.1:8848".to_owned()],
            username: String::new(),
            password: None,
            ca_file: None,
        }
    }
}

impl NacosSettings {
    /// Whether a request can be made with them; reads `ca_file` if there is one to be used.
    ///
    /// # Errors
    /// With what would be right.
    pub fn check(&self) -> Result<(), RegistryError> {
        let wrong = |what: &str| Err(RegistryError::Settings { what: what.to_owned() });
        if self.servers.is_empty() {
            return wrong("no server of Nacos is named: `servers` has at least one");
        }
        if self.password.is_some() && self.username.is_empty() {
            return wrong("there is a password of Nacos and no `username`");
        }
        self.servers.iter().try_for_each(|server| check_server(server, self.ca_file.as_deref()))
    }
}

impl fmt::Debug for NacosSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NacosSettings")
            .field("servers", &self.servers)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| Hidden))
            .field("ca_file", &self.ca_file)
            .finish()
    }
}

/// The group of Nacos services that name none.
pub const DEFAULT_GROUP: &str = "DEFAULT_GROUP";

/// A service in Nacos.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NacosQuery {
    /// What it is registered as, without its group.
    pub name: String,
    /// Empty: [`DEFAULT_GROUP`].
    pub group: String,
    /// The id of the namespace; empty: `public`.
    pub namespace: String,
    /// Instances of these only; empty: of all.
    pub clusters: Vec<String>,
    /// The key in the instance's metadata under which the zone is; empty: no zones.
    pub zone_meta: String,
}

/// What `Debug` does not show.
#[derive(Clone, Default)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hidden.fmt(f)
    }
}

/// Stands for a secret.
struct Hidden;

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let consul = ConsulSettings { token: Some("s3cret".to_owned()), ..ConsulSettings::default() };
        let nacos = NacosSettings { password: Some("s3cret".to_owned()), ..NacosSettings::default() };
        let printed = format!("{consul:?} {nacos:?}");
        assert!(printed.contains("***") && !printed.contains("s3cret"), "{printed}");
    }

    #[test]
    fn settings_say_what_would_be_right() {
        assert_eq!((ConsulSettings::default().check(), NacosSettings::default().check()), (Ok(()), Ok(())));
        let consul = |address: &str, token: &str| {
            let (address, token) = (address.to_owned(), Some(token.to_owned()));
            ConsulSettings { address, token, ..ConsulSettings::default() }.check().unwrap_err().to_string()
        };
        assert!(consul("127.0.0.1:8500", "t").contains("http://HOST:PORT"));
        assert!(consul("http://127.0.0.1:8500", "a\nb").contains("token"));
        let nacos = |servers: &[&str]| {
            let (servers, password) = (servers.iter().map(|&s| s.to_owned()).collect(), Some("p".to_owned()));
            NacosSettings { servers, password, ..NacosSettings::default() }.check().unwrap_err().to_string()
        };
        assert!(nacos(&[]).contains("`servers`") && nacos(&["http://n"]).contains("`username`"));
    }
}
