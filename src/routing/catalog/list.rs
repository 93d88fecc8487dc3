//! What a source answers: endpoints, and the elements of its answer that are left out.

use crate::base::text::shown;
use crate::routing::Instance;
use std::fmt;

/// The answer of a source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SourceList {
    /// In any order.
    pub endpoints: Vec<Instance>,
    /// What it has beside them that is not usable.
    pub rejected: Rejected,
    /// Endpoints that are used without some of their zones and tags: each counts once, and is named with these.
    pub trimmed: Rejected,
}

impl From<Vec<Instance>> for SourceList {
    fn from(endpoints: Vec<Instance>) -> SourceList {
        SourceList { endpoints, ..SourceList::default() }
    }
}

/// Elements of an answer (lines, records, instances, hosts) that are not usable. They take nothing from the others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rejected {
    count: usize,
    reasons: Vec<String>,
}

impl Rejected {
    /// Reasons that are kept; of the other elements there is only the count.
    pub const REASONS_MAX: usize = 8;
    /// Bytes of a reason.
    pub const REASON_BYTES_MAX: usize = 400;

    /// Counts an element; `reason` names it and says what is wrong with it.
    pub fn add(&mut self, reason: impl fmt::Display) {
        self.add_some(1, [reason]);
    }

    /// Counts elements, of which the first ones have reasons.
    pub fn add_some(&mut self, count: usize, reasons: impl IntoIterator<Item = impl fmt::Display>) {
        self.count = self.count.saturating_add(count);
        let room = Rejected::REASONS_MAX.saturating_sub(self.reasons.len());
        let reasons = reasons.into_iter().take(room.min(count));
        self.reasons.extend(reasons.map(|reason| shown(&reason.to_string(), Rejected::REASON_BYTES_MAX)));
    }

    /// Of the first elements, in order.
    pub fn reasons(&self) -> &[String] {
        &self.reasons
    }

    /// Elements.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// The reasons, and how many more there are.
impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reasons.join("; "))?;
        match self.count.saturating_sub(self.reasons.len()) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_bounded_and_the_rest_is_counted() {
        let mut rejected = Rejected::default();
        assert!(rejected.is_empty());
        rejected.add("line 1: \x1b[2J");
        (2..=20).for_each(|line| rejected.add(format!("line {line}: {}", "x".repeat(100_000))));
        let text = rejected.to_string();
        assert!(
            text.starts_with("line 1: \\u{1b}[2J; line 2: x") && text.ends_with("; and 12 more"),
            "{text}"
        );
        assert!(text.len() < 4000 && rejected.count() == 20);
    }
}
