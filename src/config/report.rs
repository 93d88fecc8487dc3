//! Collects what is wrong with a file, with the line it stands in.

use std::fmt;

/// Everything that is wrong with a configuration, a line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// `file:line: key: what, and what would be right`, sorted by line; last what no line says.
    pub lines: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// What has been found so far.
pub(super) struct Report<'a> {
    name: &'a str,
    text: &'a str,
    lines: Vec<(usize, String)>,
    warnings: Vec<(usize, String)>,
}

impl<'a> Report<'a> {
    pub(super) fn new(name: &'a str, text: &'a str) -> Report<'a> {
        Report { name, text, lines: Vec::new(), warnings: Vec::new() }
    }

    /// The line of a place.
    pub(super) fn line(&self, place: usize) -> usize {
        self.text.get(..place).unwrap_or(self.text).matches('\n').count().saturating_add(1)
    }

    /// An error at a place of the file.
    pub(super) fn at(&mut self, place: usize, message: impl fmt::Display) {
        let line = self.line(place);
        self.lines.push((line, format!("{}:{line}: {message}", self.name)));
    }

    /// What is allowed at a place of the file, and may be a mistake.
    pub(super) fn warn(&mut self, place: usize, message: impl fmt::Display) {
        let line = self.line(place);
        self.warnings.push((line, format!("{}:{line}: {message}", self.name)));
    }

    /// The warnings, in the order of the file.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.warnings.clone();
        warnings.sort();
        warnings.dedup();
        warnings.into_iter().map(|(_, line)| line).collect()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.lines.len()
    }

    /// Whether something is known to be wrong in the line of a place.
    pub(super) fn has_line(&self, place: usize) -> bool {
        let line = self.line(place);
        self.lines.iter().any(|(other, _)| *other == line)
    }

    /// An error of the whole file.
    pub(super) fn whole(&mut self, message: impl fmt::Display) {
        self.lines.push((usize::MAX, format!("{}: {message}", self.name)));
    }

    pub(super) fn finish<T>(mut self, value: T) -> Result<T, ConfigError> {
        if self.lines.is_empty() {
            return Ok(value);
        }
        self.lines.sort();
        self.lines.dedup();
        Err(ConfigError { lines: self.lines.into_iter().map(|(_, line)| line).collect() })
    }
}
