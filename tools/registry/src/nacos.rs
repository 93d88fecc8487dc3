//! Nacos, over HTTP.
use crate::{Listed, NacosQuery, NacosSettings, RegistryError, Stop, Watch};

/// Follows a service in Nacos.
pub struct NacosWatch;

impl NacosWatch {
    /// One that has not asked yet.
    pub fn new(_settings: &NacosSettings, _query: NacosQuery) -> NacosWatch {
        NacosWatch
    }
}

impl Watch for NacosWatch {
    fn next(&mut self, stop: &Stop) -> Option<Result<Vec<Listed>, RegistryError>> {
        while !stop.wait(std::time::Duration::from_secs(60)) {}
        None
    }
}
