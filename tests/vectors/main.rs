//! The gateway's cores do with the frames of `proto/vectors/` what `protocol-spec.md` says.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

mod clients;
mod links;
#[path = "../../proto/tests/contract/vector_file.rs"]
mod vector_file;

use moorgate::base::clock::Now;
use moorgate::base::ids::ServiceId;
use moorgate::routing::{RouteSettings, Span};
use moorgate_proto::time::Mono;
use vector_file::{Vector, read_all};

const NOW: Now = Now { mono: Mono::from_nanos(1_000_000_000), unix_ms: 1_800_000_000_000 };

fn vector(name: &str) -> Vector {
    read_all().into_iter().find(|vector| vector.name() == name).unwrap_or_else(|| panic!("no vector {name}"))
}

fn bytes(name: &str) -> Vec<u8> {
    vector(name).bytes("hex")
}

/// Of command 1, for everybody.
fn route() -> RouteSettings {
    let commands = Span { first: 1, last: 1 };
    RouteSettings { anonymous: true, ..RouteSettings::new(commands, ServiceId(0)) }
}
