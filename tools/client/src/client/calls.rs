//! Callbacks of the application, on a thread of their own: the client's thread reads, pings and acknowledges however long
//! they take.
//!
//! What waits for that thread is bounded: numbered events by the gateway's window, because they are acknowledged after
//! their callback; all others by [`EVENTS_MAX`]; answers by the same number, beyond which requests with a callback are
//! refused.

use super::builder::OnEvent;
use super::events::EVENTS_MAX;
use super::shared::{Inner, Shared};
use crate::session::{Delivery, Event, Missed, Outcome, Output};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread;

/// Takes the outcome of a request.
pub(super) type Callback = Box<dyn FnOnce(Outcome) + Send>;

/// One call into the application.
enum Call {
    Event(Event, Option<Delivery>),
    Answer(Callback, Outcome),
}

/// Calls that wait for their thread, in order.
#[derive(Default)]
pub(super) struct Calls {
    queue: VecDeque<Call>,
    /// Events that the gateway's window does not bound.
    unbounded: usize,
    answers: usize,
    has_lost: bool,
    is_closed: bool,
}

impl Calls {
    /// Adds an event. Of too many that have no number the oldest is dropped, which becomes a resync.
    pub(super) fn event(&mut self, event: Event, delivery: Option<Delivery>) {
        self.unbounded = self.unbounded.saturating_add(usize::from(delivery.is_none()));
        self.queue.push_back(Call::Event(event, delivery));
        while self.unbounded > EVENTS_MAX {
            let oldest = self.queue.iter().position(|call| matches!(call, Call::Event(_, None)));
            let Some(Call::Event(dropped, _)) = oldest.and_then(|at| self.queue.remove(at)) else { return };
            self.unbounded = self.unbounded.saturating_sub(1);
            self.has_lost |= !matches!(dropped, Event::State(_));
        }
    }

    /// Adds an answer.
    pub(super) fn answer(&mut self, then: Callback, outcome: Outcome) {
        self.answers = self.answers.saturating_add(1);
        self.queue.push_back(Call::Answer(then, outcome));
    }

    /// Whether so many answers wait that no request with a callback may be made.
    pub(super) fn is_full(&self) -> bool {
        self.answers >= EVENTS_MAX
    }

    /// Nothing is added any more: the thread ends once the queue is empty.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }

    /// Whether the thread has nothing more to wait for.
    fn is_over(&self) -> bool {
        self.is_closed && self.queue.is_empty()
    }

    fn next(&mut self) -> Option<Call> {
        if std::mem::take(&mut self.has_lost) {
            return Some(Call::Event(Event::Resync(Missed::Events), None));
        }
        let call = self.queue.pop_front()?;
        match &call {
            Call::Event(_, None) => self.unbounded = self.unbounded.saturating_sub(1),
            Call::Event(..) => {}
            Call::Answer(..) => self.answers = self.answers.saturating_sub(1),
        }
        Some(call)
    }
}

/// Ends the client when its callbacks have ended: after it, or with a panic of one.
struct Last(Arc<Shared>);

impl Drop for Last {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.session.abandon();
        let outputs = std::iter::from_fn(|| inner.session.poll()).collect::<Vec<_>>();
        let now = self.0.now();
        for output in outputs {
            if let Output::Event(event, delivery) = output {
                let Inner { inbox, session, .. } = &mut *inner;
                inbox.put(now, session, event, delivery);
            }
        }
        let sinks = std::mem::take(&mut inner.sinks);
        let calls = std::mem::take(&mut inner.calls);
        inner.calls.close();
        inner.is_over = true;
        drop(inner);
        self.0.notify();
        self.0.wake();
        // Whoever waits for an answer sees that nobody will send it.
        drop((sinks, calls));
    }
}

/// Starts the thread.
pub(super) fn spawn(shared: Arc<Shared>, mut on_event: Option<OnEvent>) -> io::Result<()> {
    thread::Builder::new().name("moorgate-callbacks".to_owned()).spawn(move || {
        shared.adopt();
        let _last = Last(Arc::clone(&shared));
        while let Some(call) = next(&shared) {
            match call {
                Call::Event(event, delivery) => {
                    if let Some(on_event) = &mut on_event {
                        on_event(event);
                    }
                    if let Some(delivery) = delivery {
                        shared.act(|inner, now| inner.session.taken(now, delivery));
                    }
                }
                Call::Answer(then, outcome) => then(outcome),
            }
        }
    })?;
    Ok(())
}

/// Waits for the next call; `None`: there will be none.
fn next(shared: &Shared) -> Option<Call> {
    let mut inner = shared.lock();
    loop {
        if let Some(call) = inner.calls.next() {
            return Some(call);
        }
        if inner.calls.is_over() {
            return None;
        }
        inner = shared.wait_call(inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::State;
    use moorgate_proto::status::Code;
    use moorgate_proto::v1::{Execution, Reason};

    fn notice() -> Event {
        Event::Notice { code: Code::Ok, reason: Reason::Unspecified, message: String::new() }
    }

    #[test]
    fn too_many_unnumbered_events_lose_the_oldest_and_resync() {
        let mut calls = Calls::default();
        calls.event(Event::State(State::Starting), None);
        calls.event(notice(), None);
        (2..EVENTS_MAX).for_each(|_| calls.event(Event::State(State::GoingAway), None));
        assert!(matches!(calls.next(), Some(Call::Event(Event::State(State::Starting), None))));
        (0..2).for_each(|_| calls.event(Event::State(State::GoingAway), None));
        assert!(matches!(calls.next(), Some(Call::Event(Event::Resync(Missed::Events), None))));
        let rest = std::iter::from_fn(|| calls.next()).count();
        assert_eq!((rest, calls.unbounded), (EVENTS_MAX, 0));
    }

    #[test]
    fn too_many_answers_refuse_requests() {
        let mut calls = Calls::default();
        for _ in 0..EVENTS_MAX {
            assert!(!calls.is_full());
            calls.answer(Box::new(|_| {}), Outcome::Unanswered(Execution::Unknown));
        }
        assert!(calls.is_full());
        calls.close();
        assert!(calls.next().is_some() && !calls.is_full() && !calls.is_over());
    }
}
