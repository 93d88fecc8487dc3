//! Instances of services: the service kit's link core, and what goes wrong with the process around it.

use crate::governance::judge::CallId;
use crate::governance::world::{ConnId, Event, World};
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Execution, Reason};
use moorgate_service::core::{Input, LinkCore, LinkFault, LinkSettings};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Up,
    /// Everything takes ten times as long.
    Slow,
    /// It answers at once that it cannot.
    FailsFast,
    /// It says that it has too much to do.
    Busy,
    /// It is stopped: connections stand, nothing is read.
    Stalled,
    /// Its host is gone: nothing is told.
    Vanished,
    /// The process is gone: connections are reset, and refused.
    Crashed,
    /// It has told everybody to send it no more, and finishes.
    Draining,
}

pub struct Backend {
    pub address: SocketAddr,
    pub state: State,
    pub settings: Arc<LinkSettings>,
}

/// What a call is answered with.
#[derive(Debug, Clone, Copy)]
pub struct Script {
    code: Code,
    reason: Reason,
    execution: Execution,
    retry_after_ms: u32,
}

const OK: Script =
    Script { code: Code::Ok, reason: Reason::Unspecified, execution: Execution::Executed, retry_after_ms: 0 };

impl Backend {
    pub fn new(service: &str, at: usize, address: SocketAddr) -> Backend {
        let settings = LinkSettings {
            instance_id: format!("{service}-{at}"),
            opening_timeout: Duration::from_secs(2),
            ..LinkSettings::new(service)
        };
        Backend { address, state: State::Up, settings: Arc::new(settings) }
    }

    pub fn reads(&self) -> bool {
        !matches!(self.state, State::Stalled | State::Vanished | State::Crashed)
    }

    /// Whether a connection to it can be made: a process that stands still has a system that accepts.
    pub fn accepts(&self) -> bool {
        !matches!(self.state, State::Vanished | State::Crashed)
    }
}

impl World {
    /// Bytes for an instance.
    pub fn backend_received(&mut self, id: ConnId) {
        let at = self.conns[id].backend;
        if !self.backends[at].reads() {
            return;
        }
        let bytes = std::mem::take(&mut self.conns[id].to_backend);
        if bytes.is_empty() {
            return;
        }
        self.conns[id].unread = self.conns[id].unread.saturating_sub(bytes.len());
        let now = self.now;
        let Some(mut core) = self.conns[id].core.take() else { return };
        let (mut runs, mut cancelled) = (Vec::new(), Vec::new());
        let result = core.received(now, &bytes, &mut |_, input| match input {
            Input::Call(view) => runs.push((view.call_id, view.attempt, CallId::read(view.payload))),
            Input::Cancel(call_id) => cancelled.push(call_id),
            _ => {}
        });
        self.conns[id].core = Some(core);
        self.writable_again(id);
        for (call_id, attempt, call) in runs {
            self.take_call(id, call_id, attempt, call);
        }
        if self.dice.chance(50) {
            let cancelled_script = Script { code: Code::Cancelled, execution: Execution::Unknown, ..OK };
            cancelled.into_iter().for_each(|call_id| self.answer(id, call_id, cancelled_script));
        }
        self.backend_flush(id);
        // An Error says that this instance was silent for too long; the end of the stream follows.
        if let Err(fault) = result
            && !matches!(fault, LinkFault::Told(_))
        {
            self.judge.violated(format!("the gateway broke the contract of links: {fault}"));
        }
    }

    fn take_call(&mut self, id: ConnId, call_id: u64, attempt: u32, call: CallId) {
        let at = self.conns[id].backend;
        self.trace.note(self.now, "run", (call.0, at as u64), || {
            format!("{call:?}, attempt {attempt}, at instance {at}, {:?}", self.backends[at].state)
        });
        let worker = self.conns[id].worker;
        self.judge.arrived(self.now, (call, attempt), (worker, at));
        self.conns[id].open.insert(call_id, call);
        self.is_within_bound(worker, at);
        let work = self.scenario.work + self.dice.millis(0, 2);
        let unavailable = Script { code: Code::Unavailable, reason: Reason::Unspecified, ..OK };
        let (delay, script) = match self.backends[at].state {
            State::Slow => (work.saturating_mul(10), OK),
            State::FailsFast if self.dice.chance(50) => {
                (Duration::ZERO, Script { execution: Execution::NotExecuted, ..unavailable })
            }
            State::FailsFast => (Duration::ZERO, Script { execution: Execution::Unknown, ..unavailable }),
            State::Busy => {
                let retry_after_ms = self.dice.between(0, 300) as u32;
                let busy = Script { code: Code::ResourceExhausted, reason: Reason::ServiceOverloaded, ..OK };
                (Duration::ZERO, Script { execution: Execution::NotExecuted, retry_after_ms, ..busy })
            }
            State::Draining if self.dice.chance(50) => {
                let refused = Script { execution: Execution::NotExecuted, ..unavailable };
                (Duration::ZERO, Script { reason: Reason::Draining, ..refused })
            }
            _ if self.judge.is_of(call, self.failing) => (work, Script { code: Code::Internal, ..OK }),
            _ => (work, OK),
        };
        if script.execution != Execution::NotExecuted {
            self.judge.ran(self.now, call, at);
        }
        if delay.is_zero() {
            self.answer(id, call_id, script);
        } else {
            self.schedule(delay, Event::Answer(id, call_id, script));
        }
    }

    /// An answer that is ready.
    pub fn answer(&mut self, id: ConnId, call_id: u64, script: Script) {
        let at = self.conns[id].backend;
        if !self.backends[at].reads() {
            // It comes when the process goes on, if it does.
            if self.backends[at].state == State::Stalled && self.conns[id].alive {
                self.conns[id].late.push((call_id, script));
            }
            return;
        }
        self.conns[id].open.remove(&call_id);
        let Some(core) = self.conns[id].core.as_mut() else { return };
        let reply = v1::Reply {
            call_id,
            status: script.code.to_wire(),
            reason: script.reason.into(),
            execution: script.execution.into(),
            retry_after_ms: script.retry_after_ms,
            ..v1::Reply::default()
        };
        // It may have been answered since it was cancelled.
        let _ = core.calls().answer(call_id, reply.execution, &reply);
        self.backend_flush(id);
    }

    pub fn backend_flush(&mut self, id: ConnId) {
        let (conn, latency) = (&mut self.conns[id], self.scenario.latency);
        let Some(core) = conn.core.as_mut().filter(|_| conn.alive) else { return };
        let bytes = std::mem::take(core.output());
        if !bytes.is_empty() {
            self.schedule(latency, Event::ToWorker(id, bytes));
        }
    }

    /// Something happens to an instance.
    pub fn become_(&mut self, at: usize, state: State) {
        let before = std::mem::replace(&mut self.backends[at].state, state);
        self.trace
            .note(self.now, "state", (at as u64, state as u64), || format!("instance {at} is {state:?}"));
        self.judge.changed(self.now, at, state);
        let conns: Vec<ConnId> = (0..self.conns.len())
            .filter(|id| self.conns[*id].backend == at && self.conns[*id].core.is_some())
            .collect();
        for id in conns {
            match (before, state) {
                (_, State::Crashed) => self.cut(id),
                // Who was gone knows nothing of its old connections.
                (State::Vanished, _) => self.cut(id),
                (_, State::Draining) => {
                    if let Some(core) = self.conns[id].core.as_mut() {
                        core.drain(Duration::from_secs(2));
                    }
                    self.backend_flush(id);
                }
                (State::Stalled, _) => {
                    self.backend_received(id);
                    for (call_id, script) in std::mem::take(&mut self.conns[id].late) {
                        self.answer(id, call_id, script);
                    }
                }
                (State::Draining, _) => self.cut(id),
                _ => {}
            }
        }
    }

    pub fn accept(&mut self, id: ConnId) {
        let at = self.conns[id].backend;
        let nonce = [self.dice.next() as u8; 32];
        self.conns[id].core = Some(LinkCore::new(self.now, self.backends[at].settings.clone(), nonce));
    }
}
