//! `protocol-spec.md`, read: its numbered sentences and its tables.

#![allow(dead_code, reason = "each test uses a part of it")]

use super::vector_file::top;

/// One normative sentence.
pub(crate) struct Sentence {
    /// As it is cited, for example `F-1`.
    pub(crate) number: String,
    pub(crate) letter: char,
    pub(crate) count: u32,
    pub(crate) text: String,
    /// Not served by this version.
    pub(crate) later: bool,
    /// Whom it binds: letters of client, gateway and service, as `C, G`.
    pub(crate) binds: String,
}

/// The document.
pub(crate) struct Document {
    text: String,
}

impl Document {
    pub(crate) fn read() -> Document {
        Document { text: std::fs::read_to_string(top().join("protocol-spec.md")).unwrap() }
    }

    /// Every numbered sentence, in order, its lines joined.
    pub(crate) fn sentences(&self) -> Vec<Sentence> {
        let mut found: Vec<Sentence> = Vec::new();
        let mut within = false;
        for line in self.text.lines() {
            if let Some((number, text)) = line.strip_prefix("- [").and_then(|rest| rest.split_once("] ")) {
                let (letter, count) = number.split_once('-').unwrap_or_else(|| panic!("no number: {line}"));
                let (binds, text) =
                    text.strip_prefix('(').and_then(|text| text.split_once(") ")).unwrap_or(("", text));
                found.push(Sentence {
                    binds: binds.to_owned(),
                    number: number.to_owned(),
                    letter: letter.parse().unwrap(),
                    count: count.parse().unwrap(),
                    text: text.to_owned(),
                    later: false,
                });
                within = true;
            } else if let (true, Some(more), Some(last)) = (within, line.strip_prefix("  "), found.last_mut())
            {
                last.text.push(' ');
                last.text.push_str(more);
            } else {
                within = false;
            }
        }
        for sentence in &mut found {
            if let Some(text) = sentence.text.strip_suffix(" (later)") {
                sentence.text = text.to_owned();
                sentence.later = true;
            }
        }
        found
    }

    /// The rows of the table whose head begins with these columns, and that comes first after `after`.
    pub(crate) fn table(&self, after: &str, columns: &[&str]) -> Vec<Vec<String>> {
        let from = self.text.find(after).unwrap_or_else(|| panic!("`{after}` is not there"));
        let mut lines = self.text[from..].lines().skip_while(|line| !line.starts_with('|'));
        let cells = |line: &str| -> Vec<String> {
            line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()
        };
        let head = cells(lines.next().unwrap());
        assert_eq!(head[..columns.len()], *columns, "the table after `{after}`");
        lines.skip(1).take_while(|line| line.starts_with('|')).map(cells).collect()
    }
}
