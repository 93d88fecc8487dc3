//! From a connection to a session: the first frame.

use super::connection::State;
use super::{CloseReason, Drain, Shard};
use crate::base::clock::Now;
use crate::base::counters::Count;
use crate::base::ids::ConnectionKey;
use crate::session::{self, Fault, OpeningContext, Session};
use moorgate_proto::envelope::Envelope;
use moorgate_proto::envelope::member::{client, gateway};
use moorgate_proto::v1;
use prost::Message;

impl Shard {
    /// The first frame of a connection: a Hello, or its end.
    pub(super) fn first_frame(
        &mut self,
        now: Now,
        key: ConnectionKey,
        envelope: Envelope<'_>,
    ) -> Result<(), Fault> {
        let hello = match envelope.member {
            Some((client::HELLO, body)) => {
                v1::Hello::decode(body).map_err(|_| Fault::Malformed(client::HELLO))?
            }
            Some((member, _)) => return Err(Fault::UnexpectedFrame(member)),
            None => return Err(Fault::UnexpectedFrame(0)),
        };
        if envelope.numbers.seq != 0 {
            return Err(Fault::NumberUnexpected(client::HELLO));
        }
        if envelope.numbers.ack != 0 {
            return Err(Fault::AckBeyondSent { sent: 0, got: envelope.numbers.ack });
        }
        if self.drain != Drain::No {
            return Err(Fault::Shutdown);
        }
        self.open(now, key, hello)
    }

    fn open(&mut self, now: Now, key: ConnectionKey, hello: v1::Hello) -> Result<(), Fault> {
        let Some(peer) = self.connections.get(key).map(|connection| connection.peer) else {
            return Ok(());
        };
        let context = OpeningContext { keys: &self.keys, settings: &self.session_settings, peer };
        let opened = session::open(now, hello, context)?;
        let id = self.next_session_id();
        let caller = opened.caller(id);
        self.may_open(now, &caller)?;
        let roles = self.routes.role_mask(opened.roles.iter().map(String::as_str));
        let welcome = session::welcome(now, &opened, &caller, &self.session_settings);
        self.cells.count(Count::SessionsOpened);
        if caller.is_anonymous() {
            self.cells.count(Count::SessionsAnonymous);
        }
        let session = self.sessions.insert(Session::new(key, &opened, roles, caller));
        if let Some(connection) = self.connections.get_mut(key) {
            connection.state = State::Open(session);
            self.handshakes = self.handshakes.saturating_sub(1);
        }
        self.put(key, gateway::WELCOME, &welcome);
        self.arm_session(key);
        Ok(())
    }

    /// Ends a connection whose peer broke the contract, and says in the log who else calls here.
    pub(super) fn fault(&mut self, now: Now, key: ConnectionKey, fault: Fault) {
        if let Fault::Frame(moorgate_proto::codec::FrameError::TooLarge { announced, .. }) = fault
            && let Some(protocol) = super::greeting::protocol_of(announced)
            && let Some(peer) = self.connections.get(key).map(|connection| connection.peer)
            && self.greetings.is_due(now.mono, peer.ip())
        {
            log::info!("{peer}: speaks {protocol}, not this protocol");
        }
        self.offence_of(now, key, &fault);
        self.close(now, key, CloseReason::Fault(fault));
    }
}
