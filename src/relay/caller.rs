//! Who asks: captured when a session opens, encoded once, copied into each of its calls.

use crate::base::ids::SessionId;
use moorgate_proto::v1;
use prost::Message;
use std::net::IpAddr;
use std::sync::Arc;

/// A session's identity as services and the access log see it.
#[derive(Debug, PartialEq, Eq)]
pub struct Caller {
    /// Empty: anonymous.
    pub user_id: Arc<str>,
    /// The session.
    pub session_id: SessionId,
    /// Where the client connects from.
    pub peer: IpAddr,
    /// The encoded [`v1::Caller`].
    pub encoded: Box<[u8]>,
}

impl Caller {
    /// Encodes who asks.
    pub fn new(session_id: SessionId, peer: IpAddr, caller: &v1::Caller) -> Caller {
        Caller {
            user_id: caller.user_id.as_str().into(),
            session_id,
            peer,
            encoded: caller.encode_to_vec().into_boxed_slice(),
        }
    }

    /// What services are told of it.
    pub fn who(&self) -> v1::Caller {
        // It was encoded here: it can be read.
        v1::Caller::decode(&*self.encoded).unwrap_or_default()
    }

    /// Whether nobody has logged in.
    pub fn is_anonymous(&self) -> bool {
        self.user_id.is_empty()
    }
}
