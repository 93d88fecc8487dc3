//! The thread with the catalogs: everything that is found out comes to it, and it publishes.

use super::event::{EVENTS_MAX, Event, Whom};
use super::own::why_own;
use super::state::{Endpoint, Keeper, Kept, State};
use crate::base::clock::{Clock, Now};
use crate::base::ids::ServiceId;
use crate::base::rng::Rng;
use crate::base::text::shown;
use crate::routing::{Catalog, Instance, Note, Pools, Source, SourceList};
use crossbeam_channel::{Receiver, Sender};
use moorgate_proto::time::Mono;
use moorgate_registry::Stop;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Probes begin, and the end is noticed, this often.
const TICK: Duration = Duration::from_millis(200);
/// Links are looked at, and time is taken into account, this often.
const SETTLE_EVERY: Duration = Duration::from_secs(1);
/// What probes have shown is taken into account no more often.
const SETTLE_LEAST: Duration = Duration::from_millis(200);
/// The state file is written no more often.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// Bytes of a name asked for that a log line repeats.
const NAME_BYTES_MAX: usize = 256;

/// What a source of a service is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) source: Source,
    /// For people: a name, and what narrows it.
    pub(super) name: String,
    /// For the state file: that, and the servers. Another one has another answer.
    pub(super) key: String,
}

/// One service.
pub(super) struct Tracked {
    pub(super) service: ServiceId,
    pub(super) name: String,
    pub(super) catalog: Catalog,
    pub(super) asked: Vec<Asked>,
    /// When it is to be settled at the latest; a source has said something: at once.
    pub(super) due: Mono,
    /// When it was settled last.
    pub(super) settled: Mono,
}

impl Tracked {
    /// A note as a log line, with the names asked for where these may be wrong.
    fn line(&self, note: &Note) -> String {
        let of = |source: Option<Source>| {
            let asked = self.asked.iter().filter(|asked| source.is_none_or(|of| of == asked.source));
            let names = asked
                .map(|Asked { source, name, .. }| format!("{source} for {}", shown(name, NAME_BYTES_MAX)));
            names.collect::<Vec<_>>().join(", ")
        };
        let line = format!("endpoints of {}: {note}", self.name);
        match note {
            Note::NoEndpoint => {
                let asked = of(None);
                format!(
                    "{line}; asked: {asked}; check that this name is right and that instances are registered"
                )
            }
            Note::Failed { source, .. } => format!("{line}; asked: {}", of(Some(*source))),
            _ => line,
        }
    }
}

/// When a service is to be settled after a probe of one of its endpoints: soon, and not for each probe.
fn after_a_probe(due: Mono, settled: Mono) -> Mono {
    due.min(settled + SETTLE_LEAST)
}

/// A list without the gateway's own listeners, which are no endpoints.
fn without_own(own: &[SocketAddr], mut list: SourceList) -> SourceList {
    let SourceList { endpoints, rejected, .. } = &mut list;
    // The same list has the same reasons, in whatever order it comes.
    endpoints.sort_by_key(|instance| instance.address);
    endpoints.retain(|Instance { address, .. }| {
        let why = why_own(own, *address);
        why.inspect(|why| rejected.add(format_args!("{address} {why}"))).is_none()
    });
    list
}

/// All services; the hub works on them, others look.
pub(super) type AllTracked = Arc<Mutex<Vec<Tracked>>>;

/// See the module's page.
pub(super) struct Hub {
    pub(super) tracked: AllTracked,
    pub(super) pools: Arc<Pools>,
    /// The gateway's listeners.
    pub(super) own: Vec<SocketAddr>,
    pub(super) clock: Clock,
    pub(super) bell: Box<dyn Fn() + Send>,
    pub(super) rounds: Sender<Vec<Whom>>,
    pub(super) interval: Duration,
    pub(super) keeper: Option<Keeper>,
    pub(super) rng: Rng,
    pub(super) due: HashMap<Whom, Mono>,
    pub(super) is_probing: bool,
    pub(super) has_news: bool,
    pub(super) kept: Mono,
}

impl Hub {
    pub(super) fn run(mut self, stop: &Stop, events: &Receiver<Event>) {
        while !stop.is_set() {
            self.turn();
            if let Ok(event) = events.recv_timeout(TICK) {
                self.take(event);
                // What is there is taken together.
                for event in events.try_iter().take(EVENTS_MAX) {
                    self.take(event);
                }
            }
        }
        if let Some(keeper) = self.keeper.take() {
            keeper.end(self.state());
        }
    }

    fn take(&mut self, event: Event) {
        let mut tracked = self.tracked.lock();
        match event {
            Event::Answer(at, source, answer) => {
                let answer = answer.map(|list| without_own(&self.own, list));
                if let Some(tracked) = tracked.get_mut(at) {
                    tracked.catalog.answer(self.clock.read(), source, answer);
                    tracked.due = Mono::ZERO;
                }
            }
            Event::Probed { shown, is_over } => {
                for ((at, address), answers) in shown {
                    if let Some(tracked) = tracked.get_mut(at) {
                        tracked.catalog.probed(address, answers);
                        tracked.due = after_a_probe(tracked.due, tracked.settled);
                    }
                }
                self.is_probing &= !is_over;
            }
        }
    }

    pub(super) fn turn(&mut self) {
        let now = self.clock.read();
        let mut is_published = false;
        for tracked in self.tracked.lock().iter_mut() {
            if tracked.due > now.mono {
                continue;
            }
            (tracked.due, tracked.settled) = (now.mono + SETTLE_EVERY, now.mono);
            for member in self.pools.members(tracked.service).iter() {
                let links = member.vitals.links.load(std::sync::atomic::Ordering::Relaxed);
                tracked.catalog.linked(member.instance.address, links > 0);
            }
            let settled = tracked.catalog.settle(now);
            if let Some(list) = settled.publish {
                self.pools.publish(tracked.service, &list);
                is_published = true;
            }
            for note in settled.notes {
                let level = if note.is_warning() { log::Level::Warn } else { log::Level::Info };
                log::log!(level, "{}", tracked.line(&note));
            }
            self.has_news |= settled.is_news;
        }
        if is_published {
            (self.bell)();
        }
        self.probe(now);
        if self.has_news && now.mono.since(self.kept) >= KEEP_EVERY {
            self.keep(now.mono);
        }
    }

    /// Has those probed that are due, when the round before has ended.
    fn probe(&mut self, now: Now) {
        if self.is_probing {
            return;
        }
        let mut due = HashMap::new();
        let mut round = Vec::new();
        for (at, tracked) in self.tracked.lock().iter().enumerate() {
            for address in tracked.catalog.unlinked() {
                let whom = (at, address);
                let mut next = self.due.get(&whom).copied().unwrap_or(now.mono);
                if next <= now.mono {
                    // From three quarters of the interval to five quarters.
                    next = now.mono + self.interval * 3 / 4 + self.rng.up_to(self.interval / 2);
                    round.push(whom);
                }
                due.insert(whom, next);
            }
        }
        self.due = due;
        if !round.is_empty() {
            // There is room: the round before has ended.
            self.is_probing = self.rounds.try_send(round).is_ok();
        }
    }

    fn keep(&mut self, now: Mono) {
        let Some(keeper) = &self.keeper else { return };
        if keeper.keep(self.state()) {
            (self.has_news, self.kept) = (false, now);
        }
    }

    fn state(&self) -> State {
        let mut lists = Vec::new();
        for tracked in self.tracked.lock().iter() {
            for (source, heard_unix_ms, list) in tracked.catalog.to_keep() {
                let Some(asked) = tracked.asked.iter().find(|asked| asked.source == source) else { continue };
                lists.push(Kept {
                    service: tracked.name.clone(),
                    source: source.name().to_owned(),
                    asked: asked.key.clone(),
                    heard_unix_ms,
                    endpoints: list.iter().map(Endpoint::from).collect(),
                });
            }
        }
        State::of(lists)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::{CatalogSettings, Sources};

    #[test]
    fn a_source_that_lists_the_gateway_itself_is_used_for_the_others() {
        let own = ["10.0.0.9:7000".parse().unwrap(), "0.0.0.0:7001".parse().unwrap()];
        let at = |text: &str| Instance::at(text.parse().unwrap());
        let list = ["10.0.0.9:7000", "10.0.0.9:7100", "127.0.0.1:7001", "127.0.0.1:7000"].map(at);
        let left = without_own(&own, list.to_vec().into());
        assert_eq!(left.endpoints, [at("10.0.0.9:7100"), at("127.0.0.1:7000")]);
        let expected = "10.0.0.9:7000 is 10.0.0.9:7000, where this gateway itself listens; list the address of the \
                        service; 127.0.0.1:7001 is 0.0.0.0:7001, where this gateway itself listens; list the address of \
                        the service";
        assert_eq!(left.rejected.to_string(), expected);
    }

    #[test]
    fn line_about_a_missing_service_names_what_was_asked() {
        let asked = |source, name: &str| Asked { source, name: name.to_owned(), key: String::new() };
        let tracked = Tracked {
            service: ServiceId(0),
            name: "chat".to_owned(),
            catalog: Catalog::new(
                CatalogSettings { confirm: Duration::ZERO, fall: 1, rise: 1 },
                Sources::NONE,
            ),
            asked: vec![asked(Source::Dns, "chta.internal:7100"), asked(Source::Consul, "chta tags=\x1b")],
            due: Mono::ZERO,
            settled: Mono::ZERO,
        };
        assert_eq!(
            tracked.line(&Note::NoEndpoint),
            "endpoints of chat: no usable endpoint is listed, so calls cannot be sent; asked: dns for \
             chta.internal:7100, consul for chta tags=\\u{1b}; check that this name is right and that instances are \
             registered"
        );
        let failed = Note::Failed { source: Source::Dns, error: "no answer".to_owned(), kept: 0 };
        assert_eq!(
            tracked.line(&failed),
            "endpoints of chat: dns fails: no answer; asked: dns for chta.internal:7100"
        );
    }

    #[test]
    fn many_probes_settle_a_service_once_in_a_while() {
        let settled = Mono::ZERO + Duration::from_secs(10);
        let due = settled + SETTLE_EVERY;
        assert_eq!(after_a_probe(due, settled), settled + SETTLE_LEAST);
        assert_eq!(after_a_probe(Mono::ZERO, settled), Mono::ZERO, "a source has said something");
    }
}
