//! Pushes of services: judged, encoded once, and sent to the shards where their receivers are. Each is answered at once:
//! nothing is promised but that it was queued.

use super::Forwarder;
use super::directives::session_id;
use super::link::ANSWERS_BYTES_MAX;
use super::notices::About;
use crate::base::clock::Now;
use crate::base::counters::Count;
use crate::base::ids::{LinkKey, ServiceId, SessionKey, ShardId};
use crate::directory::{Life, Recall};
use crate::relay::{Audience, Delivery, Push, PushOrder, PushRoom, Receipt, ReceiptTo};
use crate::routing::Right;
use moorgate_proto::bounded::{self, BoundedError};
use moorgate_proto::envelope::member::to_service;
use moorgate_proto::limits::{DIRECTIVES, FRAME_OVERHEAD, NAME_BYTES, PUSH_TARGETS, is_name};
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::push_result::Target;
use moorgate_proto::v1::service_push::Target as To;
use moorgate_proto::v1::{self, Reason};
use moorgate_proto::view::{Malformed, PushHead};
use prost::Message;
use std::sync::Arc;
use std::time::Duration;

/// Why a push is not carried.
type Refusal = (Code, Reason, &'static str);

const NO_ROOM: Refusal =
    (Code::ResourceExhausted, Reason::GatewayOverloaded, "too many pushes are under way");

/// Whom a push reaches.
#[derive(Debug, Default)]
struct Reach {
    /// What each explicit target is told.
    targets: Vec<Target>,
    /// For each shard, whom.
    shards: Vec<(ShardId, Audience, usize)>,
}

impl Reach {
    /// The named sessions among these, by shard; one that is named twice is one.
    fn sessions(&mut self, mut found: Vec<(ShardId, SessionKey)>) {
        found.sort_unstable_by_key(|(shard, key)| (*shard, key.to_u64()));
        found.dedup();
        for run in found.chunk_by(|(one, _), (other, _)| one == other) {
            let Some((shard, _)) = run.first() else { continue };
            let keys: Box<[SessionKey]> = run.iter().map(|(_, key)| *key).collect();
            self.shards.push((*shard, Audience::Sessions(keys), run.len()));
        }
    }
}

impl Forwarder {
    /// A push on a link, whose PushResult is put on the same link.
    ///
    /// # Errors
    /// When it is no push.
    pub(super) fn pushed(&mut self, now: Now, key: LinkKey, body: &[u8]) -> Result<(), Malformed> {
        match bounded::decode::<v1::ServicePush>(body) {
            Ok(push) => self.push(now, key, push),
            Err(BoundedError::TooMany) => {
                let invalid =
                    (Code::InvalidArgument, Reason::ProtocolViolation, "too many targets or directives");
                self.refuse_push(key, PushHead::decode(body)?.push_id, invalid);
            }
            Err(BoundedError::Malformed) => return Err(Malformed),
        }
        Ok(())
    }

    /// A push whose frame is above the largest that is taken.
    pub(super) fn push_too_large(&mut self, key: LinkKey, push_id: &[u8]) {
        let why = "the frame is above the largest that the gateway takes";
        self.refuse_push(key, push_id, (Code::InvalidArgument, Reason::PayloadTooLarge, why));
    }

    fn refuse_push(&mut self, key: LinkKey, push_id: &[u8], refusal: Refusal) {
        let result = self.refused(push_id, refusal);
        if let Some(link) = self.links.get_mut(key) {
            link.put_encoded(to_service::PUSH_RESULT, &result);
        }
        self.list(key);
    }

    fn push(&mut self, now: Now, link_key: LinkKey, push: v1::ServicePush) {
        let Some(link) = self.links.get(link_key) else { return };
        let (service, endpoint) = (link.place.service, link.place.id.0);
        let push_id = push.push_id.clone();
        let encoded: Arc<[u8]> = match self.recall(now.mono, service, &push_id) {
            Recall::Done(result) => {
                self.cells.count(Count::PushesRepeated);
                result
            }
            Recall::UnderWay => self.refused(&push_id, NO_ROOM),
            Recall::New => {
                let to = ReceiptTo { worker: self.worker, service, endpoint, push_id: (&*push_id).into() };
                match self.carry(now, link_key, to, push) {
                    Ok(targets) => {
                        self.cells.count(Count::PushesTaken);
                        let targets = targets.into_iter().map(Into::into).collect();
                        let result =
                            v1::PushResult { push_id: push_id.clone(), targets, ..v1::PushResult::default() };
                        let result: Arc<[u8]> = result.encode_to_vec().into();
                        if let Some(recent) = self.recent.get(service.index()) {
                            recent.done(&push_id, &result);
                        }
                        result
                    }
                    Err(refusal) => {
                        // A repeat is judged anew: the reason may have gone.
                        if let Some(recent) = self.recent.get(service.index()) {
                            recent.retract(&push_id);
                        }
                        self.refused(&push_id, refusal)
                    }
                }
            }
        };
        if let Some(link) = self.links.get_mut(link_key) {
            link.put_encoded(to_service::PUSH_RESULT, &encoded);
        }
        self.list(link_key);
    }

    /// What is known of a push; one without an id is new each time.
    fn recall(&self, now: Mono, service: ServiceId, push_id: &[u8]) -> Recall {
        match self.recent.get(service.index()) {
            Some(recent) if (1..=NAME_BYTES).contains(&push_id.len()) => recent.recall(now, push_id),
            _ => Recall::New,
        }
    }

    fn refused(&mut self, push_id: &[u8], (code, reason, message): Refusal) -> Arc<[u8]> {
        self.cells.count(match code {
            Code::ResourceExhausted => Count::PushesShed,
            _ => Count::PushesRefused,
        });
        let result = v1::PushResult {
            push_id: push_id.get(..NAME_BYTES).unwrap_or(push_id).to_vec().into(),
            status: code.to_wire(),
            reason: reason.into(),
            message: message.to_owned(),
            targets: Vec::new(),
        };
        result.encode_to_vec().into()
    }

    /// Sends a push to the shards; what each explicit target is told.
    fn carry(
        &mut self,
        now: Now,
        link: LinkKey,
        to: ReceiptTo,
        mut push: v1::ServicePush,
    ) -> Result<Vec<Target>, Refusal> {
        self.judge(to.service, &push)?;
        let about = About { link, call_id: 0, push_id: &push.push_id.clone() };
        self.direct_push(now, about, std::mem::take(&mut push.directives));
        let Reach { targets, shards } = self.reach(push.target.as_ref()).ok_or(NO_ROOM)?;
        let deliveries_max = self.settings.deliveries_max;
        for (at, (shard, _, count)) in shards.iter().enumerate() {
            if !self.directory.reserve(*shard, *count, deliveries_max) {
                for (shard, _, count) in shards.iter().take(at) {
                    self.directory.unreserve(*shard, *count);
                }
                return Err(NO_ROOM);
            }
        }
        if !shards.is_empty() {
            let push = Arc::new(self.encode_push(now, to, push));
            for (shard, audience, reserved) in shards {
                self.deliver(shard, Delivery::Push(PushOrder { push: push.clone(), audience, reserved }));
            }
        }
        Ok(targets)
    }

    /// Whether a push may be carried at all.
    fn judge(&self, service: ServiceId, push: &v1::ServicePush) -> Result<(), Refusal> {
        let invalid = |what| Err((Code::InvalidArgument, Reason::ProtocolViolation, what));
        let grants = self.service(service).map(|service| service.settings.grants).unwrap_or_default();
        let right = match &push.target {
            None => return invalid("a push without a target"),
            Some(To::Users(users)) if users.user_ids.len() > PUSH_TARGETS => {
                return invalid("too many users");
            }
            Some(To::Sessions(of)) if of.session_ids.len() > PUSH_TARGETS => {
                return invalid("too many sessions");
            }
            Some(To::Group(group)) if !is_name(group) => return invalid("a group's name has 1 to 128 bytes"),
            Some(To::Users(_) | To::Sessions(_)) => Right::Push,
            Some(To::Group(_)) => Right::Groups,
            Some(To::Everyone(_)) => Right::PushAll,
        };
        if !grants.has(right) || !self.may_direct(service, &push.directives) {
            return Err((Code::PermissionDenied, Reason::GrantMissing, "the service has no grant for it"));
        }
        if push.push_id.len() > NAME_BYTES {
            return invalid("a push id has at most 64 bytes");
        }
        if push.collapse_key.len() > NAME_BYTES || push.content_encoding.len() > NAME_BYTES {
            return invalid("a collapse key and a content encoding have at most 64 bytes");
        }
        if push.directives.len() > DIRECTIVES {
            return invalid("at most 16 directives");
        }
        if push.fragment.is_some() {
            return Err((Code::Unimplemented, Reason::FeatureNotNegotiated, "fragments are not served"));
        }
        let trace = push.trace.as_ref().map_or(0, Message::encoded_len);
        let bytes = push.payload.len().saturating_add(trace);
        if bytes.saturating_add(FRAME_OVERHEAD) > self.settings.client_frame_bytes_max {
            let why = "the payload fits into no frame for clients";
            return Err((Code::InvalidArgument, Reason::PayloadTooLarge, why));
        }
        if self.pushes.value().saturating_add(bytes) > self.settings.push_bytes_max {
            return Err(NO_ROOM);
        }
        Ok(())
    }

    /// Where the receivers are; `None`: more than there can be room for.
    fn reach(&self, target: Option<&To>) -> Option<Reach> {
        let mut reach = Reach::default();
        match target {
            Some(To::Users(users)) => {
                let mut found = Vec::new();
                for user_id in &users.user_ids {
                    if found.len() > self.settings.deliveries_max {
                        return None;
                    }
                    let mut told = if is_name(user_id) { Target::Offline } else { Target::Refused };
                    self.directory.sessions_of(user_id, |it| {
                        found.push((it.shard, it.key));
                        told = match (told, self.directory.life(it)) {
                            (Target::Queued, _) | (_, Life::Attached) => Target::Queued,
                            (_, Life::Detached) => Target::Waiting,
                            (told, Life::Ended) => told,
                        };
                    });
                    reach.targets.push(told);
                }
                reach.sessions(found);
            }
            Some(To::Sessions(sessions)) => {
                let mut found = Vec::new();
                for id in &sessions.session_ids {
                    let Some(id) = session_id(id) else {
                        reach.targets.push(Target::Refused);
                        continue;
                    };
                    let known = self.directory.session_of(id).map(|it| (it, self.directory.life(it)));
                    let told = match known {
                        Some((_, Life::Attached)) => Target::Queued,
                        Some((_, Life::Detached)) => Target::Waiting,
                        Some((_, Life::Ended)) | None => Target::Offline,
                    };
                    found.extend(known.filter(|_| told != Target::Offline).map(|(it, _)| (it.shard, it.key)));
                    reach.targets.push(told);
                }
                reach.sessions(found);
            }
            Some(To::Group(group)) => {
                let name: Arc<str> = group.as_str().into();
                self.directory.shards_of(&name, |shard, members| {
                    reach.shards.push((shard, Audience::Group(name.clone()), members as usize));
                });
            }
            Some(To::Everyone(_)) => {
                let sessions = |shard: &ShardId| self.directory.sessions(*shard);
                let shards = self.directory.shards().filter(|shard| sessions(shard) > 0);
                reach.shards.extend(shards.map(|shard| (shard, Audience::Everyone, sessions(&shard))));
            }
            None => {}
        }
        Some(reach)
    }

    fn encode_push(&self, now: Now, to: ReceiptTo, push: v1::ServicePush) -> Push {
        let ttl = Duration::from_millis(u64::from(push.ttl_ms));
        let priority = push.priority();
        let message = v1::Push {
            command: push.command,
            push_id: push.push_id,
            group: match push.target {
                Some(To::Group(group)) => group,
                _ => String::new(),
            },
            priority: priority.into(),
            expires_ms: if ttl.is_zero() { 0 } else { now.unix_ms.saturating_add(u64::from(push.ttl_ms)) },
            content_encoding: push.content_encoding,
            fragment: None,
            trace: push.trace,
            payload: push.payload,
        };
        let body = message.encode_to_vec().into_boxed_slice();
        Push {
            room: PushRoom::new(&self.pushes, body.len()),
            body,
            expires: if ttl.is_zero() { Mono::NEVER } else { now.mono + ttl },
            priority,
            collapse_key: push.collapse_key.into(),
            receipt: push.want_receipt.then(|| Arc::new(to)),
        }
    }

    /// What became of pushes: to the instances that want to know.
    pub fn receipts(&mut self, receipts: Vec<Receipt>) {
        for receipt in receipts {
            let Receipt { to, session_id, user_id, lost } = receipt;
            let unsent_max = self.settings.output_bytes_max.saturating_add(ANSWERS_BYTES_MAX);
            let link_key = self.link_to(to.service, to.endpoint);
            let link = link_key.and_then(|key| self.links.get_mut(key));
            let Some(link) = link.filter(|link| !link.output.is_above(unsent_max)) else {
                self.cells.count(Count::ReceiptsDropped);
                continue;
            };
            let message = v1::PushReceipt {
                push_id: to.push_id.to_vec().into(),
                session_id: session_id.0.to_vec().into(),
                user_id: user_id.to_string(),
                acknowledged: lost.is_none(),
                reason: lost.unwrap_or_default().into(),
            };
            link.put(to_service::PUSH_RECEIPT, &message);
            self.cells.count(Count::ReceiptsSent);
            if let Some(key) = link_key {
                self.list(key);
            }
        }
    }

    /// A link to this endpoint whose opening is over.
    fn link_to(&self, service: ServiceId, number: u32) -> Option<LinkKey> {
        let endpoints = self.service(service)?.endpoints.iter().flatten();
        let endpoint = endpoints.into_iter().find(|endpoint| endpoint.id.0 == number)?;
        endpoint.links(&self.links).find(|(_, link)| link.is_open()).map(|(key, _)| key)
    }
}
