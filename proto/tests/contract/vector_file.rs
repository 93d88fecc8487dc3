//! The files of `proto/vectors/`: entries divided by empty lines, each of `key: value` lines.
//!
//! A value goes on in the lines below it that begin with a space. A line that begins with `#` is a comment.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::HashMap;
use std::path::Path;

/// One vector.
pub(crate) struct Vector {
    keys: HashMap<String, String>,
}

impl Vector {
    /// The value of a key that every vector of its file has.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.find(key).unwrap_or_else(|| panic!("vector {} has no {key}", self.name()))
    }

    /// The value of a key.
    pub(crate) fn find(&self, key: &str) -> Option<&str> {
        self.keys.get(key).map(String::as_str)
    }

    pub(crate) fn name(&self) -> &str {
        self.find("name").unwrap_or("without a name")
    }

    /// The bytes of a value in hex.
    pub(crate) fn bytes(&self, key: &str) -> Vec<u8> {
        let digits: Vec<char> = self.text(key).chars().filter(|digit| !digit.is_whitespace()).collect();
        assert_eq!(digits.len() % 2, 0, "{}: half a byte", self.name());
        let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    /// The message of the frame, by its direction.
    pub(crate) fn frame(&self) -> &'static str {
        match self.text("direction") {
            "client to gateway" => "ClientFrame",
            "gateway to client" => "GatewayFrame",
            "gateway to service" => "ToService",
            "service to gateway" => "ToGateway",
            other => panic!("{}: no direction: {other}", self.name()),
        }
    }

    /// The numbers in the specification that it shows.
    pub(crate) fn spec(&self) -> impl Iterator<Item = &str> {
        self.text("spec").split_whitespace()
    }
}

/// The top of the repository, for the tests of every package.
pub(crate) fn top() -> &'static Path {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    above.into_iter().find(|directory| directory.join("protocol-spec.md").is_file()).unwrap()
}

/// The vectors of one file.
pub(crate) fn read(file: &str) -> Vec<Vector> {
    let path = top().join("proto/vectors").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut vectors = Vec::new();
    for entry in text.split("\n\n") {
        let mut keys: HashMap<String, String> = HashMap::new();
        let mut last = String::new();
        for line in entry.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
            match line.split_once(':') {
                Some((key, value)) if !line.starts_with(' ') => {
                    key.clone_into(&mut last);
                    assert!(keys.insert(last.clone(), value.trim().to_owned()).is_none(), "{file}: {line}");
                }
                _ => {
                    let value = keys.get_mut(&last).unwrap_or_else(|| panic!("{file}: {line}"));
                    value.push('\n');
                    value.push_str(line);
                }
            }
        }
        if !keys.is_empty() {
            vectors.push(Vector { keys });
        }
    }
    vectors
}

/// The vectors of every file.
pub(crate) fn read_all() -> Vec<Vector> {
    let all: Vec<Vector> =
        ["client.txt", "gateway.txt", "links.txt", "malformed.txt"].into_iter().flat_map(read).collect();
    let mut names: Vec<&str> = all.iter().map(Vector::name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all.len(), "a name stands twice");
    all
}
