//! What can go wrong between us and a registry.

use crate::words::fit;
use std::fmt;

/// Why a registry has no answer for us. All of them pass, or may: what failed is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryError {
    /// No answer: no connection, no name, no trust, no time.
    Unreachable {
        /// Who was asked.
        server: String,
        /// In the words of the system.
        cause: String,
    },
    /// The registry does not let us: a token or a password that is missing, wrong, or has too few rights.
    Denied {
        /// Who was asked.
        server: String,
        /// In its words.
        words: String,
    },
    /// An answer that says no.
    Refused {
        /// Who was asked.
        server: String,
        /// The HTTP status, or the code in the answer.
        code: u32,
        /// In its words.
        words: String,
    },
    /// An answer that is none: another program listens there, or the registry is of a kind that we do not know.
    Unexpected {
        /// Who was asked.
        server: String,
        /// What is wrong with it.
        cause: String,
    },
    /// More than we take.
    TooMuch {
        /// Who was asked.
        server: String,
        /// Of what.
        what: &'static str,
        /// Of those.
        max: usize,
    },
    /// The settings cannot be used.
    Settings {
        /// The key and what would be right.
        what: String,
    },
}

/// What others have said is taken as it is fit for a line.
impl RegistryError {
    pub(crate) fn unreachable(server: &str, cause: &str) -> RegistryError {
        RegistryError::Unreachable { server: fit(server), cause: fit(cause) }
    }

    pub(crate) fn denied(server: &str, words: &str) -> RegistryError {
        RegistryError::Denied { server: fit(server), words: fit(words) }
    }

    pub(crate) fn refused(server: &str, code: u32, words: &str) -> RegistryError {
        RegistryError::Refused { server: fit(server), code, words: fit(words) }
    }

    pub(crate) fn unexpected(server: &str, cause: &str) -> RegistryError {
        RegistryError::Unexpected { server: fit(server), cause: fit(cause) }
    }

    /// Whether a registry says that it does not know the instance.
    pub(crate) fn is_forgotten(&self) -> bool {
        let RegistryError::Refused { code, words, .. } = self else { return false };
        let words = words.to_lowercase();
        // Agents of Consul that do not say 404.
        let is_consuls = ["unknown check", "unknown service", "does not have associated ttl"];
        matches!(code, 404 | 20_004 | 20_404 | 21_003)
            || *code == 500 && is_consuls.iter().any(|known| words.contains(known))
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RegistryError::Unreachable { server, cause } => write!(f, "{server} does not answer: {cause}"),
            RegistryError::Denied { server, words } => {
                write!(f, "{server} denies it: {words}; look at the token or the password, and its rights")
            }
            RegistryError::Refused { server, code, words } => write!(f, "{server} says {code}: {words}"),
            RegistryError::Unexpected { server, cause } => {
                write!(f, "the answer of {server} is not understood: {cause}")
            }
            RegistryError::TooMuch { server, what, max } => {
                write!(f, "the answer of {server} has more than {max} {what}")
            }
            RegistryError::Settings { what } => f.write_str(what),
        }
    }
}

impl std::error::Error for RegistryError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_says_is_fit_for_a_line() {
        let foreign = format!("\x1b[2J{}", "x".repeat(100_000));
        for error in [
            RegistryError::unreachable("http://r", &foreign),
            RegistryError::denied("http://r", &foreign),
            RegistryError::refused("http://r", 500, &foreign),
            RegistryError::unexpected("http://r", &foreign),
        ] {
            let told = format!("{error} {error:?}");
            assert!(told.len() < 1000 && !told.contains('\x1b'), "{told}");
        }
    }

    #[test]
    fn only_who_does_not_know_it_has_forgotten_it() {
        let says = |code, words| RegistryError::refused("http://r", code, words).is_forgotten();
        assert!(says(404, "Unknown check ID") && says(20_404, "") && says(21_003, ""));
        assert!(
            says(500, "Unknown check \"service:a\"")
                && says(500, "CheckID \"a\" does not have associated TTL")
        );
        assert!(!says(500, "No cluster leader") && !says(503, "") && !says(429, "slow down"));
        assert!(!RegistryError::unreachable("http://r", "timeout").is_forgotten());
        assert!(!RegistryError::denied("http://r", "Permission denied").is_forgotten());
    }
}
