//! A push: encoded once for everybody who gets it.

use super::Gauge;
use crate::base::ids::{ServiceId, SessionId, SessionKey, WorkerId};
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{Priority, Reason};
use std::sync::Arc;

/// What all receivers of one push share.
#[derive(Debug)]
pub struct Push {
    /// The encoded `v1::Push`.
    pub body: Box<[u8]>,
    /// When it is of no use any more, if it was not sent; [`Mono::NEVER`]: always of use.
    pub expires: Mono,
    /// What is given up first when too much waits.
    pub priority: Priority,
    /// A newer push with the same key takes the place of one that waits; empty: it takes nobody's.
    pub collapse_key: Box<str>,
    /// Who wants to know what became of it.
    pub receipt: Option<Arc<ReceiptTo>>,
    /// Its share of the memory for pushes, given back with the last that hold it.
    pub room: PushRoom,
}

/// Bytes of pushes that live, over all threads.
pub type PushGauge = Arc<Gauge>;

/// Bytes that one push takes from a [`PushGauge`] as long as it lives.
#[derive(Debug)]
pub struct PushRoom {
    gauge: PushGauge,
    bytes: usize,
}

impl PushRoom {
    /// Takes the room of a push.
    pub fn new(gauge: &PushGauge, bytes: usize) -> PushRoom {
        gauge.add(bytes);
        PushRoom { gauge: gauge.clone(), bytes }
    }
}

impl Drop for PushRoom {
    fn drop(&mut self) {
        self.gauge.subtract(self.bytes);
    }
}

/// Where the receipts of a push go: to the instance that pushed, by the worker that heard it.
#[derive(Debug, PartialEq, Eq)]
pub struct ReceiptTo {
    /// Which worker.
    pub worker: WorkerId,
    /// Which service.
    pub service: ServiceId,
    /// Which of its endpoints, as `forward` numbers them.
    pub endpoint: u32,
    /// How the service calls the push.
    pub push_id: Box<[u8]>,
}

/// Who gets a push on one shard.
#[derive(Debug)]
pub enum Audience {
    /// These sessions.
    Sessions(Box<[SessionKey]>),
    /// The members of a group.
    Group(Arc<str>),
    /// Every session.
    Everyone,
}

/// A push on its way to one shard.
#[derive(Debug)]
pub struct PushOrder {
    /// What.
    pub push: Arc<Push>,
    /// To whom.
    pub audience: Audience,
    /// The room for deliveries that was taken for it in the directory.
    pub reserved: usize,
}

/// What became of a push to one session.
#[derive(Debug)]
pub struct Receipt {
    /// Who wants to know.
    pub to: Arc<ReceiptTo>,
    /// The receiver.
    pub session_id: SessionId,
    /// Its user; empty: anonymous.
    pub user_id: Arc<str>,
    /// Why it was lost; `None`: the client has acknowledged it.
    pub lost: Option<Reason>,
}
