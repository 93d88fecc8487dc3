//! One instance of a service, as sources tell of it and as all workers share it.

use super::ejection::Ejection;
use super::tally::{Calls, Tallies};
use crate::base::text::shown;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Bytes of a text that an error repeats.
const ECHO_BYTES_MAX: usize = 64;

/// Whether an instance is to get calls, by what its source says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// It gets its share.
    #[default]
    In,
    /// Its source doubts it: it gets calls when too few others are left.
    Doubted,
    /// It leaves: no new calls, the old ones are finished.
    Leaving,
}

/// An instance, as a source tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share of the load beside the others'; [`Instance::WEIGHT`] where nothing is said. 0: no load, as
    /// long as another one can take it.
    pub weight: u32,
    /// Where it stands: a zone, a rack, a data centre; empty: not told.
    pub zone: Arc<str>,
    /// Its tags, sorted, none twice.
    pub tags: Arc<[Arc<str>]>,
    /// What its source says of it.
    pub standing: Standing,
}

impl Instance {
    /// The weight of an instance of which nothing is said.
    pub const WEIGHT: u32 = 100;
    /// The largest weight.
    pub const WEIGHT_MAX: u32 = 10_000;
    /// Most tags of one instance; sources leave the rest out.
    pub const TAGS_MAX: usize = 32;

    /// Bytes of a zone or a tag.
    pub const WORD_BYTES_MAX: usize = 64;

    /// Whether a text can be a zone or a tag: not empty, not too long, without blanks, commas and control characters.
    pub fn is_word(text: &str) -> bool {
        let is_good = |c: char| !c.is_whitespace() && !c.is_control() && c != ',';
        (1..=Instance::WORD_BYTES_MAX).contains(&text.len()) && text.chars().all(is_good)
    }

    /// A zone or a tag, as an endpoint can have it.
    ///
    /// # Errors
    /// It cannot; the text says what would be right.
    pub fn parse_word(text: &str) -> Result<&str, String> {
        if Instance::is_word(text) {
            return Ok(text);
        }
        Err(format!(
            "`{}` cannot be one; write 1 to {} bytes without spaces and commas",
            shown(text, Instance::WORD_BYTES_MAX),
            Instance::WORD_BYTES_MAX
        ))
    }

    /// Why no connection can be made to an address, and what to list instead; `None`: one can.
    pub fn why_unusable(address: SocketAddr) -> Option<&'static str> {
        let ip = address.ip();
        if address.port() == 0 {
            Some("has port 0; write the port that the service listens on")
        } else if ip.is_unspecified() {
            Some("is an unspecified address; write the address that the service listens on")
        } else if ip.is_multicast() || ip == Ipv4Addr::BROADCAST {
            Some("is a multicast or broadcast address; write the unicast address that the service listens on")
        } else {
            None
        }
    }

    /// A weight of a list whose largest is `largest`: as it is, or in proportion, where the largest is above
    /// [`Instance::WEIGHT_MAX`]. Only 0 becomes 0.
    pub fn scaled_weight(weight: u32, largest: u32) -> u32 {
        if largest <= Instance::WEIGHT_MAX || weight == 0 {
            return weight.min(Instance::WEIGHT_MAX);
        }
        let (weight, largest, max) = (u64::from(weight), u64::from(largest), u64::from(Instance::WEIGHT_MAX));
        let scaled = weight.saturating_mul(max).saturating_add(largest / 2) / largest;
        u32::try_from(scaled).unwrap_or(Instance::WEIGHT_MAX).clamp(1, Instance::WEIGHT_MAX)
    }

    /// An instance of which only the address is known.
    pub fn at(address: SocketAddr) -> Instance {
        Instance {
            address,
            weight: Instance::WEIGHT,
            zone: Arc::from(""),
            tags: Arc::new([]),
            standing: Standing::In,
        }
    }

    /// Tags as an instance has them: sorted, none twice, none empty, and no more than [`Instance::TAGS_MAX`].
    pub fn sorted_tags<'a>(tags: impl Iterator<Item = &'a str>) -> Arc<[Arc<str>]> {
        let mut tags: Vec<Arc<str>> = tags.filter(|tag| !tag.is_empty()).map(Arc::from).collect();
        tags.sort_unstable();
        tags.dedup();
        tags.truncate(Instance::TAGS_MAX);
        tags.into()
    }

    /// Whether it has a tag.
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|own| &**own == tag)
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)?;
        if self.weight != Instance::WEIGHT {
            write!(f, " weight={}", self.weight)?;
        }
        if !self.zone.is_empty() {
            write!(f, " zone={}", self.zone)?;
        }
        if !self.tags.is_empty() {
            write!(f, " tags={}", self.tags.join(","))?;
        }
        Ok(())
    }
}

/// `10.0.0.1:7100 weight=50 zone=eu-1 tags=canary,fast`: all but the address may be left out. The error says what
/// would be right.
impl FromStr for Instance {
    type Err = String;

    fn from_str(text: &str) -> Result<Instance, String> {
        let mut words = text.split_ascii_whitespace();
        let address = words.next().unwrap_or_default();
        let address: SocketAddr = address.parse().map_err(|_| {
            let address = shown(address, ECHO_BYTES_MAX);
            format!("`{address}` is no address; write an IP address and a port, such as 10.0.0.1:7100 or [::1]:7100")
        })?;
        if let Some(why) = Instance::why_unusable(address) {
            return Err(format!("{address} {why}"));
        }
        let mut instance = Instance::at(address);
        for word in words {
            match word.split_once('=') {
                Some(("weight", weight)) => instance.weight = parse_weight(weight)?,
                Some(("zone", zone)) => instance.zone = parse_zone(zone)?,
                Some(("tags", tags)) => instance.tags = parse_tags(tags)?,
                _ => {
                    let word = shown(word, ECHO_BYTES_MAX);
                    return Err(format!(
                        "`{word}` is not known; write weight=50, zone=eu-1 or tags=canary,fast"
                    ));
                }
            }
        }
        Ok(instance)
    }
}

fn parse_weight(text: &str) -> Result<u32, String> {
    let weight = text.parse().ok().filter(|weight| *weight <= Instance::WEIGHT_MAX);
    weight.ok_or_else(|| {
        let text = shown(text, ECHO_BYTES_MAX);
        format!("weight={text} is no weight; write a number from 0 to {}", Instance::WEIGHT_MAX)
    })
}

fn parse_zone(text: &str) -> Result<Arc<str>, String> {
    Instance::parse_word(text).map(Arc::from).map_err(|why| format!("zone={why}"))
}

fn parse_tags(text: &str) -> Result<Arc<[Arc<str>]>, String> {
    let tags: Vec<&str> = text.split(',').filter(|tag| !tag.is_empty()).collect();
    if tags.len() > Instance::TAGS_MAX {
        return Err(format!("{} tags; write {} or fewer", tags.len(), Instance::TAGS_MAX));
    }
    for tag in &tags {
        Instance::parse_word(tag).map_err(|why| format!("tags={why}"))?;
    }
    Ok(Instance::sorted_tags(tags.into_iter()))
}

/// Names an endpoint as long as the process knows it: the same for the same service and address. 0 names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EndpointId(pub u32);

/// What all workers know of an endpoint together.
#[derive(Debug, Default)]
pub struct Vitals {
    /// Ready links of all workers to it.
    pub links: AtomicU32,
    /// Whether it is ejected.
    pub ejection: Ejection,
    /// How many times in a row it was ejected.
    pub strikes: AtomicU32,
    /// When it came back the last time, in nanoseconds of [`moorgate_proto::time::Mono`]; 0: it was never ejected.
    pub back_at: AtomicU64,
    /// What was sent to it, and how it failed.
    pub(super) tallies: Tallies,
}

impl Vitals {
    /// The calls that it has had.
    pub fn calls(&self) -> Calls {
        self.tallies.calls()
    }

    /// Those that it has had since this was asked last.
    pub fn new_calls(&self) -> Calls {
        self.tallies.news()
    }
}

/// An instance in force: what is published to the workers.
#[derive(Debug, Clone)]
pub struct Member {
    /// Which endpoint.
    pub id: EndpointId,
    /// What its sources say.
    pub instance: Instance,
    /// What all workers know of it; kept as long as the endpoint is known, whatever its sources say.
    pub vitals: Arc<Vitals>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_instance_is_read_as_it_is_written() {
        for line in
            ["10.0.0.1:7100", "[::1]:7100 weight=50", "10.0.0.1:7100 weight=0 zone=eu-1 tags=canary,fast"]
        {
            assert_eq!(line.parse::<Instance>().unwrap().to_string(), line);
        }
        let twice: Instance = "10.0.0.1:1 tags=b,a,,b".parse().unwrap();
        assert_eq!(twice.to_string(), "10.0.0.1:1 tags=a,b");
        assert!(twice.has_tag("a") && !twice.has_tag("c"));
    }

    proptest! {
        #[test]
        fn scaled_weights_keep_their_order_and_ratio(
            weights in prop::collection::vec(prop_oneof![0..=2u32, 0..=20_000u32, any::<u32>()], 1..8)
        ) {
            let largest = weights.iter().copied().max().unwrap_or_default();
            let scaled: Vec<u32> =
                weights.iter().map(|weight| Instance::scaled_weight(*weight, largest)).collect();
            prop_assert!(scaled.iter().all(|weight| *weight <= Instance::WEIGHT_MAX));
            if largest <= Instance::WEIGHT_MAX {
                prop_assert_eq!(&scaled, &weights, "nothing to scale");
            }
            let factor = f64::from(largest.max(Instance::WEIGHT_MAX)) / f64::from(Instance::WEIGHT_MAX);
            for (weight, scaled) in weights.iter().zip(&scaled) {
                prop_assert_eq!(*weight == 0, *scaled == 0);
                let exact = f64::from(*weight) / factor;
                let is_near = (f64::from(*scaled) - exact).abs() <= 0.5 + 1e-6;
                prop_assert!(is_near || *scaled == 1 && exact < 1.0, "{} becomes {}", weight, scaled);
            }
            for (one, of_one) in weights.iter().zip(&scaled) {
                for (other, of_other) in weights.iter().zip(&scaled) {
                    prop_assert!(one > other || of_one <= of_other);
                }
            }
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        let told = |line: &str| line.parse::<Instance>().unwrap_err();
        assert!(told("chat:7100").contains("IP address and a port"));
        assert!(told("").contains("IP address and a port"));
        assert!(told("10.0.0.1:0").contains("port 0"));
        assert!(told("224.0.0.1:7100").starts_with("224.0.0.1:7100 is a multicast"));
        assert!(told("10.0.0.1:1 weight=x").contains("from 0 to 10000"));
        assert!(told("10.0.0.1:1 weight=10001").contains("from 0 to 10000"));
        assert!(told("10.0.0.1:1 canary").contains("not known"));
        let (long, many) = ("x".repeat(65), vec!["t"; Instance::TAGS_MAX + 1].join(","));
        for (words, why) in [
            ("zone=", "zone=`` cannot be one; write 1 to 64 bytes without spaces and commas".to_owned()),
            ("zone=a,b", "zone=`a,b` cannot be one".to_owned()),
            ("zone=a\u{1b}[2J", "zone=`a\\u{1b}[2J` cannot be one".to_owned()),
            (&format!("tags=a,{long}"), "cannot be one; write 1 to 64 bytes".to_owned()),
            (&format!("tags={many}"), "33 tags; write 32 or fewer".to_owned()),
        ] {
            let told = told(&format!("10.0.0.1:1 {words}"));
            assert!(told.contains(&why) && told.len() < 200, "{words}: {told}");
        }
    }
}
