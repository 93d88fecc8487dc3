//! What a service did wrong without breaking the contract: it gets a LinkNotice, so that its people see it and not only ours.
//!
//! Of each kind a link carries at most one a second, with how often it happened since the one before.

use super::Forwarder;
use crate::base::counters::Count;
use crate::base::ids::LinkKey;
use moorgate_proto::envelope::member::to_service;
use moorgate_proto::limits::NAME_BYTES;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{self, link_notice::Kind};
use std::time::Duration;

/// Between two notices of a kind.
const INTERVAL: Duration = Duration::from_secs(1);

/// What a notice is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) link: LinkKey,
    /// 0: no call.
    pub(super) call_id: u64,
    /// Empty: no push.
    pub(super) push_id: &'a [u8],
}

/// What of one kind was not sent yet.
#[derive(Debug)]
pub(super) struct Pending {
    kind: Kind,
    /// When the last one was sent.
    sent: Mono,
    /// How often it happened since.
    count: u32,
}

fn message(kind: Kind) -> &'static str {
    match kind {
        Kind::DirectiveRefused => "a directive for which the service has no grant was left out",
        Kind::DirectiveInvalid => "a directive that cannot be carried out was left out",
        Kind::DirectivesTooMany => "a Reply with more than 16 directives: none of them was carried out",
        Kind::PresenceRefused => "a PresenceSubscribe of a service without the grant `presence` was ignored",
        Kind::ReplyTooLarge => "a Reply above frame_bytes_max: its call has failed with REPLY_TOO_LARGE",
        Kind::BulkWanted | Kind::Unspecified => "",
    }
}

impl Forwarder {
    /// Sends a notice, or counts it in the next one of its kind.
    pub(super) fn notice(&mut self, now: Mono, about: About<'_>, kind: Kind) {
        let Some(link) = self.links.get_mut(about.link).filter(|link| link.is_open()) else { return };
        let known = link.notices.iter().position(|pending| pending.kind == kind);
        let at = known.unwrap_or_else(|| {
            link.notices.push(Pending { kind, sent: Mono::NEVER, count: 0 });
            link.notices.len().saturating_sub(1)
        });
        let Some(pending) = link.notices.get_mut(at) else { return };
        pending.count = pending.count.saturating_add(1);
        if pending.sent != Mono::NEVER && now < pending.sent + INTERVAL {
            return;
        }
        pending.sent = now;
        let service = link.place.service;
        let notice = v1::LinkNotice {
            kind: kind.into(),
            message: message(kind).to_owned(),
            call_id: about.call_id,
            push_id: about.push_id.get(..NAME_BYTES).unwrap_or(about.push_id).to_vec().into(),
            count: std::mem::take(&mut pending.count),
        };
        link.put(to_service::NOTICE, &notice);
        let name = self.service(service).map_or("", |service| &service.settings.name);
        log::debug!("service {name}: {}", notice.message);
        self.cells.count(Count::LinkNotices);
        self.list(about.link);
    }
}
