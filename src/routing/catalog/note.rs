//! What a catalog has to tell: one line of the log each.

use super::{Rejected, Source};
use crate::routing::Instance;
use std::fmt;
use std::net::SocketAddr;

/// Addresses that a line names; of the others it says how many there are.
const NAMED_MAX: usize = 8;

/// Why an endpoint is published no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Enough of the others are listed and have links.
    Ordinary,
    /// It does not answer.
    Silent,
    /// The list without it has stood long enough, and an endpoint in it answers.
    Confirmed,
}

/// See the module's page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A source's list from the life before this one is used until it answers.
    Recalled {
        /// Which.
        source: Source,
        /// In the list.
        endpoints: usize,
    },
    /// A source has another list than before.
    Said {
        /// Which.
        source: Source,
        /// In the list.
        endpoints: usize,
        /// That it did not list before.
        joined: Vec<SocketAddr>,
        /// That it does not list any more.
        left: Vec<SocketAddr>,
    },
    /// Other elements of a source's answer than before are left out.
    Rejected {
        /// Which.
        source: Source,
        /// They, and why.
        rejected: Rejected,
    },
    /// Other endpoints than before are used without some of their zones and tags.
    Trimmed {
        /// The source.
        source: Source,
        /// They, and what they are without.
        trimmed: Rejected,
    },
    /// All sources have answered or failed, and no endpoint is published that may take calls.
    NoEndpoint,
    /// After [`Note::NoEndpoint`]: there are endpoints.
    HasEndpoints {
        /// How many may take calls.
        endpoints: usize,
    },
    /// A source cannot be asked; what it said last stands.
    Failed {
        /// Which.
        source: Source,
        /// In its words.
        error: String,
        /// In its last list.
        kept: usize,
    },
    /// A source that failed answers again.
    Recovered {
        /// Which.
        source: Source,
    },
    /// Endpoints that nobody lists any more, or not for calls, are kept as they were.
    Held {
        /// Which.
        endpoints: Vec<SocketAddr>,
        /// Listed, and with links.
        answering: usize,
        /// In the list before, without those that do not answer.
        confirmed: usize,
    },
    /// Endpoints are published no longer.
    Left {
        /// Which.
        endpoints: Vec<SocketAddr>,
        /// Why.
        why: Why,
    },
    /// More are listed than are published.
    Over {
        /// How many more.
        left_out: usize,
    },
}

impl Note {
    /// Whether somebody should look after it.
    pub fn is_warning(&self) -> bool {
        match self {
            Note::Failed { .. } | Note::Held { .. } | Note::Over { .. } | Note::NoEndpoint => true,
            Note::Rejected { rejected, .. } => !rejected.is_empty(),
            Note::Trimmed { trimmed, .. } => !trimmed.is_empty(),
            Note::Left { why, .. } => *why == Why::Silent,
            Note::Recalled { .. }
            | Note::Said { .. }
            | Note::Recovered { .. }
            | Note::HasEndpoints { .. } => false,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Recalled { source, endpoints } => {
                write!(f, "{source} listed {endpoints} before the restart; they count until it answers")
            }
            Note::Said { source, endpoints, joined, left } => {
                write!(f, "{source} lists {endpoints}")?;
                if !joined.is_empty() {
                    write!(f, "; new: {}", Named(joined))?;
                }
                if !left.is_empty() {
                    write!(f, "; no more: {}", Named(left))?;
                }
                Ok(())
            }
            Note::Rejected { source, rejected } if rejected.is_empty() => {
                write!(f, "{source}: every element of its answer is used again")
            }
            Note::Rejected { source, rejected } => {
                let count = rejected.count();
                write!(f, "{source}: rejected elements: {count}; the others are used: {rejected}")
            }
            Note::Trimmed { source, trimmed } if trimmed.is_empty() => {
                write!(f, "{source}: zones and tags of all endpoints are used again")
            }
            Note::Trimmed { source, trimmed } => {
                let count = trimmed.count();
                write!(
                    f,
                    "{source}: endpoints used without some zones or tags: {count}: {trimmed}; these are 1 to {} bytes \
                     without blanks, commas and control characters, and at most {} tags",
                    Instance::WORD_BYTES_MAX,
                    Instance::TAGS_MAX
                )
            }
            Note::NoEndpoint => f.write_str("no usable endpoint is listed, so calls cannot be sent"),
            Note::HasEndpoints { endpoints } => write!(f, "usable endpoints are listed: {endpoints}"),
            Note::Failed { source, error, kept: 0 } => write!(f, "{source} fails: {error}"),
            Note::Failed { source, error, kept } => {
                write!(f, "{source} fails: {error}; the {kept} that it listed last stay")
            }
            Note::Recovered { source } => write!(f, "{source} answers again"),
            Note::Held { endpoints, answering, confirmed } => write!(
                f,
                "kept as long as they answer: {}; nobody lists them for calls any more, and of the {confirmed} live ones \
                 that were there {answering} are listed and have a link",
                Named(endpoints)
            ),
            Note::Left { endpoints, why } => {
                let why = match why {
                    Why::Ordinary => "enough of the others are listed and answer",
                    Why::Silent => "nobody lists them, and they do not answer",
                    Why::Confirmed => "the list without them has stood long enough, and answers",
                };
                write!(f, "gone: {}; {why}", Named(endpoints))
            }
            Note::Over { left_out } => {
                write!(f, "{left_out} are left out: at most {} are used", super::Catalog::ENDPOINTS_MAX)
            }
        }
    }
}

/// The first few of them.
struct Named<'a>(&'a [SocketAddr]);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, address) in self.0.iter().take(NAMED_MAX).enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{address}")?;
        }
        match self.0.len().saturating_sub(NAMED_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_a_few_and_counts_the_others() {
        let at = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let left = Note::Left { endpoints: vec![at(1), at(2)], why: Why::Silent };
        assert_eq!(
            left.to_string(),
            "gone: 192.0.2.1:1, 192.0.2.1:2; nobody lists them, and they do not answer"
        );
        let many = Note::Said {
            source: Source::Dns,
            endpoints: 5000,
            joined: (1..=5000).map(at).collect(),
            left: vec![],
        };
        let line = many.to_string();
        assert!(line.starts_with("dns lists 5000; new: 192.0.2.1:1, ") && line.ends_with(" and 4992 more"));
    }
}
