//! What can go wrong between us and a registry.

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
