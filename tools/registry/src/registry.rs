//! What a registrar asks of a registry, whichever it is.

use crate::error::RegistryError;
use crate::stop::Stop;
use std::time::Duration;

/// A registry, as the thread sees it.
pub(crate) trait Registry: Send {
    /// For the log.
    fn place(&self) -> String;
    /// How often to beat from now on.
    fn register(&mut self, stop: &Stop) -> Result<Duration, RegistryError>;
    /// How often to beat from now on, if the registry says so. One that is not healthy is said to be so, or not to live.
    fn beat(&mut self, is_healthy: bool, stop: &Stop) -> Result<Option<Duration>, RegistryError>;
    /// Within a second for each server. Good also when it was not there.
    fn deregister(&mut self, stop: &Stop) -> Result<(), RegistryError>;
    /// How often to register all the same.
    fn renew_every(&self) -> Option<Duration> {
        None
    }
}
