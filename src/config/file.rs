//! From a path or a text to settings.

use super::report::{ConfigError, Report};
use super::secrets::Secrets;
use super::section::Section;
use super::text::echo;
use super::{Settings, validate};
use crate::base::text::shown;
use crate::control::read_regular;
use std::path::Path;
use toml::de::DeTable;

/// No configuration is longer.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Bytes of what the parser says of an error.
const MESSAGE_BYTES_MAX: usize = 256;
/// Whoever has more of them has another kind of file.
const SYNTAX_ERRORS_MAX: usize = 10;

/// Reads and judges a file.
///
/// # Errors
/// [`ConfigError`] with every error that was found.
pub fn load(path: &Path) -> Result<Settings, ConfigError> {
    let name = path.display().to_string();
    let unreadable = |error: &dyn std::fmt::Display| ConfigError {
        lines: vec![format!("{name}: cannot be read: {error}")],
    };
    let text = read_regular(path, FILE_BYTES_MAX).map_err(|error| unreadable(&error))?;
    let text = String::from_utf8(text).map_err(|_| unreadable(&"it is no text in UTF-8"))?;
    let environment = |name: &str| std::env::var(name).ok();
    parse(&name, &text, path.parent().unwrap_or(Path::new("")), &environment)
}

/// Judges the text of a file. Paths in it begin at `directory`; `environment` looks a variable up.
///
/// # Errors
/// [`ConfigError`] with every error that was found.
pub fn parse(
    name: &str,
    text: &str,
    directory: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Settings, ConfigError> {
    let mut report = Report::new(name, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        let root = Section::root(table.get_ref());
        return validate::validate(root, report, &Secrets { directory, environment });
    }
    for (at, error) in errors.iter().enumerate() {
        if report.count() == SYNTAX_ERRORS_MAX {
            report.whole(format!("{} more; is this the right file?", errors.len().saturating_sub(at)));
            break;
        }
        let place = error.span().unwrap_or_default();
        // One mistake often breaks what follows: the first in a line says enough.
        if !report.has_line(place.start) {
            let word = text.get(place.clone()).unwrap_or_default();
            report.at(place.start, no_toml(error.message(), word));
        }
    }
    report.finish(()).and_then(|()| Err(ConfigError { lines: Vec::new() }))
}

/// What the parser says, and what would be right.
fn no_toml(message: &str, word: &str) -> String {
    if message.starts_with("duplicate key") {
        return format!("`{}` stands above already; leave one of them out", echo(word));
    }
    let message = shown(&message.replace('\n', " "), MESSAGE_BYTES_MAX);
    format!("this is no TOML ({message}); write [table] or key = value, with texts in quotes")
}
