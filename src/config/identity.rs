//! Who is let in: keys of access tokens, applications, and the service that confirms new sessions.

use super::report::Report;
use super::secrets::Secrets;
use super::section::{Section, string};
use super::text;
use crate::auth::{
    ACCESS_TTL_DEFAULT, ACCESS_TTL_MAX_DEFAULT, Application, Applications, Authority, Issuer, KEEP_DEFAULT,
    KeyRing, LEEWAY_DEFAULT, Revocations, SigningKey,
};
use crate::base::ids::ServiceId;
use crate::routing::{Right, ServiceSettings};
use crate::shard::CheckSettings;
use moorgate_proto::limits::NAME_BYTES;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::time::Duration;

/// The most that clocks may differ.
const LEEWAY_MAX: Duration = Duration::from_secs(3600);
/// How long revocations may be remembered.
const KEEPS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(366 * 24 * 3600);
/// The life of a token, in whole seconds on the wire.
const LIVES: RangeInclusive<Duration> = Duration::from_secs(1)..=text::TIME_MAX;

/// Reads `[auth]` and `[[application]]`.
pub(super) fn authority(root: &mut Section<'_>, secrets: &Secrets<'_>, report: &mut Report<'_>) -> Authority {
    let mut auth = root.table("auth");
    let (issuer, audience) = (auth.text_to_match("issuer"), auth.text_to_match("audience"));
    let leeway = auth.seconds("leeway", Duration::ZERO..=LEEWAY_MAX, LEEWAY_DEFAULT);
    let keep = auth.seconds("revocations", KEEPS, KEEP_DEFAULT);
    let (keys, all_read) = keys(&mut auth, secrets, report);
    let own = own_issuer(&mut auth, &keys, all_read);
    auth.close(report);
    let own = own.map(|own| Issuer { issuer: issuer.clone(), audience: audience.clone(), ..own });
    let keys = KeyRing::new(keys, issuer, audience, leeway.as_secs()).unwrap_or_default();
    let applications = applications(root, secrets, report);
    Authority { keys, issuer: own, applications, revocations: Revocations::new(keep) }
}

/// The keys, and whether all could be read.
fn keys(auth: &mut Section<'_>, secrets: &Secrets<'_>, report: &mut Report<'_>) -> (Vec<SigningKey>, bool) {
    let mut keys: Vec<SigningKey> = Vec::new();
    let (mut ids, mut all_read) = (BTreeSet::new(), true);
    for mut table in auth.tables("key") {
        match secrets.signing_key(&mut table) {
            Some(key) if !ids.insert(key.id().to_owned()) => {
                let id = text::echo(key.id());
                table.wrong("id", format!("another key is called `{id}` too; choose another id"));
            }
            Some(key) => keys.push(key),
            None => all_read = false,
        }
        table.close(report);
    }
    (keys, all_read)
}

/// The key and the lives of the gateway's own tokens.
fn own_issuer(auth: &mut Section<'_>, keys: &[SigningKey], all_read: bool) -> Option<Issuer> {
    let id = auth.text("issue_with");
    let ttl = auth.seconds("access_ttl", LIVES, ACCESS_TTL_DEFAULT);
    let ttl_max = auth.seconds("access_ttl_max", LIVES, ACCESS_TTL_MAX_DEFAULT.max(ttl));
    if ttl_max < ttl {
        let message = "auth.access_ttl_max must not be below auth.access_ttl; change one of them".to_owned();
        auth.wrong_first(&["access_ttl_max", "access_ttl"], message);
    }
    let key = match &id {
        None => keys.first(),
        Some(id) => keys.iter().find(|key| key.id() == id),
    };
    if let (Some(id), None, true) = (&id, key, all_read) {
        let ids = text::names(keys.iter().map(SigningKey::id));
        auth.wrong("issue_with", format!("there is no key `{}`; there are: {ids}", text::echo(id)));
    }
    Some(Issuer { key: key?.clone(), issuer: None, audience: None, ttl, ttl_max })
}

fn applications(root: &mut Section<'_>, secrets: &Secrets<'_>, report: &mut Report<'_>) -> Applications {
    let mut known = HashMap::new();
    for mut table in root.tables("application") {
        let read = |value: &_| string(value, "a text in quotes").map(str::to_owned);
        let id = table.required("id", "\"im-android\"", read);
        let revoked = table.flag("revoked");
        let application = match revoked {
            // Its key is of no use any more; one that is still written is read, so that it is known.
            true => {
                ["key_file", "key_env", "key_credential"].iter().for_each(|key| drop(table.text(key)));
                Some(Application::Revoked)
            }
            false => secrets.application_key(&mut table).map(Application::Known),
        };
        match id.map(|id| (id.len(), known.entry(id))) {
            Some((bytes, _)) if !(1..=NAME_BYTES).contains(&bytes) => {
                table.wrong("id", format!("it must have 1 to {NAME_BYTES} bytes"));
            }
            Some((_, Entry::Occupied(other))) => {
                let message =
                    format!("another application is called `{}` too; choose another id", other.key());
                table.wrong("id", message);
            }
            Some((_, Entry::Vacant(vacant))) => {
                if let Some(application) = application {
                    vacant.insert(application);
                }
            }
            None => {}
        }
        table.close(report);
    }
    Applications::new(known)
}

/// Reads `[session_check]`, and holds grants against keys.
pub(super) fn session_check(
    root: &mut Section<'_>,
    services: &[ServiceSettings],
    report: &mut Report<'_>,
) -> Option<(ServiceId, CheckSettings)> {
    const KEY: &str = "session_check";
    let mut table = root.table(KEY);
    let default = CheckSettings::default();
    let times = Duration::from_millis(1)..=Duration::from_secs(10);
    let settings = CheckSettings {
        timeout: table.time("timeout", times, default.timeout),
        fail_open: table.choice("on_failure", &[("refuse", false), ("admit", true)], default.fail_open),
    };
    let mut found = None;
    if root.has(KEY) {
        let read = |value: &_| string(value, "the name of a service").map(str::to_owned);
        if let Some(name) = table.required("service", "\"accounts\"", read) {
            let at = services.iter().position(|service| service.name == name);
            found = at.and_then(|at| u16::try_from(at).ok()).map(ServiceId);
            if found.is_none() {
                let names = text::names(services.iter().map(|service| service.name.as_str()));
                let name = text::echo(&name);
                table.wrong("service", format!("there is no service `{name}`; there are: {names}"));
            }
        }
    }
    table.close(report);
    found.map(|service| (service, settings))
}

/// A service that may log users in needs a key to mint their tokens with.
pub(super) fn check_logins(authority: &Authority, services: &[ServiceSettings], report: &mut Report<'_>) {
    let granted = services.iter().find(|service| service.grants.has(Right::Login));
    if let (Some(service), None) = (granted, &authority.issuer) {
        report.whole(format!(
            "service `{}` may log users in, and there is no [[auth.key]] to sign their access tokens with; write\n  \
             [[auth.key]]\n  id = \"default\"\n  secret_file = \"access.secret\"",
            service.name
        ));
    }
}
