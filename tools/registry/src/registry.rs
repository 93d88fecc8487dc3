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
    /// How often to beat from now on, if the registry says so. Any error is put right by registering again.
    fn beat(&mut self, stop: &Stop) -> Result<Option<Duration>, RegistryError>;
    /// Good also when it was not there.
    fn deregister(&mut self, stop: &Stop) -> Result<(), RegistryError>;
    /// How often to register all the same.
    fn renew_every(&self) -> Option<Duration> {
        None
    }
}
