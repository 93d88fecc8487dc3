//! From a file to settings: reads it, has its tables and then what they say judged.

use super::Settings;
use super::file::{ConfigError, File, Report};
use super::validate::validate;
use std::path::Path;

/// Reads and judges a file.
///
/// # Errors
/// [`ConfigError`] with every error that was found.
pub fn load(path: &Path) -> Result<Settings, ConfigError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError { lines: vec![format!("{name}: cannot be read: {error}")] })?;
    let secret_env = |name: &str| std::env::var(name).ok();
    parse(&name, &text, path.parent().unwrap_or(Path::new("")), &secret_env)
}

/// Judges the text of a file. Secrets' files are looked for beside `directory`; `environment` looks a variable up.
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
    match toml::from_str::<File>(text) {
        Ok(file) => validate(&file, report, directory, environment),
        Err(error) => {
            let message = error.message().replace('\n', " ");
            match error.span() {
                Some(span) => {
                    let key = key_before(text, span.start);
                    let message = if message.contains('`') && key.is_empty() {
                        message
                    } else {
                        format!("{key}{message}")
                    };
                    report.at(span, message);
                }
                None => report.whole(message),
            }
            report.finish(()).and_then(|()| Err(ConfigError { lines: Vec::new() }))
        }
    }
}

/// `key: ` when a value's line begins with its key.
fn key_before(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or_default();
    let line = before.rsplit('\n').next().unwrap_or_default();
    match line.split_once('=') {
        Some((key, _)) => format!("{}: ", key.trim()),
        None => String::new(),
    }
}
