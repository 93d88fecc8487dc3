//! Pushes: what a service tells clients that have not asked.
//!
//! A [`Push`] is handed to a [`Pusher`], which sends it to every gateway that is connected, and tells with a
//! [`PushReport`] what became of it. What decides is [`Pushes`], which has no I/O.

mod core;
mod pusher;
mod report;

#[cfg(test)]
mod tests;

pub use self::core::{Action, LinkId, Pushes};
pub use pusher::{PendingPush, PushError, Pusher};
pub(crate) use pusher::{Reporter, Submission};
pub use report::{GatewayAnswer, GatewayReport, PushReport, TargetState};

use crate::directive::Directive;
use bytes::Bytes;
use moorgate_proto::limits::{DIRECTIVES, NAME_BYTES};
use moorgate_proto::v1::{self, Priority, Reason, service_push::Target};
use prost::Message;
use std::sync::Arc;
use std::time::Duration;

/// Names a push, at most 64 bytes: the same id is the same push.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PushId(Bytes);

impl PushId {
    /// An id of the application's choice; `None`: it is empty, or too long.
    pub fn new(id: &[u8]) -> Option<PushId> {
        (1..=NAME_BYTES).contains(&id.len()).then(|| PushId(Bytes::copy_from_slice(id)))
    }

    /// As it stands on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What clients are to be told. It reaches those sessions of its targets that gateways know when it comes; who is
/// offline does not get it later.
///
/// ```
/// use moorgate_service::Push;
/// use std::time::Duration;
/// let push = Push::to_users(["alice", "bob"], 0x0220, &b"hello"[..]).with_ttl(Duration::from_secs(30)).with_receipt();
/// ```
#[derive(Debug, Clone)]
pub struct Push {
    message: v1::ServicePush,
}

impl Push {
    fn to(target: Target, command: u32, payload: impl Into<Bytes>) -> Push {
        let payload = payload.into();
        Push {
            message: v1::ServicePush { target: Some(target), command, payload, ..v1::ServicePush::default() },
        }
    }

    /// To all sessions of these users.
    pub fn to_users<'a>(
        user_ids: impl IntoIterator<Item = &'a str>,
        command: u32,
        payload: impl Into<Bytes>,
    ) -> Push {
        let user_ids = user_ids.into_iter().map(str::to_owned).collect();
        Push::to(Target::Users(v1::Users { user_ids }), command, payload)
    }

    /// To these sessions.
    pub fn to_sessions<'a>(
        session_ids: impl IntoIterator<Item = &'a [u8]>,
        command: u32,
        payload: impl Into<Bytes>,
    ) -> Push {
        let session_ids = session_ids.into_iter().map(Bytes::copy_from_slice).collect();
        Push::to(Target::Sessions(v1::Sessions { session_ids }), command, payload)
    }

    /// To all sessions of a group.
    pub fn to_group(group: &str, command: u32, payload: impl Into<Bytes>) -> Push {
        Push::to(Target::Group(group.to_owned()), command, payload)
    }

    /// To all sessions.
    pub fn to_everyone(command: u32, payload: impl Into<Bytes>) -> Push {
        Push::to(Target::Everyone(v1::Everyone {}), command, payload)
    }

    /// The same under this id, in place of a random one. A push whose id is still pending is that push.
    #[must_use]
    pub fn with_id(mut self, id: PushId) -> Push {
        self.message.push_id = id.0;
        self
    }

    /// The same with what happens to it when something must wait.
    #[must_use]
    pub fn with_priority(mut self, priority: Priority) -> Push {
        self.message.priority = priority.into();
        self
    }

    /// The same, given up when it was not sent to a client within this time.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Push {
        self.message.ttl_ms = u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX).max(1);
        self
    }

    /// The same, replacing an older push with this key to the same session that was not sent yet.
    #[must_use]
    pub fn with_collapse_key(mut self, key: &str) -> Push {
        key.clone_into(&mut self.message.collapse_key);
        self
    }

    /// The same, and the service wants to know which sessions had it: see
    /// [`Service::on_receipt`](crate::Service::on_receipt).
    #[must_use]
    pub fn with_receipt(mut self) -> Push {
        self.message.want_receipt = true;
        self
    }

    /// The same with the name of the payload's encoding.
    #[must_use]
    pub fn with_content_encoding(mut self, name: &str) -> Push {
        name.clone_into(&mut self.message.content_encoding);
        self
    }

    /// The same with W3C trace context.
    #[must_use]
    pub fn with_trace(mut self, trace: v1::Trace) -> Push {
        self.message.trace = Some(trace);
        self
    }

    /// The same, and each gateway does this too. One that has no grant for it refuses the push.
    #[must_use]
    pub fn with(mut self, directive: Directive) -> Push {
        self.message.directives.push(directive.0);
        self
    }

    fn check(&self) -> Result<(), PushError> {
        if self.message.directives.len() > DIRECTIVES {
            return Err(PushError::TooManyDirectives);
        }
        let needs_caller = |directive: &v1::Directive| Directive(directive.clone()).needs_caller();
        if self.message.directives.iter().any(needs_caller) {
            return Err(PushError::NoCaller);
        }
        Ok(())
    }

    fn encode(self) -> EncodedPush {
        let targets = match &self.message.target {
            Some(Target::Users(users)) => users.user_ids.len(),
            Some(Target::Sessions(sessions)) => sessions.session_ids.len(),
            Some(Target::Group(_) | Target::Everyone(_)) | None => 0,
        };
        let body = self.message.encode_to_vec().into();
        EncodedPush { id: PushId(self.message.push_id), targets, body }
    }
}

/// A push as every gateway gets it.
#[derive(Debug, Clone)]
pub struct EncodedPush {
    /// The same in all of them.
    pub id: PushId,
    /// How many it names one by one; 0: a group, or everyone.
    pub targets: usize,
    /// The encoded ServicePush.
    pub body: Arc<[u8]>,
}

/// What a client did with a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Which push.
    pub push_id: Bytes,
    /// Which session.
    pub session_id: Bytes,
    /// Whose session; empty: nobody's.
    pub user_id: String,
    /// The client has it; `false`: it is lost.
    pub acknowledged: bool,
    /// Why it is lost.
    pub reason: Reason,
}

impl Receipt {
    pub(crate) fn new(receipt: &v1::PushReceipt) -> Receipt {
        Receipt {
            push_id: receipt.push_id.clone(),
            session_id: receipt.session_id.clone(),
            user_id: receipt.user_id.clone(),
            acknowledged: receipt.acknowledged,
            reason: receipt.reason(),
        }
    }
}
