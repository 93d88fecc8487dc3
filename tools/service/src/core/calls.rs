//! The calls of one link that have no reply, and the bytes that the link has to send.

use moorgate_proto::codec::{LENGTH_BYTES, frame_len, put_frame};
use moorgate_proto::envelope::Numbers;
use moorgate_proto::envelope::member::to_gateway;
use moorgate_proto::limits::FRAME_BYTES_CEILING;
use moorgate_proto::status::Code;
use moorgate_proto::v1::link_notice::Kind;
use moorgate_proto::v1::{self, Execution, Reason};
use moorgate_proto::view::{Body, ReplyView};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tells whoever runs a call, on any thread, that nobody waits for it any more.
#[derive(Debug, Clone, Default)]
pub struct CancelFlag(Arc<AtomicBool>);

impl CancelFlag {
    /// Whether the call was cancelled, or its link lost.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Why a reply was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyError {
    /// The call has its reply, or was never given on this link.
    NotOpen,
}

/// The calls of one link that have no reply, and the bytes to send.
#[derive(Debug)]
pub struct Calls {
    /// Those that are watched have a flag.
    open: HashMap<u64, Option<CancelFlag>, foldhash::fast::FixedState>,
    pub(super) output: Vec<u8>,
    /// Whole frames for the bulk link.
    large: Vec<u8>,
    /// There is a bulk link.
    has_bulk: bool,
    /// One was asked for.
    has_asked: bool,
    /// The largest Reply that goes on this link where there is a bulk link, as a frame in bytes.
    pub(super) main_frame_max: usize,
    /// The largest frame that the gateway takes, in bytes.
    pub(super) gateway_frame_max: usize,
}

impl Calls {
    pub(super) fn new(main_frame_max: usize) -> Calls {
        Calls {
            open: HashMap::default(),
            output: Vec::new(),
            large: Vec::new(),
            has_bulk: false,
            has_asked: false,
            main_frame_max,
            gateway_frame_max: FRAME_BYTES_CEILING,
        }
    }

    /// A bulk link is ready, or is lost.
    pub fn set_bulk(&mut self, is_ready: bool) {
        (self.has_bulk, self.has_asked) = (is_ready, false);
    }

    /// Takes the frames that are to be sent on the bulk link.
    pub fn take_large(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.large)
    }

    /// Asks for a bulk link, once. Until it is there large replies go on this link.
    fn ask_for_bulk(&mut self) {
        if !std::mem::replace(&mut self.has_asked, true) {
            let kind = Kind::BulkWanted.into();
            self.put(to_gateway::NOTICE, &v1::LinkNotice { kind, ..v1::LinkNotice::default() });
        }
    }

    /// Answers a call. A reply that fits into no frame of the gateway's would cost the link: it is replaced by one that
    /// says so.
    ///
    /// # Errors
    /// [`ReplyError::NotOpen`] for a second reply.
    pub fn reply(&mut self, reply: &ReplyView<'_>) -> Result<(), ReplyError> {
        self.answer(reply.call_id, reply.execution, reply)
    }

    /// The same with an encoded Reply to this call, whose execution is the number on the wire.
    ///
    /// # Errors
    /// [`ReplyError::NotOpen`] for a second reply.
    pub fn answer(&mut self, call_id: u64, execution: i32, reply: &impl Body) -> Result<(), ReplyError> {
        if self.open.remove(&call_id).is_none() {
            return Err(ReplyError::NotOpen);
        }
        let frame_bytes = frame_len(Numbers::NONE, to_gateway::REPLY, reply.body_len()) - LENGTH_BYTES;
        if frame_bytes <= self.main_frame_max.min(self.gateway_frame_max) {
            self.put(to_gateway::REPLY, reply);
        } else if frame_bytes <= self.gateway_frame_max {
            if self.has_bulk {
                put_frame(&mut self.large, Numbers::NONE, to_gateway::REPLY, reply);
            } else {
                self.ask_for_bulk();
                self.put(to_gateway::REPLY, reply);
            }
        } else {
            let too_large = ReplyView {
                call_id,
                status: Code::ResourceExhausted.to_wire(),
                reason: Reason::ReplyTooLarge.into(),
                execution,
                message: "the reply is larger than the gateway's largest frame",
                ..ReplyView::default()
            };
            self.put(to_gateway::REPLY, &too_large);
        }
        Ok(())
    }

    /// Calls without a reply.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Whether a call has no reply.
    pub fn is_open(&self, call_id: u64) -> bool {
        self.open.contains_key(&call_id)
    }

    /// A flag that tells of the call's cancellation; of a call that is not open it is never set.
    pub fn watch(&mut self, call_id: u64) -> CancelFlag {
        let flag = self.open.get_mut(&call_id).map(|flag| flag.get_or_insert_default().clone());
        flag.unwrap_or_default()
    }

    /// Whether it is new, as it must be.
    pub(super) fn begin(&mut self, call_id: u64) -> bool {
        match self.open.entry(call_id) {
            Entry::Occupied(_) => false,
            Entry::Vacant(entry) => {
                entry.insert(None);
                true
            }
        }
    }

    /// Sets the flag of a call; whether it is open.
    pub(super) fn cancel(&mut self, call_id: u64) -> bool {
        let flag = self.open.get(&call_id);
        flag.iter().copied().flatten().for_each(CancelFlag::set);
        flag.is_some()
    }

    /// Nobody waits for any call any more.
    pub(super) fn forget_all(&mut self) {
        self.open.drain().filter_map(|(_, flag)| flag).for_each(|flag| flag.set());
    }

    pub(super) fn fits(&self, member: u32, body: &impl Body) -> bool {
        let frame_bytes = frame_len(Numbers::NONE, member, body.body_len());
        frame_bytes.saturating_sub(LENGTH_BYTES) <= self.gateway_frame_max
    }

    pub(super) fn put(&mut self, member: u32, body: &impl Body) {
        put_frame(&mut self.output, Numbers::NONE, member, body);
    }

    /// Refuses a call that was never run.
    pub(super) fn refuse(&mut self, call_id: u64, code: Code, reason: Reason) {
        let reply = ReplyView {
            call_id,
            status: code.to_wire(),
            reason: reason.into(),
            execution: Execution::NotExecuted.into(),
            ..ReplyView::default()
        };
        self.put(to_gateway::REPLY, &reply);
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.forget_all();
    }
}
