//! Bugs that are put in on purpose: each must be found.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// Retries have no budget to speak of.
    RetryStorm,
    /// No endpoint is ever ejected.
    NeverEjected,
    /// None that was ejected comes back in time.
    NeverBack,
    /// What the registry says is believed as it stands.
    RegistryBelieved,
    /// A call that was settled is forgotten on the way.
    LostSettlement,
    /// A call that a service has run is said not to have been executed.
    FalseWord,
    /// What has left is called as before.
    Undying,
    /// Who a user is to the canary's share changes with the share.
    UsersMove,
    /// A call that the other side has taken is answered as if there were none.
    NoFallback,
    /// Nobody is in any zone.
    ZoneForgotten,
    /// All calls are taken for those of one caller.
    CallerUnknown,
    /// Instances are sent whatever comes.
    Unbounded,
}
