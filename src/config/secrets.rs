//! Secrets: from files and from the environment, never from the configuration itself. What they say appears in no
//! error and in no log.

use super::section::Section;
use crate::auth::SigningKey;
use moorgate_proto::limits::NAME_BYTES;
use moorgate_proto::proof::{ApplicationKey, LinkKey};
use std::path::Path;

/// How to make a secret.
const MAKE: &str = "head -c 32 /dev/urandom | base64 > ";

/// Where secrets come from.
pub(super) struct Secrets<'a> {
    /// Paths begin here.
    pub(super) directory: &'a Path,
    /// Looks a variable up.
    pub(super) environment: &'a dyn Fn(&str) -> Option<String>,
}

/// The keys of one table that lead to its secret.
#[derive(Clone, Copy)]
struct Names {
    inline: &'static str,
    file: &'static str,
    variable: &'static str,
}

const SIGNING: Names = Names { inline: "secret", file: "secret_file", variable: "secret_env" };
const LINK: Names = Names { inline: "key", file: "key_file", variable: "key_env" };

/// A secret, with the key that led to it.
struct Found {
    key: &'static str,
    secret: Vec<u8>,
    /// How to replace it.
    remedy: String,
}

impl Secrets<'_> {
    /// Without `otherwise` there need not be one; it is what else could be written.
    fn find(&self, table: &mut Section<'_>, names: Names, otherwise: Option<&str>) -> Option<Found> {
        let Names { inline, file, variable } = names;
        let right = format!("write {file} = \"PATH\" or {variable} = \"NAME\"");
        if table.has(inline) {
            table.read(inline, |_| Ok(()));
            table.wrong(inline, format!("a secret does not stand in this file; {right}"));
        }
        let (path, name) = (table.text(file), table.text(variable));
        match (path, name) {
            (Some(_), Some(_)) => {
                table.wrong(variable, format!("there is a {file} too; leave one of them out"));
                None
            }
            (Some(path), None) => self.in_file(table, file, &path),
            (None, Some(name)) => self.in_environment(table, variable, &name),
            (None, None) => {
                let is_told = table.has(inline) || table.has(file) || table.has(variable);
                if let Some(otherwise) = otherwise.filter(|_| !is_told) {
                    table.wrong(file, format!("it is missing; {right}{otherwise}"));
                }
                None
            }
        }
    }

    fn in_file(&self, table: &mut Section<'_>, key: &'static str, path: &str) -> Option<Found> {
        let path = self.directory.join(path);
        let remedy = format!("make one: {MAKE}{}", path.display());
        match std::fs::read(&path) {
            // Editors end a file with a line feed; it is no part of the secret.
            Ok(secret) => Some(Found { key, secret: secret.trim_ascii_end().to_vec(), remedy }),
            Err(error) => {
                table.wrong(key, format!("{} cannot be read: {error}; {remedy}", path.display()));
                None
            }
        }
    }

    fn in_environment(&self, table: &mut Section<'_>, key: &'static str, name: &str) -> Option<Found> {
        let is_name =
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_name {
            // Not repeated: it may be the secret itself.
            table.wrong(key, "this is no name of a variable; write one of letters, digits and _");
            return None;
        }
        let secret = (self.environment)(name).map(String::into_bytes);
        if secret.is_none() {
            table.wrong(key, format!("the environment has no variable {name} with a text; set it"));
        }
        Some(Found { key, secret: secret?, remedy: format!("set {name} to a longer one") })
    }

    /// The key of an application.
    pub(super) fn application_key(&self, application: &mut Section<'_>) -> Option<ApplicationKey> {
        let found = self.find(application, LINK, Some(""))?;
        let key = ApplicationKey::new(&found.secret);
        if key.is_none() {
            let (bytes, remedy) = (found.secret.len(), &found.remedy);
            application
                .wrong(found.key, format!("the key has {bytes} bytes and needs at least 16; {remedy}"));
        }
        key
    }

    /// The proof key of a service.
    pub(super) fn link_key(&self, service: &mut Section<'_>) -> Option<LinkKey> {
        const WITHOUT: &str = "without_proofs";
        let without = service.flag(WITHOUT);
        let otherwise = ", or without_proofs = true where nobody else can reach its endpoints";
        let has_key = [LINK.inline, LINK.file, LINK.variable].iter().any(|key| service.has(key));
        if without && has_key {
            service.wrong(WITHOUT, "there is a key; leave one of them out");
        }
        let found = self.find(service, LINK, (!without).then_some(otherwise))?;
        let key = LinkKey::new(&found.secret);
        if key.is_none() {
            let (bytes, remedy) = (found.secret.len(), &found.remedy);
            service.wrong(found.key, format!("the key has {bytes} bytes and needs at least 16; {remedy}"));
        }
        key
    }

    /// A key that signs access tokens.
    pub(super) fn signing_key(&self, table: &mut Section<'_>) -> Option<SigningKey> {
        let read = |value: &_| super::section::string(value, "a text in quotes").map(str::to_owned);
        let id = table.required("id", "\"2026-01\"", read);
        if id.as_ref().is_some_and(|id| !(1..=NAME_BYTES).contains(&id.len())) {
            table.wrong("id", format!("it must have 1 to {NAME_BYTES} bytes"));
        }
        let found = self.find(table, SIGNING, Some(""))?;
        match SigningKey::new(&id?, &found.secret) {
            Ok(key) => Some(key),
            Err(error) => {
                table.wrong(found.key, format!("{error}; {}", found.remedy));
                None
            }
        }
    }
}
