//! For tests: pushes.

use crate::base::ids::{ServiceId, WorkerId};
use crate::relay::{Gauge, Push, PushRoom, ReceiptTo};
use moorgate_proto::time::Mono;
use moorgate_proto::v1::Priority;
use std::sync::Arc;

/// A push to be; each wants a receipt.
pub(crate) struct PushDraft<'a> {
    pub(crate) body: &'a [u8],
    pub(crate) expires: Mono,
    pub(crate) priority: Priority,
    pub(crate) collapse_key: &'a str,
}

impl PushDraft<'_> {
    pub(crate) fn of(body: &[u8]) -> PushDraft<'_> {
        PushDraft { body, expires: Mono::NEVER, priority: Priority::Normal, collapse_key: "" }
    }

    pub(crate) fn push(&self) -> Arc<Push> {
        let to = ReceiptTo {
            worker: WorkerId(0),
            service: ServiceId(0),
            endpoint: 1,
            push_id: self.body.get(..1).unwrap_or_default().into(),
        };
        Arc::new(Push {
            body: self.body.into(),
            expires: self.expires,
            priority: self.priority,
            collapse_key: self.collapse_key.into(),
            receipt: Some(Arc::new(to)),
            room: PushRoom::new(&Arc::new(Gauge::default()), self.body.len()),
        })
    }
}

pub(crate) fn push(body: &[u8]) -> Arc<Push> {
    PushDraft::of(body).push()
}
