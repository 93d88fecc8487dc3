//! One connection under load: the protocol by the client kit's core, or raw frames; and what it is for.

use crate::ledger::Ledger;
use crate::pattern::Pattern;
use moorgate_client::core::{ClientCore, Event, RequestId, RequestOptions};
use moorgate_proto::codec::Assembler;
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{Gap, Reason, Welcome};
use moorgate_proto::view::{PushView, ResponseView};

/// Raw frames above this are none of ours.
const RAW_FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Either way of speaking.
pub(crate) enum Speech {
    Protocol(Box<ClientCore>),
    Raw { assembler: Assembler, output: Vec<u8> },
}

/// A request without its reply.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) id: RequestId,
    pub(crate) counter: u64,
    /// When it was sent, or should have been.
    pub(crate) at: Mono,
}

/// What the engine learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The session is open, or a raw connection stands.
    Opened,
    /// The connection wants to make its request now.
    Ask,
    /// The connection is where the ramp wants it.
    Ready,
    /// A good reply to what was sent at that time.
    Reply(Mono),
    /// A push that was due, sent at that time.
    Delivered(Mono),
    /// The first push has come.
    Reached,
    /// The other side has given up so many pushes, and said so.
    GivenUp(u64),
    /// The access token of a login has opened a session.
    TokenGood,
    /// A reply or push that is not the one that it should be.
    Wrong,
    /// A reply that is no success.
    Failed(String),
    /// A reply after which the connection asks again; why.
    Delayed(String),
    /// The end, and how many requests it leaves without a reply.
    Ended(String, usize),
}

/// What a connection is for: what it asks, and what it makes of what comes.
pub(crate) trait Task: Send {
    /// The access token for its next session; `None`: the run's own.
    fn token(&self) -> Option<&str> {
        None
    }

    /// The session is open.
    fn welcomed(&mut self, _welcome: &Welcome, outcomes: &mut Vec<Outcome>) {
        outcomes.push(Outcome::Opened);
    }

    /// The next request: command and payload.
    fn request<'a>(&'a mut self, pattern: &'a mut Pattern) -> (u32, &'a [u8]);

    /// It was taken, under this id, and counts from `at`.
    fn asked(&mut self, id: RequestId, at: Mono);

    /// A Response.
    fn response(&mut self, now: Mono, reply: (RequestId, &ResponseView<'_>), ears: Ears<'_>);

    /// A raw frame.
    fn frame(&mut self, payload: &[u8], ears: Ears<'_>);

    /// A push.
    fn push(&mut self, _view: &PushView<'_>, _ears: Ears<'_>) {}

    /// Pushes that will not come.
    fn gap(&mut self, _gap: &Gap, _ears: Ears<'_>) {}

    /// When it wants to ask again by itself.
    fn ask_due(&self) -> Mono {
        Mono::NEVER
    }

    /// Requests without a reply.
    fn outstanding(&self) -> usize;

    /// Forgets the requests without a reply: their session is over.
    fn forget(&mut self);

    /// What came of the pushes for it, if it is for that, with the connection's number.
    fn ledger(&mut self) -> Option<(u32, Ledger)> {
        None
    }
}

/// What a task needs when something comes.
pub(crate) struct Ears<'a> {
    pub(crate) pattern: &'a Pattern,
    pub(crate) outcomes: &'a mut Vec<Outcome>,
}

/// One connection: how it speaks, and what for.
pub(crate) struct Talk {
    speech: Speech,
    is_open: bool,
    /// Of raw requests.
    counter: u64,
    task: Box<dyn Task>,
}

impl Talk {
    pub(crate) fn new(speech: Speech, task: Box<dyn Task>) -> Talk {
        Talk { speech, is_open: false, counter: 0, task }
    }

    /// The connection stands; `token` is the run's own.
    pub(crate) fn connected(&mut self, now: Mono, token: &str) {
        match &mut self.speech {
            Speech::Protocol(core) => core.connected(now, self.task.token().unwrap_or(token)),
            Speech::Raw { .. } => self.is_open = true,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Requests without a reply.
    pub(crate) fn outstanding(&self) -> usize {
        self.task.outstanding()
    }

    /// The task alone: the connection is over.
    pub(crate) fn into_task(self) -> Box<dyn Task> {
        self.task
    }

    /// Makes a request that counts from `at`; `false` when it is not taken.
    pub(crate) fn ask(&mut self, now: Mono, at: Mono, pattern: &mut Pattern) -> bool {
        let (command, payload) = self.task.request(pattern);
        let id = match &mut self.speech {
            Speech::Protocol(core) => match core.request(now, &RequestOptions::command(command), payload) {
                Ok(id) => id,
                Err(_) => return false,
            },
            Speech::Raw { output, .. } => {
                self.counter = self.counter.saturating_add(1);
                put_raw_frame(output, payload);
                RequestId(self.counter)
            }
        };
        self.task.asked(id, at);
        true
    }

    /// Bytes to send.
    pub(crate) fn output(&mut self) -> &mut Vec<u8> {
        match &mut self.speech {
            Speech::Protocol(core) => core.output(),
            Speech::Raw { output, .. } => output,
        }
    }

    /// Bytes from the connection.
    pub(crate) fn received(
        &mut self,
        now: Mono,
        bytes: &[u8],
        pattern: &Pattern,
        outcomes: &mut Vec<Outcome>,
    ) {
        let Talk { speech, is_open, task, .. } = self;
        match speech {
            Speech::Protocol(core) => {
                core.received(now, bytes, &mut |_, event| {
                    note(now, event, (is_open, &mut **task), Ears { pattern, outcomes });
                });
            }
            Speech::Raw { assembler, .. } => {
                let mut rest = bytes;
                loop {
                    match assembler.next(&mut rest, RAW_FRAME_BYTES_MAX) {
                        Ok(Some(payload)) => task.frame(payload, Ears { pattern, outcomes }),
                        Ok(None) => return,
                        Err(error) => {
                            outcomes.push(Outcome::Ended(error.to_string(), task.outstanding()));
                            return task.forget();
                        }
                    }
                }
            }
        }
    }

    pub(crate) fn timers(&mut self, now: Mono, pattern: &Pattern, outcomes: &mut Vec<Outcome>) {
        let Talk { speech, is_open, task, .. } = self;
        if let Speech::Protocol(core) = speech {
            core.timers(now, &mut |_, event| {
                note(now, event, (is_open, &mut **task), Ears { pattern, outcomes });
            });
        }
        if task.ask_due() <= now {
            outcomes.push(Outcome::Ask);
        }
    }

    /// When [`Talk::timers`] has something to do.
    pub(crate) fn next_deadline(&self) -> Mono {
        let core = match &self.speech {
            Speech::Protocol(core) => core.next_deadline(),
            Speech::Raw { .. } => Mono::NEVER,
        };
        core.min(self.task.ask_due())
    }
}

fn note(now: Mono, event: Event<'_>, (is_open, task): (&mut bool, &mut dyn Task), ears: Ears<'_>) {
    match event {
        Event::Welcomed(welcome) => {
            *is_open = true;
            task.welcomed(&welcome, ears.outcomes);
        }
        Event::Response(id, view) => task.response(now, (id, &view), ears),
        Event::Push(view) => task.push(&view, ears),
        Event::Gap(gap) => task.gap(&gap, ears),
        Event::Ended(end) => {
            *is_open = false;
            ears.outcomes.push(Outcome::Ended(end.to_string(), task.outstanding()));
            task.forget();
        }
        _ => {}
    }
}

/// A payload behind its length.
pub(crate) fn put_raw_frame(output: &mut Vec<u8>, payload: &[u8]) {
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    output.extend_from_slice(&len.to_be_bytes());
    output.extend_from_slice(payload);
}

/// A Response that is no success, in words.
pub(crate) fn failure(view: &ResponseView<'_>) -> String {
    let reason = Reason::try_from(view.reason).unwrap_or_default();
    let name = reason.as_str_name();
    let reason = name.strip_prefix("REASON_").unwrap_or(name);
    format!("a request was answered {}, {reason}", Code::from_wire(view.status).name())
}
