//! Where endpoints are told of.

use std::fmt;

/// Where endpoints of a service are told of. In this order they take precedence: weight, zone and tags of an endpoint
/// are those of the first that lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The configuration.
    Fixed,
    /// A file.
    File,
    /// DNS.
    Dns,
    /// Consul.
    Consul,
    /// Nacos.
    Nacos,
}

impl Source {
    /// All of them, in the order of precedence.
    pub const ALL: [Source; 5] = [Source::Fixed, Source::File, Source::Dns, Source::Consul, Source::Nacos];

    /// As it stands in logs, metrics and the state file.
    pub fn name(self) -> &'static str {
        match self {
            Source::Fixed => "config",
            Source::File => "file",
            Source::Dns => "dns",
            Source::Consul => "consul",
            Source::Nacos => "nacos",
        }
    }

    fn bit(self) -> u8 {
        match self {
            Source::Fixed => 1,
            Source::File => 2,
            Source::Dns => 4,
            Source::Consul => 8,
            Source::Nacos => 16,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Some of the sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sources(u8);

impl Sources {
    /// None.
    pub const NONE: Sources = Sources(0);

    /// These and another one.
    #[must_use]
    pub fn with(self, source: Source) -> Sources {
        Sources(self.0 | source.bit())
    }

    /// Whether it is one of them.
    pub fn contains(self, source: Source) -> bool {
        self.0 & source.bit() != 0
    }

    /// Them, in the order of precedence.
    pub fn iter(self) -> impl Iterator<Item = Source> {
        Source::ALL.into_iter().filter(move |source| self.contains(*source))
    }
}

impl FromIterator<Source> for Sources {
    fn from_iter<T: IntoIterator<Item = Source>>(sources: T) -> Sources {
        sources.into_iter().fold(Sources::NONE, Sources::with)
    }
}
