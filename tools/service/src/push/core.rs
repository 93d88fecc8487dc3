//! Pushes of one service over all its links, without I/O.
//!
//! ```text
//!  one push at one gateway
//!
//!  submit ──► waiting ── there is room on the carrier: Send ──► sent ── PushResult ──► answered
//!    │           ▲  │                                           │  └── the timeout: unknown
//!    │           └──│──── the link is lost ─────────────────────┘
//!    │              └── the timeout: not sent, or unknown if it was sent before
//!    └── not granted, too large: refused
//! ```
//!
//! A push goes to the gateways that are connected when it is submitted. At each, one link carries the pushes as long as it
//! is ready, so that they keep their order; what was sent on a link that is lost is sent again, under the same id, on
//! another one of the same gateway. Once each gateway has answered, or the time is over, there is one report.

use super::EncodedPush;
use super::report::{Answer, PushReport, join};
use crate::core::{GatewayKey, Peer};
use crate::push::PushId;
use moorgate_proto::codec::{LENGTH_BYTES, frame_len};
use moorgate_proto::envelope::Numbers;
use moorgate_proto::envelope::member::to_gateway;
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{PushResult, Reason};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Names a link for as long as the service runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId {
    /// Where it is kept.
    pub index: usize,
    /// Never used twice.
    pub serial: u64,
}

/// What is to be done; a `T` names who waits for a report.
#[derive(Debug, Clone)]
pub enum Action<T> {
    /// Send this ServicePush on this link.
    Send {
        /// The carrier.
        link: LinkId,
        /// The encoded ServicePush.
        body: Arc<[u8]>,
    },
    /// Tell who waits.
    Report {
        /// All who have submitted it.
        waiters: Vec<T>,
        /// What became of it.
        report: PushReport,
    },
}

#[derive(Debug)]
struct Link {
    id: LinkId,
    pushes_max: usize,
    frame_bytes_max: usize,
    draining: bool,
}

/// The links of one gateway, and what it is still to be told. There is one as long as it has links or pushes.
#[derive(Debug, Default)]
struct Gateway {
    links: Vec<Link>,
    carrier: Option<LinkId>,
    /// In order; no push that has its report.
    waiting: VecDeque<PushId>,
    /// On the carrier, without a PushResult, in order; also pushes that have their report.
    sent: VecDeque<PushId>,
}

#[derive(Debug)]
enum Leg {
    Waiting { sent_before: bool },
    Sent,
    Answered(Answer),
}

#[derive(Debug)]
struct Pending<T> {
    push: EncodedPush,
    legs: Vec<(GatewayKey, Leg)>,
    deadline: Mono,
    waiters: Vec<T>,
}

/// See the module's page.
#[derive(Debug)]
pub struct Pushes<T> {
    timeout: Duration,
    gateways: BTreeMap<GatewayKey, Gateway>,
    pending: HashMap<PushId, Pending<T>>,
    /// One for each that is pending.
    deadlines: BTreeSet<(Mono, PushId)>,
    actions: VecDeque<Action<T>>,
}

impl<T> Pushes<T> {
    /// Nothing is pushed, nobody connected. A push has its report after `timeout` at the latest.
    pub fn new(timeout: Duration) -> Pushes<T> {
        Pushes {
            timeout,
            gateways: BTreeMap::new(),
            pending: HashMap::new(),
            deadlines: BTreeSet::new(),
            actions: VecDeque::new(),
        }
    }

    /// What to do next, until there is nothing.
    pub fn poll_action(&mut self) -> Option<Action<T>> {
        self.actions.pop_front()
    }

    /// Pushes without a report.
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether every push has its report.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// A link can carry pushes.
    pub fn link_ready(&mut self, id: LinkId, peer: &Peer) {
        let gateway = self.gateways.entry(peer.gateway.clone()).or_default();
        gateway.links.push(Link {
            id,
            pushes_max: peer.pushes_max as usize,
            frame_bytes_max: peer.frame_bytes_max,
            draining: false,
        });
        self.pump(&peer.gateway);
    }

    /// The gateway closes this link soon: another one carries what comes, if there is one.
    pub fn link_draining(&mut self, id: LinkId) {
        let links = self.gateways.values_mut().flat_map(|gateway| &mut gateway.links);
        links.filter(|link| link.id == id).for_each(|link| link.draining = true);
    }

    /// A link is gone.
    pub fn link_lost(&mut self, id: LinkId) {
        let Some((key, gateway)) =
            self.gateways.iter_mut().find(|(_, gateway)| gateway.links.iter().any(|link| link.id == id))
        else {
            return;
        };
        let key = key.clone();
        gateway.links.retain(|link| link.id != id);
        if gateway.carrier == Some(id) {
            gateway.carrier = None;
            let again: Vec<PushId> = gateway.sent.drain(..).collect();
            for push_id in again.into_iter().rev() {
                if let Some(leg) = self.pending.get_mut(&push_id).and_then(|pending| pending.leg(&key))
                    && matches!(leg, Leg::Sent)
                {
                    *leg = Leg::Waiting { sent_before: true };
                    gateway.waiting.push_front(push_id);
                }
            }
        }
        self.pump(&key);
    }

    /// Sends a push to everybody who is connected. One whose id is pending is that push, and has its report.
    pub fn submit(&mut self, now: Mono, push: EncodedPush, waiter: T) {
        if let Some(pending) = self.pending.get_mut(&push.id) {
            pending.waiters.push(waiter);
            return;
        }
        let id = push.id.clone();
        let connected: Vec<GatewayKey> = self.connected().cloned().collect();
        let mut legs = Vec::with_capacity(connected.len());
        for key in &connected {
            let Some(gateway) = self.gateways.get_mut(key) else { continue };
            let leg = match gateway.refusal(push.body.len()) {
                Some(answer) => Leg::Answered(answer),
                None => {
                    gateway.waiting.push_back(id.clone());
                    Leg::Waiting { sent_before: false }
                }
            };
            legs.push((key.clone(), leg));
        }
        let deadline = now + self.timeout;
        self.pending.insert(id.clone(), Pending { push, legs, deadline, waiters: vec![waiter] });
        self.deadlines.insert((deadline, id.clone()));
        for key in &connected {
            self.pump(key);
        }
        self.settle(&id);
    }

    /// A gateway has answered. What answers nothing is ignored.
    pub fn result(&mut self, link: LinkId, result: &PushResult) {
        let Some((key, gateway)) =
            self.gateways.iter_mut().find(|(_, gateway)| gateway.carrier == Some(link))
        else {
            return;
        };
        let key = key.clone();
        let Some(at) = gateway.sent.iter().position(|id| id.as_bytes() == &result.push_id[..]) else {
            return;
        };
        let Some(id) = gateway.sent.remove(at) else { return };
        if let Some(leg) = self.pending.get_mut(&id).and_then(|pending| pending.leg(&key))
            && matches!(leg, Leg::Sent)
        {
            *leg = Leg::Answered(Answer::of(result));
            self.settle(&id);
        }
        self.pump(&key);
    }

    /// When [`Pushes::timers`] has something to do.
    pub fn next_deadline(&self) -> Mono {
        self.deadlines.first().map_or(Mono::NEVER, |(deadline, _)| *deadline)
    }

    /// Reports what took too long.
    pub fn timers(&mut self, now: Mono) {
        while let Some((deadline, id)) = self.deadlines.first().cloned()
            && deadline <= now
        {
            self.give_up(&id);
        }
    }

    /// The service ends: reports everything.
    pub fn end(&mut self) {
        self.gateways.values_mut().for_each(|gateway| gateway.waiting.clear());
        self.timers(Mono::NEVER);
    }

    fn connected(&self) -> impl Iterator<Item = &GatewayKey> {
        self.gateways.iter().filter(|(_, gateway)| !gateway.links.is_empty()).map(|(key, _)| key)
    }

    fn give_up(&mut self, id: &PushId) {
        let Some(pending) = self.pending.get_mut(id) else { return };
        for (key, leg) in &mut pending.legs {
            let was_sent = match leg {
                Leg::Answered(_) => continue,
                Leg::Sent => true,
                Leg::Waiting { sent_before } => *sent_before,
            };
            if matches!(leg, Leg::Waiting { .. })
                && let Some(gateway) = self.gateways.get_mut(key)
            {
                // As a rule it is the first.
                if let Some(at) = gateway.waiting.iter().position(|waiting| waiting == id) {
                    gateway.waiting.remove(at);
                }
                gateway_is_over(&mut self.gateways, key);
            }
            *leg = Leg::Answered(Answer::missing(was_sent));
        }
        self.settle(id);
    }

    /// Reports a push that every gateway has answered.
    fn settle(&mut self, id: &PushId) {
        let is_answered = |(_, leg): &(GatewayKey, Leg)| matches!(leg, Leg::Answered(_));
        if !self.pending.get(id).is_some_and(|pending| pending.legs.iter().all(is_answered)) {
            return;
        }
        let Some(pending) = self.pending.remove(id) else { return };
        self.deadlines.remove(&(pending.deadline, pending.push.id.clone()));
        let answers = pending.legs.into_iter().filter_map(|(key, leg)| match leg {
            Leg::Answered(answer) => Some((key, answer)),
            Leg::Waiting { .. } | Leg::Sent => None,
        });
        let report = join(pending.push.id, pending.push.targets, answers.collect());
        self.actions.push_back(Action::Report { waiters: pending.waiters, report });
    }

    /// Sends what waits at a gateway, as far as it takes it.
    fn pump(&mut self, key: &GatewayKey) {
        let Some(gateway) = self.gateways.get_mut(key) else { return };
        while let Some(link) = gateway.carrier()
            && let Some(id) = gateway.waiting.pop_front()
        {
            let Some(pending) = self.pending.get_mut(&id) else { continue };
            let body = pending.push.body.clone();
            let Some(leg) = pending.leg(key) else { continue };
            *leg = Leg::Sent;
            gateway.sent.push_back(id);
            self.actions.push_back(Action::Send { link, body });
        }
        gateway_is_over(&mut self.gateways, key);
    }
}

/// Forgets a gateway that has neither links nor pushes.
fn gateway_is_over(gateways: &mut BTreeMap<GatewayKey, Gateway>, key: &GatewayKey) {
    if gateways.get(key).is_some_and(|gateway| gateway.links.is_empty() && gateway.waiting.is_empty()) {
        gateways.remove(key);
    }
}

impl<T> Pending<T> {
    fn leg(&mut self, key: &GatewayKey) -> Option<&mut Leg> {
        self.legs.iter_mut().find(|(gateway, _)| gateway == key).map(|(_, leg)| leg)
    }
}

impl Gateway {
    /// The link for the next push, if there is room. It stays the same until it is lost, or until it drains, there is
    /// another one, and all pushes on it have their results.
    fn carrier(&mut self) -> Option<LinkId> {
        let current = self.carrier.and_then(|id| self.links.iter().find(|link| link.id == id));
        if current.is_none_or(|link| link.draining) {
            let granting = self.links.iter().filter(|link| link.pushes_max > 0);
            let best = granting.min_by_key(|link| link.draining).map(|link| link.id);
            if best != self.carrier && !self.sent.is_empty() {
                return None;
            }
            self.carrier = best;
        }
        let link = self.links.iter().find(|link| Some(link.id) == self.carrier)?;
        (self.sent.len() < link.pushes_max).then_some(link.id)
    }

    /// What this gateway would say, or its links cannot carry.
    fn refusal(&self, body_bytes: usize) -> Option<Answer> {
        let granting = || self.links.iter().filter(|link| link.pushes_max > 0);
        if granting().next().is_none() {
            let message = "the gateway's configuration grants this service no pushes";
            return Some(Answer::refused(Code::PermissionDenied, Reason::GrantMissing, message));
        }
        let frame_bytes = frame_len(Numbers::NONE, to_gateway::PUSH, body_bytes).saturating_sub(LENGTH_BYTES);
        if granting().any(|link| frame_bytes > link.frame_bytes_max) {
            let message = "the push is larger than the gateway's largest frame";
            return Some(Answer::refused(Code::InvalidArgument, Reason::PayloadTooLarge, message));
        }
        None
    }
}
