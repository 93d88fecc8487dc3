//! Moves bytes between sockets and the cores, and nothing else: one mio event loop per thread.
//!
//! A turn of a loop reads everything that is ready, within a budget; lets the core decide; hands one batch to each
//! peer; and flushes each socket once. Sockets are edge-triggered: a short read or write means drained, unless the
//! event said that the peer has closed, when it is read to the end.
//!
//! Deadlines are judged last, after everything was read and written, and by the time before the poll: whatever had arrived
//! by then has been read, however long the process was stopped in between. See [`read_until`].
//!
//! To wake a thread costs more than to carry one request, so a small batch for a loop whose thread sleeps does not wake
//! it: who has the batch does that loop's turn as well, on its own thread, the write to the socket included. A request
//! on its own wakes two threads that way, its shard's when it comes and its worker's when it is answered. The protocol is
//! that of [`seat`](crate::base::seat); there are no visits from within a visit.

mod descriptors;
mod listener;
mod read_until;
mod settings;
mod shard_loop;
mod socket;
mod worker_loop;

pub use descriptors::{descriptors, descriptors_max, raise_descriptors};
pub use listener::{BindError, Listener, adopt, bind};
pub use settings::{AcceptMode, ListenAt, ListenerSettings, Settings};
pub use shard_loop::{Handed, ShardCommand, ShardLoop, ShardParts};
pub use socket::SocketOptions;
pub use worker_loop::{WorkerCommand, WorkerLoop, WorkerParts};

use crate::base::bell::{Bell, Wake};
use crate::base::clock::{Clock, Now, PAUSE_MIN};
use crate::base::seat::{Core, Seat};
use moorgate_proto::time::Mono;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Wakes a loop out of its poll.
#[derive(Debug)]
pub struct MioWaker(mio::Waker);

impl Wake for MioWaker {
    fn wake(&self) {
        // It fails only when the loop's poll is gone, and then there is nobody to wake.
        let _ = self.0.wake();
    }
}

/// A loop's bell.
pub type LoopBell = Arc<Bell<MioWaker>>;
/// Where a loop's core sits.
pub type LoopSeat<C> = Seat<C, MioWaker>;
/// A mailbox to a loop.
pub type Outbox<T> = crate::base::mailbox::Outbox<T, MioWaker>;
/// A loop's end of a mailbox.
pub type Inbox<T> = crate::base::mailbox::Inbox<T>;

/// The token of a loop's waker.
const WAKER: mio::Token = mio::Token(usize::MAX);
/// A loop that could not hand a batch over tries again after this time at the latest.
const RETRY: Duration = Duration::from_millis(1);
/// A loop with nothing to do turns after this time all the same, to show that it can.
const BEAT: Duration = Duration::from_secs(1);
/// A loop that waits for nothing must not look like a paused process.
const _: () = assert!(BEAT.as_millis() < PAUSE_MIN.as_millis());
/// Bytes read at once: few enough that a read which is full of the smallest frames takes less than a millisecond.
const READ_BYTES: usize = 16 * 1024;
/// What a loop does in one turn for others that sleep; if there is more, it is better done beside it, by their threads.
const VISITS_LEN_MAX: usize = 4;
/// Events taken from one poll.
const EVENTS_PER_TURN: usize = 1024;

/// A poll with its bell.
///
/// # Errors
/// When the system has no descriptors left.
pub fn poll_with_bell() -> io::Result<(mio::Poll, LoopBell)> {
    let poll = mio::Poll::new()?;
    let waker = mio::Waker::new(poll.registry(), WAKER)?;
    Ok((poll, Arc::new(Bell::new(MioWaker(waker)))))
}

/// What a loop runs.
trait Turn: Core {
    /// One turn. Without events it is a visit of another loop's thread, for what that has posted.
    fn turn(&mut self, now: Now, events: Option<&mio::Events>);
}

/// Runs a core on its own thread until it is over, and gives it back; `None`: it is gone, after a panic.
fn run<C: Turn>(seat: &LoopSeat<C>, mut poll: mio::Poll, clock: Clock) -> Option<Box<C>> {
    let mut events = mio::Events::with_capacity(EVENTS_PER_TURN);
    while let Some(rest) = seat.run(|core| turn(core, clock, Some(&events))) {
        wait(&mut poll, &mut events, rest.until.since(rest.now));
        seat.wake();
    }
    seat.leave()
}

/// A loop that may be visited by another one's thread.
pub trait Visit: std::fmt::Debug + Send + Sync {
    /// For whoever has posted something small: it is dealt with here if the loop's thread sleeps, and by that if not.
    fn visit(&self, clock: Clock);
}

impl<C: Turn> Visit for LoopSeat<C> {
    fn visit(&self, clock: Clock) {
        Seat::visit(self, |core| turn(core, clock, None));
    }
}

fn turn<C: Turn>(core: &mut C, clock: Clock, events: Option<&mio::Events>) -> Mono {
    // Read once the seat is locked: for a core, time never goes back.
    let now = clock.read();
    core.turn(now, events);
    now.mono
}

/// When a loop has to turn again though nothing comes.
fn wakes_at(now: Mono, deadline: Option<Mono>, is_busy: bool, is_held: bool) -> Mono {
    if is_busy {
        return now;
    }
    let latest = now + if is_held { RETRY } else { BEAT };
    deadline.map_or(latest, |deadline| deadline.max(now).min(latest))
}

/// Waits for events; an interrupted wait returns none. Deadlines are judged by [`read_until::ReadUntil`], never by the
/// time at which a wait returned.
fn wait(poll: &mut mio::Poll, events: &mut mio::Events, timeout: Duration) {
    if let Err(error) = poll.poll(events, Some(timeout))
        && error.kind() != io::ErrorKind::Interrupted
    {
        log::error!("poll failed: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_sleeps_until_its_deadline_unless_there_is_work() {
        let second = Duration::from_secs(1);
        let (now, due) = (Mono::ZERO + 5 * second, Mono::ZERO + 5 * second + second / 2);
        assert_eq!(wakes_at(now, None, false, false), now + BEAT);
        assert_eq!(wakes_at(now, Some(due), false, false), due);
        assert_eq!(wakes_at(now, Some(Mono::ZERO), false, false), now);
        assert_eq!(wakes_at(now, Some(due), true, false), now);
        assert_eq!(wakes_at(now, Some(due), false, true), now + RETRY);
    }
}
