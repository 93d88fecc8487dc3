//! One table of the file, read key by key. What is read is known; what is left over when the table is closed is
//! refused with the list of what is known, so that the list is never wrong.

use super::report::{COLLECTED_MAX, Report};
use super::text::{self, Grain, echo};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A table of the file, or one that is not there: then each key has its default.
pub(super) struct Section<'a> {
    /// As errors call it: `session`, `auth.key`; empty for the whole file.
    path: String,
    table: Option<&'a DeTable<'a>>,
    /// Where its header stands.
    place: usize,
    /// Every key that was asked for.
    known: Vec<&'static str>,
    mistakes: Vec<(usize, String)>,
    warnings: Vec<(usize, String)>,
    /// Mistakes that are only counted.
    more: usize,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(super) fn root(table: &'a DeTable<'a>) -> Section<'a> {
        Section::new(String::new(), Some(table), 0)
    }

    fn new(path: String, table: Option<&'a DeTable<'a>>, place: usize) -> Section<'a> {
        Section { path, table, place, known: Vec::new(), mistakes: Vec::new(), warnings: Vec::new(), more: 0 }
    }

    fn note(&mut self, place: usize, mistake: String) {
        match self.mistakes.len() < COLLECTED_MAX {
            true => self.mistakes.push((place, mistake)),
            false => self.more = self.more.saturating_add(1),
        }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn value(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.table.and_then(|table| table.get(key))
    }

    /// The table `[key]`.
    pub(super) fn table(&mut self, key: &'static str) -> Section<'a> {
        let path = self.path_of(key);
        match self.value(key).map(|value| (value.span().start, value.get_ref())) {
            None => Section::new(path, None, 0),
            Some((place, DeValue::Table(table))) => Section::new(path, Some(table), place),
            Some((place, other)) => {
                self.note(place, format!("{path}: this is {}; write [{path}]", kind(other)));
                Section::new(path, None, place)
            }
        }
    }

    /// The tables `[[key]]`.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let path = self.path_of(key);
        let Some(value) = self.value(key) else { return Vec::new() };
        let right = format!("write [[{path}]], with two brackets: there can be several");
        let DeValue::Array(array) = value.get_ref() else {
            let mistake = format!("{path}: this is {}; {right}", kind(value.get_ref()));
            self.note(value.span().start, mistake);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for value in array {
            let place = value.span().start;
            match value.get_ref() {
                DeValue::Table(table) => sections.push(Section::new(path.clone(), Some(table), place)),
                other => self.note(place, format!("{path}: this is {}; {right}", kind(other))),
            }
        }
        sections
    }

    /// Whether the key is written.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Where the key's value stands, or else the table.
    pub(super) fn place(&self, key: &str) -> usize {
        self.table.and_then(|table| table.get(key)).map_or(self.place, |value| value.span().start)
    }

    /// Notes what is wrong with a key.
    pub(super) fn wrong(&mut self, key: &str, message: impl Display) {
        self.note(self.place(key), format!("{}: {message}", self.path_of(key)));
    }

    /// Notes what may be a mistake.
    pub(super) fn warn(&mut self, key: &str, message: impl Display) {
        let warning = (self.place(key), format!("{}: {message}", self.path_of(key)));
        self.warnings.push(warning);
    }

    /// Notes it unless something is known to be wrong there already.
    pub(super) fn wrong_once(&mut self, key: &str, message: impl Display) {
        let place = self.place(key);
        if self.mistakes.iter().all(|(other, _)| *other != place) {
            self.wrong(key, message);
        }
    }

    /// Notes a mistake between keys, at the first of them that is written.
    pub(super) fn wrong_first(&mut self, keys: &[&str], message: String) {
        let written = keys.iter().find(|key| self.has(key)).map_or(self.place, |key| self.place(key));
        self.note(written, message);
    }

    /// A key, read by `read`; `None` when it is not there, or wrong.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'a DeValue<'a>) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.value(key)?;
        match read(value.get_ref()) {
            Ok(value) => Some(value),
            Err(message) => {
                self.wrong(key, message);
                None
            }
        }
    }

    /// A key that has to be there; `example` is how it could be written.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(&'a DeValue<'a>) -> Result<T, String>,
    ) -> Option<T> {
        if !self.has(key) {
            self.wrong(key, format!("it is missing; write for example {key} = {example}"));
        }
        self.read(key, read)
    }

    /// A time within bounds, in whole milliseconds.
    pub(super) fn time(
        &mut self,
        key: &'static str,
        bounds: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        self.time_of(key, Grain::Milliseconds, bounds, default)
    }

    /// A time within bounds that counts in whole seconds where it is used.
    pub(super) fn seconds(
        &mut self,
        key: &'static str,
        bounds: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        self.time_of(key, Grain::Seconds, bounds, default)
    }

    fn time_of(
        &mut self,
        key: &'static str,
        grain: Grain,
        bounds: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        let read = |value: &DeValue<'_>| {
            let time = text::parse_time(&plain(value, "a time such as \"30s\"")?, grain)?;
            let write = |time: &Duration| humantime::format_duration(*time).to_string();
            within(time, &bounds, write)
        };
        self.read(key, read).unwrap_or(default)
    }

    /// A size within bounds, in bytes.
    pub(super) fn size(&mut self, key: &'static str, bounds: RangeInclusive<usize>, default: usize) -> usize {
        let read = |value: &DeValue<'_>| {
            let size = text::parse_size(&plain(value, "a size such as \"64 KiB\"")?)?;
            within(size, &bounds, |size| text::write_size(*size))
        };
        self.read(key, read).unwrap_or(default)
    }

    /// A whole number within bounds.
    pub(super) fn number<T>(&mut self, key: &'static str, bounds: RangeInclusive<T>, default: T) -> T
    where
        T: Copy + PartialOrd + Display + TryFrom<u64>,
    {
        let read = |value: &DeValue<'_>| {
            let (low, high) = (bounds.start(), bounds.end());
            let right = if low < high { format!("a number from {low} to {high}") } else { format!("{low}") };
            let DeValue::Integer(integer) = value else {
                return Err(format!("this is {}; write {right}", kind(value)));
            };
            let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
            let number = number.and_then(|number| T::try_from(number).ok());
            number
                .filter(|number| bounds.contains(number))
                .ok_or_else(|| format!("{} is out of bounds; write {right}", echo(&integer.to_string())))
        };
        self.read(key, read).unwrap_or(default)
    }

    /// A word of a list.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)], default: T) -> T {
        let read = |value: &DeValue<'_>| {
            let words: Vec<String> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            let words = format!("one of {}", words.join(", "));
            let text = string(value, &words)?;
            let found = choices.iter().find(|(word, _)| *word == text);
            found
                .map(|(_, value)| *value)
                .ok_or_else(|| format!("`{}` is not known; write {words}", echo(text)))
        };
        self.read(key, read).unwrap_or(default)
    }

    /// A text.
    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        self.read(key, |value| string(value, "a text in quotes").map(str::to_owned))
    }

    /// A text that others send: an empty one matches nothing.
    pub(super) fn text_to_match(&mut self, key: &'static str) -> Option<String> {
        self.read(key, |value| match string(value, "a text in quotes")? {
            "" => Err("this is empty, and matches nothing; write a text, or leave it out".to_owned()),
            text => Ok(text.to_owned()),
        })
    }

    /// Yes or no; no when it is not written.
    pub(super) fn flag(&mut self, key: &'static str) -> bool {
        self.switch(key, false)
    }

    /// Yes or no.
    pub(super) fn switch(&mut self, key: &'static str, default: bool) -> bool {
        let read = |value: &DeValue<'_>| match value {
            DeValue::Boolean(flag) => Ok(*flag),
            other => Err(format!("this is {}; write true or false", kind(other))),
        };
        self.read(key, read).unwrap_or(default)
    }

    /// Ends the reading: what was not asked for is not known.
    pub(super) fn close(mut self, report: &mut Report<'_>) {
        let mut known = std::mem::take(&mut self.known);
        known.sort_unstable();
        let list = known.join(", ");
        let table = self.table;
        for key in table.iter().flat_map(|table| table.keys()) {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                let what = if self.path.is_empty() { "table" } else { "key here" };
                let path = self.path_of(&echo(name));
                self.note(key.span().start, format!("{path}: there is no such {what}; there are: {list}"));
            }
        }
        for (place, message) in self.mistakes {
            report.at(place, message);
        }
        report.add_more(self.more);
        for (place, message) in self.warnings {
            report.warn(place, message);
        }
    }
}

fn within<T: PartialOrd>(
    value: T,
    bounds: &RangeInclusive<T>,
    write: impl Fn(&T) -> String,
) -> Result<T, String> {
    if bounds.contains(&value) {
        return Ok(value);
    }
    let (low, high) = (write(bounds.start()), write(bounds.end()));
    Err(format!("`{}` is out of bounds; write \"{low}\" to \"{high}\"", write(&value)))
}

/// A text.
pub(super) fn string<'v>(value: &'v DeValue<'_>, right: &str) -> Result<&'v str, String> {
    match value {
        DeValue::String(text) => Ok(text),
        other => Err(format!("this is {}; write {right}", kind(other))),
    }
}

/// A text, or a number as one would write it into a text.
pub(super) fn plain(value: &DeValue<'_>, right: &str) -> Result<String, String> {
    match value {
        DeValue::Integer(integer) => Ok(integer.to_string()),
        other => string(other, right).map(str::to_owned),
    }
}

/// A list, each of its members read by `read`.
pub(super) fn list<T>(
    value: &DeValue<'_>,
    right: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    match value {
        DeValue::Array(array) => {
            array.iter().map(|member| string(member.get_ref(), right).and_then(&read)).collect()
        }
        other => Err(format!("this is {}; write {right}", kind(other))),
    }
}

/// What a value is, for people.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
