//! Follows one service in one registry: a thread for each.

use super::event::{Event, Events};
use crate::routing::{Instance, Rejected, Source, SourceList, Standing};
use moorgate_registry::{Health, Listed, Listing, Stop, Watch};

/// One service in one registry.
pub(super) struct Followed {
    /// Of the hub's services.
    pub(super) at: usize,
    pub(super) source: Source,
    pub(super) watch: Box<dyn Watch>,
}

impl Followed {
    /// Tells the hub what the registry says, until it is stopped.
    pub(super) fn run(mut self, stop: &Stop, events: &Events) {
        let mut told = 0;
        while let Some(answer) = self.watch.next(stop) {
            let mut dropped = 0;
            let answer =
                answer.map(|listing| source_list(listing, &mut dropped)).map_err(|error| error.to_string());
            if dropped > 0 && told == 0 {
                log::warn!(
                    "{dropped} zones and tags in {} are left out: they are 1 to {} bytes without blanks, commas and \
                     control characters",
                    self.source,
                    Instance::WORD_BYTES_MAX
                );
            }
            if answer.is_ok() {
                told = dropped;
            }
            if events.send(Event::Answer(self.at, self.source, answer)).is_err() {
                return;
            }
        }
    }
}

fn source_list(listing: Listing, dropped: &mut usize) -> SourceList {
    let mut rejected = Rejected::default();
    rejected.add_some(listing.rejected, listing.reasons);
    let endpoints = listing.instances.into_iter().map(|listed| instance(listed, dropped)).collect();
    SourceList { endpoints, rejected }
}

/// Zones and tags that an endpoint cannot have are dropped, and counted.
fn instance(listed: Listed, dropped: &mut usize) -> Instance {
    let mut is_good = |word: &str| {
        let is_good = word.is_empty() || Instance::is_word(word);
        *dropped = dropped.saturating_add(usize::from(!is_good));
        is_good
    };
    let zone = if is_good(&listed.zone) { listed.zone.as_str() } else { "" };
    Instance {
        address: listed.address,
        weight: listed.weight.min(Instance::WEIGHT_MAX),
        zone: zone.into(),
        tags: Instance::sorted_tags(listed.tags.iter().map(String::as_str).filter(|tag| is_good(tag))),
        standing: match listed.health {
            Health::Good => Standing::In,
            Health::Doubted => Standing::Doubted,
            Health::Leaving => Standing::Leaving,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_and_tags_that_no_endpoint_can_have_are_dropped_and_counted() {
        let long = "x".repeat(Instance::WORD_BYTES_MAX + 1);
        let bad = [long.as_str(), "a b", "a,b", "\x1b[2J", "a\nb"];
        for zone in bad {
            let mut tags: Vec<String> = bad.iter().map(|&tag| tag.to_owned()).collect();
            tags.push("canary".to_owned());
            let address = "10.0.0.1:7100".parse().unwrap();
            let listed = Listed { address, weight: 7, zone: zone.to_owned(), tags, health: Health::Good };
            let mut dropped = 0;
            let instance = instance(listed, &mut dropped);
            assert_eq!(instance.to_string(), "10.0.0.1:7100 weight=7 tags=canary");
            assert_eq!(dropped, 1 + bad.len());
        }
    }
}
