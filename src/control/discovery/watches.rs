//! Follows one service in one registry: a thread for each.

use super::event::{Event, Events};
use super::own::why_own;
use crate::base::text::shown;
use crate::routing::{Instance, Rejected, Source, SourceList, Standing};
use moorgate_registry::{Health, Listed, Listing, Stop, Watch};
use std::net::SocketAddr;

/// Zones and tags of one instance that a log line names; the others are counted.
const NAMED_MAX: usize = 4;
/// Bytes of each that it repeats, and of an instance's id.
const WORD_BYTES: usize = 32;
const ID_BYTES: usize = 96;

/// One service in one registry.
pub(super) struct Followed {
    /// Of the hub's services.
    pub(super) at: usize,
    pub(super) source: Source,
    pub(super) watch: Box<dyn Watch>,
    /// The gateway's listeners.
    pub(super) own: Vec<SocketAddr>,
}

impl Followed {
    /// Tells the hub what the registry says, until it is stopped.
    pub(super) fn run(mut self, stop: &Stop, events: &Events) {
        while let Some(answer) = self.watch.next(stop) {
            let answer =
                answer.map(|listing| source_list(listing, &self.own)).map_err(|error| error.to_string());
            if events.send(Event::Answer(self.at, self.source, answer)).is_err() {
                return;
            }
        }
    }
}

/// The endpoints of an answer, without the gateway's own listeners.
fn source_list(listing: Listing, own: &[SocketAddr]) -> SourceList {
    let mut list = SourceList::default();
    list.rejected.add_some(listing.rejected, listing.reasons);
    let largest = listing.instances.iter().map(|listed| listed.weight).max().unwrap_or_default();
    for listed in listing.instances {
        match why_own(own, listed.address) {
            Some(why) => list.rejected.add(format_args!("{} {why}", which(&listed))),
            None => list.endpoints.push(instance(&listed, largest, &mut list.trimmed)),
        }
    }
    list
}

/// An instance, for people.
fn which(listed: &Listed) -> String {
    format!("instance \"{}\" at {}", shown(&listed.id, ID_BYTES), listed.address)
}

/// An endpoint of a list whose largest weight is `largest`, without the zone and the tags that it cannot have.
fn instance(listed: &Listed, largest: u32, trimmed: &mut Rejected) -> Instance {
    let is_usable = |word: &&str| word.is_empty() || Instance::is_word(word);
    let zone = Some(listed.zone.as_str()).filter(is_usable);
    let (mut tags, mut unused): (Vec<&str>, Vec<&str>) =
        listed.tags.iter().map(String::as_str).partition(is_usable);
    // They are sorted, each once.
    unused.extend(tags.split_off(tags.len().min(Instance::TAGS_MAX)));
    let unused_zone = zone.is_none().then(|| format!("zone {}", named(&[&listed.zone])));
    let unused_tags = (!unused.is_empty()).then(|| format!("tags {}", named(&unused)));
    let without: Vec<String> = unused_zone.into_iter().chain(unused_tags).collect();
    if !without.is_empty() {
        trimmed.add(format_args!("{} without {}", which(listed), without.join(" and ")));
    }
    Instance {
        address: listed.address,
        weight: Instance::scaled_weight(listed.weight, largest),
        zone: zone.unwrap_or_default().into(),
        tags: Instance::sorted_tags(tags.into_iter()),
        standing: match listed.health {
            Health::Good => Standing::In,
            Health::Doubted => Standing::Doubted,
            Health::Leaving => Standing::Leaving,
        },
    }
}

/// The first few of them, and how many more there are.
fn named(words: &[&str]) -> String {
    let first = words.iter().take(NAMED_MAX).map(|word| format!("`{}`", shown(word, WORD_BYTES)));
    let more = words.len().saturating_sub(NAMED_MAX);
    let more = (more > 0).then(|| format!("{more} more"));
    first.chain(more).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(host: u8) -> Listed {
        Listed {
            id: format!("chat-{host}"),
            address: SocketAddr::from(([10, 0, 0, host], 7100)),
            weight: 7,
            zone: String::new(),
            tags: vec!["canary".to_owned()],
            health: Health::Good,
        }
    }

    fn list(instances: Vec<Listed>) -> SourceList {
        source_list(Listing { instances, ..Listing::default() }, &[])
    }

    #[test]
    fn zones_and_tags_that_no_endpoint_can_have_are_left_out_and_named() {
        let long = "x".repeat(Instance::WORD_BYTES_MAX + 1);
        let bad = [long.as_str(), "a b", "a,b", "\x1b[2J", "a\nb"];
        for zone in bad {
            let mut tags: Vec<String> = bad.iter().map(|&tag| tag.to_owned()).collect();
            tags.push("canary".to_owned());
            let list = list(vec![listed(2), Listed { zone: zone.to_owned(), tags, ..listed(1) }]);
            assert_eq!(list.endpoints[1].to_string(), "10.0.0.1:7100 weight=7 tags=canary");
            assert_eq!(list.trimmed.count(), 1, "one instance");
            let told = list.trimmed.to_string();
            let zone = shown(zone, WORD_BYTES);
            assert!(told.starts_with(&format!(
                "instance \"chat-1\" at 10.0.0.1:7100 without zone `{zone}` and tags "
            )));
            assert!(told.ends_with(", `a b`, `a,b`, `\\u{1b}[2J`, 1 more"), "{told}");
        }
    }

    #[test]
    fn tags_above_the_bound_are_named() {
        let tags: Vec<String> =
            (10..10 + Instance::TAGS_MAX + 2).map(|number| format!("t{number}")).collect();
        let list = list(vec![Listed { tags, ..listed(1) }]);
        assert_eq!(list.endpoints[0].tags.len(), Instance::TAGS_MAX);
        let expected = "instance \"chat-1\" at 10.0.0.1:7100 without tags `t42`, `t43`";
        assert_eq!(list.trimmed.to_string(), expected);
    }

    #[test]
    fn longest_reason_fits_with_its_end() {
        let long = |letter: &str| letter.repeat(1 << 16);
        let mut tags: Vec<String> = (100..200).map(|number| format!("t{number}")).collect();
        tags.extend((100..200).map(|number| format!("{number}{}", long("z"))));
        let list = list(vec![Listed { id: long("i"), zone: long("y"), tags, ..listed(1) }]);
        let told = list.trimmed.to_string();
        assert!(told.ends_with(", 164 more"), "{} bytes: {told}", told.len());
    }

    #[test]
    fn weights_above_the_bound_keep_their_ratio() {
        let weights = |weights: [u32; 3]| {
            let instances = (1u8..).zip(weights).map(|(host, weight)| Listed { weight, ..listed(host) });
            list(instances.collect()).endpoints.iter().map(|one| one.weight).collect::<Vec<_>>()
        };
        assert_eq!(weights([20_000, 100, 10_000]), [10_000, 50, 5_000]);
        assert_eq!(weights([6_553_500, 100, 0]), [10_000, 1, 0]);
        assert_eq!(weights([10_000, 100, 0]), [10_000, 100, 0]);
    }

    #[test]
    fn instance_that_is_the_gateway_itself_is_named() {
        let own = ["10.0.0.1:7100".parse().unwrap()];
        let listing = Listing { instances: vec![listed(1), listed(2)], ..Listing::default() };
        let list = source_list(listing, &own);
        assert_eq!((list.endpoints.len(), list.rejected.count()), (1, 1));
        assert_eq!(
            list.rejected.to_string(),
            "instance \"chat-1\" at 10.0.0.1:7100 is 10.0.0.1:7100, where this gateway itself listens; list the \
             address of the service"
        );
    }
}
