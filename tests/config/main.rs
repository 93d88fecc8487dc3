//! The configuration, as an operator meets it: the sample in `moorgate.toml`, and what is said about mistakes.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod bounds;
mod mistakes;
mod mutations;
mod sample;
mod secrets;
mod services;
mod sources;
mod verdict;
mod whole;

use moorgate::config::{ConfigError, Settings, parse};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Long enough for everything, and easy to find where it must not be.
const SECRET: &str = "correct-horse-battery-staple-and-some-more";

/// A directory of its own for each test, with the secrets that the sample names; removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(test: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("moorgate-config-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        for name in ["access.secret", "echo.key"] {
            std::fs::write(path.join(name), format!("{SECRET}\n")).unwrap();
            std::fs::set_permissions(path.join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        std::fs::write(path.join("short.secret"), "tooshort\n").unwrap();
        Directory(path)
    }

    /// Its files are the credentials too.
    fn parse(&self, text: &str) -> Result<Settings, ConfigError> {
        let with_credentials = |name: &str| match name {
            "CREDENTIALS_DIRECTORY" => Some(self.0.display().to_string()),
            name => environment(name),
        };
        parse("gate.toml", text, &self.0, &with_credentials)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What is left in a directory for temporary files harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The variables that the tests may name.
fn environment(name: &str) -> Option<String> {
    match name {
        "MOORGATE_ACCESS_SECRET" | "MOORGATE_ECHO_KEY" => Some(SECRET.to_owned()),
        "MOORGATE_SHORT" => Some("tooshort".to_owned()),
        _ => None,
    }
}

/// What is wrong with a text.
fn mistakes_of(text: &str) -> Vec<String> {
    parse("gate.toml", text, Path::new("/nowhere"), &environment)
        .map_or_else(|error| error.lines, |_| Vec::new())
}
