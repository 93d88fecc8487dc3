//! One endpoint of a service, as the gateway tells of it: as a row of a table, and as a sentence.

use moorgate::base::text::shown;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// One cell of a table, at the most.
pub(super) const CELL_BYTES_MAX: usize = 256;

/// The head of the table.
pub(super) const HEAD: [&str; 12] = [
    "SERVICE", "ID", "ADDRESS", "WEIGHT", "ZONE", "TAGS", "STANDING", "LINKS", "EJECTED", "CALLS", "FAILED",
    "SOURCES",
];

#[derive(Deserialize)]
pub(super) struct Endpoint {
    service: String,
    id: u32,
    address: String,
    weight: u32,
    zone: String,
    tags: Vec<String>,
    standing: String,
    links: u32,
    ejected_ms: Option<u64>,
    calls: u64,
    /// How many, by how they failed.
    failed: BTreeMap<String, u64>,
    sources: Vec<String>,
}

impl Endpoint {
    /// For how much longer it is ejected.
    fn ejected(&self) -> Option<String> {
        self.ejected_ms.map(|ms| format!("{:.1}s", ms as f64 / 1000.0))
    }

    /// How many calls failed, and how: nothing when none did.
    fn failed(&self) -> String {
        let some = self.failed.iter().filter(|(_, count)| **count > 0);
        some.map(|(how, count)| format!("{how} {count}")).collect::<Vec<_>>().join(", ")
    }

    /// Its cells, below [`HEAD`].
    pub(super) fn row(self) -> [String; HEAD.len()] {
        let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        let (ejected, failed) = (self.ejected().unwrap_or_default(), self.failed());
        let row = [
            self.service,
            self.id.to_string(),
            self.address,
            self.weight.to_string(),
            or_dash(self.zone),
            or_dash(self.tags.join(",")),
            self.standing,
            self.links.to_string(),
            or_dash(ejected),
            self.calls.to_string(),
            or_dash(failed),
            or_dash(self.sources.join(", ")),
        ];
        // Others wrote some of it.
        row.map(|text| shown(&text, CELL_BYTES_MAX))
    }

    /// Where the service is known.
    pub(super) fn in_words(&self) -> String {
        let mut text = format!("{} weight {}", self.address, self.weight);
        if !self.zone.is_empty() {
            let _ = write!(text, " zone {}", self.zone);
        }
        if !self.tags.is_empty() {
            let _ = write!(text, " tags {}", self.tags.join(","));
        }
        let links = if self.links == 1 { "link" } else { "links" };
        let _ = write!(text, ": {}, {} {links}", self.standing, self.links);
        if let Some(left) = self.ejected() {
            let _ = write!(text, ", ejected for {left}");
        }
        let _ = write!(text, ", {} calls", self.calls);
        let failed = self.failed();
        if !failed.is_empty() {
            let _ = write!(text, " of which failed: {failed}");
        }
        let _ = write!(text, "; by {}", self.sources.join(", "));
        text
    }
}
