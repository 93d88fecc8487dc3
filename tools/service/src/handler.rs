//! What a handler gets and gives: a [`Call`], and a [`Responder`] that answers it exactly once.

use crate::core::Calls;
use crossbeam_channel::Sender;
use moorgate_proto::status::Code;
use moorgate_proto::v1::{self, Execution, Reason};
use moorgate_proto::view::{CallView, ReplyView};
use prost::Message;
use std::sync::Arc;

/// A call to be run.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub(crate) view: CallView<'a>,
}

impl<'a> Call<'a> {
    /// What is asked.
    pub fn command(&self) -> u32 {
        self.view.command
    }

    /// The command's version, at least 1.
    pub fn version(&self) -> u32 {
        self.view.version
    }

    /// The request's content.
    pub fn payload(&self) -> &'a [u8] {
        self.view.payload
    }

    /// Who asks, as the gateway has checked it.
    pub fn caller(&self) -> v1::Caller {
        v1::Caller::decode(self.view.caller).unwrap_or_default()
    }

    /// Milliseconds until the gateway gives up.
    pub fn remaining_ms(&self) -> u32 {
        self.view.remaining_ms
    }

    /// Set by the client so that the same request is not run twice; empty: none.
    pub fn idempotency_key(&self) -> &'a [u8] {
        self.view.idempotency_key
    }

    /// Calls with the same key are to be run one after the other; empty: no order.
    pub fn ordering_key(&self) -> &'a [u8] {
        self.view.ordering_key
    }
}

/// The answer to a call.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    view: ReplyView<'a>,
}

impl<'a> Reply<'a> {
    /// It went well.
    pub fn ok(payload: &'a [u8]) -> Reply<'a> {
        Reply { view: ReplyView { payload, ..ReplyView::default() } }
    }

    /// It did not; `message` is for people who debug, never for users.
    pub fn error(code: Code, message: &'a str) -> Reply<'a> {
        Reply { view: ReplyView { status: code.to_wire(), message, ..ReplyView::default() } }
    }

    /// The same with a reason, on which the client's action hangs.
    #[must_use]
    pub fn with_reason(mut self, reason: Reason) -> Reply<'a> {
        self.view.reason = reason.into();
        self
    }

    /// The same with what is known of its execution; the default is EXECUTED.
    #[must_use]
    pub fn with_execution(mut self, execution: Execution) -> Reply<'a> {
        self.view.execution = execution.into();
        self
    }

    fn for_call(self, call_id: u64) -> ReplyView<'a> {
        ReplyView { call_id, ..self.view }
    }
}

/// A reply that was made on another thread.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) link: usize,
    pub(crate) link_serial: u64,
    pub(crate) reply: Vec<u8>,
}

/// How replies of other threads reach the loop.
#[derive(Debug)]
pub(crate) struct Mail {
    pub(crate) sender: Sender<Delivery>,
    pub(crate) waker: mio::Waker,
}

/// Answers one call, here and now or [`Responder::later`]. Dropped without an answer, it answers INTERNAL.
pub struct Responder<'a> {
    pub(crate) calls: &'a mut Calls,
    pub(crate) call_id: u64,
    pub(crate) link: usize,
    pub(crate) link_serial: u64,
    pub(crate) mail: &'a Arc<Mail>,
    pub(crate) handed_on: bool,
}

impl Responder<'_> {
    /// Answers.
    pub fn reply(self, reply: Reply<'_>) {
        let answered = self.calls.reply(&reply.for_call(self.call_id));
        debug_assert!(answered.is_ok(), "a responder answers a call that is open");
    }

    /// A responder that another thread can answer with.
    pub fn later(mut self) -> Later {
        self.handed_on = true;
        Later {
            call_id: self.call_id,
            link: self.link,
            link_serial: self.link_serial,
            mail: self.mail.clone(),
            answered: false,
        }
    }
}

impl Drop for Responder<'_> {
    fn drop(&mut self) {
        if !self.handed_on && self.calls.is_open(self.call_id) {
            let _ = self.calls.reply(&forgotten().for_call(self.call_id));
        }
    }
}

/// Answers one call from any thread. Dropped without an answer, it answers INTERNAL.
#[derive(Debug)]
pub struct Later {
    call_id: u64,
    link: usize,
    link_serial: u64,
    mail: Arc<Mail>,
    answered: bool,
}

impl Later {
    /// Answers.
    pub fn reply(mut self, reply: Reply<'_>) {
        self.send(reply);
    }

    fn send(&mut self, reply: Reply<'_>) {
        self.answered = true;
        let mut bytes = Vec::new();
        moorgate_proto::view::Body::put(&reply.for_call(self.call_id), &mut bytes);
        let delivery = Delivery { link: self.link, link_serial: self.link_serial, reply: bytes };
        // Both fail only when the loop is gone, and the link with it.
        if self.mail.sender.send(delivery).is_ok() {
            let _ = self.mail.waker.wake();
        }
    }
}

impl Drop for Later {
    fn drop(&mut self) {
        if !self.answered {
            self.send(forgotten());
        }
    }
}

fn forgotten() -> Reply<'static> {
    Reply::error(Code::Internal, "the handler gave no answer")
        .with_reason(Reason::Internal)
        .with_execution(Execution::Unknown)
}
