//! One connection under load: the protocol by the client kit's core, or raw frames.

use crate::pattern::Pattern;
use moorgate_client::core::{ClientCore, End, Event, RequestId, RequestOptions};
use moorgate_proto::codec::Assembler;
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::Reason;
use std::collections::VecDeque;

/// The echo service's command.
const ECHO: u32 = 0x0001;
/// Raw frames above this are no echo of ours.
const RAW_FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Either way of speaking.
pub(crate) enum Speech {
    Protocol(Box<ClientCore>),
    Raw { assembler: Assembler, output: Vec<u8> },
}

/// A request without its reply.
#[derive(Debug, Clone, Copy)]
struct Sent {
    id: RequestId,
    counter: u64,
    /// When it was sent, or should have been.
    at: Mono,
}

/// What the engine learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The session is open, or a raw connection stands.
    Opened,
    /// A good reply to what was sent at that time.
    Reply(Mono),
    /// A reply that is not its request's.
    Wrong,
    /// A reply that is no success.
    Failed(String),
    /// The end, and how many requests it leaves without a reply.
    Ended(String, usize),
}

/// One connection's requests.
pub(crate) struct Talk {
    speech: Speech,
    counter: u64,
    book: Book,
}

/// What a connection has asked, and how it stands.
struct Book {
    number: u32,
    sent: VecDeque<Sent>,
    is_open: bool,
}

impl Talk {
    pub(crate) fn new(speech: Speech, number: u32) -> Talk {
        Talk { speech, counter: 0, book: Book { number, sent: VecDeque::new(), is_open: false } }
    }

    /// The connection stands.
    pub(crate) fn connected(&mut self, now: Mono, token: &str) {
        match &mut self.speech {
            Speech::Protocol(core) => core.connected(now, token),
            Speech::Raw { .. } => self.book.is_open = true,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.book.is_open
    }

    /// Requests without a reply.
    pub(crate) fn outstanding(&self) -> usize {
        self.book.sent.len()
    }

    /// Makes a request that counts from `at`; `false` when it is not taken.
    pub(crate) fn ask(&mut self, now: Mono, at: Mono, pattern: &mut Pattern) -> bool {
        self.counter = self.counter.wrapping_add(1);
        let payload = pattern.fill(self.book.number, self.counter);
        let id = match &mut self.speech {
            Speech::Protocol(core) => match core.request(now, &RequestOptions::command(ECHO), payload) {
                Ok(id) => id,
                Err(_) => return false,
            },
            Speech::Raw { output, .. } => {
                let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
                output.extend_from_slice(&len.to_be_bytes());
                output.extend_from_slice(payload);
                RequestId(self.counter)
            }
        };
        self.book.sent.push_back(Sent { id, counter: self.counter, at });
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
        let Talk { speech, book, .. } = self;
        match speech {
            Speech::Protocol(core) => {
                core.received(now, bytes, &mut |_, event| book.note(pattern, outcomes, event));
            }
            Speech::Raw { assembler, .. } => {
                let mut rest = bytes;
                loop {
                    match assembler.next(&mut rest, RAW_FRAME_BYTES_MAX) {
                        Ok(Some(payload)) => outcomes.push(match book.sent.pop_front() {
                            Some(first) if pattern.matches(book.number, first.counter, payload) => {
                                Outcome::Reply(first.at)
                            }
                            _ => Outcome::Wrong,
                        }),
                        Ok(None) => return,
                        Err(error) => {
                            return outcomes.push(Outcome::Ended(error.to_string(), book.sent.len()));
                        }
                    }
                }
            }
        }
    }

    pub(crate) fn timers(&mut self, now: Mono, pattern: &Pattern, outcomes: &mut Vec<Outcome>) {
        let Talk { speech, book, .. } = self;
        if let Speech::Protocol(core) = speech {
            core.timers(now, &mut |_, event| book.note(pattern, outcomes, event));
        }
    }

    /// When [`Talk::timers`] has something to do.
    pub(crate) fn next_deadline(&self) -> Mono {
        match &self.speech {
            Speech::Protocol(core) => core.next_deadline(),
            Speech::Raw { .. } => Mono::NEVER,
        }
    }
}

impl Book {
    fn note(&mut self, pattern: &Pattern, outcomes: &mut Vec<Outcome>, event: Event<'_>) {
        match event {
            Event::Welcomed(_) => {
                self.is_open = true;
                outcomes.push(Outcome::Opened);
            }
            Event::Response(id, view) => {
                let Some(at) = self.sent.iter().position(|sent| sent.id == id) else {
                    return outcomes.push(Outcome::Wrong);
                };
                let Some(request) = self.sent.remove(at) else { return };
                outcomes.push(if view.status != Code::Ok.to_wire() {
                    let reason = Reason::try_from(view.reason).unwrap_or_default();
                    Outcome::Failed(format!(
                        "{} {}",
                        Code::from_wire(view.status).name(),
                        reason.as_str_name()
                    ))
                } else if pattern.matches(self.number, request.counter, view.payload) {
                    Outcome::Reply(request.at)
                } else {
                    Outcome::Wrong
                });
            }
            Event::Ended(end) => {
                self.is_open = false;
                let why = match end {
                    End::Error(error) => error.message,
                    other => format!("{other:?}"),
                };
                outcomes.push(Outcome::Ended(why, self.sent.len()));
                self.sent.clear();
            }
            _ => {}
        }
    }
}
