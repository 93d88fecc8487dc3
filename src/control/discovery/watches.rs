//! Follows one service in one registry: a thread for each.

use super::event::{Event, Events};
use crate::routing::{Instance, Source, Standing};
use moorgate_registry::{Health, Listed, Stop, Watch};

/// Tells the hub what a registry says, until it is stopped.
pub(super) fn run(at: usize, source: Source, mut watch: Box<dyn Watch>, stop: &Stop, events: &Events) {
    while let Some(answer) = watch.next(stop) {
        let answer =
            answer.map(|list| list.into_iter().map(instance).collect()).map_err(|error| error.to_string());
        if events.send(Event::Answer(at, source, answer)).is_err() {
            return;
        }
    }
}

fn instance(listed: Listed) -> Instance {
    Instance {
        address: listed.address,
        weight: listed.weight.min(Instance::WEIGHT_MAX),
        zone: listed.zone.into(),
        tags: Instance::sorted_tags(listed.tags.iter().map(String::as_str)),
        standing: match listed.health {
            Health::Good => Standing::In,
            Health::Doubted => Standing::Doubted,
            Health::Leaving => Standing::Leaving,
        },
    }
}
