//! Requests to the echo service, or to a bare echo server: each reply is compared with its request.

use crate::connection::{Ears, Outcome, Sent, Task, failure};
use crate::pattern::Pattern;
use moorgate_client::core::RequestId;
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::view::ResponseView;
use std::collections::VecDeque;

/// The echo service's command.
pub(crate) const ECHO: u32 = 0x0001;

/// What one connection has asked.
#[derive(Debug)]
pub(crate) struct Echo {
    number: u32,
    command: u32,
    counter: u64,
    sent: VecDeque<Sent>,
}

impl Echo {
    pub(crate) fn new(number: u32, command: u32) -> Echo {
        Echo { number, command, counter: 0, sent: VecDeque::new() }
    }
}

impl Task for Echo {
    fn request<'a>(&'a mut self, pattern: &'a mut Pattern) -> (u32, &'a [u8]) {
        self.counter = self.counter.wrapping_add(1);
        (self.command, pattern.fill(self.number, self.counter))
    }

    fn asked(&mut self, id: RequestId, at: Mono) {
        self.sent.push_back(Sent { id, counter: self.counter, at });
    }

    fn response(&mut self, _now: Mono, (id, view): (RequestId, &ResponseView<'_>), ears: Ears<'_>) {
        let Some(at) = self.sent.iter().position(|sent| sent.id == id) else {
            return ears.outcomes.push(Outcome::Wrong);
        };
        let Some(request) = self.sent.remove(at) else { return };
        ears.outcomes.push(if view.status != Code::Ok.to_wire() {
            Outcome::Failed(failure(view))
        } else if ears.pattern.matches(self.number, request.counter, view.payload) {
            Outcome::Reply(request.at)
        } else {
            Outcome::Wrong
        });
    }

    fn frame(&mut self, payload: &[u8], ears: Ears<'_>) {
        ears.outcomes.push(match self.sent.pop_front() {
            Some(first) if ears.pattern.matches(self.number, first.counter, payload) => {
                Outcome::Reply(first.at)
            }
            _ => Outcome::Wrong,
        });
    }

    fn outstanding(&self) -> usize {
        self.sent.len()
    }

    fn forget(&mut self) {
        self.sent.clear();
    }
}
