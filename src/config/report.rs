//! Collects what is wrong with a file, with the line it stands in.

use crate::base::text::cut;
use std::fmt;

/// Mistakes that are collected of one file; the others are counted.
pub(super) const COLLECTED_MAX: usize = 1000;
/// Mistakes of one file that are listed.
const LISTED_MAX: usize = 100;
/// Bytes of one of them. What a mistake repeats of the file is cut where it is repeated.
const MISTAKE_BYTES_MAX: usize = 2048;

/// Everything that is wrong with a configuration, a line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// `file:line: key: what, and what would be right`, sorted by line; last what no line says. At most 100, and how many
    /// more there are.
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
    /// Where the lines of the file end.
    ends: Vec<usize>,
    lines: Vec<(usize, String)>,
    warnings: Vec<(usize, String)>,
    /// Mistakes that were not collected.
    more: usize,
}

impl<'a> Report<'a> {
    pub(super) fn new(name: &'a str, text: &str) -> Report<'a> {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect();
        Report { name, ends, lines: Vec::new(), warnings: Vec::new(), more: 0 }
    }

    /// The line of a place.
    pub(super) fn line(&self, place: usize) -> usize {
        self.ends.partition_point(|end| *end < place).saturating_add(1)
    }

    /// An error at a place of the file.
    pub(super) fn at(&mut self, place: usize, message: impl fmt::Display) {
        let line = self.line(place);
        self.add(line, format!("{}:{line}: {message}", self.name));
    }

    /// An error of the whole file.
    pub(super) fn whole(&mut self, message: impl fmt::Display) {
        self.add(usize::MAX, format!("{}: {message}", self.name));
    }

    fn add(&mut self, line: usize, message: String) {
        if self.lines.len() >= COLLECTED_MAX {
            return self.add_more(1);
        }
        let message = match message.len() > MISTAKE_BYTES_MAX {
            true => format!("{}…", cut(&message, MISTAKE_BYTES_MAX)),
            false => message,
        };
        self.lines.push((line, message));
    }

    /// Errors that are only counted.
    pub(super) fn add_more(&mut self, count: usize) {
        self.more = self.more.saturating_add(count);
    }

    /// What is allowed at a place of the file, and may be a mistake.
    pub(super) fn warn(&mut self, place: usize, message: impl fmt::Display) {
        if self.warnings.len() < COLLECTED_MAX {
            let line = self.line(place);
            self.warnings.push((line, format!("{}:{line}: {message}", self.name)));
        }
    }

    /// The warnings, in the order of the file.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.warnings.clone();
        warnings.sort();
        warnings.dedup();
        warnings.into_iter().take(LISTED_MAX).map(|(_, line)| line).collect()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.lines.len().saturating_add(self.more)
    }

    /// Whether something is known to be wrong in the line of a place.
    pub(super) fn has_line(&self, place: usize) -> bool {
        let line = self.line(place);
        self.lines.iter().any(|(other, _)| *other == line)
    }

    pub(super) fn finish<T>(mut self, value: T) -> Result<T, ConfigError> {
        if self.count() == 0 {
            return Ok(value);
        }
        self.lines.sort();
        self.lines.dedup();
        let more = self.lines.len().saturating_sub(LISTED_MAX).saturating_add(self.more);
        let mut lines: Vec<String> = self.lines.into_iter().take(LISTED_MAX).map(|(_, line)| line).collect();
        if more > 0 {
            lines.push(format!("{}: mistakes beside these: {more}", self.name));
        }
        Err(ConfigError { lines })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_from_one() {
        let report = Report::new("gate.toml", "a\nbc\n\nd");
        let lines: Vec<usize> = (0..=8).map(|place| report.line(place)).collect();
        assert_eq!(lines, [1, 1, 2, 2, 2, 3, 4, 4, 4]);
    }

    #[test]
    fn mistakes_are_bounded_and_the_others_counted() {
        let mut report = Report::new("gate.toml", "");
        (0..5000).for_each(|number| report.at(0, format!("{number:04}: {}", "x".repeat(100_000))));
        let lines = report.finish(()).unwrap_err().lines;
        assert_eq!(lines.len(), LISTED_MAX + 1);
        assert_eq!(lines.last().unwrap(), "gate.toml: mistakes beside these: 4900");
        assert!(lines.iter().all(|line| line.len() <= MISTAKE_BYTES_MAX + 3));
    }
}
