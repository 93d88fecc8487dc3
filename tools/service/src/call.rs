//! What a handler gets and gives: a [`Call`], and a [`Responder`] or [`Later`] that answers it exactly once.

use crate::core::{Calls, CancelFlag};
use crate::dedup::DedupKey;
use crate::post::{CallPlace, Mail, Post};
use crate::push::LinkId;
use crate::reply::{EncodedReply, Reply};
use moorgate_proto::view::CallView;
use moorgate_proto::{bounded, v1};
use prost::Message;
use std::sync::Arc;

/// A call to be run.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub(crate) view: CallView<'a>,
    pub(crate) cancel: Option<&'a CancelFlag>,
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

    /// The name of the payload's encoding; empty: none.
    pub fn content_encoding(&self) -> &'a str {
        self.view.content_encoding
    }

    /// Who asks, as the gateway has checked it.
    pub fn caller(&self) -> v1::Caller {
        bounded::decode(self.view.caller).unwrap_or_default()
    }

    /// Milliseconds until the gateway gives up, when the handler starts.
    pub fn remaining_ms(&self) -> u32 {
        self.view.remaining_ms
    }

    /// 1 for the first attempt of the gateway.
    pub fn attempt(&self) -> u32 {
        self.view.attempt
    }

    /// Importance when something must wait.
    pub fn priority(&self) -> v1::Priority {
        v1::Priority::try_from(self.view.priority).unwrap_or_default()
    }

    /// W3C trace context, as the client sent it.
    pub fn trace(&self) -> v1::Trace {
        v1::Trace::decode(self.view.trace).unwrap_or_default()
    }

    /// Set by the client so that the same request is not run twice; empty: none. See
    /// [`Service::deduplicate`](crate::Service::deduplicate).
    pub fn idempotency_key(&self) -> &'a [u8] {
        self.view.idempotency_key
    }

    /// Calls with the same key are to be run one after the other; empty: no order. Handlers that block keep it.
    pub fn ordering_key(&self) -> &'a [u8] {
        self.view.ordering_key
    }

    /// Whether nobody waits for the answer any more: the client has cancelled the call, its time is over, or the link is
    /// lost. A handler that blocks may stop then, and still answers. Never for calls that are
    /// [deduplicated](crate::Service::deduplicate): a repeat wants their answer.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_some_and(CancelFlag::is_set)
    }
}

/// Answers one call, here and now or [`Responder::later`]. Dropped without an answer, it answers INTERNAL.
pub struct Responder<'a> {
    pub(crate) calls: &'a mut Calls,
    pub(crate) call_id: u64,
    pub(crate) link: LinkId,
    pub(crate) post: &'a Arc<Post>,
    pub(crate) dedup: Option<DedupKey>,
    pub(crate) answered: bool,
}

impl<'a> Responder<'a> {
    pub(crate) fn new(
        calls: &'a mut Calls,
        call_id: u64,
        link: LinkId,
        post: &'a Arc<Post>,
    ) -> Responder<'a> {
        Responder { calls, call_id, link, post, dedup: None, answered: false }
    }

    /// Answers.
    pub fn reply(mut self, reply: Reply<'_>) {
        self.send(reply);
    }

    /// A responder that another thread can answer with.
    pub fn later(mut self) -> Later {
        self.hand_on()
    }

    /// Another call is run in its place, whose reply answers both.
    pub(crate) fn held(mut self) {
        self.answered = true;
    }

    /// Answers as it was answered before.
    pub(crate) fn repeat(mut self, reply: &EncodedReply) {
        self.answered = true;
        let answered = self.calls.answer(self.call_id, reply.execution, &reply.for_call(self.call_id));
        debug_assert!(answered.is_ok(), "a responder answers a call that is open");
    }

    fn hand_on(&mut self) -> Later {
        self.answered = true;
        let dedup = self.dedup.take();
        let cancel = match dedup {
            // Whoever repeats the call waits for its reply, also when its first caller does not any more.
            Some(_) => CancelFlag::default(),
            None => self.calls.watch(self.call_id),
        };
        let place = CallPlace { link: self.link, call_id: self.call_id, cancel, dedup };
        Later { place: Some(place), post: self.post.clone() }
    }

    fn send(&mut self, reply: Reply<'_>) {
        if self.dedup.is_some() {
            // Others may wait for the same reply, on other links: the loop sees to it.
            return self.hand_on().reply(reply);
        }
        self.answered = true;
        let reply = reply.into_wire(self.call_id);
        let answered = self.calls.answer(self.call_id, reply.view.execution, &reply);
        debug_assert!(answered.is_ok(), "a responder answers a call that is open");
    }
}

impl Drop for Responder<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.send(Reply::forgotten());
        }
    }
}

/// Answers one call from any thread. Dropped without an answer, it answers INTERNAL.
#[derive(Debug)]
pub struct Later {
    /// `None`: it was answered.
    place: Option<CallPlace>,
    post: Arc<Post>,
}

impl Later {
    /// Answers.
    pub fn reply(mut self, reply: Reply<'_>) {
        self.send(reply);
    }

    /// Whether nobody waits for the answer any more: see [`Call::is_cancelled`].
    pub fn is_cancelled(&self) -> bool {
        self.place.as_ref().is_some_and(|place| place.cancel.is_set())
    }

    pub(crate) fn cancel_flag(&self) -> CancelFlag {
        self.place.as_ref().map(|place| place.cancel.clone()).unwrap_or_default()
    }

    fn send(&mut self, reply: Reply<'_>) {
        if let Some(place) = self.place.take() {
            // It fails only when the loop is gone, and the link with it.
            let _ = self.post.send(Mail::Reply { place, reply: reply.encode() });
        }
    }
}

impl Drop for Later {
    fn drop(&mut self) {
        self.send(Reply::forgotten());
    }
}
