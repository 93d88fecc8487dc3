//! The pushes beside cut connections: a stream to everyone, one to groups and one to blocks of users, each numbered, and
//! the thread that makes them in turn.

use crate::audience::Audience;
use crate::clock::Clock;
use crate::ledger::{Ledger, Tally};
use crate::pattern::{Pattern, Stamp};
use crate::plan::{Phase, Shared};
use crate::pusher::{FINISH_GRACE, Reports};
use crate::schedule::Schedule;
use crossbeam_channel::bounded;
use moorgate_proto::view::PushView;
use moorgate_service::Pusher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The command of the first stream; the others follow.
const COMMAND: u32 = 0x0111;
/// Connections for each target, where there are many.
const TARGET_SIZE: u32 = 100;
/// Targets where there are few connections.
const TARGETS_MIN: u32 = 5;
/// The thread looks at its orders at least this often.
const LOOK: Duration = Duration::from_millis(20);

/// One stream.
#[derive(Debug)]
struct Stream {
    audience: Audience,
    reports: Reports,
    pushed: AtomicU64,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Streams {
    streams: Vec<Stream>,
    /// Deliveries that have come, or will not, as it was said.
    arrived: AtomicU64,
    payload: usize,
}

impl Streams {
    /// For so many connections; anonymous ones cannot be named as users.
    pub(crate) fn new(connections: u32, payload: usize, is_anonymous: bool) -> Streams {
        let targets = (connections / TARGET_SIZE).max(TARGETS_MIN.min(connections)).max(1);
        let users = Audience::users(connections, connections.div_ceil(targets));
        let audiences = [
            Some(Audience::everyone(connections)),
            Audience::groups(connections, targets, 0),
            (!is_anonymous).then_some(users),
        ];
        let stream = |audience: Audience| Stream {
            reports: Reports::new(audience.targets()),
            audience,
            pushed: AtomicU64::new(0),
        };
        let streams = audiences.into_iter().flatten().map(stream).collect();
        Streams { streams, arrived: AtomicU64::new(0), payload }
    }

    /// None at all.
    pub(crate) fn none() -> Streams {
        Streams { streams: Vec::new(), arrived: AtomicU64::new(0), payload: 0 }
    }

    pub(crate) fn pattern(&self) -> Pattern {
        Pattern::new(self.payload)
    }

    /// The ledgers of one connection: one for each stream.
    pub(crate) fn ledgers(&self) -> Vec<Ledger> {
        self.streams.iter().map(|_| Ledger::default()).collect()
    }

    /// The group that a connection joins.
    pub(crate) fn group_of(&self, connection: u32) -> u32 {
        let joined = self.streams.iter().find(|stream| stream.audience.joins());
        joined.and_then(|stream| stream.audience.target_of(connection)).unwrap_or_default()
    }

    /// Which stream a push is of, and which of the pushes for this connection; `None`: it is none for it.
    pub(crate) fn place(
        &self,
        connection: u32,
        view: &PushView<'_>,
        pattern: &Pattern,
    ) -> Option<(usize, u64)> {
        let at = view.command.checked_sub(COMMAND)? as usize;
        let stream = self.streams.get(at)?;
        let (target, count) = stream.audience.place(pattern.stamped(view.payload)?.number);
        (stream.audience.target_of(connection) == Some(target)).then_some((at, count))
    }

    pub(crate) fn arrived(&self, count: u64) {
        self.arrived.fetch_add(count, Ordering::AcqRel);
    }

    /// Deliveries that have come, or will not.
    pub(crate) fn arrivals(&self) -> u64 {
        self.arrived.load(Ordering::Acquire)
    }

    /// What a connection has had, now that everything has been pushed.
    pub(crate) fn tally(&self, connection: u32, ledgers: &[Ledger]) -> Tally {
        let mut sum = Tally::default();
        for (stream, ledger) in self.streams.iter().zip(ledgers) {
            let target = stream.audience.target_of(connection);
            sum.add(ledger.closed(target.map_or(0, |target| stream.reports.accepted(target))));
        }
        sum
    }

    /// Pushes that were made.
    pub(crate) fn pushed(&self) -> u64 {
        self.streams.iter().map(|stream| stream.pushed.load(Ordering::Acquire)).sum()
    }

    /// What the gateway has said of pushes that it did not take, and how often.
    pub(crate) fn errors(&self) -> impl Iterator<Item = (String, u64)> {
        self.streams.iter().flat_map(|stream| stream.reports.errors())
    }

    /// Whether each push has its report, and each delivery has come or will not.
    pub(crate) fn are_settled(&self) -> bool {
        let reported: u64 = self.streams.iter().map(|stream| stream.reports.reported()).sum();
        reported >= self.pushed() && self.arrivals() >= self.expected()
    }

    /// Deliveries of what was taken.
    fn expected(&self) -> u64 {
        let of_stream = |stream: &Stream| -> u64 {
            let of_target = |target| {
                stream.reports.accepted(target).saturating_mul(u64::from(stream.audience.size(target)))
            };
            (0..stream.audience.targets()).map(of_target).sum()
        };
        self.streams.iter().map(of_stream).sum()
    }

    /// The next push of a stream.
    fn push(self: &Arc<Self>, at: usize, pusher: &Pusher, clock: Clock, pattern: &mut Pattern) {
        let Some(stream) = self.streams.get(at) else { return };
        let number = stream.pushed.fetch_add(1, Ordering::AcqRel);
        let (target, _) = stream.audience.place(number);
        let payload = pattern.stamp(Stamp { number, at: clock.now() }).to_vec();
        let command = COMMAND.saturating_add(u32::try_from(at).unwrap_or_default());
        let push = stream.audience.push(command, target, payload);
        let streams = self.clone();
        pusher.send_then(push, move |report| {
            if let Some(stream) = streams.streams.get(at) {
                stream.reports.judge(target, report);
            }
        });
    }
}

/// Pushes so often in a second, the streams in turn, until the run finishes; how many were due and not made.
pub(crate) fn push_on_schedule(
    streams: &Arc<Streams>,
    pusher: &Pusher,
    rate: f64,
    (clock, shared): (Clock, &Shared),
) -> u64 {
    if rate <= 0.0 {
        return 0;
    }
    let (_keep, pause) = bounded::<()>(0);
    let mut schedule = Schedule::new(clock.now(), rate);
    let mut pattern = streams.pattern();
    let mut turns = (0..streams.streams.len()).cycle();
    while schedule.due() < shared.load_end()
        && clock.now() < shared.load_end() + FINISH_GRACE
        && shared.phase() != Phase::Stop
    {
        if schedule.take(clock.now()).is_none() {
            let _ = pause.recv_timeout(schedule.due().since(clock.now()).min(LOOK));
        } else if let Some(at) = turns.next() {
            streams.push(at, pusher, clock, &mut pattern);
        }
    }
    if shared.phase() == Phase::Stop { 0 } else { schedule.left(shared.load_end()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::STAMP_BYTES;
    use moorgate_proto::time::Mono;

    #[test]
    fn a_push_has_its_place_in_the_stream_of_its_command() {
        let streams = Streams::new(20, STAMP_BYTES + 9, false);
        let payload = streams.pattern().stamp(Stamp { number: 6, at: Mono::ZERO }).to_vec();
        let of = |connection, command| {
            let view = PushView { command, payload: &payload, ..PushView::default() };
            streams.place(connection, &view, &streams.pattern())
        };
        // Five groups, and five blocks of four users.
        assert_eq!((of(0, COMMAND), of(19, COMMAND)), (Some((0, 6)), Some((0, 6))));
        assert_eq!((of(11, COMMAND + 1), of(12, COMMAND + 1)), (Some((1, 1)), None));
        assert_eq!((of(7, COMMAND + 2), of(8, COMMAND + 2)), (Some((2, 1)), None));
        assert_eq!((of(0, COMMAND + 3), of(0, COMMAND - 1)), (None, None));
        assert_eq!(streams.group_of(11), 1);
        assert_eq!(Streams::new(20, STAMP_BYTES, true).ledgers().len(), 2);
        assert!(streams.are_settled());
    }
}
