//! From a command and its version to a route.

use super::{RoleMask, Roles, Route, RouteSettings, Span};
use crate::base::ids::RouteId;

/// Why a request has no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteMiss {
    /// Nobody owns the command.
    NoCommand,
    /// Somebody does, in higher versions only.
    VersionTooLow,
    /// Somebody does, but not in this version.
    NoVersion,
}

/// What is wrong with a set of routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoutingError {
    /// Two routes take the same command in the same version; their places in the list.
    Overlap(usize, usize),
    /// More different roles than there are bits.
    TooManyRoles,
    /// More routes than there are ids.
    TooManyRoutes,
}

impl std::fmt::Display for RoutingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RoutingError::Overlap(one, two) => write!(f, "routes {} and {} overlap", one + 1, two + 1),
            RoutingError::TooManyRoles => {
                write!(f, "routes ask for more than {} different roles", Roles::MAX)
            }
            RoutingError::TooManyRoutes => write!(f, "more than {} routes", u16::MAX),
        }
    }
}

impl std::error::Error for RoutingError {}

/// All routes, sorted by command, found by binary search.
#[derive(Debug, Clone, Default)]
pub struct RouteTable {
    /// Ranges that share no command, sorted; each with the versions of that range.
    ranges: Vec<Range>,
    /// Their last commands, close together: what a search goes through.
    lasts: Vec<u32>,
    routes: Vec<Route>,
    roles: Roles,
}

#[derive(Debug, Clone)]
struct Range {
    commands: Span,
    versions: Vec<(Span, RouteId)>,
}

impl RouteTable {
    /// Puts the routes in force.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn build(settings: &[RouteSettings]) -> Result<RouteTable, Vec<RoutingError>> {
        let mut errors = overlaps(settings);
        let mut table = RouteTable::default();
        for (at, route) in settings.iter().enumerate() {
            let Ok(id) = u16::try_from(at).map(RouteId) else {
                errors.push(RoutingError::TooManyRoutes);
                break;
            };
            match table.mask_for(&route.roles) {
                Some(roles) => table.routes.push(in_force(id, route, roles)),
                None => {
                    errors.push(RoutingError::TooManyRoles);
                    break;
                }
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        table.ranges = ranges(settings);
        table.lasts = table.ranges.iter().map(|range| range.commands.last).collect();
        Ok(table)
    }

    fn mask_for(&mut self, names: &[String]) -> Option<RoleMask> {
        names.iter().try_for_each(|name| self.roles.intern(name).map(|_| ()))?;
        Some(self.roles.mask(names.iter().map(String::as_str)))
    }

    /// The route of a command in a version.
    ///
    /// # Errors
    /// [`RouteMiss`] when nobody owns it.
    #[inline]
    pub fn find(&self, command: u32, version: u32) -> Result<&Route, RouteMiss> {
        let at = self.lasts.partition_point(|last| *last < command);
        let range = self
            .ranges
            .get(at)
            .filter(|range| range.commands.contains(command))
            .ok_or(RouteMiss::NoCommand)?;
        let owner = range.versions.iter().find(|(versions, _)| versions.contains(version));
        let miss = || match range.versions.iter().all(|(versions, _)| version < versions.first) {
            true => RouteMiss::VersionTooLow,
            false => RouteMiss::NoVersion,
        };
        owner.and_then(|(_, id)| self.routes.get(id.index())).ok_or_else(miss)
    }

    /// Every route, in the order of the ids.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter()
    }

    /// A route by its id.
    pub fn route(&self, id: RouteId) -> Option<&Route> {
        self.routes.get(id.index())
    }

    /// The bits of those of these roles that any route asks for.
    pub fn role_mask<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> RoleMask {
        self.roles.mask(names)
    }

    /// Number of routes.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }
}

fn in_force(id: RouteId, route: &RouteSettings, roles: RoleMask) -> Route {
    Route {
        id,
        commands: route.commands,
        versions: route.versions,
        service: route.service,
        anonymous: route.anonymous,
        roles,
        protocol_min: route.protocol_min,
        timeout: route.timeout,
        order: route.order,
        idempotent: route.idempotent,
        hedge: route.hedge,
        priority: route.priority,
        payload_bytes_max: route.payload_bytes_max,
    }
}

/// Routes that take the same command in the same version as another one, each with the first such one. A sweep over the
/// commands: quick for thousands of routes, whether they overlap or not.
fn overlaps(settings: &[RouteSettings]) -> Vec<RoutingError> {
    let mut order: Vec<usize> = (0..settings.len()).collect();
    order.sort_by_key(|at| settings.get(*at).map(|route| route.commands.first));
    let mut open: Vec<(usize, &RouteSettings)> = Vec::new();
    let mut found = Vec::new();
    for at in order {
        let Some(route) = settings.get(at) else { continue };
        open.retain(|(_, other)| other.commands.last >= route.commands.first);
        let first = open.iter().find(|(_, other)| other.versions.meets(route.versions));
        if let Some((other_at, other)) = first {
            found.push(RoutingError::Overlap(at.min(*other_at), at.max(*other_at)));
            // Later routes are compared with the other one, as far as it reaches.
            if other.commands.last >= route.commands.last {
                continue;
            }
        }
        open.push((at, route));
    }
    found
}

/// Cuts the routes' commands into ranges within which the same routes apply.
fn ranges(settings: &[RouteSettings]) -> Vec<Range> {
    let mut cuts: Vec<u64> = settings
        .iter()
        .flat_map(|route| [u64::from(route.commands.first), u64::from(route.commands.last) + 1])
        .collect();
    cuts.sort_unstable();
    cuts.dedup();
    let mut order: Vec<(usize, &RouteSettings)> = settings.iter().enumerate().collect();
    order.sort_by_key(|(_, route)| route.commands.first);
    let mut upcoming = order.into_iter().peekable();
    let mut open: Vec<(usize, &RouteSettings)> = Vec::new();
    let mut ranges = Vec::new();
    for pair in cuts.windows(2) {
        let [start, end] = *pair else { continue };
        while let Some(next) = upcoming.next_if(|(_, route)| u64::from(route.commands.first) <= start) {
            open.push(next);
        }
        open.retain(|(_, route)| u64::from(route.commands.last) >= start);
        let bounds = (u32::try_from(start), u32::try_from(end.saturating_sub(1)));
        if let ((Ok(first), Ok(last)), false) = (bounds, open.is_empty()) {
            let id = |at: usize| RouteId(u16::try_from(at).unwrap_or(u16::MAX));
            let versions = open.iter().map(|(at, route)| (route.versions, id(*at))).collect();
            ranges.push(Range { commands: Span { first, last }, versions });
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::ServiceId;
    use proptest::prelude::*;

    fn route(first: u32, last: u32, versions: (u32, u32), service: u16) -> RouteSettings {
        RouteSettings {
            versions: Span { first: versions.0, last: versions.1 },
            ..RouteSettings::new(Span { first, last }, ServiceId(service))
        }
    }

    #[test]
    fn a_command_finds_its_route_by_version() {
        let settings =
            [route(0x200, 0x2ff, (1, 1), 1), route(0x100, 0x1ff, (1, 2), 0), route(0x210, 0x210, (2, 3), 2)];
        let table = RouteTable::build(&settings).unwrap();
        let service = |command, version| table.find(command, version).map(|route| route.service.0);
        assert_eq!(service(0x100, 2), Ok(0));
        assert_eq!(service(0x210, 1), Ok(1));
        assert_eq!(service(0x210, 3), Ok(2));
        assert_eq!(service(0x2ff, 1), Ok(1));
        assert_eq!(service(0x300, 1), Err(RouteMiss::NoCommand));
        assert_eq!(service(0xff, 1), Err(RouteMiss::NoCommand));
        assert_eq!(service(0x100, 3), Err(RouteMiss::NoVersion));
        assert_eq!(service(0x100, 0), Err(RouteMiss::VersionTooLow));
        assert_eq!(table.find(0x210, 2).unwrap().id, RouteId(2));
    }

    #[test]
    fn overlaps_are_found() {
        let settings = [route(1, 10, (1, 1), 0), route(10, 20, (1, 2), 0), route(5, 6, (2, 2), 0)];
        assert_eq!(RouteTable::build(&settings).unwrap_err(), [RoutingError::Overlap(0, 1)]);
    }

    #[test]
    fn roles_open_a_route() {
        let mut settings = [route(1, 1, (1, 1), 0), route(2, 2, (1, 1), 0)];
        settings[0].roles = vec!["admin".into(), "staff".into()];
        let table = RouteTable::build(&settings).unwrap();
        let allows = |command, roles: &[&str]| {
            table.find(command, 1).unwrap().allows(table.role_mask(roles.iter().copied()))
        };
        assert!(allows(1, &["guest", "staff"]));
        assert!(!allows(1, &["guest"]));
        assert!(!allows(1, &[]));
        assert!(allows(2, &[]));
    }

    #[test]
    fn roles_are_bounded() {
        let mut settings = [route(1, 1, (1, 1), 0)];
        settings[0].roles = (0..65).map(|n| format!("role{n}")).collect();
        assert_eq!(RouteTable::build(&settings).unwrap_err(), [RoutingError::TooManyRoles]);
    }

    proptest! {
        #[test]
        fn the_table_agrees_with_the_list(
            spans in proptest::collection::vec((0u32..60, 0u32..6, 1u32..4, 0u32..2), 1..12),
            asked in proptest::collection::vec((0u32..70, 1u32..6), 1..40),
        ) {
            let settings: Vec<_> = spans
                .iter()
                .map(|(first, len, version, more)| route(*first, first + len, (*version, version + more), 0))
                .collect();
            let clash = |a: &RouteSettings, b: &RouteSettings| a.commands.meets(b.commands) && a.versions.meets(b.versions);
            let clashes = (0..settings.len()).any(|a| (0..a).any(|b| clash(&settings[a], &settings[b])));
            match RouteTable::build(&settings) {
                Err(_) => prop_assert!(clashes),
                Ok(table) => {
                    prop_assert!(!clashes);
                    for (command, version) in asked {
                        let owner = settings.iter().position(|r| r.commands.contains(command) && r.versions.contains(version));
                        prop_assert_eq!(table.find(command, version).ok().map(|route| route.id.index()), owner);
                    }
                }
            }
        }
    }
}
