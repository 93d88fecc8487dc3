//! Services and routes: who owns which commands, and whether every command has exactly one owner.

use super::discovery::{Around, Sources, sources};
use super::pool::{pool, role};
use super::report::Report;
use super::section::{Section, list, plain, string};
use super::{limits, text};
use crate::base::ids::ServiceId;
use crate::control::discovery::ServiceSources;
use crate::limit::Rate;
use crate::routing::{
    Grants, Order, Priority, Right, RouteSettings, RouteTable, RoutingError, ServiceSettings, Span,
};
use moorgate_proto::limits::{FRAME_BYTES_CEILING, NAME_BYTES};
use std::collections::HashMap;
use std::time::Duration;

const ENDPOINTS: &str = "[\"10.0.0.1:7100\"]";
const PRIORITIES: [(&str, Priority); 3] =
    [("low", Priority::Low), ("normal", Priority::Normal), ("high", Priority::High)];
const COMMANDS: &str = "\"0x0100-0x01ff\"";

/// A service as it is declared.
struct Declared<'a> {
    section: Section<'a>,
    name: Option<String>,
    commands: Option<Span>,
    settings: Option<ServiceSettings>,
    sources: Sources,
}

/// A route as it is declared.
struct Way<'a> {
    section: Section<'a>,
    service: Option<String>,
    /// `None`: it could not be read, and has told why.
    settings: Option<RouteSettings>,
    rate: Option<Rate>,
}

/// What stands in `[[service]]` and `[[route]]`.
pub(super) struct Ways {
    pub(super) services: Vec<ServiceSettings>,
    /// Of the services, by their ids: where their endpoints come from.
    pub(super) sources: Vec<ServiceSources>,
    pub(super) routes: RouteTable,
    /// Of the routes, by their ids.
    pub(super) rates: Vec<Option<Rate>>,
}

/// Services of one gateway.
const SERVICES_MAX: usize = 4096;

/// Reads `[[service]]` and `[[route]]`.
pub(super) fn services_and_routes(
    root: &mut Section<'_>,
    around: &Around<'_>,
    report: &mut Report<'_>,
) -> Ways {
    let (mut services, mut known): (Vec<Declared<'_>>, HashMap<String, usize>) = Default::default();
    for section in root.tables("service") {
        let mut service = service(section, around, report);
        if let Some(name) = &service.name
            && known.insert(name.clone(), services.len()).is_some()
        {
            let name = text::echo(name);
            let message = format!("another service is called `{name}` too; choose another name");
            service.section.wrong_once("name", message);
        }
        services.push(service);
    }
    if services.len() > SERVICES_MAX {
        report.whole(format!("{} of [[service]]; write {SERVICES_MAX} or fewer", services.len()));
    }
    if services.is_empty() && !root.has("service") {
        report.whole(format!(
            "no [[service]]: there is nowhere to send requests to; write\n  [[service]]\n  name = \"chat\"\n  \
             endpoints = {ENDPOINTS}\n  key_file = \"chat.key\""
        ));
    }
    let names: Vec<String> = services.iter().filter_map(|service| service.name.clone()).collect();
    let ids: HashMap<&str, usize> = names.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
    let mut ways: Vec<Way<'_>> =
        root.tables("route").into_iter().map(|section| route(section, &names, &ids)).collect();
    if ways.is_empty() && !root.has("route") {
        report.whole(format!(
            "no [[route]]: no request reaches a service; write\n  [[route]]\n  commands = {COMMANDS}\n  \
             service = \"chat\""
        ));
    }
    let routes = table(&mut ways, report);
    let rates = ways.iter().filter(|way| way.settings.is_some()).map(|way| way.rate).collect();
    covered(&mut services, &ways);
    ways.into_iter().for_each(|way| way.section.close(report));
    let (mut settings, mut sources) = (Vec::new(), Vec::new());
    for (id, service) in (0..u16::MAX).map(ServiceId).zip(services) {
        service.section.close(report);
        if let Some(own) = service.settings {
            sources.push(service.sources.of(id, &own.name));
            settings.push(own);
        }
    }
    Ways { services: settings, sources, routes, rates }
}

fn service<'a>(mut section: Section<'a>, around: &Around<'_>, report: &mut Report<'_>) -> Declared<'a> {
    let read = |value: &_| string(value, "a name in quotes").map(str::to_owned);
    let name = section.required("name", "\"chat\"", read);
    if let Some(name) = &name {
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !plain || !(1..=NAME_BYTES).contains(&name.len()) {
            // It stands in metrics and logs.
            section.wrong("name", format!("write 1 to {NAME_BYTES} letters, digits and -_."));
        }
    }
    let own_name = name.as_deref().unwrap_or_default();
    let sources = sources(&mut section, own_name, around, report);
    let pool = pool(&mut section, report);
    let key = around.secrets.link_key(&mut section);
    let grants = section.read("grants", grants).unwrap_or_default();
    let commands = section.read("commands", numbers);
    let endpoints = sources.fixed.clone();
    let settings =
        name.clone().map(|name| ServiceSettings { name, endpoints, pool, grants, key, is_required: true });
    Declared { section, name, commands, settings, sources }
}

fn grants(value: &toml::de::DeValue<'_>) -> Result<Grants, String> {
    let names: Vec<String> = Right::ALL.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let right = format!("a list of {}", names.join(", "));
    let read = |name: &str| {
        let found = Right::ALL.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, right)| *right)
            .ok_or_else(|| format!("`{}` is not known; write {right}", text::echo(name)))
    };
    let rights = list(value, &right, read)?;
    Ok(rights.into_iter().fold(Grants::NONE, Grants::with))
}

/// Requests have no version 0: it is taken as 1.
fn versions(value: &toml::de::DeValue<'_>) -> Result<Span, String> {
    match numbers(value)? {
        Span { first: 0, last } => Err(format!("versions begin at 1; write \"1-{}\"", last.max(1))),
        versions => Ok(versions),
    }
}

fn numbers(value: &toml::de::DeValue<'_>) -> Result<Span, String> {
    text::parse_numbers(&plain(value, "a range such as \"0x0100-0x01ff\"")?)
}

/// `ids` has the places of the services' names.
fn route<'a>(mut section: Section<'a>, services: &[String], ids: &HashMap<&str, usize>) -> Way<'a> {
    let commands = section.required("commands", COMMANDS, numbers);
    let read = |value: &_| string(value, "the name of a service").map(str::to_owned);
    let service = section.required("service", "\"chat\"", read);
    let at = service.as_ref().and_then(|name| ids.get(name.as_str()).copied());
    if let Some(name) = &service
        && at.is_none()
    {
        let (name, names) = (text::echo(name), text::names(services.iter().map(String::as_str)));
        section.wrong("service", format!("there is no service `{name}`; there are: {names}"));
    }
    let id = ServiceId(at.and_then(|at| u16::try_from(at).ok()).unwrap_or_default());
    let span = commands.unwrap_or(Span { first: 0, last: 0 });
    let default = RouteSettings::new(span, id);
    let roles = |value: &_| list(value, "a list such as [\"admin\"]", role);
    let (shortest, longest) = (Duration::from_millis(1), text::TIME_MAX);
    let settings = RouteSettings {
        versions: section.read("versions", versions).unwrap_or(default.versions),
        anonymous: section.flag("anonymous"),
        roles: section.read("roles", roles).unwrap_or_default(),
        protocol_min: section.number("protocol_min", 1..=moorgate_proto::VERSION, default.protocol_min),
        timeout: section.time("timeout", shortest..=longest, default.timeout),
        order: section.choice("order", &[("none", Order::None), ("session", Order::Session)], default.order),
        idempotent: section.flag("idempotent"),
        hedge: section.flag("hedge"),
        priority: section.choice("priority", &PRIORITIES, default.priority),
        payload_bytes_max: section.size("payload", 0..=FRAME_BYTES_CEILING, default.payload_bytes_max),
        ..default
    };
    if settings.anonymous && !settings.roles.is_empty() {
        let message = "anonymous sessions have no roles; write either anonymous = true or roles";
        section.wrong("roles", message);
    }
    if settings.hedge && !(settings.idempotent && settings.order == Order::None) {
        let message =
            "a call may run twice then; write idempotent = true and order = \"none\" too, or leave this out";
        section.wrong("hedge", message);
    }
    let rate = limits::rate(&mut section, "rate", None);
    let settings = commands.and(at).map(|_| settings);
    Way { section, service, settings, rate }
}

fn table(ways: &mut [Way<'_>], report: &mut Report<'_>) -> RouteTable {
    // Only of those that could be read; the others have told why not.
    let readable: Vec<usize> =
        ways.iter().enumerate().filter(|(_, way)| way.settings.is_some()).map(|(at, _)| at).collect();
    let settings: Vec<RouteSettings> = ways.iter().filter_map(|way| way.settings.clone()).collect();
    RouteTable::build(&settings).unwrap_or_else(|errors| {
        for error in errors {
            match error {
                RoutingError::Overlap(one, two) => {
                    let line = readable
                        .get(one)
                        .and_then(|at| ways.get(*at))
                        .map_or(1, |way| report.line(way.section.place("commands")));
                    let (Some(mine), Some(other)) = (settings.get(two), settings.get(one)) else { continue };
                    let message = format!(
                        "{} overlaps with {} of line {line} in the same versions; give each command to one route",
                        mine.commands, other.commands
                    );
                    if let Some(way) = readable.get(two).and_then(|at| ways.get_mut(*at)) {
                        way.section.wrong("commands", message);
                    }
                }
                RoutingError::TooManyRoles | RoutingError::TooManyRoutes => report.whole(error),
            }
        }
        RouteTable::default()
    })
}

/// Commands that a service says are its own, and no route leads to.
fn covered(services: &mut [Declared<'_>], ways: &[Way<'_>]) {
    let mut led: HashMap<&str, Vec<Span>> = HashMap::new();
    for way in ways {
        // A route that could not be read may be the one that is missing.
        let (Some(settings), Some(service)) = (&way.settings, &way.service) else { return };
        led.entry(service).or_default().push(settings.commands);
    }
    for service in services {
        let Some(name) = &service.name else { continue };
        let Some(own) = led.get(name.as_str()) else {
            let name = text::echo(name);
            service.section.wrong("name", format!("no route leads to `{name}`; write a [[route]] to it"));
            continue;
        };
        let Some(declared) = service.commands else { continue };
        for hole in holes(declared, own.clone()) {
            service.section.wrong("commands", format!("no route leads to {hole}; write a [[route]] for it"));
        }
    }
}

/// What `covered` leaves open of `declared`.
fn holes(declared: Span, mut covered: Vec<Span>) -> Vec<Span> {
    covered.sort_by_key(|span| span.first);
    let mut holes = Vec::new();
    // The first number not known to be covered; `None`: all are.
    let mut next = Some(declared.first);
    for span in covered {
        let Some(first) = next.filter(|first| *first <= declared.last) else { break };
        if span.first > first {
            let last = span.first.saturating_sub(1).min(declared.last);
            holes.push(Span { first, last });
        }
        if span.last >= first {
            next = span.last.checked_add(1);
        }
    }
    if let Some(first) = next.filter(|first| *first <= declared.last) {
        holes.push(Span { first, last: declared.last });
    }
    holes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span((first, last): (u32, u32)) -> Span {
        Span { first, last }
    }

    fn found(declared: (u32, u32), covered: &[(u32, u32)]) -> Vec<Span> {
        holes(span(declared), covered.iter().copied().map(span).collect())
    }

    #[test]
    fn holes_are_found_at_both_ends_and_between() {
        assert_eq!(found((1, 9), &[(1, 9)]), []);
        assert_eq!(found((1, 9), &[(0, u32::MAX)]), []);
        assert_eq!(found((1, 9), &[(4, 5), (2, 2)]), [span((1, 1)), span((3, 3)), span((6, 9))]);
        assert_eq!(found((1, 9), &[(20, 30)]), [span((1, 9))]);
        assert_eq!(found((5, 9), &[(1, 2), (5, 9)]), []);
        assert_eq!(found((0, u32::MAX), &[(0, 5), (7, u32::MAX)]), [span((6, 6))]);
        assert_eq!(found((3, 9), &[(1, 8), (2, 4)]), [span((9, 9))]);
    }
}
