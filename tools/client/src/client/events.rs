//! Events for an application that takes them when it likes.

use super::shared::Shared;
use crate::session::{ClientSession, Delivery, Event, Missed, State};
use moorgate_proto::time::Mono;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Events that wait for the application, at the most; then the oldest go, and it is told to resync.
pub const EVENTS_MAX: usize = 1024;

/// What waits for the application.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    events: VecDeque<(Event, Option<Delivery>)>,
    /// Some are lost.
    has_lost: bool,
    /// Somebody takes them.
    is_used: bool,
    /// The last event was taken.
    is_over: bool,
}

impl Inbox {
    pub(super) fn new(is_used: bool) -> Inbox {
        Inbox { is_used, ..Inbox::default() }
    }

    /// Puts an event in, or gives it up: nobody takes it, or there are too many. What is given up counts as taken.
    pub(super) fn put(
        &mut self,
        now: Mono,
        session: &mut ClientSession,
        event: Event,
        delivery: Option<Delivery>,
    ) {
        self.events.push_back((event, delivery));
        let most = if self.is_used { EVENTS_MAX } else { 0 };
        while self.events.len() > most {
            let Some((event, delivery)) = self.events.pop_front() else { return };
            self.has_lost |= !matches!(event, Event::State(_));
            if let Some(delivery) = delivery {
                session.taken(now, delivery);
            }
        }
    }

    fn next(&mut self, now: Mono, session: &mut ClientSession) -> Option<Event> {
        if std::mem::take(&mut self.has_lost) {
            return Some(Event::Resync(Missed::Events));
        }
        let (event, delivery) = self.events.pop_front()?;
        if let Some(delivery) = delivery {
            session.taken(now, delivery);
        }
        self.is_over |= matches!(event, Event::State(State::Ended(_)));
        Some(event)
    }
}

/// The events of a client, in order; as an iterator it waits for each, and ends with the client.
///
/// An event that was handed out counts as taken. Who drops this gives the events up.
#[derive(Debug)]
pub struct Events {
    shared: Arc<Shared>,
}

impl Events {
    pub(super) fn new(shared: Arc<Shared>) -> Events {
        Events { shared }
    }

    /// The next event; `None`: none has come in time, or the client has ended and the last one was taken.
    pub fn next_within(&self, timeout: Duration) -> Option<Event> {
        let shared = &*self.shared;
        let until = shared.now() + timeout;
        loop {
            let event = shared.act(|inner, now| {
                let super::shared::Inner { inbox, session, .. } = inner;
                inbox.next(now, session)
            });
            let mut inner = shared.lock();
            if event.is_some() || inner.inbox.is_over {
                return event;
            }
            let left = until.since(shared.now());
            if left.is_zero() {
                return None;
            }
            if inner.inbox.events.is_empty() && !inner.inbox.has_lost {
                inner = shared.wait_change(inner, left);
            }
            drop(inner);
        }
    }

    /// The next event, if it is there.
    pub fn poll(&self) -> Option<Event> {
        self.next_within(Duration::ZERO)
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.next_within(Duration::MAX)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.shared.act(|inner, now| {
            inner.inbox.is_used = false;
            while inner.inbox.next(now, &mut inner.session).is_some() {}
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Push;
    use crate::session::{Credentials, Settings};

    #[test]
    fn too_many_events_lose_the_oldest_and_say_so() {
        let mut session = ClientSession::new(Settings::default(), Credentials::Anonymous, 1);
        let mut inbox = Inbox { is_used: true, ..Inbox::default() };
        let push = |command| Event::Push(Push { command, ..Push::default() });
        for command in (0..).take(EVENTS_MAX + 5) {
            inbox.put(Mono::ZERO, &mut session, push(command), None);
        }
        let mut next = || inbox.next(Mono::ZERO, &mut session);
        assert_eq!(next(), Some(Event::Resync(Missed::Events)));
        assert_eq!(next(), Some(push(5)));
        assert_eq!(std::iter::from_fn(next).count(), EVENTS_MAX - 1);
        let mut unused = Inbox::default();
        unused.put(Mono::ZERO, &mut session, push(1), None);
        assert!(unused.events.is_empty());
    }
}
