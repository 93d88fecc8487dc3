//! Where a link belongs.

use crate::base::ids::ServiceId;
use crate::routing::EndpointId;

/// Where a link belongs. A seat may be another endpoint's later: the id tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) id: EndpointId,
    pub(super) service: ServiceId,
    pub(super) seat: u16,
    pub(super) slot: u16,
}

impl Place {
    /// Whether both are links to the same endpoint.
    pub(super) fn is_beside(self, other: Place) -> bool {
        (self.service, self.id) == (other.service, other.id)
    }
}
