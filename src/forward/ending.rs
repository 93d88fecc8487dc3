//! How links end: lost with their connection, or ended from this side, which settles what was read on them, writes what is
//! owed, and says why where the service has broken the contract.

use super::Forwarder;
use super::LinkCommand;
use super::link::{LINGER, LastPing, Link, Purpose, Refusal, State};
use super::place::Place;
use crate::base::counters::Count;
use crate::base::ids::LinkKey;
use log::Level;
use moorgate_proto::codec::FrameError;
use moorgate_proto::envelope::EnvelopeError;
use moorgate_proto::envelope::member::to_service;
use moorgate_proto::status::Code;
use moorgate_proto::time::Mono;
use moorgate_proto::v1::{self, Reason};

/// Why a link ends from this side.
#[derive(Debug)]
pub(super) enum LinkEnd {
    Frame(FrameError),
    Envelope(EnvelopeError),
    Malformed(u32),
    Unexpected(u32),
    Refused(Refusal),
    /// The service asks for answers and does not read them.
    Unread,
    /// The service sent an Error.
    Told(String),
    OpeningTimeout,
    Silence,
    /// The service drains, and its calls have their replies.
    Drained,
    /// The endpoint has left, and no call is outstanding on it.
    Left,
    /// The service has ended its stream.
    Over,
    /// A bulk link without large frames.
    Idle,
    /// A bulk link whose main link ends.
    MainEnded,
}

impl std::fmt::Display for LinkEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LinkEnd::Frame(error) => error.fmt(f),
            LinkEnd::Envelope(error) => error.fmt(f),
            LinkEnd::Malformed(member) => write!(f, "member {member} is not the message it should be"),
            LinkEnd::Unexpected(member) => write!(f, "member {member} is not legal now"),
            LinkEnd::Refused(refusal) => refusal.fmt(f),
            LinkEnd::Unread => f.write_str("the service asks for answers and does not read them"),
            LinkEnd::Told(message) => write!(f, "the service says: {}", message.escape_debug()),
            LinkEnd::OpeningTimeout => f.write_str("no HelloAck in time"),
            LinkEnd::Silence => f.write_str("silence for twice the heartbeat interval"),
            LinkEnd::Drained => f.write_str("the service drains"),
            LinkEnd::Left => f.write_str("it has left the registry"),
            LinkEnd::Over => f.write_str("the service closed it"),
            LinkEnd::Idle => f.write_str("there is nothing large to send"),
            LinkEnd::MainEnded => f.write_str("its main link ends"),
        }
    }
}

impl From<FrameError> for LinkEnd {
    fn from(error: FrameError) -> LinkEnd {
        LinkEnd::Frame(error)
    }
}

impl From<EnvelopeError> for LinkEnd {
    fn from(error: EnvelopeError) -> LinkEnd {
        LinkEnd::Envelope(error)
    }
}

impl LinkEnd {
    /// The final LinkError; `None` for an end that needs none.
    fn error(&self) -> Option<v1::LinkError> {
        let (code, reason) = match self {
            LinkEnd::Frame(FrameError::TooLarge { .. }) => (Code::InvalidArgument, Reason::FrameTooLarge),
            LinkEnd::Envelope(_) | LinkEnd::Malformed(_) => (Code::InvalidArgument, Reason::FrameMalformed),
            LinkEnd::Unexpected(_) => (Code::InvalidArgument, Reason::ProtocolViolation),
            LinkEnd::Refused(Refusal::Version) => (Code::FailedPrecondition, Reason::VersionUnsupported),
            LinkEnd::Refused(Refusal::WrongService) => (Code::FailedPrecondition, Reason::IdentityMismatch),
            LinkEnd::Refused(Refusal::Proof | Refusal::ShortNonce) => {
                (Code::Unauthenticated, Reason::ProofInvalid)
            }
            LinkEnd::Unread => (Code::ResourceExhausted, Reason::WriteStalled),
            LinkEnd::OpeningTimeout => (Code::DeadlineExceeded, Reason::HandshakeTimeout),
            LinkEnd::Silence => (Code::DeadlineExceeded, Reason::HeartbeatTimeout),
            LinkEnd::Told(_)
            | LinkEnd::Drained
            | LinkEnd::Left
            | LinkEnd::Over
            | LinkEnd::Idle
            | LinkEnd::MainEnded => {
                return None;
            }
        };
        Some(v1::LinkError { status: code.to_wire(), reason: reason.into(), message: self.to_string() })
    }

    /// Whether the service has answered everything, or had the time for it: a last ping was sent before.
    fn is_orderly(&self) -> bool {
        matches!(self, LinkEnd::Drained | LinkEnd::Left | LinkEnd::Idle)
    }

    fn count(&self) -> Option<Count> {
        match self {
            LinkEnd::Refused(_) => Some(Count::LinkProofsRefused),
            LinkEnd::Frame(_)
            | LinkEnd::Envelope(_)
            | LinkEnd::Malformed(_)
            | LinkEnd::Unexpected(_)
            | LinkEnd::Unread => Some(Count::LinkGarbage),
            LinkEnd::Told(_)
            | LinkEnd::OpeningTimeout
            | LinkEnd::Silence
            | LinkEnd::Drained
            | LinkEnd::Left
            | LinkEnd::Over
            | LinkEnd::Idle
            | LinkEnd::MainEnded => None,
        }
    }
}

impl Forwarder {
    /// A link's connection failed, was reset, or must be given up: settles or sends elsewhere what was on it, and dials again
    /// later.
    pub fn link_lost(&mut self, now: Mono, key: LinkKey, why: &dyn std::fmt::Display) {
        let Some(link) = self.links.remove(key) else { return };
        self.commands.push_back(LinkCommand::Close(key));
        if !link.is_closing() {
            self.part(now, key, &link, why);
        } else if let Some(slot) = self.slot_mut(link.place)
            && slot.closing == Some(key)
        {
            slot.closing = None;
        }
    }

    /// The service has ended its stream, and may still read.
    pub fn link_over(&mut self, now: Mono, key: LinkKey) {
        let Some(link) = self.links.get(key) else { return };
        match link.state {
            State::Connecting(_) | State::Closing(_) | State::Finishing(_) => {
                self.link_lost(now, key, &LinkEnd::Over);
            }
            State::Opening { .. } | State::Ready | State::Draining => {
                self.end_link(now, key, &LinkEnd::Over);
                if let Some(link) = self.links.get_mut(key) {
                    link.is_over = true;
                }
                self.end_written(now, key);
            }
        }
        self.check_invariants();
    }

    /// Ends a link from this side: settles what was on it or sends it elsewhere, writes what the service is owed, and why it
    /// ends.
    pub(super) fn end_link(&mut self, now: Mono, key: LinkKey, why: &LinkEnd) {
        let Some(link) = self.links.get_mut(key) else { return };
        match link.state {
            State::Closing(_) => return,
            State::Finishing(_) => {
                // Nothing that follows can be read.
                link.state = State::Closing(now + LINGER);
                return self.arm_link(key, now + LINGER);
            }
            State::Connecting(_) | State::Opening { .. } | State::Ready | State::Draining => {}
        }
        if let Some(count) = why.count() {
            self.cells.count(count);
        }
        let is_finishing = link.is_bulk() && why.is_orderly();
        let mut closing = link.closing(now, is_finishing);
        if let Some(error) = why.error() {
            closing.put(to_service::ERROR, &error);
        }
        let gone = std::mem::replace(link, closing);
        self.arm_link(key, now + LINGER);
        self.list(key);
        self.part(now, key, &gone, why);
        if let Some(link) = self.links.get_mut(key).filter(|link| link.is_bulk() && why.error().is_none()) {
            if is_finishing {
                // A Reply that its service began before it read the end of the stream counts.
                link.assembler = gone.assembler;
            }
            return self.end_written(now, key);
        }
        // One of a slot: the descriptors of links that end are bounded by those of the links.
        let before = self.slot_mut(gone.place).and_then(|slot| slot.closing.replace(key));
        if let Some(before) = before {
            self.link_lost(now, before, &"another link ends in its place");
        }
        self.end_written(now, key);
    }

    /// The last bytes of a link that ends were written: so is the end of the stream.
    pub(super) fn end_written(&mut self, now: Mono, key: LinkKey) {
        let Some(link) = self.links.get(key).filter(|link| link.is_closing()) else { return };
        if !link.output.is_empty() {
            return;
        }
        match link.is_over {
            true => self.link_lost(now, key, &LinkEnd::Over),
            false => self.commands.push_back(LinkCommand::EndStream(key)),
        }
    }

    /// Takes a link that is gone out of everything.
    fn part(&mut self, now: Mono, key: LinkKey, gone: &Link, why: &dyn std::fmt::Display) {
        if let Purpose::Bulk(main) = gone.purpose {
            return self.part_bulk(now, (key, main), gone, why);
        }
        let place = gone.place;
        self.cells.count(if gone.is_open() { Count::LinksLost } else { Count::LinksFailed });
        self.unready(now, gone);
        let has_lasted = gone.has_lasted(now, self.settings.reconnect_max);
        self.log_end(place, (gone.is_open(), has_lasted), why);
        let is_told = self.settle_link(now, key, gone);
        if gone.checks > 0 {
            self.unanswered_checks(now, key, is_told);
        }
        self.end_bulk_of(now, gone);
        self.elect_another(key, place);
        self.settle_stranded(now, place.service);
        // What kept to this link is free to take another.
        self.send_waiting(now, place.service);
        self.redial(now, gone, has_lasted);
    }

    /// For the operator.
    fn log_end(&mut self, place: Place, (was_open, has_lasted): (bool, bool), why: &dyn std::fmt::Display) {
        let reconnect_max = self.settings.reconnect_max;
        let (failures, short_lived) =
            self.slot_mut(place).map_or((0, 0), |slot| (slot.failures, slot.short_lived));
        let name = self.service(place.service).map_or("", |service| &service.settings.name);
        let Some(endpoint) = self.endpoint(place).filter(|_| !self.stopping) else { return };
        let address = endpoint.address;
        let level = level(if was_open { short_lived } else { failures }, endpoint.is_leaving);
        let is_loud = level == Level::Warn;
        match was_open {
            true if has_lasted || !is_loud => {
                log::log!(level, "service {name}: link to {address} ended: {why}");
            }
            true => log::warn!(
                "service {name}: link to {address} ended: {why}; it is dialled with growing delays, and logged again once a \
                 link has lasted {reconnect_max:?}"
            ),
            false if is_loud => {
                log::warn!("service {name}: no link to {address}: {why}; it is tried until there is one");
            }
            false => log::log!(level, "service {name}: no link to {address}: {why}"),
        }
    }

    /// Ends a link that drains, or whose endpoint leaves, once no call is outstanding on it. What its service has sent
    /// until then is still to be read: it comes before the answer to a last ping.
    pub(super) fn end_finished(&mut self, now: Mono, key: LinkKey) {
        let until = now + self.settings.connect_timeout;
        let Some(link) = self.links.get_mut(key).filter(|link| link.is_finished()) else { return };
        if link.last_ping.is_some() {
            return;
        }
        if let Some(bulk) = link.bulk.link {
            // First the bulk link, on which pushes may be under way too.
            if let Some(bulk) = self.links.get_mut(bulk) {
                bulk.is_leaving = true;
            }
            return self.end_finished(now, bulk);
        }
        if !link.is_open() {
            // Nothing has come on it that counts.
            return self.link_lost(now, key, &LinkEnd::Left);
        }
        // Not that of another ping of the same turn.
        let nonce = !now.as_nanos();
        link.last_ping = Some(LastPing::new(nonce, until));
        link.put(to_service::PING, &v1::LinkPing { nonce, view: None });
        self.list(key);
        self.arm_link(key, until);
    }

    /// A pong was received, or the time for the answer to a last ping has ended.
    pub(super) fn answered_ping(&mut self, now: Mono, key: LinkKey, nonce: Option<u64>) {
        let Some(link) = self.links.get(key) else { return };
        let is_last = link.last_ping.is_some_and(|ping| nonce.is_none_or(|nonce| ping.nonce == nonce));
        if is_last && link.is_finished() {
            let why = match link.is_leaving {
                true if link.is_bulk() => LinkEnd::Idle,
                true => LinkEnd::Left,
                false => LinkEnd::Drained,
            };
            self.end_link(now, key, &why);
        } else if is_last && let Some(link) = self.links.get_mut(key) {
            debug_assert!(false, "no call is sent behind a last ping");
            link.last_ping = None;
            self.arm_ping(now, key);
        }
    }
}

/// How loudly the end of a link is logged: an endpoint that leaves is expected to lose its links, and one that is down, or
/// whose links do not last, is logged once, not at every attempt.
fn level(attempts: u32, is_leaving: bool) -> Level {
    if is_leaving || attempts > 0 { Level::Debug } else { Level::Warn }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_expected_is_a_warning() {
        for (attempts, is_leaving, expected) in [
            (0, false, Level::Warn),
            (1, false, Level::Debug),
            (0, true, Level::Debug),
            (1, true, Level::Debug),
        ] {
            assert_eq!(level(attempts, is_leaving), expected);
        }
    }
}
