//! Secrets: from files, from the environment, from credentials of the service manager; never from the configuration
//! itself. What they say appears in no error and in no log.
//!
//! A credential is a file with a name of its own in the directory `CREDENTIALS_DIRECTORY`, which the service manager
//! makes for this process alone: see `LoadCredential=` in systemd.exec(5).

use super::section::Section;
use crate::auth::SigningKey;
use crate::control::read_regular;
use moorgate_proto::limits::NAME_BYTES;
use moorgate_proto::proof::{ApplicationKey, LinkKey};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Where the service manager's credentials are.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
/// No more of them are named.
const NAMES_MAX: usize = 32;
/// No secret is longer.
const SECRET_BYTES_MAX: u64 = 64 * 1024;
/// Rights that the file of a secret should not give: others read, write or run it, its group writes it.
const FOREIGN_RIGHTS: u32 = 0o027;
/// How to make a secret that is one's own.
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
    credential: &'static str,
    /// Whether it is made here; another one is given by somebody else.
    own: bool,
}

const SIGNING: Names = Names {
    inline: "secret",
    file: "secret_file",
    variable: "secret_env",
    credential: "secret_credential",
    own: true,
};
const LINK: Names =
    Names { inline: "key", file: "key_file", variable: "key_env", credential: "key_credential", own: true };
const TOKEN: Names = Names {
    inline: "token",
    file: "token_file",
    variable: "token_env",
    credential: "token_credential",
    own: false,
};
const PASSWORD: Names = Names {
    inline: "password",
    file: "password_file",
    variable: "password_env",
    credential: "password_credential",
    own: false,
};

impl Names {
    /// The keys that say where a secret is.
    fn sources(self) -> [&'static str; 3] {
        [self.file, self.variable, self.credential]
    }

    fn right(self) -> String {
        let Names { file, variable, credential, .. } = self;
        format!("write {file} = \"PATH\", {variable} = \"NAME\" or {credential} = \"NAME\"")
    }
}

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
        let Names { inline, file, variable, credential, own } = names;
        if table.has(inline) {
            table.read(inline, |_| Ok(()));
            table.wrong(inline, format!("a secret does not stand in this file; {}", names.right()));
        }
        let mut written = names.sources().into_iter().filter(|source| table.has(source));
        let (first, second) = (written.next(), written.next());
        let (path, name, credential_name) = (table.text(file), table.text(variable), table.text(credential));
        if let (Some(first), Some(second)) = (first, second) {
            table.wrong(second, format!("there is a {first} too; leave one of them out"));
            return None;
        }
        match (path, name, credential_name) {
            (Some(path), ..) => self.in_file(table, file, &path, own),
            (_, Some(name), _) => self.in_environment(table, variable, &name, own),
            (.., Some(name)) => self.in_credential(table, credential, &name, own),
            (None, None, None) => {
                let is_told = table.has(inline) || first.is_some();
                if let Some(otherwise) = otherwise.filter(|_| !is_told) {
                    table.wrong(file, format!("it is missing; {}{otherwise}", names.right()));
                }
                None
            }
        }
    }

    fn in_file(&self, table: &mut Section<'_>, key: &'static str, path: &str, own: bool) -> Option<Found> {
        let path = self.directory.join(path);
        let remedy = match own {
            true => format!("make one: {MAKE}{}", path.display()),
            false => format!("write it into {}", path.display()),
        };
        Self::warn_of_rights(table, key, &path);
        match read_regular(&path, SECRET_BYTES_MAX) {
            // Editors end a file with a line feed; it is no part of the secret.
            Ok(secret) => Some(Found { key, secret: secret.trim_ascii_end().to_vec(), remedy }),
            Err(error) => {
                // A command that makes a secret would write over one that is there.
                let remedy = match error.kind() {
                    ErrorKind::NotFound => format!("; {remedy}"),
                    ErrorKind::PermissionDenied => "; let the user of this process read it".to_owned(),
                    _ => String::new(),
                };
                table.wrong(key, format!("{} cannot be read: {error}{remedy}", path.display()));
                None
            }
        }
    }

    /// A secret that others can read is none; what they can write is theirs.
    fn warn_of_rights(table: &mut Section<'_>, key: &'static str, path: &Path) {
        let Ok(metadata) = std::fs::metadata(path) else { return };
        let mode = metadata.permissions().mode() & 0o777;
        if metadata.is_file() && mode & FOREIGN_RIGHTS != 0 {
            let path = path.display();
            let what = format!("{path} has mode {mode:04o}: others than its owner and group can use it");
            table.warn(key, format!("{what}; chmod 0600 {path}"));
        }
    }

    fn in_environment(
        &self,
        table: &mut Section<'_>,
        key: &'static str,
        name: &str,
        own: bool,
    ) -> Option<Found> {
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
        let remedy = if own { format!("set {name} to a longer one") } else { format!("set {name} to it") };
        Some(Found { key, secret: secret?, remedy })
    }

    fn in_credential(
        &self,
        table: &mut Section<'_>,
        key: &'static str,
        name: &str,
        own: bool,
    ) -> Option<Found> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !name.bytes().all(is_plain) || !(1..=NAME_BYTES).contains(&name.len()) || name.starts_with('.') {
            // Not repeated: it may be the secret itself.
            let right = format!("write one of 1 to {NAME_BYTES} letters, digits and -_.");
            table.wrong(key, format!("this is no name of a credential; {right}"));
            return None;
        }
        // Nor is a good name: a secret may look like one, and the line says which it is.
        let load = "write LoadCredential=NAME:PATH into the unit, with this name";
        let Some(directory) = (self.environment)(CREDENTIALS) else {
            let unset = format!("there are no credentials, {CREDENTIALS} is not set");
            table.wrong(key, format!("{unset}; {load}; or set it to a directory with a file of this name"));
            return None;
        };
        let directory = Path::new(&directory);
        match read_regular(&directory.join(name), SECRET_BYTES_MAX) {
            Ok(secret) => {
                let remedy = match own {
                    true => format!("make one: {MAKE}PATH, with the PATH of its LoadCredential= in the unit"),
                    false => "write it into the PATH of its LoadCredential= in the unit".to_owned(),
                };
                Some(Found { key, secret: secret.trim_ascii_end().to_vec(), remedy })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let names = file_names(directory);
                table.wrong(key, format!("there is no credential of this name; there are: {names}; {load}"));
                None
            }
            Err(error) => {
                table.wrong(key, format!("the credential cannot be read: {error}; {load}"));
                None
            }
        }
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
        let has_key = service.has(LINK.inline) || LINK.sources().into_iter().any(|key| service.has(key));
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

    /// The token of Consul's access control; `None`: there is none.
    pub(super) fn consul_token(&self, table: &mut Section<'_>) -> Option<String> {
        self.printable(table, TOKEN)
    }

    /// The password at Nacos; `None`: there is none.
    pub(super) fn nacos_password(&self, table: &mut Section<'_>) -> Option<String> {
        self.printable(table, PASSWORD)
    }

    /// One that may be left out, and stands in a header or a form.
    fn printable(&self, table: &mut Section<'_>, names: Names) -> Option<String> {
        let found = self.find(table, names, None)?;
        let text = String::from_utf8(found.secret).ok();
        let text = text.filter(|text| !text.is_empty() && !text.contains(char::is_control));
        if text.is_none() {
            let remedy = &found.remedy;
            table.wrong(found.key, format!("it is empty, or no line of text; {remedy}"));
        }
        text
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

/// The names in a directory, in order.
fn file_names(directory: &Path) -> String {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.take(NAMES_MAX).map(|entry| entry.file_name().display().to_string()).collect();
    names.sort_unstable();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
