//! Pushes to the sessions of this shard, in the order in which they came, a bounded number in each turn: a push to
//! everyone delays nobody's request, and its frames leave before the next ones are made.

use super::Shard;
use crate::base::clock::Now;
use crate::base::counters::Count;
use crate::base::ids::SessionKey;
use crate::relay::{Audience, Caller, Push, PushOrder, Receipt, ReceiptTo};
use crate::session::{Lost, Pushed, Room, Sending, Session};
use moorgate_proto::v1::Reason;
use std::sync::Arc;

/// Deliveries of one turn.
const DELIVERIES_PER_TURN: usize = 512;
/// Bytes of the bodies of these: what their outputs hold at once.
const DELIVERY_BYTES_PER_TURN: usize = 4 * 1024 * 1024;
/// Receipts that wait for one worker; beyond it they are lost, and counted.
const RECEIPTS_MAX: usize = 64 * 1024;

/// A push that some of its receivers have not got.
#[derive(Debug)]
pub(super) struct Fanout {
    push: Arc<Push>,
    /// Who was there when it came.
    receivers: Box<[SessionKey]>,
    next: usize,
    reserved: usize,
}

impl Shard {
    /// A push has come: it takes its place behind those before it.
    pub(super) fn push_ordered(&mut self, order: PushOrder) {
        let PushOrder { push, audience, reserved } = order;
        let receivers = match audience {
            Audience::Sessions(sessions) => sessions,
            Audience::Group(name) => {
                self.groups.find(&name).map(|group| group.members.as_slice().into()).unwrap_or_default()
            }
            Audience::Everyone => self.sessions.keys().collect(),
        };
        self.fanouts.push_back(Fanout { push, receivers, next: 0, reserved });
    }

    /// Whether pushes wait for [`Shard::fan_out`].
    pub fn is_fanning_out(&self) -> bool {
        !self.fanouts.is_empty()
    }

    /// Hands out what fits into a turn.
    pub fn fan_out(&mut self, now: Now) {
        let (mut deliveries, mut bytes) = (0usize, 0usize);
        while deliveries < DELIVERIES_PER_TURN && bytes < DELIVERY_BYTES_PER_TURN {
            let Some(fanout) = self.fanouts.front_mut() else { break };
            let Some(session) = fanout.receivers.get(fanout.next).copied() else {
                self.directory.unreserve(self.batch.shard, fanout.reserved);
                self.fanouts.pop_front();
                // A push without receivers is work too.
                deliveries = deliveries.saturating_add(1);
                continue;
            };
            fanout.next = fanout.next.saturating_add(1);
            let push = fanout.push.clone();
            bytes = bytes.saturating_add(push.body.len());
            deliveries = deliveries.saturating_add(1);
            self.deliver(now, session, &push);
        }
        self.check_invariants();
    }

    fn deliver(&mut self, now: Now, session_key: SessionKey, push: &Arc<Push>) {
        if self.sessions.get(session_key).is_none() {
            self.cells.count(Count::PushesNobody);
            if let Some(to) = push.receipt.clone() {
                let session_id = self.directory.id_of(self.session_ref(session_key));
                let lost = Some(Reason::ResumeUnknownSession);
                self.receipt(Receipt { to, session_id, user_id: "".into(), lost });
            }
            return;
        }
        // If it waited too long before it came to its turn here, it is given up as if it had waited in the session.
        let at_once = push.expires > now.mono;
        self.offer(now, session_key, push, at_once);
    }

    fn offer(&mut self, now: Now, session_key: SessionKey, push: &Arc<Push>, at_once: bool) {
        let room = self.push_room();
        let key = self.sessions.get(session_key).and_then(Session::connection);
        if let Some(key) = key.filter(|_| at_once) {
            self.buffer(key);
        }
        let high = self.settings.output_bytes_high;
        let connection = key.filter(|_| at_once).and_then(|key| self.connections.get_mut(key));
        let out = connection.map(|it| &mut it.output).filter(|output| !output.is_above(high));
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        let sending = Sending {
            admitted: session.up.admitted(),
            window_max: self.session_settings.window_max as usize,
            out: out.map(|output| &mut output.bytes),
            room,
            bounds: self.session_settings.bounds(),
        };
        let held = session.down.kept_bytes();
        let mut lost = Lost::default();
        let frame_bytes_max = session.frame_bytes_max();
        let became = session.down.push(push, sending, frame_bytes_max, &mut lost);
        self.owed_bytes = self.owed_bytes.saturating_sub(held).saturating_add(session.down.kept_bytes());
        match became {
            Pushed::Written => {
                self.cells.count(Count::FramesSent);
                self.cells.count(Count::PushesSent);
                key.into_iter().for_each(|key| self.list(key));
            }
            Pushed::Waiting => self.cells.count(Count::PushesWaiting),
            Pushed::GivenUp => {}
        }
        self.lose(session_key, lost);
        if let Some(key) = key.filter(|_| became != Pushed::Written) {
            // A gap may be told at once; so may what waits only since its time was over.
            self.pump(now, key);
        }
    }

    /// Whether sessions may keep pushes whole, as far as all of them go.
    pub(super) fn push_room(&self) -> Room {
        match self.pushes.value() < self.settings.push_bytes_soft {
            true => Room::Whole,
            false => Room::Bare,
        }
    }

    /// Counts what was given up, and tells who wants to know.
    pub(super) fn lose(&mut self, session_key: SessionKey, lost: Lost) {
        self.cells.add(Count::PushesOverflowed, lost.overflowed);
        self.cells.add(Count::PushesExpired, lost.expired);
        self.cells.add(Count::PushesCollapsed, lost.collapsed);
        if lost.receipts.is_empty() {
            return;
        }
        let Some(caller) = self.sessions.get(session_key).map(|session| session.caller.clone()) else {
            return;
        };
        for (to, why) in lost.receipts {
            self.receipt(receipt(to, &caller, Some(why)));
        }
    }

    /// The client has taken these pushes.
    pub(super) fn taken(&mut self, session_key: SessionKey, taken: Vec<Arc<ReceiptTo>>) {
        let Some(caller) = self.sessions.get(session_key).map(|session| session.caller.clone()) else {
            return;
        };
        for to in taken {
            self.receipt(receipt(to, &caller, None));
        }
    }

    /// A session has ended: what it had not acknowledged is lost.
    pub(super) fn lose_all(&mut self, session: &mut Session) {
        let caller = &session.caller;
        let lost = Some(Reason::ResumeUnknownSession);
        session.down.end(|to| self.receipt(receipt(to, caller, lost)));
    }

    fn receipt(&mut self, receipt: Receipt) {
        let worker = receipt.to.worker.index();
        if self.receipts.len() <= worker {
            self.receipts.resize_with(worker.saturating_add(1), Vec::new);
        }
        match self.receipts.get_mut(worker) {
            Some(receipts) if receipts.len() < RECEIPTS_MAX => receipts.push(receipt),
            _ => self.cells.count(Count::ReceiptsDropped),
        }
    }

    /// The receipts for a worker since the last call; the reactor takes them when there is room in the mailbox.
    pub fn take_receipts(&mut self, worker: usize) -> Option<Vec<Receipt>> {
        let receipts = self.receipts.get_mut(worker)?;
        (!receipts.is_empty()).then(|| std::mem::take(receipts))
    }
}

fn receipt(to: Arc<ReceiptTo>, caller: &Caller, lost: Option<Reason>) -> Receipt {
    Receipt { to, session_id: caller.session_id, user_id: caller.user_id.clone(), lost }
}
