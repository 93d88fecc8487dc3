//! Who asks.

use crate::governance::judge::CallId;
use crate::governance::plant::Plant;
use crate::governance::scenario::{CHAT, Kind};
use crate::governance::world::{Event, World};
use moorgate::base::ids::{RouteId, SessionId, SessionKey, Ticket};
use moorgate::relay::Forward;
use moorgate_proto::v1;
use std::time::Duration;

impl World {
    /// Somebody asks for something, and again later.
    pub fn load(&mut self) {
        if !self.loading {
            return;
        }
        let kind = Kind::ALL[self.dice.index(Kind::ALL.len())];
        let at = self.dice.index(self.workers.len());
        let id = CallId(self.next_call);
        self.next_call += 1;
        let (timeout, now) = (self.scenario.timeout, self.now);
        let session = self.next_session(at);
        let deadline = now + timeout;
        self.judge.asked((now, deadline), at, id, (kind, session));
        self.trace.note(now, "ask", (id.0, kind as u64), || format!("{id:?}, {kind:?}, session {session}"));
        let worker = &mut self.workers[at];
        let index = worker.calls.iter().position(Option::is_none).unwrap_or(worker.calls.len());
        if index == worker.calls.len() {
            worker.calls.push(None);
        }
        worker.calls[index] = Some(id);
        worker.generation += 1;
        let session_id = SessionId(u128::from(session).to_be_bytes());
        let user_id = match self.plant {
            Some(Plant::UsersMove) => format!("user-{session}-{}", self.pools.canary_share(CHAT)),
            _ => format!("user-{session}"),
        };
        let caller =
            v1::Caller { user_id, session_id: session_id.0.to_vec().into(), ..v1::Caller::default() };
        let payload = [&id.0.to_le_bytes()[..], &vec![7; self.dice.index(200)]].concat();
        let call = v1::Call {
            command: kind.command(),
            caller: Some(caller),
            payload: payload.into(),
            ..v1::Call::default()
        };
        let forward = Forward {
            ticket: Ticket::new(index as u32, worker.generation),
            session: SessionKey::new(session, 0),
            session_id,
            route: RouteId(kind as u16),
            caller: if self.plant == Some(Plant::CallerUnknown) { 0 } else { session.to_le_bytes()[0] },
            deadline,
            call: worker.inbox.arena.encode(&call),
        };
        worker.inbox.forwards.push(forward);
        self.schedule(Duration::ZERO, Event::Turn(at));
        let rate = self.scenario.calls_per_s * 6;
        let pause = Duration::from_nanos(self.dice.below(2_000_000_000 / rate));
        self.schedule(pause, Event::Load);
    }
}
